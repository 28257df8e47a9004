#include "check.h"
#include "refusal.h"

TEST(when_to_come_back_is_whole_seconds_and_never_early)
{
    static const struct {
        const char *name;
        int64_t wait_us;
        int64_t wanted_s;
    } rows[] = {
        { "nothing", 0, 1 },
        { "a clock that went back", -5000000, 1 },
        { "a moment", 1, 1 },
        { "a second", 1000000, 1 },
        { "a little over", 1000001, 2 },
        { "a while", 41200000, 42 },
        { "just below the most", 599000001, 600 },
        { "the most", 600000000, 600 },
        { "for ever", INT64_MAX, 600 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(refusal_retry_after_s(rows[i].wait_us) == rows[i].wanted_s, rows[i].name);
}

TEST(who_is_turned_away_by_the_queue_is_told_why_and_may_ask_again)
{
    static const struct {
        enum cause cause;
        const char *code, *part;
    } rows[] = {
        { CAUSE_QUEUE_FULL, "queue_full", "this model already" },
        { CAUSE_QUEUE_USER_FULL, "queue_full", "your own requests" },
        { CAUSE_QUEUE_TIMEOUT, "queue_timeout", "waited too long" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct refusal refusal = { .cause = rows[i].cause };
        CHECK_EQ(refusal_status(&refusal), 503);
        CHECK_STR(cause_row(rows[i].cause)->code, strlen(cause_row(rows[i].cause)->code), rows[i].code);
        CHECK_ROW(cause_row(rows[i].cause)->heals, rows[i].code);
        CHECK_ROW(slice_has(refusal_message(&refusal), slice_of(rows[i].part)), rows[i].part);
    }
}

TEST(every_cause_is_an_error_and_says_so_without_inviting_what_it_refuses)
{
    for (unsigned cause = CAUSE_NONE + 1; cause < CAUSE_COUNT; cause++) {
        const struct cause_row *row = cause_row((enum cause)cause);
        CHECK(row->status >= 400 && row->status < 600);
        CHECK(row->type[0] && row->code[0]);
        if (row->message && !row->heals)
            CHECK_ROW(!refusal_text_invites_retry(slice_of(row->message)), row->code);
    }
}

TEST(numbers_do_not_look_like_a_status)
{
    static const struct {
        uint64_t number;
        const char *wanted;
    } rows[] = { { 2048, "2048" }, { 150000, "150,000" }, { 4500, "45_00" }, { 0, "0" } };
    struct text out;

    text_init(&out, 100);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_clear(&out);
        refusal_add_number(&out, rows[i].number);
        CHECK_STR(out.at, out.len, rows[i].wanted);
    }
    text_release(&out);
}
