/*
 * stage - a queue with backends that exist on paper, and jobs that hold its tickets. Time is a number here: it stands
 * still until a test moves now_us. What a look would have found out is written into `sights`; stage_look() tells the
 * queue.
 */
#pragma once
#include "queue_parts.h"

enum { STAGE_SITES = 8 };

struct stage;

struct job {
    struct job *next, *previous; /* on the stage */
    struct stage *stage;
    struct ticket *ticket;
    unsigned number; /* as it entered, from 0 */
    unsigned user;
    unsigned site; /* runs there */
    uint64_t conversation;
    uint64_t prompt, completion; /* tokens, in truth */
    enum queue_class class;
    int64_t entered_us, granted_us, ends_us; /* ends_us 0: does not run */
    uint64_t entered_at;                     /* grants by then */
    bool is_told;                            /* its letter has come, or none was needed */
    bool is_again, may_be_same;              /* it was sent again, and may go where it failed */
};

struct stage {
    struct queues *queues;
    struct queue *queue;
    struct queue_home home;
    unsigned rung;
    struct backend *backends[STAGE_SITES];
    struct sight sights[STAGE_SITES];
    double speeds[STAGE_SITES]; /* tokens a second of one request */
    unsigned sites;
    struct queue_rules rules;
    int64_t now_us;
    uint64_t chance;
    struct job *first;
    uint64_t grants;
    unsigned entered;
    void (*on_granted)(struct job *job);
};

void stage_open(struct stage *stage, unsigned sites, unsigned slots);
/* All jobs must have left. */
void stage_close(struct stage *stage);
void stage_look(struct stage *stage);
void stage_break(struct stage *stage, unsigned site, bool is_open); /* its breaker */

uint64_t stage_draw(struct stage *stage);
unsigned stage_pick(struct stage *stage, unsigned below);

/* A job of this many tokens enters; its ticket may be waiting, granted (then it runs) or refused. */
struct job *stage_enter(struct stage *stage, unsigned user, unsigned weight, uint64_t prompt, uint64_t completion);
struct job *stage_enter_as(struct stage *stage, unsigned user, unsigned weight, enum queue_class class,
                           uint64_t conversation, uint64_t prompt, uint64_t completion);
/* Its backend has failed it: once more, elsewhere. */
void stage_enter_again(struct job *job, bool may_be_same);
/* Leaves, and is freed: a running one that has its tokens, any other one without. */
void stage_leave(struct job *job, bool has_tokens);
/* A running one that is stopped before a token of it was seen; `is_unseen`: as none of it is before its end. */
void stage_give_up(struct job *job, bool is_unseen);
/* Reads all letters. */
void stage_read(struct stage *stage);
/* The running job that ends first; NULL: none runs. */
struct job *stage_next_end(struct stage *stage);
/* It ends, and the clock goes there. */
void stage_end_one(struct stage *stage);
unsigned stage_count(const struct stage *stage, enum ticket_state state);
void stage_send_all_home(struct stage *stage);
