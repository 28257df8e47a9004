#include "models.h"
#include "loop.h"
#include "options.h"
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
    struct model *next;
    struct slots *slots;
    bool is_gone; /* not in the list any more, but perhaps held */
    bool is_resident;
    bool shifts;
    long long size_vram;
    int64_t num_ctx;
    uint64_t ready_ns;   /* its load is over */
    uint64_t expires_ns; /* UINT64_MAX: never */
    unsigned users;      /* requests that keep it from expiring */
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
static struct bytes show_body;

/* All of them, the ones that are gone too. */
#define each_model(model) (struct model *model = models; model; model = model->next)

static void be_resident(struct model *model)
{
    model->is_resident = true;
    model->shifts = false;
    model->num_ctx = options.num_ctx;
    model->ready_ns = 0;
    model->expires_ns = UINT64_MAX;
}

/* At the end of the list. With the lock held. */
static void add(const struct model *like, const char *name, unsigned can)
{
    struct model **at = &models;
    struct model *model = must_alloc(sizeof *model);

    while (*at)
        at = &(*at)->next;
    *at = model;
    *model = *like;
    model->next = NULL;
    (void)snprintf(model->name, sizeof model->name, "%s%s", name, strchr(name, ':') ? "" : ":latest");
    model->capabilities = can;
    model->slots = books_slots(model->name);
    model->size_vram = model->size_loaded;
    if (!options.is_cold)
        be_resident(model);
}

static void clear(void)
{
    for
        each_model(model) model->is_gone = true;
}

void models_restore(void)
{
    (void)pthread_mutex_lock(&lock);
    clear();
    for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++)
        add(&recorded[i], recorded[i].name, recorded[i].capabilities);
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
    while (models) {
        struct model *model = models;

        models = model->next;
        free(model);
    }
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
    clear();
    (void)pthread_mutex_unlock(&lock);
}

void models_add(const char *name, unsigned can)
{
    (void)pthread_mutex_lock(&lock);
    add(&recorded[2], name, can);
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
    for
        each_model(model) if (!model->is_gone && same_name(name, model->name)) return model;
    return NULL;
}

struct model *model_find(struct slice name)
{
    struct model *model;

    (void)pthread_mutex_lock(&lock);
    model = find(name);
    (void)pthread_mutex_unlock(&lock);
    return model;
}

unsigned model_capabilities(const struct model *model)
{
    return model->capabilities;
}

struct slots *model_slots(const struct model *model)
{
    return model->slots;
}

/* --- loading, staying, going --- */

/* keep_alive is over, or it never was loaded. With the lock held. */
static bool is_resident(struct model *model, uint64_t now_ns)
{
    if (model->is_resident && !model->users && now_ns >= model->expires_ns)
        model->is_resident = false;
    return model->is_resident;
}

uint64_t model_load(struct model *model, const struct model_wish *wish, uint64_t now_ns)
{
    uint64_t ready_ns, load_ns = (uint64_t)books_settings().load_ms * 1000000u;

    (void)pthread_mutex_lock(&lock);
    if (!is_resident(model, now_ns) || model->num_ctx != wish->num_ctx || model->shifts != wish->shifts) {
        be_resident(model);
        model->num_ctx = wish->num_ctx;
        model->shifts = wish->shifts;
        model->ready_ns = now_ns + load_ns;
        books_load(model->slots);
    }
    model->users++;
    ready_ns = model->ready_ns;
    (void)pthread_mutex_unlock(&lock);
    return ready_ns;
}

void model_rests(struct model *model, int64_t keep_alive_ns, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&lock);
    model->users--;
    model->expires_ns = keep_alive_ns < 0 ? UINT64_MAX : now_ns + (uint64_t)keep_alive_ns;
    (void)pthread_mutex_unlock(&lock);
}

void model_unload(struct model *model)
{
    (void)pthread_mutex_lock(&lock);
    model->is_resident = false;
    (void)pthread_mutex_unlock(&lock);
}

void models_unload_all(void)
{
    (void)pthread_mutex_lock(&lock);
    for
        each_model(model) model->is_resident = false;
    (void)pthread_mutex_unlock(&lock);
}

bool model_set_resident(struct slice name, int64_t size, int64_t size_vram, int64_t num_ctx)
{
    struct model *model;

    (void)pthread_mutex_lock(&lock);
    model = find(name);
    if (model) {
        be_resident(model);
        model->size_loaded = size ? size : model->size_loaded;
        model->size_vram = size_vram >= 0 ? size_vram : model->size_loaded;
        model->num_ctx = num_ctx ? num_ctx : model->num_ctx;
    }
    (void)pthread_mutex_unlock(&lock);
    return model;
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
    const char *comma = "";

    bytes_text(ret_json, "{\"models\":[");
    (void)pthread_mutex_lock(&lock);
    for
        each_model(model)
        {
            if (model->is_gone)
                continue;
            bytes_text(ret_json, comma);
            comma = ",";
            write_names(ret_json, model);
            bytes_print(ret_json, ",\"modified_at\":\"%s\",\"size\":%lld,\"digest\":\"%s\",", model->modified_at,
                        model->size, model->digest);
            write_details(ret_json, model, ",\"context_length\":8192,\"embedding_length\":512");
            bytes_text(ret_json, ",");
            write_capabilities(ret_json, model->capabilities);
            bytes_text(ret_json, "}");
        }
    (void)pthread_mutex_unlock(&lock);
    bytes_text(ret_json, "]}");
}

/* The longest remaining first; of those that stay for ever, the one loaded last. */
static int by_stay(const void *a, const void *b)
{
    const struct model *x = *(const struct model *const *)a;
    const struct model *y = *(const struct model *const *)b;

    if (x->expires_ns != y->expires_ns)
        return x->expires_ns < y->expires_ns ? 1 : -1;
    return x->ready_ns < y->ready_ns ? 1 : x->ready_ns > y->ready_ns ? -1 : 0;
}

/* For ever is some three centuries, as in Ollama. */
static void write_expires_at(struct bytes *b, const struct model *model, uint64_t now_ns)
{
    struct timespec now;
    uint64_t left_ns = model->expires_ns > now_ns ? model->expires_ns - now_ns : 0;
    uint64_t left_s = model->users || model->expires_ns == UINT64_MAX ? INT64_MAX / 1000000000 : left_ns / 1000000000;
    time_t until;
    struct tm tm;
    char text[32];

    (void)clock_gettime(CLOCK_REALTIME, &now);
    until = now.tv_sec + (time_t)left_s;
    (void)gmtime_r(&until, &tm);
    (void)strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    bytes_print(b, ",\"expires_at\":\"%s.%09ldZ\"", text, now.tv_nsec);
}

static void write_loaded(struct bytes *b, const struct model *model, uint64_t now_ns)
{
    write_names(b, model);
    bytes_print(b, ",\"size\":%lld,\"digest\":\"%s\",", model->size_loaded, model->digest);
    write_details(b, model, "");
    write_expires_at(b, model, now_ns);
    bytes_print(b, ",\"size_vram\":%lld,\"context_length\":%lld}", model->size_vram, (long long)model->num_ctx);
}

void models_ps(struct bytes *ret_json)
{
    struct model **loaded;
    size_t n = 0;
    uint64_t now_ns = clock_ns();

    (void)pthread_mutex_lock(&lock);
    for
        each_model(model) n++;
    loaded = must_alloc((n ? n : 1) * sizeof *loaded);
    n = 0;
    for
        each_model(model) if (!model->is_gone && is_resident(model, now_ns) && now_ns >= model->ready_ns) loaded[n++] =
            model;
    qsort(loaded, n, sizeof *loaded, by_stay);
    bytes_text(ret_json, "{\"models\":[");
    for (size_t i = 0; i < n; i++) {
        bytes_text(ret_json, i ? "," : "");
        write_loaded(ret_json, loaded[i], now_ns);
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
