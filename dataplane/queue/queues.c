/* The table of queues: found without a lock, for they are only ever added, whole, at the front of their bucket. */
#include <stdlib.h>

#include "digest.h"
#include "queue_parts.h"

struct queues *queues_new(void)
{
    struct queues *queues = calloc(1, sizeof *queues);

    if (!queues)
        return NULL;
    random_bytes(queues->seed, sizeof queues->seed);
    (void)pthread_mutex_init(&queues->lock, NULL);
    return queues;
}

unsigned queues_count(const struct queues *queues)
{
    return atomic_load_explicit(&queues->count, memory_order_acquire);
}

static struct queue *queue_number(const struct queues *queues, unsigned index)
{
    return atomic_load_explicit(&queues->list[index], memory_order_acquire);
}

void queues_free(struct queues *queues)
{
    if (!queues)
        return;
    for (unsigned i = 0; i < queues_count(queues); i++)
        queue_free(queue_number(queues, i));
    (void)fleet_unref(queues->fleet);
    (void)pthread_mutex_destroy(&queues->lock);
    free(queues);
}

static struct queue *find(const struct queues *queues, uint64_t hash, struct slice model)
{
    struct queue *queue = atomic_load_explicit(&queues->buckets[hash % QUEUE_BUCKETS], memory_order_acquire);

    while (queue && (queue->hash != hash || !slice_is(queue->model, model)))
        queue = atomic_load_explicit(&queue->next, memory_order_acquire);
    return queue;
}

/* Under the lock, as all that adds. It knows the backends before anybody finds it. */
static struct queue *make(struct queues *queues, uint64_t hash, struct slice model)
{
    struct queue *queue = queue_new(queues, hash, model);
    unsigned count = queues_count(queues);

    if (!queue)
        return NULL;
    if (queues->fleet) {
        struct look *look = look_new(queues->fleet, &queues->rules, model, queues->now_us);
        if (!look) {
            queue_free(queue);
            return NULL;
        }
        queue_see(queue, look);
        if (queue->site_count < queues->fleet->count) { /* there was no memory for them */
            queue_free(queue);
            return NULL;
        }
    }
    atomic_store_explicit(&queues->list[count], queue, memory_order_release);
    atomic_store_explicit(&queues->count, count + 1, memory_order_release);
    return queue;
}

static struct queue *shared(struct queues *queues)
{
    if (!queues->other)
        queues->other = make(queues, 0, SLICE("other"));
    return queues->other;
}

static struct queue *find_or_make(struct queues *queues, uint64_t hash, struct slice model)
{
    _Atomic(struct queue *) *bucket = &queues->buckets[hash % QUEUE_BUCKETS];
    struct queue *queue = find(queues, hash, model); /* somebody may have been faster */

    if (queue)
        return queue;
    if (queues_count(queues) >= QUEUES_MAX)
        return shared(queues);
    queue = make(queues, hash, model);
    if (!queue)
        return NULL;
    atomic_store_explicit(&queue->next, atomic_load_explicit(bucket, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(bucket, queue, memory_order_release);
    return queue;
}

struct queue *queues_find(struct queues *queues, struct slice model)
{
    uint64_t hash = slice_hash(queues->seed, model);
    struct queue *queue = find(queues, hash, model);

    if (queue)
        return queue;
    (void)pthread_mutex_lock(&queues->lock);
    queue = find_or_make(queues, hash, model);
    (void)pthread_mutex_unlock(&queues->lock);
    return queue;
}

struct queue *queues_find_shared(struct queues *queues, struct slice model)
{
    struct queue *queue = find(queues, slice_hash(queues->seed, model), model);

    if (queue)
        return queue;
    (void)pthread_mutex_lock(&queues->lock);
    queue = shared(queues);
    (void)pthread_mutex_unlock(&queues->lock);
    return queue;
}

/* Whoever works it off: what is looked at is looked at here, by the control thread. Without memory the next look does
 * it. */
static void look_at_all(struct queues *queues, struct fleet *fleet, const struct queue_rules *rules, int64_t now_us)
{
    for (unsigned i = 0; i < queues_count(queues); i++) {
        struct queue *queue = queue_number(queues, i);
        struct look *look = look_new(fleet, rules, queue->model, now_us);
        if (look)
            queue_do(queue, &look->op, NULL);
    }
}

void queues_know(struct queues *queues, struct fleet *fleet, const struct queue_rules *rules, int64_t now_us)
{
    struct fleet *old;

    (void)pthread_mutex_lock(&queues->lock);
    old = queues->fleet;
    queues->fleet = fleet_ref(fleet);
    queues->rules = *rules;
    queues->now_us = now_us;
    (void)pthread_mutex_unlock(&queues->lock);
    look_at_all(queues, fleet, rules, now_us);
    (void)fleet_unref(old);
}

void queues_look(struct queues *queues, int64_t now_us)
{
    if (!queues->fleet)
        return;
    (void)pthread_mutex_lock(&queues->lock);
    queues->now_us = now_us;
    (void)pthread_mutex_unlock(&queues->lock);
    look_at_all(queues, queues->fleet, &queues->rules, now_us); /* only this thread writes them */
}

void queues_gauges(const struct queues *queues, unsigned index, struct queue_gauges *ret_gauges)
{
    const struct queue *queue = queue_number(queues, index);

    *ret_gauges = (struct queue_gauges){ .model = queue->model };
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
        ret_gauges->waiting[class] = atomic_load_explicit(&queue->waiting[class], memory_order_relaxed);
        ret_gauges->granted[class] = atomic_load_explicit(&queue->granted[class], memory_order_relaxed);
    }
    ret_gauges->users_waiting = atomic_load_explicit(&queue->users_waiting, memory_order_relaxed);
    ret_gauges->running = atomic_load_explicit(&queue->running, memory_order_relaxed);
    ret_gauges->affinity_tries = atomic_load_explicit(&queue->affinity_tries, memory_order_relaxed);
    ret_gauges->affinity_hits = atomic_load_explicit(&queue->affinity_hits, memory_order_relaxed);
}
