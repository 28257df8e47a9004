/* Another configuration, or other addresses of the same backends. */
#include "backend.h"
#include "clock.h"
#include "control.h"
#include "gateway_parts.h"
#include "keyring.h"
#include "log.h"
#include "metrics.h"
#include "probe.h"
#include "queue.h"
#include "service.h"
#include "snapshot.h"
#include "worker.h"

static void say_lines(const struct text *lines)
{
    struct slice rest = text_slice(lines);

    while (rest.len) {
        const char *end = memchr(rest.at, '\n', rest.len);
        size_t len = end ? (size_t)(end - rest.at) : rest.len;
        if (len)
            log_warn("%.*s", (int)len, rest.at);
        rest = (struct slice){ rest.at + len + (end != NULL), rest.len - len - (end != NULL) };
    }
}

void reload_tell_queues(struct gateway *gateway, const struct settings *settings, struct fleet *fleet)
{
    const struct queue_rules rules = {
        .max_waiting = settings->max_waiting,
        .max_waiting_batch = (unsigned)((uint64_t)settings->max_waiting * settings->max_waiting_batch_percent / 100),
        .max_waiting_per_user = settings->max_waiting_per_user,
        .batch_percent = settings->batch_percent,
        .slow_start_us = settings->slow_start_ms * 1000,
    };

    queues_know(gateway->queues, fleet, &rules, clock_us());
}

static void refuse_reload(struct gateway *gateway, const char *why)
{
    metrics_count(gateway->shard, METRIC_RELOADS_REFUSED, 1);
    log_error("reload refused, the running configuration stays: %s", why);
}

bool reload_tell_workers(struct gateway *gateway)
{
    const struct worker_news news = {
        .snapshot = gateway->snapshot,
        .fleet = gateway->fleet,
        .keys = gateway->keys,
        .max_connections = gateway->descriptors.connections,
        .refuses = gateway->refuses,
        .turn = gateway->turn,
        .cuts = gateway->cuts,
        .cut_count = gateway->cut_count,
    };
    bool is_good = true;

    for (unsigned i = 0; i < gateway->worker_count; i++)
        is_good = worker_update(gateway->workers[i], &news) && is_good;
    return is_good;
}

static void adopt(struct gateway *gateway, struct snapshot *fresh, struct fleet *fleet)
{
    const struct settings *settings = &fresh->settings;

    (void)fleet_unref(gateway->fleet);
    (void)snapshot_unref(gateway->snapshot);
    gateway->snapshot = fresh;
    gateway->fleet = fleet;
    if (!gateway->control) {
        (void)keyring_unref(gateway->keys);
        gateway->keys = keyring_ref(fresh->keyring);
    }
    gateway->descriptors = descriptors_share(settings->max_connections, false);
    reload_tell_queues(gateway, settings, fleet);
    log_reconfigure((enum log_level)settings->log_level, settings->log_format == LOG_FORMAT_JSON, settings->log_file);
    (void)reload_tell_workers(gateway); /* without cuts it needs no memory */
    prober_watch(gateway->prober, fleet);
    metrics_count(gateway->shard, METRIC_RELOADS_OK, 1);
    log_info("configuration reloaded from %s; keys: %zu, models: %zu", gateway->file, keyring_count(gateway->keys),
             fresh->model_count);
}

/* With its fleet; NULL: there was no memory for that. */
static void end_reload(struct gateway *gateway, struct snapshot *fresh, struct fleet *fleet)
{
    if (fleet) {
        adopt(gateway, fresh, fleet);
    } else {
        (void)snapshot_unref(fresh);
        refuse_reload(gateway, "out of memory");
    }
    service_is_ready("serving");
}

/* Hosts are looked up elsewhere: here nobody may be kept waiting by a resolver, least of all probes. */
static void go_on_with(struct gateway *gateway, struct snapshot *fresh)
{
    if (!fleet_asks_resolver(fresh, gateway->fleet))
        end_reload(gateway, fresh, fleet_new(fresh, gateway->fleet, clock_ms()));
    else if (look_up_first(&gateway->reloading, fresh, gateway->fleet))
        (void)snapshot_unref(fresh);
    else
        end_reload(gateway, fresh, NULL);
}

/* Nobody is asked for an address before it is adopted, so that it cannot lose what is said meanwhile. */
static void go_on_over(struct gateway *gateway, struct snapshot *file)
{
    struct text why, warnings;
    struct snapshot *fresh;

    text_init(&why, 4096);
    text_init(&warnings, 64 << 10);
    fresh = control_reload(gateway->control, file, &why, &warnings);
    if (fresh) {
        say_lines(&warnings);
        end_reload(gateway, fresh, fleet_new_unasked(fresh, gateway->fleet, clock_ms()));
        look_up_start(&gateway->look_up, gateway->fleet, clock_ms());
    } else {
        refuse_reload(gateway, text_string(&why));
        service_is_ready("serving");
    }
    (void)snapshot_unref(file);
    text_release(&why);
    text_release(&warnings);
}

void reload_begin(struct gateway *gateway)
{
    struct text why, warnings;
    struct snapshot *fresh;

    gateway->reloads_again = gateway->reloading.is_underway;
    if (gateway->reloads_again)
        return;
    text_init(&why, 4096);
    text_init(&warnings, 64 << 10);
    service_is_reloading();
    fresh = snapshot_load(gateway->file, &why, &warnings);
    if (fresh && snapshot_needs_restart(gateway->snapshot, fresh, &why))
        fresh = snapshot_unref(fresh);
    if (fresh) {
        say_lines(&warnings);
        if (gateway->control)
            go_on_over(gateway, fresh);
        else
            go_on_with(gateway, fresh);
    } else {
        refuse_reload(gateway, text_string(&why));
        service_is_ready("serving");
    }
    text_release(&why);
    text_release(&warnings);
}

void reload_take(struct gateway *gateway)
{
    struct snapshot *fresh;
    struct fleet *fleet;
    bool is_of_ours;

    if (!look_up_take_first(&gateway->reloading, gateway->fleet, &fresh, &fleet, &is_of_ours))
        return;
    if (gateway->reloads_again) { /* the file has changed meanwhile */
        (void)fleet_unref(fleet);
        (void)snapshot_unref(fresh);
        reload_begin(gateway);
    } else if (fleet && !is_of_ours) { /* a host has another address meanwhile */
        (void)fleet_unref(fleet);
        go_on_with(gateway, fresh);
    } else {
        end_reload(gateway, fresh, fleet);
    }
}

void reload_take_looked_up(struct gateway *gateway)
{
    struct fleet *fresh = look_up_take(&gateway->look_up, gateway->fleet);

    if (!fresh)
        return;
    (void)fleet_unref(gateway->fleet);
    gateway->fleet = fresh;
    reload_tell_queues(gateway, &gateway->snapshot->settings, fresh);
    (void)reload_tell_workers(gateway);
    prober_watch(gateway->prober, gateway->fleet);
    log_info("the host of a backend has another address now: using that");
}
