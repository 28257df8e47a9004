#include "loop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

uint64_t clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- timers: a binary heap, places from 1 --- */

static void heap_put(struct loop *loop, size_t place, struct timer *timer)
{
    loop->heap[place] = timer;
    timer->place = place;
}

static void heap_up(struct loop *loop, size_t place, struct timer *timer)
{
    while (place > 1 && loop->heap[place / 2]->due_ns > timer->due_ns) {
        heap_put(loop, place, loop->heap[place / 2]);
        place /= 2;
    }
    heap_put(loop, place, timer);
}

static void heap_down(struct loop *loop, size_t place, struct timer *timer)
{
    for (;;) {
        size_t child = place * 2;

        if (child > loop->heap_len)
            break;
        if (child < loop->heap_len && loop->heap[child + 1]->due_ns < loop->heap[child]->due_ns)
            child++;
        if (loop->heap[child]->due_ns >= timer->due_ns)
            break;
        heap_put(loop, place, loop->heap[child]);
        place = child;
    }
    heap_put(loop, place, timer);
}

void timer_cancel(struct loop *loop, struct timer *timer)
{
    size_t place = timer->place;
    struct timer *last;

    if (!place)
        return;
    timer->place = 0;
    last = loop->heap[loop->heap_len--];
    if (last == timer)
        return;
    if (place > 1 && loop->heap[place / 2]->due_ns > last->due_ns)
        heap_up(loop, place, last);
    else
        heap_down(loop, place, last);
}

void timer_set(struct loop *loop, struct timer *timer, uint64_t due_ns)
{
    timer_cancel(loop, timer);
    if (loop->heap_len + 2 > loop->heap_cap) {
        loop->heap_cap = loop->heap_cap ? loop->heap_cap * 2 : 256;
        loop->heap = realloc(loop->heap, loop->heap_cap * sizeof *loop->heap);
        if (!loop->heap)
            abort();
    }
    timer->due_ns = due_ns;
    heap_up(loop, ++loop->heap_len, timer);
}

static void timers_run(struct loop *loop)
{
    while (loop->heap_len && loop->heap[1]->due_ns <= loop->now_ns) {
        struct timer *timer = loop->heap[1];

        timer_cancel(loop, timer);
        timer->on_due(timer);
    }
}

/* --- the loop --- */

static void on_wake(struct source *source, uint32_t events)
{
    struct loop *loop = (struct loop *)(void *)((char *)source - offsetof(struct loop, wake_source));
    uint64_t count;

    (void)events;
    if (read(loop->wake, &count, sizeof count) < 0 && errno != EAGAIN)
        perror("fake-ollama: eventfd");
    loop->on_wake(loop);
}

void loop_watch(struct loop *loop, int fd, struct source *source, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = source };

    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        perror("fake-ollama: epoll_ctl");
}

void loop_forget(struct loop *loop, int fd)
{
    (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, fd, NULL);
}

void loop_init(struct loop *loop)
{
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->epoll < 0 || loop->wake < 0) {
        perror("fake-ollama: epoll");
        exit(1);
    }
    loop->wake_source.on_ready = on_wake;
    loop->now_ns = clock_ns();
    loop_watch(loop, loop->wake, &loop->wake_source, EPOLLIN);
}

void loop_release(struct loop *loop)
{
    (void)close(loop->epoll);
    (void)close(loop->wake);
    free(loop->heap);
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;

    if (write(loop->wake, &one, sizeof one) < 0 && errno != EAGAIN)
        perror("fake-ollama: eventfd");
}

static int patience_ms(const struct loop *loop)
{
    uint64_t left_ns;

    if (!loop->heap_len)
        return -1;
    if (loop->heap[1]->due_ns <= loop->now_ns)
        return 0;
    left_ns = loop->heap[1]->due_ns - loop->now_ns;
    return left_ns > 3600000000000u ? 3600000 : (int)((left_ns + 999999) / 1000000);
}

void loop_run(struct loop *loop)
{
    struct epoll_event events[256];

    while (!__atomic_load_n(&loop->stops, __ATOMIC_ACQUIRE)) {
        int count;

        loop->now_ns = clock_ns();
        count = epoll_wait(loop->epoll, events, 256, patience_ms(loop));
        loop->now_ns = clock_ns();
        for (int i = 0; i < count; i++) {
            struct source *source = events[i].data.ptr;

            source->on_ready(source, events[i].events);
        }
        timers_run(loop);
        loop->on_turn(loop);
    }
}
