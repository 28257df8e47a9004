/*
 * scan - the json room's own tools, shared by its .c files and its tests; no other room includes this.
 *
 * Functions that pass over text take `at`, where they begin, and return where they end; NULL is an error,
 * which then stands in the reader, with the place of the culprit in reader->at.
 * "Plain" is a byte that a string may hold as it is and that is a character of its own: ASCII from space on,
 * but for the quote and the backslash.
 */
#pragma once
#include "json.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static inline bool is_plain(char c)
{
    unsigned char byte = (unsigned char)c;

    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* The first byte that is not plain, or end. Eight bytes at a time, for any processor. */
static inline const char *scan_plain_portable(const char *at, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;

    for (uint64_t eight; end - at >= (ptrdiff_t)sizeof eight; at += sizeof eight) {
        memcpy(&eight, at, sizeof eight);
        uint64_t quote = eight ^ ones * '"';
        uint64_t backslash = eight ^ ones * '\\';
        /* A top bit is set where a byte underflows; borrowing taints only bytes after one that truly does. */
        uint64_t low = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((eight - ones * 0x20) & ~eight);
        if ((low | eight) & tops)
            break;
    }
    while (at < end && is_plain(*at))
        at++;
    return at;
}

#ifdef __SSE2__
/* A bit for each of 16 bytes that is not plain. */
static inline unsigned scan_mask(const char *at)
{
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);
    __m128i block = _mm_loadu_si128((const __m128i_u *)at);
    /* As signed numbers, bytes from 0x80 on are below the space too. */
    __m128i other = _mm_or_si128(_mm_cmplt_epi8(block, space),
                                 _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, backslash)));

    return (unsigned)_mm_movemask_epi8(other);
}

static inline const char *scan_plain_wide(const char *at, const char *end)
{
    for (; end - at >= 16; at += 16) {
        unsigned mask = scan_mask(at);
        if (mask)
            return at + __builtin_ctz(mask);
    }
    return scan_plain_portable(at, end);
}
#endif

static inline const char *scan_plain(const char *at, const char *end)
{
#ifdef __SSE2__
    return scan_plain_wide(at, end);
#else
    return scan_plain_portable(at, end);
#endif
}

/*
 * How many of the first SHORT bytes are plain; SHORT as well where the text has fewer. Most keys are that short, and
 * many values: these are passed without a loop or a call.
 */
enum { SHORT = 16 };
static inline size_t scan_short_near(const char *at) /* it has */
{
#ifdef __SSE2__
    return (size_t)__builtin_ctz(scan_mask(at) | 1u << SHORT);
#else
    return (size_t)(scan_plain_portable(at, at + SHORT) - at);
#endif
}
static inline size_t scan_short(const char *at, const char *end)
{
    return end - at < SHORT ? SHORT : scan_short_near(at);
}

/*
 * Passes over characters that are not ASCII, and over plain ones among them; stops at the first byte that is
 * neither plain nor part of a well-formed character (RFC 3629), or earlier where only ASCII lies ahead.
 * Adds to *ret_trailing the bytes passed that are not their character's first.
 */
const char *scan_utf8(const char *at, const char *end, size_t *ret_trailing);
/* Does U+0085, U+2028 or U+2029 stand there? */
bool scan_has_line_break(const char *at, const char *end);
const char *scan_utf8_portable(const char *at, const char *end, size_t *ret_trailing);

#ifdef __SSE2__
/*
 * Passes over ASCII and over the escapes \n \t \r \" \\ as long as 64 bytes are left, and adds these escapes to
 * *ret_escapes. Stops at the closing quote, or before whatever else it does not know. By the widest steps that this
 * processor has; the two below are the same, for tests.
 */
const char *scan_string(const char *at, const char *end, size_t *ret_escapes);
const char *scan_string_sse2(const char *at, const char *end, size_t *ret_escapes);
const char *scan_string_avx2(const char *at, const char *end, size_t *ret_escapes);
bool scan_has_avx2(void);
#endif

static inline bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

/* The same between a reader's tokens. */
static inline const char *pass_space(struct json_reader *reader, const char *at)
{
    if (at == reader->end || !is_space(*at))
        return at;
    reader->has_space = true;
    return skip_space(at + 1, reader->end);
}

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

/* Sets the error and its place. Always NULL. */
COLD const char *json_stop(struct json_reader *reader, const char *at, enum json_error error);

/* A string that begins at `at`, whatever it holds. */
const char *pass_string_any(struct json_reader *reader, const char *at, struct json_string *ret_string);
/* `at` stands behind the opening quote; the end, behind the closing one. */
static inline const char *pass_string(struct json_reader *reader, const char *at, struct json_string *ret_string)
{
    size_t len = scan_short(at, reader->end);

    if (len == SHORT || at[len] != '"')
        return pass_string_any(reader, at, ret_string);
    *ret_string = (struct json_string){ .raw = { at, len }, .chars = (uint32_t)len };
    return at + len + 1;
}

const char *pass_number(struct json_reader *reader, const char *at);

/* The next character of a validated string: an escape, a surrogate pair of escapes, or UTF-8. */
uint32_t next_char(const char **at);
/* Writes a character as UTF-8 to ret_bytes and returns its length. */
size_t put_char(uint32_t c, char ret_bytes[4]);

/* Notes a key of an object that is visited. False: doubled or too many, and that is the reader's error now. */
bool keys_add(struct json_reader *reader, struct json_keys *keys, const struct json_string *key);
