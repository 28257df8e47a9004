/*
 * fair - whose turn it is: deficit round robin between the users who wait for one model, paid in tokens. Pure: no
 * clock, no lock, no backend. One thread at a time (the queue's holder); lives in the queue.
 *
 * Every round pays each user FAIR_QUANTUM x weight tokens, and a turn grants one request: what it is expected to take
 * is charged at once, corrected by what it took when it ends. Who has tokens left goes to the end of this round, who is
 * in debt comes up again in the round that has paid it off. So a class is a heap of turns by (round, number), and a
 * newcomer has at most one turn of each other user before him. A round is over when as much has been charged as it pays
 * to all who wait, so that an endless flood of newcomers keeps nobody from his turn; and rounds in which nobody has a
 * turn are skipped, however many.
 *
 * Debts are remembered while a user is away, worn off by the rounds that pass; credit is not gathered beyond one
 * round's, and what more of it somebody had when he left fades as fast. What found a free slot at once while nobody
 * waited is not charged: it was in nobody's way.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "queue.h"

enum {
    FAIR_QUANTUM = 256,     /* tokens */
    FAIR_FIRST_GUESS = 256, /* completion tokens, before anything was learned */
    FAIR_MAX_IDLE = 4096,   /* users kept for their debts and what was learned */
    FAIR_LOOK_FOR_IDLE = 4, /* of the longest idle: one without debts is forgotten first */
};

/* A user's part in one class. */
struct share {
    struct ticket *oldest, *newest;
    unsigned waiting;
    uint32_t place; /* in the lane's heap, from 1; 0: no turn */
    double balance; /* tokens, as of `round`; below or at 0: in debt */
    uint64_t round;
};

struct user {
    struct user *next;          /* in its bucket */
    struct user *older, *newer; /* while idle */
    uint64_t hash;
    struct slice name; /* its bytes follow the struct */
    unsigned tickets;  /* waiting and running; 0: idle */
    unsigned weight;   /* as last said */
    double completion; /* tokens, the mean; 0: nothing learned yet */
    struct share shares[QUEUE_CLASSES];
};

struct turn {
    uint64_t round, number;
    struct user *user;
};

/* One class: users who wait, by when their turn is. */
struct lane {
    struct turn *turns; /* a heap */
    uint32_t users, room;
    unsigned waiting; /* tickets */
    uint64_t round;   /* now */
    double progress;  /* of the round: 1 ends it; negative after corrections */
    uint64_t weights; /* of all users here */
    uint64_t numbers; /* given to turns so far */
};

struct fair {
    struct lane lanes[QUEUE_CLASSES];
    struct user **buckets;
    uint32_t bucket_count, user_count, idle_count;
    struct user *longest_idle, *last_idle;
    unsigned batch_credit; /* percent of a grant that batch has gathered while interactive ones wait as well */
    double completion;     /* tokens, the mean of all; 0: nothing learned yet */
};

void fair_init(struct fair *fair);
/* No ticket may be in it. */
void fair_release(struct fair *fair);
/* Finds or makes, idle at first. NULL: no memory. */
struct user *fair_user(struct fair *fair, uint64_t hash, struct slice name);
/* Each ticket of a user's, from taking to giving back. */
void fair_hold(struct fair *fair, struct user *user);
void fair_let_go(struct fair *fair, struct user *user);

/* At the end of its user's line. False: no memory. */
bool fair_enter(struct fair *fair, struct ticket *ticket);
/* From wherever it stands in the line. */
void fair_leave(struct fair *fair, struct ticket *ticket);
/* Who goes next; NULL: nobody waits. Changes nothing. */
struct ticket *fair_next(const struct fair *fair, unsigned batch_percent);
/* Takes the next one off and charges for it. */
void fair_grant(struct fair *fair, struct ticket *next, unsigned batch_percent);
/* It found a free slot while nobody waited: not charged, but a round of its own. */
void fair_grant_free(struct fair *fair, struct ticket *ticket);
/* Of one that ended: corrects what it was charged, learns. `outcome` NULL: it did not run. Given up, it costs the
 * outcome's completion tokens whether it has tokens or not. */
void fair_settle(struct fair *fair, struct ticket *ticket, const struct ticket_outcome *outcome);

/* Tokens. */
double fair_expects(const struct fair *fair, const struct ticket *ticket);
/* How many would go before a ticket that entered now, and itself: an estimate. */
unsigned fair_place(const struct fair *fair, const struct user *user, enum queue_class class, unsigned batch_percent);
