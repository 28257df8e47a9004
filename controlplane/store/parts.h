/* What the files of store/ share. Nobody else includes this. */
#pragma once
#include <libpq-fe.h>

#include "store.h"

enum { STORE_MIN_SERVER = 140000, SENTENCE_BYTES = 2048, MAX_VALUES = 1000 };

/* Why something failed, as an answer tells it. */
struct failure {
    enum err err;
    bool is_wear; /* a plan that does not fit the tables any more, or a statement that somebody has thrown away */
    char sqlstate[6], constraint[64];
    struct text sentence, message, detail;
};
void failure_init(struct failure *failure);
void failure_release(struct failure *failure);
/* The first one stays. */
void failure_set(struct failure *failure, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* `what` was refused with this result. */
void failure_from(struct failure *failure, const char *what, const PGresult *result);

/* What libpq says goes over several lines and ends with one: appended as one line. */
void add_one_line(struct text *out, const char *words);
bool result_is_good(const PGresult *result);
const char *result_field(const PGresult *result, int field); /* "" when it has none */

/* Values as libpq takes them, in memory of their own. */
struct wire_values {
    int count;
    const char **at;
    int *lens, *formats;
};
/* How much memory they take; SIZE_MAX: a text that PostgreSQL would not have, or too many. */
size_t wire_values_bytes(const struct value *values, size_t count);
/* Lays them out from *memory, which is aligned for anything, and moves it. */
void wire_values_write(struct wire_values *wire, const struct value *values, size_t count, char **memory);

/* The connection string with what we set beside it. */
PGconn *connect_start(const char *database, const char *program);
/* PostgreSQL 14; else the sentence that says which it is. */
bool is_new_enough(const PGconn *link, struct text *why);

/* ---- questions (question.c) ---- */

enum question_kind {
    QUESTION_ASK,
    QUESTION_BEGIN,
    QUESTION_STEP,
    QUESTION_COMMIT,
    QUESTION_ROLLBACK,
    /* A connection's own: */
    QUESTION_PREPARE,
    QUESTION_GREETING,
    QUESTION_LISTEN,
    QUESTION_BEAT,
};

struct part {
    const struct statement *statement;
    struct wire_values values;
};

struct question {
    struct question *next;
    struct store *store;
    struct transaction *transaction; /* of whose steps it is one */
    enum question_kind kind;
    told *on_answer; /* NULL: forgotten */
    void *arg;
    int64_t deadline_ms; /* of its waiting */
    unsigned attempts;
    unsigned number; /* QUESTION_PREPARE: of the statement */
    bool is_repeatable, is_embedded;
    size_t part_count;
    struct part *parts;
    struct rows *rows;
    size_t got; /* commands that have succeeded */
    struct failure failure;
};

struct question_list {
    struct question *first, **end;
};
void list_init(struct question_list *list);
void list_add(struct question_list *list, struct question *question);
void list_add_front(struct question_list *list, struct question *question);
struct question *list_take(struct question_list *list);

enum err question_new(struct store *store, enum question_kind kind, const struct ask *asks, size_t count,
                      struct question **ret_question);
/* Tells whoever asked, and frees it. */
void question_answer(struct question *question, bool may_be_done);
void question_free(struct question *question);
/* One result of it arrived; it owns it from now on. */
void question_take(struct question *question, PGresult *result);
/*
 * Forgets what has arrived, to be asked again. False: it has been asked often enough. A server that shuts down takes
 * one connection after the other, each with what was sent there after the one before was lost.
 */
bool question_reset(struct question *question);
/* Has surely nothing of it happened? Its connection is lost, or it has failed. */
bool question_is_undone(const struct question *question);

/* ---- connections (connection.c) ---- */

/*  AWAY ─► CONNECTING ─► GREETING ─► READY
 *    ▲──────────┴────────────┴──────────┘  lost   */
enum connection_state { CONNECTION_AWAY, CONNECTION_CONNECTING, CONNECTION_GREETING, CONNECTION_READY };

enum { MAX_STATEMENTS = 512 };

struct connection {
    struct store *store;
    enum connection_state state;
    bool is_listener;
    PGconn *link;
    struct event *poll, *readable, *writable, *timer;
    struct question_list flights; /* sent and not answered, in their order */
    unsigned flight_count;
    bool awaits_end;                  /* of the results of the first one's present command */
    bool is_worn;                     /* its plans are of no use any more: takes nothing new, and is made anew */
    int64_t since_ms;                 /* connecting: since when; else: when it was last heard, or first asked */
    int64_t delay_ms;                 /* until the next attempt */
    struct transaction *transaction;  /* whose it is */
    struct text last_words;           /* what the database said beside its answers */
    struct failure unprepared;        /* why a statement could not be prepared */
    bool is_prepared[MAX_STATEMENTS]; /* or is about to be */
};

bool connection_init(struct connection *connection, struct store *store, bool is_listener);
/* Says nothing to anybody: whoever has flights there was told. */
void connection_release(struct connection *connection);
/* Connects now, if it is away. */
void connection_start(struct connection *connection);
/* May it take one more? */
bool connection_has_room(const struct connection *connection);
void connection_send(struct connection *connection, struct question *question);
void connection_flush(struct connection *connection);
void connection_lost(struct connection *connection, enum err err, const char *why); /* why NULL: libpq knows */
/* One more channel; if it is connecting, it comes to it by itself. */
struct channel;
void connection_listen(struct connection *connection, const struct channel *channel);

/* ---- the store (store.c) ---- */

struct channel {
    struct channel *next;
    const char *name;
    void (*on_wake)(void *arg, const char *payload);
    void *arg;
};

struct transaction {
    struct store *store;
    struct transaction *next, **back;
    struct connection *connection; /* NULL: not yet, or lost */
    struct question *open;         /* its present step */
    struct question rollback;
    bool is_abandoned; /* nobody waits for it any more */
};
/* Forgets it, wherever it is. */
void transaction_free(struct transaction *transaction);
/* Sends ROLLBACK behind everything; then it is forgotten. */
void transaction_end(struct transaction *transaction);

struct store {
    struct event_base *base;
    struct store_options options;
    struct event *pump, *patience;
    struct question_list waiting; /* for a connection, oldest first */
    struct question_list steps;   /* of transactions, which have theirs */
    unsigned waiting_count;
    struct transaction *transactions;
    struct channel *channels;
    const struct statement *statements[MAX_STATEMENTS];
    unsigned statement_count;
    unsigned ready_count;
    bool was_told_away, is_closing;
    unsigned depth; /* of callbacks */
    struct text reason;
    struct connection *listener; /* NULL: nobody listens */
    struct connection connections[];
};
/* The number of a statement, its place in is_prepared[]; MAX_STATEMENTS: there are too many. */
unsigned store_statement(struct store *store, const struct statement *statement);
/* There is something to send. */
void store_pump(struct store *store);
/* Once more, before the others. */
void store_ask_again(struct store *store, struct question_list *questions);
/* News of a connection of the pool: it can be used; it cannot; and it is made anew, which is nothing to talk about. */
void store_is_ready(struct store *store, const struct connection *connection);
void store_is_away(struct store *store, const struct connection *connection, bool was_ready, const char *why);
void store_is_renewed(struct store *store);
/* payload NULL: to all channels. */
void store_wake(struct store *store, const char *channel, const char *payload);
