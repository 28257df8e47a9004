/*
 * watch - what a process has cost so far, as the kernel counts it: the time its threads ran, to the nanosecond, and the
 * same in the clock's ticks with user and system time apart. Beside it, to know what the figures are worth, the time
 * that we ran, that the backend ran, and that all cores were busy. And a process's memory.
 */
#pragma once
#include <stdint.h>

struct watch {
    uint64_t ran_ns;
    uint64_t user_ticks, system_ticks; /* all threads, ended ones too */
    uint64_t at_us, own_ran_ns, backend_ran_ns;
    uint64_t busy_ticks; /* of all cores together */
};

struct watch_memory {
    uint64_t resident_bytes;
    uint64_t own_bytes; /* the same, what is shared counted in parts (PSS) */
};

/* At process `pid`; 0: none is looked at, and none is the backend. Ends the program when it is not there. */
struct watch watch_look(int pid, int backend_pid);
/* Walks the process's page tables, which stops it for a moment. All zero when pid is 0. */
struct watch_memory watch_memory(int pid);
