/* The room's own scans, wide and portable, against one byte at a time. */
#include <stdlib.h>

#include "check.h"
#include "scan.h"

static char *copy_of(struct slice slice)
{
    char *copy = malloc(slice.len ? slice.len : 1);

    CHECK(copy);
    memcpy(copy, slice.at, slice.len);
    return copy;
}

TEST(every_byte_is_found_plain_or_not_at_every_place)
{
    for (unsigned byte = 0; byte < 256; byte++)
        for (size_t len = 1; len < 40; len++)
            for (size_t place = 0; place < len; place++) {
                char text[40];
                const char *wanted = text + len;
                memset(text, 'x', sizeof text);
                text[place] = (char)byte;
                if (byte < 0x20 || byte >= 0x80 || byte == '"' || byte == '\\')
                    wanted = text + place;
                CHECK(scan_plain(text, text + len) == wanted);
                CHECK(scan_plain_portable(text, text + len) == wanted);
            }
}

TEST(the_first_of_several_is_found)
{
    /* Borrows between bytes must not hide or move the first: pairs of neighbours of all that matters. */
    static const char edges[] = "\x01\x1f\x20\x21\x22\x23\x5b\x5c\x5d\x7f\x80\xff\xa2\xdc\xa0";

    for (unsigned i = 0; i < sizeof edges; i++)
        for (unsigned j = 0; j < sizeof edges; j++)
            for (unsigned k = 0; k < sizeof edges; k++) {
                char text[16] = { 'x', 'x', edges[i], edges[j], edges[k], 'x', 'x', 'x',
                                  '"', 'x', 'x',      'x',      'x',      'x', 'x', 'x' };
                const char *wanted = text;
                while (is_plain(*wanted))
                    wanted++;
                CHECK(scan_plain(text, text + sizeof text) == wanted);
                CHECK(scan_plain_portable(text, text + sizeof text) == wanted);
            }
}

typedef const char *scan_utf8_of(const char *at, const char *end, size_t *ret_trailing);

/* The text's first byte that is not UTF-8, or its end, by the scans alone. */
static size_t good_len(struct slice text, scan_utf8_of *scan, size_t *ret_trailing)
{
    const char *at = text.at, *end = at + text.len;

    *ret_trailing = 0;
    while (at < end) {
        const char *behind = at + 1;
        if ((unsigned char)*at >= 0x80)
            behind = scan(at, end, ret_trailing);
        if (behind == at)
            break;
        at = behind;
    }
    return (size_t)(at - text.at);
}

static void is_judged(struct slice text)
{
    char *copy = copy_of(text);
    struct slice exact = { copy, text.len };
    size_t wanted = 0, trailing;

    while (wanted < text.len) { /* character by character, by the room text */
        size_t len = 1;
        while (len < 4 && wanted + len <= text.len && !utf8_valid((struct slice){ copy + wanted, len }))
            len++;
        if (wanted + len > text.len || !utf8_valid((struct slice){ copy + wanted, len }))
            break;
        wanted += len;
    }
    CHECK_EQ(good_len(exact, scan_utf8, &trailing), wanted);
    CHECK_EQ(wanted - trailing, utf8_count((struct slice){ copy, wanted }));
    CHECK_EQ(good_len(exact, scan_utf8_portable, &trailing), wanted);
    CHECK_EQ(wanted - trailing, utf8_count((struct slice){ copy, wanted }));
    free(copy);
}

TEST(every_pair_of_bytes_is_judged_as_unicode_says_wherever_it_stands)
{
    static const char russian[] = "\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a\xd1\x8a";
    static const unsigned places[] = { 0, 3, 13, 14, 15, 16 };

    for (unsigned pair = 0; pair < 65536; pair++)
        for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
            struct text text;
            char odd[4] = { (char)(pair >> 8), (char)(pair & 0xff), '\x80', '\x80' };
            text_init(&text, 100);
            text_add(&text, russian, places[i] & ~1u);
            text_add(&text, "x", places[i] & 1);
            /* As many trailing bytes as the first one asks for. */
            text_add(&text, odd, pair >= 0xf000 ? 4 : pair >= 0xe000 ? 3 : 2);
            text_add_string(&text, russian);
            is_judged(text_slice(&text));
            text_release(&text);
        }
}

TEST(random_bytes_that_are_almost_utf8_are_judged_alike_by_all)
{
    static const char *const pieces[] = { "a",
                                          " ",
                                          "\"",
                                          "\\",
                                          "\n",
                                          "\xc3\xa9",
                                          "\xdf\xbf",
                                          "\xe0\xa0\x80",
                                          "\xe0\xb8\x81",
                                          "\xe4\xb8\x96",
                                          "\xed\x9f\xbf",
                                          "\xee\x80\x80",
                                          "\xf0\x90\x80\x80",
                                          "\xf0\x9f\x99\x82",
                                          "\xf4\x8f\xbf\xbf",
                                          "\xe2\x80\xa8",
                                          "plain words" };
    static const char *const bad[] = { "\x80",
                                       "\xc3",
                                       "\xc0\x80",
                                       "\xe0\x9f\xbf",
                                       "\xed\xa0\x80",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xe4\xb8",
                                       "\xf0\x9f\x99",
                                       "\xff" };
    unsigned seed = 1;

    for (unsigned round = 0; round < 20000; round++) {
        struct text text;
        text_init(&text, 1000);
        for (unsigned i = 0; i < 24; i++) {
            seed = seed * 1103515245 + 12345;
            if ((seed >> 16) % 64 == 0)
                text_add_string(&text, bad[(seed >> 22) % (sizeof bad / sizeof *bad)]);
            else
                text_add_string(&text, pieces[(seed >> 16) % (sizeof pieces / sizeof *pieces)]);
        }
        is_judged(text_slice(&text));
        text_release(&text);
    }
}

#ifdef __SSE2__
/* Where scan_string() must stop by its own description, a byte at a time. */
static const char *stop_of(const char *at, const char *end, size_t *ret_escapes)
{
    const char *start = at;

    while (end - at > 0) {
        if (*at == '\\' && end - at > 1 && strchr("nrt\"\\", at[1]) && at[1]) {
            at += 2;
            *ret_escapes += 1;
        } else if (is_plain(*at)) {
            at++;
        } else {
            return at;
        }
    }
    return start + (end - start);
}

static void is_passed(struct slice text)
{
    const char *end = text.at + text.len;
    size_t escapes = 0, by_sse2 = 0, by_avx2 = 0, passed = 0;
    const char *stop = scan_string_sse2(text.at, end, &by_sse2);

    if (scan_has_avx2()) {
        CHECK(scan_string_avx2(text.at, end, &by_avx2) == stop);
        CHECK_EQ(by_avx2, by_sse2);
    }
    /* It may stop early only where less than a step is left. */
    CHECK(stop_of(text.at, end, &escapes) == stop || (stop_of(text.at, end, &escapes) > stop && end - stop <= 64));
    CHECK(stop_of(text.at, stop, &passed) == stop);
    CHECK_EQ(by_sse2, passed);
}

TEST(a_string_is_passed_alike_by_every_step_wherever_its_escapes_stand)
{
    static const char *const pieces[] = { "\\\\", "\\\"", "\\n", "\\t",      "\\r",  "\\",
                                          "\"",   "\\u",  "\\b", "\xc3\xa9", "\x1f", "\\\xc3" };

    for (unsigned i = 0; i < sizeof pieces / sizeof *pieces; i++)
        for (unsigned before = 0; before < 140; before++)
            for (unsigned again = 0; again < 4; again++) {
                struct text text;
                char *copy;
                text_init(&text, 1000);
                for (unsigned k = 0; k < before; k++)
                    text_add_char(&text, 'x');
                for (unsigned k = 0; k <= again * 33; k++) /* 1, 34, 67, 100 of them: runs over every edge */
                    text_add_string(&text, pieces[i]);
                text_add_string(&text,
                                "n\" and what stands behind it, long enough for one step more, is never looked at");
                copy = copy_of(text_slice(&text));
                is_passed((struct slice){ copy, text.len });
                free(copy);
                text_release(&text);
            }
}

TEST(random_escapes_are_passed_alike_by_every_step)
{
    static const char *const pieces[] = { "\\\\", "\\\\\\\\\\\\", "\\\"", "\\n", "\\t", "\\r", "x", "n", "and so on " };
    static const char *const stops[] = { "\\", "\"", "\\u", "\x01", "\xff" };
    unsigned seed = 7;

    for (unsigned round = 0; round < 20000; round++) {
        struct text text;
        char *copy;
        text_init(&text, 1000);
        for (unsigned i = 0; i < 60; i++) {
            seed = seed * 1103515245 + 12345;
            if ((seed >> 16) % 64 == 0)
                text_add_string(&text, stops[(seed >> 22) % (sizeof stops / sizeof *stops)]);
            else
                text_add_string(&text, pieces[(seed >> 16) % (sizeof pieces / sizeof *pieces)]);
        }
        copy = copy_of(text_slice(&text));
        is_passed((struct slice){ copy, text.len });
        free(copy);
        text_release(&text);
    }
}
#endif
