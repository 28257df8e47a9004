/*
 * conn - one connection: reads requests, lets answer plan and play speak, sends, and notices the peer's leaving.
 * Owned by its worker's list; closed connections are freed at the end of the loop's turn. Worker's thread only.
 *
 *     READING ─► WAITING (for a slot) ─► PLAYING ─► READING …
 *        └──────────── any ────────────► DRAINING (all is said; the peer's last bytes are read away) ─► closed
 */
#pragma once
#include "play.h"
#include "worker.h"

enum conn_state { CONN_READING, CONN_WAITING, CONN_PLAYING, CONN_DRAINING };

struct waiter; /* of the control side */

struct conn {
    struct source source;
    struct worker *worker;
    struct conn *next;
    struct conn **back;
    struct conn *granted_next;
    bool is_listed_granted;
    int fd;
    enum conn_state state;
    bool is_control;
    bool is_dead;
    bool is_eof;
    bool is_paused; /* reading stopped: too much came in advance */
    bool was_continued;
    bool is_over; /* the play has nothing more to say */
    bool is_stalled;
    bool is_missed; /* something happened during a blackhole */
    struct bytes in;
    size_t in_at; /* where the current request starts */
    struct bytes out;
    size_t out_at;
    uint64_t sent; /* of this answer */
    struct http_request req;
    enum route route;
    struct record *record;
    struct claim claim;
    struct play play;
    struct timer pace;
    struct timer send_again;
    struct waiter *waiter;
};

void conn_open(struct worker *worker, int fd, bool is_control);
void conn_close(struct conn *conn);
void conn_reset(struct conn *conn); /* RST instead of FIN */
void conn_granted(struct conn *conn);
void conn_resume(struct conn *conn); /* after a blackhole */
void conn_free(struct conn *conn);
void conn_go_on(struct conn *conn); /* after a conn_reply() that came late */
/* The control side's answer; the connection is kept. */
void conn_reply(struct conn *conn, int status, struct slice json);

/* control.c: answers at once by conn_reply(), or keeps the connection until it can. */
void control_handle(struct conn *conn, struct slice method, struct slice target, struct slice body);
void control_forget(struct conn *conn);
bool control_is_watched(void); /* somebody waits; any thread */
void control_look(void);       /* counts changed: whoever waits may be satisfied */
