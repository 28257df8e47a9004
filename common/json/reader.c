/*
 * The reader's position: always before a value, or behind one; which of both, is_first and the caller's
 * calls tell. `open` is a stack of bits, so that entering and leaving cost a shift.
 */
#include "scan.h"

#include <assert.h>

static_assert(JSON_MAX_DEPTH <= 64, "reader.open holds a bit a level");

const uint8_t json_types[256] = {
    ['n'] = JSON_NULL,   ['f'] = JSON_FALSE,  ['t'] = JSON_TRUE,   ['"'] = JSON_STRING, ['['] = JSON_ARRAY,
    ['{'] = JSON_OBJECT, ['-'] = JSON_NUMBER, ['0'] = JSON_NUMBER, ['1'] = JSON_NUMBER, ['2'] = JSON_NUMBER,
    ['3'] = JSON_NUMBER, ['4'] = JSON_NUMBER, ['5'] = JSON_NUMBER, ['6'] = JSON_NUMBER, ['7'] = JSON_NUMBER,
    ['8'] = JSON_NUMBER, ['9'] = JSON_NUMBER,
};

static enum json_type type_of(char c)
{
    return (enum json_type)json_types[(unsigned char)c];
}

const char *json_stop(struct json_reader *reader, const char *at, enum json_error error)
{
    reader->at = at;
    reader->error = error;
    return NULL;
}

void json_open(struct json_reader *reader, struct slice text, unsigned max_depth)
{
    const char *start = text.at ? text.at : "";

    *reader = (struct json_reader){ .start = start, .at = start, .end = start + text.len, .is_first = true };
    reader->max_depth = max_depth < JSON_MAX_DEPTH ? max_depth : JSON_MAX_DEPTH;
    if (text.len > UINT32_MAX)
        reader->error = JSON_TOO_MANY;
}

bool json_close(struct json_reader *reader)
{
    if (reader->error)
        return false;
    reader->at = pass_space(reader, reader->at);
    if (reader->depth == 0 && !reader->is_first && reader->at == reader->end)
        return true;
    (void)json_stop(reader, reader->at, reader->at == reader->end ? JSON_ENDS_EARLY : JSON_TRAILING);
    return false;
}

static const char *value_start_far(struct json_reader *reader)
{
    const char *at;

    if (reader->error)
        return NULL;
    at = pass_space(reader, reader->at);
    if (at == reader->end)
        return json_stop(reader, at, JSON_ENDS_EARLY);
    if (reader->depth == 0 && !reader->is_first)
        return json_stop(reader, at, JSON_TRAILING);
    reader->at = at;
    return at;
}

/* The place of the value that is next. */
static inline const char *value_start(struct json_reader *reader)
{
    bool is_near = !reader->error && reader->depth && reader->at != reader->end && !is_space(*reader->at);

    return LIKELY(is_near) ? reader->at : value_start_far(reader);
}

static const char *wrong_type(struct json_reader *reader, const char *at)
{
    return json_stop(reader, at, type_of(*at) == JSON_NONE ? JSON_SYNTAX : JSON_TYPE);
}

/* Same, for a value of one type. */
static const char *value_of(struct json_reader *reader, enum json_type type)
{
    const char *at = value_start(reader);

    if (at && type_of(*at) != type)
        return wrong_type(reader, at);
    return at;
}

/* A value was read; it ends at `at`, if it was fine. */
static bool value_end(struct json_reader *reader, const char *at)
{
    if (!at)
        return false;
    reader->at = at;
    reader->is_first = false;
    return true;
}

enum json_type json_peek_far(struct json_reader *reader)
{
    if (reader->error)
        return JSON_NONE;
    reader->at = pass_space(reader, reader->at);
    return reader->at == reader->end ? JSON_NONE : type_of(*reader->at);
}

bool json_fail(struct json_reader *reader, enum json_error error)
{
    if (reader->error)
        return false;
    reader->error = error;
    reader->at = pass_space(reader, reader->at);
    /* Where no value is next, that is the true complaint. */
    if (error == JSON_TYPE && reader->at == reader->end)
        reader->error = JSON_ENDS_EARLY;
    else if (error == JSON_TYPE)
        (void)wrong_type(reader, reader->at);
    return false;
}

/* `at` stands on the bracket or the brace. */
static const char *enter(struct json_reader *reader, const char *at)
{
    if (reader->depth == reader->max_depth)
        return json_stop(reader, at, JSON_DEPTH);
    reader->depth++;
    reader->open = reader->open << 1 | (*at == '{');
    return at + 1;
}

static void leave(struct json_reader *reader)
{
    reader->depth--;
    reader->open >>= 1;
}

static bool in_object(const struct json_reader *reader)
{
    return reader->open & 1;
}

static char closer(const struct json_reader *reader)
{
    return in_object(reader) ? '}' : ']';
}

/* The key and its colon. */
static const char *pass_key_any(struct json_reader *reader, const char *at, struct json_string *ret_key)
{
    if (*at != '"')
        return json_stop(reader, at, JSON_SYNTAX);
    at = pass_string(reader, at + 1, ret_key);
    if (!at)
        return NULL;
    at = pass_space(reader, at);
    if (at == reader->end)
        return json_stop(reader, at, JSON_ENDS_EARLY);
    if (*at != ':')
        return json_stop(reader, at, JSON_SYNTAX);
    return at + 1;
}

/* The same. Nearly all keys are short, plain, and followed by their colon: these take no branch that is hard to
 * foresee. */
static inline const char *pass_key(struct json_reader *reader, const char *at, struct json_string *ret_key)
{
    size_t len = scan_short(at + 1, reader->end - 1); /* one byte for the colon */

    if (UNLIKELY(*at != '"' || len == SHORT || at[len + 1] != '"' || at[len + 2] != ':'))
        return pass_key_any(reader, at, ret_key);
    *ret_key = (struct json_string){ .raw = { at + 1, len }, .chars = (uint32_t)len };
    return at + len + 3;
}

/*
 * To the next key or element of the innermost object or array; where that ends instead, it is left, and
 * *ret_more is false. `at` stands behind the opening brace or bracket (is_first), or behind a value.
 */
static const char *pass_comma_any(struct json_reader *reader, const char *at, bool is_first, bool *ret_more)
{
    at = pass_space(reader, at);
    if (at == reader->end)
        return json_stop(reader, at, JSON_ENDS_EARLY);
    *ret_more = *at != closer(reader);
    if (!*ret_more) {
        leave(reader);
        return at + 1;
    }
    if (is_first)
        return at;
    if (*at != ',')
        return json_stop(reader, at, JSON_SYNTAX);
    at = pass_space(reader, at + 1);
    if (at == reader->end)
        return json_stop(reader, at, JSON_ENDS_EARLY);
    if (*at == closer(reader))
        return json_stop(reader, at, JSON_SYNTAX);
    return at;
}

/* The same, where nothing but a comma, or nothing at all, stands before a value or a key. */
static inline const char *pass_comma(struct json_reader *reader, const char *at, bool is_first, bool *ret_more)
{
    if (UNLIKELY(reader->end - at < 2) || !(is_first || *at == ',') || !type_of(at[!is_first]))
        return pass_comma_any(reader, at, is_first, ret_more);
    *ret_more = true;
    return at + !is_first;
}

static bool open_value(struct json_reader *reader, enum json_type type)
{
    const char *at = value_of(reader, type);

    at = at ? enter(reader, at) : NULL;
    if (!at)
        return false;
    reader->at = at;
    reader->is_first = true;
    return true;
}

bool json_object(struct json_reader *reader, struct json_keys *keys)
{
    if (keys)
        keys->count = 0;
    return open_value(reader, JSON_OBJECT);
}

bool json_array(struct json_reader *reader)
{
    return open_value(reader, JSON_ARRAY);
}

static bool member_any(struct json_reader *reader, struct json_keys *keys, struct json_string *ret_key)
{
    const char *at;
    bool more;

    if (reader->error)
        return false;
    at = pass_comma_any(reader, reader->at, reader->is_first, &more);
    if (at && more)
        at = pass_key_any(reader, at, ret_key);
    return value_end(reader, at) && more && (!keys || keys_add(reader, keys, ret_key));
}

bool json_member(struct json_reader *reader, struct json_keys *keys, struct json_string *ret_key)
{
    const char *at = reader->at;
    size_t len;

    assert(reader->error || (reader->depth && in_object(reader)));
    /* The short way again, this time as one line to the end: comma, quote, short key, quote, colon. */
    if (UNLIKELY(reader->error || reader->end - at <= SHORT + 3))
        return member_any(reader, keys, ret_key);
    if (!reader->is_first && *at++ != ',')
        return member_any(reader, keys, ret_key);
    len = scan_short_near(at + 1);
    if (UNLIKELY(*at != '"' || len == SHORT || at[len + 1] != '"' || at[len + 2] != ':'))
        return member_any(reader, keys, ret_key);
    *ret_key = (struct json_string){ .raw = { at + 1, len }, .chars = (uint32_t)len };
    reader->at = at + len + 3;
    reader->is_first = false;
    return !keys || keys_add(reader, keys, ret_key);
}

bool json_element(struct json_reader *reader)
{
    bool more;

    if (reader->error)
        return false;
    assert(reader->depth && !in_object(reader));
    return value_end(reader, pass_comma(reader, reader->at, reader->is_first, &more)) && more;
}

static inline const char *pass_word(struct json_reader *reader, const char *at, const char *word)
{
    size_t len = strlen(word);

    if (LIKELY((size_t)(reader->end - at) >= len && memcmp(at, word, len) == 0))
        return at + len;
    for (; *word; word++, at++) {
        if (at == reader->end)
            return json_stop(reader, at, JSON_ENDS_EARLY);
        if (*at != *word)
            return json_stop(reader, at, JSON_SYNTAX);
    }
    return at;
}

static const char *pass_scalar_any(struct json_reader *reader, const char *at)
{
    struct json_string string;

    switch (type_of(*at)) {
    case JSON_STRING:
        return pass_string(reader, at + 1, &string);
    case JSON_NUMBER:
        return pass_number(reader, at);
    case JSON_NULL:
        return pass_word(reader, at, "null");
    case JSON_TRUE:
        return pass_word(reader, at, "true");
    case JSON_FALSE:
        return pass_word(reader, at, "false");
    default:
        return json_stop(reader, at, JSON_SYNTAX);
    }
}

/* The same. Most values are short strings. */
static inline const char *pass_scalar(struct json_reader *reader, const char *at)
{
    size_t len = scan_short(at + 1, reader->end);

    return LIKELY(*at == '"' && len != SHORT && at[len + 1] == '"') ? at + len + 2 : pass_scalar_any(reader, at);
}

/* To the value of the next member or element; *ret_more false: the innermost object or array ended instead. */
static const char *pass_to_value(struct json_reader *reader, const char *at, bool is_first, bool *ret_more)
{
    struct json_string key;

    at = pass_comma(reader, at, is_first, ret_more);
    if (!at || !*ret_more || !in_object(reader))
        return at;
    at = pass_key(reader, at, &key);
    if (!at || LIKELY(at != reader->end && !is_space(*at)))
        return at;
    at = pass_space(reader, at);
    return at == reader->end ? json_stop(reader, at, JSON_ENDS_EARLY) : at;
}

/* Any object or array with all that it holds; without recursion, so that depth costs no stack. */
__attribute__((noinline)) static const char *pass_nest(struct json_reader *reader, const char *at)
{
    unsigned outside = reader->depth;

    for (;;) {
        bool is_first = *at == '{' || *at == '[';
        bool more = false;

        at = is_first ? enter(reader, at) : pass_scalar(reader, at);
        while (at && !more) {
            if (reader->depth == outside)
                return at;
            at = pass_to_value(reader, at, is_first, &more);
            is_first = false;
        }
        if (!at)
            return NULL;
    }
}

static inline const char *pass_value(struct json_reader *reader, const char *at)
{
    return *at == '{' || *at == '[' ? pass_nest(reader, at) : pass_scalar(reader, at);
}

bool json_string(struct json_reader *reader, struct json_string *ret_string)
{
    const char *at = value_of(reader, JSON_STRING);

    return at && value_end(reader, pass_string(reader, at + 1, ret_string));
}

bool json_bool(struct json_reader *reader, bool *ret_bool)
{
    const char *at = value_start(reader);
    bool is_true;

    if (!at)
        return false;
    is_true = *at == 't';
    if (!is_true && *at != 'f') {
        (void)wrong_type(reader, at);
        return false;
    }
    if (!value_end(reader, pass_word(reader, at, is_true ? "true" : "false")))
        return false;
    *ret_bool = is_true;
    return true;
}

bool json_number(struct json_reader *reader, struct slice *ret_number)
{
    const char *at = value_of(reader, JSON_NUMBER);

    if (!at || !value_end(reader, pass_number(reader, at)))
        return false;
    *ret_number = (struct slice){ at, (size_t)(reader->at - at) };
    return true;
}

bool json_null(struct json_reader *reader)
{
    const char *at = value_of(reader, JSON_NULL);

    return at && value_end(reader, pass_word(reader, at, "null"));
}

enum json_type json_skip_typed(struct json_reader *reader, struct slice *ret_raw)
{
    const char *at = value_start(reader);

    if (!at || !value_end(reader, pass_value(reader, at)))
        return JSON_NONE;
    if (ret_raw)
        *ret_raw = (struct slice){ at, (size_t)(reader->at - at) };
    return type_of(*at);
}

bool json_skip(struct json_reader *reader, struct slice *ret_raw)
{
    return json_skip_typed(reader, ret_raw) != JSON_NONE;
}

bool json_is_valid_tight(struct slice text, enum json_type type, bool *ret_is_tight)
{
    struct json_reader reader;

    json_open(&reader, text, JSON_MAX_DEPTH);
    if (type != JSON_NONE && json_peek(&reader) != type)
        return false;
    if (!json_skip(&reader, NULL) || !json_close(&reader))
        return false;
    *ret_is_tight = !reader.has_space && !reader.has_line_breaks;
    return true;
}

bool json_is_valid(struct slice text, enum json_type type)
{
    bool is_tight;

    return json_is_valid_tight(text, type, &is_tight);
}
