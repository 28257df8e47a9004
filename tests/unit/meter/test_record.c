#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "log.h"
#include "meter.h"
#include "metrics.h"

enum { WALL_SECONDS = 1795339800 }; /* 2026-11-22T09:30:00Z */

static struct record served(void)
{
    struct record record = {
        .user = SLICE("alice"),
        .request_id = SLICE("kqvzabcdefghijklmnopqrst"),
        .key = SLICE("7f3a"),
        .method = SLICE("POST"),
        .path = SLICE("/v1/chat/completions"),
        .status = 200,
        .dialect = SLICE("chat"),
        .model = SLICE("qwen3:32b"),
        .model_label = SLICE("qwen3:32b"),
        .backend = SLICE("gpu1"),
        .is_stream = true,
        .has_prompt = true,
        .prompt_chars = 412,
        .has_tokens = true,
        .prompt_tokens = 133,
        .completion_tokens = 290,
        .began_us = 1000000,
        .first_token_us = 1212999,
        .finish = SLICE("stop"),
    };

    (void)address_parse(SLICE("10.0.3.7"), &record.address);
    return record;
}

/* To be released. */
static struct text line_of(const struct record *record, int64_t now_us, bool is_json)
{
    struct text out;

    text_init(&out, 10000);
    record_format(record, now_us, (int64_t)WALL_SECONDS * 1000 + 123, is_json, &out);
    return out;
}

TEST(a_served_request_is_one_line_of_eight_fields_and_pairs)
{
    struct record record = served();
    struct text line = line_of(&record, 5883400, false);

    CHECK_STR(
        line.at, line.len,
        "alice 10.0.3.7 2026-11-22T09:30:00.123Z req=kqvzabcdefghijklmnopqrst key=7f3a POST /v1/chat/completions 200 "
        "model=qwen3:32b backend=gpu1 stream=1 prompt_chars=412 prompt_tokens=133 completion_tokens=290 ttft_ms=212 "
        "response_time=4.883 finish=stop");
    text_release(&line);
}

TEST(json_has_the_same_names_and_numbers_are_numbers)
{
    struct record record = served();
    struct text line;

    record.is_stream = false;
    record.is_estimated = true;
    line = line_of(&record, 5883400, true);
    CHECK_STR(
        line.at, line.len,
        "{\"user\":\"alice\",\"address\":\"10.0.3.7\",\"time\":\"2026-11-22T09:30:00.123Z\",\"req\":"
        "\"kqvzabcdefghijklmnopqrst\","
        "\"key\":\"7f3a\",\"method\":\"POST\",\"path\":\"/v1/chat/completions\",\"status\":200,\"model\":\"qwen3:32b\","
        "\"backend\":\"gpu1\",\"stream\":0,\"prompt_chars\":412,\"prompt_tokens\":133,\"completion_tokens\":290,"
        "\"estimated\":1,"
        "\"ttft_ms\":212,\"response_time\":4.883,\"finish\":\"stop\"}");
    text_release(&line);
}

TEST(who_asked_a_queue_is_shown_with_the_wait_and_others_without)
{
    static const struct {
        bool has_queue, was_resent, is_json;
        int64_t queue_us;
        const char *wanted;
    } rows[] = {
        { true, false, false, 0,
          " backend=gpu1 stream=1 prompt_chars=412 prompt_tokens=133 completion_tokens=290 queue_ms=0 ttft_ms=212 "
          "response_time=4.883 finish=stop" },
        { true, false, false, 1999, " completion_tokens=290 queue_ms=1 ttft_ms=212 " },
        { true, false, false, -7, " completion_tokens=290 queue_ms=0 ttft_ms=212 " },
        { true, true, false, 120004000,
          " backend=gpu1 resent=1 stream=1 prompt_chars=412 prompt_tokens=133 completion_tokens=290 queue_ms=120004 "
          "ttft_ms=212 " },
        { true, true, true, 120004000,
          "\"backend\":\"gpu1\",\"resent\":1,\"stream\":1,\"prompt_chars\":412,\"prompt_tokens\":133,"
          "\"completion_tokens\":290,\"queue_ms\":120004,\"ttft_ms\":212,\"response_time\":4.883,\"finish\":"
          "\"stop\"}" },
        { false, false, false, 5000, " completion_tokens=290 ttft_ms=212 " },
        { false, false, true, 5000, "\"completion_tokens\":290,\"ttft_ms\":212," },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct record record = served();
        struct text line;
        record.has_queue = rows[i].has_queue;
        record.was_resent = rows[i].was_resent;
        record.queue_us = rows[i].queue_us;
        line = line_of(&record, 5883400, rows[i].is_json);
        CHECK_ROW(strstr(line.at, rows[i].wanted), rows[i].wanted);
        CHECK_ROW(rows[i].was_resent || !strstr(line.at, "resent"), rows[i].wanted);
        text_release(&line);
    }
}

TEST(who_was_turned_away_by_the_queue_waited_there_too)
{
    struct record record = served();
    struct text line;

    record.has_tokens = false;
    record.first_token_us = 0;
    record.finish = record.backend = SLICE("");
    record.has_queue = true;
    record.queue_us = 120000000;
    record.status = 503;
    record.why = SLICE("queue_timeout");
    line = line_of(&record, 121000000, false);
    CHECK(strstr(line.at, " 503 model=qwen3:32b stream=1 prompt_chars=412 queue_ms=120000 response_time=120.000 "
                          "why=queue_timeout"));
    text_release(&line);
}

TEST(a_refused_stranger_is_shown_by_address_and_says_why)
{
    struct record record = { .method = SLICE("GET"),
                             .path = SLICE("/v1/models"),
                             .request_id = SLICE("r"),
                             .status = 401,
                             .why = SLICE("invalid_api_key"),
                             .began_us = 10 };
    struct text line;

    (void)address_parse(SLICE("2001:db8::7"), &record.address);
    line = line_of(&record, 510, false);
    CHECK_STR(line.at, line.len,
              "!2001:db8::7 2001:db8::7 2026-11-22T09:30:00.123Z req=r key=- GET /v1/models 401 response_time=0.001 "
              "why=invalid_api_key");
    text_release(&line);
    line = line_of(&record, 510, true);
    CHECK_STR(line.at, line.len,
              "{\"user\":\"!2001:db8::7\",\"address\":\"2001:db8::7\",\"time\":\"2026-11-22T09:30:00.123Z\",\"req\":"
              "\"r\",\"key\":\"-\","
              "\"method\":\"GET\",\"path\":\"/v1/"
              "models\",\"status\":401,\"response_time\":0.001,\"why\":\"invalid_api_key\"}");
    text_release(&line);
}

TEST(a_caller_who_left_before_the_answer_is_a_499)
{
    struct record record = { .began_us = 5 };
    struct text line;

    (void)address_parse(SLICE("10.0.0.1"), &record.address);
    line = line_of(&record, 5, false);
    CHECK_STR(line.at, line.len,
              "!10.0.0.1 10.0.0.1 2026-11-22T09:30:00.123Z req=- key=- - - 499 response_time=0.000 why=caller_left");
    text_release(&line);
}

/* Fields as awk sees them; `pairs` of them are name=value behind the eighth. */
static unsigned count_fields(const struct text *line, unsigned *ret_pairs)
{
    unsigned fields = 0;

    *ret_pairs = 0;
    for (size_t i = 0; i < line->len; i += strcspn(line->at + i, " ") + 1) {
        size_t len = strcspn(line->at + i, " ");
        CHECK(len > 0);
        fields++;
        *ret_pairs += fields > 8 && memchr(line->at + i, '=', len) != NULL;
    }
    return fields;
}

TEST(nothing_a_caller_sends_can_break_the_line)
{
    static const struct {
        const char *name;
        struct slice value;
    } rows[] = {
        { "space", SLICE("a b") },
        { "newline", SLICE("a\nb\r\n") },
        { "quote", SLICE("\"a\"") },
        { "controls", SLICE("\x01\x1f\x7f\x1b[31m\t\v") },
        { "NUL", SLICE("a\0b") },
        { "not UTF-8", SLICE("\xff\xfe\xc3") },
        { "C1 control", SLICE("a\xc2\x85z") },
        { "line separator of Unicode", SLICE("a\xe2\x80\xa8z") },
        { "another field", SLICE("x status=200 why=none") },
        { "backslashes", SLICE("\\\\\\n\\u0041") },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct record record = served();
        struct text line;
        unsigned pairs;
        record.user = record.request_id = record.key = record.method = record.path = rows[i].value;
        record.model = record.backend = record.finish = record.why = rows[i].value;
        line = line_of(&record, 5883400, false);
        CHECK_ROW(count_fields(&line, &pairs) == 18 && pairs == 10, rows[i].name);
        CHECK_ROW(utf8_valid(text_slice(&line)), rows[i].name);
        for (size_t at = 0; at < line.len; at++)
            CHECK_ROW((unsigned char)line.at[at] >= ' ' && line.at[at] != '"' && line.at[at] != 0x7f, rows[i].name);
        CHECK_ROW(!strstr(line.at, "\xc2\x85") && !strstr(line.at, "\xe2\x80\xa8"), rows[i].name);
        text_release(&line);
    }
}

TEST(in_json_backslashes_are_escaped)
{
    struct record record = served();
    struct text line;

    record.user = SLICE("a\\b\\");
    record.path = SLICE("/\"\\");
    line = line_of(&record, 5883400, true);
    CHECK(strstr(line.at, "{\"user\":\"a\\\\b\\\\\",\"address\""));
    CHECK(strstr(line.at, "\"path\":\"/_\\\\\",\"status\""));
    text_release(&line);
}

TEST(long_fields_are_cut_and_the_longest_line_fits_the_log)
{
    static char endless[100000];
    struct record record = served();
    struct text line;
    const char *path;

    memset(endless, '\\', sizeof endless);
    record.user = record.request_id = record.key = record.method = record.path =
        (struct slice){ endless, sizeof endless };
    record.model = record.backend = record.finish = record.why = record.path;
    record.was_resent = record.has_queue = true;
    record.queue_us = INT64_MAX;
    record.status = 4294967295u;
    record.prompt_chars = record.prompt_tokens = record.completion_tokens = UINT64_MAX;
    record.is_estimated = true;
    record.began_us = 1;
    record.first_token_us = INT64_MAX;
    (void)address_parse(SLICE("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), &record.address);
    line = line_of(&record, INT64_MAX, true);
    CHECK(line.len < LOG_LINE_MAX);
    CHECK_EQ(line.at[line.len - 1], '}');
    path = strstr(line.at, "\"path\":\"") + 8;
    CHECK_EQ(strspn(path, "\\"), 2 * 256);
    text_release(&line);
}

TEST(a_path_is_cut_on_a_character)
{
    struct record record = served();
    char path[400];
    struct text line;

    memset(path, 'x', sizeof path);
    path[0] = '/';
    memcpy(path + 255, "\xc3\xbc", 2); /* its second byte would be the 257th */
    record.path = (struct slice){ path, sizeof path };
    line = line_of(&record, 5883400, false);
    CHECK(strstr(line.at, "xxx 200 model="));
    CHECK(utf8_valid(text_slice(&line)));
    text_release(&line);
}

TEST(names_from_outside_are_cleaned_and_cut)
{
    static const struct {
        struct slice name;
        const char *wanted;
    } rows[] = {
        { SLICE("alice"), "alice" },      { SLICE("alice smith"), "alice_smith" },
        { SLICE("a/b=c\"d"), "a_b_c_d" }, { SLICE("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f" },
        { SLICE("a\xff\xc3z"), "a__z" },  { SLICE("a\r\n\tb\x7f"), "a___b_" },
        { SLICE("a\xc2\x85"), "a_" },     { SLICE(""), "" },
    };
    char name[200];
    struct text out;

    text_init(&out, 1000);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_clear(&out);
        record_clean_name(rows[i].name, &out);
        CHECK_STR(out.at, out.len, rows[i].wanted);
    }
    memset(name, 'n', sizeof name);
    memcpy(name + 126, "\xe4\xbd\xa0", 3); /* would end behind the 128th byte */
    text_clear(&out);
    record_clean_name((struct slice){ name, sizeof name }, &out);
    CHECK_EQ(out.len, 126);
    text_release(&out);
}

TEST(closing_a_record_writes_one_line_and_counts_once)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shard = metrics_shard_new(metrics);
    struct metrics_gauges gauges = { .version = SLICE("1") };
    char file[] = "/tmp/qg-meter-XXXXXX", got[1024] = "";
    struct log_options options = { .level = LOG_LEVEL_ERROR, .file = file };
    struct record record = served();
    struct text out;
    int fd = mkstemp(file);

    text_init(&out, 1 << 20);
    CHECK_EQ(log_open(&options, &out), ERR_OK);
    record_close(&record, shard, 5883400);
    log_close(5000);
    CHECK(pread(fd, got, sizeof got - 1, 0) > 0);
    (void)close(fd);
    (void)unlink(file);
    CHECK(strncmp(got, "alice 10.0.3.7 20", 17) == 0);
    CHECK(strstr(got, " response_time=4.883 finish=stop\n"));
    CHECK(!strchr(strchr(got, '\n') + 1, '\n'));
    metrics_print(metrics, &gauges, &out);
    CHECK(strstr(out.at, "{dialect=\"chat\",model=\"qwen3:32b\",backend=\"gpu1\",status=\"2xx\",reason=\"\"} 1\n"));
    CHECK(strstr(out.at, "first_token_seconds_sum{model=\"qwen3:32b\"} 0.212999\n"));
    CHECK(strstr(out.at, "request_seconds_sum{model=\"qwen3:32b\"} 4.883400\n"));
    CHECK(strstr(out.at, "direction=\"completion\"} 290\n"));
    text_release(&out);
    metrics_free(metrics);
}
