/* What is answered instead, as RFC 9457 has it. To add one: a row; docs/admin-api.md (written by its test). */
#include "parts.h"

#include <stdlib.h>

const struct problem problems[] = {
    { "bad_request", 400, "The request cannot be understood" },
    { "bad_value", 400, "A value is wrong" },
    { "unauthorized", 401, "A valid admin token is needed" },
    { "forbidden", 403, "The token's role may not do this" },
    { "not_found", 404, "There is nothing of that name" },
    { "method_not_allowed", 405, "This cannot be done here" },
    { "request_timeout", 408, "The request took too long to arrive" },
    { "version_conflict", 409, "Somebody else has changed it" },
    { "already_exists", 409, "There is one already" },
    { "in_use", 409, "Something else needs it" },
    { "gone", 410, "It was revoked or removed for good" },
    { "payload_too_large", 413, "The body is too large" },
    { "unsupported_media_type", 415, "The body is not JSON" },
    { "idempotency_mismatch", 422, "This Idempotency-Key was used for something else" },
    { "precondition_required", 428, "If-Match is needed" },
    { "too_many_requests", 429, "Too many wrong tokens" },
    { "head_too_large", 431, "The request's head is too long" },
    { "internal", 500, "Something went wrong here" },
    { "not_leader", 503, "Another control plane leads" },
    { "database_away", 503, "The database cannot be reached" },
    { "overloaded", 503, "Too much is being asked at once" },
};
const size_t problem_count = sizeof problems / sizeof *problems;

const struct problem *problem_of(const char *code)
{
    for (size_t i = 0; code && i < problem_count; i++)
        if (strcmp(problems[i].code, code) == 0)
            return &problems[i];
    return problem_of("internal");
}

const char *reason_of(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } reasons[] = {
        { 200, "OK" },
        { 201, "Created" },
        { 204, "No Content" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 410, "Gone" },
        { 413, "Content Too Large" },
        { 415, "Unsupported Media Type" },
        { 422, "Unprocessable Content" },
        { 428, "Precondition Required" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 503, "Service Unavailable" },
    };

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "Internal Server Error";
}

static void add_member(struct text *out, const char *name, struct slice value)
{
    json_t *string = json_stringn_nocheck(value.at ? value.at : "", value.len);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;

    text_printf(out, "\"%s\":", name);
    if (quoted)
        text_add_string(out, quoted);
    else
        text_add_literal(out, "\"\"");
    free(quoted);
    json_decref(string);
}

void problem_write(const struct problem *problem, struct slice detail, struct slice id, struct slice errors,
                   struct text *out)
{
    text_add_literal(out, "{\"type\":\"about:blank\",");
    add_member(out, "title", slice_of(problem->title));
    text_printf(out, ",\"status\":%u,", problem->status);
    add_member(out, "detail", detail);
    text_add_char(out, ',');
    add_member(out, "code", slice_of(problem->code));
    text_add_char(out, ',');
    add_member(out, "request_id", id);
    text_add_literal(out, ",\"errors\":[");
    text_add_slice(out, errors);
    text_add_literal(out, "]}");
}
