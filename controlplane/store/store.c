/*
 * The pool: what waits for a connection, who gets one, and transactions that keep theirs.
 *
 * Nothing is sent by those who ask: they put it on a list, and on_pump() sends at the end of the turn of the loop. So
 * no callback finds a connection in the middle of something, and what one turn asks goes out together.
 */
#include <assert.h>
#include <event2/event.h>
#include <stdlib.h>

#include "clock.h"
#include "log.h"
#include "parts.h"

static void in_ms(struct event *timer, int64_t ms)
{
    struct timeval wait = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

    (void)event_add(timer, &wait);
}

void store_pump(struct store *store)
{
    event_active(store->pump, EV_TIMEOUT, 0);
}

unsigned store_statement(struct store *store, const struct statement *statement)
{
    for (unsigned i = 0; i < store->statement_count; i++)
        if (store->statements[i] == statement)
            return i;
    assert(store->statement_count < MAX_STATEMENTS && strlen(statement->name) < 64);
    store->statements[store->statement_count] = statement;
    return store->statement_count++;
}

/* ---- sending ---- */

/* The one with the least to do; for a transaction one that has nothing to do. */
static struct connection *pick(struct store *store, const struct question *question)
{
    struct connection *best = NULL;

    for (unsigned i = 0; i < store->options.connections; i++) {
        struct connection *connection = &store->connections[i];
        if (connection_has_room(connection) && (!best || connection->flight_count < best->flight_count))
            best = connection;
    }
    return best && (question->kind != QUESTION_BEGIN || !best->flight_count) ? best : NULL;
}

static void send_step(struct question *question)
{
    struct transaction *transaction = question->transaction;

    if (transaction->connection) {
        connection_send(transaction->connection, question);
    } else if (question->kind == QUESTION_ROLLBACK) {
        transaction_free(transaction);
    } else {
        failure_set(&question->failure, ERR_GONE, "the connection of this transaction was lost between its steps");
        question_answer(question, false);
        transaction_free(transaction);
    }
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
    struct store *store = arg;
    struct connection *connection;
    struct question *question;

    (void)fd;
    (void)what;
    while ((question = list_take(&store->steps)))
        send_step(question);
    while (store->waiting.first && (connection = pick(store, store->waiting.first))) {
        question = list_take(&store->waiting);
        store->waiting_count--;
        if (question->kind == QUESTION_BEGIN) {
            connection->transaction = question->transaction;
            question->transaction->connection = connection;
        }
        connection_send(connection, question);
    }
}

/* ---- waiting ---- */

static void await_connection(struct store *store, struct question *question)
{
    question->deadline_ms = clock_ms() + store->options.wait_timeout_ms;
    store->waiting_count++;
    if (!event_pending(store->patience, EV_TIMEOUT, NULL))
        in_ms(store->patience, store->options.wait_timeout_ms);
}

static void give_up(struct store *store, struct question *question)
{
    struct transaction *transaction = question->transaction;

    failure_set(&question->failure, ERR_TIMEOUT, "no connection to the database within %lld ms%s%s",
                (long long)store->options.wait_timeout_ms, store->reason.len ? ": " : "", text_string(&store->reason));
    question_answer(question, false);
    if (transaction)
        transaction_free(transaction);
}

static void on_patience(evutil_socket_t fd, short what, void *arg)
{
    struct store *store = arg;
    struct question_list all = store->waiting, late;
    int64_t now = clock_ms(), next = INT64_MAX;

    (void)fd;
    (void)what;
    if (!all.first)
        return;
    list_init(&store->waiting);
    list_init(&late);
    for (struct question *question; (question = list_take(&all));) {
        if (question->deadline_ms <= now) {
            list_add(&late, question);
            store->waiting_count--;
            continue;
        }
        list_add(&store->waiting, question);
        next = question->deadline_ms < next ? question->deadline_ms : next;
    }
    if (next != INT64_MAX)
        in_ms(store->patience, next - now);
    for (struct question *question; (question = list_take(&late));)
        give_up(store, question);
}

void store_ask_again(struct store *store, struct question_list *questions)
{
    if (!questions->first)
        return;
    for (struct question *question = questions->first; question; question = question->next)
        await_connection(store, question);
    *questions->end = store->waiting.first;
    if (!store->waiting.first)
        store->waiting.end = questions->end;
    store->waiting.first = questions->first;
    list_init(questions);
    store_pump(store);
}

static enum err may_ask(const struct store *store)
{
    if (store->is_closing)
        return ERR_GONE;
    return store->waiting_count >= store->options.max_waiting ? ERR_FULL : ERR_OK;
}

enum err store_ask(struct store *store, const struct ask *asks, size_t count, told *on_answer, void *arg,
                   struct question **ret_question)
{
    struct question *question = NULL;
    enum err err = may_ask(store);

    assert(count);
    if (err == ERR_OK)
        err = question_new(store, QUESTION_ASK, asks, count, &question);
    if (err != ERR_OK)
        return err;
    question->on_answer = on_answer;
    question->arg = arg;
    list_add(&store->waiting, question);
    await_connection(store, question);
    store_pump(store);
    if (ret_question)
        *ret_question = question;
    return ERR_OK;
}

void question_forget(struct question *question)
{
    question->on_answer = NULL;
}

/* ---- transactions ---- */

void transaction_free(struct transaction *transaction)
{
    *transaction->back = transaction->next;
    if (transaction->next)
        transaction->next->back = transaction->back;
    question_free(&transaction->rollback);
    free(transaction);
}

void transaction_end(struct transaction *transaction)
{
    list_add(&transaction->store->steps, &transaction->rollback);
    store_pump(transaction->store);
}

static struct transaction *transaction_new(struct store *store)
{
    struct transaction *transaction = calloc(1, sizeof *transaction);

    if (!transaction)
        return NULL;
    transaction->store = store;
    transaction->rollback =
        (struct question){ .store = store, .transaction = transaction, .kind = QUESTION_ROLLBACK, .is_embedded = true };
    failure_init(&transaction->rollback.failure);
    transaction->next = store->transactions;
    transaction->back = &store->transactions;
    if (transaction->next)
        transaction->next->back = &transaction->next;
    store->transactions = transaction;
    return transaction;
}

enum err store_begin(struct store *store, told *on_begun, void *arg, struct transaction **ret_transaction)
{
    struct question *question = NULL;
    enum err err = may_ask(store);

    if (err == ERR_OK)
        err = question_new(store, QUESTION_BEGIN, NULL, 0, &question);
    if (err != ERR_OK)
        return err;
    question->transaction = transaction_new(store);
    if (!question->transaction) {
        question_free(question);
        return ERR_NO_MEMORY;
    }
    question->transaction->open = question;
    question->on_answer = on_begun;
    question->arg = arg;
    list_add(&store->waiting, question);
    await_connection(store, question);
    store_pump(store);
    *ret_transaction = question->transaction;
    return ERR_OK;
}

static enum err step(struct transaction *transaction, enum question_kind kind, const struct ask *asks, size_t count,
                     told *on_answer, void *arg)
{
    struct store *store = transaction->store;
    struct question *question = NULL;
    enum err err = store->is_closing ? ERR_GONE : question_new(store, kind, asks, count, &question);

    assert(!transaction->open && !transaction->is_abandoned);
    if (err != ERR_OK)
        return err;
    question->transaction = transaction;
    question->on_answer = on_answer;
    question->arg = arg;
    transaction->open = question;
    list_add(&store->steps, question);
    store_pump(store);
    return ERR_OK;
}

enum err transaction_ask(struct transaction *transaction, const struct ask *asks, size_t count, told *on_answer,
                         void *arg)
{
    assert(count);
    return step(transaction, QUESTION_STEP, asks, count, on_answer, arg);
}

enum err transaction_commit(struct transaction *transaction, told *on_answer, void *arg)
{
    return step(transaction, QUESTION_COMMIT, NULL, 0, on_answer, arg);
}

void transaction_rollback(struct transaction *transaction)
{
    transaction->is_abandoned = true;
    if (transaction->open)
        transaction->open->on_answer = NULL; /* what comes of it ends the rest */
    else
        transaction_end(transaction);
}

/* ---- news of connections ---- */

bool store_is_up(const struct store *store)
{
    return store->ready_count != 0;
}

const char *store_reason(const struct store *store)
{
    return text_string(&store->reason);
}

void store_is_ready(struct store *store, const struct connection *connection)
{
    (void)connection;
    store->ready_count++;
    text_clear(&store->reason);
    if (store->was_told_away)
        log_info("the database answers again");
    store->was_told_away = false;
    if (store->ready_count == 1) /* who waits for its next attempt need not */
        for (unsigned i = 0; i < store->options.connections; i++)
            connection_start(&store->connections[i]);
}

void store_is_away(struct store *store, const struct connection *connection, bool was_ready, const char *why)
{
    (void)connection;
    store->ready_count -= was_ready;
    if (store->ready_count || store->is_closing)
        return;
    text_clear(&store->reason);
    text_add_string(&store->reason, why);
    if (!store->was_told_away)
        log_warn("the database does not answer (%s), it is asked again at least every %lld ms", why,
                 (long long)store->options.reconnect_max_ms);
    store->was_told_away = true;
}

void store_is_renewed(struct store *store)
{
    store->ready_count--;
}

void store_wake(struct store *store, const char *channel_name, const char *payload)
{
    store->depth++;
    for (struct channel *channel = store->channels; channel; channel = channel->next)
        if (!channel_name || strcmp(channel->name, channel_name) == 0)
            channel->on_wake(channel->arg, payload);
    store->depth--;
}

/* Once it listens, it says so by waking everybody. */
static bool start_listener(struct store *store)
{
    if (!store->listener) {
        store->listener = calloc(1, sizeof *store->listener);
        if (!store->listener || !connection_init(store->listener, store, true)) {
            free(store->listener);
            store->listener = NULL;
            return false;
        }
        in_ms(store->listener->timer, 0);
    }
    return true;
}

enum err store_listen(struct store *store, const char *name, void (*on_wake)(void *arg, const char *payload), void *arg)
{
    struct channel *channel = calloc(1, sizeof *channel);

    assert(*name && strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name));
    if (!channel || !start_listener(store)) {
        free(channel);
        return ERR_NO_MEMORY;
    }
    *channel = (struct channel){ .next = store->channels, .name = name, .on_wake = on_wake, .arg = arg };
    store->channels = channel;
    connection_listen(store->listener, channel);
    return ERR_OK;
}

/* ---- open and close ---- */

struct store *store_open(struct event_base *base, const struct store_options *options, struct text *why)
{
    struct store *store = calloc(1, sizeof *store + options->connections * sizeof(struct connection));
    bool is_good = store != NULL;

    assert(options->connections && options->pipeline);
    if (is_good) {
        store->base = base;
        store->options = *options;
        list_init(&store->waiting);
        list_init(&store->steps);
        text_init(&store->reason, SENTENCE_BYTES);
        text_add_literal(&store->reason, "not connected yet");
        store->pump = event_new(base, -1, 0, on_pump, store);
        store->patience = event_new(base, -1, 0, on_patience, store);
        is_good = store->pump && store->patience;
        for (unsigned i = 0; i < options->connections; i++)
            is_good = connection_init(&store->connections[i], store, false) && is_good;
    }
    if (is_good) {
        for (unsigned i = 0; i < options->connections; i++)
            in_ms(store->connections[i].timer, 0); /* from the loop, so that nobody is called before this returns */
        return store;
    }
    text_printf(why, "the store cannot be opened: %s", err_text(ERR_NO_MEMORY));
    if (store)
        store_close(store);
    return NULL;
}

static void answer_all(struct question_list *questions)
{
    for (struct question *question; (question = list_take(questions));) {
        if (question->is_embedded)
            continue;
        failure_set(&question->failure, ERR_GONE, "the program is ending");
        question_answer(question, false);
    }
}

void store_close(struct store *store)
{
    if (!store)
        return;
    assert(!store->depth);
    store->is_closing = true;
    answer_all(&store->waiting);
    answer_all(&store->steps);
    for (unsigned i = 0; i < store->options.connections; i++) {
        if (store->connections[i].link)
            connection_lost(&store->connections[i], ERR_GONE, "the program is ending");
        connection_release(&store->connections[i]);
    }
    if (store->listener) {
        if (store->listener->link)
            connection_lost(store->listener, ERR_GONE, "the program is ending");
        connection_release(store->listener);
        free(store->listener);
    }
    while (store->transactions)
        transaction_free(store->transactions);
    for (struct channel *channel; (channel = store->channels);) {
        store->channels = channel->next;
        free(channel);
    }
    if (store->pump)
        event_free(store->pump);
    if (store->patience)
        event_free(store->patience);
    text_release(&store->reason);
    free(store);
}
