/*
 * Who goes by what. A gateway that has said that it cannot apply a version is not waited for; who is silent is not
 * either, but is named with the time until which it may accept what the version took away.
 */
#include <assert.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "json.h"
#include "leader.h"
#include "parts.h"
#include "publish.h"
#include "traffic.h"

/* Up to which version it says what it goes by, or that it cannot. Of two nobody knows. */
static uint64_t answered_by(const struct gateway *gateway, int64_t now_ms)
{
    if (now_ms < gateway->twin_until_ms)
        return UINT64_MAX;
    return gateway->apply_error && gateway->failed > gateway->applied ? gateway->failed : gateway->applied;
}

static bool has_confirmed(const struct gateway *gateway, uint64_t version, int64_t now_ms)
{
    return gateway->applied >= version && now_ms >= gateway->twin_until_ms;
}

static struct slice trouble_of(const struct gateway *gateway, int64_t now_ms)
{
    if (now_ms < gateway->twin_until_ms)
        return SLICE("two gateways are running with this name and key");
    return slice_of(gateway->apply_error ? gateway->apply_error : "");
}

static uint64_t answered_by_all(const struct roster *roster, int64_t now_ms)
{
    uint64_t least = UINT64_MAX;

    for (const struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (answered_by(gateway, now_ms) < least && gateway_is_live(roster, gateway, now_ms))
            least = answered_by(gateway, now_ms);
    return least;
}

/* --- the document ---------------------------------------------------------------------------------------- */

static void add_time(struct text *out, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char words[32];

    if (!wall_ms || !gmtime_r(&seconds, &tm) || !strftime(words, sizeof words, "\"%Y-%m-%dT%H:%M:%SZ\"", &tm))
        text_add_literal(out, "null");
    else
        text_add_string(out, words);
}

/* When it can have heard a control plane last; wall clock. */
static int64_t may_have_heard_ms(const struct roster *roster, const struct gateway *gateway, int64_t now_ms)
{
    int64_t unwritten_ms = roster->options.last_seen_ms + roster->options.persist_ms;
    int64_t at_ms = leader_uncertain_until_ms(roster->leader), seen_ms = gateway->seen_wall_ms;

    if (gateway_heard_ms(gateway))
        return wall_of_ms(gateway_heard_ms(gateway), now_ms);
    seen_ms = seen_ms ? seen_ms + unwritten_ms : wall_of_ms(roster->serves_since_ms, now_ms);
    return seen_ms > at_ms ? seen_ms : at_ms;
}

static void add_pending(const struct roster *roster, const struct gateway *gateway, int64_t now_ms, struct text *out)
{
    int64_t heard_ms = gateway_heard_ms(gateway);

    text_add_literal(out, ",\"reason\":");
    if (!gateway_is_live(roster, gateway, now_ms))
        text_add_literal(out, "\"silent\"");
    else if (trouble_of(gateway, now_ms).len)
        json_add_string(out, trouble_of(gateway, now_ms));
    else
        text_add_literal(out, "\"behind\"");
    text_add_literal(out, ",\"last_seen\":");
    add_time(out, heard_ms ? wall_of_ms(heard_ms, now_ms) : gateway->seen_wall_ms);
    text_add_literal(out, ",\"may_accept_until\":");
    if (gateway->max_staleness_s)
        add_time(out, may_have_heard_ms(roster, gateway, now_ms) + INT64_C(1000) * gateway->max_staleness_s + GRACE_MS);
    else
        text_add_literal(out, "null");
}

static void add_document(const struct roster *roster, uint64_t version, int64_t now_ms, struct text *out)
{
    const char *comma = "";

    text_printf(out, "{\"version\":%llu,\"confirmed\":[", (unsigned long long)version);
    for (const struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next) {
        if (!gateway->has_key || !has_confirmed(gateway, version, now_ms))
            continue;
        text_printf(out, "%s{\"name\":\"%s\"}", comma, gateway->name);
        comma = ",";
    }
    text_add_literal(out, "],\"pending\":[");
    comma = "";
    for (const struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next) {
        if (!gateway->has_key || has_confirmed(gateway, version, now_ms))
            continue;
        text_printf(out, "%s{\"name\":\"%s\"", comma, gateway->name);
        add_pending(roster, gateway, now_ms, out);
        text_add_char(out, '}');
        comma = ",";
    }
    text_add_literal(out, "]}");
}

/* --- who waits ------------------------------------------------------------------------------------------- */

void roster_wait_forget(struct roster_wait *wait)
{
    *wait->back = wait->next;
    if (wait->next)
        wait->next->back = wait->back;
    free(wait);
}

static void finish(struct roster *roster, struct roster_wait *wait, int64_t now_ms)
{
    void (*on_confirmed)(void *arg, struct slice json) = wait->on_confirmed;
    void *arg = wait->arg;
    struct text document;

    text_init(&document, 64 * 1024 * 1024);
    add_document(roster, wait->version, now_ms, &document);
    roster_wait_forget(wait);
    on_confirmed(arg, text_slice(&document));
    text_release(&document);
}

/* What on_confirmed() does may change the list: so from its beginning after each. */
static struct roster_wait *ended(const struct roster *roster, uint64_t by_all, int64_t now_ms)
{
    struct roster_wait *wait = roster->waits;

    while (wait && wait->version > by_all && now_ms < wait->until_ms)
        wait = wait->next;
    return wait;
}

void confirm_look(struct roster *roster, int64_t now_ms)
{
    struct roster_wait *wait;
    uint64_t by_all;

    roster->is_confirm_due = false;
    if (!roster->waits)
        return;
    by_all = answered_by_all(roster, now_ms);
    while ((wait = ended(roster, by_all, now_ms)))
        finish(roster, wait, now_ms);
}

void confirm_all(struct roster *roster, int64_t now_ms)
{
    while (roster->waits)
        finish(roster, roster->waits, now_ms);
}

enum err roster_confirm(struct roster *roster, uint64_t version, int64_t wait_ms,
                        void (*on_confirmed)(void *arg, struct slice json), void *arg, struct roster_wait **ret_wait)
{
    struct roster_wait *wait;

    if (!roster->serves || !leader_serves(roster->leader))
        return ERR_REFUSED;
    wait = calloc(1, sizeof *wait);
    if (!wait)
        return ERR_NO_MEMORY;
    *wait = (struct roster_wait){ .next = roster->waits,
                                  .back = &roster->waits,
                                  .roster = roster,
                                  .version = version,
                                  .until_ms = clock_ms() + wait_ms,
                                  .on_confirmed = on_confirmed,
                                  .arg = arg };
    if (wait->next)
        wait->next->back = &wait->next;
    roster->waits = wait;
    roster->is_confirm_due = true;
    *ret_wait = wait;
    return ERR_OK;
}

/* --- as of now ------------------------------------------------------------------------------------------- */

static void add_live(const struct roster *roster, const struct gateway *gateway, int64_t now_ms, struct text *out)
{
    int64_t heard_ms = gateway_heard_ms(gateway);

    text_printf(out, "\"live\":%s,\"applied_version\":%llu,\"apply_error\":",
                gateway_is_live(roster, gateway, now_ms) ? "true" : "false", (unsigned long long)gateway->applied);
    if (trouble_of(gateway, now_ms).len)
        json_add_string(out, trouble_of(gateway, now_ms));
    else
        text_add_literal(out, "null");
    text_add_literal(out, ",\"heard_ms_ago\":");
    if (heard_ms)
        text_add_i64(out, now_ms > heard_ms ? now_ms - heard_ms : 0);
    else
        text_add_literal(out, "null");
}

void roster_add_live(struct roster *roster, struct slice name, struct text *out)
{
    const struct gateway *gateway = table_find(roster, name);

    if (gateway)
        add_live(roster, gateway, clock_ms(), out);
}

void roster_add_status(struct roster *roster, struct text *out)
{
    int64_t now_ms = clock_ms();
    unsigned enrolled = 0, live = 0, behind = 0;

    for (const struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next) {
        bool is_live = gateway_is_live(roster, gateway, now_ms) && gateway_heard_ms(gateway);
        enrolled += gateway->has_key;
        live += is_live;
        behind += is_live && gateway->applied < publish_version(roster->publish);
    }
    text_printf(out, "\"gateways\":{\"enrolled\":%u,\"live\":%u,\"behind\":%u}", enrolled, live, behind);
}

void roster_add_load(struct roster *roster, struct text *out)
{
    int64_t now_ms = clock_ms();
    const char *comma = "";

    text_printf(out, "{\"window_s\":%lld,\"gateways\":[", (long long)(traffic_window_ms(roster->traffic) / 1000));
    for (const struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next) {
        if (!gateway->has_key)
            continue;
        text_printf(out, "%s{\"name\":\"%s\",", comma, gateway->name);
        add_live(roster, gateway, now_ms, out);
        text_add_char(out, ',');
        traffic_add_source(gateway->source, out);
        text_add_char(out, '}');
        comma = ",";
    }
    text_add_literal(out, "],");
    traffic_add_totals(roster->traffic, now_ms, out);
    text_add_char(out, '}');
}
