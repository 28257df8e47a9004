#include "known.h"

#include <stdlib.h>

enum { FIRST_ROOM = 64 };

/* Of a SHA-256, so its bits are as good as any; the one of 2^64 that is 0 counts as 1. */
static uint64_t word_of(const uint8_t *hash)
{
    uint64_t word = 0;

    for (unsigned i = 0; i < sizeof word; i++)
        word = word << 8 | hash[i];
    return word ? word : 1;
}

static uint32_t place_of(const struct known *known, uint64_t word)
{
    uint32_t at = (uint32_t)word & (known->room - 1);

    while (known->places[at] && known->places[at] != word)
        at = (at + 1) & (known->room - 1);
    return at;
}

void known_release(struct known *known)
{
    free(known->places);
    *known = (struct known){};
}

static bool grow(struct known *known)
{
    struct known next = { .room = known->room ? 2 * known->room : FIRST_ROOM,
                          .count = known->count,
                          .sum = known->sum };

    next.places = calloc(next.room, sizeof *next.places);
    if (!next.places)
        return false;
    for (uint32_t i = 0; i < known->room; i++)
        if (known->places[i])
            next.places[place_of(&next, known->places[i])] = known->places[i];
    free(known->places);
    *known = next;
    return true;
}

bool known_add(struct known *known, const uint8_t *hash)
{
    uint64_t word = word_of(hash);
    uint32_t at;

    if (known->count + 1 > known->room / 4 * 3 && !grow(known))
        return false;
    at = place_of(known, word);
    if (!known->places[at]) {
        known->places[at] = word;
        known->count++;
        known->sum += word;
    }
    return true;
}

/* What stands behind it and could not be found any more over the gap moves up. */
void known_remove(struct known *known, const uint8_t *hash)
{
    uint64_t word = word_of(hash);
    uint32_t gap, mask = known->room - 1;

    if (!known->room)
        return;
    gap = place_of(known, word);
    if (!known->places[gap])
        return;
    known->count--;
    known->sum -= word;
    for (uint32_t at = (gap + 1) & mask; known->places[at]; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)known->places[at] & mask;
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            known->places[gap] = known->places[at];
            gap = at;
        }
    }
    known->places[gap] = 0;
}
