/*
 * secret - what people and programs carry about to be let in: the keys of callers (qk_…, or any other word), and
 * secrets behind a prefix that says what they are for (an admin's token, a gateway's enrolment). Pure; any thread. What
 * is kept of any of them is its SHA-256. With 160 random bits or more in it, it needs no salt and no slow hash.
 */
#pragma once
#include <stdbool.h>

#include "digest.h"
#include "text.h"

enum {
    SECRET_MAX_BYTES = 256, /* of a key */
    SECRET_ID_LETTERS = 10, /* the public id of a qk_ key */
    SECRET_LETTERS = 43,    /* base62: 256 random bits */
};

/*
 * A key as written: "sha256:HEX", or the key itself (1 to 256 bytes of printable ASCII; one in the form of a qk_ key
 * must have the right checksum). ERR_BAD with words in `why` that do not quote it.
 */
struct secret {
    struct digest hash;
    bool is_hashed;         /* only its hash was written */
    struct slice public_id; /* of a qk_ key, borrowed; else empty */
};
enum err secret_parse(struct slice text, struct secret *ret_secret, struct text *why);

/* Appends a new qk_ key. */
void secret_make_key(struct text *out);
/* Appends `prefix` and SECRET_LETTERS letters. */
void secret_make(const char *prefix, struct text *out);
/* Has it that form? Only then it is worth a look into the database. */
bool secret_has_form(const char *prefix, struct slice secret);
/* What is kept of it. */
void secret_hash(struct slice secret, struct digest *ret_hash);
