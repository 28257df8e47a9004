#include "traffic.h"

#include <assert.h>
#include <stdlib.h>

#include "digest.h"
#include "json.h"
#include "window.h"

enum { BUCKETS = 1024 }; /* a power of two */

/* A model or a user, by name. */
struct entry {
    struct entry *next;
    struct window window;
    uint64_t running, waiting; /* of a model: on all gateways */
    unsigned shares;
    uint8_t name_len;
    char name[CODEC_MAX_NAME];
};

struct table {
    struct entry *buckets[BUCKETS];
    unsigned count, max;
};

/* What one gateway does with one model. */
struct share {
    struct entry *model;
    uint32_t running, waiting;
};

struct backend {
    uint8_t name_len;
    bool is_up;
    uint32_t running, waiting;
    char name[CODEC_MAX_NAME];
};

struct traffic_source {
    struct traffic *traffic;
    uint8_t instance_len;
    uint8_t instance[CODEC_ID_BYTES];
    uint64_t sequence;
    uint32_t running, waiting;
    struct share *shares;
    size_t share_count, share_room;
    struct backend *backends;
    size_t backend_count;
};

struct traffic {
    struct traffic_options options;
    uint64_t seed[2];
    struct table models, users;
    unsigned sources;
};

/* --- by name --------------------------------------------------------------------------------------------- */

static struct entry **place_of(struct traffic *traffic, struct table *table, struct slice name)
{
    struct entry **place = &table->buckets[slice_hash(traffic->seed, name) & (BUCKETS - 1)];

    while (*place && !slice_is((struct slice){ (*place)->name, (*place)->name_len }, name))
        place = &(*place)->next;
    return place;
}

/* Nothing runs there, and nothing has happened for a while. */
static void table_sweep(struct table *table, int64_t number)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct entry **place = &table->buckets[i]; *place;) {
            struct entry *entry = *place;
            if (entry->shares || !window_is_empty(&entry->window, number)) {
                place = &entry->next;
                continue;
            }
            *place = entry->next;
            window_release(&entry->window);
            free(entry);
            table->count--;
        }
}

/* NULL: no memory. */
static struct entry *table_find(struct traffic *traffic, struct table *table, struct slice name, int64_t number)
{
    struct entry **place = place_of(traffic, table, name), *entry;

    if (*place)
        return *place;
    if (table->count >= table->max)
        table_sweep(table, number);
    if (table->count >= table->max) {
        name = SLICE("other");
        if (*(place = place_of(traffic, table, name)))
            return *place;
    }
    place = place_of(traffic, table, name); /* sweeping may have moved it */
    entry = calloc(1, sizeof *entry);
    if (!entry)
        return NULL;
    memcpy(entry->name, name.at, name.len);
    entry->name_len = (uint8_t)name.len;
    *place = entry;
    table->count++;
    return entry;
}

static void table_release(struct table *table)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct entry *entry = table->buckets[i], *next; entry; entry = next) {
            next = entry->next;
            window_release(&entry->window);
            free(entry);
        }
}

struct traffic *traffic_new(const struct traffic_options *options)
{
    struct traffic *traffic = calloc(1, sizeof *traffic);

    if (!traffic)
        return NULL;
    traffic->options = *options;
    traffic->models.max = options->max_models;
    traffic->users.max = options->max_users;
    random_bytes(traffic->seed, sizeof traffic->seed);
    traffic->seed[1] |= 1;
    return traffic;
}

struct traffic *traffic_free(struct traffic *traffic)
{
    if (!traffic)
        return NULL;
    assert(traffic->sources == 0);
    table_release(&traffic->models);
    table_release(&traffic->users);
    free(traffic);
    return NULL;
}

int64_t traffic_window_ms(const struct traffic *traffic)
{
    return traffic->options.window_ms;
}

static int64_t slot_number(const struct traffic *traffic, int64_t now_ms)
{
    return now_ms / (traffic->options.window_ms / WINDOW_SLOTS) + WINDOW_SLOTS; /* never 0 */
}

/* --- a gateway ------------------------------------------------------------------------------------------- */

struct traffic_source *traffic_source_new(struct traffic *traffic)
{
    struct traffic_source *source = calloc(1, sizeof *source);

    if (!source)
        return NULL;
    source->traffic = traffic;
    traffic->sources++;
    return source;
}

void traffic_source_silent(struct traffic_source *source)
{
    for (size_t i = 0; i < source->share_count; i++) {
        struct share *share = &source->shares[i];
        share->model->running -= share->running;
        share->model->waiting -= share->waiting;
        share->model->shares--;
    }
    source->share_count = source->backend_count = 0;
    source->running = source->waiting = 0;
}

struct traffic_source *traffic_source_free(struct traffic_source *source)
{
    if (!source)
        return NULL;
    traffic_source_silent(source);
    source->traffic->sources--;
    free(source->shares);
    free(source->backends);
    free(source);
    return NULL;
}

static struct share *share_of(struct traffic_source *source, struct entry *model)
{
    for (size_t i = 0; i < source->share_count; i++)
        if (source->shares[i].model == model)
            return &source->shares[i];
    if (source->share_count == source->share_room) {
        size_t room = source->share_room ? 2 * source->share_room : 8;
        struct share *shares = reallocarray(source->shares, room, sizeof *shares);
        if (!shares)
            return NULL;
        source->shares = shares;
        source->share_room = room;
    }
    source->shares[source->share_count] = (struct share){ .model = model };
    model->shares++;
    return &source->shares[source->share_count++];
}

/* A share that is nothing is kept: it comes again. */
static void take_now(struct traffic_source *source, struct entry *model, const struct qw_model_load *load)
{
    struct share *share = share_of(source, model);

    if (!share)
        return;
    model->running += load->running - (uint64_t)share->running;
    model->waiting += load->waiting - (uint64_t)share->waiting;
    share->running = load->running;
    share->waiting = load->waiting;
}

static void take_model(struct traffic_source *source, const struct qw_model_load *load, int64_t number, bool counts)
{
    struct entry *model = table_find(source->traffic, &source->traffic->models, load->model, number);
    struct slot *slot;

    if (!model)
        return;
    take_now(source, model, load);
    if (!counts)
        return;
    slot = window_slot(&model->window, number);
    slot->sums.requests += load->requests;
    slot->sums.refused += load->refused;
    slot->sums.prompt_tokens += load->prompt_tokens;
    slot->sums.completion_tokens += load->completion_tokens;
    window_count(&slot->first_token, load->first_token);
    window_count(&slot->duration, load->duration);
}

static void take_user(struct traffic *traffic, const struct qw_user_load *load, int64_t number)
{
    struct entry *user = table_find(traffic, &traffic->users, load->user, number);
    struct slot *slot = user ? window_slot(&user->window, number) : NULL;

    if (!slot)
        return;
    slot->sums.requests += load->requests;
    slot->sums.refused += load->refused;
    slot->sums.prompt_tokens += load->prompt_tokens;
    slot->sums.completion_tokens += load->completion_tokens;
}

static void take_backends(struct traffic_source *source, const struct qw_load *load)
{
    struct backend *backends = source->backends;

    if (load->backend_count > source->backend_count || !backends) {
        backends = reallocarray(source->backends, load->backend_count ? load->backend_count : 1, sizeof *backends);
        if (!backends)
            return;
        source->backends = backends;
    }
    source->backend_count = load->backend_count;
    for (size_t i = 0; i < load->backend_count; i++) {
        const struct qw_backend_load *said = &load->backends[i];
        backends[i] = (struct backend){ .name_len = (uint8_t)said->name.len,
                                        .is_up = said->is_up,
                                        .running = said->running,
                                        .waiting = said->waiting };
        memcpy(backends[i].name, said->name.at, said->name.len);
    }
}

uint64_t traffic_take(struct traffic_source *source, struct slice instance, const struct qw_load *load, int64_t now_ms)
{
    int64_t number = slot_number(source->traffic, now_ms);
    bool is_same = slice_is((struct slice){ (const char *)source->instance, source->instance_len }, instance);
    bool is_new;

    if (!is_same) {
        traffic_source_silent(source);
        source->sequence = 0;
        source->instance_len = (uint8_t)(instance.len < CODEC_ID_BYTES ? instance.len : CODEC_ID_BYTES);
        memcpy(source->instance, instance.at ? instance.at : "", source->instance_len);
    }
    is_new = load->sequence > source->sequence;
    if (load->sequence < source->sequence)
        return source->sequence; /* a late one: what it says of now is over */
    source->running = load->running;
    source->waiting = load->waiting;
    take_backends(source, load);
    for (size_t i = 0; i < load->model_count; i++)
        take_model(source, &load->models[i], number, is_new);
    for (size_t i = 0; is_new && i < load->user_count; i++)
        take_user(source->traffic, &load->users[i], number);
    source->sequence = load->sequence;
    return source->sequence;
}

/* --- documents ------------------------------------------------------------------------------------------- */

static void add_name(struct text *out, const char *member, const char *name, size_t len)
{
    text_printf(out, "{\"%s\":", member);
    json_add_string(out, (struct slice){ name, len });
}

void traffic_add_source(const struct traffic_source *source, struct text *out)
{
    text_printf(out, "\"running\":%u,\"waiting\":%u,\"backends\":[", source->running, source->waiting);
    for (size_t i = 0; i < source->backend_count; i++) {
        const struct backend *backend = &source->backends[i];
        if (i)
            text_add_char(out, ',');
        add_name(out, "name", backend->name, backend->name_len);
        text_printf(out, ",\"up\":%s,\"running\":%u,\"waiting\":%u}", backend->is_up ? "true" : "false",
                    backend->running, backend->waiting);
    }
    text_add_char(out, ']');
}

static void add_percentiles(struct text *out, const char *member, const uint64_t counts[CODEC_STEPS])
{
    static const unsigned percents[] = { 50, 95, 99 };

    text_printf(out, ",\"%s\":", member);
    if (histogram_percentile_us(counts, 50) < 0) {
        text_add_literal(out, "null");
        return;
    }
    for (unsigned i = 0; i < 3; i++)
        text_printf(out, "%s\"p%u\":%.1f", i ? "," : "{", percents[i],
                    (double)histogram_percentile_us(counts, percents[i]) / 1000);
    text_add_char(out, '}');
}

static void add_model(const struct traffic *traffic, const struct entry *model, int64_t number, struct text *out)
{
    uint64_t first_token[CODEC_STEPS] = { 0 }, duration[CODEC_STEPS] = { 0 };
    double seconds = (double)traffic->options.window_ms / 1000;
    struct sums sums;

    window_sum(&model->window, number, &sums);
    window_first_token(&model->window, number, first_token);
    window_duration(&model->window, number, duration);
    add_name(out, "model", model->name, model->name_len);
    text_printf(out, ",\"running\":%llu,\"waiting\":%llu,\"requests_per_s\":%.2f", (unsigned long long)model->running,
                (unsigned long long)model->waiting, (double)sums.requests / seconds);
    text_printf(out, ",\"prompt_tokens_per_s\":%.1f,\"completion_tokens_per_s\":%.1f",
                (double)sums.prompt_tokens / seconds, (double)sums.completion_tokens / seconds);
    add_percentiles(out, "first_token_ms", first_token);
    add_percentiles(out, "duration_ms", duration);
    text_add_char(out, '}');
}

struct ranked {
    const struct entry *entry;
    struct sums sums;
    uint64_t rank;
};

static int by_rank(const void *left, const void *right)
{
    const struct ranked *one = left, *other = right;
    size_t len = one->entry->name_len < other->entry->name_len ? one->entry->name_len : other->entry->name_len;
    int order;

    if (one->rank != other->rank)
        return one->rank < other->rank ? 1 : -1;
    order = memcmp(one->entry->name, other->entry->name, len);
    return order ? order : one->entry->name_len - other->entry->name_len;
}

/* Those with the most to say, first. NULL: no memory, or there is none. */
static struct ranked *table_rank(const struct table *table, int64_t number, bool by_tokens, size_t *ret_count)
{
    struct ranked *ranked = table->count ? calloc(table->count, sizeof *ranked) : NULL;
    size_t count = 0;

    for (unsigned i = 0; ranked && i < BUCKETS; i++)
        for (const struct entry *entry = table->buckets[i]; entry; entry = entry->next) {
            struct ranked *one = &ranked[count];
            one->entry = entry;
            window_sum(&entry->window, number, &one->sums);
            one->rank = by_tokens ? one->sums.prompt_tokens + one->sums.completion_tokens + one->sums.requests
                                  : entry->running + entry->waiting + one->sums.requests;
            count += one->rank > 0 || one->sums.refused > 0;
        }
    if (ranked)
        qsort(ranked, count, sizeof *ranked, by_rank);
    *ret_count = count;
    return ranked;
}

void traffic_add_totals(struct traffic *traffic, int64_t now_ms, struct text *out)
{
    int64_t number = slot_number(traffic, now_ms);
    size_t count;
    struct ranked *ranked = table_rank(&traffic->models, number, false, &count);

    text_add_literal(out, "\"models\":[");
    for (size_t i = 0; i < count; i++) {
        if (i)
            text_add_char(out, ',');
        add_model(traffic, ranked[i].entry, number, out);
    }
    free(ranked);
    ranked = table_rank(&traffic->users, number, true, &count);
    text_add_literal(out, "],\"users\":[");
    for (size_t i = 0; i < count && i < traffic->options.max_named_users; i++) {
        const struct sums *sums = &ranked[i].sums;
        if (i)
            text_add_char(out, ',');
        add_name(out, "user", ranked[i].entry->name, ranked[i].entry->name_len);
        text_printf(out, ",\"requests\":%llu,\"refused\":%llu,\"prompt_tokens\":%llu,\"completion_tokens\":%llu}",
                    (unsigned long long)sums->requests, (unsigned long long)sums->refused,
                    (unsigned long long)sums->prompt_tokens, (unsigned long long)sums->completion_tokens);
    }
    free(ranked);
    text_add_char(out, ']');
}
