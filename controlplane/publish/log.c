/*
 * Reading change_log. One statement sees both the rows and the newest version, so nothing of a version that it names is
 * missing: versions are given in the order of commits (0002). A page that is full may end within a version; what was
 * read of it waits in `bytes`.
 */
#include <stdlib.h>

#include "log.h"
#include "pack.h"
#include "parts.h"
#include "store.h"

enum { PAGE_ROWS = 500 };

/* What change_log_prune() leaves whatever it is told. */
static const uint64_t kept_versions = 100000;

static const struct statement read_statement = {
    .name = "publish_read",
    .sql = "SELECT h.version, c.version, c.seq, c.kind, c.id, c.body::text FROM config_head AS h "
           "LEFT JOIN LATERAL (SELECT * FROM change_log AS l WHERE (l.version, l.seq) > ($1::bigint, $2::int) "
           "ORDER BY l.version, l.seq LIMIT $3::int) AS c ON true ORDER BY c.version, c.seq",
    .is_repeatable = true,
};

enum column { COLUMN_HEAD, COLUMN_VERSION, COLUMN_SEQ, COLUMN_KIND, COLUMN_ID, COLUMN_BODY };

void log_forget(struct publish *publish)
{
    if (publish->reading.question)
        question_forget(publish->reading.question);
    publish->reading.question = NULL;
}

static void forget_part(struct reading *reading)
{
    text_clear(&reading->bytes);
    reading->changes = 0;
    reading->seq = -1;
}

/* The version behind the newest is whole. */
static void version_ends(struct publish *publish)
{
    struct reading *reading = &publish->reading;
    /* Larger than the tail's memory would ever keep: the same as too large for a frame. */
    size_t len = reading->bytes.err ? SIZE_MAX : reading->bytes.len;
    struct slice bytes = { reading->bytes.at, len };

    if (tail_add(&publish->tail, bytes, reading->changes, CODEC_MAX_CHANGES) != ERR_OK)
        log_warn("no memory for version %llu: gateways get a snapshot instead",
                 (unsigned long long)tail_newest(&publish->tail));
    forget_part(reading);
}

static void take_row(struct publish *publish, const struct rows *rows, size_t row)
{
    struct reading *reading = &publish->reading;
    uint64_t version = (uint64_t)rows_number(rows, row, COLUMN_VERSION);
    struct slice kind = rows_text(rows, row, COLUMN_KIND), id = rows_text(rows, row, COLUMN_ID), body = { 0 };

    while (tail_newest(&publish->tail) + 1 < version)
        version_ends(publish);
    if (!rows_is_null(rows, row, COLUMN_BODY))
        body = rows_text(rows, row, COLUMN_BODY);
    reading->seq = rows_number(rows, row, COLUMN_SEQ);
    reading->changes++;
    text_clear(&publish->why);
    if (pack_logged(kind, id, body, &reading->bytes, &publish->why) != ERR_OK && !reading->bytes.err)
        publish_left_out(publish, version, kind, id, text_slice(&publish->why));
}

/* So far behind that rows may have been pruned, or at the very beginning: from a little above what is kept. */
static bool begin_anew(struct publish *publish, uint64_t head)
{
    uint64_t keep = publish->tail.max_versions < kept_versions ? publish->tail.max_versions : kept_versions;

    if (publish->reading.has_begun && tail_newest(&publish->tail) <= head &&
        head - tail_newest(&publish->tail) <= kept_versions)
        return false;
    keep -= keep / 50;
    forget_part(&publish->reading);
    tail_reset(&publish->tail, head > keep ? head - keep : 0);
    publish->reading.has_begun = true;
    return true;
}

/* True: there is more to read. */
static bool take_page(struct publish *publish, const struct rows *rows)
{
    struct reading *reading = &publish->reading;
    size_t count = rows_count(rows);
    bool is_full = count == PAGE_ROWS;

    if (!count)
        return false; /* a database without its row of config_head: migrate_verify() has said so */
    reading->head = (uint64_t)rows_number(rows, 0, COLUMN_HEAD);
    if (begin_anew(publish, reading->head))
        return true;
    for (size_t row = 0; row < count && !rows_is_null(rows, row, COLUMN_VERSION); row++)
        take_row(publish, rows, row);
    while (!is_full && tail_newest(&publish->tail) < reading->head)
        version_ends(publish);
    return is_full;
}

static void on_read(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;
    struct reading *reading = &publish->reading;
    uint64_t before = tail_newest(&publish->tail);
    bool is_more = false;

    reading->question = NULL;
    if (answer->err == ERR_OK) {
        is_more = take_page(publish, &answer->rows[0]);
        reading->looks += !is_more;
    } else if (answer->err == ERR_BAD || answer->err == ERR_REFUSED) {
        log_error("the log of changes cannot be read, gateways get nothing new: %s", answer->sentence);
    }
    if (is_more || (reading->is_wanted && answer->err == ERR_OK))
        log_look(publish);
    if (answer->err == ERR_OK && (!is_more || tail_newest(&publish->tail) != before))
        publish_news(publish);
}

void log_look(struct publish *publish)
{
    struct reading *reading = &publish->reading;
    struct value values[] = { VALUE_NUMBER((int64_t)tail_newest(&publish->tail) + 1), VALUE_NUMBER(reading->seq),
                              VALUE_NUMBER(PAGE_ROWS) };
    const struct ask ask = { &read_statement, values, sizeof values / sizeof *values };

    if (!reading->has_begun) { /* no row, only where the database is */
        values[0] = VALUE_NUMBER(INT64_MAX);
        values[1] = VALUE_NUMBER(0);
    }
    reading->is_wanted = reading->question != NULL;
    if (reading->question)
        return;
    if (store_ask(publish->store, &ask, 1, on_read, publish, &reading->question) != ERR_OK)
        reading->question = NULL; /* the next tick asks again */
}
