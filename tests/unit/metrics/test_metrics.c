#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "metrics.h"

static const struct metrics_gauges nothing = { .version = { "1.2.3", 5 } };

/* The whole page. To be released. */
static struct text page(struct metrics *metrics, const struct metrics_gauges *gauges)
{
    struct text out;

    text_init(&out, 64 << 20);
    metrics_print(metrics, gauges, &out);
    return out;
}

static bool says(struct metrics *metrics, const char *line)
{
    struct text out = page(metrics, &nothing);
    struct text wanted;
    bool is_there;

    text_init(&wanted, 1000);
    text_printf(&wanted, "\n%s\n", line);
    is_there = strstr(text_string(&out), wanted.at);
    text_release(&wanted);
    text_release(&out);
    return is_there;
}

static unsigned occurrences(const char *text, const char *part)
{
    unsigned count = 0;

    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

TEST(requests_are_counted_by_their_labels_over_all_shards)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *one = metrics_shard_new(metrics), *two = metrics_shard_new(metrics);
    struct metrics_request served = { .dialect = SLICE("chat"),
                                      .model = SLICE("qwen3:32b"),
                                      .backend = SLICE("ollama"),
                                      .status = 200,
                                      .total_us = 4883000,
                                      .first_token_us = 212000,
                                      .prompt_tokens = 133,
                                      .completion_tokens = 290 };
    struct metrics_request refused = { .dialect = SLICE("chat"),
                                       .reason = SLICE("invalid_api_key"),
                                       .status = 401,
                                       .total_us = 90,
                                       .first_token_us = -1 };
    struct metrics_request left = { .dialect = SLICE("chat"), .status = 499, .first_token_us = -1 };

    metrics_count_request(one, &served);
    metrics_count_request(two, &served);
    metrics_count_request(two, &refused);
    metrics_count_request(one, &left);
    CHECK(says(metrics, "qwen_gateway_requests_total{dialect=\"chat\",model=\"qwen3:32b\",backend=\"ollama\",status="
                        "\"2xx\",reason=\"\"} 2"));
    CHECK(says(metrics, "qwen_gateway_requests_total{dialect=\"chat\",model=\"\",backend=\"\",status=\"4xx\",reason="
                        "\"invalid_api_key\"} 1"));
    CHECK(says(metrics, "qwen_gateway_requests_total{dialect=\"chat\",model=\"\",backend=\"\",status=\"4xx\",reason="
                        "\"caller_left\"} 1"));
    CHECK(says(metrics, "qwen_gateway_tokens_total{model=\"qwen3:32b\",direction=\"prompt\"} 266"));
    CHECK(says(metrics, "qwen_gateway_tokens_total{model=\"qwen3:32b\",direction=\"completion\"} 580"));
    metrics_free(metrics);
}

TEST(histograms_are_cumulative_and_in_seconds)
{
    static const struct {
        const char *line;
    } rows[] = {
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"0.005\"} 2" }, /* a bucket takes its own bound */
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"0.01\"} 3" },
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"2.5\"} 3" },
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"5\"} 4" },
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"600\"} 4" },
        { "qwen_gateway_request_seconds_bucket{model=\"m\",le=\"+Inf\"} 5" },
        { "qwen_gateway_request_seconds_sum{model=\"m\"} 1004.893101" },
        { "qwen_gateway_request_seconds_count{model=\"m\"} 5" },
        { "qwen_gateway_first_token_seconds_bucket{model=\"m\",le=\"0.25\"} 1" },
        { "qwen_gateway_first_token_seconds_bucket{model=\"m\",le=\"+Inf\"} 1" },
        { "qwen_gateway_first_token_seconds_sum{model=\"m\"} 0.212000" },
        { "qwen_gateway_first_token_seconds_count{model=\"m\"} 1" },
    };
    static const int64_t took_us[] = { 100, 5000, 5001, 4883000, 1000000000 };
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shard = metrics_shard_new(metrics);

    for (size_t i = 0; i < sizeof took_us / sizeof *took_us; i++) {
        struct metrics_request request = { .model = SLICE("m"),
                                           .status = 200,
                                           .total_us = took_us[i],
                                           .first_token_us = took_us[i] == 4883000 ? 212000 : -1 };
        metrics_count_request(shard, &request);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(says(metrics, rows[i].line), rows[i].line);
    metrics_free(metrics);
}

TEST(counters_and_gauges_are_there_from_the_start)
{
    static const char *const zeros[] = {
        "qwen_gateway_connections_accepted_total 0",
        "qwen_gateway_connections_refused_total{reason=\"whitelist\"} 0",
        "qwen_gateway_connections_refused_total{reason=\"total_cap\"} 0",
        "qwen_gateway_connections_refused_total{reason=\"address_cap\"} 0",
        "qwen_gateway_backend_connects_total 0",
        "qwen_gateway_backend_reuses_total 0",
        "qwen_gateway_backend_resends_total{to=\"same\"} 0",
        "qwen_gateway_backend_resends_total{to=\"another\"} 0",
        "qwen_gateway_queue_abandoned_total 0",
        "qwen_gateway_callers_left_total 0",
        "qwen_gateway_heartbeats_total 0",
        "qwen_gateway_breaker_opened_total 0",
        "qwen_gateway_reloads_total{result=\"ok\"} 0",
        "qwen_gateway_reloads_total{result=\"refused\"} 0",
        "qwen_gateway_in_flight 0",
        "qwen_gateway_connections_open 0",
        "qwen_gateway_body_bytes 0",
        "qwen_gateway_log_dropped_total 0",
        "qwen_gateway_draining 0",
        "qwen_gateway_start_time_seconds 0",
        "qwen_gateway_build_info{version=\"1.2.3\"} 1",
    };
    struct metrics *metrics = metrics_new();

    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++)
        CHECK_ROW(says(metrics, zeros[i]), zeros[i]);
    metrics_free(metrics);
}

TEST(counters_add_up_over_shards_and_gauges_show_what_is_now)
{
    struct metrics_backend backends[] = {
        { .name = SLICE("gpu1"), .is_up = true, .running = 3, .state = METRICS_UP, .slots = 4, .weight = 2 },
        { .name = SLICE("gpu\"2\\\n"), .state = METRICS_DOWN },
    };
    struct metrics_gauges gauges = { .connections_open = 7,
                                     .body_bytes = 1 << 20,
                                     .log_dropped = 9,
                                     .backends = backends,
                                     .backend_count = 2,
                                     .version = SLICE("x"),
                                     .started_s = 1795000000,
                                     .is_draining = true };
    static const char *const wanted[] = {
        "\nqwen_gateway_heartbeats_total 5\n",
        "\nqwen_gateway_in_flight 1\n",
        "\nqwen_gateway_connections_open 7\n",
        "\nqwen_gateway_body_bytes 1048576\n",
        "\nqwen_gateway_log_dropped_total 9\n",
        "\nqwen_gateway_draining 1\n",
        "\nqwen_gateway_start_time_seconds 1795000000\n",
        "\nqwen_gateway_backend_up{backend=\"gpu1\"} 1\n",
        "\nqwen_gateway_backend_running{backend=\"gpu1\"} 3\n",
        "\nqwen_gateway_backend_up{backend=\"gpu\\\"2\\\\\\n\"} 0\n",
        "\nqwen_gateway_backend_slots{backend=\"gpu1\"} 4\n",
        "\nqwen_gateway_backend_slots{backend=\"gpu\\\"2\\\\\\n\"} 0\n",
        "\nqwen_gateway_backend_weight{backend=\"gpu1\"} 2\n",
        "\nqwen_gateway_backend_state{backend=\"gpu1\",state=\"up\"} 1\n",
        "\nqwen_gateway_backend_state{backend=\"gpu1\",state=\"down\"} 0\n",
        "\nqwen_gateway_backend_state{backend=\"gpu1\",state=\"draining\"} 0\n",
        "\nqwen_gateway_backend_state{backend=\"gpu\\\"2\\\\\\n\",state=\"down\"} 1\n",
    };
    struct metrics *metrics = metrics_new();
    struct metrics_shard *one = metrics_shard_new(metrics), *two = metrics_shard_new(metrics);
    struct text out;

    metrics_count(one, METRIC_HEARTBEATS, 2);
    metrics_count(two, METRIC_HEARTBEATS, 3);
    metrics_in_flight(one, 1);
    metrics_in_flight(one, 1);
    metrics_in_flight(two, -1); /* a request may end on another thread than it began on */
    out = page(metrics, &gauges);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK_ROW(strstr(out.at, wanted[i]), wanted[i]);
    text_release(&out);
    metrics_free(metrics);
}

TEST(waits_are_told_by_model_and_class_also_of_those_who_did_not_wait)
{
    static const char *const wanted[] = {
        "qwen_gateway_queue_wait_seconds_bucket{model=\"m\",class=\"interactive\",le=\"0.005\"} 2",
        "qwen_gateway_queue_wait_seconds_bucket{model=\"m\",class=\"interactive\",le=\"0.5\"} 3",
        "qwen_gateway_queue_wait_seconds_bucket{model=\"m\",class=\"interactive\",le=\"+Inf\"} 3",
        "qwen_gateway_queue_wait_seconds_sum{model=\"m\",class=\"interactive\"} 0.400000",
        "qwen_gateway_queue_wait_seconds_count{model=\"m\",class=\"interactive\"} 3",
        "qwen_gateway_queue_wait_seconds_bucket{model=\"m\",class=\"batch\",le=\"10\"} 0",
        "qwen_gateway_queue_wait_seconds_bucket{model=\"m\",class=\"batch\",le=\"20\"} 1",
        "qwen_gateway_queue_wait_seconds_sum{model=\"m\",class=\"batch\"} 11.000000",
        "qwen_gateway_queue_wait_seconds_count{model=\"m\",class=\"batch\"} 1",
        "qwen_gateway_queue_wait_seconds_count{model=\"quiet\",class=\"interactive\"} 1",
        "qwen_gateway_request_seconds_count{model=\"m\"} 1",
    };
    struct metrics *metrics = metrics_new();
    struct metrics_shard *one = metrics_shard_new(metrics), *two = metrics_shard_new(metrics);
    struct text out;

    metrics_count_wait(one, &(struct metrics_wait){ .model = SLICE("m") });
    metrics_count_wait(two, &(struct metrics_wait){ .model = SLICE("m"), .wait_us = -3 });
    metrics_count_wait(two, &(struct metrics_wait){ .model = SLICE("m"), .wait_us = 400000 });
    metrics_count_wait(one, &(struct metrics_wait){ .model = SLICE("m"), .is_batch = true, .wait_us = 11000000 });
    metrics_count_wait(one, &(struct metrics_wait){ .model = SLICE("quiet") });
    metrics_count_request(one, &(struct metrics_request){ .model = SLICE("m"), .status = 200, .first_token_us = -1 });
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK_ROW(says(metrics, wanted[i]), wanted[i]);
    out = page(metrics, &nothing);
    CHECK(!strstr(out.at, "model=\"quiet\",class=\"batch\""));       /* nobody asked in that class */
    CHECK(!strstr(out.at, "request_seconds_count{model=\"quiet\"")); /* none has ended yet */
    CHECK(!strstr(out.at, "tokens_total{model=\"quiet\""));
    text_release(&out);
    metrics_free(metrics);
}

TEST(a_model_of_the_longest_name_and_all_escapes_is_told_whole)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shard = metrics_shard_new(metrics);
    char model[160], wanted[800] = "qwen_gateway_queue_wait_seconds_count{model=\"";

    memset(model, '"', sizeof model);
    for (size_t i = 0; i < sizeof model; i++)
        (void)strcat(wanted, "\\\"");
    (void)strcat(wanted, "\",class=\"interactive\"} 1");
    metrics_count_wait(shard, &(struct metrics_wait){ .model = { model, sizeof model } });
    CHECK(says(metrics, wanted));
    metrics_free(metrics);
}

TEST(queues_are_told_as_they_stand_at_the_scrape)
{
    struct metrics_queue queues[] = {
        { .model = SLICE("qwen3:32b"),
          .waiting = { [METRICS_INTERACTIVE] = 5, [METRICS_BATCH] = 40 },
          .users_waiting = 3,
          .running = 4,
          .granted = { [METRICS_INTERACTIVE] = 900, [METRICS_BATCH] = 100 },
          .affinity_hits = 450,
          .affinity_tries = 460 },
        { .model = SLICE("a\"b") },
    };
    struct metrics_gauges gauges = { .queues = queues, .queue_count = 2 };
    static const char *const wanted[] = {
        "\nqwen_gateway_queue_waiting{model=\"qwen3:32b\",class=\"interactive\"} 5\n",
        "\nqwen_gateway_queue_waiting{model=\"qwen3:32b\",class=\"batch\"} 40\n",
        "\nqwen_gateway_queue_users_waiting{model=\"qwen3:32b\"} 3\n",
        "\nqwen_gateway_queue_running{model=\"qwen3:32b\"} 4\n",
        "\nqwen_gateway_queue_granted_total{model=\"qwen3:32b\",class=\"interactive\"} 900\n",
        "\nqwen_gateway_queue_granted_total{model=\"qwen3:32b\",class=\"batch\"} 100\n",
        "\nqwen_gateway_queue_affinity_hits_total{model=\"qwen3:32b\"} 450\n",
        "\nqwen_gateway_queue_affinity_tries_total{model=\"qwen3:32b\"} 460\n",
        "\nqwen_gateway_queue_running{model=\"a\\\"b\"} 0\n",
    };
    struct metrics *metrics = metrics_new();
    struct text out = page(metrics, &gauges);

    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        CHECK_ROW(strstr(out.at, wanted[i]), wanted[i]);
    text_release(&out);
    metrics_free(metrics);
}

TEST(too_many_queues_are_summed_up_as_other)
{
    enum { QUEUES = 300, TOLD = 255 };
    static char names[QUEUES][16];
    static struct metrics_queue queues[QUEUES];
    struct metrics_gauges gauges = { .queues = queues, .queue_count = QUEUES };
    struct metrics *metrics = metrics_new();
    struct text out;

    for (unsigned i = 0; i < QUEUES; i++) {
        (void)snprintf(names[i], sizeof names[i], "model-%u", i);
        queues[i] = (struct metrics_queue){ .model = slice_of(names[i]),
                                            .waiting = { 1, 2 },
                                            .users_waiting = 3,
                                            .running = 4,
                                            .granted = { 5, 6 },
                                            .affinity_hits = 7,
                                            .affinity_tries = 8 };
    }
    out = page(metrics, &gauges);
    CHECK_EQ(occurrences(out.at, "\nqwen_gateway_queue_waiting{"), 2 * (TOLD + 1));
    CHECK_EQ(occurrences(out.at, "\nqwen_gateway_queue_running{"), TOLD + 1);
    CHECK(strstr(out.at, "\nqwen_gateway_queue_waiting{model=\"other\",class=\"interactive\"} 45\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_waiting{model=\"other\",class=\"batch\"} 90\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_users_waiting{model=\"other\"} 135\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_running{model=\"other\"} 180\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_granted_total{model=\"other\",class=\"batch\"} 270\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_affinity_hits_total{model=\"other\"} 315\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_queue_affinity_tries_total{model=\"other\"} 360\n"));
    text_release(&out);
    metrics_free(metrics);
}

TEST(what_is_loaded_where_and_what_is_wrong_there_is_told)
{
    struct metrics_residence residences[] = { { SLICE("gpu1"), SLICE("m"), true },
                                              { SLICE("gpu2"), SLICE("m"), false } };
    struct metrics_finding finding = { SLICE("gpu2"), SLICE("m"), SLICE("not_resident") };
    struct metrics_gauges gauges = {
        .residences = residences, .residence_count = 2, .findings = &finding, .finding_count = 1
    };
    struct metrics *metrics = metrics_new();
    struct text out = page(metrics, &gauges);

    CHECK(strstr(out.at, "\nqwen_gateway_backend_model_resident{backend=\"gpu1\",model=\"m\"} 1\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_backend_model_resident{backend=\"gpu2\",model=\"m\"} 0\n"));
    CHECK(strstr(out.at, "\nqwen_gateway_backend_finding{backend=\"gpu2\",model=\"m\",finding=\"not_resident\"} 1\n"));
    CHECK_EQ(occurrences(out.at, "\nqwen_gateway_backend_finding{"), 1);
    text_release(&out);
    metrics_free(metrics);
}

TEST(the_process_tells_what_it_uses)
{
    static const char *const names[] = { "\nprocess_resident_memory_bytes ", "\nprocess_open_fds ",
                                         "\nprocess_cpu_seconds_total " };
    struct metrics *metrics = metrics_new();
    struct text out = page(metrics, &nothing);
    long before, after;
    int one_more;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *at = strstr(out.at, names[i]);
        CHECK_ROW(at && strtod(at + strlen(names[i]), NULL) > 0, names[i]);
    }
    before = strtol(strstr(out.at, names[1]) + strlen(names[1]), NULL, 10);
    text_release(&out);
    one_more = dup(0);
    out = page(metrics, &nothing);
    after = strtol(strstr(out.at, names[1]) + strlen(names[1]), NULL, 10);
    (void)close(one_more);
    CHECK_EQ(after, before + (one_more >= 0));
    text_release(&out);
    metrics_free(metrics);
}

/* Every line is a comment or a sample; a family's lines stand together behind its HELP and TYPE; no series is there
 * twice. */
static void check_page(const struct text *page_text)
{
    char family[256] = "", seen[64][256];
    unsigned families = 0;
    const char *at = page_text->at;

    CHECK(page_text->err == ERR_OK && page_text->len && page_text->at[page_text->len - 1] == '\n');
    while (*at) {
        char name[256];
        size_t len = strcspn(at, "\n");
        if (sscanf(at, "# HELP %255s", name) == 1) {
            for (unsigned i = 0; i < families; i++)
                CHECK_ROW(strcmp(seen[i], name) != 0, name);
            CHECK(families < 64);
            memcpy(seen[families++], name, sizeof name);
            memcpy(family, name, sizeof name);
            at += len + 1;
            len = strcspn(at, "\n");
            CHECK_ROW(sscanf(at, "# TYPE %255s", name) == 1 && strcmp(name, family) == 0, family);
        } else {
            CHECK_ROW(strncmp(at, family, strlen(family)) == 0, family);
            CHECK_ROW(strchr("{ _", at[strlen(family)]), family);
            CHECK_ROW(memrchr(at, ' ', len), family);
        }
        at += len + 1;
    }
    CHECK(families > 20);
}

TEST(the_page_has_each_family_once_with_help_and_type)
{
    struct metrics_backend backend = { .name = SLICE("ollama"), .is_up = true, .running = 1 };
    struct metrics_queue queues[] = { { .model = SLICE("a"), .waiting = { 1, 2 } }, { .model = SLICE("b") } };
    struct metrics_residence residence = { SLICE("ollama"), SLICE("a"), true };
    struct metrics_finding finding = { SLICE("ollama"), SLICE("a"), SLICE("partly_on_cpu") };
    struct metrics_gauges gauges = { .backends = &backend,
                                     .backend_count = 1,
                                     .queues = queues,
                                     .queue_count = 2,
                                     .residences = &residence,
                                     .residence_count = 1,
                                     .findings = &finding,
                                     .finding_count = 1,
                                     .version = SLICE("1") };
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shard = metrics_shard_new(metrics);
    struct text out;

    for (unsigned i = 0; i < 20; i++) {
        char model[16];
        (void)snprintf(model, sizeof model, "model-%u", i);
        metrics_count_request(shard, &(struct metrics_request){ .model = slice_of(model), .status = 200 });
        metrics_count_wait(shard, &(struct metrics_wait){ .model = slice_of(model), .is_batch = i % 2 });
    }
    out = page(metrics, &gauges);
    check_page(&out);
    text_release(&out);
    metrics_free(metrics);
}

TEST(label_values_are_escaped_and_are_utf8)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shard = metrics_shard_new(metrics);

    metrics_count_request(shard, &(struct metrics_request){ .model = SLICE("a\"b\\c\nd"), .status = 200 });
    metrics_count_request(shard, &(struct metrics_request){ .model = SLICE("a\xff"
                                                                           "b"),
                                                            .status = 200 });
    metrics_count_request(shard, &(struct metrics_request){ .model = SLICE("gr\xc3\xbcn"), .status = 200 });
    CHECK(says(metrics, "qwen_gateway_request_seconds_count{model=\"a\\\"b\\\\c\\nd\"} 1"));
    CHECK(says(metrics, "qwen_gateway_request_seconds_count{model=\"a_b\"} 1"));
    CHECK(says(metrics, "qwen_gateway_request_seconds_count{model=\"gr\xc3\xbcn\"} 1"));
    metrics_free(metrics);
}

static uint64_t total_of(const char *text, const char *series)
{
    uint64_t total = 0;

    for (; (text = strstr(text, series)); text++)
        if (text[-1] == '\n') {
            const char *end = strchr(text, '\n');
            total += strtoull((const char *)memrchr(text, ' ', (size_t)(end - text)) + 1, NULL, 10);
        }
    return total;
}

TEST(too_many_models_are_counted_as_other_and_none_is_lost)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shards[2] = { metrics_shard_new(metrics), metrics_shard_new(metrics) };
    struct text out;
    enum { MODELS = 3000 };

    for (unsigned i = 0; i < MODELS; i++) {
        char model[16], reason[16], dialect[16];
        (void)snprintf(model, sizeof model, "model-%u", i);
        (void)snprintf(reason, sizeof reason, "reason-%u", i % 200);
        (void)snprintf(dialect, sizeof dialect, "dialect-%u", i % 3);
        metrics_count_request(shards[i % 2], &(struct metrics_request){ .model = slice_of(model),
                                                                        .reason = slice_of(reason),
                                                                        .dialect = slice_of(dialect),
                                                                        .status = 100 + i % 5 * 100,
                                                                        .completion_tokens = 2,
                                                                        .first_token_us = 1 });
    }
    out = page(metrics, &nothing);
    CHECK(occurrences(out.at, "\nqwen_gateway_requests_total{") <= 512);
    CHECK(occurrences(out.at, "\nqwen_gateway_request_seconds_count{") <= 256);
    CHECK(occurrences(out.at, "\nqwen_gateway_tokens_total{") <= 512);
    CHECK(strstr(out.at, "model=\"other\""));
    CHECK(strstr(out.at, "model=\"model-0\""));
    CHECK_EQ(total_of(out.at, "qwen_gateway_requests_total{"), MODELS);
    CHECK_EQ(total_of(out.at, "qwen_gateway_request_seconds_count{"), MODELS);
    CHECK_EQ(total_of(out.at, "qwen_gateway_first_token_seconds_count{"), MODELS);
    CHECK_EQ(total_of(out.at, "qwen_gateway_tokens_total{"), 2 * MODELS);
    text_release(&out);
    metrics_free(metrics);
}

TEST(many_models_are_told_apart)
{
    struct metrics *metrics = metrics_new();
    struct metrics_shard *shards[2] = { metrics_shard_new(metrics), metrics_shard_new(metrics) };
    struct text out;
    char model[16], wanted[128];
    enum { MODELS = 200 };

    for (unsigned round = 0; round < MODELS; round++) {
        for (unsigned i = round; i < MODELS; i++) {
            (void)snprintf(model, sizeof model, "model-%u", i);
            metrics_count_request(shards[(i + round) % 2],
                                  &(struct metrics_request){ .model = slice_of(model), .status = 200 });
        }
    }
    out = page(metrics, &nothing);
    for (unsigned i = 0; i < MODELS; i++) {
        (void)snprintf(wanted, sizeof wanted, "\nqwen_gateway_request_seconds_count{model=\"model-%u\"} %u\n", i,
                       i + 1);
        CHECK_ROW(strstr(out.at, wanted), wanted);
        (void)snprintf(wanted, sizeof wanted, ",model=\"model-%u\",backend=\"\",status=\"2xx\",reason=\"\"} %u\n", i,
                       i + 1);
        CHECK_ROW(strstr(out.at, wanted), wanted);
    }
    text_release(&out);
    metrics_free(metrics);
}

enum { THREADS = 4, EACH = 20000 };

static struct metrics *shared;
static _Atomic unsigned running;

static void *count_many(void *number)
{
    struct metrics_shard *shard = metrics_shard_new(shared);

    for (unsigned i = 0; i < EACH; i++) {
        char model[16];
        (void)snprintf(model, sizeof model, "model-%u", i % 700);
        metrics_in_flight(shard, 1);
        metrics_count(shard, METRIC_HEARTBEATS, 1);
        metrics_count_wait(shard, &(struct metrics_wait){ .model = slice_of(model), .is_batch = i % 2 });
        metrics_count_request(shard,
                              &(struct metrics_request){ .model = slice_of(model), .status = 200, .prompt_tokens = 1 });
        metrics_in_flight(shard, -1);
    }
    atomic_fetch_sub(&running, 1);
    return number;
}

TEST(four_threads_count_while_a_scrape_reads)
{
    pthread_t threads[THREADS];
    struct text out;
    uint64_t last = 0;

    shared = metrics_new();
    atomic_store(&running, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, count_many, NULL), 0);
    while (atomic_load(&running)) {
        uint64_t now;
        out = page(shared, &nothing);
        now = total_of(out.at, "qwen_gateway_requests_total{");
        CHECK(now >= last);
        last = now;
        text_release(&out);
    }
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    out = page(shared, &nothing);
    CHECK_EQ(total_of(out.at, "qwen_gateway_requests_total{"), THREADS * EACH);
    CHECK_EQ(total_of(out.at, "qwen_gateway_request_seconds_count{"), THREADS * EACH);
    CHECK_EQ(total_of(out.at, "qwen_gateway_heartbeats_total "), THREADS * EACH);
    CHECK_EQ(total_of(out.at, "qwen_gateway_queue_wait_seconds_count{"), THREADS * EACH);
    CHECK_EQ(total_of(out.at, "qwen_gateway_tokens_total{"), THREADS * EACH);
    CHECK(strstr(out.at, "\nqwen_gateway_in_flight 0\n"));
    text_release(&out);
    metrics_free(shared);
}
