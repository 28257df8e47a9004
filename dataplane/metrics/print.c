/* Prometheus's text, exposition format 0.0.4: each family once, HELP and TYPE before its series. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "metrics_parts.h"

/* counter, family, label with its value, help. Rows of one family stand together. */
#define COUNTERS(X)                                                                                             \
    X(CONNECTIONS_ACCEPTED, "connections_accepted_total", "", "Connections accepted.")                          \
    X(CONNECTIONS_REFUSED_WHITELIST, "connections_refused_total", "reason=\"whitelist\"",                       \
      "Connections closed before a byte was read.")                                                             \
    X(CONNECTIONS_REFUSED_TOTAL_CAP, "connections_refused_total", "reason=\"total_cap\"", "")                   \
    X(CONNECTIONS_REFUSED_ADDRESS_CAP, "connections_refused_total", "reason=\"address_cap\"", "")               \
    X(CONNECTIONS_CROWDED_OUT, "connections_crowded_out_total", "",                                             \
      "Connections that kept the gateway waiting, closed to make room for others.")                             \
    X(BACKEND_CONNECTS, "backend_connects_total", "", "Connections opened to backends.")                        \
    X(BACKEND_REUSES, "backend_reuses_total", "", "Requests sent over a kept connection to a backend.")         \
    X(BACKEND_RESENDS, "backend_resends_total", "to=\"same\"",                                                  \
      "Requests sent a second time after the first attempt was lost.")                                          \
    X(BACKEND_RESENDS_ELSEWHERE, "backend_resends_total", "to=\"another\"", "")                                 \
    X(QUEUE_ABANDONED, "queue_abandoned_total", "", "Requests whose caller left while they waited for a slot.") \
    X(CALLERS_LEFT, "callers_left_total", "", "Requests whose connection ended before the answer.")             \
    X(HEARTBEATS, "heartbeats_total", "", "Signs of life sent to callers who wait for the model.")              \
    X(BREAKER_OPENED, "breaker_opened_total", "", "Times a backend was found unavailable.")                     \
    X(RELOADS_OK, "reloads_total", "result=\"ok\"", "Attempts to read the configuration again.")                \
    X(RELOADS_REFUSED, "reloads_total", "result=\"refused\"", "")

static const struct {
    const char *family, *label, *help;
} counters[METRIC_COUNTERS] = {
#define COUNTER_ROW(name, family, label, help) [METRIC_##name] = { family, label, help },
    COUNTERS(COUNTER_ROW)
#undef COUNTER_ROW
};

const char *const class_words[METRICS_CLASSES] = { "interactive", "batch" };

void add_family(struct text *out, const char *name, const char *type, const char *help)
{
    text_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_escaped(struct text *out, struct slice value)
{
    for (size_t i = 0; i < value.len; i++) {
        char c = value.at[i];
        if (c == '\n')
            text_add_literal(out, "\\n");
        else {
            if (c == '"' || c == '\\')
                text_add_char(out, '\\');
            text_add_char(out, c);
        }
    }
}

void add_label(struct text *out, const char *name, struct slice value)
{
    text_add_string(out, name);
    text_add_literal(out, "=\"");
    add_escaped(out, value);
    text_add_char(out, '"');
}

static void add_seconds(struct text *out, uint64_t us)
{
    text_printf(out, "%llu.%06llu", (unsigned long long)(us / 1000000), (unsigned long long)(us % 1000000));
}

static uint64_t look(const _Atomic uint64_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

static const struct metrics_shard *first_shard(const struct metrics *metrics)
{
    return atomic_load_explicit(&metrics->shards, memory_order_acquire);
}

static void print_requests(struct metrics *metrics, struct text *out)
{
    static const char *const names[MAX_LABELS] = { "dialect", "model", "backend", "status", "reason" };
    unsigned count = atomic_load_explicit(&metrics->requests.count, memory_order_acquire);

    add_family(out, PREFIX "requests_total", "counter", "Requests finished, refused ones too.");
    for (unsigned i = 0; i < count; i++) {
        uint64_t total = 0;
        for (const struct metrics_shard *shard = first_shard(metrics); shard; shard = shard->next)
            total += look(&shard->requests[i]);
        text_add_literal(out, PREFIX "requests_total");
        for (unsigned label = 0; label < MAX_LABELS; label++) {
            text_add_char(out, label ? ',' : '{');
            add_label(out, names[label], metrics->requests.sets[i]->labels[label]);
        }
        text_printf(out, "} %llu\n", (unsigned long long)total);
    }
}

struct histogram_sum {
    uint64_t buckets[BUCKETS];
    uint64_t sum_us;
};

static void histogram_collect(struct histogram_sum *sum, const struct histogram *histogram)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        sum->buckets[i] += look(&histogram->buckets[i]);
    sum->sum_us += look(&histogram->sum_us);
}

/* One model's figures over all shards. */
struct model_sum {
    struct histogram_sum total, first_token, waits[METRICS_CLASSES];
    uint64_t prompt_tokens, completion_tokens;
};

static void model_collect(struct metrics *metrics, unsigned number, struct model_sum *ret_sum)
{
    *ret_sum = (struct model_sum){ 0 };
    for (const struct metrics_shard *shard = first_shard(metrics); shard; shard = shard->next) {
        const struct model_cells *cells = atomic_load_explicit(&shard->models[number], memory_order_acquire);
        if (!cells)
            continue;
        histogram_collect(&ret_sum->total, &cells->total);
        histogram_collect(&ret_sum->first_token, &cells->first_token);
        for (unsigned which = 0; which < METRICS_CLASSES; which++)
            histogram_collect(&ret_sum->waits[which], &cells->waits[which]);
        ret_sum->prompt_tokens += look(&cells->prompt_tokens);
        ret_sum->completion_tokens += look(&cells->completion_tokens);
    }
}

static uint64_t count_of(const struct histogram_sum *sum)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < BUCKETS; i++)
        count += sum->buckets[i];
    return count;
}

/* The count is the buckets' sum, so that the two agree while requests are being counted. */
static void print_histogram(struct text *out, const char *name, struct slice labels, const struct histogram_sum *sum)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < BUCKETS; i++) {
        count += sum->buckets[i];
        text_printf(out, "%s_bucket{", name);
        text_add_slice(out, labels);
        if (i < BUCKETS - 1)
            text_printf(out, ",le=\"%g\"} %llu\n", (double)bucket_us[i] / 1e6, (unsigned long long)count);
        else
            text_printf(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)count);
    }
    text_printf(out, "%s_sum{", name);
    text_add_slice(out, labels);
    text_add_literal(out, "} ");
    add_seconds(out, sum->sum_us);
    text_printf(out, "\n%s_count{", name);
    text_add_slice(out, labels);
    text_printf(out, "} %llu\n", (unsigned long long)count);
}

static void print_tokens(struct text *out, struct slice labels, const char *direction, uint64_t tokens)
{
    text_add_literal(out, PREFIX "tokens_total{");
    text_add_slice(out, labels);
    text_printf(out, ",direction=\"%s\"} %llu\n", direction, (unsigned long long)tokens);
}

/* A class in which nobody has waited yet has no series. */
static void print_waits(struct text *out, struct text *labels, const struct model_sum *sum)
{
    size_t model_bytes = labels->len;

    for (unsigned which = 0; which < METRICS_CLASSES; which++) {
        if (!count_of(&sum->waits[which]))
            continue;
        labels->len = model_bytes;
        text_printf(labels, ",class=\"%s\"", class_words[which]);
        print_histogram(out, PREFIX "queue_wait_seconds", text_slice(labels), &sum->waits[which]);
    }
}

enum model_family { MODEL_TOTAL, MODEL_FIRST_TOKEN, MODEL_TOKENS, MODEL_WAITS, MODEL_FAMILIES };

static const struct {
    const char *name, *type, *help;
} model_families[MODEL_FAMILIES] = {
    [MODEL_TOTAL] = { PREFIX "request_seconds", "histogram", "From a request's first byte to its answer's last." },
    [MODEL_FIRST_TOKEN] = { PREFIX "first_token_seconds", "histogram",
                            "From a request's first byte to its answer's first token." },
    [MODEL_TOKENS] = { PREFIX "tokens_total", "counter", "Tokens read (prompt) and written (completion) by models." },
    [MODEL_WAITS] = { PREFIX "queue_wait_seconds", "histogram",
                      "How long requests that were given a slot had waited for it; 0 for those that found one." },
};

static void print_model(struct text *out, enum model_family family, struct slice model, const struct model_sum *sum)
{
    char memory[2 * LABEL_BYTES + 64]; /* a label's bytes are two each when all are escaped */
    struct text labels = text_over(memory, sizeof memory);

    add_label(&labels, "model", model);
    if (family == MODEL_WAITS)
        print_waits(out, &labels, sum);
    else if (!count_of(&sum->total))
        return; /* known by its queue only */
    else if (family == MODEL_TOTAL)
        print_histogram(out, model_families[family].name, text_slice(&labels), &sum->total);
    else if (family == MODEL_FIRST_TOKEN)
        print_histogram(out, model_families[family].name, text_slice(&labels), &sum->first_token);
    else {
        print_tokens(out, text_slice(&labels), "prompt", sum->prompt_tokens);
        print_tokens(out, text_slice(&labels), "completion", sum->completion_tokens);
    }
}

static void print_models(struct metrics *metrics, struct text *out)
{
    unsigned count = atomic_load_explicit(&metrics->models.count, memory_order_acquire);

    for (unsigned family = 0; family < MODEL_FAMILIES; family++) {
        add_family(out, model_families[family].name, model_families[family].type, model_families[family].help);
        for (unsigned i = 0; i < count; i++) {
            struct model_sum sum;
            model_collect(metrics, i, &sum);
            print_model(out, (enum model_family)family, metrics->models.sets[i]->labels[0], &sum);
        }
    }
}

static void print_counters(struct metrics *metrics, struct text *out)
{
    for (unsigned i = 0; i < METRIC_COUNTERS; i++) {
        char name[96];
        uint64_t total = 0;
        for (const struct metrics_shard *shard = first_shard(metrics); shard; shard = shard->next)
            total += look(&shard->counters[i]);
        (void)snprintf(name, sizeof name, PREFIX "%s", counters[i].family);
        if (i == 0 || strcmp(counters[i].family, counters[i - 1].family) != 0)
            add_family(out, name, "counter", counters[i].help);
        text_printf(out, counters[i].label[0] ? "%s{%s} %llu\n" : "%s%s %llu\n", name, counters[i].label,
                    (unsigned long long)total);
    }
}

void print_one(struct text *out, const char *name, const char *type, const char *help, long long number)
{
    add_family(out, name, type, help);
    text_printf(out, "%s %lld\n", name, number);
}

unsigned metrics_in_flight_now(const struct metrics *metrics)
{
    long long total = 0;

    for (const struct metrics_shard *shard = first_shard(metrics); shard; shard = shard->next)
        total += atomic_load_explicit(&shard->in_flight, memory_order_relaxed);
    return total > 0 ? (unsigned)total : 0; /* shards are looked at one after the other */
}

static long long resident_bytes(void)
{
    long long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");

    if (!statm)
        return 0;
    if (fscanf(statm, "%*s %lld", &pages) != 1)
        pages = 0;
    (void)fclose(statm);
    return pages * sysconf(_SC_PAGESIZE);
}

static long long open_descriptors(void)
{
    long long count = -1; /* the one that reads the folder */
    DIR *folder = opendir("/proc/self/fd");
    const struct dirent *entry;

    if (!folder)
        return 0;
    while ((entry = readdir(folder)))
        count += entry->d_name[0] != '.';
    (void)closedir(folder);
    return count;
}

static void print_process(struct text *out)
{
    struct rusage usage = { 0 };
    struct timeval spent;

    print_one(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident_bytes());
    print_one(out, "process_open_fds", "gauge", "Number of open file descriptors.", open_descriptors());
    (void)getrusage(RUSAGE_SELF, &usage);
    timeradd(&usage.ru_utime, &usage.ru_stime, &spent);
    add_family(out, "process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
    text_add_literal(out, "process_cpu_seconds_total ");
    add_seconds(out, (uint64_t)spent.tv_sec * 1000000 + (uint64_t)spent.tv_usec);
    text_add_char(out, '\n');
}

void metrics_print(struct metrics *metrics, const struct metrics_gauges *gauges, struct text *out)
{
    print_requests(metrics, out);
    print_models(metrics, out);
    print_counters(metrics, out);
    print_one(out, PREFIX "in_flight", "gauge", "Requests being served now.", metrics_in_flight_now(metrics));
    print_gauges(gauges, out);
    print_process(out);
}
