#include "conf.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static struct conf *parsed(const char *yaml)
{
    struct text why;
    struct conf *conf;

    text_init(&why, 4096);
    conf = conf_parse("c.yaml", slice_of(yaml), &why);
    if (!conf)
        check_fail(__FILE__, __LINE__, "refused: %s", text_string(&why));
    CHECK_EQ(why.len, 0);
    text_release(&why);
    return conf;
}

static void check_refused(struct slice yaml, const char *wanted)
{
    struct text why;
    struct conf *conf;

    text_init(&why, 4096);
    conf = conf_parse("c.yaml", yaml, &why);
    CHECK_ROW(conf == NULL, wanted);
    CHECK_STR(text_string(&why), why.len, wanted);
    text_release(&why);
}

TEST(block_and_flow_style_give_the_same_tree)
{
    static const char *const rows[] = {
        "a: { b: [x, \"y\"], c: 1 }\n",
        "a:\n  b:\n    - x\n    - \"y\"\n  c: 1\n",
        "---\na: {b: [x, 'y'], c: 1}\n...\n",
        "\xef\xbb\xbf{\"a\": {\"b\": [x, \"y\"], \"c\": 1}}",
        "# comment\r\na:\r\n  b: [x,\r\n      \"y\"]\r\n  c: 1\r\n",
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct conf *conf = parsed(rows[i]);
        const struct conf_node *a = conf_member(conf->root, "a");
        const struct conf_node *b = conf_member(a, "b");
        CHECK_ROW(conf->root->kind == CONF_MAP && conf->root->count == 1 && a && a->kind == CONF_MAP && a->count == 2,
                  rows[i]);
        CHECK_ROW(b && b->kind == CONF_LIST && b->count == 2 && b->first->index == 1 && b->last->index == 2, rows[i]);
        CHECK_ROW(slice_is(b->first->text, SLICE("x")) && !b->first->is_quoted, rows[i]);
        CHECK_ROW(slice_is(b->last->text, SLICE("y")) && b->last->is_quoted, rows[i]);
        CHECK_ROW(slice_is(conf_member(a, "c")->text, SLICE("1")), rows[i]);
        CHECK_ROW(!conf_member(a, "d") && !conf_member(b, "c"), rows[i]);
        conf_free(conf);
    }
}

TEST(nodes_remember_their_lines_and_paths)
{
    struct conf *conf = parsed("one: 1\n\n# two\ntwo:\n  - three:\n      x\n  - {\"fo ur\": y}\n");
    const struct conf_node *two = conf_member(conf->root, "two");
    const struct conf_node *three = conf_member(two->first, "three");
    struct text path;

    CHECK_EQ(conf_member(conf->root, "one")->line, 1);
    CHECK_EQ(two->key_line, 4);
    CHECK_EQ(three->key_line, 5);
    CHECK_EQ(three->line, 6);
    text_init(&path, 256);
    conf_add_path(three, &path);
    text_add_char(&path, ' ');
    conf_add_path(two->last->first, &path);
    CHECK_STR(text_string(&path), path.len, "two[1].three two[2].\"fo ur\"");
    text_release(&path);
    conf_free(conf);
}

TEST(what_makes_files_ambiguous_is_refused_with_file_and_line)
{
    static const struct {
        const char *yaml, *why;
    } rows[] = {
        { "a: 1\nb: 2\na: 3\n", "c.yaml:3: a is there twice (first in line 1)" },
        { "s:\n  x: 1\n  \"x\": 2\n", "c.yaml:3: s.x is there twice (first in line 2)" },
        { "l: [{k: 1, k: 2}]\n", "c.yaml:1: l[1].k is there twice (first in line 1)" },
        { "a: &x 1\nb: *x\n", "c.yaml:1: a uses an anchor (&), which is not allowed: write the value out" },
        { "a: 1\nb: *x\n", "c.yaml:2: b uses an alias (*), which is not allowed: write the value out" },
        { "a: &x [1]\n", "c.yaml:1: a uses an anchor (&), which is not allowed: write the value out" },
        { "a: !!str 1\n", "c.yaml:1: a uses a tag (!), which is not allowed" },
        { "a: !thing {b: 1}\n", "c.yaml:1: a uses a tag (!), which is not allowed" },
        { "l:\n  - 1\n  - !x 2\n", "c.yaml:3: l[2] uses a tag (!), which is not allowed" },
        { "s:\n  <<: {a: 1}\n", "c.yaml:2: s uses a merge key (<<), which is not allowed: write the settings out" },
        { "a: 1\n---\nb: 2\n", "c.yaml:2: a second document begins here (---): a configuration is one document" },
        { "a: 1\n...\n---\n", "c.yaml:3: a second document begins here (---): a configuration is one document" },
        { "%YAML 1.1\n---\na: 1\n", "c.yaml:1: directives (%) are not allowed" },
        { "? [a]\n: 1\n", "c.yaml:1: has a list or map where a key was expected" },
        { "\"\": 1\n", "c.yaml:1: holds a key that is empty or not one line" },
        { "\"a\\nb\": 1\n", "c.yaml:1: holds a key that is empty or not one line" },
        { "", "c.yaml:1: the file is empty: nothing is configured" },
        { "# nothing\n", "c.yaml:1: the file is empty: nothing is configured" },
        { "---\n", "c.yaml:1: the file is empty: nothing is configured" },
        { "- a\n", "c.yaml:1: the file must hold settings, one `key: value` a line" },
        { "\nhello\n", "c.yaml:2: the file must hold settings, one `key: value` a line" },
        { "a: 1\nb: \xff\n", "c.yaml:2: is not UTF-8" },
        { "a: \xc0\x80\n", "c.yaml:1: is not UTF-8" },
        { "a: 1\nb: \x01\n", "c.yaml:2: holds a character that is not allowed in YAML (a control character?)" },
        { "a:\n\tb: 1\n", "c.yaml:2: is indented by a tab: YAML wants spaces" },
        { "a: [1, 2\nb: 3\n",
          "c.yaml:2: is not valid YAML: did not find expected ',' or ']' (while parsing a flow sequence "
          "that begins in line 1)" },
        { "a: [[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", "c.yaml:1: is nested too deep" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_refused(slice_of(rows[i].yaml), rows[i].why);
    check_refused(SLICE("a: 1\nb: x\0y\n"),
                  "c.yaml:2: holds a character that is not allowed in YAML (a control character?)");
}

TEST(a_file_over_a_mebibyte_is_refused_and_one_just_below_is_read)
{
    char *yaml = malloc(CONF_MAX_BYTES + 1);

    CHECK(yaml);
    memset(yaml, '#', CONF_MAX_BYTES + 1);
    memcpy(yaml, "a: 1\n", 5);
    check_refused((struct slice){ yaml, CONF_MAX_BYTES + 1 },
                  "c.yaml: is larger than 1024 KiB, which no configuration needs");
    struct text why;
    text_init(&why, 256);
    struct conf *conf = conf_parse("c.yaml", (struct slice){ yaml, CONF_MAX_BYTES }, &why);
    CHECK(conf);
    conf_free(conf);
    free(yaml);
}

TEST(a_map_of_a_hundred_thousand_keys_is_searched_for_doubles_quickly)
{
    struct text yaml;

    text_init(&yaml, CONF_MAX_BYTES);
    for (unsigned i = 0; i < 100000; i++)
        text_printf(&yaml, "k%u: \n", i);
    text_add_string(&yaml, "k77: \n");
    CHECK_EQ(yaml.err, ERR_OK);
    check_refused(text_slice(&yaml), "c.yaml:100001: k77 is there twice (first in line 78)");
    text_release(&yaml);
}

static void check_open_refused(const char *path, const char *wanted)
{
    struct text why, sentence;

    text_init(&why, 4096);
    text_init(&sentence, 4096);
    text_printf(&sentence, "%s: cannot be read: %s", path, wanted);
    CHECK(conf_open(path, &why) == NULL);
    CHECK_STR(text_string(&why), why.len, text_string(&sentence));
    text_release(&why);
    text_release(&sentence);
}

TEST(a_file_that_cannot_be_read_is_named_with_the_reason)
{
    check_open_refused("/nonexistent/config.yaml", "No such file or directory");
    check_open_refused("/", "it is a folder");
    check_open_refused("/dev/null", "it is not a regular file");
}

TEST(a_file_is_read_with_its_permissions)
{
    char path[] = "/tmp/test_conf_XXXXXX";
    int fd = mkstemp(path);
    struct conf *conf;
    struct text why;

    CHECK(fd >= 0);
    CHECK_EQ(write(fd, "a: b\n", 5), 5);
    CHECK_EQ(fchmod(fd, 0640), 0);
    (void)close(fd);
    text_init(&why, 256);
    conf = conf_open(path, &why);
    (void)unlink(path);
    CHECK(conf && conf->mode == 0640 && strcmp(conf->file, path) == 0);
    conf_free(conf);
}

/* A table of every type. */
struct box {
    bool flag;
    unsigned count;
    uint64_t number, bytes;
    int64_t wait_ms, window_ms;
    unsigned choice;
    const char *name;
    int own;
};

static enum err own_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field)
{
    int64_t number = 0;
    enum err err = conf_integer(reading, node, row->min, row->max, &number);

    *(int *)field = (int)number;
    return err;
}

static void own_print(const void *field, struct text *out)
{
    text_add_i64(out, *(const int *)field);
}

static const char *const colours[] = { "red", "green", "blue", NULL };
#define BOX(member) offsetof(struct box, member)
static const struct conf_row box_rows[] = {
    { "flag", CONF_BOOL, BOX(flag), "true", .min = 0 },
    { "count", CONF_COUNT, BOX(count), "7", .min = 1, .max = 100 },
    { "number", CONF_NUMBER, BOX(number), "0", .min = 0, .max = INT64_MAX },
    { "bytes", CONF_BYTES, BOX(bytes), "32 MiB", .min = 1, .max = INT64_C(1) << 40 },
    { "section.wait", CONF_MS, BOX(wait_ms), "10s", .min = 10, .max = 3600000 },
    { "section.window_seconds", CONF_SECONDS, BOX(window_ms), "60", .min = 1000, .max = 86400000 },
    { "choice", CONF_CHOICE, BOX(choice), "green", .words = colours },
    { "name", CONF_STRING, BOX(name), .min = 1, .max = 8 },
    { "own", CONF_OWN, BOX(own), "-5", -10, 10, .read = own_read, .print = own_print, .form = "a small number" },
    { "password", CONF_STRING, BOX(name), .min = 1, .max = 8, .is_secret = true },
};
enum { BOX_ROWS = sizeof box_rows / sizeof *box_rows };
static const struct conf_table box_table = { box_rows, BOX_ROWS };

static enum err read_box(const char *yaml, struct box *box, struct arena *arena, struct text *why, unsigned *lines)
{
    struct conf *conf = parsed(yaml);
    struct conf_reading reading = { .conf = conf, .arena = arena, .why = why };
    enum err err = conf_table_read(&reading, &box_table, conf->root, box, lines);

    conf_free(conf);
    return err;
}

TEST(defaults_pass_through_the_parsers)
{
    struct conf_reading reading = { 0 };
    struct box box = { 0 };
    struct arena arena;

    arena_init(&arena);
    reading.arena = &arena;
    CHECK_EQ(conf_table_read(&reading, &box_table, NULL, &box, NULL), ERR_OK);
    CHECK(box.flag && box.count == 7 && box.number == 0 && box.bytes == 32u << 20 && box.wait_ms == 10000);
    CHECK(box.window_ms == 60000 && box.choice == 1 && !box.name && box.own == -5);
    arena_release(&arena);
}

TEST(values_are_read_and_their_lines_told)
{
    struct box box = { 0 };
    struct arena arena;
    struct text why;
    unsigned lines[BOX_ROWS];

    arena_init(&arena);
    text_init(&why, 4096);
    CHECK_EQ(read_box("flag: false\ncount: 100\nnumber: 9223372036854775807\nbytes: 3KiB\n"
                      "section:\n  wait: 1500ms\n  window_seconds: 2m\nchoice: \"blue\"\nname: 'x y'\n",
                      &box, &arena, &why, lines),
             ERR_OK);
    CHECK(!box.flag && box.count == 100 && box.number == INT64_MAX && box.bytes == 3072 && box.wait_ms == 1500);
    CHECK(box.window_ms == 120000 && box.choice == 2 && strcmp(box.name, "x y") == 0 && box.own == -5);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(lines[i], i < 4 ? i + 1 : i + 2);
    CHECK_EQ(lines[8], 0);
    text_release(&why);
    arena_release(&arena);
}

TEST(values_are_shown_as_one_would_write_them)
{
    struct box box = { .flag = true, .count = 3, .number = 4, .bytes = 5 << 20, .choice = 2, .name = "n", .own = -1 };
    static const char *const wanted[] = { "true", "3", "4", "5 MiB", "", "", "blue", "n", "-1" };
    static const struct {
        int64_t ms;
        const char *shown;
    } durations[] = { { 0, "0s" }, { 1, "1ms" }, { 1500, "1500ms" }, { 300000, "300s" }, { 7200000, "2h" } };
    static const struct {
        uint64_t bytes;
        const char *shown;
    } sizes[] = { { 0, "0" }, { 1023, "1023" }, { 1024, "1 KiB" }, { 1536, "1536" }, { 3u << 30, "3 GiB" } };
    struct text shown;

    text_init(&shown, 256);
    for (unsigned i = 0; i < 9; i++) {
        if (!*wanted[i])
            continue;
        text_clear(&shown);
        conf_add_value(&box_rows[i], (char *)&box + box_rows[i].offset, &shown);
        CHECK_STR(text_string(&shown), shown.len, wanted[i]);
    }
    for (unsigned i = 0; i < sizeof durations / sizeof *durations; i++) {
        text_clear(&shown);
        conf_add_value(&box_rows[4], &durations[i].ms, &shown);
        CHECK_STR(text_string(&shown), shown.len, durations[i].shown);
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        text_clear(&shown);
        conf_add_value(&box_rows[3], &sizes[i].bytes, &shown);
        CHECK_STR(text_string(&shown), shown.len, sizes[i].shown);
    }
    text_release(&shown);
}

TEST(a_bad_value_is_refused_with_file_line_and_key)
{
#define COUNT_FORM  "a whole number from 1 to 100"
#define BYTES_FORM  "a size (bytes, or a number with KiB, MiB or GiB) from 1 to 1024 GiB"
#define WAIT_FORM   "a duration (a number with ms, s, m or h) from 10ms to 1h"
#define WINDOW_FORM "whole seconds from 1 to 86400"
    static const struct {
        const char *yaml, *why;
    } rows[] = {
        { "flag: yes", "c.yaml:1: flag must be true or false, not \"yes\"" },
        { "flag: 1", "c.yaml:1: flag must be true or false, not \"1\"" },
        { "flag: \"true\"", "c.yaml:1: flag must be true or false without quotes" },
        { "flag: []", "c.yaml:1: flag must be true or false, not a list" },
        { "flag:", "c.yaml:1: flag must be true or false, not nothing" },
        { "count: 0", "c.yaml:1: count must be " COUNT_FORM ", not \"0\"" },
        { "count: 101", "c.yaml:1: count must be " COUNT_FORM ", not \"101\"" },
        { "count: -1", "c.yaml:1: count must be " COUNT_FORM ", not \"-1\"" },
        { "count: 1.5", "c.yaml:1: count must be " COUNT_FORM ", not \"1.5\"" },
        { "count: 1e1", "c.yaml:1: count must be " COUNT_FORM ", not \"1e1\"" },
        { "count: 0x10", "c.yaml:1: count must be " COUNT_FORM ", not \"0x10\"" },
        { "count: 010", "c.yaml:1: count must be " COUNT_FORM ", not \"010\"" },
        { "count: +5", "c.yaml:1: count must be " COUNT_FORM ", not \"+5\"" },
        { "count: 1_0", "c.yaml:1: count must be " COUNT_FORM ", not \"1_0\"" },
        { "count: \"5\"", "c.yaml:1: count must be a whole number without quotes" },
        { "count: {a: 1}", "c.yaml:1: count must be " COUNT_FORM ", not a map" },
        { "count: ~", "c.yaml:1: count must be " COUNT_FORM ", not nothing" },
        { "count: 99999999999999999999999", "c.yaml:1: count must be " COUNT_FORM ", not \"99999999999999999999999\"" },
        { "bytes: 0", "c.yaml:1: bytes must be " BYTES_FORM ", not \"0\"" },
        { "bytes: 5 MB", "c.yaml:1: bytes must be " BYTES_FORM ", not \"5 MB\"" },
        { "bytes: 5 mib", "c.yaml:1: bytes must be " BYTES_FORM ", not \"5 mib\"" },
        { "bytes: 1.5 MiB", "c.yaml:1: bytes must be " BYTES_FORM ", not \"1.5 MiB\"" },
        { "bytes: MiB", "c.yaml:1: bytes must be " BYTES_FORM ", not \"MiB\"" },
        { "bytes: 9999999999999999 GiB", "c.yaml:1: bytes must be " BYTES_FORM ", not \"9999999999999999 GiB\"" },
        { "section:\n  wait: 10", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"10\"" },
        { "section:\n  wait: 9ms", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"9ms\"" },
        { "section:\n  wait: 61m", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"61m\"" },
        { "section:\n  wait: 1d", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"1d\"" },
        { "section:\n  wait: 1m30s", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"1m30s\"" },
        { "section:\n  wait: -1s", "c.yaml:2: section.wait must be " WAIT_FORM ", not \"-1s\"" },
        { "section: {window_seconds: 0}", "c.yaml:1: section.window_seconds must be " WINDOW_FORM ", not \"0\"" },
        { "section: {window_seconds: 500ms}",
          "c.yaml:1: section.window_seconds must be " WINDOW_FORM ", not \"500ms\"" },
        { "section: {window_seconds: 25h}", "c.yaml:1: section.window_seconds must be " WINDOW_FORM ", not \"25h\"" },
        { "choice: yellow", "c.yaml:1: choice must be red, green or blue, not \"yellow\"" },
        { "choice: Red", "c.yaml:1: choice must be red, green or blue, not \"Red\"" },
        { "choice: [red]", "c.yaml:1: choice must be red, green or blue, not a list" },
        { "name: 5", "c.yaml:1: name must be text: put it in quotes" },
        { "name: 5.0", "c.yaml:1: name must be text: put it in quotes" },
        { "name: no", "c.yaml:1: name must be text: put it in quotes" },
        { "name: null", "c.yaml:1: name must be text, not nothing" },
        { "name: \"\"", "c.yaml:1: name must not be empty" },
        { "name: \"a\\tb\"", "c.yaml:1: name must be one line without control characters" },
        { "name: |\n  a\n  b\n", "c.yaml:1: name must be one line without control characters" },
        { "name: abcdefghi", "c.yaml:1: name is 9 bytes long, but at most 8 are allowed" },
        { "own: 11", "c.yaml:1: own must be a whole number from -10 to 10, not \"11\"" },
        { "password: [a]", "c.yaml:1: password must be text, not a list" },
        { "section: 5", "c.yaml:1: section must be a map (key: value), not \"5\"" },
        { "section:", "c.yaml:1: section has no value: write its settings below it, or leave it out" },
        { "section: []", "c.yaml:1: section must be a map (key: value), not a list" },
        /* unknown keys */
        { "flags: true", "c.yaml:1: flags is not a known setting: did you mean flag?" },
        { "FLAG: true", "c.yaml:1: FLAG is not a known setting: did you mean flag?" },
        { "section:\n  window-seconds: 5",
          "c.yaml:2: section.window-seconds is not a known setting: did you mean window_seconds?" },
        { "section: {flag: true}", "c.yaml:1: section.flag is not a known setting: did you mean flag?" },
        { "wait: 5s", "c.yaml:1: wait is not a known setting: did you mean section.wait?" },
        { "section.wait: 5s", "c.yaml:1: section.wait is not a known setting" },
        { "backends: []", "c.yaml:1: backends is not a known setting" },
        { "sectio: {}", "c.yaml:1: sectio is not a known setting: did you mean section?" },
        { "\"x\\ty\": 1", "c.yaml:1: \"x?y\" is not a known setting" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct box box = { 0 };
        struct arena arena;
        struct text why;
        arena_init(&arena);
        text_init(&why, 4096);
        CHECK_ROW(read_box(rows[i].yaml, &box, &arena, &why, NULL) == ERR_BAD, rows[i].yaml);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        text_release(&why);
        arena_release(&arena);
    }
}

TEST(what_is_quoted_stays_on_one_line_and_is_cut_between_characters)
{
    struct text out;

    text_init(&out, 256);
    conf_add_quoted(&out, SLICE("a\nb\x7f\xc2\x85\xe2\x80\xa8z"));
    CHECK_STR(text_string(&out), out.len, "\"a?b???z\"");
    text_clear(&out);
    conf_add_quoted(&out, SLICE("123456789012345678901234567890123456789012345678901234567890123\xc3\xa4z"));
    CHECK_STR(text_string(&out), out.len, "\"123456789012345678901234567890123456789012345678901234567890123…\"");
    text_release(&out);
}
