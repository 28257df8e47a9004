/*
 * refusal - why a caller did not get an answer: one table from cause to status, code, type, advice and text.
 * A value; it lives in the request. Texts follow behaviour.md 2.2: no address, backend name or registry path,
 * and in a message that should not be retried no word or digit run that agents match for retrying
 * (clients.md 2.3). tests/e2e/test_texts.py holds every text against those patterns.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

/*
 * X(name, status, type, code, heals, message). `heals`: asking again later may work; false sends
 * `x-should-retry: false`. A message of NULL is always made by whoever refuses.
 */
#define CAUSES(X)                                                                                                     \
    X(BAD_HTTP, 400, "invalid_request_error", "bad_http", false, "the request is not well-formed HTTP")               \
    X(HEAD_TOO_BIG, 431, "invalid_request_error", "head_too_large", false,                                            \
      "the request's header fields are too large")                                                                    \
    X(HEAD_SLOW, 408, "invalid_request_error", "request_timeout", true, "the request's head took too long to arrive") \
    X(NO_PATH, 404, "invalid_request_error", "not_found", false, "there is nothing at this path")                     \
    X(BAD_METHOD, 405, "invalid_request_error", "method_not_allowed", false, "this path does not take this method")   \
    X(KEY, 401, "invalid_request_error", "invalid_api_key", false, "invalid api key")                                 \
    X(ADDRESS, 403, "invalid_request_error", "address_not_allowed", false,                                            \
      "this key may not be used from this address")                                                                   \
    X(ADDRESS_BUSY, 429, "requests", "too_many_connections", true, "too many requests are open from this address")    \
    X(RATE, 429, "requests", "rate_limit_exceeded", true, NULL)                                                       \
    X(BODY_TOO_BIG, 413, "invalid_request_error", "request_too_large", false, NULL)                                   \
    X(BODY_SLOW, 408, "invalid_request_error", "request_timeout", true, "the request's body took too long to arrive") \
    X(BODY_ENCODING, 415, "invalid_request_error", "unsupported_encoding", false,                                     \
      "a compressed request body is not supported here, send it as it is")                                            \
    X(EXPECTATION, 417, "invalid_request_error", "expectation_failed", false,                                         \
      "only `Expect: 100-continue` is understood")                                                                    \
    X(INVALID, 400, "invalid_request_error", "invalid_request", false, NULL)                                          \
    X(PROMPT_TOO_LONG, 400, "invalid_request_error", "context_length_exceeded", false, NULL)                          \
    X(MODEL_UNKNOWN, 404, "invalid_request_error", "model_not_found", false, NULL)                                    \
    X(MODEL_NOT_ALLOWED, 403, "invalid_request_error", "model_not_allowed", false, "this key may not use this model") \
    X(UNSUPPORTED, 400, "invalid_request_error", "unsupported", false, NULL)                                          \
    X(CONCURRENCY, 429, "requests", "concurrency_limit_exceeded", true,                                               \
      "as many requests of this key are running as may, please try again when one of them has finished")              \
    X(BODY_MEMORY, 503, "server_error", "memory_limit", true,                                                         \
      "too many large requests are open, please try again in a moment")                                               \
    X(QUEUE_FULL, 503, "server_error", "queue_full", true,                                                            \
      "many requests are waiting for this model already, please try again later")                                     \
    X(QUEUE_USER_FULL, 503, "server_error", "queue_full", true,                                                       \
      "your own requests fill your share of the queue for this model, please let some of them finish first")          \
    X(QUEUE_TIMEOUT, 503, "server_error", "queue_timeout", true,                                                      \
      "this request waited too long for its turn at the model, please try again later")                               \
    X(BACKEND_DOWN, 503, "server_error", "backend_unavailable", true,                                                 \
      "the model server is not reachable right now, please try again in a moment")                                    \
    X(BACKEND_BUSY, 429, "requests", "backend_busy", true,                                                            \
      "the model server is busy right now, please try again in a moment")                                             \
    X(FIRST_TOKEN, 504, "server_error", "first_token_timeout", true,                                                  \
      "the model took too long to begin its answer, please try again")                                                \
    X(STREAM_IDLE, 504, "server_error", "stream_idle_timeout", true,                                                  \
      "the model stopped in the middle of its answer, please try again")                                              \
    X(BACKEND_SAYS, 400, "invalid_request_error", "invalid_request", false, NULL)                                     \
    X(OVERFLOW, 400, "invalid_request_error", "context_length_exceeded", false, NULL)                                 \
    X(LOAD_FAILED, 503, "server_error", "model_load_failed", false,                                                   \
      "the model could not be loaded, please tell your administrator")                                                \
    X(UPSTREAM, 502, "server_error", "upstream_error", true,                                                          \
      "the model server gave no usable answer, please try again")                                                     \
    X(NO_MEMORY, 503, "server_error", "out_of_memory", true,                                                          \
      "the gateway is short of memory, please try again in a moment")                                                 \
    X(NO_DESCRIPTOR, 503, "server_error", "out_of_descriptors", true,                                                 \
      "the gateway has too many connections open, please try again in a moment")                                      \
    X(STALE, 503, "server_error", "stale", true,                                                                      \
      "the gateway does not know at the moment who may ask, please try again in a moment")                            \
    X(DRAINING, 503, "server_error", "draining", true, "the gateway is being restarted, please try again in a moment")

enum cause {
    CAUSE_NONE = 0,
#define CAUSE_ENUM(name, status, type, code, heals, message) CAUSE_##name,
    CAUSES(CAUSE_ENUM)
#undef CAUSE_ENUM
        CAUSE_COUNT
};

struct cause_row {
    unsigned status;
    const char *type, *code;
    bool heals;
    const char *message;
};

const struct cause_row *cause_row(enum cause cause);

/* What one caller is told. Zeroed: no refusal. `message` and `param` live in the request's arena or are literals. */
struct refusal {
    enum cause cause;
    unsigned status;       /* 0: as the table says */
    struct slice message;  /* UTF-8, not escaped; empty: as the table says */
    struct slice param;    /* the field complained of; empty: none */
    int64_t retry_after_s; /* 0: none */
};

enum { REFUSAL_MAX_RETRY_AFTER_S = 600 };
/* For retry_after_s: whole seconds, rounded up, so that nobody comes back early; 1 to REFUSAL_MAX_RETRY_AFTER_S. */
int64_t refusal_retry_after_s(int64_t wait_us);

unsigned refusal_status(const struct refusal *refusal);
struct slice refusal_message(const struct refusal *refusal);

/*
 * Would an agent that reads this text send the same request again (clients.md 2.3)? They look for words such as
 * "overloaded" and for runs of digits such as 500 anywhere, also inside other numbers.
 */
bool refusal_text_invites_retry(struct slice text);
/*
 * A number for such a text: 2048 as it is; where that would read as one of those digit runs, parted by
 * thousands (150,000), and where that does too, in pairs (45_00).
 */
void refusal_add_number(struct text *out, uint64_t number);
