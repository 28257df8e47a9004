/*
 * The story of one request:
 *
 *     head ─► route ─► token ─► role ─► If-Match, Idempotency-Key ─► query ─► body ─► handler ─► ledger ─► answer, log
 * line
 *
 * Each step goes on to the next or refuses. An exchange lives from exchange_begin() to its answer; while it waits for
 * the ledger its guest may leave, and then the answer goes nowhere.
 */
#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "digest.h"
#include "log.h"
#include "parts.h"
#include "store.h"

enum {
    ID_LETTERS = 24,
    PATH_MAX_BYTES = 16 << 10,
    NAME_MAX_BYTES = 128,
    LOGGED_PATH_BYTES = 200,
    DETAIL_MAX_BYTES = 4096,
    VERSION_DIGITS = 9,
    GUEST_LEFT = 499,
};

/* ---- its life ---- */

static void exchange_free(struct exchange *exchange)
{
    struct api *api = exchange->api;

    *exchange->back = exchange->next;
    if (exchange->next)
        exchange->next->back = exchange->back;
    api->exchange_count--;
    if (exchange->inquiry)
        inquiry_forget(exchange->inquiry);
    fleet_forget_wait(exchange);
    json_decref(exchange->body);
    json_decref(exchange->secrets);
    query_release(&exchange->query);
    text_release(&exchange->path);
    text_release(&exchange->param);
    text_release(&exchange->token_id);
    text_release(&exchange->actor);
    text_release(&exchange->idempotency_key);
    text_release_wiped(&exchange->secret);
    free(exchange);
}

static struct exchange *exchange_new(struct api *api, struct guest *guest, struct evhttp_request *http)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);

    if (!exchange)
        return NULL;
    exchange->api = api;
    exchange->guest = guest;
    exchange->http = http;
    exchange->since_us = clock_us();
    text_init(&exchange->path, PATH_MAX_BYTES);
    text_init(&exchange->param, PATH_MAX_BYTES);
    text_init(&exchange->token_id, NAME_MAX_BYTES);
    text_init(&exchange->actor, NAME_MAX_BYTES);
    text_init(&exchange->idempotency_key, PATH_MAX_BYTES);
    text_init(&exchange->secret, NAME_MAX_BYTES);
    query_init(&exchange->query);
    exchange->next = api->exchanges;
    exchange->back = &api->exchanges;
    if (exchange->next)
        exchange->next->back = &exchange->next;
    api->exchanges = exchange;
    api->exchange_count++;
    return exchange;
}

void exchange_lost_guest(struct exchange *exchange, bool is_http_gone)
{
    exchange->guest = NULL;
    if (is_http_gone)
        exchange->http = NULL;
}

void exchanges_close(struct api *api)
{
    while (api->exchanges)
        exchange_free(api->exchanges);
}

/* ---- its end ---- */

/* A path as it came, without what would disturb a line. */
static void add_path(struct text *out, struct slice path)
{
    for (size_t i = 0; i < path.len && i < LOGGED_PATH_BYTES; i++) {
        unsigned char c = (unsigned char)path.at[i];
        text_add_char(out, c > ' ' && c < 0x7f && c != '"' && c != '\\' ? (char)c : '_');
    }
}

/* The same eight fields as a gateway's line, then name=value. */
static void log_exchange(const struct exchange *exchange, const struct reply *reply)
{
    double seconds = (double)(clock_us() - exchange->since_us) / 1e6;
    char memory[LOG_LINE_MAX];
    struct text line = text_over(memory, sizeof memory);
    const char *user = exchange->actor.len ? text_string(&exchange->actor) : NULL;
    bool is_json = log_is_json();

    text_printf(&line, is_json ? "{\"user\":\"%s%s\",\"address\":\"%s\",\"time\":\"" : "%s%s %s ", user ? "" : "!",
                user ? user : exchange->address, exchange->address);
    clock_add_wall(&line, clock_wall_ms());
    text_printf(&line,
                is_json ? "\",\"req\":\"%s\",\"key\":\"%s\",\"method\":\"%s\",\"path\":\"" : " req=%s key=%s %s ",
                exchange->id, user ? user : "-", exchange->method);
    add_path(&line, text_slice(&exchange->path));
    text_printf(&line, is_json ? "\",\"status\":%u" : " %u", reply->status);
    if (reply->version[0])
        text_printf(&line, is_json ? ",\"config_version\":%s" : " config_version=%s", reply->version);
    if (reply->is_replay)
        text_add_string(&line, is_json ? ",\"replay\":1" : " replay=1");
    text_printf(&line, is_json ? ",\"response_time\":%.3f" : " response_time=%.3f", seconds);
    if (exchange->why)
        text_printf(&line, is_json ? ",\"why\":\"%s\"" : " why=%s", exchange->why);
    if (is_json)
        text_add_char(&line, '}');
    (void)log_request_line(text_slice(&line));
}

static bool is_without_body(const char *method);

void exchange_left(struct exchange *exchange)
{
    const struct reply reply = { .status = GUEST_LEFT };

    exchange->why = "client_gone";
    log_exchange(exchange, &reply);
    exchange_free(exchange);
}

void exchange_reply(struct exchange *exchange, struct reply *reply)
{
    log_exchange(exchange, reply);
    reply->closes |= is_without_body(exchange->method);
    if (exchange->http)
        guest_answer(exchange->guest, exchange->http, slice_of(exchange->id), reply);
    exchange->http = NULL;
    exchange_free(exchange);
}

void exchange_show(struct exchange *exchange, struct slice body)
{
    struct reply reply = { .status = 200, .type = "application/json", .body = body };

    exchange_reply(exchange, &reply);
}

static void reply_problem(struct exchange *exchange, const struct problem *problem, struct slice detail,
                          struct slice errors, struct reply *reply)
{
    struct text body;

    text_init(&body, COMPLAINTS_MAX * 8 * COMPLAINT_MAX_BYTES + DETAIL_MAX_BYTES * 8);
    problem_write(problem, detail.len ? detail : slice_of(problem->title), slice_of(exchange->id), errors, &body);
    reply->status = problem->status;
    reply->type = "application/problem+json";
    reply->body = text_slice(&body);
    reply->asks_for_token = problem->status == 401;
    if (problem->status == 503 && !reply->retry_after[0])
        (void)snprintf(reply->retry_after, sizeof reply->retry_after, "1");
    exchange->why = problem->code;
    exchange_reply(exchange, reply);
    text_release(&body);
}

void exchange_refuse_later(struct exchange *exchange, const char *code, int64_t retry_ms, const char *format, ...)
{
    char memory[DETAIL_MAX_BYTES];
    struct text words = text_over(memory, sizeof memory);
    struct reply reply = { 0 };
    va_list args;

    va_start(args, format);
    text_vprintf(&words, format, args);
    va_end(args);
    if (retry_ms)
        (void)snprintf(reply.retry_after, sizeof reply.retry_after, "%lld", (long long)(retry_ms + 999) / 1000);
    reply_problem(exchange, problem_of(code), (struct slice){ words.at, utf8_cut(text_slice(&words), words.len) },
                  SLICE(""), &reply);
}

void exchange_refuse_and_close(struct exchange *exchange, const char *code, const char *sentence)
{
    struct reply reply = { .closes = true };

    reply_problem(exchange, problem_of(code), slice_of(sentence), SLICE(""), &reply);
}

void exchange_refuse_places(struct exchange *exchange, const struct complaints *complaints)
{
    struct reply reply = { 0 };
    char memory[DETAIL_MAX_BYTES];
    struct text words = text_over(memory, sizeof memory);

    text_add_slice(&words, text_slice(&complaints->sentence));
    if (complaints->count > 1)
        text_printf(&words, " (and %u more)", complaints->count - 1);
    reply_problem(exchange, problem_of("bad_value"), text_slice(&words), text_slice(&complaints->list), &reply);
}

void exchange_pass_on(struct exchange *exchange, const struct outcome *outcome)
{
    struct complaints complaints;
    struct reply reply = { 0 };

    complaints_init(&complaints);
    if (outcome->pointer.len) {
        char pointer[POINTER_MAX_BYTES];
        (void)snprintf(pointer, sizeof pointer, "%.*s", (int)outcome->pointer.len, outcome->pointer.at);
        complain(&complaints, pointer, "%.*s", (int)outcome->detail.len, outcome->detail.at);
    }
    if (outcome->sentence && *outcome->sentence)
        log_warn("the admin API could not do what was asked (req=%s): %s", exchange->id, outcome->sentence);
    reply_problem(exchange, problem_of(outcome->code),
                  complaints.count && strcmp(outcome->code, "bad_value") == 0 ? text_slice(&complaints.sentence)
                                                                              : outcome->detail,
                  text_slice(&complaints.list), &reply);
    complaints_release(&complaints);
}

void exchange_fail(struct exchange *exchange, enum err err)
{
    if (err == ERR_REFUSED)
        exchange_refuse(exchange, "not_leader", "this control plane does not lead: %s does",
                        fleet_leader(exchange->api));
    else if (err == ERR_BAD)
        exchange_refuse(exchange, "bad_value", "a text has a zero byte or is no UTF-8");
    else if (err == ERR_NO_MEMORY)
        exchange_refuse(exchange, "internal", "out of memory");
    else
        exchange_refuse(exchange, "database_away", "the database is not asked now: %s", err_text(err));
}

/* ---- what was sent ---- */

const char *exchange_field(const struct exchange *exchange, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(exchange->http), name);
}

static const char *method_of(const struct evhttp_request *http)
{
    switch (evhttp_request_get_command(http)) {
    case EVHTTP_REQ_GET:
        return "GET";
    case EVHTTP_REQ_POST:
        return "POST";
    case EVHTTP_REQ_HEAD:
        return "HEAD";
    case EVHTTP_REQ_PUT:
        return "PUT";
    case EVHTTP_REQ_DELETE:
        return "DELETE";
    case EVHTTP_REQ_OPTIONS:
        return "OPTIONS";
    case EVHTTP_REQ_TRACE:
        return "TRACE";
    case EVHTTP_REQ_CONNECT:
        return "CONNECT";
    case EVHTTP_REQ_PATCH:
        return "PATCH";
    default:
        return "OTHER";
    }
}

/* evhttp takes no body from these: one that was sent all the same would pass for the next request. */
static bool is_without_body(const char *method)
{
    return strcmp(method, "HEAD") == 0 || strcmp(method, "TRACE") == 0 || strcmp(method, "OTHER") == 0;
}

static bool is_sane_id(const char *id)
{
    size_t len = strlen(id);

    return len && len <= REQUEST_ID_MAX_BYTES &&
           strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

/* Of these there is one, or none: two would be read differently by whoever stands in front of us. */
static bool is_ambiguous(const struct exchange *exchange)
{
    static const char *const single[] = { "Host",     "Content-Length",  "Transfer-Encoding", "Authorization",
                                          "If-Match", "Idempotency-Key", "Content-Type" };
    const struct evkeyvalq *fields = evhttp_request_get_input_headers(exchange->http);
    unsigned counts[sizeof single / sizeof *single] = { 0 };
    const char *coding = exchange_field(exchange, "Transfer-Encoding");

    for (const struct evkeyval *field = fields->tqh_first; field; field = field->next.tqe_next)
        for (size_t i = 0; i < sizeof single / sizeof *single; i++)
            if (slice_is_nocase(slice_of(field->key), slice_of(single[i])) && ++counts[i] > 1)
                return true;
    return coding && (counts[1] || !slice_is_nocase(slice_of(coding), SLICE("chunked")));
}

/* The peer, or whom a trusted proxy names: X-Forwarded-For is read from the right. */
static void find_address(struct exchange *exchange)
{
    const struct cidr_list *trusted = exchange->api->options.trusted_proxies;
    const struct evkeyvalq *fields = evhttp_request_get_input_headers(exchange->http);
    struct slice list = { "", 0 };
    struct address address;
    char *host = NULL;
    uint16_t port = 0;

    evhttp_connection_get_peer(evhttp_request_get_connection(exchange->http), &host, &port);
    if (!host || !address_parse(slice_of(host), &exchange->from))
        (void)address_parse(SLICE("127.0.0.1"), &exchange->from); /* a unix socket */
    for (const struct evkeyval *field = fields->tqh_first; field; field = field->next.tqe_next)
        if (slice_is_nocase(slice_of(field->key), SLICE("X-Forwarded-For")))
            list = slice_of(field->value); /* the last one */
    while (list.len && cidr_list_has(trusted, &exchange->from)) {
        const char *comma = memrchr(list.at, ',', list.len);
        struct slice last = { comma ? comma + 1 : list.at,
                              comma ? (size_t)(list.at + list.len - comma) - 1 : list.len };
        if (!address_parse_loose(slice_trim(last), &address))
            break;
        exchange->from = address;
        list.len = comma ? (size_t)(comma - list.at) : 0;
    }
    (void)address_text(&exchange->from, exchange->address);
}

static bool read_version(struct exchange *exchange)
{
    const char *field = exchange_field(exchange, "If-Match");
    struct slice tag = slice_trim(field ? slice_of(field) : SLICE(""));
    unsigned traits = exchange->route->traits;

    if (!(traits & (NEEDS_VERSION | TAKES_VERSION)))
        return true;
    if (!field && traits & NEEDS_VERSION) {
        exchange_refuse(exchange, "precondition_required",
                        "say with If-Match which version is meant, as ETag has shown it, or * for whichever there is");
        return false;
    }
    if (!field || slice_is(tag, SLICE("*")))
        return true;
    if (tag.len > 2 && tag.len <= 2 + VERSION_DIGITS && tag.at[0] == '"' && tag.at[tag.len - 1] == '"') {
        uint32_t version = 0;
        for (size_t i = 1; i + 1 < tag.len && tag.at[i] >= '0' && tag.at[i] <= '9'; i++)
            version = i + 2 == tag.len ? (exchange->object_version = version * 10 + (uint32_t)(tag.at[i] - '0'))
                                       : version * 10 + (uint32_t)(tag.at[i] - '0');
    }
    if (exchange->object_version)
        return true;
    exchange_refuse(exchange, "bad_request", "If-Match must be one version in quotes, such as \"7\", or *");
    return false;
}

static bool read_idempotency_key(struct exchange *exchange)
{
    const char *field = exchange_field(exchange, "Idempotency-Key");
    struct slice key = slice_trim(field ? slice_of(field) : SLICE(""));
    bool is_good = key.len && key.len <= 255;

    if (!field || !(exchange->route->traits & TAKES_REPLAYS))
        return true;
    for (size_t i = 0; i < key.len; i++)
        is_good &= key.at[i] > ' ' && key.at[i] < 0x7f;
    text_add_slice(&exchange->idempotency_key, key);
    if (!is_good)
        exchange_refuse(exchange, "bad_request", "Idempotency-Key must be 1 to 255 printable ASCII characters");
    return is_good;
}

static bool read_query(struct exchange *exchange)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(exchange->http);
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL;
    unsigned traits = exchange->route->traits;
    struct complaints complaints;
    bool is_good;

    complaints_init(&complaints);
    query_read(&exchange->query, slice_of(query), traits & IS_LIST ? exchange->route->noun : NULL, traits & TAKES_WAIT,
               &complaints);
    is_good = !complaints.count;
    if (!is_good)
        exchange_refuse_places(exchange, &complaints);
    complaints_release(&complaints);
    return is_good;
}

static bool is_json_type(const char *type, bool is_patch)
{
    struct slice slice = type ? slice_of(type) : SLICE("");
    const char *end = slice.len ? memchr(slice.at, ';', slice.len) : NULL;

    if (end)
        slice.len = (size_t)(end - slice.at);
    slice = slice_trim(slice);
    return slice_is_nocase(slice, SLICE("application/json")) ||
           (is_patch && slice_is_nocase(slice, SLICE("application/merge-patch+json")));
}

/* So that the same key with another request is seen: method, path and body as they came. */
static void hash_request(struct exchange *exchange, struct slice body)
{
    struct text all;

    if (!exchange->idempotency_key.len)
        return;
    text_init(&all, body.len + PATH_MAX_BYTES + 64);
    text_printf(&all, "%s %s\n", exchange->method, text_string(&exchange->path));
    text_add_slice(&all, body);
    digest_sha256(text_slice(&all), &exchange->request_hash);
    text_release_wiped(&all);
}

static bool take_body(struct exchange *exchange, const struct form *form, struct slice sent)
{
    struct complaints complaints;
    json_error_t error;
    json_t *given;
    bool is_good;

    given = sent.len ? json_loadb(sent.at, sent.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error) : json_object();
    if (!given) {
        exchange_refuse(exchange, "bad_request", "the body is not JSON: line %d, column %d: %s", error.line,
                        error.column, error.text);
        return false;
    }
    complaints_init(&complaints);
    exchange->body = form_read(form, given, &complaints);
    is_good = exchange->body != NULL;
    if (complaints.count)
        exchange_refuse_places(exchange, &complaints);
    else if (!is_good)
        exchange_fail(exchange, ERR_NO_MEMORY);
    complaints_release(&complaints);
    json_decref(given);
    return is_good;
}

static bool read_body(struct exchange *exchange)
{
    const struct api_options *options = &exchange->api->options;
    struct evbuffer *buffer = evhttp_request_get_input_buffer(exchange->http);
    size_t len = evbuffer_get_length(buffer);
    struct form form;
    struct slice sent;

    if (len > options->max_body_bytes) {
        exchange_refuse(exchange, "payload_too_large", "a body has at most %llu bytes",
                        (unsigned long long)options->max_body_bytes);
        return false;
    }
    if (!route_form(exchange->route, &form))
        return true;
    sent = (struct slice){ (const char *)evbuffer_pullup(buffer, -1), len };
    if (!len && !(exchange->route->traits & MAY_MISS_BODY)) {
        exchange_refuse(exchange, "bad_request", "a JSON object is needed as the body");
        return false;
    }
    if (len && !is_json_type(exchange_field(exchange, "Content-Type"), form.is_patch)) {
        exchange_refuse(exchange, "unsupported_media_type", "the body must be application/json%s",
                        form.is_patch ? " or application/merge-patch+json" : "");
        return false;
    }
    if (len && json_is_deep(sent, options->max_depth)) {
        exchange_refuse(exchange, "bad_request", "the body is nested deeper than %u levels", options->max_depth);
        return false;
    }
    hash_request(exchange, sent);
    return take_body(exchange, &form, sent);
}

/* ---- the steps ---- */

void exchange_go_on(struct exchange *exchange)
{
    const struct route *route = exchange->route;

    if (route->roles != EVERYBODY && !(route->roles & exchange->role)) {
        exchange_refuse(exchange, "forbidden", "this token's role may not do that");
        return;
    }
    if (!read_version(exchange) || !read_idempotency_key(exchange) || !read_query(exchange) || !read_body(exchange))
        return;
    if (route->traits & IS_CHANGE && !fleet_epoch(exchange->api)) {
        exchange_fail(exchange, store_is_up(exchange->api->doors.store) ? ERR_REFUSED : ERR_GONE);
        return;
    }
    route->handle(exchange);
}

static void add_allow(unsigned methods, struct text *out)
{
    for (unsigned i = 0; i < METHODS; i++)
        if (methods & 1U << i)
            text_printf(out, "%s%s", out->len ? ", " : "", method_names[i]);
}

static void refuse_path(struct exchange *exchange, unsigned methods)
{
    char memory[64];
    struct text allow = text_over(memory, sizeof memory);
    struct reply reply = { 0 };

    if (!methods) {
        exchange_refuse(exchange, "not_found", "there is nothing at this path; /admin/openapi.json says what there is");
        return;
    }
    add_allow(methods, &allow);
    reply.allow = text_slice(&allow);
    reply_problem(exchange, problem_of("method_not_allowed"), SLICE(""), SLICE(""), &reply);
}

static void set_out(struct exchange *exchange)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(exchange->http);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    const char *id = exchange_field(exchange, "X-Request-Id");
    struct slice param = { NULL, 0 };
    unsigned methods;

    if (id && is_sane_id(id))
        (void)snprintf(exchange->id, sizeof exchange->id, "%s", id);
    else
        random_letters(exchange->id, ID_LETTERS);
    exchange->method = method_of(exchange->http);
    text_add_slice(&exchange->path, slice_of(path));
    find_address(exchange);
    if (is_ambiguous(exchange)) {
        exchange_refuse_and_close(exchange, "bad_request",
                                  "a field is there twice, or says in two ways how long the body is");
        return;
    }
    exchange->route = route_find(exchange->method, text_slice(&exchange->path), &param, &methods);
    if (!exchange->route) {
        refuse_path(exchange, methods);
    } else if (param.at && (!percent_decode(param, false, &exchange->param) ||
                            utf8_count(text_slice(&exchange->param)) > ID_MAX_CHARS)) {
        exchange_refuse(exchange, "bad_request",
                        "the path is not well formed: it has a bad escape, a zero byte, no "
                        "UTF-8, or a name that is too long");
    } else if (exchange->route->roles == EVERYBODY) {
        exchange_go_on(exchange);
    } else {
        token_check(exchange);
    }
}

void exchange_begin(struct api *api, struct guest *guest, struct evhttp_request *http, struct exchange **ret_exchange)
{
    struct exchange *exchange = exchange_new(api, guest, http);

    if (!exchange) {
        evhttp_send_error(http, HTTP_SERVUNAVAIL, NULL);
        return;
    }
    *ret_exchange = exchange;
    set_out(exchange);
}
