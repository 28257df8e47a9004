/*
 * keyring - the keys that let callers in, found by the SHA-256 of their secret.
 *
 * struct keyring    One version of all keys: immutable, counted; any thread may hold and read one. 1024 shards, chosen
 * by the first bits of the hash, each one block of memory that versions share, so that one changed key of a million
 * makes one shard anew. Looking up takes a line of the index and two of the key. struct locksmith  Makes a ring from
 * another one and a batch of changes, all of them or none. One thread at a time. It keeps a hand on the rings it made
 * until nobody else has one, so that what is expensive, giving a ring's memory back, never happens to who serves
 * callers. struct key_rule   A key as it is read, from a file or from the control plane. struct key: as it lies in a
 * ring.
 *
 * Whoever needs a key for longer than rings should be held copies it (key_copy): rings of old would pile up.
 * Lists of models and of addresses are kept once, however many keys have the same one.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cidr.h"
#include "digest.h"
#include "text.h"

enum { KEY_ID_BYTES = 16, KEY_NAME_MAX_BYTES = 128, KEY_MODEL_MAX_BYTES = 255, KEY_WEIGHT_MAX = 1000 };
enum { KEY_LIST_MAX = 4096 }; /* models, or ranges, of one key */

/* Who goes first where callers wait. */
enum key_class { KEY_INTERACTIVE, KEY_BATCH };
/* What to do about thinking when the caller does not say. */
enum key_think { KEY_THINK_UNSET, KEY_THINK_ON, KEY_THINK_OFF };

struct key_rule {
    struct digest hash;       /* SHA-256 of the secret; the secret itself is not kept */
    uint8_t id[KEY_ID_BYTES]; /* the control plane's; zeros: it has none */
    const char *name;         /* public id of a qk_ key, the entry's name, or key1, key2 ... by position */
    const char *user;         /* whom log and limits show; the name when none is given */
    const char *team;         /* NULL: none */
    bool is_plain;            /* a plain string: delegates for the log only */
    bool delegates;           /* may name the person in user_header */
    bool has_allow;           /* `allow` was given: only from there */
    struct cidr_list allow;
    const char *const *models; /* names it may use, normalised; NULL: all */
    size_t model_count;
    unsigned max_requests;       /* per person of a delegate, else per key; 0: as rate_limit */
    unsigned max_total_requests; /* per key over all its persons; 0: none */
    unsigned max_concurrent;     /* requests at a time; 0: no limit */
    bool has_max_prompt_chars;
    uint64_t max_prompt_chars;
    enum key_think think;
    unsigned weight; /* 1 ... KEY_WEIGHT_MAX */
    enum key_class class;
    int64_t expires_s; /* since 1970, from then on it lets nobody in; 0: never */
};

/* Sorted; each once. */
struct key_models {
    size_t count;
    const char *const *names;
};

struct key {
    struct digest hash;
    uint8_t id[KEY_ID_BYTES];
    int64_t expires_s;
    const struct key_models *models; /* NULL: all */
    const struct cidr_list *allow;   /* NULL: from anywhere */
    uint32_t max_prompt_chars, max_requests, max_total_requests, max_concurrent;
    uint16_t weight;
    uint8_t is_plain : 1, delegates : 1, has_max_prompt_chars : 1, think : 2, class : 1;
    uint8_t name_bytes, user_bytes; /* without their NULs */
    char words[];                   /* name, user, team; each ends with a NUL */
};

static inline struct slice key_name(const struct key *key)
{
    return (struct slice){ key->words, key->name_bytes };
}
static inline struct slice key_user(const struct key *key)
{
    return (struct slice){ key->words + key->name_bytes + 1, key->user_bytes };
}
/* "" when it has none. */
static inline const char *key_team(const struct key *key)
{
    return key->words + key->name_bytes + key->user_bytes + 2;
}

/* Has it not expired by then? */
static inline bool key_is_valid_at(const struct key *key, int64_t now_s)
{
    return !key->expires_s || now_s < key->expires_s;
}

/* May it be the name of a key, a user, a team: would it stay one word of a line of the log? 1 to 128 bytes of UTF-8. */
bool key_word_is_good(struct slice word);

/*
 * A copy of a key that is good without its ring, in memory of the caller's: key_copy_bytes() of it, aligned as for a
 * pointer. Its lists are held until key_let_go(), which wipes nothing and gives back nothing else.
 */
size_t key_copy_bytes(const struct key *key);
const struct key *key_copy(const struct key *key, void *memory);
void key_let_go(const struct key *copy);

/* ---- a ring ---- */

struct archive;
struct archive_form;
struct archive_section;
struct keyring;

struct keyring *keyring_ref(struct keyring *ring);
void keyring_ref_more(struct keyring *ring, unsigned count);
/* Returns NULL: `ring = keyring_unref(ring);` */
struct keyring *keyring_unref(struct keyring *ring);
/* The key whose hash this is (constant time in the hash), or NULL. O(1). It lives as long as the ring. */
const struct key *keyring_find(const struct keyring *ring, const struct digest *hash);
size_t keyring_count(const struct keyring *ring);
/* Of the configuration that it holds; 0: of none. */
uint64_t keyring_version(const struct keyring *ring);
/* What it takes of memory, shards that other rings share with it and lists included. */
size_t keyring_bytes(const struct keyring *ring);
/* The one after `key`, in the order of their hashes' first bits and no other; NULL: the first, and when there is none.
 */
const struct key *keyring_next(const struct keyring *ring, const struct key *key);

/* ---- who makes them ---- */

struct locksmith;

/* Begins with a ring of version 0 without keys. NULL: no memory. */
struct locksmith *locksmith_new(void);
/* Rings that others hold live on. */
void locksmith_free(struct locksmith *smith);
/* The ring of now; a reference for the caller. */
struct keyring *locksmith_ring(struct locksmith *smith);

/*
 * A batch: begin, then puts and removals (of one key, the last one counts), then commit or abandon. Nothing is seen of
 * it before commit. What is wrong with a put breaks the batch: commit says so again and changes nothing.
 *
 * locksmith_begin: changes that lead from one version to a later one. ERR_REFUSED with the reason: we are at another.
 * locksmith_begin_whole: all keys there are in that version; those of before go.
 */
enum err locksmith_begin(struct locksmith *smith, uint64_t from, uint64_t to, struct text *why);
void locksmith_begin_whole(struct locksmith *smith, uint64_t to);
/* Removals only: the version stays. For what must let nobody in although the rest of its version cannot be taken. */
void locksmith_begin_removals(struct locksmith *smith);
/* By its hash: one that is there is replaced. ERR_BAD with the reason; ERR_NO_MEMORY. The rule is copied. */
enum err locksmith_put(struct locksmith *smith, const struct key_rule *rule, struct text *why);
/* One that is not there is no error: who gathers changes may leave out what came and went. */
enum err locksmith_remove(struct locksmith *smith, const struct digest *hash, struct text *why);
/* ERR_OK: locksmith_ring() is another one now. Else nothing has changed, and the batch is gone as well. */
enum err locksmith_commit(struct locksmith *smith, struct text *why);
void locksmith_abandon(struct locksmith *smith);
/*
 * In place of committing a whole batch: only the keys that it leaves out go, and the version stays. *ret_count: how
 * many there were; with none the ring is the one of before. Else as commit.
 */
enum err locksmith_commit_removals(struct locksmith *smith, size_t *ret_count, struct text *why);
/* Frees rings of before that nobody else holds any more; commit does it as well. Gives how many are still held. */
size_t locksmith_tidy(struct locksmith *smith);

/* ---- on disk ---- */

enum { KEYRING_OWN_KINDS = 16 }; /* kinds of sections below are the ring's own */

/* What else lies in the same archive, so that both are always of one version. */
struct keyring_others {
    void (*begin)(void *arg); /* what was taken from a file that turned out to be bad is void */
    /* Says what is wrong with it as the rest of a sentence that begins with the file's name. */
    enum err (*take)(void *arg, const struct archive_section *section, struct text *why);
    void *arg;
};

extern const struct archive_form keyring_form;

/* Writes the ring, behind the `others`, as the archive of that name, whose stamp is its version: archive.h says how.
 * Takes as long as the disk does: from a thread that nobody waits for. */
enum err keyring_save(const struct keyring *ring, const char *path, const struct archive_section *others, size_t count,
                      struct text *why);
/*
 * The keys of that archive, or of the one before, as a whole batch. ERR_OK with words in `why`: it was the one before,
 * and they say what is wrong with the newest. ERR_NOT_FOUND: there is neither. Else nothing has changed. `others` may
 * be NULL: then the file must hold nothing else.
 */
enum err locksmith_load(struct locksmith *smith, const char *path, const struct keyring_others *others,
                        struct text *why);
enum err locksmith_load_from(struct locksmith *smith, struct archive *archive, const struct keyring_others *others,
                             struct text *why);
