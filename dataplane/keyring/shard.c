/* One of a ring's parts: a block of memory that is written once. */
#include "parts.h"

#include <assert.h>
#include <stdlib.h>

enum { FEWEST_SLOTS = LINE / sizeof(uint32_t) };

static_assert(sizeof(struct shard) % LINE == 0 && offsetof(struct shard, slots) == sizeof(struct shard));

/* One free slot: what every look-up in an empty shard finds. */
static const uint32_t free_slot[1];
const struct place no_place = { .slots = free_slot, .mask = 0 };

struct shard *shard_at(const struct place *place)
{
    if (place->slots == free_slot)
        return NULL;
    return (struct shard *)((uintptr_t)place->slots - offsetof(struct shard, slots));
}

void shard_ref(struct shard *shard)
{
    if (shard)
        (void)__atomic_add_fetch(&shard->refs, 1, __ATOMIC_RELAXED);
}

static struct place place_of(const struct shard *shard)
{
    return (struct place){ .slots = shard->slots, .mask = shard->slot_count - 1 };
}

void shard_unref(struct shard *shard)
{
    struct place place;

    /* Acquire and release: whoever frees must see all that the others did with it. */
    if (!shard || __atomic_sub_fetch(&shard->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    place = place_of(shard);
    for (size_t at = 0; shard->has_lists && at < shard->end;) {
        const struct key *key = key_at(&place, (uint32_t)(at / KEY_ALIGN));
        key_unref_lists(key);
        at += key_room(key);
    }
    free(shard);
}

/* ---- making one ---- */

/* What will be in it, found by hash while it is gathered. */
struct draft {
    struct change *all;
    size_t count, removals, end;
    uint32_t *slots; /* 1 + a position in `all`; 0: free */
    uint32_t mask;
    bool has_lists;
};

/* Unless one with that hash has been taken, which came later and counts. */
static void draft_take(struct draft *draft, const struct change *change)
{
    uint32_t at = spot_of(&change->key->hash) & draft->mask;

    for (; draft->slots[at]; at = (at + 1) & draft->mask)
        if (digest_is(&draft->all[draft->slots[at] - 1].key->hash, &change->key->hash))
            return;
    draft->all[draft->count++] = *change;
    draft->slots[at] = (uint32_t)draft->count;
    draft->removals += change->is_removal;
    if (!change->is_removal) {
        draft->end += key_room(change->key);
        draft->has_lists = draft->has_lists || change->key->models || change->key->allow;
    }
}

static uint32_t slots_for(size_t count)
{
    uint32_t slots = FEWEST_SLOTS;

    while (slots < count + count / 2 + 1)
        slots *= 2;
    return slots;
}

/* The latest change of a key counts, and all of them count more than what was. */
static enum err draft_gather(struct draft *draft, const struct place *old, const struct change *changes, size_t count)
{
    const struct shard *shard = old ? shard_at(old) : NULL;
    size_t most = count + (shard ? shard->count : 0);

    draft->mask = slots_for(most) - 1;
    draft->slots = calloc(draft->mask + 1, sizeof *draft->slots);
    draft->all = malloc((most + 1) * sizeof *draft->all);
    if (!draft->slots || !draft->all)
        return ERR_NO_MEMORY;
    for (size_t i = count; i-- > 0;)
        draft_take(draft, &changes[i]);
    for (size_t at = 0; shard && at < shard->end;) {
        struct change stays = { .key = key_at(old, (uint32_t)(at / KEY_ALIGN)) };
        draft_take(draft, &stays);
        at += key_room(stays.key);
    }
    return draft->end / KEY_ALIGN < UNIT_MASK ? ERR_OK : ERR_FULL;
}

static void enter(struct shard *shard, const struct key *key)
{
    uint32_t mask = shard->slot_count - 1, at = spot_of(&key->hash) & mask;
    uint32_t unit = (uint32_t)(shard->end / KEY_ALIGN);

    while (shard->slots[at])
        at = (at + 1) & mask;
    shard->slots[at] = tag_of(&key->hash) << UNIT_BITS | (unit + 1);
    shard->end += key_room(key);
    shard->count++;
}

static enum err draft_write(const struct draft *draft, struct place *ret_place)
{
    uint32_t slots = slots_for(draft->count - draft->removals);
    size_t bytes = sizeof(struct shard) + slots * sizeof(uint32_t) + draft->end;
    struct shard *shard = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);

    if (!shard)
        return ERR_NO_MEMORY;
    memset(shard, 0, sizeof *shard + slots * sizeof(uint32_t));
    shard->refs = 1;
    shard->slot_count = slots;
    shard->bytes = bytes;
    shard->has_lists = draft->has_lists;
    *ret_place = place_of(shard);
    for (size_t i = 0; i < draft->count; i++) {
        const struct key *key = draft->all[i].key;
        if (draft->all[i].is_removal)
            continue;
        memcpy((char *)(uintptr_t)key_at(ret_place, (uint32_t)(shard->end / KEY_ALIGN)), key, key_room(key));
        key_ref_lists(key);
        enter(shard, key);
    }
    return ERR_OK;
}

enum err shard_make(const struct place *old, const struct change *changes, size_t count, struct place *ret_place)
{
    struct draft draft = { 0 };
    enum err err = draft_gather(&draft, old, changes, count);

    if (err == ERR_OK && draft.count == draft.removals)
        *ret_place = no_place;
    else if (err == ERR_OK)
        err = draft_write(&draft, ret_place);
    free(draft.slots);
    free(draft.all);
    return err;
}
