/*
 * wall_clock - a wall clock that can be set while a program runs: preloaded (LD_PRELOAD), it adds to the real time what
 * the file named by QG_WALL_CLOCK holds, eight bytes of seconds in the machine's order. Monotonic clocks are left
 * alone.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int64_t none;
static const volatile int64_t *ahead_s = &none;

__attribute__((constructor)) static void look_for_file(void)
{
    const char *path = getenv("QG_WALL_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_s, PROT_READ, MAP_SHARED, fd, 0);

    if (at != MAP_FAILED)
        ahead_s = at;
    if (fd >= 0)
        (void)close(fd);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *ts)
{
    int result = (int)syscall(SYS_clock_gettime, clock, ts);

    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ts->tv_sec += *ahead_s;
    return result;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ .tv_sec = ts.tv_sec, .tv_usec = ts.tv_nsec / 1000 };
    return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *ret_time)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (ret_time)
        *ret_time = ts.tv_sec;
    return ts.tv_sec;
}
