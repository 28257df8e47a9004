#include <stdlib.h>
#include <string.h>

#include "backend_parts.h"
#include "json.h"
#include "model_name.h"
#include "snapshot.h"

struct catalog *backend_catalog(struct backend *backend)
{
    struct catalog *catalog;

    (void)pthread_mutex_lock(&backend->catalog_lock);
    catalog = backend->catalog;
    if (catalog)
        atomic_fetch_add_explicit(&catalog->refs, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&backend->catalog_lock);
    return catalog;
}

void backend_set_catalog(struct backend *backend, struct catalog *catalog)
{
    struct catalog *old;

    (void)pthread_mutex_lock(&backend->catalog_lock);
    old = backend->catalog;
    backend->catalog = catalog;
    (void)pthread_mutex_unlock(&backend->catalog_lock);
    (void)catalog_unref(old);
}

struct catalog *catalog_unref(struct catalog *catalog)
{
    if (!catalog || atomic_fetch_sub_explicit(&catalog->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (size_t i = 0; i < catalog->count; i++) {
        free((char *)catalog->listings[i].name);
        free((char *)catalog->listings[i].shown);
    }
    free(catalog->listings);
    free(catalog);
    return NULL;
}

static int by_name(const void *one, const void *other)
{
    return strcmp(((const struct listing *)one)->name, ((const struct listing *)other)->name);
}

const struct listing *catalog_find(const struct catalog *catalog, struct slice normalised)
{
    size_t low = 0, high = catalog ? catalog->count : 0;

    while (low < high) {
        size_t middle = (low + high) / 2;
        struct slice name = slice_of(catalog->listings[middle].name);
        size_t shorter = name.len < normalised.len ? name.len : normalised.len;
        int order = memcmp(normalised.at, name.at, shorter);
        if (order == 0 && name.len == normalised.len)
            return &catalog->listings[middle];
        if (order < 0 || (order == 0 && normalised.len < name.len))
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* ---- reading a list ---- */

struct reading {
    struct catalog *catalog;
    unsigned capabilities; /* of the entry that is read */
    bool has_capabilities, is_remote;
};

static unsigned capability_of(const struct json_string *word)
{
    static const struct {
        const char *word;
        enum capability capability;
    } words[] = { { "completion", CAN_COMPLETE }, { "tools", CAN_TOOLS },     { "thinking", CAN_THINK },
                  { "vision", CAN_SEE },          { "embedding", CAN_EMBED }, { "insert", CAN_INSERT } };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (json_string_is(word, words[i].word))
            return words[i].capability;
    return 0;
}

static void read_capabilities(struct json_reader *reader, struct reading *reading)
{
    struct json_string word;

    if (json_peek(reader) != JSON_ARRAY) {
        (void)json_skip(reader, NULL);
        return;
    }
    reading->has_capabilities = json_array(reader);
    while (json_element(reader)) {
        if (json_peek(reader) != JSON_STRING)
            (void)json_skip(reader, NULL);
        else if (json_string(reader, &word))
            reading->capabilities |= capability_of(&word);
    }
}

static bool on_member(void *arg, const struct json_string *key, struct json_reader *reader)
{
    struct reading *reading = arg;

    reading->is_remote |= json_string_is(key, "remote_host");
    if (!json_string_is(key, "capabilities"))
        return false;
    read_capabilities(reader, reading);
    return true;
}

/* Room for one more. */
static bool reserve(struct catalog *catalog)
{
    size_t room = catalog->room ? catalog->room * 2 : 8;
    struct listing *listings;

    if (catalog->count < catalog->room)
        return true;
    listings = reallocarray(catalog->listings, room, sizeof *listings);
    if (!listings)
        return false;
    catalog->listings = listings;
    catalog->room = room;
    return true;
}

struct catalog *catalog_new(void)
{
    struct catalog *catalog = calloc(1, sizeof *catalog);

    if (catalog)
        atomic_init(&catalog->refs, 1);
    return catalog;
}

bool catalog_add_copy(struct catalog *catalog, const struct listing *listing)
{
    size_t at = catalog->count;

    if (catalog_find(catalog, slice_of(listing->name)))
        return true;
    if (!reserve(catalog))
        return false;
    for (; at && strcmp(catalog->listings[at - 1].name, listing->name) > 0; at--)
        catalog->listings[at] = catalog->listings[at - 1];
    catalog->listings[at] = *listing;
    catalog->listings[at].name = strdup(listing->name);
    catalog->listings[at].shown = strdup(listing->shown);
    catalog->count++;
    return catalog->listings[at].name && catalog->listings[at].shown;
}

static bool add_listing(const struct reading *reading, const struct listed *listed)
{
    struct catalog *catalog = reading->catalog;
    struct listing *listing;

    if (!reserve(catalog))
        return false;
    listing = &catalog->listings[catalog->count++]; /* with what it has, for catalog_unref() */
    *listing = (struct listing){
        .name = strdup(listed->name),
        .shown = strdup(listed->shown),
        .modified_s = listed->time_s < 0 ? 0 : listed->time_s,
        .capabilities = reading->capabilities,
        .has_capabilities = reading->has_capabilities,
    };
    return listing->name && listing->shown;
}

static bool on_entry(void *arg, const struct listed *listed)
{
    struct reading *reading = arg;
    /* What runs elsewhere is not ours to offer: cloud names, and entries that say they are remote. */
    bool is_ours = listed->name && !reading->is_remote && !model_name_is_cloud(slice_of(listed->name));
    bool is_good = !is_ours || add_listing(reading, listed);

    *reading = (struct reading){ .catalog = reading->catalog };
    return is_good;
}

struct catalog *catalog_parse_tags(struct slice body)
{
    static const struct listed_story story = { .time = "modified_at", .member = on_member, .entry = on_entry };
    struct reading reading = { .catalog = catalog_new() };

    if (!reading.catalog || !listed_read(body, &story, &reading))
        return catalog_unref(reading.catalog);
    if (reading.catalog->count)
        qsort(reading.catalog->listings, reading.catalog->count, sizeof *reading.catalog->listings, by_name);
    return reading.catalog;
}
