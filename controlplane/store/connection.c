/*
 * One connection: connects, greets, carries questions in a pipeline, and comes back when it is lost.
 *
 * Each question ends with a Sync of its own. Between two of them everything is one transaction, made and ended by the
 * database itself, so a question that fails leaves nothing behind for those sent after it. A statement is prepared
 * between Syncs of its own, before the question that needs it first: that question's failure must not undo it.
 *
 * The timer: AWAY until the next attempt; CONNECTING and GREETING until connect_timeout; READY while something was
 * sent, until the database has been silent for longer than a statement may take (its own clock ends a statement before
 * that), and for the listener, until the next sign of life is asked for.
 */
#include <assert.h>
#include <event2/event.h>
#include <event2/util.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"
#include "parts.h"

enum { WORDS_BYTES = 1024 };

static void on_timer(evutil_socket_t fd, short what, void *arg);
static void on_poll(evutil_socket_t fd, short what, void *arg);

static void in_ms(struct event *timer, int64_t ms)
{
    struct timeval wait = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(timer, &wait);
}

static void free_event(struct event **event)
{
    if (*event)
        event_free(*event);
    *event = NULL;
}

bool connection_init(struct connection *connection, struct store *store, bool is_listener)
{
    *connection = (struct connection){ .store = store, .is_listener = is_listener };
    connection->delay_ms = store->options.reconnect_delay_ms;
    list_init(&connection->flights);
    text_init(&connection->last_words, WORDS_BYTES);
    failure_init(&connection->unprepared);
    connection->timer = event_new(store->base, -1, 0, on_timer, connection);
    return connection->timer != NULL;
}

static void disconnect(struct connection *connection)
{
    free_event(&connection->poll);
    free_event(&connection->readable);
    free_event(&connection->writable);
    PQfinish(connection->link);
    connection->link = NULL;
    connection->state = CONNECTION_AWAY;
    connection->awaits_end = connection->is_worn = false;
    memset(connection->is_prepared, 0, sizeof connection->is_prepared);
    failure_release(&connection->unprepared);
    failure_init(&connection->unprepared);
}

void connection_release(struct connection *connection)
{
    disconnect(connection);
    free_event(&connection->timer);
    failure_release(&connection->unprepared);
    text_release(&connection->last_words);
}

/* ---- lost ---- */

/* A jitter of a quarter keeps many connections and control planes from coming all at once. */
static int64_t next_delay(struct connection *connection)
{
    const struct store_options *options = &connection->store->options;
    int64_t delay = connection->delay_ms;
    unsigned char chance;

    evutil_secure_rng_get_bytes(&chance, sizeof chance);
    connection->delay_ms = delay * 2 < options->reconnect_max_ms ? delay * 2 : options->reconnect_max_ms;
    return delay - delay * chance / 1024;
}

/* What was sent there: told, or asked again where that does no harm. */
static void flight_lost(struct connection *connection, struct question *question, enum err err, const char *why,
                        struct question_list *again)
{
    bool is_undone = question_is_undone(question);
    struct transaction *transaction = question->transaction;

    if (question->kind >= QUESTION_PREPARE) {
        question_free(question);
        return;
    }
    if (question->kind == QUESTION_ROLLBACK) {
        transaction_free(transaction);
        return;
    }
    if ((question->failure.err == ERR_OK || question->failure.err == ERR_GONE) && err == ERR_GONE &&
        (question->kind == QUESTION_ASK || question->kind == QUESTION_BEGIN) &&
        (question->is_repeatable || is_undone) && !connection->store->is_closing && question_reset(question)) {
        list_add(again, question);
        return;
    }
    failure_set(&question->failure, err, "%s", why);
    question_answer(question, !is_undone && !question->is_repeatable);
    if (transaction)
        transaction_free(transaction);
}

void connection_lost(struct connection *connection, enum err err, const char *why)
{
    struct store *store = connection->store;
    bool was_ready = connection->state == CONNECTION_READY;
    struct question_list flights = connection->flights, again;
    struct text words;

    text_init(&words, SENTENCE_BYTES);
    if (connection->last_words.len) {
        text_add_slice(&words, text_slice(&connection->last_words));
    } else if (why) {
        text_add_string(&words, why);
    } else {
        add_one_line(&words, PQerrorMessage(connection->link));
    }
    text_clear(&connection->last_words);
    if (!flights.first)
        list_init(&flights);
    list_init(&connection->flights);
    list_init(&again);
    connection->flight_count = 0;
    disconnect(connection);
    if (connection->transaction) {
        connection->transaction->connection = NULL;
        connection->transaction = NULL;
    }
    if (!connection->is_listener)
        store_is_away(store, connection, was_ready, text_string(&words));
    for (struct question *question; (question = list_take(&flights));)
        flight_lost(connection, question, err, text_string(&words), &again);
    store_ask_again(store, &again);
    text_release(&words);
    in_ms(connection->timer, next_delay(connection));
}

/* It has nothing under way, and new plans are what it needs. */
static void renew(struct connection *connection)
{
    disconnect(connection);
    store_is_renewed(connection->store);
    in_ms(connection->timer, 0);
}

/* ---- results ---- */

static void prepare_done(struct connection *connection, struct question *question)
{
    if (question->failure.err != ERR_OK) {
        connection->is_prepared[question->number] = false;
        failure_release(&connection->unprepared);
        connection->unprepared = question->failure;
        failure_init(&question->failure);
    }
    question_free(question);
}

static void greeting_done(struct connection *connection, struct question *question)
{
    struct store *store = connection->store;

    question_free(question);
    connection->state = CONNECTION_READY;
    connection->delay_ms = store->options.reconnect_delay_ms;
    if (connection->is_listener) {
        store_wake(store, NULL, NULL);
        in_ms(connection->timer, store->options.statement_timeout_ms);
    } else {
        store_is_ready(store, connection);
    }
    store_pump(store);
}

/* That it could not be prepared is the reason, not that it is not there. */
static bool is_unprepared(const struct connection *connection, const struct question *question)
{
    for (size_t i = 0; i < question->part_count; i++)
        if (!connection->is_prepared[store_statement(connection->store, question->parts[i].statement)])
            return connection->unprepared.err != ERR_OK;
    return false;
}

static void take_reason(struct connection *connection, struct question *question)
{
    const struct failure *unprepared = &connection->unprepared;

    if (!question->failure.is_wear)
        return;
    if (!is_unprepared(connection, question)) {
        connection->is_worn = true;
        return;
    }
    failure_release(&question->failure);
    failure_init(&question->failure);
    failure_set(&question->failure, unprepared->err, "%s", text_string(&unprepared->sentence));
    memcpy(question->failure.sqlstate, unprepared->sqlstate, sizeof unprepared->sqlstate);
    text_add_slice(&question->failure.message, text_slice(&unprepared->message));
    text_add_slice(&question->failure.detail, text_slice(&unprepared->detail));
}

/* A question that met a worn connection has not happened: another connection has it answered. */
static void ask_done(struct connection *connection, struct question *question)
{
    struct question_list again;

    if (!connection->is_worn || !question->failure.is_wear || !question_reset(question)) {
        question_answer(question, false);
        return;
    }
    list_init(&again);
    list_add(&again, question);
    store_ask_again(connection->store, &again);
}

static void step_done(struct connection *connection, struct question *question)
{
    struct transaction *transaction = question->transaction;
    bool is_good = question->failure.err == ERR_OK, is_abandoned = transaction->is_abandoned;

    transaction->open = NULL;
    if (question->kind == QUESTION_COMMIT || (question->kind == QUESTION_BEGIN && !is_good)) {
        bool may_be_done = !question_is_undone(question);
        connection->transaction = NULL;
        transaction->connection = NULL;
        question_answer(question, may_be_done);
        transaction_free(transaction);
        return;
    }
    if (!is_good || is_abandoned)
        transaction_end(transaction);
    question_answer(question, false);
}

/* Its Sync has come back: nothing more will be said of it. False: the connection is no more. */
static bool flight_done(struct connection *connection, struct question *question)
{
    take_reason(connection, question);
    switch (question->kind) {
    case QUESTION_PREPARE:
        prepare_done(connection, question);
        return true;
    case QUESTION_GREETING:
    case QUESTION_LISTEN:
        if (question->failure.err != ERR_OK) {
            struct text why;
            text_init(&why, SENTENCE_BYTES);
            text_add_slice(&why, text_slice(&question->failure.sentence));
            question_free(question);
            connection_lost(connection, ERR_GONE, text_string(&why));
            text_release(&why);
            return false;
        }
        if (connection->flights.first)
            question_free(question);
        else
            greeting_done(connection, question);
        return true;
    case QUESTION_BEAT:
        question_free(question);
        return true;
    case QUESTION_ROLLBACK:
        connection->transaction = NULL;
        transaction_free(question->transaction);
        store_pump(connection->store);
        return true;
    case QUESTION_ASK:
        ask_done(connection, question);
        break;
    default:
        step_done(connection, question);
    }
    store_pump(connection->store);
    return true;
}

/* False: the connection is no more. */
static bool drain(struct connection *connection)
{
    while (connection->flights.first && !PQisBusy(connection->link)) {
        PGresult *result = PQgetResult(connection->link);

        if (!result) {
            if (!connection->awaits_end)
                return true;
            connection->awaits_end = false;
        } else if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
            struct question *question = list_take(&connection->flights);
            PQclear(result);
            connection->flight_count--;
            if (!flight_done(connection, question))
                return false;
        } else {
            connection->awaits_end = true;
            question_take(connection->flights.first, result);
        }
    }
    return true;
}

/* What it says in between: notifications; and why it is about to leave us. */
static void on_notice(void *arg, const PGresult *notice)
{
    struct connection *connection = arg;
    const char *severity = result_field(notice, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (strcmp(severity, "FATAL") != 0 && strcmp(severity, "PANIC") != 0)
        return;
    text_clear(&connection->last_words);
    add_one_line(&connection->last_words, result_field(notice, PG_DIAG_MESSAGE_PRIMARY));
}

static void pass_on_notifications(struct connection *connection)
{
    PGnotify *notify;

    while ((notify = PQnotifies(connection->link))) {
        store_wake(connection->store, notify->relname, notify->extra);
        PQfreemem(notify);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;
    bool is_there = PQconsumeInput(connection->link) == 1;

    (void)fd;
    (void)what;
    connection->since_ms = clock_ms();
    if (!drain(connection))
        return;
    (void)PQisBusy(connection->link); /* makes libpq read what came without being asked for */
    pass_on_notifications(connection);
    if (!is_there || PQstatus(connection->link) == CONNECTION_BAD)
        connection_lost(connection, ERR_GONE, NULL);
    else if (connection->is_worn && !connection->flights.first && !connection->transaction)
        renew(connection);
    else
        connection_flush(connection);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    connection_flush(arg);
}

void connection_flush(struct connection *connection)
{
    int left = PQflush(connection->link);

    if (left < 0) { /* it may have said why before it left */
        if (!PQconsumeInput(connection->link) && !drain(connection))
            return;
        connection_lost(connection, ERR_GONE, NULL);
    } else if (left > 0) {
        (void)event_add(connection->writable, NULL);
    }
}

/* ---- sending ---- */

bool connection_has_room(const struct connection *connection)
{
    return connection->state == CONNECTION_READY && !connection->transaction && !connection->is_worn &&
           connection->flight_count < connection->store->options.pipeline;
}

static void depart(struct connection *connection, struct question *question)
{
    if (!connection->flights.first) {
        connection->since_ms = clock_ms();
        if (!event_pending(connection->timer, EV_TIMEOUT, NULL))
            in_ms(connection->timer, connection->store->options.statement_timeout_ms);
    }
    connection->flight_count++;
    list_add(&connection->flights, question);
}

/* Sends one of the connection's own and its Sync. */
static bool send_own(struct connection *connection, enum question_kind kind, const char *sql, int count,
                     const char *const *values)
{
    struct question *question = NULL;

    if (question_new(connection->store, kind, NULL, 0, &question) != ERR_OK)
        return false;
    depart(connection, question);
    return PQsendQueryParams(connection->link, sql, count, NULL, values, NULL, NULL, 0) &&
           PQpipelineSync(connection->link);
}

static bool prepare(struct connection *connection, const struct statement *statement)
{
    unsigned number = store_statement(connection->store, statement);
    struct question *question = NULL;

    if (connection->is_prepared[number])
        return true;
    if (question_new(connection->store, QUESTION_PREPARE, NULL, 0, &question) != ERR_OK)
        return false;
    question->number = number;
    connection->is_prepared[number] = true;
    depart(connection, question);
    return PQsendPrepare(connection->link, statement->name, statement->sql, 0, NULL) &&
           PQpipelineSync(connection->link);
}

static bool send_parts(struct connection *connection, struct question *question)
{
    bool is_sent = true;

    for (size_t i = 0; i < question->part_count && is_sent; i++) {
        const struct part *part = &question->parts[i];
        is_sent = PQsendQueryPrepared(connection->link, part->statement->name, part->values.count, part->values.at,
                                      part->values.lens, part->values.formats, 0);
    }
    return is_sent;
}

static bool send_question(struct connection *connection, struct question *question)
{
    static const char *const words[] = {
        [QUESTION_BEGIN] = "BEGIN", [QUESTION_COMMIT] = "COMMIT", [QUESTION_ROLLBACK] = "ROLLBACK"
    };
    bool is_sent = true;

    for (size_t i = 0; i < question->part_count && is_sent; i++)
        is_sent = prepare(connection, question->parts[i].statement);
    depart(connection, question);
    if (!is_sent)
        return false;
    if (question->part_count)
        is_sent = send_parts(connection, question);
    else
        is_sent = PQsendQueryParams(connection->link, words[question->kind], 0, NULL, NULL, NULL, NULL, 0);
    return is_sent && PQpipelineSync(connection->link);
}

void connection_send(struct connection *connection, struct question *question)
{
    if (!send_question(connection, question))
        connection_lost(connection, ERR_GONE, NULL);
    else
        connection_flush(connection);
}

/* ---- connecting ---- */

static bool send_listen(struct connection *connection, const struct channel *channel)
{
    char listen[80];

    (void)snprintf(listen, sizeof listen, "LISTEN %s", channel->name);
    return send_own(connection, QUESTION_LISTEN, listen, 0, NULL);
}

void connection_listen(struct connection *connection, const struct channel *channel)
{
    if (connection->state != CONNECTION_GREETING && connection->state != CONNECTION_READY)
        return;
    if (send_listen(connection, channel))
        connection_flush(connection);
    else
        connection_lost(connection, ERR_GONE, NULL);
}

static bool greet(struct connection *connection)
{
    static const char greeting[] = "SELECT pg_catalog.set_config('search_path', 'qwen, pg_temp', false),"
                                   " pg_catalog.set_config('statement_timeout', $1, false),"
                                   " pg_catalog.set_config('idle_in_transaction_session_timeout', $1, false),"
                                   " pg_catalog.set_config('role', $2, false)";
    const struct store_options *options = &connection->store->options;
    char patience[24];
    const char *const values[] = { patience, *options->role ? options->role : "none" };

    (void)snprintf(patience, sizeof patience, "%lld", (long long)options->statement_timeout_ms);
    if (!send_own(connection, QUESTION_GREETING, greeting, 2, values))
        return false;
    for (struct channel *channel = connection->is_listener ? connection->store->channels : NULL; channel;
         channel = channel->next)
        if (!send_listen(connection, channel))
            return false;
    return true;
}

static void connected(struct connection *connection)
{
    struct event_base *base = connection->store->base;
    evutil_socket_t fd = PQsocket(connection->link);
    struct text why;

    text_init(&why, SENTENCE_BYTES);
    connection->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, connection);
    connection->writable = event_new(base, fd, EV_WRITE, on_writable, connection);
    connection->state = CONNECTION_GREETING;
    (void)PQsetNoticeReceiver(connection->link, on_notice, connection);
    if (!is_new_enough(connection->link, &why))
        connection_lost(connection, ERR_GONE, text_string(&why));
    else if (!connection->readable || !connection->writable || event_add(connection->readable, NULL) != 0)
        connection_lost(connection, ERR_GONE, err_text(ERR_NO_MEMORY));
    else if (PQsetnonblocking(connection->link, 1) != 0 || !PQenterPipelineMode(connection->link) || !greet(connection))
        connection_lost(connection, ERR_GONE, NULL);
    else
        connection_flush(connection);
    text_release(&why);
}

static void poll_again(struct connection *connection, short what)
{
    free_event(&connection->poll); /* the socket may be another one by now */
    connection->poll = event_new(connection->store->base, PQsocket(connection->link), what, on_poll, connection);
    if (!connection->poll || event_add(connection->poll, NULL) != 0)
        connection_lost(connection, ERR_GONE, err_text(ERR_NO_MEMORY));
}

static void on_poll(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    switch (PQconnectPoll(connection->link)) {
    case PGRES_POLLING_READING:
        poll_again(connection, EV_READ);
        break;
    case PGRES_POLLING_WRITING:
        poll_again(connection, EV_WRITE);
        break;
    case PGRES_POLLING_OK:
        free_event(&connection->poll);
        connected(connection);
        break;
    default:
        connection_lost(connection, ERR_GONE, NULL);
    }
}

void connection_start(struct connection *connection)
{
    struct store *store = connection->store;

    if (connection->state != CONNECTION_AWAY)
        return;
    connection->state = CONNECTION_CONNECTING;
    connection->since_ms = clock_ms();
    connection->link = connect_start(store->options.database, store->options.program);
    in_ms(connection->timer, store->options.connect_timeout_ms);
    if (!connection->link)
        connection_lost(connection, ERR_GONE, err_text(ERR_NO_MEMORY));
    else if (PQstatus(connection->link) == CONNECTION_BAD)
        connection_lost(connection, ERR_GONE, NULL);
    else
        poll_again(connection, EV_WRITE);
}

/* The listener asks for a sign of life: it would not notice otherwise that nobody tells it anything any more. */
static void look_at_silence(struct connection *connection)
{
    const struct store_options *options = &connection->store->options;
    int64_t patience_ms = options->statement_timeout_ms + options->connect_timeout_ms;
    int64_t silent_ms = clock_ms() - connection->since_ms;
    char why[96];

    if (connection->flights.first && silent_ms >= patience_ms) {
        (void)snprintf(why, sizeof why, "the database has not said a word for %lld ms", (long long)silent_ms);
        connection_lost(connection, ERR_TIMEOUT, why);
    } else if (connection->flights.first) {
        in_ms(connection->timer, patience_ms - silent_ms);
    } else if (connection->is_listener) {
        in_ms(connection->timer, options->statement_timeout_ms);
        if (send_own(connection, QUESTION_BEAT, "SELECT 1", 0, NULL))
            connection_flush(connection);
        else
            connection_lost(connection, ERR_GONE, NULL);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;
    char why[96];

    (void)fd;
    (void)what;
    switch (connection->state) {
    case CONNECTION_AWAY:
        connection_start(connection);
        break;
    case CONNECTION_CONNECTING:
    case CONNECTION_GREETING:
        (void)snprintf(why, sizeof why, "the database did not let us in within %lld ms",
                       (long long)connection->store->options.connect_timeout_ms);
        connection_lost(connection, ERR_GONE, why);
        break;
    case CONNECTION_READY:
        look_at_silence(connection);
    }
}
