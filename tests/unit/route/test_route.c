#include "route.h"

#include <limits.h>

#include "check.h"

static const struct route_wish any = { .avoid = ROUTE_NONE };

static struct route_site site(const char *name, unsigned weight, unsigned slots, unsigned running)
{
    return (struct route_site){ .name = name,
                                .name_hash = route_name_hash(slice_of(name)),
                                .can_take = true,
                                .weight = weight,
                                .slots = slots,
                                .running = running };
}

static uint64_t chance(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1du;
}

TEST(a_site_with_a_free_slot_is_chosen_and_none_without)
{
    struct route_site sites[] = { site("a", 1, 2, 2), site("b", 1, 2, 1), site("c", 1, 2, 2) };
    enum route_why why;

    CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), 1);
    CHECK_EQ(why, ROUTE_ONLY);
    sites[1].running = 2;
    CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_ALL_BUSY);
    for (unsigned i = 0; i < 3; i++)
        sites[i].can_take = false;
    CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_NOBODY);
    CHECK_EQ(route_choose(sites, 0, &any, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_NOBODY);
}

TEST(one_site_alone_is_chosen_by_the_same_rules)
{
    struct route_site one = site("a", 1, 1, 0);
    const struct route_wish avoiding = { .avoid = 0 };
    enum route_why why;

    CHECK_EQ(route_choose(&one, 1, &any, 0, &why), 0);
    CHECK_EQ(why, ROUTE_ONLY);
    CHECK_EQ(route_choose(&one, 1, &avoiding, 0, &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_NOBODY);
    one.running = 1;
    CHECK_EQ(route_choose(&one, 1, &any, 0, &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_ALL_BUSY);
    one = site("a", 0, UINT_MAX, 1000);
    CHECK_EQ(route_choose(&one, 1, &any, 0, &why), 0);
    CHECK_EQ(why, ROUTE_STANDBY);
}

TEST(standby_ones_are_chosen_only_while_no_other_can_take_any)
{
    struct route_site sites[] = { site("a", 1, 2, 2), site("spare", 0, 2, 0), site("spare2", 0, 2, 2) };
    enum route_why why;

    CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_ALL_BUSY);
    sites[0].can_take = false;
    CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), 1);
    CHECK_EQ(why, ROUTE_STANDBY);
}

TEST(who_has_failed_it_is_not_chosen_even_when_alone)
{
    struct route_site sites[] = { site("a", 1, 4, 0), site("b", 1, 4, 4) };
    struct route_wish wish = { .conversation = 7, .avoid = 0 };
    enum route_why why;

    CHECK_EQ(route_choose(sites, 2, &wish, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_ALL_BUSY);
    sites[1].can_take = false;
    CHECK_EQ(route_choose(sites, 2, &wish, chance(), &why), ROUTE_NONE);
    CHECK_EQ(why, ROUTE_NOBODY);
    sites[1] = site("spare", 0, 4, 0);
    CHECK_EQ(route_choose(sites, 2, &wish, chance(), &why), 1);
    CHECK_EQ(why, ROUTE_STANDBY);
}

TEST(where_the_model_is_loaded_comes_first_as_long_as_a_slot_is_free_there)
{
    struct route_site sites[] = { site("cold", 1, 4, 0), site("warm", 1, 4, 3), site("cold2", 1, 4, 0) };
    enum route_why why;

    sites[1].is_resident = true;
    for (unsigned i = 0; i < 50; i++)
        CHECK_EQ(route_choose(sites, 3, &any, chance(), &why), 1);
    sites[1].running = 4;
    CHECK(route_choose(sites, 3, &any, chance(), &why) != 1);
}

TEST(without_limits_a_busy_loaded_one_does_not_keep_all_from_the_others)
{
    struct route_site sites[] = { site("cold", 1, UINT_MAX, 0), site("warm", 1, UINT_MAX, ROUTE_BUSY - 1) };
    enum route_why why;

    sites[1].is_resident = true;
    CHECK_EQ(route_choose(sites, 2, &any, chance(), &why), 1);
    sites[1].running = ROUTE_BUSY;
    CHECK_EQ(route_choose(sites, 2, &any, chance(), &why), 0);
}

TEST(of_two_the_one_with_less_to_do_for_its_speed_and_weight_is_better)
{
    static const struct {
        const char *name;
        unsigned running[2], weight[2];
        double speed[2];
        int wanted;
    } rows[] = {
        { "fewer running", { 3, 2 }, { 1, 1 }, { 0, 0 }, 1 },
        { "faster", { 3, 2 }, { 1, 1 }, { 40, 20 }, 0 },
        { "heavier", { 3, 2 }, { 2, 1 }, { 0, 0 }, 0 },
        { "a speed not known is the others' mean", { 2, 3 }, { 1, 1 }, { 0, 20 }, 0 },
        { "faster and heavier", { 7, 1 }, { 2, 1 }, { 60, 20 }, 0 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct route_site sites[2] = { site("a", rows[i].weight[0], 9, rows[i].running[0]),
                                       site("b", rows[i].weight[1], 9, rows[i].running[1]) };
        enum route_why why;
        sites[0].speed = rows[i].speed[0];
        sites[1].speed = rows[i].speed[1];
        for (unsigned turn = 0; turn < 8; turn++)
            CHECK_ROW(route_choose(sites, 2, &any, chance(), &why) == rows[i].wanted && why == ROUTE_BETTER,
                      rows[i].name);
        sites[rows[i].wanted].reported = 100; /* by others */
        CHECK_ROW(route_choose(sites, 2, &any, chance(), &why) != rows[i].wanted, rows[i].name);
    }
}

TEST(two_are_drawn_at_random_so_that_every_pair_comes_up)
{
    struct route_site sites[] = { site("a", 1, 99, 0), site("b", 1, 99, 10), site("c", 1, 99, 20),
                                  site("d", 1, 99, 30) };
    unsigned chosen[4] = { 0 };
    enum route_why why;

    for (unsigned i = 0; i < 6000; i++)
        chosen[route_choose(sites, 4, &any, chance(), &why)]++;
    CHECK(chosen[0] > 2850 && chosen[0] < 3150); /* in three pairs of six, and the better one in all of them */
    CHECK(chosen[1] > 1850 && chosen[1] < 2150);
    CHECK(chosen[2] > 850 && chosen[2] < 1150);
    CHECK_EQ(chosen[3], 0);
}

/* ---- conversations ---- */

enum { CONVERSATIONS = 20000 };

static int own(const struct route_site *sites, unsigned count, uint64_t conversation)
{
    const struct route_wish wish = { .conversation = conversation, .avoid = ROUTE_NONE };

    return route_own_site(sites, count, &wish);
}

TEST(conversations_have_a_site_of_their_own_by_weight_and_only_those_of_a_lost_site_move)
{
    struct route_site sites[] = { site("a", 1, 9, 0), site("b", 2, 9, 0), site("c", 4, 9, 0), site("spare", 0, 9, 0) };
    struct route_site fewer[] = { site("spare", 0, 9, 0), site("c", 4, 9, 0), site("a", 1, 9, 0) };
    unsigned owned[4] = { 0 };

    for (uint64_t i = 1; i <= CONVERSATIONS; i++) {
        int home = own(sites, 4, i), later = own(fewer, 3, i);
        CHECK(home >= 0 && home <= 2);
        CHECK_EQ(own(sites, 4, i), home);
        owned[home]++;
        CHECK(later == 1 || later == 2);
        CHECK(home == 1 || (home == 2 && later == 1) || (home == 0 && later == 2));
    }
    for (unsigned i = 0; i < 3; i++) {
        double part = owned[i] * 7.0 / CONVERSATIONS / sites[i].weight;
        CHECK(part > 0.94 && part < 1.06);
    }
}

TEST(a_conversation_goes_to_its_own_site_until_that_has_more_than_its_part_and_a_quarter)
{
    struct route_site sites[] = { site("a", 1, UINT_MAX, 0), site("b", 1, UINT_MAX, 0), site("c", 1, UINT_MAX, 0) };
    struct route_wish wish = { .conversation = 42, .avoid = ROUTE_NONE };
    int home = own(sites, 3, 42);
    enum route_why why;

    CHECK(home >= 0);
    for (unsigned i = 0; i < 3; i++)
        sites[i].running = 20;
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(route_choose(sites, 3, &wish, chance(), &why), home);
        CHECK_EQ(why, ROUTE_AFFINITY);
    }
    sites[home].running = 28; /* 68 run; of 69 a third and a quarter more is 28.75, rounded up 29 */
    CHECK_EQ(route_choose(sites, 3, &wish, chance(), &why), home);
    sites[home].running = 29;
    sites[(home + 1) % 3].running = 19;
    CHECK_EQ(own(sites, 3, 42), ROUTE_NONE);
    CHECK(route_choose(sites, 3, &wish, chance(), &why) != home);
    CHECK_EQ(why, ROUTE_BETTER);
}

TEST(a_faster_site_may_have_more_before_its_conversations_go_elsewhere)
{
    struct route_site sites[] = { site("a", 1, UINT_MAX, 0), site("b", 1, UINT_MAX, 0) };
    uint64_t of_a = 1;

    while (own(sites, 2, of_a) != 0)
        of_a++;
    sites[0].running = 12;
    sites[1].running = 4;
    CHECK_EQ(own(sites, 2, of_a), ROUTE_NONE);
    sites[0].speed = 90;
    sites[1].speed = 30;
    CHECK_EQ(own(sites, 2, of_a), 0);
}

TEST(no_slot_free_or_not_loaded_there_is_reason_enough_to_leave_ones_own_site)
{
    struct route_site sites[] = { site("a", 1, 4, 0), site("b", 1, 4, 0) };
    struct route_wish wish = { .conversation = 5, .avoid = ROUTE_NONE };
    int home = own(sites, 2, 5);
    enum route_why why;

    sites[1 - home].is_resident = true;
    CHECK_EQ(route_choose(sites, 2, &wish, chance(), &why), 1 - home);
    CHECK_EQ(own(sites, 2, 5), home); /* known and free: a try that does not hit */
    sites[1 - home].is_resident = false;
    sites[home].slots = 1;
    sites[home].running = 1;
    sites[1 - home].running = 1;
    CHECK_EQ(route_choose(sites, 2, &wish, chance(), &why), 1 - home);
    CHECK_EQ(own(sites, 2, 5), ROUTE_NONE);
}

TEST(people_are_told_each_candidate_its_score_and_what_would_be_chosen)
{
    struct route_site sites[] = { site("gpu1", 1, 4, 1), site("gpu2", 2, UINT_MAX, 3), site("gpu3", 1, 1, 1),
                                  site("spare", 0, 1, 0), site("gone", 1, 1, 0) };
    struct text out;

    text_init(&out, 4096);
    sites[0].is_resident = true;
    sites[0].speed = 40;
    sites[4].can_take = false;
    route_explain(sites, 5, &any, 1, &out);
    CHECK_STR(out.at, out.len,
              "  gpu1: candidate, model loaded, 1 of 4 slots, 40.0 tokens/s, weight 1, score 0.0500\n"
              "  gpu2: free, but the model is loaded elsewhere, model not known to be loaded, 3 running, slots without "
              "limit, speed not known yet, weight 2, score 0.0500\n"
              "  gpu3: busy, model not known to be loaded, 1 of 1 slots, speed not known yet, weight 1, score 0.0500\n"
              "  spare: standby, model not known to be loaded, 0 of 1 slots, speed not known yet, weight 0, score "
              "0.0250\n"
              "  gone: takes none, model not known to be loaded, 0 of 1 slots, speed not known yet, weight 1, score "
              "0.0250\n"
              "  now: gpu1, the only candidate\n");
    text_release(&out);
}

/* The last line that people are told. */
static void check_now(const struct route_site *sites, unsigned count, const char *wanted)
{
    const char *now;
    struct text out;

    text_init(&out, 4096);
    route_explain(sites, count, &any, 1, &out);
    now = strstr(text_string(&out), "  now: ");
    CHECK(now);
    CHECK_STR(now, strlen(now), wanted);
    text_release(&out);
}

TEST(people_are_told_nothing_of_slots_that_a_standby_belies)
{
    struct route_site sites[] = { site("gpu1", 1, 1, 1), site("gpu2", 1, 1, 1), site("spare", 0, 1, 0) };

    check_now(sites, 2, "  now: none, all slots are taken\n");
    check_now(sites, 3, "  now: none, all slots but a standby's are taken\n");
    sites[1].running = 0;
    check_now(sites, 3, "  now: gpu2, the only candidate\n");
    sites[2].running = 1;
    check_now(sites, 3, "  now: gpu2, the only candidate\n");
    sites[1].running = 1;
    check_now(sites, 3, "  now: none, all slots are taken\n");
    sites[0].can_take = sites[1].can_take = false;
    check_now(sites, 3, "  now: none, all slots are taken\n");
    sites[2].running = 0;
    check_now(sites, 3, "  now: spare, standby: no other can take it\n");
}
