/*
 * leader - does this process lead? One row of the database says who does, until when by the database's clock, and with
 * which epoch: whoever writes as the leader names the epoch, and the database refuses one that is over.
 *
 * Owned by serve; opened after the store, closed before it. Loop thread only. Times are in _ms.
 *
 *     FOLLOWS ─► LEADS ─► HOLDS      LEADS: the row is ours, for lease_ms from before we last asked to prolong it.
 *        ▲─────────┴────────┘        HOLDS: that is over because the database does not answer, or not in time: nobody
 *                                    else has been seen to lead, so gateways are told from memory on; nothing is
 *                                    written.
 *
 * A process that was frozen looks at its clock first: its lease is over before anything else happens.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct event_base;
struct store;
struct leader;

struct leader_options {
    const char *holder; /* where this one is, for people: it is named to who comes to another */
    int64_t lease_ms, renew_ms;
    int64_t hold_ms; /* how long it goes on from memory while the database is away */
};

/* NULL, with one sentence: no memory. Whether it leads is known a moment later. */
struct leader *leader_open(struct event_base *base, struct store *store, const struct leader_options *options,
                           struct text *why);
/* Nobody is told anything any more; what it leads it leads until its lease is over, unless it resigned before. Returns
 * NULL. */
struct leader *leader_close(struct leader *leader);
/*
 * Gives the lease back, so that another may lead at once, and does not ask for it again. on_done comes once, when that
 * is written down or cannot be; not before this returns.
 */
void leader_resign(struct leader *leader, void (*on_done)(void *arg), void *arg);

/* The epoch to write under; 0: it does not lead. */
int64_t leader_epoch(const struct leader *leader);
/* LEADS or HOLDS: gateways may be told. */
bool leader_serves(const struct leader *leader);
/* Who leads, as far as is known: "HOLDER", or "nobody". Good until the next event. */
const char *leader_holder(const struct leader *leader);
/* Wall clock, ms since 1970: until when another may have told gateways things that nobody wrote down; 0: never. */
int64_t leader_uncertain_until_ms(const struct leader *leader);
/* "leader": … of the status document: {"holder", "this", "epoch", "state", "expires_in_ms"}. */
void leader_add_status(const struct leader *leader, struct text *out);

/* Told whenever leader_epoch() or leader_serves() has changed. Stays until leader_close(). ERR_NO_MEMORY. */
enum err leader_watch(struct leader *leader, void (*on_change)(void *arg), void *arg);
