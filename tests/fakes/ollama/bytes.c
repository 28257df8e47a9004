#include "bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void *must_alloc(size_t size)
{
    void *at = calloc(1, size ? size : 1);

    if (!at) {
        fputs("fake-ollama: out of memory\n", stderr);
        abort();
    }
    return at;
}

void bytes_need(struct bytes *b, size_t more)
{
    size_t cap = b->cap ? b->cap : 512;

    if (b->cap - b->len >= more)
        return;
    while (cap - b->len < more)
        cap *= 2;
    b->at = realloc(b->at, cap);
    if (!b->at) {
        fputs("fake-ollama: out of memory\n", stderr);
        abort();
    }
    b->cap = cap;
}

void bytes_add(struct bytes *b, const void *at, size_t len)
{
    if (len == 0)
        return;
    bytes_need(b, len);
    memcpy(b->at + b->len, at, len);
    b->len += len;
}

void bytes_text(struct bytes *b, const char *text)
{
    bytes_add(b, text, strlen(text));
}

void bytes_slice(struct bytes *b, struct slice s)
{
    bytes_add(b, s.at, s.len);
}

void bytes_number(struct bytes *b, uint64_t number)
{
    char digits[24];
    char *at = digits + sizeof digits;

    do {
        *--at = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    bytes_add(b, at, (size_t)(digits + sizeof digits - at));
}

void bytes_hex(struct bytes *b, uint64_t number)
{
    char digits[24];
    char *at = digits + sizeof digits;

    do {
        *--at = "0123456789abcdef"[number % 16];
        number /= 16;
    } while (number);
    bytes_add(b, at, (size_t)(digits + sizeof digits - at));
}

void bytes_print(struct bytes *b, const char *format, ...)
{
    va_list args;
    va_list again;
    int len;

    va_start(args, format);
    va_copy(again, args);
    len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bytes_need(b, (size_t)len + 1);
    (void)vsnprintf(b->at + b->len, (size_t)len + 1, format, again);
    va_end(again);
    b->len += (size_t)len;
}

void bytes_release(struct bytes *b)
{
    free(b->at);
    *b = (struct bytes){ 0 };
}

struct slice slice_of(const char *text)
{
    return (struct slice){ text, strlen(text) };
}

struct slice slice_copy(struct slice s)
{
    char *at = must_alloc(s.len + 1);

    if (s.len)
        memcpy(at, s.at, s.len);
    return (struct slice){ at, s.len };
}

bool slice_is(struct slice s, const char *text)
{
    return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

bool slice_is_caseless(struct slice s, const char *text)
{
    return s.len == strlen(text) && strncasecmp(s.at, text, s.len) == 0;
}

bool slice_starts(struct slice s, const char *text)
{
    size_t len = strlen(text);

    return s.len >= len && memcmp(s.at, text, len) == 0;
}

bool slice_ends_caseless(struct slice s, const char *text)
{
    size_t len = strlen(text);

    return s.len >= len && strncasecmp(s.at + s.len - len, text, len) == 0;
}

size_t utf8_length(const char *text, size_t len)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t need;

    if (len == 0)
        return 0;
    if (at[0] < 0x80)
        return 1;
    need = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (at[0] < 0xc2 || at[0] > 0xf4 || len < need)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) ||
        (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return need;
}

static void json_ascii(struct bytes *b, unsigned char c)
{
    static const char named[] = "\bb\ff\nn\rr\tt\"\"\\\\";

    for (const char *at = named; *at; at += 2) {
        if ((unsigned char)*at == c) {
            bytes_add(b, (char[]){ '\\', at[1] }, 2);
            return;
        }
    }
    bytes_print(b, "\\u%04x", c);
}

/* How many bytes at the start may stand in a Go JSON string as they are. */
static size_t json_plain(struct slice s)
{
    size_t i = 0;

    while (i < s.len) {
        unsigned char c = (unsigned char)s.at[i];

        if (c < 0x20 || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= 0x80)
            break;
        i++;
    }
    return i;
}

static size_t json_special(struct bytes *b, struct slice s)
{
    size_t len = utf8_length(s.at, s.len);

    if (len == 0) {
        bytes_text(b, "\\ufffd");
        return 1;
    }
    if (len == 1)
        json_ascii(b, (unsigned char)*s.at);
    else if (len == 3 && memcmp(s.at, "\xe2\x80\xa8", 3) == 0)
        bytes_text(b, "\\u2028");
    else if (len == 3 && memcmp(s.at, "\xe2\x80\xa9", 3) == 0)
        bytes_text(b, "\\u2029");
    else
        bytes_add(b, s.at, len);
    return len;
}

void bytes_json(struct bytes *b, struct slice s)
{
    bytes_add(b, "\"", 1);
    while (s.len) {
        size_t done = json_plain(s);

        if (done)
            bytes_add(b, s.at, done);
        else
            done = json_special(b, s);
        s.at += done;
        s.len -= done;
    }
    bytes_add(b, "\"", 1);
}
