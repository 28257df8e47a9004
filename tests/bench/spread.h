/*
 * spread - how many values fell where: a histogram of durations in microseconds with 1/256 of relative error, and its
 * percentiles. The memory is the caller's; zeroed is empty. One thread.
 */
#pragma once
#include <stdint.h>

enum { SPREAD_STEPS = 256, SPREAD_OCTAVES = 32 };

struct spread {
    uint64_t count;
    uint64_t most_us;
    uint32_t in[SPREAD_OCTAVES * SPREAD_STEPS];
};

void spread_add(struct spread *spread, uint64_t value_us);
/* As a JSON array of [value, how many], lowest first: what spreads that were taken apart are put together from. */
void spread_print(const struct spread *spread);
/* The value below which `share` (0 to 1) of all lie; 0 when there are none. */
double spread_at(const struct spread *spread, double share);
