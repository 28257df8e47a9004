/* What a fleet offers: the lists of its backends as one. */
#include "backend.h"

const struct listing *fleet_find(const struct fleet *fleet, struct slice normalised, struct catalog **ret_catalog)
{
    for (size_t i = 0; i < fleet->count; i++) {
        struct catalog *catalog;
        const struct listing *listing;
        if (!fleet_rule_is_for(&fleet->rules[i], normalised))
            continue;
        catalog = backend_catalog(fleet->backends[i]);
        listing = catalog_find(catalog, normalised);
        if (listing) {
            *ret_catalog = catalog;
            return listing;
        }
        (void)catalog_unref(catalog);
    }
    return NULL;
}

bool fleet_names(const struct fleet *fleet, struct slice normalised)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (fleet->rules[i].model_count && fleet_rule_is_for(&fleet->rules[i], normalised))
            return true;
    return false;
}

static bool has_list(struct backend *backend)
{
    struct catalog *catalog = backend_catalog(backend);
    bool has = catalog != NULL;

    (void)catalog_unref(catalog);
    return has;
}

bool fleet_expects(const struct fleet *fleet, size_t i, struct slice normalised)
{
    const struct fleet_rule *rule = &fleet->rules[i];

    return rule->model_count && fleet_rule_is_for(rule, normalised) && !has_list(fleet->backends[i]);
}

bool fleet_knows_models(const struct fleet *fleet, struct slice normalised)
{
    bool knows_some = false;

    for (size_t i = 0; i < fleet->count; i++) {
        if (fleet_expects(fleet, i, normalised))
            return false;
        if (!backend_is_closed(fleet->backends[i]))
            continue;
        if (!has_list(fleet->backends[i]))
            return false;
        knows_some = true;
    }
    return knows_some;
}

/* Which of these it cannot do with that model there. False: nobody may ask that one for it, or it does not list it. */
static bool lacks(const struct fleet *fleet, size_t i, struct slice normalised, unsigned needs, unsigned *ret_lacks)
{
    struct catalog *catalog;
    const struct listing *listing;

    if (fleet->rules[i].drains || !fleet_rule_is_for(&fleet->rules[i], normalised))
        return false;
    catalog = backend_catalog(fleet->backends[i]);
    listing = catalog_find(catalog, normalised);
    if (listing)
        *ret_lacks = listing->has_capabilities ? needs & ~listing->capabilities : 0;
    (void)catalog_unref(catalog);
    return listing;
}

unsigned fleet_lacks(const struct fleet *fleet, struct slice normalised, unsigned needs)
{
    unsigned least = 0, lacking;
    bool has_any = false;

    for (size_t i = 0; i < fleet->count; i++) {
        if (!lacks(fleet, i, normalised, needs, &lacking))
            continue;
        if (!has_any || __builtin_popcount(lacking) < __builtin_popcount(least))
            least = lacking;
        has_any = true;
    }
    return least;
}

bool fleet_all_can(const struct fleet *fleet, struct slice normalised, unsigned needs)
{
    unsigned lacking;

    for (size_t i = 0; i < fleet->count; i++)
        if (lacks(fleet, i, normalised, needs, &lacking) && lacking)
            return false;
    return true;
}

/* False: no memory. */
static bool add_offered(struct catalog *all, const struct fleet_rule *rule, const struct catalog *catalog)
{
    for (size_t i = 0; i < catalog->count; i++)
        if (fleet_rule_is_for(rule, slice_of(catalog->listings[i].name)) &&
            !catalog_add_copy(all, &catalog->listings[i]))
            return false;
    return true;
}

static struct catalog *put_together(const struct fleet *fleet)
{
    struct catalog *all = NULL;

    for (size_t i = 0; i < fleet->count; i++) {
        struct catalog *catalog = backend_catalog(fleet->backends[i]);
        bool is_good = true;
        if (!catalog)
            continue;
        if (!all)
            all = catalog_new();
        is_good = all && add_offered(all, &fleet->rules[i], catalog);
        (void)catalog_unref(catalog);
        if (!is_good)
            return catalog_unref(all);
    }
    return all;
}

struct catalog *fleet_catalog(const struct fleet *fleet)
{
    if (fleet->count == 1 && !fleet->rules[0].model_count)
        return backend_catalog(fleet->backends[0]);
    return put_together(fleet);
}
