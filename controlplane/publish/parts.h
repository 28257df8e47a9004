/*
 * parts - what the files of publish share. Not a door: others include publish.h.
 *
 * publish.c  opening and closing, waking, what is told to whom; frames
 * log.c      change_log, read in order into the tail
 * spool.c    snapshots: made from the views, kept in a file
 * pack.c, tail.c
 */
#pragma once
#include "codec.h"
#include "digest.h"
#include "publish.h"
#include "tail.h"

struct event;
struct answer;
struct question;
struct transaction;

struct piece {
    uint64_t at;
    uint32_t len;
};

/* One version whole. */
struct spool {
    uint64_t version;
    int fd; /* -1: there is none */
    struct piece *pieces;
    uint32_t count, room;
    uint64_t bytes, changes;
    struct digest sum;
};

/* The log's reading: behind `version` and `seq`, of which the tail has all but the last. */
struct reading {
    struct question *question;
    bool is_wanted; /* look again when this one has ended */
    bool has_begun; /* the tail has a base */
    bool is_partial;
    int64_t seq; /* of the version behind the newest, as far as it was read; -1: nothing of it */
    struct text bytes;
    uint64_t changes;
    uint64_t head; /* the newest version that was seen */
    uint64_t looks;
};

struct building {
    struct transaction *transaction;
    bool is_open;
    struct spool spool;
    struct digest_run sum;
    struct text piece;
    int64_t began_ms;
    int64_t not_before_ms; /* after one that came to nothing */
    bool is_wanted;
};

struct watch {
    struct watch *next;
    void (*on_news)(void *arg);
    void *arg;
};

struct publish {
    struct event_base *base;
    struct store *store;
    struct publish_options options;
    struct event *tick;
    struct tail tail;
    struct reading reading;
    struct building building;
    struct spool spool, spool_before;
    struct watch *watches;
    uint64_t delta_from, delta_to; /* of the frame that was asked for last */
    struct text delta, scratch, frame, why;
    uint64_t unpackable, spools_made;
    int64_t prune_ms; /* when to prune next */
    struct question *pruning;
};

/* publish.c */
void publish_news(struct publish *publish);
/* Says it, and counts it. */
void publish_left_out(struct publish *publish, uint64_t version, struct slice kind, struct slice id, struct slice why);

/* log.c */
void log_look(struct publish *publish);
void log_forget(struct publish *publish);

/* spool.c */
void spool_release(struct spool *spool);
/* Begins to make one, if one is due and none is being made. */
void spool_consider(struct publish *publish, int64_t now_ms);
void building_cancel(struct publish *publish);
/* Does a chain of deltas lead on from it? */
bool spool_is_usable(const struct publish *publish, const struct spool *spool);
