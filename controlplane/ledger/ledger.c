#include "ledger.h"

#include <assert.h>
#include <stdlib.h>

#include "account.h"
#include "digest.h"
#include "json.h"
#include "parts.h"
#include "store.h"

enum { WHO_MAX = 64 * 1024, BODY_MAX = 64 * 1024 * 1024, WORDS_MAX = 512, POINTER_MAX = 4096 };

struct inquiry {
    struct question *question;
    struct store *store; /* of one that looks for a token */
    const struct noun *noun;
    told_outcome *on_outcome;
    told_page *on_page;
    told_token *on_token;
    void *arg;
    unsigned max;
    struct text id; /* as it was asked for */
};

static const struct statement admin_change = {
    "admin_change",
    "SELECT body, config_version, is_replay FROM admin_change($1::jsonb, $2, $3, $4::int, $5::jsonb)",
    .is_repeatable = false,
};
/* What we refuse ourselves goes the way of all refusals. */
static const struct statement refuse = { "refuse", "SELECT refuse('QW400', $1, $2)", .is_repeatable = true };
static const struct statement find_token = {
    "find_token",
    "SELECT id, name, role, last_used_at IS NULL OR last_used_at < now() - interval '1 minute' FROM admin_token"
    " WHERE hash = $1 AND revoked_at IS NULL AND expires_at > now()",
    .is_repeatable = true,
};
static const struct statement touch_token = {
    "touch_token",
    "UPDATE admin_token SET last_used_at = now()"
    " WHERE id = $1::uuid AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')",
    .is_repeatable = false,
};

#define NOUN(noun, words)                                                                                \
    {                                                                                                    \
#noun, words, { #noun "_get", "SELECT " #noun "_get($1)", true },                                \
        {                                                                                                \
#noun "_list", "SELECT body, \"position\" FROM " #noun "_list($1::jsonb, $2, $3::int)", true \
        }                                                                                                \
    }
static const struct noun {
    const char *name, *words;
    struct statement get, list;
} nouns[] = {
    NOUN(user, "user"),         NOUN(team, "team"),       NOUN(key, "key"),         NOUN(whitelist, "range"),
    NOUN(model, "model"),       NOUN(backend, "backend"), NOUN(setting, "setting"), NOUN(gateway, "gateway"),
    NOUN(admin_token, "token"), NOUN(audit, "entry"),
};

static const struct noun *noun_of(const char *name)
{
    for (size_t i = 0; i < sizeof nouns / sizeof *nouns; i++)
        if (strcmp(nouns[i].name, name) == 0)
            return &nouns[i];
    assert(!"a noun of the ledger");
    abort();
}

static struct inquiry *inquiry_new(void *arg)
{
    struct inquiry *inquiry = calloc(1, sizeof *inquiry);

    if (inquiry) {
        inquiry->arg = arg;
        text_init(&inquiry->id, 16 * 1024 * 1024);
    }
    return inquiry;
}

static void inquiry_free(struct inquiry *inquiry)
{
    text_release(&inquiry->id);
    free(inquiry);
}

void inquiry_forget(struct inquiry *inquiry)
{
    question_forget(inquiry->question);
    inquiry_free(inquiry);
}

/* Asks; when nothing comes of that, the inquiry is over. */
static enum err ask(struct store *store, const struct statement *statement, const struct value *values, size_t count,
                    told *on_answer, struct inquiry *inquiry, struct inquiry **ret_inquiry)
{
    const struct ask one = { statement, values, count };
    enum err err = store_ask(store, &one, 1, on_answer, inquiry, &inquiry->question);

    if (err != ERR_OK)
        inquiry_free(inquiry);
    else if (ret_inquiry)
        *ret_inquiry = inquiry;
    return err;
}

static struct value text_or_null(struct slice slice)
{
    return slice.len ? VALUE_TEXT(slice) : VALUE_NULL;
}

/* ---- changes ---- */

static void add_field(struct text *out, const char *name, struct slice value)
{
    if (!value.len)
        return;
    text_printf(out, "%s\"%s\":", out->len > 1 ? "," : "", name);
    json_add_string(out, value);
}

static void write_who(struct text *out, const struct who *who)
{
    char hex[DIGEST_HEX + 1];
    struct text hash = text_over(hex, sizeof hex);

    text_add_char(out, '{');
    add_field(out, "token_id", who->token_id);
    add_field(out, "actor", who->actor);
    add_field(out, "address", who->address);
    add_field(out, "request_id", who->request_id);
    add_field(out, "idempotency_key", who->idempotency_key);
    if (who->request_hash) {
        digest_add_hex(&hash, who->request_hash);
        add_field(out, "request_hash", text_slice(&hash));
    }
    if (who->epoch)
        text_printf(out, "%s\"epoch\":%lld", out->len > 1 ? "," : "", (long long)who->epoch);
    text_add_char(out, '}');
}

static void on_changed(void *arg, const struct answer *answer)
{
    struct inquiry *inquiry = arg;
    struct outcome outcome;

    outcome_from(answer, &outcome);
    if (outcome.err == ERR_OK) {
        outcome.body = rows_text(answer->rows, 0, 0);
        outcome.config_version = (uint64_t)rows_number(answer->rows, 0, 1);
        outcome.is_replay = rows_bool(answer->rows, 0, 2);
    }
    inquiry->on_outcome(inquiry->arg, &outcome);
    inquiry_free(inquiry);
}

enum err ledger_change(struct store *store, const struct who *who, const char *action, struct slice id,
                       uint32_t version, struct slice body, told_outcome *on_outcome, void *arg,
                       struct inquiry **ret_inquiry)
{
    struct inquiry *inquiry = inquiry_new(arg);
    char words_memory[WORDS_MAX], pointer_memory[POINTER_MAX];
    struct text words = text_over(words_memory, sizeof words_memory);
    struct text pointer = text_over(pointer_memory, sizeof pointer_memory);
    struct text asker, prepared;
    enum err err = ERR_NO_MEMORY;

    if (!inquiry)
        return ERR_NO_MEMORY;
    inquiry->on_outcome = on_outcome;
    text_init(&asker, WHO_MAX);
    text_init(&prepared, BODY_MAX);
    write_who(&asker, who);
    account_prepare_id(action, id, &inquiry->id);
    if (asker.err == ERR_OK && inquiry->id.err == ERR_OK)
        err = account_prepare(action, body.len ? body : SLICE("{}"), &prepared, &words, &pointer);
    if (err == ERR_BAD) {
        const struct value values[] = { VALUE_TEXT(text_slice(&pointer)), VALUE_TEXT(text_slice(&words)) };
        err = ask(store, &refuse, values, 2, on_changed, inquiry, ret_inquiry);
    } else if (err == ERR_OK) {
        const struct value values[] = { VALUE_TEXT(text_slice(&asker)), VALUE_TEXT(slice_of(action)),
                                        text_or_null(text_slice(&inquiry->id)),
                                        version ? VALUE_NUMBER(version) : VALUE_NULL,
                                        VALUE_TEXT(text_slice(&prepared)) };
        err = ask(store, &admin_change, values, 5, on_changed, inquiry, ret_inquiry);
    } else {
        inquiry_free(inquiry);
    }
    text_release(&asker);
    text_release_wiped(&prepared);
    return err;
}

/* ---- what there is ---- */

static void on_got(void *arg, const struct answer *answer)
{
    struct inquiry *inquiry = arg;
    char memory[WORDS_MAX];
    struct text words = text_over(memory, sizeof memory);
    struct outcome outcome;

    outcome_from(answer, &outcome);
    if (outcome.err == ERR_OK && rows_is_null(answer->rows, 0, 0))
        outcome_missing(inquiry->noun->words, text_slice(&inquiry->id), &words, &outcome);
    else if (outcome.err == ERR_OK)
        outcome.body = rows_text(answer->rows, 0, 0);
    inquiry->on_outcome(inquiry->arg, &outcome);
    inquiry_free(inquiry);
}

enum err ledger_get(struct store *store, const char *noun, struct slice id, told_outcome *on_outcome, void *arg,
                    struct inquiry **ret_inquiry)
{
    struct inquiry *inquiry = inquiry_new(arg);
    struct value value;

    if (!inquiry)
        return ERR_NO_MEMORY;
    inquiry->on_outcome = on_outcome;
    inquiry->noun = noun_of(noun);
    account_prepare_id(inquiry->noun->get.name, id, &inquiry->id);
    value = VALUE_TEXT(text_slice(&inquiry->id));
    return ask(store, &inquiry->noun->get, &value, 1, on_got, inquiry, ret_inquiry);
}

/* One row more than the page has was asked for: whether it came says whether there is another page. */
static void on_listed(void *arg, const struct answer *answer)
{
    struct inquiry *inquiry = arg;
    struct page page = { 0 };
    struct text array;

    text_init(&array, SIZE_MAX / 2);
    outcome_from(answer, &page.outcome);
    if (page.outcome.err == ERR_OK) {
        size_t count = rows_count(answer->rows);
        if (count > inquiry->max) {
            count = inquiry->max;
            page.next = rows_text(answer->rows, count - 1, 1);
        }
        text_add_char(&array, '[');
        for (size_t i = 0; i < count; i++) {
            if (i)
                text_add_char(&array, ',');
            text_add_slice(&array, rows_text(answer->rows, i, 0));
        }
        text_add_char(&array, ']');
        page.outcome.body = text_slice(&array);
        if (array.err)
            outcome_no_memory(&page.outcome);
    }
    inquiry->on_page(inquiry->arg, &page);
    text_release(&array);
    inquiry_free(inquiry);
}

enum err ledger_list(struct store *store, const char *noun, struct slice filter, struct slice after, unsigned max,
                     told_page *on_page, void *arg, struct inquiry **ret_inquiry)
{
    struct inquiry *inquiry = inquiry_new(arg);
    const struct value values[] = { VALUE_TEXT(filter.len ? filter : SLICE("{}")), text_or_null(after),
                                    VALUE_NUMBER((int64_t)max + 1) };

    assert(max);
    if (!inquiry)
        return ERR_NO_MEMORY;
    inquiry->on_page = on_page;
    inquiry->noun = noun_of(noun);
    inquiry->max = max;
    return ask(store, &inquiry->noun->list, values, 3, on_listed, inquiry, ret_inquiry);
}

/* ---- tokens ---- */

static void on_touched(void *arg, const struct answer *answer)
{
    (void)arg;
    (void)answer; /* a reader's token is good while the database takes no changes */
}

static void on_found(void *arg, const struct answer *answer)
{
    struct inquiry *inquiry = arg;
    struct token token = { 0 };

    outcome_from(answer, &token.outcome);
    token.err = token.outcome.err;
    if (token.err == ERR_OK && !rows_count(answer->rows)) {
        token.err = ERR_NOT_FOUND;
    } else if (token.err == ERR_OK) {
        token.id = rows_text(answer->rows, 0, 0);
        token.name = rows_text(answer->rows, 0, 1);
        token.role = rows_text(answer->rows, 0, 2);
        if (rows_bool(answer->rows, 0, 3)) {
            const struct value value = VALUE_TEXT(token.id);
            (void)store_ask(inquiry->store, &(struct ask){ &touch_token, &value, 1 }, 1, on_touched, NULL, NULL);
        }
    }
    inquiry->on_token(inquiry->arg, &token);
    inquiry_free(inquiry);
}

enum err ledger_token(struct store *store, const struct digest *hash, told_token *on_token, void *arg,
                      struct inquiry **ret_inquiry)
{
    struct inquiry *inquiry = inquiry_new(arg);
    const struct value value = VALUE_BYTES(((struct slice){ (const char *)hash->bytes, sizeof hash->bytes }));

    if (!inquiry)
        return ERR_NO_MEMORY;
    inquiry->store = store;
    inquiry->on_token = on_token;
    return ask(store, &find_token, &value, 1, on_found, inquiry, ret_inquiry);
}
