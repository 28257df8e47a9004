#include "digest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void random_bytes(void *at, size_t len)
{
    uint8_t *next = at;

    while (len) {
        ssize_t got = getrandom(next, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            perror("getrandom");
            abort();
        }
        next += got;
        len -= (size_t)got;
    }
}

/* One system call fills what some eighty ids use up. */
static uint16_t next_two_bytes(void)
{
    static _Thread_local uint16_t pool[2048];
    static _Thread_local size_t left;

    if (!left) {
        random_bytes(pool, sizeof pool);
        left = sizeof pool / sizeof *pool;
    }
    return pool[--left];
}

void random_letters(char *at, size_t count)
{
    enum { LETTERS = 26, PAIRS = LETTERS * LETTERS, FAIR = 65536 / PAIRS * PAIRS }; /* from FAIR on some are favoured */

    for (size_t i = 0; i < count;) {
        unsigned pair = next_two_bytes();
        if (pair >= FAIR)
            continue;
        at[i++] = (char)('a' + pair / LETTERS % LETTERS);
        if (i < count)
            at[i++] = (char)('a' + pair % LETTERS);
    }
}
