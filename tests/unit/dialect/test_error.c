/* Error answers in their shapes: behaviour.md 2.2. */
#include <jansson.h>

#include "check.h"
#include "dialect.h"

TEST(an_error_is_an_object)
{
    struct refusal refusal = { .cause = CAUSE_INVALID,
                               .message = SLICE("say \"please\"\n"),
                               .param = SLICE("messages[0].role") };
    struct text out;

    text_init(&out, 4096);
    refusal_write(&refusal, ERROR_SHAPE_OPENAI, SLICE("abc"), &out);
    CHECK_STR(out.at, out.len,
              "{\"error\":{\"message\":\"say "
              "\\\"please\\\"\\n\",\"type\":\"invalid_request_error\",\"param\":\"messages[0].role\","
              "\"code\":\"invalid_request\",\"request_id\":\"abc\"}}");
    text_release(&out);
}

TEST(an_error_without_a_field_says_null)
{
    struct refusal refusal = { .cause = CAUSE_KEY };
    struct text out;

    text_init(&out, 4096);
    refusal_write(&refusal, ERROR_SHAPE_OPENAI, (struct slice){ 0 }, &out);
    CHECK_STR(out.at, out.len,
              "{\"error\":{\"message\":\"invalid api key\",\"type\":\"invalid_request_error\",\"param\":null,"
              "\"code\":\"invalid_api_key\",\"request_id\":null}}");
    text_clear(&out);
    refusal_write(&refusal, ERROR_SHAPE_FLAT, SLICE("abc"), &out);
    CHECK_STR(out.at, out.len, "{\"error\":\"invalid api key\"}");
    text_release(&out);
}

TEST(every_cause_makes_valid_json_and_no_false_hope)
{
    for (int cause = CAUSE_NONE + 1; cause < CAUSE_COUNT; cause++) {
        struct refusal refusal = { .cause = (enum cause)cause };
        const struct cause_row *row = cause_row(refusal.cause);
        for (int shape = ERROR_SHAPE_OPENAI; shape <= ERROR_SHAPE_FLAT; shape++) {
            struct text out;
            json_t *json;
            text_init(&out, 4096);
            refusal_write(&refusal, (enum error_shape)shape, SLICE("abc"), &out);
            json = json_loadb(out.at, out.len, JSON_REJECT_DUPLICATES, NULL);
            CHECK_ROW(json, row->code);
            json_decref(json);
            text_release(&out);
        }
        CHECK_ROW(row->status >= 400 && row->status < 600 && row->type[0], row->code);
        CHECK_ROW(row->heals || !refusal_text_invites_retry(refusal_message(&refusal)), row->code);
    }
}

TEST(an_error_in_a_stream_is_one_event)
{
    struct inference inference = { .model = SLICE("m"), .is_stream = true };
    struct refusal refusal = { .cause = CAUSE_UPSTREAM };
    struct answer answer;
    struct text out;

    answer_init(&answer, &dialect_chat, &inference, SLICE("abc"), 1);
    text_init(&out, 4096);
    dialect_chat.stream_error(&answer, &refusal, &out);
    CHECK_STR(out.at, out.len,
              "data: {\"error\":{\"message\":\"the model server gave no usable answer, please try "
              "again\",\"type\":\"server_error\","
              "\"param\":null,\"code\":\"upstream_error\",\"request_id\":\"abc\"}}\n\n");
    CHECK(answer.is_finished);
    text_release(&out);
}

TEST(the_page_for_people_holds_no_markup_of_others)
{
    struct refusal refusal = { .cause = CAUSE_UPSTREAM, .message = SLICE("<script>\"&\"</script>") };
    struct text out;

    text_init(&out, 1 << 16);
    refusal_write_page(&refusal, SLICE("abc"), &out);
    CHECK(slice_starts(text_slice(&out), SLICE("<!doctype html>")));
    CHECK(strstr(out.at, "&lt;script&gt;&quot;&amp;&quot;&lt;/script&gt;"));
    CHECK(!strstr(out.at, "<script"));
    CHECK(strstr(out.at, "abc"));
    text_release(&out);
}

TEST(numbers_never_look_like_a_status)
{
    static const struct {
        uint64_t number;
        const char *wanted;
    } rows[] = {
        { 0, "0" },          { 2048, "2048" },  { 32768, "32768" },     { 262144, "262144" },
        { 4500, "45_00" },   { 500, "5_00" },   { 150000, "150,000" },  { 5000, "5,000" },
        { 42900, "42,900" }, { 1429, "14_29" }, { 500500, "50_05_00" }, { UINT64_MAX, "18446744073709551615" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;
        text_init(&out, 64);
        refusal_add_number(&out, rows[i].number);
        CHECK_STR(out.at, out.len, rows[i].wanted);
        text_release(&out);
    }
    for (uint64_t number = 0; number < 200000; number++) {
        struct text out;
        text_init(&out, 64);
        refusal_add_number(&out, number);
        CHECK(!refusal_text_invites_retry(text_slice(&out)));
        text_release(&out);
    }
}

TEST(texts_that_make_agents_try_again_are_known)
{
    static const char *const inviting[] = {
        "Overloaded",       "RATE LIMIT",          "rate-limit",     "ratelimit",          "too many requests",
        "4500 tokens",      "Service Unavailable", "Internal Error", "connection refused", "ConnectionError",
        "upstream connect", "fetch failed",        "x502",
    };
    static const char *const calm[] = { "",        "rate of limit", "45_00 tokens",
                                        "50 0",    "over loaded",   "the connection",
                                        "upstream" };

    for (size_t i = 0; i < sizeof inviting / sizeof *inviting; i++)
        CHECK_ROW(refusal_text_invites_retry(slice_of(inviting[i])), inviting[i]);
    for (size_t i = 0; i < sizeof calm / sizeof *calm; i++)
        CHECK_ROW(!refusal_text_invites_retry(slice_of(calm[i])), calm[i]);
}
