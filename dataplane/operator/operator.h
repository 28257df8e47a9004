/*
 * operator - the operator's own listener: /metrics, /healthz, /readyz. Read-only: nothing here changes anything. On the
 * control thread, on libevent's evhttp, so that it answers also when the workers are busy.
 */
#pragma once
#include "text.h"

struct event_base;
struct operator;

struct operator_options {
    struct event_base *base;
    int socket; /* listening; taken over */
    void (*print_metrics)(void *arg, struct text *out);
    unsigned (*readiness)(void *arg, struct slice *ret_body);
    void *arg;
};

struct operator* operator_new(const struct operator_options *options);
void operator_free(struct operator* operator);
