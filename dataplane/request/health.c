/* /healthz and /readyz on the callers' listener. The operator's own are in operator/. */
#include "health.h"
#include "parts.h"

enum verdict health_live(struct request *req)
{
    text_add_literal(reply_open(req), "{\"status\":\"ok\"}");
    reply_close(req, 200, "application/json");
    return WAIT;
}

enum verdict health_ready(struct request *req)
{
    const struct health_state state = {
        .is_draining = atomic_load(req->house->is_draining) || req->house->refuses == CAUSE_DRAINING,
        .is_stale = req->house->refuses == CAUSE_STALE,
    };
    struct slice body;
    unsigned status = health_readiness(req->house->fleet, &state, &body);

    text_add_slice(reply_open(req), body);
    reply_close(req, status, "application/json");
    return WAIT;
}
