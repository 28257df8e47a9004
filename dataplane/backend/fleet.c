#include <assert.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "backend_parts.h"
#include "kind.h"
#include "log.h"
#include "model_name.h"
#include "snapshot.h"

static const struct kind *const kinds[] = { [BACKEND_OLLAMA] = &kind_ollama };

static struct backend *find(const struct fleet *fleet, const struct backend_rule *rule)
{
    for (size_t i = 0; fleet && i < fleet->count; i++)
        if (fleet->backends[i]->kind == kinds[rule->kind] && backend_is(fleet->backends[i], rule))
            return fleet->backends[i];
    return NULL;
}

static bool asks_resolver(const struct backend_rule *rule)
{
    return !host_is_literal(rule->host) && strcasecmp(rule->host, "localhost") != 0;
}

bool fleet_asks_resolver(const struct snapshot *snapshot, const struct fleet *old)
{
    for (size_t i = 0; i < snapshot->backend_count; i++) {
        const struct backend_rule *rule = &snapshot->backends[i];
        if (!find(old, rule) && asks_resolver(rule))
            return true;
    }
    return false;
}

/* The fleet of a snapshot with its rules, but without backends so far. */
static struct fleet *fleet_begin(struct snapshot *snapshot)
{
    size_t room = snapshot->backend_count;
    struct fleet *fleet = calloc(1, sizeof *fleet + room * (sizeof(struct backend *) + sizeof(struct fleet_rule)));

    if (!fleet)
        return NULL;
    atomic_init(&fleet->refs, 1);
    fleet->snapshot = snapshot_ref(snapshot);
    fleet->rules = (struct fleet_rule *)(void *)&fleet->backends[room];
    for (size_t i = 0; i < room; i++) {
        const struct backend_rule *rule = &snapshot->backends[i];
        fleet->rules[i] = (struct fleet_rule){
            .slots = rule->slots,
            .weight = rule->weight,
            .drains = rule->drains,
            .models = rule->models,
            .model_count = rule->model_count,
        };
    }
    return fleet;
}
/* Pointers come before the rules: whatever their number, the rules are aligned. */
static_assert(alignof(struct fleet_rule) <= sizeof(struct backend *));

/* Here only, not whenever it is looked up again. */
static void say_unresolved(const struct backend *backend)
{
    if (backend->unresolved)
        log_warn("backend %s: the host %s does not resolve (%s): looking it up again and again", backend->name,
                 backend->host, backend->unresolved);
}

static struct backend *make(const struct backend_rule *rule, bool may_ask, int64_t now_ms)
{
    struct backend *backend;

    if (!may_ask && asks_resolver(rule))
        return backend_new_unasked(rule, kinds[rule->kind], now_ms);
    backend = backend_new(rule, kinds[rule->kind], now_ms);
    if (backend)
        say_unresolved(backend);
    return backend;
}

static struct fleet *build(struct snapshot *snapshot, struct fleet *old, bool may_ask, int64_t now_ms)
{
    struct fleet *fleet = fleet_begin(snapshot);

    if (!fleet)
        return NULL;
    for (size_t i = 0; i < snapshot->backend_count; i++) {
        const struct backend_rule *rule = &snapshot->backends[i];
        struct backend *known = find(old, rule), *backend = known ? backend_ref(known) : make(rule, may_ask, now_ms);
        if (!backend)
            return fleet_unref(fleet);
        fleet->backends[fleet->count++] = backend;
    }
    return fleet;
}

struct fleet *fleet_new(struct snapshot *snapshot, struct fleet *old, int64_t now_ms)
{
    return build(snapshot, old, true, now_ms);
}

struct fleet *fleet_new_unasked(struct snapshot *snapshot, struct fleet *old, int64_t now_ms)
{
    return build(snapshot, old, false, now_ms);
}

bool fleet_rule_is_for(const struct fleet_rule *rule, struct slice normalised_model)
{
    return !rule->model_count || model_names_have(rule->models, rule->model_count, normalised_model);
}

static bool has_address(const struct backend *backend, const struct sockaddr_storage *address, socklen_t bytes)
{
    for (unsigned i = 0; i < backend->address_count; i++)
        if (backend->address_bytes[i] == bytes && memcmp(&backend->addresses[i], address, bytes) == 0)
            return true;
    return false;
}

/* In any order: resolvers turn them round. */
static bool has_same_addresses(const struct backend *one, const struct backend *other)
{
    if (one->address_count != other->address_count)
        return false;
    for (unsigned i = 0; i < one->address_count; i++)
        if (!has_address(other, &one->addresses[i], one->address_bytes[i]))
            return false;
    return true;
}

/* A reference to the backend itself, or to a fresh one where its host has another address now. */
static struct backend *renewed(struct backend *backend, int64_t now_ms)
{
    const struct backend_rule rule = {
        .name = backend->name, .host = backend->host, .port = backend->port, .authority = backend->authority
    };
    struct backend *fresh;

    if (!backend_wants_address(backend, now_ms))
        return backend_ref(backend);
    fresh = backend_new(&rule, backend->kind, now_ms);
    if (fresh && fresh->address_count && !has_same_addresses(backend, fresh))
        return fresh;
    (void)backend_unref(fresh);
    return backend_ref(backend);
}

struct fleet *fleet_renew(struct fleet *old, int64_t now_ms)
{
    struct fleet *fleet = fleet_begin(old->snapshot);
    bool differs = false;

    if (!fleet)
        return NULL;
    for (size_t i = 0; i < old->count; i++) {
        fleet->backends[fleet->count++] = renewed(old->backends[i], now_ms);
        differs |= fleet->backends[i] != old->backends[i];
    }
    return differs ? fleet : fleet_unref(fleet);
}

void fleet_ref_more(struct fleet *fleet, unsigned count)
{
    atomic_fetch_add_explicit(&fleet->refs, count, memory_order_relaxed);
}

struct fleet *fleet_ref(struct fleet *fleet)
{
    fleet_ref_more(fleet, 1);
    return fleet;
}

struct fleet *fleet_unref(struct fleet *fleet)
{
    if (!fleet || atomic_fetch_sub_explicit(&fleet->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    for (size_t i = 0; i < fleet->count; i++)
        (void)backend_unref(fleet->backends[i]);
    (void)snapshot_unref(fleet->snapshot);
    free(fleet);
    return NULL;
}

bool fleet_is_ready(const struct fleet *fleet, bool *ret_is_starting)
{
    bool is_ready = false, has_taken = false, are_away = true;

    for (size_t i = 0; i < fleet->count; i++) {
        const struct backend *backend = fleet->backends[i];
        bool is_probed = atomic_load(&backend->is_probed);
        has_taken |= atomic_load(&backend->has_taken);
        if (fleet->rules[i].drains)
            continue; /* whatever it does, nobody waits for it */
        is_ready |= is_probed && backend_takes_callers(backend);
        are_away &= is_probed && !backend_is_closed(backend);
    }
    *ret_is_starting = !has_taken && !are_away;
    return is_ready;
}
