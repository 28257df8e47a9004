/* Which models a backend has loaded: its /api/ps. */
#include <stdlib.h>
#include <string.h>

#include "backend_parts.h"
#include "json.h"

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

struct reading {
    struct residents *residents;
    struct resident resident; /* the one that is read */
    bool has_vram;
};

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

static bool on_member(void *arg, const struct json_string *key, struct json_reader *reader)
{
    struct reading *reading = arg;

    if (json_string_is(key, "size"))
        (void)read_count(reader, &reading->resident.size);
    else if (json_string_is(key, "size_vram"))
        reading->has_vram = read_count(reader, &reading->resident.size_vram);
    else if (json_string_is(key, "context_length"))
        (void)read_count(reader, &reading->resident.context_length);
    else
        return false;
    return true;
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

static bool add_resident(struct residents *residents, struct resident resident, const struct listed *listed)
{
    if (!reserve(residents))
        return false;
    resident.name = strdup(listed->name);
    resident.expires_s = listed->time_s;
    residents->models[residents->count++] = resident; /* with what it has, for residents_unref() */
    return resident.name;
}

static bool on_entry(void *arg, const struct listed *listed)
{
    struct reading *reading = arg;
    struct resident *resident = &reading->resident;
    bool is_good;

    if (!reading->has_vram || resident->size_vram > resident->size)
        resident->size = resident->size_vram = 0; /* half of it says nothing */
    is_good = !listed->name || add_resident(reading->residents, *resident, listed);
    *reading = (struct reading){ .residents = reading->residents };
    return is_good;
}

struct residents *residents_parse_ps(struct slice body)
{
    static const struct listed_story story = { .time = "expires_at", .member = on_member, .entry = on_entry };
    struct reading reading = { .residents = calloc(1, sizeof(struct residents)) };
    struct residents *residents = reading.residents;

    if (!residents)
        return NULL;
    atomic_init(&residents->refs, 1);
    if (!listed_read(body, &story, &reading))
        return residents_unref(residents);
    if (residents->count)
        qsort(residents->models, residents->count, sizeof *residents->models, by_name);
    return residents;
}
