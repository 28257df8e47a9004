/* How secrets are made, and what a change's body looks like when the database gets it. */
#include "account.h"
#include "json.h"
#include "model_name.h"
#include "secret.h"

_Static_assert((int)ACCOUNT_ID_LETTERS == (int)SECRET_ID_LETTERS, "one public id");

static const char token_prefix[] = "qat_", enrol_prefix[] = "qen_";

static void finish(const struct text *secret, size_t start, struct new_secret *ret_new)
{
    ret_new->public_id[0] = 0;
    secret_hash((struct slice){ secret->at + start, secret->len - start }, &ret_new->hash);
}

void account_make_key(struct text *secret, struct new_secret *ret_new)
{
    size_t start = secret->len;

    secret_make_key(secret);
    finish(secret, start, ret_new);
    if (secret->err)
        return;
    memcpy(ret_new->public_id, secret->at + start + 3, ACCOUNT_ID_LETTERS);
    ret_new->public_id[ACCOUNT_ID_LETTERS] = 0;
}

void account_make_token(struct text *secret, struct new_secret *ret_new)
{
    size_t start = secret->len;

    secret_make(token_prefix, secret);
    finish(secret, start, ret_new);
}

void account_make_enrol(struct text *secret, struct new_secret *ret_new)
{
    size_t start = secret->len;

    secret_make(enrol_prefix, secret);
    finish(secret, start, ret_new);
}

bool account_is_token(struct slice secret, struct digest *ret_hash)
{
    if (!secret_has_form(token_prefix, secret))
        return false;
    secret_hash(secret, ret_hash);
    return true;
}

/* ---- bodies ---- */

/*
 * A body is copied value by value; what a string is follows from where it stands. Paths are JSON pointers, in which "*"
 * is any place of a list.
 */
enum part { PART_PLAIN, PART_MODEL, PART_BACKEND_MODEL, PART_SECRET, PART_HASH };

static const struct {
    const char *action, *path;
    enum part part;
} parts[] = {
    { "key_create", "/models/*", PART_MODEL },        { "key_update", "/models/*", PART_MODEL },
    { "key_import", "/keys/*/models/*", PART_MODEL }, { "key_import", "/keys/*/secret", PART_SECRET },
    { "key_import", "/keys/*/hash", PART_HASH },      { "key_import", "/keys/*/prefix", PART_HASH },
    { "model_create", "/name", PART_MODEL },          { "model_create", "/alias_of", PART_MODEL },
    { "model_update", "/alias_of", PART_MODEL },      { "model_create", "/backend_model", PART_BACKEND_MODEL },
    { "backend_create", "/models/*", PART_MODEL },    { "model_update", "/backend_model", PART_BACKEND_MODEL },
    { "backend_update", "/models/*", PART_MODEL },
};

enum { WORD_MAX = 4096 };

struct copying {
    const char *action;
    struct json_reader reader;
    struct text *out, *why, *pointer;
    struct text word;          /* the present string, decoded */
    bool has_secret, has_hash; /* of the present key of an import */
    enum err err;
};

static enum part part_at(const struct copying *copying, const char *path)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const char *wanted = parts[i].path, *at = path;
        if (strcmp(parts[i].action, copying->action) != 0)
            continue;
        while (*wanted && *at) {
            if (*wanted == '*') {
                at += strspn(at, "0123456789");
                wanted++;
            } else if (*wanted++ != *at++) {
                break;
            }
        }
        if (!*wanted && !*at)
            return parts[i].part;
    }
    return PART_PLAIN;
}

static void refuse(struct copying *copying, const char *words)
{
    if (copying->err == ERR_OK && copying->why->len == 0)
        text_add_string(copying->why, words);
    copying->err = ERR_BAD;
}

static void add_model(struct copying *copying, bool as_written)
{
    size_t start = copying->word.len;

    /* The new name is written behind the old one, which must not move meanwhile. */
    if (!text_reserve(&copying->word, start + sizeof ":latest") ||
        !model_name_normalise(text_slice(&copying->word), &copying->word)) {
        refuse(copying, "must be the name of a model: letters, digits and \"._-/\", with a tag behind \":\"");
        return;
    }
    if (model_name_is_cloud((struct slice){ copying->word.at + start, copying->word.len - start }))
        refuse(copying, "is a cloud model: prompts would leave this machine");
    json_add_string(copying->out, as_written ? (struct slice){ copying->word.at, start }
                                             : (struct slice){ copying->word.at + start, copying->word.len - start });
}

static void add_secret(struct copying *copying)
{
    char memory[200];
    struct text words = text_over(memory, sizeof memory);
    struct secret secret;

    if (secret_parse(text_slice(&copying->word), &secret, &words) != ERR_OK) {
        refuse(copying, text_string(&words));
        return;
    }
    text_add_literal(copying->out, "\"hash\":\"");
    digest_add_hex(copying->out, &secret.hash);
    text_add_char(copying->out, '"');
    if (secret.public_id.len) {
        text_add_literal(copying->out, ",\"prefix\":");
        json_add_string(copying->out, secret.public_id);
    }
}

/* A string that the reader has passed. */
static void add_word(struct copying *copying, const struct json_string *string, enum part part)
{
    text_clear_wiped(&copying->word);
    if (string->has_escapes || part != PART_PLAIN)
        json_string_decode(string, &copying->word);
    if (copying->word.len && memchr(copying->word.at, 0, copying->word.len)) {
        refuse(copying, "must not have the character U+0000 in it");
        return;
    }
    if (part == PART_MODEL || part == PART_BACKEND_MODEL) {
        add_model(copying, part == PART_BACKEND_MODEL);
    } else if (part == PART_SECRET) {
        add_secret(copying);
    } else {
        text_add_char(copying->out, '"');
        json_add_raw(copying->out, string->raw);
        text_add_char(copying->out, '"');
    }
}

static void copy_value(struct copying *copying);

/* A step deeper: the pointer is longer until step_back(). */
static size_t step(struct copying *copying, struct slice name)
{
    size_t before = copying->pointer->len;

    text_add_char(copying->pointer, '/');
    for (size_t i = 0; i < name.len; i++) {
        if (name.at[i] == '~')
            text_add_literal(copying->pointer, "~0");
        else if (name.at[i] == '/')
            text_add_literal(copying->pointer, "~1");
        else
            text_add_char(copying->pointer, name.at[i]);
    }
    if (copying->pointer->err)
        refuse(copying, "has a name in it that is too long");
    return before;
}

static void step_back(struct copying *copying, size_t before)
{
    if (copying->err != ERR_OK)
        return; /* where it is wrong */
    copying->pointer->len = before;
    if (copying->pointer->at)
        copying->pointer->at[before] = 0;
}

static void copy_member(struct copying *copying, const struct json_string *key)
{
    struct text *word = &copying->word;
    enum part part;
    size_t before;

    text_clear_wiped(word);
    json_string_decode(key, word);
    if (memchr(word->at, 0, word->len)) {
        refuse(copying, "has a name in it with the character U+0000");
        return;
    }
    before = step(copying, text_slice(word));
    if (copying->err != ERR_OK)
        return;
    part = part_at(copying, text_string(copying->pointer));
    copying->has_secret |= part == PART_SECRET;
    copying->has_hash |= part == PART_HASH;
    if (copying->has_secret && copying->has_hash) {
        refuse(copying, "must not stand beside a secret, or a secret beside it");
    } else if (part == PART_SECRET) {
        struct json_string string;
        if (json_peek(&copying->reader) != JSON_STRING)
            refuse(copying, "must be a string");
        else if (json_string(&copying->reader, &string))
            add_word(copying, &string, part);
    } else {
        text_add_char(copying->out, '"');
        json_add_raw(copying->out, key->raw);
        text_add_literal(copying->out, "\":");
        copy_value(copying);
    }
    step_back(copying, before);
}

static void copy_object(struct copying *copying)
{
    struct json_keys keys;
    struct json_string key;
    bool is_first = true;

    copying->has_secret = copying->has_hash = false;
    text_add_char(copying->out, '{');
    if (json_object(&copying->reader, &keys))
        while (copying->err == ERR_OK && json_member(&copying->reader, &keys, &key)) {
            if (!is_first)
                text_add_char(copying->out, ',');
            is_first = false;
            copy_member(copying, &key);
        }
    text_add_char(copying->out, '}');
}

static void copy_list(struct copying *copying)
{
    text_add_char(copying->out, '[');
    if (json_array(&copying->reader))
        for (unsigned i = 0; copying->err == ERR_OK && json_element(&copying->reader); i++) {
            char digits[16];
            struct text number = text_over(digits, sizeof digits);
            size_t before;
            if (i)
                text_add_char(copying->out, ',');
            text_add_u64(&number, i);
            before = step(copying, text_slice(&number));
            if (copying->err == ERR_OK)
                copy_value(copying);
            step_back(copying, before);
        }
    text_add_char(copying->out, ']');
}

static void copy_value(struct copying *copying)
{
    struct json_string string;
    struct slice raw;

    switch (json_peek(&copying->reader)) {
    case JSON_OBJECT:
        copy_object(copying);
        break;
    case JSON_ARRAY:
        copy_list(copying);
        break;
    case JSON_STRING:
        if (json_string(&copying->reader, &string))
            add_word(copying, &string, part_at(copying, text_string(copying->pointer)));
        break;
    default:
        if (json_skip(&copying->reader, &raw))
            text_add_slice(copying->out, raw);
    }
}

enum err account_prepare(const char *action, struct slice body, struct text *out, struct text *why,
                         struct text *pointer)
{
    struct copying copying = { .action = action, .out = out, .why = why, .pointer = pointer };

    text_init(&copying.word, body.len + WORD_MAX); /* a name of a model is there twice */
    json_open(&copying.reader, body, JSON_MAX_DEPTH);
    copy_value(&copying);
    if (copying.err == ERR_OK && !json_close(&copying.reader)) {
        json_error_say(&copying.reader, why);
        copying.err = ERR_BAD;
    }
    if (out->err == ERR_NO_MEMORY || copying.word.err == ERR_NO_MEMORY)
        copying.err = ERR_NO_MEMORY;
    text_release_wiped(&copying.word);
    return copying.err != ERR_OK ? copying.err : out->err;
}

void account_prepare_id(const char *action, struct slice id, struct text *out)
{
    if (!slice_starts(slice_of(action), SLICE("model_")) || !model_name_normalise(id, out)) {
        text_clear(out);
        text_add_slice(out, id);
    }
}
