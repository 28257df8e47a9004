/*
 * health - is the gateway ready to take callers? One answer for both listeners (behaviour.md 2.3); the operator is also
 * told which backends take no callers, and what is wrong with those that answer. Any thread.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

struct fleet;

/* 200, or 503 with the reason in the body, which is a literal. */
unsigned health_readiness(const struct fleet *fleet, bool is_draining, struct slice *ret_body);
/* The same with the findings, where there are any: names of backends are in it, so it is not for callers. */
unsigned health_report(const struct fleet *fleet, bool is_draining, struct text *out);
