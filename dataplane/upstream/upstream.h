/*
 * upstream - one worker's connections to backends: a pool of kept ones, and an exchange (one request, one answer) on a
 * connection that is lent to one borrower at a time. Loop thread only. Never half-closes (Ollama would cancel).
 *
 * A borrower is told in this order: on_head (once a head that is not 1xx), on_payload (any number), on_end; or on_lost
 * at any moment, after which nothing follows. on_turn comes after everything that one read brought was handed over: the
 * moment to flush. After upstream_give_back() no callback comes any more; every callback may give back. Slices handed
 * over are good during the call; a payload that is known to be the last, until on_end, which follows at once, returns.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct backend;
struct loop;
struct http_head;
struct upstream;
struct upstream_pool;
struct wheel;

enum upstream_loss {
    UPSTREAM_UNREACHABLE, /* connecting was refused, failed or took longer than connect_timeout */
    UPSTREAM_HUNG_UP,     /* the connection ended before the answer was whole */
    UPSTREAM_BAD,         /* not HTTP, or broken framing */
    UPSTREAM_NO_MEMORY,   /* ours, not the backend's fault */
};

struct borrower {
    const struct borrower_story *story;
};
struct borrower_story {
    void (*on_head)(struct borrower *borrower, const struct http_head *head);
    void (*on_payload)(struct borrower *borrower, struct slice payload, bool is_last);
    void (*on_turn)(struct borrower *borrower);
    void (*on_end)(struct borrower *borrower);
    void (*on_lost)(struct borrower *borrower, enum upstream_loss loss, const char *why);
};

/* `scratch` is the worker's read buffer, shared by everything on its loop. Descriptors from descriptor_limit on are for
 * others. */
struct upstream_pool *upstream_pool_new(struct loop *loop, struct wheel *wheel, char *scratch, size_t scratch_bytes,
                                        int descriptor_limit);
void upstream_pool_free(struct upstream_pool *pool);
/* Descriptors have run out: closes the one kept longest. False: none is kept. */
bool upstream_pool_shed(struct upstream_pool *pool);
/* Once a turn of the loop: reads on where there was more than one turn's share. */
void upstream_pool_go_on(struct upstream_pool *pool);
/* Is there still more? Then the loop must not sleep. */
bool upstream_pool_has_more(const struct upstream_pool *pool);
/* Once a turn of the loop, after upstream_pool_go_on(): frees what was closed in it. */
void upstream_pool_reap(struct upstream_pool *pool);

/*
 * A kept connection, or with `must_be_fresh` or without one a new one, connecting. Never calls back before it returns.
 * ERR_SYSTEM: no descriptor; ERR_NO_MEMORY; ERR_REFUSED: connecting failed at once.
 */
enum err upstream_borrow(struct upstream_pool *pool, struct backend *backend, struct borrower *who, bool must_be_fresh,
                         int64_t connect_timeout_ms, struct upstream **ret_upstream);
/* Was it kept from an earlier exchange? Then its sudden end may only mean that the backend had closed it meanwhile. */
bool upstream_was_kept(const struct upstream *upstream);
/* Sends a whole request, whose bytes stay the borrower's and must not move until all is sent (upstream_is_sent),
 * on_lost or giving back. */
void upstream_send(struct upstream *upstream, struct slice bytes);
/* Has everything been handed to the kernel? */
bool upstream_is_sent(const struct upstream *upstream);
/* Bytes from the backend since the exchange began, heads of 1xx included. */
uint64_t upstream_received(const struct upstream *upstream);
/* Holds the backend back / goes on, in the loop's next turn. */
void upstream_pause(struct upstream *upstream);
bool upstream_is_paused(const struct upstream *upstream);
void upstream_resume(struct upstream *upstream);
/*
 * Back to the pool when the exchange is over and the connection may be kept; else it is closed fully, now. With
 * `is_whole` the borrower has the whole answer although the framing has not ended yet (Ollama sends the last chunk a
 * moment after the last line): the pool waits shortly for the end and keeps the connection then.
 */
void upstream_give_back(struct upstream *upstream, bool is_whole);
/* Gives it back closed, even if it might be kept. */
void upstream_close(struct upstream *upstream);
