/*
 * store-driver DATABASE [NAME=VALUE…]: the store behind a pipe, for tests. A line of JSON in is something to do, a line
 * out an answer. It counts: an answer that comes twice ends it with status 3, one that never comes with status 4.
 *
 *   {"do": "ask", "id": "a", "sql": "…" or ["…", …], "values": […], "repeatable": false}
 *   {"do": "begin", "id": "t"}   {"do": "step", "id": "t", "sql": …}   {"do": "commit", "id": "t"}   {"do": "rollback",
 * "id": "t"}
 *   {"do": "listen", "channel": "…"}   {"do": "forget", "id": "a"}   {"do": "state"}   {"do": "close"}
 */
#include <event2/event.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "store.h"

enum { MAX_PARTS = 16, MAX_OPEN = 100000, STATEMENTS = 400 };

struct asked {
    char id[64];
    bool is_answered, is_forgotten;
    struct question *question;
    struct transaction *transaction;
};

static struct event_base *base;
static struct store *store;
static struct asked *asked[MAX_OPEN];
static unsigned asked_count;
static struct statement statements[STATEMENTS];
static unsigned statement_count;

static void put(json_t *line)
{
    json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    (void)fflush(stdout);
    json_decref(line);
}

static json_t *cells(const struct answer *answer)
{
    json_t *results = json_array();

    for (size_t i = 0; i < answer->count; i++) {
        const struct rows *rows = &answer->rows[i];
        json_t *texts = json_array();
        for (size_t row = 0; row < rows_count(rows); row++)
            json_array_append_new(texts, rows_is_null(rows, row, 0)
                                             ? json_null()
                                             : json_stringn(rows_text(rows, row, 0).at, rows_text(rows, row, 0).len));
        json_array_append_new(results,
                              json_pack("{s:o, s:I}", "rows", texts, "touched", (json_int_t)rows_touched(rows)));
    }
    return results;
}

static const char *name_of(enum err err)
{
    static const char *const names[] = {
        [ERR_OK] = "OK",           [ERR_AGAIN] = "AGAIN",         [ERR_BAD] = "BAD",
        [ERR_FULL] = "FULL",       [ERR_TIMEOUT] = "TIMEOUT",     [ERR_GONE] = "GONE",
        [ERR_REFUSED] = "REFUSED", [ERR_NO_MEMORY] = "NO_MEMORY", [ERR_COUNT] = NULL,
    };

    return names[err] ? names[err] : "?";
}

static void on_told(void *arg, const struct answer *answer)
{
    struct asked *one = arg;

    if (one->is_answered || one->is_forgotten) {
        fprintf(stderr, "%s was answered twice, or though it was forgotten\n", one->id);
        exit(3);
    }
    one->is_answered = true;
    put(json_pack("{s:s, s:s, s:b, s:s, s:s, s:s, s:s, s:s, s:o}", "id", one->id, "err", name_of(answer->err),
                  "may_be_done", answer->may_be_done, "sqlstate", answer->sqlstate, "constraint", answer->constraint,
                  "sentence", answer->sentence, "message", answer->message, "detail", answer->detail, "results",
                  cells(answer)));
}

static void on_wake(void *arg, const char *payload)
{
    put(json_pack("{s:s, s:s?}", "wake", (const char *)arg, "payload", payload));
}

static struct asked *find(const char *id)
{
    for (unsigned i = asked_count; i-- > 0;)
        if (strcmp(asked[i]->id, id) == 0)
            return asked[i];
    fprintf(stderr, "%s was never asked\n", id);
    exit(2);
}

static struct asked *remember(const char *id)
{
    struct asked *one = calloc(1, sizeof *one);

    if (!one || asked_count == MAX_OPEN)
        abort();
    (void)snprintf(one->id, sizeof one->id, "%s", id);
    asked[asked_count++] = one;
    return one;
}

/* The same SQL is the same statement. */
static const struct statement *statement_of(const char *sql, bool is_repeatable)
{
    char name[24];

    for (unsigned i = 0; i < statement_count; i++)
        if (strcmp(statements[i].sql, sql) == 0 && statements[i].is_repeatable == is_repeatable)
            return &statements[i];
    if (statement_count == STATEMENTS)
        abort();
    (void)snprintf(name, sizeof name, "s%u", statement_count);
    statements[statement_count] = (struct statement){ strdup(name), strdup(sql), is_repeatable };
    return &statements[statement_count++];
}

static struct value value_of(const json_t *json)
{
    struct slice text = { json_string_value(json), json_string_length(json) };

    if (json_is_object(json)) { /* {"bytes": "…"}: the UTF-8 of it */
        const json_t *bytes = json_object_get(json, "bytes");
        return VALUE_BYTES(((struct slice){ json_string_value(bytes), json_string_length(bytes) }));
    }
    if (json_is_integer(json))
        return VALUE_NUMBER(json_integer_value(json));
    if (json_is_boolean(json))
        return VALUE_BOOL(json_is_true(json));
    return json_is_null(json) ? VALUE_NULL : VALUE_TEXT(text);
}

static size_t read_asks(const json_t *line, struct ask *asks, struct value *values)
{
    const json_t *sql = json_object_get(line, "sql"), *given = json_object_get(line, "values");
    size_t parts = json_is_array(sql) ? json_array_size(sql) : 1, count = json_array_size(given);
    bool is_repeatable = json_is_true(json_object_get(line, "repeatable"));

    for (size_t i = 0; i < count; i++)
        values[i] = value_of(json_array_get(given, i));
    for (size_t i = 0; i < parts; i++)
        asks[i] = (struct ask){
            .statement =
                statement_of(json_string_value(json_is_array(sql) ? json_array_get(sql, i) : sql), is_repeatable),
            .values = values,
            .count = parts == 1 ? count : 0,
        };
    return parts;
}

static enum err act(const char *what, const char *id, const json_t *line, struct asked **ret_one)
{
    struct ask asks[MAX_PARTS];
    struct value values[MAX_PARTS];

    if (strcmp(what, "ask") == 0) {
        size_t count = read_asks(line, asks, values);
        struct asked *one = *ret_one = remember(id);
        return store_ask(store, asks, count, on_told, one, &one->question);
    }
    if (strcmp(what, "begin") == 0) {
        struct asked *one = *ret_one = remember(id);
        return store_begin(store, on_told, one, &one->transaction);
    }
    if (strcmp(what, "step") == 0 || strcmp(what, "commit") == 0) {
        struct transaction *transaction = find(id)->transaction;
        struct asked *one = *ret_one = remember(id);
        one->transaction = transaction;
        if (*what == 'c')
            return transaction_commit(transaction, on_told, one);
        return transaction_ask(transaction, asks, read_asks(line, asks, values), on_told, one);
    }
    if (strcmp(what, "rollback") == 0) {
        struct asked *one = find(id);
        one->is_forgotten = one->is_forgotten || !one->is_answered;
        transaction_rollback(one->transaction);
    } else if (strcmp(what, "forget") == 0) {
        find(id)->is_forgotten = true;
        question_forget(find(id)->question);
    } else if (strcmp(what, "listen") == 0) {
        static char channel[64]; /* a test listens once */
        (void)snprintf(channel, sizeof channel, "%s", json_string_value(json_object_get(line, "channel")));
        return store_listen(store, channel, on_wake, channel);
    } else if (strcmp(what, "state") == 0) {
        put(json_pack("{s:b, s:s}", "is_up", store_is_up(store), "reason", store_reason(store)));
    } else if (strcmp(what, "close") == 0) {
        (void)event_base_loopbreak(base);
    } else {
        fprintf(stderr, "nobody can %s\n", what);
        exit(2);
    }
    return ERR_OK;
}

static void obey(const char *words, size_t len)
{
    json_t *line = json_loadb(words, len, JSON_ALLOW_NUL, NULL);
    struct asked *one = NULL;
    enum err err;

    if (!line) {
        fprintf(stderr, "not JSON: %.*s\n", (int)len, words);
        exit(2);
    }
    err =
        act(json_string_value(json_object_get(line, "do")), json_string_value(json_object_get(line, "id")), line, &one);
    if (err != ERR_OK) {
        if (one)
            one->is_answered = true;
        put(json_pack("{s:s, s:s, s:b}", "id", one ? one->id : "", "err", name_of(err), "at_once", true));
    }
    json_decref(line);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    static char bytes[1 << 21];
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

static void set(struct store_options *options, const char *words)
{
    const struct {
        const char *name;
        unsigned *count;
        int64_t *ms;
    } rows[] = {
        { "connections", &options->connections, NULL },
        { "pipeline", &options->pipeline, NULL },
        { "max_waiting", &options->max_waiting, NULL },
        { "wait_timeout", NULL, &options->wait_timeout_ms },
        { "connect_timeout", NULL, &options->connect_timeout_ms },
        { "statement_timeout", NULL, &options->statement_timeout_ms },
        { "reconnect_delay", NULL, &options->reconnect_delay_ms },
        { "reconnect_max", NULL, &options->reconnect_max_ms },
    };
    const char *value = strchr(words, '=');

    if (!value)
        abort();
    if (strncmp(words, "role=", 5) == 0)
        options->role = value + 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strncmp(words, rows[i].name, strlen(rows[i].name)) != 0 || words[strlen(rows[i].name)] != '=')
            continue;
        if (rows[i].count)
            *rows[i].count = (unsigned)strtoul(value + 1, NULL, 10);
        else
            *rows[i].ms = strtoll(value + 1, NULL, 10);
    }
}

int main(int argc, char **argv)
{
    struct store_options options = {
        .role = "",
        .program = "store-driver",
        .connections = 3,
        .pipeline = 32,
        .max_waiting = 100000,
        .wait_timeout_ms = 20000,
        .connect_timeout_ms = 3000,
        .statement_timeout_ms = 20000,
        .reconnect_delay_ms = 20,
        .reconnect_max_ms = 200,
    };
    struct event *input;
    struct text why;
    int status = EXIT_SUCCESS;

    if (argc < 2)
        return 2;
    options.database = argv[1];
    for (int i = 2; i < argc; i++)
        set(&options, argv[i]);
    base = event_base_new();
    text_init(&why, 1000);
    store = store_open(base, &options, &why);
    input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
    if (!store || !input || event_add(input, NULL) != 0)
        return 2;
    (void)event_base_dispatch(base);
    store_close(store);
    for (unsigned i = 0; i < asked_count; i++) {
        if (!asked[i]->is_answered && !asked[i]->is_forgotten) {
            fprintf(stderr, "%s was never answered\n", asked[i]->id);
            status = 4;
        }
        free(asked[i]);
    }
    event_free(input);
    event_base_free(base);
    text_release(&why);
    for (unsigned i = 0; i < statement_count; i++) {
        free((void *)(uintptr_t)statements[i].name);
        free((void *)(uintptr_t)statements[i].sql);
    }
    return status;
}
