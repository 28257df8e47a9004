/*
 * parts - what the files of the roster share. Not a door: others include roster.h.
 *
 * roster.c    opening and closing, the link's events, ticks
 * table.c     the gateways: read from the database, written back
 * sync.c      what a gateway is told, and when
 * confirm.c   who goes by what; documents
 * gather.c
 */
#pragma once
#include "digest.h"
#include "gather.h"
#include "identity.h"
#include "link.h"
#include "roster.h"

struct event;
struct question;
struct report;
struct traffic_source;

enum {
    MAX_GATEWAY_NAME = 128,
    UUID_BYTES = 37,
    GATEWAY_BUCKETS = 1024, /* a power of two */
    TICK_MS = 100,
    KNOWN_INSTANCES = 4,
    GRACE_MS = 5000, /* what may have gone to a gateway after it was heard last (qw.proto: silence) */
};

enum { EVENT_READABLE, EVENT_TICK, EVENT_RELEASE, EVENTS };

/* What is to be written down of a gateway. */
enum { SAYS_SEEN = 1, SAYS_VERSIONS = 2, SAYS_WHO = 4, SAYS_RESYNC = 8 };

struct gateway {
    struct gateway *in_bucket;
    struct gateway *next; /* of all */
    bool is_listed;       /* while the table is read: it is in it yet */

    /* As the database has it. */
    char id[UUID_BYTES], name[MAX_GATEWAY_NAME + 1];
    bool has_key, has_secret;
    struct identity_key key;
    struct digest secret_hash;
    int64_t secret_until_ms; /* wall clock */
    int64_t seen_wall_ms;    /* when it was heard last, as far as that was written down; 0: never */
    uint64_t resync_asked;

    /* As it says. */
    struct link_peer *peer; /* NULL: not there */
    int64_t heard_ms;       /* while it is not there; 0: not by this process */
    uint64_t desired, applied, failed;
    char *apply_error; /* NULL: none */
    uint64_t resync_done;
    uint32_t max_staleness_s;
    unsigned says;
    struct traffic_source *source;
    uint8_t instances[KNOWN_INSTANCES][CODEC_ID_BYTES]; /* who came under its key, the last one first */
    int64_t twin_until_ms; /* until then there may be two that use its key: what one has applied says nothing of the
                              other */

    /* Its Sync that waits. */
    struct link_ask *ask;
    int64_t ask_until_ms;
    uint64_t have, snapshot;
    uint32_t next_piece;
    uint64_t looks; /* how often the database had been looked at when it came */
};

/* A name that nobody may use any more with this key; told so when it proves that it has it. */
struct removed {
    char name[MAX_GATEWAY_NAME + 1];
    struct identity_key key;
};

/* A key being registered. */
struct enrolling {
    struct enrolling *next, **back;
    struct roster *roster;
    struct link_ask *ask;
    struct question *question;
    char name[MAX_GATEWAY_NAME + 1];
    struct identity_key key;
};

struct roster_wait {
    struct roster_wait *next, **back;
    struct roster *roster;
    uint64_t version;
    int64_t until_ms;
    void (*on_confirmed)(void *arg, struct slice json);
    void *arg;
};

struct roster {
    struct event_base *base;
    struct store *store;
    struct publish *publish;
    struct traffic *traffic;
    struct leader *leader;
    struct roster_options options;
    char *url;
    struct link_server *server;
    struct event *events[EVENTS];

    uint64_t seed[2];
    struct gateway *buckets[GATEWAY_BUCKETS];
    struct gateway *gateways;
    unsigned gateway_count;
    struct removed *removed;
    size_t removed_count;
    struct enrolling *enrollings;

    bool is_loaded;
    struct question *loading;
    bool is_load_wanted;
    int64_t next_load_ms;
    struct question *persisting;
    struct report *report; /* what is being written down */
    int64_t next_persist_ms;

    bool serves;
    int64_t serves_since_ms;
    uint64_t released; /* the version that whoever waits has been told */
    bool is_release_set;
    struct gather gather;
    struct roster_wait *waits;
    bool is_confirm_due;
    struct text scratch;
};

/* table.c */
struct gateway *table_find(const struct roster *roster, struct slice name);
const struct removed *table_find_removed(const struct roster *roster, struct slice name);
void table_load(struct roster *roster);
void table_persist(struct roster *roster, int64_t now_ms);
void table_release(struct roster *roster);
int64_t gateway_heard_ms(const struct gateway *gateway);
bool gateway_is_live(const struct roster *roster, const struct gateway *gateway, int64_t now_ms);
/* It is another one's now, or its first one's. */
void gateway_set_key(struct gateway *gateway, const struct identity_key *key);
/* Monotonic to wall clock. */
int64_t wall_of_ms(int64_t at_ms, int64_t now_ms);

/* sync.c */
void sync_take(struct gateway *gateway, struct roster *roster, struct link_ask *ask, const struct qw_sync *sync,
               int64_t now_ms);
/* Its Sync is not to be answered any more. */
void sync_drop(struct gateway *gateway);
void sync_refuse_all(struct roster *roster, enum qw_reason reason, const char *detail);
/* There may be something new; whoever waited for long enough is told that there is not. */
void sync_news(struct roster *roster, int64_t now_ms);
void sync_tick(struct roster *roster, int64_t now_ms);
void sync_release(struct roster *roster, int64_t now_ms);

/* confirm.c */
void confirm_look(struct roster *roster, int64_t now_ms);
/* Answers all who wait with what is known. */
void confirm_all(struct roster *roster, int64_t now_ms);
