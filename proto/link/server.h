/*
 * server - what the files of the server share. Not a door: others include link.h.
 *
 * server.c    opening, closing, nng's callbacks, the turn of the loop
 * pool.c      asks: contexts that receive, are held, or send
 * greeting.c  connections: from a stranger to a gateway, and their end
 *
 *     context   RECEIVING ─► (news) ─► HELD by us or the owner ─► SENDING ─► RECEIVING …
 *                  ▲                        └── dropped ──┐
 *                  └──────────────────────────────────────┘
 *     peer      STRANGER ─Hello, Enrol─► GREETED ─Challenge─► CHALLENGED ─Proof─► (PROVEN, of an Enrol ─►) WELCOME
 *                  └────────────┴─────────────────┴──────────────────┴─► LEAVING (closed in a moment) ─► gone
 */
#pragma once
#include <nng/nng.h>
#include <stdatomic.h>

#include "closing.h"
#include "digest.h"
#include "identity.h"
#include "link.h"
#include "news.h"

enum {
    GREETING_MAX_BYTES = 8192, /* of a frame from who has proven nothing; a Hello with all its features is shorter */
    STRANGERS_ASKS = 1,        /* at a time */
    PEER_BUCKETS = 4096,       /* a power of two */
    SPARE_ASKS = 64,           /* that can receive while the loop does something else */
    LEAVING_MS = 500,          /* for the last answer to go out */
    SWEEP_MS = 250,
    NNG_HEAD_BYTES = 64, /* what nng writes before a message counts as well */
    MAX_WRONG_GREETINGS = 3,
};

enum ask_state { ASK_RECEIVING, ASK_HELD, ASK_SENDING };

struct link_ask {
    struct news news; /* first: the box gives it back */
    struct link_server *server;
    nng_ctx ctx;
    nng_aio *aio;
    enum ask_state state; /* nng's thread writes it while not HELD, we while it is */
    nng_msg *message;     /* while it is news; NULL: receiving failed */
    struct link_peer *peer;
    struct link_ask *next, *previous; /* of one peer */
    struct link_ask *next_ask;        /* of all */
    void *owner;
};

enum peer_state { PEER_STRANGER, PEER_GREETED, PEER_CHALLENGED, PEER_PROVEN, PEER_WELCOME, PEER_LEAVING };

struct peer_list;
struct link_peer {
    struct news news; /* first */
    struct link_server *server;
    nng_pipe pipe;
    struct link_peer *in_bucket; /* under the box's lock */
    bool is_closed;              /* the same: nng has let go of it */

    /* Ours. */
    struct peer_list *list; /* of the three below; NULL: we have not heard of it yet */
    struct link_peer *next, *previous;
    enum peer_state state;
    int64_t deadline_ms; /* of who is not welcome: when he is closed */
    struct text removed; /* why, once its gateway was removed: all that it is told from then on */
    bool is_removed;
    int64_t heard_ms;
    unsigned wrong_greetings, ask_count;
    struct link_ask *asks;
    uint8_t nonce[IDENTITY_NONCE_BYTES];
    struct identity_key key;
    bool has_key, enrols;
    struct digest secret_hash; /* of an Enrol */
    struct qw_version version;
    uint32_t max_staleness_s;
    uint64_t name_hash;
    char name[CODEC_MAX_NAME], address[CODEC_MAX_NAME], instance[CODEC_ID_BYTES];
    uint8_t name_len, address_len, instance_len;
    struct text features; /* each with a NUL behind it */
    void *owner;
};

struct peer_list {
    struct link_peer *first, *last;
    unsigned count;
};

struct link_server {
    struct closing closing; /* first */
    struct news_box box;
    struct link_server_options options;
    struct link_server_events events;
    void *arg;
    nng_socket socket;
    nng_listener listener;
    char *url;
    struct link_peer *buckets[PEER_BUCKETS]; /* by pipe; under the box's lock */
    _Atomic unsigned connections;            /* in the buckets */
    _Atomic int receiving;                   /* contexts */
    _Atomic bool is_closing;
    struct link_ask *asks; /* all, whatever they do */
    unsigned ask_count;
    struct peer_list strangers, peers, leavers; /* the oldest first; leavers: PEER_LEAVING */
    int64_t sweep_ms;                           /* the next */
    struct link_server_counts counts;
    struct text scratch; /* what goes out */
    struct text why;     /* what was wrong with what came */
    struct text unsaid;  /* what was wrong with what should go out */
};

/* pool.c */
void pool_fill(struct link_server *server);
void pool_empty(struct link_server *server); /* when the socket is closed */
void ask_recycle(struct link_ask *ask);
void ask_attach(struct link_ask *ask, struct link_peer *peer);
void ask_detach(struct link_ask *ask);

/* greeting.c */
void peer_appear(struct link_peer *peer, int64_t now_ms);
void peer_vanish(struct link_peer *peer);
/* Its connection is closed in a moment; whatever it says is not heard any more. */
void peer_leave(struct link_peer *peer, int64_t now_ms);
/* The ask is attached to the peer. */
void peer_hear(struct link_peer *peer, struct link_ask *ask, struct slice frame, int64_t now_ms);
/* By the owner, instead of a Challenge or a Welcome: closed in a moment. */
void peer_is_refused(struct link_peer *peer);
void peers_sweep(struct link_server *server, int64_t now_ms);
