/* When gateways are told. */
#include "check.h"
#include "gather.h"

static struct gather fresh(void)
{
    return (struct gather){ .first_ms = 10, .longest_ms = 200 };
}

TEST(the_first_change_is_told_at_once)
{
    struct gather gather = fresh();

    CHECK_EQ(gather_at(&gather, 5000), 5000);
    gather_told(&gather, 5000);
    CHECK_EQ(gather_at(&gather, 5003), 5010);
    CHECK_EQ(gather_at(&gather, 9000), 9000);
}

/* A change every millisecond: how often they are told, and how long the longest waits. */
TEST(while_changes_keep_coming_they_are_told_ever_more_seldom_up_to_a_limit)
{
    static const int64_t gaps[] = { 10, 20, 40, 80, 160, 200, 200, 200 };
    struct gather gather = fresh();
    int64_t told_ms = 1000;

    gather_told(&gather, told_ms);
    for (unsigned i = 0; i < sizeof gaps / sizeof *gaps; i++) {
        int64_t at_ms = gather_at(&gather, told_ms + 1);
        CHECK_EQ(at_ms - told_ms, gaps[i]);
        gather_told(&gather, at_ms);
        told_ms = at_ms;
    }
}

TEST(when_it_was_quiet_it_begins_anew)
{
    struct gather gather = fresh();

    for (int64_t now_ms = 1000; now_ms < 3000; now_ms++)
        if (gather_at(&gather, now_ms) == now_ms)
            gather_told(&gather, now_ms);
    CHECK_EQ(gather.delay_ms, 200);
    CHECK_EQ(gather_at(&gather, 5000), 5000);
    gather_told(&gather, 5000);
    CHECK_EQ(gather_at(&gather, 5001), 5010);
}
