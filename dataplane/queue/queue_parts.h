/*
 * queue_parts - what the files of this room share; nobody else includes it but its tests.
 * ticket.c: what a request does, and the letter boxes. sequence.c: the list of operations and who works it off.
 * queue.c: what each operation does. fair.c: whose turn it is. site.c: the backends as one model's requests see them.
 * look.c: what backends are asked for that. queues.c: the table. explain.c: for people.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>

#include "backend.h"
#include "fair.h"
#include "queue.h"
#include "route.h"

enum {
    QUEUES_MAX = 1024, /* names; beyond that they share one queue */
    QUEUE_BUCKETS = 2048,
    LINE = 64 /* bytes of a cache line */
};

/* Something to be done by whoever holds the queue. Part of a ticket or a look, so that handing it over needs no memory.
 */
enum operation { OP_ENTER, OP_AGAIN, OP_LEAVE, OP_LOOK, OP_EXPLAIN };
struct op {
    struct op *next;
    enum operation what;
    int64_t now_us;
};

/* Where a ticket stands, for the queue. */
enum standing { STANDS_NOWHERE, STANDS_IN_LINE, STANDS_FIRST, RUNS };

/* Between the queue and the ticket's owner: is he told in the call he makes, or by a letter? */
enum { NEWS_NONE, NEWS_AWAITED, NEWS_DECIDED };

struct ticket {
    struct op enter, leave;
    atomic_uint refs; /* the queue's until it has left, and one of each letter */
    atomic_uint news;

    /* The owner's. */
    struct queue *queue;
    struct queue_home *home;
    void *owner;
    enum ticket_state told;
    bool is_given_back;

    /* The holder's, and the owner's before entering; of a granted one the owner reads site, why and is_hit. */
    struct ticket *older,
        *newer; /* in its user's line, among those who come again, or among those who run on its site */
    struct ticket *next_letter;
    struct user *user;
    struct slice name; /* of the user; its bytes follow the struct */
    uint64_t hash;     /* of the name */
    uint64_t conversation;
    uint64_t prompt_tokens;
    unsigned weight;
    enum queue_class class;
    enum standing standing;
    enum ticket_state decided;
    enum route_why why;
    bool is_hit;
    bool is_listed; /* among those who run on its site */
    bool is_stuck;  /* has not answered for long although others on its site have */
    bool is_charged;
    bool may_be_same; /* when it comes again and no other site can take it */
    double charged;   /* tokens */
    struct site *site;
    uint64_t avoid; /* id of a site; 0: none */
    int64_t granted_us;
    struct ticket_outcome outcome;

    atomic_uint place;           /* when it entered; 0: not yet known, or it never waited */
    _Atomic uint64_t passed;     /* grants of the queue by then */
    _Atomic int64_t answered_us; /* 0: not yet */
    int64_t answered_after_us;   /* another one of its site had ended; before answered_us */
};

/* A backend as one model's requests see it. Made by the first look that has it; gone when no look has it and nothing
 * runs. */
struct site {
    uint64_t id;
    unsigned index;                /* in the queue's sites and views */
    struct backend *backend;       /* counted */
    bool may;                      /* configured for this model, has it, and does not drain */
    bool is_known;                 /* by the last look */
    unsigned slots;                /* configured; 0: no limit */
    struct ticket *running;        /* where slots are limited: the newest of them */
    double speed_tokens, speed_us; /* what its speed is measured from: sums that fade */

    /* Does it run as many at once as it should? */
    atomic_uint answering; /* have answered and not ended */
    _Atomic int64_t ended_us;
    unsigned most_answering; /* since `seen` began */
    unsigned seen;           /* times that one answered only after another had ended */
    bool has_finding;
};

/* What a look found out about a backend, before the queue is asked for anything. */
struct sight {
    struct backend *backend;
    uint64_t name_hash;
    bool may, is_resident;
    unsigned weight, slots;
    unsigned allowed; /* of the slots, now */
};
struct look {
    struct op op;
    struct fleet *fleet; /* counted; NULL: tests */
    struct queue_rules rules;
    unsigned count;
    struct sight sights[];
};

struct explanation {
    struct op op;
    struct text *out;
    atomic_bool is_done;
};

struct queue {
    /* Everybody's. */
    _Alignas(LINE) _Atomic(struct op *) ops; /* sequence.c */

    /* The holder's. */
    _Alignas(LINE) struct fair fair;
    struct queue_rules rules;
    struct site **sites;
    struct route_site *views; /* the same in the same order, as route sees them */
    unsigned site_count, site_room;
    uint64_t site_ids;
    struct ticket *first, *last; /* who come again go before all others */
    unsigned again[QUEUE_CLASSES];
    struct ticket *letters, **letters_end; /* decided in this turn */
    uint64_t chance;

    /* Written by the holder, read by anybody. */
    _Alignas(LINE) atomic_uint waiting[QUEUE_CLASSES];
    atomic_uint users_waiting, running, parallel;
    _Atomic uint64_t granted[QUEUE_CLASSES], affinity_tries, affinity_hits;
    _Atomic int64_t service_us; /* the mean; 0: nothing has ended yet */

    _Alignas(LINE) _Atomic(struct queue *) next; /* in its bucket */
    struct queues *queues;
    uint64_t hash;
    struct slice model; /* its bytes follow the struct */
};

struct queues {
    uint64_t seed[2]; /* so that nobody outside can choose who collides */
    _Atomic(struct queue *) buckets[QUEUE_BUCKETS];
    _Atomic(struct queue *) list[QUEUES_MAX + 1]; /* in the order they were made; stable */
    atomic_uint count;
    pthread_mutex_t lock; /* for adding, and for what follows; finding takes none */
    struct queue *other;  /* of all names beyond QUEUES_MAX, and of those that nobody is known to have */
    struct fleet *fleet;
    struct queue_rules rules;
    int64_t now_us; /* of the last look */
};

/* sequence.c. `own`: the home of the calling thread; NULL: it has none. */
void queue_do(struct queue *queue, struct op *op, const struct queue_home *own);
/* Holder: the ticket's owner will know. */
void ticket_decide(struct ticket *ticket, enum ticket_state state);
void ticket_unref(struct ticket *ticket);

/* queue.c. Holder. */
void queue_work(struct queue *queue, struct op *op);
struct queue *queue_new(struct queues *queues, uint64_t hash, struct slice model);
void queue_free(struct queue *queue);
/* Nobody is the holder yet, or the holder. Frees the look. */
void queue_see(struct queue *queue, struct look *look);

/* site.c. Holder. */
void sites_see(struct queue *queue, const struct look *look);
void sites_release(struct queue *queue);
/* Which one takes it now? NULL: none, and why. */
struct site *sites_choose(struct queue *queue, struct ticket *ticket, enum route_why *ret_why);
/* Is there one that can take requests, or will when its models are loaded? */
bool sites_can_take(struct queue *queue);
/* Is there another one that can take requests, now or when it has a free slot? */
bool sites_have_other(struct queue *queue, const struct site *site);
void site_begins(struct queue *queue, struct site *site, struct ticket *ticket, int64_t now_us);
void site_ends(struct queue *queue, struct ticket *ticket, const struct ticket_outcome *outcome, int64_t now_us);
/* Completion tokens a second, of one request; 0: not known yet. */
double site_speed(const struct queue *queue, const struct site *site);
/* Looks for sites that run fewer at once than their slots. */
void sites_suspect(struct queue *queue, int64_t now_us);

/* look.c. NULL: no memory. */
struct look *look_new(struct fleet *fleet, const struct queue_rules *rules, struct slice model, int64_t now_us);
struct look *look_free(struct look *look);
/* Any thread: may it be given requests now? A few atomics. */
bool look_takes(const struct backend *backend);
/* Any thread: will it be as soon as its models are loaded? */
bool look_warms(const struct backend *backend);
void look_finds_fewer(struct backend *backend, struct slice model, bool is_so, unsigned at_once);

/* explain.c. Holder. */
void queue_explain(struct queue *queue, struct text *out);
