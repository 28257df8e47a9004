/*
 * A Sync is answered when there is something to tell, at the latest when it has waited long enough:
 *
 *     behind what all were told     at once (it has just come, or missed something)
 *     behind what is there          with all others, when it is released (gather)
 *     in the middle of a snapshot   the next piece
 *     too far behind, or nothing    a snapshot, as soon as there is one
 *     ahead of the database         a snapshot, when a look that began after it asked has not found more
 *     never told anything by us     a snapshot: what it holds is another database's
 */
#include "publish.h"

#include <event2/event.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"
#include "parts.h"

enum { AGAIN_MS = 1000 };

static struct link_ask *ask_take(struct gateway *gateway)
{
    struct link_ask *ask = gateway->ask;

    gateway->ask = NULL;
    return ask;
}

void sync_drop(struct gateway *gateway)
{
    if (gateway->ask)
        link_ask_drop(ask_take(gateway));
}

void sync_refuse_all(struct roster *roster, enum qw_reason reason, const char *detail)
{
    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (gateway->ask)
            link_ask_refuse(ask_take(gateway), reason, detail, 0);
}

static void answer(struct gateway *gateway, struct slice frame, uint64_t to)
{
    if (gateway->desired != to)
        gateway->says |= SAYS_VERSIONS;
    gateway->desired = to;
    link_ask_answer_frame(ask_take(gateway), frame);
}

/* False: none is there yet. */
static bool answer_piece(struct roster *roster, struct gateway *gateway, uint64_t snapshot, uint32_t piece)
{
    struct slice frame;
    uint64_t version;
    enum err err = publish_piece(roster->publish, snapshot, piece, &frame, &version);

    if (err == ERR_AGAIN)
        return false;
    if (err == ERR_OK)
        answer(gateway, frame, version);
    else
        link_ask_refuse(ask_take(gateway), QW_UNAVAILABLE, "the snapshot cannot be read", AGAIN_MS);
    return true;
}

/* Whether there is something to tell it; then that is told. */
static bool try(struct roster *roster, struct gateway *gateway)
{
    uint64_t version = publish_version(roster->publish), to;
    struct slice frame;

    if (!gateway->snapshot && gateway->failed && gateway->failed == version)
        return false; /* it cannot apply this one: it waits for another */
    if (gateway->snapshot || !gateway->have)
        return answer_piece(roster, gateway, gateway->snapshot, gateway->next_piece);
    if (gateway->have > version) {
        if (publish_looks(roster->publish) < gateway->looks + 2)
            return false;
        log_warn("gateway %s holds version %llu and the database is at %llu only: it gets a snapshot", gateway->name,
                 (unsigned long long)gateway->have, (unsigned long long)version);
        return answer_piece(roster, gateway, 0, 0);
    }
    if (gateway->have == version)
        return false;
    switch (publish_delta(roster->publish, gateway->have, &frame, &to)) {
    case ERR_OK:
        answer(gateway, frame, to);
        return true;
    case ERR_NOT_FOUND:
        return answer_piece(roster, gateway, 0, 0);
    default:
        return false;
    }
}

static void answer_nothing(struct gateway *gateway)
{
    const struct qw_message nothing = { QW_UPDATE, .update = { .from = gateway->have, .to = gateway->have } };

    if (gateway->have)
        link_ask_answer(ask_take(gateway), &nothing);
    else
        link_ask_refuse(ask_take(gateway), QW_UNAVAILABLE, "the first snapshot is not ready yet", AGAIN_MS);
}

static void note_error(struct gateway *gateway, struct slice error, uint64_t failed)
{
    bool had = gateway->apply_error != NULL;
    char *copy = NULL;

    if (had ? slice_is(slice_of(gateway->apply_error), error) && gateway->failed == failed : !error.len)
        return;
    if (error.len && !(copy = strndup(error.at, error.len)))
        return;
    free(gateway->apply_error);
    gateway->apply_error = copy;
    gateway->failed = error.len ? failed : 0;
    gateway->says |= SAYS_VERSIONS;
    if (copy)
        log_warn("gateway %s does not apply version %llu, and goes by %llu: %s", gateway->name,
                 (unsigned long long)failed, (unsigned long long)gateway->applied, copy);
    else
        log_info("gateway %s applies what it is told again, and goes by version %llu", gateway->name,
                 (unsigned long long)gateway->applied);
}

void sync_take(struct gateway *gateway, struct roster *roster, struct link_ask *ask, const struct qw_sync *sync,
               int64_t now_ms)
{
    int64_t wait_ms = sync->wait_ms < roster->options.max_wait_ms ? sync->wait_ms : roster->options.max_wait_ms;

    bool holds_ours = gateway->desired != 0 && !sync->snapshot; /* what a snapshot is to replace may be another one's */
    uint64_t applied = holds_ours ? sync->applied : 0;

    if (gateway->ask) /* it asks anew, so it does not wait for that one */
        answer_nothing(gateway);
    if (gateway->applied != applied)
        gateway->says |= SAYS_VERSIONS;
    gateway->applied = applied;
    note_error(gateway, sync->apply_error, sync->failed);
    roster->is_confirm_due = true;

    gateway->ask = ask;
    gateway->ask_until_ms = now_ms + wait_ms;
    gateway->have = gateway->desired ? sync->have : 0;
    gateway->snapshot = sync->snapshot;
    gateway->next_piece = sync->next_chunk;
    gateway->looks = publish_looks(roster->publish);
    if (gateway->have > publish_version(roster->publish))
        publish_wake(roster->publish);
    if ((!gateway->have || gateway->snapshot || gateway->have < roster->released) && try(roster, gateway))
        return;
    if (!wait_ms && gateway->have <= publish_version(roster->publish))
        answer_nothing(gateway);
}

void sync_release(struct roster *roster, int64_t now_ms)
{
    roster->released = publish_version(roster->publish);
    gather_told(&roster->gather, now_ms);
    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (gateway->ask)
            (void)try(roster, gateway);
}

static void release_at(struct roster *roster, int64_t at_ms, int64_t now_ms)
{
    struct timeval in = { (at_ms - now_ms) / 1000, ((at_ms - now_ms) % 1000) * 1000 };

    if (roster->is_release_set)
        return;
    roster->is_release_set = event_add(roster->events[EVENT_RELEASE], &in) == 0;
}

/* Those whom a look, or a snapshot, was to decide about. */
static bool waits_for_more(const struct roster *roster, const struct gateway *gateway)
{
    return gateway->ask && (!gateway->have || gateway->snapshot || gateway->have < roster->released ||
                            gateway->have > publish_version(roster->publish));
}

void sync_news(struct roster *roster, int64_t now_ms)
{
    uint64_t version = publish_version(roster->publish);

    if (!roster->serves)
        return;
    if (version < roster->released) /* another database, or an older state of it */
        roster->released = version;
    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (waits_for_more(roster, gateway))
            (void)try(roster, gateway);
    if (version > roster->released) {
        int64_t at_ms = gather_at(&roster->gather, now_ms);
        if (at_ms <= now_ms && !roster->is_release_set)
            sync_release(roster, now_ms);
        else
            release_at(roster, at_ms, now_ms);
    }
}

void sync_tick(struct roster *roster, int64_t now_ms)
{
    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (gateway->ask && now_ms >= gateway->ask_until_ms)
            answer_nothing(gateway);
}
