/* GET /v1/models and /v1/models/{id}: what a key may use, in OpenAI's shape. */
#include "clock.h"
#include "json.h"
#include "model_name.h"
#include "parts.h"

enum { MAX_MODEL_NAME = 512 };

/* One model as callers see it. */
struct shown {
    struct slice name;
    int64_t created_s;
};

/* The namespace before the last '/', as Ollama's own /v1 has it: "library" by default. */
static struct slice owner_of(struct slice name)
{
    size_t end = name.len;

    while (end && name.at[end - 1] != '/')
        end--;
    return end ? (struct slice){ name.at, end - 1 } : SLICE("library");
}

static void add_model(struct request *req, const struct shown *shown, struct text *out)
{
    text_add_literal(out, "{\"id\":");
    json_add_string(out, shown->name);
    text_add_literal(out, ",\"object\":\"model\"");
    if (!settings_of(req)->strip_created) {
        text_add_literal(out, ",\"created\":");
        text_add_i64(out, shown->created_s);
    }
    text_add_literal(out, ",\"owned_by\":");
    json_add_string(out, owner_of(shown->name));
    text_add_char(out, '}');
}

/* With `models:` its names count, with the backend's dates; else the backend's. Model number i, or false: there are no
 * more. */
static bool nth_model(struct request *req, size_t i, struct shown *ret_shown, struct slice *ret_normalised)
{
    const struct snapshot *snapshot = req->snapshot;
    const struct listing *listing = NULL;

    if (!snapshot->has_models) {
        if (!req->catalog || i >= req->catalog->count)
            return false;
        listing = &req->catalog->listings[i];
        *ret_shown = (struct shown){ slice_of(listing->shown), listing->modified_s };
        *ret_normalised = slice_of(listing->name);
        return true;
    }
    if (i >= snapshot->model_count)
        return false;
    listing = catalog_find(req->catalog, slice_of(snapshot->models[i].backend_name));
    *ret_shown = (struct shown){ slice_of(snapshot->models[i].shown), listing ? listing->modified_s : 0 };
    *ret_normalised = slice_of(snapshot->models[i].name);
    return true;
}

/* The rate is taken once the request is known to be good. False: refused. */
static bool may_answer(struct request *req)
{
    if (identity_take_rate(req))
        return true;
    (void)request_refuse(req, CAUSE_RATE);
    return false;
}

/* No list has ever come: wait for one, or say that there is no backend. */
static bool has_list(struct request *req, enum verdict *ret_verdict)
{
    admit_give_back(req);
    req->catalog = fleet_catalog(req->fleet);
    if (req->catalog || req->snapshot->has_models)
        return true;
    *ret_verdict = WAIT;
    if (!admit_has_fresh_lists(req))
        return false;
    *ret_verdict = request_refuse(req, CAUSE_BACKEND_DOWN);
    return false;
}

enum verdict models_list(struct request *req)
{
    struct slice normalised;
    struct shown shown;
    enum verdict verdict;
    struct text *out;
    bool is_first = true;

    if (!has_list(req, &verdict))
        return verdict;
    if (!may_answer(req))
        return AGAIN;
    out = reply_open(req);
    text_add_literal(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; nth_model(req, i, &shown, &normalised); i++) {
        if (req->key && !key_may_use(req->key, normalised))
            continue;
        if (!is_first)
            text_add_char(out, ',');
        is_first = false;
        add_model(req, &shown, out);
    }
    text_add_literal(out, "]}");
    if (out->err)
        return request_refuse(req, CAUSE_NO_MEMORY);
    reply_close(req, 200, "application/json");
    return WAIT;
}

static bool find_shown(struct request *req, struct slice wanted, struct shown *ret_shown)
{
    struct slice normalised;

    for (size_t i = 0; nth_model(req, i, ret_shown, &normalised); i++)
        if (slice_is(normalised, wanted))
            return !req->key || key_may_use(req->key, normalised);
    return false;
}

static enum verdict refuse_unknown(struct request *req)
{
    (void)request_refuse_saying(req, CAUSE_MODEL_UNKNOWN,
                                SLICE("the model does not exist; GET /v1/models lists those that do"));
    req->refusal.param = SLICE("model");
    return AGAIN;
}

/* Nobody lists it, but it may well exist. */
static bool is_away(const struct request *req, struct slice wanted)
{
    for (size_t i = 0; !req->snapshot->has_models && i < req->fleet->count; i++)
        if (fleet_expects(req->fleet, i, wanted))
            return !model_name_is_cloud(wanted) && (!req->key || key_may_use(req->key, wanted));
    return false;
}

enum verdict models_show(struct request *req)
{
    struct shown shown = { 0 };
    char memory[MAX_MODEL_NAME + 1];
    struct text normalised = text_over(memory, sizeof memory);
    enum verdict verdict = AGAIN;
    bool is_found;

    if (!has_list(req, &verdict))
        return verdict;
    is_found = model_name_normalise(req->piece, &normalised) && !model_name_is_cloud(text_slice(&normalised)) &&
               find_shown(req, text_slice(&normalised), &shown);
    if (!is_found && !req->snapshot->has_models && req->piece.len && !admit_has_fresh_lists(req))
        return WAIT;
    if (!is_found && is_away(req, text_slice(&normalised)))
        return request_refuse(req, CAUSE_BACKEND_DOWN);
    if (!is_found)
        return refuse_unknown(req);
    if (!may_answer(req))
        return AGAIN;
    shown.name = req->piece; /* as asked for */
    add_model(req, &shown, reply_open(req));
    reply_close(req, 200, "application/json");
    return WAIT;
}
