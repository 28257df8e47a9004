#include "check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

bool check_isolates;

static struct check_test *tests;
static jmp_buf out_of_test;
static unsigned passed, failed;

void check_register(struct check_test *test)
{
    test->next = tests;
    tests = test;
}

void check_fail(const char *file, int line, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    longjmp(out_of_test, 1);
}

void check_eq(const char *file, int line, const char *what, long long got, long long wanted)
{
    if (got != wanted)
        check_fail(file, line, "%s is %lld, wanted %lld", what, got, wanted);
}

void check_str(const char *file, int line, const char *what, const char *got, size_t got_len, const char *wanted,
               size_t wanted_len)
{
    if (got_len != wanted_len || (wanted_len && memcmp(got, wanted, wanted_len) != 0))
        check_fail(file, line, "%s is\n  \"%.*s\", wanted\n  \"%.*s\"", what, (int)got_len, got ? got : "",
                   (int)wanted_len, wanted);
}

static struct check_test *in_order(struct check_test *list)
{
    struct check_test *turned = NULL;

    while (list) {
        struct check_test *next = list->next;
        list->next = turned;
        turned = list;
        list = next;
    }
    return turned;
}

/* A function of its own: nothing that lives across setjmp() is in a register. */
static void run(const struct check_test *test)
{
    if (setjmp(out_of_test)) {
        fprintf(stderr, "FAILED %s\n", test->name);
        failed++;
        return;
    }
    test->run();
    passed++;
}

/* In a process of its own (check_isolates), so that what one leaves behind, threads above all, is not the next one's.
 */
static void run_apart(const struct check_test *test)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        failed = 0;
        run(test);
        exit(failed ? EXIT_FAILURE : EXIT_SUCCESS);
    }
    if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        passed++;
        return;
    }
    fprintf(stderr, "ended with %#x: %s\n", (unsigned)status, test->name);
    failed++;
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";

    for (struct check_test *test = in_order(tests); test; test = test->next)
        if (strstr(test->name, only))
            (check_isolates ? run_apart : run)(test);
    printf("%u passed, %u failed\n", passed, failed);
    (void)fflush(stdout); /* a leak found at the exit must not take the count with it */
    return failed || !passed ? EXIT_FAILURE : EXIT_SUCCESS;
}
