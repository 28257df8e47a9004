/*
 * fuzz_json - our reader and writer against jansson, with JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL |
 * JSON_DECODE_ANY. Both must take and refuse the same texts and find the same values in them, but for this:
 *
 *   numbers     jansson refuses integers beyond 64 bits and reals beyond a double; ours are as written.
 *   depth       ours refuses beyond JSON_MAX_DEPTH, jansson beyond 2048.
 *   duplicates  ours finds them only in objects that are visited: skipping is judged by jansson without
 *               JSON_REJECT_DUPLICATES.
 *   case        ours also refuses keys that differ in case only; judged by a comparison of its own below.
 *   many keys   ours refuses more than JSON_MAX_KEYS in an object that is visited.
 *   NUL in keys jansson refuses \u0000 in keys (and then says nothing about the rest); ours takes it.
 *   NUL bytes   jansson loses one that stands right behind a number; ours takes none anywhere.
 *
 * Whatever our writer writes must be read by jansson as the value that was meant.
 */
#include <stdio.h>
#include <stdlib.h>

/* jansson's names for its types are ours too, so its own go by other names here. */
#define json_type   jansson_type
#define json_object jansson_object
#define json_array  jansson_array
#define json_string jansson_string
#define json_null   jansson_null
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY  JANSSON_ARRAY
#define JSON_STRING JANSSON_STRING
#define JSON_TRUE   JANSSON_TRUE
#define JSON_FALSE  JANSSON_FALSE
#define JSON_NULL   JANSSON_NULL
#include <jansson.h>
#undef json_type
#undef json_object
#undef json_array
#undef json_string
#undef json_null
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_STRING
#undef JSON_TRUE
#undef JSON_FALSE
#undef JSON_NULL

#include "json.h"
#include "scan.h"

#define DEMAND(claim)                                                           \
    do {                                                                        \
        if (!(claim)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            abort();                                                            \
        }                                                                       \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { MANY = 1 << 24 };
static const size_t flags = JSON_ALLOW_NUL | JSON_DECODE_ANY;

static struct text decoded(const struct json_string *string)
{
    struct text text;

    text_init(&text, MANY);
    json_string_decode(string, &text);
    DEMAND(!text.err);
    DEMAND(utf8_valid(text_slice(&text)));
    DEMAND(utf8_count(text_slice(&text)) == string->chars);
    DEMAND(string->has_escapes == slice_has(string->raw, SLICE("\\")));
    DEMAND(string->has_escapes || slice_is(string->raw, text_slice(&text)));
    return text;
}

/* jansson reads a text of our writer's; the caller releases the value. */
static json_t *judged(const struct text *written)
{
    json_t *value = json_loadb(text_string(written), written->len, flags, NULL);

    DEMAND(!written->err);
    DEMAND(value);
    DEMAND(!slice_has(text_slice(written), SLICE("\xc2\x85")));
    DEMAND(!slice_has(text_slice(written), SLICE("\xe2\x80\xa8")));
    DEMAND(!slice_has(text_slice(written), SLICE("\xe2\x80\xa9")));
    return value;
}

static void is_written_as(const struct text *written, struct slice wanted)
{
    json_t *value = judged(written);

    DEMAND(json_typeof(value) == JANSSON_STRING);
    DEMAND(slice_is((struct slice){ json_string_value(value), json_string_length(value) }, wanted));
    json_decref(value);
}

static void visit_string(const struct json_string *string, const json_t *wanted)
{
    struct text text = decoded(string), written;

    if (wanted) {
        DEMAND(json_typeof(wanted) == JANSSON_STRING);
        DEMAND(slice_is(text_slice(&text), (struct slice){ json_string_value(wanted), json_string_length(wanted) }));
    }
    DEMAND(json_string_is(string, text_string(&text)) == (strlen(text_string(&text)) == text.len));
    DEMAND(json_string_is_nocase(string, text_string(&text)) == (strlen(text_string(&text)) == text.len));
    text_init(&written, MANY);
    text_add_char(&written, '"');
    json_add_raw(&written, string->raw);
    text_add_char(&written, '"');
    is_written_as(&written, text_slice(&text));
    text_clear(&written);
    json_add_string(&written, text_slice(&text));
    is_written_as(&written, text_slice(&text));
    text_release(&written);
    text_release(&text);
}

static void visit_number(struct slice number, const json_t *wanted)
{
    double real = 0;
    int64_t integer = 0;
    bool is_integer = json_number_i64(number, &integer);

    if (!json_number_double(number, &real)) {
        DEMAND(!wanted && !is_integer);
        return;
    }
    DEMAND(!is_integer || (double)integer == real);
    if (wanted && json_typeof(wanted) == JSON_INTEGER) {
        DEMAND(is_integer);
        DEMAND(integer == json_integer_value(wanted));
    } else if (wanted) {
        DEMAND(json_typeof(wanted) == JSON_REAL);
        DEMAND(real == json_real_value(wanted));
    }
}

/* A key folded as Go does, by other means than the reader's. */
static void add_folded(struct text *out, const char *key)
{
    for (; *key; key++) {
        if (strncmp(key, "\xc5\xbf", 2) == 0) {
            text_add_char(out, 's');
            key++;
        } else if (strncmp(key, "\xe2\x84\xaa", 3) == 0) {
            text_add_char(out, 'k');
            key += 2;
        } else {
            text_add_char(out, *key >= 'A' && *key <= 'Z' ? (char)(*key + 32) : *key);
        }
    }
}

/* Has the object two keys that differ in case only? */
static bool has_doubled(json_t *object)
{
    json_t *folded = json_loads("{}", 0, NULL);
    struct text key;
    bool doubled = false;

    text_init(&key, MANY);
    for (void *at = json_object_iter(object); at && !doubled; at = json_object_iter_next(object, at)) {
        text_clear(&key);
        add_folded(&key, json_object_iter_key(at));
        doubled = json_object_get(folded, text_string(&key)) != NULL;
        DEMAND(json_object_set(folded, text_string(&key), json_object_iter_value(at)) == 0);
    }
    text_release(&key);
    json_decref(folded);
    return doubled;
}

static void visit(struct json_reader *reader, json_t *wanted);

static void visit_object(struct json_reader *reader, json_t *wanted)
{
    struct json_keys keys;
    struct json_string key;
    enum json_error before = reader->error;
    size_t count = 0;

    DEMAND(!wanted || json_typeof(wanted) == JANSSON_OBJECT);
    (void)json_object(reader, &keys);
    for (; json_member(reader, &keys, &key); count++) {
        struct text name = decoded(&key);
        json_t *value = wanted ? json_object_get(wanted, text_string(&name)) : NULL;
        DEMAND(!wanted || value);
        text_release(&name);
        visit(reader, value);
        before = reader->error;
    }
    if (!wanted || before)
        return;
    /* Whatever is wrong now is wrong with this object. */
    if (!reader->error)
        DEMAND(count == json_object_size(wanted) && count <= JSON_MAX_KEYS);
    if (reader->error == JSON_TOO_MANY)
        DEMAND(json_object_size(wanted) > JSON_MAX_KEYS);
    if (reader->error != JSON_TOO_MANY && reader->error != JSON_DEPTH)
        DEMAND(has_doubled(wanted) == (reader->error == JSON_DUPLICATE));
}

static void visit_array(struct json_reader *reader, json_t *wanted)
{
    size_t count = 0;

    DEMAND(!wanted || json_typeof(wanted) == JANSSON_ARRAY);
    (void)json_array(reader);
    for (; json_element(reader); count++) {
        json_t *value = wanted ? json_array_get(wanted, count) : NULL;
        DEMAND(!wanted || value);
        visit(reader, value);
    }
    DEMAND(reader->error || !wanted || count == json_array_size(wanted));
}

/* Reads the next value by its type, everything in it too, beside jansson's value (NULL: jansson has none). */
static void visit(struct json_reader *reader, json_t *wanted)
{
    struct json_string string;
    struct slice number;
    bool truth;

    switch (json_peek(reader)) {
    case JSON_OBJECT:
        visit_object(reader, wanted);
        break;
    case JSON_ARRAY:
        visit_array(reader, wanted);
        break;
    case JSON_STRING:
        if (json_string(reader, &string))
            visit_string(&string, wanted);
        break;
    case JSON_NUMBER:
        if (json_number(reader, &number))
            visit_number(number, wanted);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        if (json_bool(reader, &truth) && wanted)
            DEMAND(json_typeof(wanted) == (truth ? JANSSON_TRUE : JANSSON_FALSE));
        break;
    case JSON_NULL:
        if (json_null(reader) && wanted)
            DEMAND(json_typeof(wanted) == JANSSON_NULL);
        break;
    case JSON_NONE:
        (void)json_skip(reader, NULL);
        DEMAND(reader->error);
        break;
    }
}

/* jansson's value, NULL if it refuses the text. ret_silent: it refuses for a reason that is none to us. */
static json_t *jansson_of(struct slice text, size_t more_flags, bool *ret_silent)
{
    json_error_t said;
    json_t *value = NULL;

    *ret_silent = false;
    if (!text.len || memchr(text.at, 0, text.len))
        return NULL;
    value = json_loadb(text.at, text.len, flags | more_flags, &said);
    if (!value)
        *ret_silent = json_error_code(&said) == json_error_numeric_overflow ||
                      json_error_code(&said) == json_error_null_byte_in_key;
    return value;
}

/* Everything visited: duplicates count. */
static void judge_visiting(struct slice text)
{
    struct json_reader reader;
    bool taken, is_silent;
    json_t *wanted = jansson_of(text, JSON_REJECT_DUPLICATES, &is_silent);

    json_open(&reader, text, JSON_MAX_DEPTH);
    visit(&reader, wanted);
    taken = json_close(&reader);
    DEMAND(taken == !reader.error);
    DEMAND(reader.at >= reader.start && reader.at <= reader.end);
    if (wanted && !taken)
        DEMAND(reader.error == JSON_DUPLICATE || reader.error == JSON_TOO_MANY || reader.error == JSON_DEPTH);
    if (!wanted && taken)
        DEMAND(is_silent);
    json_decref(wanted);
}

/* Whatever we take as valid can be copied compact, and means the same. */
static void judge_compact(struct slice text, json_t *wanted)
{
    struct text once, twice;

    text_init(&once, MANY);
    text_init(&twice, MANY);
    json_add_compact(&once, text);
    json_add_compact(&twice, text_slice(&once));
    DEMAND(json_is_valid(text_slice(&once), JSON_NONE));
    DEMAND(slice_is(text_slice(&once), text_slice(&twice)));
    if (wanted) {
        json_t *value = judged(&once);
        DEMAND(json_equal(value, wanted));
        json_decref(value);
    }
    text_release(&once);
    text_release(&twice);
}

/* Everything skipped: duplicates do not count. */
static void judge_skipping(struct slice text)
{
    struct json_reader reader;
    struct slice raw;
    bool taken, is_silent;
    json_t *wanted = jansson_of(text, 0, &is_silent);

    json_open(&reader, text, JSON_MAX_DEPTH);
    taken = json_skip(&reader, &raw) && json_close(&reader);
    DEMAND(taken == json_is_valid(text, JSON_NONE));
    if (wanted && !taken)
        DEMAND(reader.error == JSON_DEPTH);
    if (!wanted && taken)
        DEMAND(is_silent);
    if (taken) {
        DEMAND(json_is_valid(raw, JSON_NONE));
        judge_compact(raw, wanted);
    }
    json_decref(wanted);
}

/* Any bytes as a string to be written. */
static void judge_writing(struct slice any)
{
    struct text written;
    json_t *value;

    text_init(&written, MANY);
    json_add_string(&written, any);
    DEMAND(json_is_valid(text_slice(&written), JSON_STRING));
    value = judged(&written);
    if (utf8_valid(any))
        DEMAND(slice_is(any, (struct slice){ json_string_value(value), json_string_length(value) }));
    else
        DEMAND(slice_has((struct slice){ json_string_value(value), json_string_length(value) }, SLICE("\xef\xbf\xbd")));
    json_decref(value);
    text_release(&written);
}

typedef const char *scan_utf8_of(const char *at, const char *end, size_t *ret_trailing);

/* Is it UTF-8, by the scans alone? ret_chars: how many characters. */
static bool is_scanned(struct slice any, scan_utf8_of *scan, size_t *ret_chars)
{
    const char *at = any.at, *end = at + any.len;
    size_t trailing = 0;

    while (at < end) {
        const char *stop = scan_plain(at, end);
        DEMAND(stop == scan_plain_portable(at, end));
        at = stop;
        if (at < end && (unsigned char)*at >= 0x80) {
            at = scan(stop, end, &trailing);
            if (at == stop)
                return false;
        } else if (at < end) {
            at++;
        }
    }
    *ret_chars = any.len - trailing;
    return true;
}

static void judge_scanning(struct slice any)
{
    bool valid = utf8_valid(any);
    size_t chars = 0;

    DEMAND(is_scanned(any, scan_utf8, &chars) == valid);
    DEMAND(!valid || chars == utf8_count(any));
    DEMAND(is_scanned(any, scan_utf8_portable, &chars) == valid);
    DEMAND(!valid || chars == utf8_count(any));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice text = { (const char *)bytes, len };

    judge_visiting(text);
    judge_skipping(text);
    judge_writing(text);
    judge_scanning(text);
    return 0;
}
