#include "scrape.h"

#include <stdlib.h>

#include "backend.h"
#include "metrics.h"
#include "queue.h"

static enum metrics_state state_of(const struct backend *backend, const struct fleet_rule *rule, int64_t slow_start_ms,
                                   int64_t now_ms)
{
    int64_t recovered_ms = backend_recovered_ms(backend);

    if (!atomic_load(&backend->is_probed))
        return METRICS_STARTING;
    if (!backend_is_closed(backend))
        return METRICS_DOWN;
    if (rule->drains)
        return METRICS_DRAINING;
    if (!backend_takes_callers(backend))
        return METRICS_WARMING;
    return rule->slots && recovered_ms && now_ms - recovered_ms < slow_start_ms ? METRICS_RECOVERING : METRICS_UP;
}

struct metrics_backend *scrape_backends(const struct fleet *fleet, int64_t slow_start_ms, int64_t now_ms,
                                        unsigned *ret_count)
{
    struct metrics_backend *backends = calloc(fleet->count + 1, sizeof *backends);

    *ret_count = backends ? (unsigned)fleet->count : 0;
    for (unsigned i = 0; i < *ret_count; i++) {
        const struct backend *backend = fleet->backends[i];
        const struct fleet_rule *rule = &fleet->rules[i];
        backends[i] = (struct metrics_backend){
            .name = slice_of(backend->name),
            .is_up = backend_is_closed(backend),
            .running = atomic_load(&backend->running),
            .state = state_of(backend, rule, slow_start_ms, now_ms),
            .slots = rule->slots,
            .weight = rule->weight,
        };
    }
    return backends;
}

struct metrics_queue *scrape_queues(const struct queues *queues, unsigned *ret_count)
{
    unsigned count = queues_count(queues);
    struct metrics_queue *said = calloc(count + 1, sizeof *said);

    *ret_count = said ? count : 0;
    for (unsigned i = 0; i < *ret_count; i++) {
        struct queue_gauges gauges;
        queues_gauges(queues, i, &gauges);
        said[i] = (struct metrics_queue){
            .model = gauges.model,
            .waiting = { gauges.waiting[QUEUE_INTERACTIVE], gauges.waiting[QUEUE_BATCH] },
            .users_waiting = gauges.users_waiting,
            .running = gauges.running,
            .granted = { gauges.granted[QUEUE_INTERACTIVE], gauges.granted[QUEUE_BATCH] },
            .affinity_hits = gauges.affinity_hits,
            .affinity_tries = gauges.affinity_tries,
        };
    }
    return said;
}
