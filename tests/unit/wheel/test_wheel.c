#include "check.h"
#include "wheel.h"

static struct wheel wheel;

/* A deadline that remembers when it fired. */
struct alarm {
    struct deadline deadline;
    unsigned fired;
    int64_t fired_ms;
    struct alarm *other; /* what its callback sets or clears */
};

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct alarm *alarm = (struct alarm *)deadline; /* its first member */

    CHECK(!deadline_is_set(deadline));
    alarm->fired++;
    alarm->fired_ms = now_ms;
}

static struct alarm alarm_new(void)
{
    return (struct alarm){ .deadline.on_due = on_due };
}

/* Turns the wheel as the loop does: every WHEEL_TICK_MS or sooner. */
static void turn_to(int64_t *now_ms, int64_t until_ms)
{
    while (*now_ms < until_ms) {
        *now_ms += 5;
        wheel_turn(&wheel, *now_ms);
    }
}

TEST(a_deadline_fires_once_and_not_before_its_time)
{
    int64_t now_ms = 1000003;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, now_ms + 100);
    CHECK(deadline_is_set(&alarm.deadline));
    CHECK_EQ(wheel.count, 1);
    turn_to(&now_ms, 1000003 + 95);
    CHECK_EQ(alarm.fired, 0);
    turn_to(&now_ms, 1000003 + 100 + 5 + WHEEL_TICK_MS);
    CHECK_EQ(alarm.fired, 1);
    CHECK(alarm.fired_ms >= 1000103 && alarm.fired_ms <= 1000103 + WHEEL_TICK_MS + 5);
    CHECK(!deadline_is_set(&alarm.deadline));
    CHECK_EQ(wheel.count, 0);
    turn_to(&now_ms, 1000003 + 20000);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_deadline_fires_on_time_at_every_distance_from_every_start)
{
    for (int64_t start_ms = 100; start_ms < 100 + WHEEL_TICK_MS; start_ms++)
        for (int64_t wait_ms = 0; wait_ms < 3 * WHEEL_TICK_MS; wait_ms++) {
            struct alarm alarm = alarm_new();
            int64_t now_ms = start_ms;
            wheel_init(&wheel, now_ms);
            wheel_set(&wheel, &alarm.deadline, start_ms + wait_ms);
            while (!alarm.fired && now_ms < start_ms + 1000)
                wheel_turn(&wheel, ++now_ms);
            CHECK(alarm.fired_ms >= start_ms + wait_ms);
            CHECK(alarm.fired_ms <= start_ms + wait_ms + WHEEL_TICK_MS + 1);
        }
}

TEST(a_deadline_more_than_a_round_away_waits_for_its_round)
{
    int64_t now_ms = 50, due_ms = 50 + 3 * WHEEL_TICK_MS * WHEEL_SLOTS + 77;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, due_ms);
    turn_to(&now_ms, due_ms - 5);
    CHECK_EQ(alarm.fired, 0);
    turn_to(&now_ms, due_ms + WHEEL_TICK_MS + 5);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_deadline_in_the_past_fires_at_the_next_tick)
{
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, 1000);
    wheel_turn(&wheel, 5000);
    wheel_set(&wheel, &alarm.deadline, 10);
    CHECK_EQ(alarm.fired, 0);
    wheel_turn(&wheel, 5000 + WHEEL_TICK_MS);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_deadline_can_be_moved_later_as_often_as_one_likes)
{
    int64_t now_ms = 1000;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    for (unsigned i = 0; i < 1000; i++) {
        wheel_set(&wheel, &alarm.deadline, now_ms + 200);
        turn_to(&now_ms, now_ms + 40);
        CHECK_EQ(alarm.fired, 0);
        CHECK_EQ(wheel.count, 1);
    }
    turn_to(&now_ms, now_ms + 160 + WHEEL_TICK_MS + 5);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_deadline_can_be_moved_sooner)
{
    int64_t now_ms = 1000;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, now_ms + 5000);
    wheel_set(&wheel, &alarm.deadline, now_ms + 50);
    CHECK_EQ(wheel.count, 1);
    turn_to(&now_ms, 1050 + WHEEL_TICK_MS + 5);
    CHECK_EQ(alarm.fired, 1);
    turn_to(&now_ms, 7000);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_deadline_moved_later_and_then_sooner_again_fires_when_it_was_last_told)
{
    int64_t now_ms = 1000;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, now_ms + 100);
    wheel_set(&wheel, &alarm.deadline, now_ms + 3000);
    wheel_set(&wheel, &alarm.deadline, now_ms + 300);
    turn_to(&now_ms, 1295);
    CHECK_EQ(alarm.fired, 0);
    turn_to(&now_ms, 1300 + WHEEL_TICK_MS + 5);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_cleared_deadline_does_not_fire_and_can_be_set_again)
{
    int64_t now_ms = 1000;
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, now_ms);
    wheel_clear(&wheel, &alarm.deadline);
    wheel_set(&wheel, &alarm.deadline, now_ms + 50);
    wheel_clear(&wheel, &alarm.deadline);
    wheel_clear(&wheel, &alarm.deadline);
    CHECK_EQ(wheel.count, 0);
    turn_to(&now_ms, 2000);
    CHECK_EQ(alarm.fired, 0);
    wheel_set(&wheel, &alarm.deadline, 2100);
    turn_to(&now_ms, 2200);
    CHECK_EQ(alarm.fired, 1);
}

TEST(a_loop_that_slept_long_fires_all_that_became_due)
{
    struct alarm alarms[2000];

    wheel_init(&wheel, 1000);
    for (unsigned i = 0; i < 2000; i++) {
        alarms[i] = alarm_new();
        wheel_set(&wheel, &alarms[i].deadline, 1000 + 13 * (int64_t)i);
    }
    CHECK_EQ(wheel.count, 2000);
    wheel_turn(&wheel, 1000 + 13 * 1000);
    for (unsigned i = 0; i < 2000; i++) {
        CHECK(i > 1000 - 2 || alarms[i].fired == 1);
        CHECK(i <= 1000 || alarms[i].fired == 0);
    }
    wheel_turn(&wheel, 1000000);
    for (unsigned i = 0; i < 2000; i++)
        CHECK_EQ(alarms[i].fired, 1);
    CHECK_EQ(wheel.count, 0);
}

TEST(a_clock_that_stands_still_or_goes_back_fires_nothing_twice)
{
    struct alarm alarm = alarm_new();

    wheel_init(&wheel, 1000);
    wheel_set(&wheel, &alarm.deadline, 1100);
    wheel_turn(&wheel, 1200);
    wheel_turn(&wheel, 1200);
    wheel_turn(&wheel, 900);
    CHECK_EQ(alarm.fired, 1);
    wheel_set(&wheel, &alarm.deadline, 1300);
    wheel_turn(&wheel, 1000);
    CHECK_EQ(alarm.fired, 1);
    wheel_turn(&wheel, 1400);
    CHECK_EQ(alarm.fired, 2);
}

static void sets_itself_again(struct deadline *deadline, int64_t now_ms)
{
    ((struct alarm *)deadline)->fired++;
    wheel_set(&wheel, deadline, now_ms + 100);
}

TEST(a_callback_may_set_its_own_deadline_again)
{
    int64_t now_ms = 1000;
    struct alarm alarm = { .deadline.on_due = sets_itself_again };

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, 1100);
    turn_to(&now_ms, 1000 + 100 * 100);
    CHECK(alarm.fired > 80 && alarm.fired <= 100);
    CHECK_EQ(wheel.count, 1);
}

static void sets_itself_at_once(struct deadline *deadline, int64_t now_ms)
{
    ((struct alarm *)deadline)->fired++;
    wheel_set(&wheel, deadline, now_ms);
}

TEST(a_callback_that_is_due_again_at_once_does_not_keep_the_wheel_turning_for_ever)
{
    int64_t now_ms = 1000;
    struct alarm alarm = { .deadline.on_due = sets_itself_at_once };

    wheel_init(&wheel, now_ms);
    wheel_set(&wheel, &alarm.deadline, 1000);
    wheel_turn(&wheel, 1000 + WHEEL_TICK_MS);
    CHECK_EQ(alarm.fired, 1);
    wheel_turn(&wheel, 1000 + 10 * WHEEL_TICK_MS);
    CHECK_EQ(alarm.fired, 2);
}

static void clears_the_other(struct deadline *deadline, int64_t now_ms)
{
    on_due(deadline, now_ms);
    wheel_clear(&wheel, &((struct alarm *)deadline)->other->deadline);
}

TEST(a_callback_may_clear_another_that_is_due_in_the_same_moment)
{
    struct alarm first = { .deadline.on_due = clears_the_other }, second = first;

    first.other = &second;
    second.other = &first;
    wheel_init(&wheel, 1000);
    wheel_set(&wheel, &first.deadline, 1100);
    wheel_set(&wheel, &second.deadline, 1100);
    wheel_turn(&wheel, 1200);
    CHECK_EQ(first.fired + second.fired, 1);
    CHECK_EQ(wheel.count, 0);
}

static void postpones_the_other(struct deadline *deadline, int64_t now_ms)
{
    struct alarm *alarm = (struct alarm *)deadline;

    on_due(deadline, now_ms);
    if (deadline_is_set(&alarm->other->deadline))
        wheel_set(&wheel, &alarm->other->deadline, now_ms + 1000);
}

TEST(a_callback_may_postpone_another_that_is_due_in_the_same_moment)
{
    int64_t now_ms = 1200;
    struct alarm first = { .deadline.on_due = postpones_the_other }, second = first;

    first.other = &second;
    second.other = &first;
    wheel_init(&wheel, 1000);
    wheel_set(&wheel, &first.deadline, 1100);
    wheel_set(&wheel, &second.deadline, 1100);
    wheel_turn(&wheel, now_ms);
    CHECK_EQ(first.fired + second.fired, 1);
    CHECK_EQ(wheel.count, 1);
    turn_to(&now_ms, 2195);
    CHECK_EQ(first.fired + second.fired, 1);
    turn_to(&now_ms, 2250);
    CHECK_EQ(first.fired + second.fired, 2);
}

TEST(many_deadlines_moved_at_random_each_fire_when_they_should)
{
    enum { COUNT = 300 };
    struct alarm alarms[COUNT];
    int64_t due_ms[COUNT] = { 0 };
    unsigned seed = 7, set = 0;

    wheel_init(&wheel, 1000);
    for (unsigned i = 0; i < COUNT; i++)
        alarms[i] = alarm_new();
    for (int64_t now_ms = 1000; now_ms < 60000; now_ms += 7) {
        for (unsigned i = 0; i < 10; i++) {
            unsigned which = (seed >> 8) % COUNT;
            seed = seed * 1103515245 + 12345;
            if (seed >> 28 == 0) {
                wheel_clear(&wheel, &alarms[which].deadline);
                due_ms[which] = 0;
            } else {
                due_ms[which] = now_ms + (seed >> 12) % 20000;
                wheel_set(&wheel, &alarms[which].deadline, due_ms[which]);
            }
        }
        wheel_turn(&wheel, now_ms + 7);
        set = 0;
        for (unsigned i = 0; i < COUNT; i++) {
            if (alarms[i].fired) {
                CHECK(due_ms[i] && due_ms[i] <= now_ms + 7);
                alarms[i].fired = 0;
                due_ms[i] = 0;
            }
            CHECK(!due_ms[i] || due_ms[i] + WHEEL_TICK_MS > now_ms);
            CHECK_EQ(deadline_is_set(&alarms[i].deadline), due_ms[i] != 0);
            set += due_ms[i] != 0;
        }
        CHECK_EQ(wheel.count, set);
    }
}

TEST(the_loop_may_sleep_until_the_next_tick_and_for_ever_where_nothing_is_due)
{
    struct alarm alarm = alarm_new();
    int64_t now_ms = 16000;

    wheel_init(&wheel, now_ms);
    CHECK_EQ(wheel_wait_ms(&wheel, now_ms), -1);
    wheel_set(&wheel, &alarm.deadline, now_ms + 5);
    while (!alarm.fired) { /* it sleeps as long as it is told, and no more often than once a tick */
        int wait_ms = wheel_wait_ms(&wheel, now_ms);
        CHECK(wait_ms > 0 && wait_ms <= WHEEL_TICK_MS);
        now_ms += wait_ms;
        wheel_turn(&wheel, now_ms);
    }
    CHECK(alarm.fired_ms >= 16005 && alarm.fired_ms <= 16005 + WHEEL_TICK_MS);
    CHECK_EQ(wheel_wait_ms(&wheel, now_ms), -1);
    wheel_set(&wheel, &alarm.deadline, now_ms + 1);
    CHECK_EQ(wheel_wait_ms(&wheel, now_ms + 1000), 0); /* the tick has passed */
    wheel_clear(&wheel, &alarm.deadline);
}
