#include "reply.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void reply_restart(struct reply *reply)
{
    reply->state = REPLY_HEAD;
    reply->head_bytes = 0;
}

/* The value of a header, at its first character that is not a space; NULL: there is none. */
static const char *header(const struct reply *reply, const char *name)
{
    const char *at = strcasestr(reply->head, name);

    if (!at)
        return NULL;
    at += strlen(name);
    return at + strspn(at, " \t");
}

static void take_head(struct reply *reply)
{
    const char *connection = header(reply, "\r\nConnection:");
    const char *length = header(reply, "\r\nContent-Length:");
    const char *coding = header(reply, "\r\nTransfer-Encoding:");

    reply->status = strncmp(reply->head, "HTTP/1.1 ", 9) == 0 ? atoi(reply->head + 9) : 0;
    reply->closes = connection && strncasecmp(connection, "close", 5) == 0;
    reply->left = 0;
    if (reply->status < 200 || reply->status > 599)
        reply->state = REPLY_BAD;
    else if (coding && strncasecmp(coding, "chunked", 7) == 0)
        reply->state = REPLY_CHUNK_SIZE;
    else if (!length)
        reply->state = REPLY_UNTIL_CLOSE;
    else
        reply->state = (reply->left = strtoull(length, NULL, 10)) ? REPLY_LENGTH : REPLY_DONE;
}

static size_t feed_head(struct reply *reply, const char *at, size_t bytes)
{
    size_t before = reply->head_bytes;
    size_t room = sizeof reply->head - 1 - before;
    size_t more = bytes < room ? bytes : room;
    const char *end;

    memcpy(reply->head + before, at, more);
    reply->head_bytes += more;
    reply->head[reply->head_bytes] = '\0';
    end = memmem(reply->head, reply->head_bytes, "\r\n\r\n", 4);
    if (!end) {
        if (more < bytes)
            reply->state = REPLY_BAD;
        return more;
    }
    reply->head_bytes = (size_t)(end - reply->head) + 4;
    reply->head[reply->head_bytes] = '\0';
    take_head(reply);
    return reply->head_bytes - before;
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t feed_size(struct reply *reply, const char *at, size_t bytes)
{
    size_t used = 0;

    while (used < bytes) {
        char c = at[used++];

        if (hex(c) >= 0) {
            reply->left = reply->left << 4 | (uint64_t)hex(c);
        } else if (c == '\n') {
            reply->line_is_empty = true;
            reply->state = reply->left ? REPLY_CHUNK : REPLY_TRAILER;
            break;
        } else if (c != '\r') {
            reply->state = REPLY_BAD;
            break;
        }
    }
    return used;
}

static size_t feed_payload(struct reply *reply, const char *at, size_t bytes, reply_payload *on_payload, void *arg)
{
    size_t more = reply->state != REPLY_UNTIL_CLOSE && reply->left < bytes ? (size_t)reply->left : bytes;

    if (on_payload)
        on_payload(arg, at, more);
    if (reply->state == REPLY_UNTIL_CLOSE)
        return more;
    reply->left -= more;
    if (!reply->left)
        reply->state = reply->state == REPLY_CHUNK ? REPLY_CHUNK_END : REPLY_DONE;
    return more;
}

/* Lines up to an empty one. */
static size_t feed_trailer(struct reply *reply, const char *at, size_t bytes)
{
    size_t used = 0;

    while (used < bytes && reply->state == REPLY_TRAILER) {
        char c = at[used++];

        if (c == '\n' && reply->line_is_empty)
            reply->state = REPLY_DONE;
        else if (c != '\r')
            reply->line_is_empty = c == '\n';
    }
    return used;
}

static size_t feed_chunk_end(struct reply *reply, const char *at, size_t bytes)
{
    const char *end = memchr(at, '\n', bytes);

    if (!end)
        return bytes;
    reply->state = REPLY_CHUNK_SIZE;
    return (size_t)(end - at) + 1;
}

static size_t feed_once(struct reply *reply, const char *at, size_t bytes, reply_payload *on_payload, void *arg)
{
    switch (reply->state) {
    case REPLY_HEAD:
        return feed_head(reply, at, bytes);
    case REPLY_CHUNK_SIZE:
        return feed_size(reply, at, bytes);
    case REPLY_CHUNK_END:
        return feed_chunk_end(reply, at, bytes);
    case REPLY_TRAILER:
        return feed_trailer(reply, at, bytes);
    case REPLY_LENGTH:
    case REPLY_CHUNK:
    case REPLY_UNTIL_CLOSE:
        return feed_payload(reply, at, bytes, on_payload, arg);
    case REPLY_DONE:
    case REPLY_BAD:
        break;
    }
    return 0;
}

size_t reply_feed(struct reply *reply, const char *at, size_t bytes, reply_payload *on_payload, void *arg)
{
    size_t used = 0;

    while (used < bytes && reply->state != REPLY_DONE && reply->state != REPLY_BAD)
        used += feed_once(reply, at + used, bytes - used, on_payload, arg);
    return used;
}
