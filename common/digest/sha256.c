/*
 * SHA256_Init and its companions need no memory and cannot fail, unlike OpenSSL's newer EVP, which allocates at every
 * message: a gateway short of memory must refuse a request, not end because it cannot hash its key. OpenSSL 3
 * calls them deprecated; the macro says that we know.
 */
#define OPENSSL_API_COMPAT 0x10101000L

#include "digest.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

void digest_sha256(struct slice message, struct digest *ret_digest)
{
    SHA256_CTX state;

    (void)SHA256_Init(&state);
    (void)SHA256_Update(&state, message.len ? message.at : "", message.len);
    (void)SHA256_Final(ret_digest->bytes, &state);
    explicit_bzero(&state, sizeof state); /* a short key stands in it whole */
}

bool digest_is(const struct digest *digest, const struct digest *other)
{
    return CRYPTO_memcmp(digest->bytes, other->bytes, sizeof digest->bytes) == 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool digest_parse_hex(struct slice hex, struct digest *ret_digest)
{
    struct digest digest;

    if (hex.len != DIGEST_HEX)
        return false;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = hex_value(hex.at[2 * i]), low = hex_value(hex.at[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret_digest = digest;
    return true;
}

void digest_add_hex(struct text *out, const struct digest *digest)
{
    static const char digits[] = "0123456789abcdef";
    char hex[DIGEST_HEX];

    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        hex[2 * i] = digits[digest->bytes[i] >> 4];
        hex[2 * i + 1] = digits[digest->bytes[i] & 15];
    }
    text_add(out, hex, sizeof hex);
}
