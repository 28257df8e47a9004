/*
 * text - bytes: a slice of somebody else's, and a buffer of one's own that grows up to a ceiling.
 *
 * struct slice  borrowed bytes, not ended by NUL; lives as long as what it points into.
 * struct text   owned bytes on the heap, always ended by a NUL that `len` does not count.
 *               After a failed append `err` says why (ERR_TOO_LONG: the ceiling; ERR_NO_MEMORY) and further
 *               appends do nothing: so a writer checks once, at its end.
 *               When it moves, what it held is overwritten where it was.
 * Any thread, one at a time. Sizes in bytes.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "err.h"

struct slice {
    const char *at;
    size_t len;
};

#define SLICE(literal) ((struct slice){ (literal), sizeof(literal) - 1 })

static inline struct slice slice_of(const char *string)
{
    return (struct slice){ string, string ? strlen(string) : 0 };
}

static inline bool slice_is(struct slice slice, struct slice other)
{
    return slice.len == other.len && (slice.len == 0 || memcmp(slice.at, other.at, slice.len) == 0);
}

/* ASCII letters compare without case. */
bool slice_is_nocase(struct slice slice, struct slice other);
bool slice_starts(struct slice slice, struct slice prefix);
bool slice_ends(struct slice slice, struct slice suffix);
bool slice_has(struct slice slice, struct slice part);
/* Without spaces and tabs at both ends. */
struct slice slice_trim(struct slice slice);
/* For tables. Keyed by the seed: a secret one keeps strangers from choosing names that collide. Neither half may be so
 * simple that a word cancels it out: seed[1] is never 0. */
uint64_t slice_hash(const uint64_t seed[2], struct slice slice);

struct text {
    char *at;
    size_t len;
    size_t room;  /* bytes allocated, the NUL's included */
    size_t max;   /* ceiling of len, told at birth */
    size_t wet;   /* bytes that may hold what was written once, when more than len */
    enum err err; /* why it broke; ERR_OK: it did not */
};

void text_init(struct text *text, size_t max_len);
/* A text in memory of the caller's, mostly on the stack: it never grows beyond it (ERR_TOO_LONG), and is not released.
 */
static inline struct text text_over(char *memory, size_t bytes)
{
    memory[0] = 0;
    return (struct text){ .at = memory, .room = bytes, .max = bytes - 1 };
}
void text_release(struct text *text);
/* Overwrites what was written before giving it back: for keys and prompts. */
void text_release_wiped(struct text *text);
/* Empties it and mends it; the memory stays. */
void text_clear(struct text *text);
/* The same, and overwrites what was written since it was made or last wiped. */
void text_clear_wiped(struct text *text);
static inline struct slice text_slice(const struct text *text)
{
    return (struct slice){ text->at, text->len };
}
/* "" when nothing was ever appended. */
const char *text_string(const struct text *text);
/* Room for `more` further bytes at text->at + text->len; false, and broken, if there cannot be. */
bool text_reserve(struct text *text, size_t more);

COLD void text_add_slow(struct text *text, const char *at, size_t len);
static inline void text_add(struct text *text, const char *at, size_t len)
{
    if (text->err || text->room < text->len + len + 1 || text->room == 0) {
        text_add_slow(text, at, len);
        return;
    }
    if (len)
        memcpy(text->at + text->len, at, len);
    text->len += len;
    text->at[text->len] = 0;
}
static inline void text_add_slice(struct text *text, struct slice slice)
{
    text_add(text, slice.at, slice.len);
}
static inline void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}
#define text_add_literal(text, literal) text_add((text), (literal), sizeof(literal) - 1)
static inline void text_add_char(struct text *text, char c)
{
    text_add(text, &c, 1);
}
void text_add_u64(struct text *text, uint64_t number);
void text_add_i64(struct text *text, int64_t number);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *text, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* Takes `len` bytes away from the front. */
void text_drop_front(struct text *text, size_t len);

/*
 * UTF-8. utf8_valid: strict (RFC 3629): no surrogates, nothing overlong, nothing past U+10FFFF.
 * utf8_count: code points of valid UTF-8. utf8_cut: the longest prefix of at most max bytes that does not
 * split a character.
 */
bool utf8_valid(struct slice slice);
size_t utf8_count(struct slice slice);
size_t utf8_cut(struct slice slice, size_t max_len);
