#include "gojson.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BLOCK = 1 << 18, DEPTH_MAX = 10000 };

struct arena_block {
    struct arena_block *next;
    size_t size;
    _Alignas(16) char at[];
};

void *arena_take(struct arena *arena, size_t size)
{
    struct arena_block *block = arena->blocks;

    size = (size + 15) & ~(size_t)15;
    if (!block || block->size - arena->used < size) {
        size_t want = size > ARENA_BLOCK ? size : ARENA_BLOCK;

        block = malloc(sizeof *block + want);
        if (!block)
            abort();
        block->size = want;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->used = 0;
    }
    arena->used += size;
    return block->at + arena->used - size;
}

void arena_clear(struct arena *arena)
{
    while (arena->blocks && arena->blocks->next) {
        struct arena_block *next = arena->blocks->next;

        free(arena->blocks);
        arena->blocks = next;
    }
    arena->used = 0;
}

void arena_release(struct arena *arena)
{
    arena_clear(arena);
    free(arena->blocks);
    arena->blocks = NULL;
}

struct reader {
    struct arena *arena;
    const char *at;
    const char *end;
    int depth;
    struct bytes *why;
};

static bool ended(struct reader *r)
{
    bytes_text(r->why, "unexpected EOF");
    return false;
}

static void quote_rune(struct bytes *b, unsigned char c)
{
    if (c == '\a' || c == '\v')
        bytes_text(b, c == '\a' ? "\\a" : "\\v");
    else if (c < 0x20 && (!c || !strchr("\b\f\n\r\t", c)))
        bytes_print(b, "\\x%02x", c);
    else if (c < 0x20)
        bytes_add(b, (char[]){ '\\', "btn_fr"[c - 8] }, 2);
    else if (c == 0x7f)
        bytes_text(b, "\\x7f");
    else if (c >= 0x80 && (c < 0xa1 || c == 0xad))
        bytes_print(b, "\\u%04x", c);
    else if (c >= 0x80)
        bytes_add(b, (char[]){ (char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)) }, 2);
    else
        bytes_add(b, (char[]){ (char)c }, 1);
}

static bool wrong(struct reader *r, const char *where)
{
    unsigned char c;

    if (r->at >= r->end)
        return ended(r);
    c = (unsigned char)*r->at;
    bytes_text(r->why, "invalid character '");
    if (c == '\'' || c == '\\')
        bytes_add(r->why, (char[]){ '\\', (char)c }, 2);
    else
        quote_rune(r->why, c);
    bytes_print(r->why, "' %s", where);
    return false;
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* How many bytes from here on stand for themselves. */
static size_t plain_run(const char *at, const char *end)
{
    const char *from = at;

    while (at < end && (unsigned char)*at >= 0x20 && (unsigned char)*at < 0x80 && *at != '"' && *at != '\\')
        at++;
    return (size_t)(at - from);
}

/* Moves over a string's inside and tells whether it must be decoded. r->at ends on the closing quote. */
static bool scan_string(struct reader *r, bool *ret_must_decode)
{
    *ret_must_decode = false;
    while ((r->at += plain_run(r->at, r->end)) < r->end && *r->at != '"') {
        unsigned char c = (unsigned char)*r->at;
        size_t len = c < 0x80 ? 1 : utf8_length(r->at, (size_t)(r->end - r->at));

        if (c < 0x20)
            return wrong(r, "in string literal");
        if (len == 0)
            *ret_must_decode = true;
        r->at += len ? len : 1;
        if (c != '\\')
            continue;
        *ret_must_decode = true;
        if (r->at >= r->end || !strchr("\"\\/bfnrtu", *r->at) || !*r->at)
            return wrong(r, "in string escape code");
        if (*r->at++ != 'u')
            continue;
        for (int i = 0; i < 4; i++, r->at++)
            if (r->at >= r->end || hex_digit(*r->at) < 0)
                return wrong(r, "in \\u hexadecimal character escape");
    }
    return r->at < r->end || ended(r);
}

static unsigned hex4(const char *at)
{
    return (unsigned)(hex_digit(at[0]) << 12 | hex_digit(at[1]) << 8 | hex_digit(at[2]) << 4 | hex_digit(at[3]));
}

static char *put_rune(char *to, unsigned rune)
{
    if (rune < 0x80) {
        *to++ = (char)rune;
    } else if (rune < 0x800) {
        *to++ = (char)(0xc0 | rune >> 6);
        *to++ = (char)(0x80 | (rune & 0x3f));
    } else if (rune < 0x10000) {
        *to++ = (char)(0xe0 | rune >> 12);
        *to++ = (char)(0x80 | (rune >> 6 & 0x3f));
        *to++ = (char)(0x80 | (rune & 0x3f));
    } else {
        *to++ = (char)(0xf0 | rune >> 18);
        *to++ = (char)(0x80 | (rune >> 12 & 0x3f));
        *to++ = (char)(0x80 | (rune >> 6 & 0x3f));
        *to++ = (char)(0x80 | (rune & 0x3f));
    }
    return to;
}

/* from stands behind the u. Returns where reading goes on. */
static const char *decode_unicode(const char *from, const char *end, char **to)
{
    unsigned rune = hex4(from);

    from += 4;
    if (rune >= 0xd800 && rune < 0xdc00 && end - from >= 6 && from[0] == '\\' && from[1] == 'u') {
        unsigned low = hex4(from + 2);

        if (low >= 0xdc00 && low < 0xe000) {
            *to = put_rune(*to, 0x10000 + ((rune - 0xd800) << 10) + (low - 0xdc00));
            return from + 6;
        }
    }
    *to = put_rune(*to, rune >= 0xd800 && rune < 0xe000 ? 0xfffd : rune);
    return from;
}

static struct slice decode_string(struct reader *r, const char *from, const char *end)
{
    /* A bad byte grows to three. */
    char *to = arena_take(r->arena, (size_t)(end - from) * 3 + 1);
    const char *start = to;

    while (from < end) {
        size_t len = plain_run(from, end);

        memcpy(to, from, len);
        to += len;
        from += len;
        if (from == end)
            break;
        if (*from == '\\') {
            static const char codes[] = "b\bf\fn\nr\rt\t\"\"\\\\//";
            const char *code = codes;

            if (from[1] == 'u') {
                from = decode_unicode(from + 2, end, &to);
                continue;
            }
            while (*code != from[1])
                code += 2;
            *to++ = code[1];
            from += 2;
            continue;
        }
        len = utf8_length(from, (size_t)(end - from));
        if (len == 0) {
            to = put_rune(to, 0xfffd);
            from++;
            continue;
        }
        memcpy(to, from, len);
        to += len;
        from += len;
    }
    *to = 0;
    return (struct slice){ start, (size_t)(to - start) };
}

/* r->at stands on the opening quote. */
static bool read_string(struct reader *r, struct slice *ret)
{
    const char *from = ++r->at;
    bool must_decode;

    if (!scan_string(r, &must_decode))
        return false;
    *ret = must_decode ? decode_string(r, from, r->at) : (struct slice){ from, (size_t)(r->at - from) };
    r->at++;
    return true;
}

static bool is_digit(const struct reader *r)
{
    return r->at < r->end && *r->at >= '0' && *r->at <= '9';
}

static bool read_digits(struct reader *r, const char *where)
{
    if (!is_digit(r))
        return wrong(r, where);
    while (is_digit(r))
        r->at++;
    return true;
}

static bool read_number(struct reader *r)
{
    if (*r->at == '-')
        r->at++;
    if (r->at < r->end && *r->at == '0')
        r->at++;
    else if (!read_digits(r, "in numeric literal"))
        return false;
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        if (!read_digits(r, "after decimal point in numeric literal"))
            return false;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        if (!read_digits(r, "in exponent of numeric literal"))
            return false;
    }
    return true;
}

static bool read_literal(struct reader *r, const char *literal)
{
    char where[64];

    for (const char *c = literal; *c; c++, r->at++) {
        if (r->at >= r->end || *r->at != *c) {
            (void)snprintf(where, sizeof where, "in literal %s (expecting '%c')", literal, *c);
            return wrong(r, where);
        }
    }
    return true;
}

static struct go_value *read_value(struct reader *r);

static bool read_member(struct reader *r, struct go_value ***tail)
{
    struct slice key;
    struct go_value *value;

    skip_space(r);
    if (r->at >= r->end || *r->at != '"')
        return wrong(r, "looking for beginning of object key string");
    if (!read_string(r, &key))
        return false;
    skip_space(r);
    if (r->at >= r->end || *r->at != ':')
        return wrong(r, "after object key");
    r->at++;
    value = read_value(r);
    if (!value)
        return false;
    value->key = key;
    **tail = value;
    *tail = &value->next;
    return true;
}

static bool read_element(struct reader *r, struct go_value ***tail)
{
    struct go_value *value = read_value(r);

    if (!value)
        return false;
    **tail = value;
    *tail = &value->next;
    return true;
}

static bool read_many(struct reader *r, struct go_value *parent, char close)
{
    struct go_value **tail = &parent->first;

    if (++r->depth > DEPTH_MAX) {
        bytes_text(r->why, "exceeded max depth");
        return false;
    }
    r->at++;
    skip_space(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        r->depth--;
        return true;
    }
    for (;;) {
        if (!(close == '}' ? read_member(r, &tail) : read_element(r, &tail)))
            return false;
        skip_space(r);
        if (r->at < r->end && *r->at == ',') {
            r->at++;
            continue;
        }
        if (r->at >= r->end || *r->at != close)
            return wrong(r, close == '}' ? "after object key:value pair" : "after array element");
        r->at++;
        r->depth--;
        return true;
    }
}

static bool read_into(struct reader *r, struct go_value *value)
{
    switch (*r->at) {
    case '{':
        value->kind = GO_OBJECT;
        return read_many(r, value, '}');
    case '[':
        value->kind = GO_ARRAY;
        return read_many(r, value, ']');
    case '"':
        value->kind = GO_STRING;
        return read_string(r, &value->text);
    case 't':
    case 'f':
        value->kind = GO_BOOL;
        value->is_true = *r->at == 't';
        return read_literal(r, value->is_true ? "true" : "false");
    case 'n':
        value->kind = GO_NULL;
        return read_literal(r, "null");
    default:
        if (*r->at != '-' && !is_digit(r))
            return wrong(r, "looking for beginning of value");
        value->kind = GO_NUMBER;
        return read_number(r);
    }
}

static struct go_value *read_value(struct reader *r)
{
    struct go_value *value = arena_take(r->arena, sizeof *value);
    const char *from;

    *value = (struct go_value){ 0 };
    skip_space(r);
    from = r->at;
    if (r->at >= r->end) {
        (void)ended(r);
        return NULL;
    }
    if (!read_into(r, value))
        return NULL;
    value->raw = (struct slice){ from, (size_t)(r->at - from) };
    if (value->kind == GO_NUMBER)
        value->text = value->raw;
    return value;
}

enum go_result go_parse(struct arena *arena, struct slice text, struct go_value **ret_value, struct bytes *ret_why)
{
    struct reader r = { arena, text.at, text.at + text.len, 0, ret_why };
    struct go_value *value;

    skip_space(&r);
    if (r.at >= r.end)
        return GO_EMPTY;
    value = read_value(&r);
    if (!value)
        return GO_ERROR;
    *ret_value = value;
    return GO_OK;
}

struct go_value *go_member(const struct go_value *object, const char *key)
{
    struct go_value *found = NULL;

    for (struct go_value *v = object->first; v; v = v->next)
        if (slice_is(v->key, key))
            found = v;
    return found;
}

const char *go_kind_text(enum go_kind kind)
{
    static const char *const texts[] = { "null", "bool", "number", "string", "array", "object" };

    return texts[kind];
}

bool go_integer(const struct go_value *number, int64_t *ret)
{
    char digits[24];
    char *end;
    long long parsed;

    if (number->text.len >= sizeof digits)
        return false;
    memcpy(digits, number->text.at, number->text.len);
    digits[number->text.len] = 0;
    errno = 0;
    parsed = strtoll(digits, &end, 10);
    if (*end || errno)
        return false;
    *ret = parsed;
    return true;
}

void go_quote(struct bytes *b, struct slice text)
{
    bytes_add(b, "\"", 1);
    for (size_t i = 0; i < text.len;) {
        size_t len = utf8_length(text.at + i, text.len - i);

        if (len == 0)
            bytes_print(b, "\\x%02x", (unsigned char)text.at[i]);
        else if (len > 1)
            bytes_add(b, text.at + i, len);
        else if (text.at[i] == '"' || text.at[i] == '\\')
            bytes_add(b, (char[]){ '\\', text.at[i] }, 2);
        else
            quote_rune(b, (unsigned char)text.at[i]);
        i += len ? len : 1;
    }
    bytes_add(b, "\"", 1);
}
