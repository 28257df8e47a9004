/*
 * gateway_parts - what the files of this room share; nobody else includes it.
 * gateway.c: opens the rooms, signals, draining. reload.c: another configuration, other addresses. look_up.c: the
 * resolver. follow.c: what the control plane says. scrape.c, explain.c: what the operator reads. descriptors.c: whose
 * they are.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "descriptors.h"
#include "listener.h"
#include "look_up.h"
#include "refusal.h"
#include "text.h"

struct control;
struct control_options;
struct digest;
struct event;
struct event_base;
struct metrics_control;
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
    struct keyring *keys;    /* the snapshot's, or the control plane's; counted */
    struct control *control; /* NULL: the file says it all */
    struct text secret;      /* of an enrolment, until `control` is open */
    struct fleet *prepared;  /* for the snapshot that `control` is about to adopt */
    struct tally *tallies[MAX_WORKERS];
    const struct digest *cuts; /* while workers are told */
    size_t cut_count;
    uint64_t turn;
    enum cause refuses;
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
/* What is known now, to all workers. False: to some of them not whole, for want of memory. */
bool reload_tell_workers(struct gateway *gateway);
/* Before the workers know: what they ask for is granted by what is known here. */
void reload_tell_queues(struct gateway *gateway, const struct settings *settings, struct fleet *fleet);

/* follow.c. Control thread. */
/* As root: the folder, the secret. */
bool follow_prepare(struct gateway *gateway, struct text *why);
/* What is on the disk; the snapshot becomes that of file and control plane. */
bool follow_open(struct gateway *gateway, struct text *why);
/* The workers are there. */
bool follow_start(struct gateway *gateway, struct text *why);
/* A worker knows the news of some turn. */
void follow_turn(struct gateway *gateway);
void follow_scrape(const struct gateway *gateway, struct metrics_control *ret_control);
void follow_close(struct gateway *gateway);
