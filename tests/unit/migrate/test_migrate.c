/* What was compiled in. What it does to a database: tests/e2e/test_migrate.py. */
#include <stdio.h>

#include "check.h"
#include "migrate.h"

TEST(migrations_are_numbered_without_a_gap)
{
    CHECK(migration_count > 0);
    for (unsigned i = 0; i < migration_count; i++) {
        char number[16];
        (void)snprintf(number, sizeof number, "%04u_", i + 1);
        CHECK_ROW(strncmp(migrations[i].name, number, strlen(number)) == 0, migrations[i].name);
    }
}

TEST(each_is_whole_and_says_why_it_exists)
{
    for (unsigned i = 0; i < migration_count; i++) {
        const char *sql = (const char *)migrations[i].sql;
        CHECK_ROW(strlen(sql) == migrations[i].bytes, migrations[i].name);
        CHECK_ROW(strncmp(sql, "-- ", 3) == 0, migrations[i].name);
        CHECK_ROW(sql[migrations[i].bytes - 1] == '\n', migrations[i].name);
    }
}

/* They run within a transaction that is not theirs to end. */
TEST(none_ends_its_transaction)
{
    static const char *const words[] = { "\nCOMMIT", "\nROLLBACK", "\nBEGIN;", "CONCURRENTLY" };

    for (unsigned i = 0; i < migration_count; i++)
        for (size_t j = 0; j < sizeof words / sizeof *words; j++)
            CHECK_ROW(!strstr((const char *)migrations[i].sql, words[j]), migrations[i].name);
}
