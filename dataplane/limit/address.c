/*
 * What one address has open, in shards so that workers seldom meet. An address is in its shard's table while its
 * count is not zero. Lines about refused addresses go by a table of fixed size: when all of an address's places are
 * taken by others of the last second, its line is left out rather than said too often.
 */
#include <assert.h>
#include <stdlib.h>

#include "limit_parts.h"

enum { FIRST_BUCKETS = 16 };

static struct slice bytes_of(const struct address *address)
{
    return (struct slice){ (const char *)address->bytes, sizeof address->bytes };
}

static struct address_shard *shard_lock(struct limits *limits, const struct address *address, uint64_t *ret_hash)
{
    struct address_shard *shard;

    *ret_hash = slice_hash(limits->seed, bytes_of(address));
    shard = &limits->shards[*ret_hash >> 32 & (ADDRESS_SHARDS - 1)];
    (void)pthread_mutex_lock(&shard->lock);
    return shard;
}

void addresses_init(struct limits *limits)
{
    for (unsigned i = 0; i < ADDRESS_SHARDS; i++)
        lock_init(&limits->shards[i].lock);
}

static void shard_free(struct address_shard *shard)
{
    for (uint32_t i = 0; i < shard->bucket_count; i++) {
        while (shard->buckets[i]) {
            struct address_count *count = shard->buckets[i];
            shard->buckets[i] = count->next;
            free(count);
        }
    }
    free(shard->buckets);
    (void)pthread_mutex_destroy(&shard->lock);
}

void addresses_free(struct limits *limits)
{
    for (unsigned i = 0; i < ADDRESS_SHARDS; i++)
        shard_free(&limits->shards[i]);
}

/* Where the address's count hangs, or where the chain ends. */
static struct address_count **find(struct address_shard *shard, uint64_t hash, const struct address *address)
{
    struct address_count **at = &shard->buckets[hash & (shard->bucket_count - 1)];

    while (*at && !address_is(&(*at)->address, address))
        at = &(*at)->next;
    return at;
}

static void grow(struct limits *limits, struct address_shard *shard)
{
    uint32_t wanted = shard->bucket_count ? shard->bucket_count * 2 : FIRST_BUCKETS;
    struct address_count **buckets = calloc(wanted, sizeof(struct address_count *));

    if (!buckets)
        return; /* longer chains, or none yet: add() looks */
    for (uint32_t i = 0; i < shard->bucket_count; i++) {
        while (shard->buckets[i]) {
            struct address_count *count = shard->buckets[i];
            uint64_t hash = slice_hash(limits->seed, bytes_of(&count->address));
            shard->buckets[i] = count->next;
            count->next = buckets[hash & (wanted - 1)];
            buckets[hash & (wanted - 1)] = count;
        }
    }
    free(shard->buckets);
    shard->buckets = buckets;
    shard->bucket_count = wanted;
}

/* Finds or makes; NULL: no memory. */
static struct address_count *add(struct limits *limits, struct address_shard *shard, uint64_t hash,
                                 const struct address *address)
{
    struct address_count **at;

    if (shard->addresses >= shard->bucket_count)
        grow(limits, shard);
    if (!shard->bucket_count)
        return NULL;
    at = find(shard, hash, address);
    if (!*at && (*at = calloc(1, sizeof **at))) {
        (*at)->address = *address;
        shard->addresses++;
    }
    return *at;
}

bool address_enter(struct limits *limits, const struct address *address, unsigned max)
{
    uint64_t hash;
    struct address_shard *shard = shard_lock(limits, address, &hash);
    struct address_count *count = add(limits, shard, hash, address);
    bool may = count && (!max || count->open < max);

    if (may)
        count->open++;
    (void)pthread_mutex_unlock(&shard->lock);
    return may;
}

void address_leave(struct limits *limits, const struct address *address)
{
    uint64_t hash;
    struct address_shard *shard = shard_lock(limits, address, &hash);
    struct address_count **at = find(shard, hash, address);
    struct address_count *count = *at;

    assert(count && count->open > 0);
    if (--count->open == 0) {
        *at = count->next;
        free(count);
        shard->addresses--;
    }
    (void)pthread_mutex_unlock(&shard->lock);
}

unsigned addresses_live(struct limits *limits)
{
    unsigned addresses = 0;

    for (unsigned i = 0; i < ADDRESS_SHARDS; i++) {
        (void)pthread_mutex_lock(&limits->shards[i].lock);
        addresses += limits->shards[i].addresses;
        (void)pthread_mutex_unlock(&limits->shards[i].lock);
    }
    return addresses;
}

static bool may_log(struct address_shard *shard, uint64_t hash, const struct address *address, int64_t now_ms)
{
    unsigned home = (unsigned)(hash >> 40) % (ADDRESS_LOG_SLOTS / ADDRESS_LOG_WAYS);
    struct address_logged *places = &shard->logged[home * ADDRESS_LOG_WAYS];
    struct address_logged *place = NULL;

    for (unsigned i = 0; i < ADDRESS_LOG_WAYS; i++) {
        bool is_recent = places[i].is_set && now_ms - places[i].at_ms < ADDRESS_LOG_MS;
        if (is_recent && address_is(&places[i].address, address))
            return false;
        if (!is_recent)
            place = &places[i];
    }
    if (place)
        *place = (struct address_logged){ .address = *address, .at_ms = now_ms, .is_set = true };
    return place;
}

bool address_may_log(struct limits *limits, const struct address *address, int64_t now_ms)
{
    uint64_t hash;
    struct address_shard *shard = shard_lock(limits, address, &hash);
    bool may = may_log(shard, hash, address, now_ms);

    (void)pthread_mutex_unlock(&shard->lock);
    return may;
}
