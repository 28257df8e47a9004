/*
 * A key of ours is qk_ID_SECRETCRC (behaviour.md 2.5): "qk_", ten base62 digits that are public, "_", 27 that are
 * secret, and six that are the CRC-32 of everything before, most significant digit first, in the digits 0-9A-Za-z.
 */
#include "secret.h"
#include "digest.h"

static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
enum { LETTERS = sizeof letters - 1 };

enum {
    QK_PREFIX = 3,
    QK_ID = SECRET_ID_LETTERS,
    QK_SECRET = 27,
    QK_CRC = 6,
    QK_BYTES = QK_PREFIX + QK_ID + 1 + QK_SECRET + QK_CRC
};

static int base62(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'Z')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'z' ? c - 'a' + 36 : -1;
}

static bool is_base62(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (base62(at[i]) < 0)
            return false;
    return true;
}

/* Does it begin as a qk_ key does, public id included? Other words after "qk_" are anybody's to choose. */
static bool is_like_qk(struct slice text)
{
    return text.len > QK_PREFIX + QK_ID && memcmp(text.at, "qk_", QK_PREFIX) == 0 &&
           is_base62(text.at + QK_PREFIX, QK_ID) && text.at[QK_PREFIX + QK_ID] == '_';
}

static bool is_qk(struct slice text)
{
    uint64_t crc = 0;

    if (text.len != QK_BYTES || !is_base62(text.at + QK_PREFIX + QK_ID + 1, QK_SECRET + QK_CRC))
        return false;
    for (size_t i = QK_BYTES - QK_CRC; i < QK_BYTES; i++)
        crc = crc * 62 + (uint64_t)base62(text.at[i]);
    return crc == crc32_of((struct slice){ text.at, QK_BYTES - QK_CRC });
}

static enum err refuse(struct text *why, const char *words)
{
    text_add_string(why, words);
    return ERR_BAD;
}

static enum err parse_hashed(struct slice hex, struct secret *secret, struct text *why)
{
    secret->is_hashed = true;
    if (digest_parse_hex(hex, &secret->hash))
        return ERR_OK;
    return refuse(why, "needs 64 hexadecimal digits as its SHA-256 (qwen-gateway --hash-key prints them)");
}

enum err secret_parse(struct slice text, struct secret *ret_secret, struct text *why)
{
    *ret_secret = (struct secret){ .public_id = { "", 0 } };
    if (!text.len)
        return refuse(why, "must not be empty");
    if (slice_starts(text, SLICE("sha256:")))
        return parse_hashed((struct slice){ text.at + 7, text.len - 7 }, ret_secret, why);
    if (text.len > SECRET_MAX_BYTES)
        return refuse(why, "is longer than 256 bytes");
    for (size_t i = 0; i < text.len; i++) {
        bool is_end = i == 0 || i == text.len - 1;
        if (text.at[i] < (is_end ? 0x21 : 0x20) || text.at[i] > 0x7e)
            return refuse(why, "must be printable ASCII without a space at either end, because it travels in a header");
    }
    if (is_like_qk(text)) {
        if (!is_qk(text))
            return refuse(why, "looks like a qk_ key, but its check digits are wrong: it was mistyped or cut");
        ret_secret->public_id = (struct slice){ text.at + QK_PREFIX, QK_ID };
    }
    digest_sha256(text, &ret_secret->hash);
    return ERR_OK;
}

static void add_letters(struct text *out, unsigned count)
{
    enum { FAIR = 256 / LETTERS * LETTERS }; /* from here on some letters would be favoured */
    uint8_t pool[64];
    size_t left = 0;

    for (unsigned i = 0; i < count;) {
        if (!left)
            random_bytes(pool, left = sizeof pool);
        if (pool[--left] < FAIR) {
            text_add_char(out, letters[pool[left] % LETTERS]);
            i++;
        }
    }
    explicit_bzero(pool, sizeof pool);
}

void secret_make(const char *prefix, struct text *out)
{
    text_add_string(out, prefix);
    add_letters(out, SECRET_LETTERS);
}

void secret_make_key(struct text *out)
{
    size_t start = out->len;
    char digits[QK_CRC];
    uint32_t crc;

    text_add_literal(out, "qk_");
    add_letters(out, QK_ID);
    text_add_char(out, '_');
    add_letters(out, QK_SECRET);
    if (out->err)
        return;
    crc = crc32_of((struct slice){ out->at + start, out->len - start });
    for (unsigned i = QK_CRC; i-- > 0; crc /= LETTERS)
        digits[i] = letters[crc % LETTERS];
    text_add(out, digits, sizeof digits);
}

bool secret_has_form(const char *prefix, struct slice secret)
{
    size_t len = strlen(prefix);

    if (secret.len != len + SECRET_LETTERS || memcmp(secret.at, prefix, len) != 0)
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
