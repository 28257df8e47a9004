#include <stdlib.h>

#include "some.h"

TEST(a_new_ring_has_no_keys)
{
    struct locksmith *smith = locksmith_new();
    struct keyring *ring = locksmith_ring(smith);

    CHECK(keyring_count(ring) == 0 && keyring_version(ring) == 0 && !keyring_next(ring, NULL) && !some_found(ring, 0));
    ring = keyring_unref(ring);
    CHECK(!ring);
    locksmith_free(smith);
}

TEST(a_key_is_found_with_all_that_its_rule_says)
{
    const char *models[] = { "qwen3:32b", "llama3:latest", "qwen3:32b", "phi4:latest" };
    struct key_rule rule = { .id = { 1, 2, 3 },
                             .name = "laptop",
                             .user = "zoë",
                             .team = "lab",
                             .delegates = true,
                             .has_allow = true,
                             .models = models,
                             .model_count = 4,
                             .max_requests = 5,
                             .max_total_requests = 500,
                             .max_concurrent = 3,
                             .has_max_prompt_chars = true,
                             .max_prompt_chars = 1000000000,
                             .think = KEY_THINK_OFF,
                             .weight = 1000,
                             .class = KEY_BATCH,
                             .expires_s = 4102444800 };
    struct locksmith *smith = locksmith_new();
    struct address inside, outside;
    struct cidr range;
    struct keyring *ring;
    const struct key *key;
    struct text why;

    text_init(&why, 1024);
    CHECK(cidr_parse(SLICE("10.0.3.0/24"), &range, &why) == ERR_OK && cidr_list_add(&rule.allow, range) == ERR_OK);
    rule.hash = some_hash(7);
    locksmith_begin_whole(smith, 9);
    CHECK(locksmith_put(smith, &rule, &why) == ERR_OK);
    some_commit(smith);
    ring = locksmith_ring(smith);
    locksmith_free(smith); /* the ring lives on */
    key = some_found(ring, 7);
    CHECK(key && digest_is(&key->hash, &rule.hash) && memcmp(key->id, rule.id, sizeof key->id) == 0);
    CHECK_STR(key_name(key).at, key_name(key).len, "laptop");
    CHECK_STR(key_user(key).at, key_user(key).len, "zoë");
    CHECK(strcmp(key_team(key), "lab") == 0 && strcmp(key->words, "laptop") == 0);
    CHECK(key->delegates && !key->is_plain && key->think == KEY_THINK_OFF && key->class == KEY_BATCH);
    CHECK(key->max_requests == 5 && key->max_total_requests == 500 && key->max_concurrent == 3);
    CHECK(key->has_max_prompt_chars && key->max_prompt_chars == 1000000000 && key->weight == 1000);
    CHECK(key->expires_s == 4102444800);
    CHECK(key->models->count == 3 && strcmp(key->models->names[0], "llama3:latest") == 0); /* sorted, each once */
    CHECK(strcmp(key->models->names[1], "phi4:latest") == 0 && strcmp(key->models->names[2], "qwen3:32b") == 0);
    CHECK(address_parse(SLICE("10.0.3.200"), &inside) && address_parse(SLICE("10.0.4.1"), &outside));
    CHECK(cidr_list_has(key->allow, &inside) && !cidr_list_has(key->allow, &outside));
    CHECK(keyring_count(ring) == 1 && keyring_version(ring) == 9 && !some_found(ring, 8));
    keyring_unref(ring);
    cidr_list_release(&rule.allow);
    text_release(&why);
}

TEST(tens_of_thousands_are_all_found_and_walked_through_once)
{
    enum { KEYS = 40000 };
    struct locksmith *smith = some_locksmith(KEYS, 1);
    struct keyring *ring = locksmith_ring(smith);
    bool *is_seen = calloc(KEYS, sizeof *is_seen);
    size_t walked = 0;

    CHECK(is_seen && keyring_count(ring) == KEYS);
    for (unsigned n = 0; n < KEYS; n++) {
        const struct key *key = some_found(ring, n);
        unsigned id;
        CHECK(key);
        memcpy(&id, key->id, sizeof id);
        CHECK_EQ(id, n);
    }
    CHECK(!some_found(ring, KEYS));
    for (const struct key *key = keyring_next(ring, NULL); key; key = keyring_next(ring, key), walked++) {
        unsigned id;
        memcpy(&id, key->id, sizeof id);
        CHECK(id < KEYS && !is_seen[id]);
        is_seen[id] = true;
    }
    CHECK_EQ(walked, KEYS);
    CHECK(keyring_bytes(ring) / KEYS < 200);
    free(is_seen);
    keyring_unref(ring);
    locksmith_free(smith);
}

/* Hashes that differ in one bit only, wherever it is: also where neither shard, nor spot, nor tag look. */
TEST(a_hash_that_is_nearly_a_keys_finds_nothing)
{
    struct locksmith *smith = some_locksmith(2000, 1);
    struct keyring *ring = locksmith_ring(smith);

    for (unsigned n = 0; n < 50; n++)
        for (unsigned bit = 0; bit < 256; bit++) {
            struct digest hash = some_hash(n);
            hash.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            CHECK(!keyring_find(ring, &hash));
        }
    keyring_unref(ring);
    locksmith_free(smith);
}

/* Alike as far as the index looks: the keys themselves must tell them apart. */
TEST(keys_whose_hashes_begin_alike_are_told_apart)
{
    enum { ALIKE = 300 };
    struct locksmith *smith = locksmith_new();
    struct some_key key;
    struct keyring *ring;
    struct text why;

    text_init(&why, 1024);
    locksmith_begin_whole(smith, 1);
    for (unsigned n = 0; n < ALIKE; n++) {
        some_rule(&key, n);
        memset(key.rule.hash.bytes, 0xff, 16);
        CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
    }
    some_commit(smith);
    ring = locksmith_ring(smith);
    for (unsigned n = 0; n < ALIKE; n++) {
        struct digest hash = some_hash(n);
        memset(hash.bytes, 0xff, 16);
        CHECK(memcmp(keyring_find(ring, &hash)->id, &n, sizeof n) == 0);
    }
    keyring_unref(ring);
    locksmith_free(smith);
    text_release(&why);
}

TEST(a_copy_is_good_when_ring_and_locksmith_are_gone)
{
    const char *models[] = { "m:latest" };
    struct locksmith *smith = locksmith_new();
    struct some_key given;
    struct keyring *ring;
    const struct key *copy;
    struct text why;
    void *memory;

    text_init(&why, 1024);
    some_rule(&given, 1);
    given.rule.models = models;
    given.rule.model_count = 1;
    locksmith_begin_whole(smith, 1);
    CHECK(locksmith_put(smith, &given.rule, &why) == ERR_OK);
    some_commit(smith);
    ring = locksmith_ring(smith);
    memory = malloc(key_copy_bytes(some_found(ring, 1)));
    copy = key_copy(some_found(ring, 1), memory);
    keyring_unref(ring);
    locksmith_free(smith);
    CHECK_STR(key_name(copy).at, key_name(copy).len, "laptop1");
    CHECK_STR(key_user(copy).at, key_user(copy).len, "user0");
    CHECK(strcmp(key_team(copy), "lab") == 0 && strcmp(copy->models->names[0], "m:latest") == 0);
    key_let_go(copy);
    free(memory);
    text_release(&why);
}

TEST(a_key_lets_in_until_the_second_in_which_it_expires)
{
    struct key never = { 0 }, once = { .expires_s = 1000 };

    CHECK(key_is_valid_at(&never, 0) && key_is_valid_at(&never, INT64_MAX));
    CHECK(key_is_valid_at(&once, 999) && !key_is_valid_at(&once, 1000) && !key_is_valid_at(&once, 1001));
}

TEST(words_that_would_break_a_line_of_the_log_are_none)
{
    static const char *const good[] = { "a", "Zoë", "webui-2", "a!", "山田" };
    static const char *const bad[] = {
        "",       " ",    "a b",          "a/b",      "a=b",         "a\"b",   "!1.2.3.4",
        "a\tb",   "a\nb", "a\x7f",        "\xc2\x85", "a\u00a0b",    "\u2003", "\u200e",
        "\u202f", "\xff", "\xed\xa0\x80", "a\u2028b", "\ufeffalice", "\u1680x"
    };
    char longest[KEY_NAME_MAX_BYTES + 2];

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK_ROW(key_word_is_good(slice_of(good[i])), good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_ROW(!key_word_is_good(slice_of(bad[i])), bad[i]);
    memset(longest, 'a', sizeof longest);
    CHECK(key_word_is_good((struct slice){ longest, KEY_NAME_MAX_BYTES }));
    CHECK(!key_word_is_good((struct slice){ longest, KEY_NAME_MAX_BYTES + 1 }));
}
