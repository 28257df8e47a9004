/* --hash-key: what to write into the file instead of a key. */
#include "parts.h"

static enum err refuse(struct text *why, const char *words)
{
    text_add_string(why, words);
    return ERR_BAD;
}

enum err key_hash_describe(struct slice secret, struct text *out, struct text *why)
{
    struct secret parsed;
    struct text words;
    enum err err;

    if (slice_ends(secret, SLICE("\n")))
        secret.len -= slice_ends(secret, SLICE("\r\n")) ? 2 : 1;
    text_init(&words, SECRET_MAX_BYTES);
    err = secret_parse(secret, &parsed, &words);
    if (err == ERR_OK && parsed.is_hashed)
        err = refuse(&words, "is a hash already");
    if (err == ERR_OK) {
        text_add_literal(out, "sha256:");
        digest_add_hex(out, &parsed.hash);
    } else {
        text_printf(why, "the key %s", text_string(&words));
    }
    text_release(&words);
    return err;
}
