#include "api.h"

#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "parts.h"
#include "place.h"
#include "store.h"

enum { DOCUMENT_MAX_BYTES = 4 << 20 };

/* What an Idempotency-Key stood for is known for a day; most of it is removed when more comes. */
static const struct statement forget = {
    "idempotency_forget",
    "DELETE FROM idempotency WHERE (token_id, key) IN (SELECT token_id, key FROM idempotency"
    " WHERE at <= now() - interval '1 day' ORDER BY at LIMIT 10000)",
    .is_repeatable = true,
};

static void on_forgotten(void *arg, const struct answer *answer)
{
    (void)arg;
    (void)answer; /* the next time will do */
}

static void on_forget(evutil_socket_t fd, short what, void *arg)
{
    struct api *api = arg;
    const struct ask ask = { .statement = &forget };

    (void)fd;
    (void)what;
    (void)store_ask(api->doors.store, &ask, 1, on_forgotten, NULL, NULL);
}

static bool make_document(struct api *api)
{
    json_t *document = openapi_make(api->options.version);
    char *json = document ? json_dumps(document, JSON_COMPACT) : NULL;

    text_init(&api->document, DOCUMENT_MAX_BYTES);
    if (json)
        text_add_string(&api->document, json);
    free(json);
    json_decref(document);
    return json && !api->document.err;
}

static bool start(struct api *api, struct event_base *base, struct text *why)
{
    const struct timeval period = { .tv_sec = api->options.forget_ms / 1000,
                                    .tv_usec = api->options.forget_ms % 1000 * 1000 };

    api->forget = event_new(base, -1, EV_PERSIST, on_forget, api);
    if (fields_open() && make_document(api) && api->forget && event_add(api->forget, &period) == 0)
        return guests_open(api, base, why);
    text_add_literal(why, "cannot open the admin API: out of memory");
    return false;
}

struct api *api_open(struct event_base *base, const struct api_doors *doors, const struct api_options *options,
                     struct text *why)
{
    struct api *api = calloc(1, sizeof *api);

    if (!api) {
        text_add_literal(why, "cannot open the admin API: out of memory");
        return NULL;
    }
    api->options = *options;
    api->doors = *doors;
    api->opened_ms = clock_ms();
    limiter_init(&api->limiter, options->wrong_tokens);
    if (start(api, base, why))
        return api;
    api_close(api);
    return NULL;
}

void api_stop(struct api *api)
{
    guests_stop(api);
}

unsigned api_open_requests(const struct api *api)
{
    return api->exchange_count;
}

void api_close(struct api *api)
{
    if (!api)
        return;
    api->is_closing = true;
    guests_close(api);
    exchanges_close(api);
    if (api->forget)
        event_free(api->forget);
    text_release(&api->document);
    fields_close();
    free(api);
}

void api_describe(const struct api *api, struct text *out)
{
    place_describe(api->socket, out);
}
