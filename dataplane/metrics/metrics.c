#include "metrics_parts.h"

#include <stdlib.h>

/* 5 ms ... 600 s: from an answer out of a cache to a long report on a busy card. */
const int64_t bucket_us[BUCKETS - 1] = { 5000,     10000,    25000,     50000,     100000,   250000,
                                         500000,   1000000,  2500000,   5000000,   10000000, 20000000,
                                         30000000, 60000000, 120000000, 300000000, 600000000 };

struct metrics *metrics_new(void)
{
    struct metrics *metrics = calloc(1, sizeof *metrics);

    if (!metrics)
        return NULL;
    (void)pthread_mutex_init(&metrics->lock, NULL);
    names_init(&metrics->requests, MAX_LABELS, MAX_REQUEST_SETS);
    names_init(&metrics->models, 1, MAX_MODELS);
    return metrics;
}

static void shard_free(struct metrics_shard *shard)
{
    for (unsigned i = 0; i < MAX_MODELS; i++)
        free(atomic_load_explicit(&shard->models[i], memory_order_relaxed));
    free(shard);
}

void metrics_free(struct metrics *metrics)
{
    struct metrics_shard *shard, *next;

    if (!metrics)
        return;
    for (shard = atomic_load_explicit(&metrics->shards, memory_order_relaxed); shard; shard = next) {
        next = shard->next;
        shard_free(shard);
    }
    names_release(&metrics->requests);
    names_release(&metrics->models);
    (void)pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

struct metrics_shard *metrics_shard_new(struct metrics *metrics)
{
    struct metrics_shard *shard = calloc(1, sizeof *shard);

    if (!shard)
        return NULL;
    shard->metrics = metrics;
    (void)pthread_mutex_lock(&metrics->lock);
    shard->next = atomic_load_explicit(&metrics->shards, memory_order_relaxed);
    atomic_store_explicit(&metrics->shards, shard, memory_order_release);
    (void)pthread_mutex_unlock(&metrics->lock);
    return shard;
}

/* One writer, so no locked instruction: a scrape sees the number before or after. */
static void add(_Atomic uint64_t *cell, uint64_t by)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + by, memory_order_relaxed);
}

static void histogram_add(struct histogram *histogram, int64_t us)
{
    unsigned bucket = 0;

    if (us < 0)
        us = 0;
    while (bucket < BUCKETS - 1 && us > bucket_us[bucket])
        bucket++;
    add(&histogram->buckets[bucket], 1);
    add(&histogram->sum_us, (uint64_t)us);
}

static struct model_cells *model_cells(struct metrics_shard *shard, const struct slice *model)
{
    int number = names_number(shard->metrics, &shard->metrics->models, &shard->known_models, model);
    struct model_cells *cells;

    if (number < 0)
        return NULL;
    cells = atomic_load_explicit(&shard->models[number], memory_order_relaxed);
    if (!cells && (cells = calloc(1, sizeof *cells)))
        atomic_store_explicit(&shard->models[number], cells, memory_order_release);
    return cells;
}

static void count_model(struct metrics_shard *shard, const struct metrics_request *request)
{
    struct model_cells *cells = model_cells(shard, &request->model);

    if (!cells)
        return;
    histogram_add(&cells->total, request->total_us);
    if (request->first_token_us >= 0)
        histogram_add(&cells->first_token, request->first_token_us);
    add(&cells->prompt_tokens, request->prompt_tokens);
    add(&cells->completion_tokens, request->completion_tokens);
}

static struct slice status_class(unsigned status)
{
    static const struct slice classes[STATUS_CLASSES] = { { "", 0 },    { "1xx", 3 }, { "2xx", 3 },
                                                          { "3xx", 3 }, { "4xx", 3 }, { "5xx", 3 } };

    return classes[status / 100 < STATUS_CLASSES ? status / 100 : 0];
}

enum { STATUS_CALLER_LEFT = 499 };

void metrics_count_request(struct metrics_shard *shard, const struct metrics_request *request)
{
    struct slice labels[MAX_LABELS] = {
        [LABEL_DIALECT] = request->dialect, [LABEL_MODEL] = request->model,
        [LABEL_BACKEND] = request->backend, [LABEL_STATUS] = status_class(request->status),
        [LABEL_REASON] = request->reason,
    };
    int number;

    if (request->status == STATUS_CALLER_LEFT && !request->reason.len)
        labels[LABEL_REASON] = SLICE("caller_left");
    number = names_number(shard->metrics, &shard->metrics->requests, &shard->known_requests, labels);
    if (number >= 0)
        add(&shard->requests[number], 1);
    count_model(shard, request);
}

void metrics_count_wait(struct metrics_shard *shard, const struct metrics_wait *wait)
{
    struct model_cells *cells = model_cells(shard, &wait->model);

    if (cells)
        histogram_add(&cells->waits[wait->is_batch ? METRICS_BATCH : METRICS_INTERACTIVE], wait->wait_us);
}

void metrics_count(struct metrics_shard *shard, enum metrics_counter counter, uint64_t by)
{
    add(&shard->counters[counter], by);
}

void metrics_in_flight(struct metrics_shard *shard, int by)
{
    atomic_store_explicit(&shard->in_flight, atomic_load_explicit(&shard->in_flight, memory_order_relaxed) + by,
                          memory_order_relaxed);
}
