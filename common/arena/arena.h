/*
 * arena - memory that lives as long as one request and goes in one stroke.
 * Owned by the request; loop thread only. Small pieces come from blocks, large ones are blocks of their own. The first
 * block is small: what waits for long mostly needs no other. Everything is wiped before it is given back (prompts and
 * keys pass through here).
 */
#pragma once
#include <stddef.h>

#include "text.h"

struct arena_block;
struct arena {
    struct arena_block *blocks;
    char *at; /* free space in the newest block: at ... end */
    char *end;
};

/* A thread keeps a few blocks for its next arenas; one that ends gives them back. */
void arena_thread_stop(void);

void arena_init(struct arena *arena);
void arena_release(struct arena *arena);
/* Aligned for anything, zeroed; NULL when there is no memory. */
void *arena_take(struct arena *arena, size_t bytes);
/* A copy, not aligned; `at` is NULL when there is no memory (and the slice was not empty). */
struct slice arena_copy(struct arena *arena, struct slice slice);
#define ARENA_NEW(arena, type) ((type *)arena_take((arena), sizeof(type)))
