#include <sched.h>

#include "queue_parts.h"

static void explain_waiting(struct queue *queue, struct text *out)
{
    const struct lane *lanes = queue->fair.lanes;
    int64_t service_us = atomic_load_explicit(&queue->service_us, memory_order_relaxed);

    text_printf(out, "  running %u; waiting: %u interactive of %u users, %u batch of %u users, %u sent again\n",
                atomic_load_explicit(&queue->running, memory_order_relaxed), lanes[QUEUE_INTERACTIVE].waiting,
                lanes[QUEUE_INTERACTIVE].users, lanes[QUEUE_BATCH].waiting, lanes[QUEUE_BATCH].users,
                queue->again[QUEUE_INTERACTIVE] + queue->again[QUEUE_BATCH]);
    if (service_us)
        text_printf(out, "  a request takes %.1f s and writes %.0f tokens on average\n", (double)service_us / 1e6,
                    queue->fair.completion);
}

void queue_explain(struct queue *queue, struct text *out)
{
    const struct route_wish wish = { .avoid = ROUTE_NONE };

    text_printf(out, "%.*s\n", (int)queue->model.len, queue->model.at);
    explain_waiting(queue, out);
    (void)sites_can_take(queue); /* breakers as they are now */
    route_explain(queue->views, queue->site_count, &wish, queue->chance, out);
}

static struct queue *find_only(const struct queues *queues, struct slice model)
{
    for (unsigned i = 0; i < queues_count(queues); i++) {
        struct queue *queue = atomic_load_explicit(&queues->list[i], memory_order_acquire);
        if (slice_is(queue->model, model))
            return queue;
    }
    return NULL;
}

/* The control thread may wait for a moment: a person did ask. */
bool queues_explain(struct queues *queues, struct slice model, int64_t now_us, struct text *out)
{
    struct queue *queue = find_only(queues, model);
    struct explanation explanation = { .op = { .what = OP_EXPLAIN, .now_us = now_us }, .out = out };

    if (!queue)
        return false;
    queue_do(queue, &explanation.op, NULL);
    while (!atomic_load(&explanation.is_done))
        (void)sched_yield();
    return true;
}
