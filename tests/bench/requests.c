/* Every connection asks, reads its answer whole, and asks again, until the time is over. */
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
    uint64_t asked_us;
    struct reply reply;
};

static struct spread latency;
static struct {
    uint64_t answers, wrong, broken, reconnects;
    bool counts; /* the warming up is over */
} books;
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

static void connect_again(struct caller *caller, const struct load *load)
{
    (void)close(caller->fd);
    books.reconnects++;
    reply_restart(&caller->reply);
    caller->sent = 0;
    caller->asked_us = load_now_us();
    caller->fd = load_connect(load, caller); /* its first event sends */
}

static void book(const struct caller *caller, const struct load *load)
{
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
    else
        ask(caller, load);
    return false;
}

static void serve(struct load *load, uint64_t until_us)
{
    struct epoll_event events[EVENTS];

    while (load_now_us() < until_us) {
        int count = epoll_wait(load->epoll, events, EVENTS, 50);

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

static void print(const struct watch *before, const struct watch *after, uint64_t took_us)
{
    printf("{\"answers\":%llu,\"wrong\":%llu,\"broken\":%llu,\"reconnects\":%llu,\"per_s\":%.1f,\"p50_us\":%.1f,\"p99_"
           "us\":%.1f,"
           "\"p999_us\":%.1f,\"resident\":%llu,",
           (unsigned long long)books.answers, (unsigned long long)books.wrong, (unsigned long long)books.broken,
           (unsigned long long)books.reconnects, (double)books.answers * 1e6 / (double)took_us,
           spread_at(&latency, 0.5), spread_at(&latency, 0.99), spread_at(&latency, 0.999),
           (unsigned long long)after->resident_bytes);
    load_print_cost(before, after, books.answers);
    printf("}\n");
}

int load_requests(struct load *load)
{
    struct caller *callers = calloc(load->connections, sizeof *callers);
    struct watch before, after;
    uint64_t start_us;

    if (!callers)
        return EXIT_FAILURE;
    for (unsigned i = 0; i < load->connections; i++) {
        callers[i].asked_us = load_now_us();
        callers[i].fd = load_connect(load, &callers[i]);
    }
    serve(load, load_now_us() + load->warm_ms * 1000ull);
    before = watch_look(load->pid);
    books.counts = true;
    start_us = load_now_us();
    serve(load, start_us + load->run_ms * 1000ull);
    after = watch_look(load->pid);
    print(&before, &after, load_now_us() - start_us);
    for (unsigned i = 0; i < load->connections; i++)
        (void)close(callers[i].fd);
    free(callers);
    return EXIT_SUCCESS;
}
