/* The store while there is no database, and what it makes of values. With one: tests/e2e/test_store.py. */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "parts.h"

static const struct statement one = { "one", "SELECT 1", true };
static const struct ask ask_one = { .statement = &one };

struct heard {
    struct event_base *base;
    unsigned count, awaited;
    enum err err;
    bool may_be_done;
    char sentence[512];
};

static void on_told(void *arg, const struct answer *answer)
{
    struct heard *heard = arg;

    heard->err = answer->err;
    heard->may_be_done = answer->may_be_done;
    (void)snprintf(heard->sentence, sizeof heard->sentence, "%s", answer->sentence);
    if (++heard->count == heard->awaited)
        (void)event_base_loopbreak(heard->base);
}

static struct store *nowhere(struct event_base *base, int64_t wait_ms)
{
    const struct store_options options = {
        .database = "host=/nonexistent/qg dbname=qg user=qg",
        .role = "",
        .program = "test_store",
        .connections = 2,
        .pipeline = 4,
        .max_waiting = 3,
        .wait_timeout_ms = wait_ms,
        .connect_timeout_ms = 1000,
        .statement_timeout_ms = 1000,
        .reconnect_delay_ms = 10,
        .reconnect_max_ms = 20,
    };
    struct store *store;
    struct text why;

    text_init(&why, 1000);
    store = store_open(base, &options, &why);
    CHECK(store);
    CHECK_EQ(why.len, 0);
    CHECK(!store_is_up(store));
    text_release(&why);
    return store;
}

static int log_to_nobody(void)
{
    int before = dup(STDERR_FILENO);

    (void)fflush(stderr);
    CHECK(freopen("/dev/null", "w", stderr));
    return before;
}

static void log_again(int before)
{
    (void)dup2(before, STDERR_FILENO);
    (void)close(before);
}

TEST(what_waits_too_long_is_answered_with_the_reason)
{
    struct event_base *base = event_base_new();
    struct heard heard = { .base = base, .awaited = 2 };
    int errors = log_to_nobody();
    struct store *store = nowhere(base, 60);
    struct transaction *transaction = NULL;

    CHECK_EQ(store_ask(store, &ask_one, 1, on_told, &heard, NULL), ERR_OK);
    CHECK_EQ(store_begin(store, on_told, &heard, &transaction), ERR_OK);
    CHECK_EQ(heard.count, 0);
    (void)event_base_dispatch(base);
    log_again(errors);
    CHECK_EQ(heard.count, 2);
    CHECK_EQ(heard.err, ERR_TIMEOUT);
    CHECK(!heard.may_be_done);
    CHECK(strstr(heard.sentence, "no connection to the database within 60 ms: ") == heard.sentence);
    CHECK(strstr(heard.sentence, "/nonexistent/qg") && !strchr(heard.sentence, '\n'));
    CHECK(strstr(store_reason(store), "/nonexistent/qg"));
    store_close(store);
    event_base_free(base);
    CHECK_EQ(heard.count, 2);
}

TEST(only_so_many_may_wait_and_closing_answers_them)
{
    struct event_base *base = event_base_new();
    struct heard heard = { .base = base };
    struct store *store = nowhere(base, 60000);
    struct question *question = NULL;

    CHECK_EQ(store_ask(store, &ask_one, 1, on_told, &heard, NULL), ERR_OK);
    CHECK_EQ(store_ask(store, &ask_one, 1, on_told, &heard, NULL), ERR_OK);
    CHECK_EQ(store_ask(store, &ask_one, 1, on_told, &heard, &question), ERR_OK);
    CHECK_EQ(store_ask(store, &ask_one, 1, on_told, &heard, NULL), ERR_FULL);
    question_forget(question);
    CHECK_EQ(heard.count, 0);
    store_close(store);
    event_base_free(base);
    CHECK_EQ(heard.count, 2);
    CHECK_EQ(heard.err, ERR_GONE);
    CHECK_STR(heard.sentence, strlen(heard.sentence), "the program is ending");
}

TEST(a_text_that_postgresql_would_not_have_is_refused_at_once)
{
    struct event_base *base = event_base_new();
    struct store *store = nowhere(base, 60000);
    static const struct {
        struct slice text;
        enum err err;
    } rows[] = {
        { { "a\0b", 3 }, ERR_BAD }, { { "\xff", 1 }, ERR_BAD }, { { "\xed\xa0\x80", 3 }, ERR_BAD }, /* a surrogate */
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct value value = VALUE_TEXT(rows[i].text);
        const struct ask ask = { .statement = &one, .values = &value, .count = 1 };
        CHECK_EQ(store_ask(store, &ask, 1, on_told, NULL, NULL), rows[i].err);
    }
    store_close(store);
    event_base_free(base);
}

TEST(values_are_laid_out_as_libpq_takes_them)
{
    const struct value values[] = {
        VALUE_NULL,
        VALUE_TEXT(SLICE("a'b")),
        VALUE_TEXT(((struct slice){ NULL, 0 })),
        VALUE_BYTES(SLICE("\0\xff")),
        VALUE_NUMBER(INT64_MIN),
        VALUE_BOOL(true),
        VALUE_BOOL(false),
    };
    enum { COUNT = sizeof values / sizeof *values };
    size_t bytes = wire_values_bytes(values, COUNT);
    char *memory = malloc(bytes), *at = memory;
    struct wire_values wire;

    CHECK(memory);
    wire_values_write(&wire, values, COUNT, &at);
    CHECK_EQ(at - memory, bytes);
    CHECK_EQ(wire.count, COUNT);
    CHECK(!wire.at[0]);
    CHECK_STR(wire.at[1], strlen(wire.at[1]), "a'b");
    CHECK(wire.at[2] && !*wire.at[2]);
    CHECK_EQ(wire.formats[1], 0);
    CHECK_EQ(wire.lens[3], 2);
    CHECK_EQ(wire.formats[3], 1);
    CHECK_EQ(memcmp(wire.at[3], "\0\xff", 2), 0);
    CHECK_STR(wire.at[4], strlen(wire.at[4]), "-9223372036854775808");
    CHECK_STR(wire.at[5], strlen(wire.at[5]), "t");
    CHECK_STR(wire.at[6], strlen(wire.at[6]), "f");
    free(memory);
}

TEST(a_list_keeps_its_order_at_both_ends)
{
    struct question questions[3] = { 0 };
    struct question_list list;

    list_init(&list);
    CHECK(!list_take(&list));
    list_add(&list, &questions[1]);
    list_add(&list, &questions[2]);
    list_add_front(&list, &questions[0]);
    for (unsigned i = 0; i < 3; i++)
        CHECK(list_take(&list) == &questions[i]);
    CHECK(!list_take(&list));
    list_add_front(&list, &questions[0]);
    list_add(&list, &questions[1]);
    CHECK(list_take(&list) == &questions[0] && list_take(&list) == &questions[1] && !list_take(&list));
}

TEST(what_libpq_says_becomes_one_line)
{
    struct text line;

    text_init(&line, 100);
    add_one_line(&line, "\n first:\n\tsecond  third\x01\n");
    CHECK_STR(text_string(&line), line.len, "first: second third?");
    text_release(&line);
}

TEST(a_connection_string_is_refused_without_being_quoted)
{
    static const struct {
        const char *database, *why;
    } rows[] = {
        { "", "" },
        { "host=/run dbname=qwen user=qwen_control", "" },
        { "postgresql://qwen:hunter2@db.example.org:5433/qwen?sslmode=require", "" },
        { "host=@abstract", "" },
        { "password=hunter2 oops", "is not a connection string of PostgreSQL: " },
        { "password=hunter2 hunter=2", "is not a connection string of PostgreSQL: " },
        { "host='unfinished", "is not a connection string of PostgreSQL: " },
        { "postgresql://qwen:hun@ter2@db/qwen", "has an @ in its host: " },
        { "http://db/qwen", "is not a connection string of PostgreSQL: " },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text why;
        enum err err;
        text_init(&why, 1000);
        err = database_check(rows[i].database, &why);
        CHECK_ROW(err == (*rows[i].why ? ERR_BAD : ERR_OK), rows[i].database);
        CHECK_ROW(strncmp(text_string(&why), rows[i].why, strlen(rows[i].why)) == 0, rows[i].database);
        CHECK_ROW(!strstr(text_string(&why), "hun"), rows[i].database);
        text_release(&why);
    }
    CHECK(database_has_secret("postgresql://qwen:hunter2@db/qwen"));
    CHECK(database_has_secret("host=db password=x"));
    CHECK(!database_has_secret("host=db user=password"));
    CHECK(!database_has_secret(""));
}

/* The one may mean that it was done, and it must not be asked again: a change would be made twice. */
TEST(what_libpq_says_of_a_server_that_is_gone_is_not_the_servers_word)
{
    struct question question = { .kind = QUESTION_ASK };

    failure_init(&question.failure);
    question.failure.err = ERR_GONE;
    CHECK(!question_is_undone(&question));
    memcpy(question.failure.sqlstate, "57P01", sizeof "57P01");
    CHECK(question_is_undone(&question));
    failure_release(&question.failure);
}
