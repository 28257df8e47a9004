/*
 * reply - an HTTP/1.1 answer as it comes, read with as little as a client needs: the status, where the body ends, its
 * payload. It is the bench's own, so that the gateway's codec is not judged by itself. The memory is the caller's;
 * zeroed is fresh.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPLY_HEAD_BYTES = 2048 };

enum reply_state {
    REPLY_HEAD,
    REPLY_LENGTH,
    REPLY_CHUNK_SIZE,
    REPLY_CHUNK,
    REPLY_CHUNK_END,
    REPLY_TRAILER,
    REPLY_UNTIL_CLOSE,
    REPLY_DONE,
    REPLY_BAD,
};

struct reply {
    enum reply_state state;
    int status;
    bool closes;        /* the peer closes after it */
    bool line_is_empty; /* of the trailer, so far */
    uint64_t left;      /* of the body or the chunk */
    size_t head_bytes;
    char head[REPLY_HEAD_BYTES];
};

typedef void reply_payload(void *arg, const char *at, size_t bytes);

/* Takes what came and hands on payload. How many bytes were used: all, unless the answer ended before or is broken. */
size_t reply_feed(struct reply *reply, const char *at, size_t bytes, reply_payload *on_payload, void *arg);
void reply_restart(struct reply *reply);
