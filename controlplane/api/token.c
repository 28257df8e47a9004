/* Who asks: a token in Authorization: Bearer. Wrong ones are counted by address; right ones pass whatever was counted.
 */
#include "account.h"
#include "clock.h"
#include "ledger.h"
#include "log.h"
#include "parts.h"

enum { TELL_MS = 10000 };

/* One line for many: whoever guesses must not fill the log. */
static void tell(struct exchange *exchange)
{
    struct api *api = exchange->api;
    int64_t now_ms = clock_ms();

    if (api->told_ms && now_ms - api->told_ms < TELL_MS) {
        api->untold++;
        return;
    }
    log_warn(
        "somebody at %s came to the admin API with a wrong token (and %llu times elsewhere since the last such line)",
        exchange->address, (unsigned long long)api->untold);
    api->told_ms = now_ms;
    api->untold = 0;
}

static void refuse_wrong(struct exchange *exchange)
{
    int64_t wait_ms = limiter_count(&exchange->api->limiter, &exchange->from, clock_ms());

    tell(exchange);
    if (wait_ms)
        exchange_refuse_later(exchange, "too_many_requests", wait_ms,
                              "too many wrong tokens came from this address; a right one is let in at any time");
    else
        exchange_refuse(exchange, "unauthorized", "this admin token is not known, or was revoked, or has expired");
}

static void on_found(void *arg, const struct token *token)
{
    struct exchange *exchange = arg;

    exchange->inquiry = NULL;
    if (token->err == ERR_NOT_FOUND) {
        refuse_wrong(exchange);
    } else if (token->err != ERR_OK) {
        exchange_pass_on(exchange, &token->outcome);
    } else {
        text_add_slice(&exchange->token_id, token->id);
        text_add_slice(&exchange->actor, token->name);
        exchange->role = role_of(token->role);
        exchange_go_on(exchange);
    }
}

void token_check(struct exchange *exchange)
{
    const char *field = exchange_field(exchange, "Authorization");
    struct slice given = slice_trim(field ? slice_of(field) : SLICE(""));
    const char *space = given.len ? memchr(given.at, ' ', given.len) : NULL;
    struct slice scheme = { given.at, space ? (size_t)(space - given.at) : given.len };
    struct slice secret = slice_trim((struct slice){ given.at + scheme.len, given.len - scheme.len });
    struct digest hash;
    enum err err;

    if (!field || !slice_is_nocase(scheme, SLICE("Bearer"))) {
        exchange_refuse(exchange, "unauthorized", "an admin token is needed, in Authorization: Bearer");
        return;
    }
    if (!account_is_token(secret, &hash)) {
        refuse_wrong(exchange);
        return;
    }
    err = ledger_token(exchange->api->doors.store, &hash, on_found, exchange, &exchange->inquiry);
    if (err != ERR_OK)
        exchange_fail(exchange, err);
}
