#include "cmd.h"

#include <stdlib.h>

#include "clock.h"

#define API "/admin/v1"

enum { PAGE = 1000, TABLE_ROWS = 1000, WHY_BYTES = 1 << 16, PATH_BYTES = 1 << 16, ASK_MS = 10000, SHOWN_NAMES = 5 };

static enum ending ending_of(enum err err)
{
    return err == ERR_OK ? END_DONE : err == ERR_GONE ? END_UNREACHABLE : END_REFUSED;
}

static void on_tick(void *arg)
{
    struct progress *progress = arg;

    progress_at(progress, progress->done);
}

enum ending cmd_ask(struct session *session, const struct ask *ask, struct answer *ret_answer)
{
    struct progress progress;
    struct text why;
    enum err err;

    text_init(&why, WHY_BYTES);
    progress_begin(&progress, &session->output, session->waits_for ? session->waits_for : "waiting for the server", 0);
    remote_wait_with(session->remote, &(struct remote_waiting){ .fd = -1, .on_tick = on_tick, .arg = &progress });
    err = remote_ask(session->remote, ask, ret_answer, &why);
    progress_end(&progress);
    if (err != ERR_OK) {
        complain("%s", why.len ? text_string(&why) : err_text(err));
        answer_release(ret_answer);
    }
    text_release(&why);
    return ending_of(err);
}

void cmd_add_path(const struct noun *noun, const char *id, const char *more, struct text *out)
{
    text_add_string(out, noun->path);
    if (id) {
        text_add_char(out, '/');
        remote_add_escaped(out, slice_of(id));
    }
    text_add_string(out, more);
}

static enum ending no_memory(void)
{
    complain("%s", err_text(ERR_NO_MEMORY));
    return END_REFUSED;
}

void cmd_add_name(const struct noun *noun, const json_t *object, struct text *out)
{
    const char *user = strcmp(noun->name, "key") == 0 ? json_string_value(json_object_get(object, "user")) : NULL;
    const char *name = json_string_value(json_object_get(object, noun->name_field));

    text_printf(out, "%s%s%s", user ? user : "", user ? "/" : "", name ? name : "?");
}

/* Flags to JSON and to queries ------------------------------------------------------------------------------------- */

static json_t *list_of(const char *value)
{
    json_t *list = json_array();

    while (*value) {
        size_t len = strcspn(value, ",");
        struct slice item = slice_trim((struct slice){ value, len });

        if (item.len)
            (void)json_array_append_new(list, json_stringn(item.at, item.len));
        value += len + (value[len] == ',');
    }
    return list;
}

static void add_rfc3339(int64_t seconds, struct text *out)
{
    clock_add_wall(out, seconds * 1000);
    if (out->len > 5) { /* without the fraction */
        out->len -= 5;
        out->at[out->len] = 0;
        text_add_char(out, 'Z');
    }
}

/* A flag's time as the API takes it. */
static void add_when(const struct given *given, struct text *out)
{
    int64_t ms, seconds;

    if (span_parse(slice_of(given->value), &ms))
        add_rfc3339((clock_wall_ms() + (given->flag->is_past ? -ms : ms)) / 1000, out);
    else if (when_parse(slice_of(given->value), &seconds))
        add_rfc3339(seconds, out);
}

static void set_when(json_t *body, const struct given *given)
{
    int64_t unused;
    struct text time;

    if (span_parse(slice_of(given->value), &unused)) {
        (void)json_object_set_new(body, "expires_in", json_string(given->value));
        return;
    }
    text_init(&time, 64);
    add_when(given, &time);
    (void)json_object_set_new(body, "expires_at", time.len ? json_string(text_string(&time)) : json_null());
    text_release(&time);
}

static void set_list(json_t *body, const struct given *given)
{
    json_t *more = list_of(given->value), *so_far = json_object_get(body, given->flag->field);

    if (json_is_array(so_far)) {
        (void)json_array_extend(so_far, more);
        json_decref(more);
    } else if (json_array_size(more) == 0 && given->flag->is_clearable) {
        json_decref(more);
        (void)json_object_set_new(body, given->flag->field, json_null());
    } else {
        (void)json_object_set_new(body, given->flag->field, more);
    }
}

json_t *cmd_body(const struct session *session)
{
    json_t *body = json_object();

    for (unsigned i = 0; i < session->call.given_count; i++) {
        const struct given *given = &session->call.given[i];
        const struct flag *flag = given->flag;

        if (!flag->field)
            continue;
        if (flag->kind == FLAG_WHEN)
            set_when(body, given);
        else if (flag->kind == FLAG_LIST)
            set_list(body, given);
        else if (flag->kind == FLAG_YES)
            (void)json_object_set_new(body, flag->field, json_boolean(strcmp(given->value, "no") != 0));
        else if (!*given->value && flag->is_clearable)
            (void)json_object_set_new(body, flag->field, json_null());
        else if (flag->kind == FLAG_NUMBER)
            (void)json_object_set_new(body, flag->field, json_integer(strtoll(given->value, NULL, 10)));
        else
            (void)json_object_set_new(body, flag->field, json_string(given->value));
    }
    return body;
}

static void add_query(const struct session *session, struct text *out)
{
    for (unsigned i = 0; i < session->call.given_count; i++) {
        const struct given *given = &session->call.given[i];
        struct text value;

        if (!given->flag->field)
            continue;
        text_init(&value, PATH_BYTES);
        if (given->flag->kind == FLAG_YES)
            text_add_string(&value, strcmp(given->value, "no") == 0 ? "false" : "true");
        else if (given->flag->kind == FLAG_WHEN)
            add_when(given, &value);
        else
            text_add_string(&value, given->value);
        text_printf(out, "&%s=", given->flag->field);
        remote_add_escaped(out, text_slice(&value));
        text_release(&value);
    }
}

/* Listing and showing ---------------------------------------------------------------------------------------------- */

struct paging {
    uint64_t left, shown;
    bool has_more;
    char *cursor; /* NULL: the first page */
};

static enum ending show_page(struct session *session, const struct noun *noun, struct listing *listing,
                             struct paging *paging)
{
    struct text path;
    struct ask ask = { .method = "GET" };
    struct answer answer;
    const json_t *rows;
    enum ending ending;

    text_init(&path, PATH_BYTES);
    text_printf(&path, "%s?limit=%u", noun->path, (unsigned)(paging->left < PAGE ? paging->left : PAGE));
    add_query(session, &path);
    if (paging->cursor) {
        text_add_literal(&path, "&cursor=");
        remote_add_escaped(&path, slice_of(paging->cursor));
    }
    ask.path = text_string(&path);
    ending = cmd_ask(session, &ask, &answer);
    text_release(&path);
    if (ending != END_DONE)
        return ending;
    rows = json_object_get(answer.body, "data");
    for (size_t i = 0; i < json_array_size(rows) && ending == END_DONE && paging->left; i++) {
        json_t *row = json_array_get(rows, i);

        if (noun->prepare && session->output.format == OUTPUT_TABLE)
            noun->prepare(row);
        if (listing_add(listing, row) != ERR_OK)
            ending = END_REFUSED;
        paging->left--;
        paging->shown++;
    }
    free(paging->cursor);
    paging->cursor = NULL;
    if (json_is_string(json_object_get(answer.body, "next_cursor")))
        paging->cursor = strdup(json_string_value(json_object_get(answer.body, "next_cursor")));
    if (!json_is_array(rows)) {
        complain("the server's list has no data: is it of another version?");
        ending = END_UNREACHABLE;
    }
    answer_release(&answer);
    return ending;
}

enum ending cmd_list(struct session *session, const struct noun *noun)
{
    bool is_table = session->output.format == OUTPUT_TABLE;
    uint64_t limit = (uint64_t)call_number(&session->call, "limit", is_table ? TABLE_ROWS : 0);
    struct paging paging = { .left = limit ? limit : UINT64_MAX };
    struct listing *listing = listing_begin(&session->output, noun->columns, noun->count);
    struct progress progress;
    enum ending ending;
    char what[64];

    if (!listing)
        return no_memory();
    (void)snprintf(what, sizeof what, "reading: %ss", noun->name);
    progress_begin(&progress, &session->output, what, 0);
    do {
        ending = show_page(session, noun, listing, &paging);
        if (is_table || !session->output.is_terminal)
            progress_at(&progress, paging.shown);
    } while (ending == END_DONE && paging.cursor && paging.left);
    progress_end(&progress);
    if (ending != END_DONE && !is_table && paging.shown)
        complain("what was printed is not all of it");
    if (listing_end(listing) != ERR_OK)
        ending = END_REFUSED;
    if (ending == END_DONE && is_table && !paging.shown)
        tell(&session->output, "there is none");
    if (ending == END_DONE && paging.cursor)
        tell(&session->output, "there are more: --limit 0 shows all");
    free(paging.cursor);
    return ending;
}

enum ending cmd_show(struct session *session, const struct noun *noun)
{
    struct text path;
    struct answer answer;
    enum ending ending;

    text_init(&path, PATH_BYTES);
    cmd_add_path(noun, session->call.argument, "", &path);
    ending = cmd_ask(session, &(struct ask){ .method = "GET", .path = text_string(&path) }, &answer);
    text_release(&path);
    if (ending != END_DONE)
        return ending;
    if (output_object(&session->output, noun->columns, noun->count, answer.body) != ERR_OK)
        ending = END_REFUSED;
    answer_release(&answer);
    return ending;
}

/* Confirmation ----------------------------------------------------------------------------------------------------- */

/* Somebody who is heard of and has not come that far yet: worth waiting for. */
static bool is_worth_waiting(const json_t *confirmations)
{
    size_t i;
    json_t *each;

    json_array_foreach(json_object_get(confirmations, "pending"), i, each)
    {
        const char *reason = json_string_value(json_object_get(each, "reason"));

        if (!reason || strcmp(reason, "silent") != 0)
            return true;
    }
    return false;
}

static void tell_pending(const json_t *confirmations)
{
    size_t i;
    json_t *each;

    json_array_foreach(json_object_get(confirmations, "pending"), i, each)
    {
        const char *name = json_string_value(json_object_get(each, "name"));
        const char *reason = json_string_value(json_object_get(each, "reason"));
        const char *seen = json_string_value(json_object_get(each, "last_seen"));
        const char *until = json_string_value(json_object_get(each, "may_accept_until"));
        struct text words;

        text_init(&words, WHY_BYTES);
        text_printf(&words, "%s has not confirmed it", name ? name : "a gateway");
        if (reason && strcmp(reason, "silent") == 0 && seen) {
            text_add_literal(&words, ", last heard ");
            text_add_string(&words, seen);
        } else if (reason && strcmp(reason, "silent") == 0) {
            text_add_literal(&words, " and was never heard of");
        } else if (reason && strcmp(reason, "behind") != 0) {
            text_printf(&words, " (%s)", reason);
        }
        if (until) {
            text_add_literal(&words, ": may accept until ");
            text_add_string(&words, until);
        } else {
            text_add_literal(&words, ": may accept until it is heard of again, as it has no max_staleness");
        }
        complain("%s", text_string(&words));
        text_release(&words);
    }
}

static int by_name(const void *one, const void *other)
{
    return strcmp(*(const char *const *)one, *(const char *const *)other);
}

static void tell_confirmed(const struct session *session, const json_t *confirmations, const char *done,
                           int64_t took_ms)
{
    const json_t *confirmed = json_object_get(confirmations, "confirmed");
    size_t count = json_array_size(confirmed), i;
    const char **names = calloc(count + 1, sizeof *names);
    struct text words;
    json_t *each;

    if (!count || !names) {
        free(names);
        tell(&session->output, "%s%s", done, count ? "" : "; no gateway is live");
        return;
    }
    json_array_foreach(confirmed, i, each)
    {
        const char *name = json_string_value(json_object_get(each, "name"));

        names[i] = name ? name : "?";
    }
    qsort(names, count, sizeof *names, by_name);
    text_init(&words, WHY_BYTES);
    for (i = 0; i < count && i < SHOWN_NAMES; i++)
        text_printf(&words, "%s%s", i ? ", " : "", names[i]);
    if (count > SHOWN_NAMES)
        text_printf(&words, " and %zu more", count - SHOWN_NAMES);
    tell(&session->output, "%s; confirmed by %zu gateway%s after %lld ms: %s", done, count, count == 1 ? "" : "s",
         (long long)took_ms, text_string(&words));
    text_release(&words);
    free(names);
}

/* The state of a version, asked until those who are heard of have it. NULL: it cannot be asked. */
static json_t *ask_confirmations(struct session *session, uint64_t version, int64_t end_ms)
{
    for (;;) {
        int64_t left_ms = end_ms - clock_ms();
        int64_t wait_ms = left_ms <= 0 ? 0 : left_ms >= ASK_MS ? ASK_MS : left_ms;
        struct text path;
        struct answer answer;
        enum ending ending;

        text_init(&path, PATH_BYTES);
        text_printf(&path, API "/confirmations/%llu?wait=%lldms", (unsigned long long)version, (long long)wait_ms);
        ending = cmd_ask(session, &(struct ask){ .method = "GET", .path = text_string(&path), .more_time_ms = wait_ms },
                         &answer);
        text_release(&path);
        if (ending != END_DONE)
            return NULL;
        if (!is_worth_waiting(answer.body) || clock_ms() >= end_ms)
            return answer.body;
        answer_release(&answer);
    }
}

enum ending cmd_confirm(struct session *session, struct answer *answer, int64_t begun_ms, const char *done)
{
    int64_t wait_ms = call_takes(&session->call, "wait") ? call_span_ms(&session->call, "wait") : 0, took_ms;
    json_t *confirmations;
    bool is_complete;

    if (wait_ms <= 0 || !answer->config_version) {
        tell(&session->output, "%s", done);
        return END_DONE;
    }
    session->waits_for = "waiting for the gateways";
    confirmations = ask_confirmations(session, answer->config_version, clock_ms() + wait_ms);
    session->waits_for = NULL;
    took_ms = clock_ms() - begun_ms;
    if (!confirmations) {
        complain("%s, but whether the gateways know it could not be asked", done);
        return END_UNCONFIRMED;
    }
    is_complete = json_array_size(json_object_get(confirmations, "pending")) == 0;
    tell_confirmed(session, confirmations, done, took_ms);
    tell_pending(confirmations);
    (void)json_object_set_new(confirmations, "took_ms", json_integer(took_ms));
    (void)json_object_set(answer->body, "confirmations", confirmations);
    json_decref(confirmations);
    return is_complete ? END_DONE : END_UNCONFIRMED;
}

static enum ending print(struct session *session, const struct noun *noun, const struct answer *answer)
{
    if (session->output.format == OUTPUT_TABLE || !answer->body)
        return END_DONE; /* the sentence is enough */
    return output_object(&session->output, noun->columns, noun->count, answer->body) == ERR_OK ? END_DONE : END_REFUSED;
}

enum ending cmd_finish(struct session *session, const struct noun *noun, struct answer *answer, int64_t begun_ms,
                       const char *done)
{
    enum ending ending, printed;

    if (!answer->body) /* of what is gone: its name is left */
        answer->body = json_pack("{s:s}", noun->name_field, session->call.argument);
    ending = cmd_confirm(session, answer, begun_ms, done);
    printed = print(session, noun, answer);

    return printed != END_DONE ? printed : ending;
}

/* Making, changing, taking away ------------------------------------------------------------------------------------ */

/* The version that everybody must have for something that is done already. 0: nobody knows. */
static uint64_t version_now(struct session *session)
{
    struct answer answer;
    json_int_t version = 0;

    if (cmd_ask(session, &(struct ask){ .method = "GET", .path = API "/status" }, &answer) == END_DONE) {
        version = json_integer_value(json_object_get(answer.body, "config_version"));
        answer_release(&answer);
    }
    return version > 0 ? (uint64_t)version : 0;
}

enum ending cmd_take_away(struct session *session, const struct ask *ask, struct answer *ret_answer)
{
    struct progress progress;
    struct text why;
    enum err err;

    text_init(&why, WHY_BYTES);
    progress_begin(&progress, &session->output, session->waits_for ? session->waits_for : "waiting for the server", 0);
    remote_wait_with(session->remote, &(struct remote_waiting){ .fd = -1, .on_tick = on_tick, .arg = &progress });
    err = remote_ask(session->remote, ask, ret_answer, &why);
    progress_end(&progress);
    if (err == ERR_REFUSED && ret_answer->was_sent_again && (ret_answer->status == 404 || ret_answer->status == 410)) {
        answer_release(ret_answer); /* it was we ourselves, when no answer came */
        *ret_answer = (struct answer){ .config_version = version_now(session) };
        err = ERR_OK;
    } else if (err != ERR_OK) {
        complain("%s", why.len ? text_string(&why) : err_text(err));
        answer_release(ret_answer);
    }
    text_release(&why);
    return ending_of(err);
}

static enum ending send(struct session *session, const struct noun *noun, const char *method, const char *id,
                        json_t *body, const char *done)
{
    char version[32] = "*";
    char *dumped = body ? json_dumps(body, JSON_COMPACT) : NULL;
    int64_t begun_ms = clock_ms(), wanted = 0;
    struct text path, words;
    struct answer answer;
    struct ask ask = { .method = method, .body = slice_of(dumped), .is_keyed = true };
    enum ending ending;

    if (body && !dumped)
        return no_memory();
    if (id) {
        wanted = call_takes(&session->call, "if-version") ? call_number(&session->call, "if-version", 0) : 0;
        if (wanted)
            (void)snprintf(version, sizeof version, "\"%lld\"", (long long)wanted);
        ask.if_match = version;
    }
    text_init(&path, PATH_BYTES);
    text_init(&words, WHY_BYTES);
    cmd_add_path(noun, id, "", &path);
    ask.path = text_string(&path);
    ending = strcmp(method, "DELETE") == 0 ? cmd_take_away(session, &ask, &answer) : cmd_ask(session, &ask, &answer);
    if (ending == END_DONE) {
        text_printf(&words, "%s ", noun->name);
        if (answer.body && json_object_get(answer.body, noun->name_field))
            cmd_add_name(noun, answer.body, &words);
        else
            text_add_string(&words, session->call.argument ? session->call.argument : "");
        text_printf(&words, " %s", done);
        ending = cmd_finish(session, noun, &answer, begun_ms, text_string(&words));
        answer_release(&answer);
    }
    text_release(&path);
    text_release(&words);
    free(dumped);
    return ending;
}

enum ending cmd_create(struct session *session, const struct noun *noun, json_t *body)
{
    enum ending ending;

    body = body ? body : cmd_body(session);
    if (session->call.argument && !json_object_get(body, noun->name_field))
        (void)json_object_set_new(body, noun->name_field, json_string(session->call.argument));
    ending = send(session, noun, "POST", NULL, body, noun->made ? noun->made : "was made");
    json_decref(body);
    return ending;
}

enum ending cmd_update(struct session *session, const struct noun *noun, json_t *body)
{
    enum ending ending = END_USAGE;
    const char *done = "was changed";

    body = body ? body : cmd_body(session);
    if (json_object_get(body, "disabled"))
        done = json_is_true(json_object_get(body, "disabled")) ? "is disabled" : "is enabled";
    if (json_object_size(body) == 0)
        complain("what is to change? --help names what can");
    else
        ending = send(session, noun, "PATCH", session->call.argument, body, done);
    json_decref(body);
    return ending;
}

bool cmd_is_sure(const struct session *session, const char *question, enum ending *ret_ending)
{
    if (call_says_yes(&session->call, "yes"))
        return true;
    if (!can_ask()) {
        complain("this cannot be undone, and nobody can be asked here: give --yes if it is meant");
        *ret_ending = END_USAGE;
        return false;
    }
    if (person_says_yes(question))
        return true;
    tell(&session->output, "nothing was done");
    *ret_ending = END_REFUSED;
    return false;
}

bool cmd_is_sure_of(const struct session *session, const struct noun *noun, enum ending *ret_ending)
{
    struct text question;
    bool is_sure;

    text_init(&question, WHY_BYTES);
    text_printf(&question, "%s %s %s for good?", commands[session->call.id].verb, noun->name, session->call.argument);
    if (question.len && question.at[0] >= 'a' && question.at[0] <= 'z')
        question.at[0] = (char)(question.at[0] - 'a' + 'A');
    is_sure = cmd_is_sure(session, text_string(&question), ret_ending);
    text_release(&question);
    return is_sure;
}

enum ending cmd_delete_now(struct session *session, const struct noun *noun, const char *done)
{
    return send(session, noun, "DELETE", session->call.argument, NULL, done);
}

enum ending cmd_delete(struct session *session, const struct noun *noun, const char *done)
{
    enum ending ending = END_REFUSED;

    return cmd_is_sure_of(session, noun, &ending) ? cmd_delete_now(session, noun, done) : ending;
}

/* Secrets ---------------------------------------------------------------------------------------------------------- */

static enum ending print_with_secret(struct session *session, const struct noun *noun, const struct answer *answer)
{
    struct column *columns = calloc(noun->count + 1, sizeof *columns);
    enum err err;

    if (!columns)
        return no_memory();
    memcpy(columns, noun->columns, noun->count * sizeof *columns);
    columns[noun->count] = (struct column){ .field = "secret" };
    err = output_object(&session->output, columns, noun->count + 1, answer->body);
    free(columns);
    return err == ERR_OK ? END_DONE : END_REFUSED;
}

enum ending cmd_print_secret(struct session *session, const struct noun *noun, const struct answer *answer,
                             const char *words)
{
    const char *secret = json_string_value(json_object_get(answer->body, "secret"));
    struct text line;
    enum ending ending;

    if (!secret) {
        struct text name;

        text_init(&name, WHY_BYTES);
        cmd_add_name(noun, answer->body, &name);
        complain("%s %s was made, but the answer with its secret was lost on the way, and it is told only once: %s",
                 noun->name, text_string(&name),
                 strcmp(noun->name, "key") == 0       ? "`qwadm key rotate` gives it a new one"
                 : strcmp(noun->name, "gateway") == 0 ? "enroll it again"
                                                      : "revoke it and make another");
        text_release(&name);
        return END_REFUSED;
    }
    if (session->output.format != OUTPUT_TABLE)
        return print_with_secret(session, noun, answer);
    tell(&session->output, "%s", words);
    text_init(&line, WHY_BYTES);
    safe_add(&line, slice_of(secret), false);
    text_add_char(&line, '\n');
    ending = output_write(&session->output, text_slice(&line)) == ERR_OK ? END_DONE : END_REFUSED;
    text_release_wiped(&line);
    return ending;
}
