/*
 * gateway - the process: opens the rooms in order, runs the control thread's loop (signals, probes, the operator's
 * listener, reloads, draining), closes the rooms in reverse. The control thread is the main thread.
 */
#pragma once
#include "text.h"

struct snapshot;

/* Exit statuses: 0 ended as asked, 1 could not start or go on, 2 the configuration is refused. */
enum { GATEWAY_OK = 0, GATEWAY_FAILED = 1, GATEWAY_REFUSED = 2 };

/* Runs until a signal ends it. Takes over the snapshot, which was loaded from `file`. Returns the exit status. */
int gateway_run(const char *file, struct snapshot *snapshot, const char *version);
