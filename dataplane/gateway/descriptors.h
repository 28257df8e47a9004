/* descriptors - how many file descriptors there are, and who may have them. Not a door: others include gateway.h. */
#pragma once
#include <stdbool.h>

struct descriptors {
    unsigned connections; /* of callers, at most */
    int limit;            /* workers take none from this number on: the last ones are the control thread's */
};

/*
 * Raises the process's limit as far as it may, and shares out what there is. Callers may take all but our own, although
 * a request needs a second one for its backend: those that only wait give way when it does. With `says` a warning where
 * there are too few for so many connections.
 */
struct descriptors descriptors_share(unsigned wanted_connections, bool says);

/*
 * Gives the kernel's table its full size, by way of a copy of `fd`; before there are threads. The kernel doubles a
 * table that is full, and where threads share it, it first waits until no core can still be reading the old one: 10 to
 * 30 ms in which a worker that accepts stands still, and all its streams with it. It never shrinks.
 */
void descriptors_widen(const struct descriptors *descriptors, int fd);
