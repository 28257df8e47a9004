#include <stdlib.h>

#include "check.h"
#include "text.h"

TEST(utf8_is_what_rfc_3629_says_and_nothing_else)
{
    static const struct {
        const char *text;
        bool is_valid;
    } rows[] = {
        { "", true },
        { "plain", true },
        { "\x7f", true },
        { "\xc2\x80", true },
        { "\xdf\xbf", true },
        { "\xe0\xa0\x80", true },
        { "\xed\x9f\xbf", true },
        { "\xee\x80\x80", true },
        { "\xef\xbf\xbf", true },
        { "\xf0\x90\x80\x80", true },
        { "\xf4\x8f\xbf\xbf", true },
        { "\x80", false },
        { "\xbf", false },
        { "\xc0\x80", false },
        { "\xc1\xbf", false },
        { "\xc2", false },
        { "\xc2x", false },
        { "\xe0\x9f\xbf", false },
        { "\xe0\xa0", false },
        { "\xe0\xa0x", false },
        { "\xed\xa0\x80", false },
        { "\xed\xbf\xbf", false },
        { "\xf0\x8f\xbf\xbf", false },
        { "\xf0\x90\x80", false },
        { "\xf4\x90\x80\x80", false },
        { "\xf5\x80\x80\x80", false },
        { "\xfe", false },
        { "\xff", false },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t before = 0; before < 20; before++) {
            /* At its very end, so that a read behind it is seen. */
            size_t len = strlen(rows[i].text);
            char *copy = malloc(before + len + 1);
            CHECK(copy);
            memset(copy, 'x', before + len + 1);
            memcpy(copy + before, rows[i].text, len);
            CHECK_ROW(utf8_valid((struct slice){ copy, before + len + 1 }) == rows[i].is_valid, rows[i].text);
            memmove(copy + 1, copy, before + len);
            CHECK_ROW(utf8_valid((struct slice){ copy + 1, before + len }) == rows[i].is_valid, rows[i].text);
            free(copy);
        }
}

TEST(nul_is_a_character)
{
    CHECK(utf8_valid(SLICE("a\0b")));
    CHECK_EQ(utf8_count(SLICE("a\0b")), 3);
}

TEST(every_code_point_is_valid_but_the_surrogates)
{
    for (unsigned c = 0x80; c < 0x110000; c++) {
        char bytes[4];
        size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        unsigned rest = c;
        for (size_t i = len - 1; i > 0; i--, rest >>= 6)
            bytes[i] = (char)(0x80 | (rest & 0x3f));
        bytes[0] = (char)((len == 2 ? 0xc0 : len == 3 ? 0xe0 : 0xf0) | rest);
        CHECK_EQ(utf8_valid((struct slice){ bytes, len }), c < 0xd800 || c > 0xdfff);
        CHECK_EQ(utf8_count((struct slice){ bytes, len }), 1);
    }
}

TEST(characters_are_counted_not_bytes)
{
    CHECK_EQ(utf8_count(SLICE("")), 0);
    CHECK_EQ(utf8_count((struct slice){ NULL, 0 }), 0);
    CHECK_EQ(utf8_count(SLICE("a\xc3\xa9\xe4\xb8\x96\xf0\x9f\x99\x82z")), 5);
}

TEST(a_cut_never_splits_a_character)
{
    static const size_t wanted[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11 };
    struct slice text = SLICE("a\xc3\xa9\xe4\xb8\x96\xf0\x9f\x99\x82z");

    for (size_t max = 0; max < sizeof wanted / sizeof *wanted; max++)
        CHECK_EQ(utf8_cut(text, max), wanted[max]);
    CHECK_EQ(utf8_cut((struct slice){ NULL, 0 }, 10), 0);
}
