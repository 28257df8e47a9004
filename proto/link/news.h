/*
 * news - what nng's threads leave for ours: a list under a lock, and a bell. Also the deadline of who waits: one
 * descriptor that can be read when there is news or when the deadline has come. Not a door: others include link.h.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Part of what there is news about; in the box at most once. */
struct news {
    struct news *next;
    bool is_queued;       /* under the lock */
    bool is_about_a_peer; /* of the server: not about an ask */
};

struct news_box {
    pthread_mutex_t lock; /* also of what its user says */
    struct news *first, **last;
    int fd; /* epoll, of the two below */
    int bell, timer;
    int64_t deadline_ms;
};

bool news_open(struct news_box *box);
void news_close(struct news_box *box);
/* Any thread. With the lock held or not. */
void news_put(struct news_box *box, struct news *news);
void news_put_locked(struct news_box *box, struct news *news);
/* Silences the bell; to be followed by news_next() until NULL, or news_ring(). */
void news_hear(struct news_box *box);
/* The oldest, taken out. */
struct news *news_next(struct news_box *box);
void news_ring(struct news_box *box);
/* INT64_MAX: none. One that has passed rings at once. */
void news_set_deadline(struct news_box *box, int64_t at_ms);
