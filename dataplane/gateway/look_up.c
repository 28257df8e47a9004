#include "look_up.h"

#include <stdlib.h>

#include "backend.h"
#include "clock.h"
#include "snapshot.h"

struct look_up_result {
    struct look_up *look_up;
    struct snapshot *snapshot; /* counted; NULL: the hosts of `old` again */
    struct fleet *old;         /* counted */
    struct fleet *fresh;       /* counted; NULL: nothing is different, or no memory */
};

static void *run(void *arg)
{
    struct look_up_result *result = arg;
    struct look_up *look_up = result->look_up;

    result->fresh =
        result->snapshot ? fleet_new(result->snapshot, result->old, clock_ms()) : fleet_renew(result->old, clock_ms());
    atomic_store(&look_up->result, result);
    look_up->ring(look_up->arg);
    return NULL;
}

static bool is_wanted(const struct fleet *fleet, int64_t now_ms)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (backend_wants_address(fleet->backends[i], now_ms))
            return true;
    return false;
}

static void start(struct look_up *look_up, struct snapshot *snapshot, struct fleet *old)
{
    struct look_up_result *result = calloc(1, sizeof *result);

    if (!result)
        return;
    *result = (struct look_up_result){ .look_up = look_up,
                                       .snapshot = snapshot ? snapshot_ref(snapshot) : NULL,
                                       .old = fleet_ref(old) };
    look_up->is_underway = pthread_create(&look_up->thread, NULL, run, result) == 0;
    if (!look_up->is_underway) {
        (void)snapshot_unref(result->snapshot);
        (void)fleet_unref(result->old);
        free(result);
    }
}

void look_up_start(struct look_up *look_up, struct fleet *fleet, int64_t now_ms)
{
    if (!look_up->is_underway && is_wanted(fleet, now_ms))
        start(look_up, NULL, fleet);
}

bool look_up_first(struct look_up *look_up, struct snapshot *snapshot, struct fleet *old)
{
    start(look_up, snapshot, old);
    return look_up->is_underway;
}

static struct look_up_result *take(struct look_up *look_up)
{
    struct look_up_result *result = atomic_exchange(&look_up->result, NULL);

    if (result) {
        (void)pthread_join(look_up->thread, NULL);
        look_up->is_underway = false;
    }
    return result;
}

struct fleet *look_up_take(struct look_up *look_up, const struct fleet *fleet)
{
    struct look_up_result *result = take(look_up);
    struct fleet *fresh;

    if (!result)
        return NULL;
    fresh = result->old == fleet ? result->fresh : fleet_unref(result->fresh); /* else a reload came between */
    (void)fleet_unref(result->old);
    free(result);
    return fresh;
}

bool look_up_take_first(struct look_up *look_up, const struct fleet *old, struct snapshot **ret_snapshot,
                        struct fleet **ret_fleet, bool *ret_is_of_old)
{
    struct look_up_result *result = take(look_up);

    if (!result)
        return false;
    *ret_snapshot = result->snapshot;
    *ret_fleet = result->fresh;
    *ret_is_of_old = result->old == old;
    (void)fleet_unref(result->old);
    free(result);
    return true;
}
