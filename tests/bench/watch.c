#include "watch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_all(const char *path, char *into, size_t room)
{
    FILE *file = fopen(path, "re");
    size_t got = file ? fread(into, 1, room - 1, file) : 0;

    into[got] = '\0';
    if (file)
        (void)fclose(file);
}

static uint64_t ran_ns(int pid)
{
    char path[64], text[128];
    struct dirent *entry;
    uint64_t sum = 0;
    DIR *threads;

    (void)snprintf(path, sizeof path, "/proc/%d/task", pid);
    threads = opendir(path);
    while (threads && (entry = readdir(threads))) {
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof path, "/proc/%d/task/%.16s/schedstat", pid, entry->d_name);
        read_all(path, text, sizeof text);
        sum += strtoull(text, NULL, 10);
    }
    if (threads)
        (void)closedir(threads);
    return sum;
}

static void read_ticks(int pid, struct watch *watch)
{
    char path[64], text[1024], *at;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    read_all(path, text, sizeof text);
    at = strrchr(text, ')'); /* the name before it may hold anything */
    for (int field = 2; at && field < 14; field++)
        at = strchr(at + 1, ' ');
    if (!at) {
        fprintf(stderr, "bench_load: there is no process %d\n", pid);
        exit(EXIT_FAILURE);
    }
    watch->user_ticks = strtoull(at, &at, 10);
    watch->system_ticks = strtoull(at, &at, 10);
}

static uint64_t resident(int pid)
{
    char path[64], text[2048], *at;

    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    read_all(path, text, sizeof text);
    at = strstr(text, "\nRss:");
    return at ? strtoull(at + 5, NULL, 10) * 1024 : 0;
}

struct watch watch_look(int pid)
{
    struct watch watch = { 0 };

    if (!pid)
        return watch;
    read_ticks(pid, &watch);
    watch.ran_ns = ran_ns(pid);
    watch.resident_bytes = resident(pid);
    return watch;
}
