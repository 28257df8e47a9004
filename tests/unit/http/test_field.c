#include "check.h"
#include "http_inside.h"

TEST(every_known_field_is_found_in_any_case)
{
    static const char *const names[] = {
#define NAME(id, text) [HTTP_##id] = text,
        HTTP_FIELDS(NAME)
#undef NAME
    };

    for (int id = 1; id < HTTP_FIELD_NAMES; id++) {
        size_t len = strlen(names[id]);
        char name[64];
        CHECK_ROW(http_known_field(slice_of(names[id])) == (enum http_field_name)id, names[id]);
        for (size_t i = 0; i < len; i++)
            name[i] = (char)(names[id][i] >= 'a' ? names[id][i] - 'a' + 'A' : names[id][i]);
        CHECK_ROW(http_known_field((struct slice){ name, len }) == (enum http_field_name)id, names[id]);
        for (size_t i = 0; i < len; i++) {
            char kept = name[i];
            name[i] = kept == '-' ? '_' : kept == 'Q' ? 'Z' : 'Q';
            CHECK_ROW(http_known_field((struct slice){ name, len }) == HTTP_OTHER, names[id]);
            name[i] = kept;
        }
        CHECK_ROW(http_known_field((struct slice){ name, len - 1 }) == HTTP_OTHER, names[id]);
    }
}

TEST(no_other_token_passes_for_a_known_field)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[] = "content?length";
        name[7] = (char)byte;
        if (http_is_token((struct slice){ name, 14 }))
            CHECK_EQ(http_known_field((struct slice){ name, 14 }), byte == '-' ? HTTP_CONTENT_LENGTH : HTTP_OTHER);
    }
}

TEST(an_unknown_name_is_other)
{
    static const char *const rows[] = { "",
                                        "a",
                                        "hos",
                                        "hosts",
                                        "accept-language",
                                        "transfer-encodings",
                                        "x-request-ic",
                                        "sec-websocket-key",
                                        "a-name-much-longer-than-any-that-is-known" };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(http_known_field(slice_of(rows[i])) == HTTP_OTHER, rows[i]);
}

TEST(a_token_is_made_of_token_characters)
{
    static const char good[] = "!#$%&'*+-.^_`|~";

    CHECK(http_is_token(SLICE("Content-Type")));
    CHECK(http_is_token(SLICE(good)));
    CHECK(!http_is_token(SLICE("")));
    for (unsigned byte = 0; byte < 256; byte++) {
        char one = (char)byte;
        bool wanted = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                      (byte && strchr(good, (int)byte) != NULL);
        CHECK_EQ(http_is_token((struct slice){ &one, 1 }), wanted);
    }
}

TEST(a_list_has_its_elements_whatever_their_case)
{
    static const struct {
        const char *list, *token;
        bool has;
    } rows[] = {
        { "close", "close", true },
        { "Close", "close", true },
        { "keep-alive, close", "close", true },
        { "keep-alive ,\t CLOSE\t, x", "close", true },
        { ",,close,,", "close", true },
        { "closed", "close", false },
        { "close x", "close", false },
        { "x close", "close", false },
        { "", "close", false },
        { ",", "", false },
        { "a,,b", "", false },
        { "keep-alive,", "keep-alive", true },
        { "close;q=1", "close", false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(http_list_has(slice_of(rows[i].list), slice_of(rows[i].token)) == rows[i].has, rows[i].list);
    CHECK(!http_list_has((struct slice){ NULL, 0 }, SLICE("close")));
}

TEST(percent_escapes_are_decoded)
{
    static const struct {
        const char *segment, *decoded; /* NULL: refused */
    } rows[] = {
        { "qwen3:32b", "qwen3:32b" },
        { "a%2Fb%2fc", "a/b/c" },
        { "%e4%bd%A0", "\xe4\xbd\xa0" },
        { "a+b", "a+b" },
        { "%25%32%35", "%25" },
        { "", "" },
        { "%20", " " },
        { "\xe4\xbd\xa0", "\xe4\xbd\xa0" },
        { "%", NULL },
        { "%4", NULL },
        { "a%", NULL },
        { "%4g", NULL },
        { "%g4", NULL },
        { "%+4", NULL },
        { "%%41", NULL },
        { "%00", NULL },
        { "a%0a", NULL },
        { "%0D", NULL },
        { "%09", NULL },
        { "%7f", NULL },
        { "%1b", NULL },
        { "%ff", NULL },
        { "%c0%af", NULL },
        { "%ed%a0%80", NULL },
        { "%e4%bd", NULL },
        { "%u0041", NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;
        text_init(&out, 100);
        text_add_literal(&out, "<");
        CHECK_ROW(http_percent_decode(slice_of(rows[i].segment), &out) == (rows[i].decoded != NULL), rows[i].segment);
        CHECK_ROW(strcmp(text_string(&out) + 1, rows[i].decoded ? rows[i].decoded : "") == 0, rows[i].segment);
        text_release(&out);
    }
}

TEST(a_segment_that_does_not_fit_is_refused)
{
    struct text out;

    text_init(&out, 3);
    CHECK(!http_percent_decode(SLICE("%41%42%43%44"), &out));
    CHECK_EQ(out.err, ERR_TOO_LONG);
    text_release(&out);
}

TEST(reasons_are_the_registered_ones)
{
    CHECK_STR(http_reason(200), strlen(http_reason(200)), "OK");
    CHECK_STR(http_reason(404), strlen(http_reason(404)), "Not Found");
    CHECK_STR(http_reason(429), strlen(http_reason(429)), "Too Many Requests");
    CHECK_STR(http_reason(599), strlen(http_reason(599)), "Unknown");
    CHECK_STR(http_reason(0), strlen(http_reason(0)), "Unknown");
}

TEST(dates_are_written_for_the_wire)
{
    static const struct {
        int64_t wall_ms;
        const char *date;
    } rows[] = {
        { 1795357033000, "Sun, 22 Nov 2026 14:17:13 GMT" },
        { 1795357033999, "Sun, 22 Nov 2026 14:17:13 GMT" },
        { 1795357034000, "Sun, 22 Nov 2026 14:17:14 GMT" },
        { 0, "Thu, 01 Jan 1970 00:00:00 GMT" },
        { -1, "Wed, 31 Dec 1969 23:59:59 GMT" },
        { 1709164800000, "Thu, 29 Feb 2024 00:00:00 GMT" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice date = http_date(rows[i].wall_ms);
        CHECK_STR(date.at, date.len, rows[i].date);
    }
}
