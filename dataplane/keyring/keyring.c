/* A ring: 1024 places, counted. */
#include "parts.h"

#include <stdlib.h>

struct keyring *keyring_new(uint64_t version)
{
    size_t bytes = (sizeof(struct keyring) + LINE - 1) / LINE * LINE;
    struct keyring *ring = aligned_alloc(LINE, bytes);

    if (!ring)
        return NULL;
    memset(ring, 0, bytes);
    ring->refs = 1;
    ring->version = version;
    ring->bytes = bytes;
    for (size_t i = 0; i < SHARDS; i++)
        ring->places[i] = no_place;
    return ring;
}

void keyring_ref_more(struct keyring *ring, unsigned count)
{
    (void)__atomic_add_fetch(&ring->refs, count, __ATOMIC_RELAXED);
}

struct keyring *keyring_ref(struct keyring *ring)
{
    keyring_ref_more(ring, 1);
    return ring;
}

struct keyring *keyring_unref(struct keyring *ring)
{
    /* Acquire and release: whoever frees must see all that the others did with it. */
    if (ring && __atomic_sub_fetch(&ring->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        for (size_t i = 0; i < SHARDS; i++)
            shard_unref(shard_at(&ring->places[i]));
        free(ring);
    }
    return NULL;
}

const struct key *keyring_find(const struct keyring *ring, const struct digest *hash)
{
    const struct place *place = &ring->places[shard_of(hash)];
    uint32_t tag = tag_of(hash);

    for (uint32_t at = spot_of(hash) & place->mask; place->slots[at]; at = (at + 1) & place->mask) {
        if (place->slots[at] >> UNIT_BITS == tag) {
            const struct key *key = key_at(place, (place->slots[at] & UNIT_MASK) - 1);
            if (digest_is(&key->hash, hash))
                return key;
        }
    }
    return NULL;
}

size_t keyring_count(const struct keyring *ring)
{
    return ring->count;
}

uint64_t keyring_version(const struct keyring *ring)
{
    return ring->version;
}

size_t keyring_bytes(const struct keyring *ring)
{
    return ring->bytes + ring->list_bytes;
}

const struct key *keyring_next(const struct keyring *ring, const struct key *key)
{
    size_t i = key ? shard_of(&key->hash) : 0;

    if (key) {
        const char *next = (const char *)key + key_room(key);
        const struct place *place = &ring->places[i++];
        if (next < (const char *)key_at(place, 0) + shard_at(place)->end)
            return (const struct key *)(const void *)next;
    }
    while (i < SHARDS && !shard_at(&ring->places[i]))
        i++;
    return i < SHARDS ? key_at(&ring->places[i], 0) : NULL;
}
