/*
 * link - the line between the planes: messages of the codec over nng's REQ and REP, and who is at its other end. nng's
 * only door. The gateway asks, the control plane answers each question once, now or later.
 *
 * link_server  the control plane's end: any number of gateways. One a process.
 * link_client  a gateway's end: one control plane at a time, out of several addresses.
 *
 * nng calls back on threads of its own; here that only puts a message into a box and rings. Everything else, and every
 * callback, is on the thread that calls: wait until link_*_fd() can be read (it also rings for deadlines), then call
 * link_*_take(). All functions of one server or client: one thread at a time. After the first of them the process must
 * not fork() any more (posix_spawn() is fine). Times are monotonic ms.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "codec.h"

struct digest;
struct identity;
struct identity_key;

/* --- the control plane's end ----------------------------------------------------------------------------- */

struct link_server;
struct link_peer; /* a gateway that has proven who it is; until on_gone() has returned */
struct link_ask;  /* a question; the owner's until he has answered or dropped it, which he does exactly once */

struct link_server_options {
    const char *url; /* tcp://127.0.0.1:PORT; port 0: the kernel's choice */
    struct qw_version version;
    struct qw_names features;   /* borrowed until link_server_close() */
    unsigned max_connections;   /* 0: 16384 */
    unsigned max_strangers;     /* connections that have proven nothing yet; one more pushes out the oldest. 0: 4096 */
    unsigned max_asks;          /* of one gateway at a time; 0: 8 */
    uint32_t greeting_ms;       /* how long a connection may take to prove who it is; 0: 5 s */
    uint32_t heartbeat_ms;      /* what gateways are told; 0: 1 s */
    uint32_t silence_ms;        /* a gateway that said nothing for so long is gone; 0: 5 s, or three heartbeats */
    uint32_t max_message_bytes; /* of what comes; 0: CODEC_MAX_BYTES */
};

/* What they point to lives until they return. */
struct link_server_events {
    /* Who says so? Answer, now or later, with link_ask_challenge() or link_ask_refuse(). */
    void (*on_hello)(void *arg, struct link_ask *ask, const struct qw_hello *hello);
    /* May it register this key? The same. */
    void (*on_enrol)(void *arg, struct link_ask *ask, const struct qw_enrol *enrol);
    /* It has proven that it holds the key: register it (the secret is used up now), and answer, now or later, with
     * link_ask_welcome() or link_ask_refuse(). NULL: it is welcome. */
    void (*on_enrolled)(void *arg, struct link_ask *ask, struct slice name, const struct identity_key *key,
                        const struct digest *secret_hash);
    void (*on_welcome)(void *arg, struct link_peer *peer);
    /* Sync, Load or Ack. Answer with link_ask_answer() and the like, now or later. */
    void (*on_message)(void *arg, struct link_peer *peer, struct link_ask *ask, const struct qw_message *message);
    /* Its asks are still to be answered or dropped; it makes no difference which. */
    void (*on_gone)(void *arg, struct link_peer *peer);
};

/* NULL, with one sentence. */
struct link_server *link_server_open(const struct link_server_options *options, const struct link_server_events *events,
                                     void *arg, struct text *why);
/* No callback comes any more, and no ask is anybody's. Not from within one. Returns NULL. */
struct link_server *link_server_close(struct link_server *server);
int link_server_fd(const struct link_server *server);
void link_server_take(struct link_server *server);
/* tcp://127.0.0.1:1234, with the port that the kernel chose. */
const char *link_server_url(const struct link_server *server);

/* To Hello and Enrol: let it prove that it has this key. NULL: nobody of that name, which it will not be told apart
 * from a wrong proof. */
void link_ask_challenge(struct link_ask *ask, const struct identity_key *key);
/* To what on_enrolled() told of. */
void link_ask_welcome(struct link_ask *ask);
/* What cannot be packed is our mistake: the gateway is told UNAVAILABLE. */
void link_ask_answer(struct link_ask *ask, const struct qw_message *message);
/* The same, packed: one Update for a thousand gateways is packed once. */
void link_ask_answer_frame(struct link_ask *ask, struct slice frame);
/* Whoever has not been welcomed is closed in a moment. */
void link_ask_refuse(struct link_ask *ask, enum qw_reason reason, const char *detail, uint32_t retry_ms);
/* The gateway hears nothing. */
void link_ask_drop(struct link_ask *ask);
/* Whose it is; NULL: of one that has proven nothing yet, or is gone. */
struct link_peer *link_ask_peer(const struct link_ask *ask);
/* For its owner's use; NULL at first. */
void **link_ask_owner(struct link_ask *ask);

struct slice link_peer_name(const struct link_peer *peer);
struct slice link_peer_address(const struct link_peer *peer);  /* as it said; may be empty */
struct slice link_peer_instance(const struct link_peer *peer); /* 16 bytes, or empty */
struct qw_version link_peer_version(const struct link_peer *peer);
uint32_t link_peer_max_staleness_s(const struct link_peer *peer); /* 0: no bound */
bool link_peer_can(const struct link_peer *peer, struct slice feature);
/* Its features one after the other, from 0; empty behind the last. */
struct slice link_peer_feature(const struct link_peer *peer, unsigned index);
/* The key that it has proven to hold. */
const struct identity_key *link_peer_key(const struct link_peer *peer);
int64_t link_peer_heard_ms(const struct link_peer *peer);
void **link_peer_owner(struct link_peer *peer);
/* The peer of that name, or NULL. */
struct link_peer *link_server_find(const struct link_server *server, struct slice name);
/* Its gateway was removed: whatever it asked or asks yet is answered REMOVED, however the owner answers it, and its
 * connection is closed. on_gone() comes before this returns. */
void link_peer_remove(struct link_peer *peer, const char *detail);

struct link_server_counts {
    unsigned connections, strangers, peers, asks; /* now; asks: those that wait for their answer */
    uint64_t refused, pushed_out, silent, messages;
};
void link_server_counts(const struct link_server *server, struct link_server_counts *ret_counts);

/* Its own minor version and the two before it, of the same major one. */
bool link_version_is_served(const struct qw_version *control, const struct qw_version *gateway);

/* --- a gateway's end ------------------------------------------------------------------------------------- */

struct link_client;

struct link_client_options {
    const char *const *urls; /* tcp://… or tls+tcp://…; borrowed until link_client_close(), as all here */
    unsigned url_count;
    const char *name;
    struct qw_version version;
    struct qw_names features;
    const char *address;             /* may be NULL */
    uint32_t max_staleness_s;        /* as qw.proto says; 0: it serves however long it has heard nothing */
    const struct identity *identity; /* immutable, and there until link_client_close() */
    const char *enrol_secret;        /* used only where the control plane does not know us; may be NULL */
    /* Of tls+tcp. PEM; own: certificate and private key in one file, may be NULL. */
    const char *tls_ca_file, *tls_own_file, *tls_server_name;
    uint32_t patience_ms;       /* unanswered for so long, the connection is made anew; 0: 1.5 s */
    uint32_t enrol_ms;          /* the same for an Enrol, behind which stands the database; 0: 10 s */
    uint32_t max_refused_ms;    /* at most so long until we come again to who refused us; 0: 30 s */
    uint32_t max_message_bytes; /* of what comes; 0: CODEC_MAX_BYTES */
};

struct link_client_events {
    void (*on_up)(void *arg, const struct qw_welcome *welcome);
    /* After on_up(), or again and again while it cannot be had: `reason` 0: lost, or nobody there. Whatever was asked
     * has been answered with ERR_GONE before. */
    void (*on_down)(void *arg, enum qw_reason reason, const char *why);
};

/* Exactly once, never before link_client_ask() has returned. ERR_OK with the answer, which may be QW_REFUSED; ERR_GONE:
 * the connection was lost, and nobody knows whether the question arrived; ERR_BAD: the answer was none. */
typedef void link_answered(void *arg, enum err err, const struct qw_message *answer);

enum { LINK_LANES = 6 }; /* questions at a time */

/* Begins to connect. NULL, with one sentence. */
struct link_client *link_client_open(const struct link_client_options *options, const struct link_client_events *events,
                                     void *arg, struct text *why);
/* No callback comes any more. Not from within one. Returns NULL. */
struct link_client *link_client_close(struct link_client *client);
int link_client_fd(const struct link_client *client);
void link_client_take(struct link_client *client);
bool link_client_is_up(const struct link_client *client);
/* When the control plane was heard last; 0: never. */
int64_t link_client_heard_ms(const struct link_client *client);
/* ERR_AGAIN: not up. ERR_FULL: LINK_LANES questions are open. Else as message_pack(). */
enum err link_client_ask(struct link_client *client, const struct qw_message *message, link_answered *answered,
                         void *arg);
