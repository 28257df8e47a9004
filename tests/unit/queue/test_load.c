/*
 * Three backends of speed 1:2:4 under load, beside what round robin and the fewest connections would make of the very
 * same requests if each backend queued for itself.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "stage.h"

enum { BACKENDS = 3, SLOTS = 4, ARRIVALS = 20000, CONVERSATIONS = 150, USERS = 30, MEAN = 200 };

static const double speeds[BACKENDS] = { 10, 20, 40 }; /* tokens a second of one request */

struct arrival {
    int64_t at_us;
    unsigned user;
    uint64_t conversation, completion;
    int64_t wait_us;
};
static struct arrival arrivals[ARRIVALS];

static double chance(struct stage *stage)
{
    return ((double)(stage_draw(stage) >> 11) + 0.5) * 0x1p-53;
}

/* Random arrivals and lengths, as many as make this load of all backends together. */
static void plan(struct stage *stage, double load)
{
    double capacity = 0, at_us = 0;

    for (unsigned i = 0; i < BACKENDS; i++)
        capacity += SLOTS * speeds[i];
    for (unsigned i = 0; i < ARRIVALS; i++) {
        at_us += -log(chance(stage)) * MEAN / (capacity * load) * 1e6;
        arrivals[i] = (struct arrival){ .at_us = stage->now_us + (int64_t)at_us,
                                        .user = stage_pick(stage, USERS),
                                        .conversation = 1 + stage_pick(stage, CONVERSATIONS),
                                        .completion = 1 + (uint64_t)(-log(chance(stage)) * MEAN) };
    }
}

static int by_size(const void *one, const void *other)
{
    int64_t difference = *(const int64_t *)one - *(const int64_t *)other;

    return difference < 0 ? -1 : difference > 0;
}

static double p99_s(void)
{
    static int64_t waits[ARRIVALS];

    for (unsigned i = 0; i < ARRIVALS; i++)
        waits[i] = arrivals[i].wait_us;
    qsort(waits, ARRIVALS, sizeof *waits, by_size);
    return (double)waits[ARRIVALS * 99 / 100] / 1e6;
}

/* ---- what others would do: a backend is chosen at once, and there it is first come first served ---- */

struct line_up {
    int64_t free_us[SLOTS];
    int64_t ends_us[ARRIVALS];
    unsigned first, count; /* of ends_us that may be ahead; they are not sorted, but nearly */
};
static struct line_up lines[BACKENDS];

static unsigned open_at(struct line_up *line, int64_t now_us)
{
    unsigned open = 0;

    while (line->first < line->count && line->ends_us[line->first] <= now_us)
        line->first++;
    for (unsigned i = line->first; i < line->count; i++)
        open += line->ends_us[i] > now_us;
    return open;
}

static void line_up(struct line_up *line, struct arrival *arrival, double speed)
{
    unsigned slot = 0;
    int64_t begins_us;

    for (unsigned i = 1; i < SLOTS; i++)
        if (line->free_us[i] < line->free_us[slot])
            slot = i;
    begins_us = line->free_us[slot] > arrival->at_us ? line->free_us[slot] : arrival->at_us;
    line->free_us[slot] = begins_us + 1 + (int64_t)((double)arrival->completion / speed * 1e6);
    line->ends_us[line->count++] = line->free_us[slot];
    arrival->wait_us = begins_us - arrival->at_us;
}

static unsigned fewest_open(int64_t now_us, unsigned turn)
{
    unsigned best = turn % BACKENDS, fewest = open_at(&lines[best], now_us);

    for (unsigned i = 1; i < BACKENDS; i++) {
        unsigned other = (turn + i) % BACKENDS, open = open_at(&lines[other], now_us);
        if (open < fewest) {
            fewest = open;
            best = other;
        }
    }
    return best;
}

static double p99_of_others(bool is_fewest)
{
    memset(lines, 0, sizeof lines);
    for (unsigned i = 0; i < ARRIVALS; i++) {
        unsigned chosen = is_fewest ? fewest_open(arrivals[i].at_us, i) : i % BACKENDS;
        line_up(&lines[chosen], &arrivals[i], speeds[chosen]);
    }
    return p99_s();
}

/* ---- ours ---- */

static void note_wait(struct job *job)
{
    arrivals[job->number].wait_us = job->granted_us - job->entered_us;
}

static void run_to(struct stage *stage, int64_t until_us)
{
    for (struct job *job; (job = stage_next_end(stage)) && job->ends_us <= until_us;) {
        stage->now_us = job->ends_us;
        stage_leave(job, true);
    }
    stage->now_us = until_us;
}

static double p99_of_ours(struct stage *stage)
{
    for (unsigned i = 0; i < ARRIVALS; i++) {
        run_to(stage, arrivals[i].at_us);
        (void)stage_enter_as(stage, arrivals[i].user, 1, QUEUE_INTERACTIVE, arrivals[i].conversation, 0,
                             arrivals[i].completion);
    }
    while (stage->first)
        stage_end_one(stage);
    return p99_s();
}

static void open_three(struct stage *stage)
{
    stage_open(stage, BACKENDS, SLOTS);
    for (unsigned i = 0; i < BACKENDS; i++)
        stage->speeds[i] = speeds[i];
}

TEST(at_full_load_backends_of_speed_one_two_four_give_what_they_have)
{
    struct stage stage;
    double tokens = 0, capacity = 0;
    int64_t start_us;

    open_three(&stage);
    for (unsigned i = 0; i < BACKENDS; i++)
        capacity += SLOTS * speeds[i];
    for (unsigned i = 0; i < 3 * BACKENDS * SLOTS; i++)
        (void)stage_enter(&stage, i % USERS, 1, 0, 1 + stage_pick(&stage, 2 * MEAN));
    start_us = stage.now_us;
    for (unsigned i = 0; i < 5000; i++) {
        tokens += (double)stage_next_end(&stage)->completion;
        stage_end_one(&stage);
        (void)stage_enter(&stage, i % USERS, 1, 0, 1 + stage_pick(&stage, 2 * MEAN));
    }
    CHECK(tokens / ((double)(stage.now_us - start_us) / 1e6) >= 0.95 * capacity);
    stage_send_all_home(&stage);
    stage_close(&stage);
}

TEST(at_85_percent_load_waits_are_shorter_than_by_round_robin_and_conversations_stay_where_they_are)
{
    struct stage stage;
    struct queue_gauges gauges;
    double ours, round_robin, fewest;

    open_three(&stage);
    plan(&stage, 0.85);
    round_robin = p99_of_others(false);
    fewest = p99_of_others(true);
    stage.on_granted = note_wait;
    ours = p99_of_ours(&stage);
    queues_gauges(stage.queues, 0, &gauges);
    printf("p99 wait at 85 %% load: %.2f s; the fewest connections: %.2f s; round robin: %.2f s\n"
           "own backend: %llu of %llu below the bound, of %d in all\n",
           ours, fewest, round_robin, (unsigned long long)gauges.affinity_hits,
           (unsigned long long)gauges.affinity_tries, ARRIVALS);
    CHECK(ours <= 0.7 * round_robin);
    CHECK(ours <= fewest);
    CHECK(gauges.affinity_tries > ARRIVALS / 4);
    CHECK(gauges.affinity_hits * 10 >= gauges.affinity_tries * 9);
    stage_close(&stage);
}
