/*
 * look_up - looking the hosts of backends up again, on a thread of its own, since the resolver may block for many
 * seconds. One at a time. The functions below are the control thread's.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fleet;
struct look_up_result;

struct look_up {
    void (*ring)(void *arg); /* from the thread: there is a result */
    void *arg;
    struct look_up_result *_Atomic result;
    pthread_t thread;
    bool is_underway; /* then neither this struct nor what `ring` needs may be freed */
};

/* When some backend of the fleet wants an address and no look-up is under way. */
void look_up_start(struct look_up *look_up, struct fleet *fleet, int64_t now_ms);
/* The fleet with the addresses of now, a reference for the caller, once after ring; NULL: nothing is different, nothing
 * is there yet, or it was looked up for another fleet than this. */
struct fleet *look_up_take(struct look_up *look_up, const struct fleet *fleet);
