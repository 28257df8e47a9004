#include "health.h"

#include "backend.h"

unsigned health_readiness(const struct fleet *fleet, bool is_draining, struct slice *ret_body)
{
    bool is_starting = false;
    bool is_ready = fleet_is_ready(fleet, &is_starting);

    if (is_draining)
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"draining\"}");
    else if (is_ready)
        *ret_body = SLICE("{\"status\":\"ready\"}");
    else if (is_starting)
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"starting\"}");
    else
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"no_backend\"}");
    return is_ready && !is_draining ? 200 : 503;
}
