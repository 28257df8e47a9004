#include "text.h"

/* Length of the well-formed sequence at `at` (RFC 3629, table 3-7 of Unicode), 0 if there is none. */
static size_t sequence(const unsigned char *at, size_t len)
{
    unsigned char low = 0x80, high = 0xbf;
    size_t more;

    if (at[0] < 0x80)
        return 1;
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        more = 1;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        more = 2;
        low = at[0] == 0xe0 ? 0xa0 : low;
        high = at[0] == 0xed ? 0x9f : high;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        more = 3;
        low = at[0] == 0xf0 ? 0x90 : low;
        high = at[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (len <= more || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i <= more; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return more + 1;
}

bool utf8_valid(struct slice slice)
{
    const unsigned char *at = (const unsigned char *)slice.at;

    for (size_t i = 0; i < slice.len;) {
        uint64_t eight;
        size_t step;

        while (slice.len - i >= sizeof eight) {
            memcpy(&eight, at + i, sizeof eight);
            if (eight & 0x8080808080808080u)
                break;
            i += sizeof eight;
        }
        if (i == slice.len)
            break;
        step = sequence(at + i, slice.len - i);
        if (!step)
            return false;
        i += step;
    }
    return true;
}

size_t utf8_count(struct slice slice)
{
    size_t count = 0;

    for (size_t i = 0; i < slice.len; i++)
        count += ((unsigned char)slice.at[i] & 0xc0) != 0x80;
    return count;
}

size_t utf8_cut(struct slice slice, size_t max_len)
{
    size_t len = slice.len < max_len ? slice.len : max_len;

    if (len == slice.len)
        return len;
    while (len && ((unsigned char)slice.at[len] & 0xc0) == 0x80)
        len--;
    return len;
}
