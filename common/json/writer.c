/*
 * Writing. Stretches that go out as they are go out in one piece; the scans look for what does not: quotes,
 * backslashes and controls in text, the first bytes of U+0085, U+2028 and U+2029 in what is JSON already.
 */
#include "scan.h"

/* Length of U+0085, U+2028 or U+2029 at `at`; 0: it is none of them. ret_escape: what goes out instead. */
static size_t line_break(const char *at, const char *end, const char **ret_escape)
{
    if (end - at >= 2 && memcmp(at, "\xc2\x85", 2) == 0) {
        *ret_escape = "\\u0085";
        return 2;
    }
    if (end - at < 3 || memcmp(at, "\xe2\x80", 2) != 0 || (at[2] != '\xa8' && at[2] != '\xa9'))
        return 0;
    *ret_escape = at[2] == '\xa8' ? "\\u2028" : "\\u2029";
    return 3;
}

#ifdef __SSE2__
static __m128i is_byte(const char *at, int byte)
{
    return _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i_u *)at), _mm_set1_epi8((char)byte));
}

/* A bit for each of 16 places where one of the three stands. Looks at 18 bytes. */
static unsigned line_breaks(const char *at)
{
    __m128i last = _mm_or_si128(is_byte(at + 2, 0xa8), is_byte(at + 2, 0xa9));
    __m128i three = _mm_and_si128(_mm_and_si128(is_byte(at, 0xe2), is_byte(at + 1, 0x80)), last);
    __m128i two = _mm_and_si128(is_byte(at, 0xc2), is_byte(at + 1, 0x85));

    return (unsigned)_mm_movemask_epi8(_mm_or_si128(two, three));
}
#endif

/* For short texts, as a token of an answer is: two loads, which may overlap. */
static bool is_ascii(const char *at, const char *end)
{
    const uint64_t tops = 0x8080808080808080u;
    uint64_t first = 0, last = 0;

    if (end - at < 8) {
        while (at < end)
            first |= (unsigned char)*at++;
        return first < 0x80;
    }
    for (; end - at >= 8; at += 8) {
        memcpy(&last, at, sizeof last);
        first |= last;
    }
    memcpy(&last, end - 8, sizeof last);
    return !((first | last) & tops);
}

/* The first byte that may begin one of the three, or end. */
static const char *scan_line_break(const char *at, const char *end)
{
#ifdef __SSE2__
    for (; end - at >= 18; at += 16) {
        unsigned mask = (unsigned)_mm_movemask_epi8(_mm_loadu_si128((const __m128i_u *)at));
        if (!mask)
            continue; /* ASCII, which is most */
        mask = line_breaks(at);
        if (mask)
            return at + __builtin_ctz(mask);
    }
#endif
    if (is_ascii(at, end))
        return end;
    while (at < end && *at != '\xc2' && *at != '\xe2')
        at++;
    return at;
}

bool scan_has_line_break(const char *at, const char *end)
{
    const char *escape;

    while ((at = scan_line_break(at, end)) < end)
        if (line_break(at++, end, &escape))
            return true;
    return false;
}

void json_add_raw(struct text *out, struct slice raw)
{
    const char *run = raw.at, *at = run, *end = raw.len ? run + raw.len : run;

    while ((at = scan_line_break(at, end)) < end) {
        const char *escape;
        size_t len = line_break(at, end, &escape);
        if (!len) {
            at++;
            continue;
        }
        text_add(out, run, (size_t)(at - run));
        text_add_string(out, escape);
        at += len;
        run = at;
    }
    text_add(out, run, (size_t)(end - run));
}

static void add_ascii_escape(struct text *out, char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char controls[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    const char *known = c ? strchr(controls, c) : NULL;
    char escape[6] = { '\\', 'u', '0', '0', hex[(c >> 4) & 15], hex[c & 15] };

    if (known)
        escape[1] = letters[known - controls];
    text_add(out, escape, known ? 2 : 6);
}

/* Behind the well-formed characters at `at` that can go out as they are; `at` itself if there are none. */
static const char *scan_fine(const char *at, const char *end)
{
    size_t trailing = 0;

    for (;;) {
        const char *stop = scan_plain(at, end);
        if (stop == end || (unsigned char)*stop < 0x80)
            return stop;
        at = scan_utf8(stop, end, &trailing);
        if (at == stop)
            return stop;
    }
}

void json_add_escaped(struct text *out, struct slice utf8)
{
    const char *at = utf8.at, *end = utf8.len ? at + utf8.len : at;

    while (at < end) {
        const char *stop = scan_fine(at, end);
        json_add_raw(out, (struct slice){ at, (size_t)(stop - at) });
        if (stop == end)
            return;
        if ((unsigned char)*stop < 0x80)
            add_ascii_escape(out, *stop);
        else
            text_add_literal(out, "\xef\xbf\xbd");
        at = stop + 1;
    }
}

void json_add_string(struct text *out, struct slice utf8)
{
    text_add_char(out, '"');
    json_add_escaped(out, utf8);
    text_add_char(out, '"');
}

/* Behind the closing quote of a validated string; `at` stands behind the opening one. */
static const char *string_end(const char *at, const char *end, bool *ret_is_ascii)
{
    while ((at = scan_plain(at, end)) < end) {
        if (*at == '"')
            return at + 1;
        if (*at == '\\' && end - at > 1)
            at++;
        else
            *ret_is_ascii = false;
        at++;
    }
    return at;
}

void json_add_compact(struct text *out, struct slice value)
{
    const char *run = value.at, *at = run, *end = value.len ? run + value.len : run;
    bool is_ascii = true; /* this run */

    while (run < end) {
        while (at < end && !is_space(*at))
            at = *at == '"' ? string_end(at + 1, end, &is_ascii) : at + 1;
        if (is_ascii)
            text_add(out, run, (size_t)(at - run));
        else
            json_add_raw(out, (struct slice){ run, (size_t)(at - run) });
        run = at = skip_space(at, end);
        is_ascii = true;
    }
}
