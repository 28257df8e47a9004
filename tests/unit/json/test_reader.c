#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "json.h"

static struct json_reader reader_of(const char *text)
{
    struct json_reader reader;

    json_open(&reader, slice_of(text), JSON_MAX_DEPTH);
    return reader;
}

/* Reads the next value and everything in it, every object visited. */
static void visit(struct json_reader *reader)
{
    struct json_keys keys;
    struct json_string key;

    if (json_peek(reader) == JSON_OBJECT) {
        json_object(reader, &keys);
        while (json_member(reader, &keys, &key))
            visit(reader);
    } else if (json_peek(reader) == JSON_ARRAY) {
        json_array(reader);
        while (json_element(reader))
            visit(reader);
    } else {
        json_skip(reader, NULL);
    }
}

TEST(a_request_is_read_member_by_member)
{
    struct json_reader reader = reader_of(" { \"model\" : \"qwen3:32b\" , \"stream\":true,\"n\":1,\"stop\":null,"
                                          "\"messages\":[{\"role\":\"user\"},{}], \"options\":{\"a\":[1,2]}}\n");
    struct json_string key, model = { 0 };
    struct json_keys keys;
    struct slice number = { 0 }, options = { 0 };
    unsigned messages = 0;
    bool stream = false, null_seen = false;

    CHECK(json_object(&reader, &keys));
    while (json_member(&reader, &keys, &key)) {
        if (json_string_is(&key, "model"))
            json_string(&reader, &model);
        else if (json_string_is(&key, "stream"))
            json_bool(&reader, &stream);
        else if (json_string_is(&key, "n"))
            json_number(&reader, &number);
        else if (json_string_is(&key, "stop"))
            null_seen = json_null(&reader);
        else if (json_string_is(&key, "options"))
            json_skip(&reader, &options);
        else if (json_string_is(&key, "messages"))
            for (json_array(&reader); json_element(&reader); messages++)
                json_skip(&reader, NULL);
    }
    CHECK(json_close(&reader));
    CHECK_STR(model.raw.at, model.raw.len, "qwen3:32b");
    CHECK(stream);
    CHECK_STR(number.at, number.len, "1");
    CHECK(null_seen);
    CHECK_EQ(messages, 2);
    CHECK_STR(options.at, options.len, "{\"a\":[1,2]}");
}

TEST(empty_objects_and_arrays_end_at_once)
{
    struct json_reader reader = reader_of("[ { } , [ ] ]");
    struct json_keys keys;
    struct json_string key;

    CHECK(json_array(&reader));
    CHECK(json_element(&reader));
    CHECK(json_object(&reader, &keys));
    CHECK(!json_member(&reader, &keys, &key));
    CHECK(json_element(&reader));
    CHECK(json_array(&reader));
    CHECK(!json_element(&reader));
    CHECK(!json_element(&reader));
    CHECK(json_close(&reader));
}

TEST(the_type_of_the_next_value_shows_in_its_first_byte)
{
    static const struct {
        const char *text;
        enum json_type type;
    } rows[] = {
        { " null", JSON_NULL }, { "false", JSON_FALSE }, { "\ttrue", JSON_TRUE }, { "-1", JSON_NUMBER },
        { "0", JSON_NUMBER },   { "9", JSON_NUMBER },    { "\"", JSON_STRING },   { "[", JSON_ARRAY },
        { "\n{", JSON_OBJECT }, { "", JSON_NONE },       { "  ", JSON_NONE },     { "]", JSON_NONE },
        { "+1", JSON_NONE },    { "N", JSON_NONE },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader = reader_of(rows[i].text);
        CHECK_ROW(json_peek(&reader) == rows[i].type, rows[i].text);
        CHECK_ROW(!reader.error, rows[i].text);
    }
}

TEST(what_is_not_json_says_how_and_where)
{
    static const struct {
        const char *text;
        enum json_error error;
        int at;
    } rows[] = {
        { "", JSON_ENDS_EARLY, 0 },         { "  ", JSON_ENDS_EARLY, 2 },         { "@", JSON_SYNTAX, 0 },
        { "nul", JSON_ENDS_EARLY, 3 },      { "nulk", JSON_SYNTAX, 3 },           { "truE", JSON_SYNTAX, 3 },
        { "nullx", JSON_TRAILING, 4 },      { "{} {}", JSON_TRAILING, 3 },        { "[", JSON_ENDS_EARLY, 1 },
        { "[1", JSON_ENDS_EARLY, 2 },       { "[1,", JSON_ENDS_EARLY, 3 },        { "[1,]", JSON_SYNTAX, 3 },
        { "[,1]", JSON_SYNTAX, 1 },         { "[1 2]", JSON_SYNTAX, 3 },          { "[1}", JSON_SYNTAX, 2 },
        { "{", JSON_ENDS_EARLY, 1 },        { "{\"a\"", JSON_ENDS_EARLY, 4 },     { "{\"a\":", JSON_ENDS_EARLY, 5 },
        { "{\"a\":1", JSON_ENDS_EARLY, 6 }, { "{\"a\" 1}", JSON_SYNTAX, 5 },      { "{\"a\":1,}", JSON_SYNTAX, 7 },
        { "{\"a\":}", JSON_SYNTAX, 5 },     { "{a:1}", JSON_SYNTAX, 1 },          { "{,}", JSON_SYNTAX, 1 },
        { "{\"a\":1]", JSON_SYNTAX, 6 },    { "{1:1}", JSON_SYNTAX, 1 },          { "'a'", JSON_SYNTAX, 0 },
        { "[1]//", JSON_TRAILING, 3 },      { "\xef\xbb\xbf{}", JSON_SYNTAX, 0 }, { "\f1", JSON_SYNTAX, 0 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader skipped = reader_of(rows[i].text), visited = skipped;
        json_skip(&skipped, NULL);
        CHECK_ROW(!json_close(&skipped), rows[i].text);
        CHECK_ROW(skipped.error == rows[i].error, rows[i].text);
        CHECK_ROW(skipped.at - skipped.start == rows[i].at, rows[i].text);
        visit(&visited);
        CHECK_ROW(!json_close(&visited), rows[i].text);
        CHECK_ROW(visited.error == rows[i].error, rows[i].text);
        CHECK_ROW(visited.at - visited.start == rows[i].at, rows[i].text);
    }
}

TEST(no_element_or_member_is_announced_behind_the_last_comma)
{
    struct json_reader reader = reader_of("[1,]");
    struct json_string key;

    CHECK(json_array(&reader) && json_element(&reader) && json_skip(&reader, NULL));
    CHECK(!json_element(&reader));
    CHECK_EQ(reader.error, JSON_SYNTAX);
    reader = reader_of("{\"a\":1,}");
    CHECK(json_object(&reader, NULL) && json_member(&reader, NULL, &key) && json_skip(&reader, NULL));
    CHECK(!json_member(&reader, NULL, &key));
    CHECK_EQ(reader.error, JSON_SYNTAX);
}

TEST(a_value_of_another_type_leaves_the_reader_before_it)
{
    struct json_string string = { 0 };
    struct json_reader reader = reader_of("[ 12]");
    bool truth = true;

    CHECK(json_array(&reader) && json_element(&reader));
    CHECK(!json_string(&reader, &string));
    CHECK_EQ(reader.error, JSON_TYPE);
    CHECK_EQ(reader.at - reader.start, 2);
    CHECK(!string.raw.at);
    CHECK(!json_skip(&reader, NULL));
    CHECK_EQ(json_peek(&reader), JSON_NONE);
    CHECK(!json_element(&reader));
    CHECK(!json_close(&reader));
    CHECK_EQ(reader.error, JSON_TYPE);

    reader = reader_of("\"true\"");
    CHECK(!json_bool(&reader, &truth));
    CHECK_EQ(reader.error, JSON_TYPE);
    CHECK(truth);
    reader = reader_of("[]");
    CHECK(!json_object(&reader, NULL));
    CHECK_EQ(reader.error, JSON_TYPE);
    reader = reader_of("false");
    CHECK(!json_null(&reader));
    CHECK_EQ(reader.error, JSON_TYPE);
    reader = reader_of("?");
    CHECK(!json_bool(&reader, &truth));
    CHECK_EQ(reader.error, JSON_SYNTAX);
}

TEST(the_first_error_stays)
{
    struct json_reader reader = reader_of("[1,@");

    CHECK(json_array(&reader) && json_element(&reader) && json_skip(&reader, NULL));
    CHECK(json_element(&reader));
    CHECK(!json_skip(&reader, NULL));
    CHECK_EQ(reader.error, JSON_SYNTAX);
    CHECK(!json_fail(&reader, JSON_DUPLICATE));
    CHECK(!json_array(&reader));
    CHECK(!json_close(&reader));
    CHECK_EQ(reader.error, JSON_SYNTAX);
    CHECK_EQ(reader.at - reader.start, 3);
}

TEST(a_caller_may_complain_of_a_value_himself)
{
    struct json_reader reader = reader_of("[ 5]");

    CHECK(json_array(&reader) && json_element(&reader));
    CHECK(!json_fail(&reader, JSON_TYPE));
    CHECK_EQ(reader.error, JSON_TYPE);
    CHECK_EQ(reader.at - reader.start, 2);
    reader = reader_of("[@");
    CHECK(json_array(&reader) && json_element(&reader));
    CHECK(!json_fail(&reader, JSON_TYPE));
    CHECK_EQ(reader.error, JSON_SYNTAX);
    reader = reader_of(" ");
    CHECK(!json_fail(&reader, JSON_TYPE));
    CHECK_EQ(reader.error, JSON_ENDS_EARLY);
}

TEST(a_text_that_was_not_read_is_not_closed_well)
{
    struct json_reader reader = reader_of("{}");

    CHECK(!json_close(&reader));
    reader = reader_of("[1]");
    CHECK(json_array(&reader));
    CHECK(!json_close(&reader));
    reader = reader_of("1 2");
    CHECK(json_skip(&reader, NULL));
    CHECK(!json_skip(&reader, NULL));
    CHECK_EQ(reader.error, JSON_TRAILING);
    json_open(&reader, (struct slice){ NULL, 0 }, JSON_MAX_DEPTH);
    CHECK(!json_close(&reader));
    CHECK_EQ(reader.error, JSON_ENDS_EARLY);
}

TEST(depth_is_bounded_where_visited_and_where_skipped)
{
    char deep[2 * JSON_MAX_DEPTH + 3] = { 0 };
    struct json_reader reader;

    for (unsigned depth = 1; depth <= JSON_MAX_DEPTH + 1; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        CHECK_EQ(json_is_valid((struct slice){ deep, 2 * depth }, JSON_ARRAY), depth <= JSON_MAX_DEPTH);
        json_open(&reader, (struct slice){ deep, 2 * depth }, 5);
        json_skip(&reader, NULL);
        CHECK_EQ(json_close(&reader), depth <= 5);
        CHECK_EQ(reader.error, depth <= 5 ? JSON_OK : JSON_DEPTH);
        json_open(&reader, (struct slice){ deep, 2 * depth }, 1000);
        visit(&reader);
        CHECK_EQ(json_close(&reader), depth <= JSON_MAX_DEPTH);
        CHECK_EQ(reader.error, depth <= JSON_MAX_DEPTH ? JSON_OK : JSON_DEPTH);
    }
    json_open(&reader, SLICE("7"), 0);
    CHECK(json_skip(&reader, NULL) && json_close(&reader));
    json_open(&reader, SLICE("{}"), 0);
    CHECK(!json_object(&reader, NULL));
    CHECK_EQ(reader.error, JSON_DEPTH);
}

TEST(objects_and_arrays_close_with_their_own_sign_however_they_are_mixed)
{
    CHECK(json_is_valid(SLICE("[{\"a\":[{\"b\":[]}]},[[{}]]]"), JSON_ARRAY));
    CHECK(!json_is_valid(SLICE("[{\"a\":[{\"b\":[}]}]},[[{}]]]"), JSON_ARRAY));
    CHECK(!json_is_valid(SLICE("[{\"a\":[{\"b\":[]}}},[[{}]]]"), JSON_ARRAY));
}

TEST(a_doubled_key_is_refused_also_when_only_its_case_or_its_spelling_differs)
{
    static const struct {
        const char *text;
        bool is_doubled;
    } rows[] = {
        { "{\"a\":1,\"b\":2}", false },
        { "{\"a\":1,\"a\":2}", true },
        { "{\"\":1,\"\":2}", true },
        { "{\"model\":1,\"MoDeL\":2}", true },
        { "{\"model\":1,\"models\":2}", false },
        { "{\"m@del\":1,\"m`del\":2}", false }, /* one bit apart, as a letter's two cases are */
        { "{\"m[del\":1,\"m{del\":2}", false },
        { "{\"max_completion_tokens\":1,\"max_completion_Tokens\":2}", true },
        { "{\"max_completion_tokens\":1,\"max_completion_token\":2}", false },
        { "{\"\\u006dodel\":1,\"model\":2}", true },
        { "{\"model\":1,\"\\u004dOD\\u0065L\":2}", true },
        { "{\"me\xc5\xbfsages\":1,\"messages\":2}", true },
        { "{\"me\\u017fsages\":1,\"MESSAGES\":2}", true },
        { "{\"\xe2\x84\xaa"
          "ey\":1,\"key\":2}",
          true },
        { "{\"\xc3\xa9\":1,\"\\u00e9\":2}", true },
        { "{\"\xc3\xa9\":1,\"\xc3\x89\":2}", false }, /* no key that anybody reads */
        { "{\"\\ud83d\\ude42\":1,\"\xf0\x9f\x99\x82\":2}", true },
        { "{\"a\\n\":1,\"a\\u000A\":2}", true },
        { "{\"a\\u0000\":1,\"a\":2}", false },
        { "{\"a\\\"\":1,\"a\":2}", false },
        { "{\"a\":1,\"a\\\"\":2}", false },
        { "{\"x\":{\"a\":1},\"y\":{\"a\":1},\"a\":1}", false },
        { "[{\"x\":[{\"a\":1,\"b\":1,\"A\":1}]}]", true },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader = reader_of(rows[i].text);
        visit(&reader);
        CHECK_ROW(json_close(&reader) != rows[i].is_doubled, rows[i].text);
        CHECK_ROW(reader.error == (rows[i].is_doubled ? JSON_DUPLICATE : JSON_OK), rows[i].text);
        CHECK_ROW(json_is_valid(slice_of(rows[i].text), JSON_NONE), rows[i].text);
    }
}

TEST(the_place_of_a_doubled_key_is_the_second_one)
{
    struct json_reader reader = reader_of("{\"a\":1, \"A\":2}");

    visit(&reader);
    CHECK_EQ(reader.at - reader.start, 8);
}

TEST(without_keys_to_note_them_doubled_ones_pass)
{
    struct json_reader reader = reader_of("{\"a\":1,\"a\":2}");
    struct json_string key;
    unsigned count = 0;

    CHECK(json_object(&reader, NULL));
    for (; json_member(&reader, NULL, &key); count++)
        json_skip(&reader, NULL);
    CHECK(json_close(&reader));
    CHECK_EQ(count, 2);
}

TEST(more_keys_than_can_be_noted_are_refused_only_where_they_are_noted)
{
    struct text text;
    struct json_reader reader;

    text_init(&text, 1 << 20);
    text_add_char(&text, '{');
    for (unsigned i = 0; i < JSON_MAX_KEYS; i++)
        text_printf(&text, "%s\"key_number_%u\":0", i ? "," : "", i);
    text_add_char(&text, '}');
    json_open(&reader, text_slice(&text), JSON_MAX_DEPTH);
    visit(&reader);
    CHECK(json_close(&reader));

    text.len--;
    text_add_string(&text, ",\"one_more\":0}");
    json_open(&reader, text_slice(&text), JSON_MAX_DEPTH);
    visit(&reader);
    CHECK(!json_close(&reader));
    CHECK_EQ(reader.error, JSON_TOO_MANY);
    CHECK(json_is_valid(text_slice(&text), JSON_OBJECT));
    text_release(&text);
}

TEST(a_skipped_value_comes_out_as_it_was_written)
{
    struct json_reader reader = reader_of("[ {\"a\": \"]}\\\"\"} , -1.5e3 ,\"x\" ]");
    static const char *const wanted[] = { "{\"a\": \"]}\\\"\"}", "-1.5e3", "\"x\"" };
    struct slice raw;

    CHECK(json_array(&reader));
    for (unsigned i = 0; i < 3; i++) {
        CHECK(json_element(&reader));
        CHECK(json_skip(&reader, &raw));
        CHECK_STR(raw.at, raw.len, wanted[i]);
    }
    CHECK(!json_element(&reader));
    CHECK(json_close(&reader));
}

TEST(no_prefix_of_a_document_is_a_document_and_each_says_that_it_ends_early)
{
    static const char whole[] = "{\"a\":[true,false,null,-1.5e+3,\"x\\u00e9\\ud83d\\ude42\\n\"],\"b\":{\"c\":{}}}";

    CHECK(json_is_valid(SLICE(whole), JSON_OBJECT));
    for (size_t len = 0; len < sizeof whole - 1; len++) {
        char *copy = malloc(len ? len : 1); /* exactly as long, so that a read behind it is seen */
        struct json_reader reader;
        CHECK(copy);
        memcpy(copy, whole, len);
        json_open(&reader, (struct slice){ copy, len }, JSON_MAX_DEPTH);
        json_skip(&reader, NULL);
        CHECK(!json_close(&reader));
        CHECK_EQ(reader.error, JSON_ENDS_EARLY);
        CHECK_EQ(reader.at - reader.start, len);
        free(copy);
    }
}

TEST(validity_can_ask_for_a_type)
{
    CHECK(json_is_valid(SLICE(" {\"a\":1} "), JSON_OBJECT));
    CHECK(!json_is_valid(SLICE("[1]"), JSON_OBJECT));
    CHECK(!json_is_valid(SLICE(""), JSON_OBJECT));
    CHECK(!json_is_valid(SLICE(""), JSON_NONE));
    CHECK(json_is_valid(SLICE("[1]"), JSON_NONE));
    CHECK(!json_is_valid(SLICE("{\"a\":1}x"), JSON_OBJECT));
}

static void says(const char *text, const char *wanted)
{
    struct json_reader reader = reader_of(text);
    struct text said;

    text_init(&said, 1000);
    json_skip(&reader, NULL);
    (void)json_close(&reader);
    json_error_say(&reader, &said);
    CHECK_STR(said.at, said.len, wanted);
    text_release(&said);
}

TEST(a_complaint_names_line_and_column_in_characters)
{
    says("{\"a\":@}", "line 1, column 6: not valid JSON");
    says("{\n  \"\xc3\xa9\xe4\xb8\x96\": @}", "line 2, column 9: not valid JSON");
    says("", "line 1, column 1: the JSON ends before it is complete");
    says("\n\n", "line 3, column 1: the JSON ends before it is complete");
    says("[] []", "line 1, column 4: something follows the JSON value");
}

TEST(a_complaint_holds_no_number_that_looks_like_a_status)
{
    static const struct {
        int spaces;
        const char *column;
    } rows[] = {
        { 427, "column 428" },           { 428, "after column 428" },     { 498, "column 499" },
        { 499, "after column 499" },     { 503, "after column 499" },     { 504, "column 505" },
        { 528, "after column 528" },     { 4999, "after column 4999" },   { 15002, "after column 14999" },
        { 50249, "after column 49999" }, { 14290, "after column 14289" }, { 54320, "column 54321" },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[60000], wanted[100];
        (void)snprintf(text, sizeof text, "%*s@", rows[i].spaces, "");
        (void)snprintf(wanted, sizeof wanted, "line 1, %s: not valid JSON", rows[i].column);
        says(text, wanted);
    }
}

TEST(each_error_has_a_text_of_its_own)
{
    for (int i = JSON_OK; i <= JSON_TOO_MANY; i++)
        for (int j = i + 1; j <= JSON_TOO_MANY + 1; j++)
            CHECK(strcmp(json_error_text((enum json_error)i), json_error_text((enum json_error)j)) != 0);
}

TEST(white_space_and_line_breaks_are_noted_where_they_are_passed)
{
    static const struct {
        const char *text;
        bool has_space, has_line_breaks;
    } rows[] = {
        { "{\"a b\":[1,{\"c\":\" \\n\"}],\"d\":null}", false, false },
        { "{ \"a\":1}", true, false },
        { "{\"a\" :1}", true, false },
        { "{\"a\":\n1}", true, false },
        { "{\"a\":1\t}", true, false },
        { "{\"a\":1\r,\"b\":2}", true, false },
        { "{\"a\":1, \"b\":2}", true, false },
        { "[ 1]", true, false },
        { "[1 ]", true, false },
        { "[1 ,2]", true, false },
        { "[1, 2]", true, false },
        { "[[ ]]", true, false },
        { "[{ }]", true, false },
        { " 1", true, false },
        { "1 ", true, false },
        { "[\"\xc2\x85\"]", false, true },
        { "[\"\xe2\x80\xa8\"]", false, true },
        { "[\"\xe2\x80\xa9\"]", false, true },
        { "{\"\xc2\x85\":1}", false, true },
        { "[\"\xc2\x84 \xc2\x86 \xe2\x80\xa7 \xe2\x80\xaa \xe2\x81\xa8 \xd0\x85 \xe3\x80\xa8\"]", false, false },
        { "[\"\\u2028\\u0085\"]", false, false },
        { "[\"\xd0\x9e\", \"x\xe2\x80\xa8\", \"\xd0\x9e\"]", true, true },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader;
        bool is_tight;
        json_open(&reader, slice_of(rows[i].text), JSON_MAX_DEPTH);
        CHECK_ROW(json_skip(&reader, NULL) && json_close(&reader), rows[i].text);
        CHECK_ROW(reader.has_space == rows[i].has_space, rows[i].text);
        CHECK_ROW(reader.has_line_breaks == rows[i].has_line_breaks, rows[i].text);
        CHECK_ROW(json_is_valid_tight(slice_of(rows[i].text), JSON_NONE, &is_tight), rows[i].text);
        CHECK_ROW(is_tight == (!rows[i].has_space && !rows[i].has_line_breaks), rows[i].text);
    }
}

TEST(a_skipped_value_tells_its_type)
{
    static const struct {
        const char *text;
        enum json_type type;
    } rows[] = { { "null", JSON_NULL },   { " true", JSON_TRUE }, { "false", JSON_FALSE }, { "-1", JSON_NUMBER },
                 { "\"\"", JSON_STRING }, { "[1]", JSON_ARRAY },  { " {}", JSON_OBJECT },  { "x", JSON_NONE },
                 { "[1", JSON_NONE },     { "\"", JSON_NONE },    { "nul", JSON_NONE } };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader;
        json_open(&reader, slice_of(rows[i].text), JSON_MAX_DEPTH);
        CHECK_ROW(json_skip_typed(&reader, NULL) == rows[i].type, rows[i].text);
        CHECK_ROW((reader.error != JSON_OK) == (rows[i].type == JSON_NONE), rows[i].text);
    }
}
