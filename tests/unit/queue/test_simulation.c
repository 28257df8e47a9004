/*
 * The queue and its router under everything at once: SCENARIOS random ones, each from a seed of its own that is said
 * when it fails. QG_SEED=N in the environment begins with another one; QG_SCENARIOS says how many.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "stage.h"

#ifdef __SANITIZE_THREAD__
enum { SCENARIOS = 50 }; /* there is one thread, and it is slow */
#else
enum { SCENARIOS = 1000 };
#endif
enum { STEPS = 250, FIRST_SEED = 1, MOST_WAITING = 60, MOST_USERS = 12 };

static unsigned long long seed;
static unsigned step;

#define HOLDS(claim)                                                                                 \
    do {                                                                                             \
        if (!(claim))                                                                                \
            check_fail(__FILE__, __LINE__, "QG_SEED=%llu, step %u: not so: %s", seed, step, #claim); \
    } while (0)

/* ---- what must hold after every step ---- */

static unsigned runs_at(const struct stage *stage, unsigned site)
{
    unsigned runs = 0;

    for (const struct job *job = stage->first; job; job = job->next)
        runs += ticket_state(job->ticket) == TICKET_GRANTED && job->site == site;
    return runs;
}

static const struct site *site_of(const struct stage *stage, unsigned index)
{
    for (unsigned i = 0; i < stage->queue->site_count; i++)
        if (stage->queue->sites[i]->backend == stage->backends[index])
            return stage->queue->sites[i];
    return NULL;
}

/* No slot leaks: what the queue counts is what runs. */
static void check_slots(const struct stage *stage)
{
    unsigned running = 0;

    for (unsigned i = 0; i < STAGE_SITES; i++) {
        const struct site *site = stage->backends[i] ? site_of(stage, i) : NULL;
        unsigned runs = runs_at(stage, i);
        HOLDS(site ? stage->queue->views[site->index].running == runs : runs == 0);
        HOLDS(!site || stage->queue->sites[site->index] == site);
        running += runs;
    }
    HOLDS(atomic_load(&stage->queue->running) == running);
}

static void check_waiting(const struct stage *stage)
{
    unsigned waiting[QUEUE_CLASSES] = { 0 };

    for (const struct job *job = stage->first; job; job = job->next) {
        HOLDS(job->is_told == (ticket_state(job->ticket) != TICKET_WAITING)); /* nobody's letter is lost */
        waiting[job->class] += ticket_state(job->ticket) == TICKET_WAITING;
    }
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        HOLDS(atomic_load(&stage->queue->waiting[class]) == waiting[class]);
}

/* The heap of turns is one, everybody's turn is when his debt is paid, and no round has passed anybody by. */
static void check_turns(const struct stage *stage, enum queue_class class)
{
    const struct lane *lane = &stage->queue->fair.lanes[class];
    uint64_t weights = 0;
    unsigned waiting = 0;

    for (uint32_t i = 0; i < lane->users; i++) {
        const struct turn *turn = &lane->turns[i], *above = &lane->turns[(i + 1) / 2 - (i > 0)];
        const struct share *share = &turn->user->shares[class];
        HOLDS(share->place == i + 1);
        HOLDS(share->waiting > 0 && turn->user->tickets >= share->waiting);
        HOLDS(i == 0 || above->round < turn->round || (above->round == turn->round && above->number < turn->number));
        weights += turn->user->weight;
        waiting += share->waiting;
    }
    HOLDS(lane->weights == weights && lane->waiting == waiting);
}

static bool may_take(const struct stage *stage, unsigned i)
{
    return i < stage->sites && stage->sights[i].may && atomic_load(&stage->backends[i]->breaker) == BREAKER_CLOSED;
}

/* Work-conserving: nobody waits while a backend that would take him has a free slot. */
static void check_work(const struct stage *stage)
{
    for (const struct job *job = stage->first; job; job = job->next) {
        bool has_normal = false, has_any = false;
        if (ticket_state(job->ticket) != TICKET_WAITING)
            continue;
        for (unsigned i = 0; i < stage->sites; i++) {
            const struct site *site = site_of(stage, i);
            bool takes = may_take(stage, i) && site && site->id != job->ticket->avoid;
            has_any |= takes;
            has_normal |= takes && stage->sights[i].weight;
        }
        HOLDS(has_any);
        for (unsigned i = 0; i < stage->sites; i++) {
            const struct site *site = site_of(stage, i);
            if (may_take(stage, i) && site && site->id != job->ticket->avoid &&
                has_normal == (stage->sights[i].weight > 0))
                HOLDS(runs_at(stage, i) >= stage->sights[i].allowed);
        }
    }
}

/* At the moment of a grant: the backend takes requests, has a slot for it, and no older one of the same user waits. */
static void check_grant(struct job *granted)
{
    const struct stage *stage = granted->stage;
    const struct site *site = site_of(stage, granted->site);

    HOLDS(may_take(stage, granted->site));
    HOLDS(runs_at(stage, granted->site) <= stage->sights[granted->site].allowed);
    HOLDS(site && site->id != granted->ticket->avoid);
    for (const struct job *job = stage->first; job && !granted->is_again; job = job->next)
        if (job->user == granted->user && job->class == granted->class && !job->is_again && !job->is_told)
            HOLDS(job->entered_us > granted->entered_us);
}

static void check_refusal(const struct stage *stage, const struct job *refused)
{
    unsigned in_line = 0, of_user = 0, of_batch = 0;
    bool has_any = false;

    for (const struct job *job = stage->first; job; job = job->next) {
        bool waits = ticket_state(job->ticket) == TICKET_WAITING && job->ticket->standing == STANDS_IN_LINE;
        in_line += waits;
        of_user += waits && job->user == refused->user;
        of_batch += waits && job->class == QUEUE_BATCH;
    }
    for (unsigned i = 0; i < stage->sites; i++)
        has_any |= may_take(stage, i);
    switch (ticket_state(refused->ticket)) {
    case TICKET_FULL:
        HOLDS(in_line >= stage->rules.max_waiting ||
              (refused->class == QUEUE_BATCH && of_batch >= stage->rules.max_waiting_batch));
        break;
    case TICKET_USER_FULL:
        HOLDS(of_user >= stage->rules.max_waiting_per_user);
        break;
    case TICKET_NO_BACKEND:
        HOLDS(!has_any);
        break;
    default:
        HOLDS(has_any);
    }
}

/* ---- what happens ---- */

static struct job *any_job(struct stage *stage)
{
    unsigned count = 0;
    struct job *job = stage->first;

    for (; job; job = job->next)
        count++;
    if (!count)
        return NULL;
    count = stage_pick(stage, count);
    for (job = stage->first; count--; job = job->next)
        ;
    return job;
}

static void arrive(struct stage *stage)
{
    unsigned user = stage_pick(stage, stage_pick(stage, MOST_USERS) + 1);
    struct job *job = stage_enter_as(stage, user, 1 + user % 4, stage_pick(stage, 4) ? QUEUE_INTERACTIVE : QUEUE_BATCH,
                                     stage_pick(stage, 3) ? 1 + stage_pick(stage, 5) : 0, stage_pick(stage, 3000),
                                     stage_pick(stage, 8) ? stage_pick(stage, 300) : stage_pick(stage, 5000));

    check_refusal(stage, job);
    if (ticket_state(job->ticket) != TICKET_GRANTED && ticket_state(job->ticket) != TICKET_WAITING)
        stage_leave(job, false);
}

static void end(struct stage *stage)
{
    struct job *job = stage_next_end(stage);
    unsigned how = stage_pick(stage, 10);

    if (!job)
        return;
    if (job->ends_us > stage->now_us)
        stage->now_us = job->ends_us;
    if (how == 0 && !job->is_again)
        stage_enter_again(job, stage_pick(stage, 2));
    else
        stage_leave(job, how > 1);
}

static void change(struct stage *stage)
{
    unsigned i = stage_pick(stage, STAGE_SITES / 2);
    struct sight *sight = &stage->sights[i];

    switch (stage_pick(stage, 6)) {
    case 0:
        stage_break(stage, i, atomic_load(&stage->backends[i]->breaker) == BREAKER_CLOSED);
        break;
    case 1:
        sight->may = !sight->may; /* drains, or has lost the model */
        break;
    case 2:
        sight->slots = stage_pick(stage, 5);
        sight->allowed = sight->slots ? 1 + stage_pick(stage, sight->slots) : UINT_MAX;
        break;
    case 3:
        sight->weight = stage_pick(stage, 4);
        break;
    case 4:
        sight->is_resident = !sight->is_resident;
        break;
    default:
        stage->sites = 1 + stage_pick(stage, STAGE_SITES / 2);
    }
    stage_look(stage);
}

static void leave(struct stage *stage)
{
    struct job *job = any_job(stage);

    if (job)
        stage_leave(job, ticket_state(job->ticket) == TICKET_GRANTED && stage_pick(stage, 2));
}

/* Those whose backends have all gone hear so, and leave. */
static void send_off(struct stage *stage)
{
    struct job *next;

    for (struct job *job = stage->first; job; job = next) {
        next = job->next;
        if (ticket_state(job->ticket) == TICKET_NO_BACKEND)
            stage_leave(job, false);
    }
}

static void answer(struct stage *stage)
{
    struct job *job = any_job(stage);

    if (job && ticket_state(job->ticket) == TICKET_GRANTED)
        ticket_answers(job->ticket, stage->now_us);
}

static void do_something(struct stage *stage)
{
    unsigned what = stage_pick(stage, 100);

    stage->now_us += stage_pick(stage, 1000000);
    if (what < 45)
        arrive(stage);
    else if (what < 75)
        end(stage);
    else if (what < 82)
        leave(stage);
    else if (what < 88)
        answer(stage);
    else if (what < 94)
        change(stage);
    else
        stage_look(stage);
}

static void check_all(struct stage *stage)
{
    check_slots(stage);
    check_waiting(stage);
    check_work(stage);
    check_turns(stage, QUEUE_INTERACTIVE);
    check_turns(stage, QUEUE_BATCH);
}

/* All backends come back, nobody enters any more: everybody who waits is served. */
static void serve_all(struct stage *stage)
{
    for (unsigned i = 0; i < STAGE_SITES / 2; i++) {
        stage_break(stage, i, false);
        stage->sights[i].may = true;
        stage->sights[i].weight = 1;
    }
    stage->sites = STAGE_SITES / 2;
    stage_look(stage);
    send_off(stage);
    for (struct job *job; (job = stage_next_end(stage)); step++) {
        if (job->ends_us > stage->now_us)
            stage->now_us = job->ends_us;
        stage_leave(job, true);
        check_all(stage);
    }
    HOLDS(!stage->first); /* none is lost, none starves */
    HOLDS(stage->queue->fair.idle_count == stage->queue->fair.user_count);
}

static void play(unsigned long long its_seed)
{
    struct stage stage;

    seed = its_seed;
    stage_open(&stage, STAGE_SITES / 2, 2);
    stage.chance = its_seed * 0x9e3779b97f4a7c15u | 1;
    stage.queue->chance = stage_draw(&stage) | 1;
    stage.rules = (struct queue_rules){ .max_waiting = 1 + stage_pick(&stage, MOST_WAITING),
                                        .max_waiting_batch = stage_pick(&stage, MOST_WAITING),
                                        .max_waiting_per_user = 1 + stage_pick(&stage, MOST_WAITING / 2),
                                        .batch_percent = 1 + stage_pick(&stage, 99) };
    stage.sites = 1 + stage_pick(&stage, STAGE_SITES / 2);
    stage.on_granted = check_grant;
    stage_look(&stage);
    for (step = 0; step < STEPS; step++) {
        do_something(&stage);
        send_off(&stage);
        check_all(&stage);
    }
    serve_all(&stage);
    stage_close(&stage);
}

TEST(in_a_thousand_random_scenarios_no_slot_leaks_no_request_is_lost_and_none_starves)
{
    const char *first = getenv("QG_SEED"), *count = getenv("QG_SCENARIOS");
    unsigned long long begin = first ? strtoull(first, NULL, 10) : FIRST_SEED;
    unsigned long scenarios = count ? strtoul(count, NULL, 10) : SCENARIOS;

    for (unsigned long i = 0; i < scenarios; i++)
        play(begin + i);
}
