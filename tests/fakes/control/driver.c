/*
 * control-driver DATABASE [NAME=VALUE…]: the control plane's side of the link behind a pipe, for tests: store, leader,
 * publish, traffic and roster, without the API. Says {"ready": ADDRESS}, then a line of JSON in is something to do, a
 * line out an answer.
 *
 *   {"do": "confirm", "id": "a", "version": 7, "wait_ms": 2000}   {"do": "status"}   {"do": "load"}   {"do": "counts"}
 *   {"do": "live", "name": "gw1"}   {"do": "wake"}   {"do": "resign"}   {"do": "close"}
 */
#include <event2/event.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "leader.h"
#include "log.h"
#include "publish.h"
#include "roster.h"
#include "store.h"
#include "traffic.h"

enum { DOCUMENT_BYTES = 64 * 1024 * 1024, MAX_WAITS = 100000 };

static struct store_options store_options = {
    .role = "qwen_control",
    .program = "control-driver",
    .connections = 4,
    .pipeline = 32,
    .max_waiting = 10000,
    .wait_timeout_ms = 5000,
    .connect_timeout_ms = 3000,
    .statement_timeout_ms = 10000,
    .reconnect_delay_ms = 20,
    .reconnect_max_ms = 200,
};
static struct leader_options leader_options = {
    .holder = "this", .lease_ms = 5000, .renew_ms = 1000, .hold_ms = 3600000
};
static struct publish_options publish_options = {
    .tail_versions = 100000,
    .tail_bytes = 64 * 1024 * 1024,
    .log_versions = 0,
    .poll_ms = 1000,
    .spool_folder = "/tmp",
    .spool_slack = 10000,
    .spool_retry_ms = 1000,
};
static struct traffic_options traffic_options = {
    .window_ms = 10000, .max_models = 1000, .max_users = 20000, .max_named_users = 100
};
static struct roster_options roster_options = {
    .listen = "127.0.0.1:0",
    .software = "0.2.0",
    .max_connections = 0,
    .heartbeat_ms = 1000,
    .live_ms = 3000,
    .gather_ms = 10,
    .gather_max_ms = 200,
    .max_wait_ms = 60000,
    .persist_ms = 2000,
    .poll_ms = 5000,
    .last_seen_ms = 30000,
};

static struct event_base *base;
static struct store *store;
static struct leader *leader;
static struct publish *publish;
static struct traffic *traffic;
static struct roster *roster;

static const struct option {
    const char *name;
    enum { OPTION_TEXT, OPTION_UNSIGNED, OPTION_U32, OPTION_U64, OPTION_I64 } kind;
    void *at;
} options[] = {
    { "holder", OPTION_TEXT, &leader_options.holder },
    { "lease_ms", OPTION_I64, &leader_options.lease_ms },
    { "renew_ms", OPTION_I64, &leader_options.renew_ms },
    { "hold_ms", OPTION_I64, &leader_options.hold_ms },
    { "tail_versions", OPTION_U64, &publish_options.tail_versions },
    { "tail_bytes", OPTION_U64, &publish_options.tail_bytes },
    { "log_versions", OPTION_U64, &publish_options.log_versions },
    { "poll_ms", OPTION_I64, &publish_options.poll_ms },
    { "spool_folder", OPTION_TEXT, &publish_options.spool_folder },
    { "spool_slack", OPTION_U64, &publish_options.spool_slack },
    { "listen", OPTION_TEXT, &roster_options.listen },
    { "software", OPTION_TEXT, &roster_options.software },
    { "heartbeat_ms", OPTION_U32, &roster_options.heartbeat_ms },
    { "gather_ms", OPTION_I64, &roster_options.gather_ms },
    { "gather_max_ms", OPTION_I64, &roster_options.gather_max_ms },
    { "persist_ms", OPTION_I64, &roster_options.persist_ms },
    { "last_seen_ms", OPTION_I64, &roster_options.last_seen_ms },
    { "connections", OPTION_UNSIGNED, &store_options.connections },
    { "wait_timeout_ms", OPTION_I64, &store_options.wait_timeout_ms },
};

static void set(const char *words)
{
    const char *value = strchr(words, '=');

    for (size_t i = 0; value && i < sizeof options / sizeof *options; i++) {
        const struct option *option = &options[i];
        if (strlen(option->name) != (size_t)(value - words) ||
            strncmp(words, option->name, (size_t)(value - words)) != 0)
            continue;
        if (option->kind == OPTION_TEXT)
            *(const char **)option->at = value + 1;
        else if (option->kind == OPTION_UNSIGNED || option->kind == OPTION_U32)
            *(unsigned *)option->at = (unsigned)strtoul(value + 1, NULL, 10);
        else
            *(int64_t *)option->at = strtoll(value + 1, NULL, 10);
        return;
    }
    fprintf(stderr, "nobody can set %s\n", words);
    exit(2);
}

static void put(json_t *line)
{
    if (!line)
        abort();
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    (void)fflush(stdout);
    json_decref(line);
}

/* What a room has written must be JSON. */
static json_t *document(const struct text *text, bool is_member)
{
    char *whole = NULL;
    json_t *json;

    if (asprintf(&whole, is_member ? "{%s}" : "%s", text_string(text)) < 0)
        abort();
    json = json_loads(whole, JSON_REJECT_DUPLICATES, NULL);
    if (!json) {
        fprintf(stderr, "not JSON: %s\n", whole);
        exit(3);
    }
    free(whole);
    return json;
}

static void on_confirmed(void *arg, struct slice json)
{
    json_t *line = json_loadb(json.at, json.len, JSON_REJECT_DUPLICATES, NULL);

    put(json_pack("{s:s, s:o}", "id", (const char *)arg, "confirmed", line));
    free(arg);
}

static void on_resigned(void *arg)
{
    (void)arg;
    put(json_pack("{s:b}", "resigned", true));
}

static void confirm(const json_t *line)
{
    char *id = strdup(json_string_value(json_object_get(line, "id")));
    struct roster_wait *wait;
    enum err err = roster_confirm(roster, (uint64_t)json_integer_value(json_object_get(line, "version")),
                                  json_integer_value(json_object_get(line, "wait_ms")), on_confirmed, id, &wait);

    if (err == ERR_OK)
        return;
    put(json_pack("{s:s, s:n, s:s}", "id", id, "confirmed", "err", err_text(err)));
    free(id);
}

static void counts(void)
{
    struct publish_counts now;
    struct rusage usage;

    publish_counts(publish, &now);
    (void)getrusage(RUSAGE_SELF, &usage);
    put(json_pack("{s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "counts", "version",
                  (json_int_t)publish_version(publish), "tail_first", (json_int_t)now.tail_first, "tail_bytes",
                  (json_int_t)now.tail_bytes, "spool_version", (json_int_t)now.spool_version, "spool_bytes",
                  (json_int_t)now.spool_bytes, "spool_changes", (json_int_t)now.spool_changes, "spools_made",
                  (json_int_t)now.spools_made, "unpackable", (json_int_t)now.unpackable, "cpu_us",
                  (json_int_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
                      usage.ru_stime.tv_usec,
                  "max_kib", (json_int_t)usage.ru_maxrss));
}

static void say(const char *what, const char *name)
{
    struct text text;

    text_init(&text, DOCUMENT_BYTES);
    if (strcmp(what, "load") == 0) {
        roster_add_load(roster, &text);
    } else if (strcmp(what, "live") == 0) {
        roster_add_live(roster, slice_of(name), &text);
    } else {
        roster_add_status(roster, &text);
        text_add_char(&text, ',');
        leader_add_status(leader, &text);
    }
    put(json_pack("{s:o}", what, document(&text, *what != 'l' || what[1] == 'i')));
    text_release(&text);
}

static void obey(const char *words, size_t len)
{
    json_t *line = json_loadb(words, len, 0, NULL);
    const char *what = json_string_value(json_object_get(line, "do"));

    if (!what)
        exit(2);
    if (strcmp(what, "confirm") == 0)
        confirm(line);
    else if (strcmp(what, "counts") == 0)
        counts();
    else if (strcmp(what, "wake") == 0)
        publish_wake(publish), roster_wake(roster);
    else if (strcmp(what, "resign") == 0)
        leader_resign(leader, on_resigned, NULL);
    else if (strcmp(what, "close") == 0)
        (void)event_base_loopbreak(base);
    else
        say(what, json_string_value(json_object_get(line, "name")));
    json_decref(line);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    static char bytes[1 << 20];
    static size_t held;
    ssize_t got = read((int)fd, bytes + held, sizeof bytes - held);
    char *line = bytes, *end;

    (void)what;
    (void)arg;
    if (got <= 0) {
        (void)event_base_loopbreak(base);
        return;
    }
    held += (size_t)got;
    while ((end = memchr(line, '\n', held - (size_t)(line - bytes)))) {
        obey(line, (size_t)(end - line));
        line = end + 1;
    }
    held -= (size_t)(line - bytes);
    memmove(bytes, line, held);
}

static bool rooms_open(struct text *why)
{
    return (store = store_open(base, &store_options, why)) &&
           (leader = leader_open(base, store, &leader_options, why)) &&
           (publish = publish_open(base, store, &publish_options, why)) && (traffic = traffic_new(&traffic_options)) &&
           (roster = roster_open(base, store, publish, traffic, leader, &roster_options, why));
}

int main(int argc, char **argv)
{
    const struct log_options log_options = { .level = LOG_LEVEL_DEBUG };
    struct event *input;
    struct text why;

    if (argc < 2)
        return 2;
    (void)signal(SIGPIPE, SIG_IGN);
    store_options.database = argv[1];
    for (int i = 2; i < argc; i++)
        set(argv[i]);
    base = event_base_new();
    text_init(&why, 1000);
    if (log_open(&log_options, &why) != ERR_OK)
        return 2;
    log_thread_start();
    input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
    if (!input || event_add(input, NULL) != 0 || !rooms_open(&why)) {
        fprintf(stderr, "control-driver: %s\n", text_string(&why));
        return 2;
    }
    put(json_pack("{s:s}", "ready", roster_address(roster)));
    (void)event_base_dispatch(base);
    roster = roster_close(roster);
    traffic = traffic_free(traffic);
    publish = publish_close(publish);
    leader = leader_close(leader);
    store_close(store);
    event_free(input);
    event_base_free(base);
    text_release(&why);
    log_close(1000);
    return EXIT_SUCCESS;
}
