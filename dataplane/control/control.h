/*
 * control - the gateway's end of the pair: what the control plane says, from the link into the workers and onto the
 * disk. It follows the control plane by long polls, applies every update whole or not at all, and tells it by which
 * version the gateway answers its callers: all workers serve by it, and it would survive a kill -9.
 *
 * Owned by the gateway, driven by the control thread's loop; every function is that thread's. Threads of its own:
 * nng's, the scribe's (who waits for the disk). So the process must not fork() after control_start().
 *
 *     control_prepare ─► (root is given up) ─► control_open ─► workers ─► control_start … control_close
 *
 * Ages are by the monotonic clock while it runs; over a restart by the time of day.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "refusal.h"
#include "text.h"

struct arena;
struct control;
struct digest;
struct event_base;
struct keyring;
struct qw_load;
struct settings;
struct snapshot;
struct tally;

/* What all workers are to know. */
struct control_news {
    struct snapshot *snapshot; /* borrowed */
    struct keyring *keys;      /* borrowed */
    const struct digest *cuts; /* of keys whose requests end now */
    size_t cut_count;
    uint64_t turn;      /* to come back by control_turned() */
    enum cause refuses; /* whoever needs a key; CAUSE_NONE: nobody */
};

struct control_options {
    struct event_base *base;
    struct snapshot *file; /* of a file with `control`; a reference is taken */
    const char *version;   /* of the program: "0.1.0" */
    struct slice secret;   /* of control_prepare(); copied */
    /* Makes what goes with a snapshot (its fleet), without blocking, to be used by the next `adopt`. False: no memory.
     */
    bool (*prepare)(void *arg, struct snapshot *snapshot);
    /* To all workers. May come again with the same turn, where a worker has not confirmed it. */
    void (*adopt)(void *arg, const struct control_news *news);
    /* Fills in what there is now: running, waiting, models, backends. What it points to lies in the arena. */
    void (*measure)(void *arg, struct arena *arena, struct qw_load *load);
    void *arg;
};

/*
 * While root may still be needed: makes the folder `state` where it is missing, `user`'s own, and reads the secret of
 * an enrolment, if there is such a file. ERR_BAD, ERR_SYSTEM with one sentence.
 */
enum err control_prepare(const struct settings *settings, struct text *secret, struct text *why);
/* Reads what is on the disk. NULL, with one sentence. */
struct control *control_open(const struct control_options *options, struct text *why);
/* Dials. ERR_SYSTEM, with one sentence. */
enum err control_start(struct control *control, struct text *why);
/* What is not on the disk yet gets there first. NULL is fine. Returns NULL. */
struct control *control_close(struct control *control);

/* What is known now; workers begin with it. */
void control_know(const struct control *control, struct control_news *ret_news);
/* All workers serve by this turn's news. */
void control_turned(struct control *control, uint64_t turn);
/* The file was read again: what the control plane says is put over it. The snapshot, a reference for the caller, to be
 * adopted by him; NULL: `why` has one sentence, and nothing has changed. */
struct snapshot *control_reload(struct control *control, struct snapshot *file, struct text *why,
                                struct text *warnings);
/* What this worker counts is told to the control plane; it is freed after control_close(). False: too many. */
bool control_add_tally(struct control *control, struct tally *tally);

struct control_gauges {
    bool is_up, is_stale;
    int64_t heard_ms; /* ago; -1: never */
    uint64_t held, applied, apply_errors, loads_lost;
    uint64_t keys, journal_bytes;
    struct slice trouble; /* why it does not apply what it was sent, or cannot keep it; empty: it does */
};
void control_gauges(const struct control *control, struct control_gauges *ret_gauges);
/* The same for the operator's /readyz: ,"control":{…} */
void control_report(const struct control *control, struct text *out);
