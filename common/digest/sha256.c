/*
 * SHA256_Init and its companions need no memory and cannot fail, unlike OpenSSL's newer EVP, which allocates at every
 * message: a gateway short of memory must refuse a request, not end because it cannot hash its key. OpenSSL 3
 * calls them deprecated; the macro says that we know.
 */
#define OPENSSL_API_COMPAT 0x10101000L

#include "digest.h"

#include <assert.h>
#include <endian.h>
#include <openssl/sha.h>
#include <stdalign.h>

/*
 * The message, the bit behind it, zeros, and its length in bits: one block takes all of it, and is what OpenSSL's
 * Update and Final would make of it in several functions on several pages. Every request brings a key, and where one
 * comes a millisecond those are cold.
 */
static void hash_block(SHA256_CTX *state, struct slice message, struct digest *ret_digest)
{
    uint8_t block[SHA256_CBLOCK] = { 0 };
    uint64_t bits = htobe64(message.len * 8);

    if (message.len)
        memcpy(block, message.at, message.len);
    block[message.len] = 0x80;
    memcpy(block + sizeof block - sizeof bits, &bits, sizeof bits);
    SHA256_Transform(state, block);
    for (unsigned i = 0; i < SHA256_DIGEST_LENGTH / 4; i++) {
        uint32_t word = htobe32(state->h[i]);
        memcpy(ret_digest->bytes + 4 * i, &word, sizeof word);
    }
    explicit_bzero(block, sizeof block);
}

void digest_sha256(struct slice message, struct digest *ret_digest)
{
    SHA256_CTX state;

    (void)SHA256_Init(&state);
    if (message.len < SHA256_CBLOCK - sizeof(uint64_t)) {
        hash_block(&state, message, ret_digest);
    } else {
        (void)SHA256_Update(&state, message.at, message.len);
        (void)SHA256_Final(ret_digest->bytes, &state);
    }
    explicit_bzero(&state, sizeof state); /* a short key stands in it whole */
}

static_assert(sizeof(SHA256_CTX) <= sizeof(struct digest_run) && alignof(SHA256_CTX) <= alignof(struct digest_run));

void digest_begin(struct digest_run *run)
{
    (void)SHA256_Init((SHA256_CTX *)(void *)run);
}

void digest_add(struct digest_run *run, struct slice piece)
{
    if (piece.len)
        (void)SHA256_Update((SHA256_CTX *)(void *)run, piece.at, piece.len);
}

void digest_end(struct digest_run *run, struct digest *ret_digest)
{
    (void)SHA256_Final(ret_digest->bytes, (SHA256_CTX *)(void *)run);
    explicit_bzero(run, sizeof *run);
}

bool digest_is(const struct digest *digest, const struct digest *other)
{
    uint64_t own[DIGEST_BYTES / 8], others[DIGEST_BYTES / 8], difference = 0;

    memcpy(own, digest->bytes, sizeof own);
    memcpy(others, other->bytes, sizeof others);
    for (unsigned i = 0; i < DIGEST_BYTES / 8; i++)
        difference |= own[i] ^ others[i];
    return difference == 0;
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
