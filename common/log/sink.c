/*
 * Whole lines only: what a ring gives up (`read`) always ends at a line's end. When the other side takes a line in
 * part, the part is remembered and the rest goes first when it takes something again; when the file was replaced or
 * emptied in between, the line goes again from its start.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "log_parts.h"

static_assert(LOG_LINE_MAX <= PIPE_BUF, "a pipe must take a line whole");

static enum sink_sort sort_of(int fd)
{
    struct stat stat;

    if (fstat(fd, &stat))
        return SINK_PIPE;
    if (S_ISREG(stat.st_mode))
        return SINK_FILE;
    return S_ISSOCK(stat.st_mode) ? SINK_SOCKET : SINK_PIPE;
}

void sink_init(struct sink *sink, int fd, bool is_owned)
{
    *sink = (struct sink){ .fd = fd, .is_owned = is_owned, .sort = sort_of(fd) };
}

void sink_close(struct sink *sink)
{
    if (sink->is_owned && sink->fd >= 0)
        (void)close(sink->fd);
    *sink = (struct sink){ .fd = -1 };
}

/* stderr is shared with others, so it cannot be made non-blocking: a pipe is asked first, and takes PIPE_BUF then. */
static ssize_t attempt(const struct sink *sink, struct iovec *pieces, size_t count)
{
    struct pollfd pollfd = { .fd = sink->fd, .events = POLLOUT };
    struct msghdr message = { .msg_iov = pieces, .msg_iovlen = count };

    if (sink->sort == SINK_SOCKET)
        return sendmsg(sink->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sink->sort == SINK_PIPE && poll(&pollfd, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    return writev(sink->fd, pieces, (int)count);
}

static ssize_t write_between(const struct sink *sink, const struct ring *ring, uint64_t from, uint64_t to)
{
    size_t place = from & (ring->size - 1);
    size_t len = to - from;
    size_t first = len < ring->size - place ? len : ring->size - place;
    struct iovec pieces[2] = { { ring->bytes + place, first }, { ring->bytes, len - first } };

    return attempt(sink, pieces, len > first ? 2 : 1);
}

/* How far one attempt may go: all of it, or for a pipe the lines that fit into PIPE_BUF. */
static uint64_t reach(const struct sink *sink, const struct ring *ring, uint64_t from, uint64_t to)
{
    uint64_t end;

    if (sink->sort != SINK_PIPE || to - from <= PIPE_BUF)
        return to;
    end = ring_last_line_end(ring, from, from + PIPE_BUF);
    return end > from ? end : from + PIPE_BUF;
}

static off_t file_size(const struct sink *sink)
{
    struct stat stat;

    return sink->sort == SINK_FILE && fstat(sink->fd, &stat) == 0 ? stat.st_size : 0;
}

/* `sent`: the number of the byte behind the last that went out. */
static void settle(struct sink *sink, struct ring *ring, uint64_t read, uint64_t sent)
{
    uint64_t whole = ring_last_line_end(ring, read, sent);

    sink->cut = (uint32_t)(sent - whole);
    sink->cut_ring = sink->cut ? ring : NULL;
    if (sink->cut)
        sink->cut_size = file_size(sink);
    atomic_store_explicit(&ring->read, whole, memory_order_release);
}

static void look_after_cut_line(struct sink *sink)
{
    if (sink->cut && sink->sort == SINK_FILE && file_size(sink) < sink->cut_size)
        sink->cut = 0; /* emptied meanwhile */
}

bool sink_take(struct sink *sink, struct ring *ring)
{
    uint64_t to = atomic_load_explicit(&ring->written, memory_order_acquire);
    uint64_t read = atomic_load_explicit(&ring->read, memory_order_relaxed);
    bool has_moved = false;

    sink->is_stuck = false;
    sink->error = 0;
    look_after_cut_line(sink);
    while (read != to) {
        uint64_t from = read + sink->cut;
        ssize_t sent = write_between(sink, ring, from, reach(sink, ring, from, to));
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0) {
            sink->is_stuck = true;
            sink->error = sent < 0 ? errno : EAGAIN;
            break;
        }
        settle(sink, ring, read, from + (uint64_t)sent);
        read = atomic_load_explicit(&ring->read, memory_order_relaxed);
        has_moved = true;
    }
    return has_moved;
}
