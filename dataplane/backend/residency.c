/* Which models a backend has loaded: its /api/ps. */
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "clock.h"
#include "json.h"
#include "snapshot.h"

enum { MAX_NAME_BYTES = 4096 }; /* of a string in the list; a model whose name is longer is left out */

struct residents *backend_residents(struct backend *backend)
{
    struct residents *residents;

    (void)pthread_mutex_lock(&backend->news_lock);
    residents = backend->residents;
    if (residents)
        atomic_fetch_add_explicit(&residents->refs, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&backend->news_lock);
    return residents;
}

void backend_set_residents(struct backend *backend, struct residents *residents)
{
    struct residents *old;

    (void)pthread_mutex_lock(&backend->news_lock);
    old = backend->residents;
    backend->residents = residents;
    (void)pthread_mutex_unlock(&backend->news_lock);
    (void)residents_unref(old);
}

enum residency backend_residency(struct backend *backend, struct slice normalised_model)
{
    struct residents *residents = backend_residents(backend);
    enum residency residency = !residents                                    ? RESIDENCY_UNKNOWN
                               : residents_find(residents, normalised_model) ? RESIDENCY_YES
                                                                             : RESIDENCY_NO;

    (void)residents_unref(residents);
    return residency;
}

struct residents *residents_unref(struct residents *residents)
{
    if (!residents || atomic_fetch_sub_explicit(&residents->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (size_t i = 0; i < residents->count; i++)
        free((char *)residents->models[i].name);
    free(residents->models);
    free(residents);
    return NULL;
}

static int by_name(const void *one, const void *other)
{
    return strcmp(((const struct resident *)one)->name, ((const struct resident *)other)->name);
}

/* As strcmp(), with a slice for the first. */
static int name_order(const void *key, const void *member)
{
    const struct slice *wanted = key;
    const char *name = ((const struct resident *)member)->name;
    int order = strncmp(wanted->at, name, wanted->len);

    return order ? order : -(name[wanted->len] != 0);
}

const struct resident *residents_find(const struct residents *residents, struct slice normalised)
{
    if (!residents || !residents->count || !normalised.len)
        return NULL;
    return bsearch(&normalised, residents->models, residents->count, sizeof *residents->models, name_order);
}

/* ---- reading a list ---- */

/* One entry of the list while it is read. */
struct entry {
    struct text model, name, expires;
    struct resident resident;
    bool has_vram;
};

/* The next value if it is a string; whatever else it is, it is passed over. */
static void read_text(struct json_reader *reader, struct text *out)
{
    struct json_string string;

    text_clear(out);
    if (json_peek(reader) != JSON_STRING)
        (void)json_skip(reader, NULL);
    else if (json_string(reader, &string))
        json_string_decode(&string, out);
}

/* A number that counts something. False: it is none, and was passed over. */
static bool read_count(struct json_reader *reader, uint64_t *ret_count)
{
    struct slice digits;
    int64_t number;

    *ret_count = 0;
    if (json_peek(reader) != JSON_NUMBER) {
        (void)json_skip(reader, NULL);
        return false;
    }
    if (!json_number(reader, &digits) || !json_number_i64(digits, &number) || number < 0)
        return false;
    *ret_count = (uint64_t)number;
    return true;
}

static void read_entry(struct json_reader *reader, struct entry *entry)
{
    struct json_string key;

    (void)json_object(reader, NULL);
    while (json_member(reader, NULL, &key)) {
        if (json_string_is(&key, "model"))
            read_text(reader, &entry->model);
        else if (json_string_is(&key, "name"))
            read_text(reader, &entry->name);
        else if (json_string_is(&key, "expires_at"))
            read_text(reader, &entry->expires);
        else if (json_string_is(&key, "size"))
            (void)read_count(reader, &entry->resident.size);
        else if (json_string_is(&key, "size_vram"))
            entry->has_vram = read_count(reader, &entry->resident.size_vram);
        else if (json_string_is(&key, "context_length"))
            (void)read_count(reader, &entry->resident.context_length);
        else
            (void)json_skip(reader, NULL);
    }
}

/* Room for one more. */
static bool reserve(struct residents *residents)
{
    size_t room = residents->room ? residents->room * 2 : 4;
    struct resident *models;

    if (residents->count < residents->room)
        return true;
    models = reallocarray(residents->models, room, sizeof *models);
    if (!models)
        return false;
    residents->models = models;
    residents->room = room;
    return true;
}

/* False: no memory. */
static bool add_resident(struct residents *residents, const struct entry *entry)
{
    struct resident resident = entry->resident;
    struct text name;
    bool is_good = true;

    text_init(&name, 512);
    if (model_name_normalise(text_slice(entry->model.len ? &entry->model : &entry->name), &name)) {
        resident.name = strdup(text_string(&name));
        resident.expires_s = clock_parse_rfc3339(text_string(&entry->expires), entry->expires.len);
        if (!entry->has_vram || resident.size_vram > resident.size)
            resident.size = resident.size_vram = 0; /* half of it says nothing */
        is_good = resident.name && reserve(residents);
        if (is_good)
            residents->models[residents->count++] = resident;
        else
            free((char *)resident.name);
    }
    is_good &= name.err != ERR_NO_MEMORY;
    text_release(&name);
    return is_good;
}

/* False: no memory. */
static bool take_entry(struct json_reader *reader, struct residents *residents)
{
    struct entry entry = { 0 };
    bool is_good;

    text_init(&entry.model, MAX_NAME_BYTES);
    text_init(&entry.name, MAX_NAME_BYTES);
    text_init(&entry.expires, MAX_NAME_BYTES);
    if (json_peek(reader) == JSON_OBJECT)
        read_entry(reader, &entry);
    else
        (void)json_skip(reader, NULL);
    is_good = entry.model.err != ERR_NO_MEMORY && entry.name.err != ERR_NO_MEMORY &&
              entry.expires.err != ERR_NO_MEMORY && add_resident(residents, &entry);
    text_release(&entry.model);
    text_release(&entry.name);
    text_release(&entry.expires);
    return is_good;
}

static struct residents *read_models(struct json_reader *reader)
{
    struct residents *residents = json_array(reader) ? calloc(1, sizeof *residents) : NULL;

    if (!residents)
        return NULL;
    atomic_init(&residents->refs, 1);
    while (json_element(reader))
        if (!take_entry(reader, residents))
            return residents_unref(residents);
    return residents;
}

struct residents *residents_parse_ps(struct slice body)
{
    struct json_reader reader;
    struct json_string key;
    struct residents *residents = NULL;
    bool is_good;

    json_open(&reader, body, JSON_MAX_DEPTH);
    is_good = json_object(&reader, NULL);
    while (is_good && json_member(&reader, NULL, &key)) {
        if (!residents && json_string_is(&key, "models"))
            is_good = (residents = read_models(&reader));
        else
            (void)json_skip(&reader, NULL);
    }
    if (!is_good || !json_close(&reader))
        return residents_unref(residents);
    if (residents && residents->count)
        qsort(residents->models, residents->count, sizeof *residents->models, by_name);
    return residents;
}
