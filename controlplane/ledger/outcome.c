/* From what the database says to what the admin API answers. */
#include "parts.h"
#include "store.h"

struct problem {
    const char *state;      /* SQLSTATE, or its beginning */
    const char *constraint; /* or "": any */
    unsigned status;
    const char *code, *detail; /* detail NULL: the database's own words, which are ours */
    const char *pointer;
};

/* The first that fits. */
static const struct problem problems[] = {
    { "QW400", "", 400, "bad_value", NULL, NULL },
    { "QW404", "", 404, "not_found", NULL, NULL },
    { "QW409", "", 409, "version_conflict", NULL, NULL },
    { "QW410", "", 410, "gone", NULL, NULL },
    { "QW422", "", 422, "idempotency_mismatch", NULL, NULL },
    { "QW503", "", 503, "not_leader", NULL, NULL },
    { "QWDUP", "", 409, "already_exists", NULL, NULL },
    { "QWUSE", "", 409, "in_use", NULL, NULL },
    /* What two do at the same moment, past each other's checks. */
    { "23505", "gateway_name_key", 409, "already_exists", "there is a gateway of this name already", "/name" },
    { "23505", "admin_token_name_key", 409, "already_exists", "there is a token of this name already", "/name" },
    { "23505", "", 409, "already_exists", "there is one like this already", "" },
    { "23503", "idempotency_token_id_fkey", 400, "bad_value", "there is no such token", "" },
    { "23503", "audit_log_token_id_fkey", 400, "bad_value", "there is no such token", "" },
    { "23503", "", 409, "in_use", "something else still needs it", "" },
    { "23", "", 400, "bad_value", "a value is not one of those that are possible here", "" },
    { "22P05", "", 400, "bad_value", "a text has the character U+0000 in it", "" },
    { "22003", "", 400, "bad_value", "a number is too large", "" },
    { "22", "", 400, "bad_value", "a value is not of the kind that is needed here", "" },
    { "54", "", 400, "bad_value", "a value is too long", "" },
    { "25006", "", 503, "database_away", "the database takes no changes at present", "" },
};

static bool fits(const struct problem *problem, const struct answer *answer)
{
    return strncmp(answer->sqlstate, problem->state, strlen(problem->state)) == 0 &&
           (!*problem->constraint || strcmp(answer->constraint, problem->constraint) == 0);
}

/* A refusal, which is for whoever asked. */
static bool is_known(const struct answer *answer, struct outcome *outcome)
{
    const struct problem *end = problems + sizeof problems / sizeof *problems;

    for (const struct problem *problem = problems; problem < end; problem++) {
        if (!fits(problem, answer))
            continue;
        outcome->status = problem->status;
        outcome->code = problem->code;
        outcome->detail = slice_of(problem->detail ? problem->detail : answer->message);
        outcome->pointer = slice_of(problem->detail ? problem->pointer : answer->detail);
        if (problem->status < 500)
            outcome->err = ERR_REFUSED;
        else
            outcome->sentence = answer->sentence;
        return true;
    }
    return false;
}

static const char *why_away(const struct answer *answer)
{
    if (answer->may_be_done)
        return "the connection to the database was lost; whether it happened is not known";
    switch (answer->err) {
    case ERR_TIMEOUT:
        return "the database takes too long; nothing has happened";
    case ERR_FULL:
        return "the database is short of memory or disk; nothing has happened";
    case ERR_AGAIN:
        return "two changes were in each other's way; nothing of this one has happened";
    default:
        return "the database is not there; nothing has happened";
    }
}

void outcome_from(const struct answer *answer, struct outcome *ret_outcome)
{
    *ret_outcome =
        (struct outcome){ .err = answer->err, .code = "", .may_be_done = answer->may_be_done, .sentence = "" };
    if (answer->err == ERR_OK || (*answer->sqlstate && is_known(answer, ret_outcome)))
        return;
    ret_outcome->sentence = answer->sentence;
    switch (answer->err) {
    case ERR_TIMEOUT:
    case ERR_GONE:
    case ERR_FULL:
    case ERR_AGAIN:
        ret_outcome->status = 503;
        ret_outcome->code = "database_away";
        ret_outcome->detail = slice_of(why_away(answer));
        break;
    default:
        ret_outcome->status = 500;
        ret_outcome->code = "internal";
        ret_outcome->detail = SLICE("something is wrong here, which the log of qwen-control says");
    }
}

void outcome_missing(const char *noun, struct slice id, struct text *words, struct outcome *ret_outcome)
{
    bool is_plain = id.len > 0 && id.len <= 128;

    for (size_t i = 0; is_plain && i < id.len; i++)
        is_plain = id.at[i] > ' ' && id.at[i] < 0x7f;
    if (is_plain)
        text_printf(words, "there is no %s %.*s", noun, (int)id.len, id.at);
    else
        text_printf(words, "there is no such %s", noun);
    *ret_outcome = (struct outcome){
        .err = ERR_REFUSED, .status = 404, .code = "not_found", .detail = text_slice(words), .sentence = ""
    };
}

void outcome_no_memory(struct outcome *ret_outcome)
{
    *ret_outcome = (struct outcome){ .err = ERR_NO_MEMORY,
                                     .status = 500,
                                     .code = "internal",
                                     .detail = SLICE("out of memory"),
                                     .sentence = "out of memory for a page" };
}
