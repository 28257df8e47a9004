#include "conn.h"
#include "answer.h"
#include "models.h"
#include "options.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_AHEAD_MAX = 1 << 20, OUT_MAX = 1 << 18, READ_ROOM = 16384 };
#define DRAIN_NS 1000000000u

static void conn_drive(struct conn *conn);

static struct conn *conn_of_claim(struct claim *claim)
{
    return (struct conn *)(void *)((char *)claim - offsetof(struct conn, claim));
}

/* --- ends --- */

/* With the books' lock held, from whichever thread gave its slot back. */
static void on_granted(struct claim *claim)
{
    struct conn *conn = conn_of_claim(claim);

    conn->is_listed_granted = true;
    conn->granted_next = conn->worker->granted;
    conn->worker->granted = conn;
    loop_wake(&conn->worker->loop);
}

static void leave_granted(struct conn *conn)
{
    books_lock();
    if (conn->is_listed_granted) {
        struct conn **at = &conn->worker->granted;

        while (*at != conn)
            at = &(*at)->granted_next;
        *at = conn->granted_next;
        conn->is_listed_granted = false;
    }
    books_unlock();
}

/* The request is over for the books. */
static void conn_book(struct conn *conn, enum outcome outcome, const char *why)
{
    if (conn->is_control || (conn->state != CONN_WAITING && conn->state != CONN_PLAYING))
        return;
    if (conn->play.model_used) /* first: whoever gets the slot finds the model's time extended */
        model_rests(conn->play.model_used, conn->play.keep_alive_ns, clock_ns());
    conn->play.model_used = NULL;
    if (conn->play.needs_slot) {
        leave_granted(conn);
        books_unclaim(&conn->claim);
    }
    if (conn->play.eval_tokens >= 0)
        books_note_tokens(conn->record, conn->play.prompt_tokens, conn->play.eval_tokens);
    books_end(conn->record, conn->route, outcome, clock_ns(), why);
    conn->record = NULL;
}

void conn_close(struct conn *conn)
{
    struct loop *loop = &conn->worker->loop;

    if (conn->is_dead)
        return;
    conn_book(conn, ABORTED, NULL);
    conn->is_dead = true;
    if (conn->waiter)
        control_forget(conn);
    timer_cancel(loop, &conn->pace);
    timer_cancel(loop, &conn->send_again);
    (void)close(conn->fd);
    if (!conn->is_control)
        books_connection(-1);
    *conn->back = conn->next;
    if (conn->next)
        conn->next->back = conn->back;
    conn->next = conn->worker->dead;
    conn->worker->dead = conn;
}

void conn_reset(struct conn *conn)
{
    struct linger now = { .l_onoff = 1 };

    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    conn_close(conn);
}

void conn_free(struct conn *conn)
{
    play_reset(&conn->play);
    bytes_release(&conn->play.fixed);
    bytes_release(&conn->play.model);
    bytes_release(&conn->play.echo);
    bytes_release(&conn->play.call);
    bytes_release(&conn->play.context);
    bytes_release(&conn->in);
    bytes_release(&conn->out);
    http_release(&conn->req);
    free(conn);
}

/* Says goodbye so that the peer can read everything: FIN, then its bytes are read away until it closes too. */
static void conn_drain(struct conn *conn)
{
    if (conn->is_eof) {
        conn_close(conn);
        return;
    }
    conn->state = CONN_DRAINING;
    (void)shutdown(conn->fd, SHUT_WR);
    timer_set(&conn->worker->loop, &conn->pace, conn->worker->loop.now_ns + DRAIN_NS);
}

/* --- sending, and the accidents a script asks for --- */

/* How many bytes may still go before the script's accident; -1: no accident. */
static int64_t bytes_before_accident(const struct conn *conn)
{
    const struct deed *deed = conn->play.deed;
    int64_t least = -1;

    if (!deed)
        return -1;
    for (int i = 0; i < 3; i++) {
        int64_t at = i == 0 ? deed->hangup_after_bytes : i == 1 ? deed->reset_after_bytes : deed->stall_after_bytes;

        if (at >= 0 && (least < 0 || at < least))
            least = at;
    }
    return least < 0 ? -1 : least - (int64_t)conn->sent;
}

static void accident(struct conn *conn)
{
    const struct deed *deed = conn->play.deed;
    int64_t sent = (int64_t)conn->sent;

    if (sent == deed->stall_after_bytes) {
        conn->is_stalled = true;
        return;
    }
    conn_book(conn, ANSWERED, "cut by the script");
    if (sent == deed->reset_after_bytes)
        conn_reset(conn);
    else
        conn_close(conn);
}

static size_t next_send(const struct conn *conn)
{
    const struct deed *deed = conn->play.deed;
    size_t len = conn->out.len - conn->out_at;
    int64_t allowed = bytes_before_accident(conn);

    if (allowed >= 0 && (int64_t)len > allowed)
        len = (size_t)allowed;
    if (deed && deed->split > 0 && (int64_t)len > deed->split)
        len = (size_t)deed->split;
    return len;
}

static void out_clear(struct conn *conn)
{
    conn->out.len = conn->out_at = 0;
    if (conn->out.cap > OUT_MAX)
        bytes_release(&conn->out);
}

/* True: everything is out. False: later, or never. */
static bool conn_flush(struct conn *conn)
{
    while (!conn->is_dead && !conn->is_stalled && conn->out_at < conn->out.len) {
        size_t len = next_send(conn);
        ssize_t sent;

        if (len == 0) {
            accident(conn);
            return false;
        }
        sent = send(conn->fd, conn->out.at + conn->out_at, len, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        if (sent < 0) {
            conn_close(conn);
            return false;
        }
        conn->out_at += (size_t)sent;
        conn->sent += (uint64_t)sent;
        if (conn->play.deed && conn->play.deed->split > 0 && conn->out_at < conn->out.len) {
            timer_set(&conn->worker->loop, &conn->send_again,
                      conn->worker->loop.now_ns + (uint64_t)conn->play.deed->split_ms * 1000000u);
            return false;
        }
    }
    if (conn->is_dead || conn->is_stalled)
        return false;
    if (bytes_before_accident(conn) == 0 && conn->state == CONN_PLAYING) {
        accident(conn);
        return false;
    }
    out_clear(conn);
    return true;
}

/* The head is out, the process goes: as if the kernel had killed it. */
_Noreturn static void die(struct conn *conn)
{
    size_t at = conn->out_at;

    while (at < conn->out.len) {
        ssize_t sent = send(conn->fd, conn->out.at + at, conn->out.len - at, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    _exit(1);
}

/* --- the life of a request --- */

static void conn_answered(struct conn *conn)
{
    bool keeps_alive = conn->play.keeps_alive;

    conn_book(conn, ANSWERED, NULL);
    play_reset(&conn->play);
    http_restart(&conn->req);
    conn->state = CONN_READING;
    conn->sent = 0;
    conn->is_over = conn->was_continued = false;
    if (!keeps_alive)
        conn_drain(conn);
}

/* True: the answer is out, on with the next request. */
static bool conn_pump(struct conn *conn)
{
    struct loop *loop = &conn->worker->loop;

    while (conn_flush(conn)) {
        unsigned tokens;
        enum play_step step;

        if (conn->is_over) {
            conn_answered(conn);
            return !conn->is_dead;
        }
        if (conn->is_stalled)
            return false;
        if (conn->play.due_ns > loop->now_ns) {
            timer_set(loop, &conn->pace, conn->play.due_ns);
            return false;
        }
        step = play_step(&conn->play, loop->now_ns, &conn->out, &tokens);
        while (tokens--)
            books_token(conn->record);
        if (step == PLAY_DIES)
            die(conn);
        conn->is_over = step == PLAY_ENDED;
        if (step == PLAY_STALLED) {
            (void)conn_flush(conn);
            conn->is_stalled = !conn->is_dead && conn->out_at == conn->out.len;
            if (conn->is_stalled)
                return false;
        }
    }
    return false;
}

/* The peer left while we worked for it: as Go does, the work is cancelled and what can be said is said. */
static void conn_cancel(struct conn *conn)
{
    bool says_so = !conn->is_stalled && conn->out_at == conn->out.len && !conn->is_control;

    conn_book(conn, ABORTED, NULL);
    if (says_so) {
        play_cancel(&conn->play, &conn->out);
        if (conn->out.len && send(conn->fd, conn->out.at, conn->out.len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            out_clear(conn);
    }
    conn->state = CONN_DRAINING;
    conn_close(conn);
}

static void conn_malformed(struct conn *conn, const char *base, size_t len)
{
    struct bytes body = { 0 };

    if (!conn->is_control)
        books_malformed(&conn->req, base, len, clock_ns());
    if (!options.is_quiet)
        fprintf(stderr, "fake-ollama: malformed request: %s\n", conn->req.why);
    bytes_print(&body, "%d %s: %s", conn->req.status, http_status_text(conn->req.status), conn->req.why);
    conn->play.keeps_alive = false;
    play_fix(&conn->play, conn->req.status, "text/plain; charset=utf-8", (struct slice){ body.at, body.len });
    bytes_add(&conn->out, conn->play.fixed.at, conn->play.fixed.len);
    bytes_release(&body);
    (void)conn_flush(conn);
    if (!conn->is_dead)
        conn_drain(conn);
}

static void conn_start_play(struct conn *conn)
{
    conn->state = CONN_PLAYING;
    if (conn->play.how == PLAY_HANGUP) {
        conn_book(conn, ANSWERED, "cut by the script");
        conn_close(conn);
        return;
    }
    play_begin(&conn->play, conn->worker->loop.now_ns);
    if (conn->record && conn->play.needs_slot)
        books_started(conn->record, clock_ns());
}

static void conn_begin(struct conn *conn, const char *base)
{
    struct slice target = http_slice(base, conn->req.target);
    const char *query = memchr(target.at, '?', target.len);

    conn->route = route_of((struct slice){ target.at, query ? (size_t)(query - target.at) : target.len });
    conn->record = books_begin(conn->route, &conn->req, base, clock_ns());
    conn->state = CONN_WAITING;
    conn->is_stalled = false;
    answer_plan(&conn->play, conn->route, &conn->req, base, &conn->worker->arena);
    arena_clear(&conn->worker->arena);
    if (conn->play.is_load) {
        conn->route = ROUTE_LOAD;
        books_turn_to_load(conn->record);
    }
    if (conn->play.id[0])
        books_note_id(conn->record, slice_of(conn->play.id));
    conn->claim.slots = conn->play.slots;
    if (!conn->play.needs_slot || books_claim(&conn->claim))
        conn_start_play(conn);
}

static void conn_begin_control(struct conn *conn, const char *base)
{
    conn->state = CONN_WAITING;
    conn->play.keeps_alive = conn->req.keeps_alive;
    conn->play.is_http10 = conn->req.is_http10;
    control_handle(conn, http_slice(base, conn->req.method), http_slice(base, conn->req.target),
                   http_body(&conn->req, base));
}

void conn_reply(struct conn *conn, int status, struct slice json)
{
    play_fix(&conn->play, status, "application/json", json);
    conn->state = CONN_PLAYING;
    play_begin(&conn->play, conn->worker->loop.now_ns);
}

static void in_consume(struct conn *conn)
{
    conn->in_at += conn->req.len;
    if (conn->in_at < conn->in.len)
        return;
    conn->in_at = conn->in.len = 0;
    if (conn->in.cap > OUT_MAX)
        bytes_release(&conn->in);
}

static void say_continue(struct conn *conn)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";

    conn->was_continued = true;
    bytes_text(&conn->out, text);
    (void)conn_flush(conn);
}

/* True: there is a request to work on, or the connection is done. False: more bytes are needed. */
static bool conn_read_request(struct conn *conn)
{
    const char *base = conn->in.at + conn->in_at;
    size_t len = conn->in.len - conn->in_at;

    if (len == 0)
        return false;
    switch (http_read(&conn->req, base, len)) {
    case HTTP_MORE:
        if (conn->req.has_head && conn->req.wants_continue && !conn->was_continued)
            say_continue(conn);
        return false;
    case HTTP_BAD:
        conn_malformed(conn, base, len);
        return true;
    case HTTP_WHOLE:
        break;
    }
    if (conn->is_control)
        conn_begin_control(conn, base);
    else
        conn_begin(conn, base);
    if (!conn->is_dead)
        in_consume(conn);
    return true;
}

static void on_eof_while_reading(struct conn *conn)
{
    if (conn->in_at < conn->in.len && !conn->is_control)
        books_cut_short(clock_ns());
    conn_close(conn);
}

static bool conn_receive(struct conn *conn);

static void conn_drive(struct conn *conn)
{
    while (!conn->is_dead) {
        switch (conn->state) {
        case CONN_READING:
            if (conn->is_paused)
                (void)conn_receive(conn);
            if (conn->is_dead || conn_read_request(conn))
                continue;
            if (conn->is_eof)
                on_eof_while_reading(conn);
            return;
        case CONN_PLAYING:
            if (conn_pump(conn))
                continue;
            __attribute__((fallthrough));
        case CONN_WAITING:
            /* Bytes of a next request hide the end from Go, which reads no further while it works. */
            if (!conn->is_dead && conn->is_eof && conn->in_at == conn->in.len)
                conn_cancel(conn);
            return;
        case CONN_DRAINING:
            if (conn->is_eof)
                conn_close(conn);
            return;
        }
    }
}

/* --- news from the loop --- */

static void in_make_room(struct conn *conn)
{
    if (conn->in_at && conn->in.cap - conn->in.len < READ_ROOM) {
        memmove(conn->in.at, conn->in.at + conn->in_at, conn->in.len - conn->in_at);
        conn->in.len -= conn->in_at;
        conn->in_at = 0;
    }
    bytes_need(&conn->in, READ_ROOM);
}

/* False: the connection is broken, and closed. */
static bool conn_receive(struct conn *conn)
{
    bool is_announced = !conn->is_paused && !conn->is_missed;

    conn->is_paused = false;
    for (;;) {
        size_t room;
        ssize_t got;

        if (conn->state == CONN_DRAINING)
            conn->in.len = conn->in_at = 0;
        else if (conn->state != CONN_READING && conn->in.len - conn->in_at > READ_AHEAD_MAX)
            return conn->is_paused = true;
        in_make_room(conn);
        room = conn->in.cap - conn->in.len;
        got = recv(conn->fd, conn->in.at + conn->in.len, room, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got < 0) {
            if (conn->state == CONN_READING && conn->in_at < conn->in.len && !conn->is_control)
                books_cut_short(clock_ns());
            conn_close(conn);
            return false;
        }
        if (got == 0) {
            conn->is_eof = true;
            return true;
        }
        conn->in.len += (size_t)got;
        /* Edge-triggered: a short read means the socket is empty, and an end is announced by an event of its own. */
        if (is_announced && (size_t)got < room)
            return true;
    }
}

static void on_ready(struct source *source, uint32_t events)
{
    struct conn *conn = (struct conn *)source;

    if (conn->is_dead)
        return;
    if (conn->worker->is_blackhole && !conn->is_control) {
        conn->is_missed = true;
        return;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && !conn_receive(conn))
        return;
    /* A short read may have hidden the end that this same event announces. */
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && !conn->is_eof && !conn_receive(conn))
        return;
    conn_drive(conn);
}

static void on_pace(struct timer *timer)
{
    struct conn *conn = (struct conn *)(void *)((char *)timer - offsetof(struct conn, pace));

    if (conn->worker->is_blackhole && !conn->is_control)
        conn->is_missed = true;
    else if (conn->state == CONN_DRAINING)
        conn_close(conn);
    else
        conn_drive(conn);
}

static void on_send_again(struct timer *timer)
{
    struct conn *conn = (struct conn *)(void *)((char *)timer - offsetof(struct conn, send_again));

    if (conn->worker->is_blackhole && !conn->is_control)
        conn->is_missed = true;
    else
        conn_drive(conn);
}

void conn_granted(struct conn *conn)
{
    conn_start_play(conn);
    if (conn->worker->is_blackhole)
        conn->is_missed = true;
    else
        conn_drive(conn);
}

void conn_go_on(struct conn *conn)
{
    conn_drive(conn);
}

void conn_resume(struct conn *conn)
{
    if (!conn->is_missed)
        return;
    if (!conn_receive(conn))
        return;
    conn->is_missed = false;
    conn_drive(conn);
}

void conn_open(struct worker *worker, int fd, bool is_control)
{
    struct conn *conn = must_alloc(sizeof *conn);
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn->source.on_ready = on_ready;
    conn->worker = worker;
    conn->fd = fd;
    conn->is_control = is_control;
    conn->claim.on_granted = on_granted;
    conn->pace.on_due = on_pace;
    conn->send_again.on_due = on_send_again;
    conn->next = worker->conns;
    conn->back = &worker->conns;
    if (conn->next)
        conn->next->back = &conn->next;
    worker->conns = conn;
    if (!is_control)
        books_connection(1);
    loop_watch(&worker->loop, fd, &conn->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
}
