/*
 * check - the unit tests' own harness.
 *
 *     TEST(an_empty_text_has_no_bytes)
 *     {
 *         CHECK_EQ(text.len, 0);
 *     }
 *
 * Each TEST registers itself; main() in check.c runs them all, or those whose name contains the first
 * argument. A failed CHECK says where and with what, ends its test, and the others go on. The last line is
 * "N passed, N failed".
 */
#pragma once
#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};

/* Set before main(): each test gets a process of its own. */
extern bool check_isolates;

void check_register(struct check_test *test);
_Noreturn void check_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void check_eq(const char *file, int line, const char *what, long long got, long long wanted);
void check_str(const char *file, int line, const char *what, const char *got, size_t got_len, const char *wanted,
               size_t wanted_len);

#define TEST(id)                                                           \
    static void test_##id(void);                                           \
    __attribute__((constructor)) static void register_##id(void)           \
    {                                                                      \
        static struct check_test test = { .name = #id, .run = test_##id }; \
        check_register(&test);                                             \
    }                                                                      \
    static void test_##id(void)

#define CHECK(claim)                                              \
    do {                                                          \
        if (!(claim))                                             \
            check_fail(__FILE__, __LINE__, "not so: %s", #claim); \
    } while (0)

/* CHECK with the case of a table in the message. */
#define CHECK_ROW(claim, row)                                                        \
    do {                                                                             \
        if (!(claim))                                                                \
            check_fail(__FILE__, __LINE__, "row \"%s\": not so: %s", (row), #claim); \
    } while (0)

#define CHECK_EQ(got, wanted)           check_eq(__FILE__, __LINE__, #got, (long long)(got), (long long)(wanted))
#define CHECK_STR(got, got_len, wanted) check_str(__FILE__, __LINE__, #got, (got), (got_len), (wanted), strlen(wanted))
