#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "log_parts.h"

enum {
    DEFAULT_LANE_BYTES = 256 * 1024,
    LEAST_LANE_BYTES = 4 * LOG_LINE_MAX,
    MESSAGE_MAX = 2048,
    ESCAPE_ROOM = 16 /* what is kept free for the end of a line that must be cut */
};

struct log the_log = { .level = LOG_LEVEL_INFO, .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local struct lane *my_lane;

static uint32_t lane_size(uint32_t wanted)
{
    uint32_t size = LEAST_LANE_BYTES;

    if (!wanted)
        wanted = DEFAULT_LANE_BYTES;
    while (size < wanted && size < 1u << 30)
        size *= 2;
    return size;
}

static void lanes_free(struct lane *lanes, unsigned count)
{
    for (unsigned i = 0; lanes && i < count; i++)
        for (unsigned kind = 0; kind < LANE_KINDS; kind++)
            ring_release(&lanes[i].rings[kind]);
    free(lanes);
}

static struct lane *lanes_new(unsigned count, uint32_t size)
{
    struct lane *lanes = aligned_alloc(64, count * sizeof *lanes);
    bool is_whole = lanes;

    if (!lanes)
        return NULL;
    memset(lanes, 0, count * sizeof *lanes);
    for (unsigned i = 0; i < count; i++) {
        is_whole &= ring_init(&lanes[i].rings[LANE_REQUESTS], size);
        is_whole &= ring_init(&lanes[i].rings[LANE_OWN], lane_size(size / 4));
    }
    if (is_whole)
        return lanes;
    lanes_free(lanes, count);
    return NULL;
}

/* Opens the file; fd -1 for stderr. */
static enum err open_requests(const char *file, struct sink *ret_sink, struct text *why)
{
    int fd = file ? log_file_open(file) : -1;

    *ret_sink = (struct sink){ .fd = -1 };
    if (file && fd < 0) {
        text_printf(why, "cannot open the log file %s: %s", file, strerror(errno));
        return ERR_SYSTEM;
    }
    if (file)
        sink_init(ret_sink, fd, true);
    return ERR_OK;
}

static enum err open_rest(const struct log_options *options, struct sink *requests, struct text *why)
{
    the_log.lane_count = options->lanes + 1;
    the_log.lanes = lanes_new(the_log.lane_count, lane_size(options->lane_bytes));
    the_log.wanted_file = options->file ? strdup(options->file) : NULL;
    if (!the_log.lanes || (options->file && !the_log.wanted_file)) {
        text_add_literal(why, "no memory for the log");
        return ERR_NO_MEMORY;
    }
    if (!writer_start(requests)) {
        text_add_literal(why, "cannot start the log's thread");
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

static void forget(void)
{
    lanes_free(the_log.lanes, the_log.lane_count);
    the_log.lanes = NULL;
    free(the_log.wanted_file);
    the_log.wanted_file = NULL;
}

enum err log_open(const struct log_options *options, struct text *why)
{
    struct sink requests;
    enum err err = open_requests(options->file, &requests, why);

    if (err)
        return err;
    atomic_store(&the_log.level, (int)options->level);
    atomic_store(&the_log.is_json, options->is_json);
    atomic_store(&the_log.is_one_file, !options->file);
    atomic_store(&the_log.is_closing, false);
    atomic_store(&the_log.wants_open, false);
    err = open_rest(options, &requests, why);
    if (err) {
        sink_close(&requests);
        forget();
        return err;
    }
    atomic_store(&the_log.is_open, true);
    return ERR_OK;
}

/* What could not be written out is dropped like any other line. */
static void count_left_over(void)
{
    for (unsigned i = 0; i < the_log.lane_count; i++) {
        const struct ring *ring = &the_log.lanes[i].rings[LANE_REQUESTS];
        uint64_t lines = ring_count_lines(ring, atomic_load(&ring->read), atomic_load(&ring->written));
        atomic_fetch_add(&the_log.dropped, lines);
    }
}

static bool lanes_are_given_back(void)
{
    for (unsigned i = 0; i < the_log.lane_count; i++)
        if (atomic_load(&the_log.lanes[i].is_taken))
            return false;
    return true;
}

void log_close(int64_t wait_ms)
{
    uint64_t dropped;
    bool has_ended;

    log_thread_stop();
    (void)pthread_mutex_lock(&the_log.lock);
    if (!atomic_exchange(&the_log.is_open, false)) {
        (void)pthread_mutex_unlock(&the_log.lock);
        return;
    }
    (void)pthread_mutex_unlock(&the_log.lock);
    has_ended = writer_stop(wait_ms);
    dropped = log_dropped();
    if (has_ended)
        count_left_over();
    if (log_dropped() != dropped)
        log_warn("the request log could not be written to its end: %llu lines were dropped",
                 (unsigned long long)(log_dropped() - dropped));
    /* A thread that never stopped may still write into its lane: better left than pulled away. */
    if (has_ended && lanes_are_given_back())
        forget();
}

static void ask_to_open(void)
{
    atomic_store(&the_log.wants_open, true);
    writer_wake();
}

void log_reopen(void)
{
    if (atomic_load(&the_log.is_open))
        ask_to_open();
}

static bool is_same_file(const char *file)
{
    if (!file || !the_log.wanted_file)
        return file == the_log.wanted_file;
    return strcmp(file, the_log.wanted_file) == 0;
}

void log_reconfigure(enum log_level level, bool is_json, const char *file)
{
    char *copy = file ? strdup(file) : NULL;
    bool is_same = false;

    atomic_store(&the_log.level, (int)level);
    atomic_store(&the_log.is_json, is_json);
    if (file && !copy) {
        log_error("no memory to change the log file, going on with the one that was open");
        return;
    }
    (void)pthread_mutex_lock(&the_log.lock);
    is_same = !atomic_load(&the_log.is_open) || is_same_file(file);
    if (!is_same) {
        free(the_log.wanted_file);
        the_log.wanted_file = copy;
        copy = NULL;
    }
    (void)pthread_mutex_unlock(&the_log.lock);
    free(copy);
    if (!is_same)
        ask_to_open();
}

void log_thread_start(void)
{
    if (my_lane || !atomic_load(&the_log.is_open))
        return;
    for (unsigned i = 1; i < the_log.lane_count; i++) {
        bool is_taken = false;
        if (atomic_compare_exchange_strong(&the_log.lanes[i].is_taken, &is_taken, true)) {
            my_lane = &the_log.lanes[i];
            return;
        }
    }
}

void log_thread_stop(void)
{
    if (my_lane)
        atomic_store(&my_lane->is_taken, false);
    my_lane = NULL;
}

/* Before the log is open and after it is closed. Not onto a pipe that nobody empties: that would hang the process. */
static bool write_directly(struct slice line)
{
    char whole[LOG_LINE_MAX];
    struct pollfd pollfd = { .fd = STDERR_FILENO, .events = POLLOUT };

    memcpy(whole, line.at, line.len);
    whole[line.len] = '\n';
    return poll(&pollfd, 1, 0) > 0 && write(STDERR_FILENO, whole, line.len + 1) == (ssize_t)line.len + 1;
}

static bool put_into(struct lane *lane, enum lane_kind kind, struct slice line)
{
    struct ring *ring = &lane->rings[kind == LANE_OWN && !atomic_load(&the_log.is_one_file) ? LANE_OWN : LANE_REQUESTS];

    if (!ring_put(ring, line))
        return false;
    writer_nudge(ring);
    return true;
}

static bool put(enum lane_kind kind, struct slice line)
{
    bool is_in, is_open = atomic_load_explicit(&the_log.is_open, memory_order_acquire);

    if (line.len >= LOG_LINE_MAX)
        line.len = LOG_LINE_MAX - 1;
    if (is_open && my_lane)
        return put_into(my_lane, kind, line);
    (void)pthread_mutex_lock(&the_log.lock);
    is_open = atomic_load(&the_log.is_open);
    is_in = is_open && put_into(&the_log.lanes[0], kind, line);
    (void)pthread_mutex_unlock(&the_log.lock);
    return is_open ? is_in : write_directly(line);
}

bool log_request_line(struct slice line)
{
    if (put(LANE_REQUESTS, line))
        return true;
    atomic_fetch_add_explicit(&the_log.dropped, 1, memory_order_relaxed);
    return false;
}

bool log_is_json(void)
{
    return atomic_load_explicit(&the_log.is_json, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&the_log.dropped, memory_order_relaxed);
}

static const struct {
    const char *loud, *quiet;
} level_names[] = {
    [LOG_LEVEL_DEBUG] = { "DEBUG", "debug" },
    [LOG_LEVEL_INFO] = { "INFO", "info" },
    [LOG_LEVEL_WARN] = { "WARN", "warn" },
    [LOG_LEVEL_ERROR] = { "ERROR", "error" },
};

/* Bytes of the character that `rest` begins with; 0: it is not UTF-8. */
static size_t character(struct slice rest)
{
    unsigned char first = (unsigned char)rest.at[0];
    size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    return len <= rest.len && utf8_valid((struct slice){ rest.at, len }) ? len : 0;
}

static void add_hex(struct text *out, const char *before, unsigned char byte)
{
    text_add_string(out, before);
    text_add_char(out, "0123456789abcdef"[byte >> 4]);
    text_add_char(out, "0123456789abcdef"[byte & 15]);
}

/* A control (C0, DEL, C1) or a byte that is not UTF-8, so that a line stays one line and a terminal stays as it was. */
static void add_odd(struct text *out, const char *at, size_t len, bool is_json)
{
    unsigned char byte = (unsigned char)at[len ? len - 1 : 0];

    if (*at == '\n' || *at == '\t')
        text_add_string(out, *at == '\n' ? "\\n" : "\\t");
    else if (is_json && !len)
        text_add_literal(out, "\\ufffd");
    else
        add_hex(out, is_json ? "\\u00" : "\\x", byte);
}

static bool is_control(const char *at, size_t len)
{
    unsigned char first = (unsigned char)at[0];

    return (len == 1 && (first < 0x20 || first == 0x7f)) || (len == 2 && first == 0xc2 && (unsigned char)at[1] < 0xa0);
}

static void add_message(struct text *out, struct slice message, bool is_json)
{
    while (message.len) {
        size_t len = character(message);
        if (out->max - out->len < ESCAPE_ROOM) {
            text_add_literal(out, "...");
            return;
        }
        if (len == 0 || is_control(message.at, len))
            add_odd(out, message.at, len, is_json);
        else {
            if (is_json && (*message.at == '"' || *message.at == '\\'))
                text_add_char(out, '\\');
            text_add(out, message.at, len);
        }
        message.at += len ? len : 1;
        message.len -= len ? len : 1;
    }
}

/* argv[0] is the starter's to choose, so it is cleaned as well. */
static void add_program(struct text *out)
{
    for (const char *at = program_invocation_short_name; *at && at - program_invocation_short_name < 64; at++)
        text_add_char(out, *at > ' ' && *at < 0x7f ? *at : '_');
}

static void add_line(struct text *out, enum log_level level, struct slice message, bool is_json)
{
    text_add_string(out, is_json ? "{\"time\":\"" : "- - ");
    clock_add_wall(out, clock_wall_ms());
    if (is_json) {
        text_add_literal(out, "\",\"level\":\"");
        text_add_string(out, level_names[level].quiet);
        text_add_literal(out, "\",\"message\":\"");
        add_message(out, message, true);
        text_add_literal(out, "\"}");
        return;
    }
    text_add_literal(out, " req=- key=- ");
    text_add_string(out, level_names[level].loud);
    text_add_char(out, ' ');
    add_program(out);
    text_add_literal(out, " - ");
    add_message(out, message, false);
}

void log_say(enum log_level level, const char *format, ...)
{
    char message[MESSAGE_MAX] __attribute__((uninitialized)); /* both are written before they are read */
    char memory[LOG_LINE_MAX] __attribute__((uninitialized));
    /* On the stack: with max set to its room it never grows. */
    struct text line = { .at = memory, .room = sizeof memory, .max = sizeof memory - 1 };
    va_list args;
    int len;

    if ((int)level < atomic_load_explicit(&the_log.level, memory_order_relaxed))
        return;
    va_start(args, format);
    len = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (len < 0)
        return;
    add_line(&line, level, (struct slice){ message, (size_t)len < sizeof message ? (size_t)len : sizeof message - 1 },
             log_is_json());
    if (!put(LANE_OWN, text_slice(&line)))
        atomic_fetch_add_explicit(&the_log.dropped_own, 1, memory_order_relaxed);
}
