#include "stage.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "snapshot.h"

static void on_ring(void *arg)
{
    ((struct stage *)arg)->rung++;
}

void stage_open(struct stage *stage, unsigned sites, unsigned slots)
{
    static const char *const names[STAGE_SITES] = { "gpu1", "gpu2", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7", "gpu8" };

    *stage = (struct stage){
        .queues = queues_new(),
        .sites = sites,
        .rules = { .max_waiting = UINT_MAX,
                   .max_waiting_batch = UINT_MAX,
                   .max_waiting_per_user = UINT_MAX,
                   .batch_percent = 20 },
        .now_us = 1000000,
        .chance = 88172645463325252u,
    };
    stage->home.ring = on_ring;
    stage->home.arg = stage;
    stage->queue = queues_find(stage->queues, SLICE("model:latest"));
    stage->queue->chance = 0x123456789abcdefu;
    for (unsigned i = 0; i < STAGE_SITES; i++) {
        const struct backend_rule rule = {
            .name = names[i], .host = "127.0.0.1", .port = (uint16_t)(i + 1), .authority = "127.0.0.1:1"
        };
        stage->backends[i] = backend_new(&rule, NULL, 0);
        stage->speeds[i] = 100;
        stage->sights[i] = (struct sight){ .backend = stage->backends[i],
                                           .name_hash = route_name_hash(slice_of(names[i])),
                                           .may = true,
                                           .is_resident = true,
                                           .weight = 1,
                                           .slots = slots,
                                           .allowed = slots ? slots : UINT_MAX };
    }
    stage_look(stage);
}

void stage_close(struct stage *stage)
{
    stage_read(stage);
    CHECK(!stage->first);
    queues_free(stage->queues);
    for (unsigned i = 0; i < STAGE_SITES; i++)
        (void)backend_unref(stage->backends[i]);
}

void stage_look(struct stage *stage)
{
    struct look *look = calloc(1, sizeof *look + stage->sites * sizeof(struct sight));

    look->op = (struct op){ .what = OP_LOOK, .now_us = stage->now_us };
    look->rules = stage->rules;
    look->count = stage->sites;
    memcpy(look->sights, stage->sights, stage->sites * sizeof(struct sight));
    queue_do(stage->queue, &look->op, NULL);
    stage_read(stage);
}

void stage_break(struct stage *stage, unsigned site, bool is_open)
{
    atomic_store(&stage->backends[site]->breaker, is_open ? BREAKER_OPEN : BREAKER_CLOSED);
}

uint64_t stage_draw(struct stage *stage)
{
    stage->chance ^= stage->chance << 13;
    stage->chance ^= stage->chance >> 7;
    stage->chance ^= stage->chance << 17;
    return stage->chance * 0x2545f4914f6cdd1du;
}

unsigned stage_pick(struct stage *stage, unsigned below)
{
    return (unsigned)(stage_draw(stage) >> 33) % below;
}

static unsigned site_of(struct stage *stage, const struct ticket *ticket)
{
    for (unsigned i = 0; i < STAGE_SITES; i++)
        if (stage->backends[i] && stage->backends[i] == ticket_backend(ticket))
            return i;
    CHECK(!"a backend of the stage");
    return 0;
}

static void note(struct job *job)
{
    struct stage *stage = job->stage;

    job->is_told = true;
    if (ticket_state(job->ticket) != TICKET_GRANTED)
        return;
    stage->grants++;
    job->site = site_of(stage, job->ticket);
    job->granted_us = stage->now_us;
    job->ends_us = stage->now_us + 1 +
                   (int64_t)(((double)job->prompt / 20 + (double)job->completion) / stage->speeds[job->site] * 1e6);
    if (stage->on_granted)
        stage->on_granted(job);
}

void stage_read(struct stage *stage)
{
    struct job *job;

    while ((job = queue_home_next(&stage->home))) {
        CHECK(ticket_state(job->ticket) != TICKET_WAITING);
        CHECK(!job->is_told);
        note(job);
    }
}

struct job *stage_enter_as(struct stage *stage, unsigned user, unsigned weight, enum queue_class class,
                           uint64_t conversation, uint64_t prompt, uint64_t completion)
{
    struct job *job = calloc(1, sizeof *job);
    char name[16];
    struct ticket_wish wish = { .user = { name, (size_t)snprintf(name, sizeof name, "user%u", user) },
                                .weight = weight,
                                .class = class,
                                .conversation = conversation,
                                .prompt_tokens = prompt / 2 }; /* estimates are wrong */

    *job = (struct job){ .next = stage->first,
                         .stage = stage,
                         .number = stage->entered++,
                         .user = user,
                         .conversation = conversation,
                         .prompt = prompt,
                         .completion = completion,
                         .class = class,
                         .entered_us = stage->now_us,
                         .entered_at = stage->grants };
    if (stage->first)
        stage->first->previous = job;
    stage->first = job;
    job->ticket = ticket_take(stage->queue, &stage->home, &wish, job, stage->now_us);
    CHECK(job->ticket);
    if (ticket_state(job->ticket) != TICKET_WAITING)
        note(job);
    return job;
}

struct job *stage_enter(struct stage *stage, unsigned user, unsigned weight, uint64_t prompt, uint64_t completion)
{
    return stage_enter_as(stage, user, weight, QUEUE_INTERACTIVE, 0, prompt, completion);
}

void stage_enter_again(struct job *job, bool may_be_same)
{
    job->is_again = true;
    job->may_be_same = may_be_same;
    job->is_told = false;
    job->ends_us = 0;
    ticket_take_again(job->ticket, may_be_same, job->stage->now_us);
    if (ticket_state(job->ticket) != TICKET_WAITING)
        note(job);
    stage_read(job->stage);
}

static void leave_with(struct job *job, const struct ticket_outcome *outcome)
{
    struct stage *stage = job->stage;

    *(job->previous ? &job->previous->next : &stage->first) = job->next;
    if (job->next)
        job->next->previous = job->previous;
    ticket_give_back(job->ticket, outcome, stage->now_us);
    free(job);
    stage_read(stage);
}

void stage_leave(struct job *job, bool has_tokens)
{
    const struct ticket_outcome outcome = { .has_tokens = has_tokens,
                                            .prompt_tokens = job->prompt,
                                            .completion_tokens = job->completion,
                                            .running_us = job->stage->now_us - job->granted_us };

    leave_with(job, &outcome);
}

void stage_give_up(struct job *job, bool is_unseen)
{
    const struct ticket_outcome outcome = { .was_given_up = true,
                                            .is_unseen = is_unseen,
                                            .running_us = job->stage->now_us - job->granted_us };

    leave_with(job, &outcome);
}

struct job *stage_next_end(struct stage *stage)
{
    struct job *soonest = NULL;

    for (struct job *job = stage->first; job; job = job->next)
        if (job->ends_us && (!soonest || job->ends_us < soonest->ends_us))
            soonest = job;
    return soonest;
}

void stage_end_one(struct stage *stage)
{
    struct job *job = stage_next_end(stage);

    CHECK(job);
    stage->now_us = job->ends_us;
    stage_leave(job, true);
}

unsigned stage_count(const struct stage *stage, enum ticket_state state)
{
    unsigned count = 0;

    for (const struct job *job = stage->first; job; job = job->next)
        count += ticket_state(job->ticket) == state;
    return count;
}

void stage_send_all_home(struct stage *stage)
{
    while (stage->first)
        stage_leave(stage->first, false);
}
