#include <stdio.h>

#include "check.h"
#include "limit.h"

static struct holder *holder_new(struct limits *limits)
{
    struct digest key = { .bytes = { 7 } };
    return limits_holder(limits, &key);
}

static struct person *borrow_number(struct holder *holder, unsigned number, int64_t window_ms, int64_t now_ms,
                                    bool *ret_is_other)
{
    char name[16];

    (void)snprintf(name, sizeof name, "person %u", number);
    return person_borrow(holder, slice_of(name), window_ms, now_ms, ret_is_other);
}

static void come(struct holder *holder, unsigned number, const struct rate_rule *rule, int64_t now_ms,
                 bool *ret_is_other)
{
    struct person *person = borrow_number(holder, number, rule->window_ms, now_ms, ret_is_other);
    struct rate_state state;

    rate_take(person, rule, now_ms, &state);
    person_give_back(person);
}

TEST(the_same_digest_finds_the_same_holder)
{
    struct limits *limits = limits_new();
    struct digest one = { .bytes = { 1 } }, two = { .bytes = { 1, 0, 0, 0, 1 } };

    CHECK(limits_holder(limits, &one) == limits_holder(limits, &one));
    CHECK(limits_holder(limits, &one) != limits_holder(limits, &two));
    limits_free(limits);
}

TEST(a_name_that_took_nothing_goes_when_it_is_given_back)
{
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    bool is_other;
    struct person *first = borrow_number(holder, 1, 1000, 0, &is_other);
    struct person *again = borrow_number(holder, 1, 1000, 0, &is_other);

    CHECK(first == again);
    CHECK_EQ(persons_live(holder), 1);
    person_give_back(first);
    CHECK_EQ(persons_live(holder), 1);
    person_give_back(again);
    CHECK_EQ(persons_live(holder), 0);
    limits_free(limits);
}

TEST(a_name_is_remembered_as_long_as_its_window)
{
    struct rate_rule rule = { .max_requests = 1, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    struct rate_state state;
    struct person *person;
    bool is_other;

    come(holder, 1, &rule, 0, &is_other);
    CHECK_EQ(persons_live(holder), 1);
    person = borrow_number(holder, 1, rule.window_ms, 1000, &is_other);
    rate_look(person, &rule, 1000, &state);
    CHECK(state.is_full);
    person_give_back(person);
    come(holder, 2, &rule, 1001, &is_other);
    CHECK_EQ(persons_live(holder), 1); /* only number 2 */
    limits_free(limits);
}

TEST(a_borrowed_name_stays_beyond_its_window)
{
    struct rate_rule rule = { .max_requests = 5, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    struct rate_state state;
    bool is_other;
    struct person *person = borrow_number(holder, 1, rule.window_ms, 0, &is_other);

    rate_take(person, &rule, 0, &state);
    limits_tidy(limits, 5000);
    CHECK_EQ(persons_live(holder), 1);
    rate_take(person, &rule, 5000, &state);
    CHECK_EQ(state.remaining, 4);
    person_give_back(person);
    CHECK_EQ(persons_live(holder), 1);
    limits_tidy(limits, 6000);
    CHECK_EQ(persons_live(holder), 1);
    limits_tidy(limits, 6001);
    CHECK_EQ(persons_live(holder), 0);
    limits_free(limits);
}

TEST(beyond_ten_thousand_live_names_everybody_new_is_other)
{
    struct rate_rule rule = { .max_requests = 3, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    struct person *one, *two;
    bool is_other;

    for (unsigned i = 0; i < LIMIT_MAX_PERSONS; i++) {
        come(holder, i, &rule, i / 100, &is_other);
        CHECK(!is_other);
    }
    CHECK_EQ(persons_live(holder), LIMIT_MAX_PERSONS);
    one = borrow_number(holder, LIMIT_MAX_PERSONS, rule.window_ms, 200, &is_other);
    CHECK(is_other);
    two = borrow_number(holder, LIMIT_MAX_PERSONS + 1, rule.window_ms, 200, &is_other);
    CHECK(is_other);
    CHECK(one == two);
    person_give_back(one);
    person_give_back(two);
    (void)borrow_number(holder, 17, rule.window_ms, 200, &is_other); /* who was there first stays who he is */
    CHECK(!is_other);
    CHECK_EQ(persons_live(holder), LIMIT_MAX_PERSONS);
    /* At 1001 the first hundred have gone, and number 17 is borrowed still. */
    for (unsigned i = 0; i < 99; i++) {
        come(holder, LIMIT_MAX_PERSONS + i, &rule, 1001, &is_other);
        CHECK(!is_other);
    }
    come(holder, LIMIT_MAX_PERSONS + 99, &rule, 1001, &is_other);
    CHECK(is_other);
    limits_free(limits);
}

TEST(names_that_are_borrowed_long_do_not_keep_the_others_from_going)
{
    struct rate_rule rule = { .max_requests = 3, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    struct person *long_ones[5];
    bool is_other;

    for (unsigned i = 0; i < LIMIT_MAX_PERSONS; i++)
        come(holder, i, &rule, 0, &is_other);
    for (unsigned i = 0; i < 5; i++)
        long_ones[i] = borrow_number(holder, i, rule.window_ms, 0, &is_other);
    come(holder, LIMIT_MAX_PERSONS, &rule, 1000, &is_other);
    CHECK(is_other);
    come(holder, LIMIT_MAX_PERSONS, &rule, 1001, &is_other);
    CHECK(!is_other);
    for (unsigned i = 0; i < 5; i++)
        person_give_back(long_ones[i]);
    CHECK(persons_live(holder) < LIMIT_MAX_PERSONS);
    limits_free(limits);
}

TEST(names_that_go_make_room_for_any_number_of_others)
{
    struct rate_rule rule = { .max_requests = 3, .window_ms = 100 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_new(limits);
    bool is_other;

    for (unsigned i = 0; i < 100000; i++) {
        come(holder, i, &rule, i / 10, &is_other);
        CHECK(!is_other);
        CHECK(persons_live(holder) <= 1010);
    }
    limits_tidy(limits, 1000000);
    CHECK_EQ(persons_live(holder), 0);
    limits_free(limits);
}
