/* The last versions in memory. */
#include <stdio.h>

#include "check.h"
#include "tail.h"

enum { FRAME = 100 };

static struct tail tail;
static struct text out;

static void begin(uint64_t versions, uint64_t bytes)
{
    tail_release(&tail);
    text_release(&out);
    tail_init(&tail, versions, bytes);
    text_init(&out, 1 << 20);
}

__attribute__((destructor)) static void end(void)
{
    tail_release(&tail);
    text_release(&out);
}

static enum err add(const char *bytes)
{
    return tail_add(&tail, slice_of(bytes), 1, FRAME);
}

static enum err collect(uint64_t have, uint64_t *ret_to)
{
    text_clear(&out);
    return tail_collect(&tail, have, FRAME, &out, ret_to);
}

TEST(what_leads_on_is_what_came_since)
{
    uint64_t to;

    begin(100, 1000);
    tail_reset(&tail, 7);
    CHECK_EQ(collect(7, &to), ERR_AGAIN);
    CHECK_EQ(add("a"), ERR_OK);
    CHECK_EQ(add(""), ERR_OK); /* a version of which gateways need to know nothing */
    CHECK_EQ(add("bc"), ERR_OK);
    CHECK_EQ(tail_newest(&tail), 10);
    CHECK_EQ(collect(7, &to), ERR_OK);
    CHECK_EQ(to, 10);
    CHECK_STR(out.at, out.len, "abc");
    CHECK_EQ(collect(8, &to), ERR_OK);
    CHECK_STR(out.at, out.len, "bc");
    CHECK_EQ(collect(10, &to), ERR_AGAIN);
    CHECK_EQ(collect(11, &to), ERR_NOT_FOUND);
    CHECK_EQ(collect(6, &to), ERR_NOT_FOUND);
    CHECK_EQ(tail_changes_since(&tail, 7), 3);
    CHECK_EQ(tail_changes_since(&tail, 9), 1);
    CHECK_EQ(tail_changes_since(&tail, 10), 0);
    CHECK(tail_changes_since(&tail, 6) == UINT64_MAX);
}

TEST(the_oldest_make_room_by_count_and_by_bytes)
{
    uint64_t to;

    begin(3, 1000);
    for (unsigned i = 0; i < 10; i++)
        CHECK_EQ(add("x"), ERR_OK);
    CHECK(tail.base == 7 && tail.count == 3 && tail.bytes == 3);
    CHECK_EQ(tail_changes_since(&tail, 7), 3);
    CHECK_EQ(collect(6, &to), ERR_NOT_FOUND);
    CHECK_EQ(collect(7, &to), ERR_OK);

    begin(1000, 10);
    for (unsigned i = 0; i < 100; i++)
        CHECK_EQ(add("xyz"), ERR_OK);
    CHECK(tail.base == 97 && tail.bytes == 9 && tail_newest(&tail) == 100);
}

TEST(what_does_not_fit_into_one_frame_comes_in_whole_versions)
{
    char half[61];
    uint64_t to;

    memset(half, 'h', 60);
    half[60] = 0;
    begin(100, 1000);
    CHECK(add(half) == ERR_OK && add(half) == ERR_OK);
    CHECK_EQ(collect(0, &to), ERR_OK);
    CHECK(to == 1 && out.len == 60);
    CHECK_EQ(collect(1, &to), ERR_OK);
    CHECK_EQ(to, 2);
}

TEST(nothing_leads_over_a_version_that_no_frame_can_hold)
{
    char large[FRAME + 2];
    uint64_t to;

    memset(large, 'l', sizeof large - 1);
    large[sizeof large - 1] = 0;
    begin(100, 1000);
    CHECK(add("a") == ERR_OK && add(large) == ERR_OK && add("b") == ERR_OK);
    CHECK_EQ(tail_newest(&tail), 3);
    CHECK_EQ(collect(1, &to), ERR_NOT_FOUND);
    CHECK_EQ(collect(2, &to), ERR_OK);
    CHECK_STR(out.at, out.len, "b");
    CHECK_EQ(tail_changes_since(&tail, 2), 1);
}

TEST(a_hundred_thousand_versions_are_in_their_order)
{
    char words[16];
    uint64_t to;

    begin(100000, 1 << 20);
    for (unsigned i = 1; i <= 150000; i++) {
        (void)snprintf(words, sizeof words, "%u.", i);
        CHECK_EQ(add(words), ERR_OK);
    }
    CHECK_EQ(tail_newest(&tail), 150000);
    CHECK(tail.count <= 100000 && tail.base >= 50000);
    CHECK_EQ(collect(149997, &to), ERR_OK);
    CHECK_STR(out.at, out.len, "149998.149999.150000.");
}
