/* What the database says when it does not do it, in our words. */
#include <stdio.h>

#include "parts.h"

/* By SQLSTATE, or its class (two characters); the first that fits. */
static const struct {
    const char *state;
    enum err err;
} causes[] = {
    { "57014", ERR_TIMEOUT },                     /* statement_timeout */
    { "55P03", ERR_TIMEOUT },                     /* lock_timeout */
    { "25P03", ERR_TIMEOUT },                     /* idle_in_transaction_session_timeout */
    { "40", ERR_AGAIN },                          /* serialization, deadlock */
    { "57P", ERR_GONE },                          /* shutdown, crash, not up yet */
    { "08", ERR_GONE },       { "53", ERR_FULL }, /* disk, memory, connections */
    { "22021", ERR_BAD },                         /* not in the database's encoding */
    { "42501", ERR_REFUSED },                     /* not allowed */
    { "42", ERR_BAD }, /* no such table, a mistake in the SQL: not the schema of this program */
};

static enum err cause_of(const char *sqlstate)
{
    for (size_t i = 0; i < sizeof causes / sizeof *causes; i++)
        if (strncmp(sqlstate, causes[i].state, strlen(causes[i].state)) == 0)
            return causes[i].err;
    return ERR_REFUSED;
}

void failure_init(struct failure *failure)
{
    *failure = (struct failure){ .err = ERR_OK };
    text_init(&failure->sentence, SENTENCE_BYTES);
    text_init(&failure->message, SENTENCE_BYTES);
    text_init(&failure->detail, SENTENCE_BYTES);
}

void failure_release(struct failure *failure)
{
    text_release(&failure->sentence);
    text_release(&failure->message);
    text_release(&failure->detail);
}

void failure_set(struct failure *failure, enum err err, const char *format, ...)
{
    va_list args;

    if (failure->err != ERR_OK)
        return;
    failure->err = err;
    va_start(args, format);
    text_vprintf(&failure->sentence, format, args);
    va_end(args);
}

void add_one_line(struct text *out, const char *words)
{
    bool is_gap = false;

    for (; *words; words++) {
        if (strchr("\n\r\t ", *words)) {
            is_gap = true;
            continue;
        }
        if (is_gap && out->len)
            text_add_char(out, ' ');
        is_gap = false;
        text_add_char(out, (unsigned char)*words < 0x20 || *words == 0x7f ? '?' : *words);
    }
}

const char *result_field(const PGresult *result, int field)
{
    const char *words = PQresultErrorField(result, field);

    return words ? words : "";
}

bool result_is_good(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);

    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* The sentence is without the detail, which may quote values of rows. */
void failure_from(struct failure *failure, const char *what, const PGresult *result)
{
    const char *state = result_field(result, PG_DIAG_SQLSTATE), *words = result_field(result, PG_DIAG_MESSAGE_PRIMARY);

    if (failure->err != ERR_OK)
        return;
    failure->err = *state ? cause_of(state) : ERR_GONE;
    failure->is_wear = strcmp(state, "26000") == 0 ||
                       (strcmp(state, "0A000") == 0 &&
                        strcmp(result_field(result, PG_DIAG_SOURCE_FUNCTION), "RevalidateCachedQuery") == 0);
    (void)snprintf(failure->sqlstate, sizeof failure->sqlstate, "%s", state);
    (void)snprintf(failure->constraint, sizeof failure->constraint, "%s",
                   result_field(result, PG_DIAG_CONSTRAINT_NAME));
    add_one_line(&failure->message, words);
    add_one_line(&failure->detail, result_field(result, PG_DIAG_MESSAGE_DETAIL));
    text_printf(&failure->sentence, "%s: ", what);
    add_one_line(&failure->sentence, *words ? words : PQresultErrorMessage(result));
    if (*state)
        text_printf(&failure->sentence, " (SQLSTATE %s)", state);
}
