/*
 * arrivals - when which version had reached how many gateways: the first, half, 99 of 100, and all of them. Of the last
 * 131,072 versions; monotonic us; 0: not yet.
 */
#pragma once
#include <stdint.h>

struct arrival {
    uint64_t version;
    unsigned reached;
    int64_t first_us, half_us, most_us, all_us;
};

/* So many gateways are all. Never fewer than have reached a version that is still asked for. */
void arrivals_expect(unsigned gateways);
/* One gateway had `from` and has `to`, and so all between them. */
void arrivals_note(uint64_t from, uint64_t to, int64_t now_us);
/* Zeros but for the version: nobody has reached it, or it is too long ago. */
struct arrival arrivals_of(uint64_t version);
