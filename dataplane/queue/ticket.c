#include <assert.h>
#include <stdlib.h>

#include "queue_parts.h"

/* The owner learns what was decided in this very call, or else waits for a letter. */
static void look_at_once(struct ticket *ticket)
{
    unsigned none = NEWS_NONE;

    ticket->told =
        atomic_compare_exchange_strong(&ticket->news, &none, NEWS_AWAITED) ? TICKET_WAITING : ticket->decided;
}

struct ticket *ticket_take(struct queue *queue, struct queue_home *home, const struct ticket_wish *wish, void *owner,
                           int64_t now_us)
{
    struct ticket *ticket = malloc(sizeof *ticket + wish->user.len);

    if (!ticket)
        return NULL;
    *ticket = (struct ticket){
        .enter = { .what = OP_ENTER, .now_us = now_us },
        .refs = 1,
        .queue = queue,
        .home = home,
        .owner = owner,
        .name = { (char *)(ticket + 1), wish->user.len },
        .hash = slice_hash(queue->queues->seed, wish->user),
        .conversation = wish->conversation,
        .prompt_tokens = wish->prompt_tokens,
        .weight = wish->weight ? wish->weight : 1,
        .class = wish->class,
    };
    if (wish->user.len)
        memcpy(ticket + 1, wish->user.at, wish->user.len);
    queue_do(queue, &ticket->enter, home);
    look_at_once(ticket);
    return ticket;
}

struct slice queue_model(const struct queue *queue)
{
    return queue->model;
}

void ticket_take_again(struct ticket *ticket, bool may_be_same, int64_t now_us)
{
    ticket->may_be_same = may_be_same;
    assert(ticket->told == TICKET_GRANTED);
    ticket->enter = (struct op){ .what = OP_AGAIN, .now_us = now_us };
    atomic_store_explicit(&ticket->news, NEWS_NONE, memory_order_relaxed);
    queue_do(ticket->queue, &ticket->enter, ticket->home);
    look_at_once(ticket);
}

enum ticket_state ticket_state(const struct ticket *ticket)
{
    return ticket->told;
}

void ticket_give_back(struct ticket *ticket, const struct ticket_outcome *outcome, int64_t now_us)
{
    if (!ticket)
        return;
    if (outcome)
        ticket->outcome = *outcome;
    ticket->is_given_back = true;
    ticket->leave = (struct op){ .what = OP_LEAVE, .now_us = now_us };
    queue_do(ticket->queue, &ticket->leave, ticket->home);
}

static void open_letters(struct queue_home *home)
{
    struct ticket *letter = atomic_exchange(&home->news, NULL);

    while (letter) {
        struct ticket *next = letter->next_letter;
        letter->next_letter = home->opened;
        home->opened = letter;
        letter = next;
    }
}

void *queue_home_next(struct queue_home *home)
{
    for (;;) {
        struct ticket *ticket;
        void *owner;
        bool is_given_back;
        if (!home->opened && atomic_load_explicit(&home->news, memory_order_relaxed))
            open_letters(home);
        ticket = home->opened;
        if (!ticket)
            return NULL;
        home->opened = ticket->next_letter;
        ticket->told = ticket->decided;
        owner = ticket->owner;
        is_given_back = ticket->is_given_back;
        ticket_unref(ticket);
        if (!is_given_back)
            return owner;
    }
}

struct backend *ticket_backend(const struct ticket *ticket)
{
    return ticket->told == TICKET_GRANTED ? ticket->site->backend : NULL;
}

const char *ticket_why(const struct ticket *ticket)
{
    return route_why_text(ticket->why);
}

bool ticket_hit_affinity(const struct ticket *ticket)
{
    return ticket->is_hit;
}

void ticket_answers(struct ticket *ticket, int64_t now_us)
{
    struct site *site = ticket->site;

    if (ticket->told != TICKET_GRANTED || atomic_load_explicit(&ticket->answered_us, memory_order_relaxed))
        return;
    ticket->answered_after_us = now_us - atomic_load_explicit(&site->ended_us, memory_order_relaxed);
    atomic_store_explicit(&ticket->answered_us, now_us, memory_order_release);
    atomic_fetch_add_explicit(&site->answering, 1, memory_order_relaxed);
}

unsigned ticket_place(const struct ticket *ticket)
{
    const struct queue *queue = ticket->queue;
    unsigned place = atomic_load_explicit(&ticket->place, memory_order_acquire);
    uint64_t gone;

    if (ticket->told != TICKET_WAITING || !place)
        return ticket->told == TICKET_WAITING ? 1 : place;
    gone = atomic_load_explicit(&queue->granted[QUEUE_INTERACTIVE], memory_order_relaxed) +
           atomic_load_explicit(&queue->granted[QUEUE_BATCH], memory_order_relaxed) -
           atomic_load_explicit(&ticket->passed, memory_order_relaxed);
    return gone < place ? place - (unsigned)gone : 1;
}

int64_t queue_retry_after_us(const struct queue *queue, const struct ticket *ticket)
{
    enum { LEAST_US = 1000000 };
    int64_t service_us = atomic_load_explicit(&queue->service_us, memory_order_relaxed);
    unsigned parallel = atomic_load_explicit(&queue->parallel, memory_order_relaxed);
    unsigned place = ticket ? ticket_place(ticket) : 1;
    int64_t wait_us = service_us / (parallel ? parallel : 1) * place;

    return wait_us > LEAST_US ? wait_us : LEAST_US;
}
