#include <stdio.h>

#include "check.h"
#include "csv.h"

/* A record as "cell|cell", one a line; "!LINE why" for a bad one. */
static void read_all(const char *text, size_t len, struct text *out)
{
    struct csv csv;
    struct csv_record record;

    csv_open(&csv, (struct slice){ text, len });
    csv_record_init(&record);
    while (csv_next(&csv, &record)) {
        if (record.why) {
            text_printf(out, "!%u %s\n", record.line, record.why);
            continue;
        }
        for (unsigned i = 0; i < record.count; i++) {
            if (i)
                text_add_char(out, '|');
            text_add_slice(out, record.cells[i]);
        }
        text_add_char(out, '\n');
    }
    csv_record_release(&record);
}

static const struct {
    const char *text, *read;
} rows[] = {
    { "", "" },
    { "a,b\n1,2\n", "a|b\n1|2\n" },
    { "a,b\r\n1,2\r\n", "a|b\n1|2\n" },
    { "a,b\n1,2", "a|b\n1|2\n" },
    { "\xef\xbb\xbf"
      "a,b\n",
      "a|b\n" },
    { "a\n\n\nb\n", "a\nb\n" },
    { ",\n", "|\n" },
    { "a,\n", "a|\n" },
    { "\"a,b\",\"c\"\"d\"\n", "a,b|c\"d\n" },
    { "\"two\nlines\",x\ny,z\n", "two\nlines|x\ny|z\n" },
    { "\"\"\n", "\n" },
    { "a\rb,c\n", "a\rb|c\n" },
    { "a\"b,c\nd,e\n", "!1 a quote stands within a cell that does not begin with one\nd|e\n" },
    { "\"a\"b,c\nd,e\n", "!1 something follows a closing quote\nd|e\n" },
    { "x\n\"a,c\nd,e\n", "x\n!2 a quote is opened and not closed\n" },
};

TEST(records_are_read_as_rfc_4180_has_them)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;

        text_init(&out, 4096);
        read_all(rows[i].text, strlen(rows[i].text), &out);
        CHECK_STR(text_string(&out), out.len, rows[i].read);
        text_release(&out);
    }
}

TEST(a_line_is_counted_also_within_quotes)
{
    struct csv csv;
    struct csv_record record;

    csv_open(&csv, SLICE("a\n\"1\n2\n3\",x\n\nlast\n"));
    csv_record_init(&record);
    CHECK(csv_next(&csv, &record) && record.line == 1);
    CHECK(csv_next(&csv, &record) && record.line == 2);
    CHECK(csv_next(&csv, &record) && record.line == 6);
    CHECK(!csv_next(&csv, &record));
    csv_record_release(&record);
}

TEST(a_record_with_too_many_cells_is_refused_and_the_next_is_read)
{
    char text[400];
    struct text out;

    memset(text, ',', sizeof text);
    memcpy(text + sizeof text - 3, "\nb", 3);
    text_init(&out, 4096);
    read_all(text, sizeof text - 1, &out);
    CHECK_STR(text_string(&out), out.len, "!1 it has too many cells\nb\n");
    text_release(&out);
}

TEST(what_was_written_is_read_again)
{
    static const char *const cells[] = {
        "", "plain", "a,b", "say \"x\"", "two\nlines", " spaced ", "x\r\n", "\"", "ä"
    };
    enum { COUNT = sizeof cells / sizeof *cells };
    struct text out;
    struct csv csv;
    struct csv_record record;

    text_init(&out, 4096);
    for (unsigned i = 0; i < COUNT; i++) {
        if (i)
            text_add_char(&out, ',');
        csv_add_cell(&out, slice_of(cells[i]));
    }
    csv_add_end(&out);
    csv_open(&csv, text_slice(&out));
    csv_record_init(&record);
    CHECK(csv_next(&csv, &record));
    CHECK_EQ(record.count, COUNT);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK_STR(record.cells[i].at, record.cells[i].len, cells[i]);
    CHECK(!csv_next(&csv, &record));
    csv_record_release(&record);
    text_release(&out);
}

TEST(no_cell_is_a_formula)
{
    static const struct {
        const char *cell, *written;
    } formulas[] = {
        { "=1+1", "'=1+1" }, { "+1", "'+1" },       { "-1", "'-1" },         { "@SUM(A1)", "'@SUM(A1)" },
        { "\tx", "'\tx" },   { "\rx", "\"'\rx\"" }, { "=a,b", "\"'=a,b\"" }, { "=\"x\"", "\"'=\"\"x\"\"\"" },
        { "1-1", "1-1" },    { "a=b", "a=b" },
    };

    for (size_t i = 0; i < sizeof formulas / sizeof *formulas; i++) {
        struct text out;

        text_init(&out, 256);
        csv_add_cell(&out, slice_of(formulas[i].cell));
        CHECK_STR(text_string(&out), out.len, formulas[i].written);
        text_release(&out);
    }
}
