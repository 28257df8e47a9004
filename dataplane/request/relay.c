/*
 * The backend's side of a request: handing it over, sending it again once, reading the answer into events, and time.
 *
 * Timers, all on the request's one deadline (relay_set_deadline takes the nearest):
 *     no life             BACKEND_NO_LIFE_MS after the last byte, then LIFE_AGAIN_MS: 503 when nothing else showed life
 * either commit_after        from entering the queue, streams only: the status goes out and heartbeats begin
 *     heartbeat_interval  from the last byte to the caller, once committed
 *     first_token_timeout from handing over, until the first event
 *     stream_idle_timeout from the backend's last byte, after the first event
 */
#include "clock.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "parts.h"

enum { LIFE_AGAIN_MS = 500, MAX_ERROR_BODY = 64 << 10 };

static void on_head(struct borrower *borrower, const struct http_head *head);
static void on_payload(struct borrower *borrower, struct slice payload, bool is_last);
static void on_turn(struct borrower *borrower);
static void on_end(struct borrower *borrower);
static void on_lost(struct borrower *borrower, enum upstream_loss loss, const char *why);

static const struct borrower_story story = { on_head, on_payload, on_turn, on_end, on_lost };

static struct request *request_of(struct borrower *borrower)
{
    return (void *)((char *)borrower - offsetof(struct request, borrower));
}

static bool is_failed_status(const struct request *req)
{
    return req->backend_status && req->backend_status != 200;
}

/* ---- sending again ---- */

/* The one rule (behaviour.md 2.2): nothing has come from the backend, nothing went to the caller, and it is the first
 * time. */
static bool may_send_again(const struct request *req)
{
    bool is_silent = !req->upstream || upstream_received(req->upstream) == 0;

    return !req->was_resent && !req->is_committed && (is_silent || req->backend_status == 503);
}

/*
 * To another backend, or with `may_be_same` (a kept connection died at once) to the same one where there is no other.
 * The old connection is closed before. False: it may not, or there is none. To be driven on when true.
 */
static bool send_again(struct request *req, bool may_be_same)
{
    if (!may_send_again(req))
        return false;
    if (req->upstream)
        upstream_close(req->upstream);
    req->upstream = NULL;
    if (!place_take_again(req, may_be_same))
        return false;
    req->was_resent = true;
    req->backend_status = 0;
    req->piece = (struct slice){ 0 };
    text_release_wiped(&req->gathered);
    return true;
}

/* ---- handing over ---- */

static enum err borrow(struct request *req)
{
    struct request_house *house = req->house;
    int64_t timeout_ms = settings_of(req)->connect_timeout_ms;
    enum err err =
        upstream_borrow(house->pool, req->backend, &req->borrower, req->was_resent, timeout_ms, &req->upstream);

    if (err == ERR_SYSTEM && clients_make_room(&house->clients, req->client))
        err = upstream_borrow(house->pool, req->backend, &req->borrower, req->was_resent, timeout_ms, &req->upstream);
    return err;
}

static enum verdict hand_over(struct request *req)
{
    struct request_house *house = req->house;
    int64_t now_ms = clock_ms();
    enum err err;

    if (!sent_write_head(req))
        return request_refuse(req, CAUSE_NO_MEMORY);
    req->borrower.story = &story;
    err = borrow(req);
    if (err == ERR_REFUSED) {
        backend_failed(req->backend, now_ms);
        house->nudge(house->nudge_arg);
        return send_again(req, false) ? AGAIN : request_refuse(req, CAUSE_BACKEND_DOWN);
    }
    if (err)
        return request_refuse(req, err == ERR_SYSTEM ? CAUSE_NO_DESCRIPTOR : CAUSE_NO_MEMORY);
    metrics_count(house->metrics, upstream_was_kept(req->upstream) ? METRIC_BACKEND_REUSES : METRIC_BACKEND_CONNECTS,
                  1);
    req->sent_ms = req->last_byte_ms = now_ms;
    req->sent_us = clock_us();
    upstream_send(req->upstream, (struct slice){ req->sent.at + req->sent_from, req->sent.len - req->sent_from });
    if (!req->has_begun)
        admit_done(req);
    relay_set_deadline(req, now_ms);
    return WAIT;
}

enum verdict request_connecting(struct request *req)
{
    return req->upstream ? WAIT : hand_over(req);
}

enum verdict request_relaying(struct request *req)
{
    (void)req;
    return WAIT;
}

/* The request's bytes were needed for sending it again; once the backend answers, or has done so, they go. */
static void forget_sent(struct request *req)
{
    if (!req->sent.at)
        return;
    text_release_wiped(&req->sent);
    body_release(req->house->limits, req->holder, req->reserved_bytes);
    req->reserved_bytes = 0;
}

/* Not by its backend's fault: the caller left, or it took too long. */
static bool is_given_up(const struct request *req)
{
    return req->upstream && upstream_is_sent(req->upstream) && !is_failed_status(req) &&
           (!req->client || req->refusal.cause == CAUSE_FIRST_TOKEN);
}

void relay_give_back(struct request *req, bool is_whole)
{
    bool was_given_up = !is_whole && is_given_up(req);

    if (req->upstream)
        upstream_give_back(req->upstream, is_whole);
    req->upstream = NULL;
    place_give_back(req, was_given_up);
    forget_sent(req);
}

static void fail(struct request *req, enum cause cause)
{
    (void)request_refuse(req, cause);
    request_drive(req);
}

/* ---- the answer ---- */

static void on_head(struct borrower *borrower, const struct http_head *head)
{
    struct request *req = request_of(borrower);
    struct slice type = http_field(head, HTTP_CONTENT_TYPE);

    req->backend_status = head->status;
    ticket_answers(req->ticket, clock_us());
    (void)request_go(req, REQUEST_RELAYING);
    if (head->status == 200 && type.len && !slice_has(type, SLICE("json")))
        fail(req, CAUSE_UPSTREAM); /* a web page, say */
}

static void note_finish(struct request *req, const struct event *event)
{
    static const struct slice words[] = {
        [FINISH_NONE] = { "", 0 }, [FINISH_STOP] = { "stop", 4 }, [FINISH_LENGTH] = { "length", 6 }
    };

    req->is_whole = true;
    req->record.has_tokens = true;
    req->record.is_estimated = req->counts_short;
    req->record.prompt_tokens = event->prompt_tokens;
    req->record.completion_tokens = event->completion_tokens;
    req->record.finish = words[event->finish];
    if (req->answer.has_tool_calls && event->finish != FINISH_LENGTH)
        req->record.finish = SLICE("tool_calls");
}

/* UTF-8 bytes of what \uXXXX stands for; of a pair of surrogates each half makes two. */
static unsigned bytes_of_code(const char *digits)
{
    if (digits[0] == '0' && digits[1] < '8')
        return digits[1] == '0' && digits[2] < '8' ? 1 : 2;
    return (digits[0] | 0x20) == 'd' && strchr("89abcdefABCDEF", digits[1]) ? 2 : 3;
}

/* Of a text that is still escaped. */
static uint64_t utf8_bytes(struct slice wire)
{
    const char *at = wire.at, *end = wire.at + wire.len;
    uint64_t bytes = wire.len;

    while (at < end && (at = memchr(at, '\\', (size_t)(end - at)))) {
        unsigned escape = at[1] == 'u' ? 6 : 2;
        bytes -= escape - (at[1] == 'u' ? bytes_of_code(at + 2) : 1);
        at += escape;
    }
    return bytes;
}

/* Of what passed so far, as behaviour.md 5 has it. */
static uint64_t estimated_tokens(const struct request *req)
{
    return req->output_bytes / 4 > req->piece_count ? req->output_bytes / 4 : req->piece_count;
}

/*
 * What passes, for answers whose counts never come. Ollama's own count is too small where it thinks before a form that
 * is prescribed: it makes two runs of that and reports the second (5 for 15 tokens, openai-ollama.md 1). Then what
 * passed is told to the caller, too.
 */
static void count_passing(struct request *req, struct event *event)
{
    req->piece_count += event->content_wire.len || event->thinking_wire.len;
    req->output_bytes += utf8_bytes(event->content_wire) + utf8_bytes(event->thinking_wire);
    req->has_thought |= event->thinking_wire.len > 0;
    for (const struct tool_call *call = event->tool_calls; call; call = call->next)
        req->output_bytes += call->name_wire.len + call->arguments_value.len;
    if (!event->is_done || !req->is_structured || !req->has_thought)
        return;
    req->counts_short = true;
    if (event->completion_tokens < estimated_tokens(req))
        event->completion_tokens = estimated_tokens(req);
}

static void note_passed(struct request *req, const struct event *event)
{
    if (event->is_done) {
        note_finish(req, event);
        return;
    }
    req->record.has_tokens = req->record.is_estimated = true;
    req->record.prompt_tokens = (req->record.prompt_chars + 3) / 4;
    req->record.completion_tokens = estimated_tokens(req);
}

static void take_error(struct request *req, const struct event *event)
{
    struct refusal *refusal = &req->refusal;

    *refusal = (struct refusal){ 0 };
    req->kind->read_broken(event->error, req->answer.model, &req->arena, refusal);
    (void)request_go(req, REQUEST_REFUSING);
    request_drive(req);
}

/* What one read of a stream becomes: a head perhaps, and one chunk. False from burst_send(): the request has ended. */
struct burst {
    struct text *out; /* the worker's scratch */
    size_t chunk;     /* where the chunk's content begins */
    bool is_open;     /* there is a chunk */
};

static bool burst_send(struct request *req, struct burst *burst)
{
    if (burst->is_open)
        reply_chunk_close(req, burst->out, burst->chunk);
    if (burst->out->err) { /* no memory, half a chunk: the caller sees the connection end */
        reply_break_off(req);
        return false;
    }
    if (!burst->is_open)
        return true;
    burst->is_open = false;
    req->last_write_ms = req->last_byte_ms;
    client_write(req->client, text_slice(burst->out));
    if (req->upstream && client_is_full(req->client))
        upstream_pause(req->upstream);
    return true;
}

/* What came before the failure still goes out before it. */
static void fail_burst(struct request *req, struct burst *burst, enum cause cause)
{
    if (burst_send(req, burst))
        fail(req, cause);
}

static void write_event(struct request *req, struct burst *burst, const struct event *event)
{
    if (!burst->is_open) {
        if (!req->is_committed)
            reply_begin_stream(req, burst->out);
        burst->chunk = reply_chunk_open(req, burst->out);
        burst->is_open = true;
    }
    req->endpoint->dialect->stream_event(&req->answer, event, burst->out);
}

/* One line of a stream. False: the request goes no further here. */
static bool take_line(struct request *req, struct slice line, struct burst *burst)
{
    struct event event = { 0 };
    enum err err;

    if (!slice_trim(line).len || slice_is(line, SLICE("\r")))
        return true;
    err = req->kind->read_line(line, &req->parse_arena, &event);
    if (err) {
        fail_burst(req, burst, err == ERR_NO_MEMORY ? CAUSE_NO_MEMORY : CAUSE_UPSTREAM);
        return false;
    }
    if (event.error.len) {
        if (burst_send(req, burst))
            take_error(req, &event);
        return false;
    }
    if (!req->has_event) {
        req->has_event = true;
        req->record.first_token_us = clock_us();
    }
    count_passing(req, &event);
    write_event(req, burst, &event);
    note_passed(req, &event);
    arena_release(&req->parse_arena);
    return true;
}

/* The last line has come: the caller's answer ends now, whenever the backend's framing does. */
static void settle_stream(struct request *req, struct burst *burst)
{
    reply_chunk_close(req, burst->out, burst->chunk);
    (void)request_go(req, REQUEST_SETTLING);
    relay_give_back(req, true);
    reply_stream_end(req, burst->out);
}

/* The next line of the stream, gathered over payloads. False: there is none yet; the refusal for one that cannot be had
 * is in *ret_cause. */
static bool next_line(struct request *req, struct slice *payload, struct slice *ret_line, enum cause *ret_cause)
{
    const char *end = payload->len ? memchr(payload->at, '\n', payload->len) : NULL;
    size_t len = end ? (size_t)(end - payload->at) : payload->len;

    *ret_line = (struct slice){ payload->at, len };
    *payload = (struct slice){ payload->at + len + (end != NULL), payload->len - len - (end != NULL) };
    if (end && !req->gathered.len)
        return true;
    text_add_slice(&req->gathered, *ret_line);
    if (req->gathered.err)
        *ret_cause = req->gathered.err == ERR_TOO_LONG ? CAUSE_UPSTREAM : CAUSE_NO_MEMORY;
    *ret_line = text_slice(&req->gathered);
    return end && !req->gathered.err;
}

static void on_stream_payload(struct request *req, struct slice payload)
{
    struct burst burst = { .out = &req->house->out };
    enum cause cause = CAUSE_NONE;
    struct slice line;

    text_clear(burst.out);
    while (!req->is_whole && next_line(req, &payload, &line, &cause)) {
        if (!take_line(req, line, &burst))
            return;
        text_release_wiped(&req->gathered);
    }
    if (cause)
        fail_burst(req, &burst, cause);
    else if (req->is_whole)
        settle_stream(req, &burst);
    else
        (void)burst_send(req, &burst);
}

static void on_payload(struct borrower *borrower, struct slice payload, bool is_last)
{
    struct request *req = request_of(borrower);

    req->last_byte_ms = clock_ms();
    if (req->is_stream && !is_failed_status(req)) {
        on_stream_payload(req, payload);
        return;
    }
    if (is_failed_status(req) && req->gathered.len + payload.len > MAX_ERROR_BODY)
        return; /* nobody reads further than that */
    if (is_last && !req->gathered.len) {
        req->piece = payload; /* it is read where it lies */
        return;
    }
    text_add_slice(&req->gathered, payload);
    if (req->gathered.err)
        fail(req, req->gathered.err == ERR_TOO_LONG ? CAUSE_UPSTREAM : CAUSE_NO_MEMORY);
}

static void on_turn(struct borrower *borrower)
{
    struct request *req = request_of(borrower);

    req->last_byte_ms = clock_ms();
    if (req->backend_status && req->backend_status != 503 && /* after that one it may be wanted for another backend */
        upstream_is_sent(req->upstream))                     /* an early answer: it still takes what it asked for */
        forget_sent(req);
    relay_set_deadline(req, req->last_byte_ms);
}

/* The body of an answer that is no stream. */
static struct slice whole_of(const struct request *req)
{
    return req->piece.len ? req->piece : text_slice(&req->gathered);
}

static void take_refusal(struct request *req)
{
    struct refusal *refusal = &req->refusal;

    if (req->backend_status == 503 && send_again(req, false)) {
        request_drive(req);
        return;
    }
    *refusal = (struct refusal){ 0 };
    req->kind->read_error(req->backend_status, whole_of(req), req->answer.model, &req->arena, refusal);
    relay_give_back(req, true);
    (void)request_go(req, REQUEST_REFUSING);
    request_drive(req);
}

static bool says_something(const struct event *event)
{
    return event->is_done || event->error.len || event->content_wire.len || event->thinking_wire.len ||
           event->tool_calls;
}

static void take_whole(struct request *req)
{
    struct event event = { 0 };
    enum err err = req->kind->read_line(whole_of(req), &req->parse_arena, &event);
    struct text *out;

    if (err || !says_something(&event)) {
        fail(req, err == ERR_NO_MEMORY ? CAUSE_NO_MEMORY : CAUSE_UPSTREAM);
        return;
    }
    if (event.error.len) {
        take_error(req, &event);
        return;
    }
    req->record.first_token_us = clock_us();
    req->answer.has_tool_calls = event.tool_calls != NULL;
    count_passing(req, &event);
    note_passed(req, &event);
    if (!event.is_done) { /* Ollama stops like that after many equal tokens: a normal stop, its tokens estimated */
        event.is_done = req->is_whole = true;
        event.finish = FINISH_STOP;
        event.prompt_tokens = req->record.prompt_tokens;
        event.completion_tokens = req->record.completion_tokens;
        req->record.finish = SLICE("stop");
    }
    out = reply_open(req);
    req->endpoint->dialect->whole(&req->answer, &event, out);
    if (out->err) {
        fail(req, CAUSE_NO_MEMORY);
        return;
    }
    place_give_back(req, false); /* whoever has his answer and asks again finds his slot free */
    reply_close(req, 200, "application/json");
    relay_give_back(req, true); /* the caller comes first; where it has all of it, this is done already */
}

/* The framing ended cleanly. The last line may lack its line break; a stream may lack its last event: Ollama stops like
 * that after many equal tokens. */
static void finish_stream(struct request *req)
{
    struct burst burst = { .out = &req->house->out };

    text_clear(burst.out);
    if (req->gathered.len && !take_line(req, text_slice(&req->gathered), &burst))
        return;
    if (!req->has_event) {
        fail(req, CAUSE_UPSTREAM);
        return;
    }
    if (!req->is_whole) {
        log_warn("req=%.*s: backend %s ended the stream without its last line, the caller sees a normal stop",
                 (int)req->record.request_id.len, req->record.request_id.at, req->backend->name);
        if (!burst.is_open)
            burst.chunk = reply_chunk_open(req, burst.out);
        req->endpoint->dialect->stream_finish(&req->answer, burst.out);
        req->is_whole = true;
        req->record.finish = SLICE("stop");
    }
    settle_stream(req, &burst);
}

static void on_end(struct borrower *borrower)
{
    struct request *req = request_of(borrower);

    if (is_failed_status(req))
        take_refusal(req);
    else if (req->is_stream)
        finish_stream(req);
    else
        take_whole(req);
}

/* ---- what goes wrong ---- */

static void on_lost(struct borrower *borrower, enum upstream_loss loss, const char *why)
{
    struct request *req = request_of(borrower);
    bool was_silent = upstream_received(req->upstream) == 0;
    bool is_stale = loss == UPSTREAM_HUNG_UP && was_silent && upstream_was_kept(req->upstream);

    if (was_silent && !is_stale && (loss == UPSTREAM_UNREACHABLE || loss == UPSTREAM_HUNG_UP)) {
        backend_failed(req->backend, clock_ms());
        req->house->nudge(req->house->nudge_arg);
    }
    if (loss != UPSTREAM_BAD && loss != UPSTREAM_NO_MEMORY && send_again(req, is_stale)) {
        request_drive(req);
        return;
    }
    req->upstream = NULL;
    log_warn("req=%.*s: backend %.*s: %s, the caller is told", (int)req->record.request_id.len,
             req->record.request_id.at, (int)req->record.backend.len, req->record.backend.at, why);
    fail(req, loss == UPSTREAM_UNREACHABLE ? CAUSE_BACKEND_DOWN
              : loss == UPSTREAM_NO_MEMORY ? CAUSE_NO_MEMORY
                                           : CAUSE_UPSTREAM);
}

/* ---- time ---- */

void relay_set_deadline(struct request *req, int64_t now_ms)
{
    const struct settings *settings = settings_of(req);
    int64_t due_ms = req->last_byte_ms + BACKEND_NO_LIFE_MS;
    int64_t limit_ms = req->has_event ? req->last_byte_ms + settings->stream_idle_timeout_ms
                                      : req->sent_ms + settings->first_token_timeout_ms;
    int64_t beat_ms = heartbeat_due_ms(req);

    if (due_ms <= now_ms)
        due_ms = now_ms + LIFE_AGAIN_MS;
    if (limit_ms < due_ms)
        due_ms = limit_ms;
    if (beat_ms < due_ms)
        due_ms = beat_ms;
    wheel_set(req->house->wheel, &req->deadline, due_ms);
}

void relay_look_at_time(struct request *req, int64_t now_ms)
{
    const struct settings *settings = settings_of(req);

    if (upstream_is_paused(req->upstream))
        req->last_byte_ms = now_ms; /* held back by us: the caller's write_timeout rules */
    if (!req->has_event && now_ms >= req->sent_ms + settings->first_token_timeout_ms) {
        fail(req, CAUSE_FIRST_TOKEN);
        return;
    }
    if (req->has_event && now_ms >= req->last_byte_ms + settings->stream_idle_timeout_ms) {
        fail(req, CAUSE_STREAM_IDLE);
        return;
    }
    if (backend_is_silent(req->backend, req->last_byte_ms, now_ms)) {
        backend_opens(req->backend, now_ms);
        req->house->nudge(req->house->nudge_arg);
        if (send_again(req, false))
            request_drive(req);
        else
            fail(req, CAUSE_BACKEND_DOWN);
        return;
    }
    if (now_ms >= heartbeat_due_ms(req) && !heartbeat_send(req, now_ms))
        return;
    relay_set_deadline(req, now_ms);
}
