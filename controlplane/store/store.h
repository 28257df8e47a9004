/*
 * store - the database: libpq's only door. A few connections to one PostgreSQL, never blocking, in pipeline mode; what
 * is asked is told once by a callback.
 *
 * Owned by main; made before the rooms that ask it, closed after them. Loop thread only. Times are in _ms.
 *
 * A *statement* is SQL with a name; it is prepared once on each connection, when it is first asked there. A *question*
 * is one statement or several that are one transaction: all of it happens or nothing. A *transaction* is one whose
 * steps depend on each other; it has a connection for itself while it lasts.
 *
 * Whatever is accepted (ERR_OK) is answered exactly once, never before the function that accepted it returns, and not
 * after question_forget(). Questions overtake each other. What waits for a connection for longer than wait_timeout_ms
 * is answered with ERR_TIMEOUT, and has not happened. Where a connection is lost, what was asked there may have
 * happened or not (`may_be_done`): nobody asks again but who knows what it means. Only questions whose statements all
 * are repeatable are asked again by themselves.
 *
 * A name in the connection string is looked up in the loop thread; where that may hang, write an address.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct event_base;
struct pg_result;
struct store;
struct question;
struct transaction;

struct store_options {
    const char *database; /* as libpq takes it; "": from the environment (PGHOST …) */
    const char *role;     /* whom a connection becomes; "": who it came as */
    const char *program;  /* application_name */
    unsigned connections;
    unsigned pipeline;    /* questions that one connection may have open */
    unsigned max_waiting; /* questions that may wait for a connection */
    int64_t wait_timeout_ms, connect_timeout_ms;
    int64_t statement_timeout_ms;                 /* of one statement, and of a transaction that asks nothing */
    int64_t reconnect_delay_ms, reconnect_max_ms; /* doubles from one to the other */
};

struct statement {
    const char *name; /* its own, shorter than 64 bytes; lives as long as the program */
    const char *sql;
    bool is_repeatable; /* it only reads */
};

enum value_kind { VALUE_NONE, VALUE_IS_TEXT, VALUE_IS_BYTES, VALUE_IS_NUMBER, VALUE_IS_BOOL };
struct value {
    enum value_kind kind;
    struct slice bytes;
    int64_t number;
};
#define VALUE_NULL          ((struct value){ .kind = VALUE_NONE })
#define VALUE_TEXT(slice)   ((struct value){ .kind = VALUE_IS_TEXT, .bytes = (slice) })
#define VALUE_BYTES(slice)  ((struct value){ .kind = VALUE_IS_BYTES, .bytes = (slice) }) /* bytea */
#define VALUE_NUMBER(count) ((struct value){ .kind = VALUE_IS_NUMBER, .number = (count) })
#define VALUE_BOOL(claim)   ((struct value){ .kind = VALUE_IS_BOOL, .number = (claim) })

/* One statement with its values; both are copied. */
struct ask {
    const struct statement *statement;
    const struct value *values;
    size_t count;
};

/* What a statement brought. */
struct rows {
    struct pg_result *result;
};
size_t rows_count(const struct rows *rows);
/* Rows that an INSERT, UPDATE or DELETE touched. */
uint64_t rows_touched(const struct rows *rows);
bool rows_is_null(const struct rows *rows, size_t row, unsigned column);
/* As PostgreSQL writes it, followed by a NUL; of NULL it is empty. Lives as long as the rows. */
struct slice rows_text(const struct rows *rows, size_t row, unsigned column);
int64_t rows_number(const struct rows *rows, size_t row, unsigned column);
bool rows_bool(const struct rows *rows, size_t row, unsigned column);
/* bytea. False: there are not exactly `len` bytes. */
bool rows_bytes(const struct rows *rows, size_t row, unsigned column, void *at, size_t len);

struct answer {
    /*
     * ERR_OK. ERR_REFUSED: the database says no, see sqlstate. ERR_AGAIN: two transactions were in each other's way, it
     * is worth another try. ERR_TIMEOUT: a statement or the waiting took too long. ERR_GONE: the connection was lost.
     * ERR_FULL: the database is short of something. ERR_BAD: the database has no such encoding, column, table …
     */
    enum err err;
    bool may_be_done;       /* of a failure: whether it happened is not known */
    const char *sqlstate;   /* five characters, or "" where the database did not say it */
    const char *constraint; /* the one that was violated, or "" */
    const char *sentence;   /* for the log: on one line; "" when all is well */
    /* What the database itself said, or "". The detail may quote values of rows: it is for who knows the sqlstate. */
    const char *message, *detail;
    const struct rows *rows; /* of each statement; gone when the callback returns */
    size_t count;            /* of rows; 0 of a failure */
};
typedef void told(void *arg, const struct answer *answer);

/* Connects by itself, now and whenever a connection is lost. NULL: `why` says it; that the database is away is no
 * reason. */
struct store *store_open(struct event_base *base, const struct store_options *options, struct text *why);
/* Answers what is open with ERR_GONE first. Not from a callback. */
void store_close(struct store *store);
bool store_is_up(const struct store *store);
/* Why it is not up: a sentence, "" while it is. */
const char *store_reason(const struct store *store);

/*
 * ERR_FULL: too many wait; ERR_BAD: a text has a zero byte or is no UTF-8; ERR_NO_MEMORY; ERR_GONE: closing. Then there
 * will be no answer. ret_question may be NULL.
 */
enum err store_ask(struct store *store, const struct ask *asks, size_t count, told *on_answer, void *arg,
                   struct question **ret_question);
/* The answer is of no interest any more; what was asked may happen all the same. Before the answer only. */
void question_forget(struct question *question);

/*
 * on_begun with ERR_OK: the transaction is the caller's, who asks one step at a time, until it commits, rolls back, or
 * is told a failure of any step: then it is over, and nothing of it has happened. One that asks nothing for
 * statement_timeout_ms is ended by the database, and learns so with its next step.
 */
enum err store_begin(struct store *store, told *on_begun, void *arg, struct transaction **ret_transaction);
enum err transaction_ask(struct transaction *transaction, const struct ask *asks, size_t count, told *on_answer,
                         void *arg);
enum err transaction_commit(struct transaction *transaction, told *on_answer, void *arg);
/* Nobody is told. Not while a step is open. */
void transaction_rollback(struct transaction *transaction);

/*
 * on_wake with what a NOTIFY of the channel said, or NULL after each (re)connection, when some may have been missed: it
 * is a hint to look, so look now and then without one. Has a connection of its own. The channel is of [a-z_], lives as
 * long as the program, and stays.
 */
enum err store_listen(struct store *store, const char *channel, void (*on_wake)(void *arg, const char *payload),
                      void *arg);

/*
 * session - one connection that blocks, for what runs by itself from a shell.
 * `why` is one sentence, with the line of the script where there is one.
 */
struct session;
struct session *session_open(const char *database, const char *program, int64_t connect_timeout_ms, struct text *why);
void session_close(struct session *session);
/* Many statements in one text. */
enum err session_run(struct session *session, const char *script, struct text *why);
/* The caller gives the rows back. */
enum err session_ask(struct session *session, const char *sql, const struct value *values, size_t count,
                     struct rows *ret_rows, struct text *why);
void rows_release(struct rows *rows);

/* Is there a password in it? */
bool database_has_secret(const char *database);
/* Can libpq make sense of it? The sentence ("is not …") quotes nothing: there may be a password in it. */
enum err database_check(const char *database, struct text *why);
