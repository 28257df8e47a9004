#include "text.h"

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* In the manner of wyhash: eight bytes a multiplication. */
uint64_t slice_hash(const uint64_t seed[2], struct slice slice)
{
    const char *bytes = slice.at;
    size_t len = slice.len;
    uint64_t hash = seed[0] ^ slice.len;
    uint64_t word;

    for (; len >= sizeof word; bytes += sizeof word, len -= sizeof word) {
        memcpy(&word, bytes, sizeof word);
        hash = fold(hash ^ 0x9e3779b97f4a7c15u, word ^ seed[1]);
    }
    word = 0;
    if (len)
        memcpy(&word, bytes, len);
    hash = fold(hash ^ 0x9e3779b97f4a7c15u, word ^ seed[1]);
    return fold(hash ^ seed[0], 0xd6e8feb86659fd93u);
}
