/* What a queue knows of backends comes through here: from the fleet and its rules, lists of models, residency,
 * breakers. */
#include <limits.h>
#include <stdlib.h>

#include "queue_parts.h"

bool look_takes(const struct backend *backend)
{
    return backend_takes_callers(backend);
}

bool look_warms(const struct backend *backend)
{
    return backend_is_warming(backend);
}

static bool lists(struct backend *backend, struct slice model)
{
    struct catalog *catalog = backend_catalog(backend);
    bool does = catalog && catalog_find(catalog, model);

    (void)catalog_unref(catalog);
    return does;
}

/* After a recovery not all at once: a backend that has just started loads models. */
static unsigned allowed(const struct backend *backend, unsigned slots, int64_t slow_start_us, int64_t now_us)
{
    int64_t recovered_ms = backend_recovered_ms(backend), since_us = now_us - recovered_ms * 1000;
    unsigned part;

    if (!slots)
        return UINT_MAX;
    if (!recovered_ms || since_us >= slow_start_us)
        return slots;
    part = since_us > 0 ? (unsigned)((double)slots * (double)since_us / (double)slow_start_us) : 0;
    return part ? part : 1;
}

static void see(struct sight *sight, struct fleet *fleet, size_t i, const struct look *look, struct slice model)
{
    struct backend *backend = fleet->backends[i];
    const struct fleet_rule *rule = &fleet->rules[i];

    *sight = (struct sight){
        .backend = backend,
        .name_hash = route_name_hash(slice_of(backend->name)),
        .may = fleet_rule_is_for(rule, model) && !rule->drains,
        .is_resident = backend_residency(backend, model) == RESIDENCY_YES,
        .weight = rule->weight,
        .slots = rule->slots,
        .allowed = allowed(backend, rule->slots, look->rules.slow_start_us, look->op.now_us),
    };
}

enum having { HAS_NOT, IS_EXPECTED, HAS };

static enum having having_of(const struct fleet *fleet, size_t i, struct slice model)
{
    if (fleet_rule_is_for(&fleet->rules[i], model) && lists(fleet->backends[i], model))
        return HAS;
    return fleet_expects(fleet, i, model) ? IS_EXPECTED : HAS_NOT;
}

/* Where one has the model, only those that have it are asked; else those that are configured for it and have told no
 * list yet, away or not; where there are none of these either, any may be: it answers for itself. */
static void leave_out_others(struct look *look, struct fleet *fleet, struct slice model)
{
    enum having having[ROUTE_MAX_SITES], most = HAS_NOT;

    for (unsigned i = 0; i < look->count; i++) {
        having[i] = having_of(fleet, i, model);
        most = having[i] > most ? having[i] : most;
    }
    for (unsigned i = 0; i < look->count; i++)
        look->sights[i].may &= having[i] == most;
}

struct look *look_new(struct fleet *fleet, const struct queue_rules *rules, struct slice model, int64_t now_us)
{
    unsigned count = fleet->count < ROUTE_MAX_SITES ? (unsigned)fleet->count : ROUTE_MAX_SITES;
    struct look *look = calloc(1, sizeof *look + count * sizeof(struct sight));

    if (!look)
        return NULL;
    look->op = (struct op){ .what = OP_LOOK, .now_us = now_us };
    look->fleet = fleet_ref(fleet);
    look->rules = *rules;
    look->count = count;
    for (unsigned i = 0; i < count; i++)
        see(&look->sights[i], fleet, i, look, model);
    leave_out_others(look, fleet, model);
    return look;
}

struct look *look_free(struct look *look)
{
    (void)fleet_unref(look->fleet);
    free(look);
    return NULL;
}

void look_finds_fewer(struct backend *backend, struct slice model, bool is_so, unsigned at_once)
{
    char memory[64];
    struct text detail = text_over(memory, sizeof memory);

    text_printf(&detail, "runs %u at once", at_once);
    backend_finds(backend, FINDING_FEWER_SLOTS, model, is_so, text_string(&detail));
}
