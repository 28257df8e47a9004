#include "explain.h"

#include "backend.h"
#include "model_name.h"
#include "queue.h"
#include "snapshot.h"

enum { EXPLAINED = 200, UNKNOWN = 404, MAX_NAME_BYTES = 512 };

/* The name that backends know it by, normalised. False, with the sentence, when callers cannot ask for it. */
static bool find_name(const struct snapshot *snapshot, struct slice model, struct text *name, struct text *out)
{
    const struct model *found;

    if (!model_name_normalise(model, name))
        text_add_literal(out, "that is not the name of a model\n");
    else if (model_name_is_cloud(text_slice(name)))
        text_printf(out, "%s is a model in the cloud, which nobody may ask for here\n", text_string(name));
    else if (!snapshot->has_models)
        return true;
    else if (!(found = snapshot_find_model(snapshot, text_slice(name))))
        text_printf(out, "`models:` has no %s\n", text_string(name));
    else {
        text_clear(name);
        return model_name_normalise(slice_of(found->backend_model), name);
    }
    return false;
}

enum offer { OFFERED, NOT_FOR_IT, NO_LIST, NOT_LISTED };

static enum offer offer_of(const struct fleet *fleet, size_t i, struct slice name)
{
    struct catalog *catalog;
    enum offer offer;

    if (!fleet_rule_is_for(&fleet->rules[i], name))
        return NOT_FOR_IT;
    catalog = backend_catalog(fleet->backends[i]);
    offer = !catalog ? NO_LIST : catalog_find(catalog, name) ? OFFERED : NOT_LISTED;
    (void)catalog_unref(catalog);
    return offer;
}

static bool is_offered(const struct fleet *fleet, struct slice name)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (offer_of(fleet, i, name) == OFFERED || fleet_expects(fleet, i, name))
            return true;
    return false;
}

/* NULL: it does take callers, as far as one backend's own state goes. */
static const char *why_not(const struct fleet *fleet, size_t i, struct slice name)
{
    static const char *const offers[] = {
        [NOT_FOR_IT] = "its `models` has others only",
        [NO_LIST] = "it has not told yet which models it has",
        [NOT_LISTED] = "it does not have the model",
    };
    const struct backend *backend = fleet->backends[i];
    enum offer offer = offer_of(fleet, i, name);

    if (!atomic_load(&backend->is_probed))
        return "it has not answered yet";
    if (!backend_is_closed(backend))
        return "it does not answer, its breaker is open";
    if (offer != OFFERED)
        return offers[offer];
    if (fleet->rules[i].drains)
        return "it drains";
    return backend_takes_callers(backend) ? NULL : "it answers, but loads the models of `preload` first";
}

struct findings {
    const struct backend *backend;
    struct slice name;
    struct text *out;
};

static void add_finding(void *arg, enum finding finding, struct slice model)
{
    const struct findings *findings = arg;

    if (slice_is(model, findings->name))
        text_printf(findings->out, "  %s: something is wrong: %s\n", findings->backend->name, finding_word(finding));
}

static void add_backends(const struct fleet *fleet, struct slice name, struct text *out)
{
    for (size_t i = 0; i < fleet->count; i++) {
        struct backend *backend = fleet->backends[i];
        struct findings findings = { .backend = backend, .name = name, .out = out };
        const char *reason = why_not(fleet, i, name);
        if (reason)
            text_printf(out, "  %s takes none: %s\n", backend->name, reason);
        backend_findings(backend, add_finding, &findings);
    }
}

/* A queue is made when the first request comes, or here, when somebody wants to know what that would meet. */
static bool explain_queue(struct queues *queues, struct slice name, int64_t now_us, struct text *out)
{
    return queues_explain(queues, name, now_us, out) ||
           (queues_find(queues, name) && queues_explain(queues, name, now_us, out));
}

unsigned explain_model(const struct snapshot *snapshot, struct fleet *fleet, struct queues *queues, struct slice model,
                       int64_t now_us, struct text *out)
{
    unsigned status = UNKNOWN;
    struct text name;

    text_init(&name, MAX_NAME_BYTES);
    if (find_name(snapshot, model, &name, out)) {
        if (!is_offered(fleet, text_slice(&name)))
            text_printf(out, "no backend has %s\n", text_string(&name));
        else if (!explain_queue(queues, text_slice(&name), now_us, out))
            text_printf(out, "%s has no queue of its own: too many models have\n", text_string(&name));
        else {
            add_backends(fleet, text_slice(&name), out);
            status = EXPLAINED;
        }
    }
    text_release(&name);
    return status;
}
