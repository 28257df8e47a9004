/* What the API asks of those who look after the gateways, and shows of them. */
#include <stdlib.h>

#include "clock.h"
#include "leader.h"
#include "parts.h"
#include "publish.h"
#include "roster.h"
#include "store.h"

enum { DOCUMENT_MAX_BYTES = 64 << 20, VERSION_DIGITS = 18 };

int64_t fleet_epoch(const struct api *api)
{
    return leader_epoch(api->doors.leader);
}

const char *fleet_leader(const struct api *api)
{
    return leader_holder(api->doors.leader);
}

void fleet_wake(const struct api *api, const struct noun *noun)
{
    publish_wake(api->doors.publish);
    if (noun == &noun_gateway)
        roster_wake(api->doors.roster);
}

void fleet_forget_wait(struct exchange *exchange)
{
    if (exchange->wait)
        roster_wait_forget(exchange->wait);
    exchange->wait = NULL;
    if (exchange->is_waiting)
        exchange->api->wait_count--;
    exchange->is_waiting = false;
}

/* ---- waiting ---- */

static unsigned waits_of(const struct api *api, struct slice token_id)
{
    unsigned count = 0;

    for (const struct exchange *exchange = api->exchanges; exchange; exchange = exchange->next)
        count += exchange->is_waiting && slice_is(text_slice(&exchange->token_id), token_id);
    return count;
}

static unsigned at_most(const struct api *api)
{
    unsigned half = api->options.max_connections / 2;
    unsigned max = api->options.max_waits < half ? api->options.max_waits : half;

    return max ? max : 1;
}

static bool take_place(struct exchange *exchange)
{
    struct api *api = exchange->api;
    unsigned max = at_most(api);

    if (api->wait_count >= max || waits_of(api, text_slice(&exchange->token_id)) >= (max + 1) / 2) {
        exchange_refuse_and_close(exchange, "overloaded",
                                  "too many requests are waiting for gateways; without ?wait this is answered at once");
        return false;
    }
    api->wait_count++;
    exchange->is_waiting = true;
    return true;
}

bool fleet_hurry(struct api *api)
{
    struct exchange *longest = NULL;

    for (struct exchange *exchange = api->exchanges; exchange; exchange = exchange->next)
        if (exchange->is_waiting && exchange->wait && (!longest || exchange->since_us < longest->since_us))
            longest = exchange;
    if (longest)
        exchange_refuse_and_close(longest, "overloaded", "others need the connection that this request waits on");
    return longest != NULL;
}

static void show(struct exchange *exchange, struct text *body)
{
    if (body->err)
        exchange_fail(exchange, ERR_NO_MEMORY);
    else
        exchange_show(exchange, text_slice(body));
    text_release(body);
}

void handle_status(struct exchange *exchange)
{
    const struct api *api = exchange->api;
    const char *reason = store_reason(api->doors.store);
    json_t *quoted = json_string(reason);
    char *json = quoted ? json_dumps(quoted, JSON_ENCODE_ANY) : NULL;
    struct text body;

    text_init(&body, DOCUMENT_MAX_BYTES);
    text_printf(&body, "{\"version\":\"%s\",", api->options.version);
    leader_add_status(api->doors.leader, &body);
    text_printf(&body, ",\"database\":{\"up\":%s,\"reason\":%s},\"config_version\":%llu,",
                store_is_up(api->doors.store) ? "true" : "false", json ? json : "\"\"",
                (unsigned long long)publish_version(api->doors.publish));
    roster_add_status(api->doors.roster, &body);
    text_printf(&body, ",\"uptime_s\":%lld}", (long long)(clock_ms() - api->opened_ms) / 1000);
    free(json);
    json_decref(quoted);
    show(exchange, &body);
}

void handle_load(struct exchange *exchange)
{
    struct text body;

    text_init(&body, DOCUMENT_MAX_BYTES);
    roster_add_load(exchange->api->doors.roster, &body);
    show(exchange, &body);
}

static void on_confirmed(void *arg, struct slice json)
{
    struct exchange *exchange = arg;

    exchange->wait = NULL;
    exchange_show(exchange, json);
}

void handle_confirmations(struct exchange *exchange)
{
    struct slice param = text_slice(&exchange->param);
    uint64_t version = 0;
    bool is_number = param.len && param.len <= VERSION_DIGITS;
    enum err err;

    for (size_t i = 0; i < param.len && is_number; i++) {
        is_number = param.at[i] >= '0' && param.at[i] <= '9';
        version = version * 10 + (uint64_t)(param.at[i] - '0');
    }
    if (!is_number) {
        exchange_refuse(exchange, "bad_request", "a version is a whole number, as Qwen-Config-Version says it");
        return;
    }
    if (exchange->query.wait_ms && !take_place(exchange))
        return;
    err = roster_confirm(exchange->api->doors.roster, version, exchange->query.wait_ms, on_confirmed, exchange,
                         &exchange->wait);
    if (err != ERR_OK)
        exchange_fail(exchange, err);
    else if (exchange->guest)
        guest_watch(exchange->guest);
}
