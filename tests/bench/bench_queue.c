/*
 * bench_queue - nanoseconds to take a ticket and give it back, when slots have no limit, when one is free, with several
 * backends, from several threads at once, and when 1,000 users have 5,000 waiting; and what a waiting ticket costs in
 * memory. Each is measured ROUNDS times and the best is shown: the rest is noise.
 */
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "queue_parts.h"
#include "snapshot.h"

enum { ROUNDS = 60, ROUND_US = 5000, USERS = 1000, WAITING = 5000, SITES = 3, MOST_THREADS = 8 };

static struct queues *queues;
static struct queue *queue;
static struct backend *backends[SITES];

static void on_ring(void *arg)
{
    (void)arg;
}

static void know(unsigned sites, unsigned slots)
{
    struct look *look = calloc(1, sizeof *look + sites * sizeof(struct sight));

    look->op = (struct op){ .what = OP_LOOK };
    look->rules =
        (struct queue_rules){ .max_waiting = UINT_MAX, .max_waiting_per_user = UINT_MAX, .batch_percent = 20 };
    look->count = sites;
    for (unsigned i = 0; i < sites; i++) {
        char name[8];
        const struct backend_rule rule = { .name = name, .host = "127.0.0.1", .port = 1, .authority = "127.0.0.1:1" };
        (void)snprintf(name, sizeof name, "gpu%u", i);
        if (!backends[i])
            backends[i] = backend_new(&rule, NULL, 0);
        look->sights[i] = (struct sight){ .backend = backends[i],
                                          .name_hash = route_name_hash(slice_of(name)),
                                          .may = true,
                                          .weight = 1,
                                          .slots = slots,
                                          .allowed = slots ? slots : UINT_MAX };
    }
    queue_do(queue, &look->op, NULL);
}

static struct ticket *take(struct queue_home *home, void *owner, unsigned user, uint64_t conversation)
{
    char name[16] = "user000000";
    struct ticket_wish wish = { .user = { name, 10 }, .weight = 1, .conversation = conversation, .prompt_tokens = 100 };

    for (char *at = name + 9; user; user /= 10)
        *at-- = (char)('0' + user % 10);
    return ticket_take(queue, home, &wish, owner, 1);
}

static void give_back(struct ticket *ticket)
{
    static const struct ticket_outcome outcome = {
        .has_tokens = true, .prompt_tokens = 100, .completion_tokens = 200, .running_us = 1000
    };

    ticket_give_back(ticket, &outcome, 2);
}

static double free_ns(unsigned users, bool has_conversation)
{
    struct queue_home home = { .ring = on_ring };
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start = clock_us(), now = start;
        uint64_t runs = 0;
        for (; now - start < ROUND_US; now = clock_us())
            for (unsigned i = 0; i < 64; i++, runs++)
                give_back(take(&home, NULL, (unsigned)runs % users, has_conversation ? runs + 1 : 0));
        double ns = (double)(now - start) * 1000 / (double)runs;
        best = ns < best ? ns : best;
    }
    return best;
}

struct thread {
    _Alignas(64) pthread_t thread;
    uint64_t runs;
};
static atomic_bool is_over;

static void *turn(void *arg)
{
    struct thread *thread = arg;
    struct queue_home home = { .ring = on_ring };

    for (; !atomic_load_explicit(&is_over, memory_order_relaxed); thread->runs++) {
        give_back(take(&home, NULL, (unsigned)thread->runs % 100, 0));
        while (queue_home_next(&home))
            ;
    }
    return NULL;
}

/* Every thread does nothing else: the worst that can be. */
static double threads_ns(unsigned count)
{
    static struct thread threads[MOST_THREADS];
    int64_t start = clock_us();
    uint64_t runs = 0;

    atomic_store(&is_over, false);
    for (unsigned i = 0; i < count; i++) {
        threads[i].runs = 0;
        if (pthread_create(&threads[i].thread, NULL, turn, &threads[i]) != 0)
            exit(EXIT_FAILURE);
    }
    while (clock_us() - start < ROUNDS * ROUND_US)
        ;
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < count; i++) {
        (void)pthread_join(threads[i].thread, NULL);
        runs += threads[i].runs;
    }
    return (double)(clock_us() - start) * 1000 / (double)runs;
}

static struct ticket *tickets[WAITING + 1];

/* One ends, so that another one is granted, and a third one enters. Returns whose ticket was granted. */
static struct ticket **one_more(struct queue_home *home, struct ticket **granted, unsigned user)
{
    give_back(*granted);
    *granted = take(home, granted, user, 0);
    return queue_home_next(home);
}

static void bench_full(void)
{
    struct queue_home home = { .ring = on_ring };
    struct mallinfo2 before = mallinfo2(), after;
    struct ticket **granted = tickets;
    double best = 1e18;
    uint32_t user = 0;

    know(1, 1);
    for (unsigned i = 0; i < WAITING + 1; i++)
        tickets[i] = take(&home, &tickets[i], user++ % USERS, 0);
    after = mallinfo2();
    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start = clock_us(), now = start;
        uint64_t runs = 0;
        for (; now - start < ROUND_US; now = clock_us())
            for (unsigned i = 0; i < 64; i++, runs++)
                granted = one_more(&home, granted, (user = user * 1103515245 + 12345) / 65536 % USERS);
        double ns = (double)(now - start) * 1000 / (double)runs;
        best = ns < best ? ns : best;
    }
    printf("%-52s %8.0f ns\n", "1,000 users, 5,000 waiting: one in, one out", best);
    printf("%-52s %8zu bytes\n", "memory a waiting ticket, its part of all included",
           (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / WAITING);
    for (unsigned i = 0; i < WAITING + 1; i++)
        ticket_give_back(tickets[i], NULL, 3);
    while (queue_home_next(&home))
        ;
}

int main(void)
{
    queues = queues_new();
    queue = queues ? queues_find(queues, SLICE("model:latest")) : NULL;
    if (!queue)
        return EXIT_FAILURE;
    know(1, 0);
    printf("%-52s %8.0f ns\n", "take and give back, no limit, one user", free_ns(1, false));
    printf("%-52s %8.0f ns\n", "the same, 1,000 users", free_ns(USERS, false));
    for (unsigned threads = 2; threads <= MOST_THREADS; threads *= 2)
        printf("from %u threads at once, each one of all%-15s %8.0f ns\n", threads, "", threads_ns(threads));
    know(1, 4);
    printf("%-52s %8.0f ns\n", "4 slots", free_ns(100, false));
    know(SITES, 4);
    printf("%-52s %8.0f ns\n", "3 backends of 4 slots", free_ns(100, false));
    printf("%-52s %8.0f ns\n", "the same with conversations", free_ns(100, true));
    bench_full();
    queues_free(queues);
    for (unsigned i = 0; i < SITES; i++)
        (void)backend_unref(backends[i]);
    return EXIT_SUCCESS;
}
