/*
 * Bodies out of their framing. The chunked one is a machine over single bytes, payload excepted, so its
 * outcome cannot depend on how the bytes were cut:
 *
 *     SIZE ─► EXTENSION ⇄ QUOTED ⇄ ESCAPED
 *       └───────┴─► SIZE_LF ─► DATA ─► DATA_CR ─► DATA_LF ─► SIZE
 *                      └─ size 0 ─► LINE ─► NAME ─► VALUE ─► VALUE_LF ─► LINE ─► END_LF ─► ENDED
 */
#include "http_inside.h"

enum chunk_state {
    SIZE,  /* 0: as http_body_init leaves it */
    SPACE, /* after the size: only an extension may follow it */
    EXTENSION,
    QUOTED,
    ESCAPED,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    LINE, /* a trailer field, or the end */
    NAME,
    VALUE,
    VALUE_LF,
    END_LF,
    ENDED,
    BROKEN,
};

enum { MAX_SIZE_DIGITS = 16, NO_DIGIT = 16 };

void http_body_init(struct http_body *body, enum http_framing framing, uint64_t content_length)
{
    *body = (struct http_body){ .framing = framing, .left = framing == HTTP_LENGTH ? content_length : 0 };
}

static unsigned hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a' + 10) : NO_DIGIT;
}

COLD static void broken(struct http_body *body, const char **ret_why, const char *why)
{
    body->state = BROKEN;
    *ret_why = why;
}

/* Takes digits from [at, end) and what ends them; returns how far it came. */
static const char *take_size(struct http_body *body, const char *at, const char *end, const char **ret_why)
{
    unsigned digit = 0;

    for (; at < end && (digit = hex_digit(*at)) != NO_DIGIT; at++) {
        if (++body->digits > MAX_SIZE_DIGITS) {
            broken(body, ret_why, "a chunk size out of all bounds");
            return at;
        }
        body->left = body->left << 4 | digit;
        body->line_bytes++;
    }
    if (at == end)
        return at;
    if (body->digits == 0 || body->left > INT64_MAX)
        broken(body, ret_why, "a malformed chunk size");
    else if (*at == '\r')
        body->state = SIZE_LF;
    else if (*at == ';')
        body->state = EXTENSION;
    else if (*at == ' ' || *at == '\t')
        body->state = SPACE;
    else
        broken(body, ret_why, "a malformed chunk size");
    return at + 1;
}

/* Extensions mean nothing to us, but must end where everybody sees them end: quotes closed, no control characters. */
static enum chunk_state after_extension_byte(enum chunk_state state, char c)
{
    if (c == '\r')
        return state == EXTENSION ? SIZE_LF : BROKEN;
    if (http_is(c, CLASS_CONTROL))
        return BROKEN;
    switch (state) {
    case SPACE:
        return c == ';' ? EXTENSION : c == ' ' || c == '\t' ? SPACE : BROKEN;
    case EXTENSION:
        if (c == '"')
            return QUOTED;
        return http_is(c, CLASS_TOKEN) || c == '=' || c == ';' || c == ' ' || c == '\t' ? EXTENSION : BROKEN;
    case QUOTED:
        return c == '"' ? EXTENSION : c == '\\' ? ESCAPED : QUOTED;
    default:
        return QUOTED;
    }
}

static void take_extension_byte(struct http_body *body, char c, const char **ret_why)
{
    body->state = (uint8_t)after_extension_byte(body->state, c);
    if (body->state == BROKEN || ++body->line_bytes > HTTP_MAX_CHUNK_LINE)
        broken(body, ret_why, "a malformed or overlong chunk extension");
}

static void size_is_whole(struct http_body *body)
{
    body->state = body->left ? DATA : LINE;
    body->line_bytes = 0;
    body->digits = 0;
}

/* Trailer fields are checked for their shape and thrown away: none of them may change what was decided already. */
static enum chunk_state after_trailer_byte(enum chunk_state state, char c)
{
    switch (state) {
    case LINE:
        return c == '\r' ? END_LF : http_is(c, CLASS_TOKEN) ? NAME : BROKEN;
    case NAME:
        return c == ':' ? VALUE : http_is(c, CLASS_TOKEN) ? NAME : BROKEN;
    case VALUE:
        return c == '\r' ? VALUE_LF : http_is(c, CLASS_CONTROL) ? BROKEN : VALUE;
    case VALUE_LF:
        return c == '\n' ? LINE : BROKEN;
    default:
        return c == '\n' ? ENDED : BROKEN;
    }
}

static void take_trailer_byte(struct http_body *body, char c, const char **ret_why)
{
    body->state = (uint8_t)after_trailer_byte(body->state, c);
    if (body->state == BROKEN || (body->state != ENDED && ++body->line_bytes > HTTP_MAX_TRAILER_BYTES))
        broken(body, ret_why, "malformed or overlong trailers");
}

static void take_byte(struct http_body *body, char c, const char **ret_why)
{
    switch ((enum chunk_state)body->state) {
    case SIZE_LF:
        if (c == '\n')
            size_is_whole(body);
        else
            broken(body, ret_why, "a chunk size line without its line feed");
        break;
    case DATA_CR:
    case DATA_LF:
        if (c == (body->state == DATA_CR ? '\r' : '\n'))
            body->state = body->state == DATA_CR ? DATA_LF : SIZE;
        else
            broken(body, ret_why, "a chunk longer than its size");
        break;
    case SPACE:
    case EXTENSION:
    case QUOTED:
    case ESCAPED:
        take_extension_byte(body, c, ret_why);
        break;
    default:
        take_trailer_byte(body, c, ret_why);
        break;
    }
}

/* Goes over framing up to payload, the end, a fault, or the last byte there is; returns how far it came. */
static const char *skip_framing(struct http_body *body, const char *at, const char *end, const char **ret_why)
{
    while (at < end && body->state != DATA && body->state != ENDED && body->state != BROKEN) {
        if (body->state == SIZE)
            at = take_size(body, at, end, ret_why);
        else
            take_byte(body, *at++, ret_why);
    }
    return at;
}

static size_t take_payload(struct http_body *body, const char *at, size_t len, struct slice *ret_payload)
{
    size_t taken = body->left < len ? (size_t)body->left : len;

    *ret_payload = (struct slice){ at, taken };
    body->seen += taken;
    body->left -= taken;
    return taken;
}

/* Goes on behind a chunk's last payload byte. A fault there waits for the next call: what was sent well is not lost. */
static const char *leave_chunk(struct http_body *body, const char *at, const char *end)
{
    const char *why_later, *further;
    struct http_body before;

    body->state = DATA_CR;
    before = *body;
    further = skip_framing(body, at, end, &why_later);
    if (body->state != BROKEN)
        return further;
    *body = before;
    return at;
}

static enum http_result next_chunked(struct http_body *body, const char *at, size_t len, size_t *ret_used,
                                     struct slice *ret_payload, const char **ret_why)
{
    const char *end = at + len, *done = skip_framing(body, at, end, ret_why);

    if (body->state == DATA && done < end) {
        done += take_payload(body, done, (size_t)(end - done), ret_payload);
        if (body->left == 0)
            done = leave_chunk(body, done, end);
    }
    *ret_used = (size_t)(done - at);
    if (body->state == BROKEN)
        return HTTP_BAD;
    return body->state == ENDED ? HTTP_DONE : HTTP_MORE;
}

enum http_result http_body_next(struct http_body *body, const char *at, size_t len, size_t *ret_used,
                                struct slice *ret_payload, const char **ret_why)
{
    if (len == 0)
        at = ""; /* nothing yet may well lie nowhere yet */
    *ret_used = 0;
    *ret_payload = (struct slice){ at, 0 };
    switch (body->framing) {
    case HTTP_LENGTH:
        *ret_used = take_payload(body, at, len, ret_payload);
        return body->left ? HTTP_MORE : HTTP_DONE;
    case HTTP_CHUNKED:
        return next_chunked(body, at, len, ret_used, ret_payload, ret_why);
    case HTTP_UNTIL_CLOSE:
        body->left = len;
        *ret_used = take_payload(body, at, len, ret_payload);
        return HTTP_MORE;
    default:
        return HTTP_DONE;
    }
}
