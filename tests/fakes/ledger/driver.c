/*
 * ledger-driver DATABASE [ROLE]: the ledger behind a pipe, for tests. A line of JSON in is something to do, a line out
 * an answer. It counts: an answer that comes twice ends it with status 3, one that never comes with status 4.
 *
 *   {"do": "change", "id": "a", "who": {…}, "action": "…", "object": "…", "version": 0, "body": "{…}"}
 *   {"do": "get", "id": "a", "noun": "…", "object": "…"}
 *   {"do": "list", "id": "a", "noun": "…", "filter": "{…}", "after": "…", "max": 100}
 *   {"do": "token", "id": "a", "hash": HEX}
 *   {"do": "make", "id": "a", "what": "key" | "token" | "enrol"}
 *   "forget": true beside any of the first four
 */
#include <event2/event.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "account.h"
#include "ledger.h"
#include "store.h"

enum { LINE_MAX_BYTES = 4 << 20 };

struct asked {
    char id[64];
    bool is_answered, is_forgotten;
    struct asked *next;
};

static struct event_base *base;
static struct store *store;
static struct asked *all;

static void put(struct asked *one, json_t *line)
{
    if (one->is_answered || one->is_forgotten) {
        fprintf(stderr, "%s was answered twice, or though it was forgotten\n", one->id);
        exit(3);
    }
    one->is_answered = true;
    json_object_set_new(line, "id", json_string(one->id));
    json_dumpf(line, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    (void)fflush(stdout);
    json_decref(line);
}

static json_t *words_of(struct slice slice)
{
    return json_stringn(slice.at ? slice.at : "", slice.len);
}

static json_t *outcome_of(const struct outcome *outcome)
{
    return json_pack("{s:s, s:i, s:s?, s:o, s:o, s:b, s:s, s:o, s:I, s:b}", "err", err_text(outcome->err), "status",
                     (int)outcome->status, "code", outcome->code, "detail", words_of(outcome->detail), "pointer",
                     words_of(outcome->pointer), "may_be_done", outcome->may_be_done, "sentence", outcome->sentence,
                     "body", words_of(outcome->body), "version", (json_int_t)outcome->config_version, "is_replay",
                     outcome->is_replay);
}

static void on_outcome(void *arg, const struct outcome *outcome)
{
    put(arg, outcome_of(outcome));
}

static void on_page(void *arg, const struct page *page)
{
    json_t *line = outcome_of(&page->outcome);

    json_object_set_new(line, "next", words_of(page->next));
    put(arg, line);
}

static void on_token(void *arg, const struct token *token)
{
    put(arg, json_pack("{s:s, s:o, s:o, s:o}", "err", err_text(token->err), "token", words_of(token->id), "name",
                       words_of(token->name), "role", words_of(token->role)));
}

static struct slice get(const json_t *line, const char *name)
{
    const json_t *value = json_object_get(line, name);

    return (struct slice){ json_string_value(value), json_string_length(value) };
}

static enum err change(const json_t *line, struct asked *one, struct inquiry **ret_inquiry)
{
    const json_t *given = json_object_get(line, "who");
    struct slice hex = get(given, "request_hash");
    struct digest hash;
    struct who who = {
        .token_id = get(given, "token_id"),
        .actor = get(given, "actor"),
        .address = get(given, "address"),
        .request_id = get(given, "request_id"),
        .idempotency_key = get(given, "idempotency_key"),
        .epoch = json_integer_value(json_object_get(given, "epoch")),
    };

    if (hex.len && digest_parse_hex(hex, &hash))
        who.request_hash = &hash;
    return ledger_change(store, &who, get(line, "action").at, get(line, "object"),
                         (uint32_t)json_integer_value(json_object_get(line, "version")), get(line, "body"), on_outcome,
                         one, ret_inquiry);
}

static void make(const char *what, struct asked *one)
{
    char memory[128], hex[DIGEST_HEX + 1];
    struct text secret = text_over(memory, sizeof memory), hash = text_over(hex, sizeof hex);
    struct new_secret made;

    if (strcmp(what, "key") == 0)
        account_make_key(&secret, &made);
    else if (strcmp(what, "token") == 0)
        account_make_token(&secret, &made);
    else
        account_make_enrol(&secret, &made);
    digest_add_hex(&hash, &made.hash);
    put(one, json_pack("{s:s, s:s, s:s}", "secret", text_string(&secret), "prefix", made.public_id, "hash",
                       text_string(&hash)));
}

static enum err act(const char *what, const json_t *line, struct asked *one, struct inquiry **ret_inquiry)
{
    struct digest hash;

    if (strcmp(what, "change") == 0)
        return change(line, one, ret_inquiry);
    if (strcmp(what, "get") == 0)
        return ledger_get(store, get(line, "noun").at, get(line, "object"), on_outcome, one, ret_inquiry);
    if (strcmp(what, "list") == 0)
        return ledger_list(store, get(line, "noun").at, get(line, "filter"), get(line, "after"),
                           (unsigned)json_integer_value(json_object_get(line, "max")), on_page, one, ret_inquiry);
    if (strcmp(what, "token") == 0 && digest_parse_hex(get(line, "hash"), &hash))
        return ledger_token(store, &hash, on_token, one, ret_inquiry);
    if (strcmp(what, "make") == 0) {
        make(get(line, "what").at, one);
        return ERR_OK;
    }
    fprintf(stderr, "nobody can %s\n", what);
    exit(2);
}

static void obey(const char *words, size_t len)
{
    json_t *line = json_loadb(words, len, JSON_ALLOW_NUL, NULL);
    struct asked *one = calloc(1, sizeof *one);
    struct inquiry *inquiry = NULL;
    enum err err;

    if (!line || !one) {
        fprintf(stderr, "not JSON: %.*s\n", (int)len, words);
        exit(2);
    }
    (void)snprintf(one->id, sizeof one->id, "%s", get(line, "id").at);
    one->next = all;
    all = one;
    err = act(get(line, "do").at, line, one, &inquiry);
    if (err != ERR_OK)
        put(one, json_pack("{s:s, s:b}", "err", err_text(err), "at_once", true));
    else if (json_is_true(json_object_get(line, "forget"))) {
        one->is_forgotten = true;
        inquiry_forget(inquiry);
    }
    json_decref(line);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    static char bytes[LINE_MAX_BYTES];
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

int main(int argc, char **argv)
{
    struct store_options options = {
        .role = argc > 2 ? argv[2] : "",
        .program = "ledger-driver",
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
    base = event_base_new();
    text_init(&why, 1000);
    store = store_open(base, &options, &why);
    input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
    if (!store || !input || event_add(input, NULL) != 0)
        return 2;
    (void)event_base_dispatch(base);
    store_close(store);
    while (all) {
        struct asked *one = all;
        all = one->next;
        if (!one->is_answered && !one->is_forgotten) {
            fprintf(stderr, "%s was never answered\n", one->id);
            status = 4;
        }
        free(one);
    }
    event_free(input);
    event_base_free(base);
    text_release(&why);
    return status;
}
