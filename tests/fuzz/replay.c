/*
 * replay - runs a fuzz target over the files given, or over every file of the folders given: what a plain
 * test run does with each corpus, with any compiler. The last line is "N passed, 0 failed": a finding ends
 * the program with the sanitizer's report instead.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static unsigned replayed;

static void replay_file(const char *path, size_t size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = malloc(size ? size : 1); /* exactly the size, so that a read past the end is seen */

    if (!file || !bytes || fread(bytes, 1, size, file) != size) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(EXIT_FAILURE);
    }
    (void)fclose(file);
    (void)LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
    replayed++;
}

static void replay_path(const char *path)
{
    struct stat stat_of;
    struct dirent *entry;
    DIR *folder;

    if (stat(path, &stat_of) != 0) {
        fprintf(stderr, "no such file: %s\n", path);
        exit(EXIT_FAILURE);
    }
    if (!S_ISDIR(stat_of.st_mode)) {
        replay_file(path, (size_t)stat_of.st_size);
        return;
    }
    folder = opendir(path);
    while (folder && (entry = readdir(folder))) {
        char inner[4096];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        replay_path(inner);
    }
    (void)closedir(folder);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay_path(argv[i]);
    printf("%u passed, %u failed\n", replayed, replayed ? 0u : 1u);
    return replayed ? EXIT_SUCCESS : EXIT_FAILURE;
}
