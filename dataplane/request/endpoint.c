/* The paths: one table. To add an endpoint: a row. */
#include "parts.h"

static const struct endpoint_row rows[] = {
    { "POST", "/chat/completions", "chat", false, false, &dialect_chat, NULL },
    { "GET", "/models", "models", false, false, NULL, models_list },
    { "GET", "/models/", "models", false, false, NULL, models_show },
    { "GET", "/healthz", "health", true, true, NULL, health_live },
    { "GET", "/readyz", "health", true, true, NULL, health_ready },
};

static bool path_is(struct slice path, const struct endpoint_row *row, struct slice *ret_id)
{
    struct slice wanted = slice_of(row->path);
    bool takes_id = row->path[wanted.len - 1] == '/';

    if (!takes_id)
        return slice_is(path, wanted);
    if (!slice_starts(path, wanted) || path.len == wanted.len)
        return false;
    *ret_id = (struct slice){ path.at + wanted.len, path.len - wanted.len };
    return true;
}

static bool method_is(struct slice method, const char *wanted)
{
    return slice_is(method, slice_of(wanted)) || (wanted[0] == 'G' && slice_is(method, SLICE("HEAD")));
}

enum cause endpoint_find(struct slice method, struct slice path, const struct endpoint_row **ret_endpoint,
                         struct slice *ret_id, const char **ret_allow)
{
    bool is_v1 = slice_starts(path, SLICE("/v1/"));
    enum cause cause = CAUSE_NO_PATH;

    if (is_v1)
        path = (struct slice){ path.at + 3, path.len - 3 };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice id = { 0 };
        if ((is_v1 && rows[i].only_plain) || !path_is(path, &rows[i], &id))
            continue;
        *ret_endpoint = &rows[i];
        *ret_id = id;
        if (method_is(method, rows[i].method))
            return CAUSE_NONE;
        *ret_allow = rows[i].method[0] == 'G' ? "GET, HEAD" : rows[i].method;
        cause = CAUSE_BAD_METHOD;
    }
    return cause;
}
