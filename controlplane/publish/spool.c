/*
 * Making a snapshot: one transaction that sees one moment, the keys in pages of a cursor (by their ids it takes six
 * times as long, since those are random and so is where the rows lie), then the rest. What it reads goes into a file
 * without a name, so it is gone when nobody holds it any more, whatever happens to us.
 *
 *     BEGIN ─► isolation ─► version ─► cursor ─► keys … ─► others ─► COMMIT ─► ready
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "pack.h"
#include "parts.h"
#include "store.h"

enum { PAGE_KEYS = 1000 }; /* as the statement says */

static const char unwritten[] = "it cannot be written, or there is no memory";

static const struct statement isolation_statement = {
    .name = "publish_isolation",
    .sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
};
static const struct statement version_statement = { .name = "publish_version",
                                                    .sql = "SELECT version FROM config_head" };
static const struct statement cursor_statement = {
    .name = "publish_cursor",
    .sql = "DECLARE published NO SCROLL CURSOR FOR SELECT id, hash, user_name, team_name, name, delegate, class, "
           "expires_s, "
           "weight, rpm, max_concurrent, array_to_string(models, ' '), array_to_string(allow, ' ') FROM published_key",
};
static const struct statement keys_statement = { .name = "publish_keys", .sql = "FETCH 1000 FROM published" };
static const struct statement others_statement = {
    .name = "publish_others",
    .sql = "SELECT kind, id, body::text FROM published_other ORDER BY kind, id",
};

void spool_release(struct spool *spool)
{
    if (spool->fd >= 0)
        (void)close(spool->fd);
    free(spool->pieces);
    *spool = (struct spool){ .fd = -1 };
}

bool spool_is_usable(const struct publish *publish, const struct spool *spool)
{
    return spool->fd >= 0 && spool->version >= publish->tail.base && spool->version <= tail_newest(&publish->tail);
}

/* --- its end --------------------------------------------------------------------------------------------- */

static void building_clear(struct building *building)
{
    spool_release(&building->spool);
    text_release(&building->piece);
    text_init(&building->piece, CODEC_MAX_CHANGES);
    building->is_open = false;
    building->transaction = NULL;
}

void building_cancel(struct publish *publish)
{
    if (publish->building.transaction)
        transaction_rollback(publish->building.transaction);
    building_clear(&publish->building);
}

/* The transaction is over, or is to be. */
static void fail(struct publish *publish, const char *why, bool is_over)
{
    struct building *building = &publish->building;

    log_warn("a snapshot for gateways could not be made, the next try is in %lld ms: %s",
             (long long)publish->options.spool_retry_ms, why);
    if (!is_over)
        transaction_rollback(building->transaction);
    building_clear(building);
    building->not_before_ms = clock_ms() + publish->options.spool_retry_ms;
}

static void on_committed(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;
    struct building *building = &publish->building;

    if (answer->err != ERR_OK) {
        fail(publish, answer->sentence, true);
        return;
    }
    digest_end(&building->sum, &building->spool.sum);
    spool_release(&publish->spool_before);
    publish->spool_before = publish->spool;
    publish->spool = building->spool;
    building->spool = (struct spool){ .fd = -1 };
    building_clear(building);
    building->is_wanted = false;
    publish->spools_made++;
    log_info("a snapshot of version %llu is ready for gateways: %llu objects, %llu bytes, made in %lld ms",
             (unsigned long long)publish->spool.version, (unsigned long long)publish->spool.changes,
             (unsigned long long)publish->spool.bytes, (long long)(clock_ms() - building->began_ms));
    publish_news(publish);
}

/* --- writing --------------------------------------------------------------------------------------------- */

static bool write_all(int fd, struct slice bytes, uint64_t at)
{
    while (bytes.len) {
        ssize_t done = pwrite(fd, bytes.at, bytes.len, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes = (struct slice){ bytes.at + done, bytes.len - (size_t)done };
        at += (size_t)done;
    }
    return true;
}

static bool piece_ends(struct building *building)
{
    struct spool *spool = &building->spool;

    if (spool->count == spool->room) {
        uint32_t room = spool->room ? 2 * spool->room : 16;
        struct piece *pieces = reallocarray(spool->pieces, room, sizeof *pieces);
        if (!pieces)
            return false;
        spool->pieces = pieces;
        spool->room = room;
    }
    if (!write_all(spool->fd, text_slice(&building->piece), spool->bytes))
        return false;
    digest_add(&building->sum, text_slice(&building->piece));
    spool->pieces[spool->count++] = (struct piece){ spool->bytes, (uint32_t)building->piece.len };
    spool->bytes += building->piece.len;
    text_clear(&building->piece);
    return true;
}

/* One change, packed, goes into the piece, or begins the next. */
static bool put(struct publish *publish)
{
    struct building *building = &publish->building;
    struct text *change = &publish->scratch;

    if (building->piece.len + change->len > CODEC_MAX_CHANGES && !piece_ends(building))
        return false;
    text_add_slice(&building->piece, text_slice(change));
    building->spool.changes++;
    return !building->piece.err;
}

static int file_without_name(const char *folder)
{
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    char *path;

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    if (asprintf(&path, "%s/qwen-control.XXXXXX", folder) < 0)
        return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    free(path);
    return fd;
}

/* --- reading --------------------------------------------------------------------------------------------- */

static void step(struct publish *publish, const struct statement *statement, const struct value *values, size_t count,
                 told *on_answer)
{
    const struct ask ask = { statement, values, count };

    if (transaction_ask(publish->building.transaction, &ask, 1, on_answer, publish) != ERR_OK)
        fail(publish, err_text(ERR_NO_MEMORY), false);
}

static bool take_other(struct publish *publish, const struct rows *rows, size_t row)
{
    struct slice kind = rows_text(rows, row, 0), id = rows_text(rows, row, 1), body = rows_text(rows, row, 2);

    text_clear(&publish->scratch);
    text_clear(&publish->why);
    if (pack_logged(kind, id, body, &publish->scratch, &publish->why) == ERR_OK)
        return put(publish);
    publish_left_out(publish, publish->building.spool.version, kind, id, text_slice(&publish->why));
    return true;
}

static void on_others(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;
    struct building *building = &publish->building;

    if (answer->err != ERR_OK) {
        fail(publish, answer->sentence, true);
        return;
    }
    for (size_t row = 0; row < rows_count(&answer->rows[0]); row++)
        if (!take_other(publish, &answer->rows[0], row)) {
            fail(publish, unwritten, false);
            return;
        }
    if ((building->piece.len || !building->spool.count) && !piece_ends(building))
        fail(publish, unwritten, false);
    else if (transaction_commit(building->transaction, on_committed, publish) != ERR_OK)
        fail(publish, err_text(ERR_NO_MEMORY), false);
}

static bool take_key(struct publish *publish, const struct rows *rows, size_t row)
{
    struct slice models = rows_text(rows, row, 11), allow = rows_text(rows, row, 12);
    struct key_row key = {
        .id = rows_text(rows, row, 0),
        .user = rows_text(rows, row, 2),
        .team = rows_text(rows, row, 3),
        .name = rows_text(rows, row, 4),
        .delegates = rows_bool(rows, row, 5),
        .class = rows_text(rows, row, 6),
        .expires_s = rows_number(rows, row, 7),
        .weight = rows_number(rows, row, 8),
        .rpm = rows_number(rows, row, 9),
        .max_concurrent = rows_number(rows, row, 10),
        .models = rows_is_null(rows, row, 11) ? NULL : &models,
        .allow = rows_is_null(rows, row, 12) ? NULL : &allow,
    };

    text_clear(&publish->scratch);
    text_clear(&publish->why);
    if (rows_bytes(rows, row, 1, key.hash, sizeof key.hash) &&
        pack_key(&key, &publish->scratch, &publish->why) == ERR_OK)
        return put(publish);
    publish_left_out(publish, publish->building.spool.version, SLICE("key"), key.id, text_slice(&publish->why));
    return true;
}

static void on_keys(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;
    const struct rows *rows = &answer->rows[0];
    size_t count;

    if (answer->err != ERR_OK) {
        fail(publish, answer->sentence, true);
        return;
    }
    count = rows_count(rows);
    for (size_t row = 0; row < count; row++)
        if (!take_key(publish, rows, row)) {
            fail(publish, unwritten, false);
            return;
        }
    if (count == PAGE_KEYS)
        step(publish, &keys_statement, NULL, 0, on_keys);
    else
        step(publish, &others_statement, NULL, 0, on_others);
}

static void on_cursor(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;

    if (answer->err != ERR_OK)
        fail(publish, answer->sentence, true);
    else
        step(publish, &keys_statement, NULL, 0, on_keys);
}

static void on_version(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;

    if (answer->err != ERR_OK || rows_count(&answer->rows[0]) != 1) {
        fail(publish, answer->sentence, answer->err != ERR_OK);
        return;
    }
    publish->building.spool.version = (uint64_t)rows_number(&answer->rows[0], 0, 0);
    step(publish, &cursor_statement, NULL, 0, on_cursor);
}

static void on_isolated(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;

    if (answer->err != ERR_OK)
        fail(publish, answer->sentence, true);
    else
        step(publish, &version_statement, NULL, 0, on_version);
}

static void on_begun(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;
    struct building *building = &publish->building;

    if (answer->err != ERR_OK) {
        fail(publish, answer->sentence, true);
        return;
    }
    building->spool.fd = file_without_name(publish->options.spool_folder);
    if (building->spool.fd < 0) {
        text_clear(&publish->why);
        text_printf(&publish->why, "%s: %s", publish->options.spool_folder, strerror(errno));
        fail(publish, text_string(&publish->why), false);
        return;
    }
    step(publish, &isolation_statement, NULL, 0, on_isolated);
}

static bool is_due(const struct publish *publish)
{
    const struct spool *spool = &publish->spool;
    uint64_t slack =
        spool->changes / 20 > publish->options.spool_slack ? spool->changes / 20 : publish->options.spool_slack;

    if (!publish->reading.looks)
        return false; /* where the log is, first */
    if (spool->fd < 0)
        return true;
    if (!spool_is_usable(publish, spool))
        return publish->building.is_wanted;
    return tail_changes_since(&publish->tail, spool->version) > slack;
}

void spool_consider(struct publish *publish, int64_t now_ms)
{
    struct building *building = &publish->building;

    if (building->is_open || now_ms < building->not_before_ms || !is_due(publish))
        return;
    building->is_open = true;
    building->began_ms = now_ms;
    digest_begin(&building->sum);
    if (store_begin(publish->store, on_begun, publish, &building->transaction) != ERR_OK) {
        building_clear(building);
        building->not_before_ms = now_ms + publish->options.spool_retry_ms;
    }
}
