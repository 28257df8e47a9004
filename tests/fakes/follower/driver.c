/*
 * follower-driver: gateways' ends of the link behind a pipe, for tests: they follow as a gateway does, and show what
 * they hold. A line of JSON in is something to do, a line out is news or an answer.
 *
 *   {"do": "open", "id": "a", "name": "gw1", "urls": ["tcp://…"], "key": "FILE"}      may be: "secret",
 * "max_staleness_s", "minor": of its version
 *   {"do": "mode", "id": "a", "apply": true | false | "why not"}                      false: it takes, but does not
 * apply
 *   {"do": "load", "id": "a", "sequence": 1, "running": 2, "waiting": 3,              of each: "running", "requests",
 *       "models": [{"model": "m"}], "users": [{"user": "u"}]}                         "first_token_us": […] …
 *   {"do": "state", "id": "a"}   {"do": "resync", "id": "a", "have": 7}   {"do": "close", "id": "a"}
 *
 *   {"id": "a", "up": true}   {"id": "a", "down": "removed", "why": "…"}
 *   {"id": "a", "have": 7, "pieces": 2, "deltas": 3}
 */
#include <event2/event.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena.h"
#include "codec.h"
#include "digest.h"
#include "identity.h"
#include "link.h"

enum { MAX_GATEWAYS = 4096, MAX_URLS = 4, WAIT_MS = 20000, AGAIN_MS = 200, MAX_STEPS = 64 };

struct gateway {
    char id[64], name[128], url_memory[MAX_URLS][64], *secret, *why_not;
    const char *urls[MAX_URLS];
    struct identity *identity;
    struct link_client *link;
    struct event *readable, *again;
    uint64_t have, asked_have, applied, failed, snapshot, pieces, deltas;
    uint32_t next_piece;
    struct digest_run sum;
    json_t *state, *fresh; /* "key/UUID": {…}; fresh: of a snapshot that is being taken */
    bool applies, is_asking;
};

static struct event_base *base;
static struct gateway *gateways[MAX_GATEWAYS];
static unsigned gateway_count;

static void put(json_t *line)
{
    if (!line)
        abort();
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    (void)fflush(stdout);
    json_decref(line);
}

/* --- what it holds, in the words of change_log ----------------------------------------------------------- */

static json_t *words(struct slice text)
{
    return text.len ? json_stringn(text.at, text.len) : json_null();
}

static json_t *count_or_none(uint64_t count)
{
    return count ? json_integer((json_int_t)count) : json_null();
}

static json_t *names(const struct qw_names *list)
{
    json_t *array = list ? json_array() : json_null();

    for (size_t i = 0; list && i < list->count; i++)
        json_array_append_new(array, words(list->names[i]));
    return array;
}

static json_t *number(const struct qw_number *value)
{
    return value ? json_integer((json_int_t)value->value) : json_null();
}

static json_t *hex(struct slice bytes)
{
    char memory[2 * DIGEST_BYTES + 1];
    struct text out = text_over(memory, sizeof memory);
    struct digest digest;

    memcpy(digest.bytes, bytes.at, DIGEST_BYTES);
    digest_add_hex(&out, &digest);
    return json_string(memory);
}

static json_t *key_json(const struct qw_key *key)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:b, s:s, s:o, s:I, s:o, s:o, s:o, s:o}", "hash", hex(key->hash), "user",
                     words(key->user), "team", words(key->team), "name", words(key->name), "delegate", key->delegates,
                     "class", key->class == QW_BATCH ? "batch" : "interactive", "expires",
                     count_or_none(key->expires_s), "weight", (json_int_t)key->weight, "rpm", count_or_none(key->rpm),
                     "max_concurrent", count_or_none(key->max_concurrent), "models", names(key->models), "allow",
                     names(key->allow));
}

static json_t *model_json(const struct qw_model *model)
{
    struct slice alive = model->keep_alive;
    json_t *think = model->think ? json_boolean(model->think == QW_THINK_ON) : json_null();

    if (alive.len > 1 && alive.at[0] == '"')
        alive = (struct slice){ alive.at + 1, alive.len - 2 };
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "backend_model", words(model->backend_model), "num_ctx",
                     count_or_none(model->num_ctx), "keep_alive", words(alive), "max_prompt_chars",
                     number(model->max_prompt_chars), "max_system_chars", number(model->max_system_chars), "think",
                     think, "preload", model->preloads);
}

static json_t *backend_json(const struct qw_backend *backend)
{
    return json_pack("{s:o, s:o, s:I, s:o, s:I, s:b}", "url", words(backend->url), "kind", words(backend->kind),
                     "slots", (json_int_t)backend->slots, "models", names(backend->models), "weight",
                     (json_int_t)(backend->is_standby ? 0 : backend->weight), "drain", backend->drains);
}

static void place_of(char *place, size_t bytes, const char *kind, struct slice name, bool is_id)
{
    const uint8_t *id = (const uint8_t *)name.at;
    char uuid[37] = "";

    for (unsigned i = 0; is_id && i < CODEC_ID_BYTES; i++)
        (void)sprintf(uuid + strlen(uuid), i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", id[i]);
    if (is_id)
        (void)snprintf(place, bytes, "%s/%s", kind, uuid);
    else
        (void)snprintf(place, bytes, "%s/%.*s", kind, (int)name.len, name.at);
}

static void take_change(json_t *state, const struct qw_change *change)
{
    static const char *const kinds[] = {
        [QW_KEY] = "key", [QW_RANGE] = "range", [QW_MODEL] = "model", [QW_BACKEND] = "backend", [QW_SETTING] = "setting"
    };
    char place[600];
    json_t *body = NULL;

    switch (change->what) {
    case QW_KEY:
        place_of(place, sizeof place, "key", change->key.id, true);
        body = key_json(&change->key);
        break;
    case QW_RANGE:
        place_of(place, sizeof place, "range", change->range.cidr, false);
        body = json_object();
        break;
    case QW_MODEL:
        place_of(place, sizeof place, "model", change->model.name, false);
        body = model_json(&change->model);
        break;
    case QW_BACKEND:
        place_of(place, sizeof place, "backend", change->backend.name, false);
        body = backend_json(&change->backend);
        break;
    case QW_SETTING:
        place_of(place, sizeof place, "setting", change->setting.name, false);
        body = json_pack("{s:o}", "value",
                         json_loadb(change->setting.value.at, change->setting.value.len, JSON_DECODE_ANY, NULL));
        break;
    default:
        place_of(place, sizeof place, kinds[change->removed.noun],
                 change->removed.noun == QW_KEY ? change->removed.id : change->removed.name,
                 change->removed.noun == QW_KEY);
        json_object_del(state, place);
        return;
    }
    json_object_set_new(state, place, body);
}

static void take_changes(json_t *state, struct slice bytes)
{
    const struct qw_change *changes;
    char memory[1024];
    struct text why = text_over(memory, sizeof memory);
    struct arena arena;
    size_t count;

    arena_init(&arena);
    if (changes_unpack(bytes, &arena, &changes, &count, &why) != ERR_OK) {
        fprintf(stderr, "an update that cannot be read: %s\n", memory);
        exit(3);
    }
    for (size_t i = 0; i < count; i++)
        take_change(state, &changes[i]);
    arena_release(&arena);
}

/* --- following ------------------------------------------------------------------------------------------- */

static void ask_sync(struct gateway *gateway);

static void fail(const struct gateway *gateway, const char *what)
{
    fprintf(stderr, "%s at %llu: %s\n", gateway->id, (unsigned long long)gateway->have, what);
    exit(3);
}

static void reached(struct gateway *gateway, uint64_t version)
{
    gateway->have = version;
    gateway->failed = gateway->why_not ? version : 0;
    if (gateway->applies && !gateway->why_not)
        gateway->applied = version;
    put(json_pack("{s:s, s:I, s:I, s:I}", "id", gateway->id, "have", (json_int_t)version, "pieces",
                  (json_int_t)gateway->pieces, "deltas", (json_int_t)gateway->deltas));
}

static void take_piece(struct gateway *gateway, const struct qw_update *update)
{
    struct digest sum;

    if (update->chunk->index == 0) {
        json_decref(gateway->fresh);
        gateway->fresh = json_object();
        gateway->snapshot = update->to;
        gateway->next_piece = 0;
        digest_begin(&gateway->sum);
    }
    if (update->to != gateway->snapshot || update->chunk->index != gateway->next_piece)
        fail(gateway, "not the piece that comes next");
    take_changes(gateway->fresh, update->changes);
    digest_add(&gateway->sum, update->changes);
    gateway->pieces++;
    if (++gateway->next_piece < update->chunk->count)
        return;
    digest_end(&gateway->sum, &sum);
    if (!slice_is(update->checksum, (struct slice){ (const char *)sum.bytes, DIGEST_BYTES }))
        fail(gateway, "the checksum of the snapshot is wrong");
    json_decref(gateway->state);
    gateway->state = gateway->fresh;
    gateway->fresh = NULL;
    gateway->snapshot = 0;
    reached(gateway, update->to);
}

static void take_update(struct gateway *gateway, const struct qw_update *update)
{
    if (update->chunk) {
        take_piece(gateway, update);
    } else if (update->from != gateway->have) {
        fail(gateway, "a delta that builds on something else");
    } else if (update->to != update->from) {
        take_changes(gateway->state, update->changes);
        gateway->deltas++;
        reached(gateway, update->to);
    }
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    ask_sync(arg);
}

static void on_update(void *arg, enum err err, const struct qw_message *answer)
{
    static const struct timeval later = { 0, AGAIN_MS * 1000 };
    struct gateway *gateway = arg;

    gateway->is_asking = false;
    if (err == ERR_OK && answer->what == QW_UPDATE) {
        if (gateway->have == gateway->asked_have) /* else the answer is to a question that holds no more */
            take_update(gateway, &answer->update);
        ask_sync(gateway);
    } else if (err == ERR_OK && answer->what == QW_REFUSED) {
        put(json_pack("{s:s, s:s}", "id", gateway->id, "refused", reason_name(answer->refused.reason)));
        (void)event_add(gateway->again, &later);
    }
}

static void ask_sync(struct gateway *gateway)
{
    const struct qw_message message = {
        QW_SYNC,
        .sync = { .have = gateway->have,
                  .applied = gateway->applied,
                  .apply_error = slice_of(gateway->failed ? gateway->why_not : NULL),
                  .failed = gateway->failed,
                  .wait_ms = WAIT_MS,
                  .snapshot = gateway->snapshot,
                  .next_chunk = gateway->snapshot ? gateway->next_piece : 0 },
    };

    if (!gateway->is_asking && link_client_ask(gateway->link, &message, on_update, gateway) == ERR_OK)
        gateway->is_asking = true;
    gateway->asked_have = gateway->have;
}

static void on_up(void *arg, const struct qw_welcome *welcome)
{
    struct gateway *gateway = arg;

    (void)welcome;
    put(json_pack("{s:s, s:b}", "id", gateway->id, "up", true));
    ask_sync(gateway);
}

static void on_down(void *arg, enum qw_reason reason, const char *why)
{
    struct gateway *gateway = arg;

    gateway->is_asking = false;
    put(json_pack("{s:s, s:s, s:s}", "id", gateway->id, "down", reason_name(reason), "why", why));
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct gateway *gateway = arg;

    (void)fd;
    (void)what;
    link_client_take(gateway->link);
}

/* --- Loads ----------------------------------------------------------------------------------------------- */

static uint64_t number_of(const json_t *of, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(of, name));
}

static struct slice text_of(const json_t *of, const char *name)
{
    return slice_of(json_string_value(json_object_get(of, name)));
}

static void on_acknowledged(void *arg, enum err err, const struct qw_message *answer)
{
    (void)arg;
    (void)err;
    (void)answer;
}

static void on_commands(void *arg, enum err err, const struct qw_message *answer)
{
    struct gateway *gateway = arg;
    bool resyncs = err == ERR_OK && answer->what == QW_COMMANDS && answer->commands.count > 0;

    if (err == ERR_OK && answer->what == QW_COMMANDS)
        put(json_pack("{s:s, s:I, s:b}", "id", gateway->id, "counted", (json_int_t)answer->commands.counted, "resync",
                      resyncs));
    if (resyncs) {
        const struct qw_done done = { .id = answer->commands.commands[0].id };
        const struct qw_message ack = { QW_ACK, .ack = { &done, 1 } };
        gateway->have = gateway->snapshot = 0;
        (void)!link_client_ask(gateway->link, &ack, on_acknowledged, gateway);
    }
}

static const struct qw_histogram *histogram_of(const json_t *durations, struct arena *arena)
{
    struct qw_histogram *histogram = ARENA_NEW(arena, struct qw_histogram);
    uint32_t *steps = arena_take(arena, CODEC_STEPS * sizeof *steps);
    uint64_t *counts = arena_take(arena, CODEC_STEPS * sizeof *counts), all[CODEC_STEPS] = { 0 };
    const json_t *duration;
    size_t i, count = 0;

    json_array_foreach((json_t *)(uintptr_t)durations, i, duration)
        all[histogram_step((uint64_t)json_integer_value(duration))]++;
    for (i = 0; i < CODEC_STEPS; i++)
        if (all[i]) {
            steps[count] = (uint32_t)i;
            counts[count++] = all[i];
        }
    *histogram = (struct qw_histogram){ steps, count, counts, count, 0 };
    return histogram;
}

static void load(struct gateway *gateway, const json_t *line)
{
    const json_t *models = json_object_get(line, "models"), *users = json_object_get(line, "users");
    struct arena arena;
    struct qw_model_load *model_loads;
    struct qw_user_load *user_loads;
    struct qw_message message = { .what = QW_LOAD };

    arena_init(&arena);
    model_loads = arena_take(&arena, (json_array_size(models) + 1) * sizeof *model_loads);
    user_loads = arena_take(&arena, (json_array_size(users) + 1) * sizeof *user_loads);
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        model_loads[i] =
            (struct qw_model_load){ .model = text_of(model, "model"),
                                    .running = (uint32_t)number_of(model, "running"),
                                    .requests = number_of(model, "requests"),
                                    .prompt_tokens = number_of(model, "prompt_tokens"),
                                    .completion_tokens = number_of(model, "completion_tokens"),
                                    .first_token = histogram_of(json_object_get(model, "first_token_us"), &arena) };
    }
    for (size_t i = 0; i < json_array_size(users); i++) {
        const json_t *user = json_array_get(users, i);
        user_loads[i] = (struct qw_user_load){ .user = text_of(user, "user"),
                                               .requests = number_of(user, "requests"),
                                               .completion_tokens = number_of(user, "completion_tokens") };
    }
    message.load = (struct qw_load){ .sequence = number_of(line, "sequence"),
                                     .running = (uint32_t)number_of(line, "running"),
                                     .waiting = (uint32_t)number_of(line, "waiting"),
                                     .models = model_loads,
                                     .model_count = json_array_size(models),
                                     .users = user_loads,
                                     .user_count = json_array_size(users) };
    if (link_client_ask(gateway->link, &message, on_commands, gateway) != ERR_OK)
        put(json_pack("{s:s, s:n}", "id", gateway->id, "counted"));
    arena_release(&arena);
}

/* --- doing ----------------------------------------------------------------------------------------------- */

static void gateway_close(struct gateway *gateway)
{
    event_free(gateway->readable);
    event_free(gateway->again);
    (void)link_client_close(gateway->link);
    (void)identity_free(gateway->identity);
    json_decref(gateway->state);
    json_decref(gateway->fresh);
    free(gateway->secret);
    free(gateway->why_not);
    free(gateway);
}

static void gateway_open(const char *id, const json_t *line)
{
    static const struct link_client_events events = { on_up, on_down };
    const json_t *minor = json_object_get(line, "minor");
    const struct qw_version version = { 0, minor ? (uint32_t)json_integer_value(minor) : 2, 0 };
    static const struct slice features[] = { { "cut", 3 } };
    struct gateway *gateway = calloc(1, sizeof *gateway);
    const json_t *urls = json_object_get(line, "urls"), *secret = json_object_get(line, "secret");
    struct link_client_options options = { .urls = gateway->urls,
                                           .url_count = (unsigned)json_array_size(urls),
                                           .name = gateway->name,
                                           .version = version,
                                           .features = { features, 1 },
                                           .address = "10.1.2.3:18789",
                                           .max_staleness_s = (uint32_t)number_of(line, "max_staleness_s") };
    char memory[512];
    struct text why = text_over(memory, sizeof memory);

    (void)snprintf(gateway->id, sizeof gateway->id, "%s", id);
    (void)snprintf(gateway->name, sizeof gateway->name, "%s", text_of(line, "name").at);
    for (unsigned i = 0; i < options.url_count; i++) {
        (void)snprintf(gateway->url_memory[i], sizeof gateway->url_memory[i], "%s",
                       json_string_value(json_array_get(urls, i)));
        gateway->urls[i] = gateway->url_memory[i];
    }
    if (json_is_string(secret))
        gateway->secret = strdup(json_string_value(secret));
    if (identity_open_or_make(text_of(line, "key").at, &gateway->identity, &why) != ERR_OK)
        fail(gateway, memory);
    gateway->state = json_object();
    gateway->applies = true;
    options.identity = gateway->identity;
    options.enrol_secret = gateway->secret;
    gateway->link = link_client_open(&options, &events, gateway, &why);
    gateway->readable = gateway->link
                            ? event_new(base, link_client_fd(gateway->link), EV_READ | EV_PERSIST, on_readable, gateway)
                            : NULL;
    gateway->again = event_new(base, -1, 0, on_again, gateway);
    if (!gateway->readable || event_add(gateway->readable, NULL) != 0 || gateway_count == MAX_GATEWAYS)
        fail(gateway, memory);
    gateways[gateway_count++] = gateway;
}

static void set_mode(struct gateway *gateway, const json_t *apply)
{
    free(gateway->why_not);
    gateway->why_not = json_is_string(apply) ? strdup(json_string_value(apply)) : NULL;
    gateway->applies = !json_is_false(apply);
}

static unsigned find(const char *id)
{
    for (unsigned i = 0; i < gateway_count; i++)
        if (strcmp(gateways[i]->id, id) == 0)
            return i;
    fprintf(stderr, "%s was never opened\n", id);
    exit(2);
}

static void obey(const char *bytes, size_t len)
{
    json_t *line = json_loadb(bytes, len, 0, NULL);
    const char *what = text_of(line, "do").at, *id = text_of(line, "id").at;
    struct gateway *gateway;

    if (!what || !id)
        exit(2);
    if (strcmp(what, "open") == 0) {
        gateway_open(id, line);
        json_decref(line);
        return;
    }
    gateway = gateways[find(id)];
    if (strcmp(what, "mode") == 0) {
        set_mode(gateway, json_object_get(line, "apply"));
    } else if (strcmp(what, "state") == 0) {
        put(json_pack("{s:s, s:I, s:I, s:O}", "id", id, "held", (json_int_t)gateway->have, "applied",
                      (json_int_t)gateway->applied, "state", gateway->state));
    } else if (strcmp(what, "load") == 0) {
        load(gateway, line);
    } else if (strcmp(what, "resync") == 0) {
        gateway->have = number_of(line, "have");
    } else if (strcmp(what, "close") == 0) {
        unsigned place = find(id);
        gateways[place] = gateways[--gateway_count];
        gateway_close(gateway);
        put(json_pack("{s:s, s:b}", "id", id, "closed", true));
    } else {
        fprintf(stderr, "nobody can %s\n", what);
        exit(2);
    }
    json_decref(line);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
    static char bytes[1 << 20];
    static size_t held;
    ssize_t got = read((int)fd, bytes + held, sizeof bytes - held);
    char *line = bytes, *end;

    (void)what;
    (void)arg;
    if (got <= 0) {
        (void)event_base_loopbreak(base);
        return;
    }
    held += (size_t)got;
    while ((end = memchr(line, '\n', held - (size_t)(line - bytes)))) {
        obey(line, (size_t)(end - line));
        line = end + 1;
    }
    held -= (size_t)(line - bytes);
    memmove(bytes, line, held);
}

int main(void)
{
    struct rlimit limit;
    struct event *input;

    (void)signal(SIGPIPE, SIG_IGN);
    (void)!getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    base = event_base_new();
    input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, NULL);
    if (!input || event_add(input, NULL) != 0)
        return 2;
    (void)event_base_dispatch(base);
    while (gateway_count)
        gateway_close(gateways[--gateway_count]);
    event_free(input);
    event_base_free(base);
    arena_thread_stop();
    return EXIT_SUCCESS;
}
