#include "pieces.h"

enum { MAX = 65536 };

/* A request with that line, a Host and these fields. */
#define WITH(fields) SLICE("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" fields "\r\n")
#define LINE(line)   SLICE(line "\r\nHost: a\r\n\r\n")

struct refused {
    struct slice message;
    const char *why;
};

static void all_are_refused(const struct refused *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct outcome outcome;
        outcome_of(&outcome, REQUEST, rows[i].message, MAX);
        CHECK_ROW(outcome.result == HTTP_BAD, rows[i].message.at);
        CHECK_ROW(strcmp(outcome.why, rows[i].why) == 0, outcome.why);
        outcome_release(&outcome);
    }
}

#define ALL_ARE_REFUSED(rows) all_are_refused(rows, sizeof rows / sizeof *rows)

static void parse_good(struct outcome *ret_outcome, struct slice message)
{
    outcome_of(ret_outcome, REQUEST, message, MAX);
    CHECK_ROW(ret_outcome->result == HTTP_DONE, ret_outcome->why);
}

#define IS(slice, text) CHECK_STR((slice).at, (slice).len, text)

TEST(a_request_of_an_sdk_is_taken_apart)
{
    static const char message[] = "POST /v1/chat/completions?x=1 HTTP/1.1\r\n"
                                  "host: 127.0.0.1:28001\r\n"
                                  "connection: keep-alive\r\n"
                                  "Accept: application/json\r\n"
                                  "user-agent: OpenAI/JS 7.57.0\r\n"
                                  "X-Stainless-Runtime-Version:v24.21.0\r\n"
                                  "authorization:  Bearer sk-test-123 \t\r\n"
                                  "content-type: application/json\r\n"
                                  "empty:\r\n"
                                  "blank:  \r\n"
                                  "content-length: 102\r\n"
                                  "\r\n"
                                  "{\"model\"";
    struct outcome outcome;
    unsigned count;

    parse_good(&outcome, (struct slice){ message, sizeof message - 1 });
    IS(outcome.head.method, "POST");
    IS(outcome.head.target, "/v1/chat/completions?x=1");
    IS(outcome.head.path, "/v1/chat/completions");
    CHECK_EQ(outcome.head.minor, 1);
    CHECK_EQ(outcome.head.framing, HTTP_LENGTH);
    CHECK_EQ(outcome.head.content_length, 102);
    CHECK_EQ(outcome.head.bytes, sizeof message - 1 - strlen("{\"model\""));
    CHECK_EQ(outcome.head.field_count, 10);
    CHECK(outcome.head.keeps_alive);
    CHECK(!outcome.head.expects_continue);
    IS(http_field(&outcome.head, HTTP_HOST), "127.0.0.1:28001");
    IS(http_field(&outcome.head, HTTP_AUTHORIZATION), "Bearer sk-test-123");
    IS(http_field(&outcome.head, HTTP_ACCEPT), "application/json");
    CHECK(http_field(&outcome.head, HTTP_EXPECT).at == NULL);
    CHECK(http_field(&outcome.head, HTTP_OTHER).at == NULL);
    IS(outcome.head.fields[4].name, "X-Stainless-Runtime-Version");
    IS(http_field_named(&outcome.head, SLICE("x-stainless-runtime-version"), &count), "v24.21.0");
    CHECK_EQ(count, 1);
    IS(http_field_named(&outcome.head, SLICE("BLANK"), NULL), "");
    CHECK(http_field_named(&outcome.head, SLICE("empty"), NULL).at != NULL);
    CHECK(http_field_named(&outcome.head, SLICE("absent"), &count).at == NULL);
    CHECK_EQ(count, 0);
    outcome_release(&outcome);
}

TEST(a_request_without_framing_fields_has_no_body)
{
    struct outcome outcome;

    parse_good(&outcome, SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    CHECK_EQ(outcome.head.framing, HTTP_NO_BODY);
    CHECK_EQ(outcome.head.content_length, 0);
    outcome_release(&outcome);
}

TEST(a_length_of_nothing_is_still_a_length)
{
    struct outcome outcome;

    parse_good(&outcome, WITH("Content-Length: 0\r\n"));
    CHECK_EQ(outcome.head.framing, HTTP_LENGTH);
    CHECK_EQ(outcome.head.content_length, 0);
    outcome_release(&outcome);
    parse_good(&outcome, WITH("CONTENT-LENGTH:999999999999999999\r\n"));
    CHECK(outcome.head.content_length == 999999999999999999u);
    outcome_release(&outcome);
}

TEST(every_other_reading_of_a_length_is_refused)
{
    static const struct refused rows[] = {
        { WITH("Content-Length: 5, 5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5,5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: +5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: -5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 0x5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5 5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5;\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5_0\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5.0\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: \"5\"\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length:\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: \t5\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5\t\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5 \t \r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: \xc2\xb2\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 9999999999999999999\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 18446744073709551616\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 18446744073709551621\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 000000000000000000000000005\r\n"), "a malformed Content-Length" },
        { WITH("Content-Length: 5\r\nContent-Length: 5\r\n"), "a repeated Content-Length" },
        { WITH("Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n"), "a repeated Content-Length" },
        { WITH("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), "Content-Length beside Transfer-Encoding" },
        { WITH("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), "Content-Length beside Transfer-Encoding" },
        { WITH("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"), "Content-Length beside Transfer-Encoding" },
        { WITH("Transfer-Encoding:\r\nContent-Length: 0\r\n"), "Content-Length beside Transfer-Encoding" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(chunked_is_read_in_any_case)
{
    static const struct slice rows[] = {
        WITH("Transfer-Encoding: chunked\r\n"),
        WITH("transfer-encoding:chunked\r\n"),
        WITH("TRANSFER-ENCODING:   ChUnKeD   \r\n"),
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, rows[i]);
        CHECK_EQ(outcome.head.framing, HTTP_CHUNKED);
        outcome_release(&outcome);
    }
}

TEST(every_other_transfer_coding_is_refused)
{
    static const char other[] = "a Transfer-Encoding other than chunked";
    static const struct refused rows[] = {
        { WITH("Transfer-Encoding: identity\r\n"), other },
        { WITH("Transfer-Encoding: gzip, chunked\r\n"), other },
        { WITH("Transfer-Encoding: chunked, identity\r\n"), other },
        { WITH("Transfer-Encoding: chunked, chunked\r\n"), other },
        { WITH("Transfer-Encoding: , chunked\r\n"), other },
        { WITH("Transfer-Encoding: chunked,\r\n"), other },
        { WITH("Transfer-Encoding: chunked;q=1\r\n"), other },
        { WITH("Transfer-Encoding: xchunked\r\n"), other },
        { WITH("Transfer-Encoding: chunkedx\r\n"), other },
        { WITH("Transfer-Encoding: \"chunked\"\r\n"), other },
        { WITH("Transfer-Encoding: 'chunked'\r\n"), other },
        { WITH("Transfer-Encoding: chun ked\r\n"), other },
        { WITH("Transfer-Encoding: chun\xc4\xb1ked\r\n"), other },
        { WITH("Transfer-Encoding:\r\n"), other },
        { WITH("Transfer-Encoding:\tchunked\r\n"), other },
        { WITH("Transfer-Encoding: chunked\t\r\n"), other },
        { WITH("Transfer-Encoding: \t chunked\r\n"), other },
        { WITH("Transfer-Encoding: \x0b"
               "chunked\r\n"),
          "a control character in the head" },
        { WITH("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), "a repeated Transfer-Encoding" },
        { WITH("Transfer-Encoding: chunked\r\ntransfer-ENCODING: identity\r\n"), "a repeated Transfer-Encoding" },
        { WITH("Transfer-Encoding : chunked\r\n"), "white space before a header's colon" },
        { WITH("Transfer-Encoding\t: chunked\r\n"), "white space before a header's colon" },
        { WITH(" Transfer-Encoding: chunked\r\n"), "a folded header line" },
        { WITH("Transfer-Encoding:\r\n chunked\r\n"), "a folded header line" },
        { WITH("X: y\r\n\tTransfer-Encoding: chunked\r\n"), "a folded header line" },
        { WITH("X: y\nTransfer-Encoding: chunked\r\n"), "a line feed without a carriage return" },
        { WITH("X: y\rTransfer-Encoding: chunked\r\n"), "a carriage return without a line feed" },
        { SLICE("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), "Transfer-Encoding in HTTP/1.0" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(an_unlike_name_is_no_framing_field)
{
    struct outcome outcome;

    parse_good(&outcome, WITH("Transfer_Encoding: chunked\r\n"
                              "Content-Lengt: 5\r\nContent-Length2: 5\r\nContent_Length: 5\r\n"));
    CHECK_EQ(outcome.head.framing, HTTP_NO_BODY);
    outcome_release(&outcome);
}

TEST(lines_end_in_crlf_only)
{
    static const struct refused rows[] = {
        { SLICE("GET / HTTP/1.1\nHost: a\n\n"), "a line feed without a carriage return" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\n\r\n"), "a line feed without a carriage return" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\n\n"), "a line feed without a carriage return" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\r\n"), "a carriage return without a line feed" },
        { SLICE("GET / HTTP/1.1\rHost: a\r\r"), "a carriage return without a line feed" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\n\rGET"), "a carriage return without a line feed" },
        { SLICE("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "a line feed without a carriage return" },
        { SLICE("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "a malformed method" },
        { SLICE("\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"), "a carriage return without a line feed" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(control_characters_are_refused_wherever_they_stand)
{
    static const struct refused rows[] = {
        { SLICE("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"), "a NUL in the head" },
        { SLICE("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), "a NUL in the head" },
        { WITH("X\0Y: z\r\n"), "a NUL in the head" },
        { WITH("X: y\0z\r\n"), "a NUL in the head" },
        { WITH("X: \0\r\n"), "a NUL in the head" },
        { WITH("X: y\x01z\r\n"), "a control character in the head" },
        { WITH("X: y\x1fz\r\n"), "a control character in the head" },
        { WITH("X: y\x7fz\r\n"), "a control character in the head" },
        { WITH("X: y\x0cz\r\n"), "a control character in the head" },
        { SLICE("\x16\x03\x01\x02"), "a control character in the head" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(bytes_above_ascii_and_tabs_may_stand_in_values)
{
    struct outcome outcome;

    parse_good(&outcome, WITH("X: \xe4\xbd\xa0\tb\xff\r\n"));
    IS(outcome.head.fields[1].value, "\xe4\xbd\xa0\tb\xff");
    outcome_release(&outcome);
}

TEST(a_field_is_a_token_a_colon_and_a_value)
{
    static const struct refused rows[] = {
        { WITH("Host2 : a\r\n"), "white space before a header's colon" },
        { WITH("X\t: a\r\n"), "white space before a header's colon" },
        { WITH(" X: a\r\n"), "a folded header line" },
        { WITH("X: a\r\n b\r\n"), "a folded header line" },
        { WITH("X: a\r\n \r\n"), "a folded header line" },
        { WITH("\t\r\n"), "a folded header line" },
        { WITH(": a\r\n"), "a header without a name" },
        { WITH(":\r\n"), "a header without a name" },
        { WITH("no colon at all\r\n"), "white space before a header's colon" },
        { WITH("nocolon\r\n"), "a header without a colon" },
        { WITH("X(a): b\r\n"), "a malformed header name" },
        { WITH("X[a]: b\r\n"), "a malformed header name" },
        { WITH("\"X\": b\r\n"), "a malformed header name" },
        { WITH("X,Y: b\r\n"), "a malformed header name" },
        { WITH("X;Y: b\r\n"), "a malformed header name" },
        { WITH("X/Y: b\r\n"), "a malformed header name" },
        { WITH("\xc3\xa4: b\r\n"), "a malformed header name" },
        { WITH("a-name-that-is-longer-than-sixteen-bytes\xc3\xa4: b\r\n"), "a malformed header name" },
        { SLICE("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), "a folded header line" },
    };
    struct outcome outcome;

    ALL_ARE_REFUSED(rows);
    parse_good(&outcome, WITH("!#$%&'*+-.^_`|~09azAZ: b::c\r\n"));
    IS(outcome.head.fields[1].name, "!#$%&'*+-.^_`|~09azAZ");
    IS(outcome.head.fields[1].value, "b::c");
    outcome_release(&outcome);
}

TEST(the_request_line_has_three_parts_and_two_spaces)
{
    static const struct refused rows[] = {
        { LINE("GET /"), "a malformed request line" },
        { LINE("GET  / HTTP/1.1"), "a malformed request line" },
        { LINE("GET /  HTTP/1.1"), "a malformed request line" },
        { LINE("GET\t/ HTTP/1.1"), "a malformed method" },
        { LINE("GET /\tHTTP/1.1"), "a malformed request line" },
        { LINE("GET / HTTP/1.1 "), "a version other than HTTP/1.0 and HTTP/1.1" },
        { LINE(" GET / HTTP/1.1"), "a malformed method" },
        { LINE("GET / a HTTP/1.1"), "a malformed request line" },
        { LINE("GET HTTP/1.1"), "a malformed request line" },
        { LINE("GET  HTTP/1.1"), "a target that is no path" },
        { LINE("GET"), "a malformed request line" },
        { LINE("G(T / HTTP/1.1"), "a malformed method" },
        { LINE("G\xc3\x8aT / HTTP/1.1"), "a malformed method" },
        { LINE("GET: / HTTP/1.1"), "a malformed method" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(only_versions_1_0_and_1_1_are_spoken)
{
    static const char other[] = "a version other than HTTP/1.0 and HTTP/1.1";
    static const struct refused rows[] = {
        { LINE("GET / HTTP/1.2"), other },
        { LINE("GET / HTTP/1.10"), other },
        { LINE("GET / HTTP/1.01"), other },
        { LINE("GET / HTTP/01.1"), other },
        { LINE("GET / HTTP/2.0"), other },
        { LINE("GET / HTTP/0.9"), other },
        { LINE("GET / http/1.1"), other },
        { LINE("GET / HTTP/1,1"), other },
        { LINE("GET / HTTPS/1.1"), other },
        { LINE("GET / HTTP/1"), other },
        { LINE("GET / HTTP/"), other },
        { LINE("GET / XTTP/1.1"), other },
        { LINE("GET / HTTP/1.\xb1"), other },
        { LINE("GET / a"), other },
        { SLICE("GET /\r\n"), "a malformed request line" },
        { SLICE("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), other },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(targets_are_paths_or_absolute_or_an_asterisk)
{
    static const struct {
        struct slice message;
        const char *path;
    } rows[] = {
        { LINE("GET / HTTP/1.1"), "/" },
        { LINE("GET /? HTTP/1.1"), "/" },
        { LINE("GET /a%2Fb/../c?d?e HTTP/1.1"), "/a%2Fb/../c" },
        { LINE("GET //a HTTP/1.1"), "//a" },
        { LINE("GET /a|{b}\\^`\"<> HTTP/1.1"), "/a|{b}\\^`\"<>" },
        { LINE("GET http://a/b?c HTTP/1.1"), "/b" },
        { LINE("GET HTTPS://A/b/c HTTP/1.1"), "/b/c" },
        { LINE("GET http://a HTTP/1.1"), "/" },
        { LINE("GET http://a?b/c HTTP/1.1"), "/" },
        { LINE("OPTIONS * HTTP/1.1"), "*" },
        { SLICE("GET http://[::1]:80/x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), "/x" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, rows[i].message);
        CHECK_ROW(slice_is(outcome.head.path, slice_of(rows[i].path)), rows[i].message.at);
        outcome_release(&outcome);
    }
}

TEST(other_targets_are_refused)
{
    static const struct refused rows[] = {
        { LINE("GET /a#b HTTP/1.1"), "a fragment in the target" },
        { LINE("GET http://a/#b HTTP/1.1"), "a fragment in the target" },
        { LINE("GET /\xc3\xa4 HTTP/1.1"), "a malformed request line" },
        { LINE("GET a HTTP/1.1"), "a target that is no path" },
        { LINE("GET ?a HTTP/1.1"), "a target that is no path" },
        { LINE("GET * HTTP/1.1"), "an asterisk target is for OPTIONS only" },
        { LINE("OPTIONS ** HTTP/1.1"), "a target that is no path" },
        { LINE("CONNECT a:443 HTTP/1.1"), "a target that is no path" },
        { LINE("GET ftp://a/ HTTP/1.1"), "a target that is no path" },
        { LINE("GET http:/a HTTP/1.1"), "a target that is no path" },
        { LINE("GET http:// HTTP/1.1"), "a target with a malformed authority" },
        { LINE("GET http:///a HTTP/1.1"), "a target with a malformed authority" },
        { LINE("GET http://u@a/ HTTP/1.1"), "a target with a malformed authority" },
        { LINE("GET http://a\\b/ HTTP/1.1"), "a target with a malformed authority" },
        { LINE("GET http://b/ HTTP/1.1"), "a target that contradicts the Host header" },
        { LINE("GET http://a:80/ HTTP/1.1"), "a target that contradicts the Host header" },
        { SLICE("GET http://a/ HTTP/1.0\r\n\r\n"), "a target that contradicts the Host header" },
    };
    ALL_ARE_REFUSED(rows);
}

TEST(there_is_one_host_and_it_is_one)
{
    static const struct refused rows[] = {
        { SLICE("GET / HTTP/1.1\r\n\r\n"), "no Host header" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), "a repeated Host" },
        { SLICE("GET / HTTP/1.0\r\nHost: a\r\nhOST: b\r\n\r\n"), "a repeated Host" },
        { SLICE("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), "a malformed Host" },
        { SLICE("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), "a malformed Host" },
        { SLICE("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), "a malformed Host" },
        { SLICE("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), "a malformed Host" },
        { SLICE("GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n"), "a malformed Host" },
    };
    struct outcome outcome;

    ALL_ARE_REFUSED(rows);
    parse_good(&outcome, SLICE("GET / HTTP/1.1\r\nHost:\r\n\r\n"));
    outcome_release(&outcome);
    parse_good(&outcome, SLICE("GET / HTTP/1.0\r\n\r\n"));
    CHECK_EQ(outcome.head.minor, 0);
    outcome_release(&outcome);
}

TEST(fields_that_decide_may_not_be_repeated)
{
    static const struct refused rows[] = {
        { WITH("Content-Type: a\r\nContent-Type: a\r\n"), "a repeated Content-Type" },
        { WITH("Expect: 100-continue\r\nExpect: 100-continue\r\n"), "a repeated Expect" },
        { WITH("Authorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n"), "a repeated Authorization" },
    };
    struct outcome outcome;

    ALL_ARE_REFUSED(rows);
    parse_good(&outcome, WITH("Accept: a\r\nX-Forwarded-For: 1\r\n"
                              "Accept: b\r\nX-Forwarded-For: 2\r\nx: 1\r\nX: 2\r\n"));
    CHECK_EQ(outcome.head.count[HTTP_ACCEPT], 2);
    CHECK_EQ(outcome.head.count[HTTP_X_FORWARDED_FOR], 2);
    IS(http_field(&outcome.head, HTTP_ACCEPT), "a");
    {
        unsigned count;
        IS(http_field_named(&outcome.head, SLICE("X"), &count), "1");
        CHECK_EQ(count, 2);
    }
    outcome_release(&outcome);
}

TEST(one_empty_line_before_a_request_is_passed_over)
{
    struct outcome outcome;

    parse_good(&outcome, SLICE("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    IS(outcome.head.method, "GET");
    CHECK_EQ(outcome.head.bytes, strlen("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    outcome_release(&outcome);
}

TEST(the_connection_is_kept_as_version_and_field_say)
{
    static const struct {
        struct slice message;
        bool keeps;
    } rows[] = {
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), true },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE ,bar\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nX: y\r\nconnection: close\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: foo\r\n\r\n"), true },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n\r\n"), true },
        { SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n"), true },
        { SLICE("GET / HTTP/1.0\r\n\r\n"), false },
        { SLICE("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), true },
        { SLICE("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n"), false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, rows[i].message);
        CHECK_ROW(outcome.head.keeps_alive == rows[i].keeps, rows[i].message.at);
        outcome_release(&outcome);
    }
}

TEST(only_a_request_with_a_body_expects_to_continue)
{
    static const struct {
        struct slice message;
        bool expects;
    } rows[] = {
        { WITH("Expect: 100-continue\r\nContent-Length: 5\r\n"), true },
        { WITH("Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n"), true },
        { WITH("Expect: 100-continue\r\n"), false },
        { WITH("Expect: 100-continue\r\nContent-Length: 0\r\n"), false },
        { WITH("Expect: something\r\nContent-Length: 5\r\n"), false },
        { SLICE("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"), false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        parse_good(&outcome, rows[i].message);
        CHECK_ROW(outcome.head.expects_continue == rows[i].expects, rows[i].message.at);
        outcome_release(&outcome);
    }
}

TEST(a_head_that_is_not_whole_wants_more)
{
    static const struct slice rows[] = {
        { "", 0 },
        { "\r", 1 },
        { "\r\n", 2 },
        { "G", 1 },
        { "GET / HTTP/1.1\r", 15 },
        { "GET / HTTP/1.1\r\n", 16 },
        { "GET / HTTP/1.1\r\nHost: a\r\n", 25 },
        { "GET / HTTP/1.1\r\nHost: a\r\n\r", 26 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        outcome_of(&outcome, REQUEST, rows[i], MAX);
        CHECK_ROW(outcome.result == HTTP_MORE, rows[i].at);
        outcome_release(&outcome);
    }
}

static void add_fields(struct text *text, unsigned count)
{
    text_add_literal(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 1; i < count; i++)
        text_printf(text, "X-%u: %u\r\n", i, i);
    text_add_literal(text, "\r\n");
}

TEST(there_are_at_most_128_fields)
{
    static const struct {
        unsigned fields;
        enum http_result result;
    } rows[] = { { 128, HTTP_DONE }, { 129, HTTP_TOO_BIG }, { 1000, HTTP_TOO_BIG } };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        struct text message;
        text_init(&message, MAX);
        add_fields(&message, rows[i].fields);
        outcome_of(&outcome, REQUEST, text_slice(&message), MAX);
        CHECK_EQ(outcome.result, rows[i].result);
        if (outcome.result == HTTP_DONE)
            IS(http_field_named(&outcome.head, SLICE("x-127"), NULL), "127");
        outcome_release(&outcome);
        text_release(&message);
    }
}

/* A head of exactly that many bytes. */
static void add_head_of(struct text *text, size_t bytes)
{
    text_add_literal(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
    while (text->len < bytes - 4)
        text_add_char(text, 'y');
    text_add_literal(text, "\r\n\r\n");
}

TEST(a_head_may_be_as_long_as_its_limit_and_no_longer)
{
    static const struct {
        size_t bytes, max;
        enum http_result result;
    } rows[] = { { 65536, 65536, HTTP_DONE }, { 65537, 65536, HTTP_TOO_BIG }, { 100, 100, HTTP_DONE },
                 { 101, 100, HTTP_TOO_BIG },  { 2000, 100, HTTP_TOO_BIG },    { 100, 0, HTTP_TOO_BIG } };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome outcome;
        struct text message;
        text_init(&message, MAX * 2);
        add_head_of(&message, rows[i].bytes);
        outcome_of(&outcome, REQUEST, text_slice(&message), rows[i].max);
        CHECK_EQ(outcome.result, rows[i].result);
        outcome_release(&outcome);
        text_release(&message);
    }
}

TEST(a_body_behind_the_head_does_not_count_against_its_limit)
{
    struct outcome outcome;
    struct slice message = SLICE("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123456789GET / HTTP/1.1");

    outcome_of(&outcome, REQUEST, message, message.len - 23);
    CHECK_EQ(outcome.result, HTTP_DONE);
    CHECK_EQ(outcome.head.bytes, message.len - 23);
    outcome_release(&outcome);
}
