/* Routes that show what there is. */
#include <stdio.h>
#include <stdlib.h>

#include "ledger.h"
#include "parts.h"

enum { PAGE_MAX_BYTES = 256 << 20 };

void handle_document(struct exchange *exchange)
{
    exchange_show(exchange, text_slice(&exchange->api->document));
}

void handle_whoami(struct exchange *exchange)
{
    static const char *const names[] = { "viewer", "billing", "operator", "owner" };
    char memory[1024];
    struct text body = text_over(memory, sizeof memory);
    unsigned role = 0;

    while (role < 3 && !(exchange->role & 1U << role))
        role++;
    text_printf(&body, "{\"id\":\"%s\",\"name\":\"%s\",\"role\":\"%s\"}", text_string(&exchange->token_id),
                text_string(&exchange->actor), names[role]);
    exchange_show(exchange, text_slice(&body));
}

static void on_got(void *arg, const struct outcome *outcome)
{
    struct exchange *exchange = arg;
    struct reply reply = { .status = 200, .type = "application/json", .body = outcome->body };
    json_t *shown;
    json_int_t version;

    exchange->inquiry = NULL;
    if (outcome->status) {
        exchange_pass_on(exchange, outcome);
        return;
    }
    shown = json_loadb(outcome->body.at, outcome->body.len, 0, NULL);
    version = json_integer_value(json_object_get(shown, "version"));
    if (version > 0)
        (void)snprintf(reply.etag, sizeof reply.etag, "\"%lld\"", (long long)version);
    json_decref(shown);
    exchange_reply(exchange, &reply);
}

void handle_get(struct exchange *exchange)
{
    enum err err = ledger_get(exchange->api->doors.store, exchange->route->noun->name, text_slice(&exchange->param),
                              on_got, exchange, &exchange->inquiry);

    if (err != ERR_OK)
        exchange_fail(exchange, err);
}

static void on_listed(void *arg, const struct page *page)
{
    struct exchange *exchange = arg;
    struct text body;

    exchange->inquiry = NULL;
    if (page->outcome.status) {
        exchange_pass_on(exchange, &page->outcome);
        return;
    }
    text_init(&body, PAGE_MAX_BYTES);
    text_add_literal(&body, "{\"data\":");
    text_add_slice(&body, page->outcome.body);
    text_add_literal(&body, ",\"next_cursor\":");
    if (page->next.len) {
        text_add_char(&body, '"');
        cursor_write(text_slice(&exchange->query.scope), page->next, &body);
        text_add_char(&body, '"');
    } else {
        text_add_literal(&body, "null");
    }
    text_add_char(&body, '}');
    if (body.err)
        exchange_fail(exchange, ERR_NO_MEMORY);
    else
        exchange_show(exchange, text_slice(&body));
    text_release(&body);
}

void handle_list(struct exchange *exchange)
{
    char *filter = json_dumps(exchange->query.filter, JSON_COMPACT);
    enum err err = ERR_NO_MEMORY;

    if (filter)
        err = ledger_list(exchange->api->doors.store, exchange->route->noun->name, slice_of(filter),
                          text_slice(&exchange->query.after), exchange->query.limit, on_listed, exchange,
                          &exchange->inquiry);
    free(filter);
    if (err != ERR_OK)
        exchange_fail(exchange, err);
}
