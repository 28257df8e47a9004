#include "books.h"
#include "gojson.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS_MAX = 50000 };
#define RECORD_BYTES_MAX ((size_t)512 << 20)

struct script {
    struct script *next;
    struct slice path;
    uint64_t left;
    bool is_endless;
    struct deed *deed;
};

struct record {
    struct record *next;
    uint64_t number;
    enum route route;
    enum outcome outcome;
    bool is_forgotten; /* by a reset while it ran; its connection frees it */
    struct slice method;
    struct slice path;
    struct bytes headers; /* JSON */
    struct slice body;
    uint64_t received_ns;
    uint64_t ended_ns;
    uint64_t started_ns; /* 0: it had no slot */
    uint64_t tokens;
    int64_t prompt_tokens; /* as the answer said; -1: it did not */
    int64_t eval_tokens;
    char id[64];
    char *why;
};

struct slots {
    struct slots *next;
    const char *model;
    uint64_t running;
    uint64_t waiting;
    uint64_t peak_running;
    uint64_t loads;
    struct claim *claims;
    struct claim **claims_last;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct script *scripts;
static struct settings now_set;
static struct stats stats;
static struct record *first;
static struct record **last = &first;
static size_t record_count;
static size_t record_bytes;
static uint64_t numbers;
static bool keeps_records;
static struct settings first_settings;
static struct slots no_model = { .model = "", .claims_last = &no_model.claims };
static struct slots *all_slots = &no_model;
static void (*on_change_call)(void);

static const char *const paths[ROUTES] = {
    [ROUTE_CHAT] = "/api/chat",       [ROUTE_GENERATE] = "/api/generate",
    [ROUTE_EMBED] = "/api/embed",     [ROUTE_OTHER] = "",
    [ROUTE_SHOW] = "/api/show",       [ROUTE_ROOT] = "/",
    [ROUTE_VERSION] = "/api/version", [ROUTE_TAGS] = "/api/tags",
    [ROUTE_PS] = "/api/ps",           [ROUTE_LOAD] = "load",
};

const char *route_path(enum route route)
{
    return paths[route];
}

enum route route_of(struct slice path)
{
    for (int i = 0; i < ROUTES; i++)
        if (i != ROUTE_OTHER && slice_is(path, paths[i]))
            return (enum route)i;
    return ROUTE_OTHER;
}

void books_lock(void)
{
    (void)pthread_mutex_lock(&lock);
}

void books_unlock(void)
{
    (void)pthread_mutex_unlock(&lock);
}

static void changed(void)
{
    if (on_change_call)
        on_change_call();
}

void books_on_change(void (*on_change)(void))
{
    on_change_call = on_change;
}

/* --- deeds and scripts --- */

struct deed *deed_new(void)
{
    struct deed *deed = must_alloc(sizeof *deed);

    deed->refs = 1;
    deed->head_delay_ms = deed->first_token_ms = deed->token_ms = deed->tokens = -1;
    deed->hangup_after_bytes = deed->reset_after_bytes = deed->stall_after_bytes = -1;
    deed->stall_after_tokens = deed->error_after_tokens = deed->long_line = -1;
    return deed;
}

struct deed *deed_ref(struct deed *deed)
{
    if (deed)
        __atomic_add_fetch(&deed->refs, 1, __ATOMIC_RELAXED);
    return deed;
}

struct deed *deed_unref(struct deed *deed)
{
    if (!deed || __atomic_sub_fetch(&deed->refs, 1, __ATOMIC_ACQ_REL))
        return NULL;
    for (size_t i = 0; i < deed->line_count; i++)
        free((char *)deed->lines[i].at);
    free(deed->lines);
    free(deed->transcript);
    free(deed->body);
    free(deed->content_type);
    free(deed->error_text);
    bytes_release(&deed->raw);
    bytes_release(&deed->trailing);
    free(deed);
    return NULL;
}

void books_script(struct slice path, uint64_t times, struct deed *deed)
{
    struct script *script = must_alloc(sizeof *script);
    struct script **at = &scripts;

    *script = (struct script){ .path = slice_copy(path), .left = times, .is_endless = !times, .deed = deed_ref(deed) };
    books_lock();
    while (*at)
        at = &(*at)->next;
    *at = script;
    stats.scripts_left++;
    books_unlock();
}

static void script_drop(struct script **at)
{
    struct script *script = *at;

    *at = script->next;
    free((char *)script->path.at);
    deed_unref(script->deed);
    free(script);
    stats.scripts_left--;
}

struct deed *books_next_deed(struct slice path)
{
    struct deed *deed = NULL;

    books_lock();
    for (struct script **at = &scripts; *at; at = &(*at)->next) {
        if ((*at)->path.len != path.len || memcmp((*at)->path.at, path.at, path.len) != 0)
            continue;
        deed = deed_ref((*at)->deed);
        if (!(*at)->is_endless && --(*at)->left == 0)
            script_drop(at);
        break;
    }
    books_unlock();
    return deed;
}

/* --- slots --- */

struct slots *books_slots(const char *model)
{
    struct slots *slots;

    books_lock();
    for (slots = all_slots; slots; slots = slots->next)
        if (strcmp(slots->model, model) == 0)
            break;
    if (!slots) {
        slots = must_alloc(sizeof *slots);
        slots->model = strdup(model);
        slots->claims_last = &slots->claims;
        slots->next = no_model.next;
        no_model.next = slots;
    }
    books_unlock();
    return slots;
}

void books_load(struct slots *slots)
{
    books_lock();
    slots->loads++;
    changed();
    books_unlock();
}

static bool has_room(const struct slots *slots)
{
    return !now_set.num_parallel || slots->running < now_set.num_parallel;
}

static void start(struct slots *slots, struct claim *claim)
{
    claim->is_granted = true;
    if (++slots->running > slots->peak_running)
        slots->peak_running = slots->running;
    if (++stats.running > stats.peak_running)
        stats.peak_running = stats.running;
}

static void grant_waiting(struct slots *slots)
{
    while (slots->claims && has_room(slots)) {
        struct claim *claim = slots->claims;

        slots->claims = claim->next;
        if (!slots->claims)
            slots->claims_last = &slots->claims;
        claim->is_waiting = false;
        slots->waiting--;
        stats.waiting--;
        start(slots, claim);
        claim->on_granted(claim);
    }
}

bool books_claim(struct claim *claim)
{
    struct slots *slots = claim->slots ? claim->slots : &no_model;
    bool is_mine;

    claim->slots = slots;
    books_lock();
    is_mine = has_room(slots) && !slots->claims;
    if (is_mine) {
        start(slots, claim);
    } else {
        claim->is_waiting = true;
        claim->next = NULL;
        *slots->claims_last = claim;
        slots->claims_last = &claim->next;
        slots->waiting++;
        stats.waiting++;
    }
    changed();
    books_unlock();
    return is_mine;
}

void books_unclaim(struct claim *claim)
{
    struct slots *slots = claim->slots;

    books_lock();
    if (claim->is_waiting) {
        struct claim **at = &slots->claims;

        while (*at != claim)
            at = &(*at)->next;
        *at = claim->next;
        if (!claim->next)
            slots->claims_last = at;
        slots->waiting--;
        stats.waiting--;
    } else if (claim->is_granted) {
        slots->running--;
        stats.running--;
        grant_waiting(slots);
    }
    claim->is_waiting = claim->is_granted = false;
    changed();
    books_unlock();
}

struct settings books_settings(void)
{
    struct settings copy;

    books_lock();
    copy = now_set;
    books_unlock();
    return copy;
}

bool books_is_silent(enum route route)
{
    bool is_silent;

    books_lock();
    is_silent = now_set.is_silent[route];
    books_unlock();
    return is_silent;
}

void books_set(const struct settings *settings)
{
    books_lock();
    now_set = *settings;
    for (struct slots *slots = all_slots; slots; slots = slots->next)
        grant_waiting(slots);
    changed();
    books_unlock();
}

/* --- records --- */

struct settings books_first_settings(void)
{
    return first_settings;
}

void books_open(bool keeps, struct settings settings)
{
    keeps_records = keeps;
    first_settings = now_set = settings;
}

static void record_free(struct record *record)
{
    free((char *)record->method.at);
    free((char *)record->path.at);
    free((char *)record->body.at);
    bytes_release(&record->headers);
    free(record->why);
    free(record);
}

static size_t record_size(const struct record *record)
{
    return sizeof *record + record->headers.cap + record->body.len + record->path.len;
}

/* Ended records go, the oldest first; one still running stops the tidying. */
static void forget_oldest(void)
{
    while (first && first->outcome != RUNNING && (record_count > RECORDS_MAX || record_bytes > RECORD_BYTES_MAX)) {
        struct record *record = first;

        first = record->next;
        if (!first)
            last = &first;
        record_count--;
        record_bytes -= record_size(record);
        stats.forgotten++;
        record_free(record);
    }
}

static void write_headers(struct bytes *b, const struct http_request *req, const char *base)
{
    bytes_text(b, "[");
    for (unsigned i = 0; i < req->header_count; i++) {
        bytes_text(b, i ? ",[" : "[");
        bytes_json(b, http_slice(base, req->headers[i].name));
        bytes_text(b, ",");
        bytes_json(b, http_slice(base, req->headers[i].value));
        bytes_text(b, "]");
    }
    bytes_text(b, "]");
}

static struct record *record_new(enum route route, uint64_t now_ns)
{
    struct record *record = must_alloc(sizeof *record);

    record->route = route;
    record->received_ns = now_ns;
    record->outcome = RUNNING;
    record->prompt_tokens = record->eval_tokens = -1;
    return record;
}

static void record_file(struct record *record)
{
    record->number = ++numbers;
    *last = record;
    last = &record->next;
    record_count++;
    record_bytes += record_size(record);
    forget_oldest();
}

struct record *books_begin(enum route route, const struct http_request *req, const char *base, uint64_t now_ns)
{
    struct record *record = NULL;

    if (keeps_records) {
        record = record_new(route, now_ns);
        record->method = slice_copy(http_slice(base, req->method));
        record->path = slice_copy(http_slice(base, req->target));
        record->body = slice_copy(http_body(req, base));
        write_headers(&record->headers, req, base);
    }
    books_lock();
    stats.by_route[route].requests++;
    if (record)
        record_file(record);
    changed();
    books_unlock();
    return record;
}

static void count_end(enum route route, enum outcome outcome)
{
    if (outcome == ANSWERED)
        stats.by_route[route].answered++;
    else if (outcome == ABORTED)
        stats.by_route[route].aborted++;
}

void books_token(struct record *record)
{
    __atomic_add_fetch(&stats.tokens_sent, 1, __ATOMIC_RELAXED);
    if (record)
        __atomic_add_fetch(&record->tokens, 1, __ATOMIC_RELAXED);
}

void books_turn_to_load(struct record *record)
{
    books_lock();
    stats.by_route[record ? record->route : ROUTE_CHAT].requests--;
    stats.by_route[ROUTE_LOAD].requests++;
    if (record)
        record->route = ROUTE_LOAD;
    changed();
    books_unlock();
}

void books_note_id(struct record *record, struct slice id)
{
    if (!record)
        return;
    books_lock();
    (void)snprintf(record->id, sizeof record->id, "%.*s", (int)id.len, id.at);
    books_unlock();
}

void books_started(struct record *record, uint64_t now_ns)
{
    if (record)
        __atomic_store_n(&record->started_ns, now_ns, __ATOMIC_RELAXED);
}

void books_note_tokens(struct record *record, int64_t prompt, int64_t eval)
{
    if (!record)
        return;
    books_lock();
    record->prompt_tokens = prompt;
    record->eval_tokens = eval;
    books_unlock();
}

void books_end(struct record *record, enum route route, enum outcome outcome, uint64_t now_ns, const char *why)
{
    books_lock();
    if (record && record->is_forgotten) {
        record_free(record);
        books_unlock();
        return;
    }
    count_end(route, outcome);
    if (record) {
        record->outcome = outcome;
        record->ended_ns = now_ns;
        record->why = why ? strdup(why) : NULL;
    }
    changed();
    books_unlock();
}

void books_malformed(const struct http_request *req, const char *base, size_t len, uint64_t now_ns)
{
    struct record *record = NULL;

    if (keeps_records) {
        record = record_new(ROUTE_OTHER, now_ns);
        record->outcome = MALFORMED;
        record->ended_ns = now_ns;
        record->method = slice_copy(http_slice(base, req->method));
        record->path = slice_copy(http_slice(base, req->target));
        record->body = slice_copy((struct slice){ base, len > 65536 ? 65536 : len });
        record->why = strdup(req->why);
        write_headers(&record->headers, req, base);
    }
    books_lock();
    stats.by_route[ROUTE_OTHER].malformed++;
    if (record)
        record_file(record);
    changed();
    books_unlock();
}

void books_cut_short(uint64_t now_ns)
{
    struct record *record = NULL;

    if (keeps_records) {
        record = record_new(ROUTE_OTHER, now_ns);
        record->outcome = ABORTED;
        record->ended_ns = now_ns;
        record->method = slice_copy(SLICE(""));
        record->path = slice_copy(SLICE(""));
        record->body = slice_copy(SLICE(""));
        record->why = strdup("closed before the request was whole");
        bytes_text(&record->headers, "[]");
    }
    books_lock();
    stats.by_route[ROUTE_OTHER].requests++;
    stats.by_route[ROUTE_OTHER].aborted++;
    if (record)
        record_file(record);
    changed();
    books_unlock();
}

void books_connection(int change)
{
    books_lock();
    if (change > 0)
        stats.connections_total++;
    stats.connections_open += (uint64_t)(int64_t)change;
    changed();
    books_unlock();
}

struct stats books_stats(void)
{
    struct stats copy;

    books_lock();
    copy = stats;
    copy.tokens_sent = __atomic_load_n(&stats.tokens_sent, __ATOMIC_RELAXED);
    books_unlock();
    for (int i = 0; i < ROUTES; i++) {
        copy.work.malformed += copy.by_route[i].malformed;
        if (i >= ROUTE_SHOW)
            continue;
        copy.work.requests += copy.by_route[i].requests;
        copy.work.answered += copy.by_route[i].answered;
        copy.work.aborted += copy.by_route[i].aborted;
    }
    return copy;
}

static void bytes_ms(struct bytes *b, const char *key, uint64_t ns)
{
    bytes_print(b, ",\"%s\":%llu.%06llu", key, (unsigned long long)(ns / 1000000), (unsigned long long)(ns % 1000000));
}

/* Deeper than common readers of JSON care to go. */
static bool is_deep(struct slice body)
{
    int depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < body.len && depth < 400; i++) {
        char c = body.at[i];

        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string)
            depth += (c == '[' || c == '{') - (c == ']' || c == '}');
    }
    return depth >= 400;
}

/* The body again, as it stood, if the readers of the tests can take it. */
static void write_body_json(struct bytes *b, struct slice body)
{
    struct arena arena = { 0 };
    struct bytes why = { 0 };
    struct go_value *value;
    bool is_text = !is_deep(body);

    for (size_t i = 0; i < body.len && is_text;) {
        size_t len = utf8_length(body.at + i, body.len - i);

        is_text = len;
        i += len;
    }
    bytes_text(b, ",\"body_json\":");
    if (is_text && go_parse(&arena, body, &value, &why) == GO_OK)
        bytes_slice(b, value->raw);
    else
        bytes_text(b, "null");
    arena_release(&arena);
    bytes_release(&why);
}

static const char *const outcomes[] = { "running", "answered", "aborted", "malformed" };

static void write_record(struct bytes *b, const struct record *record)
{
    bytes_print(b, "{\"n\":%llu,\"method\":", (unsigned long long)record->number);
    bytes_json(b, record->method);
    bytes_text(b, ",\"path\":");
    bytes_json(b, record->path);
    bytes_text(b, ",\"headers\":");
    bytes_add(b, record->headers.at, record->headers.len);
    bytes_text(b, ",\"body\":");
    bytes_json(b, record->body);
    if (record->outcome == MALFORMED)
        bytes_text(b, ",\"body_json\":null");
    else
        write_body_json(b, record->body);
    bytes_ms(b, "received_ms", record->received_ns);
    if (__atomic_load_n(&record->started_ns, __ATOMIC_RELAXED))
        bytes_ms(b, "started_ms", __atomic_load_n(&record->started_ns, __ATOMIC_RELAXED));
    if (record->route == ROUTE_LOAD)
        bytes_text(b, ",\"is_load\":true");
    if (record->id[0]) {
        bytes_text(b, ",\"id\":");
        bytes_json(b, slice_of(record->id));
    }
    if (record->prompt_tokens >= 0)
        bytes_print(b, ",\"prompt_tokens\":%lld,\"eval_tokens\":%lld", (long long)record->prompt_tokens,
                    (long long)record->eval_tokens);
    if (record->outcome == RUNNING)
        bytes_text(b, ",\"ended_ms\":null");
    else
        bytes_ms(b, "ended_ms", record->ended_ns);
    bytes_print(b, ",\"outcome\":\"%s\"", outcomes[record->outcome]);
    if (record->outcome == ABORTED) {
        bytes_ms(b, "abort_seen_ms", record->ended_ns);
        bytes_ms(b, "abort_after_ms", record->ended_ns - record->received_ns);
    }
    if (record->why) {
        bytes_text(b, ",\"reason\":");
        bytes_json(b, slice_of(record->why));
    }
    bytes_print(b, ",\"tokens_sent\":%llu}", (unsigned long long)__atomic_load_n(&record->tokens, __ATOMIC_RELAXED));
}

static bool is_of_path(const struct record *record, struct slice path)
{
    const char *query = memchr(record->path.at, '?', record->path.len);
    size_t len = query ? (size_t)(query - record->path.at) : record->path.len;

    return path.len == 0 || (len == path.len && memcmp(path.at, record->path.at, len) == 0);
}

void books_seen(struct bytes *ret_json, struct slice path, uint64_t from)
{
    const char *comma = "";

    bytes_text(ret_json, "{\"requests\":[");
    books_lock();
    for (const struct record *record = first; record; record = record->next) {
        if (record->number < from || !is_of_path(record, path))
            continue;
        bytes_text(ret_json, comma);
        write_record(ret_json, record);
        comma = ",";
    }
    books_unlock();
    bytes_text(ret_json, "]}");
}

void books_ids(struct bytes *ret_json)
{
    const char *comma = "";

    bytes_text(ret_json, "{\"ids\":[");
    books_lock();
    for (const struct record *record = first; record; record = record->next) {
        if (!record->id[0])
            continue;
        bytes_print(ret_json, "%s[", comma);
        comma = ",";
        bytes_json(ret_json, slice_of(record->id));
        bytes_print(ret_json, ",\"%s\",%llu", outcomes[record->outcome],
                    (unsigned long long)__atomic_load_n(&record->tokens, __ATOMIC_RELAXED));
        if (record->prompt_tokens >= 0)
            bytes_print(ret_json, ",%lld,%lld]", (long long)record->prompt_tokens, (long long)record->eval_tokens);
        else
            bytes_text(ret_json, ",null,null]");
    }
    books_unlock();
    bytes_text(ret_json, "]}");
}

void books_by_model(struct bytes *ret_json)
{
    const char *comma = "";

    bytes_text(ret_json, "{");
    books_lock();
    for (const struct slots *slots = all_slots; slots; slots = slots->next) {
        bytes_text(ret_json, comma);
        comma = ",";
        bytes_json(ret_json, slice_of(slots->model));
        bytes_print(ret_json, ":{\"running\":%llu,\"waiting\":%llu,\"peak_running\":%llu,\"loads\":%llu}",
                    (unsigned long long)slots->running, (unsigned long long)slots->waiting,
                    (unsigned long long)slots->peak_running, (unsigned long long)slots->loads);
    }
    books_unlock();
    bytes_text(ret_json, "}");
}

static void forget_all(void)
{
    while (first) {
        struct record *record = first;

        first = record->next;
        if (record->outcome == RUNNING)
            record->is_forgotten = true;
        else
            record_free(record);
    }
    last = &first;
    record_count = record_bytes = 0;
    numbers = 0;
}

void books_reset(void)
{
    books_lock();
    while (scripts)
        script_drop(&scripts);
    forget_all();
    for (struct slots *slots = all_slots; slots; slots = slots->next) {
        slots->peak_running = slots->running;
        slots->loads = 0;
    }
    stats = (struct stats){
        .running = stats.running,
        .waiting = stats.waiting,
        .peak_running = stats.running,
        .connections_open = stats.connections_open,
        .connections_total = stats.connections_open,
    };
    changed();
    books_unlock();
}

void books_close(void)
{
    books_reset();
    while (no_model.next) {
        struct slots *slots = no_model.next;

        no_model.next = slots->next;
        free((char *)slots->model);
        free(slots);
    }
}
