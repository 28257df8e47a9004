#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "log.h"

/* What was said in between, with the time taken out: "- - TIME req=...". To be freed. */
static int stderr_before, heard;

static void listen(void)
{
    char file[] = "/tmp/qg-say-XXXXXX";

    (void)fflush(stderr);
    stderr_before = dup(STDERR_FILENO);
    heard = mkstemp(file);
    (void)unlink(file);
    (void)dup2(heard, STDERR_FILENO);
}

static char *what_was_said(void)
{
    char *text = calloc(1, 1 << 16);
    ssize_t len = pread(heard, text, (1 << 16) - 1, 0);
    char *time = strstr(text, "20");

    (void)dup2(stderr_before, STDERR_FILENO);
    (void)close(stderr_before);
    (void)close(heard);
    if (len > 0 && time && time[10] == 'T' && time[23] == 'Z') {
        memcpy(time, "TIME", 4);
        memmove(time + 4, time + 24, strlen(time + 24) + 1);
    }
    return text;
}

static void open_quietly(bool is_json, enum log_level level)
{
    struct log_options options = { .level = level, .is_json = is_json };
    struct text why;

    text_init(&why, 1000);
    if (log_open(&options, &why))
        abort();
    text_release(&why);
}

TEST(a_daemons_line_has_eight_fields_before_its_sentence)
{
    char *said;

    listen();
    log_warn("backend %s does not answer, callers get %d", "ollama", 503);
    said = what_was_said();
    CHECK_STR(said, strlen(said),
              "- - TIME req=- key=- WARN test_log - backend ollama does not answer, callers get 503\n");
    free(said);
}

TEST(below_the_level_nothing_is_said)
{
    char *said;

    listen();
    open_quietly(false, LOG_LEVEL_WARN);
    log_debug("no");
    log_info("no");
    log_error("yes");
    log_reconfigure(LOG_LEVEL_ERROR, false, NULL);
    log_warn("no");
    log_reconfigure(LOG_LEVEL_INFO, false, NULL);
    log_debug("no");
    log_close(5000);
    said = what_was_said();
    CHECK_STR(said, strlen(said), "- - TIME req=- key=- ERROR test_log - yes\n");
    free(said);
}

TEST(what_others_wrote_stays_on_one_line)
{
    static const struct {
        const char *name, *message, *text, *json;
    } rows[] = {
        { "newline", "a\nb\r\tc", "a\\nb\\x0d\\tc", "a\\nb\\u000d\\tc" },
        { "escape sequence", "a\x1b[31mb\x7f", "a\\x1b[31mb\\x7f", "a\\u001b[31mb\\u007f" },
        { "C1 control", "a\xc2\x85z", "a\\x85z", "a\\u0085z" },
        { "not UTF-8", "a\xff\xc3", "a\\xff\\xc3", "a\\ufffd\\ufffd" },
        { "letters of the world", "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80",
          "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80", "gr\xc3\xbc\xc3\x9f \xe4\xbd\xa0 \xf0\x9f\x98\x80" },
        { "quotes", "say \"a\\b\"", "say \"a\\b\"", "say \\\"a\\\\b\\\"" },
    };

    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        bool is_json = i % 2;
        char wanted[256];
        char *said;
        (void)snprintf(wanted, sizeof wanted,
                       is_json ? "{\"time\":\"TIME\",\"level\":\"info\",\"message\":\"%s\"}\n"
                               : "- - TIME req=- key=- INFO test_log - %s\n",
                       is_json ? rows[i / 2].json : rows[i / 2].text);
        listen();
        open_quietly(is_json, LOG_LEVEL_INFO);
        log_info("%s", rows[i / 2].message);
        log_close(5000);
        said = what_was_said();
        CHECK_STR(said, strlen(said), wanted);
        free(said);
    }
}

TEST(a_sentence_without_end_is_cut_and_json_stays_json)
{
    char *endless = malloc(10001);
    char *said;
    size_t len;

    memset(endless, 1, 10000);
    endless[10000] = 0;
    listen();
    open_quietly(true, LOG_LEVEL_INFO);
    log_info("%s", endless);
    log_close(5000);
    said = what_was_said();
    len = strlen(said);
    CHECK(len > 3000 && len < LOG_LINE_MAX);
    CHECK_STR(said + len - 12, 12, "\\u0001...\"}\n");
    free(said);
    free(endless);
}
