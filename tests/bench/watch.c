#include "watch.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load.h"

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

/* From the line "cpu  user nice system idle iowait irq softirq steal …" of /proc/stat. */
static uint64_t busy_ticks(void)
{
    char text[256], *at = text + 3;
    uint64_t busy = 0;

    read_all("/proc/stat", text, sizeof text);
    for (int field = 0; field < 8; field++) {
        uint64_t ticks = strtoull(at, &at, 10);
        busy += field == 3 || field == 4 ? 0 : ticks;
    }
    return busy;
}

struct watch watch_look(int pid, int backend_pid)
{
    struct watch watch = { .at_us = load_now_us(), .own_ran_ns = ran_ns(getpid()), .busy_ticks = busy_ticks() };

    if (backend_pid)
        watch.backend_ran_ns = ran_ns(backend_pid);
    if (!pid)
        return watch;
    read_ticks(pid, &watch);
    watch.ran_ns = ran_ns(pid);
    return watch;
}

static uint64_t kilobytes(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

/* What everybody may read, also of a process that does not want to be looked at. */
static uint64_t resident_roughly(int pid)
{
    char path[64], text[2048], *at;

    (void)snprintf(path, sizeof path, "/proc/%d/statm", pid);
    read_all(path, text, sizeof text);
    (void)strtoull(text, &at, 10);
    return strtoull(at, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

struct watch_memory watch_memory(int pid)
{
    struct watch_memory memory = { 0 };
    char path[64], text[2048];

    if (!pid)
        return memory;
    (void)snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    read_all(path, text, sizeof text);
    memory.resident_bytes = kilobytes(text, "\nRss:");
    memory.own_bytes = kilobytes(text, "\nPss:");
    if (!memory.resident_bytes)
        memory.resident_bytes = resident_roughly(pid);
    return memory;
}
