/*
 * Everything a request holds (body memory, address place, person, place in a queue or slot, upstream, deadline,
 * snapshot) lives in the struct and is given back in request_end(), its only exit. A request is freed by the reaper at
 * the end of the turn, so that callbacks up the stack never hold a pointer to something gone.
 *
 * Timers: one deadline a request. ADMITTING: LIST_WAIT_MS. QUEUED: place.c. CONNECTING and RELAYING: relay.c. READING
 * while it waits for memory: MEMORY_RETRY_MS.
 */
#include <assert.h>
#include <stdlib.h>

#include "clock.h"
#include "digest.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "parts.h"
#include "tally.h"

enum { MEMORY_RETRY_MS = 20, MAX_SPARE = 64, STATUS_CALLER_LEFT = 499 };

struct request_list {
    struct request live, ended; /* heads of rings */
    struct request *cursor;     /* where requests_look_again() goes on, whoever ends meanwhile */
    struct request *spare;      /* for the next ones, linked by next, all else zero */
    unsigned spare_count;
};

static enum verdict request_reading(struct request *req)
{
    (void)req;
    return WAIT; /* the client hands the body over */
}

static enum verdict request_refusing(struct request *req)
{
    reply_refusal(req);
    return WAIT;
}

static enum verdict request_settling(struct request *req)
{
    (void)req;
    return WAIT; /* the client says when all is sent */
}

static const struct {
    const char *name, *waits_for;
    unsigned next;
    enum verdict (*step)(struct request *req);
} states[] = {
#define STATE_ROW(name, step, waits, next) { #name, waits, next, request_##step },
    REQUEST_STATES(STATE_ROW)
#undef STATE_ROW
};

/* The only writer of req->state. */
enum verdict request_go(struct request *req, enum request_state next)
{
    assert(states[req->state].next & (1u << next));
    req->state = next;
    return AGAIN;
}

void request_drive(struct request *req)
{
    while (states[req->state].step(req) == AGAIN)
        ;
}

enum verdict request_refuse_saying(struct request *req, enum cause cause, struct slice message)
{
    req->refusal = (struct refusal){ .cause = cause, .message = message };
    return request_go(req, REQUEST_REFUSING);
}

enum verdict request_refuse(struct request *req, enum cause cause)
{
    return request_refuse_saying(req, cause, (struct slice){ 0 });
}

void request_print_states(struct text *out)
{
    text_add_literal(out, "digraph request {\n    rankdir=LR;\n");
    for (unsigned from = 0; from < REQUEST_STATE_COUNT; from++) {
        text_printf(out, "    %s [label=\"%s\\n%s\"];\n", states[from].name, states[from].name, states[from].waits_for);
        for (unsigned to = 0; to < REQUEST_STATE_COUNT; to++)
            if (states[from].next & (1u << to))
                text_printf(out, "    %s -> %s;\n", states[from].name, states[to].name);
    }
    text_add_literal(out, "}\n");
}

/* ---- lists ---- */

static void ring_add(struct request *head, struct request *req)
{
    req->next = head;
    req->prev = head->prev;
    head->prev->next = req;
    head->prev = req;
}

static void ring_remove(struct request *req)
{
    req->next->prev = req->prev;
    req->prev->next = req->next;
}

bool requests_open(struct request_house *house)
{
    house->lists = calloc(1, sizeof *house->lists);
    if (!house->lists)
        return false;
    house->lists->live.next = house->lists->live.prev = &house->lists->live;
    house->lists->ended.next = house->lists->ended.prev = &house->lists->ended;
    text_init(&house->out, SIZE_MAX / 4);
    return true;
}

/* A few are kept: the heap costs more than emptying one. */
static void request_free(struct request_list *lists, struct request *req)
{
    explicit_bzero(req, sizeof *req);
    if (lists->spare_count == MAX_SPARE) {
        free(req);
        return;
    }
    req->next = lists->spare;
    lists->spare = req;
    lists->spare_count++;
}

static struct request *request_take(struct request_list *lists)
{
    struct request *req = lists->spare;

    if (!req)
        return calloc(1, sizeof *req);
    lists->spare = req->next;
    lists->spare_count--;
    req->next = NULL;
    return req;
}

void requests_reap(struct request_house *house)
{
    struct request *ended = &house->lists->ended;

    text_clear_wiped(&house->out); /* what this turn wrote has gone out */
    while (ended->next != ended) {
        struct request *req = ended->next;
        ring_remove(req);
        arena_release(&req->parse_arena);
        arena_release(&req->arena);
        request_free(house->lists, req);
    }
}

void requests_release(struct request_house *house)
{
    if (!house->lists)
        return;
    while (house->lists->live.next != &house->lists->live)
        request_end(house->lists->live.next);
    requests_reap(house);
    while (house->lists->spare)
        free(request_take(house->lists));
    text_release_wiped(&house->out);
    free(house->lists);
    house->lists = NULL;
}

/* ---- snapshot, fleet and keys ---- */

/*
 * A request keeps those that it began with. While they are the house's own, requests are only counted, in a number
 * that is this worker's alone; when the house gets others, as many real references are taken. So a request needs no
 * atomics on lines that every worker writes to.
 */
static void know(struct request *req)
{
    req->snapshot = req->house->snapshot;
    req->fleet = req->house->fleet;
    req->keys = req->house->keys;
    req->era = req->house->era;
    req->house->users++;
}

static void forget(struct request *req)
{
    if (req->era == req->house->era) {
        req->house->users--;
    } else {
        (void)fleet_unref(req->fleet);
        (void)snapshot_unref(req->snapshot);
        (void)keyring_unref(req->keys);
    }
    req->snapshot = NULL;
    req->fleet = NULL;
    req->keys = NULL;
}

void requests_know(struct request_house *house, struct snapshot *snapshot, struct fleet *fleet, struct keyring *keys)
{
    if (house->users) {
        snapshot_ref_more(house->snapshot, house->users);
        fleet_ref_more(house->fleet, house->users);
        keyring_ref_more(house->keys, house->users);
    }
    (void)snapshot_unref(house->snapshot);
    (void)fleet_unref(house->fleet);
    (void)keyring_unref(house->keys);
    house->snapshot = snapshot;
    house->fleet = fleet;
    house->keys = keys;
    house->era++;
    house->users = 0;
}

/* ---- life ---- */

static void on_due(struct deadline *deadline, int64_t now_ms);

static struct request *request_new(struct client *client)
{
    struct request_house *house = client_house(client)->worker;
    struct request *req = request_take(house->lists);

    if (!req)
        return NULL;
    req->house = house;
    req->client = client;
    know(req);
    arena_init(&req->arena);
    arena_init(&req->parse_arena);
    req->deadline.on_due = on_due;
    text_init(&req->gathered, settings_of(req)->max_body_bytes);
    text_init(&req->sent, SIZE_MAX / 4);
    req->record.began_us = client_began_us(client);
    req->record.address = *client_peer(client);
    client_set_request(client, req);
    ring_add(&house->lists->live, req);
    metrics_in_flight(house->metrics, 1);
    return req;
}

static void give_back_memory(struct request *req)
{
    text_release_wiped(&req->gathered);
    text_release_wiped(&req->sent);
    body_release(req->house->limits, req->holder, req->reserved_bytes);
    req->reserved_bytes = 0;
}

/* For the control plane, behind the log line: whoever asked has all of the answer. */
static void count(const struct request *req)
{
    const struct record *record = &req->record;
    const struct tally_request request = {
        .model = record->model_label,
        .user = record->user,
        .was_refused = record->why.len && record->status >= 400 && record->status != STATUS_CALLER_LEFT,
        .total_us = clock_us() - record->began_us,
        .first_token_us = record->first_token_us ? record->first_token_us - record->began_us : -1,
        .prompt_tokens = record->has_tokens ? record->prompt_tokens : 0,
        .completion_tokens = record->has_tokens ? record->completion_tokens : 0,
    };

    tally_add(req->house->tally, &request);
}

void request_end(struct request *req)
{
    struct request_house *house = req->house;

    wheel_clear(house->wheel, &req->deadline);
    relay_give_back(req, false);
    record_close(&req->record, house->metrics, clock_us());
    if (house->tally)
        count(req);
    metrics_in_flight(house->metrics, -1);
    give_back_memory(req);
    admit_give_back(req);
    identity_give_back(req);
    if (req->client)
        client_set_request(req->client, NULL);
    req->client = NULL;
    forget(req);
    if (house->lists->cursor == req)
        house->lists->cursor = req->next;
    ring_remove(req);
    ring_add(&house->lists->ended, req);
}

/* ---- the head ---- */

/* Sane as behaviour.md 2.2 has it, else letters of our own. */
static struct slice request_id_of(struct request *req, struct slice wanted)
{
    bool is_sane = wanted.len > 0 && wanted.len <= 64;
    char *letters;

    for (size_t i = 0; is_sane && i < wanted.len; i++) {
        char c = wanted.at[i];
        is_sane = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
    }
    if (is_sane)
        return arena_copy(&req->arena, wanted);
    letters = arena_take(&req->arena, 24);
    if (!letters)
        return SLICE("none");
    random_letters(letters, 24);
    return (struct slice){ letters, 24 };
}

static void remember_head(struct request *req, const struct http_head *head)
{
    struct slice path = { head->path.at, head->path.len < 512 ? head->path.len : 512 };
    unsigned count;

    req->record.request_id = request_id_of(req, http_field(head, HTTP_X_REQUEST_ID));
    req->record.method = arena_copy(&req->arena, head->method);
    req->record.path = arena_copy(&req->arena, path);
    if (req->fleet->count > 1)
        place_note_session(req, http_field_named(head, slice_of(settings_of(req)->session_header), &count));
    req->wants_page = slice_has(http_field(head, HTTP_ACCEPT), SLICE("text/html"));
    if (slice_starts(head->path, SLICE("/api/")))
        req->error_shape = ERROR_SHAPE_FLAT;
}

/* Rows 2 to 6, in their order. */
static enum cause check_head(struct request *req, const struct http_head *head)
{
    struct slice id = { 0 };
    enum cause cause = identity_check_fields(req, head);

    if (cause)
        return cause;
    cause = endpoint_find(head->method, head->path, &req->endpoint, &id, &req->allow);
    if (cause)
        return cause;
    req->record.dialect = slice_of(req->endpoint->label);
    if (!req->endpoint->is_open) {
        cause = (enum cause)req->house->refuses;
        if (cause || (cause = identity_find(req, head)))
            return cause;
    }
    if (id.len) {
        struct text decoded;
        bool is_good;
        text_init(&decoded, 1024);
        is_good = http_percent_decode(id, &decoded) && !decoded.err;
        if (is_good)
            req->piece = arena_copy(&req->arena, text_slice(&decoded));
        if (decoded.err == ERR_NO_MEMORY || (is_good && !req->piece.at))
            cause = CAUSE_NO_MEMORY; /* the model may well exist */
        text_release(&decoded);
    }
    return cause;
}

/* Row 7, and the fields about the body that we do not take. */
static enum cause check_framing(struct request *req, const struct http_head *head)
{
    struct slice encoding = http_field(head, HTTP_CONTENT_ENCODING);

    if (head->framing == HTTP_LENGTH && head->content_length > settings_of(req)->max_body_bytes)
        return CAUSE_BODY_TOO_BIG;
    if (http_field(head, HTTP_EXPECT).len && !head->expects_continue && head->minor == 1)
        return CAUSE_EXPECTATION;
    if (encoding.len && !slice_is_nocase(encoding, SLICE("identity")))
        return CAUSE_BODY_ENCODING;
    return CAUSE_NONE;
}

static struct slice too_big_message(struct request *req)
{
    struct text sentence;
    struct slice copy;

    text_init(&sentence, 256);
    text_add_literal(&sentence, "the request body is too large, max ");
    refusal_add_number(&sentence, settings_of(req)->max_body_bytes);
    text_add_literal(&sentence, " bytes");
    copy = arena_copy(&req->arena, text_slice(&sentence));
    text_release(&sentence);
    return copy;
}

static enum verdict refuse_too_big(struct request *req)
{
    return request_refuse_saying(req, CAUSE_BODY_TOO_BIG, too_big_message(req));
}

/* True when the memory for the next `bytes` of body is ours; else the body waits in its socket. */
static bool reserve_memory(struct request *req, uint64_t bytes)
{
    if (!bytes || body_reserve(req->house->limits, req->holder, bytes, settings_of(req)->max_body_memory_bytes)) {
        req->reserved_bytes += bytes;
        return true;
    }
    return false;
}

/* The body stays in its socket, up to the body's deadline, which is ours then: 503, not 408. */
static void wait_for_memory(struct request *req, uint64_t bytes)
{
    req->wanted_bytes = bytes;
    client_hold(req->client);
    wheel_set(req->house->wheel, &req->deadline, clock_ms() + MEMORY_RETRY_MS);
}

static void look_for_memory(struct request *req, int64_t now_ms)
{
    if (!reserve_memory(req, req->wanted_bytes)) {
        wheel_set(req->house->wheel, &req->deadline, now_ms + MEMORY_RETRY_MS);
        return;
    }
    req->wanted_bytes = 0;
    client_go_on(req->client);
}

static void start_reading(struct request *req, const struct http_head *head)
{
    bool has_memory;

    req->announced_bytes = head->framing == HTTP_LENGTH ? head->content_length : 0;
    has_memory = reserve_memory(req, req->announced_bytes);
    client_read_body(req->client);
    if (!has_memory)
        wait_for_memory(req, req->announced_bytes);
}

/* No memory for a request: the connection is all there is to end. */
static void drop_without_a_word(struct client *client)
{
    client_drop(client);
}

static void on_head(struct client *client, const struct http_head *head)
{
    struct request *req = request_new(client);
    enum cause cause;

    if (!req) {
        drop_without_a_word(client);
        return;
    }
    remember_head(req, head);
    cause = check_head(req, head);
    if (!cause)
        cause = check_framing(req, head);
    if (!cause && !req->endpoint->is_open)
        client_know(client);
    if (cause == CAUSE_BAD_HTTP)
        client_must_close(client); /* whoever sends two keys may mean two requests */
    if (cause) {
        (void)(cause == CAUSE_BODY_TOO_BIG ? refuse_too_big(req) : request_refuse(req, cause));
        request_drive(req);
    } else if (req->endpoint->dialect) {
        start_reading(req, head);
    } else {
        (void)request_go(req, REQUEST_ADMITTING);
        request_drive(req);
    }
}

/* Puts a piece of a body that comes in several to the others. */
static enum cause gather(struct request *req, struct slice piece)
{
    if (!req->gathered.len && req->announced_bytes)
        (void)text_reserve(&req->gathered, req->announced_bytes);
    text_add_slice(&req->gathered, piece);
    if (req->gathered.err)
        return req->gathered.err == ERR_TOO_LONG ? CAUSE_BODY_TOO_BIG : CAUSE_NO_MEMORY;
    return CAUSE_NONE;
}

static void on_body(struct client *client, struct slice piece, bool is_last)
{
    struct request *req = client_request(client);
    bool is_only = is_last && req->gathered.len == 0;
    enum cause cause = is_only ? CAUSE_NONE : gather(req, piece);

    if (cause) {
        (void)(cause == CAUSE_BODY_TOO_BIG ? refuse_too_big(req) : request_refuse(req, cause));
        request_drive(req);
        return;
    }
    /* A chunked body is paid for as it comes; what is read may overdraw by one piece. */
    if (!req->announced_bytes && !reserve_memory(req, piece.len) && !is_last)
        wait_for_memory(req, piece.len);
    if (!is_last)
        return;
    req->piece = is_only ? piece : text_slice(&req->gathered);
    (void)request_go(req, REQUEST_ADMITTING);
    request_drive(req);
}

/* ---- what else the client tells ---- */

static void refuse_from_client(struct client *client, enum cause cause, const char *why)
{
    struct request *req = client_request(client);
    struct slice message = { 0 };

    if (!req && !(req = request_new(client))) {
        drop_without_a_word(client);
        return;
    }
    if (!req->record.request_id.len) {
        req->record.request_id = request_id_of(req, (struct slice){ 0 });
        req->record.method = SLICE("-");
        req->record.path = SLICE("-");
    }
    if (why && *why) {
        struct text sentence;
        text_init(&sentence, 512);
        text_printf(&sentence, "the request is not well-formed HTTP: %s", why);
        message = arena_copy(&req->arena, text_slice(&sentence));
        text_release(&sentence);
    }
    req->wanted_bytes = 0;
    (void)request_refuse_saying(req, cause, message);
    request_drive(req);
}

static void on_bad(struct client *client, enum http_result result, const char *why)
{
    refuse_from_client(client, result == HTTP_TOO_BIG ? CAUSE_HEAD_TOO_BIG : CAUSE_BAD_HTTP,
                       result == HTTP_TOO_BIG ? NULL : why);
}

static void on_slow(struct client *client, bool in_body)
{
    struct request *req = client_request(client);
    bool was_ours = req && req->wanted_bytes;

    refuse_from_client(client, was_ours ? CAUSE_BODY_MEMORY : in_body ? CAUSE_BODY_SLOW : CAUSE_HEAD_SLOW, NULL);
}

static void on_room(struct client *client)
{
    struct request *req = client_request(client);

    if (req && req->upstream)
        upstream_resume(req->upstream);
}

static void on_sent(struct client *client)
{
    request_end(client_request(client));
}

static void on_gone(struct client *client, enum client_loss loss)
{
    static const char *const whys[] = {
        [CLIENT_LEFT] = "caller_left", [CLIENT_STALLED] = "write_timeout", [CLIENT_CROWDED_OUT] = "crowded_out"
    };
    struct request *req = client_request(client);

    req->client = NULL;
    if (!req->record.why.len)
        req->record.why = slice_of(whys[loss]);
    if (!req->is_whole && req->state != REQUEST_SETTLING)
        req->record.status = STATUS_CALLER_LEFT;
    metrics_count(req->house->metrics, METRIC_CALLERS_LEFT, 1);
    request_end(req);
}

const struct client_story request_story = {
    .on_head = on_head,
    .on_body = on_body,
    .on_bad = on_bad,
    .on_slow = on_slow,
    .on_room = on_room,
    .on_sent = on_sent,
    .on_gone = on_gone,
};

/* ---- time and news ---- */

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct request *req = (void *)((char *)deadline - offsetof(struct request, deadline));

    switch (req->state) {
    case REQUEST_READING:
        if (req->wanted_bytes)
            look_for_memory(req, now_ms);
        break;
    case REQUEST_ADMITTING:
        request_drive(req);
        break;
    case REQUEST_QUEUED:
        place_look_at_time(req, now_ms);
        break;
    case REQUEST_CONNECTING:
    case REQUEST_RELAYING:
        relay_look_at_time(req, now_ms);
        break;
    default:
        break;
    }
}

void requests_look_again(struct request_house *house)
{
    struct request_list *lists = house->lists;

    for (lists->cursor = lists->live.next; lists->cursor != &lists->live;) {
        struct request *req = lists->cursor;
        lists->cursor = req->next;
        if (req->state == REQUEST_ADMITTING && req->waits_for_list)
            request_drive(req); /* which may make room for itself, and so end others */
    }
    lists->cursor = NULL;
}

void requests_end_all(struct request_house *house)
{
    struct request *live = &house->lists->live, *req, *next;

    for (req = live->next; req != live; req = next) {
        next = req->next;
        if (req->state == REQUEST_SETTLING || req->state == REQUEST_REFUSING)
            continue;
        client_must_close(req->client);
        (void)request_refuse(req, CAUSE_DRAINING);
        request_drive(req);
    }
}

static bool is_of(const struct request *req, const struct digest *keys, size_t count)
{
    for (size_t i = 0; req->key && i < count; i++)
        if (digest_is(&req->key->hash, &keys[i]))
            return true;
    return false;
}

/* What is on its way to a caller who reads slowly goes no further either. */
static void cut(struct request *req)
{
    client_must_close(req->client);
    if (req->state == REQUEST_SETTLING) {
        req->record.why = slice_of(cause_row(CAUSE_KEY)->code);
        reply_break_off(req);
        return;
    }
    (void)request_refuse(req, CAUSE_KEY);
    request_drive(req);
}

void requests_cut(struct request_house *house, const struct digest *keys, size_t count)
{
    struct request_list *lists = house->lists;

    for (lists->cursor = lists->live.next; lists->cursor != &lists->live;) {
        struct request *req = lists->cursor;
        lists->cursor = req->next;
        if (req->state != REQUEST_REFUSING && is_of(req, keys, count))
            cut(req);
    }
    lists->cursor = NULL;
}
