/*
 * http - the HTTP/1.1 codec (RFC 9110, 9112), one for both sides: callers' requests and backends' answers.
 * Strict: what two parsers could read differently is refused. It parses what lies in a flat buffer, keeps
 * nothing but small cursors, copies nothing and allocates nothing; every slice points into the buffer given.
 * Any thread; a head belongs to whoever declared it and is good until the buffer moves or is written over.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum {
    HTTP_MAX_FIELDS = 128,
    HTTP_MAX_CHUNK_LINE = 256,     /* chunk size with extensions */
    HTTP_MAX_TRAILER_BYTES = 8192, /* all trailer fields together */
};

/* Fields that the gateway knows, looked up by number: X(enumerator, "lower-case name"). field.c has a slot for each. */
#define HTTP_FIELDS(X)                        \
    X(HOST, "host")                           \
    X(CONNECTION, "connection")               \
    X(CONTENT_LENGTH, "content-length")       \
    X(CONTENT_TYPE, "content-type")           \
    X(CONTENT_ENCODING, "content-encoding")   \
    X(TRANSFER_ENCODING, "transfer-encoding") \
    X(EXPECT, "expect")                       \
    X(AUTHORIZATION, "authorization")         \
    X(ACCEPT, "accept")                       \
    X(X_REQUEST_ID, "x-request-id")           \
    X(X_FORWARDED_FOR, "x-forwarded-for")     \
    X(RETRY_AFTER, "retry-after")             \
    X(UPGRADE, "upgrade")

enum http_field_name {
    HTTP_OTHER = 0,
#define HTTP_FIELD_ENUM(name, text) HTTP_##name,
    HTTP_FIELDS(HTTP_FIELD_ENUM)
#undef HTTP_FIELD_ENUM
        HTTP_FIELD_NAMES
};

struct http_field {
    struct slice name;  /* as written */
    struct slice value; /* without white space around it */
};

enum http_framing {
    HTTP_NO_BODY,
    HTTP_LENGTH,
    HTTP_CHUNKED,
    HTTP_UNTIL_CLOSE, /* answers only */
};

struct http_head {
    struct slice method; /* requests */
    struct slice target; /* requests: as written */
    struct slice path;   /* requests: target up to '?', of absolute-form the part after the authority ("/" if none) */
    struct slice reason; /* answers */
    unsigned status;     /* answers: 100 ... 999 */
    unsigned minor;      /* HTTP/1.minor: 0 or 1 */
    enum http_framing framing;
    uint64_t content_length; /* with HTTP_LENGTH (and may be 0 there); below 10^18 */
    bool keeps_alive;        /* the connection may be used again after this message */
    bool expects_continue;   /* requests, and a body follows */
    size_t bytes;            /* of the head, its empty line included */
    unsigned field_count;
    struct http_field fields[HTTP_MAX_FIELDS];
    uint8_t first[HTTP_FIELD_NAMES]; /* 1 + index of the first field of that name; 0: there is none */
    uint8_t count[HTTP_FIELD_NAMES]; /* how often a known field came */
};

enum http_result {
    HTTP_DONE,    /* whole */
    HTTP_MORE,    /* good so far: more bytes are needed */
    HTTP_BAD,     /* malformed or ambiguous: `why` says it in a phrase; the connection must be closed */
    HTTP_TOO_BIG, /* the head is over max_bytes, or has over HTTP_MAX_FIELDS fields; `why` says which */
};

/*
 * Parses a request's (or an answer's) head at the start of `at`. Lines end in CRLF only. `*scanned` is a cursor for
 * heads that come in pieces: 0 at first, kept by the caller between calls on the same, growing buffer; it is 0 again
 * after anything but HTTP_MORE. The outcome never depends on the pieces. *ret_head is written over in any case and
 * means something after HTTP_DONE only; *ret_why is set with HTTP_BAD and HTTP_TOO_BIG, to a lasting phrase.
 * Requests: HTTP/1.0 and 1.1; one Host where 1.1 demands it, made of a host's and port's characters; no repeated
 * Host, Content-Length, Transfer-Encoding, Content-Type, Expect or Authorization; no Content-Length beside
 * Transfer-Encoding; Transfer-Encoding is exactly "chunked" (any case) and needs 1.1; Content-Length is 1 to 18
 * digits; no tab beside either value; no obs-fold, no space before a colon, no control characters or NUL; methods
 * and names are tokens; targets are visible ASCII without '#' in origin-form, absolute-form (http, https; its
 * authority must equal Host) or `*` (OPTIONS only). One leading CRLF before a request line is passed over (RFC 9112
 * 2.2). Answers: as strict in lines and framing, and no body announced with 1xx and 204; the reason may be missing.
 * 1xx are returned as heads of their own with HTTP_NO_BODY; `to_head` says that the request was a HEAD.
 */
enum http_result http_parse_request(struct http_head *ret_head, const char *at, size_t len, size_t max_bytes,
                                    size_t *scanned, const char **ret_why);
enum http_result http_parse_response(struct http_head *ret_head, const char *at, size_t len, size_t max_bytes,
                                     size_t *scanned, bool to_head, const char **ret_why);

/* The first field of that known name; {NULL, 0} when there is none. */
struct slice http_field(const struct http_head *head, enum http_field_name name);
/* Any field by name, whatever its case; `ret_count` (may be NULL) says how often it came. */
struct slice http_field_named(const struct http_head *head, struct slice name, unsigned *ret_count);
/* Is `token` an element of the comma list `list`? ASCII case does not matter. */
bool http_list_has(struct slice list, struct slice token);
/* Adds it to out with %XX decoded, for path segments; %2F becomes '/'. False, out as it was: a bad escape, a NUL or
 * control character, not UTF-8, or no room in out. */
bool http_percent_decode(struct slice segment, struct text *out);
/* A token as RFC 9110 5.6.2 has it (method, field name). */
bool http_is_token(struct slice slice);

/*
 * A body, taken out of its framing step by step.
 *     0 ─ used ─ payload ─ not looked at ─ len
 */
struct http_body {
    enum http_framing framing;
    uint64_t left;       /* LENGTH: payload to come; CHUNKED: of the current chunk */
    uint64_t seen;       /* payload bytes so far */
    uint32_t line_bytes; /* of the chunk line or of the trailers being read */
    uint8_t state;       /* CHUNKED: enum chunk_state of body.c */
    uint8_t digits;      /* of the chunk size being read */
};

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t content_length);
/*
 * Looks at [at, at + len), stops after the first run of payload and the framing behind it. *ret_used: bytes done
 * with, payload included; over 0 unless len is, or the body has ended or is broken.
 * HTTP_MORE: call again with what follows (used may be < len: then call again at once);
 * HTTP_DONE: the body has ended after *ret_used bytes (a payload may come with it); HTTP_BAD: broken framing, never
 * with a payload: that was given out before. Both stay when it is called again.
 * HTTP_UNTIL_CLOSE never returns HTTP_DONE: the end is the connection's. Chunk extensions and trailers are checked
 * for their shape and thrown away.
 */
enum http_result http_body_next(struct http_body *body, const char *at, size_t len, size_t *ret_used,
                                struct slice *ret_payload, const char **ret_why);

/* "Not Found" and the like; "Unknown" for others. */
const char *http_reason(unsigned status);
/* Sun, 22 Nov 2026 14:17:13 GMT (IMF-fixdate); formatted once a second and thread, good until the next call there. */
struct slice http_date(int64_t wall_ms);
