/*
 * Signs of life to the caller of a stream while there is nothing else to say: in the queue, while the model loads or
 * reads the prompt, between two tokens. The first commits the status.
 */
#include "metrics.h"
#include "parts.h"

int64_t heartbeat_due_ms(const struct request *req)
{
    const struct settings *settings = settings_of(req);
    bool is_failing = req->backend_status && req->backend_status != 200;

    if (!req->is_stream || is_failing)
        return INT64_MAX;
    return req->is_committed ? req->last_write_ms + settings->heartbeat_interval_ms
                             : req->entered_us / 1000 + settings->commit_after_ms;
}

bool heartbeat_send(struct request *req, int64_t now_ms)
{
    struct text *out = &req->house->out;
    bool is_first = !req->is_committed;
    size_t chunk;

    text_clear(out);
    if (is_first)
        reply_begin_stream(req, out);
    chunk = reply_chunk_open(req, out);
    req->endpoint->dialect->stream_heartbeat(&req->answer, out);
    reply_chunk_close(req, out, chunk);
    if (out->err) {
        reply_break_off(req);
        return false;
    }
    req->last_write_ms = now_ms;
    metrics_count(req->house->metrics, METRIC_HEARTBEATS, 1);
    if (!client_unsent(req->client) || is_first) /* a caller that does not read needs none */
        client_write(req->client, text_slice(out));
    return true;
}
