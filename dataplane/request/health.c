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
    struct slice body;
    unsigned status = health_readiness(req->house->fleet, atomic_load(req->house->is_draining), &body);

    text_add_slice(reply_open(req), body);
    reply_close(req, status, "application/json");
    return WAIT;
}
