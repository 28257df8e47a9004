/*
 * dialect - the APIs that callers speak. Each reads a request's body into the internal form and writes the
 * answer's events in its own shape. It knows nothing of engines. One file a dialect; one table lists them.
 *
 * struct answer holds what one answer's writer must remember; it lives in the request and needs no release.
 * Every writer only appends to `out`; a failed append shows in out->err. Loop thread only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "inference.h"
#include "refusal.h"
#include "text.h"

struct dialect;

enum error_shape { ERROR_SHAPE_OPENAI, ERROR_SHAPE_FLAT };

struct answer {
    const struct dialect *dialect;
    char id[32];                       /* "chatcmpl-" + letters */
    struct slice model;                /* the name the caller used, plain */
    struct slice request_id;           /* for error objects */
    int64_t created_s;                 /* the gateway's clock, one for the whole answer */
    bool strips_model, strips_created; /* response_filter.strip */
    bool is_stream, wants_usage;
    bool is_begun; /* a chunk went out */
    bool has_tool_calls;
    bool is_finished; /* the last chunk went out */
    /* What every chunk begins with, made once, at the first. Without an arena, or memory there, each time. */
    struct slice head;
    struct arena *arena; /* lives as long as the answer; NULL: none */
};

struct dialect {
    const char *name; /* metrics' label: "chat" */
    /* Reads and checks a body. The slices in *ret point into body or arena. False: *ret_refusal says why
     * (CAUSE_INVALID with param, CAUSE_UNSUPPORTED, CAUSE_NO_MEMORY). */
    bool (*read)(struct slice body, struct arena *arena, struct inference *ret, struct refusal *ret_refusal);
    const char *stream_type; /* Content-Type of a stream */
    /* One event of a streamed answer. */
    void (*stream_event)(struct answer *answer, const struct event *event, struct text *out);
    /* The backend ended cleanly without a last event (openai-ollama.md 2.2): finish as a normal stop. */
    void (*stream_finish)(struct answer *answer, struct text *out);
    /* An error after the status went out: one error event; no finish chunk and no [DONE] follow. */
    void (*stream_error)(struct answer *answer, const struct refusal *refusal, struct text *out);
    void (*stream_heartbeat)(struct answer *answer, struct text *out);
    /* The whole answer, not streamed. */
    void (*whole)(struct answer *answer, const struct event *event, struct text *out);
};

extern const struct dialect dialect_chat; /* OpenAI's /v1/chat/completions */

void answer_init(struct answer *answer, const struct dialect *dialect, const struct inference *inference,
                 struct slice request_id, int64_t created_s);

/* The body of an error answer, by shape: behaviour.md 2.2 "Error shapes". */
void refusal_write(const struct refusal *refusal, enum error_shape shape, struct slice request_id, struct text *out);
/* A small friendly page for a browser: 5xx only. */
void refusal_write_page(const struct refusal *refusal, struct slice request_id, struct text *out);
