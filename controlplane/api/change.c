/* Routes that change something: what was sent goes to the ledger, and what it is then is answered. */
#include <stdio.h>
#include <stdlib.h>

#include "account.h"
#include "ledger.h"
#include "parts.h"

enum { LOCATION_BYTES = 1024, NAME_BYTES = 320, ANSWER_MAX_BYTES = 64 << 20 };

/* What stands for it in a path. */
static bool add_id(const struct exchange *exchange, const json_t *shown, struct text *out)
{
    const char *id = json_string_value(json_object_get(shown, exchange->route->noun->key));

    for (const char *at = id; at && *at; at++) {
        unsigned char c = (unsigned char)*at;
        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-._~", c))
            text_add_char(out, *at);
        else
            text_printf(out, "%%%02X", c);
    }
    return id != NULL;
}

static void add_location(const struct exchange *exchange, const json_t *shown, struct text *out)
{
    text_printf(out, "/admin/v1/%s/", exchange->route->noun->plural);
    if (!add_id(exchange, shown, out))
        text_clear(out);
}

/* What is shown once stands at the end of what the ledger keeps. */
static void add_secret(const struct exchange *exchange, struct slice body, bool is_replay, struct text *out)
{
    char *list;

    text_add(out, body.at, body.len - 1);
    if (exchange->secrets) {
        list = is_replay ? NULL : json_dumps(exchange->secrets, JSON_COMPACT);
        text_printf(out, ",\"keys\":%s}", list ? list : "[]");
        free(list);
    } else if (is_replay) {
        text_add_literal(out, ",\"secret\":null}");
    } else {
        text_printf(out, ",\"secret\":\"%s\"}", text_string(&exchange->secret));
    }
}

static void answer_change(struct exchange *exchange, const struct outcome *outcome)
{
    const struct route *route = exchange->route;
    json_t *shown = json_loadb(outcome->body.at, outcome->body.len, 0, NULL);
    json_int_t version = json_integer_value(json_object_get(shown, "version"));
    char memory[LOCATION_BYTES];
    struct text location = text_over(memory, sizeof memory), body;
    struct reply reply = {
        .status = route->traits & IS_EMPTY  ? 204
                  : route->traits & IS_MADE ? 201
                                            : 200,
        .type = route->traits & IS_EMPTY ? NULL : "application/json",
        .body = outcome->body,
        .is_replay = outcome->is_replay,
    };

    text_init(&body, ANSWER_MAX_BYTES);
    (void)snprintf(reply.version, sizeof reply.version, "%llu", (unsigned long long)outcome->config_version);
    if (version > 0 && !(route->traits & IS_EMPTY))
        (void)snprintf(reply.etag, sizeof reply.etag, "\"%lld\"", (long long)version);
    if (route->traits & IS_MADE)
        add_location(exchange, shown, &location);
    reply.location = text_slice(&location);
    if ((route->traits & HAS_SECRET || exchange->secrets) && outcome->body.len) {
        add_secret(exchange, outcome->body, outcome->is_replay, &body);
        reply.body = text_slice(&body);
    }
    json_decref(shown);
    exchange_reply(exchange, &reply);
    text_release_wiped(&body);
}

static void on_changed(void *arg, const struct outcome *outcome)
{
    struct exchange *exchange = arg;

    exchange->inquiry = NULL;
    if (outcome->status) {
        exchange_pass_on(exchange, outcome);
        return;
    }
    fleet_wake(exchange->api, exchange->route->noun);
    answer_change(exchange, outcome);
}

void handle_change(struct exchange *exchange)
{
    const struct who who = {
        .token_id = text_slice(&exchange->token_id),
        .actor = text_slice(&exchange->actor),
        .address = slice_of(exchange->address),
        .request_id = slice_of(exchange->id),
        .idempotency_key = text_slice(&exchange->idempotency_key),
        .request_hash = exchange->idempotency_key.len ? &exchange->request_hash : NULL,
        .epoch = fleet_epoch(exchange->api),
    };
    char *body = exchange->body ? json_dumps(exchange->body, JSON_COMPACT) : NULL;
    enum err err = exchange->body && !body ? ERR_NO_MEMORY : ERR_OK;

    if (err == ERR_OK)
        err = ledger_change(exchange->api->doors.store, &who, exchange->route->action, text_slice(&exchange->param),
                            exchange->object_version, slice_of(body), on_changed, exchange, &exchange->inquiry);
    free(body);
    if (err != ERR_OK)
        exchange_fail(exchange, err);
}

/* ---- secrets ---- */

static void add_hash(json_t *object, const struct new_secret *made)
{
    char memory[DIGEST_HEX + 1];
    struct text hex = text_over(memory, sizeof memory);

    digest_add_hex(&hex, &made->hash);
    (void)json_object_set_new(object, "hash", json_string(memory));
    if (made->public_id[0])
        (void)json_object_set_new(object, "prefix", json_string(made->public_id));
}

void handle_key_create(struct exchange *exchange)
{
    struct new_secret made;

    account_make_key(&exchange->secret, &made);
    add_hash(exchange->body, &made);
    handle_change(exchange);
}

void handle_key_rotate(struct exchange *exchange)
{
    handle_key_create(exchange);
}

void handle_gateway_create(struct exchange *exchange)
{
    struct new_secret made;

    account_make_enrol(&exchange->secret, &made);
    add_hash(exchange->body, &made);
    handle_change(exchange);
}

void handle_admin_token_create(struct exchange *exchange)
{
    struct new_secret made;

    account_make_token(&exchange->secret, &made);
    add_hash(exchange->body, &made);
    if (!json_object_get(exchange->body, "expires_in"))
        (void)json_object_set_new(exchange->body, "expires_in", json_string("90d"));
    handle_change(exchange);
}

/* Those that come with neither a secret nor its hash get one. */
void handle_key_import(struct exchange *exchange)
{
    json_t *entry;
    size_t i;

    exchange->secrets = json_array();
    json_array_foreach(json_object_get(exchange->body, "keys"), i, entry)
    {
        struct new_secret made;
        if (json_object_get(entry, "hash") || json_object_get(entry, "secret"))
            continue;
        text_clear_wiped(&exchange->secret);
        account_make_key(&exchange->secret, &made);
        (void)json_object_del(entry, "prefix");
        add_hash(entry, &made);
        (void)json_array_append_new(exchange->secrets,
                                    json_pack("{s:O?, s:O?, s:s, s:s}", "user", json_object_get(entry, "user"), "name",
                                              json_object_get(entry, "name"), "prefix", made.public_id, "secret",
                                              text_string(&exchange->secret)));
    }
    handle_change(exchange);
}
