/*
 * load - the callers of the bench: what they ask, of whom, and what the kinds of load share. One thread, one epoll.
 * requests.c keeps connections busy, or asks at a fixed rate whatever the answers do; streams.c holds many streams and
 * counts their tokens; start.c starts a program and asks until it answers. Each prints one JSON object when it is done.
 * Times are microseconds of CLOCK_MONOTONIC.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "watch.h"

struct load {
    struct sockaddr_in to;
    char *request; /* head and body, as it goes out */
    size_t request_bytes;
    int pid; /* the process under test, 0: none is watched */
    int backend_pid;
    int expects; /* the status of every answer */
    unsigned connections;
    unsigned warm_ms, run_ms;   /* requests */
    unsigned rate;              /* requests a second, evenly; 0: each connection asks again once it is answered */
    unsigned tokens, spread_ms; /* streams: pieces each, and over how long they start */
    int core;                   /* start: the one the program runs on; -1: any */
    char **command;             /* start: the program and its arguments */
    int epoll;
};

uint64_t load_now_us(void);
/* Not blocking, without delay, watched for reading and writing on edges with `who` as its word. */
int load_connect(const struct load *load, void *who);
/* Waits for events, until a moment at the latest; how many came. */
int load_wait(const struct load *load, struct epoll_event *events, int most, uint64_t until_us);
/*
 * What was used between two looks, as members of a JSON object: how long it took, how long the process under test ran
 * and how the kernel's ticks share that, how long callers and backend ran, and how long all cores together were busy.
 * Nothing is divided here, so that what was measured in parts can be added up.
 */
void load_print_cost(const struct watch *before, const struct watch *after);

int load_requests(struct load *load);
int load_streams(struct load *load);
int load_start(struct load *load);
