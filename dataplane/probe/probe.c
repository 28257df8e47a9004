/*
 * Timers: one tick for all backends, TICK_MS, started by prober_new(): decides what is due and turns the wheel. Each
 * probe has a deadline of its own: BACKEND_NO_LIFE_MS from when it sets out; one that loads a model, as long as a
 * caller would wait for his first token.
 */
#include "probe.h"

#include <event2/event.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "clock.h"
#include "http.h"
#include "json.h"
#include "kind.h"
#include "log.h"
#include "loop.h"
#include "snapshot.h"
#include "upstream.h"
#include "wants.h"
#include "wheel.h"

enum {
    TICK_MS = 100,
    LIFE_CLOSED_MS = 1000,
    LIFE_OPEN_MS = 500,
    LIST_MS = 5000,
    LIST_MISS_MS = 1000,
    RESIDENTS_MS = 5000,
    RESIDENTS_BUSY_MS = 1000, /* while something is being loaded */
    MAX_LIFE_PROBES = 8,      /* under way at once a backend: BACKEND_NO_LIFE_MS / LIFE_OPEN_MS and some */
    MAX_LIST_BYTES = 16 << 20,
    MAX_LOAD_BYTES = 4096,
    SCRATCH_BYTES = 16 << 10,
    MAX_TROUBLE_BYTES = 512,
};

enum question { ASKS_LIFE, ASKS_LIST, ASKS_RESIDENTS, ASKS_LOAD };

/* What the prober remembers of one backend. */
struct patient {
    struct prober *prober;
    struct backend *backend; /* counted */
    struct patient *next;
    struct probe *probes;
    struct wants *wants;
    int64_t life_ms, list_ms, residents_ms; /* when each was last asked; 0: never */
    unsigned life_count;
    bool has_probe[ASKS_LOAD + 1]; /* one of these is under way; not for life */
    bool is_watched, lists_badly;
    bool was_quiet; /* it owed an answer since /api/ps was last answered */
};

/* One question under way. */
struct probe {
    struct borrower borrower;
    struct deadline deadline;
    struct patient *patient;
    struct probe *next;
    struct upstream *upstream; /* NULL: the exchange is over */
    struct text head, body;    /* the request's head; the answer's body */
    unsigned status;           /* 0: no answer yet */
    enum question question;
    int64_t asked_ms;
    char *model; /* to be loaded */
    bool is_late;
};

struct prober {
    struct event_base *base;
    struct event *tick, *news; /* `news`: of the loop */
    struct loop loop;
    struct wheel wheel;
    struct upstream_pool *pool;
    struct fleet *fleet; /* counted; the one that is watched */
    bool misses_some;    /* there was no memory to watch all of it */
    struct patient *patients;
    struct probe *done; /* freed at the next tick: callbacks up the stack still hold them */
    void (*on_news)(void *arg);
    void *arg;
    char scratch[SCRATCH_BYTES];
};

/* ---- news ---- */

static void on_life(struct patient *patient, bool is_alive, int64_t now_ms)
{
    struct backend *backend = patient->backend;

    patient->life_count--;
    if (is_alive) {
        if (!backend_is_closed(backend)) {
            wants_begin(patient->wants, backend, now_ms); /* before a caller sees it closed */
            patient->list_ms = patient->residents_ms = 0; /* it may come back with other models */
        }
        if (patient->was_quiet)
            patient->residents_ms = 0; /* perhaps it has restarted */
        backend_probed(backend, now_ms);
        atomic_store(&backend->is_probed, true);
    } else {
        patient->was_quiet = true;
        /* One failure may be an Ollama that is starting, too: look_after() decides. */
        enum breaker half_open = BREAKER_HALF_OPEN;
        (void)atomic_compare_exchange_strong(&backend->breaker, &half_open, BREAKER_OPEN);
    }
}

/* `body` is empty when no good answer came. */
static void on_list(struct patient *patient, struct slice body, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    struct catalog *catalog = NULL;

    if (body.len) {
        catalog = catalog_parse_tags(body);
        if (!catalog && !patient->lists_badly)
            log_warn("backend %s: its list of models is not what Ollama sends, keeping the last one", backend->name);
        patient->lists_badly = !catalog;
    }
    if (catalog) {
        wants_see_catalog(patient->wants, backend, catalog);
        backend_set_catalog(backend, catalog);
    }
    atomic_store(&backend->wants_catalog, false);
    atomic_store(&backend->catalog_ms, now_ms);
    atomic_fetch_add(&backend->catalog_turn, 1);
}

/* `status` 0: no answer came, and what was known is still the best there is. Old versions have no such list. */
static void on_residents(struct patient *patient, const struct probe *probe, int64_t now_ms)
{
    struct residents *residents = probe->status == 200 ? residents_parse_ps(text_slice(&probe->body)) : NULL;
    struct wants_look look = {
        .asked_ms = probe->asked_ms, .now_ms = now_ms, .wall_s = clock_wall_ms() / 1000, .was_quiet = patient->was_quiet
    };

    if (!probe->status || !backend_is_closed(patient->backend))
        return;
    if (residents) {
        wants_see_residents(patient->wants, patient->backend, residents, &look);
        patient->was_quiet = false;
    }
    backend_set_residents(patient->backend, residents);
}

/* Ollama's own words, {"error":"..."}, if it said any. */
static void add_error(struct text *out, struct slice body)
{
    struct json_reader reader;
    struct json_string key, error;

    json_open(&reader, body, JSON_MAX_DEPTH);
    (void)json_object(&reader, NULL);
    while (json_member(&reader, NULL, &key)) {
        if (!json_string_is(&key, "error") || json_peek(&reader) != JSON_STRING) {
            (void)json_skip(&reader, NULL);
        } else if (json_string(&reader, &error)) {
            text_add_literal(out, ": ");
            json_string_decode(&error, out);
        }
    }
}

static void on_load(struct patient *patient, const struct probe *probe, int64_t now_ms)
{
    struct slice model = slice_of(probe->model);
    char memory[MAX_TROUBLE_BYTES];
    struct text trouble = text_over(memory, sizeof memory);

    if (!backend_is_closed(patient->backend))
        return; /* it is away: all is asked again when it is back */
    if (!probe->status && !probe->is_late) {
        wants_lost(patient->wants, patient->backend, model, now_ms);
        return;
    }
    if (probe->status && probe->status != 200) {
        text_printf(&trouble, "asked to load it, it answers %u", probe->status);
        add_error(&trouble, text_slice(&probe->body));
    } else if (!probe->status) {
        text_add_literal(&trouble, "asked to load it, it did not answer in time");
    }
    wants_loaded(patient->wants, patient->backend, model, probe->status, trouble.len ? text_string(&trouble) : NULL,
                 now_ms);
    patient->residents_ms = 0; /* look at it at once */
}

/* ---- one probe ---- */

static struct probe *probe_of(struct borrower *borrower)
{
    return (void *)((char *)borrower - offsetof(struct probe, borrower));
}

static void unlink_probe(struct probe *probe)
{
    struct probe **at = &probe->patient->probes;

    while (*at != probe)
        at = &(*at)->next;
    *at = probe->next;
}

static void probe_free(struct probe *probe)
{
    wheel_clear(&probe->patient->prober->wheel, &probe->deadline);
    if (probe->upstream)
        upstream_close(probe->upstream);
    text_release(&probe->head);
    text_release(&probe->body);
    free(probe->model);
    free(probe);
}

static void answered(struct probe *probe, int64_t now_ms)
{
    struct patient *patient = probe->patient;

    switch (probe->question) {
    case ASKS_LIFE:
        on_life(patient, probe->status != 0, now_ms);
        break;
    case ASKS_LIST:
        on_list(patient, probe->status == 200 ? text_slice(&probe->body) : (struct slice){ 0 }, now_ms);
        break;
    case ASKS_RESIDENTS:
        on_residents(patient, probe, now_ms);
        break;
    case ASKS_LOAD:
        on_load(patient, probe, now_ms);
        break;
    }
}

/* The answer is whole, or there will be none. */
static void finish(struct probe *probe)
{
    struct patient *patient = probe->patient;
    struct prober *prober = patient->prober;
    int64_t now_ms = clock_ms();

    if (probe->upstream)
        upstream_close(probe->upstream); /* the next probe tries a new connection, too */
    probe->upstream = NULL;
    wheel_clear(&prober->wheel, &probe->deadline);
    if (!probe->status && patient->backend->address_count > 1) /* perhaps another address of its host does better */
        atomic_fetch_add(&patient->backend->good_address, 1);
    patient->has_probe[probe->question] = false;
    answered(probe, now_ms);
    unlink_probe(probe);
    probe->next = prober->done;
    prober->done = probe;
    prober->on_news(prober->arg);
}

/* Half an answer is none, but for a sign of life. */
static void end_badly(struct probe *probe)
{
    text_clear(&probe->body);
    if (probe->question != ASKS_LIFE)
        probe->status = 0;
}

static void on_head(struct borrower *borrower, const struct http_head *head)
{
    probe_of(borrower)->status = head->status;
}

static void on_payload(struct borrower *borrower, struct slice payload, bool is_last)
{
    struct probe *probe = probe_of(borrower);

    (void)is_last;
    text_add_slice(&probe->body, payload);
    if (probe->body.err) {
        end_badly(probe); /* a list of that size is none */
        finish(probe);
    }
}

static void on_turn(struct borrower *borrower)
{
    (void)borrower; /* nobody waits for a part of it */
}

static void on_end(struct borrower *borrower)
{
    finish(probe_of(borrower));
}

static void on_lost(struct borrower *borrower, enum upstream_loss loss, const char *why)
{
    struct probe *probe = probe_of(borrower);

    (void)loss;
    (void)why;
    probe->upstream = NULL;
    end_badly(probe);
    finish(probe);
}

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct probe *probe = (void *)((char *)deadline - offsetof(struct probe, deadline));

    (void)now_ms;
    probe->is_late = true;
    end_badly(probe);
    finish(probe);
}

/* What is asked. A model is loaded just as the requests of its callers have it (admit_chat). */
static void write_question(struct probe *probe, const struct want *want)
{
    static const char *const paths[] = {
        [ASKS_LIFE] = "/api/version", [ASKS_LIST] = "/api/tags", [ASKS_RESIDENTS] = "/api/ps"
    };
    struct backend *backend = probe->patient->backend;
    struct catalog *catalog;
    const struct listing *listing;
    struct placement placement;
    struct text body;

    if (!want) {
        text_printf(&probe->head, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", paths[probe->question],
                    backend->authority);
        return;
    }
    catalog = backend_catalog(backend);
    listing = catalog_find(catalog, slice_of(want->name));
    placement = (struct placement){ .model = slice_of(listing ? listing->shown : want->model),
                                    .num_ctx = want->num_ctx,
                                    .keep_alive = slice_of(want->keep_alive) };
    text_init(&body, MAX_LOAD_BYTES);
    backend->kind->write_load(&placement, &body);
    (void)catalog_unref(catalog);
    text_printf(&probe->head,
                "POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n\r\n",
                backend->kind->chat_path, backend->authority, body.len);
    text_add_slice(&probe->head, text_slice(&body));
    if (body.err)
        probe->head.err = body.err;
    text_release(&body);
}

static const struct borrower_story story = { on_head, on_payload, on_turn, on_end, on_lost };

static struct probe *probe_new(struct patient *patient, enum question question, const struct want *want)
{
    struct probe *probe = calloc(1, sizeof *probe);

    if (!probe)
        return NULL;
    probe->borrower.story = &story;
    probe->deadline.on_due = on_due;
    probe->patient = patient;
    probe->question = question;
    text_init(&probe->head, MAX_LOAD_BYTES);
    text_init(&probe->body, MAX_LIST_BYTES);
    write_question(probe, want);
    if (want && !(probe->model = strdup(want->name)))
        probe->head.err = ERR_NO_MEMORY;
    return probe;
}

/* ERR_OK: under way. ERR_REFUSED: the backend does not take the connection. Others: we could not ask. */
static enum err ask(struct patient *patient, enum question question, const struct want *want, int64_t patience_ms)
{
    struct prober *prober = patient->prober;
    struct probe *probe = probe_new(patient, question, want);
    enum err err = ERR_NO_MEMORY;

    if (probe && !probe->head.err)
        err = upstream_borrow(prober->pool, patient->backend, &probe->borrower, true, BACKEND_NO_LIFE_MS,
                              &probe->upstream);
    if (err) {
        if (probe)
            probe_free(probe);
        return err;
    }
    probe->next = patient->probes;
    patient->probes = probe;
    patient->has_probe[question] = true;
    probe->asked_ms = clock_ms();
    wheel_set(&prober->wheel, &probe->deadline, probe->asked_ms + patience_ms);
    upstream_send(probe->upstream, text_slice(&probe->head));
    return ERR_OK;
}

/* ---- what is due ---- */

static void ask_for_life(struct patient *patient, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    enum breaker open = BREAKER_OPEN;
    enum err err;

    if (patient->life_count >= MAX_LIFE_PROBES)
        return;
    backend_asked(backend, now_ms);
    patient->life_ms = now_ms;
    patient->life_count++;
    (void)atomic_compare_exchange_strong(&backend->breaker, &open, BREAKER_HALF_OPEN);
    err = ask(patient, ASKS_LIFE, NULL, BACKEND_NO_LIFE_MS);
    if (!err)
        return;
    on_life(patient, false, now_ms);
    if (err != ERR_REFUSED) /* no descriptor, no memory: not the backend is to blame */
        backend_not_asked(backend);
}

static bool is_due(const struct patient *patient, enum question question, int64_t last_ms, int64_t every_ms,
                   int64_t now_ms)
{
    return !patient->has_probe[question] && (!last_ms || now_ms - last_ms >= every_ms);
}

static void ask_for_lists(struct patient *patient, int64_t now_ms)
{
    bool is_missed = atomic_load(&patient->backend->wants_catalog);
    bool is_busy = wants_are_busy(patient->wants);

    if (is_due(patient, ASKS_LIST, patient->list_ms, is_missed ? LIST_MISS_MS : LIST_MS, now_ms)) {
        patient->list_ms = now_ms;
        if (ask(patient, ASKS_LIST, NULL, BACKEND_NO_LIFE_MS))
            on_list(patient, (struct slice){ 0 }, now_ms);
    }
    if (is_due(patient, ASKS_RESIDENTS, patient->residents_ms, is_busy ? RESIDENTS_BUSY_MS : RESIDENTS_MS, now_ms)) {
        patient->residents_ms = now_ms;
        (void)ask(patient, ASKS_RESIDENTS, NULL, BACKEND_NO_LIFE_MS);
    }
}

/* What is to be loaded, one model after the other; and may callers come? */
static void keep_warm(struct patient *patient, int64_t now_ms)
{
    const struct settings *settings = &patient->prober->fleet->snapshot->settings;
    struct backend *backend = patient->backend;
    int64_t patience_ms = settings->first_token_timeout_ms;
    struct want *want = patient->has_probe[ASKS_LOAD] ? NULL : wants_load_next(patient->wants, now_ms);

    if (patience_ms < settings->warm_timeout_ms)
        patience_ms = settings->warm_timeout_ms;
    if (want && ask(patient, ASKS_LOAD, want, patience_ms))
        wants_lost(patient->wants, backend, slice_of(want->name), now_ms);
    wants_look_after(patient->wants, backend, settings->warm_timeout_ms, now_ms);
    if (backend_takes_callers(backend))
        atomic_store(&backend->has_taken, true);
}

/* It is away: what it had loaded is not known, and what it was asked for is asked again when it is back. */
static void forget_what_was_loaded(struct patient *patient)
{
    for (struct probe *probe = patient->probes, *next; probe; probe = next) {
        next = probe->next;
        if (probe->question == ASKS_LOAD || probe->question == ASKS_RESIDENTS) {
            end_badly(probe);
            finish(probe);
        }
    }
    backend_set_residents(patient->backend, NULL);
}

static void look_after(struct patient *patient, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    bool is_closed = backend_is_closed(backend);

    if (is_closed && backend_is_silent(backend, 0, now_ms)) {
        backend_opens(backend, now_ms);
        is_closed = false;
    }
    if (!is_closed) {
        atomic_store(&backend->is_probed, true);
        forget_what_was_loaded(patient);
    }
    if (!patient->life_ms || now_ms - patient->life_ms >= (is_closed ? LIFE_CLOSED_MS : LIFE_OPEN_MS))
        ask_for_life(patient, now_ms);
    if (!is_closed)
        return;
    ask_for_lists(patient, now_ms);
    if (atomic_load(&backend->is_probed))
        keep_warm(patient, now_ms);
}

static void patient_free(struct patient *patient)
{
    while (patient->probes) {
        struct probe *probe = patient->probes;
        patient->probes = probe->next;
        probe_free(probe);
    }
    (void)backend_unref(patient->backend);
    wants_free(patient->wants);
    free(patient);
}

static void free_done(struct prober *prober)
{
    while (prober->done) {
        struct probe *probe = prober->done;
        prober->done = probe->next;
        probe_free(probe);
    }
}

static void forget_unwatched(struct prober *prober)
{
    for (struct patient **at = &prober->patients, *patient; (patient = *at);) {
        if (patient->is_watched) {
            at = &patient->next;
            continue;
        }
        *at = patient->next;
        patient_free(patient);
    }
}

static struct patient *find(struct prober *prober, const struct backend *backend)
{
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        if (patient->backend == backend)
            return patient;
    return NULL;
}

static struct patient *patient_new(struct prober *prober, struct backend *backend)
{
    struct patient *patient = calloc(1, sizeof *patient);

    if (!patient)
        return NULL;
    patient->prober = prober;
    patient->backend = backend_ref(backend);
    patient->next = prober->patients;
    prober->patients = patient;
    return patient;
}

/* What the configuration wants of it by now. False: no memory. */
static bool take_wants(struct patient *patient, const struct snapshot *snapshot, const struct fleet_rule *rule)
{
    struct wants *wants = wants_new(snapshot, rule);

    if (!wants)
        return false;
    if (patient->wants)
        wants_carry(wants, patient->wants);
    else
        wants_begin(wants, patient->backend, clock_ms());
    wants_free(patient->wants);
    patient->wants = wants;
    patient->list_ms = patient->residents_ms = 0; /* what is wanted is looked for at once */
    return true;
}

/* A backend that there is no memory for yet is taken in at a later tick. */
static void watch_fleet(struct prober *prober)
{
    const struct fleet *fleet = prober->fleet;

    prober->misses_some = false;
    for (size_t i = 0; i < fleet->count; i++) {
        struct patient *patient = find(prober, fleet->backends[i]);
        if (!patient)
            patient = patient_new(prober, fleet->backends[i]);
        if (patient)
            patient->is_watched = take_wants(patient, fleet->snapshot, &fleet->rules[i]);
        prober->misses_some |= !patient || !patient->is_watched;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct prober *prober = arg;
    int64_t now_ms;

    (void)fd;
    (void)what;
    clock_turn();
    now_ms = clock_ms();
    wheel_turn(&prober->wheel, now_ms);
    free_done(prober);
    forget_unwatched(prober);
    if (prober->misses_some)
        watch_fleet(prober);
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        look_after(patient, now_ms);
    upstream_pool_go_on(prober->pool);
    upstream_pool_reap(prober->pool);
}

static void on_loop(evutil_socket_t fd, short what, void *arg)
{
    struct prober *prober = arg;

    (void)fd;
    (void)what;
    loop_turn(&prober->loop, 0);
}

/* ---- life ---- */

struct prober *prober_new(struct event_base *base, void (*on_news)(void *arg), void *arg)
{
    struct timeval tick = { .tv_usec = TICK_MS * 1000 };
    struct prober *prober = calloc(1, sizeof *prober);

    if (!prober)
        return NULL;
    prober->base = base;
    prober->loop.fd = -1;
    prober->on_news = on_news;
    prober->arg = arg;
    wheel_init(&prober->wheel, clock_ms());
    prober->pool = upstream_pool_new(&prober->loop, &prober->wheel, prober->scratch, sizeof prober->scratch, INT_MAX);
    prober->tick = event_new(base, -1, EV_PERSIST, on_tick, prober);
    if (loop_open(&prober->loop))
        prober->news = event_new(base, prober->loop.fd, EV_READ | EV_PERSIST, on_loop, prober);
    if (!prober->pool || !prober->tick || event_add(prober->tick, &tick) != 0 || !prober->news ||
        event_add(prober->news, NULL) != 0) {
        prober_free(prober);
        return NULL;
    }
    return prober;
}

void prober_free(struct prober *prober)
{
    if (!prober)
        return;
    free_done(prober);
    while (prober->patients) {
        struct patient *patient = prober->patients;
        prober->patients = patient->next;
        patient_free(patient);
    }
    (void)fleet_unref(prober->fleet);
    upstream_pool_free(prober->pool);
    if (prober->tick)
        event_free(prober->tick);
    if (prober->news)
        event_free(prober->news);
    loop_close(&prober->loop);
    free(prober);
}

void prober_watch(struct prober *prober, struct fleet *fleet)
{
    (void)fleet_unref(prober->fleet);
    prober->fleet = fleet_ref(fleet);
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        patient->is_watched = false;
    watch_fleet(prober);
    prober_nudge(prober);
}

void prober_nudge(struct prober *prober)
{
    on_tick(-1, 0, prober);
}
