#include <stdlib.h>

#include "backend.h"
#include "kind.h"
#include "snapshot.h"

static struct backend *taken_over(struct fleet *old, const struct backend_rule *rule)
{
    for (size_t i = 0; old && i < old->count; i++)
        if (backend_is(old->backends[i], rule))
            return backend_ref(old->backends[i]);
    return NULL;
}

struct fleet *fleet_new(const struct snapshot *snapshot, struct fleet *old, int64_t now_ms)
{
    struct fleet *fleet = calloc(1, sizeof *fleet + snapshot->backend_count * sizeof(struct backend *));

    if (!fleet)
        return NULL;
    atomic_init(&fleet->refs, 1);
    for (size_t i = 0; i < snapshot->backend_count; i++) {
        const struct backend_rule *rule = &snapshot->backends[i];
        struct backend *backend = taken_over(old, rule);
        if (!backend)
            backend = backend_new(rule, &kind_ollama, now_ms);
        if (!backend)
            return fleet_unref(fleet);
        fleet->backends[fleet->count++] = backend;
    }
    return fleet;
}

struct fleet *fleet_ref(struct fleet *fleet)
{
    atomic_fetch_add_explicit(&fleet->refs, 1, memory_order_relaxed);
    return fleet;
}

struct fleet *fleet_unref(struct fleet *fleet)
{
    if (!fleet || atomic_fetch_sub_explicit(&fleet->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (size_t i = 0; i < fleet->count; i++)
        (void)backend_unref(fleet->backends[i]);
    free(fleet);
    return NULL;
}

bool fleet_is_ready(const struct fleet *fleet, bool *ret_is_starting)
{
    bool is_ready = false;

    *ret_is_starting = true;
    for (size_t i = 0; i < fleet->count; i++) {
        bool is_probed = atomic_load(&fleet->backends[i]->is_probed);
        if (is_probed)
            *ret_is_starting = false;
        is_ready |= is_probed && backend_is_closed(fleet->backends[i]);
    }
    return is_ready;
}
