#include "pieces.h"

#define QUOTED_200                                                                                                  \
    "\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" \
    "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\""

TEST(a_chunked_body_comes_out_whole)
{
    static const struct {
        struct slice message;
        const char *payload;
        size_t left_over;
    } rows[] = {
        { SLICE("5\r\nhello\r\n0\r\n\r\n"), "hello", 0 },
        { SLICE("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "hello world", 0 },
        { SLICE("0\r\n\r\n"), "", 0 },
        { SLICE("0\r\n\r\nGET / HTTP/1.1\r\n"), "", 16 },
        { SLICE("1\r\na\r\n0\r\n\r\n0\r\n\r\n"), "a", 5 },
        { SLICE("A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n"), "01234567890123456789", 0 },
        { SLICE("0000000000000001\r\na\r\n0\r\n\r\n"), "a", 0 },
        { SLICE("4\r\n\r\n\r\n\r\n0\r\n\r\n"), "\r\n\r\n", 0 },
        { SLICE("1;a\r\na\r\n0\r\n\r\n"), "a", 0 },
        { SLICE("1;a=b;c=\"d;\\\"\\\\ \t\xc3\xa4\"\r\na\r\n0;x\r\n\r\n"), "a", 0 },
        { SLICE("1 ; a = b\r\na\r\n0\t;x\r\n\r\n"), "a", 0 },
        { SLICE("1;a=" QUOTED_200 "\r\na\r\n0\r\n\r\n"), "a", 0 },
        { SLICE("0\r\nTrailer: x\r\nOther:\r\n\r\nnext"), "", 4 },
        { SLICE("1\r\na\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\nhello"), "a", 5 },
        { SLICE("0\r\nX: \xc3\xa4\t y\r\n\r\n"), "", 0 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body_outcome outcome;
        body_outcome_of(&outcome, HTTP_CHUNKED, 0, rows[i].message);
        CHECK_ROW(outcome.result == HTTP_DONE, rows[i].message.at);
        CHECK_STR(text_string(&outcome.payload), outcome.payload.len, rows[i].payload);
        CHECK_EQ(outcome.used, rows[i].message.len - rows[i].left_over);
        body_outcome_release(&outcome);
    }
}

TEST(broken_chunks_are_refused_after_what_came_well)
{
    static const char size[] = "a malformed chunk size", extension[] = "a malformed or overlong chunk extension",
                      longer[] = "a chunk longer than its size", trailers[] = "malformed or overlong trailers",
                      feed[] = "a chunk size line without its line feed";
    static const struct {
        struct slice message;
        const char *payload, *why;
    } rows[] = {
        { SLICE("\r\n"), "", size },
        { SLICE("x\r\n"), "", size },
        { SLICE("0x5\r\nhello\r\n"), "", size },
        { SLICE("+5\r\nhello\r\n"), "", size },
        { SLICE("-5\r\nhello\r\n"), "", size },
        { SLICE(" 5\r\nhello\r\n"), "", size },
        { SLICE(";a\r\n"), "", size },
        { SLICE("5_0\r\n"), "", size },
        { SLICE("5,5\r\n"), "", size },
        { SLICE("5\0\r\n"), "", size },
        { SLICE("5\nhello\n0\n\n"), "", size },
        { SLICE("5\r\rhello"), "", feed },
        { SLICE("5\rhello"), "", feed },
        { SLICE("5 \r\nhello\r\n"), "", extension },
        { SLICE("5 5\r\nhello\r\n"), "", extension },
        { SLICE("5;a\nhello\r\n"), "", extension },
        { SLICE("5;a\rhello\r\n"), "", feed },
        { SLICE("5;a\0\r\nhello"), "", extension },
        { SLICE("5;\"a\r\nhello\r\n"), "", extension },
        { SLICE("5;\"a\\\r\nhello\r\n"), "", extension },
        { SLICE("5;\"a\nb\"\r\nhello\r\n"), "", extension },
        { SLICE("5;(\r\nhello\r\n"), "", extension },
        { SLICE("5;\xc3\xa4\r\nhello\r\n"), "", extension },
        { SLICE("5;a=" QUOTED_200 ";" QUOTED_200 "\r\nhello\r\n"), "", extension },
        { SLICE("ffffffffffffffff\r\n"), "", size },
        { SLICE("8000000000000000\r\n"), "", size },
        { SLICE("10000000000000000\r\n"), "", "a chunk size out of all bounds" },
        { SLICE("00000000000000005\r\nhello\r\n"), "", "a chunk size out of all bounds" },
        { SLICE("5\r\nhello0\r\n\r\n"), "hello", longer },
        { SLICE("5\r\nhello\n0\r\n\r\n"), "hello", longer },
        { SLICE("5\r\nhello\r0\r\n\r\n"), "hello", longer },
        { SLICE("5\r\nhello\r\n\r\n0\r\n\r\n"), "hello", size },
        { SLICE("5\r\nhello\r\nzz\r\n"), "hello", size },
        { SLICE("0\r\n\n"), "", trailers },
        { SLICE("0\r\n\rX"), "", trailers },
        { SLICE("0\r\nX\r\n\r\n"), "", trailers },
        { SLICE("0\r\n: y\r\n\r\n"), "", trailers },
        { SLICE("0\r\nX : y\r\n\r\n"), "", trailers },
        { SLICE("0\r\nX: y\r\n z\r\n\r\n"), "", trailers },
        { SLICE("0\r\nX: y\n\r\n"), "", trailers },
        { SLICE("0\r\nX: y\rz\r\n\r\n"), "", trailers },
        { SLICE("0\r\nX: \0\r\n\r\n"), "", trailers },
        { SLICE("0\r\nGET / HTTP/1.1\r\n\r\n"), "", trailers },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body_outcome outcome;
        body_outcome_of(&outcome, HTTP_CHUNKED, 0, rows[i].message);
        CHECK_ROW(outcome.result == HTTP_BAD, rows[i].message.at);
        CHECK_ROW(strcmp(outcome.why, rows[i].why) == 0, rows[i].message.at);
        CHECK_STR(text_string(&outcome.payload), outcome.payload.len, rows[i].payload);
        body_outcome_release(&outcome);
    }
}

TEST(a_chunked_body_that_is_cut_off_is_not_done)
{
    struct slice whole = SLICE("5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n");

    for (size_t len = 1; len < whole.len; len++) {
        struct body_outcome outcome;
        body_outcome_of(&outcome, HTTP_CHUNKED, 0, (struct slice){ whole.at, len });
        CHECK_EQ(outcome.result, HTTP_MORE);
        CHECK_EQ(outcome.used, len);
        body_outcome_release(&outcome);
    }
}

TEST(payload_and_end_come_in_one_call)
{
    static const char message[] = "5\r\nhello\r\n0\r\n\r\nGET";
    struct http_body body;
    struct slice payload;
    const char *why = "";
    size_t used;

    http_body_init(&body, HTTP_CHUNKED, 0);
    CHECK_EQ(http_body_next(&body, message, sizeof message - 1, &used, &payload, &why), HTTP_DONE);
    CHECK_EQ(used, 15);
    CHECK_STR(payload.at, payload.len, "hello");
    CHECK_EQ(body.seen, 5);
}

TEST(the_largest_chunk_size_is_waited_for)
{
    struct body_outcome outcome;

    body_outcome_of(&outcome, HTTP_CHUNKED, 0, SLICE("7fffffffffffffff\r\nabc"));
    CHECK_EQ(outcome.result, HTTP_MORE);
    CHECK_STR(text_string(&outcome.payload), outcome.payload.len, "abc");
    body_outcome_release(&outcome);
}

static void add_trailers(struct text *text, size_t bytes)
{
    text_add_literal(text, "0\r\n");
    for (size_t left = bytes; left;) {
        size_t line = left > 80 ? 40 : left;
        text_add_literal(text, "X: ");
        for (size_t i = 5; i < line; i++)
            text_add_char(text, 'y');
        text_add_literal(text, "\r\n");
        left -= line;
    }
    text_add_literal(text, "\r\n");
}

TEST(trailers_are_bounded_all_together)
{
    static const struct {
        size_t bytes;
        enum http_result result;
    } rows[] = { { HTTP_MAX_TRAILER_BYTES - 1, HTTP_DONE }, { HTTP_MAX_TRAILER_BYTES + 1, HTTP_BAD } };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body_outcome outcome;
        struct text message;
        text_init(&message, 1 << 20);
        add_trailers(&message, rows[i].bytes);
        body_outcome_of(&outcome, HTTP_CHUNKED, 0, text_slice(&message));
        CHECK_EQ(outcome.result, rows[i].result);
        body_outcome_release(&outcome);
        text_release(&message);
    }
}

TEST(a_body_with_a_length_ends_there)
{
    static const struct {
        uint64_t length;
        const char *message, *payload;
        enum http_result result;
    } rows[] = {
        { 5, "hello", "hello", HTTP_DONE },
        { 5, "helloGET /", "hello", HTTP_DONE },
        { 6, "hello", "hello", HTTP_MORE },
        { 0, "hello", "", HTTP_DONE },
        { 999999999999999999, "hello", "hello", HTTP_MORE },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body_outcome outcome;
        body_outcome_of(&outcome, HTTP_LENGTH, rows[i].length, slice_of(rows[i].message));
        CHECK_EQ(outcome.result, rows[i].result);
        CHECK_STR(text_string(&outcome.payload), outcome.payload.len, rows[i].payload);
        CHECK_EQ(outcome.used, strlen(rows[i].payload));
        body_outcome_release(&outcome);
    }
}

TEST(no_body_is_done_at_once)
{
    struct body_outcome outcome;

    body_outcome_of(&outcome, HTTP_NO_BODY, 0, SLICE("GET /"));
    CHECK_EQ(outcome.result, HTTP_DONE);
    CHECK_EQ(outcome.used, 0);
    body_outcome_release(&outcome);
}

TEST(a_body_until_close_never_ends_by_itself)
{
    struct body_outcome outcome;

    body_outcome_of(&outcome, HTTP_UNTIL_CLOSE, 0, SLICE("0\r\n\r\nhello"));
    CHECK_EQ(outcome.result, HTTP_MORE);
    CHECK_STR(text_string(&outcome.payload), outcome.payload.len, "0\r\n\r\nhello");
    body_outcome_release(&outcome);
}
