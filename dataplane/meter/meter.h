/*
 * meter - the record of one request: filled in as the request goes, closed once at its end, where it becomes one log
 * line (behaviour.md 2.4) and one entry in the metrics. Lives in the request; slices point to what lives as long as the
 * request.
 * Prompts, answers and secrets have no field here. Loop thread only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cidr.h"
#include "text.h"

struct metrics_shard;

struct record {
    struct slice user;      /* as shown: alice, frontend/alice; empty: unknown, shown as !ADDRESS */
    struct address address; /* the real client's */
    struct slice request_id;
    struct slice key;          /* public id or the entry's name; empty: "-" */
    struct slice method, path; /* path without query; cut and cleaned when logged: no space, no control */
    unsigned status;           /* 0: the caller left before an answer began, logged as 499 with why=caller_left */
    struct slice why;          /* the refusal's code; empty: none */
    struct slice dialect;      /* metrics label */
    struct slice model;        /* as the caller named it; empty: none */
    struct slice model_label;  /* for metrics: a known name or "other" */
    struct slice backend;
    bool was_resent; /* to another backend, after the first one had failed it */
    bool is_stream;
    bool has_prompt; /* prompt_chars is known */
    uint64_t prompt_chars;
    bool has_tokens, is_estimated;
    uint64_t prompt_tokens, completion_tokens;
    bool has_queue;         /* it asked a queue for a slot, and got one or not */
    int64_t queue_us;       /* how long it waited there in all; 0: not at all. Shown as queue_ms, rounded down */
    int64_t began_us;       /* monotonic: first byte of the request */
    int64_t first_token_us; /* first event of the answer (0: never); shown as ttft_ms, counted from began_us */
    struct slice finish;    /* stop, length, tool_calls; empty: none */
};

/* One line to the log (below 1 us, no allocation), one count in the metrics. */
void record_close(struct record *record, struct metrics_shard *shard, int64_t now_us);
/* The line alone, for tests. */
void record_format(const struct record *record, int64_t now_us, int64_t wall_ms, bool is_json, struct text *out);
/*
 * A name from outside as it may stand in a log field: controls, space, `/`, `=`, `"` and bytes that are not UTF-8
 * become `_`, cut at 128 bytes on a character (behaviour.md 2.5).
 */
void record_clean_name(struct slice name, struct text *out);
