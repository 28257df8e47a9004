/*
 * The inside of the room client/: the struct and the functions that its files share. Nobody else includes it.
 * client.c: life, events, time. reading.c: heads, bodies, the caller's end. writing.c: answers, lingering. waiting.c:
 * who keeps us waiting, and makes room for others.
 */
#pragma once
#include "client.h"

#include "loop.h"
#include "wheel.h"

enum {
    MAX_READS = 16,    /* in one turn, then others have theirs */
    MAX_REQUESTS = 16, /* pipelined ones, the same */
    MAX_PIPELINED_BYTES =
        256 << 10, /* what may wait in `in` behind a request; beyond it the socket's buffer holds it */
};

enum stage { STAGE_HEAD, STAGE_BODY, STAGE_HELD, STAGE_BUSY, STAGE_LINGER, STAGE_DEAD };

/* The lines of waiting.c, and a place in one of them; zero: in none. */
enum line { LINE_STRANGERS, LINE_KEPT, LINE_SLOW, LINES };
struct waiter {
    struct waiter *next, *prev;
    enum line line;
    int64_t since_ms;
};

struct client {
    struct client *next, *prev;
    struct waiter waiter;
    struct watch watch;
    struct deadline deadline;
    struct client_house *house;
    struct request *request;
    struct address peer;
    int fd;
    enum stage stage;
    bool is_http11, is_head_request, keeps_alive, expects_continue;
    bool body_is_out; /* the present request's body has not been read to its end */
    bool is_over;     /* client_end() was called; on_sent when all is sent */
    bool reads_body;  /* client_read_body() was called for the present request */
    bool has_more;    /* the socket may hold bytes whose edge has passed */
    bool has_waiting; /* `in` may hold a whole step */
    bool is_again;    /* on the list `again` */
    bool is_broken;   /* a write failed: the caller is gone */
    bool is_closed;   /* the kernel told of the connection's end, though it may not have been read up to yet */
    struct client *next_again;
    bool is_slow;  /* see client_set_user_timeout() */
    bool is_known; /* client_know() was called once */
    bool is_crowded_out;
    bool is_uncounted, saw_fin, was_full, has_served, head_begun;
    struct text in;
    size_t scanned;
    struct http_body framing;
    struct text out;
    size_t out_sent;
    size_t weight;      /* bytes of `in` and `out` that the house has in its sum */
    int held;           /* bytes that the kernel had not got rid of when the caller last took some */
    uint64_t body_here; /* the whole body lies behind the head: its length */
    int64_t began_us, body_due_ms;
    uint64_t lingered_bytes;
    int64_t linger_due_ms; /* the end of all lingering */
};

struct client_ring {
    struct client live, dead; /* heads of rings */
    struct waiter lines[LINES];
    unsigned line_counts[LINES];
    struct client *again;  /* may be dead by now: freed by the reaper only when off this list */
    struct http_head head; /* parsed into, for the moment of on_head */
};

/* client.c */
void client_be_patient(struct client *client, int64_t ms);
/* Closed now, freed by the reaper: callers up the stack may still hold it. */
COLD void client_bury(struct client *client);
/* The request is told, once, that its caller is gone; then the connection closes. */
COLD void client_lose(struct client *client, enum client_loss loss);
/* Goes on in the loop's next turn. */
void client_look_again(struct client *client);

/* waiting.c */
/* At the end of that line, from now on; in no line. */
void client_waits(struct client *client, enum line line);
void client_waits_no_more(struct client *client);
/* Whenever `in` or `out` may have grown or shrunk. */
void client_weigh(struct client *client);
/* While memory is short: does its unfinished head take more than its share? */
bool client_is_too_heavy(const struct client *client);
/* More than this waiting to be sent is too much. */
size_t client_write_room(const struct client *client);

/* reading.c */
bool client_is_reading(const struct client *client);
void client_read_some(struct client *client);
/* Looks at what waits in `in`, and at `fresh` behind it. */
void client_take(struct client *client, struct slice fresh);
COLD void client_look_for_end(struct client *client);
COLD void client_on_fin(struct client *client, bool is_orderly);
COLD void client_distrust(struct client *client);
COLD void client_distrust_head(struct client *client);

/* writing.c */
/*
 * A caller that has stopped reading answers the kernel's probes of its window, and yet the kernel gives up on it after
 * TCP_USER_TIMEOUT: for one that has proved to be slow that must not be before write_timeout. It stays so until its
 * next request, since the kernel may hold megabytes when all has been handed to it.
 */
void client_set_user_timeout(struct client *client, bool is_slow);
/* Has the caller taken bytes since this was last asked, or since the kernel last took some from us? */
COLD bool client_is_taking(struct client *client);
/* Unsent bytes, and their time is over: waits on, or gives the caller up. */
COLD void client_look_at_reader(struct client *client);
void client_flush(struct client *client);
