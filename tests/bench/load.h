/*
 * load - the callers of the bench: what they ask, of whom, and what both kinds of load share. One thread, one epoll.
 * requests.c keeps some connections busy, each asking again as soon as it has its answer; streams.c holds many streams
 * and counts their tokens. Each prints one JSON object when it is done. Times are microseconds of CLOCK_MONOTONIC.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "watch.h"

struct load {
    struct sockaddr_in to;
    char *request; /* head and body, as it goes out */
    size_t request_bytes;
    int pid;     /* the process under test, 0: none is watched */
    int expects; /* the status of every answer */
    unsigned connections;
    unsigned warm_ms, run_ms;   /* requests */
    unsigned tokens, spread_ms; /* streams: pieces each, and over how long they start */
    int epoll;
};

uint64_t load_now_us(void);
/* Not blocking, without delay, watched for reading and writing on edges with `who` as its word. */
int load_connect(const struct load *load, void *who);
/* The cost between two looks, as members of a JSON object. `per` is what it is divided by. */
void load_print_cost(const struct watch *before, const struct watch *after, uint64_t per);

int load_requests(struct load *load);
int load_streams(struct load *load);
