/*
 * Wrong tokens by address, in a table of fixed size. An address beyond those that have room takes the place of the one
 * among four whose minute began first: whoever comes from many addresses is not held back by this, and need not be,
 * since a token has 256 random bits.
 */
#include "parts.h"

#include "digest.h"

enum { V4_PREFIX_BYTES = 12, V6_NET_BYTES = 8 };

void limiter_init(struct limiter *limiter, unsigned max)
{
    memset(limiter, 0, sizeof *limiter);
    limiter->max = max;
    random_bytes(limiter->seed, sizeof limiter->seed);
    limiter->seed[1] |= 1;
}

/* Of IPv6 whoever has one address has its whole /64. */
static struct address home_of(const struct address *address)
{
    static const uint8_t mapped[V4_PREFIX_BYTES] = { [10] = 0xff, [11] = 0xff };
    struct address home = *address;

    if (memcmp(address->bytes, mapped, sizeof mapped) != 0)
        memset(home.bytes + V6_NET_BYTES, 0, sizeof home.bytes - V6_NET_BYTES);
    return home;
}

static struct limiter_place *find(struct limiter *limiter, const struct address *home)
{
    uint64_t hash = slice_hash(limiter->seed, (struct slice){ (const char *)home->bytes, sizeof home->bytes });
    struct limiter_place *oldest = NULL;

    for (size_t i = 0; i < LIMITER_WAYS; i++) {
        struct limiter_place *place = &limiter->places[(hash + i) % LIMITER_PLACES];
        if (place->began_ms && address_is(&place->address, home))
            return place;
        if (!oldest || place->began_ms < oldest->began_ms)
            oldest = place;
    }
    *oldest = (struct limiter_place){ .address = *home };
    return oldest;
}

int64_t limiter_count(struct limiter *limiter, const struct address *address, int64_t now_ms)
{
    struct address home = home_of(address);
    struct limiter_place *place = find(limiter, &home);

    if (!place->began_ms || now_ms - place->began_ms >= LIMITER_WINDOW_MS) {
        place->began_ms = now_ms ? now_ms : 1;
        place->count = 0;
    }
    if (place->count >= limiter->max)
        return place->began_ms + LIMITER_WINDOW_MS - now_ms;
    place->count++;
    return 0;
}
