#include <stdlib.h>

#include "some.h"

TEST(a_change_makes_another_ring_and_the_old_one_stays_as_it_was)
{
    struct locksmith *smith = some_locksmith(1000, 5);
    struct keyring *before = locksmith_ring(smith), *after;

    some_begin(smith, 5, 6);
    some_removal(smith, 3);
    some_put(smith, 1000);
    some_commit(smith);
    after = locksmith_ring(smith);
    CHECK(after != before && keyring_version(before) == 5 && keyring_version(after) == 6);
    CHECK(some_found(before, 3) && !some_found(before, 1000) && keyring_count(before) == 1000);
    CHECK(!some_found(after, 3) && some_found(after, 1000) && keyring_count(after) == 1000);
    for (unsigned n = 0; n < 1000; n++)
        CHECK((some_found(after, n) != NULL) == (n != 3));
    CHECK(some_found(after, 999) == some_found(before, 999)); /* shards that nothing touched are shared */
    keyring_unref(before);
    keyring_unref(after);
    locksmith_free(smith);
}

TEST(changes_from_another_version_are_refused)
{
    static const struct {
        uint64_t from, to;
        const char *why;
    } rows[] = {
        { 4, 6, "the changes lead from version 4 to 6, and the keys here are of version 5" },
        { 6, 7, "the changes lead from version 6 to 7, and the keys here are of version 5" },
        { 5, 5, "the changes lead from version 5 to 5, and the keys here are of version 5" },
        { 5, 4, "the changes lead from version 5 to 4, and the keys here are of version 5" },
    };
    struct locksmith *smith = some_locksmith(10, 5);

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text why;
        text_init(&why, 1024);
        CHECK_EQ(locksmith_begin(smith, rows[i].from, rows[i].to, &why), ERR_REFUSED);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        text_release(&why);
    }
    some_begin(smith, 5, 8);
    some_commit(smith); /* changes of something else: only the version is another */
    struct keyring *ring = locksmith_ring(smith);
    CHECK(keyring_version(ring) == 8 && keyring_count(ring) == 10);
    keyring_unref(ring);
    locksmith_free(smith);
}

TEST(one_bad_change_and_none_is_made)
{
    char longest[KEY_NAME_MAX_BYTES + 2] = { 0 };
    const char *no_models[] = { "" }, *upper[] = { "Qwen3:32b" };
    struct cidr odd = { .bits = 129 };
    const struct {
        struct key_rule rule;
        const char *why;
    } rows[] = {
        { { .name = "", .user = "u", .weight = 1 }, "has a name that cannot stand in a log" },
        { { .name = longest, .user = "u", .weight = 1 }, "has a name that cannot stand in a log" },
        { { .name = "n", .user = "a b", .weight = 1 }, "has a user whose name cannot stand in a log" },
        { { .name = "n", .user = "u", .team = "a\nb", .weight = 1 }, "has a team whose name cannot stand in a log" },
        { { .name = "n", .user = "u", .weight = 0 }, "must have a weight from 1 to 1000" },
        { { .name = "n", .user = "u", .weight = 1001 }, "must have a weight from 1 to 1000" },
        { { .name = "n", .user = "u", .weight = 1, .think = 3 }, "asks for what this version does not know" },
        { { .name = "n", .user = "u", .weight = 1, .class = 2 }, "asks for what this version does not know" },
        { { .name = "n", .user = "u", .weight = 1, .expires_s = -1 }, "expires before 1970" },
        { { .name = "n", .user = "u", .weight = 1, .has_max_prompt_chars = true, .max_prompt_chars = 1ull << 32 },
          "has a limit of characters that is none" },
        { { .name = "n", .user = "u", .weight = 1, .models = no_models }, "must name 1 to 4096 models, or allow all" },
        { { .name = "n", .user = "u", .weight = 1, .models = no_models, .model_count = 1 },
          "names a model that could be none" },
        { { .name = "n", .user = "u", .weight = 1, .models = upper, .model_count = 1 },
          "names a model that could be none" },
        { { .name = "n", .user = "u", .weight = 1, .has_allow = true },
          "must name 1 to 4096 ranges of addresses, or allow all" },
        { { .name = "n", .user = "u", .weight = 1, .has_allow = true, .allow = { .items = &odd, .count = 1 } },
          "names a range of addresses that is none" },
    };
    struct locksmith *smith = some_locksmith(10, 1);
    struct keyring *before = locksmith_ring(smith), *after;

    memset(longest, 'a', KEY_NAME_MAX_BYTES + 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct key_rule rule = rows[i].rule;
        struct text why;
        text_init(&why, 1024);
        rule.hash = some_hash(100);
        some_begin(smith, 1, 2);
        some_put(smith, 11);
        some_removal(smith, 5);
        CHECK_ROW(locksmith_put(smith, &rule, &why) == ERR_BAD, rows[i].why);
        CHECK_ROW(slice_ends(text_slice(&why), slice_of(rows[i].why)), text_string(&why));
        CHECK_ROW(slice_starts(text_slice(&why), SLICE("the key sha256:")), text_string(&why));
        text_clear(&why);
        CHECK_EQ(locksmith_commit(smith, &why), ERR_BAD);
        CHECK_STR(text_string(&why), why.len, "one of the changes was refused, so none is made");
        after = locksmith_ring(smith);
        CHECK(after == before);
        keyring_unref(after);
        text_release(&why);
    }
    keyring_unref(before);
    locksmith_free(smith);
}

TEST(nothing_is_seen_of_a_batch_that_is_abandoned)
{
    struct locksmith *smith = some_locksmith(10, 1);
    struct keyring *before = locksmith_ring(smith), *after;

    some_begin(smith, 1, 2);
    some_put(smith, 10);
    locksmith_abandon(smith);
    after = locksmith_ring(smith);
    CHECK(after == before && !some_found(after, 10));
    keyring_unref(after);
    some_begin(smith, 1, 2); /* and the next one begins with nothing of it */
    some_commit(smith);
    after = locksmith_ring(smith);
    CHECK(!some_found(after, 10) && keyring_count(after) == 10);
    keyring_unref(before);
    keyring_unref(after);
    locksmith_free(smith);
}

TEST(of_changes_of_one_key_the_last_one_counts)
{
    struct locksmith *smith = some_locksmith(3, 1);
    struct some_key key;
    struct keyring *ring;
    struct text why;

    text_init(&why, 1024);
    some_begin(smith, 1, 2);
    some_removal(smith, 0);
    some_put(smith, 0); /* there again */
    some_put(smith, 9);
    some_removal(smith, 9); /* came and went */
    for (unsigned weight = 1; weight <= 7; weight++) {
        some_rule(&key, 1);
        key.rule.weight = weight;
        CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
    }
    some_removal(smith, 77); /* never was */
    some_commit(smith);
    ring = locksmith_ring(smith);
    CHECK(some_found(ring, 0) && some_found(ring, 1)->weight == 7 && some_found(ring, 2) && !some_found(ring, 9));
    CHECK_EQ(keyring_count(ring), 3);
    keyring_unref(ring);
    locksmith_free(smith);
    text_release(&why);
}

TEST(a_whole_batch_leaves_nothing_of_what_was)
{
    struct locksmith *smith = some_locksmith(100, 50);
    struct keyring *ring;

    locksmith_begin_whole(smith, 7); /* also of an earlier version: another database */
    some_put(smith, 100);
    some_commit(smith);
    ring = locksmith_ring(smith);
    CHECK(keyring_version(ring) == 7 && keyring_count(ring) == 1 && some_found(ring, 100) && !some_found(ring, 1));
    keyring_unref(ring);
    locksmith_begin_whole(smith, 8);
    some_commit(smith);
    ring = locksmith_ring(smith);
    CHECK(keyring_count(ring) == 0 && !keyring_next(ring, NULL) && !some_found(ring, 100));
    keyring_unref(ring);
    locksmith_free(smith);
}

TEST(removals_alone_make_a_ring_of_the_same_version)
{
    struct locksmith *smith = some_locksmith(10, 5);
    struct keyring *ring;

    locksmith_begin_removals(smith);
    some_removal(smith, 3);
    some_removal(smith, 77); /* never was */
    some_commit(smith);
    ring = locksmith_ring(smith);
    CHECK(keyring_version(ring) == 5 && keyring_count(ring) == 9 && !some_found(ring, 3) && some_found(ring, 4));
    keyring_unref(ring);
    some_begin(smith, 5, 6); /* what leads on from that version goes on from here */
    some_removal(smith, 3);
    some_put(smith, 10);
    some_commit(smith);
    ring = locksmith_ring(smith);
    CHECK(keyring_version(ring) == 6 && keyring_count(ring) == 10 && !some_found(ring, 3));
    keyring_unref(ring);
    locksmith_free(smith);
}

TEST(of_a_whole_batch_only_what_it_leaves_out_may_count)
{
    struct locksmith *smith = some_locksmith(1000, 5);
    struct keyring *before = locksmith_ring(smith), *ring;
    struct text why;
    size_t count = 77;

    text_init(&why, 1024);
    locksmith_begin_whole(smith, 9);
    for (unsigned n = 2; n < 1010; n++)
        some_put(smith, n);
    CHECK(locksmith_commit_removals(smith, &count, &why) == ERR_OK && count == 2);
    ring = locksmith_ring(smith);
    CHECK(keyring_version(ring) == 5 && keyring_count(ring) == 998);
    for (unsigned n = 0; n < 1010; n++)
        CHECK((some_found(ring, n) != NULL) == (n >= 2 && n < 1000));
    CHECK_EQ(keyring_count(before), 1000);
    keyring_unref(before);
    locksmith_begin_whole(smith, 10);
    for (unsigned n = 2; n < 1000; n++)
        some_put(smith, n);
    CHECK(locksmith_commit_removals(smith, &count, &why) == ERR_OK && count == 0);
    before = locksmith_ring(smith);
    CHECK(ring == before);
    CHECK(locksmith_commit_removals(smith, &count, &why) == ERR_REFUSED && count == 0); /* there is no batch */
    keyring_unref(before);
    keyring_unref(ring);
    locksmith_free(smith);
    text_release(&why);
}

TEST(the_last_keys_of_a_shard_may_go_and_come)
{
    struct locksmith *smith = some_locksmith(1, 1);
    struct keyring *ring;

    for (uint64_t version = 1; version < 9; version++) {
        some_begin(smith, version, version + 1);
        if (version % 2)
            some_removal(smith, 0);
        else
            some_put(smith, 0);
        some_commit(smith);
        ring = locksmith_ring(smith);
        CHECK(keyring_count(ring) == (version + 1) % 2 && (some_found(ring, 0) != NULL) == (version % 2 == 0));
        keyring_unref(ring);
    }
    locksmith_free(smith);
}

TEST(rings_that_nobody_holds_are_freed_by_the_locksmith_and_by_nobody_else)
{
    struct locksmith *smith = some_locksmith(10, 1);
    struct keyring *held[3];

    for (unsigned i = 0; i < 3; i++) {
        held[i] = locksmith_ring(smith);
        some_begin(smith, i + 1, i + 2);
        some_put(smith, 10 + i);
        some_commit(smith);
    }
    CHECK_EQ(locksmith_tidy(smith), 3);
    keyring_unref(held[1]); /* the memory stays until the locksmith looks */
    CHECK_EQ(locksmith_tidy(smith), 2);
    CHECK(some_found(held[0], 0) && some_found(held[2], 11) && !some_found(held[2], 12));
    keyring_unref(held[0]);
    keyring_unref(held[2]);
    CHECK_EQ(locksmith_tidy(smith), 0);
    locksmith_free(smith);
}

/* A model of the ring that could not be simpler, and thousands of changes at random. */
TEST(a_thousand_random_batches_end_where_a_simple_table_does)
{
    enum { KEYS = 600, BATCHES = 1000 };
    struct locksmith *smith = some_locksmith(0, 0);
    unsigned weights[KEYS] = { 0 }; /* 0: not there */
    struct text why;

    text_init(&why, 1024);
    srand(1);
    for (uint64_t version = 0; version < BATCHES; version++) {
        unsigned changes = (unsigned)rand() % 8;
        struct keyring *ring;
        size_t count = 0;
        if (version % 100 == 99) {
            locksmith_begin_whole(smith, version + 1);
            memset(weights, 0, sizeof weights);
            changes = KEYS;
        } else {
            some_begin(smith, version, version + 1);
        }
        while (changes--) {
            unsigned n = (unsigned)rand() % KEYS;
            struct some_key key;
            if (rand() % 3 == 0) {
                some_removal(smith, n);
                weights[n] = 0;
                continue;
            }
            some_rule(&key, n);
            key.rule.weight = weights[n] = 1 + (unsigned)rand() % 1000;
            CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
        }
        some_commit(smith);
        ring = locksmith_ring(smith);
        for (unsigned n = 0; n < KEYS; n++) {
            const struct key *key = some_found(ring, n);
            CHECK_EQ(key ? key->weight : 0, weights[n]);
            count += key != NULL;
        }
        CHECK_EQ(keyring_count(ring), count);
        keyring_unref(ring);
    }
    locksmith_free(smith);
    text_release(&why);
}

/* Keys change their lists 200 times: each list is there once, and those that nobody has any more do not pile up. */
TEST(lists_are_kept_once_and_only_while_a_key_has_them)
{
    enum { KEYS = 20, TURNS = 200 };
    struct locksmith *smith = some_locksmith(0, 0);
    size_t bytes = 0;
    struct text why;

    text_init(&why, 1024);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct keyring *ring;
        some_begin(smith, turn, turn + 1);
        for (unsigned n = 0; n < KEYS; n++) {
            char model[32];
            const char *models[] = { "always:latest", model };
            struct some_key key;
            (void)snprintf(model, sizeof model, "turn%u:latest", turn * 3 + n % 3);
            some_rule(&key, n);
            key.rule.models = models;
            key.rule.model_count = 2;
            CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
        }
        some_commit(smith);
        ring = locksmith_ring(smith);
        CHECK(some_found(ring, 0)->models == some_found(ring, 3)->models);
        CHECK(some_found(ring, 0)->models != some_found(ring, 1)->models);
        if (turn == TURNS / 2)
            bytes = keyring_bytes(ring);
        CHECK(turn < TURNS / 2 || keyring_bytes(ring) < bytes + 16384);
        keyring_unref(ring);
    }
    locksmith_free(smith);
    text_release(&why);
}
