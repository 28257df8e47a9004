/*
 * json - the request path's reader and writer: strict (RFC 8259), one pass, no allocation, no tree.
 *
 * The reader pulls values out of text that lies in memory as a whole. Strings come out as written, between
 * their quotes and still escaped, but validated (UTF-8, escapes, no lone surrogates): such a slice can be
 * copied into other JSON as it stands, which is what translation mostly does. Members are visited in order:
 *
 *     struct json_reader reader;
 *     struct json_keys keys;
 *     struct json_string key;
 *     json_open(&reader, body, JSON_MAX_DEPTH);
 *     json_object(&reader, &keys);
 *     while (json_member(&reader, &keys, &key)) {
 *         if (json_string_is(&key, "model"))
 *             json_string(&reader, &model);
 *         else
 *             json_skip(&reader, NULL);
 *     }
 *     if (!json_close(&reader))
 *         return reader.error;          // and reader.at says where
 *
 * The first error stays in `error`, and from then on every call returns false and reads nothing: a caller
 * may check once, at the end. A member must be consumed (read or skipped) before the next is asked for.
 * Keys of objects that are visited this way are refused when doubled, also when they differ in case only,
 * because Go's decoder behind us does not tell those apart (nor the long s and the Kelvin sign from s and k);
 * objects that are skipped keep theirs.
 * The reader borrows the text, 4 GiB at most; any thread; the text must outlive every slice taken from it.
 * jansson judges this reader in the tests (tests/fuzz/fuzz_json.c). It has functions named json_object, json_array,
 * json_string and json_null too: so ours have other names for the linker, and a source file includes one of the two
 * headers, not both.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum { JSON_MAX_DEPTH = 64, JSON_MAX_KEYS = 128 };

enum json_type { JSON_NONE, JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

enum json_error {
    JSON_OK = 0,
    JSON_SYNTAX,     /* not JSON */
    JSON_ENDS_EARLY, /* JSON so far, but the text ends within it */
    JSON_UTF8,       /* not UTF-8, or an escape that names half a character */
    JSON_DEPTH,      /* nested deeper than allowed */
    JSON_DUPLICATE,  /* a key twice in an object that is visited */
    JSON_TRAILING,   /* something after the value */
    JSON_TYPE,       /* asked for one type, found another: the reader stands before it */
    JSON_TOO_MANY,   /* more than JSON_MAX_KEYS keys in an object that is visited (or a text over 4 GiB) */
};

/* A string as written, without its quotes. */
struct json_string {
    struct slice raw;
    uint32_t chars;   /* Unicode code points after decoding */
    bool has_escapes; /* false: raw is the string itself */
};

/* The keys seen so far in one object that is visited; lives on the caller's stack, and so is kept small. */
struct json_keys {
    unsigned count;
    uint32_t hashes[JSON_MAX_KEYS]; /* of the decoded key in lower case */
    uint32_t starts[JSON_MAX_KEYS]; /* where in the text the key stands */
};

struct json_reader {
    const char *start, *at, *end;
    unsigned depth, max_depth;
    bool is_first; /* no member or element was read yet in the innermost open array or object */
    /* Set on the way, for who wants to know whether what was read can be copied as it stands; its to clear. */
    bool has_space;       /* white space between tokens was passed */
    bool has_line_breaks; /* U+0085, U+2028 or U+2029 may stand in a string that was passed */
    enum json_error error;
    uint64_t open; /* a bit a level, the innermost lowest: 1 an object, 0 an array */
};

#define JSON_LINKED_AS(name) __asm__("qg_" #name)

void json_open(struct json_reader *reader, struct slice text, unsigned max_depth);
/* True when the value was read whole, nothing but white space follows, and there was no error. */
bool json_close(struct json_reader *reader);
extern const uint8_t json_types[256]; /* enum json_type by a value's first byte */
enum json_type json_peek_far(struct json_reader *reader);
/* The type of the value that comes next, read from its first byte only; JSON_NONE at an error or the end. */
static inline enum json_type json_peek(struct json_reader *reader)
{
    enum json_type type = JSON_NONE;

    if (!reader->error && reader->at != reader->end)
        type = (enum json_type)json_types[(unsigned char)*reader->at];
    return type ? type : json_peek_far(reader); /* which passes over white space */
}

/* Enter an object. keys NULL, here and in json_member: doubled keys are not looked for. */
bool json_object(struct json_reader *reader, struct json_keys *keys) JSON_LINKED_AS(json_object);
/* The next key, or false: the object ended and is left, or an error. After false *ret_key means nothing; it may have
 * been written to (a copy made at the end costs more than the rest: it waits for the stores). The same holds for
 * json_string(). */
bool json_member(struct json_reader *reader, struct json_keys *keys, struct json_string *ret_key);
bool json_array(struct json_reader *reader) JSON_LINKED_AS(json_array); /* enter an array */
/* True when another element stands next; false: the array ended and is left, or an error. */
bool json_element(struct json_reader *reader);

bool json_string(struct json_reader *reader, struct json_string *ret_string) JSON_LINKED_AS(json_string);
bool json_bool(struct json_reader *reader, bool *ret_bool);
/* The number as written (RFC 8259 grammar, any size). */
bool json_number(struct json_reader *reader, struct slice *ret_number);
bool json_null(struct json_reader *reader) JSON_LINKED_AS(json_null);
/* Validates whatever value is next and passes over it. ret_raw (may be NULL): the value as written. */
bool json_skip(struct json_reader *reader, struct slice *ret_raw);
/* The same; the value's type, or JSON_NONE at an error. */
enum json_type json_skip_typed(struct json_reader *reader, struct slice *ret_raw);
/* For the caller's own complaint about the value that is next. Always returns false. */
COLD bool json_fail(struct json_reader *reader, enum json_error error);

/* Numbers as written to C. False: not an integer (1.0 and 1e2 are), or out of the type's range. */
bool json_number_i64(struct slice number, int64_t *ret_number);
/* False when it is infinite as a double. */
bool json_number_double(struct slice number, double *ret_number);

/* Is the whole text one value of this type (JSON_NONE: any)? As json_skip, with JSON_MAX_DEPTH. */
bool json_is_valid(struct slice text, enum json_type type);
/* The same; *ret_is_tight: a copy of it is what json_add_compact() would write. */
bool json_is_valid_tight(struct slice text, enum json_type type, bool *ret_is_tight);

bool json_string_is_decoded(const struct json_string *string, const char *wanted);
/* Compares the decoded string with UTF-8 text. */
static inline bool json_string_is(const struct json_string *string, const char *wanted)
{
    size_t len = strlen(wanted);

    if (string->has_escapes)
        return json_string_is_decoded(string, wanted);
    return string->raw.len == len && memcmp(string->raw.at, wanted, len) == 0;
}
bool json_string_is_nocase(const struct json_string *string, const char *wanted); /* ASCII case */
/* Appends the decoded string as UTF-8 (it may hold NUL bytes). */
void json_string_decode(const struct json_string *string, struct text *out);

/* One sentence for a caller: "line 1, column 17: not valid JSON" and the like; no part of the text is quoted. */
COLD void json_error_say(const struct json_reader *reader, struct text *out);
const char *json_error_text(enum json_error error);

/*
 * Writing. No writer object: JSON is appended to a text piece by piece.
 * U+0085, U+2028 and U+2029 go out as \uXXXX: clients exist that split lines there.
 */
/* Quotes and escapes UTF-8 text; each byte that is not UTF-8 becomes U+FFFD. */
void json_add_string(struct text *out, struct slice utf8);
/* The same without the quotes. */
void json_add_escaped(struct text *out, struct slice utf8);
/* A string as the reader gave it, without quotes, copied as written but for the three characters above. */
void json_add_raw(struct text *out, struct slice raw);
/* A whole validated value copied, white space between tokens left out, the three characters escaped. */
void json_add_compact(struct text *out, struct slice value);
