/*
 * http - a strict reader of HTTP/1.1 requests, written apart from the gateway's so that it can judge it.
 * What RFC 9112 leaves to leniency is refused here: bare LF, folded lines, two lengths, a length beside chunked,
 * bytes that do not belong. Owned by the connection. Offsets count from the request's first byte.
 */
#pragma once
#include "bytes.h"

enum { HTTP_HEADERS_MAX = 128, HTTP_HEAD_MAX = 65536 };
#define HTTP_BODY_MAX ((uint64_t)256 << 20)

enum http_verdict { HTTP_MORE, HTTP_WHOLE, HTTP_BAD };

struct http_span {
    uint32_t from;
    uint32_t len;
};

struct http_header {
    struct http_span name;
    struct http_span value;
};

struct http_request {
    struct http_span method;
    struct http_span target;
    struct http_header headers[HTTP_HEADERS_MAX];
    unsigned header_count;
    bool is_http10;
    bool keeps_alive;
    bool is_chunked;
    bool wants_continue;
    bool has_head;
    uint64_t length;     /* declared */
    size_t scanned;      /* of the head, for its end */
    size_t head_len;     /* with the empty line */
    size_t chunk_at;     /* where the next undecoded byte of a chunked body stands */
    uint64_t chunk_left; /* of the chunk being read */
    int chunk_state;
    struct bytes chunks; /* the decoded body */
    size_t len;          /* of the whole request, when HTTP_WHOLE */
    int status;          /* what to answer, when HTTP_BAD */
    char why[160];       /* the reason, when HTTP_BAD */
};

/* Ready for the next request on the same connection; keeps the memory. */
void http_restart(struct http_request *req);
void http_release(struct http_request *req);

/* at..at+len is all there is of the request so far; call again with more after HTTP_MORE. */
enum http_verdict http_read(struct http_request *req, const char *at, size_t len);

struct slice http_slice(const char *base, struct http_span span);
struct slice http_body(const struct http_request *req, const char *base);
/* The value of the first header of that name; at == NULL if there is none. */
struct slice http_header(const struct http_request *req, const char *base, const char *name);
const char *http_status_text(int status);
