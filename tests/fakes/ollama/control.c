/*
 * control - the tests' side: scripts, settings, the books, and waiting for a fact. JSON over HTTP, on the first
 * worker's thread only, but for control_is_watched(). An unknown key is an error: a typing mistake in a test must
 * not pass for a script that does nothing.
 */
#include "conn.h"
#include "models.h"
#include "script.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct waiter {
    struct waiter *next;
    struct conn *conn;
    struct timer late;
    bool has_route;
    enum route route;
    int64_t wanted[8]; /* by wait_keys; -1: does not matter */
};

static struct waiter *waiters;
static unsigned watching; /* atomic */

bool control_is_watched(void)
{
    return __atomic_load_n(&watching, __ATOMIC_RELAXED) > 0;
}

static void complain(struct conn *conn, int status, const char *text)
{
    struct bytes json = { 0 };

    bytes_text(&json, "{\"error\":");
    bytes_json(&json, slice_of(text));
    bytes_text(&json, "}\n");
    conn_reply(conn, status, (struct slice){ json.at, json.len });
    bytes_release(&json);
}

static void agree(struct conn *conn)
{
    conn_reply(conn, 200, SLICE("{\"ok\":true}\n"));
}

/* --- /script --- */

static void complain_bytes(struct conn *conn, struct bytes *why)
{
    bytes_add(why, "", 1);
    complain(conn, 400, why->at);
    bytes_release(why);
}

static void do_script(struct conn *conn, json_t *json)
{
    struct deed *deed = deed_new();
    const char *path = "/api/chat";
    struct bytes why = { 0 };
    uint64_t times = 1;

    if (script_read(json, deed, &path, &times, &why)) {
        books_script(slice_of(path), times, deed);
        agree(conn);
    } else {
        complain_bytes(conn, &why);
    }
    deed_unref(deed);
}

/* --- /set --- */

static const struct {
    const char *key;
    size_t offset;
} switches[] = {
    { "mute", offsetof(struct settings, is_mute) },
    { "blackhole", offsetof(struct settings, is_blackhole) },
    { "version_silent", offsetof(struct settings, is_silent[ROUTE_VERSION]) },
    { "tags_silent", offsetof(struct settings, is_silent[ROUTE_TAGS]) },
    { "ps_silent", offsetof(struct settings, is_silent[ROUTE_PS]) },
    { "show_silent", offsetof(struct settings, is_silent[ROUTE_SHOW]) },
    { "chat_silent", offsetof(struct settings, is_silent[ROUTE_CHAT]) },
};

static bool model_is_right(const json_t *model)
{
    const json_t *list = json_object_get(model, "capabilities");
    const json_t *one;
    size_t i;

    if (!json_is_string(json_object_get(model, "name")) || (list && !json_is_array(list)))
        return false;
    json_array_foreach(list, i, one)
    {
        if (!json_is_string(one) || !capability_bit(json_string_value(one)))
            return false;
    }
    return true;
}

static bool models_are_right(const json_t *list)
{
    const json_t *model;
    size_t i;

    json_array_foreach(list, i, model)
    {
        if (!model_is_right(model))
            return false;
    }
    return json_is_array(list);
}

static bool resident_is_right(const json_t *resident)
{
    static const char *const keys[] = { "size", "size_vram", "context_length" };
    size_t known = 1;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *value = json_object_get(resident, keys[i]);
        if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
            return false;
        known += value != NULL;
    }
    return json_is_string(json_object_get(resident, "name")) && json_object_size(resident) == known;
}

static bool residents_are_right(const json_t *list)
{
    const json_t *one;
    size_t i;

    json_array_foreach(list, i, one)
    {
        if (!resident_is_right(one))
            return false;
    }
    return json_is_array(list);
}

/* False: one of them is no model. */
static bool set_residents(const json_t *list)
{
    const json_t *one;
    size_t i;

    models_unload_all();
    json_array_foreach(list, i, one)
    {
        const json_t *vram = json_object_get(one, "size_vram");

        if (!model_set_resident(slice_of(json_string_value(json_object_get(one, "name"))),
                                json_integer_value(json_object_get(one, "size")), vram ? json_integer_value(vram) : -1,
                                json_integer_value(json_object_get(one, "context_length"))))
            return false;
    }
    return true;
}

static void set_models(const json_t *list)
{
    const json_t *model;
    size_t i;

    models_clear();
    json_array_foreach(list, i, model)
    {
        const json_t *capabilities = json_object_get(model, "capabilities");
        unsigned can = capabilities ? 0 : CAN_COMPLETE;

        for (size_t k = 0; k < json_array_size(capabilities); k++)
            can |= capability_bit(json_string_value(json_array_get(capabilities, k)));
        models_add(json_string_value(json_object_get(model, "name")), can);
    }
}

static bool read_setting(struct settings *settings, const char *key, const json_t *value)
{
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        if (strcmp(key, switches[i].key) == 0) {
            *(bool *)((char *)settings + switches[i].offset) = json_is_true(value);
            return json_is_boolean(value);
        }
    }
    if (strcmp(key, "num_parallel") == 0) {
        settings->num_parallel = (uint64_t)json_integer_value(value);
        return json_is_integer(value) && json_integer_value(value) >= 0;
    }
    if (strcmp(key, "load_ms") == 0) {
        settings->load_ms = json_integer_value(value);
        return json_is_integer(value) && settings->load_ms >= 0;
    }
    if (strcmp(key, "speed") == 0) {
        settings->speed = json_integer_value(value);
        return json_is_integer(value) && settings->speed > 0;
    }
    if (strcmp(key, "residents") == 0)
        return residents_are_right(value);
    if (strcmp(key, "drop") == 0) {
        settings->drops += json_is_true(value);
        return json_is_boolean(value);
    }
    return strcmp(key, "models") == 0 && models_are_right(value);
}

static void do_set(struct conn *conn, json_t *json)
{
    struct settings settings = books_settings();
    const char *key;
    json_t *value;

    json_object_foreach(json, key, value)
    {
        if (!read_setting(&settings, key, value)) {
            struct bytes why = { 0 };

            bytes_print(&why, "%s is unknown or not as it should be", key);
            complain_bytes(conn, &why);
            return;
        }
    }
    if (json_object_get(json, "models"))
        set_models(json_object_get(json, "models"));
    if (json_object_get(json, "residents") && !set_residents(json_object_get(json, "residents"))) {
        complain(conn, 400, "residents: one of them is not a model");
        return;
    }
    workers_obey(conn->worker, &settings);
    agree(conn);
}

/* --- /reset --- */

static void do_reset(struct conn *conn, json_t *json)
{
    books_reset();
    if (json_is_true(json_object_get(json, "settings"))) {
        struct settings settings = books_first_settings();

        settings.drops = books_settings().drops;
        models_restore();
        workers_obey(conn->worker, &settings);
    }
    agree(conn);
}

/* --- /stats and /seen --- */

static void write_counts(struct bytes *json, const struct counts *counts)
{
    bytes_print(json, "\"requests\":%llu,\"answered\":%llu,\"aborted\":%llu,\"malformed\":%llu",
                (unsigned long long)counts->requests, (unsigned long long)counts->answered,
                (unsigned long long)counts->aborted, (unsigned long long)counts->malformed);
}

static void write_stats(struct bytes *json)
{
    struct stats stats = books_stats();

    bytes_text(json, "{");
    write_counts(json, &stats.work);
    bytes_print(
        json,
        ",\"running\":%llu,\"waiting\":%llu,\"peak_running\":%llu,\"connections_open\":%llu,"
        "\"connections_total\":%llu,\"tokens_sent\":%llu,\"scripts_left\":%llu,\"forgotten\":%llu,\"by_path\":{",
        (unsigned long long)stats.running, (unsigned long long)stats.waiting, (unsigned long long)stats.peak_running,
        (unsigned long long)stats.connections_open, (unsigned long long)stats.connections_total,
        (unsigned long long)stats.tokens_sent, (unsigned long long)stats.scripts_left,
        (unsigned long long)stats.forgotten);
    for (int i = 0; i < ROUTES; i++) {
        bytes_print(json, "%s\"%s\":{", i ? "," : "", i == ROUTE_OTHER ? "other" : route_path((enum route)i));
        write_counts(json, &stats.by_route[i]);
        bytes_text(json, "}");
    }
    bytes_text(json, "},\"by_model\":");
    books_by_model(json);
    bytes_text(json, "}\n");
}

static void do_ids(struct conn *conn)
{
    struct bytes json = { 0 };

    books_ids(&json);
    conn_reply(conn, 200, (struct slice){ json.at, json.len });
    bytes_release(&json);
}

static void do_stats(struct conn *conn, int status)
{
    struct bytes json = { 0 };

    write_stats(&json);
    conn_reply(conn, status, (struct slice){ json.at, json.len });
    bytes_release(&json);
}

/* --- queries --- */

static bool query_next(struct slice *query, struct slice *ret_key, struct slice *ret_value)
{
    const char *end;
    const char *equals;

    if (query->len == 0)
        return false;
    end = memchr(query->at, '&', query->len);
    *ret_key = (struct slice){ query->at, end ? (size_t)(end - query->at) : query->len };
    query->at += ret_key->len + (end ? 1 : 0);
    query->len -= ret_key->len + (end ? 1 : 0);
    equals = memchr(ret_key->at, '=', ret_key->len);
    *ret_value = (struct slice){ "", 0 };
    if (equals) {
        *ret_value = (struct slice){ equals + 1, ret_key->len - (size_t)(equals + 1 - ret_key->at) };
        ret_key->len = (size_t)(equals - ret_key->at);
    }
    return true;
}

/* %2F and its like, for paths in queries. */
static struct slice unescape(struct slice value, char *room, size_t size)
{
    size_t len = 0;

    for (size_t i = 0; i < value.len && len + 1 < size; i++) {
        unsigned byte;

        if (value.at[i] == '%' && i + 2 < value.len && sscanf(value.at + i + 1, "%2x", &byte) == 1) {
            room[len++] = (char)byte;
            i += 2;
        } else {
            room[len++] = value.at[i];
        }
    }
    return (struct slice){ room, len };
}

static int64_t number_of(struct slice value)
{
    char text[24];
    char *end;
    long long number;

    (void)snprintf(text, sizeof text, "%.*s", (int)value.len, value.at);
    number = strtoll(text, &end, 10);
    return *text && !*end && number >= 0 ? number : -1;
}

static void do_seen(struct conn *conn, struct slice query)
{
    struct bytes json = { 0 };
    struct slice path = { 0 };
    struct slice key;
    struct slice value;
    char room[256];
    int64_t from = 0;

    while (query_next(&query, &key, &value)) {
        if (slice_is(key, "path"))
            path = unescape(value, room, sizeof room);
        else if (slice_is(key, "from"))
            from = number_of(value);
    }
    books_seen(&json, path, from < 0 ? 0 : (uint64_t)from);
    conn_reply(conn, 200, (struct slice){ json.at, json.len });
    bytes_release(&json);
}

/* --- /wait --- */

static const char *const wait_keys[] = { "requests", "answered", "aborted",          "malformed",
                                         "running",  "waiting",  "connections_open", "tokens_sent" };

static bool is_satisfied(const struct waiter *waiter)
{
    struct stats stats = books_stats();
    const struct counts *counts = waiter->has_route ? &stats.by_route[waiter->route] : &stats.work;
    const uint64_t least[] = { counts->requests, counts->answered, counts->aborted, stats.work.malformed };
    const uint64_t exact[] = { stats.running, stats.waiting, stats.connections_open };

    for (size_t i = 0; i < 4; i++)
        if (waiter->wanted[i] >= 0 && least[i] < (uint64_t)waiter->wanted[i])
            return false;
    for (size_t i = 0; i < 3; i++)
        if (waiter->wanted[4 + i] >= 0 && exact[i] != (uint64_t)waiter->wanted[4 + i])
            return false;
    return waiter->wanted[7] < 0 || stats.tokens_sent >= (uint64_t)waiter->wanted[7];
}

void control_forget(struct conn *conn)
{
    struct waiter **at = &waiters;
    struct waiter *waiter = conn->waiter;

    if (!waiter)
        return;
    while (*at != waiter)
        at = &(*at)->next;
    *at = waiter->next;
    timer_cancel(&conn->worker->loop, &waiter->late);
    free(waiter);
    conn->waiter = NULL;
    __atomic_sub_fetch(&watching, 1, __ATOMIC_RELAXED);
}

static void waiter_end(struct waiter *waiter, int status)
{
    struct conn *conn = waiter->conn;

    control_forget(conn);
    do_stats(conn, status);
    conn_go_on(conn);
}

static void on_late(struct timer *timer)
{
    waiter_end((struct waiter *)(void *)((char *)timer - offsetof(struct waiter, late)), 408);
}

void control_look(void)
{
    struct waiter *next;

    for (struct waiter *waiter = waiters; waiter; waiter = next) {
        next = waiter->next;
        if (is_satisfied(waiter))
            waiter_end(waiter, 200);
    }
}

static bool read_wish(struct waiter *waiter, struct slice key, struct slice value, int64_t *timeout_ms)
{
    char room[256];

    if (slice_is(key, "timeout_ms"))
        return (*timeout_ms = number_of(value)) >= 0;
    if (slice_is(key, "path")) {
        waiter->has_route = true;
        waiter->route = route_of(unescape(value, room, sizeof room));
        return true;
    }
    for (size_t i = 0; i < sizeof wait_keys / sizeof *wait_keys; i++)
        if (slice_is(key, wait_keys[i]))
            return (waiter->wanted[i] = number_of(value)) >= 0;
    return false;
}

static void do_wait(struct conn *conn, struct slice query)
{
    struct waiter *waiter = must_alloc(sizeof *waiter);
    int64_t timeout_ms = 10000;
    struct slice key;
    struct slice value;

    waiter->conn = conn;
    memset(waiter->wanted, -1, sizeof waiter->wanted);
    while (query_next(&query, &key, &value)) {
        if (!read_wish(waiter, key, value, &timeout_ms)) {
            free(waiter);
            complain(conn, 400, "unknown or malformed wish");
            return;
        }
    }
    /* First be seen waiting, then look, so that no change between the two is missed. */
    __atomic_add_fetch(&watching, 1, __ATOMIC_SEQ_CST);
    if (is_satisfied(waiter)) {
        __atomic_sub_fetch(&watching, 1, __ATOMIC_RELAXED);
        free(waiter);
        do_stats(conn, 200);
        return;
    }
    waiter->next = waiters;
    waiters = waiter;
    conn->waiter = waiter;
    waiter->late.on_due = on_late;
    timer_set(&conn->worker->loop, &waiter->late, clock_ns() + (uint64_t)timeout_ms * 1000000u);
}

/* --- the verbs --- */

static void with_json(struct conn *conn, struct slice body, void (*verb)(struct conn *, json_t *))
{
    json_error_t error;
    json_t *json = body.len ? json_loadb(body.at, body.len, JSON_ALLOW_NUL, &error) : json_object();

    if (json_is_object(json))
        verb(conn, json);
    else
        complain(conn, 400, json ? "wanted a JSON object" : error.text);
    json_decref(json);
}

void control_handle(struct conn *conn, struct slice method, struct slice target, struct slice body)
{
    const char *mark = memchr(target.at, '?', target.len);
    struct slice path = { target.at, mark ? (size_t)(mark - target.at) : target.len };
    struct slice query = { mark ? mark + 1 : "", mark ? target.len - path.len - 1 : 0 };
    bool is_post = slice_is(method, "POST");

    if (is_post && slice_is(path, "/script"))
        with_json(conn, body, do_script);
    else if (is_post && slice_is(path, "/set"))
        with_json(conn, body, do_set);
    else if (is_post && slice_is(path, "/reset"))
        with_json(conn, body, do_reset);
    else if (!is_post && slice_is(path, "/stats"))
        do_stats(conn, 200);
    else if (!is_post && slice_is(path, "/seen"))
        do_seen(conn, query);
    else if (!is_post && slice_is(path, "/ids"))
        do_ids(conn);
    else if (!is_post && slice_is(path, "/wait"))
        do_wait(conn, query);
    else
        complain(conn, 404, "POST /script, /set, /reset; GET /stats, /seen, /ids, /wait");
}
