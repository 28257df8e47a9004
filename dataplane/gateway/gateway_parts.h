/*
 * gateway_parts - what the files of this room share; nobody else includes it.
 * gateway.c: opens the rooms, signals, draining. reload.c: another configuration, other addresses. look_up.c: the
 * resolver. scrape.c, explain.c: what the operator reads. descriptors.c: whose they are.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "descriptors.h"
#include "listener.h"
#include "look_up.h"

struct event;
struct event_base;
struct settings;
struct snapshot;

enum { MAX_WORKERS = 256, SIGNALS = 4 };

struct gateway {
    const char *file, *version;
    struct event_base *base;
    struct event *signals[SIGNALS];
    struct event *news, *delay, *deadline, *round, *queue_look;
    struct look_up look_up, reloading; /* the hosts of the fleet again; those of a new configuration */
    int news_fd;                       /* workers: a probe is wanted, or a worker has ended */
    struct snapshot *snapshot;
    struct fleet *fleet;
    struct limits *limits;
    struct queues *queues;
    struct metrics *metrics;
    struct metrics_shard *shard; /* the control thread's */
    struct prober *prober;
    struct operator* operator;
    struct listeners listeners;
    int operator_socket;
    struct worker *workers[MAX_WORKERS];
    unsigned worker_count;
    struct descriptors descriptors;
    atomic_uint workers_done;
    atomic_bool is_draining, wants_probe, is_crowded;
    bool has_ended_workers, reloads_again, has_probe_news;
    int64_t started_s;
    unsigned breakers_counted;
};

/* reload.c. Control thread. */
/* Reads the file again: takes it over now, or once its hosts are known, or says why not. */
void reload_begin(struct gateway *gateway);
/* News rang: what was looked up for a reload, or again. */
void reload_take(struct gateway *gateway);
void reload_take_looked_up(struct gateway *gateway);
/* Before the workers know: what they ask for is granted by what is known here. */
void reload_tell_queues(struct gateway *gateway, const struct settings *settings, struct fleet *fleet);
