/* One connection that blocks; and how every connection is asked for. */
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

struct session {
    PGconn *link;
};

/* A password with an @ in a URI ends up as part of the host, which sentences name. */
static bool has_stray_host(const PQconninfoOption *options)
{
    for (; options->keyword; options++)
        if (strcmp(options->keyword, "host") == 0 && options->val && strchr(options->val, '@') &&
            options->val[0] != '@')
            return true;
    return false;
}

enum err database_check(const char *database, struct text *why)
{
    char *words = NULL;
    PQconninfoOption *options = PQconninfoParse(database, &words);
    bool is_stray = options && has_stray_host(options);

    PQfreemem(words); /* it quotes what it stumbled over */
    if (!options)
        text_add_literal(why, "is not a connection string of PostgreSQL: write \"host=… dbname=… user=…\" or "
                              "\"postgresql://USER@HOST/DATABASE\"");
    else if (is_stray)
        text_add_literal(why, "has an @ in its host: write one that belongs to the password as %40");
    PQconninfoFree(options);
    return options && !is_stray ? ERR_OK : ERR_BAD;
}

bool database_has_secret(const char *database)
{
    PQconninfoOption *options = PQconninfoParse(database, NULL), *option = options;

    while (option && option->keyword && !(option->val && strchr(option->dispchar, '*')))
        option++;
    bool has_secret = option && option->keyword;
    PQconninfoFree(options);
    return has_secret;
}

PGconn *connect_start(const char *database, const char *program)
{
    const char *const keys[] = { "dbname", "fallback_application_name", "client_encoding", NULL };
    const char *const values[] = { database, program, "UTF8", NULL };

    return PQconnectStartParams(keys, values, 1);
}

static void say_nothing(void *arg, const PGresult *notice)
{
    (void)arg;
    (void)notice;
}

bool is_new_enough(const PGconn *link, struct text *why)
{
    int version = PQserverVersion(link);

    if (version >= STORE_MIN_SERVER)
        return true;
    text_printf(why, "the database is PostgreSQL %d, but 14 or newer is needed", version / 10000);
    return false;
}

struct session *session_open(const char *database, const char *program, int64_t connect_timeout_ms, struct text *why)
{
    struct session *session = calloc(1, sizeof *session);
    char seconds[24];
    const char *const keys[] = { "connect_timeout", "dbname", "fallback_application_name", "client_encoding", NULL };
    const char *const values[] = { seconds, database, program, "UTF8", NULL };

    /* libpq counts in seconds, and takes 1 for 2. */
    (void)snprintf(seconds, sizeof seconds, "%lld", (long long)((connect_timeout_ms + 999) / 1000));
    if (session)
        session->link = PQconnectdbParams(keys, values, 1);
    if (!session || !session->link) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
    } else if (PQstatus(session->link) != CONNECTION_OK) {
        text_add_literal(why, "the database cannot be reached: ");
        add_one_line(why, PQerrorMessage(session->link));
    } else if (is_new_enough(session->link, why)) {
        (void)PQsetNoticeReceiver(session->link, say_nothing, NULL);
        return session;
    }
    session_close(session);
    return NULL;
}

void session_close(struct session *session)
{
    if (!session)
        return;
    PQfinish(session->link);
    free(session);
}

static unsigned line_of(const char *script, const char *position)
{
    long at = strtol(position, NULL, 10); /* in characters, from 1 */
    unsigned line = 1;

    for (; *script && at > 1; script++) {
        at -= (*script & 0xc0) != 0x80;
        line += *script == '\n';
    }
    return line;
}

static enum err refuse(struct session *session, const char *script, const PGresult *result, struct text *why)
{
    const char *position = result_field(result, PG_DIAG_STATEMENT_POSITION),
               *hint = result_field(result, PG_DIAG_MESSAGE_HINT);
    struct failure failure;
    enum err err;

    failure_init(&failure);
    failure_from(&failure, "the database says", result);
    err = PQstatus(session->link) == CONNECTION_OK ? failure.err : ERR_GONE;
    if (script && *position)
        text_printf(why, "line %u: ", line_of(script, position));
    text_add_slice(why, text_slice(&failure.sentence));
    if (*hint) {
        text_add_literal(why, ". ");
        add_one_line(why, hint);
    }
    failure_release(&failure);
    return err;
}

enum err session_run(struct session *session, const char *script, struct text *why)
{
    PGresult *result = PQexec(session->link, script);
    enum err err = result_is_good(result) ? ERR_OK : refuse(session, script, result, why);

    PQclear(result);
    return err;
}

enum err session_ask(struct session *session, const char *sql, const struct value *values, size_t count,
                     struct rows *ret_rows, struct text *why)
{
    size_t bytes = wire_values_bytes(values, count);
    char *memory = bytes == SIZE_MAX ? NULL : malloc(bytes + 1), *at = memory;
    struct wire_values wire;
    PGresult *result;
    enum err err;

    if (!memory) {
        text_add_string(why, err_text(bytes == SIZE_MAX ? ERR_BAD : ERR_NO_MEMORY));
        return bytes == SIZE_MAX ? ERR_BAD : ERR_NO_MEMORY;
    }
    wire_values_write(&wire, values, count, &at);
    result = PQexecParams(session->link, sql, wire.count, NULL, wire.at, wire.lens, wire.formats, 0);
    free(memory);
    err = result_is_good(result) ? ERR_OK : refuse(session, NULL, result, why);
    if (err == ERR_OK)
        ret_rows->result = result;
    else
        PQclear(result);
    return err;
}
