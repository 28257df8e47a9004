/* Gateways: where callers come in. They join with a secret that is good once. */
#include <poll.h>
#include <stdlib.h>

#include "clock.h"
#include "cmd.h"

enum { WORDS_BYTES = 1 << 16, POLL_MS = 500, SHOWN_NAMES = 5 };

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },
    { NULL, "id", CELL_TEXT, 0, NULL },
    { "ENROLLED", "enrolled", CELL_YES, 2, NULL },
    { "APPLIED", "applied_version", CELL_NUMBER, 1, NULL },
    { "DESIRED", "desired_version", CELL_NUMBER, 3, NULL },
    { "LAST SEEN", "last_seen", CELL_TIME, 4, "never" },
    { "SOFTWARE", "software", CELL_TEXT, 6, NULL },
    { "ADDRESS", "address", CELL_TEXT, 5, NULL },
    { NULL, "resyncing", CELL_YES, 0, NULL },
    { "ERROR", "apply_error", CELL_TEXT, 7, NULL },
    { "NOTE", "note", CELL_TEXT, 8, NULL },
    { NULL, "enroll_expires_at", CELL_TIME, 0, NULL },
    { NULL, "features", CELL_TEXT, 0, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },
    { NULL, "created_at", CELL_TIME, 0, NULL },
    { NULL, "removed_at", CELL_TIME, 0, NULL },
};
static const struct noun gateway = NOUN("gateway", "/admin/v1/gateways", "name", columns);

enum ending gateway_enroll(struct session *session)
{
    json_t *body = cmd_body(session);
    char *dumped;
    struct text words;
    struct answer answer;
    const char *expires;
    enum ending ending;

    (void)json_object_set_new(body, "name", json_string(session->call.argument));
    dumped = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    ending = cmd_ask(
        session, &(struct ask){ .method = "POST", .path = gateway.path, .body = slice_of(dumped), .is_keyed = true },
        &answer);
    free(dumped);
    if (ending != END_DONE)
        return ending;
    expires = json_string_value(json_object_get(answer.body, "enroll_expires_at"));
    text_init(&words, 1 << 12);
    text_printf(&words, "gateway %s may join once with this secret%s%s:", session->call.argument,
                expires ? ", until " : "", expires ? expires : "");
    ending = cmd_print_secret(session, &gateway, &answer, text_string(&words));
    text_release(&words);
    answer_release(&answer);
    return ending;
}

enum ending gateway_list(struct session *session)
{
    return cmd_list(session, &gateway);
}

enum ending gateway_show(struct session *session)
{
    return cmd_show(session, &gateway);
}

/* resync ----------------------------------------------------------------------------------------------------------- */

/* One order to take everything anew. */
struct resync {
    struct session *session;
    json_t *names; /* of those who are told to */
    json_t *done;  /* names */
    json_t *left;  /* who has not done it yet, as the API shows them */
};

/* Is it one of those, and not removed in the meantime? */
static void look_at(struct resync *resync, json_t *shown)
{
    const char *name = json_string_value(json_object_get(shown, "name"));
    size_t i;
    json_t *each;

    json_array_foreach(resync->names, i, each)
    {
        if (!name || strcmp(json_string_value(each), name) != 0)
            continue;
        if (json_is_true(json_object_get(shown, "resyncing")))
            (void)json_array_append(resync->left, shown);
        else
            (void)json_array_append(resync->done, each);
        return;
    }
}

/* Who has done it by now. */
static enum ending look(struct resync *resync)
{
    enum ending ending = END_DONE;
    json_t *cursor = NULL;
    size_t i;
    json_t *each;

    (void)json_array_clear(resync->done);
    (void)json_array_clear(resync->left);
    do {
        struct text path;
        struct answer answer;

        text_init(&path, WORDS_BYTES);
        text_printf(&path, "%s?limit=1000", gateway.path);
        if (cursor) {
            text_add_literal(&path, "&cursor=");
            remote_add_escaped(&path, slice_of(json_string_value(cursor)));
        }
        json_decref(cursor);
        cursor = NULL;
        ending = cmd_ask(resync->session, &(struct ask){ .method = "GET", .path = text_string(&path) }, &answer);
        text_release(&path);
        if (ending != END_DONE)
            break;
        json_array_foreach(json_object_get(answer.body, "data"), i, each)
        {
            look_at(resync, each);
        }
        cursor = json_incref(json_object_get(answer.body, "next_cursor"));
        answer_release(&answer);
    } while (json_is_string(cursor));
    json_decref(cursor);
    return ending;
}

static void tell_done(const struct resync *resync, int64_t took_ms)
{
    size_t count = json_array_size(resync->done), i;
    struct text words;
    json_t *each;

    if (!count)
        return;
    text_init(&words, WORDS_BYTES);
    json_array_foreach(resync->done, i, each)
    {
        if (i < SHOWN_NAMES)
            text_printf(&words, "%s%s", i ? ", " : "", json_string_value(each));
    }
    if (count > SHOWN_NAMES)
        text_printf(&words, " and %zu more", count - SHOWN_NAMES);
    tell(&resync->session->output, "%zu gateway%s taken everything anew after %lld ms: %s", count,
         count == 1 ? " has" : "s have", (long long)took_ms, text_string(&words));
    text_release(&words);
}

static void tell_left(const struct resync *resync)
{
    size_t i;
    json_t *each;

    json_array_foreach(resync->left, i, each)
    {
        const char *seen = json_string_value(json_object_get(each, "last_seen"));
        const char *error = json_string_value(json_object_get(each, "apply_error"));

        complain("%s has not taken everything anew yet%s%s%s%s%s", json_string_value(json_object_get(each, "name")),
                 seen ? ", last heard " : "", seen ? seen : "", error ? " (" : "", error ? error : "",
                 error ? ")" : "");
    }
}

/* What scripts get. */
static enum ending print_resync(const struct resync *resync, int64_t took_ms)
{
    static const struct column fields[] = {
        { NULL, "done", CELL_TEXT, 0, NULL },
        { NULL, "pending", CELL_TEXT, 0, NULL },
        { NULL, "took_ms", CELL_NUMBER, 0, NULL },
    };
    json_t *shown = json_pack("{s:O, s:[], s:I}", "done", resync->done, "pending", "took_ms", (json_int_t)took_ms);
    enum ending ending = END_DONE;
    size_t i;
    json_t *each;

    if (resync->session->output.format != OUTPUT_TABLE) {
        json_array_foreach(resync->left, i, each)
        {
            (void)json_array_append(json_object_get(shown, "pending"), json_object_get(each, "name"));
        }
        if (output_object(&resync->session->output, fields, sizeof fields / sizeof *fields, shown) != ERR_OK)
            ending = END_REFUSED;
    }
    json_decref(shown);
    return ending;
}

static enum ending wait_for_resync(struct resync *resync)
{
    int64_t begun_ms = clock_ms(), end_ms = begun_ms + call_span_ms(&resync->session->call, "wait"), took_ms;
    enum ending ending, printed;

    resync->session->waits_for = "waiting for the gateways";
    while ((ending = look(resync)) == END_DONE && json_array_size(resync->left) && clock_ms() < end_ms)
        (void)poll(NULL, 0, POLL_MS);
    resync->session->waits_for = NULL;
    took_ms = clock_ms() - begun_ms;
    if (ending != END_DONE) {
        complain("they are told to take everything anew, but whether they have done it could not be asked");
        return END_UNCONFIRMED;
    }
    tell_done(resync, took_ms);
    tell_left(resync);
    printed = print_resync(resync, took_ms);
    return printed != END_DONE ? printed : json_array_size(resync->left) ? END_UNCONFIRMED : END_DONE;
}

/* The names of those who were told to; of one, when it holds something. */
static json_t *told(const struct answer *answer)
{
    json_t *names = json_object_get(answer->body, "gateways"), *name = json_object_get(answer->body, "name");

    if (json_is_array(names))
        return json_incref(names);
    return json_is_true(json_object_get(answer->body, "enrolled")) && json_is_string(name) ? json_pack("[O]", name)
                                                                                           : json_array();
}

enum ending gateway_resync(struct session *session)
{
    struct resync resync = { .session = session, .done = json_array(), .left = json_array() };
    struct text path;
    struct answer answer;
    enum ending ending;

    text_init(&path, WORDS_BYTES);
    cmd_add_path(&gateway, session->call.argument, "/resync", &path);
    ending =
        cmd_ask(session, &(struct ask){ .method = "POST", .path = text_string(&path), .body = SLICE("{}") }, &answer);
    text_release(&path);
    if (ending == END_DONE) {
        resync.names = told(&answer);
        answer_release(&answer);
        if (!json_array_size(resync.names))
            tell(&session->output, "%s",
                 session->call.argument ? "it has not enrolled yet, and holds nothing" : "no gateway has enrolled yet");
        else if (call_span_ms(&session->call, "wait") <= 0)
            tell(&session->output, "%zu gateway%s told to take everything anew", json_array_size(resync.names),
                 json_array_size(resync.names) == 1 ? " is" : "s are");
        else
            ending = wait_for_resync(&resync);
    }
    json_decref(resync.names);
    json_decref(resync.done);
    json_decref(resync.left);
    return ending;
}

/* remove ----------------------------------------------------------------------------------------------------------- */

/* A version that nobody has: who is asked for is among those that have not confirmed it. */
#define NO_VERSION "999999999999999999"

/* What the leader knows of it, as the confirmations say it; NULL: nothing, or it could not be asked. */
static enum ending ask_about(struct session *session, const char *name, json_t **ret_about)
{
    struct answer answer;
    size_t i;
    json_t *each;
    enum ending ending = cmd_ask(
        session, &(struct ask){ .method = "GET", .path = "/admin/v1/confirmations/" NO_VERSION "?wait=0s" }, &answer);

    *ret_about = NULL;
    if (ending != END_DONE)
        return ending;
    json_array_foreach(json_object_get(answer.body, "pending"), i, each)
    {
        const char *of = json_string_value(json_object_get(each, "name"));

        if (of && strcmp(of, name) == 0)
            *ret_about = json_incref(each);
    }
    answer_release(&answer);
    return END_DONE;
}

/* A gateway goes by its name there, and people may have said its id. */
static enum ending ask_name(struct session *session, json_t **ret_name)
{
    struct text path;
    struct answer answer;
    enum ending ending;

    text_init(&path, WORDS_BYTES);
    cmd_add_path(&gateway, session->call.argument, "", &path);
    ending = cmd_ask(session, &(struct ask){ .method = "GET", .path = text_string(&path) }, &answer);
    text_release(&path);
    if (ending != END_DONE)
        return ending;
    *ret_name = json_incref(json_object_get(answer.body, "name"));
    answer_release(&answer);
    return END_DONE;
}

/* Whoever is connected is told, and whoever is not when he comes. Whether it arrives nobody says, so both are told how
 * long it may go on without. */
static enum ending tell_rest(const struct session *session, const char *name, const json_t *about)
{
    const char *reason = json_string_value(json_object_get(about, "reason"));
    const char *until = json_string_value(json_object_get(about, "may_accept_until"));
    const char *seen = json_string_value(json_object_get(about, "last_seen"));
    bool is_silent = reason && strcmp(reason, "silent") == 0;

    if (!is_silent) {
        tell(&session->output,
             "%s is connected, and is told to refuse callers; if that does not reach it, it may accept "
             "until %s",
             name, until ? until : "it comes back, as it has no max_staleness");
        return END_DONE;
    }
    complain("%s is not connected, %s%s: may accept until %s", name, seen ? "last heard " : "never heard",
             seen ? seen : "", until ? until : "it comes back, as it has no max_staleness");
    return END_UNCONFIRMED;
}

enum ending gateway_remove(struct session *session)
{
    json_t *name = NULL, *about = NULL;
    enum ending ending, rest = END_DONE;

    if (!cmd_is_sure_of(session, &gateway, &ending))
        return ending;
    if ((ending = ask_name(session, &name)) == END_DONE &&
        (ending = ask_about(session, json_string_value(name), &about)) == END_DONE &&
        (ending = cmd_delete_now(session, &gateway, "was removed")) == END_DONE && about)
        rest = tell_rest(session, json_string_value(name), about);
    json_decref(name);
    json_decref(about);
    return ending != END_DONE ? ending : rest;
}
