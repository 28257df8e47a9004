/*
 * parts - what the files of this room share. Not a door: others include keyring.h.
 *
 * keyring.c    a ring: looking up, counting who holds it
 * shard.c      one of its 1024 parts: laid out, filled, freed
 * lists.c      lists of models and of addresses, each kept once
 * locksmith.c  batches of changes, from ring to ring
 * disk.c       a ring as an archive
 * key.c        a key's layout, copies of it, what a rule must hold
 */
#pragma once
#include <stddef.h>

#include "keyring.h"

enum { SHARDS = 1024, LINE = 64, KEY_ALIGN = 32, UNIT_BITS = 20, UNIT_MASK = (1 << UNIT_BITS) - 1 };

/* ---- a list, kept once ---- */

struct list {
    unsigned refs; /* atomic: keys in shards, in batches and copied ones; the set it is in */
    bool is_models;
    uint64_t hash;
    size_t bytes; /* of all of it */
    size_t packed_bytes;
    const char *packed; /* two of them are the same when this is */
    union {
        struct key_models models;
        struct cidr_list allow;
    };
};

/* All lists that a locksmith has met. What only the set still holds goes when it needs room. */
struct list_set {
    uint64_t seed[2];
    struct list **slots;
    size_t room, count, bytes;
};

void list_set_init(struct list_set *set);
void list_set_release(struct list_set *set);
/* The one that holds just these, which is the set's: whoever keeps it takes a reference. NULL: no memory. */
const struct list *list_of_models(struct list_set *set, const char *const *names, size_t count);
const struct list *list_of_ranges(struct list_set *set, const struct cidr_list *ranges);
void list_ref(const struct list *list);
void list_unref(const struct list *list);
static inline const struct list *list_holding_models(const struct key_models *models)
{
    return (const struct list *)(const void *)((const char *)models - offsetof(struct list, models));
}
static inline const struct list *list_holding_ranges(const struct cidr_list *ranges)
{
    return (const struct list *)(const void *)((const char *)ranges - offsetof(struct list, allow));
}

/* ---- a key ---- */

/* What it takes in a shard: a multiple of KEY_ALIGN. */
size_t key_room(const struct key *key);
size_t rule_room(const struct key_rule *rule);
bool key_model_is_good(const char *name);
/* ERR_BAD with what is wrong with it; `why` may be NULL. */
enum err rule_check(const struct key_rule *rule, struct text *why);
/* Into zeroed memory of rule_room(); without its lists. */
void key_write(struct key *key, const struct key_rule *rule);
/* Holds what the key points to; gives it back. */
void key_ref_lists(const struct key *key);
void key_unref_lists(const struct key *key);

/* ---- a shard ---- */

/*
 * One block: this, the index, the keys. A slot of the index holds 12 bits of the hash and 1 + the key's place, in
 * KEY_ALIGN bytes from the first one; 0: free. Linear probing; it is never full.
 */
struct shard {
    unsigned refs;       /* atomic: rings */
    uint32_t count;      /* keys */
    uint32_t slot_count; /* a power of two */
    bool has_lists;      /* some key has */
    size_t bytes;        /* of the block */
    size_t end;          /* of the last key, from the first one */
    _Alignas(LINE) uint32_t slots[];
};

/* Where a ring keeps its shard: what looking up needs of it, so that the shard's own line stays untouched. */
struct place {
    const uint32_t *slots;
    uint32_t mask; /* slots - 1 */
};

/* A change of a batch: a key that is there from now on, or one that is not, of which only the hash counts. */
struct change {
    const struct key *key;
    bool is_removal;
};

static inline unsigned shard_of(const struct digest *hash)
{
    return (unsigned)hash->bytes[0] << 2 | hash->bytes[1] >> 6;
}
static inline uint32_t spot_of(const struct digest *hash)
{
    return (uint32_t)hash->bytes[2] | (uint32_t)hash->bytes[3] << 8 | (uint32_t)hash->bytes[4] << 16;
}
static inline uint32_t tag_of(const struct digest *hash)
{
    return (uint32_t)hash->bytes[5] << 4 | hash->bytes[6] >> 4;
}
/* The keys begin where the index ends. */
static inline const struct key *key_at(const struct place *place, uint32_t unit)
{
    return (const struct key *)(const void *)((const char *)(place->slots + place->mask + 1) +
                                              (size_t)unit * KEY_ALIGN);
}
/* The shard at that place; NULL: there is none, and no key. */
struct shard *shard_at(const struct place *place);
/*
 * The shard with these changes, in the order of their arrival, or with nothing but them (`old` NULL). *ret_place is
 * that of no shard when it has no keys left. ERR_NO_MEMORY; ERR_FULL.
 */
enum err shard_make(const struct place *old, const struct change *changes, size_t count, struct place *ret_place);
void shard_ref(struct shard *shard);
void shard_unref(struct shard *shard);

/* ---- a ring ---- */

struct keyring {
    unsigned refs; /* atomic */
    uint64_t version;
    size_t count, bytes, list_bytes;
    struct keyring *older; /* the locksmith's: one that others may still hold */
    _Alignas(LINE) struct place places[SHARDS];
};

extern const struct place no_place;
/* Without keys. NULL: no memory. */
struct keyring *keyring_new(uint64_t version);

/* ---- a locksmith ---- */

/* A rule that has been checked, its lists looked up: those in the rule itself do not count. */
enum err locksmith_put_listed(struct locksmith *smith, const struct key_rule *rule, const struct list *models,
                              const struct list *allow, struct text *why);
/* Works what was gathered into the batch's ring, so that it need not be held any longer. */
enum err locksmith_settle(struct locksmith *smith);
/* How many keys the batch's ring has by now. */
size_t locksmith_settled(const struct locksmith *smith);
struct list_set *locksmith_lists(struct locksmith *smith);
