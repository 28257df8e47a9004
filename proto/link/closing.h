/*
 * closing - what is closed by a thread of its own, one after the other: sockets of attempts that are over, and a
 * server. nng 1.5.2 now and then never returns from nng_close(): its only reaper waits for a task that was announced
 * and never began (nanomsg/nng issues 1543, 1813; seen here once in some ten thousand closes on a busy machine).
 * Whoever called would hang for ever, and a gateway's control thread must not. What hangs costs its memory, and that of
 * whatever is closed after it; everything else goes on. Not a door: others include link.h.
 *
 * One line for the process; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Part of what is closed; its memory is the line's from closing_begin() on. */
struct closing {
    struct closing *next;
    void (*close)(struct closing *closing); /* closes, and frees */
};

void closing_begin(struct closing *closing);
/* Until everything that was begun is closed, at most so long. False: something is not. */
bool closing_wait(int64_t patience_ms);
/* Does the first one take so long that it will hardly end? */
bool closing_is_stuck(void);
