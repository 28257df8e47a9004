/* some - keys for the tests: number n is "user<n/3>"'s, its hash that of "secret<n>". */
#pragma once
#include <stdio.h>

#include "check.h"
#include "keyring.h"

struct some_key {
    struct key_rule rule;
    char name[24], user[24];
};

static inline struct digest some_hash(unsigned n)
{
    char secret[24];
    struct digest hash;

    (void)snprintf(secret, sizeof secret, "secret%u", n);
    digest_sha256(slice_of(secret), &hash);
    return hash;
}

static inline const struct key_rule *some_rule(struct some_key *key, unsigned n)
{
    (void)snprintf(key->name, sizeof key->name, "laptop%u", n);
    (void)snprintf(key->user, sizeof key->user, "user%u", n / 3);
    key->rule = (struct key_rule){ .name = key->name, .user = key->user, .team = "lab", .weight = 1 };
    key->rule.hash = some_hash(n);
    memcpy(key->rule.id, &n, sizeof n);
    return &key->rule;
}

static inline void some_put(struct locksmith *smith, unsigned n)
{
    struct some_key key;
    struct text why;

    text_init(&why, 1024);
    if (locksmith_put(smith, some_rule(&key, n), &why) != ERR_OK)
        check_fail(__FILE__, __LINE__, "key %u was refused: %s", n, text_string(&why));
    text_release(&why);
}

static inline void some_removal(struct locksmith *smith, unsigned n)
{
    struct digest hash = some_hash(n);
    struct text why;

    text_init(&why, 1024);
    CHECK(locksmith_remove(smith, &hash, &why) == ERR_OK);
    text_release(&why);
}

static inline void some_begin(struct locksmith *smith, uint64_t from, uint64_t to)
{
    struct text why;

    text_init(&why, 1024);
    if (locksmith_begin(smith, from, to, &why) != ERR_OK)
        check_fail(__FILE__, __LINE__, "%s", text_string(&why));
    text_release(&why);
}

static inline void some_commit(struct locksmith *smith)
{
    struct text why;

    text_init(&why, 1024);
    if (locksmith_commit(smith, &why) != ERR_OK)
        check_fail(__FILE__, __LINE__, "%s", text_string(&why));
    CHECK_EQ(why.len, 0);
    text_release(&why);
}

/* Keys 0 ... count - 1, of that version. */
static inline struct locksmith *some_locksmith(unsigned count, uint64_t version)
{
    struct locksmith *smith = locksmith_new();

    CHECK(smith);
    locksmith_begin_whole(smith, version);
    for (unsigned n = 0; n < count; n++)
        some_put(smith, n);
    some_commit(smith);
    return smith;
}

static inline const struct key *some_found(const struct keyring *ring, unsigned n)
{
    struct digest hash = some_hash(n);

    return keyring_find(ring, &hash);
}
