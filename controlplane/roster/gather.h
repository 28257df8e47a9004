/*
 * gather - when gateways are told of a change: the first at once, and while more keep coming, those of first_ms, then
 * of twice as long, up to longest_ms, together. Knows no clock. Not a door: others include roster.h.
 */
#pragma once
#include <stdint.h>

struct gather {
    int64_t first_ms, longest_ms;
    int64_t told_ms, delay_ms; /* when they were told last, and what comes then waits for */
};

/* Something has changed: when to tell it. Never before now. */
int64_t gather_at(const struct gather *gather, int64_t now_ms);
/* They were told. */
void gather_told(struct gather *gather, int64_t now_ms);
