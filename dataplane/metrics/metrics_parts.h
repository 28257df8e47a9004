/*
 * metrics_parts - what the files of this room share; nobody else includes it.
 * metrics.c: counting. names.c: which label sets there are. print.c: the text for Prometheus; gauges.c: what of it is
 * read from elsewhere.
 *
 * A label set gets its number once in the process, from the names (a lock, but only when a shard meets it for the first
 * time); a shard keeps its own cells by that number and is their only writer, so that counting takes no lock and a
 * scrape reads them as they stand.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "metrics.h"

enum {
    MAX_REQUEST_SETS = 512,
    MAX_MODELS = 256, /* two directions of tokens each: 512 series */
    MAX_LABELS = 5,
    LABEL_BYTES = 160, /* longer ones are cut */
    STATUS_CLASSES = 6,
    BUCKETS = 18 /* the last is +Inf */
};

enum request_label { LABEL_DIALECT, LABEL_MODEL, LABEL_BACKEND, LABEL_STATUS, LABEL_REASON };

/* One combination of label values; never changes, lives as long as the metrics. */
struct label_set {
    uint64_t hash;
    struct slice labels[MAX_LABELS]; /* their bytes follow the struct; cleaned, not yet escaped */
};

/* Label sets of one kind and their numbers. */
struct names {
    unsigned label_count;
    unsigned max;
    unsigned folds_at;  /* from this many on, the model becomes "other" */
    unsigned strict_at; /* from this many on, only status and "other" are told apart */
    _Atomic unsigned count;
    struct label_set *sets[MAX_REQUEST_SETS];
    /* For when there is no memory: a status, and "other" in all else. No request may go uncounted. */
    struct label_set reserve[STATUS_CLASSES];
    unsigned reserve_used;
};

/* What one thread has found out about numbers, so that it need not ask twice. Open addressing; 0: free. */
struct known {
    uint64_t hash[MAX_REQUEST_SETS * 2];
    uint16_t number[MAX_REQUEST_SETS * 2]; /* plus one */
    unsigned count;
};

struct histogram {
    _Atomic uint64_t buckets[BUCKETS]; /* each for itself; added up when printed */
    _Atomic uint64_t sum_us;
};

struct model_cells {
    struct histogram total, first_token, waits[METRICS_CLASSES];
    _Atomic uint64_t prompt_tokens, completion_tokens;
};

struct metrics_shard {
    struct metrics_shard *next;
    struct metrics *metrics;
    struct known known_requests, known_models;
    _Atomic uint64_t requests[MAX_REQUEST_SETS];
    _Atomic(struct model_cells *) models[MAX_MODELS];
    _Atomic uint64_t counters[METRIC_COUNTERS];
    _Atomic int64_t in_flight;
};

struct metrics {
    pthread_mutex_t lock; /* adding to names and shards */
    struct names requests, models;
    _Atomic(struct metrics_shard *) shards;
};

#define PREFIX "qwen_gateway_"

extern const int64_t bucket_us[BUCKETS - 1];

void names_init(struct names *names, unsigned label_count, unsigned max);
void names_release(struct names *names);
/* The number of this combination, or of the one it is folded into; -1: no memory. */
int names_number(struct metrics *metrics, struct names *names, struct known *known, const struct slice *labels);

/* The text's parts: HELP and TYPE; a label with its value escaped; a family of one series without labels. */
void add_family(struct text *out, const char *name, const char *type, const char *help);
void add_label(struct text *out, const char *name, struct slice value);
void print_one(struct text *out, const char *name, const char *type, const char *help, long long number);
extern const char *const class_words[METRICS_CLASSES];

void print_gauges(const struct metrics_gauges *gauges, struct text *out);
