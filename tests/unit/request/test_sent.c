/* What a backend is sent, while it lies and waits. */
#include <stdlib.h>

#include "check.h"
#include "parts.h"

struct waiting {
    char authority[32];
    struct backend backend;
    struct fleet *fleet;
    struct request req;
};

/* A request whose body of so many bytes was written behind room for any head, as admit.c does it. */
static void waiting_open(struct waiting *waiting, size_t bytes)
{
    struct text *sent = &waiting->req.sent;

    *waiting = (struct waiting){ .authority = "127.0.0.1:11434", .req = { .kind = &kind_ollama } };
    waiting->backend.authority = waiting->authority;
    waiting->fleet = calloc(1, sizeof(struct fleet) + sizeof(struct backend *));
    CHECK(waiting->fleet);
    waiting->fleet->count = 1;
    waiting->fleet->backends[0] = waiting->req.backend = &waiting->backend;
    waiting->req.fleet = waiting->fleet;
    text_init(sent, SIZE_MAX / 4);
    CHECK(text_reserve(sent, MAX_SENT_HEAD + bytes + 512));
    waiting->req.sent_room = MAX_SENT_HEAD;
    sent->len = MAX_SENT_HEAD + bytes;
    memset(sent->at, 'b', sent->len);
}

/* Whatever happened to it, the backend gets a head and all of the body. */
static void waiting_is_sent(struct waiting *waiting, size_t bytes)
{
    struct request *req = &waiting->req;
    struct slice whole, body;
    size_t right = 0;

    CHECK(sent_write_head(req));
    whole = (struct slice){ req->sent.at + req->sent_from, req->sent.len - req->sent_from };
    CHECK(slice_starts(whole, SLICE("POST /api/chat HTTP/1.1\r\nHost: 127.0.0.1:11434\r\n")));
    body = (struct slice){ req->sent.at + req->sent_room, req->sent.len - req->sent_room };
    CHECK(memcmp(body.at - 4, "\r\n\r\n", 4) == 0);
    while (right < body.len && body.at[right] == 'b')
        right++;
    CHECK_EQ(right, bytes);
    CHECK_EQ(body.len, bytes);
    text_release(&req->sent);
    free(waiting->fleet);
}

TEST(a_small_body_that_waits_takes_no_more_room_than_it_needs)
{
    struct waiting waiting;

    waiting_open(&waiting, 1000);
    sent_tighten(&waiting.req);
    CHECK(waiting.req.sent.room < 1000 + 160);
    waiting_is_sent(&waiting, 1000);
}

/* It would be copied, and wiped, by the thread that has many others to serve. */
TEST(a_large_body_that_waits_stays_where_it_is)
{
    enum { LARGE = 20 << 20 };
    struct waiting waiting;
    const char *at;

    waiting_open(&waiting, LARGE);
    at = waiting.req.sent.at;
    sent_tighten(&waiting.req);
    CHECK(waiting.req.sent.at == at);
    waiting_is_sent(&waiting, LARGE);
}
