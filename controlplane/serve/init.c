/* The first token: by a connection that blocks, in one transaction that nobody else can be in. */
#include <stdlib.h>

#include "account.h"
#include "migrate.h"
#include "serve.h"
#include "settings.h"
#include "store.h"

enum { WHO_BYTES = 512, BODY_BYTES = 1024, NAME_BYTES = 128, LOCK = 0x71770001 };

static const char program[] = "qwen-control";

static void tell_nobody(const char *line)
{
    (void)line;
}

/* Names and durations hold nothing that JSON would escape. */
static bool is_plain(const char *text, const char *letters, size_t max)
{
    size_t len = strlen(text);

    return len && len <= max && strspn(text, letters) == len;
}

static enum err check(const struct serve_first *first, struct text *why)
{
    static const char digits[] = "0123456789";
    size_t len = strlen(first->expires_in);

    if (!is_plain(first->name, "abcdefghijklmnopqrstuvwxyz0123456789._@+-", NAME_BYTES) ||
        strchr(".@+-", first->name[0])) {
        text_add_literal(why, "--name must be a name of lower-case letters, digits and . _ @ + - (128 at most)");
        return ERR_BAD;
    }
    if (len < 2 || len > 10 || strspn(first->expires_in, digits) != len - 1 ||
        !strchr("smhd", first->expires_in[len - 1])) {
        text_add_literal(why, "--expires must be a duration, such as 90d or 24h");
        return ERR_BAD;
    }
    return ERR_OK;
}

/* As the running program is: in its role, in the schema. */
static enum err enter(struct session *session, const struct settings *settings, struct text *why)
{
    static const char sql[] =
        "SELECT pg_catalog.set_config('search_path', 'qwen, pg_temp', true),"
        " pg_catalog.set_config('role', CASE $1 WHEN '' THEN current_user::text ELSE $1 END, true),"
        " pg_catalog.pg_advisory_xact_lock($2)";
    const struct value values[] = { VALUE_TEXT(slice_of(settings->database_role)), VALUE_NUMBER(LOCK) };
    struct rows rows;
    enum err err = session_run(session, "BEGIN", why);

    if (err == ERR_OK)
        err = session_ask(session, sql, values, 2, &rows, why);
    if (err == ERR_OK)
        rows_release(&rows);
    return err;
}

static enum err refuse_second(struct session *session, struct text *why)
{
    static const char sql[] =
        "SELECT name, to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"') FROM admin_token"
        " WHERE role = 'owner' AND revoked_at IS NULL AND expires_at > now() ORDER BY created_at LIMIT 1";
    struct rows rows;
    enum err err = session_ask(session, sql, NULL, 0, &rows, why);

    if (err != ERR_OK)
        return err;
    if (rows_count(&rows)) {
        text_printf(why,
                    "an owner's token is there already: %s, good until %s; whoever has it makes others with `qwadm "
                    "admin-token create`",
                    rows_text(&rows, 0, 0).at, rows_text(&rows, 0, 1).at);
        err = ERR_REFUSED;
    }
    rows_release(&rows);
    return err;
}

static enum err make(struct session *session, const struct serve_first *first, struct text *secret, struct text *why)
{
    static const char who[] = "{\"actor\":\"qwen-control init\"}";
    static const char sql[] = "SELECT body FROM admin_change($1::jsonb, 'admin_token_create', NULL, NULL, $2::jsonb)";
    char memory[BODY_BYTES];
    struct text body = text_over(memory, sizeof memory);
    struct new_secret made;
    struct value values[2];
    struct rows rows;
    enum err err;

    account_make_token(secret, &made);
    text_printf(&body, "{\"name\":\"%s\",\"role\":\"owner\",\"expires_in\":\"%s\",\"hash\":\"", first->name,
                first->expires_in);
    digest_add_hex(&body, &made.hash);
    text_add_literal(&body, "\"}");
    values[0] = VALUE_TEXT(SLICE(who));
    values[1] = VALUE_TEXT(text_slice(&body));
    err = session_ask(session, sql, values, 2, &rows, why);
    if (err == ERR_OK)
        rows_release(&rows);
    return err;
}

enum err serve_init(const struct settings *settings, const struct serve_first *first, struct text *secret,
                    struct text *why)
{
    const struct migrating migrating = {
        .database = settings->database,
        .program = program,
        .connect_timeout_ms = settings->database_connect_timeout_ms,
        .tell = tell_nobody,
    };
    struct session *session;
    enum err err = check(first, why);

    if (err == ERR_OK)
        err = migrate_status(&migrating, why);
    if (err != ERR_OK)
        return err;
    session = session_open(settings->database, program, settings->database_connect_timeout_ms, why);
    if (!session)
        return ERR_GONE;
    err = enter(session, settings, why);
    if (err == ERR_OK)
        err = refuse_second(session, why);
    if (err == ERR_OK)
        err = make(session, first, secret, why);
    if (err == ERR_OK)
        err = session_run(session, "COMMIT", why);
    session_close(session);
    return err;
}
