/*
 * Framing: where a message ends, and whether another may follow on its connection. Here requests are
 * smuggled, so whatever two parsers could read differently is refused, also where a lenient reading exists.
 */
#include "http_inside.h"

enum { MAX_LENGTH_DIGITS = 18 }; /* below 2^63, so that sums of two cannot wrap */

COLD static enum http_result bad(const char **ret_why, const char *why)
{
    *ret_why = why;
    return HTTP_BAD;
}

/* A tab around the value is white space to some and a part of the value to others (Nginx). */
static bool has_tab_beside(const struct http_head *head, enum http_field_name name)
{
    const struct http_field *field = &head->fields[head->first[name] - 1];
    const char *colon = field->name.at + field->name.len;
    const char *at = field->value.at + field->value.len;

    for (; *at != '\r'; at++)
        if (*at == '\t')
            return true;
    return memchr(colon, '\t', (size_t)(field->value.at - colon)) != NULL;
}

/* 1*DIGIT: no sign, no list, no 0x, no space within. */
static bool read_length(struct slice value, uint64_t *ret_length)
{
    uint64_t length = 0;

    if (value.len == 0 || value.len > MAX_LENGTH_DIGITS)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return false;
        length = length * 10 + (uint64_t)(value.at[i] - '0');
    }
    *ret_length = length;
    return true;
}

/* What the two framing fields say, whatever the kind of message; HTTP_NO_BODY when neither is there. */
static enum http_result read_framing(struct http_head *head, const char **ret_why)
{
    bool has_coding = head->count[HTTP_TRANSFER_ENCODING], has_length = head->count[HTTP_CONTENT_LENGTH];

    if (head->count[HTTP_CONTENT_LENGTH] > 1)
        return bad(ret_why, "a repeated Content-Length");
    if (head->count[HTTP_TRANSFER_ENCODING] > 1)
        return bad(ret_why, "a repeated Transfer-Encoding");
    if (has_coding && has_length)
        return bad(ret_why, "Content-Length beside Transfer-Encoding");
    if (has_length) {
        if (!read_length(http_field(head, HTTP_CONTENT_LENGTH), &head->content_length) ||
            has_tab_beside(head, HTTP_CONTENT_LENGTH))
            return bad(ret_why, "a malformed Content-Length");
        head->framing = HTTP_LENGTH;
    }
    if (has_coding) {
        if (head->minor == 0)
            return bad(ret_why, "Transfer-Encoding in HTTP/1.0");
        if (!slice_is_nocase(http_field(head, HTTP_TRANSFER_ENCODING), SLICE("chunked")) ||
            has_tab_beside(head, HTTP_TRANSFER_ENCODING))
            return bad(ret_why, "a Transfer-Encoding other than chunked");
        head->framing = HTTP_CHUNKED;
    }
    return HTTP_DONE;
}

/* Connection may be said in several fields. */
static bool connection_says(const struct http_head *head, struct slice token)
{
    unsigned left = head->count[HTTP_CONNECTION];

    for (unsigned i = head->first[HTTP_CONNECTION]; left; i++) {
        const struct http_field *field = &head->fields[i - 1];
        if (http_known_field(field->name) != HTTP_CONNECTION)
            continue;
        if (http_list_has(field->value, token))
            return true;
        left--;
    }
    return false;
}

static bool keeps_alive(const struct http_head *head)
{
    if (connection_says(head, SLICE("close")))
        return false;
    return head->minor == 1 || connection_says(head, SLICE("keep-alive"));
}

static const char *repeated_field(const struct http_head *head)
{
    static const struct {
        enum http_field_name name;
        const char *why;
    } once[] = {
        { HTTP_HOST, "a repeated Host" },
        { HTTP_CONTENT_TYPE, "a repeated Content-Type" },
        { HTTP_EXPECT, "a repeated Expect" },
        { HTTP_AUTHORIZATION, "a repeated Authorization" },
    };

    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        if (head->count[once[i].name] > 1)
            return once[i].why;
    return NULL;
}

static bool is_authority(struct slice host)
{
    for (size_t i = 0; i < host.len; i++)
        if (!http_is(host.at[i], CLASS_AUTHORITY))
            return false;
    return true; /* empty too: a target without an authority has an empty Host (RFC 9112 3.2) */
}

enum http_result http_frame_request(struct http_head *head, const char **ret_why)
{
    const char *repeated = repeated_field(head);

    if (repeated)
        return bad(ret_why, repeated);
    if (head->minor == 1 && head->count[HTTP_HOST] == 0)
        return bad(ret_why, "no Host header");
    if (!is_authority(http_field(head, HTTP_HOST)))
        return bad(ret_why, "a malformed Host");
    if (read_framing(head, ret_why) != HTTP_DONE)
        return HTTP_BAD;
    head->keeps_alive = keeps_alive(head);
    head->expects_continue = head->minor == 1 && (head->framing == HTTP_CHUNKED || head->content_length) &&
                             http_list_has(http_field(head, HTTP_EXPECT), SLICE("100-continue"));
    return HTTP_DONE;
}

enum http_result http_frame_response(struct http_head *head, bool to_head, const char **ret_why)
{
    bool is_interim = head->status < 200;

    if (read_framing(head, ret_why) != HTTP_DONE)
        return HTTP_BAD;
    head->keeps_alive = keeps_alive(head) && head->status != 101;
    if ((is_interim || head->status == 204) && (head->framing == HTTP_CHUNKED || head->content_length))
        return bad(ret_why, "a body where none may be");
    if (is_interim || head->status == 204 || head->status == 304 || to_head) {
        head->framing = HTTP_NO_BODY;
        head->content_length = 0;
    } else if (head->framing == HTTP_NO_BODY) {
        head->framing = HTTP_UNTIL_CLOSE;
        head->keeps_alive = false;
    }
    return HTTP_DONE;
}
