/*
 * limit - what callers may use up: request rates, connections, memory held by bodies. One table a process, shared
 * by all workers; it outlives reloads, rules are passed in with each question. Locks are sharded and held for a
 * few instructions only. Times are monotonic ms and passed in.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cidr.h"
#include "digest.h"
#include "text.h"

enum { LIMIT_MAX_PERSONS = 10000 }; /* live names a key, beyond that "other" (behaviour.md 2.5) */

struct limits;
struct holder; /* one key; lives as long as the limits */
struct person; /* one name seen through a key ("" is the key itself); counted */

struct limits *limits_new(void);
void limits_free(struct limits *limits);
/* Gives back the memory of names and windows that have run empty. Names also go by themselves as their key is used, so
 * this is for keys that nobody uses any more: every ten seconds or so, from any thread. */
void limits_tidy(struct limits *limits, int64_t now_ms);

/* Finds or makes. NULL: no memory. Holders are never removed: there are as many as keys ever configured. */
struct holder *limits_holder(struct limits *limits, const struct digest *key);
/* Finds or makes; when the key has LIMIT_MAX_PERSONS live names (requests within the window, or borrowed),
 * *ret_is_other is set and the one person "other" is lent. NULL: no memory. Give back with person_give_back(). */
struct person *person_borrow(struct holder *holder, struct slice name, int64_t window_ms, int64_t now_ms,
                             bool *ret_is_other);
void person_give_back(struct person *person);
/* Names of this key that are kept now. */
unsigned persons_live(struct holder *holder);

/*
 * The exact sliding window: in no window_ms are more than max_requests admitted, per person, nor more than
 * max_total per key. Refused requests consume nothing; taking is all or nothing. An admission counts for window_ms and
 * the whole millisecond it ends in.
 */
struct rate_rule {
    unsigned max_requests; /* 0: no limit */
    unsigned max_total;    /* 0: no limit */
    int64_t window_ms;
};
struct rate_state {
    bool is_full;       /* refused (rate_take), or would be (rate_look) */
    unsigned limit;     /* the tighter of the two, for x-ratelimit-limit-requests; 0: no limit */
    unsigned remaining; /* how many more would be admitted now (after rate_take: after this request) */
    int64_t reset_ms;   /* is_full: until one more is admitted; else until the window is empty again */
};
void rate_look(struct person *person, const struct rate_rule *rule, int64_t now_ms, struct rate_state *ret_state);
void rate_take(struct person *person, const struct rate_rule *rule, int64_t now_ms, struct rate_state *ret_state);

/* Requests of a key at a time. False: `max` of them are running already. */
bool holder_enter(struct holder *holder, unsigned max);
void holder_leave(struct holder *holder);

/* Connections, or requests of a real client behind a trusted proxy. False: `max` are open already (0: no limit). */
bool address_enter(struct limits *limits, const struct address *address, unsigned max);
void address_leave(struct limits *limits, const struct address *address);
/* Addresses that have something open now. */
unsigned addresses_live(struct limits *limits);
/* True at most once a second and address: for lines about refused addresses. */
bool address_may_log(struct limits *limits, const struct address *address, int64_t now_ms);

/* Connections in all. */
bool connection_enter(struct limits *limits, unsigned max);
void connection_leave(struct limits *limits);
unsigned connections_open(const struct limits *limits);

/* Memory held by bodies: at most max_bytes in all, a quarter of it per key. A single body that is larger than the
 * quarter may still have it when the key holds nothing else. False: not now. max_bytes 0: no limit; holder NULL: no
 * key, only the sum counts. */
bool body_reserve(struct limits *limits, struct holder *holder, uint64_t bytes, uint64_t max_bytes);
void body_release(struct limits *limits, struct holder *holder, uint64_t bytes);
uint64_t body_bytes(const struct limits *limits);
