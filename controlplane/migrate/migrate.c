/* What is applied, what is missing, and what does not fit together. */
#include "migrate.h"

#include <stdio.h>
#include <stdlib.h>

#include "digest.h"
#include "store.h"

enum { LOCK_BYTES = 64, WORDS_BYTES = 4096 };

/* Held while the history is read and added to: "qwenmigr". */
#define LOCK_NUMBER INT64_C(0x7177656e6d696772)

static void checksum_of(const struct migration *migration, struct digest *ret_digest)
{
    digest_sha256((struct slice){ (const char *)migration->sql, migration->bytes }, ret_digest);
}

/*
 * The history against the program's: how many are applied. ERR_BAD: it differs, or goes further.
 * rows: id, name, checksum; in the order of id.
 */
static enum err judge(const struct rows *rows, unsigned *ret_applied, struct text *why)
{
    size_t count = rows_count(rows), known = count < migration_count ? count : migration_count;

    for (size_t i = 0; i < known; i++) {
        struct slice name = rows_text(rows, i, 1);
        struct digest own, applied;
        checksum_of(&migrations[i], &own);
        if (rows_number(rows, i, 0) != (int64_t)i + 1 || !slice_is(name, slice_of(migrations[i].name))) {
            text_printf(why, "the database's history is not this program's: its migration %zu is %.*s, here it is %s",
                        i + 1, (int)name.len, name.at, migrations[i].name);
            return ERR_BAD;
        }
        if (!rows_bytes(rows, i, 2, applied.bytes, sizeof applied.bytes) || !digest_is(&applied, &own)) {
            text_printf(
                why,
                "the database's history is not this program's: %s was applied with another text (its checksum differs)",
                migrations[i].name);
            return ERR_BAD;
        }
    }
    if (count > migration_count) {
        struct slice name = rows_text(rows, count - 1, 1);
        text_printf(
            why, "the database is newer than this program: it has %.*s, the last one here is %s; start a newer program",
            (int)name.len, name.at, migrations[migration_count - 1].name);
        return ERR_BAD;
    }
    *ret_applied = (unsigned)count;
    return ERR_OK;
}

/* rows stay empty where there is no history at all. */
static enum err read_history(struct session *session, struct rows *ret_rows, struct text *why)
{
    static const char asks[] = "SELECT to_regclass('qwen.schema_migration') IS NOT NULL";
    static const char reads[] =
        "SELECT id, name, checksum, to_char(applied_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
        " FROM qwen.schema_migration ORDER BY id";
    struct rows rows = { 0 };
    enum err err = session_ask(session, asks, NULL, 0, &rows, why);
    bool is_there = err == ERR_OK && rows_bool(&rows, 0, 0);

    rows_release(&rows);
    return is_there ? session_ask(session, reads, NULL, 0, ret_rows, why) : err;
}

static enum err read_applied(struct session *session, unsigned *ret_applied, struct text *why)
{
    struct rows rows = { 0 };
    enum err err = read_history(session, &rows, why);

    *ret_applied = 0;
    if (err == ERR_OK && rows.result)
        err = judge(&rows, ret_applied, why);
    rows_release(&rows);
    return err;
}

/* ---- applying ---- */

static enum err lock(struct session *session, const struct migrating *migrating, struct text *why)
{
    static const char tries[] = "SELECT pg_try_advisory_lock($1)", waits[] = "SELECT pg_advisory_lock($1)";
    const struct value number = VALUE_NUMBER(LOCK_NUMBER);
    struct rows rows = { 0 };
    enum err err = session_ask(session, tries, &number, 1, &rows, why);
    bool is_ours = err == ERR_OK && rows_bool(&rows, 0, 0);

    rows_release(&rows);
    if (err != ERR_OK || is_ours)
        return err;
    migrating->tell("somebody else is migrating this database: waiting until that is done");
    err = session_ask(session, waits, &number, 1, &rows, why);
    rows_release(&rows);
    return err;
}

/* The script and its row in the history, or neither. */
static enum err apply_within(struct session *session, unsigned index, struct text *why)
{
    static const char writes[] = "INSERT INTO qwen.schema_migration (id, name, checksum) VALUES ($1, $2, $3)";
    static const char as_owner[] = "SET LOCAL ROLE qwen_owner; SET LOCAL search_path = qwen, pg_temp";
    const struct migration *migration = &migrations[index];
    struct rows rows = { 0 };
    struct digest digest;
    enum err err = ERR_OK;

    checksum_of(migration, &digest);
    const struct value values[] = { VALUE_NUMBER(index + 1), VALUE_TEXT(slice_of(migration->name)),
                                    VALUE_BYTES(((struct slice){ (const char *)digest.bytes, sizeof digest.bytes })) };
    if (index) /* the first one makes the role */
        err = session_run(session, as_owner, why);
    if (err == ERR_OK)
        err = session_run(session, (const char *)migration->sql, why);
    if (err == ERR_OK)
        err = session_ask(session, writes, values, sizeof values / sizeof *values, &rows, why);
    rows_release(&rows);
    return err;
}

static enum err apply(struct session *session, unsigned index, const struct migrating *migrating, struct text *why)
{
    const char *name = migrations[index].name;
    struct text words;
    enum err err;

    text_init(&words, WORDS_BYTES);
    err = session_run(session, "BEGIN", &words);
    if (err == ERR_OK)
        err = apply_within(session, index, &words);
    if (err == ERR_OK)
        err = session_run(session, "COMMIT", &words);
    if (err != ERR_OK) { /* closing the session takes it back */
        text_printf(why, "%s was not applied, nothing of it is left: %s", name, text_string(&words));
    } else {
        text_clear(&words);
        text_printf(&words, "applied %s", name);
        migrating->tell(text_string(&words));
    }
    text_release(&words);
    return err;
}

static enum err apply_missing(struct session *session, const struct migrating *migrating, struct text *why)
{
    unsigned applied = 0;
    char line[128];
    enum err err = session_run(session, "SET statement_timeout = 0; SET lock_timeout = 0", why);

    if (err == ERR_OK)
        err = lock(session, migrating, why);
    if (err == ERR_OK)
        err = read_applied(session, &applied, why);
    if (err == ERR_OK && applied == migration_count) {
        (void)snprintf(line, sizeof line, "nothing to do: the database is at %s", migrations[applied - 1].name);
        migrating->tell(line);
    }
    for (; err == ERR_OK && applied < migration_count; applied++)
        err = apply(session, applied, migrating, why);
    return err;
}

enum err migrate_run(const struct migrating *migrating, struct text *why)
{
    struct session *session = session_open(migrating->database, migrating->program, migrating->connect_timeout_ms, why);
    enum err err = session ? apply_missing(session, migrating, why) : ERR_GONE;

    session_close(session);
    return err;
}

/* ---- looking ---- */

static void tell_each(const struct rows *rows, const struct migrating *migrating)
{
    size_t applied = rows->result ? rows_count(rows) : 0;
    struct text line;

    text_init(&line, WORDS_BYTES);
    for (size_t i = 0; i < applied || i < migration_count; i++) {
        text_clear(&line);
        if (i < applied)
            text_printf(&line, "%.*s applied %s", (int)rows_text(rows, i, 1).len, rows_text(rows, i, 1).at,
                        rows_text(rows, i, 3).at);
        else
            text_printf(&line, "%s missing", migrations[i].name);
        migrating->tell(text_string(&line));
    }
    text_release(&line);
}

static enum err behind(unsigned applied, struct text *why)
{
    if (applied == migration_count)
        return ERR_OK;
    text_printf(why, "the database is older than this program: %s is missing; run qwen-control migrate",
                migrations[applied].name);
    return ERR_NOT_FOUND;
}

enum err migrate_status(const struct migrating *migrating, struct text *why)
{
    struct session *session = session_open(migrating->database, migrating->program, migrating->connect_timeout_ms, why);
    struct rows rows = { 0 };
    unsigned applied = 0;
    enum err err = session ? read_history(session, &rows, why) : ERR_GONE;

    if (err == ERR_OK) {
        tell_each(&rows, migrating);
        if (rows.result)
            err = judge(&rows, &applied, why);
    }
    if (err == ERR_OK)
        err = behind(applied, why);
    rows_release(&rows);
    session_close(session);
    return err;
}

struct verifying {
    void (*on_verified)(void *arg, enum err err, const char *why);
    void *arg;
};

static void on_history(void *arg, const struct answer *answer)
{
    struct verifying *verifying = arg;
    unsigned applied = 0;
    struct text why;
    enum err err = answer->err;

    text_init(&why, WORDS_BYTES);
    if (err == ERR_OK)
        err = judge(&answer->rows[0], &applied, &why);
    else if (strcmp(answer->sqlstate, "42P01") == 0) /* no such table */
        err = ERR_OK;
    else
        text_add_string(&why, answer->sentence);
    if (err == ERR_OK)
        err = behind(applied, &why);
    verifying->on_verified(verifying->arg, err, text_string(&why));
    text_release(&why);
    free(verifying);
}

enum err migrate_verify(struct store *store, void (*on_verified)(void *arg, enum err err, const char *why), void *arg)
{
    static const struct statement statement = { "schema_migration_list",
                                                "SELECT id, name, checksum FROM schema_migration ORDER BY id",
                                                .is_repeatable = true };
    const struct ask ask = { .statement = &statement };
    struct verifying *verifying = malloc(sizeof *verifying);
    enum err err;

    if (!verifying)
        return ERR_NO_MEMORY;
    *verifying = (struct verifying){ on_verified, arg };
    err = store_ask(store, &ask, 1, on_history, verifying, NULL);
    if (err != ERR_OK)
        free(verifying);
    return err;
}
