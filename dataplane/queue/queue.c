/* What each operation does. All of it by the holder alone; nothing here can wait. */
#include <assert.h>
#include <stdlib.h>

#include "digest.h"
#include "queue_parts.h"

enum { SERVICE_PART = 16 }; /* a new service time's part in the mean is 1/16 */

/* ---- counting, for those who only look ---- */

static void count_waiting(struct queue *queue)
{
    const struct lane *lanes = queue->fair.lanes;

    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        atomic_store_explicit(&queue->waiting[class], lanes[class].waiting + queue->again[class], memory_order_relaxed);
    atomic_store_explicit(&queue->users_waiting, lanes[QUEUE_INTERACTIVE].users + lanes[QUEUE_BATCH].users,
                          memory_order_relaxed);
}

static unsigned waiting_in_line(const struct queue *queue)
{
    return queue->fair.lanes[QUEUE_INTERACTIVE].waiting + queue->fair.lanes[QUEUE_BATCH].waiting;
}

static void count_one_more(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static void count_running(struct queue *queue, int more)
{
    atomic_store_explicit(&queue->running, atomic_load_explicit(&queue->running, memory_order_relaxed) + (unsigned)more,
                          memory_order_relaxed);
}

/* Estimated when it enters, for who waits and for who is refused. */
static void note_place(struct queue *queue, struct ticket *ticket)
{
    uint64_t granted = atomic_load_explicit(&queue->granted[QUEUE_INTERACTIVE], memory_order_relaxed) +
                       atomic_load_explicit(&queue->granted[QUEUE_BATCH], memory_order_relaxed);
    unsigned place = fair_place(&queue->fair, ticket->user, ticket->class, queue->rules.batch_percent);

    atomic_store_explicit(&ticket->passed, granted, memory_order_relaxed);
    place += queue->again[QUEUE_INTERACTIVE] + queue->again[QUEUE_BATCH];
    atomic_store_explicit(&ticket->place, place, memory_order_release);
}

/* ---- who comes again ---- */

static void first_enter(struct queue *queue, struct ticket *ticket)
{
    ticket->newer = NULL;
    ticket->older = queue->last;
    *(queue->last ? &queue->last->newer : &queue->first) = ticket;
    queue->last = ticket;
    queue->again[ticket->class]++;
    ticket->standing = STANDS_FIRST;
}

static void first_leave(struct queue *queue, struct ticket *ticket)
{
    *(ticket->older ? &ticket->older->newer : &queue->first) = ticket->newer;
    *(ticket->newer ? &ticket->newer->older : &queue->last) = ticket->older;
    queue->again[ticket->class]--;
    ticket->standing = STANDS_NOWHERE;
}

/* ---- handing out ---- */

static void grant(struct queue *queue, struct ticket *ticket, struct site *site, enum route_why why, int64_t now_us)
{
    ticket->why = why;
    ticket->standing = RUNS;
    site_begins(queue, site, ticket, now_us);
    count_one_more(&queue->granted[ticket->class]);
    count_running(queue, 1);
    ticket_decide(ticket, TICKET_GRANTED);
}

/* It has a user, who is held, and stands nowhere. */
static void dismiss(struct queue *queue, struct ticket *ticket, enum ticket_state state)
{
    fair_settle(&queue->fair, ticket, NULL);
    fair_let_go(&queue->fair, ticket->user);
    ticket->user = NULL;
    ticket_decide(ticket, state);
}

/* Each for itself: one may avoid just the site that another is waiting for. */
static void hand_out_first(struct queue *queue, int64_t now_us)
{
    struct ticket *next;

    for (struct ticket *ticket = queue->first; ticket; ticket = next) {
        enum route_why why;
        struct site *site = sites_choose(queue, ticket, &why);
        next = ticket->newer;
        if (site) {
            first_leave(queue, ticket);
            grant(queue, ticket, site, why, now_us);
        } else if (why == ROUTE_NOBODY) {
            first_leave(queue, ticket);
            dismiss(queue, ticket, TICKET_NO_BACKEND);
        }
    }
}

/* Work-conserving: until no slot is free or nobody waits. */
static void hand_out(struct queue *queue, int64_t now_us)
{
    struct ticket *ticket;

    if (queue->first)
        hand_out_first(queue, now_us);
    while ((ticket = fair_next(&queue->fair, queue->rules.batch_percent))) {
        enum route_why why;
        struct site *site = sites_choose(queue, ticket, &why);
        if (!site)
            break;
        fair_grant(&queue->fair, ticket, queue->rules.batch_percent);
        grant(queue, ticket, site, why, now_us);
    }
    count_waiting(queue);
}

/* ---- operations ---- */

static void refuse(struct ticket *ticket, enum ticket_state state)
{
    ticket->user = NULL;
    ticket_decide(ticket, state);
}

/* Batch has not all of the places, so that interactive ones find some however much it asks for. */
static bool is_full(const struct queue *queue, enum queue_class class)
{
    return waiting_in_line(queue) >= queue->rules.max_waiting ||
           (class == QUEUE_BATCH && queue->fair.lanes[QUEUE_BATCH].waiting >= queue->rules.max_waiting_batch);
}

static void stand_in_line(struct queue *queue, struct ticket *ticket, int64_t now_us)
{
    const struct share *shares = ticket->user->shares;

    note_place(queue, ticket);
    if (shares[QUEUE_INTERACTIVE].waiting + shares[QUEUE_BATCH].waiting >= queue->rules.max_waiting_per_user) {
        refuse(ticket, TICKET_USER_FULL);
        return;
    }
    if (is_full(queue, ticket->class)) {
        refuse(ticket, TICKET_FULL);
        return;
    }
    if (!fair_enter(&queue->fair, ticket)) {
        refuse(ticket, TICKET_NO_MEMORY);
        return;
    }
    fair_hold(&queue->fair, ticket->user);
    ticket->standing = STANDS_IN_LINE;
    hand_out(queue, now_us);
}

static void enter(struct queue *queue, struct ticket *ticket, int64_t now_us)
{
    enum route_why why;
    struct site *site;

    ticket->user = fair_user(&queue->fair, ticket->hash, ticket->name);
    if (!ticket->user) {
        refuse(ticket, TICKET_NO_MEMORY);
        return;
    }
    if (waiting_in_line(queue) || queue->first) {
        if (!sites_can_take(queue))
            refuse(ticket, TICKET_NO_BACKEND);
        else
            stand_in_line(queue, ticket, now_us);
        return;
    }
    site = sites_choose(queue, ticket, &why);
    if (site) { /* it is in nobody's way: not charged */
        fair_hold(&queue->fair, ticket->user);
        fair_grant_free(&queue->fair, ticket);
        grant(queue, ticket, site, why, now_us);
    } else if (why == ROUTE_NOBODY) {
        refuse(ticket, TICKET_NO_BACKEND);
    } else {
        stand_in_line(queue, ticket, now_us);
    }
}

/* What it was charged stays charged: it has not had it yet. */
static void enter_again(struct queue *queue, struct ticket *ticket, int64_t now_us)
{
    assert(ticket->standing == RUNS);
    ticket->avoid = ticket->may_be_same && !sites_have_other(queue, ticket->site) ? 0 : ticket->site->id;
    site_ends(queue, ticket, NULL, now_us);
    count_running(queue, -1);
    first_enter(queue, ticket);
    hand_out(queue, now_us);
}

static void learn_service(struct queue *queue, const struct ticket_outcome *outcome)
{
    int64_t mean = atomic_load_explicit(&queue->service_us, memory_order_relaxed);

    if (!outcome->has_tokens || outcome->running_us <= 0)
        return;
    mean = mean ? mean + (outcome->running_us - mean) / SERVICE_PART : outcome->running_us;
    atomic_store_explicit(&queue->service_us, mean, memory_order_relaxed);
}

/* As many as its backend writes in that time, but no more than were expected. */
static void guess_completion(struct queue *queue, struct ticket *ticket, struct ticket_outcome *outcome)
{
    double made = site_speed(queue, ticket->site) * (double)outcome->running_us / 1e6;
    double most = fair_expects(&queue->fair, ticket) - (double)ticket->prompt_tokens;

    if (made > 0)
        outcome->completion_tokens = (uint64_t)(made < most ? made : most);
}

static void end(struct queue *queue, struct ticket *ticket, int64_t now_us)
{
    struct ticket_outcome *outcome = &ticket->outcome;

    ticket->standing = STANDS_NOWHERE;
    if (outcome->was_given_up && outcome->is_unseen && !outcome->has_tokens)
        guess_completion(queue, ticket, outcome);
    learn_service(queue, outcome);
    fair_settle(&queue->fair, ticket, outcome);
    fair_let_go(&queue->fair, ticket->user);
    site_ends(queue, ticket, outcome, now_us);
    count_running(queue, -1);
    if (queue->first || waiting_in_line(queue))
        hand_out(queue, now_us);
}

static void leave(struct queue *queue, struct ticket *ticket, int64_t now_us)
{
    if (ticket->standing == RUNS) {
        end(queue, ticket, now_us);
    } else if (ticket->standing != STANDS_NOWHERE) {
        if (ticket->standing == STANDS_IN_LINE)
            fair_leave(&queue->fair, ticket);
        else
            first_leave(queue, ticket);
        fair_settle(&queue->fair, ticket, NULL);
        fair_let_go(&queue->fair, ticket->user);
        count_waiting(queue);
    }
    ticket_unref(ticket);
}

/* Nobody can take any: those in line are told, and the rest of the list by hand_out(). */
static void dismiss_all(struct queue *queue)
{
    struct ticket *ticket;

    while ((ticket = fair_next(&queue->fair, 0))) {
        fair_leave(&queue->fair, ticket);
        ticket->standing = STANDS_NOWHERE;
        dismiss(queue, ticket, TICKET_NO_BACKEND);
    }
}

void queue_see(struct queue *queue, struct look *look)
{
    queue->rules = look->rules;
    sites_see(queue, look);
    sites_suspect(queue, look->op.now_us);
    if (waiting_in_line(queue) && !sites_can_take(queue))
        dismiss_all(queue);
    hand_out(queue, look->op.now_us);
    (void)look_free(look);
}

#define PART_OF(op, type, member) ((type *)(void *)((char *)(op)-offsetof(type, member)))

void queue_work(struct queue *queue, struct op *op)
{
    switch (op->what) {
    case OP_ENTER:
        enter(queue, PART_OF(op, struct ticket, enter), op->now_us);
        break;
    case OP_AGAIN:
        enter_again(queue, PART_OF(op, struct ticket, enter), op->now_us);
        break;
    case OP_LEAVE:
        leave(queue, PART_OF(op, struct ticket, leave), op->now_us);
        break;
    case OP_LOOK:
        queue_see(queue, PART_OF(op, struct look, op));
        break;
    case OP_EXPLAIN: {
        struct explanation *explanation = PART_OF(op, struct explanation, op);
        queue_explain(queue, explanation->out);
        atomic_store(&explanation->is_done, true);
        break;
    }
    }
}

/* ---- a queue's own life ---- */

struct queue *queue_new(struct queues *queues, uint64_t hash, struct slice model)
{
    size_t bytes = (sizeof(struct queue) + model.len + LINE - 1) / LINE * LINE;
    struct queue *queue = aligned_alloc(LINE, bytes);

    if (!queue)
        return NULL;
    memset(queue, 0, sizeof *queue);
    queue->queues = queues;
    queue->hash = hash;
    queue->model = (struct slice){ (char *)(queue + 1), model.len };
    if (model.len)
        memcpy(queue + 1, model.at, model.len);
    queue->letters_end = &queue->letters;
    fair_init(&queue->fair);
    random_bytes(&queue->chance, sizeof queue->chance);
    return queue;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    assert(!queue->first && !waiting_in_line(queue));
    sites_release(queue);
    fair_release(&queue->fair);
    free(queue);
}
