/*
 * Every question takes a context of nng's until it is answered, so there are as many as questions are open, and
 * SPARE_ASKS more. They are kept: what 1,000 gateways need once they need again.
 */
#include "server.h"

#include <stdlib.h>

/* nng's thread: a context has received, or has sent. */
static void on_aio(void *arg)
{
    struct link_ask *ask = arg;
    struct link_server *server = ask->server;
    int error = nng_aio_result(ask->aio);
    bool was_sending = ask->state == ASK_SENDING;

    if (was_sending && error) {
        nng_msg_free(nng_aio_get_msg(ask->aio));
        nng_aio_set_msg(ask->aio, NULL);
    }
    if (error == NNG_ECLOSED || atomic_load(&server->is_closing)) {
        if (!was_sending && !error)
            nng_msg_free(nng_aio_get_msg(ask->aio));
        return;
    }
    if (was_sending) {
        ask->state = ASK_RECEIVING;
        atomic_fetch_add(&server->receiving, 1);
        nng_ctx_recv(ask->ctx, ask->aio);
        return;
    }
    atomic_fetch_sub(&server->receiving, 1);
    ask->state = ASK_HELD;
    ask->message = error ? NULL : nng_aio_get_msg(ask->aio);
    nng_aio_set_msg(ask->aio, NULL);
    news_put(&server->box, &ask->news);
}

/* False: no memory. */
static bool ask_open(struct link_server *server)
{
    struct link_ask *ask = calloc(1, sizeof *ask);

    if (!ask)
        return false;
    ask->server = server;
    if (nng_aio_alloc(&ask->aio, on_aio, ask) != 0) {
        free(ask);
        return false;
    }
    if (nng_ctx_open(&ask->ctx, server->socket) != 0) {
        nng_aio_free(ask->aio);
        free(ask);
        return false;
    }
    ask->next_ask = server->asks;
    server->asks = ask;
    server->ask_count++;
    atomic_fetch_add(&server->receiving, 1);
    nng_ctx_recv(ask->ctx, ask->aio);
    return true;
}

/* What all connections may have open at once: more are never needed. */
static bool has_room(const struct link_server *server)
{
    return server->ask_count < server->options.max_connections * server->options.max_asks + SPARE_ASKS;
}

void pool_fill(struct link_server *server)
{
    if (atomic_load(&server->receiving) >= SPARE_ASKS / 2)
        return;
    while (atomic_load(&server->receiving) < SPARE_ASKS && has_room(server) && ask_open(server))
        ;
}

void pool_empty(struct link_server *server)
{
    for (struct link_ask *ask = server->asks, *next; ask; ask = next) {
        next = ask->next_ask;
        nng_aio_stop(ask->aio);
        nng_aio_free(ask->aio);
        if (ask->message)
            nng_msg_free(ask->message);
        free(ask);
    }
    server->asks = NULL;
}

void ask_attach(struct link_ask *ask, struct link_peer *peer)
{
    ask->peer = peer;
    ask->previous = NULL;
    ask->next = peer->asks;
    if (peer->asks)
        peer->asks->previous = ask;
    peer->asks = ask;
    peer->ask_count++;
    peer->server->counts.asks++;
}

void ask_detach(struct link_ask *ask)
{
    struct link_peer *peer = ask->peer;

    if (!peer)
        return;
    if (ask->previous)
        ask->previous->next = ask->next;
    else
        peer->asks = ask->next;
    if (ask->next)
        ask->next->previous = ask->previous;
    peer->ask_count--;
    peer->server->counts.asks--;
    ask->peer = NULL;
    ask->next = ask->previous = NULL;
}

/* Receiving again throws away what was not answered. */
void ask_recycle(struct link_ask *ask)
{
    struct link_server *server = ask->server;

    ask_detach(ask);
    ask->owner = NULL;
    if (ask->message)
        nng_msg_free(ask->message);
    ask->message = NULL;
    ask->state = ASK_RECEIVING;
    atomic_fetch_add(&server->receiving, 1);
    nng_ctx_recv(ask->ctx, ask->aio);
}

static void send_frame(struct link_ask *ask, struct slice frame)
{
    nng_msg *message;

    if (!ask->peer || nng_msg_alloc(&message, frame.len) != 0) {
        ask_recycle(ask);
        return;
    }
    memcpy(nng_msg_body(message), frame.at, frame.len);
    ask_detach(ask);
    ask->owner = NULL;
    ask->state = ASK_SENDING;
    nng_aio_set_msg(ask->aio, message);
    nng_ctx_send(ask->ctx, ask->aio);
}

static void send_message(struct link_ask *ask, const struct qw_message *message)
{
    static const struct qw_message sorry = { QW_REFUSED, .refused = { .reason = QW_UNAVAILABLE } };
    struct link_server *server = ask->server;

    text_clear(&server->scratch);
    text_clear(&server->unsaid);
    if (message_pack(message, &server->scratch, &server->unsaid) != ERR_OK) {
        text_clear(&server->scratch);
        (void)!message_pack(&sorry, &server->scratch, &server->unsaid);
    }
    send_frame(ask, text_slice(&server->scratch));
}

/* A removed gateway is told that and nothing else. */
static bool is_removed(struct link_ask *ask)
{
    struct qw_message message = { QW_REFUSED, .refused = { .reason = QW_REMOVED } };

    if (!ask->peer || !ask->peer->is_removed)
        return false;
    message.refused.detail = text_slice(&ask->peer->removed);
    ask->server->counts.refused++;
    send_message(ask, &message);
    return true;
}

void link_ask_drop(struct link_ask *ask)
{
    if (!is_removed(ask))
        ask_recycle(ask);
}

void link_ask_answer_frame(struct link_ask *ask, struct slice frame)
{
    if (!is_removed(ask))
        send_frame(ask, frame);
}

void link_ask_answer(struct link_ask *ask, const struct qw_message *message)
{
    if (!is_removed(ask))
        send_message(ask, message);
}

void link_ask_refuse(struct link_ask *ask, enum qw_reason reason, const char *detail, uint32_t retry_ms)
{
    struct slice words = slice_of(detail);
    struct qw_message message = { QW_REFUSED, .refused = { .reason = reason, .detail = words, .retry_ms = retry_ms } };

    message.refused.detail.len = utf8_cut(words, CODEC_MAX_TEXT);
    ask->server->counts.refused++;
    if (ask->peer)
        peer_is_refused(ask->peer);
    link_ask_answer(ask, &message);
}

void **link_ask_owner(struct link_ask *ask)
{
    return &ask->owner;
}

struct link_peer *link_ask_peer(const struct link_ask *ask)
{
    return ask->peer && ask->peer->state == PEER_WELCOME ? ask->peer : NULL;
}
