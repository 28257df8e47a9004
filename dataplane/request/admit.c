/*
 * What is wanted, and may it be: rows 9 to 13 of behaviour.md 2.2. A name that the backend's list lacks is
 * looked for in a fresh list; while the request waits for it, it keeps its body and reads it again afterwards.
 */
#include "clock.h"
#include "model_name.h"
#include "parts.h"

enum {
    LIST_WAIT_MS = 3000,
    LIST_FRESH_MS = 1000,
    MAX_MODEL_NAME = 512,
};

void admit_give_back(struct request *req)
{
    req->catalog = catalog_unref(req->catalog);
}

/* The body outlives this call only as our own copy. */
static bool keep_body(struct request *req)
{
    if (!req->gathered.len && req->piece.len)
        text_add_slice(&req->gathered, req->piece);
    req->piece = text_slice(&req->gathered);
    req->is_read = false;
    req->inference = NULL;
    arena_release(&req->parse_arena);
    return !req->gathered.err;
}

/* Was the list of every backend that lives asked for after that moment? */
static bool are_lists_from(const struct request *req, int64_t since_ms)
{
    for (size_t i = 0; i < req->fleet->count; i++) {
        struct backend *backend = req->fleet->backends[i];
        bool is_fresh = atomic_load(&backend->catalog_turn) && atomic_load(&backend->catalog_ms) >= since_ms;
        if (!is_fresh && backend_is_closed(backend))
            return false;
    }
    return true;
}

bool admit_has_fresh_lists(struct request *req)
{
    int64_t now_ms = clock_ms();

    if (req->waits_for_list)
        return are_lists_from(req, req->list_asked_ms) || now_ms >= req->list_asked_ms + LIST_WAIT_MS;
    if (are_lists_from(req, now_ms - LIST_FRESH_MS))
        return true;
    req->waits_for_list = true;
    req->list_asked_ms = now_ms;
    for (size_t i = 0; i < req->fleet->count; i++)
        atomic_store(&req->fleet->backends[i]->wants_catalog, true);
    req->house->nudge(req->house->nudge_arg);
    wheel_set(req->house->wheel, &req->deadline, now_ms + LIST_WAIT_MS);
    return false;
}

/* ---- row 10 ---- */

static uint64_t prompt_cap(const struct request *req, const struct model *model)
{
    if (req->key && req->key->has_max_prompt_chars)
        return req->key->max_prompt_chars;
    if (model && model->has_max_prompt_chars)
        return model->max_prompt_chars;
    return settings_of(req)->max_prompt_chars;
}

static uint64_t system_cap(const struct request *req, const struct model *model)
{
    return model && model->has_max_system_chars ? model->max_system_chars : settings_of(req)->max_system_chars;
}

static enum verdict refuse_too_long(struct request *req, uint64_t cap, uint64_t chars, const char *of_what)
{
    struct text sentence;
    struct slice copy;

    text_init(&sentence, 512);
    text_add_literal(&sentence, "prompt too long, max ");
    refusal_add_number(&sentence, cap);
    text_printf(&sentence, " chars%s: the prompt is too long (", of_what);
    refusal_add_number(&sentence, chars);
    text_add_literal(&sentence, " chars), please shorten it or begin a new conversation");
    copy = arena_copy(&req->arena, text_slice(&sentence));
    text_release(&sentence);
    (void)request_refuse_saying(req, CAUSE_PROMPT_TOO_LONG, copy);
    req->refusal.param = SLICE("messages");
    return AGAIN;
}

/* ---- rows 11 and 12 ---- */

struct choice {
    const struct model *rule;      /* of `models:`; NULL: none */
    struct slice name;             /* as backends list it, normalised */
    const struct listing *listing; /* as one of them does; NULL: none does, or their lists are not known */
};

static enum verdict refuse_unknown(struct request *req)
{
    (void)request_refuse_saying(req, CAUSE_MODEL_UNKNOWN,
                                SLICE("the model does not exist; GET /v1/models lists those that do"));
    req->refusal.param = SLICE("model");
    return AGAIN;
}

static enum verdict refuse_unsupported(struct request *req, struct slice message, struct slice param)
{
    (void)request_refuse_saying(req, CAUSE_UNSUPPORTED, message);
    req->refusal.param = param;
    return AGAIN;
}

static void apply_think_default(struct request *req, const struct choice *choice)
{
    enum think_default think = req->key ? (enum think_default)req->key->think : THINK_UNSET;

    if (think == THINK_UNSET && choice->rule)
        think = choice->rule->think;
    if (req->inference->think != THINK_AS_MODEL || think == THINK_UNSET)
        return;
    if (think == THINK_ON && choice->listing && !fleet_all_can(req->fleet, choice->name, CAN_THINK))
        return; /* a default is no demand */
    req->inference->think = think == THINK_ON ? THINK_YES : THINK_NO;
}

static unsigned needs_of(const struct inference *inference)
{
    return CAN_COMPLETE | (inference->tools ? CAN_TOOLS : 0u) | (inference->image_count ? CAN_SEE : 0u) |
           (inference->think != THINK_AS_MODEL && inference->think != THINK_NO ? CAN_THINK : 0u);
}

/* One backend that can do it is enough. Almost always that is the first one. */
static unsigned lacking_of(const struct request *req, const struct choice *choice)
{
    const struct listing *listing = choice->listing;
    unsigned needs = needs_of(req->inference);

    if (!listing || !listing->has_capabilities || (listing->capabilities & needs) == needs)
        return 0;
    return fleet_lacks(req->fleet, choice->name, needs);
}

/* True when refused. */
static bool lacks_capability(struct request *req, const struct choice *choice, enum verdict *ret_verdict)
{
    unsigned lacks = lacking_of(req, choice);

    if (lacks & CAN_COMPLETE)
        *ret_verdict = refuse_unsupported(req, SLICE("this model does not support chat"), SLICE("model"));
    else if (lacks & CAN_TOOLS)
        *ret_verdict = refuse_unsupported(req, SLICE("this model does not support tools"), SLICE("tools"));
    else if (lacks & CAN_SEE)
        *ret_verdict = refuse_unsupported(req, SLICE("this model does not support images"), SLICE("messages"));
    else if (lacks & CAN_THINK)
        *ret_verdict =
            refuse_unsupported(req, SLICE("this model does not support thinking"), SLICE("reasoning_effort"));
    else
        return false;
    return true;
}

/* As some backend lists it; its catalog stays the request's until admit_give_back(). */
static const struct listing *find_listing(struct request *req, struct slice normalised)
{
    admit_give_back(req);
    return fleet_find(req->fleet, normalised, &req->catalog);
}

/* Row 11. False: refused or waiting, as *ret_verdict says. */
static bool choose_model(struct request *req, struct slice normalised, struct choice *ret_choice,
                         enum verdict *ret_verdict)
{
    *ret_verdict = AGAIN;
    if (model_name_is_cloud(normalised) || (req->snapshot->has_models && !ret_choice->rule)) {
        (void)refuse_unknown(req);
        return false;
    }
    if (ret_choice->rule) {
        ret_choice->listing = find_listing(req, ret_choice->name);
    } else {
        ret_choice->listing = find_listing(req, normalised);
        if (!ret_choice->listing && !admit_has_fresh_lists(req)) {
            *ret_verdict = keep_body(req) ? WAIT : request_refuse(req, CAUSE_NO_MEMORY);
            return false;
        }
        /*
         * A backend that lives but lists nothing is asked itself; one that does not live is row 16's, and so is a model
         * that only such a one is configured for. A list may have
         * come since we looked: the look that a refusal stands on is one into lists that were all there before it.
         */
        if (!ret_choice->listing && fleet_knows_models(req->fleet, normalised) &&
            !(ret_choice->listing = find_listing(req, normalised))) {
            (void)refuse_unknown(req);
            return false;
        }
    }
    if (ret_choice->rule || ret_choice->listing)
        req->record.model_label = arena_copy(&req->arena, normalised);
    if (req->key && !key_may_use(req->key, normalised)) {
        (void)request_refuse(req, CAUSE_MODEL_NOT_ALLOWED);
        req->refusal.param = SLICE("model");
        return false;
    }
    return true;
}

/* ---- the backend's request ---- */

/* The body alone, behind room for its head: that one is written when the backend is known. False: no memory. */
static bool write_request(struct request *req, const struct choice *choice)
{
    const struct inference *inference = req->inference;
    struct placement placement = {
        .model = choice->rule      ? slice_of(choice->listing ? choice->listing->shown : choice->rule->backend_model)
                 : choice->listing ? slice_of(choice->listing->shown)
                                   : inference->model,
        .num_ctx = choice->rule ? choice->rule->num_ctx : 0,
        .keep_alive = slice_of(choice->rule ? choice->rule->keep_alive : NULL),
    };

    text_clear(&req->sent);
    if (text_reserve(&req->sent, MAX_SENT_HEAD + req->piece.len + 512)) {
        req->sent.len = req->sent_room = MAX_SENT_HEAD;
        kind_ollama.write_chat(inference, &placement, &req->sent);
    }
    return !req->sent.err;
}

static void start_answer(struct request *req)
{
    struct inference *inference = req->inference;

    inference->model = arena_copy(&req->arena, inference->model);
    answer_init(&req->answer, req->endpoint->dialect, inference, req->record.request_id, clock_wall_ms() / 1000);
    req->answer.arena = &req->arena;
    req->answer.strips_model = settings_of(req)->strip_model;
    req->answer.strips_created = settings_of(req)->strip_created;
}

/* The prompt has been handed over: nothing of it stays but what the backend is still sent. */
static void forget_prompt(struct request *req)
{
    arena_release(&req->parse_arena);
    req->inference = NULL;
    text_release_wiped(&req->gathered);
    text_init(&req->gathered, settings_of(req)->max_line_bytes);
    req->piece = (struct slice){ 0 };
}

static bool read_body(struct request *req)
{
    struct inference *inference = req->inference = ARENA_NEW(&req->parse_arena, struct inference);

    if (!inference) {
        req->refusal = (struct refusal){ .cause = CAUSE_NO_MEMORY };
        return false;
    }
    if (!req->endpoint->dialect->read(req->piece, &req->parse_arena, inference, &req->refusal)) {
        /* What it complains of may lie in the body, which goes. */
        req->refusal.message = arena_copy(&req->arena, req->refusal.message);
        req->refusal.param = arena_copy(&req->arena, req->refusal.param);
        return false;
    }
    req->is_read = true;
    req->is_stream = req->record.is_stream = inference->is_stream;
    req->is_structured = inference->format != OUTPUT_TEXT;
    req->record.has_prompt = true;
    req->record.prompt_chars = inference->prompt_chars;
    req->record.model = arena_copy(&req->arena, inference->model);
    req->record.model_label = SLICE("other");
    return true;
}

static enum verdict admit_chat(struct request *req, struct slice normalised)
{
    const struct model *rule = snapshot_find_model(req->snapshot, normalised);
    uint64_t cap = prompt_cap(req, rule);
    uint64_t system = system_cap(req, rule);
    struct choice choice = { .rule = rule, .name = rule ? slice_of(rule->backend_name) : normalised };
    enum verdict verdict;

    if (cap && req->inference->prompt_chars > cap)
        return refuse_too_long(req, cap, req->inference->prompt_chars, "");
    if (system && req->inference->system_chars > system)
        return refuse_too_long(req, system, req->inference->system_chars, " of system text");
    if (!choose_model(req, normalised, &choice, &verdict))
        return verdict;
    apply_think_default(req, &choice);
    if (lacks_capability(req, &choice, &verdict))
        return verdict;
    identity_from_body(req);
    if (!identity_take_rate(req))
        return request_refuse(req, CAUSE_RATE);
    if (!identity_enter(req))
        return request_refuse(req, CAUSE_CONCURRENCY);
    if (!write_request(req, &choice))
        return request_refuse(req, CAUSE_NO_MEMORY);
    return place_take(req, choice.name, rule || choice.listing || fleet_names(req->fleet, normalised));
}

void admit_done(struct request *req)
{
    start_answer(req);
    forget_prompt(req);
    admit_give_back(req);
    req->has_begun = true;
}

enum verdict request_admitting(struct request *req)
{
    char memory[MAX_MODEL_NAME + 1];
    struct text normalised = text_over(memory, sizeof memory);

    if (!req->endpoint->dialect)
        return req->endpoint->answer(req);
    if (!req->is_read && !read_body(req))
        return request_go(req, REQUEST_REFUSING);
    if (!model_name_normalise(req->inference->model, &normalised))
        return refuse_unknown(req);
    return admit_chat(req, text_slice(&normalised));
}
