#include "backend_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "snapshot.h"

/* False: no memory. A host that does not resolve is looked up again later. */
static bool resolve(struct backend *backend)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found = NULL;
    char port[8];
    int result;

    (void)snprintf(port, sizeof port, "%u", (unsigned)backend->port);
    result = getaddrinfo(backend->host, port, &hints, &found);
    if (result == EAI_MEMORY || (result == EAI_SYSTEM && errno == ENOMEM))
        return false;
    if (result != 0) {
        backend->unresolved = gai_strerror(result);
        return true;
    }
    for (struct addrinfo *info = found; info && backend->address_count < BACKEND_MAX_ADDRESSES; info = info->ai_next) {
        memcpy(&backend->addresses[backend->address_count], info->ai_addr, info->ai_addrlen);
        backend->address_bytes[backend->address_count++] = info->ai_addrlen;
    }
    freeaddrinfo(found);
    return true;
}

static bool is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
}

/* Ollama on loopback answers 403 to a Host that it does not know, such as a name from /etc/hosts. */
static bool name_loopback(struct backend *backend)
{
    char authority[32];

    if (!backend->address_count || !is_loopback(&backend->addresses[0]))
        return true;
    (void)snprintf(authority, sizeof authority, "127.0.0.1:%u", (unsigned)backend->port);
    free(backend->authority);
    backend->authority = strdup(authority);
    return backend->authority != NULL;
}

struct backend *backend_new_unasked(const struct backend_rule *rule, const struct kind *kind, int64_t now_ms)
{
    struct backend *backend = calloc(1, sizeof *backend);

    if (!backend)
        return NULL;
    atomic_init(&backend->refs, 1);
    backend->kind = kind;
    backend->name = strdup(rule->name);
    backend->host = strdup(rule->host);
    backend->authority = strdup(rule->authority);
    backend->port = rule->port;
    (void)pthread_mutex_init(&backend->catalog_lock, NULL);
    (void)pthread_mutex_init(&backend->news_lock, NULL);
    backend->unresolved = "not looked up yet";
    if (!backend->name || !backend->host || !backend->authority)
        return backend_unref(backend);
    atomic_init(&backend->alive_ms, now_ms); /* it has BACKEND_NO_LIFE_MS to show itself */
    return backend;
}

struct backend *backend_new(const struct backend_rule *rule, const struct kind *kind, int64_t now_ms)
{
    struct backend *backend = backend_new_unasked(rule, kind, now_ms);

    if (!backend)
        return NULL;
    backend->unresolved = NULL;
    return resolve(backend) && name_loopback(backend) ? backend : backend_unref(backend);
}

struct backend *backend_ref(struct backend *backend)
{
    atomic_fetch_add_explicit(&backend->refs, 1, memory_order_relaxed);
    return backend;
}

struct backend *backend_unref(struct backend *backend)
{
    if (!backend || atomic_fetch_sub_explicit(&backend->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    (void)catalog_unref(backend->catalog);
    (void)residents_unref(backend->residents);
    findings_release(backend);
    (void)pthread_mutex_destroy(&backend->catalog_lock);
    (void)pthread_mutex_destroy(&backend->news_lock);
    free(backend->name);
    free(backend->host);
    free(backend->authority);
    free(backend);
    return NULL;
}

bool host_is_literal(const char *host)
{
    struct in6_addr literal;

    return inet_pton(AF_INET, host, &literal) == 1 || inet_pton(AF_INET6, host, &literal) == 1;
}

bool backend_wants_address(const struct backend *backend, int64_t now_ms)
{
    if (!backend->address_count)
        return true;
    if (host_is_literal(backend->host))
        return false;
    return !backend_is_closed(backend) && now_ms - atomic_load(&backend->opened_ms) >= BACKEND_LOOK_UP_MS;
}

bool backend_is(const struct backend *backend, const struct backend_rule *rule)
{
    return strcmp(backend->name, rule->name) == 0 && strcmp(backend->host, rule->host) == 0 &&
           backend->port == rule->port;
}

void backend_lives(struct backend *backend, int64_t now_ms)
{
    if (atomic_load_explicit(&backend->alive_ms, memory_order_relaxed) != now_ms)
        atomic_store_explicit(&backend->alive_ms, now_ms, memory_order_relaxed);
    if (atomic_load_explicit(&backend->asked_ms, memory_order_relaxed))
        atomic_store_explicit(&backend->asked_ms, 0, memory_order_relaxed);
    if (atomic_load_explicit(&backend->failures, memory_order_relaxed))
        atomic_store_explicit(&backend->failures, 0, memory_order_relaxed);
}

void backend_asked(struct backend *backend, int64_t now_ms)
{
    int_least64_t none = 0;

    (void)atomic_compare_exchange_strong(&backend->asked_ms, &none, now_ms);
}

void backend_not_asked(struct backend *backend)
{
    atomic_store(&backend->asked_ms, 0);
}

void backend_opens(struct backend *backend, int64_t now_ms)
{
    enum breaker closed = BREAKER_CLOSED;

    if (!atomic_compare_exchange_strong(&backend->breaker, &closed, BREAKER_OPEN))
        return;
    atomic_store(&backend->opened_ms, now_ms);
    atomic_fetch_add(&backend->was_opened, 1);
    log_warn("backend %s at %s gives no sign of life: its callers get 503 at once until a probe is answered",
             backend->name, backend->authority);
}

void backend_failed(struct backend *backend, int64_t now_ms)
{
    if (atomic_fetch_add(&backend->failures, 1) + 1 >= BACKEND_MAX_FAILURES)
        backend_opens(backend, now_ms);
}

void backend_probed(struct backend *backend, int64_t now_ms)
{
    bool is_closed = backend_is_closed(backend);

    backend_lives(backend, now_ms);
    if (!is_closed) /* first, for whoever sees the breaker closed */
        atomic_store(&backend->recovered_ms, now_ms);
    if (atomic_exchange(&backend->breaker, BREAKER_CLOSED) != BREAKER_CLOSED)
        log_info("backend %s answers again after %lld ms: %s", backend->name,
                 (long long)(now_ms - atomic_load(&backend->opened_ms)),
                 atomic_load(&backend->is_warming) ? "loading its models before it takes requests" : "taking requests");
}

bool backend_is_closed(const struct backend *backend)
{
    return atomic_load_explicit(&backend->breaker, memory_order_relaxed) == BREAKER_CLOSED;
}

void backend_warms(struct backend *backend, bool is_warming, int64_t now_ms)
{
    if (!is_warming && atomic_load(&backend->is_warming) && atomic_load(&backend->has_taken))
        atomic_store(&backend->recovered_ms, now_ms);
    atomic_store(&backend->is_warming, is_warming);
}

bool backend_takes_callers(const struct backend *backend)
{
    return backend_is_closed(backend) && !atomic_load_explicit(&backend->is_warming, memory_order_relaxed);
}

bool backend_is_warming(const struct backend *backend)
{
    return backend_is_closed(backend) && atomic_load_explicit(&backend->is_warming, memory_order_relaxed);
}

int64_t backend_recovered_ms(const struct backend *backend)
{
    return atomic_load_explicit(&backend->recovered_ms, memory_order_relaxed);
}

bool backend_is_silent(const struct backend *backend, int64_t since_ms, int64_t now_ms)
{
    int64_t alive_ms = atomic_load_explicit(&backend->alive_ms, memory_order_relaxed);
    int64_t asked_ms = atomic_load_explicit(&backend->asked_ms, memory_order_relaxed);

    if (!asked_ms || now_ms - asked_ms < BACKEND_PATIENCE_MS)
        return false;
    return now_ms - (alive_ms > since_ms ? alive_ms : since_ms) >= BACKEND_NO_LIFE_MS;
}
