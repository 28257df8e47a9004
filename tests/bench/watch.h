/*
 * watch - what a process has cost so far, as the kernel counts it: the time its threads ran, to the nanosecond, the
 * same in the clock's ticks with user and system time apart, and its resident memory.
 */
#pragma once
#include <stdint.h>

struct watch {
    uint64_t ran_ns;
    uint64_t user_ticks, system_ticks; /* all threads, ended ones too */
    uint64_t resident_bytes;
};

/* Of process `pid`; all zero when pid is 0. Ends the program when there is none. */
struct watch watch_look(int pid);
