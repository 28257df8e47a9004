/* A ticket's life: limits, places, letters, backends that come and go. */
#include <limits.h>

#include "check.h"
#include "stage.h"

TEST(what_is_over_the_slots_waits_and_goes_when_one_ends)
{
    struct stage stage;
    struct job *jobs[5];

    stage_open(&stage, 1, 2);
    for (unsigned i = 0; i < 5; i++)
        jobs[i] = stage_enter(&stage, i, 1, 10, 100);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 3);
    CHECK_EQ(ticket_state(jobs[1]->ticket), TICKET_GRANTED);
    CHECK(!ticket_backend(jobs[2]->ticket));
    CHECK(ticket_backend(jobs[0]->ticket) == stage.backends[0]);
    stage_leave(jobs[1], true);
    CHECK_EQ(ticket_state(jobs[2]->ticket), TICKET_GRANTED);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    CHECK_EQ(stage.rung, 0); /* all in one thread: nobody else need be woken */
    stage_send_all_home(&stage);
    CHECK_EQ(atomic_load(&stage.queue->running), 0);
    stage_close(&stage);
}

TEST(without_a_limit_nobody_waits)
{
    struct stage stage;

    stage_open(&stage, 1, 0);
    for (unsigned i = 0; i < 1000; i++)
        (void)stage_enter(&stage, i % 3, 1, 10, 100);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1000);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(more_than_may_wait_are_refused_in_all_and_of_one_user)
{
    struct stage stage;

    stage_open(&stage, 1, 1);
    stage.rules.max_waiting = 5;
    stage.rules.max_waiting_per_user = 3;
    stage_look(&stage);
    for (unsigned i = 0; i < 4; i++)
        CHECK(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket) != TICKET_USER_FULL);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_USER_FULL);
    CHECK_EQ(ticket_state(stage_enter_as(&stage, 1, 1, QUEUE_BATCH, 0, 10, 100)->ticket), TICKET_USER_FULL);
    CHECK_EQ(ticket_state(stage_enter(&stage, 2, 1, 10, 100)->ticket), TICKET_WAITING);
    CHECK_EQ(ticket_state(stage_enter(&stage, 3, 1, 10, 100)->ticket), TICKET_WAITING);
    CHECK_EQ(ticket_state(stage_enter(&stage, 4, 1, 10, 100)->ticket), TICKET_FULL);
    CHECK_EQ(ticket_state(stage_enter_as(&stage, 4, 1, QUEUE_BATCH, 0, 10, 100)->ticket), TICKET_FULL);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 5);
    stage_end_one(&stage);
    CHECK_EQ(ticket_state(stage_enter(&stage, 4, 1, 10, 100)->ticket), TICKET_WAITING);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(batch_fills_its_part_of_the_places_and_not_those_of_others)
{
    struct stage stage;

    stage_open(&stage, 1, 1);
    stage.rules.max_waiting = 5;
    stage.rules.max_waiting_batch = 2;
    stage_look(&stage);
    (void)stage_enter(&stage, 1, 1, 10, 100);
    for (unsigned user = 2; user < 4; user++)
        CHECK_EQ(ticket_state(stage_enter_as(&stage, user, 1, QUEUE_BATCH, 0, 10, 100)->ticket), TICKET_WAITING);
    CHECK_EQ(ticket_state(stage_enter_as(&stage, 4, 1, QUEUE_BATCH, 0, 10, 100)->ticket), TICKET_FULL);
    for (unsigned user = 4; user < 7; user++)
        CHECK_EQ(ticket_state(stage_enter(&stage, user, 1, 10, 100)->ticket), TICKET_WAITING);
    CHECK_EQ(ticket_state(stage_enter(&stage, 7, 1, 10, 100)->ticket), TICKET_FULL);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_place_is_given_up_at_once_wherever_it_is_in_the_line)
{
    for (unsigned leaves = 0; leaves < 4; leaves++) {
        struct stage stage;
        struct job *jobs[4];
        stage_open(&stage, 1, 1);
        stage.rules.max_waiting = 4;
        stage_look(&stage);
        (void)stage_enter(&stage, 9, 1, 10, 100);
        for (unsigned i = 0; i < 4; i++)
            jobs[i] = stage_enter(&stage, 1, 1, 10, 100);
        CHECK_EQ(ticket_state(stage_enter(&stage, 2, 1, 10, 100)->ticket), TICKET_FULL);
        stage_leave(jobs[leaves], false);
        CHECK_EQ(atomic_load(&stage.queue->waiting[QUEUE_INTERACTIVE]), 3);
        CHECK_EQ(ticket_state(stage_enter(&stage, 2, 1, 10, 100)->ticket), TICKET_WAITING);
        for (unsigned i = 0; i < 4; i++) {
            if (i == leaves)
                continue;
            while (ticket_state(jobs[i]->ticket) == TICKET_WAITING)
                stage_end_one(&stage);
            CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1);
        }
        stage_send_all_home(&stage);
        stage_close(&stage);
    }
}

TEST(a_granted_ticket_that_is_given_back_before_its_letter_was_read_is_never_heard_of_again)
{
    struct stage stage;
    struct queue_home home = { .ring = NULL };
    struct ticket_wish wish = { .user = SLICE("user"), .weight = 1 };
    struct ticket *first, *second, *third;
    int owner;

    stage_open(&stage, 1, 1);
    home.ring = stage.home.ring;
    home.arg = &stage;
    first = ticket_take(stage.queue, &home, &wish, NULL, 1);
    second = ticket_take(stage.queue, &home, &wish, &owner, 2);
    third = ticket_take(stage.queue, &home, &wish, &owner, 3);
    ticket_give_back(first, NULL, 4);
    CHECK_EQ(ticket_state(second), TICKET_WAITING); /* not told yet */
    ticket_give_back(second, NULL, 5);
    CHECK(queue_home_next(&home) == &owner); /* of the third one */
    CHECK_EQ(ticket_state(third), TICKET_GRANTED);
    CHECK(!queue_home_next(&home));
    ticket_give_back(third, NULL, 6);
    CHECK_EQ(stage.rung, 0);
    stage_close(&stage);
}

TEST(another_homes_thread_is_rung_once_until_it_has_read_its_letters)
{
    struct stage stage;
    struct queue_home home = { .ring = NULL };
    struct ticket_wish wish = { .user = SLICE("user"), .weight = 1 };
    struct job *jobs[3];
    struct ticket *theirs[3];
    int owner;

    stage_open(&stage, 1, 3);
    home.ring = stage.home.ring;
    home.arg = &stage;
    for (unsigned i = 0; i < 3; i++)
        jobs[i] = stage_enter(&stage, i, 1, 10, 100);
    for (unsigned i = 0; i < 3; i++)
        theirs[i] = ticket_take(stage.queue, &home, &wish, &owner, 2);
    stage_leave(jobs[0], true);
    CHECK_EQ(stage.rung, 1);
    stage_leave(jobs[1], true);
    CHECK_EQ(stage.rung, 1);
    CHECK(queue_home_next(&home) && queue_home_next(&home) && !queue_home_next(&home));
    stage_leave(jobs[2], true);
    CHECK_EQ(stage.rung, 2);
    CHECK(queue_home_next(&home) && !queue_home_next(&home));
    for (unsigned i = 0; i < 3; i++)
        ticket_give_back(theirs[i], NULL, 3);
    stage_close(&stage);
}

TEST(places_are_estimated_by_turns_and_count_down)
{
    struct stage stage;
    struct job *jobs[6], *late, *refused;

    stage_open(&stage, 1, 1);
    stage.rules.max_waiting = 7;
    stage_look(&stage);
    for (unsigned i = 0; i < 6; i++)
        jobs[i] = stage_enter(&stage, 1, 1, 10, 100);
    CHECK_EQ(ticket_place(jobs[0]->ticket), 0);
    CHECK_EQ(ticket_place(jobs[1]->ticket), 1);
    CHECK_EQ(ticket_place(jobs[5]->ticket), 5);
    late = stage_enter(&stage, 2, 1, 10, 100);
    CHECK_EQ(ticket_place(late->ticket), 2); /* the other one has a turn first */
    (void)stage_enter(&stage, 2, 1, 10, 100);
    refused = stage_enter(&stage, 3, 1, 10, 100);
    CHECK_EQ(ticket_state(refused->ticket), TICKET_FULL);
    CHECK_EQ(ticket_place(refused->ticket), 3);
    stage_leave(jobs[0], true);
    CHECK_EQ(ticket_place(jobs[5]->ticket), 4);
    CHECK_EQ(ticket_place(late->ticket), ticket_state(late->ticket) == TICKET_WAITING ? 1 : 2);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(who_is_refused_hears_when_his_turn_would_be_by_measured_times)
{
    struct stage stage;
    struct job *job;

    stage_open(&stage, 2, 2);
    job = stage_enter(&stage, 1, 1, 0, 1000);                          /* 10 s */
    CHECK_EQ(queue_retry_after_us(stage.queue, job->ticket), 1000000); /* nothing measured yet */
    stage_end_one(&stage);
    for (unsigned i = 0; i < 24; i++)
        job = stage_enter(&stage, 1, 1, 0, 1000);
    CHECK_EQ(ticket_place(job->ticket), 20);
    CHECK_EQ((queue_retry_after_us(stage.queue, job->ticket) + 500000) / 1000000, 20 * 10 / 4);
    CHECK_EQ((queue_retry_after_us(stage.queue, NULL) + 500000) / 1000000, 3);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

/* ---- backends ---- */

TEST(who_comes_while_the_only_backend_loads_its_models_waits_for_it)
{
    struct stage stage;

    stage_open(&stage, 2, 1);
    stage_break(&stage, 0, true);
    backend_warms(stage.backends[1], true, 0);
    for (unsigned user = 0; user < 3; user++)
        CHECK_EQ(ticket_state(stage_enter(&stage, user, 1, 10, 100)->ticket), TICKET_WAITING);
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 3);
    backend_warms(stage.backends[1], false, 0);
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 2);
    backend_warms(stage.backends[1], true, 0); /* it has restarted */
    stage_break(&stage, 0, false);             /* and the other one is back */
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    stage_break(&stage, 0, true);
    stage_break(&stage, 1, true); /* it dies while it loads */
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_NO_BACKEND), 1);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(where_no_backend_can_take_any_that_is_said_at_once)
{
    struct stage stage;

    stage_open(&stage, 2, 1);
    stage_break(&stage, 0, true);
    stage_break(&stage, 1, true);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_NO_BACKEND);
    stage_break(&stage, 1, false);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_GRANTED);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_WAITING);
    stage_break(&stage, 1, true);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_NO_BACKEND);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 1);
    stage_look(&stage); /* and to who was waiting already */
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 0);
    CHECK_EQ(stage_count(&stage, TICKET_NO_BACKEND), 3);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_backend_that_comes_back_is_given_what_waits_at_the_next_look)
{
    struct stage stage;

    stage_open(&stage, 2, 1);
    stage_break(&stage, 1, true);
    for (unsigned i = 0; i < 3; i++)
        (void)stage_enter(&stage, i, 1, 10, 100);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 1);
    stage_break(&stage, 1, false);
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(one_that_is_sent_again_goes_before_all_others_and_not_where_it_failed)
{
    struct stage stage;
    struct job *failed, *other, *waiting;

    stage_open(&stage, 2, 1);
    failed = stage_enter(&stage, 1, 1, 10, 100);
    other = stage_enter(&stage, 2, 1, 10, 1000);
    CHECK(failed->site != other->site);
    waiting = stage_enter(&stage, 3, 1, 10, 100);
    stage_enter_again(failed, false); /* its slot goes to the one that waits; it avoids it */
    CHECK_EQ(ticket_state(failed->ticket), TICKET_WAITING);
    CHECK_EQ(ticket_place(failed->ticket), 1);
    CHECK_EQ(ticket_state(waiting->ticket), TICKET_GRANTED);
    (void)stage_enter(&stage, 3, 1, 10, 100);
    stage_leave(other, true);
    CHECK_EQ(ticket_state(failed->ticket), TICKET_GRANTED);
    CHECK(failed->site != waiting->site);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 1);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(one_that_is_sent_again_finds_a_free_slot_at_once_or_hears_that_there_is_no_other_backend)
{
    struct stage stage;
    struct job *job;
    unsigned first;

    stage_open(&stage, 2, 2);
    job = stage_enter(&stage, 1, 1, 10, 100);
    first = job->site;
    stage_enter_again(job, false);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    CHECK(job->site != first);
    stage_break(&stage, first, true);
    job = stage_enter(&stage, 1, 1, 10, 100);
    stage_enter_again(job, false);
    CHECK_EQ(ticket_state(job->ticket), TICKET_NO_BACKEND);
    stage_send_all_home(&stage);
    CHECK_EQ(atomic_load(&stage.queue->running), 0);
    stage_close(&stage);
}

TEST(one_that_may_go_where_it_failed_does_so_only_when_no_other_can_take_it)
{
    struct stage stage;
    struct job *job;
    unsigned first;

    stage_open(&stage, 2, 2);
    job = stage_enter(&stage, 1, 1, 10, 100);
    first = job->site;
    stage_enter_again(job, true);
    CHECK(job->site != first);
    stage_break(&stage, first, true);
    first = job->site;
    stage_enter_again(job, true);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    CHECK_EQ(job->site, first);
    stage_send_all_home(&stage);
    CHECK_EQ(atomic_load(&stage.queue->running), 0);
    stage_close(&stage);
}

TEST(what_was_lost_on_the_way_is_not_paid_for_twice)
{
    struct stage stage;
    struct job *job;
    double balance;

    stage_open(&stage, 2, 1);
    for (unsigned i = 0; i < 2; i++)
        (void)stage_enter(&stage, 2, 1, 10, 1000);
    job = stage_enter(&stage, 1, 1, 10, 100);
    stage_end_one(&stage);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    CHECK(job->ticket->is_charged);
    balance = job->ticket->user->shares[QUEUE_INTERACTIVE].balance;
    stage_enter_again(job, false);
    stage_end_one(&stage);
    CHECK_EQ(ticket_state(job->ticket), TICKET_GRANTED);
    CHECK(job->ticket->user->shares[QUEUE_INTERACTIVE].balance == balance);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_backend_that_left_the_configuration_is_remembered_until_its_requests_have_ended)
{
    struct stage stage;
    struct job *job, *after;

    stage_open(&stage, 2, 1);
    stage_break(&stage, 0, true);
    job = stage_enter(&stage, 1, 1, 10, 100);
    CHECK_EQ(job->site, 1);
    stage_break(&stage, 0, false);
    stage.sites = 1; /* a reload without the second one */
    stage_look(&stage);
    CHECK_EQ(stage.queue->site_count, 2);
    CHECK(ticket_backend(job->ticket) == stage.backends[1]);
    after = stage_enter(&stage, 1, 1, 10, 100);
    CHECK_EQ(after->site, 0);
    CHECK_EQ(ticket_state(stage_enter(&stage, 1, 1, 10, 100)->ticket), TICKET_WAITING);
    stage.sites = 2; /* and another one with it, before that one has ended */
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 1);
    stage.sites = 1;
    stage_look(&stage);
    stage_leave(job, true);
    CHECK_EQ(stage.queue->site_count, 1);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 1);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(a_backend_that_was_taken_out_and_brought_back_has_no_more_slots_than_are_free_there)
{
    struct stage stage;
    struct job *before, *after;

    stage_open(&stage, 1, 1);
    before = stage_enter(&stage, 1, 1, 10, 100);
    CHECK_EQ(before->site, 0);
    stage.backends[1]->port = stage.backends[0]->port;
    stage.sights[0] = stage.sights[1]; /* the same place, known anew */
    stage_look(&stage);
    after = stage_enter(&stage, 2, 1, 10, 100);
    CHECK_EQ(ticket_state(after->ticket), TICKET_WAITING);
    stage_leave(before, true);
    stage_look(&stage);
    CHECK_EQ(ticket_state(after->ticket), TICKET_GRANTED);
    CHECK_EQ(after->site, 1);
    stage_leave(after, true);
    stage_close(&stage);
}

TEST(fewer_slots_after_a_reload_take_nothing_away_but_give_nothing_new)
{
    struct stage stage;

    stage_open(&stage, 1, 4);
    for (unsigned i = 0; i < 6; i++)
        (void)stage_enter(&stage, i, 1, 10, 100);
    stage.sights[0].slots = stage.sights[0].allowed = 2;
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 4);
    stage_end_one(&stage);
    stage_end_one(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    stage_end_one(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_GRANTED), 2);
    stage.sights[0].slots = 0;
    stage.sights[0].allowed = UINT_MAX;
    stage_look(&stage);
    CHECK_EQ(stage_count(&stage, TICKET_WAITING), 0);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

/* ---- a backend that runs fewer at once than it should ---- */

static struct text found;

static void note_finding(void *arg, enum finding finding, struct slice model)
{
    (void)arg;
    text_printf(&found, "%s %.*s;", finding_word(finding), (int)model.len, model.at);
}

static void check_findings(struct stage *stage, const char *wanted)
{
    text_init(&found, 1000);
    backend_findings(stage->backends[0], note_finding, NULL);
    CHECK_STR(text_string(&found), found.len, wanted);
    text_release(&found);
}

/* Ollama with room for `really`: the others get no answer until one of them ends. */
static void run_for(struct stage *stage, unsigned really, unsigned ends)
{
    for (unsigned end = 0; end < ends; end++) {
        unsigned answering = 0;
        struct job *oldest = NULL;
        for (struct job *job = stage->first; job; job = job->next) {
            if (ticket_state(job->ticket) != TICKET_GRANTED)
                continue;
            answering += atomic_load(&job->ticket->answered_us) != 0;
            if (!oldest || job->granted_us < oldest->granted_us)
                oldest = job;
        }
        while (answering < really) { /* by age */
            struct job *next = NULL;
            for (struct job *job = stage->first; job; job = job->next)
                if (ticket_state(job->ticket) == TICKET_GRANTED && !atomic_load(&job->ticket->answered_us) &&
                    (!next || job->granted_us < next->granted_us))
                    next = job;
            if (!next)
                break;
            ticket_answers(next->ticket, stage->now_us);
            answering++;
        }
        for (unsigned i = 0; i < 40; i++) {
            stage->now_us += 100000;
            stage_look(stage);
        }
        CHECK(oldest);
        stage_leave(oldest, true);
        (void)stage_enter(stage, 1, 1, 10, 100);
    }
}

TEST(a_backend_that_runs_fewer_at_once_than_its_slots_is_found_out_and_one_that_does_not_is_not)
{
    struct stage stage;

    stage_open(&stage, 1, 3);
    for (unsigned i = 0; i < 8; i++)
        (void)stage_enter(&stage, 1, 1, 10, 100);
    run_for(&stage, 3, 12);
    check_findings(&stage, "");
    run_for(&stage, 2, 10);
    check_findings(&stage, "fewer_slots model:latest;");
    run_for(&stage, 3, 6);
    check_findings(&stage, "");
    run_for(&stage, 1, 10);
    check_findings(&stage, "fewer_slots model:latest;");
    stage.sights[0].slots = stage.sights[0].allowed = 1; /* the operator has believed it */
    stage_look(&stage);
    check_findings(&stage, "");
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(slow_first_answers_alone_are_no_sign_of_fewer_slots)
{
    struct stage stage;

    stage_open(&stage, 1, 2);
    for (unsigned round = 0; round < 20; round++) { /* a long prompt beside a long answer */
        struct job *long_answer = stage_enter(&stage, 1, 1, 10, 100), *long_prompt = stage_enter(&stage, 2, 1, 9000, 1);
        ticket_answers(long_answer->ticket, stage.now_us);
        for (unsigned i = 0; i < 50; i++) {
            stage.now_us += 100000;
            stage_look(&stage);
        }
        ticket_answers(long_prompt->ticket, stage.now_us);
        stage_look(&stage);
        stage_leave(long_answer, true);
        stage_leave(long_prompt, true);
    }
    check_findings(&stage, "");
    stage_close(&stage);
}
