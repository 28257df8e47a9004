/*
 * log - lines out of the process without ever blocking a loop. Each thread that logs owns a lane: a ring of bytes
 * (one writer, one reader, no lock); one thread of the log's own empties the lanes into the files. A line that does not
 * fit is dropped and counted. Two outputs: request lines go to the request log (stderr or a file), the
 * daemon's own lines to stderr.
 * Before log_open() and after log_close() lines are written to stderr directly; the process ignores SIGPIPE.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log_options {
    enum log_level level;
    bool is_json;
    const char *file;    /* request lines; NULL: stderr */
    unsigned lanes;      /* threads that will call log_thread_start() */
    uint32_t lane_bytes; /* a power of two; 256 KiB a lane is the default when 0 */
};

/* Opens the file (append, 0640) and starts the thread. ERR_SYSTEM with a sentence. */
enum err log_open(const struct log_options *options, struct text *why);
/* Writes out what is in the lanes (waiting at most wait_ms for a stuck file), ends the thread, closes. Lines after it:
 * stderr. */
void log_close(int64_t wait_ms);
/* After a rotation: opens the file anew by its name (asynchronously, on the log's thread; failing keeps the old one
 * and says so). */
void log_reopen(void);
/* After a reload. A changed file is opened like log_reopen(). */
void log_reconfigure(enum log_level level, bool is_json, const char *file);

/* Gives the calling thread its lane, and back: every thread has stopped before log_close(), which does it for its
 * caller. Threads without a lane log with a lock and never block on it for longer than a copy. */
void log_thread_start(void);
void log_thread_stop(void);

/* A line with its newline is at most this long; longer ones are cut. */
enum { LOG_LINE_MAX = 4096 };

/* One request line, without its newline. False: dropped (and counted). */
bool log_request_line(struct slice line);
bool log_is_json(void);
/* Request lines dropped since the start. After log_close() also those that could not be written any more (on stderr,
 * where both kinds wait in one place, the daemon's own among them). */
uint64_t log_dropped(void);

/*
 * The daemon's own lines. What happened and what we do now, one sentence, no secrets.
 * Text form (eight fixed fields, so that awk on the request log is not misled):
 *     - - 2026-11-22T09:30:00.123Z req=- key=- WARN qwen-gateway - backend ollama does not answer, callers get 503
 * JSON: {"time":...,"level":"warn","message":...}
 */
COLD void log_say(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_debug(...) log_say(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_say(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_say(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_say(LOG_LEVEL_ERROR, __VA_ARGS__)
