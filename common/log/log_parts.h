/*
 * log_parts - what the files of this room share; nobody else includes it.
 * log.c: the door, and the daemon's lines. ring.c: a lane's bytes. sink.c: a file, pipe or socket and what it takes
 * now.
 * writer.c: the thread between them.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "log.h"

/*
 * Lines, each ended by a newline, between one writing and one reading thread:
 *     0 ─gone─ read ─lines to write out─ written ─free─ read + size
 * Both only grow; the place of a byte is its number modulo size.
 */
struct ring {
    char *bytes;
    uint32_t size; /* a power of two */
    _Alignas(64) _Atomic uint64_t written;
    uint64_t seen_read; /* the writing thread's last look at `read` */
    _Alignas(64) _Atomic uint64_t read;
};

bool ring_init(struct ring *ring, uint32_t size);
void ring_release(struct ring *ring);
/* Adds the line and a newline; false: no room. */
bool ring_put(struct ring *ring, struct slice line);
/* More than half of it waits. For the writing thread. */
bool ring_is_half_full(struct ring *ring);
bool ring_is_empty(struct ring *ring);
/* Newlines between two numbers of bytes. For the reading thread. */
uint64_t ring_count_lines(const struct ring *ring, uint64_t from, uint64_t to);
/* The number of the byte behind the last newline between from and to; from: there is none. */
uint64_t ring_last_line_end(const struct ring *ring, uint64_t from, uint64_t to);

enum sink_sort { SINK_FILE, SINK_SOCKET, SINK_PIPE }; /* SINK_PIPE: terminals and devices too */

/* The writer's own; never blocks on anything but a disk. */
struct sink {
    int fd; /* -1: none */
    bool is_owned;
    enum sink_sort sort;
    bool is_stuck; /* takes nothing at the moment */
    int error;     /* why, as in errno; 0: it is not stuck */
    /* A line that went out in part: its first `cut` bytes, still at cut_ring's read. Nothing else may follow before
     * its rest. */
    struct ring *cut_ring;
    uint32_t cut;
    off_t cut_size; /* the file's size then */
};

void sink_init(struct sink *sink, int fd, bool is_owned);
void sink_close(struct sink *sink);
/* Moves what is in the ring now to the sink, as far as that takes it. True: some went. */
bool sink_take(struct sink *sink, struct ring *ring);

enum lane_kind { LANE_REQUESTS, LANE_OWN, LANE_KINDS };

struct lane {
    struct ring rings[LANE_KINDS];
    _Atomic bool is_taken;
};

/* What the writer does, for those who might have to wake it. */
enum writer_mood {
    WRITER_BUSY,    /* looks at every ring before it rests */
    WRITER_NAPPING, /* looks again in a moment; wake it when a ring fills up */
    WRITER_ASLEEP,  /* wake it for a line */
    WRITER_WAITING  /* for a stuck file: lines need not wake it */
};

struct log {
    _Atomic int level;
    _Atomic bool is_json;
    _Atomic bool is_open;
    _Atomic bool is_one_file; /* request lines go where the daemon's go: one ring then, so that their order is kept */
    _Atomic uint64_t dropped; /* request lines */
    _Atomic uint64_t dropped_own; /* the daemon's */
    struct lane *lanes;           /* [0] is for threads without one */
    unsigned lane_count;
    pthread_mutex_t lock; /* of lanes[0] and wanted_file */
    char *wanted_file;    /* NULL: stderr */
    _Atomic bool wants_open;
    _Atomic bool is_closing;
    _Atomic int64_t close_by_ms;
    _Atomic uint32_t mood;    /* a futex */
    _Atomic uint32_t is_done; /* a futex */
    pthread_t thread;
};

extern struct log the_log;

/* The request file (NULL: none, stderr) was opened by log_open(); the writer owns it from here on. False: no thread. */
bool writer_start(struct sink *requests);
/* Waits; true: it has ended, and closed its file. */
bool writer_stop(int64_t wait_ms);
/* Wakes it if this line is one that it would not see in time. */
void writer_nudge(struct ring *ring);
void writer_wake(void);
/* -1 with errno. */
int log_file_open(const char *file);
