#include "digest.h"
#include "identity.h"

static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
enum { LETTERS = sizeof letters - 1 };

void secret_make(const char *prefix, struct text *out)
{
    enum { FAIR = 256 / LETTERS * LETTERS }; /* from here on some letters would be favoured */
    uint8_t pool[64];
    size_t left = 0;

    text_add_string(out, prefix);
    for (unsigned i = 0; i < IDENTITY_SECRET_LETTERS;) {
        if (!left)
            random_bytes(pool, left = sizeof pool);
        if (pool[--left] < FAIR) {
            text_add_char(out, letters[pool[left] % LETTERS]);
            i++;
        }
    }
    explicit_bzero(pool, sizeof pool);
}

bool secret_has_form(const char *prefix, struct slice secret)
{
    size_t len = strlen(prefix);

    if (secret.len != len + IDENTITY_SECRET_LETTERS || memcmp(secret.at, prefix, len) != 0)
        return false;
    for (size_t i = len; i < secret.len; i++)
        if (!memchr(letters, secret.at[i], LETTERS))
            return false;
    return true;
}

void secret_hash(struct slice secret, struct digest *ret_hash)
{
    digest_sha256(secret, ret_hash);
}
