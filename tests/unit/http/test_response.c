#include "pieces.h"

enum { MAX = 65536 };

#define IS(slice, text) CHECK_STR((slice).at, (slice).len, text)

static void parse_good(struct outcome *ret_outcome, enum side side, struct slice message)
{
    outcome_of(ret_outcome, side, message, MAX);
    CHECK_ROW(ret_outcome->result == HTTP_DONE, ret_outcome->why);
}

TEST(an_answer_of_ollama_is_taken_apart)
{
    struct outcome outcome;

    parse_good(&outcome, RESPONSE,
               SLICE("HTTP/1.1 200 OK\r\n"
                     "Content-Type: application/x-ndjson\r\n"
                     "Date: Sun, 22 Nov 2026 14:17:11 GMT\r\n"
                     "Connection: close\r\n"
                     "Transfer-Encoding: chunked\r\n"
                     "\r\n"
                     "82\r\n"));
    CHECK_EQ(outcome.head.status, 200);
    CHECK_EQ(outcome.head.minor, 1);
    IS(outcome.head.reason, "OK");
    CHECK_EQ(outcome.head.framing, HTTP_CHUNKED);
    CHECK(!outcome.head.keeps_alive);
    IS(http_field(&outcome.head, HTTP_CONTENT_TYPE), "application/x-ndjson");
    CHECK(outcome.head.method.at == NULL && outcome.head.path.at == NULL);
    outcome_release(&outcome);
}

TEST(the_body_of_an_answer_is_framed_by_status_and_fields)
{
    static const struct {
        struct slice message;
        enum side side;
        enum http_framing framing;
        uint64_t length;
        bool keeps;
    } rows[] = {
        { SLICE("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), RESPONSE, HTTP_LENGTH, 7, true },
        { SLICE("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), RESPONSE, HTTP_LENGTH, 0, true },
        { SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"), RESPONSE, HTTP_CHUNKED, 0, true },
        { SLICE("HTTP/1.1 200 OK\r\n\r\n"), RESPONSE, HTTP_UNTIL_CLOSE, 0, false },
        { SLICE("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n"), RESPONSE, HTTP_UNTIL_CLOSE, 0, false },
        { SLICE("HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n"), RESPONSE, HTTP_LENGTH, 7, false },
        { SLICE("HTTP/1.0 200 OK\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n"), RESPONSE, HTTP_LENGTH, 7,
          true },
        { SLICE("HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n"), RESPONSE, HTTP_LENGTH, 7, false },
        { SLICE("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), RESPONSE_TO_HEAD, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), RESPONSE_TO_HEAD, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 200 OK\r\n\r\n"), RESPONSE_TO_HEAD, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 204 No Content\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 100 Continue\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, true },
        { SLICE("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), RESPONSE, HTTP_NO_BODY, 0, false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, rows[i].side, rows[i].message);
        CHECK_ROW(outcome.head.framing == rows[i].framing, rows[i].message.at);
        CHECK_ROW(outcome.head.content_length == rows[i].length, rows[i].message.at);
        CHECK_ROW(outcome.head.keeps_alive == rows[i].keeps, rows[i].message.at);
        outcome_release(&outcome);
    }
}

TEST(a_status_line_may_lack_its_reason)
{
    static const struct {
        struct slice message;
        unsigned status;
        const char *reason;
    } rows[] = {
        { SLICE("HTTP/1.1 200 OK\r\n\r\n"), 200, "OK" },
        { SLICE("HTTP/1.1 200 \r\n\r\n"), 200, "" },
        { SLICE("HTTP/1.1 200\r\n\r\n"), 200, "" },
        { SLICE("HTTP/1.1 999 a  b\t\xc3\xa4\r\n\r\n"), 999, "a  b\t\xc3\xa4" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, RESPONSE, rows[i].message);
        CHECK_EQ(outcome.head.status, rows[i].status);
        IS(outcome.head.reason, rows[i].reason);
        outcome_release(&outcome);
    }
}

#define ANSWER(fields) SLICE("HTTP/1.1 200 OK\r\n" fields "\r\n")

TEST(a_malformed_or_ambiguous_answer_is_refused)
{
    static const struct {
        struct slice message;
        const char *why;
    } rows[] = {
        { SLICE("HTTP/1.1 99 X\r\n\r\n"), "a malformed status" },
        { SLICE("HTTP/1.1 099 X\r\n\r\n"), "a malformed status" },
        { SLICE("HTTP/1.1 2000 X\r\n\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.1 200OK\r\n\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.1 20x OK\r\n\r\n"), "a malformed status" },
        { SLICE("HTTP/1.1 +20 OK\r\n\r\n"), "a malformed status" },
        { SLICE("HTTP/1.1  200 OK\r\n\r\n"), "a malformed status" },
        { SLICE("HTTP/1.1\t200 OK\r\n\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.1 20\r\n\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.1\r\n\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.2 200 OK\r\n\r\n"), "a version other than HTTP/1.0 and HTTP/1.1" },
        { SLICE("HTTP/2.0 200 OK\r\n\r\n"), "a version other than HTTP/1.0 and HTTP/1.1" },
        { SLICE("http/1.1 200 OK\r\n\r\n"), "a version other than HTTP/1.0 and HTTP/1.1" },
        { SLICE("HTTP/1.10 200 OK\r\n\r\n"), "a malformed status line" },
        { SLICE("ICY 200 OK\r\n\r\n"), "a malformed status line" },
        { SLICE("\r\nHTTP/1.1 200 OK\r\n\r\n"), "a malformed status line" },
        { SLICE("<html>\r\n"), "a malformed status line" },
        { SLICE("HTTP/1.1 200 OK\nContent-Length: 5\n\n"), "a line feed without a carriage return" },
        { SLICE("HTTP/1.1 200 O\0K\r\n\r\n"), "a NUL in the head" },
        { ANSWER("Content-Length: 5\r\nContent-Length: 5\r\n"), "a repeated Content-Length" },
        { ANSWER("Content-Length: 5, 5\r\n"), "a malformed Content-Length" },
        { ANSWER("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), "Content-Length beside Transfer-Encoding" },
        { ANSWER("Transfer-Encoding: gzip\r\n"), "a Transfer-Encoding other than chunked" },
        { ANSWER("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "a repeated Transfer-Encoding" },
        { ANSWER("X: a\r\n b\r\n"), "a folded header line" },
        { ANSWER("X : a\r\n"), "white space before a header's colon" },
        { SLICE("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), "Transfer-Encoding in HTTP/1.0" },
        { SLICE("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), "a body where none may be" },
        { SLICE("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), "a body where none may be" },
        { SLICE("HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n"), "a body where none may be" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        outcome_of(&outcome, RESPONSE, rows[i].message, MAX);
        CHECK_ROW(outcome.result == HTTP_BAD, rows[i].message.at);
        CHECK_ROW(strcmp(outcome.why, rows[i].why) == 0, outcome.why);
        outcome_release(&outcome);
    }
}

TEST(fields_that_only_requests_may_not_repeat_pass_in_answers)
{
    struct outcome outcome;

    parse_good(&outcome, RESPONSE, ANSWER("Content-Type: a\r\nContent-Type: b\r\nHost: a b\r\nContent-Length: 0\r\n"));
    CHECK_EQ(outcome.head.count[HTTP_CONTENT_TYPE], 2);
    outcome_release(&outcome);
}

TEST(an_interim_answer_ends_where_the_next_begins)
{
    struct outcome outcome;
    struct slice both = SLICE("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");

    parse_good(&outcome, RESPONSE, both);
    CHECK_EQ(outcome.head.status, 100);
    CHECK_EQ(outcome.head.bytes, 25);
    outcome_release(&outcome);
    parse_good(&outcome, RESPONSE, (struct slice){ both.at + 25, both.len - 25 });
    CHECK_EQ(outcome.head.status, 200);
    outcome_release(&outcome);
}

TEST(an_answers_head_over_its_limit_is_too_big)
{
    struct outcome outcome;
    struct slice message = ANSWER("Content-Length: 0\r\n");

    outcome_of(&outcome, RESPONSE, message, message.len - 1);
    CHECK_EQ(outcome.result, HTTP_TOO_BIG);
    outcome_release(&outcome);
    outcome_of(&outcome, RESPONSE, message, message.len);
    CHECK_EQ(outcome.result, HTTP_DONE);
    outcome_release(&outcome);
}
