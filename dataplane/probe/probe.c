/*
 * Timers: one tick for all backends, TICK_MS, started by prober_new(): decides what is due and turns the wheel. Each
 * probe has a deadline of its own: BACKEND_NO_LIFE_MS from when it sets out.
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
#include "log.h"
#include "upstream.h"
#include "wheel.h"

enum {
    TICK_MS = 100,
    LIFE_CLOSED_MS = 1000,
    LIFE_OPEN_MS = 500,
    LIST_MS = 5000,
    LIST_MISS_MS = 1000,
    MAX_LIFE_PROBES = 8, /* under way at once a backend: BACKEND_NO_LIFE_MS / LIFE_OPEN_MS and some */
    MAX_LIST_BYTES = 16 << 20,
    SCRATCH_BYTES = 16 << 10,
};

/* What the prober remembers of one backend. */
struct patient {
    struct prober *prober;
    struct backend *backend; /* counted */
    struct patient *next;
    struct probe *probes;
    int64_t life_ms, list_ms; /* when each was last asked; 0: never */
    unsigned life_count;
    bool has_list_probe, is_watched, lists_badly;
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
    bool is_list;
};

struct prober {
    struct event_base *base;
    struct event *tick;
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
        bool was_closed = backend_is_closed(backend);
        backend_probed(backend, now_ms);
        if (!was_closed)
            patient->list_ms = 0; /* it may come back with other models */
        atomic_store(&backend->is_probed, true);
        if (backend_takes_callers(backend))
            atomic_store(&backend->has_taken, true);
    } else {
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

    patient->has_list_probe = false;
    if (body.len) {
        catalog = catalog_parse_tags(body);
        if (!catalog && !patient->lists_badly)
            log_warn("backend %s: its list of models is not what Ollama sends, keeping the last one", backend->name);
        patient->lists_badly = !catalog;
    }
    if (catalog)
        backend_set_catalog(backend, catalog);
    atomic_store(&backend->wants_catalog, false);
    atomic_store(&backend->catalog_ms, now_ms);
    atomic_fetch_add(&backend->catalog_turn, 1);
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
    free(probe);
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
    if (probe->is_list)
        on_list(patient, probe->status == 200 ? text_slice(&probe->body) : (struct slice){ 0 }, now_ms);
    else
        on_life(patient, probe->status != 0, now_ms);
    unlink_probe(probe);
    probe->next = prober->done;
    prober->done = probe;
    prober->on_news(prober->arg);
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
        text_clear(&probe->body); /* a list of that size is none */
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
    text_clear(&probe->body); /* half a list is none */
    finish(probe);
}

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct probe *probe = (void *)((char *)deadline - offsetof(struct probe, deadline));

    (void)now_ms;
    text_clear(&probe->body);
    finish(probe);
}

static struct probe *probe_new(struct patient *patient, bool is_list)
{
    struct probe *probe = calloc(1, sizeof *probe);

    if (!probe)
        return NULL;
    probe->borrower = (struct borrower){ on_head, on_payload, on_turn, on_end, on_lost };
    probe->deadline.on_due = on_due;
    probe->patient = patient;
    probe->is_list = is_list;
    text_init(&probe->head, 1024);
    text_init(&probe->body, MAX_LIST_BYTES);
    text_printf(&probe->head, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                is_list ? "/api/tags" : "/api/version", patient->backend->authority);
    return probe;
}

/* ERR_OK: under way. ERR_REFUSED: the backend does not take the connection. Others: we could not ask. */
static enum err ask(struct patient *patient, bool is_list)
{
    struct prober *prober = patient->prober;
    struct probe *probe = probe_new(patient, is_list);
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
    wheel_set(&prober->wheel, &probe->deadline, clock_ms() + BACKEND_NO_LIFE_MS);
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
    err = ask(patient, false);
    if (!err)
        return;
    on_life(patient, false, now_ms);
    if (err != ERR_REFUSED) /* no descriptor, no memory: not the backend is to blame */
        backend_not_asked(backend);
}

static void look_after(struct patient *patient, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    bool is_closed = backend_is_closed(backend);
    bool is_missed = atomic_load(&backend->wants_catalog);

    if (is_closed && backend_is_silent(backend, 0, now_ms)) {
        backend_opens(backend, now_ms);
        is_closed = false;
    }
    if (!is_closed)
        atomic_store(&backend->is_probed, true);
    if (!patient->life_ms || now_ms - patient->life_ms >= (is_closed ? LIFE_CLOSED_MS : LIFE_OPEN_MS))
        ask_for_life(patient, now_ms);
    if (patient->has_list_probe || !is_closed)
        return;
    if (!patient->list_ms || now_ms - patient->list_ms >= (is_missed ? LIST_MISS_MS : LIST_MS)) {
        patient->list_ms = now_ms;
        patient->has_list_probe = true;
        if (ask(patient, true))
            on_list(patient, (struct slice){ 0 }, now_ms);
    }
}

static void patient_free(struct patient *patient)
{
    while (patient->probes) {
        struct probe *probe = patient->probes;
        patient->probes = probe->next;
        probe_free(probe);
    }
    (void)backend_unref(patient->backend);
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

/* A backend that there is no memory for yet is taken in at a later tick. */
static void watch_fleet(struct prober *prober)
{
    prober->misses_some = false;
    for (size_t i = 0; i < prober->fleet->count; i++) {
        struct patient *patient = find(prober, prober->fleet->backends[i]);
        if (!patient)
            patient = patient_new(prober, prober->fleet->backends[i]);
        if (patient)
            patient->is_watched = true;
        else
            prober->misses_some = true;
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

/* ---- life ---- */

struct prober *prober_new(struct event_base *base, void (*on_news)(void *arg), void *arg)
{
    struct timeval tick = { .tv_usec = TICK_MS * 1000 };
    struct prober *prober = calloc(1, sizeof *prober);

    if (!prober)
        return NULL;
    prober->base = base;
    prober->on_news = on_news;
    prober->arg = arg;
    wheel_init(&prober->wheel, clock_ms());
    prober->pool = upstream_pool_new(base, &prober->wheel, prober->scratch, sizeof prober->scratch, INT_MAX);
    prober->tick = event_new(base, -1, EV_PERSIST, on_tick, prober);
    if (!prober->pool || !prober->tick || event_add(prober->tick, &tick) != 0) {
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
