/*
 * operator - the operator's own listener: /metrics, /healthz, /readyz. Read-only: nothing here changes anything. On the
 * control thread, on libevent's evhttp, so that it answers also when the workers are busy.
 * A request whose Host is a name that nobody has given to this listener gets 403: a browser that a foreign page has led
 * here (DNS rebinding) says that page's name. Addresses are fine, since rebinding takes a name; a unix socket, which no
 * browser reaches, asks for none.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

struct event_base;
struct operator;

struct operator_options {
    struct event_base *base;
    int socket; /* listening; taken over */
    void (*print_metrics)(void *arg, struct text *out);
    unsigned (*readiness)(void *arg, struct slice *ret_body);
    bool (*knows_host)(void *arg, struct slice name); /* beside localhost: the listener's own, and those given to it */
    void *arg;
};

struct operator* operator_new(const struct operator_options *options);
void operator_free(struct operator* operator);
