/* Values below twice SPREAD_STEPS have a place each; above, every doubling has SPREAD_STEPS places. */
#include "spread.h"

#include <stdio.h>

static unsigned place_of(uint64_t value)
{
    unsigned octave = 0;

    while (value >= SPREAD_STEPS * 2 && octave < SPREAD_OCTAVES - 2) {
        value >>= 1;
        octave++;
    }
    if (value >= SPREAD_STEPS * 2)
        value = SPREAD_STEPS * 2 - 1;
    return octave * SPREAD_STEPS + (unsigned)value;
}

static double value_at(unsigned place)
{
    unsigned octave = place < SPREAD_STEPS * 2 ? 0 : place / SPREAD_STEPS - 1;
    uint64_t step = (uint64_t)1 << octave;

    return (double)(step * (place - octave * SPREAD_STEPS)) + (double)(step - 1) / 2;
}

void spread_add(struct spread *spread, uint64_t value_us)
{
    spread->count++;
    spread->in[place_of(value_us)]++;
    if (value_us > spread->most_us)
        spread->most_us = value_us;
}

double spread_at(const struct spread *spread, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)spread->count);
    uint64_t below = 0;

    if (!spread->count)
        return 0;
    for (unsigned place = 0; place < SPREAD_OCTAVES * SPREAD_STEPS; place++) {
        below += spread->in[place];
        if (below > wanted)
            return value_at(place);
    }
    return (double)spread->most_us;
}

void spread_print(const struct spread *spread)
{
    const char *between = "";

    printf("[");
    for (unsigned place = 0; place < SPREAD_OCTAVES * SPREAD_STEPS; place++) {
        if (!spread->in[place])
            continue;
        printf("%s[%.1f,%u]", between, value_at(place), spread->in[place]);
        between = ",";
    }
    printf("]");
}
