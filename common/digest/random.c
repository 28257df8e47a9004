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

/* One system call fills what some twenty ids use up. */
static uint8_t next_byte(void)
{
    static _Thread_local uint8_t pool[512];
    static _Thread_local size_t left;

    if (!left) {
        random_bytes(pool, sizeof pool);
        left = sizeof pool;
    }
    return pool[--left];
}

void random_letters(char *at, size_t count)
{
    enum { LETTERS = 26, FAIR = 256 / LETTERS * LETTERS }; /* bytes from FAIR on would favour the first letters */

    for (size_t i = 0; i < count;) {
        uint8_t byte = next_byte();
        if (byte < FAIR)
            at[i++] = (char)('a' + byte % LETTERS);
    }
}
