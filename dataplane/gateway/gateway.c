/*
 * Signals: HUP reloads, TERM and INT drain (twice: end now), USR1 opens the log anew.
 * Timers: every ROUND_S a look at hosts that must be looked up again and at names nobody uses; drain_delay from TERM
 * (then workers stop accepting), drain_timeout from there (then open requests are ended).
 */
#include "gateway.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend.h"
#include "clock.h"
#include "control.h"
#include "explain.h"
#include "gateway_parts.h"
#include "health.h"
#include "keyring.h"
#include "limit.h"
#include "log.h"
#include "metrics.h"
#include "operator.h"
#include "probe.h"
#include "queue.h"
#include "sandbox.h"
#include "scrape.h"
#include "service.h"
#include "snapshot.h"
#include "standing.h"
#include "worker.h"

enum {
    LOG_CLOSE_MS = 2000,
    ROUND_S = 5,
    QUEUE_LOOK_MS = 100,
};

/* ---- small things the process needs ---- */

static unsigned count_workers(const struct settings *settings)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned workers = settings->workers ? settings->workers : cores > 0 ? (unsigned)cores : 1;

    return workers < MAX_WORKERS ? workers : MAX_WORKERS;
}

/* ---- what workers and the operator ask, from their threads and ours ---- */

static void ring(void *arg)
{
    struct gateway *gateway = arg;
    static const uint64_t one = 1;

    (void)!write(gateway->news_fd, &one, sizeof one);
}

static void on_nudge(void *arg)
{
    struct gateway *gateway = arg;

    if (!atomic_exchange(&gateway->wants_probe, true))
        ring(gateway);
}

static void on_crowd(void *arg)
{
    struct gateway *gateway = arg;

    if (!atomic_exchange(&gateway->is_crowded, true))
        ring(gateway);
}

static void on_worker_done(void *arg)
{
    struct gateway *gateway = arg;

    atomic_fetch_add(&gateway->workers_done, 1);
    ring(gateway);
}

/* Many backends answer in the same moment: they are looked at once, in the loop's next turn. */
static void on_probe_news(void *arg)
{
    struct gateway *gateway = arg;

    if (!gateway->has_probe_news)
        ring(gateway);
    gateway->has_probe_news = true;
}

static unsigned readiness(void *arg, struct text *out)
{
    struct gateway *gateway = arg;
    struct text report;
    unsigned status;

    text_init(&report, 16 << 10);
    if (gateway->control)
        control_report(gateway->control, &report);
    status = health_report(gateway->fleet,
                           &(struct health_state){
                               .is_draining = atomic_load(&gateway->is_draining) || gateway->refuses == CAUSE_DRAINING,
                               .is_stale = gateway->refuses == CAUSE_STALE,
                               .report = text_slice(&report),
                           },
                           out);
    text_release(&report);
    return status;
}

/* The control thread's, like the snapshot of that moment. */
static bool knows_operator_host(void *arg, struct slice name)
{
    const struct settings *settings = &((const struct gateway *)arg)->snapshot->settings;

    for (size_t i = 0; i < settings->operator_host_count; i++)
        if (slice_is_nocase(name, slice_of(settings->operator_hosts[i])))
            return true;
    return slice_is_nocase(name, slice_of(settings->operator_listen.host));
}

static void count_breakers(struct gateway *gateway)
{
    unsigned opened = 0;

    for (size_t i = 0; i < gateway->fleet->count; i++)
        opened += atomic_load(&gateway->fleet->backends[i]->was_opened);
    if (opened > gateway->breakers_counted) /* fewer: a reload has replaced a backend */
        metrics_count(gateway->shard, METRIC_BREAKER_OPENED, opened - gateway->breakers_counted);
    gateway->breakers_counted = opened;
}

static void print_metrics(void *arg, struct text *out)
{
    struct gateway *gateway = arg;
    struct metrics_control control;
    struct standing standing;
    struct metrics_gauges gauges = {
        .connections_open = connections_open(gateway->limits),
        .body_bytes = body_bytes(gateway->limits),
        .log_dropped = log_dropped(),
        .version = slice_of(gateway->version),
        .started_s = gateway->started_s,
        .is_draining = atomic_load(&gateway->is_draining),
    };
    struct metrics_backend *backends =
        scrape_backends(gateway->fleet, gateway->snapshot->settings.slow_start_ms, clock_ms(), &gauges.backend_count);
    struct metrics_queue *queues = scrape_queues(gateway->queues, &gauges.queue_count);

    gauges.backends = backends;
    gauges.queues = queues;
    if (gateway->control) {
        follow_scrape(gateway, &control);
        gauges.control = &control;
    }
    count_breakers(gateway);
    standing_take(&standing, gateway->fleet, &gauges);
    metrics_print(gateway->metrics, &gauges, out);
    standing_release(&standing);
    free(backends);
    free(queues);
}

static unsigned explain(void *arg, struct slice model, struct text *out)
{
    const struct gateway *gateway = arg;

    return explain_model(gateway->snapshot, gateway->fleet, gateway->queues, model, clock_us(), out);
}

/* ---- what wants a look now and then ---- */

static void on_round(evutil_socket_t fd, short what, void *arg)
{
    struct gateway *gateway = arg;

    (void)fd;
    (void)what;
    clock_turn();
    look_up_start(&gateway->look_up, gateway->fleet, clock_ms());
    limits_tidy(gateway->limits, clock_ms());
}

/* Slow start, and what no probe tells of. */
static void on_queue_look(evutil_socket_t fd, short what, void *arg)
{
    struct gateway *gateway = arg;

    (void)fd;
    (void)what;
    clock_turn();
    queues_look(gateway->queues, clock_us());
}

static void take_probe_news(struct gateway *gateway)
{
    if (!gateway->has_probe_news)
        return;
    gateway->has_probe_news = false;
    queues_look(gateway->queues, clock_us());
    for (unsigned i = 0; i < gateway->worker_count; i++)
        worker_look_again(gateway->workers[i]);
}

/* ---- draining ---- */

static void after(struct event *event, int64_t ms)
{
    struct timeval wait = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(event, &wait);
}

static void on_delay(evutil_socket_t fd, short what, void *arg)
{
    struct gateway *gateway = arg;

    (void)fd;
    (void)what;
    for (unsigned i = 0; i < gateway->worker_count; i++)
        worker_drain(gateway->workers[i]);
    after(gateway->deadline, gateway->snapshot->settings.drain_timeout_ms);
}

static void end_now(struct gateway *gateway, const char *reason)
{
    if (gateway->has_ended_workers)
        return;
    gateway->has_ended_workers = true;
    log_info("%s: ending what is still open", reason);
    for (unsigned i = 0; i < gateway->worker_count; i++)
        worker_end_now(gateway->workers[i]);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    end_now(arg, "drain_timeout is over");
}

static void drain(struct gateway *gateway, const char *name)
{
    if (atomic_exchange(&gateway->is_draining, true)) {
        end_now(gateway, "a second signal to end");
        return;
    }
    service_is_stopping();
    log_info("%s: draining, at most %lld ms", name,
             (long long)(gateway->snapshot->settings.drain_delay_ms + gateway->snapshot->settings.drain_timeout_ms));
    after(gateway->delay, gateway->snapshot->settings.drain_delay_ms);
}

/* ---- the control thread's loop ---- */

static void on_signal(evutil_socket_t signal, short what, void *arg)
{
    struct gateway *gateway = arg;

    (void)what;
    clock_turn();
    switch (signal) {
    case SIGHUP:
        reload_begin(gateway);
        break;
    case SIGUSR1:
        log_reopen();
        break;
    default:
        drain(gateway, signal == SIGINT ? "SIGINT" : "SIGTERM");
        break;
    }
}

static void on_news(evutil_socket_t fd, short what, void *arg)
{
    struct gateway *gateway = arg;
    uint64_t count;

    (void)what;
    clock_turn();
    (void)!read(fd, &count, sizeof count);
    take_probe_news(gateway);
    follow_turn(gateway);
    reload_take_looked_up(gateway);
    reload_take(gateway);
    if (atomic_exchange(&gateway->wants_probe, false)) {
        queues_look(gateway->queues, clock_us()); /* a breaker may have opened */
        prober_nudge(gateway->prober);
    }
    if (atomic_exchange(&gateway->is_crowded, false))
        for (unsigned i = 0; i < gateway->worker_count; i++)
            worker_make_room(gateway->workers[i]);
    if (atomic_load(&gateway->workers_done) == gateway->worker_count)
        (void)event_base_loopbreak(gateway->base);
}

static bool open_loop(struct gateway *gateway, struct text *why)
{
    static const struct timeval round_period = { .tv_sec = ROUND_S };
    static const struct timeval look_period = { .tv_usec = QUEUE_LOOK_MS * 1000 };
    static const int numbers[SIGNALS] = { SIGHUP, SIGTERM, SIGINT, SIGUSR1 };
    bool is_good;

    gateway->base = event_base_new();
    gateway->news_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    is_good = gateway->base && gateway->news_fd >= 0;
    for (unsigned i = 0; is_good && i < SIGNALS; i++) {
        gateway->signals[i] = evsignal_new(gateway->base, numbers[i], on_signal, gateway);
        is_good = gateway->signals[i] && event_add(gateway->signals[i], NULL) == 0;
    }
    if (is_good) {
        gateway->news = event_new(gateway->base, gateway->news_fd, EV_READ | EV_PERSIST, on_news, gateway);
        gateway->round = event_new(gateway->base, -1, EV_PERSIST, on_round, gateway);
        gateway->queue_look = event_new(gateway->base, -1, EV_PERSIST, on_queue_look, gateway);
        gateway->delay = evtimer_new(gateway->base, on_delay, gateway);
        gateway->deadline = evtimer_new(gateway->base, on_deadline, gateway);
        is_good = gateway->news && gateway->delay && gateway->deadline && gateway->round && gateway->queue_look &&
                  event_add(gateway->news, NULL) == 0 && event_add(gateway->round, &round_period) == 0 &&
                  event_add(gateway->queue_look, &look_period) == 0;
    }
    if (!is_good)
        text_printf(why, "cannot start the event loop: %s", strerror(errno));
    return is_good;
}

static bool open_sockets(struct gateway *gateway, struct text *why)
{
    const struct settings *settings = &gateway->snapshot->settings;
    struct service_sockets inherited;
    unsigned workers = count_workers(settings);
    enum err err = service_take_sockets(&inherited, why);

    if (err)
        return false;
    err = inherited.caller_count
              ? listeners_inherit(inherited.callers, inherited.caller_count, workers, &gateway->listeners, why)
              : listeners_open(&settings->listen, workers, &gateway->listeners, why);
    if (err)
        return false;
    gateway->operator_socket = inherited.operator_socket;
    return gateway->operator_socket >= 0 ||
           listener_open_one(&settings->operator_listen, &gateway->operator_socket, why) == ERR_OK;
}

static bool open_shared(struct gateway *gateway, struct text *why)
{
    gateway->limits = limits_new();
    gateway->queues = queues_new();
    gateway->metrics = metrics_new();
    gateway->shard = gateway->metrics ? metrics_shard_new(gateway->metrics) : NULL;
    gateway->fleet = fleet_new(gateway->snapshot, NULL, clock_ms());
    if (gateway->limits && gateway->queues && gateway->shard && gateway->fleet) {
        reload_tell_queues(gateway, &gateway->snapshot->settings, gateway->fleet);
        return true;
    }
    text_add_literal(why, "out of memory");
    return false;
}

static bool open_control(struct gateway *gateway, struct text *why)
{
    struct operator_options options = {
        .base = gateway->base,
        .socket = gateway->operator_socket,
        .print_metrics = print_metrics,
        .readiness = readiness,
        .explain = explain,
        .knows_host = knows_operator_host,
        .arg = gateway,
    };

    gateway->operator= operator_new(&options);
    gateway->prober = prober_new(gateway->base, on_probe_news, gateway);
    if (gateway->operator&& gateway->prober)
        return true;
    text_add_literal(why, "out of memory");
    return false;
}

static bool start_workers(struct gateway *gateway, struct text *why)
{
    struct listeners *listeners = &gateway->listeners;

    for (size_t i = 0; i < listeners->workers; i++) {
        struct worker_options options = {
            .listeners = listeners->sockets + i * listeners->count,
            .listener_count = listeners->count,
            .limits = gateway->limits,
            .queues = gateway->queues,
            .metrics = gateway->metrics,
            .tally = gateway->tallies[i],
            .news = {
                .snapshot = gateway->snapshot,
                .fleet = gateway->fleet,
                .keys = gateway->keys,
                .max_connections = gateway->descriptors.connections,
                .refuses = gateway->refuses,
                .turn = gateway->turn,
            },
            .descriptor_limit = gateway->descriptors.limit,
            .worker_count = (unsigned)listeners->workers,
            .is_draining = &gateway->is_draining,
            .nudge = on_nudge,
            .crowd = on_crowd,
            .on_turn = gateway->control ? ring : NULL,
            .on_done = on_worker_done,
            .arg = gateway,
        };
        struct worker *worker = worker_start(&options);
        for (size_t k = 0; k < listeners->count; k++)
            listeners->sockets[i * listeners->count + k] = -1;
        if (!worker) {
            text_add_literal(why, "cannot start a worker: out of memory or threads");
            return false;
        }
        gateway->workers[gateway->worker_count++] = worker;
    }
    return true;
}

static void say_hello(struct gateway *gateway)
{
    struct text places;

    text_init(&places, 32768);
    for (size_t i = 0; i < gateway->listeners.count; i++) {
        if (i)
            text_add_literal(&places, ", ");
        listener_describe(gateway->listeners.sockets[i], &places);
    }
    text_add_literal(&places, "; operator on ");
    listener_describe(gateway->operator_socket, &places);
    if (gateway->fleet->count)
        text_add_literal(&places, "; asks Ollama at ");
    for (size_t i = 0; i < gateway->fleet->count; i++)
        text_printf(&places, "%s%s", i ? ", " : "", gateway->fleet->backends[i]->authority);
    log_info("qwen-gateway %s listens on %s; workers: %zu, keys: %zu", gateway->version, text_string(&places),
             gateway->listeners.workers, keyring_count(gateway->keys));
    text_release(&places);
}

static bool open_log(const struct gateway *gateway, struct text *why)
{
    const struct settings *settings = &gateway->snapshot->settings;
    struct log_options options = {
        .level = (enum log_level)settings->log_level,
        .is_json = settings->log_format == LOG_FORMAT_JSON,
        .file = settings->log_file,
        .lanes = count_workers(settings) + 1,
    };

    return log_open(&options, why) == ERR_OK;
}

/* CONF_CHOICE wrote the one, the sandbox reads the other. */
static_assert((int)SECCOMP_ENFORCE == (int)SANDBOX_ENFORCE && (int)SECCOMP_LOG == (int)SANDBOX_LOG &&
              (int)SECCOMP_NONE == (int)SANDBOX_NONE);

static bool close_sandbox(const struct gateway *gateway, struct text *why)
{
    enum sandbox_rule rule = (enum sandbox_rule)gateway->snapshot->settings.seccomp;

    if (rule != SANDBOX_NONE && sandbox_is_impossible()) {
        log_info("this build has sanitizers, which need system calls of their own: seccomp is not in force");
        return true;
    }
    if (rule == SANDBOX_NONE)
        log_warn("seccomp is none: whoever breaks in may make every system call");
    if (rule == SANDBOX_LOG)
        log_warn("seccomp is log: system calls out of the ordinary are told to the kernel's audit, not refused");
    return sandbox_close(rule, why) == ERR_OK;
}

/* What root could read is perhaps not the user's to read: better told now than by a reload that is refused. */
static void try_reload(const struct gateway *gateway)
{
    struct snapshot *again;
    struct text why;

    if (!gateway->snapshot->settings.user)
        return;
    text_init(&why, 4096);
    again = snapshot_load(gateway->file, &why, NULL);
    if (!again)
        log_warn("as user %s every reload would be refused: %s", gateway->snapshot->settings.user, text_string(&why));
    (void)snapshot_unref(again);
    text_release(&why);
}

/*
 * The order matters: sockets while still root, and the folder of what the control plane says; the log as the user, who
 * must be able to open it again, and what lies in that folder; threads after that; the sandbox before a caller's first
 * byte is read, but after the hosts of the start were looked up; the link, whose threads are made under it, last.
 */
static bool open_rooms(struct gateway *gateway, struct text *why)
{
    const struct settings *settings = &gateway->snapshot->settings;

    if (!open_loop(gateway, why) || !open_sockets(gateway, why))
        return false;
    gateway->descriptors = descriptors_share(settings->max_connections, true);
    descriptors_widen(&gateway->descriptors, gateway->news_fd);
    if (!follow_prepare(gateway, why) || sandbox_drop(settings->user, settings->core_dumps, why) != ERR_OK ||
        !open_log(gateway, why))
        return false;
    log_thread_start();
    if (!follow_open(gateway, why))
        return false;
    if (!open_shared(gateway, why) || !open_control(gateway, why) || !close_sandbox(gateway, why))
        return false;
    try_reload(gateway);
    say_hello(gateway);
    prober_watch(gateway->prober, gateway->fleet);
    return start_workers(gateway, why) && follow_start(gateway, why);
}

static bool is_looking_up(const struct gateway *gateway)
{
    return gateway->look_up.is_underway || gateway->reloading.is_underway;
}

static void close_rooms(struct gateway *gateway)
{
    if (gateway->worker_count)
        end_now(gateway, "closing");
    for (unsigned i = 0; i < gateway->worker_count; i++)
        worker_join(gateway->workers[i]);
    for (unsigned i = 0; i < gateway->worker_count; i++)
        worker_free(gateway->workers[i]);
    follow_close(gateway);
    prober_free(gateway->prober);
    operator_free(gateway->operator);
    listeners_release(&gateway->listeners);
    metrics_free(gateway->metrics);
    limits_free(gateway->limits);
    queues_free(gateway->queues);
    (void)fleet_unref(gateway->fleet);
    if (gateway->snapshot && gateway->snapshot->settings.operator_listen.path)
        (void)unlink(gateway->snapshot->settings.operator_listen.path);
    if (gateway->snapshot && gateway->snapshot->settings.listen.path)
        (void)unlink(gateway->snapshot->settings.listen.path);
    (void)snapshot_unref(gateway->snapshot);
    for (unsigned i = 0; i < SIGNALS; i++)
        if (gateway->signals[i])
            event_free(gateway->signals[i]);
    if (gateway->news)
        event_free(gateway->news);
    if (gateway->delay)
        event_free(gateway->delay);
    if (gateway->deadline)
        event_free(gateway->deadline);
    if (gateway->round)
        event_free(gateway->round);
    if (gateway->queue_look)
        event_free(gateway->queue_look);
    if (gateway->base)
        event_base_free(gateway->base);
    if (gateway->news_fd >= 0 && !is_looking_up(gateway))
        (void)close(gateway->news_fd);
    log_thread_stop();
    log_close(LOG_CLOSE_MS);
}

int gateway_run(const char *file, struct snapshot *snapshot, const char *version)
{
    struct gateway *gateway = calloc(1, sizeof *gateway);
    struct text why;
    bool is_good;

    if (!gateway)
        return GATEWAY_FAILED;
    text_init(&why, 4096);
    (void)signal(SIGPIPE, SIG_IGN);
    gateway->file = file;
    gateway->version = version;
    gateway->snapshot = snapshot;
    gateway->news_fd = -1;
    gateway->look_up = gateway->reloading = (struct look_up){ .ring = ring, .arg = gateway };
    gateway->started_s = clock_wall_ms() / 1000;
    is_good = open_rooms(gateway, &why);
    if (is_good) {
        service_is_ready("serving");
        (void)event_base_dispatch(gateway->base);
        log_info("ended");
    } else {
        fprintf(stderr, "qwen-gateway: %s\n", text_string(&why));
    }
    gateway->has_ended_workers |= is_good;
    close_rooms(gateway);
    text_release(&why);
    if (!is_looking_up(gateway)) /* else a resolver that blocks still has it; nobody waits for that */
        free(gateway);
    return is_good ? GATEWAY_OK : GATEWAY_FAILED;
}
