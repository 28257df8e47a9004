/* Who asks: a token in Authorization: Bearer. Wrong ones are counted by address; right ones pass whatever was counted.
 */
#include <stdio.h>

#include "account.h"
#include "clock.h"
#include "ledger.h"
#include "log.h"
#include "parts.h"
#include "store.h"

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

/* ---- those that were good ---- */

static struct token_seen *place_of(struct api *api, const struct digest *hash)
{
    return &api->tokens[hash->bytes[0] % TOKENS_SEEN];
}

static const struct token_seen *recall(struct exchange *exchange)
{
    struct api *api = exchange->api;
    const struct token_seen *seen = place_of(api, &exchange->token_hash);
    bool is_known = exchange->route->traits & FROM_MEMORY && seen->at_ms &&
                    digest_is(&seen->hash, &exchange->token_hash) &&
                    clock_ms() - seen->at_ms <= api->options.token_memory_ms;

    return is_known ? seen : NULL;
}

static void remember(struct exchange *exchange)
{
    struct token_seen *seen = place_of(exchange->api, &exchange->token_hash);

    seen->hash = exchange->token_hash;
    seen->role = exchange->role;
    seen->at_ms = clock_ms();
    (void)snprintf(seen->id, sizeof seen->id, "%s", text_string(&exchange->token_id));
    (void)snprintf(seen->name, sizeof seen->name, "%s", text_string(&exchange->actor));
}

static void forget(struct exchange *exchange)
{
    struct token_seen *seen = place_of(exchange->api, &exchange->token_hash);

    if (digest_is(&seen->hash, &exchange->token_hash))
        seen->at_ms = 0;
}

/* ---- looking ---- */

static void go_on_from_memory(struct exchange *exchange, const struct token_seen *seen)
{
    text_add_string(&exchange->token_id, seen->id);
    text_add_string(&exchange->actor, seen->name);
    exchange->role = seen->role;
    exchange_go_on(exchange);
}

static void let_in(struct exchange *exchange, struct slice id, struct slice name, unsigned role)
{
    text_add_slice(&exchange->token_id, id);
    text_add_slice(&exchange->actor, name);
    exchange->role = role;
    if (exchange->actor.err || exchange->token_id.err) {
        exchange_fail(exchange, ERR_NO_MEMORY);
        return;
    }
    remember(exchange);
    exchange_go_on(exchange);
}

static void on_found(void *arg, const struct token *token)
{
    struct exchange *exchange = arg;
    const struct token_seen *seen = NULL;

    exchange->inquiry = NULL;
    if (token->err == ERR_NOT_FOUND) {
        forget(exchange);
        refuse_wrong(exchange);
        return;
    }
    if (token->err == ERR_OK) {
        let_in(exchange, token->id, token->name, role_of(token->role));
        return;
    }
    seen = recall(exchange);
    if (seen)
        go_on_from_memory(exchange, seen);
    else
        exchange_pass_on(exchange, &token->outcome);
}

void token_check(struct exchange *exchange)
{
    const char *field = exchange_field(exchange, "Authorization");
    struct slice given = slice_trim(field ? slice_of(field) : SLICE(""));
    const char *space = given.len ? memchr(given.at, ' ', given.len) : NULL;
    struct slice scheme = { given.at, space ? (size_t)(space - given.at) : given.len };
    struct slice secret = slice_trim((struct slice){ given.at + scheme.len, given.len - scheme.len });
    const struct token_seen *seen;
    enum err err;

    if (!field || !slice_is_nocase(scheme, SLICE("Bearer"))) {
        exchange_refuse(exchange, "unauthorized", "an admin token is needed, in Authorization: Bearer");
        return;
    }
    if (!account_is_token(secret, &exchange->token_hash)) {
        refuse_wrong(exchange);
        return;
    }
    seen = store_is_up(exchange->api->doors.store) ? NULL : recall(exchange);
    if (seen) {
        go_on_from_memory(exchange, seen);
        return;
    }
    err = ledger_token(exchange->api->doors.store, &exchange->token_hash, on_found, exchange, &exchange->inquiry);
    if (err != ERR_OK)
        exchange_fail(exchange, err);
}
