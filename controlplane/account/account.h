/*
 * account - the rules for keys and tokens that need no database: how a secret is made, what is kept of it, and how the
 * names of models are written. Pure; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "digest.h"
#include "text.h"

enum { ACCOUNT_ID_LETTERS = 10 };

/* Appends the secret (proto/secret) to *secret: for the one answer that shows it. What the database gets is the rest.
 */
struct new_secret {
    char public_id[ACCOUNT_ID_LETTERS + 1]; /* of a key; else "" */
    struct digest hash;
};
void account_make_key(struct text *secret, struct new_secret *ret_new);   /* qk_ID_… */
void account_make_token(struct text *secret, struct new_secret *ret_new); /* qat_…: an admin's */
void account_make_enrol(struct text *secret, struct new_secret *ret_new); /* qen_…: enrols a gateway */

/* Could it be an admin token? Only then it is worth a look into the database. */
bool account_is_token(struct slice secret, struct digest *ret_hash);

/*
 * A change's body as the database wants it: names of models normalised as gateways compare them, and a "secret" of an
 * imported key replaced by "hash" and "prefix". Appends to *out. ERR_BAD: `why` is the sentence, `pointer` where.
 */
enum err account_prepare(const char *action, struct slice body, struct text *out, struct text *why,
                         struct text *pointer);
/* The id of a model, normalised; others, and what is no model's name, as they stand. */
void account_prepare_id(const char *action, struct slice id, struct text *out);
