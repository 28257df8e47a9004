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
static inline const char *scan_plain_wide(const char *at, const char *end)
{
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), space = _mm_set1_epi8(0x20);

    for (; end - at >= 16; at += 16) {
        __m128i block = _mm_loadu_si128((const __m128i_u *)at);
        /* As signed numbers, bytes from 0x80 on are below the space too. */
        __m128i other = _mm_or_si128(_mm_cmplt_epi8(block, space),
                                     _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, backslash)));
        unsigned mask = (unsigned)_mm_movemask_epi8(other);
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
 * Passes over characters that are not ASCII, and over plain ones among them; stops at the first byte that is
 * neither plain nor part of a well-formed character (RFC 3629), or earlier where only ASCII lies ahead.
 * Adds to *ret_trailing the bytes passed that are not their character's first.
 */
const char *scan_utf8(const char *at, const char *end, size_t *ret_trailing);
const char *scan_utf8_portable(const char *at, const char *end, size_t *ret_trailing);

static inline bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static inline const char *pass_space(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

/* Sets the error and its place. Always NULL. */
const char *json_stop(struct json_reader *reader, const char *at, enum json_error error);

/* The rest of a string that began at `first` and is fine, and plain, up to `at`. */
const char *pass_string_rest(struct json_reader *reader, const char *first, const char *at,
                             struct json_string *ret_string);
/* `at` stands behind the opening quote; the end, behind the closing one. */
static inline const char *pass_string(struct json_reader *reader, const char *at, struct json_string *ret_string)
{
    const char *stop = scan_plain(at, reader->end);

    if (stop == reader->end || *stop != '"')
        return pass_string_rest(reader, at, stop, ret_string);
    *ret_string = (struct json_string){ .raw = { at, (size_t)(stop - at) }, .chars = (uint32_t)(stop - at) };
    return stop + 1;
}

const char *pass_number(struct json_reader *reader, const char *at);

/* The next character of a validated string: an escape, a surrogate pair of escapes, or UTF-8. */
uint32_t next_char(const char **at);
/* Writes a character as UTF-8 to ret_bytes and returns its length. */
size_t put_char(uint32_t c, char ret_bytes[4]);

/* Notes a key of an object that is visited. False: doubled or too many, and that is the reader's error now. */
bool keys_add(struct json_reader *reader, struct json_keys *keys, const struct json_string *key);
