/*
 * Fetching an algorithm costs OpenSSL more than hashing a key, so SHA-256 is fetched once a process, and each
 * thread keeps one context, which a thread-specific value gives back when the thread ends.
 */
#include "digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static pthread_key_t of_thread;
static EVP_MD *sha256;
static _Thread_local EVP_MD_CTX *context;

/* Without SHA-256 no key can be told from another: there is nothing sensible to go on with. */
_Noreturn static void give_up(void)
{
    fputs("SHA-256 is not to be had from OpenSSL (out of memory?)\n", stderr);
    abort();
}

static void free_context(void *of_ending_thread)
{
    EVP_MD_CTX_free(of_ending_thread);
}

static void free_algorithm(void)
{
    EVP_MD_CTX_free(context); /* the main thread's: its thread-specific values are not destroyed */
    context = NULL;
    (void)pthread_setspecific(of_thread, NULL);
}

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256 || pthread_key_create(&of_thread, free_context) != 0 || atexit(free_algorithm) != 0)
        give_up();
}

static EVP_MD_CTX *context_of_thread(void)
{
    if (context)
        return context;
    (void)pthread_once(&fetched, fetch);
    context = EVP_MD_CTX_new();
    if (!context || pthread_setspecific(of_thread, context) != 0)
        give_up();
    return context;
}

void digest_sha256(struct slice message, struct digest *ret_digest)
{
    EVP_MD_CTX *ctx = context_of_thread();

    if (!EVP_DigestInit_ex2(ctx, sha256, NULL) || !EVP_DigestUpdate(ctx, message.len ? message.at : "", message.len) ||
        !EVP_DigestFinal_ex(ctx, ret_digest->bytes, NULL))
        give_up();
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
