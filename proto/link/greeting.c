/*
 * Who is it? A connection begins as a stranger, and is a gateway's when it has proven that it holds the key: the nonce
 * is good for one proof on one connection, so neither a recorded Hello nor a recorded Proof is worth anything.
 * Strangers take little, wait for little, and the oldest of them makes room for the newest: whoever holds thousands of
 * silent connections pushes out his own, while one that says who it is has long become a gateway's.
 */
#include "server.h"

#include <assert.h>
#include <stdlib.h>

#include "arena.h"
#include "clock.h"
#include "digest.h"

static void list_add(struct peer_list *list, struct link_peer *peer)
{
    peer->list = list;
    peer->next = NULL;
    peer->previous = list->last;
    if (list->last)
        list->last->next = peer;
    else
        list->first = peer;
    list->last = peer;
    list->count++;
}

static void list_remove(struct link_peer *peer)
{
    struct peer_list *list = peer->list;

    if (peer->previous)
        peer->previous->next = peer->next;
    else
        list->first = peer->next;
    if (peer->next)
        peer->next->previous = peer->previous;
    else
        list->last = peer->previous;
    list->count--;
}

static void peer_move(struct link_peer *peer, struct peer_list *list)
{
    list_remove(peer);
    list_add(list, peer);
}

/* Not a gateway's, nor to become one; the connection may be there yet. */
static void peer_dismiss(struct link_peer *peer, int64_t deadline_ms)
{
    struct link_server *server = peer->server;
    bool was_welcome = peer->state == PEER_WELCOME;

    peer->deadline_ms = deadline_ms;
    peer->state = PEER_LEAVING;
    peer_move(peer, &server->leavers);
    if (was_welcome)
        server->events.on_gone(server->arg, peer);
}

static void peer_close(struct link_peer *peer)
{
    peer_dismiss(peer, INT64_MAX);
    (void)nng_pipe_close(peer->pipe);
}

void peer_leave(struct link_peer *peer, int64_t now_ms)
{
    peer_dismiss(peer, now_ms + LEAVING_MS);
}

void peer_appear(struct link_peer *peer, int64_t now_ms)
{
    struct link_server *server = peer->server;

    peer->heard_ms = now_ms;
    peer->deadline_ms = now_ms + server->options.greeting_ms;
    text_init(&peer->features, GREETING_MAX_BYTES);
    text_init(&peer->removed, CODEC_MAX_TEXT);
    list_add(&server->strangers, peer);
    if (server->strangers.count > server->options.max_strangers) {
        server->counts.pushed_out++;
        peer_close(server->strangers.first);
    }
}

void peer_vanish(struct link_peer *peer)
{
    peer_dismiss(peer, INT64_MAX);
    while (peer->asks)
        ask_detach(peer->asks);
    list_remove(peer);
    text_release(&peer->features);
    text_release(&peer->removed);
    free(peer);
}

/* Who is closed goes to the end of the leavers, and is never due again. */
static void list_sweep(struct peer_list *list, int64_t now_ms)
{
    for (struct link_peer *peer = list->first, *next; peer; peer = next) {
        next = peer->next;
        if (peer->deadline_ms > now_ms)
            continue;
        peer->server->counts.silent += peer->state != PEER_LEAVING;
        peer_close(peer);
    }
}

/* on_gone() may have changed the list: so from its beginning after each. */
static struct link_peer *peer_silent(const struct link_server *server, int64_t now_ms)
{
    struct link_peer *peer = server->peers.first;

    while (peer && peer->heard_ms + server->options.silence_ms > now_ms)
        peer = peer->next;
    return peer;
}

void peers_sweep(struct link_server *server, int64_t now_ms)
{
    struct link_peer *silent;

    list_sweep(&server->strangers, now_ms);
    list_sweep(&server->leavers, now_ms);
    while ((silent = peer_silent(server, now_ms))) {
        server->counts.silent++;
        peer_close(silent);
    }
}

/* --- the greeting ---------------------------------------------------------------------------------------- */

bool link_version_is_served(const struct qw_version *control, const struct qw_version *gateway)
{
    enum { MINORS_BACK = 2 };

    return gateway->major == control->major && gateway->minor <= control->minor &&
           control->minor - gateway->minor <= MINORS_BACK;
}

/* Says why, and the connection ends. */
static void turn_away(struct link_peer *peer, struct link_ask *ask, enum qw_reason reason, const char *detail)
{
    link_ask_refuse(ask, reason, detail, 0);
    peer_leave(peer, clock_ms());
}

static void keep(struct slice words, char *at, uint8_t *ret_len)
{
    memcpy(at, words.at ? words.at : "", words.len);
    *ret_len = (uint8_t)words.len;
}

static const struct qw_version no_version;

static bool peer_learn(struct link_peer *peer, const struct qw_hello *hello)
{
    keep(hello->name, peer->name, &peer->name_len);
    keep(hello->address, peer->address, &peer->address_len);
    keep(hello->instance, peer->instance, &peer->instance_len);
    peer->max_staleness_s = hello->max_staleness_s;
    peer->name_hash = slice_hash((const uint64_t[2]){ 0, 0x9e3779b97f4a7c15 }, hello->name);
    peer->version = hello->version ? *hello->version : no_version;
    text_clear(&peer->features);
    for (size_t i = 0; i < hello->features.count; i++) {
        text_add_slice(&peer->features, hello->features.names[i]);
        text_add_char(&peer->features, 0);
    }
    return !peer->features.err;
}

static bool peer_greets(struct link_peer *peer, struct link_ask *ask, const struct qw_hello *hello)
{
    const struct qw_version *ours = &peer->server->options.version;
    char memory[160];
    struct text text = text_over(memory, sizeof memory);

    if (!peer_learn(peer, hello)) {
        turn_away(peer, ask, QW_BAD_MESSAGE, "more features than can be kept");
        return false;
    }
    peer->state = PEER_GREETED;
    peer->deadline_ms = INT64_MAX; /* it waits for us now */
    if (link_version_is_served(ours, &peer->version))
        return true;
    text_printf(&text,
                "this control plane (%u.%u.%u) serves gateways of its own and the two previous minor versions, "
                "not %u.%u.%u",
                ours->major, ours->minor, ours->patch, peer->version.major, peer->version.minor, peer->version.patch);
    turn_away(peer, ask, QW_VERSION, text_string(&text));
    return false;
}

void link_ask_challenge(struct link_ask *ask, const struct identity_key *key)
{
    struct link_peer *peer = ask->peer;
    struct qw_message message = { .what = QW_CHALLENGE };

    if (!peer || peer->state != PEER_GREETED) {
        ask_recycle(ask);
        return;
    }
    peer->state = PEER_CHALLENGED;
    peer->deadline_ms = clock_ms() + peer->server->options.greeting_ms;
    peer->has_key = key != NULL;
    if (key)
        peer->key = *key;
    random_bytes(peer->nonce, sizeof peer->nonce);
    message.challenge.nonce = (struct slice){ (const char *)peer->nonce, sizeof peer->nonce };
    message.challenge.version = &peer->server->options.version;
    link_ask_answer(ask, &message);
}

static bool proof_is_good(const struct link_peer *peer, const struct qw_proof *proof)
{
    const struct qw_version *ours = &peer->server->options.version, *its = &peer->version;
    const struct identity_claim claim = {
        .nonce = peer->nonce,
        .gateway_version = { its->major, its->minor, its->patch },
        .control_version = { ours->major, ours->minor, ours->patch },
        .name = { peer->name, peer->name_len },
    };
    struct identity_signature signature;

    memcpy(signature.bytes, proof->signature.at, sizeof signature.bytes);
    return peer->has_key && identity_verify(&peer->key, &claim, &signature);
}

/* A gateway that comes again has lost the connection that it had, whatever we know of that. */
static void peer_take_over(struct link_peer *peer)
{
    struct link_peer *before = link_server_find(peer->server, link_peer_name(peer));

    if (before)
        peer_close(before);
}

static void peer_welcome(struct link_peer *peer, struct link_ask *ask)
{
    struct link_server *server = peer->server;
    uint8_t session[CODEC_ID_BYTES];
    const struct qw_message message = {
        QW_WELCOME,
        .welcome = { .session = { (const char *)session, sizeof session },
                     .heartbeat_ms = server->options.heartbeat_ms,
                     .features = server->options.features,
                     .now_ms = (uint64_t)clock_wall_ms() },
    };

    random_bytes(session, sizeof session);
    peer_take_over(peer);
    peer_move(peer, &server->peers);
    peer->state = PEER_WELCOME;
    link_ask_answer(ask, &message);
    server->events.on_welcome(server->arg, peer);
}

void link_ask_welcome(struct link_ask *ask)
{
    if (ask->peer && ask->peer->state == PEER_PROVEN)
        peer_welcome(ask->peer, ask);
    else
        ask_recycle(ask);
}

void peer_is_refused(struct link_peer *peer)
{
    if (peer->state == PEER_GREETED || peer->state == PEER_PROVEN)
        peer->deadline_ms = clock_ms() + LEAVING_MS;
}

static void peer_enrolled(struct link_peer *peer, struct link_ask *ask)
{
    struct link_server *server = peer->server;

    peer->state = PEER_PROVEN;
    peer->deadline_ms = INT64_MAX; /* it waits for us again */
    server->events.on_enrolled(server->arg, ask, link_peer_name(peer), &peer->key, &peer->secret_hash);
}

static void peer_proves(struct link_peer *peer, struct link_ask *ask, const struct qw_proof *proof)
{
    bool is_good = proof_is_good(peer, proof);

    explicit_bzero(peer->nonce, sizeof peer->nonce);
    if (!is_good)
        turn_away(peer, ask, QW_IDENTITY, "the name is unknown, or the proof is not of its key");
    else if (peer->enrols && peer->server->events.on_enrolled)
        peer_enrolled(peer, ask);
    else
        peer_welcome(peer, ask);
}

static void stranger_wrong(struct link_peer *peer, struct link_ask *ask)
{
    if (++peer->wrong_greetings >= MAX_WRONG_GREETINGS)
        turn_away(peer, ask, QW_HELLO_FIRST, "begin with a Hello");
    else
        link_ask_refuse(ask, QW_HELLO_FIRST, "begin with a Hello", 0);
}

static void stranger_hear(struct link_peer *peer, struct link_ask *ask, const struct qw_message *message)
{
    struct link_server *server = peer->server;

    if (peer->state == PEER_STRANGER && message->what == QW_HELLO) {
        if (peer_greets(peer, ask, &message->hello))
            server->events.on_hello(server->arg, ask, &message->hello);
    } else if (peer->state == PEER_STRANGER && message->what == QW_ENROL) {
        peer->enrols = true;
        digest_sha256(message->enrol.secret, &peer->secret_hash);
        if (peer_greets(peer, ask, message->enrol.hello))
            server->events.on_enrol(server->arg, ask, &message->enrol);
    } else if (peer->state == PEER_CHALLENGED && message->what == QW_PROOF) {
        peer_proves(peer, ask, &message->proof);
    } else if (peer->state == PEER_STRANGER) {
        stranger_wrong(peer, ask);
    } else {
        turn_away(peer, ask, QW_BAD_MESSAGE, "not what comes next");
    }
}

/* --- a gateway speaks ------------------------------------------------------------------------------------ */

static void gateway_hear(struct link_peer *peer, struct link_ask *ask, const struct qw_message *message, int64_t now_ms)
{
    static const struct qw_message beat = { .what = QW_BEAT }, bye = { .what = QW_BYE };
    struct link_server *server = peer->server;

    switch (message->what) {
    case QW_BEAT:
        link_ask_answer(ask, &beat);
        return;
    case QW_BYE:
        link_ask_answer(ask, &bye);
        peer_leave(peer, now_ms);
        return;
    case QW_SYNC:
    case QW_LOAD:
    case QW_ACK:
        server->events.on_message(server->arg, peer, ask, message);
        return;
    default:
        link_ask_refuse(ask, QW_BAD_MESSAGE, "not a gateway's to send, or not now", 0);
    }
}

static void answer_unread(struct link_peer *peer, struct link_ask *ask, enum err err)
{
    const char *why = text_string(&peer->server->why);
    enum qw_reason reason = err == ERR_REFUSED ? QW_UNSUPPORTED : err == ERR_NO_MEMORY ? QW_BUSY : QW_BAD_MESSAGE;

    if (peer->state == PEER_STRANGER)
        stranger_wrong(peer, ask);
    else if (peer->state == PEER_WELCOME)
        link_ask_refuse(ask, reason, why, 0);
    else
        turn_away(peer, ask, reason, why);
}

void peer_hear(struct link_peer *peer, struct link_ask *ask, struct slice frame, int64_t now_ms)
{
    struct link_server *server = peer->server;
    struct qw_message message;
    struct arena arena;
    enum err err;

    arena_init(&arena);
    text_clear(&server->why);
    peer->heard_ms = now_ms;
    if (peer->state != PEER_WELCOME && frame.len > GREETING_MAX_BYTES) {
        text_add_literal(&server->why, "too long for a greeting");
        err = ERR_TOO_LONG;
    } else {
        err = message_unpack(frame, &arena, &message, &server->why);
    }
    if (peer->state == PEER_LEAVING)
        link_ask_drop(ask); /* which tells it so, where it was removed */
    else if (err)
        answer_unread(peer, ask, err);
    else if (peer->state == PEER_WELCOME)
        gateway_hear(peer, ask, &message, now_ms);
    else
        stranger_hear(peer, ask, &message);
    arena_release(&arena);
}

/* --- what the owner asks about --------------------------------------------------------------------------- */

struct slice link_peer_name(const struct link_peer *peer)
{
    return (struct slice){ peer->name, peer->name_len };
}

struct slice link_peer_address(const struct link_peer *peer)
{
    return (struct slice){ peer->address, peer->address_len };
}

struct slice link_peer_instance(const struct link_peer *peer)
{
    return (struct slice){ peer->instance, peer->instance_len };
}

struct qw_version link_peer_version(const struct link_peer *peer)
{
    return peer->version;
}

uint32_t link_peer_max_staleness_s(const struct link_peer *peer)
{
    return peer->max_staleness_s;
}

bool link_peer_can(const struct link_peer *peer, struct slice feature)
{
    const char *end = peer->features.at + peer->features.len;

    for (const char *at = peer->features.at; at < end; at += strlen(at) + 1)
        if (slice_is(slice_of(at), feature))
            return true;
    return false;
}

struct slice link_peer_feature(const struct link_peer *peer, unsigned index)
{
    const char *end = peer->features.at + peer->features.len;

    for (const char *at = peer->features.at; at < end; at += strlen(at) + 1)
        if (index-- == 0)
            return slice_of(at);
    return (struct slice){ 0 };
}

const struct identity_key *link_peer_key(const struct link_peer *peer)
{
    return &peer->key;
}

int64_t link_peer_heard_ms(const struct link_peer *peer)
{
    return peer->heard_ms;
}

void **link_peer_owner(struct link_peer *peer)
{
    return &peer->owner;
}

struct link_peer *link_server_find(const struct link_server *server, struct slice name)
{
    uint64_t hash = slice_hash((const uint64_t[2]){ 0, 0x9e3779b97f4a7c15 }, name);

    for (struct link_peer *peer = server->peers.first; peer; peer = peer->next)
        if (peer->name_hash == hash && slice_is(link_peer_name(peer), name))
            return peer;
    return NULL;
}

void link_peer_remove(struct link_peer *peer, const char *detail)
{
    assert(peer->state == PEER_WELCOME);
    text_add(&peer->removed, detail, utf8_cut(slice_of(detail), CODEC_MAX_TEXT));
    peer->is_removed = true;
    peer_leave(peer, clock_ms());
}
