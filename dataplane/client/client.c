/*
 * Timers: one deadline a client, meaning what its stage and its unsent bytes make it mean.
 *     HEAD, nothing read yet   head_timeout on a new connection, idle_timeout between two requests: closed silently
 *                              while draining DRAIN_PATIENCE_MS
 *     HEAD, some bytes         head_timeout from the first byte: on_slow
 *     BODY, HELD               body_timeout from the head: on_slow
 *     unsent bytes             write_timeout from the last progress: on_gone
 *     LINGER                   linger_timeout from the last byte, LINGER_TURNS times that in all: closed
 *
 * Reading is edge-triggered, goes on until the kernel has nothing, and pauses while a request is BUSY: the edge is remembered in
 * has_more. The kernel tells of a caller's FIN (EV_CLOSED) also while nothing is read, and of a reset as readable: then one byte is
 * peeked at; also when a request becomes BUSY, since a reset that comes together with bytes has no edge of its own.
 * A client that has more to do than one turn's share goes onto the list `again`, which the worker works off once a turn of
 * the loop: event_active() would be served before anybody else.
 *
 * What came beyond the present request stays in `in`; `in` is empty whenever reading goes straight from scratch.
 */
#include "client.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "wheel.h"

enum {
    MAX_READS = 16,                 /* in one turn, then others have theirs */
    MAX_REQUESTS = 16,              /* pipelined ones, the same */
    MAX_LINGER_BYTES = 64 << 20,    /* behaviour.md 2.2 */
    LINGER_TURNS = 15,
    MAX_PIPELINED_BYTES = 256 << 10, /* what may wait in `in` behind a request; beyond it the socket's buffer holds it */
    KEEPALIVE_MARGIN_MS = 5000,
    DRAIN_PATIENCE_MS = 500,
};

enum stage { STAGE_HEAD, STAGE_BODY, STAGE_HELD, STAGE_BUSY, STAGE_LINGER, STAGE_DEAD };

struct client {
    struct client *next, *prev;
    struct event event;
    struct deadline deadline;
    struct client_house *house;
    struct request *request;
    struct address peer;
    int fd;
    enum stage stage;
    bool is_http11, is_head_request, keeps_alive, expects_continue;
    bool body_is_out; /* the present request's body has not been read to its end */
    bool is_over;     /* client_end() was called; on_sent when all is sent */
    bool reads_body;  /* client_read_body() was called for the present request */
    bool has_more;    /* the socket may hold bytes whose edge has passed */
    bool has_waiting; /* `in` may hold a whole step */
    bool is_again;    /* on the list `again` */
    bool is_broken;   /* a write failed: the caller is gone */
    struct client *next_again;
    bool is_uncounted, saw_fin, was_full, is_dropping, has_served, head_begun;
    struct text in;
    size_t scanned;
    struct http_body framing;
    struct text out;
    size_t out_sent;
    uint64_t body_here; /* the whole body lies behind the head: its length */
    int64_t began_us, body_due_ms;
    uint64_t lingered_bytes;
    int64_t linger_due_ms; /* the end of all lingering */
};

struct client_ring {
    struct client live, dead; /* heads of rings */
    struct client *again;     /* may be dead by now: freed by the reaper only when off this list */
    struct http_head head;    /* parsed into, for the moment of on_head */
};

static void on_event(evutil_socket_t fd, short what, void *arg);
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
    return true;
}

/* Closed now, freed by the reaper: callers up the stack may still hold it. */
static void bury(struct client *client)
{
    struct client_house *house = client->house;

    if (client->stage == STAGE_DEAD)
        return;
    client->stage = STAGE_DEAD;
    (void)event_del(&client->event);
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
            (void)clients_go_on(house); /* takes every dead one off the list */
        ring_remove(client);
        text_release_wiped(&client->in);
        text_release_wiped(&client->out);
        free(client);
    }
}

/* The request is told, once, that its caller is gone; then the connection closes. */
static void lose(struct client *client, bool was_stalled)
{
    bool has_request = client->request != NULL;

    if (client->stage == STAGE_DEAD)
        return;
    bury(client);
    if (has_request)
        client->house->story->on_gone(client, was_stalled);
}

void clients_release(struct client_house *house)
{
    if (!house->ring)
        return;
    while (house->ring->live.next != &house->ring->live)
        bury(house->ring->live.next);
    clients_reap(house);
    free(house->ring);
    house->ring = NULL;
}

void clients_drop_all(struct client_house *house)
{
    while (house->ring->live.next != &house->ring->live)
        lose(house->ring->live.next, false);
}

static void be_patient(struct client *client, int64_t ms)
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
            bury(client);
        else /* a caller that has only just connected may be about to ask */
            be_patient(client, DRAIN_PATIENCE_MS);
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
    (void)event_assign(&client->event, house->base, fd, EV_READ | EV_WRITE | EV_CLOSED | EV_ET | EV_PERSIST, on_event,
                       client);
    if (event_add(&client->event, NULL) != 0) {
        (void)close(fd);
        free(client);
        return ERR_NO_MEMORY;
    }
    ring_add(&house->ring->live, client);
    house->count++;
    be_patient(client, house->settings.head_timeout_ms);
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
    return client_unsent(client) > client->house->settings.write_buffer_bytes;
}

/* ---- writing ---- */

/* While bytes wait, the kernel's own patience must not end before ours: a stopped reader is cut by write_timeout. */
static void set_user_timeout(struct client *client, bool is_waiting)
{
    unsigned ms = 30000;

    if (is_waiting && client->house->settings.write_timeout_ms + KEEPALIVE_MARGIN_MS > ms)
        ms = (unsigned)client->house->settings.write_timeout_ms + KEEPALIVE_MARGIN_MS;
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/* Sends what the kernel takes: the number of bytes, or -1 when the connection is broken. */
static ssize_t send_some(struct client *client, const char *at, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t sent = send(client->fd, at + done, len - done, MSG_NOSIGNAL);
        if (sent >= 0)
            done += (size_t)sent;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)done;
}

/* Looks at what waits, in the loop's next turn. */
static void look_again(struct client *client)
{
    if (client->is_again)
        return;
    client->is_again = true;
    client->next_again = client->house->ring->again;
    client->house->ring->again = client;
}

static void start_lingering(struct client *client)
{
    (void)shutdown(client->fd, SHUT_WR);
    client->stage = STAGE_LINGER;
    client->linger_due_ms = clock_ms() + LINGER_TURNS * client->house->settings.linger_timeout_ms;
    be_patient(client, client->house->settings.linger_timeout_ms);
    if (client->saw_fin)
        bury(client);
    else
        look_again(client);
}

/* The answer is with the kernel: next request, or the end. */
static void finish(struct client *client)
{
    bool keeps_alive = client_keeps_alive(client);

    client->is_over = false;
    client->has_served = true;
    text_release_wiped(&client->out);
    client->out_sent = 0;
    if (client->request)
        client->house->story->on_sent(client);
    if (client->stage == STAGE_DEAD)
        return;
    if (!keeps_alive) {
        start_lingering(client);
        return;
    }
    client->stage = STAGE_HEAD;
    client->began_us = 0;
    client->head_begun = false;
    be_patient(client, client->house->settings.idle_timeout_ms);
    if (client->in.len || client->has_more)
        look_again(client);
}

static void all_sent(struct client *client)
{
    if (client->is_dropping)
        start_lingering(client);
    else if (client->is_over)
        finish(client);
}

/* The kernel takes bytes again. */
static void flush(struct client *client)
{
    ssize_t sent;

    if (!client_unsent(client))
        return;
    sent = send_some(client, client->out.at + client->out_sent, client_unsent(client));
    if (sent < 0) {
        lose(client, false);
        return;
    }
    if (!sent)
        return;
    client->out_sent += (size_t)sent;
    be_patient(client, client->house->settings.write_timeout_ms);
    if (!client_unsent(client)) {
        text_release_wiped(&client->out);
        client->out_sent = 0;
        set_user_timeout(client, false);
        wheel_clear(client->house->wheel, &client->deadline);
        if (client->stage == STAGE_BODY || client->stage == STAGE_HELD)
            wheel_set(client->house->wheel, &client->deadline, client->body_due_ms);
        all_sent(client);
    } else if (client->out_sent > client->out.len / 2) {
        text_drop_front(&client->out, client->out_sent);
        client->out_sent = 0;
    }
    if (client->stage != STAGE_DEAD && client->was_full && client_unsent(client) <= client->house->settings.write_buffer_bytes / 2) {
        client->was_full = false;
        if (client->request && !client->is_over)
            client->house->story->on_room(client);
    }
}

void client_write(struct client *client, struct slice bytes)
{
    ssize_t sent = 0;

    if (client->stage == STAGE_DEAD || client->is_broken || !bytes.len)
        return;
    if (!client_unsent(client)) {
        sent = send_some(client, bytes.at, bytes.len);
        if (sent < 0) { /* nobody is told from within a write, but in a turn of its own */
            client->is_broken = true;
            look_again(client);
            return;
        }
        if ((size_t)sent < bytes.len) {
            set_user_timeout(client, true);
            be_patient(client, client->house->settings.write_timeout_ms);
        }
    }
    text_add(&client->out, bytes.at + sent, bytes.len - (size_t)sent);
    if (client->out.err) { /* no memory: an answer with a hole must not look whole */
        client->is_broken = true;
        look_again(client);
    }
    client->was_full |= client_is_full(client);
}

void client_end(struct client *client)
{
    if (client->stage == STAGE_DEAD || client->is_broken)
        return;
    if (client->stage == STAGE_BODY || client->stage == STAGE_HELD)
        client->stage = STAGE_BUSY; /* answered early: nothing more of the body is handed over */
    client->is_over = true;
    if (!client_unsent(client))
        finish(client);
}

void client_drop(struct client *client, bool gently)
{
    client->request = NULL;
    if (client->stage == STAGE_DEAD)
        return;
    client->keeps_alive = false;
    if (gently && client_unsent(client)) {
        client->is_dropping = true;
        client->stage = STAGE_BUSY;
        return;
    }
    if (gently) {
        start_lingering(client);
        return;
    }
    bury(client);
}

/* ---- reading ---- */

static void take_head(struct client *client, const struct http_head *head, size_t behind)
{
    client->is_http11 = head->minor == 1;
    client->keeps_alive = head->keeps_alive;
    client->is_head_request = slice_is(head->method, SLICE("HEAD"));
    client->expects_continue = head->expects_continue;
    client->has_served = client->reads_body = false;
    client->body_is_out = head->framing == HTTP_CHUNKED || (head->framing == HTTP_LENGTH && head->content_length);
    client->body_here = head->framing == HTTP_LENGTH && head->content_length <= behind ? head->content_length : 0;
    http_body_init(&client->framing, head->framing, head->content_length);
    client->stage = STAGE_BUSY;
    wheel_clear(client->house->wheel, &client->deadline);
    client->house->story->on_head(client, head);
}

/* Nobody knows what follows: whatever is answered, the connection ends with it. */
static void distrust(struct client *client)
{
    client->keeps_alive = false;
    client->body_is_out = true;
    client->body_here = 0;
    client->stage = STAGE_BUSY;
    wheel_clear(client->house->wheel, &client->deadline);
}

/* There is no head to go by. */
static void distrust_head(struct client *client)
{
    distrust(client);
    client->is_http11 = true;
    client->is_head_request = false;
}

/* One step with a head. Returns the bytes done with. */
static size_t feed_head(struct client *client, struct slice bytes)
{
    struct http_head *head = &client->house->ring->head;
    const char *why = "";
    enum http_result result;
    size_t used;

    if (!client->began_us)
        client->began_us = clock_us();
    result = http_parse_request(head, bytes.at, bytes.len, client->house->settings.max_head_bytes, &client->scanned,
                                &why);
    if (result == HTTP_MORE) {
        if (!client->head_begun)
            be_patient(client, client->house->settings.head_timeout_ms);
        client->head_begun = true;
        return 0;
    }
    client->scanned = 0;
    if (result != HTTP_DONE) {
        distrust_head(client);
        client->house->story->on_bad(client, result, why);
        return bytes.len;
    }
    used = head->bytes;
    take_head(client, head, bytes.len - used);
    /* An early answer leaves the body unread; when all of it is here, it is passed over and the connection lives. */
    if (!client->reads_body && client->body_here) {
        used += client->body_here;
        client->body_is_out = false;
    }
    return used;
}

/* One step with a body. Returns the bytes done with. */
static size_t feed_body(struct client *client, struct slice bytes)
{
    const char *why = "";
    struct slice payload = { 0 };
    size_t used = 0;
    enum http_result result = http_body_next(&client->framing, bytes.at, bytes.len, &used, &payload, &why);

    if (result == HTTP_MORE) {
        if (payload.len)
            client->house->story->on_body(client, payload, false);
        return used;
    }
    if (result != HTTP_DONE) {
        distrust(client);
        client->house->story->on_bad(client, result, why);
        return bytes.len;
    }
    wheel_clear(client->house->wheel, &client->deadline);
    client->stage = STAGE_BUSY;
    client->body_is_out = false;
    client->house->story->on_body(client, payload, true);
    return used;
}

/* Uses up what it can. Returns the bytes done with. */
static size_t feed(struct client *client, struct slice bytes)
{
    unsigned requests = 0;
    size_t done = 0;

    while (done < bytes.len) {
        struct slice rest = { bytes.at + done, bytes.len - done };
        size_t used;

        if (client->stage == STAGE_HEAD) {
            if (requests++ == MAX_REQUESTS) {
                look_again(client);
                break;
            }
            used = feed_head(client, rest);
        } else if (client->stage == STAGE_BODY) {
            used = feed_body(client, rest);
        } else {
            break;
        }
        done += used;
        if (!used)
            break;
    }
    return done;
}

/* Bytes fresh from the socket, behind those that wait in `in`. */
static void take(struct client *client, struct slice fresh)
{
    bool is_direct = client->in.len == 0;
    struct slice bytes = fresh;
    size_t done;

    if (!is_direct) {
        text_add_slice(&client->in, fresh);
        bytes = text_slice(&client->in);
    }
    done = client->in.err ? 0 : feed(client, bytes);
    if (client->stage == STAGE_DEAD)
        return;
    if (client->stage == STAGE_LINGER || done == bytes.len)
        text_release_wiped(&client->in);
    else if (is_direct)
        text_add(&client->in, bytes.at + done, bytes.len - done);
    else
        text_drop_front(&client->in, done);
    if (client->in.err)
        lose(client, false);
}

static void linger(struct client *client, size_t bytes)
{
    int64_t due_ms = clock_ms() + client->house->settings.linger_timeout_ms;

    client->lingered_bytes += bytes;
    if (client->lingered_bytes > MAX_LINGER_BYTES)
        bury(client);
    else
        wheel_set(client->house->wheel, &client->deadline,
                  due_ms < client->linger_due_ms ? due_ms : client->linger_due_ms);
}

static bool is_reading(const struct client *client)
{
    return client->stage == STAGE_HEAD || client->stage == STAGE_BODY || client->stage == STAGE_LINGER;
}

/* The caller ended its side: orderly with a FIN, or with a reset. */
static void on_fin(struct client *client, bool is_orderly)
{
    bool in_request = client->stage == STAGE_BODY || (client->stage == STAGE_HEAD && client->in.len > 0);

    client->saw_fin = true;
    if (client->stage == STAGE_LINGER || client->is_dropping) {
        bury(client);
    } else if (in_request && is_orderly) {
        if (client->stage == STAGE_HEAD)
            distrust_head(client);
        distrust(client);
        client->house->story->on_bad(client, HTTP_BAD, "the connection ended in the middle of the request");
    } else {
        lose(client, false);
    }
}

static void read_some(struct client *client)
{
    struct client_house *house = client->house;

    client->has_more = false;
    for (unsigned reads = 0; is_reading(client); reads++) {
        ssize_t got;

        if (reads == MAX_READS || client->is_again) {
            client->has_more = true;
            look_again(client);
            return;
        }
        got = read(client->fd, house->scratch, house->scratch_bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            on_fin(client, got == 0);
            return;
        }
        if (client->stage == STAGE_LINGER)
            linger(client, (size_t)got);
        else
            take(client, (struct slice){ house->scratch, (size_t)got });
    }
}

/* A request is being served and nothing is read: has the caller left? */
static void look_for_end(struct client *client)
{
    char byte;
    ssize_t got = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    int error = 0;
    socklen_t bytes = sizeof error;

    /* Bytes that came before a reset hide it from recv(). */
    if (got > 0 && getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 && !error)
        client->has_more = true;
    else if (got >= 0 || (errno != EAGAIN && errno != EINTR))
        on_fin(client, false);
}

/* Reads what there is to read; where nothing is to be read, sees whether the caller is still there. */
static void go_on(struct client *client)
{
    if (is_reading(client) && client->in.len && client->stage != STAGE_LINGER && client->has_waiting) {
        client->has_waiting = false;
        take(client, (struct slice){ "", 0 });
    }
    if (is_reading(client))
        read_some(client);
    if (client->stage == STAGE_BUSY || client->stage == STAGE_HELD)
        look_for_end(client);
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct client *client = arg;

    (void)fd;
    if (client->stage == STAGE_DEAD || client->is_broken)
        return;
    if (what & EV_WRITE)
        flush(client);
    if (client->stage != STAGE_DEAD && (what & (EV_READ | EV_CLOSED)))
        go_on(client);
    /* What was pipelined before the FIN is not served any more: the caller has left (behaviour.md 2.3). */
    if ((what & EV_CLOSED) && client->stage != STAGE_DEAD && !is_reading(client))
        on_fin(client, false);
}

bool clients_go_on(struct client_house *house)
{
    struct client *client = house->ring->again;

    house->ring->again = NULL;
    while (client) {
        struct client *next = client->next_again;
        client->is_again = false;
        client->has_waiting = true;
        if (client->is_broken)
            lose(client, client->out.err != ERR_OK);
        else if (client->stage != STAGE_DEAD)
            go_on(client);
        client = next;
    }
    return house->ring->again != NULL;
}

void client_read_body(struct client *client)
{
    bool is_empty = client->framing.framing == HTTP_NO_BODY ||
                    (client->framing.framing == HTTP_LENGTH && client->framing.left == 0);

    client->reads_body = true;
    if (is_empty) {
        client->house->story->on_body(client, (struct slice){ "", 0 }, true);
        return;
    }
    client->stage = STAGE_BODY;
    client->body_due_ms = clock_ms() + client->house->settings.body_timeout_ms;
    wheel_set(client->house->wheel, &client->deadline, client->body_due_ms);
    if (client->expects_continue) {
        client->expects_continue = false;
        client_write(client, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
    }
}

void client_hold(struct client *client)
{
    if (client->stage == STAGE_BODY)
        client->stage = STAGE_HELD;
}

void client_go_on(struct client *client)
{
    if (client->stage != STAGE_HELD)
        return;
    client->stage = STAGE_BODY;
    client->has_more = true;
    look_again(client);
}

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct client *client = (struct client *)((char *)deadline - offsetof(struct client, deadline));
    bool is_idle = client->stage == STAGE_HEAD && client->in.len == 0;

    (void)now_ms;
    if (client_unsent(client)) {
        lose(client, true);
    } else if (client->stage == STAGE_BODY || client->stage == STAGE_HELD) {
        distrust(client);
        client->house->story->on_slow(client, true);
    } else if (client->stage == STAGE_LINGER || is_idle) {
        bury(client);
    } else if (client->stage == STAGE_HEAD) {
        distrust_head(client);
        client->house->story->on_slow(client, false);
    }
}
