/*
 * tail - the changes of the last versions, packed, one entry a version, without a gap: `base` is the version on which
 * the oldest entry builds. Not a door: others include publish.h.
 *
 *     base ─► base + 1 ─► … ─► base + count = the newest
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct tail_entry {
    char *bytes;
    uint32_t len;
    uint64_t changes; /* of this one and all before it, since the beginning */
};

struct tail {
    struct tail_entry *ring;
    size_t room, first, count; /* room: a power of two */
    uint64_t base;
    uint64_t base_changes, changes; /* up to the base, and up to the newest */
    uint64_t bytes;
    uint64_t max_versions, max_bytes;
};

void tail_init(struct tail *tail, uint64_t max_versions, uint64_t max_bytes);
void tail_release(struct tail *tail);
/* Forgets everything; the next version is the one behind this one. */
void tail_reset(struct tail *tail, uint64_t version);
static inline uint64_t tail_newest(const struct tail *tail)
{
    return tail->base + tail->count;
}
/*
 * The next version, with this many changes; the oldest make room. One that no frame can hold (its bytes > max_frame) is
 * a new beginning: nothing leads over it. ERR_NO_MEMORY: it is a new beginning as well.
 */
enum err tail_add(struct tail *tail, struct slice bytes, uint64_t changes, size_t max_frame);
/* Changes since that version; of one that it does not reach back to, UINT64_MAX. */
uint64_t tail_changes_since(const struct tail *tail, uint64_t version);
/*
 * What leads on from `have`, whole versions as long as they fit into max_frame. ERR_NOT_FOUND: it does not reach back
 * so far, or `have` is newer than all. ERR_AGAIN: nothing newer.
 */
enum err tail_collect(const struct tail *tail, uint64_t have, size_t max_frame, struct text *out, uint64_t *ret_to);
