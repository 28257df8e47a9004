/* What needs no database. The rest: tests/e2e/test_administration.py. */
#include "account.h"
#include "check.h"

#define HASH "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8" /* of "password" */
#define QK   "qk_0123456789_abcdefghijklmnopqrstuvwxyzA"

TEST(new_secrets_have_their_form_and_what_is_kept_of_them)
{
    char memory[128];
    struct text secret = text_over(memory, sizeof memory);
    struct new_secret made;
    struct digest hash;

    account_make_key(&secret, &made);
    CHECK_EQ(secret.len, 47);
    CHECK(slice_starts(text_slice(&secret), SLICE("qk_")));
    CHECK_STR(secret.at + 3, ACCOUNT_ID_LETTERS, made.public_id);
    digest_sha256(text_slice(&secret), &hash);
    CHECK(digest_is(&hash, &made.hash));
    CHECK(!account_is_token(text_slice(&secret), &hash));

    text_clear(&secret);
    account_make_token(&secret, &made);
    CHECK(account_is_token(text_slice(&secret), &hash) && digest_is(&hash, &made.hash) && !*made.public_id);
    CHECK(!account_is_token((struct slice){ secret.at, secret.len - 1 }, &hash));
    text_clear(&secret);
    account_make_enrol(&secret, &made);
    CHECK(slice_starts(text_slice(&secret), SLICE("qen_")) && !account_is_token(text_slice(&secret), &hash));
}

TEST(a_body_is_prepared_for_the_database)
{
    static const struct {
        const char *action, *body, *out; /* out NULL: it is refused */
        const char *pointer, *why;
    } rows[] = {
        { "user_create", "{}", "{}", "", "" },
        { "user_create", " { \"name\" : \"a\\u0041\\\"\" , \"x\":[1, null,-2.5e3,{}] } ",
          "{\"name\":\"a\\u0041\\\"\",\"x\":[1,null,-2.5e3,{}]}", "", "" },
        { "key_create", "{\"models\":[\"Qwen3\",\"me/X:8B\"],\"note\":\"Qwen3\"}",
          "{\"models\":[\"qwen3:latest\",\"me/x:8b\"],\"note\":\"Qwen3\"}", "", "" },
        { "key_create", "{\"mo\\u0064els\":[\"\\u0051wen3\"]}", "{\"mo\\u0064els\":[\"qwen3:latest\"]}", "", "" },
        { "key_create", "{\"models\":\"Qwen3\"}", "{\"models\":\"Qwen3\"}", "", "" },
        { "team_create", "{\"models\":[\"Qwen3\"]}", "{\"models\":[\"Qwen3\"]}", "", "" },
        { "model_create", "{\"name\":\"Fast\",\"alias_of\":\"Qwen3:32B\",\"backend_model\":\"Hub/Qwen3\"}",
          "{\"name\":\"fast:latest\",\"alias_of\":\"qwen3:32b\",\"backend_model\":\"Hub/Qwen3\"}", "", "" },
        { "model_update", "{\"alias_of\":null}", "{\"alias_of\":null}", "", "" },
        { "key_import",
          "{\"keys\":[{\"secret\":\"password\"},{\"name\":\"k\",\"secret\":\"sha256:" HASH "\",\"models\":[\"M\"]}]}",
          "{\"keys\":[{\"hash\":\"" HASH "\"},{\"name\":\"k\",\"hash\":\"" HASH "\",\"models\":[\"m:latest\"]}]}", "",
          "" },
        { "key_create", "{\"secret\":\"password\"}", "{\"secret\":\"password\"}", "", "" },
        { "key_create", "{\"models\":[\"m\",\"a b\"]}", NULL, "/models/1",
          "must be the name of a model: letters, digits and \"._-/\", with a tag behind \":\"" },
        { "backend_update", "{\"models\":[\"m:cloud\"]}", NULL, "/models/0",
          "is a cloud model: prompts would leave this machine" },
        { "model_create", "{\"name\":\"m\\u0000\"}", NULL, "/name", "must not have the character U+0000 in it" },
        { "setting_put", "{\"value\":{\"a/b~\":[[\"\\u0000\"]]}}", NULL, "/value/a~1b~0/0/0",
          "must not have the character U+0000 in it" },
        { "setting_put", "{\"value\":{\"a\\u0000\":1}}", NULL, "/value", "has a name in it with the character U+0000" },
        { "key_import", "{\"keys\":[{},{\"secret\":\"\"}]}", NULL, "/keys/1/secret", "must not be empty" },
        { "key_import", "{\"keys\":[{\"secret\":\"" QK "000000\"}]}", NULL, "/keys/0/secret",
          "looks like a qk_ key, but its check digits are wrong: it was mistyped or cut" },
        { "key_import", "{\"keys\":[{\"secret\":7}]}", NULL, "/keys/0/secret", "must be a string" },
        { "key_import", "{\"keys\":[{\"secret\":\"a\",\"prefix\":\"abcd\"}]}", NULL, "/keys/0/prefix",
          "must not stand beside a secret, or a secret beside it" },
        { "key_import", "{\"keys\":[{\"hash\":\"a\",\"secret\":\"b\"}]}", NULL, "/keys/0/secret",
          "must not stand beside a secret, or a secret beside it" },
        { "user_create", "{\"a\":1,\"A\":2}", NULL, "", NULL },
        { "user_create", "{\"a\":1", NULL, "", NULL },
        { "user_create", "{\"a\":tru}", NULL, "", NULL },
        { "user_create", "{} x", NULL, "", NULL },
        { "user_create", "", NULL, "", NULL },
        { "user_create", "{\"a\":\"\\ud800\"}", NULL, "", NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out, why, pointer;
        text_init(&out, 4096);
        text_init(&why, 512);
        text_init(&pointer, 512);
        enum err err = account_prepare(rows[i].action, slice_of(rows[i].body), &out, &why, &pointer);
        CHECK_ROW(err == (rows[i].out ? ERR_OK : ERR_BAD), rows[i].body);
        if (rows[i].out)
            CHECK_STR(text_string(&out), out.len, rows[i].out);
        CHECK_ROW(rows[i].why == NULL ? why.len > 0 : strcmp(text_string(&why), rows[i].why) == 0, text_string(&why));
        CHECK_ROW(*rows[i].pointer == 0 || strcmp(text_string(&pointer), rows[i].pointer) == 0, text_string(&pointer));
        text_release(&out);
        text_release(&why);
        text_release(&pointer);
    }
}

TEST(the_id_of_a_model_is_its_normalised_name)
{
    static const struct {
        const char *action, *id, *out;
    } rows[] = {
        { "model_update", "Qwen3", "qwen3:latest" }, { "model_get", "library/qwen3:8b", "qwen3:8b" },
        { "model_delete", "no model", "no model" },  { "model_delete", "a:b:c", "a:b:c" },
        { "user_update", "Qwen3", "Qwen3" },         { "model_update", "", "" },
    };
    char memory[600];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out = text_over(memory, sizeof memory);
        account_prepare_id(rows[i].action, slice_of(rows[i].id), &out);
        CHECK_STR(text_string(&out), out.len, rows[i].out);
    }
}

TEST(a_name_of_any_length_is_normalised_where_it_lies)
{
    for (unsigned len = 1; len <= 248; len++) {
        struct text body, out, wanted, why, pointer;
        text_init(&body, 4096);
        text_init(&out, 4096);
        text_init(&wanted, 4096);
        text_init(&why, 512);
        text_init(&pointer, 512);
        text_add_literal(&body, "{\"name\":\"");
        text_add_literal(&wanted, "{\"name\":\"");
        for (unsigned i = 0; i < len; i++) {
            text_add_char(&body, 'M');
            text_add_char(&wanted, 'm');
        }
        text_add_literal(&body, "\"}");
        text_add_literal(&wanted, ":latest\"}");
        CHECK_EQ(account_prepare("model_create", text_slice(&body), &out, &why, &pointer), ERR_OK);
        CHECK_STR(text_string(&out), out.len, text_string(&wanted));
        text_release(&body);
        text_release(&out);
        text_release(&wanted);
        text_release(&why);
        text_release(&pointer);
    }
}
