/*
 * limit_parts - what the files of this room share; nobody else includes it.
 * limit.c: connections and bodies. holder.c: keys and the names seen through them. rate.c: the sliding window.
 * address.c: what one address has open.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "limit.h"

/*
 * Times of the last admissions, oldest first, on a ring that grows to what is used:
 *     times[head], times[head + 1] ... `count` of them, indices modulo `room` (a power of two, or 0).
 */
struct window {
    int64_t *times;
    uint32_t room, head, count;
};

/* Everything here is guarded by the holder's lock, except `name` and `hash`, which never change. */
struct person {
    struct holder *holder;
    struct person *next;          /* in its bucket */
    struct person *older, *newer; /* in holder->recent, by the last admission */
    uint64_t hash;
    struct slice name; /* its bytes follow the struct */
    unsigned refs;     /* of named persons only: self and other live as long as the holder */
    bool is_named;
    bool is_recent;
    struct window window;
};

struct holder {
    _Atomic(struct holder *) next; /* in its bucket */
    struct limits *limits;
    struct digest key;
    pthread_mutex_t lock;
    struct person self, other;
    struct window total;
    struct person **buckets;
    uint32_t bucket_count; /* a power of two, or 0 */
    uint32_t named;        /* persons in the buckets */
    /* Named persons with admissions, oldest last admission first: who can go is found at the front. */
    struct person *oldest, *newest;
    int64_t window_ms; /* as last told */
    _Atomic uint64_t body_bytes;
    atomic_uint running; /* of those whose key limits how many may */
};

enum {
    HOLDER_BUCKETS = 1 << 14,
    ADDRESS_SHARDS = 64,
    ADDRESS_LOG_SLOTS = 64, /* a shard */
    ADDRESS_LOG_WAYS = 4,
    ADDRESS_LOG_MS = 1000
};

struct address_count {
    struct address_count *next;
    struct address address;
    unsigned open;
};

struct address_logged {
    struct address address;
    int64_t at_ms;
    bool is_set;
};

struct address_shard {
    _Alignas(64) pthread_mutex_t lock;
    struct address_count **buckets;
    uint32_t bucket_count; /* a power of two, or 0 */
    uint32_t addresses;
    struct address_logged logged[ADDRESS_LOG_SLOTS];
};

struct limits {
    uint64_t seed[2]; /* so that nobody outside can choose who collides */
    _Atomic(struct holder *) holders[HOLDER_BUCKETS];
    pthread_mutex_t holders_lock; /* for adding; finding takes no lock */
    _Alignas(64) _Atomic unsigned connections;
    _Alignas(64) _Atomic uint64_t body_bytes;
    struct address_shard shards[ADDRESS_SHARDS];
};

void lock_init(pthread_mutex_t *lock);

void window_release(struct window *window);
/* Forgets what is older than window_ms; gives the memory back when nothing is left of much. */
void window_pass(struct window *window, int64_t window_ms, int64_t now_ms);

/* The same, and gives all memory back when nothing is left: for those who may not come again. */
void window_tidy(struct window *window, int64_t window_ms, int64_t now_ms);

void holders_free(struct limits *limits);
/* The person has just been admitted: to the back of the line of those who may go. */
void person_is_newest(struct person *person);

void addresses_init(struct limits *limits);
void addresses_free(struct limits *limits);
