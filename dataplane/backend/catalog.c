#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "clock.h"
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

static unsigned capabilities_of(json_t *list)
{
    static const struct {
        const char *word;
        enum capability capability;
    } words[] = { { "completion", CAN_COMPLETE }, { "tools", CAN_TOOLS },     { "thinking", CAN_THINK },
                  { "vision", CAN_SEE },          { "embedding", CAN_EMBED }, { "insert", CAN_INSERT } };
    unsigned capabilities = 0;
    json_t *item;
    size_t i;

    json_array_foreach(list, i,
                       item) for (size_t k = 0; k < sizeof words / sizeof *words;
                                  k++) if (json_is_string(item) && strcmp(json_string_value(item), words[k].word) == 0)
        capabilities |= words[k].capability;
    return capabilities;
}

/* False: no memory. A list that lacks a model for that reason is worse than the last one. */
static bool add_listing(struct catalog *catalog, json_t *model)
{
    bool is_good = true;
    const char *shown = json_string_value(json_object_get(model, "model"));
    const char *modified = json_string_value(json_object_get(model, "modified_at"));
    json_t *capabilities = json_object_get(model, "capabilities");
    struct listing *listing = &catalog->listings[catalog->count];
    struct text name;

    if (!shown)
        shown = json_string_value(json_object_get(model, "name"));
    text_init(&name, 512);
    /* What runs elsewhere is not ours to offer: cloud names, and entries that say they are remote. */
    if (shown && model_name_normalise(slice_of(shown), &name) && !model_name_is_cloud(text_slice(&name)) &&
        !json_object_get(model, "remote_host")) {
        int64_t modified_s = modified ? clock_parse_rfc3339(modified, strlen(modified)) : -1;
        *listing = (struct listing){
            .name = strdup(text_string(&name)),
            .shown = strdup(shown),
            .modified_s = modified_s < 0 ? 0 : modified_s,
            .capabilities = capabilities_of(capabilities),
            .has_capabilities = json_is_array(capabilities),
        };
        catalog->count++; /* with what it has, for catalog_unref() */
        is_good = listing->name && listing->shown;
    }
    is_good &= name.err != ERR_NO_MEMORY;
    text_release(&name);
    return is_good;
}

struct catalog *catalog_parse_tags(struct slice body)
{
    json_t *root = json_loadb(body.at, body.len, JSON_ALLOW_NUL, NULL);
    json_t *models = json_object_get(root, "models"), *model;
    struct catalog *catalog = NULL;
    size_t i;

    if (json_is_array(models) && (catalog = calloc(1, sizeof *catalog))) {
        atomic_init(&catalog->refs, 1);
        catalog->listings = calloc(json_array_size(models) + 1, sizeof *catalog->listings);
        bool is_good = catalog->listings != NULL;
        if (is_good)
            json_array_foreach(models, i, model) is_good &= add_listing(catalog, model);
        if (!is_good) {
            catalog = catalog_unref(catalog);
        } else {
            qsort(catalog->listings, catalog->count, sizeof *catalog->listings, by_name);
        }
    }
    json_decref(root);
    return catalog;
}
