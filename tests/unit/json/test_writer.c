#include "check.h"
#include "json.h"

typedef void add_of(struct text *out, struct slice slice);

static void writes(add_of *add, struct slice given, const char *wanted)
{
    struct text out;

    text_init(&out, 1000);
    add(&out, given);
    CHECK_STR(out.at, out.len, wanted);
    text_release(&out);
}

TEST(a_string_is_quoted_and_escaped)
{
    writes(json_add_string, SLICE(""), "\"\"");
    writes(json_add_string, (struct slice){ NULL, 0 }, "\"\"");
    writes(json_add_string, SLICE("plain / text"), "\"plain / text\"");
    writes(json_add_string, SLICE("\"\\\b\f\n\r\t"), "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
    writes(json_add_string, SLICE("a\0b\x01\x1f\x7f"), "\"a\\u0000b\\u0001\\u001f\x7f\"");
    writes(json_add_string, SLICE("\xc3\xa9 \xe4\xb8\x96 \xf0\x9f\x99\x82"),
           "\"\xc3\xa9 \xe4\xb8\x96 \xf0\x9f\x99\x82\"");
}

TEST(escaping_alone_leaves_the_quotes_out)
{
    writes(json_add_escaped, SLICE("say \"hi\"\n"), "say \\\"hi\\\"\\n");
}

TEST(what_is_not_utf8_becomes_a_replacement_character_each_byte)
{
    writes(json_add_escaped, SLICE("a\x80z"), "a\xef\xbf\xbdz");
    writes(json_add_escaped, SLICE("\xff\xfe"), "\xef\xbf\xbd\xef\xbf\xbd");
    writes(json_add_escaped, SLICE("\xe4\xb8"), "\xef\xbf\xbd\xef\xbf\xbd");
    writes(json_add_escaped, SLICE("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    writes(json_add_escaped, SLICE("\xc3\xa9\xc3"), "\xc3\xa9\xef\xbf\xbd");
}

TEST(characters_at_which_clients_split_lines_go_out_escaped)
{
    static add_of *const ways[] = { json_add_escaped, json_add_raw };

    for (unsigned i = 0; i < 2; i++) {
        writes(ways[i],
               SLICE("a\xc2\x85"
                     "b\xe2\x80\xa8"
                     "c\xe2\x80\xa9"
                     "d"),
               "a\\u0085b\\u2028c\\u2029d");
        writes(ways[i], SLICE("\xe2\x80\xa8\xe2\x80\xa8"), "\\u2028\\u2028");
        writes(ways[i], SLICE("\xe2\x80\xa7\xe2\x80\xaa\xc2\x84\xc2\x86\xe2\x81\xa8"),
               "\xe2\x80\xa7\xe2\x80\xaa\xc2\x84\xc2\x86\xe2\x81\xa8");
    }
}

TEST(a_line_breaking_character_is_found_wherever_it_stands)
{
    static const char *const given[] = { "\xc2\x85", "\xe2\x80\xa8", "\xe2\x80\xa9" };
    static const char *const wanted[] = { "\\u0085", "\\u2028", "\\u2029" };
    static const char filler[] = "The quick brown fox jumps over the lazy dog; it does so daily.";

    for (unsigned i = 0; i < 3; i++)
        for (int before = 0; before < 40; before++)
            for (int behind = 0; behind < 20; behind++) {
                struct text in, out;
                text_init(&in, 200);
                text_init(&out, 200);
                text_printf(&in, "%.*s%s%.*s", before, filler, given[i], behind, filler);
                text_printf(&out, "%.*s%s%.*s", before, filler, wanted[i], behind, filler);
                writes(json_add_raw, text_slice(&in), text_string(&out));
                text_release(&in);
                text_release(&out);
            }
}

TEST(a_raw_string_is_copied_with_its_escapes)
{
    writes(json_add_raw, SLICE("a\\n\\u2028\\\"b"), "a\\n\\u2028\\\"b");
    writes(json_add_raw, (struct slice){ NULL, 0 }, "");
}

TEST(a_value_is_copied_without_the_space_between_its_tokens)
{
    writes(json_add_compact, SLICE(" { \"a b\" : [ 1 , 2.5 , null ] ,\r\n\t\"c\" : \" x \\\" y \" } "),
           "{\"a b\":[1,2.5,null],\"c\":\" x \\\" y \"}");
    writes(json_add_compact, SLICE("{\"a\":\"\\\\\" , \"b\" : \"\\\\\\\" : \"}"),
           "{\"a\":\"\\\\\",\"b\":\"\\\\\\\" : \"}");
    writes(json_add_compact, SLICE("\"\xe2\x80\xa8 \xc3\xa9\""), "\"\\u2028 \xc3\xa9\"");
    writes(json_add_compact, SLICE("[ \"\xc2\x85\" , \"\xe4\xb8\x96 x\" , 1 ]"), "[\"\\u0085\",\"\xe4\xb8\x96 x\",1]");
    writes(json_add_compact, SLICE("{}"), "{}");
    writes(json_add_compact, (struct slice){ NULL, 0 }, "");
}

TEST(writing_beyond_the_ceiling_breaks_the_text_and_says_so)
{
    static add_of *const ways[] = { json_add_string, json_add_escaped, json_add_raw, json_add_compact };

    for (unsigned i = 0; i < 4; i++) {
        struct text out;
        text_init(&out, 8);
        ways[i](&out, SLICE("[1,\"\xe2\x80\xa8\",2,3,4]"));
        CHECK_EQ(out.err, ERR_TOO_LONG);
        CHECK(out.len <= 8);
        text_release(&out);
    }
}
