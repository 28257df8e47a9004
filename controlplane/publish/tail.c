#include "tail.h"

#include <stdlib.h>

enum { FIRST_ROOM = 64 };

void tail_init(struct tail *tail, uint64_t max_versions, uint64_t max_bytes)
{
    *tail = (struct tail){ .max_versions = max_versions, .max_bytes = max_bytes };
}

static struct tail_entry *entry_at(const struct tail *tail, size_t index)
{
    return &tail->ring[(tail->first + index) & (tail->room - 1)];
}

static void drop_oldest(struct tail *tail)
{
    struct tail_entry *oldest = entry_at(tail, 0);

    tail->bytes -= oldest->len;
    tail->base_changes = oldest->changes;
    free(oldest->bytes);
    oldest->bytes = NULL;
    tail->first = (tail->first + 1) & (tail->room - 1);
    tail->count--;
    tail->base++;
}

void tail_reset(struct tail *tail, uint64_t version)
{
    while (tail->count)
        drop_oldest(tail);
    tail->base = version;
    tail->base_changes = tail->changes;
}

void tail_release(struct tail *tail)
{
    tail_reset(tail, 0);
    free(tail->ring);
    tail->ring = NULL;
    tail->room = 0;
}

static bool grow(struct tail *tail)
{
    size_t room = tail->room ? 2 * tail->room : FIRST_ROOM;
    struct tail_entry *ring = calloc(room, sizeof *ring);

    if (!ring)
        return false;
    for (size_t i = 0; i < tail->count; i++)
        ring[i] = *entry_at(tail, i);
    free(tail->ring);
    tail->ring = ring;
    tail->room = room;
    tail->first = 0;
    return true;
}

enum err tail_add(struct tail *tail, struct slice bytes, uint64_t changes, size_t max_frame)
{
    uint64_t version = tail_newest(tail) + 1;
    bool fits = bytes.len <= max_frame;
    char *copy = fits && bytes.len ? malloc(bytes.len) : NULL;

    tail->changes += changes;
    if (!fits || (bytes.len && !copy) || (tail->count == tail->room && !grow(tail))) {
        free(copy);
        tail_reset(tail, version);
        return fits ? ERR_NO_MEMORY : ERR_OK;
    }
    if (bytes.len)
        memcpy(copy, bytes.at, bytes.len);
    tail->count++;
    tail->bytes += bytes.len;
    *entry_at(tail, tail->count - 1) = (struct tail_entry){ copy, (uint32_t)bytes.len, tail->changes };
    while (tail->count > tail->max_versions || (tail->bytes > tail->max_bytes && tail->count))
        drop_oldest(tail);
    return ERR_OK;
}

uint64_t tail_changes_since(const struct tail *tail, uint64_t version)
{
    if (version < tail->base || version > tail_newest(tail))
        return UINT64_MAX;
    if (version == tail->base)
        return tail->changes - tail->base_changes;
    return tail->changes - entry_at(tail, version - tail->base - 1)->changes;
}

enum err tail_collect(const struct tail *tail, uint64_t have, size_t max_frame, struct text *out, uint64_t *ret_to)
{
    uint64_t to = have;

    if (have < tail->base || have > tail_newest(tail))
        return ERR_NOT_FOUND;
    while (to < tail_newest(tail)) {
        const struct tail_entry *entry = entry_at(tail, to - tail->base);
        if (out->len + entry->len > max_frame)
            break;
        text_add(out, entry->bytes, entry->len);
        to++;
    }
    if (out->err)
        return out->err;
    *ret_to = to;
    return to == have ? ERR_AGAIN : ERR_OK;
}
