/*
 * Who works off a queue's operations. One word says all:
 *
 *     NULL        nobody holds the queue, nothing is to be done
 *     HELD        somebody does
 *     an op ...   somebody does, and has this to do as well: newest first, ended by HELD
 *
 * Whoever has an operation for a queue that nobody holds becomes its holder and does it; else he puts it on the list
 * with the same instruction and goes away. The holder lets go only while the list is empty, which is again one
 * instruction: it fails when something has come meanwhile. So nobody waits, and nothing is left lying.
 *
 * Letters (news for tickets whose owners do not look on) are delivered after the queue has been let go.
 */
#include <stdlib.h>

#include "queue_parts.h"

static struct op held; /* only its address */
#define HELD (&held)

static bool hold_or_put(struct queue *queue, struct op *op)
{
    struct op *top = NULL;

    while (!atomic_compare_exchange_weak_explicit(&queue->ops, &top, top ? op : HELD, memory_order_acq_rel,
                                                  memory_order_relaxed))
        op->next = top;
    return !top;
}

static bool let_go(struct queue *queue)
{
    struct op *top = HELD;

    return atomic_compare_exchange_strong_explicit(&queue->ops, &top, NULL, memory_order_release, memory_order_relaxed);
}

static struct op *oldest_first(struct op *list)
{
    struct op *turned = NULL;

    while (list != HELD) {
        struct op *next = list->next;
        list->next = turned;
        turned = list;
        list = next;
    }
    return turned;
}

static void work_off(struct queue *queue)
{
    struct op *op = oldest_first(atomic_exchange_explicit(&queue->ops, HELD, memory_order_acquire));

    while (op) {
        struct op *next = op->next; /* what is done may be gone, or on the list again */
        queue_work(queue, op);
        op = next;
    }
}

/* ---- letters ---- */

static void deliver(struct ticket *ticket, const struct queue_home *own)
{
    struct queue_home *home = ticket->home;
    struct ticket *top = atomic_load_explicit(&home->news, memory_order_relaxed);

    do {
        ticket->next_letter = top;
    } while (!atomic_compare_exchange_weak(&home->news, &top, ticket));
    if (!top && home != own)
        home->ring(home->arg);
}

static void deliver_all(struct ticket *letters, const struct queue_home *own)
{
    while (letters) {
        struct ticket *next = letters->next_letter;
        deliver(letters, own);
        letters = next;
    }
}

void ticket_unref(struct ticket *ticket)
{
    /* The last one need not count down: only who has one can give another. */
    if (atomic_load_explicit(&ticket->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&ticket->refs, 1, memory_order_acq_rel) == 1)
        free(ticket);
}

void ticket_decide(struct ticket *ticket, enum ticket_state state)
{
    struct queue *queue = ticket->queue;

    ticket->decided = state;
    if (atomic_exchange_explicit(&ticket->news, NEWS_DECIDED, memory_order_acq_rel) != NEWS_AWAITED)
        return; /* its owner has yet to look */
    atomic_fetch_add_explicit(&ticket->refs, 1, memory_order_relaxed);
    ticket->next_letter = NULL;
    *queue->letters_end = ticket;
    queue->letters_end = &ticket->next_letter;
}

void queue_do(struct queue *queue, struct op *op, const struct queue_home *own)
{
    struct ticket *letters;

    if (!hold_or_put(queue, op))
        return;
    queue_work(queue, op);
    for (;;) {
        letters = queue->letters;
        queue->letters = NULL;
        queue->letters_end = &queue->letters;
        if (let_go(queue))
            break;
        deliver_all(letters, own);
        work_off(queue);
    }
    deliver_all(letters, own);
}
