#include "http.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER };

void http_restart(struct http_request *req)
{
    struct bytes chunks = req->chunks;

    memset(req, 0, offsetof(struct http_request, headers));
    memset(&req->header_count, 0, sizeof *req - offsetof(struct http_request, header_count));
    chunks.len = 0;
    req->chunks = chunks;
}

void http_release(struct http_request *req)
{
    bytes_release(&req->chunks);
}

struct slice http_slice(const char *base, struct http_span span)
{
    return (struct slice){ base + span.from, span.len };
}

struct slice http_body(const struct http_request *req, const char *base)
{
    if (req->is_chunked)
        return (struct slice){ req->chunks.at ? req->chunks.at : "", req->chunks.len };
    return (struct slice){ base + req->head_len, (size_t)req->length };
}

struct slice http_header(const struct http_request *req, const char *base, const char *name)
{
    for (unsigned i = 0; i < req->header_count; i++)
        if (slice_is_caseless(http_slice(base, req->headers[i].name), name))
            return http_slice(base, req->headers[i].value);
    return (struct slice){ 0 };
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        { 200, "OK" },
        { 400, "Bad Request" },
        { 401, "Unauthorized" },
        { 403, "Forbidden" },
        { 404, "Not Found" },
        { 405, "Method Not Allowed" },
        { 408, "Request Timeout" },
        { 409, "Conflict" },
        { 413, "Request Entity Too Large" },
        { 417, "Expectation Failed" },
        { 429, "Too Many Requests" },
        { 431, "Request Header Fields Too Large" },
        { 500, "Internal Server Error" },
        { 501, "Not Implemented" },
        { 502, "Bad Gateway" },
        { 503, "Service Unavailable" },
        { 504, "Gateway Timeout" },
        { 505, "HTTP Version Not Supported" },
    };

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "status code";
}

__attribute__((format(printf, 3, 4))) static enum http_verdict bad(struct http_request *req, int status,
                                                                   const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(req->why, sizeof req->why, format, args);
    va_end(args);
    req->status = status;
    return HTTP_BAD;
}

static bool is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool all_token(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token((unsigned char)s.at[i]))
            return false;
    return s.len > 0;
}

static bool all_printable(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.at[i] <= ' ' || (unsigned char)s.at[i] >= 0x7f)
            return false;
    return s.len > 0;
}

/* METHOD SP TARGET SP HTTP/1.1, one space each. */
static enum http_verdict request_line(struct http_request *req, const char *base, size_t len)
{
    const char *first = memchr(base, ' ', len);
    const char *second = first ? memchr(first + 1, ' ', len - (size_t)(first + 1 - base)) : NULL;
    struct slice version;

    if (len == 0)
        return bad(req, 400, "empty line before the request");
    if (!second)
        return bad(req, 400, "request line without two spaces");
    req->method = (struct http_span){ 0, (uint32_t)(first - base) };
    req->target = (struct http_span){ (uint32_t)(first + 1 - base), (uint32_t)(second - first - 1) };
    version = (struct slice){ second + 1, len - (size_t)(second + 1 - base) };
    req->is_http10 = slice_is(version, "HTTP/1.0");
    req->keeps_alive = !req->is_http10;
    if (!req->is_http10 && !slice_is(version, "HTTP/1.1"))
        return bad(req, slice_starts(version, "HTTP/2") ? 505 : 400, "not HTTP/1.1");
    if (!all_token(http_slice(base, req->method)))
        return bad(req, 400, "method is not a token");
    if (!all_printable(http_slice(base, req->target)) || base[req->target.from] != '/')
        return bad(req, 400, "target is not a path");
    if (memchr(base + req->target.from, '#', req->target.len))
        return bad(req, 400, "target with a fragment");
    return HTTP_WHOLE;
}

static bool value_is_clean(struct slice value)
{
    for (size_t i = 0; i < value.len; i++)
        if (((unsigned char)value.at[i] < ' ' && value.at[i] != '\t') || value.at[i] == 0x7f)
            return false;
    return true;
}

static enum http_verdict header_line(struct http_request *req, const char *base, size_t from, size_t len)
{
    const char *line = base + from;
    const char *colon = memchr(line, ':', len);
    struct slice value;

    if (*line == ' ' || *line == '\t')
        return bad(req, 400, "folded header line");
    if (!colon)
        return bad(req, 400, "header line without a colon");
    if (!all_token((struct slice){ line, (size_t)(colon - line) }))
        return bad(req, 400, "header name is not a token");
    value = (struct slice){ colon + 1, len - (size_t)(colon + 1 - line) };
    while (value.len && (*value.at == ' ' || *value.at == '\t'))
        value.at++, value.len--;
    while (value.len && (value.at[value.len - 1] == ' ' || value.at[value.len - 1] == '\t'))
        value.len--;
    if (!value_is_clean(value))
        return bad(req, 400, "control character in a header value");
    if (req->header_count == HTTP_HEADERS_MAX)
        return bad(req, 431, "more than %d headers", HTTP_HEADERS_MAX);
    req->headers[req->header_count++] = (struct http_header){ { (uint32_t)from, (uint32_t)(colon - line) },
                                                              { (uint32_t)(value.at - base), (uint32_t)value.len } };
    return HTTP_WHOLE;
}

static enum http_verdict length_header(struct http_request *req, struct slice value)
{
    uint64_t length = 0;

    if (value.len == 0 || value.len > 18)
        return bad(req, 400, "Content-Length is not a number");
    for (size_t i = 0; i < value.len; i++) {
        if (value.at[i] < '0' || value.at[i] > '9')
            return bad(req, 400, "Content-Length is not a number");
        length = length * 10 + (uint64_t)(value.at[i] - '0');
    }
    if (length > HTTP_BODY_MAX)
        return bad(req, 413, "body too long");
    req->length = length;
    return HTTP_WHOLE;
}

static void connection_header(struct http_request *req, struct slice value)
{
    while (value.len) {
        const char *comma = memchr(value.at, ',', value.len);
        struct slice item = { value.at, comma ? (size_t)(comma - value.at) : value.len };
        size_t whole = item.len + (comma ? 1 : 0);

        while (item.len && *item.at == ' ')
            item.at++, item.len--;
        while (item.len && item.at[item.len - 1] == ' ')
            item.len--;
        if (slice_is_caseless(item, "close"))
            req->keeps_alive = false;
        else if (slice_is_caseless(item, "keep-alive") && req->is_http10)
            req->keeps_alive = true;
        value.at += whole;
        value.len -= whole;
    }
}

static bool host_is_clean(struct slice host)
{
    for (size_t i = 0; i < host.len; i++)
        if (!is_token((unsigned char)host.at[i]) && !strchr(":[]", host.at[i]))
            return false;
    return true;
}

/* Everything that decides where the request ends, and may therefore stand there only once. */
static enum http_verdict framing(struct http_request *req, const char *base)
{
    unsigned lengths = 0;
    unsigned hosts = 0;

    for (unsigned i = 0; i < req->header_count; i++) {
        struct slice name = http_slice(base, req->headers[i].name);
        struct slice value = http_slice(base, req->headers[i].value);

        if (slice_is_caseless(name, "content-length")) {
            if (lengths++)
                return bad(req, 400, "two Content-Length headers");
            if (length_header(req, value) == HTTP_BAD)
                return HTTP_BAD;
        } else if (slice_is_caseless(name, "transfer-encoding")) {
            if (req->is_chunked || !slice_is_caseless(value, "chunked"))
                return bad(req, 400, "Transfer-Encoding is not just chunked");
            req->is_chunked = true;
        } else if (slice_is_caseless(name, "host")) {
            if (hosts++ || !host_is_clean(value))
                return bad(req, 400, hosts > 1 ? "two Host headers" : "malformed Host header");
        } else if (slice_is_caseless(name, "connection")) {
            connection_header(req, value);
        } else if (slice_is_caseless(name, "expect")) {
            if (!slice_is_caseless(value, "100-continue"))
                return bad(req, 417, "Expect is not 100-continue");
            req->wants_continue = !req->is_http10;
        }
    }
    if (req->is_chunked && lengths)
        return bad(req, 400, "both Content-Length and Transfer-Encoding");
    if (req->is_chunked && req->is_http10)
        return bad(req, 400, "Transfer-Encoding in HTTP/1.0");
    if (!hosts && !req->is_http10)
        return bad(req, 400, "missing required Host header");
    return HTTP_WHOLE;
}

/* One line without its CRLF. HTTP_WHOLE: *ret_len and *ret_next are set. */
static enum http_verdict line_at(struct http_request *req, const char *at, size_t len, size_t from, size_t *ret_len,
                                 size_t *ret_next)
{
    const char *lf = memchr(at + from, '\n', len - from);
    size_t end;

    if (!lf)
        return HTTP_MORE;
    end = (size_t)(lf - at);
    if (end == from || at[end - 1] != '\r')
        return bad(req, 400, "line ended by a bare LF");
    if (memchr(at + from, '\r', end - 1 - from))
        return bad(req, 400, "bare CR in a line");
    *ret_len = end - 1 - from;
    *ret_next = end + 1;
    return HTTP_WHOLE;
}

static enum http_verdict read_head(struct http_request *req, const char *at, size_t len)
{
    for (;;) {
        size_t line_len;
        size_t next;
        enum http_verdict verdict = line_at(req, at, len, req->scanned, &line_len, &next);

        if (verdict == HTTP_MORE && len > HTTP_HEAD_MAX)
            return bad(req, 431, "head longer than %d bytes", HTTP_HEAD_MAX);
        if (verdict != HTTP_WHOLE)
            return verdict;
        if (req->scanned == 0)
            verdict = request_line(req, at, line_len);
        else if (line_len)
            verdict = header_line(req, at, req->scanned, line_len);
        if (verdict == HTTP_BAD)
            return HTTP_BAD;
        req->scanned = next;
        if (line_len == 0)
            break;
        if (next > HTTP_HEAD_MAX)
            return bad(req, 431, "head longer than %d bytes", HTTP_HEAD_MAX);
    }
    req->head_len = req->chunk_at = req->scanned;
    req->has_head = true;
    return framing(req, at);
}

static enum http_verdict chunk_size(struct http_request *req, struct slice line)
{
    uint64_t size = 0;
    size_t digits = 0;

    for (; digits < line.len; digits++) {
        char c = (char)(line.at[digits] | 0x20);

        if (line.at[digits] >= '0' && line.at[digits] <= '9')
            size = size * 16 + (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            size = size * 16 + (uint64_t)(c - 'a' + 10);
        else
            break;
        if (digits == 15)
            return bad(req, 400, "chunk size too long");
    }
    if (digits == 0)
        return bad(req, 400, "chunk size is not a number");
    if (digits < line.len && line.at[digits] != ';')
        return bad(req, 400, "garbage after the chunk size");
    if (!value_is_clean(line))
        return bad(req, 400, "control character in a chunk extension");
    if (size > HTTP_BODY_MAX - req->chunks.len)
        return bad(req, 413, "body too long");
    req->chunk_left = size;
    req->chunk_state = size ? CHUNK_DATA : CHUNK_TRAILER;
    return HTTP_WHOLE;
}

static enum http_verdict trailer_line(struct http_request *req, const char *at, size_t from, size_t len)
{
    unsigned before = req->header_count;
    struct slice name;

    if (len == 0) {
        req->len = req->chunk_at;
        return HTTP_WHOLE;
    }
    if (header_line(req, at, from, len) == HTTP_BAD)
        return HTTP_BAD;
    name = http_slice(at, req->headers[before].name);
    if (slice_is_caseless(name, "content-length") || slice_is_caseless(name, "transfer-encoding") ||
        slice_is_caseless(name, "host"))
        return bad(req, 400, "framing header in a trailer");
    req->header_count = before;
    return HTTP_MORE;
}

static enum http_verdict chunk_line(struct http_request *req, const char *at, size_t len)
{
    size_t from = req->chunk_at;
    size_t line_len;
    enum http_verdict verdict = line_at(req, at, len, from, &line_len, &req->chunk_at);

    if (verdict == HTTP_MORE && len - from > 4096)
        return bad(req, 400, "chunk line too long");
    if (verdict != HTTP_WHOLE)
        return verdict;
    if (req->chunk_state == CHUNK_SIZE)
        return chunk_size(req, (struct slice){ at + from, line_len }) == HTTP_BAD ? HTTP_BAD : HTTP_WHOLE;
    if (req->chunk_state == CHUNK_DATA_END) {
        req->chunk_state = CHUNK_SIZE;
        return line_len ? bad(req, 400, "chunk longer than its size") : HTTP_WHOLE;
    }
    verdict = trailer_line(req, at, from, line_len);
    return verdict == HTTP_MORE ? HTTP_WHOLE : verdict;
}

static enum http_verdict read_chunks(struct http_request *req, const char *at, size_t len)
{
    while (!req->len) {
        size_t here = len - req->chunk_at;

        if (req->chunk_state == CHUNK_DATA) {
            size_t take = here < req->chunk_left ? here : (size_t)req->chunk_left;

            bytes_add(&req->chunks, at + req->chunk_at, take);
            req->chunk_at += take;
            req->chunk_left -= take;
            if (req->chunk_left)
                return HTTP_MORE;
            req->chunk_state = CHUNK_DATA_END;
        } else {
            enum http_verdict verdict = chunk_line(req, at, len);

            if (verdict != HTTP_WHOLE)
                return verdict;
        }
    }
    return HTTP_WHOLE;
}

enum http_verdict http_read(struct http_request *req, const char *at, size_t len)
{
    if (!req->has_head) {
        enum http_verdict verdict = read_head(req, at, len);

        if (verdict != HTTP_WHOLE)
            return verdict;
    }
    if (req->is_chunked)
        return read_chunks(req, at, len);
    if (len - req->head_len < req->length)
        return HTTP_MORE;
    req->len = req->head_len + (size_t)req->length;
    return HTTP_WHOLE;
}
