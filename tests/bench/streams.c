/*
 * Streams of numbered pieces (" r0", " r1" …) from a paced backend, as server-sent events or as Ollama's lines: each
 * line that holds "content":" rN" is looked at, and N must be the one after the last.
 *
 * They start evenly over spread_ms, so that their pieces do not come in step. The cost is taken while all of them run:
 * from when the last has its first piece until the first has its last.
 */
#include "load.h"
#include "reply.h"
#include "spread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 512, SCRATCH_BYTES = 64 << 10, LINE_BYTES = 1024, STALL_US = 20000000 };

struct stream {
    int fd;
    bool is_over, has_end; /* has_end: the last line of a whole answer came */
    unsigned next;         /* number of the piece that must come */
    size_t sent, line_bytes;
    uint64_t asked_us, piece_us;
    struct reply reply;
    char line[LINE_BYTES]; /* the beginning of one that has not come whole */
};

static struct spread first, gaps;
static struct {
    uint64_t tokens, lost, doubled, reordered, failed;
    unsigned started, over; /* streams with a first piece; streams that ended */
    uint64_t now_us;
} books;
static char scratch[SCRATCH_BYTES];
static const struct load *asked;

static void take_piece(struct stream *stream, unsigned number)
{
    books.tokens++;
    if (stream->next == 0) {
        books.started++;
        spread_add(&first, books.now_us - stream->asked_us);
    } else {
        spread_add(&gaps, books.now_us - stream->piece_us);
    }
    stream->piece_us = books.now_us;
    if (number > stream->next)
        books.lost += number - stream->next;
    else if (number + 1 == stream->next)
        books.doubled++;
    else if (number < stream->next)
        books.reordered++;
    if (number >= stream->next)
        stream->next = number + 1;
}

static void take_line(struct stream *stream, const char *at, size_t bytes)
{
    static const char mark[] = "\"content\":\"";
    const char *found = memmem(at, bytes, mark, sizeof mark - 1);
    const char *end = at + bytes;

    if (found) {
        found += sizeof mark - 1;
        while (end - found > 2 && found[0] == ' ' && found[1] == 'r') {
            unsigned number = 0;
            for (found += 2; found < end && *found >= '0' && *found <= '9'; found++)
                number = number * 10 + (unsigned)(*found - '0');
            take_piece(stream, number);
        }
    }
    if (stream->next == asked->tokens &&
        (memmem(at, bytes, "data: [DONE]", 12) || memmem(at, bytes, "\"done\":true", 11)))
        stream->has_end = true;
}

static void on_payload(void *arg, const char *at, size_t bytes)
{
    struct stream *stream = arg;
    const char *end;

    while ((end = memchr(at, '\n', bytes))) {
        size_t length = (size_t)(end - at);

        if (stream->line_bytes) {
            size_t more = length < LINE_BYTES - stream->line_bytes ? length : LINE_BYTES - stream->line_bytes;
            memcpy(stream->line + stream->line_bytes, at, more);
            take_line(stream, stream->line, stream->line_bytes + more);
            stream->line_bytes = 0;
        } else if (length) {
            take_line(stream, at, length);
        }
        at = end + 1;
        bytes -= length + 1;
    }
    if (bytes > LINE_BYTES - stream->line_bytes)
        bytes = LINE_BYTES - stream->line_bytes;
    memcpy(stream->line + stream->line_bytes, at, bytes);
    stream->line_bytes += bytes;
}

static void end_stream(struct stream *stream)
{
    stream->is_over = true;
    books.over++;
    books.failed += !stream->has_end || stream->reply.status != asked->expects;
    if (stream->next < asked->tokens)
        books.lost += asked->tokens - stream->next;
    (void)close(stream->fd);
}

static void send_more(struct stream *stream)
{
    while (stream->sent < asked->request_bytes) {
        ssize_t sent =
            send(stream->fd, asked->request + stream->sent, asked->request_bytes - stream->sent, MSG_NOSIGNAL);

        if (sent <= 0)
            return;
        stream->sent += (size_t)sent;
    }
}

static void read_more(struct stream *stream)
{
    while (!stream->is_over) {
        ssize_t got = read(stream->fd, scratch, sizeof scratch);

        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        books.now_us = load_now_us();
        if (got > 0)
            (void)reply_feed(&stream->reply, scratch, (size_t)got, on_payload, stream);
        if (got <= 0 || stream->reply.state == REPLY_DONE || stream->reply.state == REPLY_BAD)
            end_stream(stream);
        else if ((size_t)got < sizeof scratch)
            return;
    }
}

static uint64_t start_of(const struct load *load, unsigned index, uint64_t begin_us)
{
    return begin_us + load->spread_ms * 1000ull * index / load->connections;
}

static void wait_and_serve(struct load *load, uint64_t until_us)
{
    struct epoll_event events[EVENTS];
    int count = load_wait(load, events, EVENTS, until_us);

    for (int i = 0; i < count; i++) {
        struct stream *stream = events[i].data.ptr;

        if ((events[i].events & EPOLLOUT) && stream->sent < load->request_bytes)
            send_more(stream);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
            read_more(stream);
    }
}

/* `grown_bytes` and `tokens`: of the span in which all ran; `streams_measured` is 0 when there was none. */
static void print(const struct watch looks[2], int64_t grown_bytes, uint64_t tokens, const struct load *load)
{
    printf("{\"streams\":%u,\"tokens\":%llu,\"lost\":%llu,\"doubled\":%llu,\"reordered\":%llu,\"failed\":%llu,"
           "\"first_p50_us\":%.1f,\"gap_p999_us\":%.1f,",
           load->connections, (unsigned long long)books.tokens, (unsigned long long)books.lost,
           (unsigned long long)books.doubled, (unsigned long long)books.reordered, (unsigned long long)books.failed,
           spread_at(&first, 0.5), spread_at(&gaps, 0.999));
    printf("\"streams_measured\":%u,\"tokens_measured\":%llu,\"grown_bytes\":%lld,",
           looks[1].at_us > looks[0].at_us ? load->connections : 0, (unsigned long long)tokens, (long long)grown_bytes);
    load_print_cost(&looks[0], &looks[1]);
    printf(",\"firsts\":");
    spread_print(&first);
    printf(",\"gaps\":");
    spread_print(&gaps);
    printf("}\n");
}

static void run(struct load *load, struct stream *streams)
{
    struct watch looks[2] = { 0 }; /* all have begun; the first has ended */
    struct watch_memory before = watch_memory(load->pid), then = before;
    uint64_t begin_us = load_now_us(), last_us = begin_us, tokens_before = 0, tokens_then = 0, seen = 0;
    unsigned opened = 0;
    bool is_measuring = false, has_measured = false;

    while (books.over < load->connections && load_now_us() - last_us < STALL_US) {
        for (; opened < load->connections && start_of(load, opened, begin_us) <= load_now_us(); opened++) {
            streams[opened].asked_us = load_now_us();
            streams[opened].fd = load_connect(load, &streams[opened]);
        }
        wait_and_serve(load, opened < load->connections ? start_of(load, opened, begin_us) : load_now_us() + 100000);
        if (!is_measuring && books.started == load->connections && !books.over) {
            is_measuring = true;
            looks[0] = watch_look(load->pid, load->backend_pid);
            tokens_before = books.tokens;
        }
        if (is_measuring && !has_measured && books.over) {
            has_measured = true;
            looks[1] = watch_look(load->pid, load->backend_pid);
            tokens_then = books.tokens;
            then = watch_memory(load->pid);
        }
        if (books.tokens + books.over != seen) {
            seen = books.tokens + books.over;
            last_us = load_now_us();
        }
    }
    books.failed += load->connections - books.over;
    if (!has_measured) {
        looks[1] = looks[0];
        tokens_then = tokens_before;
    }
    print(looks, (int64_t)(then.resident_bytes - before.resident_bytes), tokens_then - tokens_before, load);
}

int load_streams(struct load *load)
{
    struct stream *streams = calloc(load->connections, sizeof *streams);

    if (!streams)
        return EXIT_FAILURE;
    asked = load;
    run(load, streams);
    free(streams);
    return EXIT_SUCCESS;
}
