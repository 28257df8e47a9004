/*
 * Every connection asks, reads its answer whole, and asks again, until the time is over.
 *
 * With a rate the questions have their times beforehand, evenly, and each is asked by the connection that has been idle
 * for the longest. One for which none is idle waits, and its latency counts from when it should have been asked: a slow
 * answer is not allowed to hide those behind it.
 */
#include "load.h"
#include "reply.h"
#include "spread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, SCRATCH_BYTES = 64 << 10 };

struct caller {
    int fd;
    size_t sent;
    uint64_t asked_us; /* with a rate: when it should have been */
    struct caller *next_idle;
    bool is_idle;
    struct reply reply;
};

static struct spread latency, delays; /* delays: of the questions, behind their times */
static struct {
    uint64_t answers, wrong, broken, reconnects;
    uint64_t all; /* answers, those of the warming up too */
    bool counts;  /* the warming up is over */
} books;
static struct {
    struct caller *first, *last; /* idle ones */
    uint64_t begin_us, asked;    /* when the first question is due, and how many have been asked */
} schedule;
static char scratch[SCRATCH_BYTES];

static void send_more(struct caller *caller, const struct load *load)
{
    while (caller->sent < load->request_bytes) {
        ssize_t sent = send(caller->fd, load->request + caller->sent, load->request_bytes - caller->sent, MSG_NOSIGNAL);

        if (sent <= 0)
            return; /* reading tells how it ended */
        caller->sent += (size_t)sent;
    }
}

static void ask(struct caller *caller, const struct load *load)
{
    reply_restart(&caller->reply);
    caller->sent = 0;
    caller->asked_us = load_now_us();
    send_more(caller, load);
}

static void rest(struct caller *caller)
{
    if (caller->is_idle)
        return; /* its connection was closed meanwhile */
    caller->is_idle = true;
    caller->next_idle = NULL;
    if (schedule.first)
        schedule.last->next_idle = caller;
    else
        schedule.first = caller;
    schedule.last = caller;
}

static uint64_t due_us(const struct load *load)
{
    return schedule.begin_us + schedule.asked * 1000000 / load->rate;
}

static void ask_what_is_due(const struct load *load)
{
    while (schedule.first && due_us(load) <= load_now_us()) {
        struct caller *caller = schedule.first;
        uint64_t due = due_us(load);

        schedule.first = caller->next_idle;
        caller->is_idle = false;
        schedule.asked++;
        if (books.counts)
            spread_add(&delays, load_now_us() - due);
        ask(caller, load);
        caller->asked_us = due;
    }
}

static void connect_again(struct caller *caller, const struct load *load)
{
    (void)close(caller->fd);
    books.reconnects++;
    reply_restart(&caller->reply);
    caller->sent = 0;
    caller->asked_us = load_now_us();
    caller->fd = load_connect(load, caller); /* its first event sends */
    if (load->rate) {
        caller->sent = load->request_bytes; /* there is no question to send again */
        rest(caller);
    }
}

static void book(const struct caller *caller, const struct load *load)
{
    books.all++;
    if (!books.counts)
        return;
    books.answers++;
    books.wrong += caller->reply.status != load->expects;
    spread_add(&latency, load_now_us() - caller->asked_us);
}

/* False: no more can be read now. */
static bool read_once(struct caller *caller, const struct load *load)
{
    ssize_t got = read(caller->fd, scratch, sizeof scratch);
    size_t used;

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        books.broken++;
        connect_again(caller, load);
        return false;
    }
    used = reply_feed(&caller->reply, scratch, (size_t)got, NULL, NULL);
    if (caller->reply.state == REPLY_BAD || used < (size_t)got) {
        books.broken++;
        connect_again(caller, load);
        return false;
    }
    if (caller->reply.state != REPLY_DONE)
        return (size_t)got == sizeof scratch;
    book(caller, load);
    if (caller->reply.closes)
        connect_again(caller, load);
    else if (load->rate)
        rest(caller);
    else
        ask(caller, load);
    return false;
}

static void serve(struct load *load, uint64_t until_us)
{
    struct epoll_event events[EVENTS];

    while (load_now_us() < until_us) {
        uint64_t wake_us = until_us;
        int count;

        if (load->rate)
            ask_what_is_due(load);
        if (schedule.first && due_us(load) < until_us)
            wake_us = due_us(load);
        count = load_wait(load, events, EVENTS, wake_us);
        for (int i = 0; i < count; i++) {
            struct caller *caller = events[i].data.ptr;

            if ((events[i].events & EPOLLOUT) && caller->sent < load->request_bytes)
                send_more(caller, load);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
                while (read_once(caller, load))
                    ;
        }
    }
}

/* Questions that are due and were not asked: nobody was idle, because answers take too long. */
static uint64_t behind(const struct load *load)
{
    uint64_t due = load->rate ? (load_now_us() - schedule.begin_us) * load->rate / 1000000 : 0;

    return due > schedule.asked + 1 ? due - schedule.asked - 1 : 0;
}

static void print(const struct watch *before, const struct watch *after, const struct load *load)
{
    printf("{\"answers\":%llu,\"all_answers\":%llu,\"wrong\":%llu,\"broken\":%llu,\"reconnects\":%llu,\"behind\":%llu,",
           (unsigned long long)books.answers, (unsigned long long)books.all, (unsigned long long)books.wrong,
           (unsigned long long)books.broken, (unsigned long long)books.reconnects, (unsigned long long)behind(load));
    printf("\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"late_p99_us\":%.1f,", spread_at(&latency, 0.5),
           spread_at(&latency, 0.99), spread_at(&latency, 0.999), spread_at(&delays, 0.99));
    load_print_cost(before, after);
    printf(",\"latencies\":");
    spread_print(&latency);
    printf("}\n");
}

static void open_all(struct load *load, struct caller *callers)
{
    for (unsigned i = 0; i < load->connections; i++) {
        callers[i].asked_us = load_now_us();
        callers[i].fd = load_connect(load, &callers[i]);
        if (load->rate) {
            callers[i].sent = load->request_bytes;
            rest(&callers[i]);
        }
    }
    schedule.begin_us = load_now_us();
}

int load_requests(struct load *load)
{
    struct caller *callers = calloc(load->connections, sizeof *callers);
    struct watch before, after;

    if (!callers)
        return EXIT_FAILURE;
    open_all(load, callers);
    serve(load, load_now_us() + load->warm_ms * 1000ull);
    before = watch_look(load->pid, load->backend_pid);
    books.counts = true;
    serve(load, load_now_us() + load->run_ms * 1000ull);
    after = watch_look(load->pid, load->backend_pid);
    print(&before, &after, load);
    for (unsigned i = 0; i < load->connections; i++)
        (void)close(callers[i].fd);
    free(callers);
    return EXIT_SUCCESS;
}
