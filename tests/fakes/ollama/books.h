/*
 * books - what all workers share: the orders of the tests (scripts and settings), the slots of the model, and the
 * record of every request. One lock, taken inside these functions. Times end in _ns, CLOCK_MONOTONIC.
 *
 * "Work" is what a test counts: requests that ask the model for something (chat, generate, embed, and whatever is
 * unknown). Looks at /, /api/version, /api/tags, /api/ps, /api/show are booked and listed, and counted by their path;
 * so are requests that only load or unload a model, as if "load" were theirs.
 */
#pragma once
#include "bytes.h"
#include "http.h"

enum route {
    ROUTE_CHAT,
    ROUTE_GENERATE,
    ROUTE_EMBED,
    ROUTE_OTHER,
    ROUTE_SHOW, /* from here on: looks, not work */
    ROUTE_ROOT,
    ROUTE_VERSION,
    ROUTE_TAGS,
    ROUTE_PS,
    ROUTE_LOAD, /* a chat without messages */
    ROUTES
};

enum outcome { RUNNING, ANSWERED, ABORTED, MALFORMED };

/* --- what a script asks for --- */

struct deed {
    unsigned refs;
    char *transcript;
    int status; /* 0: not given */
    char *body;
    size_t body_len;
    char *content_type;
    struct bytes raw;
    bool has_raw;
    bool keeps;
    int64_t head_delay_ms;  /* -1 where not given */
    int64_t first_token_ms; /* -1 */
    int64_t token_ms;       /* -1 */
    int64_t tokens;         /* -1 */
    struct slice *lines;
    size_t line_count;
    bool has_lines;
    bool lines_are_chunks; /* sent as they are, without a newline */
    bool leaves_out_done;
    int64_t split;              /* bytes a send; 0: whole */
    int64_t split_ms;           /* between two sends */
    int64_t hangup_after_bytes; /* -1 */
    int64_t reset_after_bytes;  /* -1 */
    int64_t stall_after_bytes;  /* -1 */
    int64_t stall_after_tokens; /* -1 */
    int64_t error_after_tokens; /* -1 */
    char *error_text;
    bool is_silent;
    bool closes_first;
    int64_t long_line; /* -1 */
    bool dies;
    struct bytes trailing;
};

struct deed *deed_new(void);
struct deed *deed_ref(struct deed *deed);
struct deed *deed_unref(struct deed *deed);

void books_script(struct slice path, uint64_t times, struct deed *deed); /* times 0: until reset */
struct deed *books_next_deed(struct slice path);                         /* referenced, or NULL */

/* --- settings --- */

struct settings {
    uint64_t num_parallel; /* of each model; 0: no limit */
    int64_t load_ms;
    int64_t speed; /* percent */
    bool is_mute;
    bool is_blackhole;
    bool is_silent[ROUTES];
    uint64_t drops; /* how often all connections were to be cut */
};

struct settings books_settings(void);
void books_set(const struct settings *settings);
bool books_is_silent(enum route route);

/* --- the record of one request --- */

struct record;
struct slots; /* of one model: what runs and what waits there. Found by its name, and there until the end. */

/* Who wants a slot; first come, first served. */
struct claim {
    struct claim *next;
    struct slots *slots; /* NULL: of no model */
    bool is_waiting;
    bool is_granted;
    void (*on_granted)(struct claim *claim); /* with the lock held, maybe on another thread: only pass it on */
};

void books_open(bool keeps_records, struct settings settings);
struct settings books_first_settings(void); /* as books_open() was told */
void books_close(void);
/* Called with the lock held whenever a count changes; may only wake somebody. */
void books_on_change(void (*on_change)(void));

void books_connection(int change);

/* NULL when no records are kept: the calls below take that. req and base may be NULL for a request without a head. */
struct record *books_begin(enum route route, const struct http_request *req, const char *base, uint64_t now_ns);
void books_end(struct record *record, enum route route, enum outcome outcome, uint64_t now_ns, const char *why);
void books_token(struct record *record); /* one more piece of the answer went out */
/* It turns out to be a load: it counts as that from here on. */
void books_turn_to_load(struct record *record);
/* Which of the tests' own numbers it carries. */
void books_note_id(struct record *record, struct slice id);
void books_started(struct record *record, uint64_t now_ns); /* it has its slot */
/* What the answer says it took; before books_end(). */
void books_note_tokens(struct record *record, int64_t prompt, int64_t eval);
/* The peer closed in the middle of a request. */
void books_cut_short(uint64_t now_ns);
/* A request that could not be read, in one go. */
void books_malformed(const struct http_request *req, const char *base, size_t len, uint64_t now_ns);

struct slots *books_slots(const char *model);
void books_load(struct slots *slots); /* the model is being loaded */
/* True: the slot is yours now. False: claim->on_granted will be called. */
bool books_claim(struct claim *claim);
/* Gives the slot back, or stands down from the queue. */
void books_unclaim(struct claim *claim);
void books_lock(void);
void books_unlock(void);

/* --- reading them --- */

struct counts {
    uint64_t requests;
    uint64_t answered;
    uint64_t aborted;
    uint64_t malformed;
};

struct stats {
    struct counts work;
    struct counts by_route[ROUTES];
    uint64_t running;
    uint64_t waiting;
    uint64_t peak_running;
    uint64_t connections_open;
    uint64_t connections_total;
    uint64_t tokens_sent;
    uint64_t scripts_left;
    uint64_t forgotten; /* records dropped because there were too many */
};

struct stats books_stats(void);
void books_seen(struct bytes *ret_json, struct slice path, uint64_t from);
/* ["id","outcome",pieces sent,prompt_eval_count,eval_count] of each request with an id. */
void books_ids(struct bytes *ret_json);
void books_by_model(struct bytes *ret_json);
void books_reset(void);

const char *route_path(enum route route);
enum route route_of(struct slice path);
