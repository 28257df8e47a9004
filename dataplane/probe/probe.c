/*
 * Timers: one tick for all backends, TICK_MS; started by prober_new(), decides what is due.
 * Each probe has evhttp's own timeout: BACKEND_NO_LIFE_MS.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "clock.h"
#include "log.h"

enum {
    TICK_MS = 100,
    LIFE_CLOSED_MS = 1000,
    LIFE_OPEN_MS = 500,
    LIST_MS = 5000,
    LIST_MISS_MS = 1000,
    MAX_LIFE_PROBES = 8, /* under way at once a backend: BACKEND_NO_LIFE_MS / LIFE_OPEN_MS and some */
    MAX_LIST_BYTES = 16 << 20,
};

/* What the prober remembers of one backend. */
struct patient {
    struct prober *prober;
    struct backend *backend; /* counted */
    struct patient *next;
    struct probe *probes;
    int64_t life_ms, list_ms; /* when each was last asked; 0: never */
    unsigned life_count;
    unsigned misses; /* addresses of the host that failed in a row */
    bool has_list_probe, is_watched, lists_badly;
};

/* One question under way. */
struct probe {
    struct patient *patient;
    struct probe *next;
    struct evhttp_connection *connection;
    unsigned address; /* index asked */
    bool is_list;
    bool is_done;
};

struct prober {
    struct event_base *base;
    struct event *tick;
    struct event *sweep; /* frees what ended, outside of evhttp's callbacks */
    struct patient *patients;
    void (*on_news)(void *arg);
    void *arg;
};

static void probe_free(struct probe *probe)
{
    struct probe **at = &probe->patient->probes;

    while (*at != probe)
        at = &(*at)->next;
    *at = probe->next;
    if (probe->connection)
        evhttp_connection_free(probe->connection);
    free(probe);
}

static void patient_free(struct patient *patient)
{
    while (patient->probes)
        probe_free(patient->probes);
    (void)backend_unref(patient->backend);
    free(patient);
}

/* A host such as localhost has several addresses, and the backend may listen on one of them: the next, at once. */
static void try_next_address(struct patient *patient, unsigned failed)
{
    struct backend *backend = patient->backend;

    if (backend->address_count < 2)
        return;
    (void)atomic_compare_exchange_strong(&backend->good_address, &failed, (failed + 1) % backend->address_count);
    if (++patient->misses % backend->address_count)
        patient->life_ms = patient->list_ms = 0;
}

static void on_life(struct patient *patient, bool is_alive, int64_t now_ms)
{
    struct backend *backend = patient->backend;

    patient->life_count--;
    if (is_alive) {
        bool was_closed = backend_is_closed(backend);
        patient->misses = 0;
        backend_probed(backend, now_ms);
        if (!was_closed)
            patient->list_ms = 0; /* it may come back with other models */
        atomic_store(&backend->is_probed, true);
    } else {
        /* One failure may be an Ollama that is starting, too: look_after() decides. */
        enum breaker half_open = BREAKER_HALF_OPEN;
        (void)atomic_compare_exchange_strong(&backend->breaker, &half_open, BREAKER_OPEN);
    }
}

static void on_list(struct patient *patient, struct evbuffer *body, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    struct catalog *catalog = NULL;

    patient->has_list_probe = false;
    if (body) {
        size_t len = evbuffer_get_length(body);
        catalog = catalog_parse_tags((struct slice){ (const char *)evbuffer_pullup(body, -1), len });
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

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct probe *probe = arg;
    struct patient *patient = probe->patient;
    struct prober *prober = patient->prober;
    bool is_answered = request && evhttp_request_get_response_code(request) != 0;
    bool is_good = is_answered && evhttp_request_get_response_code(request) == 200;
    int64_t now_ms = clock_ms();

    if (is_answered)
        backend_lives(patient->backend, now_ms);
    if (probe->is_list)
        on_list(patient, is_good ? evhttp_request_get_input_buffer(request) : NULL, now_ms);
    else
        on_life(patient, is_answered, now_ms);
    if (!is_answered)
        try_next_address(patient, probe->address);
    probe->is_done = true;
    event_active(prober->sweep, 0, 0);
    prober->on_news(prober->arg);
}

static bool address_as_text(const struct backend *backend, unsigned index, char *out, socklen_t room)
{
    const struct sockaddr_storage *address = &backend->addresses[index];

    if (!backend->address_count)
        return false;
    if (address->ss_family == AF_INET6)
        return inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, out, room);
    return inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, out, room);
}

/* Is there a descriptor for a probe? Where there is none, not the backend is to blame. */
static bool can_ask(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        (void)close(fd);
    return fd >= 0;
}

static bool ask(struct patient *patient, bool is_list, const char *path)
{
    struct timeval patience = { .tv_sec = BACKEND_NO_LIFE_MS / 1000 };
    struct probe *probe = calloc(1, sizeof *probe);
    struct evhttp_request *request = NULL;
    char address[INET6_ADDRSTRLEN];

    if (!probe)
        return false;
    probe->patient = patient;
    probe->is_list = is_list;
    probe->address = atomic_load(&patient->backend->good_address);
    probe->next = patient->probes;
    patient->probes = probe;
    if (!address_as_text(patient->backend, probe->address, address, sizeof address) ||
        !(probe->connection =
              evhttp_connection_base_new(patient->prober->base, NULL, address, patient->backend->port)) ||
        !(request = evhttp_request_new(on_answer, probe))) {
        probe_free(probe);
        return false;
    }
    evhttp_connection_set_timeout_tv(probe->connection, &patience);
    evhttp_connection_set_max_body_size(probe->connection, MAX_LIST_BYTES);
    (void)evhttp_add_header(evhttp_request_get_output_headers(request), "Host", patient->backend->authority);
    (void)evhttp_add_header(evhttp_request_get_output_headers(request), "Connection", "close");
    /* On failure evhttp frees the request itself; a refused connection is reported through on_answer. */
    if (evhttp_make_request(probe->connection, request, EVHTTP_REQ_GET, path) != 0) {
        probe_free(probe);
        return false;
    }
    return true;
}

static void ask_for_life(struct patient *patient, int64_t now_ms)
{
    struct backend *backend = patient->backend;
    enum breaker open = BREAKER_OPEN;

    if (patient->life_count >= MAX_LIFE_PROBES)
        return;
    if (!can_ask()) {
        backend_not_asked(backend);
        return;
    }
    backend_asked(backend, now_ms);
    patient->life_ms = now_ms;
    patient->life_count++;
    (void)atomic_compare_exchange_strong(&backend->breaker, &open, BREAKER_HALF_OPEN);
    if (!ask(patient, false, "/api/version"))
        on_life(patient, false, now_ms);
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
        if (!ask(patient, true, "/api/tags"))
            on_list(patient, NULL, now_ms);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct prober *prober = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        if (patient->is_watched)
            look_after(patient, now_ms);
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct prober *prober = arg;

    (void)fd;
    (void)what;
    for (struct patient **at = &prober->patients, *patient; (patient = *at);) {
        for (struct probe *probe = patient->probes, *next; probe; probe = next) {
            next = probe->next;
            if (probe->is_done)
                probe_free(probe);
        }
        if (!patient->is_watched) {
            *at = patient->next;
            patient_free(patient);
            continue;
        }
        at = &patient->next;
    }
}

struct prober *prober_new(struct event_base *base, void (*on_news)(void *arg), void *arg)
{
    struct timeval tick = { .tv_usec = TICK_MS * 1000 };
    struct prober *prober = calloc(1, sizeof *prober);

    if (!prober)
        return NULL;
    prober->base = base;
    prober->on_news = on_news;
    prober->arg = arg;
    prober->tick = event_new(base, -1, EV_PERSIST, on_tick, prober);
    prober->sweep = event_new(base, -1, 0, on_sweep, prober);
    if (!prober->tick || !prober->sweep || event_add(prober->tick, &tick) != 0) {
        prober_free(prober);
        return NULL;
    }
    return prober;
}

void prober_free(struct prober *prober)
{
    if (!prober)
        return;
    while (prober->patients) {
        struct patient *patient = prober->patients;
        prober->patients = patient->next;
        patient_free(patient);
    }
    if (prober->tick)
        event_free(prober->tick);
    if (prober->sweep)
        event_free(prober->sweep);
    free(prober);
}

static struct patient *find(struct prober *prober, const struct backend *backend)
{
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        if (patient->backend == backend)
            return patient;
    return NULL;
}

void prober_watch(struct prober *prober, struct fleet *fleet)
{
    for (struct patient *patient = prober->patients; patient; patient = patient->next)
        patient->is_watched = false;
    for (size_t i = 0; i < fleet->count; i++) {
        struct patient *patient = find(prober, fleet->backends[i]);
        if (!patient && (patient = calloc(1, sizeof *patient))) {
            patient->prober = prober;
            patient->backend = backend_ref(fleet->backends[i]);
            patient->next = prober->patients;
            prober->patients = patient;
        }
        if (patient)
            patient->is_watched = true;
    }
    event_active(prober->sweep, 0, 0);
    prober_nudge(prober);
}

void prober_nudge(struct prober *prober)
{
    on_tick(-1, 0, prober);
}
