#include "gather.h"

int64_t gather_at(const struct gather *gather, int64_t now_ms)
{
    int64_t at_ms = gather->told_ms + gather->delay_ms;

    return gather->delay_ms && at_ms > now_ms ? at_ms : now_ms;
}

void gather_told(struct gather *gather, int64_t now_ms)
{
    int64_t twice_ms = 2 * gather->delay_ms;

    if (!gather->delay_ms || now_ms - gather->told_ms >= 2 * gather->longest_ms)
        gather->delay_ms = gather->first_ms;
    else
        gather->delay_ms = twice_ms < gather->longest_ms ? twice_ms : gather->longest_ms;
    gather->told_ms = now_ms;
}
