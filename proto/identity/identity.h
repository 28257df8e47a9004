/*
 * identity - who a gateway is: an Ed25519 pair of keys whose private half never leaves its node, and the proof over the
 * control plane's challenge. Opened once by whoever needs it, immutable then; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct identity;

enum {
    IDENTITY_KEY_BYTES = 32,
    IDENTITY_NONCE_BYTES = 32,
    IDENTITY_SIGNATURE_BYTES = 64,
};

struct identity_key {
    uint8_t bytes[IDENTITY_KEY_BYTES];
};

struct identity_signature {
    uint8_t bytes[IDENTITY_SIGNATURE_BYTES];
};

/*
 * Reads the private key (PEM). ERR_NOT_FOUND: there is no such file. ERR_BAD: it is no Ed25519 key. ERR_REFUSED: others
 * than its owner may read it. Each with one sentence.
 */
enum err identity_open(const char *path, struct identity **ret_identity, struct text *why);
/*
 * The same, and makes one where there is none: 0600 from its first moment, on the disk before this returns, and under
 * its name only when it is whole. Of two that do so at once, both get the one that came first.
 */
enum err identity_open_or_make(const char *path, struct identity **ret_identity, struct text *why);
/* One that stands in no file. NULL: no memory. */
struct identity *identity_new(void);
/* NULL is fine. Returns NULL. */
struct identity *identity_free(struct identity *identity);
void identity_public(const struct identity *identity, struct identity_key *ret_key);

/* What a Proof is over (qw.proto). Versions are major, minor, patch. */
struct identity_claim {
    const uint8_t *nonce; /* IDENTITY_NONCE_BYTES */
    uint32_t gateway_version[3], control_version[3];
    struct slice name;
};
/* ERR_NO_MEMORY, or ERR_SYSTEM where OpenSSL will not. */
enum err identity_sign(const struct identity *identity, const struct identity_claim *claim,
                       struct identity_signature *ret_signature);
/* False also where it could not be looked at. */
bool identity_verify(const struct identity_key *key, const struct identity_claim *claim,
                     const struct identity_signature *signature);
