/* The file of qwen-control. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "settings.h"

static struct settings *given(const char *yaml)
{
    struct settings *settings;
    struct text why;

    text_init(&why, 4096);
    settings = settings_parse("c.yaml", slice_of(yaml), &why);
    if (!settings)
        check_fail(__FILE__, __LINE__, "refused: %s", text_string(&why));
    CHECK_EQ(why.len, 0);
    text_release(&why);
    return settings;
}

TEST(defaults_are_read_as_if_they_were_written)
{
    struct settings *settings = given("log_level: info\n");

    CHECK_STR(settings->database, strlen(settings->database), "");
    CHECK_STR(settings->database_role, strlen(settings->database_role), "qwen_control");
    CHECK_EQ(settings->database_connections, 4);
    CHECK_EQ(settings->database_connect_timeout_ms, 3000);
    CHECK_EQ(settings->database_statement_timeout_ms, 10000);
    CHECK_EQ(settings->database_reconnect_delay_ms, 100);
    CHECK_EQ(settings->log_level, 1);
    (void)settings_free(settings);
}

TEST(what_the_file_says_holds)
{
    struct settings *settings = given("database: \"host=/run dbname=qwen\"\ndatabase_role: \"\"\n"
                                      "database_connections: 7\ndatabase_statement_timeout: 2s\nlog_format: json\n");

    CHECK_STR(settings->database, strlen(settings->database), "host=/run dbname=qwen");
    CHECK_STR(settings->database_role, strlen(settings->database_role), "");
    CHECK_EQ(settings->database_connections, 7);
    CHECK_EQ(settings->database_statement_timeout_ms, 2000);
    CHECK_EQ(settings->log_format, 1);
    (void)settings_free(settings);
}

TEST(a_mistake_is_said_with_its_place_and_never_with_a_password)
{
    static const struct {
        const char *yaml, *why;
    } rows[] = {
        { "databse: x\n", "c.yaml:1: databse is not a known setting: did you mean database?" },
        { "log_level: info\ndatabase: \"password=hunter2 x\"\n",
          "c.yaml:2: database is not a connection string of PostgreSQL: write \"host=… dbname=… user=…\" or "
          "\"postgresql://USER@HOST/DATABASE\"" },
        { "database: \"postgresql://u:hunter@2@h/d\"\n",
          "c.yaml:1: database has an @ in its host: write one that belongs to the password as %40" },
        { "database: [hunter2]\n", "c.yaml:1: database must be text, not a list" },
        { "database: {password: hunter2}\n", "c.yaml:1: database must be text, not a map" },
        { "database_connections: 0\n",
          "c.yaml:1: database_connections must be a whole number from 1 to 100, not \"0\"" },
        { "database_wait_timeout: 5\n", "c.yaml:1: database_wait_timeout must be a duration (a number with ms, s, m or "
                                        "h) from 10ms to 1h, not \"5\"" },
        { "database_reconnect_delay: 5s\n",
          "c.yaml:1: database_reconnect_delay makes database_reconnect_max (3000 ms) less than "
          "database_reconnect_delay (5000 ms)" },
        { "log_level: loud\n", "c.yaml:1: log_level must be debug, info, warn or error, not \"loud\"" },
        { "", "c.yaml:1: the file is empty: nothing is configured" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text why;
        text_init(&why, 4096);
        CHECK_ROW(!settings_parse("c.yaml", slice_of(rows[i].yaml), &why), rows[i].yaml);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        text_release(&why);
    }
}

/*
 * The page is written by hand around the table, which comes from the program. After a change of a row run this
 * program with QG_UPDATE=1 in its environment: it puts the new table in.
 */
TEST(the_reference_page_holds_the_table_of_the_program)
{
    static const char page[] = QG_SOURCE_DIR "/docs/control.md";
    static const char begin[] = "<!-- table: written by the program, see tests/unit/settings -->\n";
    static const char end[] = "<!-- end of table -->\n";
    struct text table, file, updated;
    const char *from, *to;
    FILE *stream;

    text_init(&table, 1 << 20);
    text_init(&file, 1 << 20);
    text_init(&updated, 1 << 20);
    settings_describe(&table, true);
    stream = fopen(page, "r");
    CHECK(stream && text_reserve(&file, 1 << 18));
    file.len = fread(file.at, 1, 1 << 18, stream);
    file.at[file.len] = 0;
    (void)fclose(stream);
    from = strstr(text_string(&file), begin);
    to = strstr(text_string(&file), end);
    CHECK(from && to && from < to);
    from += strlen(begin);
    if (getenv("QG_UPDATE")) {
        text_add(&updated, file.at, (size_t)(from - file.at));
        text_add_slice(&updated, text_slice(&table));
        text_add_string(&updated, to);
        stream = fopen(page, "w");
        CHECK(stream && fwrite(updated.at, 1, updated.len, stream) == updated.len && fclose(stream) == 0);
    } else {
        CHECK_STR(from, (size_t)(to - from), text_string(&table));
    }
    text_release(&table);
    text_release(&file);
    text_release(&updated);
}
