/*
 * The C library looks hosts up with modules (mdns4_minimal, resolve, myhostname ...) that it loads when a look-up comes
 * to them; the filter lets no code be loaded. One that is there already is used as it is. Where nsswitch.conf changes
 * later, a new module stays out until a restart, and look-ups go on with the others.
 */
#include "names.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void load(const char *name)
{
    char file[96];

    if (snprintf(file, sizeof file, "libnss_%s.so.2", name) < (int)sizeof file)
        (void)dlopen(file, RTLD_LAZY); /* never closed; one that is missing is missing to look-ups as well */
}

/* "files mdns4_minimal [NOTFOUND=return] dns": words outside the brackets. */
static void load_all(char *list)
{
    char *rest = list;

    for (char *word = strtok_r(list, " \t\r\n", &rest); word; word = strtok_r(NULL, " \t\r\n", &rest)) {
        size_t len = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
        if (*word == '[') {
            while (word && !strchr(word, ']'))
                word = strtok_r(NULL, " \t\r\n", &rest);
            if (!word)
                return;
        } else if (len && !word[len]) {
            load(word);
        }
    }
}

void names_load(void)
{
    FILE *file = fopen("/etc/nsswitch.conf", "re");
    char line[1024];

    while (file && fgets(line, sizeof line, file)) {
        char *at = line;
        while (isspace((unsigned char)*at))
            at++;
        if (strncmp(at, "hosts:", 6) == 0)
            load_all(at + 6);
    }
    if (file)
        (void)fclose(file);
}
