/*
 * A control plane that says what a test tells it to: a real link server, and behind it nothing but what came in on
 * stdin. One JSON object a line, both ways.
 *
 *     {"do":"know","name":"gw","secret":"qen_…"}   whoever has the secret is gateway gw from then on
 *     {"do":"publish","to":5,"delta":[CHANGE…],"whole":[CHANGE…],"keeps":true}   version 5; `keeps`: deltas from before
 *                                                   lead to it
 *     {"do":"be", "silent":bool, "chunk_bytes":N, "corrupt_sum":bool, "wrong_from":bool, "garbage":bool,
 * "refuse":REASON, "forget_loads":bool}              how it answers from now on; what is not named is as before
 *     {"do":"stop"}, {"do":"start"}                 the listener goes, and comes back at the same port
 *     {"do":"command","id":7,"order":4}             until it is acknowledged (2 drain, 3 undrain, 4 resync, 99)
 *     {"do":"remove","name":"gw"}
 *     {"do":"ping"}
 *
 * CHANGE: {"key":{…}}, {"range":"10.0.0.0/8"}, {"model":{…}}, {"backend":{…}}, {"setting":{"name","value"}} with the
 * value as JSON text, {"gone":{"key":HASH,"cut":bool}}, {"gone":{"noun":"model","name":…}}.
 * It tells of everything that it hears: {"event":"sync",…}, "load", "ack", "up", "gone", "enrolled", "done".
 */
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "digest.h"
#include "identity.h"
#include "link.h"

enum { MAX_PARKED = 256, MAX_DELTAS = 4096, MAX_NAMES = 64, MAX_COMMANDS = 16, TICK_MS = 20 };

struct delta {
    uint64_t from, to;
    struct text packed;
};

struct parked {
    struct link_ask *ask;
    uint64_t have, failed;
    int64_t until_ms;
};

static struct link_server *server;
static char url[128] = "tcp://127.0.0.1:0";
static char secret[256], known_name[256];
static struct identity_key known_key;
static bool is_known;
static uint64_t version;
static struct delta deltas[MAX_DELTAS];
static unsigned delta_count;
static json_t *whole; /* an array of changes */
static struct parked parked[MAX_PARKED];
static unsigned parked_count;
static struct qw_command commands[MAX_COMMANDS];
static unsigned command_count;
static uint64_t counted;
static struct {
    bool is_silent, corrupts_sum, has_wrong_from, is_garbage, forgets_loads;
    unsigned refuses, chunk_bytes;
} manner = { .chunk_bytes = CODEC_MAX_CHANGES };

static void tell(json_t *event)
{
    char *line = json_dumps(event, JSON_COMPACT);

    (void)puts(line);
    (void)fflush(stdout);
    free(line);
    json_decref(event);
}

/* ---- changes ---- */

static struct slice slice_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return (struct slice){ json_is_string(value) ? json_string_value(value) : "", json_string_length(value) };
}

static uint64_t number_at(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const struct qw_names *names_at(const json_t *object, const char *key, struct qw_names *names,
                                       struct slice room[MAX_NAMES])
{
    const json_t *list = json_object_get(object, key);

    if (!json_is_array(list))
        return NULL;
    *names = (struct qw_names){ room, json_array_size(list) };
    for (size_t i = 0; i < names->count && i < MAX_NAMES; i++)
        room[i] = slice_of(json_string_value(json_array_get(list, i)));
    return names;
}

static void pack_key(const json_t *key, struct text *out, struct text *why)
{
    struct digest hash = { 0 };
    struct qw_names models, allow;
    struct slice model_room[MAX_NAMES], allow_room[MAX_NAMES];
    struct qw_change change = { .what = QW_KEY };

    (void)digest_parse_hex(slice_at(key, "hash"), &hash);
    change.key = (struct qw_key){
        .id = { (const char *)hash.bytes, CODEC_ID_BYTES },
        .hash = { (const char *)hash.bytes, CODEC_HASH_BYTES },
        .user = slice_at(key, "user"),
        .team = slice_at(key, "team"),
        .name = slice_at(key, "name"),
        .delegates = json_is_true(json_object_get(key, "delegate")),
        .class = (enum qw_class)number_at(key, "class"),
        .expires_s = number_at(key, "expires"),
        .weight = (uint32_t)number_at(key, "weight"),
        .rpm = (uint32_t)number_at(key, "rpm"),
        .max_concurrent = (uint32_t)number_at(key, "max_concurrent"),
        .models = names_at(key, "models", &models, model_room),
        .allow = names_at(key, "allow", &allow, allow_room),
    };
    (void)!change_pack(&change, out, why);
}

static void pack_model(const json_t *model, struct text *out, struct text *why)
{
    struct qw_number prompt = { number_at(model, "max_prompt_chars") };
    struct qw_number system = { number_at(model, "max_system_chars") };
    const struct qw_change change = {
        .what = QW_MODEL,
        .model = { .name = slice_at(model, "name"),
                   .backend_model = slice_at(model, "backend_model"),
                   .num_ctx = number_at(model, "num_ctx"),
                   .keep_alive = slice_at(model, "keep_alive"),
                   .preloads = json_is_true(json_object_get(model, "preload")),
                   .max_prompt_chars = json_object_get(model, "max_prompt_chars") ? &prompt : NULL,
                   .max_system_chars = json_object_get(model, "max_system_chars") ? &system : NULL,
                   .think = (enum qw_think)number_at(model, "think") },
    };

    (void)!change_pack(&change, out, why);
}

static void pack_backend(const json_t *backend, struct text *out, struct text *why)
{
    struct qw_names models;
    struct slice room[MAX_NAMES];
    const struct qw_change change = {
        .what = QW_BACKEND,
        .backend = { .name = slice_at(backend, "name"),
                     .url = slice_at(backend, "url"),
                     .kind = slice_at(backend, "kind"),
                     .slots = (uint32_t)number_at(backend, "slots"),
                     .weight = (uint32_t)number_at(backend, "weight"),
                     .is_standby = json_is_true(json_object_get(backend, "standby")),
                     .drains = json_is_true(json_object_get(backend, "drain")),
                     .models = names_at(backend, "models", &models, room) },
    };

    (void)!change_pack(&change, out, why);
}

static void pack_gone(const json_t *gone, struct text *out, struct text *why)
{
    static const char *const nouns[] = { "", "key", "range", "model", "backend", "setting" };
    struct digest hash = { 0 };
    struct qw_change change = { .what = QW_CHANGE_REMOVED };

    if (json_object_get(gone, "key")) {
        (void)digest_parse_hex(slice_at(gone, "key"), &hash);
        change.removed = (struct qw_removed){ .noun = QW_KEY,
                                              .id = { (const char *)hash.bytes, CODEC_ID_BYTES },
                                              .hash = { (const char *)hash.bytes, CODEC_HASH_BYTES },
                                              .cuts = json_is_true(json_object_get(gone, "cut")) };
    } else {
        for (unsigned i = QW_RANGE; i < QW_NOUNS; i++)
            if (slice_is(slice_at(gone, "noun"), slice_of(nouns[i])))
                change.removed = (struct qw_removed){ .noun = (enum qw_noun)i, .name = slice_at(gone, "name") };
    }
    (void)!change_pack(&change, out, why);
}

static void pack_one(const json_t *change, struct text *out)
{
    char memory[1024];
    struct text why = text_over(memory, sizeof memory);
    const json_t *setting = json_object_get(change, "setting");

    if (json_object_get(change, "key"))
        pack_key(json_object_get(change, "key"), out, &why);
    else if (json_object_get(change, "model"))
        pack_model(json_object_get(change, "model"), out, &why);
    else if (json_object_get(change, "backend"))
        pack_backend(json_object_get(change, "backend"), out, &why);
    else if (json_object_get(change, "gone"))
        pack_gone(json_object_get(change, "gone"), out, &why);
    else if (json_object_get(change, "range"))
        (void)!change_pack(&(struct qw_change){ .what = QW_RANGE, .range = { slice_at(change, "range") } }, out, &why);
    else if (setting)
        (void)!change_pack(&(struct qw_change){ .what = QW_SETTING,
                                                .setting = { slice_at(setting, "name"), slice_at(setting, "value") } },
                           out, &why);
    if (why.len)
        tell(json_pack("{s:s,s:s}", "event", "unpackable", "why", memory));
}

/* ---- answering ---- */

static void answer_update(struct link_ask *ask, const struct qw_update *update)
{
    const struct qw_message message = { QW_UPDATE, .update = *update };

    link_ask_answer(ask, &message);
}

/* What there is, packed once a version: pieces end between two changes. */
static struct {
    struct text all;
    size_t *starts; /* of pieces; one more than there are */
    uint32_t count;
    struct digest sum;
} packed;

static void pack_whole(void)
{
    struct digest_run run;
    size_t i;
    json_t *change;

    text_release(&packed.all);
    text_init(&packed.all, SIZE_MAX / 4);
    free(packed.starts);
    packed.starts = calloc(json_array_size(whole) + 2, sizeof *packed.starts);
    packed.count = 0;
    json_array_foreach(whole, i, change)
    {
        size_t before = packed.all.len;
        pack_one(change, &packed.all);
        if (before > packed.starts[packed.count] && packed.all.len - packed.starts[packed.count] > manner.chunk_bytes)
            packed.starts[++packed.count] = before;
    }
    packed.starts[++packed.count] = packed.all.len;
    digest_begin(&run);
    digest_add(&run, text_slice(&packed.all));
    digest_end(&run, &packed.sum);
}

static void answer_piece(struct link_ask *ask, uint32_t index)
{
    const struct qw_chunk chunk = { index < packed.count ? index : 0, packed.count };
    size_t start = packed.starts[chunk.index];
    struct digest sum = packed.sum;
    struct qw_update update = { .to = version,
                                .changes = { packed.all.at + start, packed.starts[chunk.index + 1] - start },
                                .chunk = &chunk };

    sum.bytes[0] ^= manner.corrupts_sum;
    if (chunk.index + 1 == chunk.count)
        update.checksum = (struct slice){ (const char *)sum.bytes, sizeof sum.bytes };
    answer_update(ask, &update);
}

/* False: no delta leads on from there. */
static bool answer_delta(struct link_ask *ask, uint64_t have)
{
    uint64_t at = have;
    struct text all;

    text_init(&all, CODEC_MAX_CHANGES);
    for (unsigned i = 0; i < delta_count; i++) {
        if (deltas[i].from != at)
            continue;
        text_add_slice(&all, text_slice(&deltas[i].packed));
        at = deltas[i].to;
    }
    if (at == version && at != have)
        answer_update(ask, &(struct qw_update){ .from = manner.has_wrong_from ? have + 1000 : have,
                                                .to = version,
                                                .changes = text_slice(&all) });
    text_release(&all);
    return at == version && at != have;
}

static void answer_now(struct link_ask *ask, const struct qw_sync *sync)
{
    static const char garbage[] = "\x5a\xff\xff\xff\xff\x0f nothing of this is a message";

    if (manner.is_garbage)
        link_ask_answer_frame(ask, (struct slice){ garbage, sizeof garbage });
    else if (manner.refuses)
        link_ask_refuse(ask, (enum qw_reason)manner.refuses, "as the test says", 0);
    else if (sync->snapshot == version && version)
        answer_piece(ask, sync->next_chunk);
    else if (!sync->have || !answer_delta(ask, sync->have))
        answer_piece(ask, 0);
}

static void release_parked(bool only_late)
{
    int64_t now_ms = clock_ms();
    unsigned kept = 0;

    for (unsigned i = 0; i < parked_count; i++) {
        struct parked *one = &parked[i];
        if (!only_late && one->have != version && one->failed != version)
            answer_now(one->ask, &(struct qw_sync){ .have = one->have });
        else if (now_ms >= one->until_ms)
            answer_update(one->ask, &(struct qw_update){ .from = one->have, .to = one->have });
        else
            parked[kept++] = *one;
    }
    parked_count = kept;
}

static void on_sync(struct link_ask *ask, const struct qw_sync *sync)
{
    bool is_odd = manner.is_garbage || manner.refuses;

    tell(json_pack("{s:s,s:I,s:I,s:I,s:I,s:s%}", "event", "sync", "have", (json_int_t)sync->have, "applied",
                   (json_int_t)sync->applied, "failed", (json_int_t)sync->failed, "wait_ms", (json_int_t)sync->wait_ms,
                   "error", sync->apply_error.at ? sync->apply_error.at : "", sync->apply_error.len));
    if (manner.is_silent)
        link_ask_drop(ask);
    else if (is_odd || (sync->have != version && sync->failed != version && version))
        answer_now(ask, sync);
    else if (!sync->wait_ms && sync->have)
        answer_update(ask, &(struct qw_update){ .from = sync->have, .to = sync->have });
    else if (parked_count < MAX_PARKED)
        parked[parked_count++] =
            (struct parked){ ask, sync->have, sync->failed, sync->have ? clock_ms() + sync->wait_ms : INT64_MAX };
    else
        link_ask_drop(ask);
}

static json_t *histogram_of(const struct qw_histogram *histogram)
{
    uint64_t count = 0;

    for (size_t i = 0; histogram && i < histogram->count_count; i++)
        count += histogram->counts[i];
    return json_pack("{s:I,s:I}", "count", (json_int_t)count, "sum_us", histogram ? (json_int_t)histogram->sum_us : 0);
}

static void tell_load(const struct qw_load *load)
{
    json_t *models = json_array(), *users = json_array(), *backends = json_array();

    for (size_t i = 0; i < load->model_count; i++) {
        const struct qw_model_load *model = &load->models[i];
        json_array_append_new(models,
                              json_pack("{s:s%,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o}", "model", model->model.at,
                                        model->model.len, "running", (json_int_t)model->running, "waiting",
                                        (json_int_t)model->waiting, "requests", (json_int_t)model->requests, "refused",
                                        (json_int_t)model->refused, "prompt_tokens", (json_int_t)model->prompt_tokens,
                                        "completion_tokens", (json_int_t)model->completion_tokens, "first_token",
                                        histogram_of(model->first_token), "duration", histogram_of(model->duration)));
    }
    for (size_t i = 0; i < load->user_count; i++) {
        const struct qw_user_load *user = &load->users[i];
        json_array_append_new(users,
                              json_pack("{s:s%,s:I,s:I,s:I,s:I}", "user", user->user.at, user->user.len, "requests",
                                        (json_int_t)user->requests, "refused", (json_int_t)user->refused,
                                        "prompt_tokens", (json_int_t)user->prompt_tokens, "completion_tokens",
                                        (json_int_t)user->completion_tokens));
    }
    for (size_t i = 0; i < load->backend_count; i++)
        json_array_append_new(backends, json_pack("{s:s%,s:b,s:I}", "name", load->backends[i].name.at,
                                                  load->backends[i].name.len, "up", load->backends[i].is_up, "running",
                                                  (json_int_t)load->backends[i].running));
    tell(json_pack("{s:s,s:I,s:I,s:I,s:o,s:o,s:o}", "event", "load", "sequence", (json_int_t)load->sequence, "running",
                   (json_int_t)load->running, "waiting", (json_int_t)load->waiting, "models", models, "users", users,
                   "backends", backends));
}

static void answer_commands(struct link_ask *ask)
{
    const struct qw_message message = { QW_COMMANDS, .commands = { .counted = counted, commands, command_count } };

    link_ask_answer(ask, &message);
}

static void on_ack(struct link_ask *ask, const struct qw_ack *ack)
{
    for (size_t i = 0; i < ack->count; i++) {
        unsigned kept = 0;
        for (unsigned k = 0; k < command_count; k++)
            if (commands[k].id != ack->done[i].id)
                commands[kept++] = commands[k];
        command_count = kept;
        tell(json_pack("{s:s,s:I,s:s%}", "event", "ack", "id", (json_int_t)ack->done[i].id, "error",
                       ack->done[i].error.at ? ack->done[i].error.at : "", ack->done[i].error.len));
    }
    answer_commands(ask);
}

/* ---- the link ---- */

static void on_hello(void *arg, struct link_ask *ask, const struct qw_hello *hello)
{
    (void)arg;
    link_ask_challenge(ask, is_known && slice_is(hello->name, slice_of(known_name)) ? &known_key : NULL);
}

static void on_enrol(void *arg, struct link_ask *ask, const struct qw_enrol *enrol)
{
    struct identity_key key;

    (void)arg;
    if (!*secret || !slice_is(enrol->secret, slice_of(secret))) {
        link_ask_refuse(ask, QW_SECRET, "no such secret", 0);
        return;
    }
    memcpy(key.bytes, enrol->public_key.at, sizeof key.bytes);
    link_ask_challenge(ask, &key);
}

static void on_enrolled(void *arg, struct link_ask *ask, struct slice name, const struct identity_key *key,
                        const struct digest *secret_hash)
{
    (void)arg;
    (void)secret_hash;
    *secret = 0;
    known_key = *key;
    is_known = true;
    tell(json_pack("{s:s,s:s%}", "event", "enrolled", "name", name.at, name.len));
    link_ask_welcome(ask);
}

static void on_welcome(void *arg, struct link_peer *peer)
{
    struct slice name = link_peer_name(peer);

    (void)arg;
    tell(json_pack("{s:s,s:s%,s:I}", "event", "up", "name", name.at, name.len, "max_staleness_s",
                   (json_int_t)link_peer_max_staleness_s(peer)));
}

static void on_message(void *arg, struct link_peer *peer, struct link_ask *ask, const struct qw_message *message)
{
    (void)arg;
    (void)peer;
    if (message->what == QW_SYNC) {
        on_sync(ask, &message->sync);
    } else if (message->what == QW_LOAD) {
        tell_load(&message->load);
        if (!manner.forgets_loads)
            counted = message->load.sequence;
        answer_commands(ask);
    } else {
        on_ack(ask, &message->ack);
    }
}

static void on_gone(void *arg, struct link_peer *peer)
{
    unsigned kept = 0;

    (void)arg;
    (void)peer;
    for (unsigned i = 0; i < parked_count; i++) {
        if (link_ask_peer(parked[i].ask) == peer || !link_ask_peer(parked[i].ask))
            link_ask_drop(parked[i].ask);
        else
            parked[kept++] = parked[i];
    }
    parked_count = kept;
    counted = 0;
    tell(json_pack("{s:s}", "event", "gone"));
}

static void start(void)
{
    static const struct link_server_events events = { .on_hello = on_hello,
                                                      .on_enrol = on_enrol,
                                                      .on_enrolled = on_enrolled,
                                                      .on_welcome = on_welcome,
                                                      .on_message = on_message,
                                                      .on_gone = on_gone };
    const struct link_server_options options = { .url = url, .version = { 0, 1, 0 } };
    char memory[512];
    struct text why = text_over(memory, sizeof memory);

    server = link_server_open(&options, &events, NULL, &why);
    if (!server) {
        (void)fprintf(stderr, "speaker-driver: %s\n", memory);
        exit(1);
    }
    (void)snprintf(url, sizeof url, "%s", link_server_url(server));
}

static void stop(void)
{
    server = link_server_close(server);
    parked_count = 0;
    counted = 0;
}

/* ---- orders ---- */

static void publish(const json_t *order)
{
    struct delta *delta = &deltas[delta_count < MAX_DELTAS ? delta_count : MAX_DELTAS - 1];
    size_t i;
    json_t *change;

    if (!json_is_true(json_object_get(order, "keeps")))
        delta_count = 0;
    delta = &deltas[delta_count++];
    *delta = (struct delta){ .from = version, .to = number_at(order, "to") };
    text_init(&delta->packed, SIZE_MAX / 4);
    json_array_foreach(json_object_get(order, "delta"), i, change) pack_one(change, &delta->packed);
    if (!json_is_true(json_object_get(order, "keeps")))
        delta_count = 0;
    json_decref(whole);
    whole = json_incref(json_object_get(order, "whole"));
    pack_whole();
    version = delta->to;
    if (!manner.is_silent)
        release_parked(false);
}

static void set_flag(const json_t *order, const char *key, bool *flag)
{
    if (json_object_get(order, key))
        *flag = json_is_true(json_object_get(order, key));
}

static void be(const json_t *order)
{
    set_flag(order, "silent", &manner.is_silent);
    set_flag(order, "corrupt_sum", &manner.corrupts_sum);
    set_flag(order, "wrong_from", &manner.has_wrong_from);
    set_flag(order, "garbage", &manner.is_garbage);
    set_flag(order, "forget_loads", &manner.forgets_loads);
    if (json_object_get(order, "refuse"))
        manner.refuses = (unsigned)number_at(order, "refuse");
    if (json_object_get(order, "chunk_bytes"))
        manner.chunk_bytes = (unsigned)number_at(order, "chunk_bytes");
}

static void remove_peer(const json_t *order)
{
    struct link_peer *peer = server ? link_server_find(server, slice_at(order, "name")) : NULL;

    is_known = false;
    if (peer)
        link_peer_remove(peer, "removed by the test");
}

static void obey(const json_t *order)
{
    const char *what = json_string_value(json_object_get(order, "do"));

    if (strcmp(what, "know") == 0) {
        (void)snprintf(known_name, sizeof known_name, "%s", slice_at(order, "name").at);
        (void)snprintf(secret, sizeof secret, "%s", slice_at(order, "secret").at);
    } else if (strcmp(what, "publish") == 0) {
        publish(order);
    } else if (strcmp(what, "be") == 0) {
        be(order);
    } else if (strcmp(what, "stop") == 0 && server) {
        stop();
    } else if (strcmp(what, "start") == 0 && !server) {
        start();
    } else if (strcmp(what, "remove") == 0) {
        remove_peer(order);
    } else if (strcmp(what, "command") == 0 && command_count < MAX_COMMANDS) {
        commands[command_count++] =
            (struct qw_command){ number_at(order, "id"), (enum qw_order)number_at(order, "order") };
    }
    tell(json_pack("{s:s,s:s,s:s}", "event", "done", "do", what, "url", url));
}

int main(int argc, char **argv)
{
    static char line[512 << 20];
    struct pollfd polls[2] = { { STDIN_FILENO, POLLIN, 0 } };
    size_t have = 0, seen = 0;

    if (argc > 1)
        (void)snprintf(url, sizeof url, "%s", argv[1]); /* a port that nobody else is given while we do not listen */
    whole = json_array();
    start();
    tell(json_pack("{s:s,s:s}", "event", "listens", "url", url));
    for (;;) {
        char *end;
        polls[1] = (struct pollfd){ server ? link_server_fd(server) : -1, POLLIN, 0 };
        (void)poll(polls, 2, TICK_MS);
        clock_turn();
        if (server && polls[1].revents)
            link_server_take(server);
        if (!manner.is_silent)
            release_parked(true);
        if (!polls[0].revents)
            continue;
        ssize_t got = read(STDIN_FILENO, line + have, sizeof line - have - 1);
        if (got <= 0)
            break;
        have += (size_t)got;
        while ((end = memchr(line + seen, '\n', have - seen))) {
            json_t *order = json_loadb(line, (size_t)(end - line), 0, NULL);
            if (order)
                obey(order);
            json_decref(order);
            have -= (size_t)(end + 1 - line);
            memmove(line, end + 1, have);
            seen = 0;
        }
        seen = have;
    }
    stop();
    for (unsigned i = 0; i < delta_count; i++)
        text_release(&deltas[i].packed);
    json_decref(whole);
    text_release(&packed.all);
    free(packed.starts);
    return 0;
}
