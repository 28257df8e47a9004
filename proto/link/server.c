#include "server.h"

#include <nng/protocol/reqrep0/rep.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"

enum { CLOSE_PATIENCE_MS = 2000 };

/* --- nng's threads --------------------------------------------------------------------------------------- */

static struct link_peer **bucket_of(struct link_server *server, nng_pipe pipe)
{
    return &server->buckets[(unsigned)nng_pipe_id(pipe) % PEER_BUCKETS];
}

/* With the lock held. */
static struct link_peer *peer_find(struct link_server *server, nng_pipe pipe)
{
    struct link_peer *peer = *bucket_of(server, pipe);

    while (peer && nng_pipe_id(peer->pipe) != nng_pipe_id(pipe))
        peer = peer->in_bucket;
    return peer;
}

/* Before its first message can come. */
static void on_pipe_added(struct link_server *server, nng_pipe pipe)
{
    struct link_peer *peer = NULL;

    if (atomic_fetch_add(&server->connections, 1) < server->options.max_connections)
        peer = calloc(1, sizeof *peer);
    if (!peer) {
        atomic_fetch_sub(&server->connections, 1);
        (void)nng_pipe_close(pipe);
        return;
    }
    peer->server = server;
    peer->pipe = pipe;
    peer->news.is_about_a_peer = true;
    (void)pthread_mutex_lock(&server->box.lock);
    peer->in_bucket = *bucket_of(server, pipe);
    *bucket_of(server, pipe) = peer;
    news_put_locked(&server->box, &peer->news);
    (void)pthread_mutex_unlock(&server->box.lock);
}

static void on_pipe_removed(struct link_server *server, nng_pipe pipe)
{
    struct link_peer *peer;

    (void)pthread_mutex_lock(&server->box.lock);
    peer = peer_find(server, pipe);
    if (peer) {
        struct link_peer **at = bucket_of(server, pipe);
        while (*at != peer)
            at = &(*at)->in_bucket;
        *at = peer->in_bucket;
        peer->is_closed = true;
        atomic_fetch_sub(&server->connections, 1);
        news_put_locked(&server->box, &peer->news);
    }
    (void)pthread_mutex_unlock(&server->box.lock);
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    if (event == NNG_PIPE_EV_ADD_PRE)
        on_pipe_added(arg, pipe);
    else if (event == NNG_PIPE_EV_REM_POST)
        on_pipe_removed(arg, pipe);
}

/* --- the loop's turn ------------------------------------------------------------------------------------- */

static void peer_news(struct link_peer *peer, int64_t now_ms)
{
    bool is_closed;

    (void)pthread_mutex_lock(&peer->server->box.lock);
    is_closed = peer->is_closed && !peer->news.is_queued; /* queued: it comes once more */
    (void)pthread_mutex_unlock(&peer->server->box.lock);
    if (!peer->list)
        peer_appear(peer, now_ms);
    if (is_closed)
        peer_vanish(peer);
}

static void ask_news(struct link_ask *ask, int64_t now_ms)
{
    struct link_server *server = ask->server;
    struct link_peer *peer = NULL;
    nng_msg *message = ask->message;

    if (message) {
        (void)pthread_mutex_lock(&server->box.lock);
        peer = peer_find(server, nng_msg_get_pipe(message));
        (void)pthread_mutex_unlock(&server->box.lock);
    }
    if (!peer) { /* it went while its message lay here, or receiving failed */
        ask_recycle(ask);
        return;
    }
    ask->message = NULL;
    server->counts.messages++;
    ask_attach(ask, peer);
    if (peer->ask_count > (peer->state == PEER_WELCOME ? server->options.max_asks : STRANGERS_ASKS)) {
        ask_recycle(ask);
        peer_leave(peer, now_ms - LEAVING_MS); /* closed by the next sweep */
    } else {
        peer_hear(peer, ask, (struct slice){ nng_msg_body(message), nng_msg_len(message) }, now_ms);
    }
    nng_msg_free(message);
}

static void news_open_letter(struct link_server *server, struct news *news, int64_t now_ms)
{
    if (news->is_about_a_peer)
        peer_news((struct link_peer *)(void *)news, now_ms);
    else
        ask_news((struct link_ask *)(void *)news, now_ms);
    pool_fill(server);
}

void link_server_take(struct link_server *server)
{
    enum { AT_ONCE = 2048 }; /* then the owner's other work has its turn */
    int64_t now_ms = clock_ms();
    struct news *news = NULL;

    news_hear(&server->box);
    for (unsigned i = 0; i < AT_ONCE && (news = news_next(&server->box)); i++)
        news_open_letter(server, news, now_ms);
    if (news)
        news_ring(&server->box);
    if (now_ms >= server->sweep_ms) {
        peers_sweep(server, now_ms);
        server->sweep_ms = now_ms + SWEEP_MS;
    }
    news_set_deadline(&server->box, server->sweep_ms);
}

/* --- opening and closing --------------------------------------------------------------------------------- */

static void take_defaults(struct link_server_options *options)
{
    options->max_connections = options->max_connections ? options->max_connections : 16384;
    options->max_strangers = options->max_strangers ? options->max_strangers : 4096;
    options->max_asks = options->max_asks ? options->max_asks : 8;
    options->greeting_ms = options->greeting_ms ? options->greeting_ms : 5000;
    options->heartbeat_ms = options->heartbeat_ms ? options->heartbeat_ms : 1000;
    if (!options->silence_ms)
        options->silence_ms = 3 * options->heartbeat_ms > 5000 ? 3 * options->heartbeat_ms : 5000;
    options->max_message_bytes = options->max_message_bytes ? options->max_message_bytes : CODEC_MAX_BYTES;
}

/* With the port that there is now, instead of 0. */
static bool url_find(struct link_server *server)
{
    const char *asked = server->options.url, *colon = strrchr(asked, ':');
    char url[256];
    int port;

    if (strncmp(asked, "tcp://", 6) != 0 ||
        nng_listener_get_int(server->listener, NNG_OPT_TCP_BOUND_PORT, &port) != 0) {
        server->url = strdup(asked);
    } else {
        (void)snprintf(url, sizeof url, "%.*s:%d", (int)(colon - asked), asked, port);
        server->url = strdup(url);
    }
    return server->url;
}

/* nng's word for what went wrong, 0: nothing. */
static int listen_to(struct link_server *server)
{
    int error = nng_rep0_open(&server->socket);

    if (error)
        return error;
    if ((error = nng_socket_set_size(server->socket, NNG_OPT_RECVMAXSZ,
                                     server->options.max_message_bytes + NNG_HEAD_BYTES)) ||
        (error = nng_pipe_notify(server->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, server)) ||
        (error = nng_pipe_notify(server->socket, NNG_PIPE_EV_REM_POST, on_pipe, server)))
        return error;
    pool_fill(server);
    if ((error = nng_listener_create(&server->listener, server->socket, server->options.url)) ||
        (error = nng_listener_start(server->listener, 0)))
        return error;
    return url_find(server) ? 0 : NNG_ENOMEM;
}

struct link_server *link_server_open(const struct link_server_options *options, const struct link_server_events *events,
                                     void *arg, struct text *why)
{
    struct link_server *server = calloc(1, sizeof *server);
    int error;

    if (!server || !news_open(&server->box)) {
        text_printf(why, "%s: no memory, or no descriptors", options->url);
        free(server);
        return NULL;
    }
    server->options = *options;
    server->events = *events;
    server->arg = arg;
    take_defaults(&server->options);
    text_init(&server->scratch, 2 * CODEC_MAX_BYTES);
    text_init(&server->why, CODEC_MAX_TEXT);
    text_init(&server->unsaid, CODEC_MAX_TEXT);
    error = listen_to(server);
    if (error) {
        text_printf(why, "%s: %s", options->url, nng_strerror(error));
        return link_server_close(server);
    }
    news_set_deadline(&server->box, 0);
    return server;
}

static void quiet_peer(void *arg, struct link_peer *peer)
{
    (void)arg;
    (void)peer;
}

/* By the thread that closes. */
static void server_close(struct closing *closing)
{
    struct link_server *server = (struct link_server *)(void *)closing;
    struct news *news;

    if (nng_socket_id(server->socket) > 0)
        (void)nng_close(server->socket);
    while ((news = news_next(&server->box)))
        if (news->is_about_a_peer)
            peer_news((struct link_peer *)(void *)news, 0);
    pool_empty(server);
    text_release(&server->scratch);
    text_release(&server->why);
    text_release(&server->unsaid);
    news_close(&server->box);
    free(server->url);
    free(server);
}

struct link_server *link_server_close(struct link_server *server)
{
    if (!server)
        return NULL;
    atomic_store(&server->is_closing, true);
    server->events.on_gone = quiet_peer;
    server->closing.close = server_close;
    closing_begin(&server->closing);
    (void)closing_wait(CLOSE_PATIENCE_MS);
    return NULL;
}

int link_server_fd(const struct link_server *server)
{
    return server->box.fd;
}

const char *link_server_url(const struct link_server *server)
{
    return server->url;
}

void link_server_counts(const struct link_server *server, struct link_server_counts *ret_counts)
{
    *ret_counts = server->counts;
    ret_counts->connections = atomic_load(&server->connections);
    ret_counts->strangers = server->strangers.count;
    ret_counts->peers = server->peers.count;
}
