/*
 * digest - hashes, randomness and comparing secrets: OpenSSL's only door. Any thread; nothing is kept
 * but a pool of random bytes a thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum { DIGEST_BYTES = 32, DIGEST_HEX = 64 };

struct digest {
    uint8_t bytes[DIGEST_BYTES];
};

/* SHA-256 (FIPS 180-4). Below 1 us for a key; needs no memory and cannot fail. */
void digest_sha256(struct slice message, struct digest *ret_digest);
/* The same of a message that comes in pieces; begun anew as often as one likes, and nothing to give back. */
struct digest_run {
    uint64_t state[16];
};
void digest_begin(struct digest_run *run);
void digest_add(struct digest_run *run, struct slice piece);
void digest_end(struct digest_run *run, struct digest *ret_digest);
/* In constant time. */
bool digest_is(const struct digest *digest, const struct digest *other);
/* 64 hexadecimal digits, either case. */
bool digest_parse_hex(struct slice hex, struct digest *ret_digest);
void digest_add_hex(struct text *out, const struct digest *digest);

/* From the kernel's generator (getrandom). Never fails: without randomness the process must not go on. */
void random_bytes(void *at, size_t len);
/* Lower-case letters from a per-thread generator reseeded from the kernel: for request ids, not for secrets. */
void random_letters(char *at, size_t count);

/* Standard base64 (RFC 4648 section 4) with padding, nothing else between. *ret_bytes: how long it decodes to. */
bool base64_is_valid(struct slice text, size_t *ret_bytes);
/* CRC-32 (IEEE 802.3, as zlib's). */
uint32_t crc32_of(struct slice bytes);
/* CRC-32C (Castagnoli), for what lies on disk: of what had `sum` (0: of nothing) and these behind it. */
uint32_t crc32c_of(uint32_t sum, struct slice bytes);
/* The same without the processor's instruction, for the test that holds one against the other. */
uint32_t crc32c_of_portably(uint32_t sum, struct slice bytes);
