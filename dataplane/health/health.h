/*
 * health - is the gateway ready to take callers? One answer for both listeners (behaviour.md 2.3); the operator is also
 * told which backends take no callers, and what is wrong with those that answer. Any thread.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

struct fleet;

/* What else the gateway knows of itself. */
struct health_state {
    bool is_draining;
    bool is_stale;       /* it has not heard of its control plane for too long, and refuses callers */
    struct slice report; /* for the operator: members to add to the body, each with a comma before it */
};

/* 200, or 503 with the reason in the body, which is a literal. */
unsigned health_readiness(const struct fleet *fleet, const struct health_state *state, struct slice *ret_body);
/* The same with the findings, where there are any: names of backends are in it, so it is not for callers. */
unsigned health_report(const struct fleet *fleet, const struct health_state *state, struct text *out);
