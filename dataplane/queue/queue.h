/*
 * queue - who goes next, and to which backend. One queue a model of a backend's, shared by all workers: it counts what
 * runs on every backend that has the model, holds back what is over their slots, and hands free slots out fairly
 * between users.
 *
 *     ticket_take() ─► WAITING ─► GRANTED ─► ticket_give_back()
 *            └──► FULL, USER_FULL, NO_BACKEND, NO_MEMORY ─┘        (from any state, exactly once)
 *
 * Fair: deficit round robin between users, weighted by key, oldest first within a user, paid in tokens: what a request
 * is expected to take (learned per user and model) when it is granted, corrected by what it took when it ends (fair.h).
 * Interactive before batch, but batch gets its share of the grants.
 *
 * Threads: any; a ticket belongs to its home's. Nobody ever waits: an operation is put on the queue's list with one
 * atomic instruction, and unless somebody is working the list off already, whoever put it there does so (sequence.c);
 * so a thread that is stopped in the middle holds up grants, but no thread. What is decided about a ticket later than
 * in its owner's own call comes as a letter to its home, which is rung. Times are monotonic us, passed in.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct backend;
struct fleet;
struct queue;  /* one model's; lives as long as the queues */
struct queues; /* the process's; at most some 1,000 names have a queue of their own, the rest share one, "other" */
struct ticket; /* a request's place; owned by who took it until ticket_give_back() */

enum queue_class { QUEUE_INTERACTIVE, QUEUE_BATCH, QUEUE_CLASSES };

struct queue_rules {
    unsigned max_waiting;          /* a model */
    unsigned max_waiting_batch;    /* of these, of class batch */
    unsigned max_waiting_per_user; /* the same of one user */
    unsigned batch_percent;        /* of the grants, while interactive ones wait as well */
    int64_t slow_start_us;         /* from a backend's recovery until it has all its slots */
};

struct queues *queues_new(void);
/* When all tickets have been given back and no thread uses them any more. */
void queues_free(struct queues *queues);
/* Control thread, at the start and after each reload: from now on these backends (a reference is taken) and rules. */
void queues_know(struct queues *queues, struct fleet *fleet, const struct queue_rules *rules, int64_t now_us);
/* Control thread, whenever probes brought news and ten times a second: looks at breakers, lists of models, residency,
 * slow start. Grants what can be granted now; tickets that nobody can serve any more become NO_BACKEND. */
void queues_look(struct queues *queues, int64_t now_us);
/* By a backend's name of the model, normalised. Finds or makes. NULL: no memory. */
struct queue *queues_find(struct queues *queues, struct slice model);
/* By a name that perhaps nobody has: finds, or gives the one that all such names share, so that callers who make names
 * up make no queues. */
struct queue *queues_find_shared(struct queues *queues, struct slice model);

/*
 * A worker's letter box. `ring` is called when it was empty, from other threads only: whoever calls anything with a
 * ticket looks into his own box (queue_home_next) before he goes to sleep. Zeroed but for `ring` and `arg`; outlives
 * all threads that use the queues, since a letter may still be on its way when its ticket has been given back.
 */
struct queue_home {
    _Atomic(struct ticket *) news; /* newest first */
    struct ticket *opened;         /* the home's thread's: read one by one, oldest first */
    void (*ring)(void *arg);
    void *arg;
};
/* The owner of the next ticket with news; NULL: no more. A ticket that was given back meanwhile is skipped. Home's
 * thread; to be called until NULL also when all tickets have been given back, so that the letters are gone. */
void *queue_home_next(struct queue_home *home);

enum ticket_state {
    TICKET_WAITING,
    TICKET_GRANTED,
    TICKET_FULL,
    TICKET_USER_FULL,
    TICKET_NO_BACKEND,
    TICKET_NO_MEMORY
};

struct ticket_wish {
    struct slice user; /* whom fairness is between; copied */
    unsigned weight;   /* of the key, 1 or more */
    enum queue_class class;
    uint64_t conversation;  /* for affinity; 0: none */
    uint64_t prompt_tokens; /* estimated */
};
/* Enters. NULL: no memory. For one that is WAITING now, and no other, a letter will come to `home`, once. */
struct ticket *ticket_take(struct queue *queue, struct queue_home *home, const struct ticket_wish *wish, void *owner,
                           int64_t now_us);
/* A granted one whose backend failed it before a byte came: its slot is free, and it enters before all others for any
 * other backend. State and letter as after ticket_take(). */
void ticket_take_again(struct ticket *ticket, bool may_be_same, int64_t now_us);
/* The name it was found by. */
struct slice queue_model(const struct queue *queue);
/* As its owner was told: changes in the two above and when queue_home_next() hands out its letter, at no other time. */
enum ticket_state ticket_state(const struct ticket *ticket);

struct ticket_outcome {
    bool has_tokens;   /* else it did not run, or nothing is known: what it was charged for is paid back */
    bool was_given_up; /* a backend worked on it, and was stopped: it costs the prompt, as estimated, in any case */
    bool is_unseen;    /* nothing of its answer passes before the end: given up, it costs by the time it ran, too */
    uint64_t prompt_tokens, completion_tokens;
    int64_t running_us; /* from handing over to the end */
};
/* Its slot goes to the next. Any state; no letter comes any more. NULL is fine, for the outcome too. */
void ticket_give_back(struct ticket *ticket, const struct ticket_outcome *outcome, int64_t now_us);

/* Of a granted one: the backend, there until the ticket is given back or taken again, and why it (a phrase). */
struct backend *ticket_backend(const struct ticket *ticket);
const char *ticket_why(const struct ticket *ticket);
bool ticket_hit_affinity(const struct ticket *ticket);
/* Of a waiting one: which place it has, 1 is next; an estimate that only reads a few atomics. Of others: the place it
 * had when it entered, of a refused one that which it would have had; 0: it never waited. */
unsigned ticket_place(const struct ticket *ticket);
/* When somebody who is refused now had better come back: when his turn would be, from his place and measured service
 * times; 1 s at least. `ticket`: his, NULL: none. */
int64_t queue_retry_after_us(const struct queue *queue, const struct ticket *ticket);

/* For the metrics: one queue's gauges. Stable until queues_free(). */
struct queue_gauges {
    struct slice model;
    unsigned waiting[QUEUE_CLASSES], users_waiting, running;
    uint64_t granted[QUEUE_CLASSES], affinity_hits, affinity_tries; /* so far */
};
unsigned queues_count(const struct queues *queues);
void queues_gauges(const struct queues *queues, unsigned index, struct queue_gauges *ret_gauges);
/* For --explain: candidates, scores, why; who waits by numbers, never by name. False: no such queue yet. Control
 * thread. */
bool queues_explain(struct queues *queues, struct slice model, int64_t now_us, struct text *out);

/* Its first byte came: how a queue learns that a backend runs fewer at once than its slots (FINDING_FEWER_SLOTS). One
 * atomic. */
void ticket_answers(struct ticket *ticket, int64_t now_us);
