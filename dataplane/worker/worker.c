/*
 * Messages from the control thread lie in `mail`, under a lock held for a few instructions, and an eventfd wakes the
 * loop.
 *
 * Listeners are level-triggered and drained in bursts. When places or descriptors have run out, a connection that keeps
 * us waiting closes for each that comes (clients_make_room); where only other workers have such ones, they are asked,
 * and the newcomer is let in meanwhile. Where the process has no descriptor at all, accepting pauses for
 * ACCEPT_PAUSE_MS instead of spinning.
 */
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arena.h"
#include "backend.h"
#include "cidr.h"
#include "client.h"
#include "clock.h"
#include "digest.h"
#include "keyring.h"
#include "limit.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "queue.h"
#include "request.h"
#include "snapshot.h"
#include "upstream.h"
#include "wheel.h"

enum { SCRATCH_BYTES = 64 << 10, ACCEPT_BURST = 64, ACCEPT_PAUSE_MS = 100, SAY_FULL_MS = 10000, MAX_LISTENERS = 16 };

struct mail {
    struct worker_news news; /* counted; its snapshot NULL: as before */
    struct digest *cuts;     /* of all news since the mail was read */
    size_t cut_count;
    bool looks_again, makes_room, drains, ends_now;
};

struct worker {
    struct worker_options options;
    pthread_t thread;
    pthread_mutex_t lock; /* mail */
    struct mail mail;
    int wake_fd;
    struct loop loop;
    struct watch wake;
    struct listener {
        struct watch watch;
        struct worker *worker;
        int fd;
    } listeners[MAX_LISTENERS];
    size_t listener_count;
    unsigned max_connections;
    struct deadline accept_again;
    int64_t said_full_ms, said_crowded_ms; /* when it was last said */
    bool has_asked_others;                 /* to make room */
    struct wheel wheel;
    struct request_house house;
    struct queue_home home;
    bool is_accepting, is_over;
    _Atomic uint64_t turn;
    char scratch[SCRATCH_BYTES];
};

/* ---- accepting ---- */

static void pause_accepting(struct worker *worker, int reason)
{
    for (size_t i = 0; i < worker->listener_count; i++)
        loop_leave(&worker->loop, worker->listeners[i].fd, &worker->listeners[i].watch);
    if (clock_ms() - worker->said_full_ms >= SAY_FULL_MS) {
        worker->said_full_ms = clock_ms();
        log_warn("no new connections for a moment: %s", reason == EMFILE || reason == ENFILE
                                                            ? "all file descriptors are in use"
                                                            : "the kernel is out of memory");
    }
    wheel_set(&worker->wheel, &worker->accept_again, clock_ms() + ACCEPT_PAUSE_MS);
}

static void on_accept_again(struct deadline *deadline, int64_t now_ms)
{
    struct worker *worker = (void *)((char *)deadline - offsetof(struct worker, accept_again));

    (void)now_ms;
    for (size_t i = 0; worker->is_accepting && i < worker->listener_count; i++)
        (void)loop_watch(&worker->loop, worker->listeners[i].fd, &worker->listeners[i].watch, LOOP_WHILE_READABLE);
}

static bool is_trusted(const struct worker *worker, const struct address *peer)
{
    return cidr_list_has(&worker->house.snapshot->settings.trusted_proxies, peer);
}

static void say_refused(struct worker *worker, const struct address *peer, const char *why)
{
    char address[ADDRESS_TEXT_BYTES];

    if (address_may_log(worker->options.limits, peer, clock_ms()))
        log_warn("connection from %s closed: %s", address_text(peer, address), why);
}

static bool make_room(struct worker *worker, const char *what)
{
    if (!clients_make_room(&worker->house.clients, NULL))
        return false;
    if (clock_ms() - worker->said_crowded_ms >= SAY_FULL_MS || !worker->said_crowded_ms) {
        worker->said_crowded_ms = clock_ms();
        log_warn("%s are in use: connections that keep the gateway waiting are closed to let others in", what);
    }
    return true;
}

/* A caller's descriptor, or that of a kept connection to a backend. */
static bool spare_descriptor(struct worker *worker)
{
    return make_room(worker, "all file descriptors") || upstream_pool_shed(worker->house.pool);
}

static void ask_others(struct worker *worker)
{
    worker->has_asked_others = true;
    worker->options.crowd(worker->options.arg);
}

/*
 * Descriptors are handed out lowest first, so that a high one tells how many are in use. A few are left for the control
 * thread: who looks after a crowded gateway must get in. When somebody has made room the connection takes its number.
 */
static bool has_descriptor(struct worker *worker, int *fd)
{
    int limit = worker->options.descriptor_limit, low;

    if (*fd < limit)
        return true;
    if (!spare_descriptor(worker)) {
        ask_others(worker);
        return false;
    }
    low = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
    if (low < 0)
        return false;
    (void)close(*fd);
    *fd = low;
    return low < limit;
}

static bool has_place(struct worker *worker)
{
    struct limits *limits = worker->options.limits;

    if (connection_enter(limits, worker->max_connections))
        return true;
    if (!make_room(worker, "max_connections")) {
        if (connections_open(limits) <= metrics_in_flight_now(worker->options.metrics))
            return false;
        ask_others(worker);
    }
    return connection_enter(limits, 0);
}

/* Row 1 of behaviour.md 2.2, and the caps. True: the connection has been counted in. */
static bool may_enter(struct worker *worker, int *fd, const struct address *peer)
{
    const struct settings *settings = &worker->house.snapshot->settings;
    struct limits *limits = worker->options.limits;
    struct metrics_shard *metrics = worker->house.metrics;

    if (settings->whitelist_enabled && !cidr_list_has(&settings->whitelist, peer)) {
        metrics_count(metrics, METRIC_CONNECTIONS_REFUSED_WHITELIST, 1);
        say_refused(worker, peer, "the address is not in whitelist.ips");
        return false;
    }
    if (!is_trusted(worker, peer) && !address_enter(limits, peer, settings->max_connections_per_address)) {
        metrics_count(metrics, METRIC_CONNECTIONS_REFUSED_ADDRESS_CAP, 1);
        say_refused(worker, peer, "max_connections_per_address are open from there");
        return false;
    }
    if (!has_descriptor(worker, fd) || !has_place(worker)) {
        if (!is_trusted(worker, peer))
            address_leave(limits, peer);
        metrics_count(metrics, METRIC_CONNECTIONS_REFUSED_TOTAL_CAP, 1);
        say_refused(worker, peer, "all places are taken by requests that are being served");
        return false;
    }
    return true;
}

static void on_closed(struct client *client)
{
    struct request_house *house = client_house(client)->worker;
    const struct address *peer = client_peer(client);

    if (client_was_crowded_out(client))
        metrics_count(house->metrics, METRIC_CONNECTIONS_CROWDED_OUT, 1);
    connection_leave(house->limits);
    if (!client_is_uncounted(client))
        address_leave(house->limits, peer);
}

static void take_in(struct worker *worker, int fd, const struct sockaddr_storage *from)
{
    struct address peer;

    address_of_sockaddr((const struct sockaddr *)from, &peer);
    if (!may_enter(worker, &fd, &peer)) {
        (void)close(fd);
        return;
    }
    metrics_count(worker->house.metrics, METRIC_CONNECTIONS_ACCEPTED, 1);
    if (client_new(&worker->house.clients, fd, &peer, is_trusted(worker, &peer)) != ERR_OK) {
        connection_leave(worker->options.limits);
        if (!is_trusted(worker, &peer))
            address_leave(worker->options.limits, &peer);
    }
}

/* False: the queue is empty. */
static bool accept_one(struct worker *worker, int listener)
{
    struct sockaddr_storage from;
    socklen_t bytes = sizeof from;
    int fd = accept4(listener, (struct sockaddr *)&from, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        take_in(worker, fd, &from);
        return true;
    }
    if ((errno == EMFILE || errno == ENFILE) && spare_descriptor(worker))
        return true;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        pause_accepting(worker, errno);
        ask_others(worker);
    }
    return errno == EINTR || errno == ECONNABORTED;
}

static void on_accept(struct watch *watch, unsigned what)
{
    struct listener *listener = (void *)((char *)watch - offsetof(struct listener, watch));

    (void)what;
    clock_turn();
    for (unsigned i = 0; i < ACCEPT_BURST && accept_one(listener->worker, listener->fd); i++)
        ;
}

/* A listener's queue holds callers whose handshake is done: they are served, not reset. */
static void stop_accepting(struct worker *worker)
{
    if (!worker->is_accepting)
        return;
    worker->is_accepting = false;
    for (size_t i = 0; i < worker->listener_count; i++) {
        loop_leave(&worker->loop, worker->listeners[i].fd, &worker->listeners[i].watch);
        while (accept_one(worker, worker->listeners[i].fd))
            ;
        (void)close(worker->listeners[i].fd);
    }
    worker->listener_count = 0;
    wheel_clear(&worker->wheel, &worker->accept_again);
}

/* ---- settings ---- */

static void apply_settings(struct worker *worker)
{
    const struct settings *settings = &worker->house.snapshot->settings;

    worker->house.clients.settings = (struct client_settings){
        .head_timeout_ms = settings->head_timeout_ms,
        .body_timeout_ms = settings->body_timeout_ms,
        .idle_timeout_ms = settings->idle_timeout_ms,
        .write_timeout_ms = settings->write_timeout_ms,
        .linger_timeout_ms = settings->linger_timeout_ms,
        .max_head_bytes = settings->max_head_bytes,
        .write_buffer_bytes = settings->write_buffer_bytes,
        .max_held_bytes = settings->max_buffer_memory_bytes / worker->options.worker_count,
    };
}

static void take_news(struct worker *worker, const struct mail *mail)
{
    const struct worker_news *news = &mail->news;

    if (!news->snapshot)
        return;
    requests_know(&worker->house, news->snapshot, news->fleet, news->keys);
    worker->house.refuses = news->refuses;
    worker->max_connections = news->max_connections;
    apply_settings(worker);
    if (mail->cut_count)
        requests_cut(&worker->house, mail->cuts, mail->cut_count);
    free(mail->cuts);
    atomic_store(&worker->turn, news->turn);
    if (worker->options.on_turn)
        worker->options.on_turn(worker->options.arg);
}

/* ---- the loop ---- */

/* From any thread: others have decided about tickets of ours; the turn that follows takes them out of their box. */
static void ring(void *arg)
{
    static const uint64_t one = 1;
    struct worker *worker = arg;

    (void)!write(worker->wake_fd, &one, sizeof one);
}

/* Who asked has itself nobody to spare but those it let in meanwhile. */
static void make_room_for_others(struct worker *worker)
{
    bool is_ours = worker->has_asked_others; /* the news reaches us too */

    worker->has_asked_others = false;
    if (is_ours)
        return;
    if (!make_room(worker, "all places"))
        (void)upstream_pool_shed(worker->house.pool); /* it may be a descriptor that is wanted */
    while (connections_open(worker->options.limits) > worker->max_connections && make_room(worker, "all places"))
        ;
}

static void on_wake(struct watch *watch, unsigned what)
{
    struct worker *worker = (void *)((char *)watch - offsetof(struct worker, wake));
    struct mail mail;
    uint64_t count;

    (void)what;
    clock_turn();
    (void)!read(worker->wake_fd, &count, sizeof count);
    (void)pthread_mutex_lock(&worker->lock);
    mail = worker->mail;
    worker->mail = (struct mail){ 0 };
    (void)pthread_mutex_unlock(&worker->lock);
    take_news(worker, &mail);
    if (mail.looks_again)
        requests_look_again(&worker->house);
    if (mail.makes_room)
        make_room_for_others(worker);
    if (mail.drains) {
        worker->house.clients.is_draining = true;
        stop_accepting(worker);
        clients_close_idle(&worker->house.clients);
    }
    if (mail.ends_now) {
        stop_accepting(worker);
        requests_end_all(&worker->house);
        clients_drop_all(&worker->house.clients);
        worker->is_over = true;
    }
}

static bool has_drained(const struct worker *worker)
{
    return !worker->is_accepting && worker->house.clients.count == 0;
}

static void *run(void *arg)
{
    struct worker *worker = arg;

    bool has_more = false; /* somebody had more to do than one turn's share */

    log_thread_start();
    clock_turn();
    while (!worker->is_over && !has_drained(worker)) {
        loop_turn(&worker->loop, has_more ? 0 : wheel_wait_ms(&worker->wheel, clock_ms()));
        clock_turn();
        wheel_turn(&worker->wheel, clock_ms()); /* after the news: what has come in time is not late */
        upstream_pool_go_on(worker->house.pool);
        clients_go_on(&worker->house.clients);
        requests_take_news(&worker->house);
        requests_reap(&worker->house);
        clients_reap(&worker->house.clients);
        upstream_pool_reap(worker->house.pool);
        has_more = clients_have_more(&worker->house.clients) || upstream_pool_has_more(worker->house.pool);
    }
    requests_release(&worker->house);
    clients_release(&worker->house.clients);
    atomic_store(&worker->turn, UINT64_MAX);
    if (worker->options.on_turn)
        worker->options.on_turn(worker->options.arg);
    worker->options.on_done(worker->options.arg);
    arena_thread_stop();
    log_thread_stop();
    return NULL;
}

/* ---- life ---- */

static bool make_loop(struct worker *worker)
{
    bool is_good =
        loop_open(&worker->loop) && loop_watch(&worker->loop, worker->wake_fd, &worker->wake, LOOP_WHILE_READABLE);

    for (size_t i = 0; is_good && i < worker->listener_count; i++)
        is_good = loop_watch(&worker->loop, worker->listeners[i].fd, &worker->listeners[i].watch, LOOP_WHILE_READABLE);
    return is_good;
}

static bool make_house(struct worker *worker, const struct worker_options *options)
{
    struct request_house *house = &worker->house;

    house->wheel = &worker->wheel;
    house->limits = options->limits;
    house->queues = options->queues;
    house->home = &worker->home;
    worker->home = (struct queue_home){ .ring = ring, .arg = worker };
    requests_know(house, snapshot_ref(options->news.snapshot), fleet_ref(options->news.fleet),
                  keyring_ref(options->news.keys));
    house->refuses = options->news.refuses;
    house->tally = options->tally;
    house->is_draining = options->is_draining;
    house->nudge = options->nudge;
    house->nudge_arg = options->arg;
    house->metrics = metrics_shard_new(options->metrics);
    house->pool = upstream_pool_new(&worker->loop, &worker->wheel, worker->scratch, sizeof worker->scratch,
                                    options->descriptor_limit);
    house->clients = (struct client_house){
        .loop = &worker->loop,
        .wheel = &worker->wheel,
        .scratch = worker->scratch,
        .scratch_bytes = sizeof worker->scratch,
        .story = &request_story,
        .worker = house,
        .on_closed = on_closed,
    };
    apply_settings(worker);
    return house->metrics && house->pool && clients_open(&house->clients) && requests_open(house);
}

static void forget_news(struct worker_news *news)
{
    if (!news->snapshot)
        return;
    (void)snapshot_unref(news->snapshot);
    (void)fleet_unref(news->fleet);
    (void)keyring_unref(news->keys);
    news->snapshot = NULL;
}

void worker_free(struct worker *worker)
{
    requests_take_news(&worker->house); /* of those that have ended */
    upstream_pool_free(worker->house.pool);
    (void)snapshot_unref(worker->house.snapshot);
    (void)fleet_unref(worker->house.fleet);
    (void)keyring_unref(worker->house.keys);
    forget_news(&worker->mail.news);
    free(worker->mail.cuts);
    for (size_t i = 0; i < worker->listener_count; i++)
        (void)close(worker->listeners[i].fd);
    loop_close(&worker->loop);
    if (worker->wake_fd >= 0)
        (void)close(worker->wake_fd);
    (void)pthread_mutex_destroy(&worker->lock);
    free(worker);
}

struct worker *worker_start(const struct worker_options *options)
{
    struct worker *worker = calloc(1, sizeof *worker);

    if (!worker || options->listener_count > MAX_LISTENERS) {
        free(worker);
        return NULL;
    }
    worker->options = *options;
    worker->loop.fd = worker->wake_fd = -1;
    worker->max_connections = options->news.max_connections;
    atomic_init(&worker->turn, options->news.turn);
    worker->is_accepting = true;
    worker->accept_again.on_due = on_accept_again;
    for (size_t i = 0; i < options->listener_count; i++)
        worker->listeners[i] = (struct listener){ { on_accept }, worker, options->listeners[i] };
    worker->listener_count = options->listener_count;
    (void)pthread_mutex_init(&worker->lock, NULL);
    wheel_init(&worker->wheel, clock_ms());
    worker->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    worker->wake.on_event = on_wake;
    if (worker->wake_fd < 0 || !make_loop(worker) || !make_house(worker, options) ||
        pthread_create(&worker->thread, NULL, run, worker) != 0) {
        worker_free(worker);
        return NULL;
    }
    return worker;
}

/* ---- messages ---- */

static struct mail *write_mail(struct worker *worker)
{
    (void)pthread_mutex_lock(&worker->lock);
    return &worker->mail;
}

static void send_mail(struct worker *worker)
{
    (void)pthread_mutex_unlock(&worker->lock);
    ring(worker);
}

/* Those of a mail that was not read yet are cut as well. */
static bool add_cuts(struct mail *mail, const struct digest *cuts, size_t count)
{
    struct digest *all;

    if (!count)
        return true;
    all = realloc(mail->cuts, (mail->cut_count + count) * sizeof *all);
    if (!all)
        return false;
    memcpy(all + mail->cut_count, cuts, count * sizeof *all);
    mail->cuts = all;
    mail->cut_count += count;
    return true;
}

bool worker_update(struct worker *worker, const struct worker_news *news)
{
    struct mail *mail = write_mail(worker);
    bool is_good = add_cuts(mail, news->cuts, news->cut_count);

    if (is_good) {
        forget_news(&mail->news);
        mail->news = *news;
        mail->news.cuts = NULL;
        (void)snapshot_ref(news->snapshot);
        (void)fleet_ref(news->fleet);
        (void)keyring_ref(news->keys);
    }
    send_mail(worker);
    return is_good;
}

uint64_t worker_turn(const struct worker *worker)
{
    return atomic_load(&worker->turn);
}

void worker_look_again(struct worker *worker)
{
    write_mail(worker)->looks_again = true;
    send_mail(worker);
}

void worker_make_room(struct worker *worker)
{
    write_mail(worker)->makes_room = true;
    send_mail(worker);
}

void worker_drain(struct worker *worker)
{
    write_mail(worker)->drains = true;
    send_mail(worker);
}

void worker_end_now(struct worker *worker)
{
    write_mail(worker)->ends_now = true;
    send_mail(worker);
}

void worker_join(struct worker *worker)
{
    (void)pthread_join(worker->thread, NULL);
}
