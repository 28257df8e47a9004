#include "arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 2048, MAX_SPARE = 64 };

struct arena_block {
    struct arena_block *next;
    size_t bytes;
    alignas(max_align_t) char at[];
};

/* Wiped blocks of BLOCK_BYTES: a request needs two, and the heap costs more than wiping them. */
static _Thread_local struct arena_block *spare;
static _Thread_local unsigned spare_count;

void arena_thread_stop(void)
{
    while (spare) {
        struct arena_block *block = spare;
        spare = block->next;
        free(block);
    }
    spare_count = 0;
}

static void block_free(struct arena_block *block)
{
    if (block->bytes != BLOCK_BYTES || spare_count == MAX_SPARE) {
        free(block);
        return;
    }
    block->next = spare;
    spare = block;
    spare_count++;
}

/* Zeroed, or NULL. */
static struct arena_block *block_new(size_t bytes)
{
    struct arena_block *block = spare;

    if (bytes > SIZE_MAX - sizeof *block)
        return NULL;
    if (bytes == BLOCK_BYTES && block) {
        spare = block->next;
        spare_count--;
        return block;
    }
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

void *arena_take(struct arena *arena, size_t bytes)
{
    size_t wanted = bytes ? bytes : 1; /* nothing is a piece too, and not NULL */
    size_t rounded = (wanted + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    struct arena_block *block;
    char *taken;

    if (rounded < wanted)
        return NULL;
    if (rounded > (size_t)(arena->end - arena->at)) {
        block = add_block(arena, rounded > BLOCK_BYTES / 4 ? rounded : BLOCK_BYTES);
        if (!block)
            return NULL;
        if (block->bytes != BLOCK_BYTES)
            return block->at; /* a block of its own; the open one stays open */
        arena->at = block->at;
        arena->end = block->at + block->bytes;
    }
    taken = arena->at;
    arena->at += rounded;
    return taken;
}

struct slice arena_copy(struct arena *arena, struct slice slice)
{
    char *at;

    if (!slice.len)
        return (struct slice){ "", 0 };
    at = arena_take(arena, slice.len);
    if (!at)
        return (struct slice){ NULL, 0 };
    memcpy(at, slice.at, slice.len);
    return (struct slice){ at, slice.len };
}
