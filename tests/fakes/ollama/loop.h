/*
 * loop - one thread's epoll, its timers in a heap, and the way for other threads to wake it.
 * A worker owns its connections; everything else that is shared lives in books. Times end in _ns and are
 * CLOCK_MONOTONIC. Callbacks run on the worker's thread.
 */
#pragma once
#include "gojson.h"

#include <pthread.h>

struct loop;

/* What epoll points at; first member of whatever owns the file descriptor. */
struct source {
    void (*on_ready)(struct source *source, uint32_t events);
};

struct timer {
    uint64_t due_ns;
    size_t place; /* in the heap, from 1; 0 = not set */
    void (*on_due)(struct timer *timer);
};

struct loop {
    int epoll;
    int wake; /* eventfd */
    struct source wake_source;
    struct timer **heap;
    size_t heap_len;
    size_t heap_cap;
    uint64_t now_ns; /* of this turn */
    bool stops;
    void (*on_wake)(struct loop *loop);
    void (*on_turn)(struct loop *loop); /* after each turn: the place to free what callbacks gave up */
};

void loop_init(struct loop *loop);
void loop_release(struct loop *loop);
void loop_run(struct loop *loop);  /* until stops */
void loop_wake(struct loop *loop); /* from any thread */
void loop_watch(struct loop *loop, int fd, struct source *source, uint32_t events);
void loop_forget(struct loop *loop, int fd);

void timer_set(struct loop *loop, struct timer *timer, uint64_t due_ns);
void timer_cancel(struct loop *loop, struct timer *timer);

uint64_t clock_ns(void); /* CLOCK_MONOTONIC now */
