/*
 * Strings: where a request's bytes are. Plain stretches go by in wide steps (scan.h); characters beyond ASCII
 * are checked a block at a time here, and one at a time where a block cannot tell.
 */
#include "scan.h"

static bool is_trailing(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Length of the well-formed character at `at` that is not ASCII; 0: there is none. */
static size_t utf8_len(const char *at, const char *end)
{
    unsigned char first = (unsigned char)at[0], second;
    size_t left = (size_t)(end - at);

    if (first < 0xc2 || first > 0xf4 || left < 2 || !is_trailing(at[1]))
        return 0;
    if (first < 0xe0)
        return 2;
    second = (unsigned char)at[1];
    if (left < 3 || !is_trailing(at[2]))
        return 0;
    if (first < 0xf0)
        return (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ? 0 : 3;
    if (left < 4 || !is_trailing(at[3]))
        return 0;
    return (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) ? 0 : 4;
}

const char *scan_utf8_portable(const char *at, const char *end, size_t *ret_trailing)
{
    while (at < end) {
        size_t len;
        if ((unsigned char)*at < 0x80) {
            /* One space between words is worth staying for; more is for scan_plain. */
            if (!is_plain(*at) || end - at < 2 || (unsigned char)at[1] < 0x80)
                break;
            at++;
        }
        len = utf8_len(at, end);
        if (!len)
            break;
        *ret_trailing += len - 1;
        at += len;
    }
    return at;
}

#ifdef __SSE2__
static unsigned mask_of(__m128i bytes)
{
    return (unsigned)_mm_movemask_epi8(bytes);
}

static __m128i is_byte(__m128i block, int byte)
{
    return _mm_cmpeq_epi8(block, _mm_set1_epi8((char)byte));
}

static __m128i is_from(__m128i block, int byte)
{
    return _mm_cmpeq_epi8(_mm_max_epu8(block, _mm_set1_epi8((char)byte)), block);
}

/* No popcnt in the x86-64 baseline, and the compiler's stand-in is a call. */
static unsigned bits_in(unsigned mask)
{
    mask = mask - ((mask >> 1) & 0x5555);
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333);
    mask = (mask + (mask >> 4)) & 0x0f0f;
    return (mask + (mask >> 8)) & 0x1f;
}

/* What a block of 16 bytes holds, a bit a byte. */
struct block {
    unsigned special;  /* ASCII that is not plain */
    unsigned trailing; /* 10xxxxxx */
    unsigned leading;  /* 11xxxxxx */
    unsigned wanted;   /* where a trailing byte must stand, up to three places behind the block */
    unsigned wrong;    /* what no well-formed text holds, wherever it stands */
};

/* Overlong, surrogates, and past U+10FFFF: told by the first byte, or by the second after one of four. */
static unsigned block_wrong(__m128i bytes, __m128i before)
{
    __m128i from_90 = is_from(bytes, 0x90), from_a0 = is_from(bytes, 0xa0);
    __m128i low = _mm_or_si128(_mm_andnot_si128(from_a0, is_byte(before, 0xe0)),
                               _mm_andnot_si128(from_90, is_byte(before, 0xf0)));
    __m128i high =
        _mm_or_si128(_mm_and_si128(from_a0, is_byte(before, 0xed)), _mm_and_si128(from_90, is_byte(before, 0xf4)));
    __m128i first = _mm_or_si128(is_byte(_mm_and_si128(bytes, _mm_set1_epi8((char)0xfe)), 0xc0), is_from(bytes, 0xf5));

    return mask_of(_mm_or_si128(_mm_or_si128(low, high), first));
}

/* `before`: the same bytes, each one place later. */
static struct block block_read(__m128i bytes, __m128i before)
{
    __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
    __m128i special = _mm_or_si128(control, _mm_or_si128(is_byte(bytes, '"'), is_byte(bytes, '\\')));
    /* Most first bytes may be followed by any trailing byte: 0xc2 to 0xdf, 0xe1 to 0xef without 0xed. */
    __m128i choosy = _mm_or_si128(_mm_or_si128(is_byte(before, 0xe0), is_byte(before, 0xed)),
                                  _mm_or_si128(is_byte(_mm_and_si128(bytes, _mm_set1_epi8((char)0xfe)), 0xc0),
                                               is_from(_mm_max_epu8(bytes, before), 0xf0)));
    struct block block = { .special = mask_of(special), .leading = mask_of(is_from(bytes, 0xc0)) };

    block.trailing = mask_of(bytes) & ~block.leading;
    block.wanted = block.leading << 1 | mask_of(is_from(bytes, 0xe0)) << 2;
    if (mask_of(choosy)) {
        block.wanted |= mask_of(is_from(bytes, 0xf0)) << 3;
        block.wrong = block_wrong(bytes, before);
    }
    return block;
}

/*
 * Blocks of 16 bytes, up to the first that holds only ASCII or anything wrong: what is there is for the
 * others to say. A character may lie across two blocks; the end never lies within one.
 */
static const char *scan_utf8_wide(const char *at, const char *end, size_t *ret_trailing)
{
    const char *start = at;
    unsigned carried = 0; /* where this block must go on with a character of the last one */

    for (; end - at >= 16; at += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i_u *)at);
        __m128i before = at == start ? _mm_slli_si128(bytes, 1) : _mm_loadu_si128((const __m128i_u *)(at - 1));
        struct block block = block_read(bytes, before);
        unsigned stop = block.special ? (unsigned)__builtin_ctz(block.special) : 16;
        unsigned within = (2u << stop) - 1; /* the stop is looked at too: nothing trailing may be wanted there */

        block.wanted |= carried;
        if (!block.wanted || (((block.wanted ^ block.trailing) & 0xffff) | block.wrong) & within)
            break;
        *ret_trailing += bits_in(block.trailing & within);
        if (block.special)
            return at + stop;
        carried = block.wanted >> 16;
    }
    for (; carried; carried = is_trailing(*at)) /* back to the character's first byte */
        *ret_trailing -= is_trailing(*--at);
    return at;
}
#endif

const char *scan_utf8(const char *at, const char *end, size_t *ret_trailing)
{
#ifdef __SSE2__
    at = scan_utf8_wide(at, end, ret_trailing);
#endif
    return scan_utf8_portable(at, end, ret_trailing);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits of \uXXXX. */
static uint32_t hex4(const char *at)
{
    uint32_t number = 0;

    for (unsigned i = 0; i < 4; i++)
        number = number << 4 | (uint32_t)hex_digit(at[i]);
    return number;
}

static bool is_high_surrogate(uint32_t unit)
{
    return unit >= 0xd800 && unit < 0xdc00;
}

static bool is_low_surrogate(uint32_t unit)
{
    return unit >= 0xdc00 && unit < 0xe000;
}

/* `at` stands on the backslash of \uXXXX. */
static const char *pass_unit(struct json_reader *reader, const char *at, uint32_t *ret_unit)
{
    for (unsigned i = 0; i < 6; i++) {
        if (at + i == reader->end)
            return json_stop(reader, at + i, JSON_ENDS_EARLY);
        if (i == 0 ? at[i] != '\\' : i == 1 ? at[i] != 'u' : hex_digit(at[i]) < 0)
            return json_stop(reader, at + i, JSON_SYNTAX);
    }
    *ret_unit = hex4(at + 2);
    return at + 6;
}

static const char *pass_pair(struct json_reader *reader, const char *at, const char *second)
{
    uint32_t unit;
    bool follows = (second == reader->end || second[0] == '\\') && (reader->end - second < 2 || second[1] == 'u');

    if (!follows)
        return json_stop(reader, at, JSON_UTF8);
    second = pass_unit(reader, second, &unit);
    if (second && !is_low_surrogate(unit))
        return json_stop(reader, at, JSON_UTF8);
    return second;
}

/* What may stand behind a backslash, but for u. A table: an agent's turn has a thousand of them. */
static const bool is_escape[256] = {
    ['"'] = true, ['\\'] = true, ['/'] = true, ['b'] = true, ['f'] = true, ['n'] = true, ['r'] = true, ['t'] = true
};

/* `at` stands on the backslash. *ret_trailing grows by the bytes that make no character of their own. */
static const char *pass_escape(struct json_reader *reader, const char *at, size_t *ret_trailing)
{
    const char *behind;
    uint32_t unit;

    if (at + 1 == reader->end)
        return json_stop(reader, at + 1, JSON_ENDS_EARLY);
    if (at[1] != 'u') {
        if (!is_escape[(unsigned char)at[1]])
            return json_stop(reader, at + 1, JSON_SYNTAX);
        *ret_trailing += 1;
        return at + 2;
    }
    behind = pass_unit(reader, at, &unit);
    if (behind && is_low_surrogate(unit))
        return json_stop(reader, at, JSON_UTF8);
    if (behind && is_high_surrogate(unit))
        behind = pass_pair(reader, at, behind);
    if (behind)
        *ret_trailing += (size_t)(behind - at) - 1;
    return behind;
}

/* Escapes that stand side by side, as where a writer keeps to ASCII: what is not, is runs of \uXXXX. */
static const char *pass_escapes(struct json_reader *reader, const char *at, size_t *ret_trailing)
{
    do
        at = pass_escape(reader, at, ret_trailing);
    while (at && at != reader->end && *at == '\\');
    return at;
}

/* The end of the plain stretch at `at`, or of one with the escapes in it that the wide steps know. */
static const char *pass_simple(const char *at, const char *end, size_t *ret_escapes)
{
#ifdef __SSE2__
    if (end - at >= 64) {
        const char *stop = scan_string(at, end, ret_escapes);
        if (end - stop >= 64)
            return stop;
        at = stop;
    }
#endif
    (void)ret_escapes;
    return scan_plain(at, end);
}

/* The rest of a string that began at `first`, and is fine up to `at`, with `escapes` of two bytes on the way. */
static const char *pass_string_rest(struct json_reader *reader, const char *first, const char *at, size_t escapes,
                                    struct json_string *ret_string)
{
    const char *wide = NULL; /* the first that is not ASCII */
    bool has_escapes = escapes != 0;
    size_t trailing = escapes;

    for (;;) {
        if (at == reader->end)
            return json_stop(reader, at, JSON_ENDS_EARLY);
        if (*at == '"')
            break;
        if (*at == '\\') {
            has_escapes = true;
            at = pass_escapes(reader, at, &trailing);
            if (!at)
                return NULL;
        } else if ((unsigned char)*at >= 0x80) {
            const char *behind = scan_utf8(at, reader->end, &trailing);
            if (behind == at)
                return json_stop(reader, at, JSON_UTF8);
            wide = wide ? wide : at;
            at = behind;
        } else {
            return json_stop(reader, at, JSON_SYNTAX);
        }
        escapes = 0;
        at = pass_simple(at, reader->end, &escapes);
        has_escapes |= escapes != 0;
        trailing += escapes;
    }
    if (wide && !reader->has_line_breaks)
        reader->has_line_breaks = scan_has_line_break(wide, at);
    *ret_string = (struct json_string){ .raw = { first, (size_t)(at - first) },
                                        .chars = (uint32_t)((size_t)(at - first) - trailing),
                                        .has_escapes = has_escapes };
    return at + 1;
}

const char *pass_string_any(struct json_reader *reader, const char *at, struct json_string *ret_string)
{
    size_t escapes = 0, len = scan_short(at, reader->end);
    const char *stop;

    /* Ids and times have 16 to 31 letters. */
    if (len == SHORT && reader->end - at >= 2 * SHORT)
        len += scan_short_near(at + SHORT);
    stop = at + len;
    if (len == SHORT || len == 2 * SHORT || *stop != '"')
        stop = pass_simple(at, reader->end, &escapes);
    if (UNLIKELY(stop == reader->end || *stop != '"'))
        return pass_string_rest(reader, at, stop, escapes, ret_string);
    *ret_string = (struct json_string){ .raw = { at, (size_t)(stop - at) },
                                        .chars = (uint32_t)((size_t)(stop - at) - escapes),
                                        .has_escapes = escapes != 0 };
    return stop + 1;
}

static uint32_t next_escape(const char **at)
{
    static const char letters[] = "bfnrt", controls[] = "\b\f\n\r\t";
    char letter = (*at)[1];
    const char *known = strchr(letters, letter);
    uint32_t unit;

    if (letter != 'u') {
        *at += 2;
        return known ? (unsigned char)controls[known - letters] : (unsigned char)letter;
    }
    unit = hex4(*at + 2);
    *at += 6;
    if (!is_high_surrogate(unit))
        return unit;
    unit = 0x10000 + ((unit - 0xd800) << 10) + (hex4(*at + 2) - 0xdc00);
    *at += 6;
    return unit;
}

uint32_t next_char(const char **at)
{
    const unsigned char *byte = (const unsigned char *)*at;
    uint32_t c;
    size_t len;

    if (*byte == '\\')
        return next_escape(at);
    if (*byte < 0x80) {
        *at += 1;
        return *byte;
    }
    len = *byte < 0xe0 ? 2 : *byte < 0xf0 ? 3 : 4;
    c = *byte & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++)
        c = c << 6 | (byte[i] & 0x3f);
    *at += len;
    return c;
}

size_t put_char(uint32_t c, char ret_bytes[4])
{
    size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    for (size_t i = len - 1; i > 0; i--, c >>= 6)
        ret_bytes[i] = (char)(0x80 | (c & 0x3f));
    ret_bytes[0] = (char)(len == 1 ? c : (0xf00u >> len & 0xf0) | c);
    return len;
}

static uint32_t lower(uint32_t c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

bool json_string_is_decoded(const struct json_string *string, const char *wanted)
{
    const char *at = string->raw.at, *end = at + string->raw.len;

    while (at < end) {
        char bytes[4];
        size_t len = put_char(next_char(&at), bytes);
        if (!bytes[0] || strncmp(wanted, bytes, len) != 0)
            return false;
        wanted += len;
    }
    return !*wanted;
}

bool json_string_is_nocase(const struct json_string *string, const char *wanted)
{
    const char *at = string->raw.at, *end = at + string->raw.len;

    while (at < end) {
        char bytes[4];
        size_t len = put_char(next_char(&at), bytes);
        if (len == 1 ? !bytes[0] || lower((unsigned char)bytes[0]) != lower((unsigned char)*wanted)
                     : strncmp(wanted, bytes, len) != 0)
            return false;
        wanted += len;
    }
    return !*wanted;
}

void json_string_decode(const struct json_string *string, struct text *out)
{
    const char *at = string->raw.at, *end = at + string->raw.len;

    if (!out->err && out->len <= out->max && string->raw.len <= out->max - out->len)
        (void)text_reserve(out, string->raw.len); /* decoding never makes it longer */
    while (at < end) {
        const char *stop = string->has_escapes ? memchr(at, '\\', (size_t)(end - at)) : NULL;
        char bytes[4];
        if (!stop)
            stop = end;
        text_add(out, at, (size_t)(stop - at));
        at = stop;
        if (at < end)
            text_add(out, bytes, put_char(next_char(&at), bytes));
    }
}
