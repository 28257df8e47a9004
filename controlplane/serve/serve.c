#include "serve.h"

#include <event2/event.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "api.h"
#include "clock.h"
#include "leader.h"
#include "log.h"
#include "migrate.h"
#include "publish.h"
#include "roster.h"
#include "service.h"
#include "settings.h"
#include "store.h"
#include "traffic.h"

/*
 * Timers. verify: until the database was seen to be of this program's version, whenever it could not be seen
 * (VERIFY_MS). drain: from the first signal to the end, looks whether anything is still to be answered (DRAIN_LOOK_MS);
 * then it waits until the lead is given back, for RESIGN_MS at most.
 */
enum { VERIFY_MS = 1000, DRAIN_LOOK_MS = 20, RESIGN_MS = 1000, PLACES_BYTES = 1024, SIGNALS = 3 };

struct serve {
    const struct settings *settings;
    const char *version;
    struct event_base *base;
    struct event *signals[SIGNALS], *verify, *drain;
    struct store *store;
    struct leader *leader;
    struct publish *publish;
    struct traffic *traffic;
    struct roster *roster;
    struct api *api;
    bool resigns;
    int64_t ends_ms; /* when what is open is cut; 0: nobody has stopped it */
    struct text *why;
    enum err err;
};

static void set_timer(struct event *event, int64_t ms)
{
    const struct timeval time = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(event, &time);
}

/* ---- is the database of this program? ---- */

static void on_verified(void *arg, enum err err, const char *why)
{
    struct serve *serve = arg;

    if (err == ERR_OK) {
        log_info("the database is at %s", migrations[migration_count - 1].name);
    } else if (err == ERR_TIMEOUT || err == ERR_GONE || err == ERR_FULL || err == ERR_AGAIN) {
        set_timer(serve->verify, VERIFY_MS); /* the store has said that it is away */
    } else {
        log_error("%s", why);
        serve->err = err;
        (void)event_base_loopbreak(serve->base);
    }
}

static void on_verify(evutil_socket_t fd, short what, void *arg)
{
    struct serve *serve = arg;

    (void)fd;
    (void)what;
    if (migrate_verify(serve->store, on_verified, serve) != ERR_OK)
        set_timer(serve->verify, VERIFY_MS);
}

/* ---- the end ---- */

static void on_resigned(void *arg)
{
    const struct serve *serve = arg;

    (void)event_base_loopbreak(serve->base);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    struct serve *serve = arg;
    unsigned open = api_open_requests(serve->api);

    (void)fd;
    (void)what;
    if (serve->resigns) {
        (void)event_base_loopbreak(serve->base);
        return;
    }
    if (open && clock_ms() < serve->ends_ms) {
        set_timer(serve->drain, DRAIN_LOOK_MS);
        return;
    }
    if (open)
        log_warn("%u requests are cut: they took longer than admin_drain_timeout", open);
    serve->resigns = true;
    set_timer(serve->drain, RESIGN_MS);
    leader_resign(serve->leader, on_resigned, serve);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct serve *serve = arg;

    (void)what;
    if (number == SIGHUP) {
        log_info("SIGHUP changes nothing: settings are read at the start");
    } else if (serve->ends_ms) {
        log_info("stopped twice: ending at once");
        (void)event_base_loopbreak(serve->base);
    } else {
        log_info("stopping; what was asked is still answered");
        service_is_stopping();
        api_stop(serve->api);
        serve->ends_ms = clock_ms() + serve->settings->admin_drain_timeout_ms;
        set_timer(serve->drain, 0);
    }
}

/* ---- the rooms ---- */

static bool open_loop(struct serve *serve)
{
    static const int numbers[SIGNALS] = { SIGTERM, SIGINT, SIGHUP };

    serve->base = event_base_new();
    if (!serve->base)
        return false;
    for (unsigned i = 0; i < SIGNALS; i++) {
        serve->signals[i] = evsignal_new(serve->base, numbers[i], on_signal, serve);
        if (!serve->signals[i] || event_add(serve->signals[i], NULL) != 0)
            return false;
    }
    serve->verify = evtimer_new(serve->base, on_verify, serve);
    serve->drain = evtimer_new(serve->base, on_drain, serve);
    return serve->verify && serve->drain;
}

static bool open_store(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    const struct store_options options = {
        .database = settings->database,
        .role = settings->database_role,
        .program = "qwen-control",
        .connections = settings->database_connections,
        .pipeline = settings->database_pipeline,
        .max_waiting = settings->database_max_waiting,
        .wait_timeout_ms = settings->database_wait_timeout_ms,
        .connect_timeout_ms = settings->database_connect_timeout_ms,
        .statement_timeout_ms = settings->database_statement_timeout_ms,
        .reconnect_delay_ms = settings->database_reconnect_delay_ms,
        .reconnect_max_ms = settings->database_reconnect_max_ms,
    };

    serve->store = store_open(serve->base, &options, serve->why);
    return serve->store != NULL;
}

/* What it is called where people ask who leads. */
static void name_this(const struct settings *settings, struct text *out)
{
    char machine[HOST_NAME_MAX + 1] = "";

    if (*settings->leader_name) {
        text_add_string(out, settings->leader_name);
        return;
    }
    (void)gethostname(machine, HOST_NAME_MAX);
    text_printf(out, "%s %s", *machine ? machine : "localhost", settings->admin_listen);
}

static bool open_leader(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    char memory[PLACES_BYTES];
    struct text name = text_over(memory, sizeof memory);
    const struct leader_options options = {
        .holder = memory,
        .lease_ms = settings->leader_lease_ms,
        .renew_ms = settings->leader_renew_ms,
        .hold_ms = settings->leader_hold_ms,
    };

    name_this(settings, &name);
    serve->leader = leader_open(serve->base, serve->store, &options, serve->why);
    return serve->leader != NULL;
}

static bool open_publish(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    const struct publish_options options = {
        .tail_versions = settings->change_memory_versions,
        .tail_bytes = settings->change_memory_bytes,
        .log_versions = settings->change_log_versions,
        .poll_ms = settings->change_poll_ms,
        .spool_folder = settings->snapshot_folder,
        .spool_slack = settings->snapshot_slack,
        .spool_retry_ms = settings->snapshot_retry_ms,
    };

    serve->publish = publish_open(serve->base, serve->store, &options, serve->why);
    return serve->publish != NULL;
}

static bool open_traffic(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    const struct traffic_options options = {
        .window_ms = settings->load_window_ms,
        .max_models = settings->load_models,
        .max_users = settings->load_users,
        .max_named_users = settings->load_named_users,
    };

    serve->traffic = traffic_new(&options);
    if (!serve->traffic)
        text_add_string(serve->why, err_text(ERR_NO_MEMORY));
    return serve->traffic != NULL;
}

static bool open_roster(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    const struct roster_options options = {
        .listen = settings->link_listen,
        .software = serve->version,
        .max_connections = settings->link_max_connections,
        .heartbeat_ms = (uint32_t)settings->link_heartbeat_ms,
        .live_ms = settings->gateway_live_ms,
        .gather_ms = settings->gateway_gather_ms,
        .gather_max_ms = settings->gateway_gather_max_ms,
        .max_wait_ms = settings->link_max_wait_ms,
        .persist_ms = settings->gateway_persist_ms,
        .poll_ms = settings->gateway_poll_ms,
        .last_seen_ms = settings->gateway_last_seen_ms,
    };

    serve->roster =
        roster_open(serve->base, serve->store, serve->publish, serve->traffic, serve->leader, &options, serve->why);
    return serve->roster != NULL;
}

static bool open_api(struct serve *serve)
{
    const struct settings *settings = serve->settings;
    const struct api_doors doors = {
        .store = serve->store, .publish = serve->publish, .roster = serve->roster, .leader = serve->leader
    };
    const struct api_options options = {
        .listen = settings->admin_listen,
        .version = serve->version,
        .trusted_proxies = &settings->admin_trusted_proxies,
        .max_head_bytes = settings->admin_max_head_bytes,
        .max_body_bytes = settings->admin_max_body_bytes,
        .max_waiting_bytes = settings->admin_max_body_memory_bytes,
        .max_depth = settings->admin_max_json_depth,
        .max_connections = settings->admin_max_connections,
        .max_waits = settings->admin_max_waits,
        .wrong_tokens = settings->admin_wrong_tokens,
        .request_ms = settings->admin_request_timeout_ms,
        .write_ms = settings->admin_write_timeout_ms,
        .linger_ms = settings->admin_linger_timeout_ms,
        .token_memory_ms = settings->admin_token_memory_ms,
        .forget_ms = settings->admin_cleanup_interval_ms,
    };

    serve->api = api_open(serve->base, &doors, &options, serve->why);
    return serve->api != NULL;
}

static void say_hello(const struct serve *serve)
{
    char memory[PLACES_BYTES];
    struct text places = text_over(memory, sizeof memory);

    api_describe(serve->api, &places);
    log_info("qwen-control %s serves the admin API on %s, and gateways on %s", serve->version, memory,
             roster_address(serve->roster));
}

static bool open_rooms(struct serve *serve)
{
    if (!open_loop(serve)) {
        text_add_string(serve->why, err_text(ERR_NO_MEMORY));
        return false;
    }
    return open_store(serve) && open_leader(serve) && open_publish(serve) && open_traffic(serve) &&
           open_roster(serve) && open_api(serve);
}

static void close_rooms(struct serve *serve)
{
    api_close(serve->api);
    serve->roster = roster_close(serve->roster);
    serve->traffic = traffic_free(serve->traffic);
    serve->publish = publish_close(serve->publish);
    serve->leader = leader_close(serve->leader);
    store_close(serve->store);
    for (unsigned i = 0; i < SIGNALS; i++)
        if (serve->signals[i])
            event_free(serve->signals[i]);
    if (serve->verify)
        event_free(serve->verify);
    if (serve->drain)
        event_free(serve->drain);
    if (serve->base)
        event_base_free(serve->base);
}

enum err serve_run(const struct settings *settings, const char *version, struct text *why)
{
    struct serve serve = { .settings = settings, .version = version, .why = why };

    (void)signal(SIGPIPE, SIG_IGN);
    if (open_rooms(&serve)) {
        say_hello(&serve);
        service_is_ready("serving");
        on_verify(-1, 0, &serve);
        (void)event_base_dispatch(serve.base);
        log_info("ended");
    } else {
        serve.err = ERR_SYSTEM;
    }
    close_rooms(&serve);
    return serve.err;
}
