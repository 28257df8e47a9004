#include "text.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIRST_ROOM_BYTES = 128 };

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool slice_is_nocase(struct slice slice, struct slice other)
{
    if (slice.len != other.len || (slice.len && (slice.at[0] ^ other.at[0]) & ~0x20))
        return false;
    for (size_t i = 0; i < slice.len; i++)
        if (lower(slice.at[i]) != lower(other.at[i]))
            return false;
    return true;
}

bool slice_starts(struct slice slice, struct slice prefix)
{
    return slice.len >= prefix.len && (prefix.len == 0 || memcmp(slice.at, prefix.at, prefix.len) == 0);
}

bool slice_ends(struct slice slice, struct slice suffix)
{
    return slice.len >= suffix.len &&
           (suffix.len == 0 || memcmp(slice.at + slice.len - suffix.len, suffix.at, suffix.len) == 0);
}

bool slice_has(struct slice slice, struct slice part)
{
    if (!part.len)
        return true;
    /* What is asked is short: memmem() would make a table first, on pages that nothing else of a request touches. */
    for (size_t i = 0; i + part.len <= slice.len; i++)
        if (slice.at[i] == part.at[0] && memcmp(slice.at + i, part.at, part.len) == 0)
            return true;
    return false;
}

struct slice slice_trim(struct slice slice)
{
    while (slice.len && (slice.at[0] == ' ' || slice.at[0] == '\t')) {
        slice.at++;
        slice.len--;
    }
    while (slice.len && (slice.at[slice.len - 1] == ' ' || slice.at[slice.len - 1] == '\t'))
        slice.len--;
    return slice;
}

void text_init(struct text *text, size_t max_len)
{
    /* So that no sum of lengths here can overflow. */
    *text = (struct text){ .max = max_len < PTRDIFF_MAX / 2 ? max_len : PTRDIFF_MAX / 2 };
}

void text_release(struct text *text)
{
    free(text->at);
    text_init(text, text->max);
}

static void note_wet(struct text *text)
{
    if (text->len > text->wet)
        text->wet = text->len;
}

/* All that was ever written. */
static void wipe(struct text *text)
{
    note_wet(text);
    if (text->wet)
        explicit_bzero(text->at, text->wet);
    text->wet = 0;
}

void text_release_wiped(struct text *text)
{
    wipe(text);
    text_release(text);
}

void text_clear_wiped(struct text *text)
{
    wipe(text);
    text_clear(text);
    text->wet = 0; /* text_clear() noted what was wiped already */
}

void text_clear(struct text *text)
{
    note_wet(text);
    text->len = 0;
    text->err = ERR_OK;
    if (text->at)
        text->at[0] = 0;
}

const char *text_string(const struct text *text)
{
    return text->at ? text->at : "";
}

COLD static bool text_break(struct text *text, enum err err)
{
    text->err = err;
    return false;
}

/* As realloc(), which would leave a copy behind wherever it moves. Rare, and not to burden who needs no move. */
__attribute__((noinline)) static char *move(struct text *text, size_t room)
{
    char *at = malloc(room);

    if (!at)
        return NULL;
    if (text->at) {
        memcpy(at, text->at, text->len);
        wipe(text);
        free(text->at);
    }
    return at;
}

bool text_reserve(struct text *text, size_t more)
{
    size_t wanted;
    size_t room;
    char *at;

    if (text->err)
        return false;
    if (more > text->max || text->len > text->max - more)
        return text_break(text, ERR_TOO_LONG);
    wanted = text->len + more + 1;
    if (wanted <= text->room)
        return true;
    room = text->room                  ? text->room
           : wanted > FIRST_ROOM_BYTES ? wanted
                                       : FIRST_ROOM_BYTES; /* who knows gets just that */
    while (room < wanted)
        room += room / 2 + 16;
    if (room > text->max + 1)
        room = text->max + 1;
    at = move(text, room);
    if (!at)
        return text_break(text, ERR_NO_MEMORY);
    text->at = at;
    text->room = room;
    text->at[text->len] = 0;
    return true;
}

void text_add_slow(struct text *text, const char *at, size_t len)
{
    if (!len) /* nothing to add is no reason to allocate */
        return;
    if (!text_reserve(text, len))
        return;
    if (len)
        memcpy(text->at + text->len, at, len);
    text->len += len;
    text->at[text->len] = 0;
}

/* Digits of a number; few numbers have many. */
static unsigned digits_of(uint64_t number)
{
    unsigned digits = 1;

    for (; number >= 10000; number /= 10000)
        digits += 4;
    return digits + (number >= 10) + (number >= 100) + (number >= 1000);
}

void text_add_u64(struct text *text, uint64_t number)
{
    unsigned digits = digits_of(number);

    if (!text_reserve(text, digits))
        return;
    text->len += digits;
    text->at[text->len] = 0;
    for (char *at = text->at + text->len; digits; digits--, number /= 10)
        *--at = (char)('0' + number % 10);
}

void text_add_i64(struct text *text, int64_t number)
{
    if (number < 0)
        text_add_char(text, '-');
    text_add_u64(text, number < 0 ? 0 - (uint64_t)number : (uint64_t)number);
}

void text_vprintf(struct text *text, const char *format, va_list args)
{
    va_list again;
    int len;

    va_copy(again, args);
    len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (len < 0 || !text_reserve(text, (size_t)len))
        return;
    (void)vsnprintf(text->at + text->len, (size_t)len + 1, format, args);
    text->len += (size_t)len;
}

void text_printf(struct text *text, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    text_vprintf(text, format, args);
    va_end(args);
}

void text_drop_front(struct text *text, size_t len)
{
    if (!len)
        return;
    note_wet(text);
    text->len -= len;
    memmove(text->at, text->at + len, text->len + 1);
}
