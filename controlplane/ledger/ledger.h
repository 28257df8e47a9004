/*
 * ledger - what the control plane owns, in its database: users, teams, keys, ranges of addresses, models, backends,
 * settings, gateways, admin tokens, and the log of who changed them. The functions of migrations/0004 do the work; this
 * room asks them, and says what went wrong as the admin API answers it.
 *
 * Stateless: whoever asks hands in the store. Loop thread only. Whatever is accepted (ERR_OK) is told exactly once,
 * never before the function returns, and not after inquiry_forget(). ret_inquiry may be NULL. Slices that are told live
 * until the callback returns.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct digest;
struct store;
struct inquiry;

/* Who asks for a change, for the audit log. Slices may be empty (the token's where it is `qwen-control` itself). */
struct who {
    struct slice token_id, actor, address, request_id;
    struct slice idempotency_key;
    const struct digest *request_hash; /* beside the key; NULL: none */
    int64_t epoch;                     /* in which we lead; 0: whoever leads */
};

/*
 * How it ended. Of a failure, `status` and `code` are the problem's, `detail` is a sentence for people and `pointer`
 * the JSON pointer of what is wrong in the body, "" where it is nothing in particular.
 */
struct outcome {
    enum err err;    /* ERR_OK; ERR_REFUSED: its asker's fault; ERR_TIMEOUT, ERR_GONE …: the database's */
    unsigned status; /* 0: all is well */
    const char *code;
    struct slice detail, pointer;
    bool may_be_done;        /* of a failure: whether it happened is not known */
    const char *sentence;    /* of a failure that is not the asker's: for the log; else "" */
    struct slice body;       /* JSON: what it is now, or was before it was deleted */
    uint64_t config_version; /* the one that has it, to wait for */
    bool is_replay;          /* it was done before, for the same idempotency key */
};
typedef void told_outcome(void *arg, const struct outcome *outcome);

/*
 * One change, all of it or nothing; 0004 lists the actions. `id` is empty for what is made. version 0: whichever it
 * has. `body` is a JSON object, or empty. Names of models in it are normalised on the way, and secrets of imported keys
 * hashed. ERR_FULL and so on as store_ask() says; ERR_BAD: not even UTF-8.
 */
enum err ledger_change(struct store *store, const struct who *who, const char *action, struct slice id,
                       uint32_t version, struct slice body, told_outcome *on_outcome, void *arg,
                       struct inquiry **ret_inquiry);

/* noun: "user", "team", "key", "whitelist", "model", "backend", "setting", "gateway", "admin_token", "audit".
 * By id or name (a key also by its public id, or as USER/NAME). */
enum err ledger_get(struct store *store, const char *noun, struct slice id, told_outcome *on_outcome, void *arg,
                    struct inquiry **ret_inquiry);

struct page {
    struct outcome outcome; /* its body: one JSON array */
    struct slice next;      /* where the next page begins, for `after`; empty: this was the last */
};
typedef void told_page(void *arg, const struct page *page);
/* filter: a JSON object of strings and booleans, or empty. after: empty for the first page. */
enum err ledger_list(struct store *store, const char *noun, struct slice filter, struct slice after, unsigned max,
                     told_page *on_page, void *arg, struct inquiry **ret_inquiry);

/* A token that is good at this moment. */
struct token {
    enum err err; /* ERR_OK; ERR_NOT_FOUND: none, or revoked, or expired; else the database's: see outcome */
    struct slice id, name, role;
    struct outcome outcome; /* of a failure */
};
typedef void told_token(void *arg, const struct token *token);
/* Also notes that it was used, at most once a minute. */
enum err ledger_token(struct store *store, const struct digest *hash, told_token *on_token, void *arg,
                      struct inquiry **ret_inquiry);

/* Whoever asked is not interested any more; a change may happen all the same. Before it is told only. */
void inquiry_forget(struct inquiry *inquiry);
