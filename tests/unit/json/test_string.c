#include <stdlib.h>

#include "check.h"
#include "json.h"

/* Reads the text as one string; false, and the error, if it is none. */
static enum json_error string_of(struct slice text, struct json_string *ret_string)
{
    struct json_reader reader;

    json_open(&reader, text, JSON_MAX_DEPTH);
    if (json_string(&reader, ret_string))
        (void)json_close(&reader);
    return reader.error;
}

static struct json_string good(const char *text)
{
    struct json_string string;

    CHECK_ROW(string_of(slice_of(text), &string) == JSON_OK, text);
    return string;
}

TEST(a_string_comes_out_as_written_with_its_characters_counted)
{
    static const struct {
        const char *text;
        unsigned chars;
        bool has_escapes;
    } rows[] = {
        { "\"\"", 0, false },
        { "\"abc\"", 3, false },
        { "\"a\\nb\"", 3, true },
        { "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", 8, true },
        { "\"\\u0041\\u00e9\\u4E16\"", 3, true },
        { "\"\\ud83d\\ude42\"", 1, true },
        { "\"\\u0000\"", 1, true },
        { "\"\xc3\xa9\xe4\xb8\x96\xf0\x9f\x99\x82\"", 3, false },
        { "\"\x7f\"", 1, false },
        { "\"0123456789abcdef0123456789abcdef\"", 32, false },
        { "\"0123456789abcdef\xc3\xa9\\t0123456789abcdef\"", 34, true },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_string string = good(rows[i].text);
        CHECK_ROW(string.raw.at == rows[i].text + 1 && string.raw.len == strlen(rows[i].text) - 2, rows[i].text);
        CHECK_ROW(string.chars == rows[i].chars, rows[i].text);
        CHECK_ROW(string.has_escapes == rows[i].has_escapes, rows[i].text);
    }
}

TEST(what_no_string_may_hold_is_refused_at_its_place)
{
    static const struct {
        const char *text;
        enum json_error error;
        int at;
    } rows[] = {
        { "\"a", JSON_ENDS_EARLY, 2 },
        { "\"a\\", JSON_ENDS_EARLY, 3 },
        { "\"\\u", JSON_ENDS_EARLY, 3 },
        { "\"\\u12", JSON_ENDS_EARLY, 5 },
        { "\"\\ud83d", JSON_ENDS_EARLY, 7 },
        { "\"\\ud83d\\", JSON_ENDS_EARLY, 8 },
        { "\"\\ud83d\\ude4", JSON_ENDS_EARLY, 12 },
        { "\"\n\"", JSON_SYNTAX, 1 },
        { "\"\x1f\"", JSON_SYNTAX, 1 },
        { "\"0123456789abcdef\t\"", JSON_SYNTAX, 17 },
        { "\"\\x41\"", JSON_SYNTAX, 2 },
        { "\"\\U0041\"", JSON_SYNTAX, 2 },
        { "\"\\'\"", JSON_SYNTAX, 2 },
        { "\"\\u00g0\"", JSON_SYNTAX, 5 },
        { "\"\\u 123\"", JSON_SYNTAX, 3 },
        { "\"\\ud800\"", JSON_UTF8, 1 },
        { "\"\\ud800x\"", JSON_UTF8, 1 },
        { "\"\\ud800\\n\"", JSON_UTF8, 1 },
        { "\"\\ud800\\u0041\"", JSON_UTF8, 1 },
        { "\"\\udbff\\udbff\"", JSON_UTF8, 1 },
        { "\"ab\\udc00\"", JSON_UTF8, 3 },
        { "\"\\ud83d\\uZZZZ\"", JSON_SYNTAX, 9 },
        { "\"\x80\"", JSON_UTF8, 1 },
        { "\"\xc3\"", JSON_UTF8, 1 },
        { "\"\xc3\\u00e9\"", JSON_UTF8, 1 },
        { "\"\xff\"", JSON_UTF8, 1 },
        { "\"0123456789abcdef\xc3\xa9\xc3 0123456789abcdef\"", JSON_UTF8, 19 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader;
        struct json_string string;
        json_open(&reader, slice_of(rows[i].text), JSON_MAX_DEPTH);
        CHECK_ROW(!json_string(&reader, &string), rows[i].text);
        CHECK_ROW(reader.error == rows[i].error, rows[i].text);
        CHECK_ROW(reader.at - reader.start == rows[i].at, rows[i].text);
    }
}

TEST(a_byte_of_nul_in_a_string_is_refused)
{
    struct json_string string;

    CHECK_EQ(string_of(SLICE("\"a\0b\""), &string), JSON_SYNTAX);
    CHECK_EQ(string_of(SLICE("\"0123456789abcdef\0\""), &string), JSON_SYNTAX);
    CHECK_EQ(string_of(SLICE("\"\\\0\""), &string), JSON_SYNTAX);
}

static void decodes_to(const char *text, struct slice wanted)
{
    struct json_string string = good(text);
    struct text out;

    text_init(&out, 100);
    json_string_decode(&string, &out);
    CHECK_ROW(slice_is(text_slice(&out), wanted), text);
    text_release(&out);
}

TEST(decoding_gives_utf8)
{
    decodes_to("\"\"", SLICE(""));
    decodes_to("\"plain\"", SLICE("plain"));
    decodes_to("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", SLICE("\"\\/\b\f\n\r\t"));
    decodes_to("\"a\\u0000b\"", SLICE("a\0b"));
    decodes_to("\"\\u007f\\u0080\\u07ff\\u0800\\uffff\"", SLICE("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf"));
    decodes_to("\"\\ud800\\udc00\\uDBFF\\uDFFF\"", SLICE("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
    decodes_to("\"\xc3\xa9\\n\xe4\xb8\x96\"", SLICE("\xc3\xa9\n\xe4\xb8\x96"));
}

TEST(decoding_appends_up_to_the_ceiling_and_not_beyond)
{
    struct json_string string = good("\"\\u0041\\u0042\\u0043\"");
    struct text out;

    text_init(&out, 5);
    text_add_string(&out, "x:");
    json_string_decode(&string, &out);
    CHECK(!out.err);
    CHECK_STR(out.at, out.len, "x:ABC");
    json_string_decode(&string, &out);
    CHECK_EQ(out.err, ERR_TOO_LONG);
    text_release(&out);
}

TEST(strings_compare_by_what_they_mean)
{
    static const struct {
        const char *text, *wanted;
        bool is, is_nocase;
    } rows[] = {
        { "\"\"", "", true, true },
        { "\"model\"", "model", true, true },
        { "\"model\"", "models", false, false },
        { "\"models\"", "model", false, false },
        { "\"Model\"", "model", false, true },
        { "\"model\"", "MODEL", false, true },
        { "\"\\u006dodel\"", "model", true, true },
        { "\"\\u004dodel\"", "model", false, true },
        { "\"m\\u0000del\"", "m", false, false },
        { "\"model\\u0000\"", "model", false, false },
        { "\"\\ud83d\\ude42\"", "\xf0\x9f\x99\x82", true, true },
        { "\"\\u00e9\"", "\xc3\xa9", true, true },
        { "\"\\u00c9\"", "\xc3\xa9", false, false },
        { "\"\xc3\xa9\"", "\xc3", false, false },
        { "\"\\u00e9\"", "\xc3", false, false },
        { "\"a\\\"b\"", "a\"b", true, true },
        { "\"@\"", "`", false, false },
        { "\"\\u0040\"", "`", false, false },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_string string = good(rows[i].text);
        CHECK_ROW(json_string_is(&string, rows[i].wanted) == rows[i].is, rows[i].text);
        CHECK_ROW(json_string_is_nocase(&string, rows[i].wanted) == rows[i].is_nocase, rows[i].text);
    }
}

TEST(a_string_is_read_alike_wherever_its_odd_byte_stands)
{
    static const char *const odd[] = { "\\n",          "\\u00e9",          "\\ud83d\\ude42", "\xc3\xa9",
                                       "\xe4\xb8\x96", "\xf0\x9f\x99\x82", "\xe0\xb8\x81",   "\xed\x9f\xbf" };

    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++)
        for (unsigned before = 0; before < 70; before++)
            for (unsigned behind = 0; behind < 40; behind += 3) {
                struct json_string string;
                struct text text;
                text_init(&text, 1000);
                text_printf(&text, "\"%.*s%s%.*s\"", (int)before,
                            "The quick brown fox jumps over the lazy dog, then it rests in the shade.", odd[i],
                            (int)behind, "and so do we, do we not, at noon, today?");
                /* At its very end, so that a read behind it is seen. */
                char *copy = malloc(text.len);
                CHECK(copy);
                memcpy(copy, text.at, text.len);
                CHECK_EQ(string_of((struct slice){ copy, text.len }, &string), JSON_OK);
                CHECK_EQ(string.chars, before + behind + 1);
                CHECK_EQ(string.raw.len, before + behind + strlen(odd[i]));
                CHECK_EQ(string.has_escapes, odd[i][0] == '\\');
                free(copy);
                text_release(&text);
            }
}

TEST(a_wrong_escape_is_refused_at_its_place_wherever_it_stands)
{
    static const struct {
        const char *odd;
        enum json_error error;
        unsigned at;
    } rows[] = {
        { "\\x", JSON_SYNTAX, 1 },     { "\\\n", JSON_SYNTAX, 1 },         { "\\\xc3\xa9", JSON_SYNTAX, 1 },
        { "\n", JSON_SYNTAX, 0 },      { "\\\\\n", JSON_SYNTAX, 2 },       { "\\ud800", JSON_UTF8, 0 },
        { "\\u12x4", JSON_SYNTAX, 4 }, { "\\n\\n\\n\\x", JSON_SYNTAX, 7 }, { "\xff", JSON_UTF8, 0 },
        { "\\\"\\N", JSON_SYNTAX, 3 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        for (unsigned before = 0; before < 150; before++)
            for (unsigned behind = 0; behind < 140; behind += 69) {
                struct json_reader reader;
                struct json_string string;
                struct text text;
                text_init(&text, 1000);
                text_add_char(&text, '"');
                for (unsigned k = 0; k < before; k++)
                    text_add_char(&text, "abc \\n"[k % 6] == '\\' && k + 1 == before ? 'x' : "abc \\n"[k % 6]);
                text_add_string(&text, rows[i].odd);
                for (unsigned k = 0; k < behind; k++)
                    text_add_char(&text, 'x');
                text_add_char(&text, '"');
                json_open(&reader, text_slice(&text), JSON_MAX_DEPTH);
                CHECK_ROW(!json_string(&reader, &string), rows[i].odd);
                CHECK_ROW(reader.error == rows[i].error, rows[i].odd);
                CHECK_EQ(reader.at - reader.start, 1 + before + rows[i].at);
                text_release(&text);
            }
}

TEST(a_string_ends_at_the_first_quote_behind_an_even_number_of_backslashes)
{
    for (unsigned before = 0; before < 140; before++)
        for (unsigned slashes = 0; slashes < 80; slashes++) {
            bool is_end = slashes % 2 == 0;
            struct json_reader reader;
            struct json_string string;
            struct text text;
            text_init(&text, 1000);
            text_add_char(&text, '"');
            for (unsigned k = 0; k < before; k++)
                text_add_char(&text, 'x');
            for (unsigned k = 0; k < slashes; k++)
                text_add_char(&text, '\\');
            text_add_literal(&text, "\", 1, \"two\", [\"three\", \"and what else stands in a body, up to its end\"]");
            json_open(&reader, text_slice(&text), JSON_MAX_DEPTH);
            CHECK(json_string(&reader, &string));
            CHECK_EQ(string.raw.len, is_end ? before + slashes : before + slashes + sizeof "\", 1, " - 1);
            CHECK_EQ(string.chars, is_end ? before + slashes / 2 : before + slashes / 2 + sizeof "\", 1, " - 1);
            CHECK_EQ(string.has_escapes, slashes != 0);
            text_release(&text);
        }
}
