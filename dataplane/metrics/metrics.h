/*
 * metrics - counters and histograms, and their text for Prometheus (exposition format 0.0.4). Each worker owns a shard
 * and is its only writer, without a lock; a scrape, from any thread, adds them up. Names: qwen_gateway_*; units in the
 * names; labels are bounded: models are the configured or listed names or "other", never a key, user or path. At most
 * 512 series a family; what is beyond is counted as model "other".
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct metrics;       /* the process's */
struct metrics_shard; /* one thread's */

struct metrics *metrics_new(void);
void metrics_free(struct metrics *metrics);
/* Lives until metrics_free(); what a worker counted stays counted after it ends. */
struct metrics_shard *metrics_shard_new(struct metrics *metrics);

/* One finished request. Empty slices become label value "" (dialect, model, backend, reason). */
struct metrics_request {
    struct slice dialect; /* "chat", "models", "health" ..., "" before it is known */
    struct slice model;   /* normalised, or "other"; "" when none was asked for */
    struct slice backend;
    struct slice reason; /* the refusal's code; "" when served */
    unsigned status;     /* becomes the label status="2xx"; 499 (caller left) is "4xx" with reason caller_left */
    int64_t total_us;
    int64_t first_token_us; /* -1: none came */
    uint64_t prompt_tokens, completion_tokens;
};
void metrics_count_request(struct metrics_shard *shard, const struct metrics_request *request);

enum metrics_class { METRICS_INTERACTIVE, METRICS_BATCH, METRICS_CLASSES };

/* One request that a queue has let go to a backend. */
struct metrics_wait {
    struct slice model; /* the queue's: as backends call it, normalised */
    bool is_batch;
    int64_t wait_us; /* 0: it did not wait */
};
void metrics_count_wait(struct metrics_shard *shard, const struct metrics_wait *wait);

/* Plain counters and gauges, one table (X macro in the .c: name, help, type, label). */
enum metrics_counter {
    METRIC_CONNECTIONS_ACCEPTED,
    METRIC_CONNECTIONS_REFUSED_WHITELIST,
    METRIC_CONNECTIONS_REFUSED_TOTAL_CAP,
    METRIC_CONNECTIONS_REFUSED_ADDRESS_CAP,
    METRIC_CONNECTIONS_CROWDED_OUT,
    METRIC_BACKEND_CONNECTS,
    METRIC_BACKEND_REUSES,
    METRIC_BACKEND_RESENDS,           /* to the same backend */
    METRIC_BACKEND_RESENDS_ELSEWHERE, /* to another one */
    METRIC_QUEUE_ABANDONED,           /* the caller left while it waited */
    METRIC_CALLERS_LEFT,
    METRIC_HEARTBEATS,
    METRIC_BREAKER_OPENED,
    METRIC_RELOADS_OK,
    METRIC_RELOADS_REFUSED,
    METRIC_COUNTERS
};
void metrics_count(struct metrics_shard *shard, enum metrics_counter counter, uint64_t by);

/* In flight now, over all shards: requests being served. */
void metrics_in_flight(struct metrics_shard *shard, int by);
unsigned metrics_in_flight_now(const struct metrics *metrics);

/* What a backend is doing: X(name, word). */
#define METRICS_STATES(X)                                                                  \
    X(STARTING, "starting") /* not heard of yet */                                         \
    X(WARMING, "warming")   /* it answers, and loads its models before it takes callers */ \
    X(UP, "up")                                                                            \
    X(RECOVERING, "recovering") /* up, with fewer slots than it has, since it was away */  \
    X(DRAINING, "draining")     /* finishes what runs and takes nothing new */             \
    X(DOWN, "down")             /* its breaker is open or half-open */

enum metrics_state {
#define METRICS_STATE_ENUM(name, word) METRICS_##name,
    METRICS_STATES(METRICS_STATE_ENUM)
#undef METRICS_STATE_ENUM
        METRICS_STATE_COUNT
};

/* What is read from elsewhere at the moment of a scrape. Names and models are printed as they are, escaped. */
struct metrics_gauges {
    unsigned connections_open;
    uint64_t body_bytes, log_dropped;
    const struct metrics_backend {
        struct slice name;
        bool is_up;
        unsigned running;
        enum metrics_state state;
        unsigned slots;  /* a model; 0: not limited */
        unsigned weight; /* 0: standby */
    } * backends;
    unsigned backend_count;
    const struct metrics_queue {
        struct slice model; /* as in metrics_wait */
        unsigned waiting[METRICS_CLASSES], users_waiting, running;
        uint64_t granted[METRICS_CLASSES], affinity_hits, affinity_tries; /* so far */
    } * queues;
    unsigned queue_count;
    const struct metrics_residence {
        struct slice backend, model;
        bool is_resident;
    } * residences; /* only what is known */
    unsigned residence_count;
    const struct metrics_finding {
        struct slice backend, model, word;
    } * findings; /* those that hold now, none twice */
    unsigned finding_count;
    const struct metrics_control {
        bool is_up, is_stale;
        int64_t heard_ms; /* ago; -1: never */
        uint64_t held, applied, apply_errors, loads_lost, keys, journal_bytes;
    } * control; /* NULL: there is none */
    struct slice version;
    int64_t started_s; /* wall clock */
    bool is_draining;
};
/* Buckets of both histograms: 0.005 ... 600 s. */
void metrics_print(struct metrics *metrics, const struct metrics_gauges *gauges, struct text *out);
