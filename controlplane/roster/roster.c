/*
 * ticks   every TICK_MS: Syncs that have waited long enough, confirmations, and when it is time for it: writing down,
 *         looking for changed gateways
 * release when what was gathered is told
 */
#include "roster.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "leader.h"
#include "log.h"
#include "parts.h"
#include "publish.h"
#include "store.h"
#include "traffic.h"

enum { DOCUMENT_BYTES = 64 * 1024 * 1024, AGAIN_MS = 1000 };

static const struct statement enrolled_statement = { .name = "roster_enrolled",
                                                     .sql = "SELECT gateway_enrolled($1, $2, $3, $4)" };

/* --- who comes ------------------------------------------------------------------------------------------- */

static void refuse_as_follower(const struct roster *roster, struct link_ask *ask)
{
    char memory[320];
    struct text detail = text_over(memory, sizeof memory);

    text_printf(&detail, "this control plane does not lead; %s does", leader_holder(roster->leader));
    link_ask_refuse(ask, QW_NOT_LEADER, memory, 0);
}

/* True: it was answered. */
static bool turned_away(const struct roster *roster, struct link_ask *ask)
{
    if (!leader_serves(roster->leader))
        refuse_as_follower(roster, ask);
    else if (!roster->is_loaded)
        link_ask_refuse(ask, QW_UNAVAILABLE, "the gateways' names have not been read from the database yet", AGAIN_MS);
    else
        return false;
    return true;
}

static void on_hello(void *arg, struct link_ask *ask, const struct qw_hello *hello)
{
    const struct roster *roster = arg;
    const struct gateway *gateway;
    const struct removed *removed;

    if (turned_away(roster, ask))
        return;
    gateway = table_find(roster, hello->name);
    removed = gateway ? NULL : table_find_removed(roster, hello->name);
    link_ask_challenge(ask, gateway && gateway->has_key ? &gateway->key : removed ? &removed->key : NULL);
}

static void on_enrol(void *arg, struct link_ask *ask, const struct qw_enrol *enrol)
{
    const struct roster *roster = arg;
    const struct gateway *gateway;
    struct identity_key key;
    struct digest hash;

    if (turned_away(roster, ask))
        return;
    if (!leader_epoch(roster->leader)) {
        link_ask_refuse(ask, QW_UNAVAILABLE, "the database is away", AGAIN_MS);
        return;
    }
    gateway = table_find(roster, enrol->hello->name);
    digest_sha256(enrol->secret, &hash);
    if (!gateway || !gateway->has_secret || !digest_is(&hash, &gateway->secret_hash) ||
        gateway->secret_until_ms <= clock_wall_ms()) {
        link_ask_refuse(ask, QW_SECRET, "the secret is not that of this gateway, was used, or is too old", 0);
        return;
    }
    memcpy(key.bytes, enrol->public_key.at, sizeof key.bytes);
    link_ask_challenge(ask, &key);
}

static void enrolling_free(struct enrolling *enrolling)
{
    *enrolling->back = enrolling->next;
    if (enrolling->next)
        enrolling->next->back = enrolling->back;
    free(enrolling);
}

static void enrolled(struct enrolling *enrolling)
{
    struct gateway *gateway = table_find(enrolling->roster, slice_of(enrolling->name));

    if (gateway) {
        if (gateway->peer)
            link_peer_remove(gateway->peer, "this gateway has another key now");
        gateway_set_key(gateway, &enrolling->key);
        gateway->has_secret = false;
    }
    log_info("gateway %s has enrolled", enrolling->name);
    table_load(enrolling->roster);
    link_ask_welcome(enrolling->ask);
}

static void on_registered(void *arg, const struct answer *answer)
{
    struct enrolling *enrolling = arg;

    if (answer->err == ERR_OK && rows_bool(&answer->rows[0], 0, 0)) {
        enrolled(enrolling);
    } else if (answer->err == ERR_OK) {
        link_ask_refuse(enrolling->ask, QW_SECRET, "the secret was used, or is too old", 0);
    } else if (strcmp(answer->constraint, "gateway_public_key_key") == 0) {
        link_ask_refuse(enrolling->ask, QW_SECRET, "this key was registered before: let the gateway make another", 0);
    } else if (strcmp(answer->sqlstate, "QW503") == 0) {
        refuse_as_follower(enrolling->roster, enrolling->ask);
    } else {
        log_warn("gateway %s could not be enrolled, and will come again: %s", enrolling->name, answer->sentence);
        link_ask_refuse(enrolling->ask, QW_UNAVAILABLE, "the database did not take it", AGAIN_MS);
    }
    enrolling_free(enrolling);
}

static void on_enrolled(void *arg, struct link_ask *ask, struct slice name, const struct identity_key *key,
                        const struct digest *secret_hash)
{
    struct roster *roster = arg;
    struct enrolling *enrolling = calloc(1, sizeof *enrolling);
    struct value values[] = { VALUE_NUMBER(leader_epoch(roster->leader)), VALUE_TEXT(name),
                              VALUE_BYTES(((struct slice){ (const char *)secret_hash->bytes, DIGEST_BYTES })),
                              VALUE_BYTES(((struct slice){ (const char *)key->bytes, sizeof key->bytes })) };
    const struct ask question = { &enrolled_statement, values, sizeof values / sizeof *values };

    if (!enrolling || name.len > MAX_GATEWAY_NAME) {
        free(enrolling);
        link_ask_refuse(ask, QW_BUSY, "no memory", AGAIN_MS);
        return;
    }
    *enrolling = (struct enrolling){
        .next = roster->enrollings, .back = &roster->enrollings, .roster = roster, .ask = ask, .key = *key
    };
    memcpy(enrolling->name, name.at, name.len);
    if (enrolling->next)
        enrolling->next->back = &enrolling->next;
    roster->enrollings = enrolling;
    if (store_ask(roster->store, &question, 1, on_registered, enrolling, &enrolling->question) != ERR_OK) {
        link_ask_refuse(ask, QW_UNAVAILABLE, "the database is away", AGAIN_MS);
        enrolling_free(enrolling);
    }
}

/* --- who is there ---------------------------------------------------------------------------------------- */

/*
 * One that comes again although another has come after it was there all the time: somebody has copied the folder that
 * holds the key. Either may hold what the other has let go, until it has heard nothing for as long as it may.
 */
static void look_for_twin(struct gateway *gateway, struct slice instance)
{
    int64_t now_ms = clock_ms();
    unsigned at = 0;

    if (instance.len != CODEC_ID_BYTES)
        return;
    while (at < KNOWN_INSTANCES && memcmp(gateway->instances[at], instance.at, CODEC_ID_BYTES) != 0)
        at++;
    if (at > 0 && at < KNOWN_INSTANCES) {
        if (now_ms >= gateway->twin_until_ms)
            log_error(
                "two gateways are running with the name and the key of %s, so neither of them is taken to confirm "
                "anything: enroll one of them under another name, and %s anew",
                gateway->name, gateway->name);
        gateway->twin_until_ms =
            !gateway->max_staleness_s ? INT64_MAX : now_ms + INT64_C(1000) * gateway->max_staleness_s + GRACE_MS;
    }
    memmove(gateway->instances[1], gateway->instances[0],
            (size_t)CODEC_ID_BYTES * (at < KNOWN_INSTANCES ? at : KNOWN_INSTANCES - 1));
    memcpy(gateway->instances[0], instance.at, CODEC_ID_BYTES);
}

static void on_welcome(void *arg, struct link_peer *peer)
{
    struct roster *roster = arg;
    struct gateway *gateway = table_find(roster, link_peer_name(peer));

    if (!gateway || !gateway->has_key ||
        memcmp(gateway->key.bytes, link_peer_key(peer)->bytes, sizeof gateway->key.bytes) != 0) {
        link_peer_remove(peer, "this gateway was removed");
        return;
    }
    *link_peer_owner(peer) = gateway;
    gateway->peer = peer;
    gateway->max_staleness_s = link_peer_max_staleness_s(peer);
    gateway->says |= SAYS_SEEN | SAYS_WHO;
    look_for_twin(gateway, link_peer_instance(peer));
    log_debug("gateway %s is there", gateway->name);
}

static void on_gone(void *arg, struct link_peer *peer)
{
    struct roster *roster = arg;
    struct gateway *gateway = *link_peer_owner(peer);

    if (!gateway || gateway->peer != peer)
        return;
    gateway->heard_ms = link_peer_heard_ms(peer);
    gateway->peer = NULL;
    gateway->says |= SAYS_SEEN;
    sync_drop(gateway);
    roster->is_confirm_due = true;
    log_debug("gateway %s has gone", gateway->name);
}

static void answer_commands(struct gateway *gateway, struct link_ask *ask, uint64_t counted)
{
    const struct qw_command resync = { gateway->resync_asked, QW_RESYNC };
    const struct qw_message commands = {
        QW_COMMANDS,
        .commands = { .counted = counted, .commands = &resync, .count = gateway->resync_asked > gateway->resync_done }
    };

    link_ask_answer(ask, &commands);
}

static void take_ack(struct gateway *gateway, const struct qw_ack *ack)
{
    for (size_t i = 0; i < ack->count; i++) {
        const struct qw_done *done = &ack->done[i];
        if (done->id > gateway->resync_asked || done->id <= gateway->resync_done)
            continue;
        gateway->resync_done = done->id;
        gateway->says |= SAYS_RESYNC;
        if (done->error.len)
            log_warn("gateway %s does not take all anew: %.*s", gateway->name, (int)done->error.len, done->error.at);
    }
}

static void on_message(void *arg, struct link_peer *peer, struct link_ask *ask, const struct qw_message *message)
{
    struct roster *roster = arg;
    struct gateway *gateway = *link_peer_owner(peer);
    int64_t now_ms = clock_ms();

    if (!leader_serves(roster->leader)) {
        refuse_as_follower(roster, ask);
    } else if (!gateway) {
        link_ask_refuse(ask, QW_REMOVED, "this gateway was removed", 0);
    } else if (message->what == QW_SYNC) {
        sync_take(gateway, roster, ask, &message->sync, now_ms);
    } else if (message->what == QW_LOAD) {
        answer_commands(gateway, ask, traffic_take(gateway->source, link_peer_instance(peer), &message->load, now_ms));
    } else {
        take_ack(gateway, &message->ack);
        answer_commands(gateway, ask, 0);
    }
}

/* --- who leads ------------------------------------------------------------------------------------------- */

static void on_leader(void *arg)
{
    struct roster *roster = arg;
    bool serves = leader_serves(roster->leader);
    int64_t now_ms = clock_ms();
    char memory[320];
    struct text detail = text_over(memory, sizeof memory);

    if (serves == roster->serves)
        return;
    if (!serves)
        confirm_all(roster, now_ms);
    roster->serves = serves;
    if (serves) {
        roster->serves_since_ms = now_ms;
        roster->released = publish_version(roster->publish);
        for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
            gateway->heard_ms = 0; /* what another has heard since is in the database */
        table_load(roster);
        publish_wake(roster->publish);
        return;
    }
    text_printf(&detail, "this control plane does not lead any more; %s does", leader_holder(roster->leader));
    sync_refuse_all(roster, QW_NOT_LEADER, memory);
}

/* --- events ---------------------------------------------------------------------------------------------- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct roster *roster = arg;

    (void)fd;
    (void)what;
    link_server_take(roster->server);
    if (roster->is_confirm_due)
        confirm_look(roster, clock_ms());
}

static void on_release(evutil_socket_t fd, short what, void *arg)
{
    struct roster *roster = arg;

    (void)fd;
    (void)what;
    roster->is_release_set = false;
    if (roster->serves)
        sync_release(roster, clock_ms());
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct roster *roster = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    on_leader(roster);
    sync_tick(roster, now_ms);
    confirm_look(roster, now_ms);
    for (struct gateway *gateway = roster->gateways; gateway; gateway = gateway->next)
        if (!gateway_is_live(roster, gateway, now_ms))
            traffic_source_silent(gateway->source);
    if (now_ms >= roster->next_load_ms)
        table_load(roster);
    if (now_ms >= roster->next_persist_ms)
        table_persist(roster, now_ms);
}

static void on_published(void *arg)
{
    sync_news(arg, clock_ms());
}

static void on_wake(void *arg, const char *payload)
{
    if (!payload || strcmp(payload, "gateway") == 0)
        table_load(arg);
}

void roster_wake(struct roster *roster)
{
    table_load(roster);
}

/* --- opening and closing --------------------------------------------------------------------------------- */

static struct qw_version version_of(const char *words)
{
    struct qw_version version = { 0 };

    (void)sscanf(words, "%u.%u.%u", &version.major, &version.minor, &version.patch);
    return version;
}

static bool open_link(struct roster *roster, struct text *why)
{
    static const struct link_server_events events = {
        on_hello, on_enrol, on_enrolled, on_welcome, on_message, on_gone
    };
    struct link_server_options options = {
        .version = version_of(roster->options.software),
        .max_connections = roster->options.max_connections,
        .heartbeat_ms = roster->options.heartbeat_ms,
    };

    if (asprintf(&roster->url, "tcp://%s", roster->options.listen) < 0) {
        roster->url = NULL;
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return false;
    }
    options.url = roster->url;
    roster->server = link_server_open(&options, &events, roster, why);
    return roster->server;
}

static bool start(struct roster *roster)
{
    static const struct timeval every = { TICK_MS / 1000, (TICK_MS % 1000) * 1000 };

    struct event **events = roster->events;

    events[EVENT_READABLE] =
        event_new(roster->base, link_server_fd(roster->server), EV_READ | EV_PERSIST, on_readable, roster);
    events[EVENT_TICK] = event_new(roster->base, -1, EV_PERSIST, on_tick, roster);
    events[EVENT_RELEASE] = event_new(roster->base, -1, 0, on_release, roster);
    return events[EVENT_READABLE] && events[EVENT_TICK] && events[EVENT_RELEASE] &&
           event_add(events[EVENT_READABLE], NULL) == 0 && event_add(events[EVENT_TICK], &every) == 0 &&
           store_listen(roster->store, "qwen_change", on_wake, roster) == ERR_OK &&
           publish_watch(roster->publish, on_published, roster) == ERR_OK &&
           leader_watch(roster->leader, on_leader, roster) == ERR_OK;
}

struct roster *roster_open(struct event_base *base, struct store *store, struct publish *publish,
                           struct traffic *traffic, struct leader *leader, const struct roster_options *options,
                           struct text *why)
{
    struct roster *roster = calloc(1, sizeof *roster);

    if (!roster) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    roster->base = base;
    roster->store = store;
    roster->publish = publish;
    roster->traffic = traffic;
    roster->leader = leader;
    roster->options = *options;
    roster->gather = (struct gather){ .first_ms = options->gather_ms, .longest_ms = options->gather_max_ms };
    text_init(&roster->scratch, DOCUMENT_BYTES);
    random_bytes(roster->seed, sizeof roster->seed);
    roster->seed[1] |= 1;
    if (!open_link(roster, why))
        return roster_close(roster);
    if (!start(roster)) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return roster_close(roster);
    }
    table_load(roster);
    on_leader(roster);
    return roster;
}

const char *roster_address(const struct roster *roster)
{
    return link_server_url(roster->server) + strlen("tcp://");
}

struct roster *roster_close(struct roster *roster)
{
    if (!roster)
        return NULL;
    while (roster->waits)
        roster_wait_forget(roster->waits);
    while (roster->enrollings) {
        question_forget(roster->enrollings->question);
        enrolling_free(roster->enrollings);
    }
    for (unsigned i = 0; i < EVENTS; i++)
        if (roster->events[i])
            event_free(roster->events[i]);
    roster->server = link_server_close(roster->server);
    table_release(roster);
    text_release(&roster->scratch);
    free(roster->url);
    free(roster);
    return NULL;
}
