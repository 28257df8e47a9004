/*
 * What the admin API reads: the first byte says as what (a body of some route, a query, a path, a cursor), the rest is
 * it. What is taken must be what the document promises: an object of known fields; what is refused says why.
 */
#include <stdlib.h>

#include "parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool claim)
{
    if (!claim)
        abort();
}

static void read_body(const struct route *route, struct slice text)
{
    struct complaints complaints;
    struct form form;
    json_t *given, *made;

    if (!route_form(route, &form) || json_is_deep(text, 32))
        return;
    given = json_loadb(text.at, text.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (!given)
        return;
    complaints_init(&complaints);
    made = form_read(&form, given, &complaints);
    require((made != NULL) == (complaints.count == 0));
    require(!made || json_is_object(made));
    require(!complaints.count || (complaints.list.len && complaints.sentence.len));
    complaints_release(&complaints);
    json_decref(made);
    json_decref(given);
}

static void read_query(const struct noun *noun, struct slice text)
{
    struct complaints complaints;
    struct query query;

    query_init(&query);
    complaints_init(&complaints);
    query_read(&query, text, noun, true, &complaints);
    require(complaints.count || (query.limit >= 1 && query.limit <= LIST_LIMIT_MAX && query.wait_ms >= 0));
    complaints_release(&complaints);
    query_release(&query);
}

static void read_path(struct slice text)
{
    struct slice param = { NULL, 0 };
    struct text decoded;
    unsigned methods;
    const struct route *route = route_find("GET", text, &param, &methods);

    require(!route || methods & 1U << METHOD_GET);
    text_init(&decoded, 1 << 16);
    if (route && param.at && percent_decode(param, false, &decoded))
        require(utf8_valid(text_slice(&decoded)) && decoded.len <= param.len);
    text_release(&decoded);
}

static void read_cursor(struct slice text)
{
    struct text position, again;

    text_init(&position, CURSOR_MAX_BYTES);
    text_init(&again, 2 * CURSOR_MAX_BYTES);
    if (cursor_read(text, SLICE("key?{}"), &position)) {
        cursor_write(SLICE("key?{}"), text_slice(&position), &again);
        require(slice_is(text_slice(&again), text));
    }
    text_release(&position);
    text_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice text = { (const char *)data + 1, size - 1 };

    if (!size)
        return 0;
    require(fields_open());
    if (data[0] < 128)
        read_body(&routes[data[0] % route_count], text);
    else if (data[0] < 192)
        read_query(nouns[data[0] % noun_count], text);
    else if (data[0] < 224)
        read_path(text);
    else
        read_cursor(text);
    return 0;
}
