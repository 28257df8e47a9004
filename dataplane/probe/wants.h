/*
 * wants - the models that the configuration wants of one backend, and how they are there: which is missing, which is to
 * be loaded next, whether callers must wait until it is. News is passed in, with its time; what is wrong goes to the
 * backend as a finding. Inside this room only; the control thread's. Made anew with each configuration.
 *
 *     RESTS ─ start, recovery, restart, expiry, time to try again ─► DUE ─ asked to load ─► LOADING ─ answered ─► RESTS
 *
 * A model that was loaded and is not any more is loaded again when nothing at all is loaded, or when the backend did
 * not answer in between: then it has restarted, and callers wait. When only its keep_alive is over it is loaded again
 * too, without that. When another model has pushed it out it stays out, and that is a finding: the two would push each
 * other out in turn. Times are monotonic ms, those that end in _s seconds since 1970.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct backend;
struct catalog;
struct fleet_rule;
struct residents;
struct snapshot;

enum {
    WANT_AGAIN_MS = 30000, /* after a load has failed */
    WANT_LOST_MS = 1000,   /* after the connection was lost that asked for it */
    WANT_MAX_LOSSES = 5,   /* then it has failed */
    WANT_SKEW_S = 10,      /* by which the backend's clock and ours may differ */
};

enum want_state { WANT_RESTS, WANT_DUE, WANT_LOADING };

struct want {
    char *name;             /* normalised */
    const char *model;      /* as the configuration writes it */
    const char *keep_alive; /* as JSON; NULL: not sent */
    uint64_t num_ctx;       /* 0: not sent */
    bool is_preloaded;
    bool is_missing;   /* its list lacks it */
    bool was_resident; /* when residents were last seen */
    bool has_failed;   /* to load */
    enum want_state state;
    int64_t expires_s;   /* while it is resident; -1: not known */
    unsigned losses;     /* in a row: the connection that asked for it was lost */
    int64_t due_ms;      /* while DUE: not before */
    int64_t asked_ms;    /* when it was last asked to load */
    int64_t answered_ms; /* when the answer came */
};

struct wants {
    bool takes_all; /* no `models:`: callers may use whatever it lists */
    bool is_warming;
    int64_t warm_until_ms; /* 0: it counts from the first sign of life */
    size_t count;
    struct want at[]; /* sorted by name */
};

/* Their strings live as long as the snapshot. NULL: no memory. */
struct wants *wants_new(const struct snapshot *snapshot, const struct fleet_rule *rule);
void wants_free(struct wants *wants);
/* A new configuration: what is known of those that stay. What is new is loaded, but nobody waits for it. */
void wants_carry(struct wants *wants, const struct wants *old);
const struct want *wants_find(const struct wants *wants, struct slice name);

/* It starts, or it was away: whatever is to be loaded is due, and callers wait. */
void wants_begin(struct wants *wants, struct backend *backend, int64_t now_ms);
/* Its list of models came. */
void wants_see_catalog(struct wants *wants, struct backend *backend, const struct catalog *catalog);
/* What /api/ps said that set out at asked_ms. `was_quiet`: meanwhile it did not answer a probe. */
struct wants_look {
    int64_t asked_ms, now_ms, wall_s;
    bool was_quiet;
};
void wants_see_residents(struct wants *wants, struct backend *backend, const struct residents *residents,
                         const struct wants_look *look);

/* The next to load, or NULL: none is due, or one is loading. It is loading from here on. */
struct want *wants_load_next(struct wants *wants, int64_t now_ms);
/* The answer to that, with its status, 0 for none in time. `trouble`: NULL, or why it is not loaded. */
void wants_loaded(struct wants *wants, struct backend *backend, struct slice name, unsigned status, const char *trouble,
                  int64_t now_ms);
/* There was no connection to ask by, or it was lost: a restart, perhaps. It is asked again a moment later. */
void wants_lost(struct wants *wants, struct backend *backend, struct slice name, int64_t now_ms);
/* Now and then while the backend answers: callers are let in when all is loaded, or after `timeout_ms`. */
void wants_look_after(struct wants *wants, struct backend *backend, int64_t timeout_ms, int64_t now_ms);
/* Something is to be loaded, or being loaded: news of it is welcome soon. */
bool wants_are_busy(const struct wants *wants);
