/*
 * The inside of the room request/: the struct and the functions that its files share. Nobody else includes it.
 *
 *     READING ─► ADMITTING ─► CONNECTING ─► RELAYING ─► SETTLING ─► reaped
 *        │           │         ⟲ (once)        │            ▲
 *        └───────────┴────► REFUSING ◄─────────┘            │
 *                              └────────────────────────────┘
 *
 * To add a state: a row here, a function in request.c's table.
 */
#pragma once
#include "arena.h"
#include "backend.h"
#include "dialect.h"
#include "inference.h"
#include "kind.h"
#include "limit.h"
#include "meter.h"
#include "refusal.h"
#include "request.h"
#include "snapshot.h"
#include "upstream.h"
#include "wheel.h"

#define TO(state) (1u << REQUEST_##state)
#define REQUEST_STATES(X)                                                                                            \
    /* state      step        what it waits for                     may move on to                                */ \
    X(READING, reading, "the body, memory for it", TO(ADMITTING) | TO(REFUSING))                                     \
    X(ADMITTING, admitting, "a list of models, if it must", TO(CONNECTING) | TO(REFUSING) | TO(SETTLING))            \
    X(CONNECTING, connecting, "the backend's first byte", TO(CONNECTING) | TO(RELAYING) | TO(REFUSING))              \
    X(RELAYING, relaying, "the backend's next byte", TO(REFUSING) | TO(SETTLING))                                    \
    X(REFUSING, refusing, "nothing", TO(SETTLING))                                                                   \
    X(SETTLING, settling, "the caller, to read what was said", 0)

enum request_state {
#define STATE_ENUM(name, step, waits, next) REQUEST_##name,
    REQUEST_STATES(STATE_ENUM)
#undef STATE_ENUM
        REQUEST_STATE_COUNT
};

/* AGAIN: run the next state now. WAIT: an event will come. */
enum verdict { AGAIN, WAIT };

struct endpoint_row;
struct http_head;

struct request {
    struct request *next, *prev; /* in a list of the house: live, or ended */
    struct request_house *house;
    struct client *client;     /* NULL once the caller is gone */
    struct snapshot *snapshot; /* of its beginning: know() */
    struct fleet *fleet;
    unsigned era;
    struct arena arena;       /* lives as long as the request */
    struct arena parse_arena; /* until the backend's request is written; then one line of the answer at a time */
    struct deadline deadline;
    enum request_state state;
    const struct endpoint_row *endpoint;
    const char *allow; /* with 405: the methods that the path takes */

    /* who */
    const struct key *key; /* in the snapshot; NULL: authentication is off, or not there yet */
    struct holder *holder;
    struct person *person;
    struct rate_rule rate_rule;
    struct rate_state rate;
    bool has_rate, has_address; /* `has_address`: entered by the real client's address */
    enum error_shape error_shape;
    bool wants_page; /* a browser asks */

    /* what */
    struct text body;         /* gathered; empty while `piece` is the whole of it */
    struct slice piece;       /* the whole body in one piece, good during one call only */
    uint64_t reserved_bytes;  /* of body memory */
    uint64_t announced_bytes; /* Content-Length; 0: chunked */
    uint64_t wanted_bytes;    /* of body memory, while it waits for them */
    bool waits_for_list, is_read;
    unsigned list_turn; /* the backend's catalog_turn when we asked */
    int64_t list_due_ms;
    struct inference inference;
    struct slice model_id; /* of /v1/models/{id}, decoded */

    /* where */
    struct backend *backend; /* one of the fleet's */
    struct catalog *catalog; /* counted; while choosing the model */
    struct upstream *upstream;
    struct borrower borrower;
    struct text sent; /* the backend's request, until its answer begins; begins at sent_from */
    size_t sent_from;
    bool was_resent, is_running;

    /* the answer */
    struct answer answer;
    struct refusal refusal;
    unsigned backend_status;
    bool is_committed;  /* a status line went to the caller */
    bool has_event;     /* the backend's first event came */
    bool is_whole;      /* the backend's last event came */
    struct text line;   /* a line in pieces, a whole body, or an error's body */
    struct slice whole; /* the same when it came in one piece; good in on_end only */
    uint64_t piece_count, output_bytes;
    int64_t sent_ms, last_byte_ms, last_write_ms;

    struct record record;
};

static inline const struct settings *settings_of(const struct request *req)
{
    return &req->snapshot->settings;
}

/* request.c */
enum verdict request_go(struct request *req, enum request_state next);
void request_drive(struct request *req);
enum verdict request_refuse(struct request *req, enum cause cause);
enum verdict request_refuse_saying(struct request *req, enum cause cause, struct slice message);
void request_end(struct request *req);

/* endpoint.c: paths and methods */
struct endpoint_row {
    const char *method;                          /* GET takes HEAD too */
    const char *path;                            /* without /v1; ends in '/' when an id follows */
    const char *label;                           /* in the metrics */
    bool only_plain;                             /* not under /v1 */
    bool is_open;                                /* no key */
    const struct dialect *dialect;               /* reads a body and asks a model */
    enum verdict (*answer)(struct request *req); /* answers at once, or waits for a list */
};
/* CAUSE_NONE, CAUSE_NO_PATH, or CAUSE_BAD_METHOD with *ret_allow. */
enum cause endpoint_find(struct slice method, struct slice path, const struct endpoint_row **ret_endpoint,
                         struct slice *ret_id, const char **ret_allow);

/* identity.c: row 2 (a doubled key header), then 4, 5 and 6 */
enum cause identity_check_fields(struct request *req, const struct http_head *head);
enum cause identity_find(struct request *req, const struct http_head *head);
/* After the body was read, where `user_header: body.user` says that it names the person. */
void identity_from_body(struct request *req);
/* Row 13. False: full by now. */
bool identity_take_rate(struct request *req);
void identity_give_back(struct request *req);

/* admit.c: rows 9 to 13 and 16 */
enum verdict request_admitting(struct request *req);
/* The request has been handed over: what could wait until then, so that it is underway the sooner. */
void admit_done(struct request *req);
void admit_give_back(struct request *req);
/* The backend's list of models, fresh enough for a name that it lacks? Else asks for a fresh one: false, and an event
 * will come. */
bool admit_has_fresh_list(struct request *req);
/* The backend and its list, into the request. */
void admit_choose_backend(struct request *req);

/* relay.c: the backend's side */
enum verdict request_connecting(struct request *req);
enum verdict request_relaying(struct request *req);
void relay_give_back(struct request *req, bool is_whole);
/* A deadline of CONNECTING or RELAYING is due. */
void relay_look_at_time(struct request *req, int64_t now_ms);
void relay_set_deadline(struct request *req, int64_t now_ms);

/* models.c */
enum verdict models_list(struct request *req);
enum verdict models_show(struct request *req);

/* reply.c: what goes to the caller */
/* A whole answer: its body is appended to the text that this gives, and reply_close() puts the head before it and sends
 * both in one piece. A body that could not be written shows in the text's err. */
struct text *reply_open(struct request *req);
void reply_close(struct request *req, unsigned status, const char *type);
void reply_refusal(struct request *req);
/* Starts `out` with the head of a stream. */
void reply_begin_stream(struct request *req, struct text *out);
/* Wraps what `out` holds from `from` on into a chunk. */
size_t reply_chunk_open(struct request *req, struct text *out);
void reply_chunk_close(struct request *req, struct text *out, size_t from);
void reply_stream_end(struct request *req, struct text *out);
/* There is no memory for what must be said: the connection ends, and so does the request. */
void reply_break_off(struct request *req);

enum verdict health_live(struct request *req);
enum verdict health_ready(struct request *req);
