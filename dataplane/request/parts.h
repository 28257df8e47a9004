/*
 * The inside of the room request/: the struct and the functions that its files share. Nobody else includes it.
 *
 *     READING ─► ADMITTING ─► QUEUED ─► CONNECTING ─► RELAYING ─► SETTLING ─► reaped
 *        │           │           ▲ │  ◄── once ──┴────────┤            ▲
 *        └───────────┴────► REFUSING ◄────────────────────┘            │
 *                              └────────────────────────────────────────┘
 *
 * To add a state: a row here, a function in request.c's table.
 */
#pragma once
#include "arena.h"
#include "backend.h"
#include "dialect.h"
#include "inference.h"
#include "keyring.h"
#include "kind.h"
#include "limit.h"
#include "meter.h"
#include "queue.h"
#include "refusal.h"
#include "request.h"
#include "snapshot.h"
#include "upstream.h"
#include "wheel.h"

enum { MAX_SENT_HEAD = 512 }; /* of a backend's request; its authority has 262 bytes at most */

#define TO(state) (1u << REQUEST_##state)
#define REQUEST_STATES(X)                                                                                            \
    /* state      step        what it waits for                     may move on to                                */ \
    X(READING, reading, "the body, memory for it", TO(ADMITTING) | TO(REFUSING))                                     \
    X(ADMITTING, admitting, "a list of models, if it must", TO(QUEUED) | TO(REFUSING) | TO(SETTLING))                \
    X(QUEUED, queued, "a free slot of a backend", TO(CONNECTING) | TO(REFUSING))                                     \
    X(CONNECTING, connecting, "the backend's first byte", TO(QUEUED) | TO(RELAYING) | TO(REFUSING))                  \
    X(RELAYING, relaying, "the backend's next byte", TO(QUEUED) | TO(REFUSING) | TO(SETTLING))                       \
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
    struct keyring *keys;
    struct arena arena;       /* lives as long as the request */
    struct arena parse_arena; /* until the backend's request is written; then one line of the answer at a time */
    struct deadline deadline;
    enum request_state state;
    unsigned era;
    unsigned queue_place; /* X-Queue-Position; 0: it did not wait */
    unsigned backend_status;
    enum error_shape error_shape;

    /* All that is yes or no, together: a request that waits is to take little room. */
    bool has_rate, has_address;    /* `has_address`: entered by the real client's address */
    bool has_entered;              /* its key limits how many may run, and this one does */
    bool wants_page;               /* a browser asks */
    bool waits_for_list, is_read;  /* the body */
    bool is_stream, is_structured; /* what is asked for; outlive `inference` */
    bool has_begun;                /* the prompt was given up for `sent`, and `answer` is ready */
    bool was_resent;
    bool is_committed; /* a status line went to the caller */
    bool has_event;    /* the backend's first event came */
    bool is_whole;     /* the backend's last event came */
    bool has_thought;
    bool counts_short; /* the backend's own counts are not all of it */
    const struct endpoint_row *endpoint;
    const char *allow; /* with 405: the methods that the path takes */

    /* who */
    const struct key *key; /* in `keys`; NULL: authentication is off, or not there yet */
    struct holder *holder;
    struct person *person;
    struct rate_state rate;

    /* what; later, the answer in the same places */
    struct text gathered;     /* what comes in pieces: the body; a line, a whole answer, an error's body */
    struct slice piece;       /* the body, or a whole answer, where it came in one: good during that call only; or the
                              name in /v1/models/{id}, decoded */
    uint64_t reserved_bytes;  /* of body memory */
    uint64_t announced_bytes; /* Content-Length; 0: chunked */
    uint64_t wanted_bytes;    /* of body memory, while it waits for them */
    int64_t list_asked_ms;    /* for lists that are fresher than this */
    struct inference *inference; /* in parse_arena; NULL once the prompt has been given up */

    /* where */
    struct catalog *catalog; /* counted; while choosing the model */
    struct queue *queue;     /* of the model; lives as long as the process */
    struct ticket *ticket;   /* the place in it, then the slot at a backend */
    int64_t entered_us;      /* into the queue, the first time */
    int64_t waits_since_us;  /* the same, each time */
    uint64_t conversation;   /* as the head names it; 0: it does not */
    struct backend *backend; /* the ticket's; NULL while there is no slot */
    const struct kind *kind; /* of that backend, or the last one */
    struct upstream *upstream;
    struct borrower borrower;
    struct text sent;              /* the backend's request, until its answer begins: sent.c */
    unsigned sent_room, sent_from; /* before its body; where its head begins */

    /* the answer */
    struct answer answer;
    struct refusal refusal;
    uint64_t piece_count, output_bytes;
    int64_t sent_us, sent_ms, last_byte_ms, last_write_ms;

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
/* Row 14. False: as many run as may. */
bool identity_enter(struct request *req);
void identity_give_back(struct request *req);

/* admit.c: rows 9 to 13 */
enum verdict request_admitting(struct request *req);
/* Handed over, or queued: what could wait until then, so that it is underway the sooner. */
void admit_done(struct request *req);
void admit_give_back(struct request *req);
/* The backends' lists of models, fresh enough for a name that they lack? Else asks for fresh ones: false, and an event
 * will come. */
bool admit_has_fresh_lists(struct request *req);

/* sent.c */
/* For the backend that is known by now. False: no memory. */
bool sent_write_head(struct request *req);
/* It will lie for a while: if it is small, as most are, in no more memory than it takes. */
void sent_tighten(struct request *req);

/* place.c: rows 15 and 16: the place in the queue, then the slot */
/* The head names the conversation: what is said to belong together goes to one backend, for its prompt cache. */
void place_note_session(struct request *req, struct slice session);
/* Enters the queue of a backend's model, normalised. `is_known`: it is configured, or some backend lists it. */
enum verdict place_take(struct request *req, struct slice model, bool is_known);
enum verdict request_queued(struct request *req);
/* The deadline of QUEUED is due. */
void place_look_at_time(struct request *req, int64_t now_ms);
/* The backend failed it before a byte came: to another one, before all others; with `may_be_same` to the same one where
 * there is no other. False: there is none. */
bool place_take_again(struct request *req, bool may_be_same);
/* `was_given_up`: its backend worked on it, and was stopped. */
void place_give_back(struct request *req, bool was_given_up);

/* heartbeat.c: signs of life to the caller of a stream */
/* When the next is due; INT64_MAX: never. */
int64_t heartbeat_due_ms(const struct request *req);
/* False: the request has ended. */
bool heartbeat_send(struct request *req, int64_t now_ms);

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
