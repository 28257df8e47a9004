/* What gateways do, added up. */
#include <stdlib.h>

#include "check.h"
#include "traffic.h"
#include "window.h"

static struct traffic *traffic;
static struct traffic_source *sources[4];
static struct text out;

static void begin(unsigned max_models, unsigned max_users)
{
    const struct traffic_options options = {
        .window_ms = 10000, .max_models = max_models, .max_users = max_users, .max_named_users = 2
    };

    for (unsigned i = 0; i < 4; i++)
        sources[i] = traffic_source_free(sources[i]);
    traffic = traffic_free(traffic);
    text_release(&out);
    text_init(&out, 1 << 20);
    if (!max_models)
        return;
    traffic = traffic_new(&options);
    for (unsigned i = 0; i < 4; i++)
        sources[i] = traffic_source_new(traffic);
}

__attribute__((destructor)) static void end(void)
{
    begin(0, 0);
}

static uint64_t take(unsigned source, uint64_t sequence, const char *model, uint32_t running, uint64_t requests,
                     int64_t now_ms)
{
    const struct qw_model_load models[] = {
        { .model = slice_of(model), .running = running, .requests = requests, .completion_tokens = 10 * requests }
    };
    const struct qw_load load = { .sequence = sequence, .running = running, .models = models, .model_count = 1 };

    return traffic_take(sources[source], SLICE("start-1"), &load, now_ms);
}

static const char *totals(int64_t now_ms)
{
    text_clear(&out);
    traffic_add_totals(traffic, now_ms, &out);
    return text_string(&out);
}

TEST(what_two_gateways_do_is_one_sum)
{
    begin(10, 10);
    CHECK_EQ(take(0, 1, "m", 2, 10, 50000), 1);
    CHECK_EQ(take(1, 1, "m", 3, 20, 50500), 1);
    CHECK(strstr(totals(51000),
                 "{\"model\":\"m\",\"running\":5,\"waiting\":0,\"requests_per_s\":3.00,\"prompt_tokens_per_s\":0.0,"
                 "\"completion_tokens_per_s\":30.0,\"first_token_ms\":null,\"duration_ms\":null}"));
}

TEST(a_load_that_comes_twice_counts_once_and_one_of_a_new_start_again)
{
    const struct qw_user_load users[] = { { .user = SLICE("alice"), .requests = 1 } };
    const struct qw_load load = { .sequence = 5, .users = users, .user_count = 1 };

    begin(10, 10);
    CHECK_EQ(traffic_take(sources[0], SLICE("start-1"), &load, 50000), 5);
    CHECK_EQ(traffic_take(sources[0], SLICE("start-1"), &load, 50001), 5);
    CHECK(strstr(totals(50002), "{\"user\":\"alice\",\"requests\":1,"));
    CHECK_EQ(take(0, 4, "m", 9, 100, 50003), 5); /* an old one that was long under way */
    CHECK(strstr(totals(50004), "\"models\":[]"));
    CHECK_EQ(traffic_take(sources[0], SLICE("start-2"), &load, 50005), 5);
    CHECK(strstr(totals(50006), "{\"user\":\"alice\",\"requests\":2,"));
}

TEST(what_is_older_than_the_window_does_not_count)
{
    begin(10, 10);
    (void)take(0, 1, "m", 0, 10, 50000);
    CHECK(strstr(totals(59000), "\"requests_per_s\":1.00"));
    (void)take(0, 2, "m", 0, 30, 59500);
    CHECK(strstr(totals(59900), "\"requests_per_s\":4.00"));
    CHECK(strstr(totals(61000), "\"requests_per_s\":3.00"));
    CHECK(strstr(totals(80000), "\"models\":[]"));
}

TEST(nothing_runs_where_nobody_is)
{
    begin(10, 10);
    (void)take(0, 1, "m", 2, 0, 50000);
    (void)take(1, 1, "m", 3, 0, 50000);
    traffic_source_silent(sources[0]);
    CHECK(strstr(totals(50001), "\"running\":3"));
    sources[1] = traffic_source_free(sources[1]);
    CHECK(strstr(totals(50001), "\"models\":[]"));
}

TEST(names_beyond_the_limit_are_other_and_idle_ones_make_room)
{
    begin(2, 10);
    (void)take(0, 1, "a", 1, 1, 50000);
    (void)take(0, 2, "b", 1, 1, 50000);
    (void)take(0, 3, "c", 4, 1, 50000);
    (void)take(0, 4, "d", 5, 1, 50000);
    CHECK(strstr(totals(50001), "{\"model\":\"other\",\"running\":5,"));
    CHECK(!strstr(totals(50001), "\"model\":\"c\""));
    traffic_source_silent(sources[0]);
    (void)take(1, 1, "e", 1, 1, 90000);
    CHECK(strstr(totals(90001), "{\"model\":\"e\",\"running\":1,"));
}

TEST(those_with_the_most_tokens_are_named)
{
    const struct qw_user_load users[] = { { .user = SLICE("low"), .requests = 1, .completion_tokens = 1 },
                                          { .user = SLICE("high"), .requests = 1, .completion_tokens = 100 },
                                          { .user = SLICE("middle\""), .requests = 1, .prompt_tokens = 50 } };
    const struct qw_load load = { .sequence = 1, .users = users, .user_count = 3 };

    begin(10, 10);
    (void)traffic_take(sources[0], SLICE(""), &load, 50000);
    CHECK(strstr(totals(50001), "\"users\":[{\"user\":\"high\",\"requests\":1,\"refused\":0,\"prompt_tokens\":0,"
                                "\"completion_tokens\":100},{\"user\":\"middle\\\"\","));
    CHECK(!strstr(totals(50001), "low"));
}

TEST(backends_are_those_of_the_last_load)
{
    const struct qw_backend_load two[] = { { SLICE("gpu1"), true, 1, 2 }, { SLICE("gpu2"), false, 0, 0 } };
    struct qw_load load = { .sequence = 1, .running = 1, .backends = two, .backend_count = 2 };

    begin(10, 10);
    (void)traffic_take(sources[0], SLICE(""), &load, 50000);
    text_clear(&out);
    traffic_add_source(sources[0], &out);
    CHECK_STR(out.at, out.len,
              "\"running\":1,\"waiting\":0,\"backends\":[{\"name\":\"gpu1\",\"up\":true,\"running\":1,\"waiting\":2},"
              "{\"name\":\"gpu2\",\"up\":false,\"running\":0,\"waiting\":0}]");
    load = (struct qw_load){ .sequence = 2 };
    (void)traffic_take(sources[0], SLICE(""), &load, 50001);
    text_clear(&out);
    traffic_add_source(sources[0], &out);
    CHECK_STR(out.at, out.len, "\"running\":0,\"waiting\":0,\"backends\":[]");
}

/* Within a step, which is an eighth. */
static bool is_about(int64_t got, int64_t wanted)
{
    return llabs(got - wanted) * 8 <= wanted + 8;
}

TEST(a_percentile_is_within_an_eighth)
{
    uint64_t counts[CODEC_STEPS] = { 0 };

    CHECK_EQ(histogram_percentile_us(counts, 50), -1);
    for (uint64_t us = 1; us <= 100000; us++)
        counts[histogram_step(us)]++;
    CHECK(is_about(histogram_percentile_us(counts, 50), 50000));
    CHECK(is_about(histogram_percentile_us(counts, 95), 95000));
    CHECK(is_about(histogram_percentile_us(counts, 99), 99000));
    memset(counts, 0, sizeof counts);
    counts[histogram_step(7)] = 1;
    CHECK(is_about(histogram_percentile_us(counts, 99), 7));
    counts[CODEC_STEPS - 1] = 1000;
    CHECK(histogram_percentile_us(counts, 99) > 0);
}

TEST(histograms_of_several_gateways_are_one)
{
    uint32_t slow[] = { 0, 0 }, fast[] = { 0 };
    uint64_t many[] = { 90, 0 }, few[] = { 10 };
    const struct qw_histogram quick = { fast, 1, many, 1, 0 }, late = { slow, 1, few, 1, 0 };
    struct qw_model_load model = { .model = SLICE("m"), .requests = 90, .first_token = &quick };
    struct qw_load load = { .sequence = 1, .models = &model, .model_count = 1 };

    begin(10, 10);
    fast[0] = histogram_step(100000);
    slow[0] = histogram_step(2000000);
    (void)traffic_take(sources[0], SLICE(""), &load, 50000);
    model = (struct qw_model_load){ .model = SLICE("m"), .requests = 10, .first_token = &late };
    (void)traffic_take(sources[1], SLICE(""), &load, 52000);
    {
        const char *said = strstr(totals(53000), "\"first_token_ms\":{\"p50\":");
        CHECK(said && is_about((int64_t)(atof(said + 24) * 1000), 100000));
        said = strstr(said, "\"p99\":");
        CHECK(said && is_about((int64_t)(atof(said + 6) * 1000), 2000000));
    }
}
