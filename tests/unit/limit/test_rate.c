#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "limit.h"

static struct digest key_of(unsigned number)
{
    char name[32];
    struct digest digest;

    (void)snprintf(name, sizeof name, "key %u", number);
    digest_sha256(slice_of(name), &digest);
    return digest;
}

static struct holder *holder_of(struct limits *limits, unsigned number)
{
    struct digest key = key_of(number);
    return limits_holder(limits, &key);
}

static struct person *borrow(struct holder *holder, const char *name, int64_t window_ms, int64_t now_ms)
{
    bool is_other;
    return person_borrow(holder, slice_of(name), window_ms, now_ms, &is_other);
}

static struct rate_state take(struct person *person, struct rate_rule rule, int64_t now_ms)
{
    struct rate_state state;
    rate_take(person, &rule, now_ms, &state);
    return state;
}

static struct rate_state look(struct person *person, struct rate_rule rule, int64_t now_ms)
{
    struct rate_state state;
    rate_look(person, &rule, now_ms, &state);
    return state;
}

TEST(thirty_in_a_minute_pass_and_the_thirty_first_waits_for_the_first_to_be_a_minute_old)
{
    struct rate_rule rule = { .max_requests = 30, .window_ms = 60000 };
    struct limits *limits = limits_new();
    struct person *person = borrow(holder_of(limits, 1), "", rule.window_ms, 0);
    struct rate_state state;

    for (unsigned i = 0; i < 30; i++) {
        state = take(person, rule, 1000 + i * 10);
        CHECK(!state.is_full);
        CHECK_EQ(state.limit, 30);
        CHECK_EQ(state.remaining, 29 - i);
        CHECK_EQ(state.reset_ms, 60000);
    }
    state = take(person, rule, 2000);
    CHECK(state.is_full);
    CHECK_EQ(state.limit, 30);
    CHECK_EQ(state.remaining, 0);
    CHECK_EQ(state.reset_ms, 59001);
    /* 1000 may have been 1000.9 and 61000 is 61000.0: less than a minute, so one ms more. */
    CHECK(take(person, rule, 61000).is_full);
    CHECK(!take(person, rule, 61001).is_full);
    CHECK(take(person, rule, 61010).is_full);
    CHECK_EQ(take(person, rule, 61010).reset_ms, 1);
    limits_free(limits);
}

TEST(looking_takes_nothing)
{
    struct rate_rule rule = { .max_requests = 2, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct person *person = borrow(holder_of(limits, 1), "", rule.window_ms, 0);

    CHECK_EQ(look(person, rule, 5).remaining, 2);
    CHECK_EQ(look(person, rule, 5).reset_ms, 0);
    CHECK(!take(person, rule, 10).is_full);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(!look(person, rule, 110).is_full);
        CHECK_EQ(look(person, rule, 110).remaining, 1);
        CHECK_EQ(look(person, rule, 110).reset_ms, 900);
    }
    CHECK(!take(person, rule, 500).is_full);
    CHECK(look(person, rule, 510).is_full);
    CHECK_EQ(look(person, rule, 510).reset_ms, 501);
    limits_free(limits);
}

TEST(without_a_limit_everything_passes_and_nothing_is_kept)
{
    struct rate_rule rule = { .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_of(limits, 1);
    struct person *person = borrow(holder, "alice", rule.window_ms, 0);

    for (unsigned i = 0; i < 100; i++) {
        struct rate_state state = take(person, rule, 1);
        CHECK(!state.is_full);
        CHECK_EQ(state.limit, 0);
    }
    person_give_back(person);
    CHECK_EQ(persons_live(holder), 0);
    limits_free(limits);
}

TEST(persons_of_one_key_have_windows_of_their_own_and_share_the_total)
{
    struct rate_rule rule = { .max_requests = 2, .max_total = 3, .window_ms = 1000 };
    struct limits *limits = limits_new();
    struct holder *holder = holder_of(limits, 1);
    struct person *alice = borrow(holder, "alice", rule.window_ms, 0);
    struct person *bob = borrow(holder, "bob", rule.window_ms, 0);
    struct rate_state state;

    CHECK(!take(alice, rule, 0).is_full);
    CHECK(!take(alice, rule, 1).is_full);
    state = take(alice, rule, 2);
    CHECK(state.is_full);
    CHECK_EQ(state.limit, 2);
    CHECK_EQ(state.reset_ms, 999);
    state = take(bob, rule, 3);
    CHECK(!state.is_full);
    CHECK_EQ(state.limit, 3); /* the total is the tighter one: nothing is left of it */
    CHECK_EQ(state.remaining, 0);
    state = take(bob, rule, 4);
    CHECK(state.is_full);
    CHECK_EQ(state.limit, 3);
    CHECK_EQ(state.reset_ms, 997);
    /* What the total refused was not taken from bob: when it has room, he still has one. */
    CHECK(!take(bob, rule, 1001).is_full);
    person_give_back(alice);
    person_give_back(bob);
    limits_free(limits);
}

TEST(keys_have_windows_of_their_own)
{
    struct rate_rule rule = { .max_requests = 1, .window_ms = 1000 };
    struct limits *limits = limits_new();

    for (unsigned key = 0; key < 100; key++)
        CHECK(!take(borrow(holder_of(limits, key), "", rule.window_ms, 0), rule, 0).is_full);
    for (unsigned key = 0; key < 100; key++)
        CHECK(take(borrow(holder_of(limits, key), "", rule.window_ms, 0), rule, 1).is_full);
    limits_free(limits);
}

TEST(a_reload_that_changes_the_rule_keeps_what_was_admitted)
{
    struct rate_rule wide = { .max_requests = 20, .window_ms = 60000 };
    struct rate_rule narrow = { .max_requests = 5, .window_ms = 60000 };
    struct rate_rule wider = { .max_requests = 25, .window_ms = 60000 };
    struct rate_rule longer = { .max_requests = 20, .window_ms = 120000 };
    struct limits *limits = limits_new();
    struct person *person = borrow(holder_of(limits, 1), "", wide.window_ms, 0);

    for (unsigned i = 0; i < 20; i++)
        CHECK(!take(person, wide, i * 100).is_full);
    CHECK(take(person, narrow, 2000).is_full);
    /* Sixteen must go before fewer than five are left: the sixteenth came at 1500. */
    CHECK_EQ(take(person, narrow, 2000).reset_ms, 59501);
    for (unsigned i = 0; i < 5; i++)
        CHECK(!take(person, wider, 2000).is_full);
    CHECK(take(person, wider, 2000).is_full);
    CHECK_EQ(take(person, longer, 2000).reset_ms, 118501);
    CHECK(take(person, narrow, 62000).is_full);
    CHECK(!take(person, narrow, 62001).is_full);
    limits_free(limits);
}

TEST(a_clock_that_another_worker_read_a_little_earlier_admits_nothing_extra)
{
    struct rate_rule rule = { .max_requests = 2, .window_ms = 100 };
    struct limits *limits = limits_new();
    struct person *person = borrow(holder_of(limits, 1), "", rule.window_ms, 0);

    CHECK(!take(person, rule, 50).is_full);
    CHECK(!take(person, rule, 48).is_full); /* counts from 50 on */
    CHECK_EQ(look(person, (struct rate_rule){ .max_requests = 1, .window_ms = 100 }, 60).reset_ms, 91);
    CHECK(take(person, rule, 150).is_full);
    CHECK(!take(person, rule, 151).is_full);
    CHECK(!take(person, rule, 151).is_full);
    CHECK(take(person, rule, 140).is_full);
    limits_free(limits);
}

/* --- against a model that keeps everything --- */

enum { PERSONS = 4, HISTORY = 20000 };

struct admission {
    int64_t at_ms;
    unsigned person;
};

struct model {
    struct admission history[HISTORY];
    unsigned count;
};

static unsigned model_count(const struct model *model, int person, int64_t window_ms, int64_t now_ms)
{
    unsigned count = 0;

    for (unsigned i = 0; i < model->count; i++)
        count += model->history[i].at_ms >= now_ms - window_ms &&
                 (person < 0 || model->history[i].person == (unsigned)person);
    return count;
}

static bool model_take(struct model *model, unsigned person, const struct rate_rule *rule, int64_t now_ms)
{
    if (rule->max_requests && model_count(model, (int)person, rule->window_ms, now_ms) >= rule->max_requests)
        return false;
    if (rule->max_total && model_count(model, -1, rule->window_ms, now_ms) >= rule->max_total)
        return false;
    model->history[model->count++] = (struct admission){ now_ms, person };
    return true;
}

static unsigned model_remaining(const struct model *model, unsigned person, const struct rate_rule *rule,
                                int64_t now_ms)
{
    unsigned own = model_count(model, (int)person, rule->window_ms, now_ms);
    unsigned all = model_count(model, -1, rule->window_ms, now_ms);
    unsigned own_left = own < rule->max_requests ? rule->max_requests - own : 0;
    unsigned all_left = all < rule->max_total ? rule->max_total - all : 0;

    if (!rule->max_requests || !rule->max_total)
        return rule->max_requests ? own_left : all_left;
    return own_left < all_left ? own_left : all_left;
}

static uint32_t dice(uint32_t *seed, uint32_t sides)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*seed >> 8) * sides >> 24);
}

static void play(struct limits *limits, unsigned key, uint32_t seed, struct model *model)
{
    static const char *const names[PERSONS] = { "", "alice", "bob", "carol" };
    struct rate_rule rule = { 1 + dice(&seed, 12), dice(&seed, 2) ? 1 + dice(&seed, 30) : 0, 50 + dice(&seed, 500) };
    int64_t now_ms = 1 + dice(&seed, 100000);

    model->count = 0;
    for (unsigned step = 0; step < 3000; step++) {
        unsigned who = dice(&seed, PERSONS);
        struct person *person = borrow(holder_of(limits, key), names[who], rule.window_ms, now_ms);
        struct rate_state seen = look(person, rule, now_ms);
        bool may = model_take(model, who, &rule, now_ms);
        struct rate_state state = take(person, rule, now_ms);
        CHECK_EQ(state.is_full, !may);
        CHECK_EQ(seen.is_full, !may);
        CHECK_EQ(state.remaining, model_remaining(model, who, &rule, now_ms));
        if (state.is_full) {
            /* The answer is exact: one ms earlier it would still be full, then it is not. */
            CHECK(model_remaining(model, who, &rule, now_ms + state.reset_ms - 1) == 0);
            CHECK(model_remaining(model, who, &rule, now_ms + state.reset_ms) > 0);
        }
        person_give_back(person);
        now_ms += dice(&seed, 4) ? dice(&seed, 20) : 0;
        if (dice(&seed, 400) == 0) /* a reload; only the maxima, since the past of a longer window is not known */
            rule = (struct rate_rule){ 1 + dice(&seed, 12), rule.max_total ? 1 + dice(&seed, 30) : 0, rule.window_ms };
    }
}

TEST(it_agrees_with_a_model_that_remembers_every_admission)
{
    struct model *model = malloc(sizeof *model);
    struct limits *limits = limits_new();

    for (uint32_t game = 0; game < 60; game++)
        play(limits, game, game * 7919 + 1, model);
    limits_free(limits);
    free(model);
}

/* --- threads --- */

enum { THREADS = 4, TAKES = 20000, MOST = 4000 };

static struct {
    struct limits *limits;
    struct rate_rule rule;
    _Atomic unsigned admitted, admitted_alice;
} race;

static void *race_run(void *thread)
{
    for (unsigned i = 0; i < TAKES; i++) {
        const char *name = i % 4 == 0 ? "alice" : i % 4 == 1 ? "bob" : "";
        struct person *person = borrow(holder_of(race.limits, i % 3), name, race.rule.window_ms, 1000);
        if (!take(person, race.rule, 1000 + (i & 1)).is_full) {
            atomic_fetch_add(&race.admitted, 1);
            if (i % 4 == 0 && i % 3 == 0)
                atomic_fetch_add(&race.admitted_alice, 1);
        }
        person_give_back(person);
    }
    return thread;
}

TEST(four_threads_are_admitted_exactly_as_often_as_one)
{
    pthread_t threads[THREADS];

    race.limits = limits_new();
    race.rule = (struct rate_rule){ .max_requests = MOST / 4, .max_total = MOST, .window_ms = 60000 };
    atomic_store(&race.admitted, 0);
    atomic_store(&race.admitted_alice, 0);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, race_run, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    /* Three keys; alice, bob and the key itself each reach their own, which is below the total. */
    CHECK_EQ(atomic_load(&race.admitted), 3 * 3 * (MOST / 4));
    CHECK_EQ(atomic_load(&race.admitted_alice), MOST / 4);
    limits_free(race.limits);
}

TEST(four_threads_never_pass_the_total)
{
    pthread_t threads[THREADS];

    race.limits = limits_new();
    race.rule = (struct rate_rule){ .max_requests = MOST, .max_total = 1234, .window_ms = 60000 };
    atomic_store(&race.admitted, 0);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, race_run, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    CHECK_EQ(atomic_load(&race.admitted), 3 * 1234);
    limits_free(race.limits);
}
