#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "check.h"
#include "output.h"

static const struct {
    const char *text;
    unsigned width;
} widths[] = {
    { "", 0 },
    { "abc", 3 },
    { "Zoë", 3 },
    { "Zoe\u0308", 3 }, /* a mark of its own */
    { "日本語", 6 },
    { "ｱｲｳ", 3 },    /* narrow forms */
    { "ＡＢＣ", 6 }, /* wide ones */
    { "한국어", 6 },
    { "😀", 2 },
    { "👍🏽", 2 },                  /* a tone of skin */
    { "👩‍👩‍👧‍👦", 2 }, /* four joined into one */
    { "🇩🇪", 2 },
    { "🇩🇪🇫🇷", 4 },
    { "❤️", 2 }, /* as a picture */
    { "a\u200db", 2 },
    { "\xff\xfe", 2 }, /* no UTF-8 */
};

TEST(width_is_what_a_terminal_takes)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        CHECK_ROW(width_of(slice_of(widths[i].text)) == widths[i].width, widths[i].text);
}

TEST(what_is_cut_has_as_many_columns_as_there_are)
{
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        for (unsigned width = 1; width < 9; width++) {
            struct text out;

            text_init(&out, 4096);
            width_add(&out, slice_of(widths[i].text), width, true, false);
            CHECK_EQ(width_of(text_slice(&out)), width);
            text_clear(&out);
            width_add(&out, slice_of(widths[i].text), width, false, false);
            CHECK(width_of(text_slice(&out)) <= width);
            text_release(&out);
        }
    }
}

TEST(text_is_cut_with_a_sign_that_it_was)
{
    static const struct {
        const char *text;
        unsigned width;
        const char *cut;
    } rows[] = { { "abcdef", 4, "abc…" }, { "abcd", 4, "abcd" },
                 { "日本語", 4, "日…" },  { "日本語", 5, "日本…" },
                 { "ab", 1, "…" },        { "👩‍👩‍👧‍👦xyz", 3, "👩‍👩‍👧‍👦…" } };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;

        text_init(&out, 4096);
        width_add(&out, slice_of(rows[i].text), rows[i].width, false, false);
        CHECK_STR(text_string(&out), out.len, rows[i].cut);
        text_release(&out);
    }
}

static const struct {
    const char *text, *safe;
} unsafe[] = {
    { "plain ä 日 😀", "plain ä 日 😀" },
    { "\x1b[31mred", "\\x1b[31mred" },
    { "\x1b]0;title\x07", "\\x1b]0;title\\x07" },
    { "\xc2\x9b"
      "31m",
      "\\u009b31m" }, /* the same in one character */
    { "a\rb\nc\td\x7f", "a\\x0db\\x0ac\\x09d\\x7f" },
    { "abc\u202egpj.exe", "abc\\u202egpj.exe" }, /* read from the right */
    { "a\u2066b\u2069", "a\\u2066b\\u2069" },
    { "a\u200bb\ufeff", "a\\u200bb\\ufeff" }, /* unseen */
    { "tag\U000e0041", "tag\\U000e0041" },
    { "bad \xff\xc0\x80 bytes", "bad ��� bytes" },
    { "cut \xe6\x97", "cut ��" },
};

TEST(nothing_that_a_terminal_obeys_gets_to_it)
{
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++) {
        struct text out;

        text_init(&out, 4096);
        safe_add(&out, slice_of(unsafe[i].text), false);
        CHECK_STR(text_string(&out), out.len, unsafe[i].safe);
        text_release(&out);
    }
}

TEST(every_byte_alone_and_every_character_is_safe)
{
    struct text out;

    text_init(&out, 4096);
    for (unsigned c = 0; c < 256; c++) {
        char byte = (char)c;

        text_clear(&out);
        safe_add(&out, (struct slice){ &byte, 1 }, false);
        CHECK(utf8_valid(text_slice(&out)) && (unsigned char)out.at[0] >= 0x20 && out.at[0] != 0x7f);
    }
    for (unsigned c = 0x80; c < 0xa0; c++) {
        char bytes[2] = { (char)0xc2, (char)c };

        text_clear(&out);
        safe_add(&out, (struct slice){ bytes, 2 }, false);
        CHECK(out.at[0] == '\\');
    }
    text_release(&out);
}

TEST(json_means_the_same_and_disturbs_no_terminal)
{
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++) {
        json_t *value = json_string(unsafe[i].text), *again;
        struct text out;

        if (!value) /* not UTF-8: jansson takes none */
            continue;
        text_init(&out, 4096);
        json_add_pretty(&out, value, true);
        again = json_loads(text_string(&out), JSON_DECODE_ANY, NULL);
        CHECK(json_equal(value, again));
        for (size_t at = 0; at < out.len; at++)
            CHECK((unsigned char)out.at[at] >= 0x20 && out.at[at] != 0x7f);
        CHECK(!strstr(text_string(&out), "\u202e") && !strstr(text_string(&out), "\xc2\x9b") &&
              !strstr(text_string(&out), "\U000e0041"));
        json_decref(value);
        json_decref(again);
        text_release(&out);
    }
}

/* Tables --------------------------------------------------------------------------------------------------------- */

static const struct column columns[] = {
    { "USER", "user", CELL_TEXT, 0, NULL },      { "NAME", "name", CELL_TEXT, 0, NULL },
    { "STATE", "state", CELL_STATE, 1, NULL },   { "RPM", "rpm", CELL_NUMBER, 4, "-" },
    { "MODELS", "models", CELL_TEXT, 5, "all" }, { "EXPIRES", "expires_at", CELL_TIME, 3, "never" },
    { NULL, "hidden", CELL_TEXT, 0, NULL },
};
enum { COLUMNS = sizeof columns / sizeof *columns };

/* What is printed to standard output while `print` runs. */
static void caught(void (*print)(struct output *), struct output *output, struct text *out)
{
    FILE *file = tmpfile();
    int kept = dup(STDOUT_FILENO);
    char bytes[4096];
    size_t count;

    CHECK(file && kept >= 0);
    (void)fflush(stdout);
    (void)dup2(fileno(file), STDOUT_FILENO);
    print(output);
    (void)dup2(kept, STDOUT_FILENO);
    (void)close(kept);
    rewind(file);
    while ((count = fread(bytes, 1, sizeof bytes, file)) > 0)
        text_add(out, bytes, count);
    (void)fclose(file);
}

static void print_two(struct output *output)
{
    struct listing *listing = listing_begin(output, columns, COLUMNS);
    json_t *one =
        json_pack("{s:s, s:s, s:s, s:i, s:[s,s], s:s, s:s}", "user", "alice", "name", "laptop", "state", "active",
                  "rpm", 30, "models", "qwen3:32b", "llama3:8b", "expires_at", "2027-02-21T04:00:59Z", "hidden", "x");
    json_t *two = json_pack("{s:s, s:s, s:s, s:n, s:n, s:n}", "user", "日本語ユーザー", "name", "=cmd", "state",
                            "revoked", "rpm", "models", "expires_at");

    (void)listing_add(listing, one);
    (void)listing_add(listing, two);
    (void)listing_end(listing);
    json_decref(one);
    json_decref(two);
}

static void table_is(unsigned width, bool has_colour, const char *wanted)
{
    struct output output = { .format = OUTPUT_TABLE, .width = width, .has_colour = has_colour };
    struct text out;

    text_init(&out, 1 << 16);
    caught(print_two, &output, &out);
    CHECK_STR(text_string(&out), out.len, wanted);
    text_release(&out);
}

TEST(a_table_without_a_terminal_is_as_wide_as_it_is)
{
    table_is(0, false,
             "USER            NAME    STATE    RPM  MODELS               EXPIRES\n"
             "alice           laptop  active    30  qwen3:32b llama3:8b  2027-02-21 04:00Z\n"
             "日本語ユーザー  =cmd    revoked    -  all                  never\n");
}

TEST(a_table_fits_its_terminal)
{
    table_is(200, false,
             "USER            NAME    STATE    RPM  MODELS               EXPIRES\n"
             "alice           laptop  active    30  qwen3:32b llama3:8b  2027-02-21 04:00Z\n"
             "日本語ユーザー  =cmd    revoked    -  all                  never\n");
    table_is(70, false,
             "USER           NAME    STATE    RPM  MODELS          EXPIRES\n"
             "alice          laptop  active    30  qwen3:32b lla…  2027-02-21 04:00Z\n"
             "日本語ユーザ…  =cmd    revoked    -  all             never\n");
}

TEST(what_finds_no_room_is_left_out_by_rank)
{
    table_is(40, false,
             "USER            NAME    STATE\n"
             "alice           laptop  active\n"
             "日本語ユーザー  =cmd    revoked\n");
    table_is(20, false,
             "USER          NAME\n"
             "alice         laptop\n"
             "日本語ユー…   =cmd\n");
}

TEST(colours_change_no_width)
{
    table_is(40, true,
             "\x1b[1mUSER          \x1b[0m  \x1b[1mNAME  \x1b[0m  \x1b[1mSTATE\x1b[0m\n"
             "alice           laptop  \x1b[32mactive\x1b[0m\n"
             "日本語ユーザー  =cmd    \x1b[31mrevoked\x1b[0m\n");
}

TEST(csv_has_every_field_and_no_formula)
{
    struct output output = { .format = OUTPUT_CSV };
    struct text out;

    text_init(&out, 1 << 16);
    caught(print_two, &output, &out);
    CHECK_STR(text_string(&out), out.len,
              "user,name,state,rpm,models,expires_at,hidden\r\n"
              "alice,laptop,active,30,qwen3:32b llama3:8b,2027-02-21T04:00:59Z,x\r\n"
              "日本語ユーザー,'=cmd,revoked,,,,\r\n");
    text_release(&out);
}
