/*
 * Timers: connecting (connect_timeout, from upstream_borrow), ending (ENDING_MS, from giving back a whole answer whose
 * framing has not ended), kept (KEPT_MS, from going back to the pool).
 *
 * Reading is edge-triggered. A read that did not fill the buffer has emptied the socket: what comes later has an edge
 * of its own, and asking the kernel once more would be a system call a token (12 % of a token's cost, measured). An end
 * that came in the same edge is known by LOOP_CLOSED, and then reading goes on up to it. While paused, an edge that
 * comes is remembered in `has_more`. A connection with more to read than its turn allows goes onto the ring `again`,
 * which the worker works off once a turn of the loop, when everybody else has had theirs.
 */
#include "upstream.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend.h"
#include "clock.h"
#include "http.h"
#include "loop.h"
#include "wheel.h"

enum {
    KEPT_MS = 60000,
    ENDING_MS = 1000,
    MAX_ENDING_BYTES = 64 << 10, /* that may still come when the answer is whole */
    MAX_KEPT = 256,              /* a worker and backend list */
    MAX_HEAD_BYTES = 65536,      /* of an answer */
    MAX_READS = 16,              /* in one turn, then others have theirs */
};

enum stage {
    STAGE_CONNECTING,
    STAGE_HEAD,
    STAGE_BODY,
    STAGE_OVER, /* the exchange is whole */
    STAGE_KEPT, /* in the pool */
    STAGE_DEAD, /* closed, waits for the reaper */
};

struct upstream {
    struct watch watch;
    struct deadline deadline;
    struct upstream_pool *pool;
    struct upstream *next, *prev; /* in the pool's list of kept, busy or dead ones */
    struct backend *backend;      /* counted */
    struct borrower *who;
    int fd;
    enum stage stage;
    bool was_kept, keeps_alive, is_paused;
    bool has_more;     /* the socket may hold bytes whose edge has passed */
    bool is_closed;    /* the kernel told of the connection's end, though it may not have been read up to yet */
    bool is_full_read; /* the last read filled the scratch buffer */
    bool is_again;     /* on the pool's list `again` */
    struct upstream *next_again;
    unsigned address; /* index tried */
    unsigned addresses_left;
    struct slice unsent; /* still to send, the borrower's */
    uint64_t received;
    uint64_t ending_from;  /* payload seen when a whole answer was given back */
    struct text head_text; /* an answer's head that came in pieces */
    size_t scanned;
    struct http_body framing;
};

struct upstream_pool {
    struct loop *loop;
    struct wheel *wheel;
    char *scratch;
    size_t scratch_bytes;
    int descriptor_limit;
    struct upstream busy, kept, dead; /* heads of rings */
    unsigned kept_count;
    struct upstream *again; /* may be dead by now: freed by the reaper only when off this list */
    struct http_head head;  /* parsed into, for the moment of on_head */
};

static void ring_init(struct upstream *head)
{
    head->next = head->prev = head;
}

static void ring_add(struct upstream *head, struct upstream *up)
{
    up->next = head->next; /* newest first: the warmest connection is lent first */
    up->prev = head;
    head->next->prev = up;
    head->next = up;
}

static void ring_remove(struct upstream *up)
{
    up->next->prev = up->prev;
    up->prev->next = up->next;
}

struct upstream_pool *upstream_pool_new(struct loop *loop, struct wheel *wheel, char *scratch, size_t scratch_bytes,
                                        int descriptor_limit)
{
    struct upstream_pool *pool = calloc(1, sizeof *pool);

    if (!pool)
        return NULL;
    pool->loop = loop;
    pool->wheel = wheel;
    pool->scratch = scratch;
    pool->scratch_bytes = scratch_bytes;
    pool->descriptor_limit = descriptor_limit;
    ring_init(&pool->busy);
    ring_init(&pool->kept);
    ring_init(&pool->dead);
    return pool;
}

COLD static void shut(struct upstream *up)
{
    if (up->fd >= 0) {
        loop_leave(up->pool->loop, up->fd, &up->watch);
        (void)close(up->fd);
        up->fd = -1;
    }
}

/* Closed at once, freed by the reaper: callers up the stack may still hold it. */
COLD static void bury(struct upstream *up)
{
    if (up->stage == STAGE_DEAD)
        return;
    if (up->stage == STAGE_KEPT)
        up->pool->kept_count--;
    shut(up);
    wheel_clear(up->pool->wheel, &up->deadline);
    up->stage = STAGE_DEAD;
    up->who = NULL;
    ring_remove(up);
    ring_add(&up->pool->dead, up);
}

void upstream_pool_reap(struct upstream_pool *pool)
{
    while (pool->dead.next != &pool->dead) {
        struct upstream *up = pool->dead.next;
        if (up->is_again)
            upstream_pool_go_on(pool); /* takes every dead one off the list */
        ring_remove(up);
        text_release_wiped(&up->head_text);
        (void)backend_unref(up->backend);
        free(up);
    }
}

void upstream_pool_free(struct upstream_pool *pool)
{
    if (!pool)
        return;
    while (pool->busy.next != &pool->busy)
        bury(pool->busy.next);
    while (pool->kept.next != &pool->kept)
        bury(pool->kept.next);
    upstream_pool_reap(pool);
    free(pool);
}

COLD static void lose(struct upstream *up, enum upstream_loss loss, const char *why)
{
    struct borrower *who = up->who;

    bury(up);
    if (who)
        who->story->on_lost(who, loss, why);
}

static void on_event(struct watch *watch, unsigned what);
static void read_some(struct upstream *up);

bool upstream_pool_shed(struct upstream_pool *pool)
{
    if (pool->kept.prev == &pool->kept)
        return false;
    bury(pool->kept.prev);
    return true;
}

/* -1 with EMFILE also for one that is not for us. */
static int open_below_limit(const struct upstream_pool *pool, int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < pool->descriptor_limit)
        return fd;
    (void)close(fd);
    errno = EMFILE;
    return -1;
}

/* Where all descriptors are in use, a kept connection gives up its own. */
static int open_socket(struct upstream_pool *pool, int family)
{
    int fd = open_below_limit(pool, family);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && upstream_pool_shed(pool))
        fd = open_below_limit(pool, family);
    return fd;
}

COLD static bool start_connecting(struct upstream *up)
{
    const struct sockaddr_storage *address;
    int one = 1;

    while (up->addresses_left) {
        unsigned index = up->address++ % up->backend->address_count;
        up->addresses_left--;
        address = &up->backend->addresses[index];
        up->fd = open_socket(up->pool, address->ss_family);
        if (up->fd < 0)
            return false;
        (void)setsockopt(up->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(up->fd, (const struct sockaddr *)address, up->backend->address_bytes[index]) == 0 ||
            errno == EINPROGRESS) {
            if (loop_watch(up->pool->loop, up->fd, &up->watch, LOOP_AT_EDGES))
                return true;
        }
        (void)close(up->fd);
        up->fd = -1;
    }
    return false;
}

static void on_due(struct deadline *deadline, int64_t now_ms)
{
    struct upstream *up = (void *)((char *)deadline - offsetof(struct upstream, deadline));

    (void)now_ms;
    if (up->stage == STAGE_CONNECTING)
        lose(up, UPSTREAM_UNREACHABLE, "connecting took too long");
    else if (!up->who) /* else it is left from when it was kept: taking it out for each request would cost more */
        bury(up);
}

static struct upstream *take_kept(struct upstream_pool *pool, struct backend *backend)
{
    for (struct upstream *up = pool->kept.next; up != &pool->kept; up = up->next)
        if (up->backend == backend) {
            ring_remove(up);
            pool->kept_count--;
            return up;
        }
    return NULL;
}

COLD static struct upstream *make(struct upstream_pool *pool, struct backend *backend, int64_t connect_timeout_ms)
{
    struct upstream *up = calloc(1, sizeof *up);

    if (!up)
        return NULL;
    up->pool = pool;
    up->backend = backend_ref(backend);
    up->fd = -1;
    up->watch.on_event = on_event;
    up->deadline.on_due = on_due;
    up->addresses_left = backend->address_count;
    up->address = atomic_load_explicit(&backend->good_address, memory_order_relaxed);
    text_init(&up->head_text, MAX_HEAD_BYTES);
    wheel_set(pool->wheel, &up->deadline, clock_ms() + connect_timeout_ms);
    return up;
}

enum err upstream_borrow(struct upstream_pool *pool, struct backend *backend, struct borrower *who, bool must_be_fresh,
                         int64_t connect_timeout_ms, struct upstream **ret_upstream)
{
    struct upstream *up = must_be_fresh ? NULL : take_kept(pool, backend);

    if (up) {
        up->was_kept = true;
        up->stage = STAGE_HEAD;
        up->is_full_read = false;
        up->received = 0;
        up->scanned = 0;
    } else {
        up = make(pool, backend, connect_timeout_ms);
        if (!up)
            return ERR_NO_MEMORY;
        errno = ECONNREFUSED; /* a host without an address makes no call that would set it */
        if (!start_connecting(up)) {
            int reason = errno;
            ring_add(&pool->busy, up);
            bury(up);
            if (reason == ENOMEM)
                return ERR_NO_MEMORY;
            return reason == EMFILE || reason == ENFILE ? ERR_SYSTEM : ERR_REFUSED;
        }
        up->stage = STAGE_CONNECTING;
    }
    up->who = who;
    ring_add(&pool->busy, up);
    *ret_upstream = up;
    return ERR_OK;
}

bool upstream_was_kept(const struct upstream *up)
{
    return up->was_kept;
}

bool upstream_is_paused(const struct upstream *up)
{
    return up->is_paused;
}

bool upstream_is_sent(const struct upstream *up)
{
    return up->unsent.len == 0;
}

uint64_t upstream_received(const struct upstream *up)
{
    return up->received;
}

static struct slice after(struct slice slice, size_t done)
{
    return (struct slice){ slice.at + done, slice.len - done };
}

static void read_again(struct upstream *up)
{
    if (up->is_again)
        return;
    up->is_again = true;
    up->next_again = up->pool->again;
    up->pool->again = up;
}

/* Writes what it can. What an error means is for reading to say, in the loop's next turn: how the connection ended, and
 * whatever the backend said before it ended. */
static void flush(struct upstream *up)
{
    if (up->stage == STAGE_CONNECTING)
        return; /* a write would take the error that on_connected() looks for */
    while (up->unsent.len) {
        ssize_t sent = send(up->fd, up->unsent.at, up->unsent.len, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            if (errno != EAGAIN) /* a kept connection that had died: its edge may have passed before it was lent */
                read_again(up);
            return;
        }
        up->unsent = after(up->unsent, (size_t)sent);
    }
}

void upstream_send(struct upstream *up, struct slice bytes)
{
    up->unsent = bytes;
    flush(up);
}

static void keep(struct upstream *up)
{
    struct upstream_pool *pool = up->pool;

    if (!up->keeps_alive || up->is_closed || up->is_full_read || !upstream_is_sent(up) ||
        pool->kept_count >= MAX_KEPT) {
        bury(up);
        return;
    }
    up->who = NULL;
    up->stage = STAGE_KEPT;
    up->is_paused = up->has_more = false;
    ring_remove(up);
    ring_add(&pool->kept, up);
    pool->kept_count++;
    wheel_set(pool->wheel, &up->deadline, clock_ms() + KEPT_MS);
}

static void end_exchange(struct upstream *up, bool has_trailing_bytes)
{
    up->stage = STAGE_OVER;
    if (has_trailing_bytes)
        up->keeps_alive = false; /* nobody knows what follows: never reused */
    if (up->who)
        up->who->story->on_end(up->who);
    else
        keep(up);
}

/* One step of the body. False: nothing more can be done with these bytes. */
static bool feed_body(struct upstream *up, struct slice *bytes)
{
    const char *why = "broken body framing";
    struct slice payload = { 0 };
    size_t used = 0;
    enum http_result result = http_body_next(&up->framing, bytes->at, bytes->len, &used, &payload, &why);

    *bytes = after(*bytes, used);
    if (result == HTTP_BAD || result == HTTP_TOO_BIG) {
        lose(up, UPSTREAM_BAD, why);
        return false;
    }
    if (payload.len && up->who)
        up->who->story->on_payload(up->who, payload, result == HTTP_DONE);
    else if (payload.len && up->framing.seen > up->ending_from + MAX_ENDING_BYTES)
        bury(up);
    if (up->stage != STAGE_BODY)
        return false; /* given back meanwhile */
    if (result == HTTP_DONE) {
        end_exchange(up, bytes->len > 0);
        return false;
    }
    return bytes->len > 0;
}

/* A head in pieces cannot be gathered any further. */
COLD static void lose_head(struct upstream *up)
{
    bool has_no_memory = up->head_text.err == ERR_NO_MEMORY;

    lose(up, has_no_memory ? UPSTREAM_NO_MEMORY : UPSTREAM_BAD,
         has_no_memory ? "no memory for its head" : "the head is too large");
}

static bool take_head(struct upstream *up, struct http_head *head)
{
    if (head->status < 200) {
        if (head->status == 101)
            lose(up, UPSTREAM_BAD, "switched protocols");
        return head->status != 101; /* 100 and the like: the real head follows */
    }
    up->keeps_alive = head->keeps_alive;
    up->stage = STAGE_BODY;
    http_body_init(&up->framing, head->framing, head->content_length);
    up->who->story->on_head(up->who, head);
    return up->stage == STAGE_BODY;
}

/* Looks for a head in what came, or in what came before and this. False: nothing more can be done. */
static bool feed_head(struct upstream *up, struct slice *bytes)
{
    struct http_head *head = &up->pool->head;
    bool is_gathered = up->head_text.len > 0;
    size_t before = up->head_text.len;
    const char *why = "not HTTP";
    struct slice from = *bytes;
    enum http_result result;

    if (is_gathered) {
        text_add_slice(&up->head_text, *bytes);
        if (up->head_text.err) {
            lose_head(up);
            return false;
        }
        from = text_slice(&up->head_text);
    }
    result = http_parse_response(head, from.at, from.len, MAX_HEAD_BYTES, &up->scanned, false, &why);
    if (result == HTTP_MORE) {
        if (!is_gathered)
            text_add_slice(&up->head_text, *bytes);
        if (up->head_text.err)
            lose_head(up);
        return false;
    }
    if (result != HTTP_DONE) {
        lose(up, UPSTREAM_BAD, why);
        return false;
    }
    *bytes = after(*bytes, head->bytes - before);
    up->scanned = 0;
    if (!take_head(up, head))
        return false;
    text_release_wiped(&up->head_text);
    if (up->stage == STAGE_BODY &&
        (up->framing.framing == HTTP_NO_BODY || (up->framing.framing == HTTP_LENGTH && up->framing.left == 0))) {
        end_exchange(up, bytes->len > 0);
        return false;
    }
    return bytes->len > 0;
}

static void feed(struct upstream *up, struct slice bytes)
{
    bool goes_on = bytes.len > 0;

    up->received += bytes.len;
    backend_lives(up->backend, clock_ms());
    while (goes_on && (up->stage == STAGE_HEAD || up->stage == STAGE_BODY))
        goes_on = up->stage == STAGE_HEAD ? feed_head(up, &bytes) : feed_body(up, &bytes);
    if (up->stage != STAGE_DEAD && up->stage != STAGE_KEPT && up->who)
        up->who->story->on_turn(up->who);
}

/* The backend ended its side: orderly with a FIN, or with a reset. */
COLD static void on_eof(struct upstream *up, bool is_orderly)
{
    if (is_orderly && up->stage == STAGE_BODY && up->framing.framing == HTTP_UNTIL_CLOSE) {
        up->keeps_alive = false;
        end_exchange(up, false);
        return;
    }
    if (up->stage == STAGE_KEPT || up->stage == STAGE_OVER)
        bury(up);
    else
        lose(up, UPSTREAM_HUNG_UP,
             up->received ? "the connection ended in the middle of the answer"
                          : "the connection ended before the answer");
}

/* May it still be read from? Callbacks of one read may have paused it, given it back or closed it. */
static bool is_reading(const struct upstream *up)
{
    return (up->stage == STAGE_HEAD || up->stage == STAGE_BODY) && !up->is_paused;
}

static void read_some(struct upstream *up)
{
    bool is_empty = false;

    for (unsigned reads = 0; is_reading(up) && !is_empty; reads++) {
        ssize_t got;

        if (reads == MAX_READS) {
            read_again(up);
            return;
        }
        got = recv(up->fd, up->pool->scratch, up->pool->scratch_bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            on_eof(up, got == 0);
            return;
        }
        up->is_full_read = (size_t)got == up->pool->scratch_bytes;
        is_empty = !up->is_full_read && !up->is_closed;
        feed(up, (struct slice){ up->pool->scratch, (size_t)got });
        explicit_bzero(up->pool->scratch, (size_t)got); /* answers */
    }
    if (up->is_paused)
        up->has_more = true;
}

void upstream_pool_go_on(struct upstream_pool *pool)
{
    struct upstream *up = pool->again;

    pool->again = NULL;
    while (up) {
        struct upstream *next = up->next_again;
        up->is_again = false;
        if (up->stage != STAGE_DEAD)
            read_some(up);
        up = next;
    }
}

bool upstream_pool_has_more(const struct upstream_pool *pool)
{
    return pool->again != NULL;
}

COLD static void on_connected(struct upstream *up)
{
    int error = 0;
    socklen_t bytes = sizeof error;

    (void)getsockopt(up->fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error) {
        shut(up);
        if (start_connecting(up))
            return;
        lose(up, UPSTREAM_UNREACHABLE, "connecting was refused");
        return;
    }
    wheel_clear(up->pool->wheel, &up->deadline);
    atomic_store_explicit(&up->backend->good_address, (up->address - 1) % up->backend->address_count,
                          memory_order_relaxed);
    up->stage = STAGE_HEAD;
}

static void on_event(struct watch *watch, unsigned what)
{
    struct upstream *up = (void *)((char *)watch - offsetof(struct upstream, watch));

    clock_turn();
    if (up->stage == STAGE_DEAD)
        return;
    up->is_closed |= (what & LOOP_CLOSED) != 0;
    if (up->stage == STAGE_KEPT) {
        if (what & (LOOP_READABLE | LOOP_CLOSED))
            bury(up); /* closed by the backend, or bytes nobody asked for */
        return;
    }
    if (up->stage == STAGE_CONNECTING) {
        on_connected(up);
        if (up->stage != STAGE_HEAD)
            return;
    }
    if (what & LOOP_WRITABLE)
        flush(up);
    if (what & (LOOP_READABLE | LOOP_CLOSED))
        read_some(up);
    if ((what & LOOP_CLOSED) && up->stage == STAGE_KEPT)
        bury(up); /* the answer was whole, and the connection ended with it */
}

void upstream_pause(struct upstream *up)
{
    up->is_paused = true;
}

void upstream_resume(struct upstream *up)
{
    if (!up->is_paused)
        return;
    up->is_paused = false;
    if (up->has_more) {
        up->has_more = false;
        read_again(up);
    }
}

void upstream_give_back(struct upstream *up, bool is_whole)
{
    if (up->stage == STAGE_DEAD)
        return;
    up->who = NULL;
    if (up->stage == STAGE_OVER) {
        keep(up);
    } else if (is_whole && up->stage == STAGE_BODY && upstream_is_sent(up)) {
        up->ending_from = up->framing.seen;
        wheel_set(up->pool->wheel, &up->deadline, clock_ms() + ENDING_MS);
        upstream_resume(up);
    } else {
        bury(up);
    }
}

void upstream_close(struct upstream *up)
{
    bury(up);
}
