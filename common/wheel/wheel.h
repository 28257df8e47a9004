/*
 * wheel - all deadlines of one loop: a hashed timing wheel, no system call and no allocation a deadline.
 * Owned by a worker; loop thread only. Times are monotonic ms and passed in, so that tests need not sleep.
 * A deadline fires on the first wheel_turn() at or after its time, at most WHEEL_TICK_MS later than the loop
 * turns the wheel. Setting a deadline that is already set moves it; moving it later costs two stores.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WHEEL_TICK_MS = 16, WHEEL_SLOTS = 512 };

struct deadline {
    struct deadline *next, *prev; /* NULL when not set */
    int64_t at_ms;                /* when it is due */
    void (*on_due)(struct deadline *deadline, int64_t now_ms);
};

struct wheel {
    struct deadline slots[WHEEL_SLOTS]; /* heads of rings */
    int64_t turned_ms;                  /* everything due up to here has fired */
    unsigned count;                     /* deadlines set */
};

void wheel_init(struct wheel *wheel, int64_t now_ms);
void wheel_set(struct wheel *wheel, struct deadline *deadline, int64_t at_ms);
void wheel_clear(struct wheel *wheel, struct deadline *deadline);
static inline bool deadline_is_set(const struct deadline *deadline)
{
    return deadline->next != NULL;
}
/* How long the loop may sleep, as epoll_wait() wants it; -1: no deadline is set. */
int wheel_wait_ms(const struct wheel *wheel, int64_t now_ms);
/* Fires what is due. A callback may set and clear any deadline. */
void wheel_turn(struct wheel *wheel, int64_t now_ms);
