#include "health.h"

#include "backend.h"
#include "json.h"

unsigned health_readiness(const struct fleet *fleet, const struct health_state *state, struct slice *ret_body)
{
    bool is_starting = false;
    bool is_ready = fleet_is_ready(fleet, &is_starting);

    if (state->is_draining)
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"draining\"}");
    else if (state->is_stale)
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"stale\"}");
    else if (is_ready)
        *ret_body = SLICE("{\"status\":\"ready\"}");
    else if (is_starting)
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"starting\"}");
    else
        *ret_body = SLICE("{\"status\":\"not ready\",\"reason\":\"no_backend\"}");
    return is_ready && !state->is_draining && !state->is_stale ? 200 : 503;
}

/* Where the next finding goes. */
struct report {
    struct text *out;
    struct slice backend;
    bool has_some;
};

static void begin_finding(struct report *report)
{
    text_add_string(report->out, report->has_some ? ",{\"backend\":" : ",\"findings\":[{\"backend\":");
    report->has_some = true;
    json_add_string(report->out, report->backend);
}

static void add_finding(void *arg, enum finding finding, struct slice model)
{
    struct report *report = arg;

    begin_finding(report);
    text_add_literal(report->out, ",\"model\":");
    json_add_string(report->out, model);
    text_printf(report->out, ",\"finding\":\"%s\"}", finding_word(finding));
}

/* What keeps callers from it altogether, in the words of the metric backend_state. */
static void add_absence(struct report *report, const struct backend *backend)
{
    const char *state = !atomic_load(&backend->is_probed) ? NULL
                        : !backend_is_closed(backend)     ? "down"
                        : !backend_takes_callers(backend) ? "warming"
                                                          : NULL;

    if (!state)
        return;
    begin_finding(report);
    text_printf(report->out, ",\"finding\":\"%s\"}", state);
}

unsigned health_report(const struct fleet *fleet, const struct health_state *state, struct text *out)
{
    struct report report = { .out = out };
    struct slice body;
    unsigned status = health_readiness(fleet, state, &body);

    text_add(out, body.at, body.len - 1); /* without its closing brace */
    text_add_slice(out, state->report);
    for (size_t i = 0; i < fleet->count; i++) {
        report.backend = slice_of(fleet->backends[i]->name);
        add_absence(&report, fleet->backends[i]);
        backend_findings(fleet->backends[i], add_finding, &report);
    }
    text_add_string(out, report.has_some ? "]}" : "}");
    return status;
}
