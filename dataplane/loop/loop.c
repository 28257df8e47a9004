#include "loop.h"

#include <stddef.h>
#include <unistd.h>

bool loop_open(struct loop *loop)
{
    loop->at = loop->count = 0;
    loop->fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->fd >= 0;
}

void loop_close(struct loop *loop)
{
    if (loop->fd >= 0)
        (void)close(loop->fd);
    loop->fd = -1;
}

bool loop_watch(struct loop *loop, int fd, struct watch *watch, enum loop_manner manner)
{
    struct epoll_event event = {
        .events = manner == LOOP_AT_EDGES ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN,
        .data.ptr = watch,
    };

    return epoll_ctl(loop->fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

void loop_leave(struct loop *loop, int fd, struct watch *watch)
{
    (void)epoll_ctl(loop->fd, EPOLL_CTL_DEL, fd, NULL);
    for (int i = loop->at; i < loop->count; i++)
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
}

static unsigned meaning(unsigned events)
{
    unsigned what = (events & EPOLLIN ? LOOP_READABLE : 0) | (events & EPOLLOUT ? LOOP_WRITABLE : 0) |
                    (events & EPOLLRDHUP ? LOOP_CLOSED : 0);

    return events & (EPOLLERR | EPOLLHUP) ? LOOP_READABLE | LOOP_WRITABLE | LOOP_CLOSED : what;
}

void loop_turn(struct loop *loop, int wait_ms)
{
    int count = epoll_wait(loop->fd, loop->events, LOOP_BATCH, wait_ms); /* -1: a signal, and nothing has come */

    loop->count = count;
    for (loop->at = 0; loop->at < loop->count;) {
        const struct epoll_event *event = &loop->events[loop->at++];
        struct watch *watch = event->data.ptr;
        if (watch)
            watch->on_event(watch, meaning(event->events));
    }
    loop->at = loop->count = 0;
}
