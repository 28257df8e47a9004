#include "arrivals.h"

enum { KEPT = 1 << 17 };

static struct arrival kept[KEPT];
static unsigned all;

void arrivals_expect(unsigned gateways)
{
    all = gateways;
}

static void note(struct arrival *arrival, uint64_t version, int64_t now_us)
{
    if (arrival->version > version)
        return;
    if (arrival->version < version)
        *arrival = (struct arrival){ .version = version, .first_us = now_us };
    arrival->reached++;
    if (!arrival->half_us && arrival->reached >= (all + 1) / 2)
        arrival->half_us = now_us;
    if (!arrival->most_us && arrival->reached >= all - all / 100)
        arrival->most_us = now_us;
    if (!arrival->all_us && arrival->reached >= all)
        arrival->all_us = now_us;
}

void arrivals_note(uint64_t from, uint64_t to, int64_t now_us)
{
    if (to - from > KEPT)
        from = to - KEPT;
    for (uint64_t version = from + 1; version <= to; version++)
        note(&kept[version % KEPT], version, now_us);
}

struct arrival arrivals_of(uint64_t version)
{
    struct arrival arrival = kept[version % KEPT];

    return arrival.version == version ? arrival : (struct arrival){ .version = version };
}
