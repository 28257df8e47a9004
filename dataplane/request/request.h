/*
 * request - the story of one request, from its head to its log line: who asks, may they, what do they want, which
 * backend, the answer on its way, the books. This room calls limit, backend, upstream, dialect, kind and meter; those
 * never call each other. A request is made when a head has come, belongs to its client's connection, and ends on one
 * way only (request_end in request.c), where everything it holds is given back. Loop thread of its worker only.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client.h"
#include "text.h"

struct digest;
struct fleet;
struct keyring;
struct limits;
struct metrics_shard;
struct queue_home;
struct queues;
struct request;
struct snapshot;
struct tally;
struct upstream_pool;
struct wheel;

/* What a worker gives all its requests. */
struct request_house {
    struct client_house clients; /* its `worker` points back here */
    struct wheel *wheel;
    struct upstream_pool *pool;
    struct limits *limits;
    struct queues *queues;
    struct queue_home *home; /* where tickets wait that others have decided about */
    struct metrics_shard *metrics;
    struct snapshot *snapshot; /* current, counted: requests_know() */
    struct fleet *fleet;       /* the same */
    struct keyring *keys;      /* the same */
    unsigned refuses;          /* an enum cause, why whoever needs a key is refused; CAUSE_NONE: nobody is */
    struct tally *tally;       /* for the control plane; NULL: there is none */
    unsigned era;              /* how often these have been replaced */
    unsigned users;            /* requests of this era */
    const atomic_bool *is_draining;
    void (*nudge)(void *arg); /* tells the control thread that a probe is wanted */
    void *nudge_arg;
    struct text out; /* scratch for one write */
    struct request_list *lists;
};

extern const struct client_story request_story;

bool requests_open(struct request_house *house);
/* From now on requests begin with these, whose references are taken over; those that have begun keep theirs. */
void requests_know(struct request_house *house, struct snapshot *snapshot, struct fleet *fleet, struct keyring *keys);
/* Ends the requests of these keys, whatever they do, with what can still be said. */
void requests_cut(struct request_house *house, const struct digest *keys, size_t count);
void requests_release(struct request_house *house);
/* Frees requests that ended in this turn of the loop. */
void requests_reap(struct request_house *house);
/* Goes on with requests whose place in a queue others have decided about: when the home was rung, and once a turn. */
void requests_take_news(struct request_house *house);
/* Probes brought news: those that wait for a list of models look again. */
void requests_look_again(struct request_house *house);
/* drain_timeout is over: every open request is ended with what can still be said. */
void requests_end_all(struct request_house *house);

/* The state machine as a graph for `dot`: what --states prints. */
void request_print_states(struct text *out);
