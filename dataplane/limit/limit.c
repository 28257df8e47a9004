#include "limit_parts.h"

#include <assert.h>
#include <stdlib.h>

/* Held for a few instructions only, so spinning a little beats sleeping. */
void lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;

    (void)pthread_mutexattr_init(&attributes);
    (void)pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    (void)pthread_mutex_init(lock, &attributes);
    (void)pthread_mutexattr_destroy(&attributes);
}

struct limits *limits_new(void)
{
    struct limits *limits = aligned_alloc(64, sizeof *limits);

    if (!limits)
        return NULL;
    memset(limits, 0, sizeof *limits);
    random_bytes(limits->seed, sizeof limits->seed);
    lock_init(&limits->holders_lock);
    addresses_init(limits);
    return limits;
}

void limits_free(struct limits *limits)
{
    if (!limits)
        return;
    holders_free(limits);
    addresses_free(limits);
    (void)pthread_mutex_destroy(&limits->holders_lock);
    free(limits);
}

bool connection_enter(struct limits *limits, unsigned max)
{
    unsigned open = atomic_load_explicit(&limits->connections, memory_order_relaxed);

    do {
        if (max && open >= max)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&limits->connections, &open, open + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

void connection_leave(struct limits *limits)
{
    unsigned before = atomic_fetch_sub_explicit(&limits->connections, 1, memory_order_relaxed);

    assert(before > 0);
    (void)before;
}

unsigned connections_open(const struct limits *limits)
{
    return atomic_load_explicit(&limits->connections, memory_order_relaxed);
}

/* A first body may pass max when `alone` says so, since it could not be served at all otherwise. */
static bool bytes_reserve(_Atomic uint64_t *held, uint64_t bytes, uint64_t max, bool alone)
{
    uint64_t before = atomic_load_explicit(held, memory_order_relaxed);

    do {
        if ((bytes > max || before > max - bytes) && !(alone && before == 0))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(held, &before, before + bytes, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void bytes_release(_Atomic uint64_t *held, uint64_t bytes)
{
    uint64_t before = atomic_fetch_sub_explicit(held, bytes, memory_order_relaxed);

    assert(before >= bytes);
    (void)before;
}

bool body_reserve(struct limits *limits, struct holder *holder, uint64_t bytes, uint64_t max_bytes)
{
    if (!max_bytes)
        max_bytes = UINT64_MAX;
    if (holder && !bytes_reserve(&holder->body_bytes, bytes, max_bytes / 4, true))
        return false;
    if (bytes_reserve(&limits->body_bytes, bytes, max_bytes, false))
        return true;
    if (holder)
        bytes_release(&holder->body_bytes, bytes);
    return false;
}

void body_release(struct limits *limits, struct holder *holder, uint64_t bytes)
{
    bytes_release(&limits->body_bytes, bytes);
    if (holder)
        bytes_release(&holder->body_bytes, bytes);
}

uint64_t body_bytes(const struct limits *limits)
{
    return atomic_load_explicit(&limits->body_bytes, memory_order_relaxed);
}
