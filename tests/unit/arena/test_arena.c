#include <stdalign.h>

#include "arena.h"
#include "check.h"

TEST(an_arena_that_gave_nothing_can_be_released_twice)
{
    struct arena arena;

    arena_init(&arena);
    arena_release(&arena);
    arena_release(&arena);
    CHECK(!arena.blocks);
}

TEST(pieces_are_aligned_zeroed_and_apart)
{
    struct {
        unsigned char *at;
        size_t bytes;
    } pieces[600];
    struct arena arena;

    arena_init(&arena);
    for (unsigned i = 0; i < 600; i++) {
        pieces[i].bytes = 1 + i * 7 % 900;
        pieces[i].at = arena_take(&arena, pieces[i].bytes);
        CHECK(pieces[i].at);
        CHECK_EQ((uintptr_t)pieces[i].at % alignof(max_align_t), 0);
        for (size_t j = 0; j < pieces[i].bytes; j++)
            CHECK_EQ(pieces[i].at[j], 0);
        memset(pieces[i].at, (int)(i % 255) + 1, pieces[i].bytes);
    }
    for (unsigned i = 0; i < 600; i++)
        for (size_t j = 0; j < pieces[i].bytes; j++)
            CHECK_EQ(pieces[i].at[j], i % 255 + 1);
    arena_release(&arena);
}

TEST(a_large_piece_leaves_the_open_block_open)
{
    struct arena arena;
    char *first, *large, *second;

    arena_init(&arena);
    first = arena_take(&arena, 16);
    large = arena_take(&arena, 1 << 20);
    second = arena_take(&arena, 16);
    CHECK(first && large && second);
    CHECK(second == first + 16);
    memset(large, 1, 1 << 20);
    CHECK_EQ(first[15] + second[0], 0);
    arena_release(&arena);
}

TEST(an_absurd_size_gives_nothing_and_the_arena_goes_on)
{
    struct arena arena;

    arena_init(&arena);
    CHECK(!arena_take(&arena, SIZE_MAX));
    CHECK(!arena_take(&arena, SIZE_MAX - 15));
    CHECK(arena_take(&arena, 16));
    arena_release(&arena);
}

TEST(a_piece_of_no_bytes_is_a_piece)
{
    struct arena arena;

    arena_init(&arena);
    CHECK(arena_take(&arena, 0));
    CHECK(arena_take(&arena, 0) != arena_take(&arena, 0));
    arena_release(&arena);
}

TEST(a_copy_is_the_same_bytes_elsewhere)
{
    struct slice given = SLICE("a\0b"), copy;
    struct arena arena;

    arena_init(&arena);
    copy = arena_copy(&arena, given);
    CHECK(slice_is(copy, given));
    CHECK(copy.at != given.at);
    copy = arena_copy(&arena, (struct slice){ NULL, 0 });
    CHECK(copy.at && copy.len == 0);
    arena_release(&arena);
}

TEST(a_new_struct_is_zeroed)
{
    struct pair {
        uint64_t number;
        const char *name;
    } * pair;
    struct arena arena;

    arena_init(&arena);
    pair = ARENA_NEW(&arena, struct pair);
    CHECK(pair && pair->number == 0 && !pair->name);
    arena_release(&arena);
}

TEST(a_block_that_is_used_again_is_empty)
{
    struct arena arena;

    for (unsigned round = 0; round < 3; round++) {
        char *taken;
        arena_init(&arena);
        taken = arena_take(&arena, 64);
        CHECK(taken);
        for (unsigned i = 0; i < 64; i++)
            CHECK_EQ(taken[i], 0);
        memset(taken, 'x', 64);
        arena_release(&arena);
    }
    arena_thread_stop();
}
