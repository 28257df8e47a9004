/* Answers, as the kernel takes them; and closing so that the caller still reads them. */
#include "client_parts.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "clock.h"

enum {
    LINGER_TURNS = 15,
    KEEPALIVE_MARGIN_MS = 5000,
    VANISHED_MS = 30000, /* as the listener's TCP_USER_TIMEOUT */
    READER_LOOK_MS = 5000,
};

void client_set_user_timeout(struct client *client, bool is_slow)
{
    unsigned ms = VANISHED_MS;

    if (client->is_slow == is_slow)
        return;
    client->is_slow = is_slow;
    if (is_slow && client->house->settings.write_timeout_ms + KEEPALIVE_MARGIN_MS > ms)
        ms = (unsigned)client->house->settings.write_timeout_ms + KEEPALIVE_MARGIN_MS;
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/*
 * The kernel wants more from us only when a third of its buffer is free: a slow reader may take longer than
 * write_timeout for that, and is seen to read by what the kernel still holds.
 */
bool client_is_taking(struct client *client)
{
    int before = client->held;

    return ioctl(client->fd, SIOCOUTQ, &client->held) == 0 && client->held < before;
}

/* It has left bytes unanswered for so long: one that only does not read answers the kernel's probes. */
static bool has_vanished(const struct client *client)
{
    struct tcp_info info = { 0 };
    socklen_t bytes = sizeof info;

    return getsockopt(client->fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && info.tcpi_unacked &&
           info.tcpi_last_ack_recv >= VANISHED_MS;
}

/* It is looked at more often than that, to see that it takes something, or that it has vanished. */
static void be_patient_with_reader(struct client *client)
{
    int64_t ms = client->house->settings.write_timeout_ms;

    client_be_patient(client, ms < READER_LOOK_MS ? ms : READER_LOOK_MS);
}

void client_look_at_reader(struct client *client)
{
    bool is_taking = client_is_taking(client);

    if (is_taking && client->stage == STAGE_BUSY)
        client_waits(client, LINE_SLOW);
    if (has_vanished(client))
        client_lose(client, CLIENT_LEFT);
    else if (is_taking || clock_ms() - client->waiter.since_ms < client->house->settings.write_timeout_ms)
        be_patient_with_reader(client);
    else
        client_lose(client, CLIENT_STALLED);
}

/* Sends what the kernel takes: the number of bytes, or -1 when the connection is broken. */
static ssize_t send_some(struct client *client, const char *at, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t sent = send(client->fd, at + done, len - done, MSG_NOSIGNAL);
        if (sent >= 0)
            done += (size_t)sent;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)done;
}

/* Says that nothing more comes, and discards what still does, so that the caller reads what was said. */
static void start_lingering(struct client *client)
{
    (void)shutdown(client->fd, SHUT_WR);
    client->stage = STAGE_LINGER;
    client_waits(client, LINE_STRANGERS);
    client_weigh(client);
    client->linger_due_ms = clock_ms() + LINGER_TURNS * client->house->settings.linger_timeout_ms;
    client_be_patient(client, client->house->settings.linger_timeout_ms);
    if (client->saw_fin)
        client_bury(client);
    else
        client_look_again(client);
}

/* The answer is with the kernel: next request, or the end. */
static void finish(struct client *client)
{
    bool keeps_alive = client_keeps_alive(client);

    client->is_over = false;
    client->has_served = true;
    text_release_wiped(&client->out);
    client->out_sent = 0;
    if (client->request)
        client->house->story->on_sent(client);
    if (client->stage == STAGE_DEAD)
        return;
    if (!keeps_alive) {
        start_lingering(client);
        return;
    }
    client->stage = STAGE_HEAD;
    client_waits(client, client->is_known ? LINE_KEPT : LINE_STRANGERS);
    client_weigh(client);
    client->began_us = 0;
    client->head_begun = false;
    client_be_patient(client, client->house->settings.idle_timeout_ms);
    if (client->in.len || client->has_more)
        client_look_again(client);
}

/* The kernel takes bytes again. */
void client_flush(struct client *client)
{
    ssize_t sent;

    if (!client_unsent(client))
        return;
    sent = send_some(client, client->out.at + client->out_sent, client_unsent(client));
    if (sent < 0) {
        client_lose(client, CLIENT_LEFT);
        return;
    }
    if (!sent)
        return;
    client->out_sent += (size_t)sent;
    (void)client_is_taking(client);
    be_patient_with_reader(client);
    if (!client_unsent(client)) {
        text_release_wiped(&client->out);
        client->out_sent = 0;
        wheel_clear(client->house->wheel, &client->deadline);
        if (client->stage == STAGE_BUSY)
            client_waits_no_more(client);
        if (client->stage == STAGE_BODY || client->stage == STAGE_HELD)
            wheel_set(client->house->wheel, &client->deadline, client->body_due_ms);
        if (client->is_over)
            finish(client);
    } else {
        if (client->stage == STAGE_BUSY)
            client_waits(client, LINE_SLOW);
        if (client->out_sent > client->out.len / 2) {
            text_drop_front(&client->out, client->out_sent);
            client->out_sent = 0;
        }
    }
    client_weigh(client);
    if (client->stage != STAGE_DEAD && client->was_full && client_unsent(client) <= client_write_room(client) / 2) {
        client->was_full = false;
        if (client->request && !client->is_over)
            client->house->story->on_room(client);
    }
}

void client_write(struct client *client, struct slice bytes)
{
    ssize_t sent = 0;

    if (client->stage == STAGE_DEAD || client->is_broken || !bytes.len)
        return;
    if (!client_unsent(client)) {
        sent = send_some(client, bytes.at, bytes.len);
        if (sent < 0) { /* nobody is told from within a write, but in a turn of its own */
            client->is_broken = true;
            client_look_again(client);
            return;
        }
        if ((size_t)sent < bytes.len) {
            client_set_user_timeout(client, true);
            (void)client_is_taking(client);
            be_patient_with_reader(client);
        }
    }
    if ((size_t)sent < bytes.len && !client->waiter.next)
        client_waits(client, LINE_SLOW);
    text_add(&client->out, bytes.at + sent, bytes.len - (size_t)sent);
    client_weigh(client);
    if (client->out.err) { /* no memory: an answer with a hole must not look whole */
        client->is_broken = true;
        client_look_again(client);
    }
    client->was_full |= client_is_full(client);
}

void client_end(struct client *client)
{
    if (client->stage == STAGE_BODY || client->stage == STAGE_HELD)
        client->stage = STAGE_BUSY; /* answered early: nothing more of the body is handed over */
    if (client->stage == STAGE_DEAD || client->is_broken)
        return;
    client->is_over = true;
    if (!client_unsent(client))
        finish(client);
}

void client_write_last(struct client *client, struct slice bytes)
{
    int one = 1;

    if (client->stage != STAGE_DEAD && !client_keeps_alive(client)) /* shutdown() pulls the cork, with the FIN in it */
        (void)setsockopt(client->fd, IPPROTO_TCP, TCP_CORK, &one, sizeof one);
    client_write(client, bytes);
    client_end(client);
}

void client_drop(struct client *client)
{
    client->request = NULL;
    client_bury(client);
}
