#include "parts.h"

enum { MAX_WORD = 32 };

static unsigned least(unsigned one, unsigned two, unsigned three)
{
    unsigned two_least = one < two ? one : two;

    return two_least < three ? two_least : three;
}

/* How many letters must be put in, left out, exchanged or swapped with their neighbour. */
static unsigned distance(struct slice from, struct slice to)
{
    unsigned rows[3][MAX_WORD + 1];
    unsigned *last = rows[0], *now = rows[1], *before = rows[2];

    if (from.len > MAX_WORD || to.len > MAX_WORD)
        return MAX_WORD;
    for (size_t j = 0; j <= to.len; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= from.len; i++) {
        unsigned *free = before;

        now[0] = (unsigned)i;
        for (size_t j = 1; j <= to.len; j++) {
            bool is_same = from.at[i - 1] == to.at[j - 1];

            now[j] = least(last[j] + 1, now[j - 1] + 1, last[j - 1] + !is_same);
            if (i > 1 && j > 1 && from.at[i - 1] == to.at[j - 2] && from.at[i - 2] == to.at[j - 1] &&
                before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
        before = last;
        last = now;
        now = free;
    }
    return last[to.len];
}

const char *suggest(struct slice word, const char *const *words, size_t count)
{
    unsigned best_distance = word.len < 3 ? 2 : word.len < 7 ? 3 : 4; /* what is this far off is something else */
    const char *best = NULL;

    for (size_t i = 0; i < count; i++) {
        struct slice other = slice_of(words[i]);
        unsigned so_far = distance(word, other);

        if (word.len >= 3 && slice_starts(other, word) && so_far > 1)
            so_far = 1; /* cut short, which is hardly an accident */
        if (so_far < best_distance) {
            best = words[i];
            best_distance = so_far;
        }
    }
    return best;
}
