/*
 * The backends as one model's requests see them: made and forgotten by looks, chosen by route.
 *
 * Does a backend run as many at once as its slots? Over its own limit Ollama keeps a request waiting without a status
 * line, and begins it when another one ends. So a backend is found to run fewer when, again and again, all slots were
 * taken, one had not answered for long while others had, and then answered right after another had ended; and when
 * never since then had as many answered at once as there are slots.
 */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "queue_parts.h"

#define FADE 0.95 /* of the sums that a speed is measured from, with each request */

enum {
    STUCK_US = 2000000,
    RIGHT_AFTER_US = 2000000, /* what was waiting has its prompt read first */
    TIMES_SEEN = 3,
    FIRST_SITES = 4,
};

static struct route_site *view_of(struct queue *queue, const struct site *site)
{
    return &queue->views[site->index];
}

/* ---- coming and going ---- */

static bool has_room(struct queue *queue)
{
    unsigned wanted = queue->site_room ? queue->site_room * 2 : FIRST_SITES;
    struct site **sites;
    struct route_site *views;

    if (queue->site_count < queue->site_room)
        return true;
    sites = realloc(queue->sites, wanted * sizeof *sites);
    if (!sites)
        return false;
    queue->sites = sites;
    views = realloc(queue->views, wanted * sizeof *views);
    if (!views)
        return false;
    queue->views = views;
    queue->site_room = wanted;
    return true;
}

static struct site *site_new(struct queue *queue, const struct sight *sight)
{
    struct site *site;

    if (!has_room(queue) || !(site = calloc(1, sizeof *site)))
        return NULL;
    site->id = ++queue->site_ids;
    site->index = queue->site_count++;
    site->backend = backend_ref(sight->backend);
    queue->sites[site->index] = site;
    queue->views[site->index] = (struct route_site){ .name = sight->backend->name, .name_hash = sight->name_hash };
    return site;
}

/* Whatever it was suspected of: that was with other slots. */
static void site_acquit(struct queue *queue, struct site *site)
{
    if (site->has_finding)
        look_finds_fewer(site->backend, queue->model, false, 0);
    site->has_finding = false;
    site->seen = 0;
}

static void site_free(struct queue *queue, struct site *site)
{
    unsigned last = --queue->site_count;

    queue->sites[site->index] = queue->sites[last];
    queue->views[site->index] = queue->views[last];
    queue->sites[site->index]->index = site->index;
    (void)backend_unref(site->backend);
    free(site);
}

void sites_release(struct queue *queue)
{
    while (queue->site_count)
        site_free(queue, queue->sites[queue->site_count - 1]);
    free(queue->sites);
    free(queue->views);
}

static struct site *site_find(struct queue *queue, const struct backend *backend)
{
    for (unsigned i = 0; i < queue->site_count; i++)
        if (queue->sites[i]->backend == backend)
            return queue->sites[i];
    return NULL;
}

static void site_see(struct queue *queue, struct site *site, const struct sight *sight)
{
    struct route_site *view = view_of(queue, site);

    site->is_known = true;
    site->may = sight->may;
    if (site->slots != sight->slots)
        site_acquit(queue, site);
    site->slots = sight->slots;
    view->weight = sight->weight;
    view->slots = sight->allowed;
    view->is_resident = sight->is_resident;
}

static void count_parallel(struct queue *queue)
{
    uint64_t slots = 0, running = 0;

    for (unsigned i = 0; i < queue->site_count; i++) {
        running += queue->views[i].running;
        if (queue->sites[i]->may && queue->views[i].slots != UINT_MAX && look_takes(queue->sites[i]->backend))
            slots += queue->views[i].slots;
    }
    atomic_store_explicit(&queue->parallel, (unsigned)(slots > running ? slots : running), memory_order_relaxed);
}

static bool is_same_place(const struct backend *one, const struct backend *other)
{
    return one->port == other->port && strcmp(one->host, other->host) == 0;
}

/* A backend that one reload took out, or renamed, and another brought back is a new site; while requests of the old one
 * still run there, it has as many slots less. */
static void leave_room_for_gone(struct queue *queue)
{
    for (unsigned i = 0; i < queue->site_count; i++) {
        const struct site *gone = queue->sites[i];
        unsigned running = queue->views[i].running;
        if (gone->is_known || !running)
            continue;
        for (unsigned j = 0; j < queue->site_count; j++) {
            struct route_site *view = &queue->views[j];
            if (queue->sites[j]->is_known && view->slots != UINT_MAX &&
                is_same_place(gone->backend, queue->sites[j]->backend))
                view->slots -= view->slots < running ? view->slots : running;
        }
    }
}

void sites_see(struct queue *queue, const struct look *look)
{
    for (unsigned i = 0; i < queue->site_count; i++)
        queue->sites[i]->is_known = false;
    for (unsigned i = 0; i < look->count; i++) {
        struct site *site = site_find(queue, look->sights[i].backend);
        if (site || (site = site_new(queue, &look->sights[i])))
            site_see(queue, site, &look->sights[i]);
    }
    for (unsigned i = queue->site_count; i-- > 0;) {
        if (queue->sites[i]->is_known)
            continue;
        queue->sites[i]->may = false;
        if (!queue->views[i].running)
            site_free(queue, queue->sites[i]);
    }
    leave_room_for_gone(queue);
    count_parallel(queue);
}

/* ---- choosing ---- */

static uint64_t draw(uint64_t *chance)
{
    *chance ^= *chance >> 12;
    *chance ^= *chance << 25;
    *chance ^= *chance >> 27;
    return *chance * 0x2545f4914f6cdd1du;
}

/* A breaker may open at any time. */
static void look_who_takes(struct queue *queue)
{
    for (unsigned i = 0; i < queue->site_count; i++)
        queue->views[i].can_take = queue->sites[i]->may && look_takes(queue->sites[i]->backend);
}

bool sites_have_other(struct queue *queue, const struct site *site)
{
    look_who_takes(queue);
    for (unsigned i = 0; i < queue->site_count; i++)
        if (queue->views[i].can_take && queue->sites[i] != site)
            return true;
    return false;
}

/* Worth waiting for: it answers, and loads its models. */
static bool some_warms(const struct queue *queue, int avoid)
{
    for (unsigned i = 0; i < queue->site_count; i++)
        if ((int)i != avoid && queue->sites[i]->may && look_warms(queue->sites[i]->backend))
            return true;
    return false;
}

bool sites_can_take(struct queue *queue)
{
    return sites_have_other(queue, NULL) || some_warms(queue, ROUTE_NONE);
}

static int index_of(const struct queue *queue, uint64_t id)
{
    for (unsigned i = 0; id && i < queue->site_count; i++)
        if (queue->sites[i]->id == id)
            return (int)i;
    return ROUTE_NONE;
}

static void count_affinity(struct queue *queue, struct ticket *ticket, const struct route_wish *wish, int chosen,
                           enum route_why why)
{
    int own = why == ROUTE_AFFINITY ? chosen : route_own_site(queue->views, queue->site_count, wish);

    ticket->is_hit = own == chosen;
    if (own != ROUTE_NONE)
        atomic_fetch_add_explicit(&queue->affinity_tries, 1, memory_order_relaxed);
    if (ticket->is_hit)
        atomic_fetch_add_explicit(&queue->affinity_hits, 1, memory_order_relaxed);
}

struct site *sites_choose(struct queue *queue, struct ticket *ticket, enum route_why *ret_why)
{
    struct route_wish wish = { .conversation = ticket->conversation, .avoid = index_of(queue, ticket->avoid) };
    int chosen;

    look_who_takes(queue);
    if (!queue->site_count) {
        *ret_why = ROUTE_NOBODY;
        return NULL;
    }
    chosen =
        route_choose(queue->views, queue->site_count, &wish, queue->site_count > 1 ? draw(&queue->chance) : 0, ret_why);
    if (chosen == ROUTE_NONE && *ret_why == ROUTE_NOBODY && some_warms(queue, wish.avoid))
        *ret_why = ROUTE_ALL_BUSY;
    if (chosen == ROUTE_NONE)
        return NULL;
    if (ticket->conversation)
        count_affinity(queue, ticket, &wish, chosen, *ret_why);
    return queue->sites[chosen];
}

/* ---- running ---- */

static void list(struct site *site, struct ticket *ticket)
{
    ticket->newer = NULL;
    ticket->older = site->running;
    if (site->running)
        site->running->newer = ticket;
    site->running = ticket;
    ticket->is_listed = true;
}

static void unlist(struct site *site, struct ticket *ticket)
{
    *(ticket->newer ? &ticket->newer->older : &site->running) = ticket->older;
    if (ticket->older)
        ticket->older->newer = ticket->newer;
    ticket->is_listed = false;
}

void site_begins(struct queue *queue, struct site *site, struct ticket *ticket, int64_t now_us)
{
    ticket->site = site;
    ticket->granted_us = now_us;
    ticket->is_stuck = false;
    view_of(queue, site)->running++;
    if (site->slots)
        list(site, ticket);
}

static void measure(struct queue *queue, struct site *site, const struct ticket_outcome *outcome)
{
    if (!outcome->has_tokens || !outcome->completion_tokens || outcome->running_us <= 0)
        return;
    site->speed_tokens = site->speed_tokens * FADE + (double)outcome->completion_tokens;
    site->speed_us = site->speed_us * FADE + (double)outcome->running_us;
    view_of(queue, site)->speed = site->speed_tokens / site->speed_us * 1e6;
}

double site_speed(const struct queue *queue, const struct site *site)
{
    return queue->views[site->index].speed;
}

/* ---- fewer slots than configured? ---- */

static void judge(struct queue *queue, struct site *site)
{
    unsigned answering = atomic_load_explicit(&site->answering, memory_order_relaxed);
    bool runs_all, runs_fewer;

    if (answering > site->most_answering)
        site->most_answering = answering;
    runs_all = site->most_answering >= site->slots;
    if (runs_all)
        site->seen = 0;
    runs_fewer = site->seen >= TIMES_SEEN;
    if (site->has_finding ? runs_all : runs_fewer) {
        site->has_finding = runs_fewer;
        look_finds_fewer(site->backend, queue->model, runs_fewer, site->most_answering);
    }
    if (runs_all)
        site->most_answering = 0;
}

/* One that was stuck has answered. */
static void witness(struct site *site, struct ticket *ticket)
{
    if (!ticket->is_stuck || !atomic_load_explicit(&ticket->answered_us, memory_order_acquire))
        return;
    ticket->is_stuck = false;
    if (ticket->answered_after_us > RIGHT_AFTER_US)
        return;
    if (site->seen++ == 0)
        site->most_answering = 0;
}

static void site_suspect(struct queue *queue, struct site *site, int64_t now_us)
{
    unsigned answering = atomic_load_explicit(&site->answering, memory_order_relaxed);
    bool is_full = view_of(queue, site)->running >= site->slots;

    for (struct ticket *ticket = site->running; ticket; ticket = ticket->older) {
        witness(site, ticket);
        if (is_full && answering && now_us - ticket->granted_us >= STUCK_US &&
            !atomic_load_explicit(&ticket->answered_us, memory_order_acquire))
            ticket->is_stuck = true;
    }
    judge(queue, site);
}

void sites_suspect(struct queue *queue, int64_t now_us)
{
    for (unsigned i = 0; i < queue->site_count; i++)
        if (queue->sites[i]->slots > 1)
            site_suspect(queue, queue->sites[i], now_us);
}

void site_ends(struct queue *queue, struct ticket *ticket, const struct ticket_outcome *outcome, int64_t now_us)
{
    struct site *site = ticket->site;
    struct route_site *view = view_of(queue, site);

    assert(view->running > 0);
    if (ticket->is_listed) {
        witness(site, ticket);
        if (site->slots > 1)
            judge(queue, site);
        unlist(site, ticket);
        atomic_store_explicit(&site->ended_us, now_us, memory_order_relaxed);
    }
    if (atomic_exchange_explicit(&ticket->answered_us, 0, memory_order_relaxed))
        atomic_fetch_sub_explicit(&site->answering, 1, memory_order_relaxed);
    if (outcome)
        measure(queue, site, outcome);
    ticket->site = NULL;
    if (--view->running == 0 && !site->is_known)
        site_free(queue, site);
}
