/*
 * parts - what the files of api/ share. Nobody else includes this (their tests do).
 *
 * noun.c: what there is, field by field. route.c: what can be asked. form.c, query.c: what was sent, held against the
 * fields; setting.c: which settings there are. openapi.c: the same tables as a document. guest.c: connections.
 * exchange.c: one request, from its head to its answer. token.c, limiter.c: who it is. change.c, look.c, fleet.c: what
 * routes do.
 */
#pragma once
#include <jansson.h>

#include "api.h"
#include "cidr.h"
#include "digest.h"
#include "ledger.h"

struct event;
struct evconnlistener;
struct evhttp;
struct evhttp_bound_socket;
struct evhttp_request;
struct exchange;
struct guest;
struct roster_wait;

/* ---- fields and nouns (noun.c) ---- */

enum field_kind {
    FIELD_LABEL,        /* of a user, a team, a key … */
    FIELD_BACKEND_NAME, /* of a backend */
    FIELD_SETTING_NAME,
    FIELD_MODEL,
    FIELD_NOTE,
    FIELD_TEXT,
    FIELD_COUNT,
    FIELD_BOOL,
    FIELD_CHOICE,
    FIELD_MODELS,
    FIELD_RANGE,
    FIELD_RANGES,
    FIELD_URL,
    FIELD_KEEP_ALIVE,
    FIELD_DURATION,
    FIELD_TIME,
    FIELD_UUID,
    FIELD_HASH,
    FIELD_SECRET,
    FIELD_PREFIX,
    FIELD_TEXTS,
    FIELD_ANY,    /* whatever JSON has */
    FIELD_OBJECT, /* shown only */
    FIELD_KEYS,   /* of an import: a list of what makes a key */
    FIELD_KINDS
};

/* How text of a kind looks. */
struct field_form {
    const char *pattern; /* both as POSIX and as ECMA understand it; NULL: any */
    unsigned min_chars, max_chars;
    const char *format; /* of JSON Schema; NULL: none */
    const char *what;   /* "must be …" */
};
extern const struct field_form field_forms[FIELD_KINDS];

enum field_use {
    SHOWN = 1,     /* in answers */
    CREATE = 2,    /* may be given to make one */
    CHANGE = 4,    /* may be given to change one */
    REQUIRED = 8,  /* must be given to make one */
    NULLABLE = 16, /* null: none */
    IMPORTED = 32, /* may be given in an import */
    WRITTEN = CREATE | CHANGE | IMPORTED,
};

struct field {
    const char *name;
    enum field_kind kind;
    unsigned use;
    int64_t min, max; /* of FIELD_COUNT; of FIELD_DURATION ms; of lists their items */
    const char *const *words;
    const char *fallback; /* as JSON; NULL: none */
    const char *help;
};

struct noun {
    const char *name;   /* as the ledger says it: "admin_token" */
    const char *title;  /* as the document says it: "AdminToken" */
    const char *plural; /* in paths: "admin-tokens" */
    const char *key;    /* the field that names one in paths */
    const char *id_help;
    const struct field *fields;
    size_t field_count;
    const struct field *filters;
    size_t filter_count;
};
extern const struct noun noun_user, noun_team, noun_key, noun_whitelist, noun_model, noun_backend, noun_gateway,
    noun_admin_token, noun_setting, noun_audit;
extern const struct noun *const nouns[];
extern const size_t noun_count;

/* A body that is no noun's. */
struct form {
    const char *title;
    const struct field *fields;
    size_t count;
    unsigned use;                /* which of them */
    const char *const *excludes; /* two names that exclude each other, NULL */
    bool is_patch;
};

/* ---- what was sent (form.c) ---- */

enum { COMPLAINTS_MAX = 32, POINTER_MAX_BYTES = 512, COMPLAINT_MAX_BYTES = 1024 };

/* What is wrong with a body or a query, each with its place. */
struct complaints {
    unsigned count;
    bool in_query;
    struct text list;     /* members of a JSON array */
    struct text sentence; /* the first one: "/rpm must be …" */
};
void complaints_init(struct complaints *complaints);
void complaints_release(struct complaints *complaints);
void complain(struct complaints *complaints, const char *pointer, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Compiles the patterns; false: no memory. */
bool fields_open(void);
void fields_close(void);
/*
 * What the ledger is told, made of what was sent: nothing unknown in it, nothing of a wrong form. NULL: there are
 * complaints, or no memory.
 */
json_t *form_read(const struct form *form, const json_t *given, struct complaints *complaints);
/* Text of one kind, from a path or a query. */
bool field_takes(const struct field *field, struct slice text, struct text *why);
/* Deeper than this many brackets? Of any text. */
bool json_is_deep(struct slice text, unsigned max_depth);

/* ---- settings of gateways (setting.c) ---- */

enum setting_kind {
    SETTING_BOOL,
    SETTING_NUMBER,
    SETTING_SECONDS, /* a number of them, or text */
    SETTING_MS,      /* text only: as in a gateway's file, a bare number has no meaning */
    SETTING_BYTES,   /* a number of them, or text */
    SETTING_CHOICE,
    SETTING_LIST, /* of the words */
};
struct setting {
    const char *name;
    enum setting_kind kind;
    int64_t min, max; /* of durations ms */
    const char *const *words;
};
extern const struct setting settings[];
extern const size_t setting_count;
const struct setting *setting_find(struct slice name);
/* The value as it is kept. NULL: gateways do not take it, or no memory. */
json_t *setting_take(const struct setting *setting, const json_t *value);
/* "a whole number from 1 to 1000000" */
void setting_add_form(const struct setting *setting, struct text *out);
void setting_add_names(struct text *out);

/* ---- queries (query.c) ---- */

enum { LIST_LIMIT = 100, LIST_LIMIT_MAX = 1000 };

struct query {
    json_t *filter;
    unsigned limit;
    int64_t wait_ms;
    struct text scope, after; /* what is listed; where it goes on */
};
void query_init(struct query *query);
void query_release(struct query *query);
/* The part of a target behind its `?`. `noun` NULL: no filters; has_wait: `wait` instead of a list's. */
void query_read(struct query *query, struct slice text, const struct noun *noun, bool has_wait,
                struct complaints *complaints);
/* %41 to A. False: it is not well formed, not UTF-8, or has a zero byte. */
bool percent_decode(struct slice text, bool plus_is_space, struct text *out);

/* ---- cursors, durations ---- */

enum { CURSOR_MAX_BYTES = 4096 };

void cursor_write(struct slice scope, struct slice position, struct text *out);
bool cursor_read(struct slice cursor, struct slice scope, struct text *ret_position);
/* "90d", "24h", "30m", "15s", "500ms". */
bool duration_parse(struct slice text, int64_t *ret_ms);

/* ---- routes (route.c) ---- */

enum method { METHOD_GET, METHOD_POST, METHOD_PUT, METHOD_PATCH, METHOD_DELETE, METHODS };
extern const char *const method_names[METHODS];

enum role { ROLE_VIEWER = 1, ROLE_BILLING = 2, ROLE_OPERATOR = 4, ROLE_OWNER = 8 };
enum {
    EVERYBODY = 0, /* without a token */
    READERS = ROLE_VIEWER | ROLE_BILLING | ROLE_OPERATOR | ROLE_OWNER,
    WRITERS = ROLE_OPERATOR | ROLE_OWNER,
    OWNERS = ROLE_OWNER,
};
unsigned role_of(struct slice name); /* 0: none of these */

enum route_trait {
    NEEDS_VERSION = 1, /* If-Match */
    TAKES_VERSION = 2, /* If-Match, but goes without */
    TAKES_REPLAYS = 4, /* Idempotency-Key */
    IS_LIST = 8,
    IS_MADE = 16,    /* 201 and Location */
    HAS_SECRET = 32, /* the answer shows one, once */
    TAKES_WAIT = 64,
    IS_EMPTY = 128,      /* 204 */
    MAY_MISS_BODY = 256, /* {} is meant */
    IS_CHANGE = 512,     /* only where we lead */
    FROM_MEMORY = 1024,  /* needs no database */
};

struct route {
    enum method method;
    const char *path; /* "/admin/v1/users/{id}" */
    unsigned roles;
    unsigned traits;
    const struct noun *noun;
    const char *action; /* the ledger's */
    const struct form *form;
    void (*handle)(struct exchange *exchange);
    const char *answer; /* the title of what is answered; NULL: the noun's */
    const char *id;     /* operationId */
    const char *help;
};
extern const struct route routes[];
extern const size_t route_count;
extern const char *const form_ends[]; /* expires_at, expires_in */
enum { ID_MAX_CHARS = 300 };
/* Of the body that it takes. False: it takes none. */
bool route_form(const struct route *route, struct form *ret_form);
/*
 * ret_param: what stands in the place of {id}, still encoded. NULL: *ret_methods are the methods there are (1 <<
 * method), 0 when there is nothing at this path.
 */
const struct route *route_find(const char *method, struct slice path, struct slice *ret_param, unsigned *ret_methods);

/* ---- the document (openapi.c) ---- */

/* NULL: no memory. */
json_t *openapi_make(const char *version);

/* ---- problems (problem.c) ---- */

struct problem {
    const char *code;
    unsigned status;
    const char *title;
};
extern const struct problem problems[];
extern const size_t problem_count;
const struct problem *problem_of(const char *code);
const char *reason_of(unsigned status);
/* As application/problem+json. `errors`: members of a list, or empty. */
void problem_write(const struct problem *problem, struct slice detail, struct slice id, struct slice errors,
                   struct text *out);

/* ---- who asks too often with wrong tokens (limiter.c) ---- */

enum { LIMITER_PLACES = 1024, LIMITER_WAYS = 4, LIMITER_WINDOW_MS = 60000 };

struct limiter_place {
    struct address address;
    int64_t began_ms; /* of its window; 0: nobody's */
    unsigned count;
};
struct limiter {
    unsigned max;
    uint64_t seed[2];
    struct limiter_place places[LIMITER_PLACES];
};
void limiter_init(struct limiter *limiter, unsigned max);
/* One more. 0: it may; else ms until it may again. */
int64_t limiter_count(struct limiter *limiter, const struct address *address, int64_t now_ms);

/* ---- connections (guest.c) ---- */

/*  JUST_COME ─► READING ─► WORKING ─► WRITING ─► READING, or gone;  LEAVING: was refused, and is given time to read it
 */
enum guest_phase { GUEST_JUST_COME, GUEST_READING, GUEST_WORKING, GUEST_WRITING, GUEST_LEAVING };

bool guests_open(struct api *api, struct event_base *base, struct text *why);
/* Accepts nobody any more. */
void guests_stop(struct api *api);
void guests_close(struct api *api);

/* What is answered, beside what every answer has. Empty ones are left out. */
struct reply {
    unsigned status;
    const char *type; /* NULL: there is no body */
    struct slice body;
    char etag[24], version[24], retry_after[24];
    struct slice location, allow;
    bool is_replay, asks_for_token, closes;
};
/* evhttp does not read while a request is worked on: from now on its guest's leaving is seen, and ends it. */
void guest_watch(struct guest *guest);
/* The request is evhttp's again, and the guest (NULL: it left) reads on when the answer is written. */
void guest_answer(struct guest *guest, struct evhttp_request *http, struct slice id, const struct reply *reply);

/* ---- one request (exchange.c) ---- */

enum { REQUEST_ID_MAX_BYTES = 64 };

struct exchange {
    struct api *api;
    struct exchange *next, **back;
    struct guest *guest;         /* NULL: it left */
    struct evhttp_request *http; /* NULL: nobody waits any more */
    int64_t since_us;
    char id[REQUEST_ID_MAX_BYTES + 1];
    struct address from;
    char address[ADDRESS_TEXT_BYTES];
    const char *method;
    struct text path; /* as it came */
    const struct route *route;
    struct text param; /* decoded */
    struct query query;
    struct digest token_hash;
    struct text token_id, actor;
    unsigned role;
    uint32_t object_version; /* If-Match; 0: not said */
    struct text idempotency_key;
    struct digest request_hash; /* beside it */
    json_t *body;               /* what the ledger is told */
    struct text secret;         /* to be shown once */
    json_t *secrets;            /* of an import: the same */
    struct inquiry *inquiry;    /* what it waits for */
    struct roster_wait *wait;
    bool is_waiting; /* takes one of the places for those who wait */
    const char *why; /* the code of a refusal, for the log */
};

/* *ret_exchange is set before anything can happen; NULL again when it is over already. */
void exchange_begin(struct api *api, struct guest *guest, struct evhttp_request *http, struct exchange **ret_exchange);
/* Its guest left; is_http_gone: nothing can be answered any more. */
void exchange_lost_guest(struct exchange *exchange, bool is_http_gone);
/* The same of one that waits for gateways: it is over. */
void exchange_left(struct exchange *exchange);
void exchanges_close(struct api *api);

/* Each of these answers, and the exchange is over. */
void exchange_refuse_later(struct exchange *exchange, const char *code, int64_t retry_ms, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* For what is wrong with HTTP itself, or takes too much room: nothing else is read from there. */
void exchange_refuse_and_close(struct exchange *exchange, const char *code, const char *sentence);
#define exchange_refuse(exchange, code, ...) exchange_refuse_later(exchange, code, 0, __VA_ARGS__)
void exchange_refuse_places(struct exchange *exchange, const struct complaints *complaints);
void exchange_fail(struct exchange *exchange, enum err err); /* could not even ask */
void exchange_pass_on(struct exchange *exchange, const struct outcome *outcome);
void exchange_reply(struct exchange *exchange, struct reply *reply);
/* 200 with this JSON. */
void exchange_show(struct exchange *exchange, struct slice body);

/* What comes behind the token: role, version, query, body, handler. */
void exchange_go_on(struct exchange *exchange);
/* The value of a field of the head, or NULL. */
const char *exchange_field(const struct exchange *exchange, const char *name);

/* ---- who asks (token.c) ---- */

void token_check(struct exchange *exchange);

/* ---- what routes do (change.c, look.c, fleet.c, setting.c) ---- */

void handle_change(struct exchange *exchange);
void handle_setting_put(struct exchange *exchange);
void handle_key_create(struct exchange *exchange);
void handle_key_rotate(struct exchange *exchange);
void handle_key_import(struct exchange *exchange);
void handle_gateway_create(struct exchange *exchange);
void handle_admin_token_create(struct exchange *exchange);
void handle_document(struct exchange *exchange);
void handle_whoami(struct exchange *exchange);
void handle_get(struct exchange *exchange);
void handle_list(struct exchange *exchange);
void handle_status(struct exchange *exchange);
void handle_load(struct exchange *exchange);
void handle_confirmations(struct exchange *exchange);

/* In which a change is made; 0: this one does not lead. */
int64_t fleet_epoch(const struct api *api);
const char *fleet_leader(const struct api *api);
/* A change was made: whoever tells gateways looks now. */
void fleet_wake(const struct api *api, const struct noun *noun);
void fleet_forget_wait(struct exchange *exchange);
/* The one that has waited longest for gateways is told to come again. False: there is none. */
bool fleet_hurry(struct api *api);

/* ---- the room (api.c) ---- */

enum { TOKENS_SEEN = 64 };

struct token_seen {
    struct digest hash;
    int64_t at_ms; /* when it was last seen to be good; 0: never */
    unsigned role;
    char id[40], name[132];
};

struct api {
    struct api_options options;
    struct api_doors doors;
    int socket;
    struct evhttp *http;
    struct evhttp_bound_socket *bound;
    struct evconnlistener *listener; /* http's */
    struct event *accept_again, *forget;
    struct guest *guests;
    unsigned guest_count;
    uint64_t received; /* by guests whose requests are not answered yet */
    struct exchange *exchanges;
    unsigned exchange_count;
    unsigned wait_count; /* of those that wait for gateways */
    struct limiter limiter;
    struct token_seen tokens[TOKENS_SEEN]; /* each where its hash says */
    struct text document;
    int64_t opened_ms, told_ms; /* told_ms: when wrong tokens were last told of */
    uint64_t untold;
    bool is_closing;
};
