/* Durations as people write them: a number and a unit. */
#include "parts.h"

enum { MAX_DIGITS = 9 };

bool duration_parse(struct slice text, int64_t *ret_ms)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { "d", 24 * 3600 * 1000 } };
    int64_t number = 0;
    size_t digits = 0;

    while (digits < text.len && text.at[digits] >= '0' && text.at[digits] <= '9' && digits <= MAX_DIGITS)
        number = number * 10 + (text.at[digits++] - '0');
    if (!digits || digits > MAX_DIGITS)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (!slice_is((struct slice){ text.at + digits, text.len - digits }, slice_of(units[i].unit)))
            continue;
        *ret_ms = number * units[i].ms;
        return true;
    }
    return false;
}
