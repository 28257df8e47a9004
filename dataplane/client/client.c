/*
 * Timers: one deadline a client, meaning what its stage and its unsent bytes make it mean.
 *     HEAD, nothing read yet   head_timeout on a new connection, idle_timeout between two requests: closed silently
 *                              while draining DRAIN_PATIENCE_MS
 *     HEAD, some bytes         head_timeout from the first byte: on_slow
 *     BODY, HELD               body_timeout from the head: on_slow
 *     BUSY                     nothing: it may still be set from before, since leaving it is cheaper than taking it out
 *     unsent bytes             write_timeout without a byte taken by the caller, or sooner if it vanished: on_gone
 *     LINGER                   linger_timeout from the last byte, LINGER_TURNS times that in all: closed
 *
 * Reading is edge-triggered, goes on until a read did not fill the buffer (then the socket is empty), and pauses while
 * a request is BUSY: the edge is remembered in has_more. The kernel tells of a caller's end (LOOP_CLOSED) also while
 * nothing is read: then one byte is peeked at. A client that has more to do than one
 * turn's share goes onto the list `again`, which the worker works off once a turn of the loop, when everybody else has
 * had theirs.
 *
 * What came beyond the present request stays in `in`; `in` is empty whenever reading goes straight from scratch.
 */
#include "client_parts.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum { DRAIN_PATIENCE_MS = 500 };

static void on_event(struct watch *watch, unsigned what);
static void on_due(struct deadline *deadline, int64_t now_ms);

static void ring_init(struct client *head)
{
    head->next = head->prev = head;
}

static void ring_add(struct client *head, struct client *client)
{
    client->next = head;
    client->prev = head->prev;
    head->prev->next = client;
    head->prev = client;
}

static void ring_remove(struct client *client)
{
    client->next->prev = client->prev;
    client->prev->next = client->next;
}

bool clients_open(struct client_house *house)
{
    house->ring = calloc(1, sizeof *house->ring);
    if (!house->ring)
        return false;
    ring_init(&house->ring->live);
    ring_init(&house->ring->dead);
    for (unsigned i = 0; i < LINES; i++)
        house->ring->lines[i].next = house->ring->lines[i].prev = &house->ring->lines[i];
    return true;
}

/* Closed now, freed by the reaper: callers up the stack may still hold it. */
void client_bury(struct client *client)
{
    struct client_house *house = client->house;

    if (client->stage == STAGE_DEAD)
        return;
    client->stage = STAGE_DEAD;
    client_waits_no_more(client);
    house->held_bytes -= client->weight;
    client->weight = 0;
    loop_leave(house->loop, client->fd, &client->watch);
    (void)close(client->fd);
    wheel_clear(house->wheel, &client->deadline);
    ring_remove(client);
    ring_add(&house->ring->dead, client);
    house->count--;
    house->on_closed(client);
}

void clients_reap(struct client_house *house)
{
    struct client *dead = &house->ring->dead;

    while (dead->next != dead) {
        struct client *client = dead->next;
        if (client->is_again)
            clients_go_on(house); /* takes every dead one off the list */
        ring_remove(client);
        text_release_wiped(&client->in);
        text_release_wiped(&client->out);
        free(client);
    }
}

/* The request is told, once, that its caller is gone; then the connection closes. */
void client_lose(struct client *client, enum client_loss loss)
{
    static const struct linger at_once = { .l_onoff = 1 };
    bool has_request = client->request != NULL;

    if (client->stage == STAGE_DEAD)
        return;
    if (loss != CLIENT_LEFT && client_unsent(client)) /* what it does not read would stay with the kernel for minutes */
        (void)setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    client->is_crowded_out = loss == CLIENT_CROWDED_OUT;
    client_bury(client);
    if (has_request)
        client->house->story->on_gone(client, loss);
}

void clients_release(struct client_house *house)
{
    if (!house->ring)
        return;
    while (house->ring->live.next != &house->ring->live)
        client_bury(house->ring->live.next);
    clients_reap(house);
    free(house->ring);
    house->ring = NULL;
}

void clients_drop_all(struct client_house *house)
{
    while (house->ring->live.next != &house->ring->live)
        client_lose(house->ring->live.next, CLIENT_LEFT);
}

void client_be_patient(struct client *client, int64_t ms)
{
    wheel_set(client->house->wheel, &client->deadline, clock_ms() + ms);
}

void clients_close_idle(struct client_house *house)
{
    struct client *client, *next;

    for (client = house->ring->live.next; client != &house->ring->live; client = next) {
        next = client->next;
        if (client->stage != STAGE_HEAD || client->in.len || client->has_more || client->out.len)
            continue;
        if (client->has_served)
            client_bury(client);
        else /* a caller that has only just connected may be about to ask */
            client_be_patient(client, DRAIN_PATIENCE_MS);
    }
}

enum err client_new(struct client_house *house, int fd, const struct address *peer, bool is_uncounted)
{
    struct client *client = calloc(1, sizeof *client);

    if (!client) {
        (void)close(fd);
        return ERR_NO_MEMORY;
    }
    client->house = house;
    client->fd = fd;
    client->peer = *peer;
    client->is_uncounted = is_uncounted;
    client->deadline.on_due = on_due;
    text_init(&client->in, house->settings.max_head_bytes + MAX_PIPELINED_BYTES + house->scratch_bytes);
    text_init(&client->out, SIZE_MAX / 4);
    client->watch.on_event = on_event;
    if (!loop_watch(house->loop, fd, &client->watch, LOOP_AT_EDGES)) {
        (void)close(fd);
        free(client);
        return ERR_NO_MEMORY;
    }
    ring_add(&house->ring->live, client);
    house->count++;
    client_be_patient(client, house->settings.head_timeout_ms);
    client_waits(client, LINE_STRANGERS);
    return ERR_OK;
}

struct client_house *client_house(const struct client *client)
{
    return client->house;
}

bool client_is_uncounted(const struct client *client)
{
    return client->is_uncounted;
}

bool client_was_crowded_out(const struct client *client)
{
    return client->is_crowded_out;
}

const struct address *client_peer(const struct client *client)
{
    return &client->peer;
}

struct request *client_request(const struct client *client)
{
    return client->request;
}

void client_set_request(struct client *client, struct request *request)
{
    client->request = request;
}

int64_t client_began_us(const struct client *client)
{
    return client->began_us;
}

bool client_is_chunked(const struct client *client)
{
    return client->is_http11;
}

bool client_wants_no_body(const struct client *client)
{
    return client->is_head_request;
}

bool client_keeps_alive(const struct client *client)
{
    bool leaves_body = client->body_is_out && !client->body_here;

    return client->keeps_alive && !leaves_body && !client->house->is_draining && !client->saw_fin;
}

void client_must_close(struct client *client)
{
    client->keeps_alive = false;
}

size_t client_unsent(const struct client *client)
{
    return client->out.len - client->out_sent;
}

bool client_is_full(const struct client *client)
{
    return client_unsent(client) > client_write_room(client);
}

/* Looks at what waits, in the loop's next turn. */
void client_look_again(struct client *client)
{
    if (client->is_again)
        return;
    client->is_again = true;
    client->next_again = client->house->ring->again;
    client->house->ring->again = client;
}

/*
 * Reads what there is to read; where nothing is to be read, sees whether the caller is still there. Not when it has
 * become so by this: an end that came with the request is known (is_closed), a later one has an edge of its own.
 */
static void go_on(struct client *client)
{
    bool was_reading = client_is_reading(client);

    if (client_is_reading(client) && client->in.len && client->stage != STAGE_LINGER && client->has_waiting) {
        client->has_waiting = false;
        client_take(client, (struct slice){ "", 0 });
    }
    if (client_is_reading(client))
        client_read_some(client);
    if (client->stage != STAGE_BUSY && client->stage != STAGE_HELD)
        return;
    if (client->stage == STAGE_HELD || !was_reading || client->is_closed)
        client_look_for_end(client);
}

static void on_event(struct watch *watch, unsigned what)
{
    struct client *client = (void *)((char *)watch - offsetof(struct client, watch));

    clock_turn();
    if (client->stage == STAGE_DEAD || client->is_broken)
        return;
    client->is_closed |= (what & LOOP_CLOSED) != 0;
    if (what & LOOP_WRITABLE)
        client_flush(client);
    if (client->stage != STAGE_DEAD && (what & (LOOP_READABLE | LOOP_CLOSED)))
        go_on(client);
    /* What was pipelined before the FIN is not served any more: the caller has left (behaviour.md 2.3). */
    if ((what & LOOP_CLOSED) && client->stage != STAGE_DEAD && !client_is_reading(client))
        client_on_fin(client, false);
}

void clients_go_on(struct client_house *house)
{
    struct client *client = house->ring->again;

    house->ring->again = NULL;
    while (client) {
        struct client *next = client->next_again;
        client->is_again = false;
        client->has_waiting = true;
        if (client->is_broken)
            client_lose(client, client->out.err ? CLIENT_STALLED : CLIENT_LEFT);
        else if (client->stage != STAGE_DEAD)
            go_on(client);
        client = next;
    }
}

bool clients_have_more(const struct client_house *house)
{
    return house->ring->again != NULL;
}

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct client *client = (void *)((char *)deadline - offsetof(struct client, deadline));
    bool is_idle = client->stage == STAGE_HEAD && client->in.len == 0;

    (void)now_ms;
    if (client->is_broken) {
        client_lose(client, CLIENT_LEFT);
    } else if (client_unsent(client)) {
        client_look_at_reader(client);
    } else if (client->stage == STAGE_BODY || client->stage == STAGE_HELD) {
        client_distrust(client);
        client->house->story->on_slow(client, true);
    } else if (client->stage == STAGE_LINGER || is_idle) {
        client_bury(client);
    } else if (client->stage == STAGE_HEAD) {
        client_distrust_head(client);
        client->house->story->on_slow(client, false);
    }
}
