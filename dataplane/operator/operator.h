/*
 * operator - the operator's own listener: /metrics, /healthz, /readyz, /explain. Read-only: nothing here changes
 * anything. On the control thread, on libevent's evhttp, so that it answers also when the workers are busy. And the
 * other end of it, for a command that asks a running gateway. A request whose Host is a name that nobody has given to
 * this listener gets 403: a browser that a foreign page has led here (DNS rebinding) says that page's name. Addresses
 * are fine, since rebinding takes a name; a unix socket, which no browser reaches, asks for none.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

struct endpoint;
struct event_base;
struct operator;

struct operator_options {
    struct event_base *base;
    int socket; /* listening; taken over */
    void (*print_metrics)(void *arg, struct text *out);
    unsigned (*readiness)(void *arg, struct text *out); /* the status, and its body */
    /* GET /explain?model=NAME: what a request for it would meet now, lines for people. 200; or 404 with one sentence.
     * NULL: there is nothing at that path. */
    unsigned (*explain)(void *arg, struct slice model, struct text *out);
    bool (*knows_host)(void *arg, struct slice name); /* beside localhost: the listener's own, and those given to it */
    void *arg;
};

struct operator* operator_new(const struct operator_options *options);
void operator_free(struct operator* operator);

/*
 * Asks the gateway that listens there for its explanation. Blocks, but not for longer than patience_ms on one silence;
 * any thread. *out: lines to print, without anything that a terminal would obey. Else one sentence in `why`: ERR_SYSTEM
 * nobody answers, ERR_TIMEOUT, ERR_BAD it is no gateway, ERR_REFUSED the gateway says no, as for a model it does not
 * know.
 */
enum err operator_explain(const struct endpoint *endpoint, struct slice model, int patience_ms, struct text *out,
                          struct text *why);
