#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "given.h"
#include "keyring.h"

/* SHA-256 of "password", and a key as qwadm makes them. */
#define HEX  "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define QK   "qk_Ab3dE6gH9k_0123456789ABCDEFGHIJKLMNOPQ"
#define KEYS "auth:\n  valid_keys:\n"

static const struct key *found(const struct snapshot *snapshot, const char *secret)
{
    struct digest hash;

    digest_sha256(slice_of(secret), &hash);
    return keyring_find(snapshot->keyring, &hash);
}

static bool name_is(const struct key *key, const char *name)
{
    return slice_is(key_name(key), slice_of(name));
}

static bool user_is(const struct key *key, const char *user)
{
    return slice_is(key_user(key), slice_of(user));
}

/* The key with its check digits. */
static void finish_qk(const char *before, char out[64])
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    uint32_t crc = crc32_of(slice_of(before));
    size_t len = strlen(before);

    memcpy(out, before, len);
    for (size_t i = 6; i-- > 0; crc /= 62)
        out[len + i] = digits[crc % 62];
    out[len + 6] = 0;
}

TEST(plain_keys_are_named_by_position)
{
    struct snapshot *snapshot = given(KEYS "    - one\n    - {key: two, name: alice}\n    - \"sha256:" HEX "\"\n");

    CHECK_EQ(snapshot->key_count, 3);
    CHECK(name_is(found(snapshot, "one"), "key1") && user_is(found(snapshot, "one"), "key1"));
    CHECK(name_is(found(snapshot, "two"), "alice") && user_is(found(snapshot, "two"), "alice"));
    CHECK(name_is(found(snapshot, "password"), "key3"));
    CHECK(found(snapshot, "one")->is_plain && !found(snapshot, "two")->is_plain &&
          found(snapshot, "password")->is_plain);
    CHECK(found(snapshot, "one")->weight == 1 && found(snapshot, "one")->class == KEY_INTERACTIVE);
    CHECK(!found(snapshot, "One") && !found(snapshot, "") && !found(snapshot, "sha256:" HEX) && !found(snapshot, HEX));
    snapshot_unref(snapshot);
}

TEST(a_key_has_the_rules_of_its_entry)
{
    struct snapshot *snapshot = given(
        KEYS "    - key: k\n      name: webui\n      user: Zoë\n      delegate: true\n"
             "      models: [Qwen3:32B, llama3, registry.ollama.ai/library/phi4]\n      allow: [10.0.3.0/24, '::1']\n"
             "      max_requests: 5\n      max_total_requests: 500\n      max_prompt_chars: 0\n      think: false\n"
             "      weight: 1000\n      class: batch\n"
             "    - {key: other, think: true}\n");
    const struct key *key = found(snapshot, "k"), *other = found(snapshot, "other");
    struct address address;

    CHECK(name_is(key, "webui") && user_is(key, "Zoë") && key->delegates && !key->is_plain);
    CHECK(key_may_use(key, SLICE("qwen3:32b")) && key_may_use(key, SLICE("llama3:latest")));
    CHECK(key_may_use(key, SLICE("phi4:latest")) && key->models->count == 3);
    CHECK(!key_may_use(key, SLICE("llama3:8b")) && !key_may_use(key, SLICE("llama3")) && !key_may_use(key, SLICE("")));
    CHECK(!key_may_use(key, SLICE("qwen3:32b\0")) && !key_may_use(key, SLICE("zzz:latest")));
    CHECK(key->allow && key->allow->count == 2 && address_parse(SLICE("10.0.3.200"), &address));
    CHECK(cidr_list_has(key->allow, &address));
    CHECK(key->max_requests == 5 && key->max_total_requests == 500);
    CHECK(key->has_max_prompt_chars && key->max_prompt_chars == 0 && key->think == THINK_OFF);
    CHECK(key->weight == 1000 && key->class == KEY_BATCH);
    CHECK(other->weight == 1 && other->class == KEY_INTERACTIVE);
    CHECK(!other->delegates && !other->allow && !other->models && key_may_use(other, SLICE("anything:latest")));
    CHECK(other->max_requests == 0 && other->max_total_requests == 0 && !other->has_max_prompt_chars);
    CHECK(other->think == THINK_ON && name_is(other, "key2"));
    snapshot_unref(snapshot);
}

TEST(a_hash_is_taken_in_three_spellings)
{
    static const char *const rows[] = {
        "\"sha256:" HEX "\"", "{key_sha256: " HEX "}", "{key_sha256: \"sha256:" HEX "\"}", "{key: \"sha256:" HEX "\"}",
        "{key_sha256: 5E884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8}"
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[256];
        (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [%s]}\n", rows[i]);
        struct snapshot *snapshot = given(yaml);
        CHECK_ROW(snapshot->key_count == 1 && found(snapshot, "password"), yaml);
        snapshot_unref(snapshot);
    }
}

TEST(a_hash_of_decimal_digits_only_needs_no_quotes)
{
    struct snapshot *snapshot =
        given("auth: {valid_keys: [{key_sha256: 1234567890123456789012345678901234567890123456789012345678901234}]}\n");

    CHECK_EQ(snapshot->keys[0].hash.bytes[0], 0x12);
    snapshot_unref(snapshot);
}

TEST(a_qk_key_is_named_by_its_public_id)
{
    char key[64], yaml[256];

    finish_qk(QK, key);
    CHECK_EQ(strlen(key), 47);
    (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [%s]}\n", key);
    struct snapshot *snapshot = given(yaml);
    CHECK(found(snapshot, key) && name_is(found(snapshot, key), "Ab3dE6gH9k"));
    snapshot_unref(snapshot);
    (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [{key: %s, name: bob}]}\n", key);
    snapshot = given(yaml);
    CHECK(name_is(found(snapshot, key), "bob"));
    snapshot_unref(snapshot);
}

/* Known from another implementation of CRC-32 and base62, so that both ends cannot be wrong together. */
TEST(the_check_digits_of_a_qk_key_are_the_crc32_in_base62)
{
    struct snapshot *snapshot = given("auth: {valid_keys: [" QK "2iXeep]}\n");

    CHECK(strcmp(snapshot->keys[0].name, "Ab3dE6gH9k") == 0);
    snapshot_unref(snapshot);
}

TEST(every_typo_in_a_qk_key_is_one_clear_sentence)
{
    char key[64], typo[64], yaml[256];
    const char *why;

    finish_qk(QK, key);
    for (size_t i = 14; i < strlen(key); i++) {
        memcpy(typo, key, sizeof typo);
        typo[i] = typo[i] == 'x' ? 'y' : 'x';
        (void)snprintf(yaml, sizeof yaml, "auth:\n  valid_keys: [a, %s]\n", typo);
        CHECK_ROW(!given_with(yaml, &why, NULL), typo);
        CHECK_STR(why, strlen(why),
                  "c.yaml:2: auth.valid_keys[2] looks like a qk_ key, but its check digits are wrong: it was "
                  "mistyped or cut");
    }
    for (size_t len = 14; len < strlen(key); len++) {
        (void)snprintf(yaml, sizeof yaml, "auth:\n  valid_keys: [a, %.*s]\n", (int)len, key);
        CHECK_ROW(!given_with(yaml, &why, NULL), yaml);
        CHECK_ROW(strstr(why, "mistyped or cut"), yaml);
    }
    (void)snprintf(yaml, sizeof yaml, "auth:\n  valid_keys: [a, %sx]\n", key);
    CHECK(!given_with(yaml, &why, NULL) && strstr(why, "mistyped or cut"));
}

TEST(other_words_that_begin_with_qk_are_anybodys_keys)
{
    struct snapshot *snapshot = given("auth: {valid_keys: [qk_test, qk_, qk_0123456789, qk_01234567_9_x]}\n");

    CHECK(found(snapshot, "qk_test") && found(snapshot, "qk_") && found(snapshot, "qk_0123456789"));
    CHECK(name_is(found(snapshot, "qk_01234567_9_x"), "key4"));
    snapshot_unref(snapshot);
}

TEST(a_key_may_have_1_to_256_bytes_of_printable_ascii)
{
    char secret[258], yaml[400];
    const char *why;
    struct snapshot *snapshot;

    memset(secret, 'k', sizeof secret);
    secret[256] = 0;
    (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [\"%s\", \"!\", \"~\"]}\n", secret);
    snapshot = given(yaml);
    CHECK(found(snapshot, secret) && found(snapshot, "!") && found(snapshot, "~"));
    snapshot_unref(snapshot);
    memset(secret, 'k', sizeof secret);
    secret[257] = 0;
    (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [\"%s\"]}\n", secret);
    CHECK(!given_with(yaml, &why, NULL));
    CHECK_STR(why, strlen(why), "c.yaml:1: auth.valid_keys[1] is 257 bytes long, but at most 256 are allowed");
}

TEST(bad_keys_are_refused_with_file_line_and_place_and_never_quoted)
{
#define ASCII "must be printable ASCII without a space at either end, because it travels in a header"
#define NAMED "must not hold spaces, control characters, /, = or \", nor begin with !: it stands in the log"
    static const struct refusal rows[] = {
        { "auth: {valid_keys: []}\n",
          "c.yaml:1: auth.valid_keys is empty: nobody could be let in; add a key, or set auth.enabled: false" },
        { "auth: {header_key: X-K}\n",
          "c.yaml:1: auth has no auth.valid_keys, but keys are asked for: add a key, or set "
          "auth.enabled: false" },
        { "auth: {valid_keys: secret}\n", "c.yaml:1: auth.valid_keys must be a list, not a single value" },
        { "auth: {valid_keys: {secret: alice}}\n", "c.yaml:1: auth.valid_keys must be a list, not a map" },
        { KEYS "    - ''\n", "c.yaml:3: auth.valid_keys[1] must not be empty" },
        { KEYS "    -\n", "c.yaml:3: auth.valid_keys[1] must be text, not nothing" },
        { KEYS "    - [secret]\n", "c.yaml:3: auth.valid_keys[1] must be a map (key: value), not a list" },
        { KEYS "    - 12345678\n", "c.yaml:3: auth.valid_keys[1] must be text: put it in quotes" },
        { KEYS "    - 'two words '\n", "c.yaml:3: auth.valid_keys[1] " ASCII },
        { KEYS "    - schlüssel\n", "c.yaml:3: auth.valid_keys[1] " ASCII },
        { KEYS "    - \"a\\tb\"\n", "c.yaml:3: auth.valid_keys[1] must be one line without control characters" },
        { KEYS "    - a\n    - b\n    - a\n", "c.yaml:5: auth.valid_keys[3] is the same key as in line 3" },
        { KEYS "    - password\n    - {name: x, key_sha256: " HEX "}\n",
          "c.yaml:4: auth.valid_keys[2] is the same key as in line 3" },
        { KEYS "    - {key: a, name: n}\n    - {key: b, name: n}\n",
          "c.yaml:4: auth.valid_keys[2] is named n, as is the key in line 3" },
        { KEYS "    - {key: a, name: key2}\n    - b\n",
          "c.yaml:4: auth.valid_keys[2] is named key2, as is the key in line 3" },
        { KEYS "    - sha256:abc\n", "c.yaml:3: auth.valid_keys[1] needs 64 hexadecimal digits as its SHA-256 "
                                     "(qwen-gateway --hash-key prints them)" },
        { KEYS "    - {key_sha256: abc}\n", "c.yaml:3: auth.valid_keys[1].key_sha256 needs 64 hexadecimal digits "
                                            "(qwen-gateway --hash-key prints them)" },
        { KEYS "    - {name: x}\n", "c.yaml:3: auth.valid_keys[1] needs exactly one of key, key_sha256 and key_file" },
        { KEYS "    - {key: a, key_sha256: " HEX "}\n",
          "c.yaml:3: auth.valid_keys[1] needs exactly one of key, key_sha256 and key_file" },
        { KEYS "    - {key: [a]}\n", "c.yaml:3: auth.valid_keys[1].key must be text, not a list" },
        { KEYS "    - {key: ' a b'}\n", "c.yaml:3: auth.valid_keys[1].key " ASCII },
        { KEYS "    - {sk-12345: alice}\n", "c.yaml:3: auth.valid_keys[1] holds an unknown key" },
        { KEYS "    - {key: a, modles: [x]}\n",
          "c.yaml:3: auth.valid_keys[1].modles is not a known setting: did you mean models?" },
        { KEYS "    - {key: a, weight: 0}\n",
          "c.yaml:3: auth.valid_keys[1].weight must be a whole number from 1 to 1000, not \"0\"" },
        { KEYS "    - {key: a, weight: 1001}\n",
          "c.yaml:3: auth.valid_keys[1].weight must be a whole number from 1 to 1000, not \"1001\"" },
        { KEYS "    - {key: a, class: urgent}\n",
          "c.yaml:3: auth.valid_keys[1].class must be interactive or batch, not \"urgent\"" },
        { KEYS "    - {key: a, priority: 1}\n", "c.yaml:3: auth.valid_keys[1] holds an unknown key" },
        { KEYS "    - {key: a, name: 'a b'}\n", "c.yaml:3: auth.valid_keys[1].name " NAMED },
        { KEYS "    - {key: a, name: a/b}\n", "c.yaml:3: auth.valid_keys[1].name " NAMED },
        { KEYS "    - {key: a, name: a=b}\n", "c.yaml:3: auth.valid_keys[1].name " NAMED },
        { KEYS "    - {key: a, name: 'a\"b'}\n", "c.yaml:3: auth.valid_keys[1].name " NAMED },
        { KEYS "    - {key: a, name: '!1.2.3.4'}\n", "c.yaml:3: auth.valid_keys[1].name " NAMED },
        { KEYS "    - {key: a, user: \"a\\u00a0b\"}\n", "c.yaml:3: auth.valid_keys[1].user " NAMED },
        { KEYS "    - {key: a, user: \"a\\u0085b\"}\n", "c.yaml:3: auth.valid_keys[1].user " NAMED },
        { KEYS "    - {key: a, user: \"a\\u2003b\"}\n", "c.yaml:3: auth.valid_keys[1].user " NAMED },
        { KEYS "    - {key: a, user: ''}\n", "c.yaml:3: auth.valid_keys[1].user must not be empty" },
        { KEYS "    - key: a\n      models: []\n",
          "c.yaml:4: auth.valid_keys[1].models is empty: leave it out to allow every model" },
        { KEYS "    - key: a\n      models:\n        - ok\n        - a b\n",
          "c.yaml:6: auth.valid_keys[1].models[2] is not the name of a model: letters, digits and ._-/ with a tag "
          "after : are" },
        { KEYS "    - key: a\n      models: [gpt-oss:120b-cloud]\n",
          "c.yaml:4: auth.valid_keys[1].models[1] is a cloud model: prompts would leave this machine" },
        { KEYS "    - key: a\n      allow: []\n",
          "c.yaml:4: auth.valid_keys[1].allow is empty: leave it out to allow every address" },
        { KEYS "    - key: a\n      allow: [10.0.0.0/64]\n",
          "c.yaml:4: auth.valid_keys[1].allow[1] is wrong: "
          "\"10.0.0.0/64\" needs a number from 0 to 32 after the /" },
        { KEYS "    - key: a\n      max_requests: 0\n",
          "c.yaml:4: auth.valid_keys[1].max_requests must be a whole number from 1 to 1000000, not \"0\"" },
        { KEYS "    - key: a\n      max_prompt_chars: -1\n",
          "c.yaml:4: auth.valid_keys[1].max_prompt_chars must be a whole number from 0 to 1000000000, not \"-1\"" },
        { KEYS "    - key: a\n      think: low\n",
          "c.yaml:4: auth.valid_keys[1].think must be true or false, not \"low\"" },
        { KEYS "    - key: a\n      delegate: 1\n",
          "c.yaml:4: auth.valid_keys[1].delegate must be true or false, not \"1\"" },
        { KEYS "    - {key_file: /nonexistent/key}\n",
          "c.yaml:3: auth.valid_keys[1].key_file cannot be read: No such file or directory" },
        { KEYS "    - {key_file: /dev/zero}\n",
          "c.yaml:3: auth.valid_keys[1].key_file cannot be read: it is not a regular file" },
        { KEYS "    - {key_file: /}\n",
          "c.yaml:3: auth.valid_keys[1].key_file cannot be read: it is not a regular file" },
    };

    CHECK_REFUSALS(rows);
}

static void write_file(const char *path, const char *bytes, mode_t mode)
{
    FILE *file = fopen(path, "w");

    CHECK(file && fputs(bytes, file) >= 0 && fclose(file) == 0 && chmod(path, mode) == 0);
}

TEST(a_key_may_stand_in_a_file_of_its_own)
{
    static const struct {
        const char *bytes;
        mode_t mode;
        const char *secret, *why; /* why: what the refusal ends with */
        bool is_warned;
    } rows[] = {
        { "the-key\n", 0600, "the-key", NULL, false },
        { "the-key", 0600, "the-key", NULL, false },
        { "the-key\r\n", 0600, "the-key", NULL, false },
        { "the-key\n", 0644, "the-key", NULL, true },
        { "sha256:" HEX "\n", 0644, "password", NULL, false },
        { "", 0600, NULL, "must hold one line, the key", false },
        { "\n", 0600, NULL, "must hold one line, the key", false },
        { "a\nb\n", 0600, NULL, "must hold one line, the key", false },
        { " ab\n", 0600, NULL, "without a space at either end, because it travels in a header", false },
    };
    char folder[] = "/tmp/test_keys_XXXXXX", path[64], yaml[256];
    const char *why, *warnings;

    CHECK(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/k", folder);
    (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [{key_file: %s, name: filed}]}\n", path);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_file(path, rows[i].bytes, rows[i].mode);
        struct snapshot *snapshot = given_with(yaml, &why, &warnings);
        CHECK_ROW((snapshot != NULL) == (rows[i].secret != NULL), rows[i].bytes);
        CHECK_ROW(snapshot || slice_ends(slice_of(why), slice_of(rows[i].why)), why);
        CHECK_ROW(!snapshot || found(snapshot, rows[i].secret), rows[i].bytes);
        CHECK_ROW((strstr(warnings, "chmod 600") != NULL) == rows[i].is_warned, warnings);
        snapshot_unref(snapshot);
    }
    (void)unlink(path);
    (void)rmdir(folder);
}

TEST(a_relative_key_file_counts_from_the_configurations_folder)
{
    char folder[] = "/tmp/test_keys_XXXXXX", path[64], config[64];
    struct text why;
    struct snapshot *snapshot;

    CHECK(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/web.key", folder);
    (void)snprintf(config, sizeof config, "%s/config.yaml", folder);
    write_file(path, "the-key\n", 0600);
    write_file(config, "auth: {valid_keys: [{key_file: web.key}]}\n", 0600);
    text_init(&why, 4096);
    snapshot = snapshot_load(config, &why, NULL);
    (void)unlink(path);
    (void)unlink(config);
    (void)rmdir(folder);
    CHECK(snapshot && found(snapshot, "the-key"));
    snapshot_unref(snapshot);
}

TEST(thousands_of_keys_are_all_found)
{
    enum { KEYS_IN_ALL = 20000 };
    struct text yaml, why;
    char secret[32];

    text_init(&yaml, 1 << 20);
    text_init(&why, 4096);
    text_add_string(&yaml, "auth:\n  valid_keys:\n");
    for (unsigned i = 0; i < KEYS_IN_ALL; i++)
        text_printf(&yaml, "  - secret%u\n", i);
    struct snapshot *snapshot = snapshot_parse("c.yaml", text_slice(&yaml), &why, NULL);
    CHECK(snapshot && snapshot->key_count == KEYS_IN_ALL);
    for (unsigned i = 0; i < KEYS_IN_ALL; i++) {
        (void)snprintf(secret, sizeof secret, "secret%u", i);
        CHECK_ROW(name_is(found(snapshot, secret), snapshot->keys[i].name), secret);
    }
    CHECK(!found(snapshot, "secret20000"));
    snapshot_unref(snapshot);
    text_release(&yaml);
    text_release(&why);
}

TEST(a_key_may_hold_spaces_inside)
{
    struct snapshot *snapshot = given(KEYS "    - 'two words'\n");

    CHECK(found(snapshot, "two words") && !found(snapshot, "two"));
    snapshot_unref(snapshot);
}

TEST(without_keys_nothing_is_found)
{
    struct snapshot *snapshot = given("auth: {enabled: false}\n");

    CHECK(!found(snapshot, "") && !found(snapshot, "k") && snapshot->key_count == 0);
    snapshot_unref(snapshot);
}

TEST(a_secret_is_hashed_for_the_file_and_a_bad_one_is_refused)
{
    static const struct {
        const char *secret, *out, *why;
    } rows[] = {
        { "password", "sha256:" HEX, "" },
        { "password\n", "sha256:" HEX, "" },
        { "password\r\n", "sha256:" HEX, "" },
        { "", "", "the key must not be empty" },
        { "\n", "", "the key must not be empty" },
        { " password", "", "the key " ASCII },
        { "a\nb", "", "the key " ASCII },
        { "sha256:" HEX, "", "the key is a hash already" },
        { QK "000000", "", "the key looks like a qk_ key, but its check digits are wrong: it was mistyped or cut" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out, why;
        text_init(&out, 256);
        text_init(&why, 256);
        CHECK_EQ(key_hash_describe(slice_of(rows[i].secret), &out, &why), *rows[i].why ? ERR_BAD : ERR_OK);
        CHECK_STR(text_string(&out), out.len, rows[i].out);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        text_release(&out);
        text_release(&why);
    }
}
