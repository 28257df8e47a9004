/*
 * The place of a request: in the queue of its model, then its slot at a backend. Given back in one function, whichever
 * it is by then.
 *
 * Timers, on the request's one deadline while QUEUED: queue_timeout of waiting in all, and heartbeats (heartbeat.c).
 */
#include "clock.h"
#include "metrics.h"
#include "parts.h"

enum {
    MAX_CONVERSATION_BYTES = 1024, /* of each text that a conversation is known by */
};

/* ---- whose conversation ---- */

static uint64_t mix(uint64_t hash, struct slice text)
{
    const uint64_t seed[2] = { hash, 0xa0761d6478bd642fu }; /* the same on every gateway */
    size_t len = text.len < MAX_CONVERSATION_BYTES ? text.len : MAX_CONVERSATION_BYTES;

    return slice_hash(seed, (struct slice){ text.at, len });
}

/* The first message of a role: what stays the same in every turn. */
static uint64_t mix_first(uint64_t hash, const struct inference *inference, enum role role)
{
    for (const struct message *message = inference->messages; message; message = message->next)
        if (message->role == role)
            return message->parts ? mix(hash, message->parts->wire) : hash;
    return hash;
}

void place_note_session(struct request *req, struct slice session)
{
    req->conversation = session.len ? mix(1, session) : 0;
}

/*
 * What the caller names it by, else its first messages: a prompt cache is worth seconds of GPU, and the next turn
 * begins with the same words. The same on every gateway, so that all name the same backend.
 */
static uint64_t conversation_of(const struct request *req)
{
    const struct inference *inference = req->inference;
    uint64_t hash = mix(0, req->record.user);

    if (req->conversation)
        return mix(hash, (struct slice){ (const char *)&req->conversation, sizeof req->conversation });
    if (inference->cache_key.len)
        return mix(hash, inference->cache_key);
    return mix_first(mix_first(hash, inference, ROLE_SYSTEM), inference, ROLE_USER);
}

/* ---- entering ---- */

static struct slice user_of(const struct request *req, char address[ADDRESS_TEXT_BYTES])
{
    return req->record.user.len ? req->record.user : slice_of(address_text(&req->record.address, address));
}

enum verdict place_take(struct request *req, struct slice model, bool is_known)
{
    char address[ADDRESS_TEXT_BYTES];
    const struct ticket_wish wish = {
        .user = user_of(req, address),
        .weight = req->key ? req->key->weight : 1,
        .class = req->key && req->key->class == KEY_BATCH ? QUEUE_BATCH : QUEUE_INTERACTIVE,
        .conversation = req->fleet->count > 1 ? conversation_of(req) : 0,
        .prompt_tokens = (req->inference->prompt_chars + req->inference->system_chars + 3) / 4,
    };

    req->entered_us = req->waits_since_us = clock_us();
    req->queue = is_known ? queues_find(req->house->queues, model) : queues_find_shared(req->house->queues, model);
    if (req->queue)
        req->ticket = ticket_take(req->queue, req->house->home, &wish, req, req->entered_us);
    if (!req->ticket)
        return request_refuse(req, CAUSE_NO_MEMORY);
    return request_go(req, REQUEST_QUEUED);
}

/* When it has waited for so long: the time that a backend had it, which then failed it, does not count. */
static int64_t patience_ends_ms(const struct request *req)
{
    return (req->waits_since_us - req->record.queue_us) / 1000 + settings_of(req)->queue_timeout_ms;
}

static void set_deadline(struct request *req)
{
    int64_t due_ms = patience_ends_ms(req);
    int64_t beat_ms = heartbeat_due_ms(req);

    wheel_set(req->house->wheel, &req->deadline, beat_ms < due_ms ? beat_ms : due_ms);
}

static enum verdict wait_for_slot(struct request *req)
{
    if (!req->has_begun) {
        admit_done(req);
        sent_tighten(req);
    }
    if (!req->queue_place)
        req->queue_place = ticket_place(req->ticket);
    set_deadline(req);
    return WAIT;
}

static enum verdict refuse_for_now(struct request *req, enum cause cause)
{
    int64_t wait_us = queue_retry_after_us(req->queue, req->ticket);

    (void)request_refuse(req, cause);
    req->refusal.retry_after_s = refusal_retry_after_s(wait_us);
    return AGAIN;
}

/* Gives how long it was this time. */
static int64_t note_queue_time(struct request *req)
{
    int64_t now_us = clock_us(), waited_us = now_us - req->waits_since_us;

    req->record.has_queue = true;
    req->record.queue_us += waited_us;
    req->waits_since_us = now_us;
    return waited_us;
}

static void note_wait(struct request *req)
{
    bool is_batch = req->key && req->key->class == KEY_BATCH;

    metrics_count_wait(req->house->metrics, &(struct metrics_wait){ .model = queue_model(req->queue),
                                                                    .is_batch = is_batch,
                                                                    .wait_us = note_queue_time(req) });
}

static void note_resent(struct request *req)
{
    req->record.was_resent = !slice_is(req->record.backend, slice_of(req->backend->name));
    metrics_count(req->house->metrics,
                  req->record.was_resent ? METRIC_BACKEND_RESENDS_ELSEWHERE : METRIC_BACKEND_RESENDS, 1);
}

/* The slot is ours. The backend's name outlives its slot in the record. */
static enum verdict use_slot(struct request *req)
{
    req->backend = ticket_backend(req->ticket);
    req->kind = req->backend->kind;
    atomic_fetch_add_explicit(&req->backend->running, 1, memory_order_relaxed);
    if (req->was_resent)
        note_resent(req);
    req->record.backend = arena_copy(&req->arena, slice_of(req->backend->name));
    note_wait(req);
    return request_go(req, REQUEST_CONNECTING);
}

enum verdict request_queued(struct request *req)
{
    switch (ticket_state(req->ticket)) {
    case TICKET_GRANTED:
        return use_slot(req);
    case TICKET_WAITING:
        return wait_for_slot(req);
    case TICKET_FULL:
        return refuse_for_now(req, CAUSE_QUEUE_FULL);
    case TICKET_USER_FULL:
        return refuse_for_now(req, CAUSE_QUEUE_USER_FULL);
    case TICKET_NO_MEMORY:
        return request_refuse(req, CAUSE_NO_MEMORY);
    default:
        return request_refuse(req, CAUSE_BACKEND_DOWN);
    }
}

void place_look_at_time(struct request *req, int64_t now_ms)
{
    if (now_ms >= patience_ends_ms(req)) {
        (void)refuse_for_now(req, CAUSE_QUEUE_TIMEOUT);
        request_drive(req);
        return;
    }
    if (now_ms >= heartbeat_due_ms(req)) {
        if (!req->is_committed)
            req->queue_place = ticket_place(req->ticket);
        if (!heartbeat_send(req, now_ms))
            return;
    }
    set_deadline(req);
}

/* ---- leaving ---- */

static void leave_backend(struct request *req)
{
    if (req->backend)
        atomic_fetch_sub_explicit(&req->backend->running, 1, memory_order_relaxed);
    req->backend = NULL;
}

bool place_take_again(struct request *req, bool may_be_same)
{
    leave_backend(req); /* it is the ticket's, which lets it go */
    req->waits_since_us = clock_us();
    ticket_take_again(req->ticket, may_be_same, req->waits_since_us);
    if (ticket_state(req->ticket) == TICKET_NO_BACKEND)
        return false;
    (void)request_go(req, REQUEST_QUEUED);
    return true;
}

void place_give_back(struct request *req, bool was_given_up)
{
    const struct ticket_outcome outcome = {
        .has_tokens = req->record.has_tokens,
        .was_given_up = was_given_up,
        .is_unseen = !req->is_stream,
        .prompt_tokens = req->record.prompt_tokens,
        .completion_tokens = req->record.completion_tokens,
        .running_us = clock_us() - req->sent_us,
    };

    if (!req->ticket)
        return;
    if (!req->backend)
        (void)note_queue_time(req); /* in vain */
    if (req->state == REQUEST_QUEUED && !req->client)
        metrics_count(req->house->metrics, METRIC_QUEUE_ABANDONED, 1);
    leave_backend(req);
    ticket_give_back(req->ticket, &outcome, clock_us());
    req->ticket = NULL;
}

void requests_take_news(struct request_house *house)
{
    struct request *req;

    while ((req = queue_home_next(house->home)))
        request_drive(req);
}
