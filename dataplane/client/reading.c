/* Heads and bodies, as they come; and the caller's end, however it comes. */
#include "client_parts.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum { MAX_LINGER_BYTES = 64 << 20 /* behaviour.md 2.2 */ };

static void take_head(struct client *client, const struct http_head *head, size_t behind)
{
    client->is_http11 = head->minor == 1;
    client->keeps_alive = head->keeps_alive;
    client->is_head_request = slice_is(head->method, SLICE("HEAD"));
    client->expects_continue = head->expects_continue;
    client->has_served = client->reads_body = false;
    client->body_is_out = head->framing == HTTP_CHUNKED || (head->framing == HTTP_LENGTH && head->content_length);
    client->body_here = head->framing == HTTP_LENGTH && head->content_length <= behind ? head->content_length : 0;
    http_body_init(&client->framing, head->framing, head->content_length);
    client->stage = STAGE_BUSY;
    client_waits_no_more(client);
    client_set_user_timeout(client, false);
    client->house->story->on_head(client, head);
}

/* Nobody knows what follows: whatever is answered, the connection ends with it. */
void client_distrust(struct client *client)
{
    client->keeps_alive = false;
    client->body_is_out = true;
    client->body_here = 0;
    client->stage = STAGE_BUSY;
    client_waits_no_more(client);
    wheel_clear(client->house->wheel, &client->deadline);
}

/* There is no head to go by. */
void client_distrust_head(struct client *client)
{
    client_distrust(client);
    client->is_http11 = true;
    client->is_head_request = false;
}

/* One step with a head. Returns the bytes done with. */
static size_t feed_head(struct client *client, struct slice bytes)
{
    struct http_head *head = &client->house->ring->head;
    const char *why = "";
    enum http_result result;
    size_t used;

    if (!client->began_us)
        client->began_us = clock_us();
    result =
        http_parse_request(head, bytes.at, bytes.len, client->house->settings.max_head_bytes, &client->scanned, &why);
    if (result == HTTP_MORE) {
        if (!client->head_begun)
            client_be_patient(client, client->house->settings.head_timeout_ms);
        client->head_begun = true;
        return 0;
    }
    client->scanned = 0;
    if (result != HTTP_DONE) {
        client_distrust_head(client);
        client->house->story->on_bad(client, result, why);
        return bytes.len;
    }
    used = head->bytes;
    take_head(client, head, bytes.len - used);
    /* An early answer leaves the body unread; when all of it is here, it is passed over and the connection lives. */
    if (!client->reads_body && client->body_here) {
        used += client->body_here;
        client->body_is_out = false;
    }
    return used;
}

/* One step with a body. Returns the bytes done with. */
static size_t feed_body(struct client *client, struct slice bytes)
{
    const char *why = "";
    struct slice payload = { 0 };
    size_t used = 0;
    enum http_result result = http_body_next(&client->framing, bytes.at, bytes.len, &used, &payload, &why);

    if (result == HTTP_MORE) {
        if (payload.len)
            client->house->story->on_body(client, payload, false);
        return used;
    }
    if (result != HTTP_DONE) {
        client_distrust(client);
        client->house->story->on_bad(client, result, why);
        return bytes.len;
    }
    client->stage = STAGE_BUSY;
    if (!client_unsent(client))
        client_waits_no_more(client);
    client->body_is_out = false;
    client->house->story->on_body(client, payload, true);
    return used;
}

/* Uses up what it can. Returns the bytes done with. */
static size_t feed(struct client *client, struct slice bytes)
{
    unsigned requests = 0;
    size_t done = 0;

    while (done < bytes.len && !client->is_broken) {
        struct slice rest = { bytes.at + done, bytes.len - done };
        size_t used;

        if (client->stage == STAGE_HEAD) {
            if (requests++ == MAX_REQUESTS) {
                client_look_again(client);
                break;
            }
            used = feed_head(client, rest);
        } else if (client->stage == STAGE_BODY) {
            used = feed_body(client, rest);
        } else {
            break;
        }
        done += used;
        if (!used)
            break;
    }
    return done;
}

/* Most bodies come together with their head: such a request takes no place in wheel and line. */
static void wait_for_body(struct client *client)
{
    wheel_set(client->house->wheel, &client->deadline, client->body_due_ms);
    if (!client->waiter.next)
        client_waits(client, LINE_SLOW);
}

/* Bytes fresh from the socket, behind those that wait in `in`. */
void client_take(struct client *client, struct slice fresh)
{
    bool is_direct = client->in.len == 0;
    struct slice bytes = fresh;
    size_t done;

    if (!is_direct) {
        text_add_slice(&client->in, fresh);
        bytes = text_slice(&client->in);
    }
    done = client->in.err ? 0 : feed(client, bytes);
    if (client->stage == STAGE_DEAD)
        return;
    if (client->stage == STAGE_LINGER || done == bytes.len)
        text_release_wiped(&client->in);
    else if (is_direct)
        text_add(&client->in, bytes.at + done, bytes.len - done);
    else
        text_drop_front(&client->in, done);
    if (client->stage == STAGE_BODY || client->stage == STAGE_HELD)
        wait_for_body(client);
    client_weigh(client);
    if (client->in.err)
        client_lose(client, CLIENT_LEFT);
    else if (client->stage == STAGE_HEAD && client_is_too_heavy(client))
        client_lose(client, CLIENT_CROWDED_OUT);
}

static void linger(struct client *client, size_t bytes)
{
    int64_t due_ms = clock_ms() + client->house->settings.linger_timeout_ms;

    client->lingered_bytes += bytes;
    if (client->lingered_bytes > MAX_LINGER_BYTES)
        client_bury(client);
    else
        wheel_set(client->house->wheel, &client->deadline,
                  due_ms < client->linger_due_ms ? due_ms : client->linger_due_ms);
}

bool client_is_reading(const struct client *client)
{
    if (client->is_broken) /* clients_go_on() is about to end it */
        return false;
    return client->stage == STAGE_HEAD || client->stage == STAGE_BODY || client->stage == STAGE_LINGER;
}

/* The caller ended its side: orderly with a FIN, or with a reset. */
void client_on_fin(struct client *client, bool is_orderly)
{
    bool in_request = client->stage == STAGE_BODY || (client->stage == STAGE_HEAD && client->in.len > 0);

    client->saw_fin = true;
    if (client->stage == STAGE_LINGER) {
        client_bury(client);
    } else if (in_request && is_orderly) {
        if (client->stage == STAGE_HEAD)
            client_distrust_head(client);
        client_distrust(client);
        client->house->story->on_bad(client, HTTP_BAD, "the connection ended in the middle of the request");
    } else {
        client_lose(client, CLIENT_LEFT);
    }
}

/* Between two requests, with nothing of the next one here. */
static bool is_idle(const struct client *client)
{
    return client->stage == STAGE_HEAD && !client->in.len;
}

void client_read_some(struct client *client)
{
    struct client_house *house = client->house;
    bool is_full = false;

    client->has_more = false;
    for (unsigned reads = 0; client_is_reading(client); reads++) {
        ssize_t got;

        if (reads == MAX_READS || client->is_again) {
            client->has_more = true;
            client_look_again(client);
            return;
        }
        if (reads && !is_full && !client->is_closed && is_idle(client))
            return; /* the last read emptied the socket: what comes now has an edge of its own */
        got = recv(client->fd, house->scratch, house->scratch_bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            client_on_fin(client, got == 0);
            return;
        }
        is_full = (size_t)got == house->scratch_bytes;
        if (client->stage == STAGE_LINGER)
            linger(client, (size_t)got);
        else
            client_take(client, (struct slice){ house->scratch, (size_t)got });
        explicit_bzero(house->scratch, (size_t)got); /* keys, prompts */
    }
    client->has_more = is_full;
}

/* A request is being served and nothing is read: has the caller left? */
void client_look_for_end(struct client *client)
{
    char byte;
    ssize_t got = recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    int error = 0;
    socklen_t bytes = sizeof error;

    /* Bytes that came before a FIN or a reset hide it from recv(). */
    if (got > 0 && !client->is_closed && getsockopt(client->fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 && !error)
        client->has_more = true;
    else if (got >= 0 || (errno != EAGAIN && errno != EINTR))
        client_on_fin(client, false);
}

void client_read_body(struct client *client)
{
    bool is_empty = client->framing.framing == HTTP_NO_BODY ||
                    (client->framing.framing == HTTP_LENGTH && client->framing.left == 0);

    client->reads_body = true;
    if (is_empty) {
        client->house->story->on_body(client, (struct slice){ "", 0 }, true);
        return;
    }
    client->stage = STAGE_BODY;
    client->body_due_ms = clock_ms() + client->house->settings.body_timeout_ms;
    if (client->expects_continue) {
        client->expects_continue = false;
        client_write(client, SLICE("HTTP/1.1 100 Continue\r\n\r\n"));
    }
}

void client_hold(struct client *client)
{
    if (client->stage == STAGE_BODY)
        client->stage = STAGE_HELD;
}

void client_go_on(struct client *client)
{
    if (client->stage != STAGE_HELD)
        return;
    client->stage = STAGE_BODY;
    client->has_more = true;
    client_look_again(client);
}
