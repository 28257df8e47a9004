#include "arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_BYTES = 224, BLOCK_BYTES = 2048, MAX_SPARE = 64 };

struct arena_block {
    struct arena_block *next;
    size_t bytes;
    alignas(max_align_t) char at[];
};

/* Wiped blocks of one size: a request needs a few, and the heap costs more than wiping them. */
struct spare {
    struct arena_block *blocks;
    unsigned count;
};
static _Thread_local struct spare first_ones, others;

/* NULL: of that size none are kept. */
static struct spare *spare_of(size_t bytes)
{
    return bytes == FIRST_BYTES ? &first_ones : bytes == BLOCK_BYTES ? &others : NULL;
}

static struct arena_block *spare_take(struct spare *spare)
{
    struct arena_block *block = spare->blocks;

    spare->blocks = block->next;
    spare->count--;
    return block;
}

void arena_thread_stop(void)
{
    while (first_ones.blocks)
        free(spare_take(&first_ones));
    while (others.blocks)
        free(spare_take(&others));
}

static void block_free(struct arena_block *block)
{
    struct spare *spare = spare_of(block->bytes);

    if (!spare || spare->count == MAX_SPARE) {
        free(block);
        return;
    }
    block->next = spare->blocks;
    spare->blocks = block;
    spare->count++;
}

/* Zeroed, or NULL. */
static struct arena_block *block_new(size_t bytes)
{
    struct spare *spare = spare_of(bytes);
    struct arena_block *block;

    if (bytes > SIZE_MAX - sizeof *block)
        return NULL;
    if (spare && spare->blocks)
        return spare_take(spare);
    block = calloc(1, sizeof *block + bytes);
    if (block)
        block->bytes = bytes;
    return block;
}

void arena_init(struct arena *arena)
{
    *arena = (struct arena){ 0 };
}

/* What was taken of a block: the open one is wet up to `at`, every other wholly. */
static size_t wet_bytes(const struct arena *arena, const struct arena_block *block)
{
    return arena->end == block->at + block->bytes ? (size_t)(arena->at - block->at) : block->bytes;
}

void arena_release(struct arena *arena)
{
    while (arena->blocks) {
        struct arena_block *block = arena->blocks;
        arena->blocks = block->next;
        explicit_bzero(block->at, wet_bytes(arena, block));
        block_free(block);
    }
    arena_init(arena);
}

static struct arena_block *add_block(struct arena *arena, size_t bytes)
{
    struct arena_block *block = block_new(bytes);

    if (!block)
        return NULL;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

/* How large a block is opened for a piece; one that is large has a block of its own, just as large. */
static size_t block_for(const struct arena *arena, size_t bytes)
{
    if (!arena->blocks && bytes <= FIRST_BYTES / 2)
        return FIRST_BYTES;
    return bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES;
}

/* `bytes` is not 0, `gap` what must be left before it for its alignment. */
static void *take(struct arena *arena, size_t gap, size_t bytes)
{
    size_t left = (size_t)(arena->end - arena->at);
    char *taken;

    if (left < gap || bytes > left - gap) {
        size_t wanted = block_for(arena, bytes);
        struct arena_block *block = add_block(arena, wanted);
        if (!block)
            return NULL;
        if (!spare_of(wanted))
            return block->at; /* a block of its own; the open one stays open */
        arena->at = block->at;
        arena->end = block->at + block->bytes;
        gap = 0;
    }
    taken = arena->at + gap;
    arena->at = taken + bytes;
    return taken;
}

void *arena_take(struct arena *arena, size_t bytes)
{
    size_t gap = -(uintptr_t)arena->at & (alignof(max_align_t) - 1);

    return take(arena, gap, bytes ? bytes : 1); /* nothing is a piece too, and not NULL */
}

struct slice arena_copy(struct arena *arena, struct slice slice)
{
    char *at;

    if (!slice.len)
        return (struct slice){ "", 0 };
    at = take(arena, 0, slice.len);
    if (!at)
        return (struct slice){ NULL, 0 };
    memcpy(at, slice.at, slice.len);
    return (struct slice){ at, slice.len };
}
