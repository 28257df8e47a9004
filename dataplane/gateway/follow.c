/* What the control plane says, between the room that hears it and the workers. */
#include "arena.h"
#include "backend.h"
#include "clock.h"
#include "codec.h"
#include "control.h"
#include "gateway_parts.h"
#include "keyring.h"
#include "log.h"
#include "metrics.h"
#include "probe.h"
#include "scrape.h"
#include "snapshot.h"
#include "tally.h"
#include "worker.h"

#include <stdlib.h>

enum { MAX_SECRET_BYTES = 512 };

static bool prepare(void *arg, struct snapshot *snapshot)
{
    struct gateway *gateway = arg;

    (void)fleet_unref(gateway->prepared);
    gateway->prepared = fleet_new_unasked(snapshot, gateway->fleet, clock_ms());
    return gateway->prepared;
}

static void adopt_snapshot(struct gateway *gateway, struct snapshot *snapshot)
{
    (void)fleet_unref(gateway->fleet);
    (void)snapshot_unref(gateway->snapshot);
    gateway->snapshot = snapshot_ref(snapshot);
    gateway->fleet = gateway->prepared;
    gateway->prepared = NULL;
    reload_tell_queues(gateway, &snapshot->settings, gateway->fleet);
}

static void adopt(void *arg, const struct control_news *news)
{
    struct gateway *gateway = arg;
    bool has_other_snapshot = news->snapshot != gateway->snapshot;

    if (has_other_snapshot)
        adopt_snapshot(gateway, news->snapshot);
    if (news->keys != gateway->keys) {
        (void)keyring_unref(gateway->keys);
        gateway->keys = keyring_ref(news->keys);
    }
    gateway->turn = news->turn;
    gateway->refuses = news->refuses;
    gateway->cuts = news->cuts;
    gateway->cut_count = news->cut_count;
    if (!reload_tell_workers(gateway))
        log_error("out of memory: the workers are told again what the control plane says");
    gateway->cuts = NULL;
    gateway->cut_count = 0;
    if (!has_other_snapshot)
        return;
    prober_watch(gateway->prober, gateway->fleet);
    look_up_start(&gateway->look_up, gateway->fleet, clock_ms());
}

static void measure_backends(struct gateway *gateway, struct arena *arena, struct qw_load *load)
{
    unsigned count;
    struct metrics_backend *backends =
        scrape_backends(gateway->fleet, gateway->snapshot->settings.slow_start_ms, clock_ms(), &count);
    struct qw_backend_load *rows = arena_take(arena, (count + 1) * sizeof *rows);

    for (unsigned i = 0; rows && i < count; i++)
        rows[i] = (struct qw_backend_load){ .name = arena_copy(arena, backends[i].name),
                                            .is_up = backends[i].is_up,
                                            .running = backends[i].running };
    load->backends = rows;
    load->backend_count = rows ? count : 0;
    free(backends);
}

static void measure_queues(struct gateway *gateway, struct arena *arena, struct qw_load *load)
{
    unsigned count;
    struct metrics_queue *queues = scrape_queues(gateway->queues, &count);
    struct qw_model_load *rows = arena_take(arena, (count + 1) * sizeof *rows);

    for (unsigned i = 0; rows && i < count; i++) {
        unsigned waiting = queues[i].waiting[METRICS_INTERACTIVE] + queues[i].waiting[METRICS_BATCH];
        load->waiting += waiting;
        if (waiting || queues[i].running)
            rows[load->model_count++] = (struct qw_model_load){ .model = arena_copy(arena, queues[i].model),
                                                                .running = queues[i].running,
                                                                .waiting = waiting };
    }
    load->models = rows;
    free(queues);
}

static void measure(void *arg, struct arena *arena, struct qw_load *load)
{
    struct gateway *gateway = arg;
    unsigned in_flight = metrics_in_flight_now(gateway->metrics);

    measure_backends(gateway, arena, load);
    measure_queues(gateway, arena, load);
    load->running = in_flight > load->waiting ? in_flight - load->waiting : 0;
}

/* ---- the door ---- */

bool follow_prepare(struct gateway *gateway, struct text *why)
{
    if (!gateway->snapshot->settings.control.url_count)
        return true;
    text_init(&gateway->secret, MAX_SECRET_BYTES);
    return control_prepare(&gateway->snapshot->settings, &gateway->secret, why) == ERR_OK;
}

bool follow_open(struct gateway *gateway, struct text *why)
{
    const struct control_options options = {
        .base = gateway->base,
        .file = gateway->snapshot,
        .version = gateway->version,
        .secret = text_slice(&gateway->secret),
        .prepare = prepare,
        .adopt = adopt,
        .measure = measure,
        .arg = gateway,
    };
    struct control_news news;

    if (!gateway->snapshot->settings.control.url_count) {
        gateway->keys = keyring_ref(gateway->snapshot->keyring);
        return true;
    }
    gateway->control = control_open(&options, why);
    text_release_wiped(&gateway->secret);
    if (!gateway->control)
        return false;
    control_know(gateway->control, &news);
    (void)snapshot_unref(gateway->snapshot);
    gateway->snapshot = snapshot_ref(news.snapshot);
    gateway->keys = keyring_ref(news.keys);
    gateway->refuses = news.refuses;
    gateway->turn = news.turn;
    for (unsigned i = 0; i < gateway->listeners.workers; i++) {
        gateway->tallies[i] = tally_new();
        if (!gateway->tallies[i] || !control_add_tally(gateway->control, gateway->tallies[i])) {
            text_add_literal(why, "out of memory");
            return false;
        }
    }
    return true;
}

bool follow_start(struct gateway *gateway, struct text *why)
{
    return !gateway->control || control_start(gateway->control, why) == ERR_OK;
}

void follow_turn(struct gateway *gateway)
{
    uint64_t least = UINT64_MAX;

    if (!gateway->control)
        return;
    for (unsigned i = 0; i < gateway->worker_count; i++) {
        uint64_t turn = worker_turn(gateway->workers[i]);
        least = turn < least ? turn : least;
    }
    control_turned(gateway->control, least);
}

void follow_scrape(const struct gateway *gateway, struct metrics_control *ret_control)
{
    struct control_gauges gauges;

    control_gauges(gateway->control, &gauges);
    *ret_control = (struct metrics_control){
        .is_up = gauges.is_up,
        .is_stale = gauges.is_stale,
        .heard_ms = gauges.heard_ms,
        .held = gauges.held,
        .applied = gauges.applied,
        .apply_errors = gauges.apply_errors,
        .loads_lost = gauges.loads_lost,
        .keys = gauges.keys,
        .journal_bytes = gauges.journal_bytes,
    };
}

void follow_close(struct gateway *gateway)
{
    gateway->control = control_close(gateway->control);
    text_release_wiped(&gateway->secret);
    gateway->prepared = fleet_unref(gateway->prepared);
    gateway->keys = keyring_unref(gateway->keys);
    for (unsigned i = 0; i < MAX_WORKERS; i++)
        tally_free(gateway->tallies[i]);
}
