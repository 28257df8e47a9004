/* What goes to the caller: heads, whole answers, refusals, chunks of streams. */
#include <stdio.h>

#include "clock.h"
#include "http.h"
#include "parts.h"

enum {
    CHUNK_LINE_BYTES = 8, /* six hexadecimal digits, CR, LF: room left before a chunk and filled in behind it */
    MAX_HEAD = 1024,      /* of a whole answer: the same, left before its body; nothing in a head comes from outside but
                             the request's id, of 64 bytes */
};

/* 1s, 59s, 6m0s: as OpenAI writes them, rounded up. */
static void add_duration(struct text *out, int64_t ms)
{
    int64_t seconds = (ms + 999) / 1000;

    if (seconds >= 60) {
        text_add_i64(out, seconds / 60);
        text_add_char(out, 'm');
    }
    text_add_i64(out, seconds % 60);
    text_add_char(out, 's');
}

static void add_rate(struct request *req, struct text *out)
{
    if (!req->has_rate || !req->rate.limit)
        return;
    text_add_literal(out, "x-ratelimit-limit-requests: ");
    text_add_u64(out, req->rate.limit);
    text_add_literal(out, "\r\nx-ratelimit-remaining-requests: ");
    text_add_u64(out, req->rate.remaining);
    text_add_literal(out, "\r\nx-ratelimit-reset-requests: ");
    add_duration(out, req->rate.reset_ms);
    text_add_literal(out, "\r\n");
}

/* Status line and every field that all answers have; framing and the empty line follow. */
static void add_head(struct request *req, unsigned status, const char *type, struct text *out)
{
    text_add_literal(out, "HTTP/1.1 ");
    text_add_u64(out, status);
    text_add_char(out, ' ');
    text_add_string(out, http_reason(status));
    text_add_literal(out, "\r\nDate: ");
    text_add_slice(out, http_date(clock_wall_ms()));
    text_add_literal(out, "\r\nContent-Type: ");
    text_add_string(out, type);
    text_add_literal(out, "\r\nX-Request-Id: ");
    text_add_slice(out, req->record.request_id);
    text_add_literal(out, "\r\n");
    add_rate(req, out);
    if (req->queue_place) {
        text_add_literal(out, "X-Queue-Position: ");
        text_add_u64(out, req->queue_place);
        text_add_literal(out, "\r\n");
    }
    if (!client_keeps_alive(req->client))
        text_add_literal(out, "Connection: close\r\n");
    else if (!client_is_chunked(req->client)) /* HTTP/1.0 that asked for it */
        text_add_literal(out, "Connection: keep-alive\r\n");
}

void reply_break_off(struct request *req)
{
    struct client *client = req->client;

    req->record.status = 503;
    req->record.why = slice_of(cause_row(CAUSE_NO_MEMORY)->code);
    request_end(req);
    client_drop(client);
}

struct text *reply_open(struct request *req)
{
    struct text *out = &req->house->out;

    text_clear(out);
    if (text_reserve(out, MAX_HEAD))
        out->len = MAX_HEAD;
    return out;
}

/* `head` lacks its framing; the body lies in the house's `out` behind room for it. */
static void send_whole(struct request *req, struct text *head)
{
    struct client *client = req->client;
    struct text *out = &req->house->out;
    size_t body_bytes = out->err ? 0 : out->len - MAX_HEAD;

    text_add_literal(head, "Content-Length: ");
    text_add_u64(head, body_bytes);
    text_add_literal(head, "\r\n\r\n");
    if (out->err || head->err) {
        reply_break_off(req);
        return;
    }
    req->is_committed = true;
    memcpy(out->at + MAX_HEAD - head->len, head->at, head->len);
    if (client_wants_no_body(client))
        body_bytes = 0;
    client_write(client, (struct slice){ out->at + MAX_HEAD - head->len, head->len + body_bytes });
    client_end(client);
}

void reply_close(struct request *req, unsigned status, const char *type)
{
    char memory[MAX_HEAD + 1] __attribute__((uninitialized)); /* written before it is read */
    struct text head = text_over(memory, sizeof memory);

    req->record.status = status;
    (void)request_go(req, REQUEST_SETTLING);
    add_head(req, status, type, &head);
    send_whole(req, &head);
}

/* ---- refusals ---- */

static void complete_rate_refusal(struct request *req)
{
    const struct settings *settings = settings_of(req);
    int64_t wait_ms = settings->retry_after == RETRY_AFTER_EXACT ? req->rate.reset_ms : settings->window_ms;
    struct text sentence;

    req->refusal.retry_after_s = (wait_ms + 999) / 1000;
    text_init(&sentence, 256);
    text_add_literal(&sentence, "rate limit reached: at most ");
    text_add_u64(&sentence, req->rate.limit);
    text_add_literal(&sentence, " requests in ");
    text_add_i64(&sentence, settings->window_ms / 1000);
    text_add_literal(&sentence, " seconds");
    req->refusal.message = arena_copy(&req->arena, text_slice(&sentence));
    text_release(&sentence);
}

/* What the cause alone does not say. */
static void complete_refusal(struct request *req)
{
    struct refusal *refusal = &req->refusal;

    if (refusal->cause == CAUSE_RATE)
        complete_rate_refusal(req);
    if (refusal->cause == CAUSE_CONCURRENCY)
        refusal->retry_after_s = 1;
    if (refusal_status(refusal) == 503 && cause_row(refusal->cause)->heals && !refusal->retry_after_s)
        refusal->retry_after_s = 2; /* a breaker looks twice a second whether the backend is back */
    if (!refusal_message(refusal).len)
        refusal->message = SLICE("the request was refused");
}

static void add_refusal_fields(struct request *req, struct text *out)
{
    const struct refusal *refusal = &req->refusal;

    if (refusal->cause == CAUSE_BAD_METHOD) {
        text_add_literal(out, "Allow: ");
        text_add_string(out, req->allow);
        text_add_literal(out, "\r\n");
    }
    if (refusal->cause == CAUSE_KEY)
        text_add_literal(out, "WWW-Authenticate: Bearer\r\n");
    if (refusal->retry_after_s) {
        text_add_literal(out, "Retry-After: ");
        text_add_i64(out, refusal->retry_after_s);
        text_add_literal(out, "\r\n");
    }
    if (!cause_row(refusal->cause)->heals)
        text_add_literal(out, "x-should-retry: false\r\n");
}

static void refuse_whole(struct request *req)
{
    unsigned status = refusal_status(&req->refusal);
    bool as_page = req->wants_page && status >= 500;
    char memory[MAX_HEAD + 1] __attribute__((uninitialized)); /* written before it is read */
    struct text head = text_over(memory, sizeof memory);
    struct text *out = reply_open(req);

    if (as_page)
        refusal_write_page(&req->refusal, req->record.request_id, out);
    else
        refusal_write(&req->refusal, req->error_shape, req->record.request_id, out);
    req->record.status = status;
    (void)request_go(req, REQUEST_SETTLING);
    add_head(req, status, as_page ? "text/html; charset=utf-8" : "application/json", &head);
    add_refusal_fields(req, &head);
    send_whole(req, &head);
}

/* The status went out already: one error event, and the connection ends (row 21). */
static void refuse_in_stream(struct request *req)
{
    struct text *out = &req->house->out;
    size_t from;

    text_clear(out);
    from = reply_chunk_open(req, out);
    req->endpoint->dialect->stream_error(&req->answer, &req->refusal, out);
    reply_chunk_close(req, out, from);
    req->record.status = refusal_status(&req->refusal);
    client_must_close(req->client);
    (void)request_go(req, REQUEST_SETTLING);
    reply_stream_end(req, out);
}

void reply_refusal(struct request *req)
{
    relay_give_back(req, false);
    complete_refusal(req);
    req->record.why = slice_of(cause_row(req->refusal.cause)->code);
    if (req->is_committed)
        refuse_in_stream(req);
    else
        refuse_whole(req);
}

/* ---- streams ---- */

void reply_begin_stream(struct request *req, struct text *out)
{
    req->record.status = 200;
    req->is_committed = true;
    if (!client_is_chunked(req->client))
        client_must_close(req->client); /* HTTP/1.0: the end of the connection is the end of the answer */
    add_head(req, 200, req->endpoint->dialect->stream_type, out);
    text_add_literal(out, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    if (client_is_chunked(req->client))
        text_add_literal(out, "Transfer-Encoding: chunked\r\n");
    text_add_literal(out, "\r\n");
}

size_t reply_chunk_open(struct request *req, struct text *out)
{
    if (client_is_chunked(req->client))
        text_add_literal(out, "000000\r\n");
    return out->len;
}

void reply_chunk_close(struct request *req, struct text *out, size_t from)
{
    static const char digits[] = "0123456789abcdef";
    size_t len = out->len - from;

    if (!client_is_chunked(req->client) || out->err)
        return;
    if (!len) {
        out->len -= CHUNK_LINE_BYTES; /* an empty chunk would end the stream */
        return;
    }
    if (len > 0xffffff) { /* more than six digits hold: the line is made anew */
        char line[24];
        int bytes = snprintf(line, sizeof line, "%zx\r\n", len);
        size_t more = (size_t)bytes - CHUNK_LINE_BYTES;
        if (!text_reserve(out, more))
            return;
        memmove(out->at + from + more, out->at + from, len);
        memcpy(out->at + from - CHUNK_LINE_BYTES, line, (size_t)bytes);
        out->len += more;
    } else {
        for (unsigned i = 0; i < 6; i++)
            out->at[from - CHUNK_LINE_BYTES + i] = digits[len >> (20 - 4 * i) & 15];
    }
    text_add_literal(out, "\r\n");
}

void reply_stream_end(struct request *req, struct text *out)
{
    struct client *client = req->client;

    if (client_is_chunked(client))
        text_add_literal(out, "0\r\n\r\n");
    if (out->err) {
        reply_break_off(req);
        return;
    }
    client_write_last(client, text_slice(out));
}
