/*
 * Connections: evhttp's only door in the control plane. evhttp itself looks after heads, bodies and keep-alive; what it
 * leaves out stands here: how long a request may take as a whole, how much may be received, how many may come, and that
 * who sends too much gets to read why.
 *
 * A guest is known from the moment in which evhttp asks for a stream for it. Its evhttp_connection is the stream's
 * owner, which is taken from there a moment later (adopt), before anything can have been read.
 *
 * What a guest's timer starts and does: adopt it (at once, when it has come); cut it when its request or the reading of
 * the answer takes too long; refuse it outside evhttp's own functions, when what has been received is too much, or when
 * evhttp is about to answer by itself, which it would do with a page for browsers and by closing at once.
 */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "digest.h"
#include "log.h"
#include "parts.h"
#include "place.h"

enum {
    ACCEPT_PAUSE_US = 100000,
    SPARED_MS = 1000,
    PEEK_MS = 1000,
    SMALL_BYTES = 64 << 10,
    REFUSAL_BYTES = 4096,
    ID_LETTERS = 24,
    STATUS_LINE_BYTES = 12
};

struct guest {
    struct api *api;
    struct guest *next, **back;
    struct bufferevent *stream; /* a reference of our own */
    struct evhttp_connection *connection;
    struct evbuffer_cb_entry *watch_input, *watch_output;
    struct event *timer;
    struct event *leaving; /* while it waits for gateways: something comes, if only its end; or NULL */
    struct exchange *exchange;
    enum guest_phase phase;
    int64_t since_ms;  /* of the phase */
    uint64_t received; /* since the last request was whole */
    const char *refusal;
};

/* evhttp has taken the listener's own word for itself, so the way from there to us is this. One a process. */
static struct api *the_api;

static void forget_received(struct guest *guest)
{
    guest->api->received -= guest->received;
    guest->received = 0;
}

static void set_timer(struct guest *guest, int64_t ms)
{
    struct timeval time = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(guest->timer, &time);
}

static void stop_watching(struct guest *guest)
{
    if (guest->leaving)
        event_free(guest->leaving);
    guest->leaving = NULL;
}

static void enter_phase(struct guest *guest, enum guest_phase phase)
{
    struct api *api = guest->api;

    guest->phase = phase;
    guest->since_ms = clock_ms();
    stop_watching(guest);
    if (phase == GUEST_READING)
        set_timer(guest, api->options.request_ms);
    else if (phase == GUEST_WRITING)
        set_timer(guest, api->options.write_ms);
    else if (phase == GUEST_LEAVING)
        set_timer(guest, api->options.linger_ms);
    else
        (void)event_del(guest->timer);
}

static void guest_free(struct guest *guest)
{
    forget_received(guest);
    guest->api->guest_count--;
    *guest->back = guest->next;
    if (guest->next)
        guest->next->back = guest->back;
    (void)evbuffer_remove_cb_entry(bufferevent_get_input(guest->stream), guest->watch_input);
    (void)evbuffer_remove_cb_entry(bufferevent_get_output(guest->stream), guest->watch_output);
    event_free(guest->timer);
    stop_watching(guest);
    bufferevent_decref(guest->stream);
    free(guest);
}

/* evhttp is about to let go of it. */
static void on_closed(struct evhttp_connection *connection, void *arg)
{
    struct guest *guest = arg;

    (void)connection;
    if (guest->exchange)
        exchange_lost_guest(guest->exchange, guest->api->is_closing);
    guest_free(guest);
}

static void cut(struct guest *guest)
{
    evhttp_connection_free(guest->connection); /* calls on_closed() */
}

/* ---- leaving while something is waited for ---- */

/* The next request, sent ahead, would hide the end behind it: then it is looked for every PEEK_MS. */
static void look_whether_left(struct guest *guest)
{
    struct pollfd pollfd = { .fd = bufferevent_getfd(guest->stream), .events = POLLRDHUP };
    struct exchange *exchange = guest->exchange;

    if (poll(&pollfd, 1, 0) < 1) {
        set_timer(guest, PEEK_MS);
        return;
    }
    guest->exchange = NULL;
    if (exchange)
        exchange_left(exchange);
    cut(guest); /* and the request with it */
}

static void on_leaving(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look_whether_left(arg);
}

void guest_watch(struct guest *guest)
{
    stop_watching(guest);
    guest->leaving =
        event_new(bufferevent_get_base(guest->stream), bufferevent_getfd(guest->stream), EV_READ, on_leaving, guest);
    if (!guest->leaving || event_add(guest->leaving, NULL) != 0)
        set_timer(guest, PEEK_MS);
}

/* ---- refusing outside evhttp ---- */

/* evhttp may still call it once with an argument of its own: so it looks at none. */
static void on_stray_input(struct bufferevent *stream, void *arg)
{
    struct evbuffer *input = bufferevent_get_input(stream);

    (void)arg;
    (void)evbuffer_drain(input, evbuffer_get_length(input));
}

static void on_refusal_written(struct bufferevent *stream, void *arg)
{
    (void)arg;
    (void)shutdown(bufferevent_getfd(stream), SHUT_WR);
}

static void on_refusal_over(struct bufferevent *stream, short what, void *arg)
{
    (void)stream;
    (void)what;
    cut(arg);
}

/*
 * Answers without evhttp, which is in the middle of a head or a body, then reads and throws away what comes until
 * linger_ms are over: a connection that is closed with something unread in it loses its answer.
 */
static void refuse(struct guest *guest)
{
    const struct problem *problem = problem_of(guest->refusal);
    char id[ID_LETTERS], memory[REFUSAL_BYTES];
    struct text body = text_over(memory, sizeof memory), head;
    struct evbuffer *output = bufferevent_get_output(guest->stream);

    (void)evbuffer_unfreeze(output, 1); /* nothing of evhttp's own answer has gone out yet */
    (void)evbuffer_drain(output, evbuffer_get_length(output));
    (void)evbuffer_freeze(output, 1);
    random_letters(id, sizeof id);
    problem_write(problem, slice_of(problem->title), (struct slice){ id, sizeof id }, SLICE(""), &body);
    text_init(&head, REFUSAL_BYTES);
    text_printf(&head,
                "HTTP/1.1 %u %s\r\nContent-Type: application/problem+json\r\nContent-Length: %zu\r\n"
                "X-Request-Id: %.*s\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
                problem->status, reason_of(problem->status), body.len, ID_LETTERS, id);
    log_info("a request to the admin API is refused before it was read: %s (req=%.*s)", problem->title, ID_LETTERS, id);
    forget_received(guest);
    enter_phase(guest, GUEST_LEAVING);
    bufferevent_setcb(guest->stream, on_stray_input, on_refusal_written, on_refusal_over, guest);
    on_stray_input(guest->stream, NULL);
    (void)bufferevent_write(guest->stream, text_string(&head), head.len);
    (void)bufferevent_write(guest->stream, body.at, body.len);
    (void)bufferevent_enable(guest->stream, EV_READ | EV_WRITE);
    text_release(&head);
}

/* ---- how much comes ---- */

/* In the midst of evhttp's reading: so what follows from it waits for the timer. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    struct guest *guest = arg;
    const struct api_options *options = &guest->api->options;

    (void)input;
    if (guest->phase != GUEST_READING || !info->n_added)
        return;
    guest->received += info->n_added;
    guest->api->received += info->n_added;
    if (guest->refusal)
        return;
    if (guest->received > options->max_head_bytes + options->max_body_bytes)
        guest->refusal = "payload_too_large";
    else if (guest->received > SMALL_BYTES && guest->api->received > options->max_waiting_bytes)
        guest->refusal = "overloaded";
    if (guest->refusal)
        event_active(guest->timer, EV_TIMEOUT, 0);
}

/* Something is written that nobody here has asked for: evhttp answers what it could not read, or says 100 Continue. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct guest *guest = arg;
    struct evbuffer_iovec piece = { 0 };
    struct slice status;

    if (guest->phase != GUEST_READING || !info->n_added || guest->refusal ||
        evbuffer_peek(output, STATUS_LINE_BYTES, NULL, &piece, 1) < 1 || piece.iov_len < STATUS_LINE_BYTES)
        return;
    status = (struct slice){ (const char *)piece.iov_base + sizeof "HTTP/1.1", 3 };
    if (slice_is(status, SLICE("100")))
        return;
    if (slice_is(status, SLICE("413")))
        guest->refusal = "payload_too_large";
    else
        guest->refusal = guest->received > guest->api->options.max_head_bytes ? "head_too_large" : "bad_request";
    event_active(guest->timer, EV_TIMEOUT, 0);
}

/* ---- how many come ---- */

static struct guest *slowest(const struct api *api)
{
    struct guest *found = NULL;

    for (struct guest *guest = api->guests; guest; guest = guest->next)
        if (guest->phase != GUEST_JUST_COME && guest->phase != GUEST_WORKING &&
            (!found || guest->since_ms < found->since_ms))
            found = guest;
    return found;
}

static void adopt(struct guest *guest)
{
    struct api *api = guest->api;
    bufferevent_data_cb read, write;
    bufferevent_event_cb event;
    void *owner = NULL;
    struct guest *other;

    bufferevent_getcb(guest->stream, &read, &write, &event, &owner);
    if (!owner || !event) { /* evhttp had no memory for it */
        guest_free(guest);
        return;
    }
    guest->connection = owner;
    evhttp_connection_set_closecb(guest->connection, on_closed, guest);
    other = api->guest_count > api->options.max_connections ? slowest(api) : NULL;
    enter_phase(guest, GUEST_READING);
    if (other && guest->since_ms - other->since_ms >= SPARED_MS)
        cut(other);
    else if (api->guest_count > api->options.max_connections && !fleet_hurry(api))
        cut(guest);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct guest *guest = arg;

    (void)fd;
    (void)what;
    if (guest->phase == GUEST_JUST_COME) {
        adopt(guest);
    } else if (guest->phase == GUEST_READING && guest->refusal) {
        refuse(guest);
    } else if (guest->phase == GUEST_READING && guest->received) {
        guest->refusal = "request_timeout";
        refuse(guest);
    } else if (guest->phase != GUEST_WORKING) {
        cut(guest);
    } else {
        look_whether_left(guest);
    }
}

/*
 * evhttp asks for a stream for each connection. One that closes its socket itself: left to evhttp, the socket is closed
 * first and taken out of the loop after that.
 */
static struct bufferevent *make_stream(struct event_base *base, void *arg)
{
    struct api *api = arg;
    struct bufferevent *stream = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    struct guest *guest = calloc(1, sizeof *guest);

    if (guest) {
        guest->timer = evtimer_new(base, on_timer, guest);
        guest->watch_input = stream ? evbuffer_add_cb(bufferevent_get_input(stream), on_input, guest) : NULL;
        guest->watch_output = stream ? evbuffer_add_cb(bufferevent_get_output(stream), on_output, guest) : NULL;
    }
    if (!guest || !guest->timer || !guest->watch_input || !guest->watch_output) {
        if (guest && guest->timer)
            event_free(guest->timer);
        free(guest);
        if (stream)
            bufferevent_free(stream);
        return NULL; /* evhttp makes one itself; who comes on it is answered that there is no memory */
    }
    bufferevent_incref(stream);
    guest->api = api;
    guest->stream = stream;
    guest->phase = GUEST_JUST_COME;
    guest->next = api->guests;
    guest->back = &api->guests;
    if (guest->next)
        guest->next->back = &guest->next;
    api->guests = guest;
    api->guest_count++;
    event_active(guest->timer, EV_TIMEOUT, 0);
    return stream;
}

/* ---- a request and its answer ---- */

static void on_request(struct evhttp_request *http, void *arg)
{
    struct api *api = arg;
    struct evhttp_connection *connection = evhttp_request_get_connection(http);
    struct guest *guest = api->guests;

    while (guest && guest->connection != connection)
        guest = guest->next;
    if (!guest) {
        evhttp_send_error(http, HTTP_SERVUNAVAIL, NULL);
        return;
    }
    enter_phase(guest, GUEST_WORKING);
    exchange_begin(api, guest, http, &guest->exchange);
}

/* evhttp has written it all. Now it reads on, or closes the connection. */
static void on_written(struct evhttp_request *http, void *arg)
{
    struct guest *guest = arg;

    (void)http;
    forget_received(guest);
    guest->received = evbuffer_get_length(bufferevent_get_input(guest->stream));
    guest->api->received += guest->received;
    enter_phase(guest, GUEST_READING);
}

static void add_field(struct evkeyvalq *fields, const char *name, struct slice value)
{
    char memory[2048];
    struct text text = text_over(memory, sizeof memory);

    text_add_slice(&text, value);
    if (value.len && !text.err)
        (void)evhttp_add_header(fields, name, memory);
}

void guest_answer(struct guest *guest, struct evhttp_request *http, struct slice id, const struct reply *reply)
{
    struct evkeyvalq *fields = evhttp_request_get_output_headers(http);

    add_field(fields, "X-Request-Id", id);
    add_field(fields, "Cache-Control", SLICE("no-store"));
    add_field(fields, "X-Content-Type-Options", SLICE("nosniff"));
    add_field(fields, "Content-Type", slice_of(reply->type));
    add_field(fields, "ETag", slice_of(reply->etag));
    add_field(fields, "Location", reply->location);
    add_field(fields, "Allow", reply->allow);
    add_field(fields, "Qwen-Config-Version", slice_of(reply->version));
    add_field(fields, "Retry-After", slice_of(reply->retry_after));
    if (reply->is_replay)
        add_field(fields, "Idempotency-Replayed", SLICE("true"));
    if (reply->asks_for_token)
        add_field(fields, "WWW-Authenticate", SLICE("Bearer"));
    if (reply->closes)
        add_field(fields, "Connection", SLICE("close"));
    if (reply->type)
        (void)evbuffer_add(evhttp_request_get_output_buffer(http), reply->body.at, reply->body.len);
    if (guest) {
        guest->exchange = NULL;
        evhttp_request_set_on_complete_cb(http, on_written, guest);
        enter_phase(guest, GUEST_WRITING);
    }
    evhttp_send_reply(http, (int)reply->status, reason_of(reply->status), NULL);
}

/* ---- the listener ---- */

/* Without a descriptor or memory to accept with, the listener would stay ready: it pauses instead of spinning. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    static const struct timeval pause = { .tv_usec = ACCEPT_PAUSE_US };

    (void)arg;
    (void)evconnlistener_disable(listener);
    (void)event_add(the_api->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;

    (void)fd;
    (void)what;
    if (api->listener)
        (void)evconnlistener_enable(api->listener);
}

bool guests_open(struct api *api, struct event_base *base, struct text *why)
{
    struct evhttp_bound_socket *bound = NULL;

    if (place_open(api->options.listen, &api->socket, why) != ERR_OK)
        return false;
    api->http = evhttp_new(base);
    api->accept_again = evtimer_new(base, on_accept_again, api);
    if (api->http && api->accept_again)
        bound = evhttp_accept_socket_with_handle(api->http, api->socket);
    if (!bound) {
        (void)close(api->socket);
        text_add_literal(why, "cannot listen for the admin API: out of memory");
        return false;
    }
    api->bound = bound;
    api->listener = evhttp_bound_socket_get_listener(bound);
    the_api = api;
    evconnlistener_set_error_cb(api->listener, on_accept_error);
    evhttp_set_bevcb(api->http, make_stream, api);
    evhttp_set_allowed_methods(api->http, UINT16_MAX); /* those that are not are told what is */
    evhttp_set_max_headers_size(api->http, (ev_ssize_t)api->options.max_head_bytes);
    evhttp_set_gencb(api->http, on_request, api);
    return true;
}

void guests_stop(struct api *api)
{
    if (!api->bound)
        return;
    evhttp_del_accept_socket(api->http, api->bound); /* closes it */
    api->bound = NULL;
    api->listener = NULL;
    place_remove(api->options.listen);
}

void guests_close(struct api *api)
{
    guests_stop(api);
    if (api->http)
        evhttp_free(api->http); /* calls on_closed() for each */
    if (api->accept_again)
        event_free(api->accept_again);
    while (api->guests) /* came in this very moment */
        guest_free(api->guests);
    the_api = NULL;
}
