/*
 * known - which keys a simulated gateway knows: the first eight bytes of each hash, exactly, with their count and their
 * sum (modulo 2^64), by which a judge compares them with the database. Whoever has one owns it; no thread but his.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct known {
    uint64_t *places; /* open addressing; 0: free */
    uint32_t room, count;
    uint64_t sum;
};

void known_release(struct known *known);
/* One that is there stays. False: no memory. */
bool known_add(struct known *known, const uint8_t *hash);
/* One that is not there is no error. */
void known_remove(struct known *known, const uint8_t *hash);
