/*
 * look_up - looking the hosts of backends up, those of a new configuration or the same ones again, on a thread of its
 * own, since the resolver may block for many seconds. One at a time. The functions below are the control thread's.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct fleet;
struct snapshot;
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

/* The fleet of a new snapshot (a reference is taken). False: no thread, or no memory. */
bool look_up_first(struct look_up *look_up, struct snapshot *snapshot, struct fleet *old);
/* True once after ring: the snapshot with a reference for the caller, its fleet (NULL: no memory), and whether that was
 * made from `old`, whose backends it takes over. */
bool look_up_take_first(struct look_up *look_up, const struct fleet *old, struct snapshot **ret_snapshot,
                        struct fleet **ret_fleet, bool *ret_is_of_old);
