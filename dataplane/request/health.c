/* /healthz and /readyz on the callers' listener. The operator's own are in operator/. */
#include "health.h"
#include "parts.h"

enum verdict health_live(struct request *req)
{
    reply_whole(req, 200, "application/json", SLICE("{\"status\":\"ok\"}"));
    return WAIT;
}

enum verdict health_ready(struct request *req)
{
    struct slice body;
    unsigned status = health_readiness(req->house->fleet, atomic_load(req->house->is_draining), &body);

    reply_whole(req, status, "application/json", body);
    return WAIT;
}
