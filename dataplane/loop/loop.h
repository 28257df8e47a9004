/*
 * loop - what one thread waits on: descriptors, and the kernel's news of them (epoll(7)). Deadlines are the wheel's.
 * Owned by its thread, on which everything here is called and everybody told.
 *
 * It is this small since it lies on the way of every request: libevent, which the control thread keeps, looks
 * descriptors up in tables of its own, reads the clock twice and keeps a heap of timers, all of it memory that is cold
 * when a request comes (tests/bench/footprint counts it). A loop's own descriptor is readable while there is news:
 * another loop can wait for it.
 */
#pragma once
#include <stdbool.h>
#include <sys/epoll.h>

/* LOOP_CLOSED: the other side has ended its half (FIN), or the connection is broken (reset, error, both halves ended).
 * Of a broken one it is told as readable and writable, too: reading says why. */
enum { LOOP_READABLE = 1, LOOP_WRITABLE = 2, LOOP_CLOSED = 4 };

/* A part of whoever is told, who must live from loop_watch() to loop_leave(). */
struct watch {
    void (*on_event)(struct watch *watch, unsigned what);
};

enum { LOOP_BATCH = 256 }; /* how many are told in one turn; the rest stands with the kernel until the next */

struct loop {
    int fd; /* -1: not open */
    int at, count;
    struct epoll_event events[LOOP_BATCH]; /* of the present turn; those before `at` have been told */
};

/* How often: at each edge, of all three kinds (EPOLLET); or in each turn as long as there is something to read. */
enum loop_manner { LOOP_AT_EDGES, LOOP_WHILE_READABLE };

bool loop_open(struct loop *loop); /* false: errno says why */
void loop_close(struct loop *loop);
/* False: no memory, or more than /proc/sys/fs/epoll/max_user_watches. */
bool loop_watch(struct loop *loop, int fd, struct watch *watch, enum loop_manner manner);
/* Before the descriptor is closed. Nothing is told any more, not even what has come in this turn. */
void loop_leave(struct loop *loop, int fd, struct watch *watch);
/* Waits for news (0: does not; -1: for ever) and tells those whom it is for. */
void loop_turn(struct loop *loop, int wait_ms);
