/*
 * roster - the gateways: who may come, who is there, what each was told and what it goes by. It is the control plane's
 * end of the link.
 *
 * Owned by serve; opened after store, publish, traffic and leader, closed before them. Loop thread only. Monotonic
 * times are in _ms.
 *
 * Names and public keys are in memory, and so gateways come and go while the database is away; who was removed is out
 * in the moment in which it is read. What gateways say of themselves is written down in one statement every persist_ms.
 * Only who leads talks to gateways: others answer NOT_LEADER and say who does.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct event_base;
struct leader;
struct publish;
struct store;
struct traffic;
struct roster;
struct roster_wait;

struct roster_options {
    const char *listen;   /* "127.0.0.1:18801"; port 0: the kernel's choice */
    const char *software; /* "0.2.0": this program's version */
    unsigned max_connections;
    uint32_t heartbeat_ms;
    int64_t live_ms;                  /* who was heard within it is live */
    int64_t gather_ms, gather_max_ms; /* changes after the first wait so long, and twice as long each time */
    int64_t max_wait_ms;              /* how long a Sync is held at most, whatever it asks */
    int64_t persist_ms, poll_ms;      /* writing down; looking for changed gateways without being woken */
    int64_t last_seen_ms;             /* last_seen of who is there anyway is written down so often */
};

/* NULL, with one sentence: it cannot listen there, or no memory. */
struct roster *roster_open(struct event_base *base, struct store *store, struct publish *publish,
                           struct traffic *traffic, struct leader *leader, const struct roster_options *options,
                           struct text *why);
/* Nobody who waits is told any more. Returns NULL. */
struct roster *roster_close(struct roster *roster);
/* 127.0.0.1:18801, with the port that the kernel chose. */
const char *roster_address(const struct roster *roster);
/* Gateways were changed in the database: look now. */
void roster_wake(struct roster *roster);

/*
 * Who goes by `version` or a newer one? on_confirmed gets the document {"version","confirmed":[…],"pending":[…]} as
 * soon as every live gateway does, or when wait_ms are over; once, never before this returns, and not after
 * roster_wait_forget(). ERR_NO_MEMORY. ERR_REFUSED: this one does not lead, and so does not know.
 */
enum err roster_confirm(struct roster *roster, uint64_t version, int64_t wait_ms,
                        void (*on_confirmed)(void *arg, struct slice json), void *arg, struct roster_wait **ret_wait);
void roster_wait_forget(struct roster_wait *wait);

/* The document of GET load. */
void roster_add_load(struct roster *roster, struct text *out);
/* "gateways":{"enrolled":N,"live":N,"behind":N} */
void roster_add_status(struct roster *roster, struct text *out);
/* "live":…,"heard_ms_ago":…,"applied_version":… of one gateway, as of now; nothing where there is none of that name. */
void roster_add_live(struct roster *roster, struct slice name, struct text *out);
