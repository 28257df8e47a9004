/*
 * client - one caller's connection: reading heads and bodies, writing answers, keep-alive and pipelining, deadlines,
 * and closing so that the caller still reads what was said. It knows HTTP and nothing of models or keys: what a request
 * means is told by the story (struct client_story), the room request/.
 * Owned by its worker; made by client_new(), ends by itself, freed by clients_reap(). Loop thread only.
 *
 *     HEAD ─► BODY ⇄ HELD ─► BUSY ─► HEAD …        one request at a time; what is pipelined waits in `in`
 *      └───────┴───────┴───────┴───► LINGER ─► DEAD
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cidr.h"
#include "http.h"
#include "text.h"

struct client;
struct loop;
struct request;
struct wheel;

/* The worker's part in every client. Settings may change between two requests. */
struct client_settings {
    int64_t head_timeout_ms, body_timeout_ms, idle_timeout_ms, write_timeout_ms, linger_timeout_ms;
    size_t max_head_bytes;
    size_t write_buffer_bytes; /* more than this waiting for a slow reader: client_is_full() */
    uint64_t max_held_bytes;   /* of all clients' unfinished heads and unread answers; then each gets little */
};

enum client_loss {
    CLIENT_LEFT,
    CLIENT_STALLED,     /* read nothing for write_timeout */
    CLIENT_CROWDED_OUT, /* kept us waiting while another needed its place: clients_make_room() */
};

/*
 * What the story is told. Each may end the exchange (client_answer, client_end, client_drop). The slices are good
 * during the call only. After on_gone nothing follows.
 */
struct client_story {
    /* A good head. Must answer, or ask for the body (client_read_body; also for an empty one). */
    void (*on_head)(struct client *client, const struct http_head *head);
    /* The next piece of the body; with is_last the whole body has come (the piece may be empty). A body that came in
     * one piece is handed over in one piece. */
    void (*on_body)(struct client *client, struct slice piece, bool is_last);
    /* Malformed HTTP, an oversized head, a body with broken framing; or too slow (head or body). Must answer. */
    void (*on_bad)(struct client *client, enum http_result result, const char *why);
    void (*on_slow)(struct client *client, bool in_body);
    /* client_is_full() was true and is not any more. */
    void (*on_room)(struct client *client);
    /* The answer's last byte went to the kernel; the request is over. */
    void (*on_sent)(struct client *client);
    /* The connection ended before the answer's last byte was handed to the kernel. */
    void (*on_gone)(struct client *client, enum client_loss loss);
};

struct client_house {
    struct loop *loop;
    struct wheel *wheel;
    char *scratch; /* read buffer, shared by everything on the loop */
    size_t scratch_bytes;
    struct client_settings settings;
    const struct client_story *story;
    void *worker;                             /* the story's */
    void (*on_closed)(struct client *client); /* the connection is closed: count it out */
    bool is_draining;                         /* every answer says `Connection: close` */
    struct client_ring *ring;
    uint64_t held_bytes;
    unsigned count;
};

bool clients_open(struct client_house *house);
void clients_release(struct client_house *house); /* drops every client without a word */
/* Once a turn of the loop: goes on with those that had more to do than one turn's share. */
void clients_go_on(struct client_house *house);
/* Do some still have? Then the loop must not sleep. */
bool clients_have_more(const struct client_house *house);
/* Once a turn of the loop, after clients_go_on(): frees what was closed in it. */
void clients_reap(struct client_house *house);
/* Draining: those that wait between two requests close now. */
void clients_close_idle(struct client_house *house);
/* Tells the story that each one with a request is gone, and closes it. */
void clients_drop_all(struct client_house *house);

/* Places or descriptors have run out: closes the one of those that keep us waiting who can best be spared (waiting.c),
 * but not this one. False: nobody waits. O(1). */
bool clients_make_room(struct client_house *house, const struct client *spared);

/* Takes over the descriptor and begins to read. ERR_NO_MEMORY: the descriptor was closed. */
enum err client_new(struct client_house *house, int fd, const struct address *peer, bool is_uncounted);
/* As told at birth: the connection does not count for its address (a trusted proxy's). */
bool client_is_uncounted(const struct client *client);
/* In on_closed: it was closed to make room, or since memory was short. */
bool client_was_crowded_out(const struct client *client);

struct client_house *client_house(const struct client *client);
const struct address *client_peer(const struct client *client);
/* The story's own per-request pointer. */
struct request *client_request(const struct client *client);
void client_set_request(struct client *client, struct request *request);
/* The head was let in: no stranger any more. */
void client_know(struct client *client);
/* When the first byte of the present request came; monotonic us. */
int64_t client_began_us(const struct client *client);

/* In on_head: read the body and hand it over. Sends `100 Continue` first where the caller waits for it. */
void client_read_body(struct client *client);
/* Stops reading the body, which stays with the caller; and goes on. The body's deadline keeps running. */
void client_hold(struct client *client);
void client_go_on(struct client *client);

/* May this answer use chunked framing (HTTP/1.1), must it be without a body (HEAD)? */
bool client_is_chunked(const struct client *client);
bool client_wants_no_body(const struct client *client);
/* Will the connection be kept after the present answer? An answer given while the body is still out there cannot keep
 * it. */
bool client_keeps_alive(const struct client *client);
/* Never keep it after this answer. */
void client_must_close(struct client *client);

/* Writes bytes of the answer: now what the kernel takes, the rest when it takes more. Framing is the story's. */
void client_write(struct client *client, struct slice bytes);
/* The answer was written whole. on_sent comes when its last byte is with the kernel, perhaps before this returns. */
void client_end(struct client *client);
/* Both, for the end of a stream. Where the connection ends with it without a word in the head, that end goes out
 * together with the last bytes: a proxy must not lend the connection to its next caller meanwhile. */
void client_write_last(struct client *client, struct slice bytes);
/* Closes at once, without on_gone: for an answer that must not look whole. */
void client_drop(struct client *client);
/* More is waiting to be written than write_buffer_bytes. */
bool client_is_full(const struct client *client);
size_t client_unsent(const struct client *client);
