/*
 * Keys, and the names seen through them. A holder is found without a lock: holders are only ever added, at the front of
 * their bucket, whole. A named person is in the table while somebody borrows it or its window holds an admission;
 * whichever ends last removes it: person_give_back(), or forget_old() from the front of `recent`.
 */
#include <assert.h>
#include <stdlib.h>

#include "limit_parts.h"

enum { FIRST_BUCKETS = 16, FORGET_AT_ONCE = 2 };

static struct person **bucket_of(const struct holder *holder, uint64_t hash)
{
    return &holder->buckets[hash & (holder->bucket_count - 1)];
}

static void leave_recent(struct person *person)
{
    struct holder *holder = person->holder;

    if (!person->is_recent)
        return;
    *(person->older ? &person->older->newer : &holder->oldest) = person->newer;
    *(person->newer ? &person->newer->older : &holder->newest) = person->older;
    person->older = person->newer = NULL;
    person->is_recent = false;
}

void person_is_newest(struct person *person)
{
    struct holder *holder = person->holder;

    if (!person->is_named || holder->newest == person)
        return;
    leave_recent(person);
    person->older = holder->newest;
    *(holder->newest ? &holder->newest->newer : &holder->oldest) = person;
    holder->newest = person;
    person->is_recent = true;
}

static void person_remove(struct person *person)
{
    struct holder *holder = person->holder;
    struct person **at = bucket_of(holder, person->hash);

    while (*at != person)
        at = &(*at)->next;
    *at = person->next;
    holder->named--;
    window_release(&person->window);
    free(person);
}

/* Names whose window has run empty, `most` at a time. */
static void forget_old(struct holder *holder, int64_t window_ms, int64_t now_ms, unsigned most)
{
    while (most-- && holder->oldest) {
        struct person *person = holder->oldest;
        window_pass(&person->window, window_ms, now_ms);
        if (person->window.count)
            return;
        leave_recent(person);
        if (!person->refs)
            person_remove(person);
    }
}

static void grow_buckets(struct holder *holder)
{
    uint32_t wanted = holder->bucket_count ? holder->bucket_count * 2 : FIRST_BUCKETS;
    struct person **buckets = calloc(wanted, sizeof(struct person *));

    if (!buckets)
        return; /* longer chains, or none yet: person_make() looks */
    for (uint32_t i = 0; i < holder->bucket_count; i++) {
        while (holder->buckets[i]) {
            struct person *person = holder->buckets[i];
            holder->buckets[i] = person->next;
            person->next = buckets[person->hash & (wanted - 1)];
            buckets[person->hash & (wanted - 1)] = person;
        }
    }
    free(holder->buckets);
    holder->buckets = buckets;
    holder->bucket_count = wanted;
}

static struct person *person_find(const struct holder *holder, uint64_t hash, struct slice name)
{
    struct person *person = holder->bucket_count ? *bucket_of(holder, hash) : NULL;

    while (person && (person->hash != hash || !slice_is(person->name, name)))
        person = person->next;
    return person;
}

static struct person *person_make(struct holder *holder, uint64_t hash, struct slice name)
{
    struct person *person;
    struct person **bucket;

    if (holder->named >= holder->bucket_count)
        grow_buckets(holder);
    if (!holder->bucket_count)
        return NULL;
    person = calloc(1, sizeof *person + name.len);
    if (!person)
        return NULL;
    bucket = bucket_of(holder, hash);
    *person = (struct person){
        .holder = holder, .next = *bucket, .hash = hash, .name = { (char *)(person + 1), name.len }, .is_named = true
    };
    memcpy(person + 1, name.at, name.len);
    *bucket = person;
    holder->named++;
    return person;
}

/* Under the lock. */
static struct person *borrow_named(struct holder *holder, uint64_t hash, struct slice name, int64_t window_ms,
                                   int64_t now_ms, bool *ret_is_other)
{
    struct person *person;

    forget_old(holder, window_ms, now_ms, FORGET_AT_ONCE);
    person = person_find(holder, hash, name);
    if (!person && holder->named >= LIMIT_MAX_PERSONS) {
        forget_old(holder, window_ms, now_ms, LIMIT_MAX_PERSONS);
        if (holder->named >= LIMIT_MAX_PERSONS) {
            *ret_is_other = true;
            return &holder->other;
        }
    }
    if (!person)
        person = person_make(holder, hash, name);
    if (person)
        person->refs++;
    return person;
}

struct person *person_borrow(struct holder *holder, struct slice name, int64_t window_ms, int64_t now_ms,
                             bool *ret_is_other)
{
    struct person *person;
    uint64_t hash;

    *ret_is_other = false;
    if (!name.len)
        return &holder->self;
    hash = slice_hash(holder->limits->seed, name);
    (void)pthread_mutex_lock(&holder->lock);
    person = borrow_named(holder, hash, name, window_ms, now_ms, ret_is_other);
    (void)pthread_mutex_unlock(&holder->lock);
    return person;
}

void person_give_back(struct person *person)
{
    struct holder *holder;

    if (!person || !person->is_named)
        return;
    holder = person->holder;
    (void)pthread_mutex_lock(&holder->lock);
    assert(person->refs > 0);
    if (--person->refs == 0 && !person->is_recent)
        person_remove(person);
    (void)pthread_mutex_unlock(&holder->lock);
}

unsigned persons_live(struct holder *holder)
{
    unsigned named;

    (void)pthread_mutex_lock(&holder->lock);
    named = holder->named;
    (void)pthread_mutex_unlock(&holder->lock);
    return named;
}

static _Atomic(struct holder *) *home_of(struct limits *limits, const struct digest *key)
{
    uint32_t start;

    memcpy(&start, key->bytes, sizeof start); /* a SHA-256 is as good as any hash of it */
    return &limits->holders[start & (HOLDER_BUCKETS - 1)];
}

static struct holder *holder_find(struct holder *holder, const struct digest *key)
{
    while (holder && memcmp(&holder->key, key, sizeof *key) != 0)
        holder = atomic_load_explicit(&holder->next, memory_order_relaxed);
    return holder;
}

static struct holder *holder_make(struct limits *limits, const struct digest *key)
{
    struct holder *holder = calloc(1, sizeof *holder);

    if (!holder)
        return NULL;
    holder->limits = limits;
    holder->key = *key;
    holder->self.holder = holder->other.holder = holder;
    lock_init(&holder->lock);
    return holder;
}

struct holder *limits_holder(struct limits *limits, const struct digest *key)
{
    _Atomic(struct holder *) *home = home_of(limits, key);
    struct holder *holder = holder_find(atomic_load_explicit(home, memory_order_acquire), key);

    if (holder)
        return holder;
    (void)pthread_mutex_lock(&limits->holders_lock);
    holder = holder_find(atomic_load_explicit(home, memory_order_acquire), key); /* somebody may have been faster */
    if (!holder && (holder = holder_make(limits, key))) {
        atomic_store_explicit(&holder->next, atomic_load_explicit(home, memory_order_relaxed), memory_order_relaxed);
        atomic_store_explicit(home, holder, memory_order_release);
    }
    (void)pthread_mutex_unlock(&limits->holders_lock);
    return holder;
}

bool holder_enter(struct holder *holder, unsigned max)
{
    unsigned running = atomic_load_explicit(&holder->running, memory_order_relaxed);

    while (running < max)
        if (atomic_compare_exchange_weak_explicit(&holder->running, &running, running + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

void holder_leave(struct holder *holder)
{
    (void)atomic_fetch_sub_explicit(&holder->running, 1, memory_order_relaxed);
}

static void holder_tidy(struct holder *holder, int64_t now_ms)
{
    (void)pthread_mutex_lock(&holder->lock);
    forget_old(holder, holder->window_ms, now_ms, LIMIT_MAX_PERSONS);
    window_tidy(&holder->self.window, holder->window_ms, now_ms);
    window_tidy(&holder->other.window, holder->window_ms, now_ms);
    window_tidy(&holder->total, holder->window_ms, now_ms);
    if (!holder->named) {
        free(holder->buckets);
        holder->buckets = NULL;
        holder->bucket_count = 0;
    }
    (void)pthread_mutex_unlock(&holder->lock);
}

void limits_tidy(struct limits *limits, int64_t now_ms)
{
    for (unsigned i = 0; i < HOLDER_BUCKETS; i++) {
        struct holder *holder = atomic_load_explicit(&limits->holders[i], memory_order_acquire);
        for (; holder; holder = atomic_load_explicit(&holder->next, memory_order_relaxed))
            holder_tidy(holder, now_ms);
    }
}

static void holder_free(struct holder *holder)
{
    for (uint32_t i = 0; i < holder->bucket_count; i++)
        while (holder->buckets[i])
            person_remove(holder->buckets[i]);
    free(holder->buckets);
    window_release(&holder->self.window);
    window_release(&holder->other.window);
    window_release(&holder->total);
    (void)pthread_mutex_destroy(&holder->lock);
    free(holder);
}

void holders_free(struct limits *limits)
{
    for (unsigned i = 0; i < HOLDER_BUCKETS; i++) {
        struct holder *holder = atomic_load_explicit(&limits->holders[i], memory_order_relaxed);
        while (holder) {
            struct holder *next = atomic_load_explicit(&holder->next, memory_order_relaxed);
            holder_free(holder);
            holder = next;
        }
    }
}
