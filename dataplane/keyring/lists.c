/* Lists of models and of addresses: most keys have one of a few, so each is kept once and counted. */
#include "parts.h"

#include <assert.h>
#include <stdlib.h>

/* Ranges are compared and sorted as bytes. */
static_assert(sizeof(struct cidr) == sizeof(struct address) + sizeof(unsigned));

enum { FIRST_ROOM = 64 };

void list_ref(const struct list *list)
{
    (void)__atomic_add_fetch(&((struct list *)(uintptr_t)list)->refs, 1, __ATOMIC_RELAXED);
}

void list_unref(const struct list *list)
{
    struct list *mine = (struct list *)(uintptr_t)list;

    /* Acquire and release: whoever frees must see all that the others did with it. */
    if (__atomic_sub_fetch(&mine->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(mine);
}

/* ---- the set ---- */

void list_set_init(struct list_set *set)
{
    *set = (struct list_set){ 0 };
    random_bytes(set->seed, sizeof set->seed);
    set->seed[1] |= 1;
}

void list_set_release(struct list_set *set)
{
    for (size_t i = 0; i < set->room; i++)
        if (set->slots[i])
            list_unref(set->slots[i]);
    free(set->slots);
    set->slots = NULL;
    set->room = set->count = set->bytes = 0;
}

/* Where it is, or where it would be. */
static struct list **slot_of(struct list **slots, size_t room, const struct list *wanted)
{
    for (size_t at = wanted->hash & (room - 1);; at = (at + 1) & (room - 1)) {
        const struct list *list = slots[at];
        if (!list || (list->hash == wanted->hash && list->is_models == wanted->is_models &&
                      list->packed_bytes == wanted->packed_bytes &&
                      memcmp(list->packed, wanted->packed, wanted->packed_bytes) == 0))
            return &slots[at];
    }
}

static bool is_held(const struct list *list)
{
    return __atomic_load_n(&list->refs, __ATOMIC_ACQUIRE) > 1;
}

static size_t count_held(const struct list_set *set)
{
    size_t count = 0;

    for (size_t i = 0; i < set->room; i++)
        count += set->slots[i] && is_held(set->slots[i]);
    return count;
}

static void let_go(struct list_set *set, struct list *list)
{
    set->bytes -= list->bytes;
    list_unref(list);
}

/* Into a table with room for as many again. What nobody but the set holds is left behind: only the set gives it to
 * somebody new, so it stays so. */
static bool make_room(struct list_set *set)
{
    size_t held = count_held(set), room = FIRST_ROOM;
    struct list **slots;

    while (room < 4 * held)
        room *= 2;
    slots = calloc(room, sizeof(struct list *));
    if (!slots)
        return false;
    for (size_t i = 0; i < set->room; i++) {
        struct list *list = set->slots[i];
        if (list && is_held(list))
            *slot_of(slots, room, list) = list;
        else if (list)
            let_go(set, list);
    }
    free(set->slots);
    set->slots = slots;
    set->room = room;
    set->count = held;
    return true;
}

/* Takes the candidate over: it is kept, or freed because there is one. */
static const struct list *keep(struct list_set *set, struct list *candidate)
{
    struct list **slot;

    if (!candidate)
        return NULL;
    candidate->refs = 1;
    candidate->hash = slice_hash(set->seed, (struct slice){ candidate->packed, candidate->packed_bytes });
    if (2 * (set->count + 1) > set->room && !make_room(set)) {
        free(candidate);
        return NULL;
    }
    slot = slot_of(set->slots, set->room, candidate);
    if (*slot) {
        free(candidate);
        return *slot;
    }
    set->count++;
    set->bytes += candidate->bytes;
    return *slot = candidate;
}

/* ---- models ---- */

static int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Sorted, each once. */
static size_t sort_names(const char **names, size_t count)
{
    size_t kept = 0;

    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++)
        if (!kept || strcmp(names[kept - 1], names[i]) != 0)
            names[kept++] = names[i];
    return kept;
}

const struct list *list_of_models(struct list_set *set, const char *const *names, size_t count)
{
    size_t bytes = sizeof(struct list) + count * sizeof *names;
    struct list *list;
    const char **own;
    char *at;

    for (size_t i = 0; i < count; i++)
        bytes += strlen(names[i]) + 1;
    list = calloc(1, bytes);
    if (!list)
        return NULL;
    own = (const char **)(void *)(list + 1);
    memcpy(own, names, count * sizeof *names);
    list->packed = at = (char *)(own + count);
    count = sort_names(own, count);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(own[i]) + 1;
        memcpy(at, own[i], len);
        own[i] = at;
        at += len;
    }
    list->bytes = bytes;
    list->packed_bytes = (size_t)(at - list->packed);
    list->is_models = true;
    list->models = (struct key_models){ .count = count, .names = own };
    return keep(set, list);
}

/* ---- ranges ---- */

static int by_bytes(const void *left, const void *right)
{
    return memcmp(left, right, sizeof(struct cidr));
}

const struct list *list_of_ranges(struct list_set *set, const struct cidr_list *ranges)
{
    size_t bytes = sizeof(struct list) + ranges->count * sizeof *ranges->items, kept = 0;
    struct list *list = calloc(1, bytes);
    struct cidr *own;

    if (!list)
        return NULL;
    own = (struct cidr *)(void *)(list + 1);
    memcpy(own, ranges->items, ranges->count * sizeof *own);
    qsort(own, ranges->count, sizeof *own, by_bytes);
    for (size_t i = 0; i < ranges->count; i++)
        if (!kept || by_bytes(&own[kept - 1], &own[i]) != 0)
            own[kept++] = own[i];
    list->bytes = bytes;
    list->packed = (const char *)own;
    list->packed_bytes = kept * sizeof *own;
    list->allow = (struct cidr_list){ .items = own, .count = kept };
    return keep(set, list);
}
