#include "models.h"
#include "transcript.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

struct model {
    char name[128]; /* with its tag */
    unsigned capabilities;
    const char *modified_at;
    const char *digest;
    const char *parameter_size;
    long long size;
    long long size_loaded;
    struct timespec used; /* tv_sec 0: not loaded */
    int64_t num_ctx;
};

/* As recorded; the sizes loaded come from ps.http. */
static const struct model recorded[] = {
    { .name = "loop:latest",
      .capabilities = CAN_COMPLETE,
      .modified_at = "2026-11-22T14:15:25.660398407Z",
      .digest = "ea2ee63f17b13626c310768b5796b754a16faca6fffd9608196b1d04559faa00",
      .parameter_size = "7.66M",
      .size = 15339129,
      .size_loaded = 32117882 },
    { .name = "slow:latest",
      .capabilities = CAN_COMPLETE,
      .modified_at = "2026-11-22T14:12:36.577359086Z",
      .digest = "6f627376cd34b6c1690b5b1c18e9e5df16d8cb87143ae711e6709825aa8dd28e",
      .parameter_size = "293.98M",
      .size = 588086619,
      .size_loaded = 955063991 },
    { .name = "qwen3:32b",
      .capabilities = CAN_COMPLETE | CAN_TOOLS | CAN_THINK,
      .modified_at = "2026-11-22T14:11:37.075512991Z",
      .digest = "d24d37a901b50d902c8ed46f78038e660f664e8de4dde193cee002a78c762bd3",
      .parameter_size = "7.66M",
      .size = 15339982,
      .size_loaded = 32117882 },
};

static const struct {
    const char *name;
    unsigned bit;
} capabilities[] = { { "completion", CAN_COMPLETE }, { "embedding", CAN_EMBED }, { "vision", CAN_SEE },
                     { "tools", CAN_TOOLS },         { "insert", CAN_INSERT },   { "thinking", CAN_THINK } };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct model *models;
static size_t count;
static struct bytes show_body;

void models_restore(void)
{
    (void)pthread_mutex_lock(&lock);
    free(models);
    models = must_alloc(sizeof recorded);
    memcpy(models, recorded, sizeof recorded);
    count = sizeof recorded / sizeof *recorded;
    (void)pthread_mutex_unlock(&lock);
}

void models_open(void)
{
    models_restore();
    if (!transcript_body("show", &show_body)) {
        fputs("fake-ollama: transcript show is missing\n", stderr);
        exit(1);
    }
}

void models_close(void)
{
    free(models);
    models = NULL;
    bytes_release(&show_body);
}

unsigned capability_bit(const char *name)
{
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++)
        if (strcmp(capabilities[i].name, name) == 0)
            return capabilities[i].bit;
    return 0;
}

void models_clear(void)
{
    (void)pthread_mutex_lock(&lock);
    count = 0;
    (void)pthread_mutex_unlock(&lock);
}

void models_add(const char *name, unsigned can)
{
    struct model *model;

    (void)pthread_mutex_lock(&lock);
    models = realloc(models, (count + 1) * sizeof *models);
    if (!models)
        abort();
    model = &models[count++];
    *model = recorded[2];
    (void)snprintf(model->name, sizeof model->name, "%s%s", name, strchr(name, ':') ? "" : ":latest");
    model->capabilities = can;
    (void)pthread_mutex_unlock(&lock);
}

/* Drops what Ollama takes for granted: its registry, its namespace, the word that forces local models. */
static struct slice short_name(struct slice name)
{
    static const char *const prefixes[] = { "registry.ollama.ai/", "library/" };

    for (size_t i = 0; i < 2; i++) {
        size_t len = strlen(prefixes[i]);

        if (name.len > len && slice_is_caseless((struct slice){ name.at, len }, prefixes[i]))
            name = (struct slice){ name.at + len, name.len - len };
    }
    if (slice_ends_caseless(name, ":local"))
        name.len -= 6;
    return name;
}

static bool same_name(struct slice name, const char *full)
{
    size_t bare = strlen(full) - strlen(":latest");

    if (slice_is_caseless(name, full))
        return true;
    return slice_ends_caseless(slice_of(full), ":latest") && name.len == bare && strncasecmp(name.at, full, bare) == 0;
}

static struct model *find(struct slice name)
{
    name = short_name(name);
    for (size_t i = 0; i < count; i++)
        if (same_name(name, models[i].name))
            return &models[i];
    return NULL;
}

unsigned model_find(struct slice name, bool loads, int64_t num_ctx)
{
    struct model *model;
    unsigned can = 0;

    (void)pthread_mutex_lock(&lock);
    model = find(name);
    if (model) {
        can = model->capabilities;
        if (loads) {
            (void)clock_gettime(CLOCK_REALTIME, &model->used);
            model->num_ctx = num_ctx;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return can;
}

void model_full_name(struct slice name, struct bytes *ret)
{
    name = short_name(name);
    bytes_text(ret, "registry.ollama.ai/library/");
    bytes_slice(ret, name);
    if (!memchr(name.at, ':', name.len))
        bytes_text(ret, ":latest");
}

static void write_capabilities(struct bytes *b, unsigned can)
{
    const char *comma = "";

    bytes_text(b, "\"capabilities\":[");
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) {
        if (can & capabilities[i].bit) {
            bytes_print(b, "%s\"%s\"", comma, capabilities[i].name);
            comma = ",";
        }
    }
    bytes_text(b, "]");
}

static void write_details(struct bytes *b, const struct model *model, const char *more)
{
    bytes_print(b,
                "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"qwen3\",\"families\":[\"qwen3\"],"
                "\"parameter_size\":\"%s\",\"quantization_level\":\"F16\"%s}",
                model->parameter_size, more);
}

static void write_names(struct bytes *b, const struct model *model)
{
    bytes_text(b, "{\"name\":");
    bytes_json(b, slice_of(model->name));
    bytes_text(b, ",\"model\":");
    bytes_json(b, slice_of(model->name));
}

void models_tags(struct bytes *ret_json)
{
    bytes_text(ret_json, "{\"models\":[");
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        bytes_text(ret_json, i ? "," : "");
        write_names(ret_json, &models[i]);
        bytes_print(ret_json, ",\"modified_at\":\"%s\",\"size\":%lld,\"digest\":\"%s\",", models[i].modified_at,
                    models[i].size, models[i].digest);
        write_details(ret_json, &models[i], ",\"context_length\":8192,\"embedding_length\":512");
        bytes_text(ret_json, ",");
        write_capabilities(ret_json, models[i].capabilities);
        bytes_text(ret_json, "}");
    }
    (void)pthread_mutex_unlock(&lock);
    bytes_text(ret_json, "]}");
}

/* The longest remaining first: the one used last. */
static int by_use(const void *a, const void *b)
{
    const struct timespec *x = &(*(const struct model *const *)a)->used;
    const struct timespec *y = &(*(const struct model *const *)b)->used;

    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? 1 : -1;
    return x->tv_nsec < y->tv_nsec ? 1 : x->tv_nsec > y->tv_nsec ? -1 : 0;
}

static void write_loaded(struct bytes *b, const struct model *model)
{
    time_t until = model->used.tv_sec + 300;
    struct tm tm;
    char text[32];

    (void)gmtime_r(&until, &tm);
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    write_names(b, model);
    bytes_print(b, ",\"size\":%lld,\"digest\":\"%s\",", model->size_loaded, model->digest);
    write_details(b, model, "");
    bytes_print(b, ",\"expires_at\":\"%s.%09ldZ\",\"size_vram\":0,\"context_length\":%lld}", text, model->used.tv_nsec,
                (long long)model->num_ctx);
}

void models_ps(struct bytes *ret_json)
{
    struct model **loaded;
    size_t n = 0;

    (void)pthread_mutex_lock(&lock);
    loaded = must_alloc(count * sizeof *loaded);
    for (size_t i = 0; i < count; i++)
        if (models[i].used.tv_sec)
            loaded[n++] = &models[i];
    qsort(loaded, n, sizeof *loaded, by_use);
    bytes_text(ret_json, "{\"models\":[");
    for (size_t i = 0; i < n; i++) {
        bytes_text(ret_json, i ? "," : "");
        write_loaded(ret_json, loaded[i]);
    }
    bytes_text(ret_json, "]}");
    (void)pthread_mutex_unlock(&lock);
    free(loaded);
}

/* The recording is of qwen3:32b; another model differs in capabilities and date. */
bool model_show(struct slice name, struct bytes *ret_json)
{
    static const char from[] = ",\"capabilities\":";
    const char *end = memmem(show_body.at, show_body.len, from, sizeof from - 1);
    struct model *model;

    (void)pthread_mutex_lock(&lock);
    model = find(name);
    if (model) {
        bytes_add(ret_json, show_body.at, end ? (size_t)(end + 1 - show_body.at) : 1);
        write_capabilities(ret_json, model->capabilities);
        bytes_print(ret_json, ",\"modified_at\":\"%s\"}", model->modified_at);
    }
    (void)pthread_mutex_unlock(&lock);
    return model;
}
