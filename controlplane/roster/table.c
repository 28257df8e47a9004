/*
 * The gateways as the database has them, read whole whenever they changed and every poll_ms; and what they said of
 * themselves, written down together. What cannot be written stays marked, and goes with the next.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>

#include "clock.h"
#include "json.h"
#include "leader.h"
#include "log.h"
#include "parts.h"
#include "store.h"
#include "traffic.h"

enum { REPORT_MAX = 500 };

static const struct statement load_statement = {
    .name = "roster_load",
    .sql =
        "SELECT id, name, public_key, enrol_hash, milliseconds(enrol_expires), milliseconds(last_seen), "
        "desired_version, "
        "applied_version, apply_error, max_staleness_s, resync_asked, resync_done, removed_at IS NOT NULL FROM gateway "
        "WHERE removed_at IS NULL OR public_key IS NOT NULL ORDER BY removed_at DESC NULLS FIRST",
    .is_repeatable = true,
};
enum column {
    COLUMN_ID,
    COLUMN_NAME,
    COLUMN_KEY,
    COLUMN_SECRET,
    COLUMN_SECRET_UNTIL,
    COLUMN_SEEN,
    COLUMN_DESIRED,
    COLUMN_APPLIED,
    COLUMN_ERROR,
    COLUMN_STALENESS,
    COLUMN_RESYNC_ASKED,
    COLUMN_RESYNC_DONE,
    COLUMN_IS_REMOVED,
};
static const struct statement report_statement = { .name = "roster_report",
                                                   .sql = "SELECT gateways_report($1, $2::jsonb)" };

int64_t wall_of_ms(int64_t at_ms, int64_t now_ms)
{
    return clock_wall_ms() - (now_ms - at_ms);
}

int64_t gateway_heard_ms(const struct gateway *gateway)
{
    return gateway->peer ? link_peer_heard_ms(gateway->peer) : gateway->heard_ms;
}

/* One that was there a moment before we began to lead has a moment to come to us. */
bool gateway_is_live(const struct roster *roster, const struct gateway *gateway, int64_t now_ms)
{
    int64_t heard_ms = gateway_heard_ms(gateway), live_ms = roster->options.live_ms;

    if (!gateway->has_key || !roster->serves)
        return false;
    if (heard_ms)
        return now_ms - heard_ms <= live_ms;
    return gateway->seen_wall_ms && now_ms - roster->serves_since_ms <= live_ms &&
           wall_of_ms(roster->serves_since_ms, now_ms) - gateway->seen_wall_ms <=
               roster->options.last_seen_ms + roster->options.persist_ms + 2 * live_ms;
}

/* --- by name --------------------------------------------------------------------------------------------- */

static struct gateway **place_of(const struct roster *roster, struct slice name)
{
    struct gateway **place =
        (struct gateway **)&roster->buckets[slice_hash(roster->seed, name) & (GATEWAY_BUCKETS - 1)];

    while (*place && !slice_is(slice_of((*place)->name), name))
        place = &(*place)->in_bucket;
    return place;
}

struct gateway *table_find(const struct roster *roster, struct slice name)
{
    return *place_of(roster, name);
}

const struct removed *table_find_removed(const struct roster *roster, struct slice name)
{
    for (size_t i = 0; i < roster->removed_count; i++)
        if (slice_is(slice_of(roster->removed[i].name), name))
            return &roster->removed[i];
    return NULL;
}

static struct gateway *gateway_new(struct roster *roster, struct slice name)
{
    struct gateway **place = place_of(roster, name), *gateway = calloc(1, sizeof *gateway);

    if (!gateway || !(gateway->source = traffic_source_new(roster->traffic))) {
        free(gateway);
        return NULL;
    }
    memcpy(gateway->name, name.at, name.len);
    *place = gateway;
    gateway->next = roster->gateways;
    roster->gateways = gateway;
    roster->gateway_count++;
    return gateway;
}

/* It is not in any list any more. */
static void gateway_free(struct gateway *gateway)
{
    if (gateway->peer)
        *link_peer_owner(gateway->peer) = NULL;
    sync_drop(gateway);
    (void)traffic_source_free(gateway->source);
    free(gateway->apply_error);
    free(gateway);
}

static void turn_out(struct gateway *gateway, const char *why)
{
    if (gateway->peer)
        link_peer_remove(gateway->peer, why); /* on_gone() comes before it returns */
    assert(!gateway->peer);
}

static void table_drop(struct roster *roster, struct gateway *gateway)
{
    struct gateway **place = place_of(roster, slice_of(gateway->name)), **in_all = &roster->gateways;

    log_info("gateway %s was removed", gateway->name);
    turn_out(gateway, "this gateway was removed");
    *place = gateway->in_bucket;
    while (*in_all != gateway)
        in_all = &(*in_all)->next;
    *in_all = gateway->next;
    roster->gateway_count--;
    gateway_free(gateway);
}

/* The link has been closed. */
void table_release(struct roster *roster)
{
    if (roster->loading)
        question_forget(roster->loading);
    if (roster->persisting)
        question_forget(roster->persisting);
    free(roster->report);
    for (struct gateway *gateway = roster->gateways, *next; gateway; gateway = next) {
        next = gateway->next;
        gateway->peer = NULL;
        gateway->ask = NULL;
        gateway_free(gateway);
    }
    free(roster->removed);
}

/* --- reading --------------------------------------------------------------------------------------------- */

void gateway_set_key(struct gateway *gateway, const struct identity_key *key)
{
    gateway->has_key = true;
    if (memcmp(gateway->key.bytes, key->bytes, sizeof key->bytes) == 0)
        return;
    gateway->key = *key;
    gateway->twin_until_ms = 0;
    memset(gateway->instances, 0, sizeof gateway->instances);
}

static void take_key(struct gateway *gateway, const struct rows *rows, size_t row)
{
    struct identity_key key;
    bool has_key = rows_bytes(rows, row, COLUMN_KEY, key.bytes, sizeof key.bytes);

    if (gateway->peer && (!has_key || memcmp(link_peer_key(gateway->peer)->bytes, key.bytes, sizeof key.bytes) != 0))
        turn_out(gateway, "this gateway has another key now");
    gateway->has_key = has_key;
    if (has_key)
        gateway_set_key(gateway, &key);
    gateway->has_secret = rows_bytes(rows, row, COLUMN_SECRET, gateway->secret_hash.bytes, DIGEST_BYTES);
    gateway->secret_until_ms = rows_number(rows, row, COLUMN_SECRET_UNTIL);
}

/* What it said to whoever led before; by now it may have said more to us. */
static void take_past(struct gateway *gateway, const struct rows *rows, size_t row)
{
    gateway->seen_wall_ms = rows_number(rows, row, COLUMN_SEEN);
    gateway->max_staleness_s = (uint32_t)rows_number(rows, row, COLUMN_STALENESS);
    gateway->desired = (uint64_t)rows_number(rows, row, COLUMN_DESIRED);
    gateway->applied = (uint64_t)rows_number(rows, row, COLUMN_APPLIED);
    free(gateway->apply_error);
    gateway->apply_error = NULL;
    if (!rows_is_null(rows, row, COLUMN_ERROR))
        gateway->apply_error = strdup(rows_text(rows, row, COLUMN_ERROR).at);
    gateway->resync_done = (uint64_t)rows_number(rows, row, COLUMN_RESYNC_DONE);
}

static void take_gateway(struct roster *roster, const struct rows *rows, size_t row)
{
    struct slice id = rows_text(rows, row, COLUMN_ID), name = rows_text(rows, row, COLUMN_NAME);
    struct gateway *gateway;

    if (name.len > MAX_GATEWAY_NAME || id.len >= UUID_BYTES)
        return;
    gateway = table_find(roster, name);
    if (gateway && !slice_is(slice_of(gateway->id), id) && *gateway->id) { /* another one of that name */
        table_drop(roster, gateway);
        gateway = NULL;
    }
    if (!gateway && !(gateway = gateway_new(roster, name)))
        return;
    memcpy(gateway->id, id.at, id.len);
    gateway->is_listed = true;
    take_key(gateway, rows, row);
    gateway->resync_asked = (uint64_t)rows_number(rows, row, COLUMN_RESYNC_ASKED);
    if (!gateway_heard_ms(gateway) && !gateway->says)
        take_past(gateway, rows, row);
}

static void take_removed(struct roster *roster, const struct rows *rows, size_t first)
{
    size_t count = rows_count(rows) - first;
    struct removed *removed = count ? calloc(count, sizeof *removed) : NULL;
    size_t kept = 0;

    for (size_t i = 0; removed && i < count; i++) {
        struct slice name = rows_text(rows, first + i, COLUMN_NAME);
        struct removed *one = &removed[kept];
        if (name.len > MAX_GATEWAY_NAME ||
            !rows_bytes(rows, first + i, COLUMN_KEY, one->key.bytes, sizeof one->key.bytes))
            continue;
        memcpy(one->name, name.at, name.len);
        kept++;
    }
    free(roster->removed);
    roster->removed = removed;
    roster->removed_count = kept;
}

static void take_table(struct roster *roster, const struct rows *rows)
{
    size_t row = 0;

    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        gateway->is_listed = false;
    for (; row < rows_count(rows) && !rows_bool(rows, row, COLUMN_IS_REMOVED); row++)
        take_gateway(roster, rows, row);
    take_removed(roster, rows, row);
    for (struct gateway *gateway = roster->gateways, *next; gateway; gateway = next) {
        next = gateway->next;
        if (!gateway->is_listed)
            table_drop(roster, gateway);
    }
}

static void on_loaded(void *arg, const struct answer *answer)
{
    struct roster *roster = arg;

    roster->loading = NULL;
    if (answer->err == ERR_OK) {
        take_table(roster, &answer->rows[0]);
        roster->is_loaded = true;
        roster->is_confirm_due = true;
    } else if (answer->err == ERR_BAD || answer->err == ERR_REFUSED) {
        log_error("the gateways cannot be read, those known stay: %s", answer->sentence);
    }
    if (roster->is_load_wanted && answer->err == ERR_OK)
        table_load(roster);
}

void table_load(struct roster *roster)
{
    const struct ask ask = { &load_statement, NULL, 0 };

    roster->is_load_wanted = roster->loading != NULL;
    roster->next_load_ms = clock_ms() + roster->options.poll_ms;
    if (!roster->loading && store_ask(roster->store, &ask, 1, on_loaded, roster, &roster->loading) != ERR_OK)
        roster->loading = NULL; /* a tick asks again */
}

/* --- writing --------------------------------------------------------------------------------------------- */

/* "10.0.0.1:18789", "[::1]:1" or without a port; false: no address. */
static bool address_of(struct slice said, char address[INET6_ADDRSTRLEN])
{
    const char *end = said.len && said.at[0] == '[' ? memchr(said.at, ']', said.len) : memrchr(said.at, ':', said.len);
    size_t from = end && said.at[0] == '[', len = end ? (size_t)(end - said.at) - from : said.len;
    uint8_t bytes[16];

    if (said.len && said.at[0] != '[' && end && memchr(said.at, ':', (size_t)(end - said.at)))
        len = said.len; /* IPv6, bare */
    if (!len || len >= INET6_ADDRSTRLEN)
        return false;
    memcpy(address, said.at + from, len);
    address[len] = 0;
    return inet_pton(AF_INET, address, bytes) == 1 || inet_pton(AF_INET6, address, bytes) == 1;
}

static void add_who(const struct gateway *gateway, struct text *out)
{
    struct qw_version version = link_peer_version(gateway->peer);
    char address[INET6_ADDRSTRLEN];
    struct slice feature;

    text_printf(out, ",\"software\":\"%u.%u.%u\",\"features\":[", version.major, version.minor, version.patch);
    for (unsigned i = 0; (feature = link_peer_feature(gateway->peer, i)).len; i++) {
        if (i)
            text_add_char(out, ',');
        json_add_string(out, feature);
    }
    text_add_literal(out, "],\"address\":");
    if (address_of(link_peer_address(gateway->peer), address))
        json_add_string(out, slice_of(address));
    else
        text_add_literal(out, "null");
    if (gateway->max_staleness_s)
        text_printf(out, ",\"max_staleness_s\":%u", gateway->max_staleness_s);
    else
        text_add_literal(out, ",\"max_staleness_s\":null");
}

static void add_report(struct gateway *gateway, int64_t now_ms, struct text *out)
{
    int64_t heard_ms = gateway_heard_ms(gateway);

    text_printf(out, "%s{\"id\":\"%s\"", out->len > 1 ? "," : "", gateway->id);
    if (heard_ms) {
        text_printf(out, ",\"ago_ms\":%lld", (long long)(now_ms > heard_ms ? now_ms - heard_ms : 0));
        gateway->seen_wall_ms = wall_of_ms(heard_ms, now_ms);
    }
    if (gateway->says & SAYS_VERSIONS) {
        text_printf(out, ",\"desired\":%llu,\"applied\":%llu,\"error\":", (unsigned long long)gateway->desired,
                    (unsigned long long)gateway->applied);
        if (gateway->apply_error)
            json_add_string(out, slice_of(gateway->apply_error));
        else
            text_add_literal(out, "null");
    }
    if (gateway->says & SAYS_WHO && gateway->peer)
        add_who(gateway, out);
    if (gateway->says & SAYS_RESYNC)
        text_printf(out, ",\"resync_done\":%llu", (unsigned long long)gateway->resync_done);
    text_add_char(out, '}');
}

/* Who is there is written down now and then, and who has gone once more. */
static void mark_seen(struct roster *roster, struct gateway *gateway, int64_t now_ms)
{
    int64_t heard_ms = gateway_heard_ms(gateway), unwritten_ms;

    if (!heard_ms)
        return;
    unwritten_ms = wall_of_ms(heard_ms, now_ms) - gateway->seen_wall_ms;
    if (unwritten_ms >= roster->options.last_seen_ms || unwritten_ms <= -roster->options.last_seen_ms ||
        (unwritten_ms > roster->options.persist_ms && now_ms - heard_ms > roster->options.live_ms))
        gateway->says |= SAYS_SEEN;
}

struct report {
    size_t count;
    struct {
        char name[MAX_GATEWAY_NAME + 1];
        unsigned says;
    } said[REPORT_MAX];
};

static void on_reported(void *arg, const struct answer *answer)
{
    struct roster *roster = arg;
    struct report *report = roster->report;

    roster->persisting = NULL;
    roster->report = NULL;
    for (size_t i = 0; answer->err != ERR_OK && i < report->count; i++) {
        struct gateway *gateway = table_find(roster, slice_of(report->said[i].name));
        if (gateway)
            gateway->says |= report->said[i].says;
    }
    if (answer->err == ERR_BAD || answer->err == ERR_REFUSED)
        log_warn("what gateways say of themselves could not be written down, which is tried again: %s",
                 answer->sentence);
    free(report);
}

void table_persist(struct roster *roster, int64_t now_ms)
{
    int64_t epoch = leader_epoch(roster->leader);
    struct report *report;

    roster->next_persist_ms = now_ms + roster->options.persist_ms;
    if (!epoch || roster->persisting || !(report = calloc(1, sizeof *report)))
        return;
    text_clear(&roster->scratch);
    text_add_char(&roster->scratch, '[');
    for (struct gateway *gateway = roster->gateways; gateway && report->count < REPORT_MAX; gateway = gateway->next) {
        mark_seen(roster, gateway, now_ms);
        if (!gateway->says || !*gateway->id)
            continue;
        add_report(gateway, now_ms, &roster->scratch);
        memcpy(report->said[report->count].name, gateway->name, sizeof gateway->name);
        report->said[report->count++].says = gateway->says;
        gateway->says = 0;
    }
    text_add_char(&roster->scratch, ']');
    if (report->count) {
        struct value values[] = { VALUE_NUMBER(epoch), VALUE_TEXT(text_slice(&roster->scratch)) };
        const struct ask ask = { &report_statement, values, 2 };
        const struct answer failed = { .err = ERR_FULL };
        roster->report = report;
        if (roster->scratch.err ||
            store_ask(roster->store, &ask, 1, on_reported, roster, &roster->persisting) != ERR_OK)
            on_reported(roster, &failed);
        return;
    }
    free(report);
}
