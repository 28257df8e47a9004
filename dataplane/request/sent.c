/*
 * What the backend is sent: `sent` holds room for a head, sent_room bytes, and the body behind it. The head names the
 * backend and the body's length, so it is written last, into the end of that room. One piece is one send(), and nothing
 * was copied together.
 */
#include <assert.h>

#include "parts.h"

/* Of a head all but the backend's authority: 106 bytes with the longest length. */
enum { HEAD_FRAME = 112 };
/* Bytes of a body that is worth copying to save the room around it. A larger one would keep the worker's other requests
 * waiting, for milliseconds; and of its room hardly more than what was written is memory at all, which is reserved. */
enum { MOST_COPIED = 64 << 10 };

static void copy_wiped(struct request *req, struct text *into, unsigned room)
{
    size_t bytes = req->sent.len - req->sent_room;

    into->len = room;
    text_add(into, req->sent.at + req->sent_room, bytes);
    text_release_wiped(&req->sent);
    req->sent = *into;
    req->sent_room = room;
}

/* False: no memory, and all is as before. */
static bool move_behind(struct request *req, unsigned room)
{
    struct text moved;

    text_init(&moved, req->sent.max);
    if (!text_reserve(&moved, room + req->sent.len - req->sent_room))
        return false;
    copy_wiped(req, &moved, room);
    return true;
}

static unsigned room_for_heads(const struct fleet *fleet)
{
    size_t longest = 0;

    for (size_t i = 0; i < fleet->count; i++) {
        size_t len = strlen(fleet->backends[i]->authority);
        longest = len > longest ? len : longest;
    }
    return HEAD_FRAME + (unsigned)longest;
}

void sent_tighten(struct request *req)
{
    if (req->sent.len > MOST_COPIED)
        return;
    (void)move_behind(req, room_for_heads(req->fleet));
}

bool sent_write_head(struct request *req)
{
    char memory[MAX_SENT_HEAD + 1];
    struct text head = text_over(memory, sizeof memory);

    text_add_literal(&head, "POST ");
    text_add_string(&head, req->kind->chat_path);
    text_add_literal(&head, " HTTP/1.1\r\nHost: ");
    text_add_string(&head, req->backend->authority);
    text_add_literal(&head, "\r\nContent-Type: application/json\r\nContent-Length: ");
    text_add_u64(&head, req->sent.len - req->sent_room);
    text_add_literal(&head, "\r\n\r\n");
    assert(!head.err);
    if (head.len > req->sent_room && !move_behind(req, MAX_SENT_HEAD)) /* a reload brought a longer name meanwhile */
        return false;
    req->sent_from = req->sent_room - (unsigned)head.len;
    memcpy(req->sent.at + req->sent_from, head.at, head.len);
    return true;
}
