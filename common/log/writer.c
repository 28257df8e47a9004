/*
 * The thread that empties the lanes.
 *
 * It never sleeps while a line waits: before it says WRITER_ASLEEP it has seen every ring empty, and looks once
 * more after; a thread that puts a line looks at the mood after. One of the two sees the other (both are
 * sequentially consistent), so no line waits for ever, and while lines come often nobody makes a system call for one.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "log_parts.h"

enum {
    NAP_MS = 100, /* between two looks while lines come: how late a line may be. Each look takes a core from a worker */
    NAPS_BEFORE_SLEEP = 3,
    STUCK_MS = 50,   /* between two attempts at a stuck file */
    CLOSING_MS = 10, /* the same while it closes */
    QUIET_MS = 1000, /* without a dropped line: the trouble is over */
    STOP_GRACE_MS = 200
};

static struct {
    struct sink requests; /* fd -1: request lines go to stderr */
    struct sink own;      /* stderr */
    /* Lines dropped or a file not written: said once when it begins and once when it is over. */
    bool is_troubled;
    uint64_t dropped, dropped_before, dropped_own;
    int64_t quiet_since_ms;
} writer;

static void futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t ms)
{
    struct timespec patience = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, ms < 0 ? NULL : &patience, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void writer_wake(void)
{
    atomic_store(&the_log.mood, WRITER_BUSY);
    futex_wake(&the_log.mood);
}

void writer_nudge(struct ring *ring)
{
    uint32_t mood = atomic_load(&the_log.mood);

    if (mood != WRITER_ASLEEP && !(mood == WRITER_NAPPING && ring_is_half_full(ring)))
        return;
    /* Whoever turns it over wakes it; the others need not. */
    if (atomic_compare_exchange_strong(&the_log.mood, &mood, WRITER_BUSY))
        futex_wake(&the_log.mood);
}

int log_file_open(const char *file)
{
    /* O_NONBLOCK is for a named pipe; it means nothing to a file. */
    return open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
}

static struct sink *requests_sink(void)
{
    return writer.requests.fd >= 0 ? &writer.requests : &writer.own;
}

static struct sink *sink_of(enum lane_kind kind)
{
    return kind == LANE_REQUESTS ? requests_sink() : &writer.own;
}

static bool take(struct sink *sink, struct ring *ring)
{
    if (sink->is_stuck || (sink->cut_ring && sink->cut_ring != ring))
        return false;
    return sink_take(sink, ring);
}

/* True: some lines went out. */
static bool write_lanes(void)
{
    bool has_moved = false;

    writer.requests.is_stuck = writer.own.is_stuck = false;
    if (writer.requests.cut_ring)
        has_moved |= take(&writer.requests, writer.requests.cut_ring);
    if (writer.own.cut_ring)
        has_moved |= take(&writer.own, writer.own.cut_ring);
    for (unsigned i = 0; i < the_log.lane_count; i++)
        for (unsigned kind = 0; kind < LANE_KINDS; kind++)
            has_moved |= take(sink_of(kind), &the_log.lanes[i].rings[kind]);
    return has_moved;
}

static bool lanes_are_empty(void)
{
    for (unsigned i = 0; i < the_log.lane_count; i++)
        for (unsigned kind = 0; kind < LANE_KINDS; kind++)
            if (!ring_is_empty(&the_log.lanes[i].rings[kind]))
                return false;
    return true;
}

static void use_file(int fd)
{
    sink_close(&writer.requests);
    if (fd >= 0)
        sink_init(&writer.requests, fd, true);
    /* A request's line that stderr took in part goes to the new place again, whole. */
    if (writer.own.cut_ring && atomic_load(&the_log.is_one_file)) {
        writer.own.cut_ring = NULL;
        writer.own.cut = 0;
    }
    atomic_store(&the_log.is_one_file, fd < 0);
}

/* log_reopen() and log_reconfigure() ask for it. */
static void open_wanted(void)
{
    char *file;
    bool is_stderr;
    int fd = -1;

    (void)pthread_mutex_lock(&the_log.lock);
    is_stderr = !the_log.wanted_file;
    file = is_stderr ? NULL : strdup(the_log.wanted_file);
    (void)pthread_mutex_unlock(&the_log.lock);
    if (!is_stderr)
        fd = file ? log_file_open(file) : -1;
    if (is_stderr || fd >= 0)
        use_file(fd);
    else
        log_error("cannot open the log file %s (%s), going on with the one that was open", file ? file : "",
                  strerror(errno));
    free(file);
}

static void trouble_begin(const struct sink *sink)
{
    writer.is_troubled = true;
    writer.dropped_before = writer.dropped;
    if (sink->is_stuck && sink->error != EAGAIN)
        log_error("the request log cannot be written (%s): lines wait, those that find no room are dropped and counted",
                  strerror(sink->error));
    else
        log_warn("the request log is not taken fast enough: lines that find no room are dropped and counted");
}

static void trouble_end(uint64_t dropped)
{
    writer.is_troubled = false;
    log_info("the request log is written again; %llu lines were dropped",
             (unsigned long long)(dropped - writer.dropped_before));
}

/* Says what became of lines, once at each turn of events. */
static void report(int64_t now_ms)
{
    const struct sink *sink = requests_sink();
    uint64_t dropped = log_dropped();
    uint64_t own = atomic_load_explicit(&the_log.dropped_own, memory_order_relaxed);
    bool is_bad = dropped != writer.dropped || (sink->is_stuck && sink->error != EAGAIN);

    if (is_bad && !writer.is_troubled)
        trouble_begin(sink);
    if (is_bad || sink->is_stuck)
        writer.quiet_since_ms = now_ms;
    else if (writer.is_troubled && now_ms - writer.quiet_since_ms >= QUIET_MS)
        trouble_end(dropped);
    writer.dropped = dropped;
    if (own != writer.dropped_own && !writer.own.is_stuck) {
        log_warn("%llu of the daemon's own lines found no room and were dropped",
                 (unsigned long long)(own - writer.dropped_own));
        writer.dropped_own = own;
    }
}

static bool is_asked(void)
{
    return atomic_load(&the_log.is_closing) || atomic_load(&the_log.wants_open);
}

static void rest(enum writer_mood mood, int64_t ms)
{
    atomic_store(&the_log.mood, mood);
    if (!is_asked() && (mood != WRITER_ASLEEP || lanes_are_empty()))
        futex_wait(&the_log.mood, mood, ms);
    atomic_store(&the_log.mood, WRITER_BUSY);
}

static void rest_after(bool has_moved, unsigned *idle)
{
    *idle = has_moved ? 0 : *idle + 1;
    if (writer.requests.is_stuck || writer.own.is_stuck)
        rest(WRITER_WAITING, STUCK_MS);
    else if (*idle < NAPS_BEFORE_SLEEP)
        rest(WRITER_NAPPING, NAP_MS);
    else
        rest(WRITER_ASLEEP, writer.is_troubled ? QUIET_MS / 4 : -1);
}

/* While it closes: true when there is nothing more to do, or no more time. */
static bool is_over(void)
{
    if (lanes_are_empty() || clock_ms() >= atomic_load(&the_log.close_by_ms))
        return true;
    if (writer.requests.is_stuck || writer.own.is_stuck)
        (void)usleep(CLOSING_MS * 1000);
    return false;
}

static void *run(void *unused)
{
    unsigned idle = 0;
    bool is_closing, has_moved;

    do {
        is_closing = atomic_load(&the_log.is_closing);
        if (atomic_exchange(&the_log.wants_open, false))
            open_wanted();
        has_moved = write_lanes();
        if (!is_closing) {
            report(clock_ms());
            rest_after(has_moved, &idle);
        }
    } while (!is_closing || !is_over());
    sink_close(&writer.requests);
    atomic_store(&the_log.is_done, 1);
    futex_wake(&the_log.is_done);
    return unused;
}

bool writer_start(struct sink *requests)
{
    sigset_t all, before;
    int failed;

    writer.requests = *requests;
    sink_init(&writer.own, STDERR_FILENO, false);
    writer.is_troubled = false;
    writer.dropped = writer.dropped_before = log_dropped();
    writer.dropped_own = atomic_load(&the_log.dropped_own);
    atomic_store(&the_log.mood, WRITER_BUSY);
    atomic_store(&the_log.is_done, 0);
    /* Signals are the other threads' business; SIGPIPE and SIGXFSZ stay errors of a write. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&the_log.thread, NULL, run, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed)
        (void)pthread_setname_np(the_log.thread, "log");
    return !failed;
}

bool writer_stop(int64_t wait_ms)
{
    int64_t give_up_ms = clock_ms() + wait_ms + STOP_GRACE_MS;

    atomic_store(&the_log.close_by_ms, clock_ms() + wait_ms);
    atomic_store(&the_log.is_closing, true);
    writer_wake();
    while (!atomic_load(&the_log.is_done)) {
        int64_t left_ms = give_up_ms - clock_ms();
        if (left_ms <= 0) {
            /* It hangs in a write that nothing ends; the process is about to. */
            (void)pthread_detach(the_log.thread);
            return false;
        }
        futex_wait(&the_log.is_done, 0, left_ms);
    }
    (void)pthread_join(the_log.thread, NULL);
    return true;
}
