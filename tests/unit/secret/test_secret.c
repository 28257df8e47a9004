#include <stdio.h>

#include "check.h"
#include "secret.h"

TEST(secrets_have_a_form_and_differ)
{
    char memory[2][64];
    struct text one = text_over(memory[0], sizeof memory[0]), two = text_over(memory[1], sizeof memory[1]);
    struct digest hash, other_hash;

    secret_make("qe_", &one);
    secret_make("qe_", &two);
    CHECK_EQ(one.len, 3 + SECRET_LETTERS);
    CHECK(!slice_is(text_slice(&one), text_slice(&two)));
    CHECK(secret_has_form("qe_", text_slice(&one)));
    CHECK(!secret_has_form("qk_", text_slice(&one)));
    CHECK(!secret_has_form("qe_", (struct slice){ one.at, one.len - 1 }));
    secret_hash(text_slice(&one), &hash);
    secret_hash(text_slice(&two), &other_hash);
    CHECK(!digest_is(&hash, &other_hash));
    one.at[10] = '-';
    CHECK(!secret_has_form("qe_", text_slice(&one)));
}

TEST(a_new_key_has_the_form_that_is_read)
{
    char memory[2][64], words[256];
    struct text key = text_over(memory[0], sizeof memory[0]), other = text_over(memory[1], sizeof memory[1]);
    struct text why = text_over(words, sizeof words);
    struct secret secret;
    struct digest hash;

    secret_make_key(&key);
    secret_make_key(&other);
    CHECK_EQ(key.len, 3 + SECRET_ID_LETTERS + 1 + 27 + 6);
    CHECK(!slice_is(text_slice(&key), text_slice(&other)));
    CHECK_EQ(secret_parse(text_slice(&key), &secret, &why), ERR_OK);
    CHECK(slice_is(secret.public_id, (struct slice){ key.at + 3, SECRET_ID_LETTERS }) && !secret.is_hashed);
    secret_hash(text_slice(&key), &hash);
    CHECK(digest_is(&hash, &secret.hash));
    for (size_t i = 0; i < key.len; i++) { /* one wrong digit, anywhere, is no key of ours, and mostly no key at all */
        char was = key.at[i];
        key.at[i] = was == 'x' ? 'y' : 'x';
        text_clear(&why);
        CHECK(secret_parse(text_slice(&key), &secret, &why) != ERR_OK || !secret.public_id.len);
        key.at[i] = was;
    }
    key.len--;
    text_clear(&why);
    CHECK_EQ(secret_parse(text_slice(&key), &secret, &why), ERR_BAD);
    CHECK_STR(why.at, why.len, "looks like a qk_ key, but its check digits are wrong: it was mistyped or cut");
}

TEST(a_key_is_any_word_or_a_hash)
{
    static const struct {
        const char *text, *why;
        bool is_hashed;
    } rows[] = {
        { "prod-key-2024-qwen3", "", false },
        { "a b", "", false },
        { "qk_short", "", false },
        { "sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8", "", true },
        { "sha256:5e88", "needs 64 hexadecimal digits as its SHA-256 (qwen-gateway --hash-key prints them)", true },
        { "", "must not be empty", false },
        { " a", "must be printable ASCII without a space at either end, because it travels in a header", false },
        { "a\x7f"
          "b",
          "must be printable ASCII without a space at either end, because it travels in a header", false },
    };
    char words[256], long_one[258];
    struct text why = text_over(words, sizeof words);
    struct secret secret;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_clear(&why);
        CHECK_EQ(secret_parse(slice_of(rows[i].text), &secret, &why), *rows[i].why ? ERR_BAD : ERR_OK);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        CHECK_ROW(secret.is_hashed == rows[i].is_hashed && !secret.public_id.len, rows[i].text);
    }
    memset(long_one, 'k', sizeof long_one);
    CHECK_EQ(secret_parse((struct slice){ long_one, SECRET_MAX_BYTES }, &secret, &why), ERR_OK);
    CHECK_EQ(secret_parse((struct slice){ long_one, SECRET_MAX_BYTES + 1 }, &secret, &why), ERR_BAD);
}
