#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "log.h"

enum { PATIENCE_MS = 20000, CLOSE_MS = 5000 };

/* A folder of its own, and stderr kept aside: what the daemon says goes to a file there. */
struct place {
    char folder[64], file[96], other[96], said[96];
};

static struct place left; /* by a test that failed */
static int stderr_before = -1;

static void point_stderr_at(int fd)
{
    (void)fflush(stderr);
    (void)dup2(fd, STDERR_FILENO);
}

static void stderr_back(void)
{
    if (stderr_before < 0)
        return;
    point_stderr_at(stderr_before);
    (void)close(stderr_before);
    stderr_before = -1;
}

static void place_close(struct place *place)
{
    stderr_back();
    (void)unlink(place->file);
    (void)unlink(place->other);
    (void)unlink(place->said);
    (void)rmdir(place->folder);
    left = (struct place){ 0 };
}

/* A failed test's complaint went where stderr pointed. */
static void clean_up(void)
{
    char line[1024];
    FILE *said;

    if (!left.folder[0])
        return;
    log_close(0);
    stderr_back();
    said = fopen(left.said, "re");
    while (said && fgets(line, sizeof line, said))
        (void)fputs(line, stderr);
    if (said)
        (void)fclose(said);
    place_close(&left);
}

__attribute__((constructor)) static void prepare(void)
{
    (void)atexit(clean_up);
    (void)signal(SIGPIPE, SIG_IGN); /* as the daemon does */
}

static struct place place_open(void)
{
    struct place place = { 0 };
    int fd;

    clean_up();
    (void)snprintf(place.folder, sizeof place.folder, "/tmp/qg-log-XXXXXX");
    if (!mkdtemp(place.folder))
        abort();
    (void)snprintf(place.file, sizeof place.file, "%s/requests.log", place.folder);
    (void)snprintf(place.other, sizeof place.other, "%s/other.log", place.folder);
    (void)snprintf(place.said, sizeof place.said, "%s/said.log", place.folder);
    stderr_before = dup(STDERR_FILENO);
    fd = open(place.said, O_WRONLY | O_CREAT | O_APPEND, 0600);
    point_stderr_at(fd);
    (void)close(fd);
    left = place;
    return place;
}

/* To be freed; ended by NUL. */
static char *contents(const char *file)
{
    struct stat stat_of = { 0 };
    int fd = open(file, O_RDONLY | O_NONBLOCK);
    size_t room, len = 0;
    ssize_t got;
    char *text;

    (void)fstat(fd, &stat_of);
    room = (size_t)stat_of.st_size + (1 << 20);
    text = malloc(room + 1);
    while (fd >= 0 && len < room && (got = read(fd, text + len, room - len)) > 0)
        len += (size_t)got;
    text[len] = 0;
    if (fd >= 0)
        (void)close(fd);
    return text;
}

static unsigned occurrences(const char *text, const char *part)
{
    unsigned count = 0;

    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

static unsigned occurrences_in(const char *file, const char *part)
{
    char *text = contents(file);
    unsigned count = occurrences(text, part);

    free(text);
    return count;
}

static bool comes_to_hold(const char *file, const char *part)
{
    int64_t until_ms = clock_ms() + PATIENCE_MS;

    while (!occurrences_in(file, part)) {
        if (clock_ms() > until_ms)
            return false;
        (void)usleep(1000);
    }
    return true;
}

static bool comes_to_be(const char *file)
{
    int64_t until_ms = clock_ms() + PATIENCE_MS;

    while (access(file, F_OK)) {
        if (clock_ms() > until_ms)
            return false;
        (void)usleep(1000);
    }
    return true;
}

static bool opens(const char *file, uint32_t lane_bytes, unsigned lanes)
{
    struct log_options options = { .level = LOG_LEVEL_INFO, .file = file, .lane_bytes = lane_bytes, .lanes = lanes };
    struct text why;
    enum err err;

    text_init(&why, 1000);
    err = log_open(&options, &why);
    text_release(&why);
    return err == ERR_OK;
}

/* "thread T line N xxxx...", whole and in order for each thread; -1 if not, else how many. */
enum { WRITERS = 4 };

static bool put_line(unsigned thread, unsigned number)
{
    char line[256];
    int len =
        snprintf(line, sizeof line, "thread %u line %u %.*s", thread, number, (int)(number * 7 % 150),
                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    return log_request_line((struct slice){ line, (size_t)len });
}

static bool passes(char **at, const char *wanted)
{
    if (strncmp(*at, wanted, strlen(wanted)) != 0)
        return false;
    *at += strlen(wanted);
    return true;
}

static long good_lines(char *text)
{
    unsigned long next[WRITERS] = { 0 };
    long count = 0;

    while (*text) {
        unsigned long thread = WRITERS, number = 0;
        size_t filling;
        if (passes(&text, "thread "))
            thread = strtoul(text, &text, 10);
        if (thread >= WRITERS || !passes(&text, " line "))
            return -1;
        number = strtoul(text, &text, 10);
        if (number < next[thread] || !passes(&text, " "))
            return -1;
        filling = strspn(text, "x");
        if (filling != number * 7 % 150 || text[filling] != '\n')
            return -1;
        next[thread] = number + 1;
        count++;
        text += filling + 1;
    }
    return count;
}

static long good_lines_in(const char *file)
{
    char *text = contents(file);
    long count = good_lines(text);

    free(text);
    return count;
}

TEST(a_line_is_in_the_file_soon_and_whole)
{
    struct place place = place_open();

    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    CHECK(log_request_line(SLICE("one line")));
    CHECK(comes_to_hold(place.file, "one line\n"));
    CHECK(log_request_line(SLICE("another")));
    CHECK(comes_to_hold(place.file, "one line\nanother\n"));
    log_close(CLOSE_MS);
    CHECK_EQ(log_dropped(), 0);
    place_close(&place);
}

TEST(a_line_after_a_long_silence_wakes_the_writer)
{
    struct place place = place_open();
    int64_t asleep_ms;

    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    for (unsigned i = 0; i < 20; i++) {
        char line[32];
        (void)snprintf(line, sizeof line, "line %u.", i);
        (void)usleep(i * 5000); /* from awake to deep asleep */
        asleep_ms = clock_ms();
        CHECK(log_request_line(slice_of(line)));
        CHECK(comes_to_hold(place.file, line));
        CHECK(clock_ms() - asleep_ms < 5000);
    }
    log_close(CLOSE_MS);
    place_close(&place);
}

TEST(closing_writes_out_everything)
{
    struct place place = place_open();
    unsigned put = 0;

    CHECK(opens(place.file, 1 << 20, 1));
    log_thread_start();
    for (unsigned i = 0; i < 5000; i++)
        put += put_line(0, i);
    log_close(CLOSE_MS);
    CHECK_EQ(put, 5000);
    CHECK_EQ(good_lines_in(place.file), 5000);
    place_close(&place);
}

TEST(a_file_is_appended_to_and_not_for_everybody_to_read)
{
    struct place place = place_open();
    struct stat stat_of;

    CHECK(opens(place.file, 0, 1));
    CHECK(put_line(0, 1)); /* without a lane */
    log_close(CLOSE_MS);
    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    CHECK(put_line(0, 2));
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), 2);
    CHECK_EQ(stat(place.file, &stat_of), 0);
    CHECK_EQ(stat_of.st_mode & 0007, 0);
    place_close(&place);
}

TEST(a_file_that_cannot_be_opened_is_an_error_with_a_sentence)
{
    struct log_options options = { .file = "/nowhere/at/all.log" };
    struct text why;

    text_init(&why, 1000);
    CHECK_EQ(log_open(&options, &why), ERR_SYSTEM);
    CHECK_STR(why.at, why.len, "cannot open the log file /nowhere/at/all.log: No such file or directory");
    text_release(&why);
    log_close(0); /* harmless */
}

TEST(a_line_that_is_too_long_is_cut)
{
    struct place place = place_open();
    char *line = malloc(3 * LOG_LINE_MAX);
    struct stat stat_of;

    memset(line, 'x', 3 * LOG_LINE_MAX);
    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    CHECK(log_request_line((struct slice){ line, 3 * LOG_LINE_MAX }));
    log_close(CLOSE_MS);
    CHECK_EQ(stat(place.file, &stat_of), 0);
    CHECK_EQ(stat_of.st_size, LOG_LINE_MAX);
    CHECK_EQ(occurrences_in(place.file, "x\n"), 1);
    free(line);
    place_close(&place);
}

TEST(after_a_rotation_lines_go_to_the_new_file)
{
    struct place place = place_open();

    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    CHECK(put_line(0, 1));
    CHECK(comes_to_hold(place.file, "line 1 "));
    CHECK_EQ(rename(place.file, place.other), 0);
    CHECK(put_line(0, 2));
    CHECK(comes_to_hold(place.other, "line 2 "));
    log_reopen();
    CHECK(comes_to_be(place.file));
    CHECK(put_line(0, 3));
    CHECK(comes_to_hold(place.file, "line 3 "));
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), 1);
    CHECK_EQ(good_lines_in(place.other), 2);
    place_close(&place);
}

TEST(when_the_new_file_cannot_be_opened_the_old_one_stays)
{
    struct place place = place_open();

    CHECK(opens(place.file, 0, 1));
    log_thread_start();
    log_reconfigure(LOG_LEVEL_INFO, false, "/nowhere/at/all.log");
    CHECK(comes_to_hold(place.said,
                        "cannot open the log file /nowhere/at/all.log (No such file or directory), going on"));
    CHECK(put_line(0, 1));
    CHECK(comes_to_hold(place.file, "line 1 "));
    log_close(CLOSE_MS);
    place_close(&place);
}

TEST(a_reload_moves_lines_between_stderr_and_a_file)
{
    struct place place = place_open();

    CHECK(opens(NULL, 0, 1));
    log_thread_start();
    CHECK(put_line(0, 1));
    log_info("between");
    CHECK(put_line(0, 2));
    CHECK(comes_to_hold(place.said, "line 2 "));
    log_reconfigure(LOG_LEVEL_INFO, false, place.file);
    CHECK(comes_to_be(place.file));
    CHECK(put_line(0, 3));
    CHECK(comes_to_hold(place.file, "line 3 "));
    log_reconfigure(LOG_LEVEL_INFO, true, NULL);
    CHECK(log_is_json());
    for (unsigned i = 4; !occurrences_in(place.said, "thread 0 line 9"); i = i < 9 ? i + 1 : 9)
        CHECK(put_line(0, i));
    log_close(CLOSE_MS);
    CHECK_EQ(occurrences_in(place.said, "line 3 "), 0);
    CHECK_EQ(occurrences_in(place.file, "line 1 "), 0);
    place_close(&place);
}

TEST(on_stderr_the_daemons_lines_keep_their_place_among_the_requests)
{
    struct place place = place_open();
    char *text;

    CHECK(opens(NULL, 0, 1));
    log_thread_start();
    CHECK(log_request_line(SLICE("first")));
    log_info("second");
    CHECK(log_request_line(SLICE("third")));
    log_close(CLOSE_MS);
    text = contents(place.said);
    CHECK(strncmp(text, "first\n- - ", 10) == 0);
    CHECK(strstr(text, "second\nthird\n"));
    free(text);
    place_close(&place);
}

/* --- what will not take lines --- */

static unsigned put_until_dropped(unsigned first)
{
    uint64_t dropped = log_dropped();
    unsigned number = first;

    while (log_dropped() < dropped + 100)
        (void)put_line(0, number++);
    return number;
}

TEST(a_stuck_pipe_never_blocks_and_what_is_dropped_is_counted)
{
    struct place place = place_open();
    uint64_t dropped = log_dropped();
    char *text = malloc((1 << 22) + 1);
    size_t len = 0;
    unsigned put;
    int reader;

    CHECK_EQ(mkfifo(place.file, 0600), 0);
    reader = open(place.file, O_RDONLY | O_NONBLOCK);
    CHECK(opens(place.file, 16384, 1));
    log_thread_start();
    put = put_until_dropped(0); /* would never end if a line could block */
    CHECK(comes_to_hold(place.said, "not taken fast enough: lines that find no room are dropped and counted"));
    put = put_until_dropped(put);
    for (bool is_over = false; !is_over;) {
        ssize_t got = read(reader, text + len, (1 << 22) - len);
        len += got > 0 ? (size_t)got : 0;
        is_over = got <= 0 && occurrences_in(place.said, "the request log is written again");
    }
    CHECK(put_line(0, put++));
    log_close(CLOSE_MS);
    while (true) {
        ssize_t got = read(reader, text + len, (1 << 22) - len);
        if (got <= 0)
            break;
        len += (size_t)got;
    }
    text[len] = 0;
    CHECK_EQ(good_lines(text), put - (log_dropped() - dropped));
    CHECK_EQ(occurrences_in(place.said, "not taken fast enough"), 1);
    CHECK_EQ(occurrences_in(place.said, "is written again"), 1);
    (void)close(reader);
    free(text);
    place_close(&place);
}

TEST(a_reader_that_goes_away_kills_nobody)
{
    struct place place = place_open();
    uint64_t dropped = log_dropped();
    unsigned put;
    int reader;

    CHECK_EQ(mkfifo(place.file, 0600), 0);
    reader = open(place.file, O_RDONLY | O_NONBLOCK);
    CHECK(opens(place.file, 16384, 1));
    log_thread_start();
    (void)close(reader);
    put = put_until_dropped(0);
    CHECK(comes_to_hold(place.said, "the request log cannot be written (Broken pipe)"));
    log_close(100);
    CHECK_EQ(log_dropped() - dropped, put);
    CHECK_EQ(occurrences_in(place.said, "cannot be written"), 1);
    CHECK_EQ(occurrences_in(place.said, "could not be written to its end"), 1);
    place_close(&place);
}

TEST(a_full_disk_is_said_once_and_lines_that_waited_are_written_elsewhere)
{
    struct place place = place_open();
    uint64_t dropped = log_dropped();
    unsigned put;

    CHECK(opens("/dev/full", 16384, 1));
    log_thread_start();
    put = put_until_dropped(0);
    CHECK(comes_to_hold(place.said, "the request log cannot be written (No space left on device)"));
    log_reconfigure(LOG_LEVEL_INFO, false, place.file);
    CHECK(comes_to_hold(place.said, "the request log is written again; "));
    CHECK(put_line(0, put++));
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), put - (log_dropped() - dropped));
    CHECK_EQ(occurrences_in(place.said, "cannot be written"), 1);
    place_close(&place);
}

/* A limit on the size of files breaks a write in the middle of a line, as a disk that fills up does. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;

    (void)getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    (void)setrlimit(RLIMIT_FSIZE, &limit);
}

TEST(a_line_written_in_part_is_completed_when_there_is_room_again)
{
    struct place place = place_open();
    unsigned put = 0;
    struct stat stat_of;

    CHECK(opens(place.file, 1 << 20, 1));
    log_thread_start();
    limit_files(50021);
    for (; put < 1000; put++)
        CHECK(put_line(0, put));
    CHECK(comes_to_hold(place.said, "the request log cannot be written (File too large)"));
    CHECK_EQ(stat(place.file, &stat_of), 0);
    CHECK_EQ(stat_of.st_size, 50021);
    limit_files(RLIM_INFINITY);
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), put);
    place_close(&place);
}

TEST(a_line_written_in_part_begins_anew_in_a_file_that_was_emptied)
{
    struct place place = place_open();
    unsigned put = 0;
    long lines;

    CHECK(opens(place.file, 1 << 20, 1));
    log_thread_start();
    limit_files(50021);
    for (; put < 1000; put++)
        CHECK(put_line(0, put));
    CHECK(comes_to_hold(place.said, "the request log cannot be written (File too large)"));
    lines = (long)occurrences_in(place.file, "\n");
    CHECK_EQ(truncate(place.file, 0), 0);
    limit_files(RLIM_INFINITY);
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), put - lines);
    place_close(&place);
}

TEST(a_line_written_in_part_begins_anew_in_another_file)
{
    struct place place = place_open();
    unsigned put = 0;
    long lines;

    CHECK(opens(place.file, 1 << 20, 1));
    log_thread_start();
    limit_files(50021);
    for (; put < 1000; put++)
        CHECK(put_line(0, put));
    CHECK(comes_to_hold(place.said, "the request log cannot be written (File too large)"));
    lines = (long)occurrences_in(place.file, "\n");
    CHECK_EQ(rename(place.file, place.other), 0);
    log_reopen();
    CHECK(comes_to_be(place.file));
    limit_files(RLIM_INFINITY);
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), put - lines);
    place_close(&place);
}

TEST(a_stderr_that_nobody_reads_blocks_neither_lines_nor_the_end)
{
    struct place place = place_open();
    uint64_t dropped = log_dropped();
    int ends[2];
    unsigned put;
    int64_t began_ms;

    CHECK_EQ(pipe(ends), 0);
    point_stderr_at(ends[1]);
    CHECK(opens(NULL, 16384, 1));
    log_thread_start();
    put = put_until_dropped(0);
    for (unsigned i = 0; i < 1000; i++)
        log_warn("nor the daemon's own, number %u", i);
    log_reconfigure(LOG_LEVEL_INFO, false, place.file); /* the writer itself is not stuck */
    CHECK(comes_to_hold(place.file, "\n"));
    log_reconfigure(LOG_LEVEL_INFO, false, NULL);
    put = put_until_dropped(put);
    began_ms = clock_ms();
    log_close(100);
    CHECK(clock_ms() - began_ms < 10000);
    log_warn("nor this one, after the end");
    stderr_back();
    CHECK(log_dropped() - dropped >= 100);
    CHECK(put >= 100);
    (void)close(ends[0]);
    (void)close(ends[1]);
    place_close(&place);
}

TEST(a_socket_for_stderr_as_the_journal_gives_is_written_without_blocking)
{
    struct place place = place_open();
    uint64_t dropped = log_dropped();
    int ends[2];
    unsigned put;

    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    point_stderr_at(ends[1]);
    CHECK(opens(NULL, 16384, 1));
    log_thread_start();
    put = put_until_dropped(0);
    log_reconfigure(LOG_LEVEL_INFO, false, place.file); /* the writer itself is not stuck */
    CHECK(comes_to_hold(place.file, "\n"));
    log_reconfigure(LOG_LEVEL_INFO, false, NULL);
    put = put_until_dropped(put);
    (void)close(ends[0]);
    log_close(100);
    stderr_back();
    CHECK(put >= 100);
    CHECK(log_dropped() - dropped >= 100);
    (void)close(ends[1]);
    place_close(&place);
}

TEST(a_stuck_request_log_does_not_hold_up_the_daemons_lines)
{
    struct place place = place_open();
    int reader;

    CHECK_EQ(mkfifo(place.file, 0600), 0);
    reader = open(place.file, O_RDONLY | O_NONBLOCK);
    CHECK(opens(place.file, 16384, 1));
    log_thread_start();
    (void)put_until_dropped(0);
    log_info("the daemon goes on");
    CHECK(comes_to_hold(place.said, "the daemon goes on"));
    log_close(10);
    (void)close(reader);
    place_close(&place);
}

/* --- threads --- */

enum { EACH = 20000 };

static _Atomic unsigned running;

static void *write_many(void *number)
{
    unsigned thread = (unsigned)(uintptr_t)number;

    if (thread != WRITERS - 1) /* the last one goes without a lane */
        log_thread_start();
    for (unsigned i = 0; i < EACH; i++) {
        (void)put_line(thread, i);
        if (i % 1000 == 0)
            log_info("thread %u says %u", thread, i);
    }
    log_thread_stop();
    atomic_fetch_sub(&running, 1);
    return NULL;
}

TEST(lines_of_four_threads_and_dropped_ones_add_up_while_the_file_is_reopened)
{
    struct place place = place_open();
    pthread_t threads[WRITERS];
    uint64_t dropped = log_dropped();

    CHECK(opens(place.file, 65536, WRITERS - 1));
    atomic_store(&running, WRITERS);
    for (uintptr_t i = 0; i < WRITERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, write_many, (void *)i), 0);
    while (atomic_load(&running)) {
        log_reopen();
        log_reconfigure(LOG_LEVEL_INFO, false, place.file);
        (void)sched_yield();
    }
    for (unsigned i = 0; i < WRITERS; i++)
        (void)pthread_join(threads[i], NULL);
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), WRITERS * EACH - (log_dropped() - dropped));
    CHECK_EQ(occurrences_in(place.said, " says "), WRITERS * (EACH / 1000));
    place_close(&place);
}

static void *write_some(void *number)
{
    unsigned first = (unsigned)(uintptr_t)number;

    log_thread_start();
    for (unsigned i = first; i < first + 100; i++)
        (void)put_line(0, i);
    log_thread_stop();
    return NULL;
}

TEST(a_lane_serves_one_thread_after_another)
{
    struct place place = place_open();

    CHECK(opens(place.file, 65536, 1));
    for (uintptr_t i = 0; i < 50; i++) {
        pthread_t thread;
        char last[32];
        CHECK_EQ(pthread_create(&thread, NULL, write_some, (void *)(i * 100)), 0);
        (void)pthread_join(thread, NULL);
        (void)snprintf(last, sizeof last, "line %u ", (unsigned)i * 100 + 99);
        CHECK(comes_to_hold(place.file, last));
    }
    log_close(CLOSE_MS);
    CHECK_EQ(good_lines_in(place.file), 5000);
    place_close(&place);
}
