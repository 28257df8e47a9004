/* Whose turn it is. Users are numbers; one service is a job of 100 tokens unless a test says otherwise. */
#include "check.h"
#include "stage.h"

enum { MOST_USERS = 32 };

TEST(a_hundred_waiting_of_one_delay_anothers_single_one_by_what_runs_and_one_service)
{
    for (unsigned waiting = 1; waiting <= 100; waiting += 33) {
        struct stage stage;
        struct job *single;
        unsigned services = 0;

        stage_open(&stage, 1, 1);
        for (unsigned i = 0; i < waiting + 1; i++)
            (void)stage_enter(&stage, 1, 1, 20, 100);
        for (unsigned i = 0; i < waiting / 2; i++)
            stage_end_one(&stage);
        single = stage_enter(&stage, 2, 1, 20, 100);
        for (; ticket_state(single->ticket) == TICKET_WAITING; services++)
            stage_end_one(&stage);
        CHECK(services <= 2); /* the remainder of what ran, and one */
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(among_k_busy_users_a_newcomers_single_one_waits_for_k_services_at_most)
{
    for (unsigned k = 1; k <= 24; k += 5) {
        struct stage stage;
        struct job *single;
        unsigned services = 0;

        stage_open(&stage, 1, 1);
        for (unsigned i = 0; i < 50 * k; i++)
            (void)stage_enter(&stage, i % k, 1, stage_pick(&stage, 100), 10 + stage_pick(&stage, 300));
        for (unsigned i = 0; i < 7 * k; i++)
            stage_end_one(&stage);
        single = stage_enter(&stage, 99, 1, 20, 100);
        for (; ticket_state(single->ticket) == TICKET_WAITING; services++)
            stage_end_one(&stage);
        CHECK(services <= k + 1); /* one of them ran already */
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(a_users_own_go_oldest_first)
{
    struct stage stage;
    struct job *jobs[10];

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 10; i++)
        jobs[i] = stage_enter(&stage, 1, 1, 20, 100);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(ticket_state(jobs[i]->ticket), TICKET_GRANTED);
        CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1);
        stage_end_one(&stage);
    }
    stage_close(&stage);
}

/* ---- tokens, over windows in which everybody has work waiting ---- */

struct demand {
    unsigned users;
    unsigned weight[MOST_USERS], waiting[MOST_USERS];
    uint64_t prompt[MOST_USERS], completion[MOST_USERS]; /* means */
    enum queue_class class[MOST_USERS];
};

static void ask_for_one(struct stage *stage, const struct demand *demand, unsigned user)
{
    uint64_t prompt = demand->prompt[user] / 2 + stage_pick(stage, (unsigned)demand->prompt[user] + 1);
    uint64_t completion = demand->completion[user] / 2 + stage_pick(stage, (unsigned)demand->completion[user] + 1);

    (void)stage_enter_as(stage, user, demand->weight[user], demand->class[user], 0, prompt, completion);
}

static unsigned waiting_of(const struct stage *stage, unsigned user)
{
    unsigned waiting = 0;

    for (const struct job *job = stage->first; job; job = job->next)
        waiting += job->user == user && ticket_state(job->ticket) == TICKET_WAITING;
    return waiting;
}

static void fill_up(struct stage *stage, const struct demand *demand)
{
    for (unsigned user = 0; user < demand->users; user++)
        while (waiting_of(stage, user) < demand->waiting[user])
            ask_for_one(stage, demand, user);
}

/* Tokens each user got until one job after the other has made `tokens` in all. */
static void serve(struct stage *stage, const struct demand *demand, double tokens, double *ret_got)
{
    for (unsigned user = 0; user < demand->users; user++)
        ret_got[user] = 0;
    for (double sum = 0; sum < tokens;) {
        struct job *job = stage_next_end(stage);
        double took = (double)(job->prompt + job->completion);
        ret_got[job->user] += took;
        sum += took;
        stage_end_one(stage);
        fill_up(stage, demand);
    }
}

static double jain(const double *got, unsigned users)
{
    double sum = 0, squares = 0;

    for (unsigned i = 0; i < users; i++) {
        sum += got[i];
        squares += got[i] * got[i];
    }
    return sum * sum / (users * squares);
}

TEST(ten_users_with_very_unequal_demand_get_equally_many_tokens)
{
    static const struct demand demand = {
        .users = 10,
        .weight = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 },
        .waiting = { 1, 40, 1, 3, 20, 1, 2, 10, 1, 5 },
        .prompt = { 10, 10, 100, 100, 1000, 1000, 4000, 50, 200, 3000 },
        .completion = { 10, 500, 20, 2000, 50, 1000, 100, 30, 3000, 5 },
    };

    for (unsigned slots = 1; slots <= 4; slots += 3) {
        struct stage stage;
        double got[MOST_USERS];

        stage_open(&stage, 1, slots);
        fill_up(&stage, &demand);
        for (unsigned window = 0; window < 5; window++) {
            serve(&stage, &demand, 1e6, got);
            CHECK(jain(got, 10) >= 0.99);
        }
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(weights_of_one_two_and_four_are_met_within_three_percent)
{
    static const struct demand demand = {
        .users = 3,
        .weight = { 1, 2, 4 },
        .waiting = { 20, 1, 5 },
        .prompt = { 1000, 100, 300 },
        .completion = { 50, 400, 100 },
    };
    struct stage stage;
    double got[MOST_USERS];

    stage_open(&stage, 1, 2);
    fill_up(&stage, &demand);
    for (unsigned window = 0; window < 5; window++) {
        serve(&stage, &demand, 1e6, got);
        for (unsigned user = 0; user < 3; user++) {
            double part = got[user] / (got[0] + got[1] + got[2]) * 7 / demand.weight[user];
            CHECK(part > 0.97 && part < 1.03);
        }
    }
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(who_always_has_just_one_long_job_waiting_gets_no_more_than_the_others)
{
    static const struct demand demand = {
        .users = 2, .weight = { 1, 1 }, .waiting = { 1, 50 }, .prompt = { 10, 10 }, .completion = { 8000, 80 }
    };
    struct stage stage;
    double got[MOST_USERS];

    stage_open(&stage, 1, 2);
    fill_up(&stage, &demand);
    serve(&stage, &demand, 1e6, got);
    serve(&stage, &demand, 1e6, got);
    CHECK(got[0] / got[1] > 0.95 && got[0] / got[1] < 1.05);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_debt_is_remembered_while_its_user_is_away_and_worn_off_by_what_others_get)
{
    struct stage stage;
    struct job *job;
    double others = 0;

    stage_open(&stage, 1, 1);
    (void)stage_enter(&stage, 2, 1, 10, 100);
    (void)stage_enter(&stage, 1, 1, 10, 5000);
    for (unsigned i = 0; i < 100; i++)
        (void)stage_enter(&stage, 2, 1, 10, 100);
    stage_end_one(&stage);
    stage_end_one(&stage); /* the long one: it took a lot more than was expected */
    job = stage_enter(&stage, 1, 1, 10, 100);
    while (ticket_state(job->ticket) == TICKET_WAITING) {
        others += 110;
        stage_end_one(&stage);
    }
    CHECK(others > 4000 && others < 5500);
    for (unsigned i = 0; i < 80; i++)
        (void)stage_enter(&stage, 2, 1, 10, 100);
    stage_end_one(&stage);
    for (unsigned i = 0; i < 60; i++) /* away: as long as the debt of the second one lasts, and longer */
        stage_end_one(&stage);
    job = stage_enter(&stage, 1, 1, 10, 100);
    stage_end_one(&stage);
    if (ticket_state(job->ticket) == TICKET_WAITING)
        stage_end_one(&stage);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_debt_of_busy_times_is_worn_off_by_quiet_ones)
{
    for (unsigned quiet = 0; quiet <= 80; quiet += 80) {
        struct stage stage;
        struct job *job;
        unsigned services = 0;
        stage_open(&stage, 1, 1);
        (void)stage_enter(&stage, 2, 1, 10, 100);
        (void)stage_enter(&stage, 1, 1, 10, 5000);
        (void)stage_enter(&stage, 2, 1, 10, 100);
        while (stage.first)
            stage_end_one(&stage);
        for (unsigned i = 0; i < quiet; i++) { /* nobody has to wait */
            (void)stage_enter(&stage, 3, 1, 10, 100);
            stage_end_one(&stage);
        }
        for (unsigned i = 0; i < 60; i++)
            (void)stage_enter(&stage, 2, 1, 10, 100);
        job = stage_enter(&stage, 1, 1, 10, 100);
        for (; ticket_state(job->ticket) == TICKET_WAITING; services++)
            stage_end_one(&stage);
        CHECK(quiet ? services <= 2 : services > 15);
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(being_away_gives_nobody_more_than_one_rounds_credit)
{
    struct stage stage;
    unsigned firsts = 0;

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 300; i++)
        (void)stage_enter(&stage, 1, 1, 10, 100);
    stage_end_one(&stage);
    stage_leave(stage_enter(&stage, 2, 1, 10, 100), false); /* known, and then away for 200 services */
    for (unsigned i = 0; i < 200; i++)
        stage_end_one(&stage);
    for (unsigned i = 0; i < 50; i++)
        (void)stage_enter(&stage, 2, 1, 10, 100);
    for (unsigned i = 0; i < 20; i++) {
        stage_end_one(&stage);
        firsts += stage_next_end(&stage)->user == 2;
    }
    CHECK(firsts >= 9 && firsts <= 12);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(what_was_charged_too_much_is_paid_back)
{
    struct stage stage;
    double got[2] = { 0, 0 };

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 200; i++) {
        (void)stage_enter(&stage, 0, 1, 10, 100);
        (void)stage_enter(&stage, 1, 1, 4000, 100);
    }
    for (unsigned i = 0; i < 200; i++) { /* every other one of the second user's never runs */
        struct job *job = stage_next_end(&stage);
        bool fails = job->user == 1 && i % 2;
        stage.now_us = job->ends_us;
        got[job->user] += fails ? 0 : (double)(job->prompt + job->completion);
        stage_leave(job, !fails);
    }
    CHECK(got[0] > 0 && got[1] > 0);
    CHECK(got[1] / got[0] > 0.75 && got[1] / got[0] < 1.33); /* a window of some four of the long ones */
    stage_send_all_home(&stage);
    stage_close(&stage);
}

/* How many of the first user's jobs run for each of the second one's, whose every job is given up after `part` of it.
 */
static double turns_to_one(uint64_t prompt, uint64_t completion, double part, bool is_unseen)
{
    struct stage stage;
    double turns[2] = { 0, 0 };

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 20; i++) { /* so that speed and length are known */
        (void)stage_enter(&stage, 0, 1, 100, 100);
        stage_end_one(&stage);
    }
    for (unsigned i = 0; i < 400; i++) {
        (void)stage_enter(&stage, 0, 1, 100, 100);
        (void)stage_enter(&stage, 1, 1, prompt, completion);
    }
    for (unsigned i = 0; i < 300; i++) {
        struct job *job = stage_next_end(&stage);
        turns[job->user]++;
        if (job->user == 0) {
            stage_end_one(&stage);
            continue;
        }
        stage.now_us += (int64_t)((double)(job->ends_us - stage.now_us) * part);
        stage_give_up(job, is_unseen);
    }
    stage_send_all_home(&stage);
    stage_close(&stage);
    return turns[0] / turns[1];
}

TEST(who_hangs_up_before_the_first_token_has_paid_for_the_prompt)
{
    double turns = turns_to_one(8000, 100, 0.5, false); /* estimated as 4000, and the other one's cost 200 */

    CHECK(turns > 15 && turns < 25);
}

TEST(who_hangs_up_before_an_answer_that_comes_whole_has_paid_for_the_time_it_ran)
{
    double late = turns_to_one(0, 100, 0.9, true), soon = turns_to_one(0, 100, 0.1, true);

    CHECK(late > 0.4 && late < 0.6); /* 90 of the 100 that are expected, and the other one's cost 200 */
    CHECK(soon < 0.1);
}

TEST(batch_has_its_percentage_of_the_grants_while_interactive_ones_wait_and_all_when_none_does)
{
    for (unsigned percent = 1; percent <= 50; percent += 7) {
        struct stage stage;
        unsigned batch = 0;

        stage_open(&stage, 1, 1);
        stage.rules.batch_percent = percent;
        stage_look(&stage);
        for (unsigned i = 0; i < 600; i++) {
            (void)stage_enter_as(&stage, i % 5, 1, QUEUE_INTERACTIVE, 0, 10, 100);
            (void)stage_enter_as(&stage, 5 + i % 2, 1, QUEUE_BATCH, 0, 10, 100);
        }
        stage_end_one(&stage);
        for (unsigned i = 0; i < 500; i++) {
            batch += stage_next_end(&stage)->class == QUEUE_BATCH;
            stage_end_one(&stage);
        }
        CHECK(batch >= 5 * percent - 1 && batch <= 5 * percent + 1);
        while (stage_count(&stage, TICKET_WAITING))
            stage_end_one(&stage);
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(interactive_ones_go_before_batch)
{
    struct stage stage;
    struct job *job;

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 50; i++)
        (void)stage_enter_as(&stage, 1, 1, QUEUE_BATCH, 0, 10, 100);
    job = stage_enter(&stage, 2, 1, 10, 100);
    stage_end_one(&stage);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(an_endless_flood_of_newcomers_keeps_nobody_from_his_turn)
{
    struct stage stage;
    unsigned turns = 0, newcomer = 100;

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 40; i++)
        (void)stage_enter(&stage, 1, 1, 200, 1000);
    for (unsigned i = 0; i < 20; i++)
        (void)stage_enter(&stage, newcomer++, 1, 20, 100);
    for (unsigned i = 0; i < 3000; i++) { /* 21 wait: each is to have a 21st of the tokens */
        stage_end_one(&stage);
        (void)stage_enter(&stage, newcomer++, 1, 20, 100);
        turns += stage_next_end(&stage)->user == 1;
    }
    CHECK(turns > 3000 * 120 / 21 / 1200 * 8 / 10);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(what_others_get_between_two_turns_of_one_is_bounded_by_their_rounds)
{
    enum { OTHERS = 20, WEIGHT = 4, MOST = 400 };
    struct stage stage;
    double between = 0, most = 0;
    unsigned turns = 0;

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 10000; i++) {
        struct job *job;
        (void)stage_enter(&stage, i % OTHERS, WEIGHT, stage_pick(&stage, MOST / 2), 1 + stage_pick(&stage, MOST / 2));
        if (i % 100 == 0)
            (void)stage_enter(&stage, 99, 1, MOST / 2, MOST / 2);
        if (i < 200)
            continue;
        job = stage_next_end(&stage);
        between += job->user == 99 ? 0 : (double)(job->prompt + job->completion);
        if (job->user == 99) {
            most = between > most ? between : most;
            between = 0;
            turns++;
        }
        stage_end_one(&stage);
    }
    CHECK(turns >= 20);
    CHECK(most <= OTHERS * ((double)MOST / FAIR_QUANTUM + 2) * FAIR_QUANTUM * WEIGHT);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(thousands_of_users_come_and_go_and_the_longest_idle_are_forgotten)
{
    struct stage stage;

    stage_open(&stage, 1, 1);
    for (unsigned i = 0; i < 2 * FAIR_MAX_IDLE; i++)
        stage_leave(stage_enter(&stage, i, 1, 10, 100), true);
    CHECK_EQ(stage.queue->fair.user_count, FAIR_MAX_IDLE);
    CHECK_EQ(stage.queue->fair.idle_count, FAIR_MAX_IDLE);
    CHECK_STR(stage.queue->fair.longest_idle->name.at, stage.queue->fair.longest_idle->name.len, "user4096");
    stage_close(&stage);
}
