/*
 * worker - one thread with its own loop: listeners, callers' connections, requests, connections to backends, deadlines.
 * Made and ended by the control thread; the functions below may be called from there and only leave a message.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "refusal.h"
#include "text.h"

struct digest;
struct fleet;
struct keyring;
struct limits;
struct metrics;
struct queues;
struct snapshot;
struct tally;
struct worker;

/* What a worker knows from some moment on. Of what is counted, references are taken. */
struct worker_news {
    struct snapshot *snapshot;
    struct fleet *fleet;
    struct keyring *keys;
    unsigned max_connections;  /* as far as descriptors go */
    enum cause refuses;        /* as in struct request_house */
    uint64_t turn;             /* for worker_turn(); rising */
    const struct digest *cuts; /* keys whose requests end now; copied */
    size_t cut_count;
};

struct worker_options {
    const int *listeners; /* listening sockets of this worker's own; it closes them */
    size_t listener_count;
    struct limits *limits;
    struct metrics *metrics;
    struct queues *queues;
    struct tally *tally;     /* NULL: nobody wants to know */
    struct worker_news news; /* what it begins with */
    int descriptor_limit;    /* descriptors from here on are not for callers and backends */
    unsigned worker_count;   /* how many share what is counted a process */
    const atomic_bool *is_draining;
    void (*nudge)(void *arg);   /* any thread: a probe is wanted */
    void (*crowd)(void *arg);   /* any thread: other workers shall make room */
    void (*on_turn)(void *arg); /* from the worker's thread: it knows the news now; may be NULL */
    void (*on_done)(void *arg); /* from the worker's thread: it has drained and is about to end */
    void *arg;
};

/* Starts the thread. NULL: no memory or no thread. */
struct worker *worker_start(const struct worker_options *options);
/* From now on these; requests that have begun keep theirs, but those that are cut. False: no memory for the cuts, and
 * nothing has changed. */
bool worker_update(struct worker *worker, const struct worker_news *news);
/* The turn of the news by which it serves: no request begins with older ones. One that has ended says UINT64_MAX. */
uint64_t worker_turn(const struct worker *worker);
/* Probes brought news. */
void worker_look_again(struct worker *worker);
/* Too many connections are open: those of yours that can be spared shall close. */
void worker_make_room(struct worker *worker);
/* Takes what is in the accept queue, then no more; ends when the last connection is closed. */
void worker_drain(struct worker *worker);
/* Ends what is still open, now. */
void worker_end_now(struct worker *worker);
/* Waits for the thread. What others decide about this worker's requests may still reach its letter box: it is freed
 * when all have been joined. */
void worker_join(struct worker *worker);
void worker_free(struct worker *worker);
