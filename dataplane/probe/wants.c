#include "wants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "log.h"
#include "snapshot.h"

enum { MAX_NAME_BYTES = 512 };

/* ---- what the configuration wants ---- */

static int by_name(const void *one, const void *other)
{
    return strcmp(((const struct want *)one)->name, ((const struct want *)other)->name);
}

static struct want *find(struct wants *wants, struct slice name)
{
    for (size_t i = 0; i < wants->count; i++)
        if (slice_is(slice_of(wants->at[i].name), name))
            return &wants->at[i];
    return NULL;
}

const struct want *wants_find(const struct wants *wants, struct slice name)
{
    return find((struct wants *)wants, name);
}

/* The entry of that name, perhaps a new one. NULL: no memory. */
static struct want *want_of(struct wants *wants, struct slice name, const char *model)
{
    struct want *want = find(wants, name);

    if (want)
        return want;
    want = &wants->at[wants->count];
    *want = (struct want){ .name = strndup(name.at, name.len), .model = model, .expires_s = -1 };
    wants->count += want->name != NULL;
    return want->name ? want : NULL;
}

/* Several names of callers may mean one model here. The one that is preloaded says how it is loaded. */
static bool add_model(struct wants *wants, const struct model *model, const struct fleet_rule *rule)
{
    struct slice name = slice_of(model->backend_name);
    struct want *want;

    if (!fleet_rule_is_for(rule, name))
        return true;
    want = want_of(wants, name, model->backend_model);
    if (!want)
        return false;
    if (!want->num_ctx || (model->preload && !want->is_preloaded)) {
        want->num_ctx = model->num_ctx;
        want->keep_alive = model->keep_alive;
    }
    want->is_preloaded |= model->preload && !rule->drains;
    return true;
}

struct wants *wants_new(const struct snapshot *snapshot, const struct fleet_rule *rule)
{
    size_t most = snapshot->model_count + rule->model_count;
    struct wants *wants = calloc(1, sizeof *wants + most * sizeof *wants->at);
    bool is_good = wants;

    for (size_t i = 0; is_good && i < snapshot->model_count; i++)
        is_good = add_model(wants, &snapshot->models[i], rule);
    for (size_t i = 0; is_good && i < rule->model_count; i++)
        is_good = want_of(wants, slice_of(rule->models[i]), rule->models[i]);
    if (!is_good) {
        wants_free(wants);
        return NULL;
    }
    wants->takes_all = !snapshot->has_models && !rule->model_count;
    if (wants->count)
        qsort(wants->at, wants->count, sizeof *wants->at, by_name);
    return wants;
}

void wants_free(struct wants *wants)
{
    for (size_t i = 0; wants && i < wants->count; i++)
        free(wants->at[i].name);
    free(wants);
}

void wants_carry(struct wants *wants, const struct wants *old)
{
    wants->is_warming = old->is_warming;
    wants->warm_until_ms = old->warm_until_ms;
    for (size_t i = 0; i < wants->count; i++) {
        struct want *want = &wants->at[i];
        const struct want *was = wants_find(old, slice_of(want->name));
        if (was) {
            want->is_missing = was->is_missing;
            want->was_resident = was->was_resident;
            want->has_failed = was->has_failed;
            want->state = was->state;
            want->expires_s = was->expires_s;
            want->losses = was->losses;
            want->due_ms = was->due_ms;
            want->asked_ms = was->asked_ms;
            want->answered_ms = was->answered_ms;
        }
        if (want->is_preloaded && !(was && was->is_preloaded) && !want->is_missing && want->state == WANT_RESTS)
            want->state = WANT_DUE;
        else if (!want->is_preloaded && want->state == WANT_DUE)
            want->state = WANT_RESTS;
    }
}

/* ---- loading ---- */

bool wants_are_busy(const struct wants *wants)
{
    for (size_t i = 0; i < wants->count; i++)
        if (wants->at[i].state != WANT_RESTS)
            return true;
    return false;
}

void wants_begin(struct wants *wants, struct backend *backend, int64_t now_ms)
{
    bool is_warming = false;

    for (size_t i = 0; i < wants->count; i++) {
        struct want *want = &wants->at[i];
        want->was_resident = want->has_failed = false;
        want->is_missing = false; /* it may come back with other models */
        want->state = want->is_preloaded ? WANT_DUE : WANT_RESTS;
        want->due_ms = want->losses = 0;
        is_warming |= want->is_preloaded;
    }
    wants->is_warming = is_warming;
    wants->warm_until_ms = 0;
    backend_warms(backend, is_warming, now_ms);
}

struct want *wants_load_next(struct wants *wants, int64_t now_ms)
{
    struct want *next = NULL;

    for (size_t i = 0; i < wants->count; i++) {
        if (wants->at[i].state == WANT_LOADING)
            return NULL;
        if (wants->at[i].state == WANT_DUE && now_ms >= wants->at[i].due_ms && !next)
            next = &wants->at[i];
    }
    if (next) {
        next->state = WANT_LOADING;
        next->asked_ms = now_ms;
    }
    return next;
}

void wants_loaded(struct wants *wants, struct backend *backend, struct slice name, unsigned status, const char *trouble,
                  int64_t now_ms)
{
    struct want *want = find(wants, name);

    if (!want || want->state != WANT_LOADING) /* of another configuration */
        return;
    want->state = WANT_RESTS;
    want->answered_ms = now_ms;
    want->has_failed = trouble;
    want->losses = 0;
    if (!trouble) {
        log_info("backend %s: %s is loaded, after %lld ms", backend->name, want->name,
                 (long long)(now_ms - want->asked_ms));
    } else if (status == 404) {
        want->is_missing = true;
        backend_finds(backend, FINDING_MODEL_MISSING, name, true, NULL);
    } else {
        backend_finds(backend, FINDING_NOT_RESIDENT, name, true, trouble);
    }
}

void wants_lost(struct wants *wants, struct backend *backend, struct slice name, int64_t now_ms)
{
    struct want *want = find(wants, name);

    if (!want || want->state != WANT_LOADING)
        return;
    if (++want->losses >= WANT_MAX_LOSSES) {
        wants_loaded(wants, backend, name, 0, "asked to load it, it does not answer", now_ms);
        return;
    }
    want->state = WANT_DUE;
    want->due_ms = now_ms + WANT_LOST_MS;
}

static void let_callers_in(struct wants *wants, struct backend *backend, int64_t now_ms)
{
    wants->is_warming = false;
    backend_warms(backend, false, now_ms);
}

void wants_look_after(struct wants *wants, struct backend *backend, int64_t timeout_ms, int64_t now_ms)
{
    if (!wants->is_warming)
        return;
    if (!wants->warm_until_ms)
        wants->warm_until_ms = now_ms + timeout_ms;
    if (!wants_are_busy(wants)) {
        let_callers_in(wants, backend, now_ms);
    } else if (now_ms >= wants->warm_until_ms) {
        log_warn("backend %s: warm_timeout is over and not all of its models are loaded: taking requests all the same",
                 backend->name);
        let_callers_in(wants, backend, now_ms);
    }
}

/* ---- what is there ---- */

void wants_see_catalog(struct wants *wants, struct backend *backend, const struct catalog *catalog)
{
    for (size_t i = 0; i < wants->count; i++) {
        struct want *want = &wants->at[i];
        bool was_missing = want->is_missing;
        want->is_missing = !catalog_find(catalog, slice_of(want->name));
        backend_finds(backend, FINDING_MODEL_MISSING, slice_of(want->name), want->is_missing, NULL);
        if (want->is_missing && want->state == WANT_DUE)
            want->state = WANT_RESTS;
        else if (was_missing && !want->is_missing && want->is_preloaded && want->state == WANT_RESTS)
            want->state = WANT_DUE;
    }
}

static void judge_size(struct backend *backend, const struct resident *resident)
{
    double whole = (double)resident->size / 1e9, fast = (double)resident->size_vram / 1e9;
    bool is_partly = resident->size_vram < resident->size;
    char detail[80];

    (void)snprintf(detail, sizeof detail,
                   whole < 10 ? "%.1f of %.1f GB in graphics memory" : "%.0f of %.0f GB in graphics memory", fast,
                   whole);
    backend_finds(backend, FINDING_PARTLY_ON_CPU, slice_of(resident->name), is_partly, is_partly ? detail : NULL);
}

static void judge_context(struct backend *backend, const struct want *want, const struct resident *resident)
{
    bool is_short = resident->context_length && resident->context_length < want->num_ctx;
    char detail[80];

    (void)snprintf(detail, sizeof detail, "%llu of %llu tokens", (unsigned long long)resident->context_length,
                   (unsigned long long)want->num_ctx);
    backend_finds(backend, FINDING_SHORT_CONTEXT, slice_of(want->name), is_short, is_short ? detail : NULL);
}

static void see_loaded(struct want *want, struct backend *backend, const struct resident *resident)
{
    want->was_resident = true;
    want->has_failed = false;
    want->expires_s = resident->expires_s;
    judge_context(backend, want, resident);
    backend_finds(backend, FINDING_NOT_RESIDENT, slice_of(want->name), false, NULL);
}

/* True: it is gone since the backend restarted. */
static bool see_not_loaded(struct want *want, struct backend *backend, const struct residents *residents,
                           const struct wants_look *look)
{
    bool was_lost = want->was_resident;
    bool has_expired = was_lost && want->expires_s > 0 && want->expires_s <= look->wall_s + WANT_SKEW_S;
    bool has_restarted = was_lost && !has_expired && (look->was_quiet || !residents->count);

    want->was_resident = false;
    backend_finds(backend, FINDING_SHORT_CONTEXT, slice_of(want->name), false, "is not loaded any more");
    if (!want->is_preloaded || want->is_missing || want->state != WANT_RESTS)
        return false;
    if (has_restarted || has_expired || (want->has_failed && look->now_ms - want->answered_ms >= WANT_AGAIN_MS))
        want->state = WANT_DUE;
    else if (want->answered_ms < look->asked_ms) /* else it was asked before it was loaded */
        backend_finds(backend, FINDING_NOT_RESIDENT, slice_of(want->name), true, NULL);
    return has_restarted;
}

/* ---- findings about what nobody wants any more ---- */

struct held {
    enum finding finding;
    char name[MAX_NAME_BYTES];
};

struct notes {
    unsigned count;
    struct held held[BACKEND_MAX_FINDINGS];
};

static void take_note(void *arg, enum finding finding, struct slice model)
{
    struct notes *notes = arg;
    struct held *held = &notes->held[notes->count];

    if (finding == FINDING_FEWER_SLOTS || notes->count == BACKEND_MAX_FINDINGS || model.len >= sizeof held->name)
        return;
    held->finding = finding;
    memcpy(held->name, model.at, model.len);
    held->name[model.len] = 0;
    notes->count++;
}

/* NULL: it still matters. */
static const char *why_passed(const struct wants *wants, const struct residents *residents, const struct held *held)
{
    struct slice name = slice_of(held->name);
    const struct want *want = wants_find(wants, name);

    if (!want && !(wants->takes_all && held->finding == FINDING_PARTLY_ON_CPU))
        return "is not configured for it any more";
    if (held->finding == FINDING_PARTLY_ON_CPU && !residents_find(residents, name))
        return "is not loaded any more";
    if (held->finding == FINDING_NOT_RESIDENT && !want->is_preloaded)
        return "is not to be kept loaded any more";
    if (held->finding == FINDING_NOT_RESIDENT && want->is_missing)
        return "is not there any more";
    return NULL;
}

static void end_what_has_passed(const struct wants *wants, struct backend *backend, const struct residents *residents)
{
    struct notes *notes = calloc(1, sizeof *notes);

    if (!notes)
        return; /* the next look does it */
    backend_findings(backend, take_note, notes);
    for (unsigned i = 0; i < notes->count; i++) {
        const char *why = why_passed(wants, residents, &notes->held[i]);
        if (why)
            backend_finds(backend, notes->held[i].finding, slice_of(notes->held[i].name), false, why);
    }
    free(notes);
}

void wants_see_residents(struct wants *wants, struct backend *backend, const struct residents *residents,
                         const struct wants_look *look)
{
    bool has_restarted = false;

    for (size_t i = 0; i < residents->count; i++) {
        const struct resident *resident = &residents->models[i];
        if (resident->size && (wants->takes_all || wants_find(wants, slice_of(resident->name))))
            judge_size(backend, resident);
    }
    for (size_t i = 0; i < wants->count; i++) {
        const struct resident *resident = residents_find(residents, slice_of(wants->at[i].name));
        if (resident)
            see_loaded(&wants->at[i], backend, resident);
        else
            has_restarted |= see_not_loaded(&wants->at[i], backend, residents, look);
    }
    if (has_restarted && !wants->is_warming) {
        log_info("backend %s has restarted: loading its models before it takes requests", backend->name);
        wants->is_warming = true;
        wants->warm_until_ms = 0;
        backend_warms(backend, true, look->now_ms);
    }
    end_what_has_passed(wants, backend, residents);
}
