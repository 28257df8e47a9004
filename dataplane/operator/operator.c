#include "operator.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host.h"

enum {
    MAX_HEAD_BYTES = 16 << 10,
    MAX_BODY_BYTES = 4096,
    TIMEOUT_S = 30,
    MAX_METRICS_BYTES = 16 << 20,
    MAX_READINESS_BYTES = 16 << 20,
    ACCEPT_PAUSE_US = 100000
};

struct operator
{
    struct operator_options options;
    struct evhttp *http;
    struct evconnlistener *listener; /* http's */
    struct event *accept_again;
    bool asks_for_host; /* it is no unix socket */
};

static void answer(struct evhttp_request *request, unsigned status, const char *type, struct slice body)
{
    struct evkeyvalq *fields = evhttp_request_get_output_headers(request);
    struct evbuffer *buffer = evhttp_request_get_output_buffer(request);

    (void)evhttp_add_header(fields, "Content-Type", type);
    (void)evhttp_add_header(fields, "Cache-Control", "no-store");
    (void)evbuffer_add(buffer, body.at, body.len);
    evhttp_send_reply(request, (int)status,
                      status == 200   ? "OK"
                      : status == 400 ? "Bad Request"
                      : status == 403 ? "Forbidden"
                      : status == 404 ? "Not Found"
                                      : "Service Unavailable",
                      NULL);
}

static bool knows(const struct operator* operator, const char * field)
{
    struct slice name = { "", 0 };

    if (!field || host_is_no_name(slice_of(field), &name))
        return true;
    /* What is neither a name nor an address must not pass for the host of a listener that has none (":9090"). */
    return name.len &&
           (slice_is_nocase(name, SLICE("localhost")) || operator->options.knows_host(operator->options.arg, name));
}

/* Every Host that is given, and the one in a target with a scheme. False: answered. */
static bool may_ask(struct evhttp_request *request, const struct operator* operator)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const struct evkeyval *field = evhttp_request_get_input_headers(request)->tqh_first;
    bool may = !operator->asks_for_host || !uri || knows(operator, evhttp_uri_get_host(uri));

    for (; may && operator->asks_for_host && field; field = field->next.tqe_next)
        may = !slice_is_nocase(slice_of(field->key), SLICE("host")) || knows(operator, field->value);
    if (!may)
        answer(request, 403, "application/json",
               SLICE("{\"error\":\"the operator's listener does not go by the name in Host; ask by address, or add the "
                     "name to operator_hosts\"}"));
    return may;
}

static void on_metrics(struct evhttp_request *request, void *arg)
{
    struct operator* operator= arg;
    struct text out;

    if (!may_ask(request, operator))
        return;
    text_init(&out, MAX_METRICS_BYTES);
    operator->options.print_metrics(operator->options.arg, &out);
    answer(request, out.err ? 503 : 200, "text/plain; version=0.0.4; charset=utf-8", text_slice(&out));
    text_release(&out);
}

static void on_healthz(struct evhttp_request *request, void *arg)
{
    if (may_ask(request, arg))
        answer(request, 200, "application/json", SLICE("{\"status\":\"ok\"}"));
}

static void on_readyz(struct evhttp_request *request, void *arg)
{
    struct operator* operator= arg;
    struct text out;
    unsigned status;

    if (!may_ask(request, operator))
        return;
    text_init(&out, MAX_READINESS_BYTES);
    status = operator->options.readiness(operator->options.arg, &out);
    answer(request, out.err ? 503 : status, "application/json", text_slice(&out));
    text_release(&out);
}

static void explain(struct evhttp_request *request, const struct operator* operator, const char * model)
{
    struct text out;
    unsigned status;

    text_init(&out, MAX_METRICS_BYTES);
    status = operator->options.explain(operator->options.arg, slice_of(model), &out);
    answer(request, out.err ? 503 : status, "text/plain; charset=utf-8", text_slice(&out));
    text_release(&out);
}

static void on_explain(struct evhttp_request *request, void *arg)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *query = uri ? evhttp_uri_get_query(uri) : NULL, *model = NULL;
    struct evkeyvalq fields = { 0 };

    if (!may_ask(request, arg))
        return;
    if (query && evhttp_parse_query_str(query, &fields) == 0)
        model = evhttp_find_header(&fields, "model");
    if (model && model[0])
        explain(request, arg, model);
    else
        answer(request, 400, "text/plain; charset=utf-8", SLICE("which model? /explain?model=NAME\n"));
    evhttp_clear_headers(&fields);
}

static void on_other(struct evhttp_request *request, void *arg)
{
    if (may_ask(request, arg))
        answer(request, 404, "application/json",
               SLICE("{\"error\":\"there is nothing at this path; the operator's listener has /metrics, /healthz, "
                     "/readyz and /explain\"}"));
}

static bool is_unix(int socket)
{
    struct sockaddr_storage address = { 0 };
    socklen_t bytes = sizeof address;

    return getsockname(socket, (struct sockaddr *)&address, &bytes) == 0 && address.ss_family == AF_UNIX;
}

/*
 * A connection that closes its socket itself. Left to evhttp, the socket is closed first and taken out of the loop
 * after that, when its number may be a worker's connection already.
 */
static struct bufferevent *make_connection(struct event_base *base, void *arg)
{
    (void)arg;
    return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
}

/* evhttp has taken the listener's own word for itself, so the way from there to us is this. One a process. */
static struct operator* the_operator;

/* Without a descriptor or memory to accept with, the listener would stay ready: it pauses instead of spinning. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    static const struct timeval pause = { .tv_usec = ACCEPT_PAUSE_US };

    (void)arg;
    (void)evconnlistener_disable(listener);
    (void)event_add(the_operator->accept_again, &pause);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct operator* operator= arg;

    (void)fd;
    (void)what;
    (void)evconnlistener_enable(operator->listener);
}

static bool listen_on(struct operator* operator, int socket)
{
    struct evhttp_bound_socket *bound;

    operator->http = evhttp_new(operator->options.base);
    operator->accept_again = evtimer_new(operator->options.base, on_accept_again, operator);
    if (!operator->http || !operator->accept_again || !(bound =
                                                            evhttp_accept_socket_with_handle(operator->http, socket))) {
        (void)close(socket);
        return false;
    }
    operator->listener = evhttp_bound_socket_get_listener(bound);
    the_operator = operator;
    evconnlistener_set_error_cb(operator->listener, on_accept_error);
    return true;
}

struct operator* operator_new(const struct operator_options *options)
{
    struct operator* operator= calloc(1, sizeof *operator);

    if (!operator)
        return NULL;
    operator->options = * options;
    operator->asks_for_host = !is_unix(options->socket);
    if (!listen_on(operator, options->socket)) {
        operator_free(operator);
        return NULL;
    }
    evhttp_set_bevcb(operator->http, make_connection, NULL);
    evhttp_set_allowed_methods(operator->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(operator->http, MAX_HEAD_BYTES);
    evhttp_set_max_body_size(operator->http, MAX_BODY_BYTES);
    evhttp_set_timeout(operator->http, TIMEOUT_S);
    (void)evhttp_set_cb(operator->http, "/metrics", on_metrics, operator);
    (void)evhttp_set_cb(operator->http, "/healthz", on_healthz, operator);
    (void)evhttp_set_cb(operator->http, "/readyz", on_readyz, operator);
    if (options->explain)
        (void)evhttp_set_cb(operator->http, "/explain", on_explain, operator);
    evhttp_set_gencb(operator->http, on_other, operator);
    return operator;
}

void operator_free(struct operator* operator)
{
    if (!operator)
        return;
    if (operator->accept_again)
        event_free(operator->accept_again);
    if (operator->http)
        evhttp_free(operator->http);
    free(operator);
}
