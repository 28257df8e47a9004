#include "look_up.h"

#include <stdlib.h>

#include "backend.h"
#include "clock.h"

struct look_up_result {
    struct look_up *look_up;
    struct fleet *old;   /* counted */
    struct fleet *fresh; /* counted; NULL: nothing is different */
};

static void *run(void *arg)
{
    struct look_up_result *result = arg;
    struct look_up *look_up = result->look_up;

    result->fresh = fleet_renew(result->old, clock_ms());
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

void look_up_start(struct look_up *look_up, struct fleet *fleet, int64_t now_ms)
{
    struct look_up_result *result;

    if (look_up->is_underway || !is_wanted(fleet, now_ms) || !(result = calloc(1, sizeof *result)))
        return;
    *result = (struct look_up_result){ .look_up = look_up, .old = fleet_ref(fleet) };
    look_up->is_underway = pthread_create(&look_up->thread, NULL, run, result) == 0;
    if (!look_up->is_underway) {
        (void)fleet_unref(result->old);
        free(result);
    }
}

struct fleet *look_up_take(struct look_up *look_up, const struct fleet *fleet)
{
    struct look_up_result *result = atomic_exchange(&look_up->result, NULL);
    struct fleet *fresh;

    if (!result)
        return NULL;
    (void)pthread_join(look_up->thread, NULL);
    look_up->is_underway = false;
    fresh = result->old == fleet ? result->fresh : fleet_unref(result->fresh); /* else a reload came between */
    (void)fleet_unref(result->old);
    free(result);
    return fresh;
}
