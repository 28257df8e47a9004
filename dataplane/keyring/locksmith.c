/*
 * From ring to ring. A batch is gathered outside of both, then every shard that it touches is made anew beside the old
 * one; when all are there, a ring of the new ones and of those that stay takes the old ring's place.
 */
#include "parts.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { CHUNK_BYTES = 1 << 20, FIRST_CHANGES = 64, REMOVAL_BYTES = 3 * KEY_ALIGN, SETTLE_CHANGES = 1 << 18 };

static_assert(sizeof(struct key) <= REMOVAL_BYTES);

/* The keys of a batch. Mapped, not from the heap: a million of them leave no hole behind. */
struct chunk {
    struct chunk *older;
    size_t used;
    _Alignas(LINE) char bytes[];
};

struct locksmith {
    struct keyring *now;
    struct keyring *retired; /* the last one before, and so on: those that were still held */
    struct keyring *fresh;   /* of the batch, where something of it has been settled */
    struct list_set lists;
    struct chunk *chunks;
    struct change *changes;
    size_t change_count, change_room;
    uint64_t to;
    bool is_open, is_whole, is_broken;
};

struct locksmith *locksmith_new(void)
{
    struct locksmith *smith = calloc(1, sizeof *smith);

    if (!smith)
        return NULL;
    list_set_init(&smith->lists);
    smith->now = keyring_new(0);
    if (!smith->now) {
        free(smith);
        return NULL;
    }
    return smith;
}

void locksmith_free(struct locksmith *smith)
{
    if (!smith)
        return;
    locksmith_abandon(smith);
    while (smith->retired) {
        struct keyring *ring = smith->retired;
        smith->retired = ring->older;
        (void)keyring_unref(ring);
    }
    (void)keyring_unref(smith->now);
    list_set_release(&smith->lists);
    free(smith);
}

struct keyring *locksmith_ring(struct locksmith *smith)
{
    return keyring_ref(smith->now);
}

/* ---- gathering a batch ---- */

/* What was gathered, and is in `fresh` now or not wanted. */
static void forget_changes(struct locksmith *smith)
{
    for (size_t i = 0; i < smith->change_count; i++)
        key_unref_lists(smith->changes[i].key);
    while (smith->chunks) {
        struct chunk *chunk = smith->chunks;
        smith->chunks = chunk->older;
        (void)munmap(chunk, CHUNK_BYTES);
    }
    smith->change_count = 0;
}

void locksmith_abandon(struct locksmith *smith)
{
    forget_changes(smith);
    free(smith->changes);
    smith->changes = NULL;
    smith->change_room = 0;
    smith->fresh = keyring_unref(smith->fresh);
    smith->is_open = smith->is_whole = smith->is_broken = false;
}

enum err locksmith_begin(struct locksmith *smith, uint64_t from, uint64_t to, struct text *why)
{
    locksmith_abandon(smith);
    if (from != smith->now->version || to <= from) {
        text_printf(why, "the changes lead from version %llu to %llu, and the keys here are of version %llu",
                    (unsigned long long)from, (unsigned long long)to, (unsigned long long)smith->now->version);
        return ERR_REFUSED;
    }
    smith->is_open = true;
    smith->to = to;
    return ERR_OK;
}

void locksmith_begin_whole(struct locksmith *smith, uint64_t to)
{
    locksmith_abandon(smith);
    smith->is_open = smith->is_whole = true;
    smith->to = to;
}

void locksmith_begin_removals(struct locksmith *smith)
{
    locksmith_abandon(smith);
    smith->is_open = true;
    smith->to = smith->now->version;
}

static struct key *take_room(struct locksmith *smith, size_t bytes)
{
    struct chunk *chunk = smith->chunks;

    if (!chunk || chunk->used + bytes > CHUNK_BYTES) {
        chunk = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (chunk == MAP_FAILED)
            return NULL;
        chunk->older = smith->chunks;
        chunk->used = offsetof(struct chunk, bytes);
        smith->chunks = chunk;
    }
    chunk->used += bytes;
    return (struct key *)(void *)((char *)chunk + chunk->used - bytes);
}

static enum err lack_memory(struct locksmith *smith, struct text *why)
{
    smith->is_broken = true;
    text_add_literal(why, "there is no memory for the changes");
    return ERR_NO_MEMORY;
}

static enum err say_broken(struct text *why)
{
    text_add_literal(why, "one of the changes was refused, so none is made");
    return ERR_BAD;
}

/* Room for one more change and its key; NULL: no memory. */
static struct change *change_new(struct locksmith *smith, size_t key_bytes)
{
    struct change *change;

    if (smith->change_count == smith->change_room) {
        size_t room = smith->change_room ? 2 * smith->change_room : FIRST_CHANGES;
        struct change *more = realloc(smith->changes, room * sizeof *more);
        if (!more)
            return NULL;
        smith->changes = more;
        smith->change_room = room;
    }
    change = &smith->changes[smith->change_count];
    *change = (struct change){ .key = take_room(smith, key_bytes) };
    if (!change->key)
        return NULL;
    smith->change_count++;
    return change;
}

enum err locksmith_put_listed(struct locksmith *smith, const struct key_rule *rule, const struct list *models,
                              const struct list *allow, struct text *why)
{
    struct change *change = change_new(smith, rule_room(rule));
    struct key *key;

    if (!change)
        return lack_memory(smith, why);
    key = (struct key *)(uintptr_t)change->key;
    key_write(key, rule);
    key->models = models ? &models->models : NULL;
    key->allow = allow ? &allow->allow : NULL;
    key_ref_lists(key);
    return ERR_OK;
}

enum err locksmith_put(struct locksmith *smith, const struct key_rule *rule, struct text *why)
{
    const struct list *models = NULL, *allow = NULL;

    assert(smith->is_open);
    if (smith->is_broken)
        return say_broken(why);
    smith->is_broken = rule_check(rule, why) != ERR_OK;
    if (smith->is_broken)
        return ERR_BAD;
    /* Of a million keys that come one by one not all lie here twice. */
    if (smith->is_whole && smith->change_count >= SETTLE_CHANGES && locksmith_settle(smith) != ERR_OK)
        return lack_memory(smith, why);
    if (rule->models) {
        models = list_of_models(&smith->lists, rule->models, rule->model_count);
        if (!models)
            return lack_memory(smith, why);
    }
    if (rule->has_allow) {
        if (models)
            list_ref(models); /* the set may need room for the other one */
        allow = list_of_ranges(&smith->lists, &rule->allow);
        if (models)
            list_unref(models);
        if (!allow)
            return lack_memory(smith, why);
    }
    return locksmith_put_listed(smith, rule, models, allow, why);
}

enum err locksmith_remove(struct locksmith *smith, const struct digest *hash, struct text *why)
{
    struct change *change;

    assert(smith->is_open);
    if (smith->is_broken)
        return say_broken(why);
    change = change_new(smith, REMOVAL_BYTES);
    if (!change)
        return lack_memory(smith, why);
    ((struct key *)(uintptr_t)change->key)->hash = *hash;
    change->is_removal = true;
    return ERR_OK;
}

/* ---- committing it ---- */

/* By shard, each in the order of arrival: those of shard i are starts[i] ... starts[i + 1], which were zeros. NULL: no
 * memory. */
static struct change *sort_changes(const struct locksmith *smith, size_t starts[SHARDS + 1])
{
    struct change *sorted = malloc((smith->change_count + 1) * sizeof *sorted);
    size_t next[SHARDS];

    if (!sorted)
        return NULL;
    for (size_t i = 0; i < smith->change_count; i++)
        starts[shard_of(&smith->changes[i].key->hash) + 1]++;
    for (size_t i = 0; i < SHARDS; i++)
        starts[i + 1] += starts[i];
    memcpy(next, starts, sizeof next);
    for (size_t i = 0; i < smith->change_count; i++)
        sorted[next[shard_of(&smith->changes[i].key->hash)]++] = smith->changes[i];
    return sorted;
}

static void count_shard(struct keyring *ring, const struct place *place, bool is_there)
{
    const struct shard *shard = shard_at(place);

    if (!shard)
        return;
    ring->count += is_there ? shard->count : -(size_t)shard->count;
    ring->bytes += is_there ? shard->bytes : -shard->bytes;
}

/* Puts another shard in the place of one: only in a ring that nobody else knows. */
static enum err replace_shard(struct keyring *ring, unsigned i, const struct change *changes, size_t count)
{
    struct place place;
    enum err err = shard_make(&ring->places[i], changes, count, &place);

    if (err != ERR_OK)
        return err;
    count_shard(ring, &ring->places[i], false);
    count_shard(ring, &place, true);
    shard_unref(shard_at(&ring->places[i]));
    ring->places[i] = place;
    return ERR_OK;
}

static struct keyring *begin_ring(const struct locksmith *smith)
{
    struct keyring *ring = keyring_new(smith->to);

    if (!ring || smith->is_whole)
        return ring;
    memcpy(ring->places, smith->now->places, sizeof ring->places);
    ring->count = smith->now->count;
    ring->bytes = smith->now->bytes;
    for (unsigned i = 0; i < SHARDS; i++)
        shard_ref(shard_at(&ring->places[i]));
    return ring;
}

enum err locksmith_settle(struct locksmith *smith)
{
    size_t starts[SHARDS + 1] = { 0 };
    struct change *sorted;
    enum err err;

    if (!smith->fresh)
        smith->fresh = begin_ring(smith);
    sorted = sort_changes(smith, starts);
    err = smith->fresh && sorted ? ERR_OK : ERR_NO_MEMORY;
    for (unsigned i = 0; i < SHARDS && err == ERR_OK; i++)
        if (starts[i + 1] > starts[i])
            err = replace_shard(smith->fresh, i, sorted + starts[i], starts[i + 1] - starts[i]);
    free(sorted);
    forget_changes(smith);
    smith->is_broken = smith->is_broken || err != ERR_OK;
    return err;
}

enum err locksmith_commit(struct locksmith *smith, struct text *why)
{
    enum err err;

    assert(smith->is_open);
    if (smith->is_broken) {
        err = say_broken(why);
    } else {
        err = locksmith_settle(smith);
        if (err != ERR_OK)
            text_printf(why, "the keys cannot be kept: %s", err_text(err));
    }
    if (err == ERR_OK) {
        smith->fresh->list_bytes = smith->lists.bytes;
        smith->now->older = smith->retired;
        smith->retired = smith->now;
        smith->now = smith->fresh;
        smith->fresh = NULL;
    }
    locksmith_abandon(smith);
    (void)locksmith_tidy(smith);
    return err;
}

enum err locksmith_commit_removals(struct locksmith *smith, size_t *ret_count, struct text *why)
{
    const struct key *key = NULL;
    struct keyring *whole;
    enum err err = ERR_OK;

    *ret_count = 0;
    if (!smith->is_open || !smith->is_whole) {
        text_add_literal(why, "there is no whole batch");
        return ERR_REFUSED;
    }
    if (smith->is_broken || locksmith_settle(smith) != ERR_OK) {
        locksmith_abandon(smith);
        return say_broken(why);
    }
    whole = smith->fresh;
    smith->fresh = NULL;
    locksmith_begin_removals(smith);
    while (err == ERR_OK && (key = keyring_next(smith->now, key))) {
        if (keyring_find(whole, &key->hash))
            continue;
        err = locksmith_remove(smith, &key->hash, why);
        ++*ret_count;
    }
    (void)keyring_unref(whole);
    if (err == ERR_OK && *ret_count)
        return locksmith_commit(smith, why);
    locksmith_abandon(smith);
    return err;
}

size_t locksmith_tidy(struct locksmith *smith)
{
    struct keyring **link = &smith->retired;
    size_t held = 0;

    while (*link) {
        struct keyring *ring = *link;
        if (__atomic_load_n(&ring->refs, __ATOMIC_ACQUIRE) > 1) {
            link = &ring->older;
            held++;
            continue;
        }
        *link = ring->older;
        (void)keyring_unref(ring);
    }
    return held;
}

struct list_set *locksmith_lists(struct locksmith *smith)
{
    return &smith->lists;
}

size_t locksmith_settled(const struct locksmith *smith)
{
    return smith->fresh ? smith->fresh->count : 0;
}
