#include "operator.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_HEAD_BYTES = 16 << 10, MAX_BODY_BYTES = 4096, TIMEOUT_S = 30, MAX_METRICS_BYTES = 16 << 20 };

struct operator
{
    struct operator_options options;
    struct evhttp *http;
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
                      : status == 404 ? "Not Found"
                                      : "Service Unavailable",
                      NULL);
}

static void on_metrics(struct evhttp_request *request, void *arg)
{
    struct operator* operator= arg;
    struct text out;

    text_init(&out, MAX_METRICS_BYTES);
    operator->options.print_metrics(operator->options.arg, &out);
    answer(request, out.err ? 503 : 200, "text/plain; version=0.0.4; charset=utf-8", text_slice(&out));
    text_release(&out);
}

static void on_healthz(struct evhttp_request *request, void *arg)
{
    (void)arg;
    answer(request, 200, "application/json", SLICE("{\"status\":\"ok\"}"));
}

static void on_readyz(struct evhttp_request *request, void *arg)
{
    struct operator* operator= arg;
    struct slice body;
    unsigned status = operator->options.readiness(operator->options.arg, &body);

    answer(request, status, "application/json", body);
}

static void on_other(struct evhttp_request *request, void *arg)
{
    (void)arg;
    answer(request, 404, "application/json",
           SLICE("{\"error\":\"there is nothing at this path; the operator's listener has /metrics, /healthz and "
                 "/readyz\"}"));
}

struct operator* operator_new(const struct operator_options *options)
{
    struct operator* operator= calloc(1, sizeof *operator);

    if (!operator)
        return NULL;
    operator->options = * options;
    operator->http = evhttp_new(options->base);
    if (!operator->http || evhttp_accept_socket(operator->http, options->socket) != 0) {
        (void)close(options->socket);
        operator_free(operator);
        return NULL;
    }
    evhttp_set_allowed_methods(operator->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD);
    evhttp_set_max_headers_size(operator->http, MAX_HEAD_BYTES);
    evhttp_set_max_body_size(operator->http, MAX_BODY_BYTES);
    evhttp_set_timeout(operator->http, TIMEOUT_S);
    (void)evhttp_set_cb(operator->http, "/metrics", on_metrics, operator);
    (void)evhttp_set_cb(operator->http, "/healthz", on_healthz, operator);
    (void)evhttp_set_cb(operator->http, "/readyz", on_readyz, operator);
    evhttp_set_gencb(operator->http, on_other, operator);
    return operator;
}

void operator_free(struct operator* operator)
{
    if (!operator)
        return;
    if (operator->http)
        evhttp_free(operator->http);
    free(operator);
}
