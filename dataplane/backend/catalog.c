#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "clock.h"
#include "json.h"
#include "snapshot.h"

enum { MAX_NAME_BYTES = 4096 }; /* of a string in the list; a model whose name is longer is left out */

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

/* One entry of the list while it is read. */
struct entry {
    struct text model, name, modified;
    unsigned capabilities;
    bool has_capabilities, is_remote;
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

static void read_capabilities(struct json_reader *reader, struct entry *entry)
{
    struct json_string word;

    if (json_peek(reader) != JSON_ARRAY) {
        (void)json_skip(reader, NULL);
        return;
    }
    entry->has_capabilities = json_array(reader);
    while (json_element(reader)) {
        if (json_peek(reader) != JSON_STRING)
            (void)json_skip(reader, NULL);
        else if (json_string(reader, &word))
            entry->capabilities |= capability_of(&word);
    }
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
        else if (json_string_is(&key, "modified_at"))
            read_text(reader, &entry->modified);
        else if (json_string_is(&key, "capabilities"))
            read_capabilities(reader, entry);
        else {
            entry->is_remote |= json_string_is(&key, "remote_host");
            (void)json_skip(reader, NULL);
        }
    }
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

/* False: no memory. A list that lacks a model for that reason is worse than the last one. */
static bool add_listing(struct catalog *catalog, const struct entry *entry)
{
    const struct text *shown = entry->model.len ? &entry->model : &entry->name;
    struct text name;
    bool is_good = true;

    text_init(&name, 512);
    /* What runs elsewhere is not ours to offer: cloud names, and entries that say they are remote. */
    if (!entry->is_remote && model_name_normalise(text_slice(shown), &name) &&
        !model_name_is_cloud(text_slice(&name)) && (is_good = reserve(catalog))) {
        int64_t modified_s = clock_parse_rfc3339(text_string(&entry->modified), entry->modified.len);
        struct listing *listing = &catalog->listings[catalog->count++]; /* with what it has, for catalog_unref() */
        *listing = (struct listing){
            .name = strdup(text_string(&name)),
            .shown = strdup(text_string(shown)),
            .modified_s = modified_s < 0 ? 0 : modified_s,
            .capabilities = entry->capabilities,
            .has_capabilities = entry->has_capabilities,
        };
        is_good = listing->name && listing->shown;
    }
    is_good &= name.err != ERR_NO_MEMORY;
    text_release(&name);
    return is_good;
}

/* False: no memory. */
static bool take_entry(struct json_reader *reader, struct catalog *catalog)
{
    struct entry entry = { 0 };
    bool is_good;

    text_init(&entry.model, MAX_NAME_BYTES);
    text_init(&entry.name, MAX_NAME_BYTES);
    text_init(&entry.modified, MAX_NAME_BYTES);
    if (json_peek(reader) == JSON_OBJECT)
        read_entry(reader, &entry);
    else
        (void)json_skip(reader, NULL);
    is_good = entry.model.err != ERR_NO_MEMORY && entry.name.err != ERR_NO_MEMORY &&
              entry.modified.err != ERR_NO_MEMORY && add_listing(catalog, &entry);
    text_release(&entry.model);
    text_release(&entry.name);
    text_release(&entry.modified);
    return is_good;
}

static struct catalog *read_models(struct json_reader *reader)
{
    struct catalog *catalog = json_array(reader) ? catalog_new() : NULL;

    if (!catalog)
        return NULL;
    while (json_element(reader))
        if (!take_entry(reader, catalog))
            return catalog_unref(catalog);
    return catalog;
}

struct catalog *catalog_parse_tags(struct slice body)
{
    struct json_reader reader;
    struct json_string key;
    struct catalog *catalog = NULL;
    bool is_good;

    json_open(&reader, body, JSON_MAX_DEPTH);
    is_good = json_object(&reader, NULL);
    while (is_good && json_member(&reader, NULL, &key)) {
        if (!catalog && json_string_is(&key, "models"))
            is_good = (catalog = read_models(&reader));
        else
            (void)json_skip(&reader, NULL);
    }
    if (!is_good || !json_close(&reader))
        return catalog_unref(catalog);
    if (catalog && catalog->count)
        qsort(catalog->listings, catalog->count, sizeof *catalog->listings, by_name);
    return catalog;
}
