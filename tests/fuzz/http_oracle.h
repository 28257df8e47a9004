/*
 * http_oracle - what both fuzz targets of the codec demand. The input's first four bytes say how to cut and how
 * long a head may be, the rest is a head and what follows it. A broken promise ends the program.
 *
 * Whole or in pieces, a message must come out the same; slices must lie in the buffer; cursors must not go
 * back; a good head must hold to the rules that make it unambiguous, checked here in another, slower way.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "http.h"

enum { CONTROL_BYTES = 4, MAX_PIECES = 256 };

#define MUST(claim)                                                             \
    do {                                                                        \
        if (!(claim)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim); \
            abort();                                                            \
        }                                                                       \
    } while (0)

struct trial {
    bool is_request, to_head;
    size_t max_head_bytes;
    size_t steps[3]; /* lengths of pieces, used in turn */
    struct slice message;
};

struct parsed {
    enum http_result result;
    const char *why;
    struct http_head head;
    char *bytes; /* a copy of what it was given, to the byte: reads past its end are seen */
};

/* Bytes 0 to 2: the lengths; byte 3: to_head in bit 0, the head's limit in the others (0: a generous one). */
static bool trial_init(struct trial *trial, bool is_request, const uint8_t *bytes, size_t len)
{
    if (len < CONTROL_BYTES)
        return false;
    trial->is_request = is_request;
    trial->to_head = !is_request && (bytes[3] & 1);
    trial->max_head_bytes = bytes[3] >> 1 == 24 ? 65536 : (size_t)(bytes[3] >> 1) * 8;
    trial->message = (struct slice){ (const char *)bytes + CONTROL_BYTES, len - CONTROL_BYTES };
    for (size_t i = 0; i < 3; i++)
        trial->steps[i] = 1 + bytes[i] % 64 + trial->message.len / MAX_PIECES;
    return true;
}

static char *exact_copy(const char *at, size_t len)
{
    char *copy = malloc(len ? len : 1);

    MUST(copy);
    if (len)
        memcpy(copy, at, len);
    return copy;
}

static void parse(struct parsed *parsed, const struct trial *trial, size_t len, size_t *scanned)
{
    size_t before = *scanned;

    parsed->bytes = exact_copy(trial->message.at, len);
    parsed->why = "";
    parsed->result = trial->is_request ? http_parse_request(&parsed->head, parsed->bytes, len, trial->max_head_bytes,
                                                            scanned, &parsed->why)
                                       : http_parse_response(&parsed->head, parsed->bytes, len, trial->max_head_bytes,
                                                             scanned, trial->to_head, &parsed->why);
    if (parsed->result == HTTP_MORE)
        MUST(*scanned >= before && *scanned <= len && *scanned + 1 >= len && len < trial->max_head_bytes);
    if (parsed->result == HTTP_BAD || parsed->result == HTTP_TOO_BIG)
        MUST(parsed->why && *parsed->why);
}

static void must_be_inside(const struct parsed *parsed, struct slice slice)
{
    MUST(slice.at == NULL || (slice.at >= parsed->bytes && slice.at + slice.len <= parsed->bytes + parsed->head.bytes));
}

static void must_be_same_slice(const struct parsed *a, struct slice of_a, const struct parsed *b, struct slice of_b)
{
    must_be_inside(a, of_a);
    MUST(of_a.len == of_b.len && (of_a.at == NULL) == (of_b.at == NULL));
    MUST(of_a.at == NULL || of_a.at - a->bytes == of_b.at - b->bytes);
}

static void must_be_same(const struct parsed *a, const struct parsed *b)
{
    const struct http_head *one = &a->head, *other = &b->head;

    MUST(a->result == b->result && strcmp(a->why, b->why) == 0);
    if (a->result != HTTP_DONE)
        return;
    MUST(one->status == other->status && one->minor == other->minor && one->framing == other->framing);
    MUST(one->content_length == other->content_length && one->keeps_alive == other->keeps_alive);
    MUST(one->expects_continue == other->expects_continue && one->bytes == other->bytes);
    MUST(one->field_count == other->field_count && one->field_count <= HTTP_MAX_FIELDS);
    MUST(memcmp(one->first, other->first, sizeof one->first) == 0);
    MUST(memcmp(one->count, other->count, sizeof one->count) == 0);
    must_be_same_slice(a, one->method, b, other->method);
    must_be_same_slice(a, one->target, b, other->target);
    must_be_same_slice(a, one->path, b, other->path);
    must_be_same_slice(a, one->reason, b, other->reason);
    for (unsigned i = 0; i < one->field_count; i++) {
        must_be_same_slice(a, one->fields[i].name, b, other->fields[i].name);
        must_be_same_slice(a, one->fields[i].value, b, other->fields[i].value);
    }
}

static void must_not_depend_on_cuts(const struct trial *trial, const struct parsed *whole)
{
    size_t scanned = 0, len = 0;

    for (unsigned piece = 0;; piece++) {
        struct parsed parsed;
        bool is_last;
        parse(&parsed, trial, len, &scanned);
        is_last = parsed.result != HTTP_MORE || len == trial->message.len;
        if (is_last)
            must_be_same(&parsed, whole);
        free(parsed.bytes);
        if (is_last)
            return;
        len += trial->steps[piece % 3];
        if (len > trial->message.len)
            len = trial->message.len;
    }
}

/* Nothing but CRLF ends a line, nothing else is a control character, and the only empty line is the last. */
static void must_have_clean_lines(const struct parsed *parsed, size_t from)
{
    size_t end = parsed->head.bytes - 4, line = from;

    MUST(memcmp(parsed->bytes + end, "\r\n\r\n", 4) == 0);
    for (size_t i = from; i < end; i++) {
        unsigned char c = (unsigned char)parsed->bytes[i];
        if (c == '\r') {
            MUST(parsed->bytes[i + 1] == '\n' && i > line);
            line = i += 2;
            i--;
            MUST(parsed->bytes[line] != ' ' && parsed->bytes[line] != '\t');
            continue;
        }
        MUST((c >= 0x20 || c == '\t') && c != 0x7f);
    }
}

static unsigned times(const struct http_head *head, struct slice name)
{
    unsigned count;

    (void)http_field_named(head, name, &count);
    return count;
}

static void must_be_framed_once(const struct http_head *head)
{
    static const struct slice names[] = { [HTTP_OTHER] = { "", 0 },
#define NAME(id, text) [HTTP_##id] = { text, sizeof(text) - 1 },
                                          HTTP_FIELDS(NAME)
#undef NAME
    };
    unsigned lengths = times(head, SLICE("content-length")), codings = times(head, SLICE("Transfer-Encoding"));

    for (unsigned id = 1; id < HTTP_FIELD_NAMES; id++) {
        MUST(head->count[id] == times(head, names[id]));
        MUST(slice_is(http_field(head, id), http_field_named(head, names[id], NULL)));
    }
    MUST(lengths + codings <= 1);
    if (head->framing == HTTP_CHUNKED)
        MUST(codings == 1 && head->minor == 1 && http_field(head, HTTP_TRANSFER_ENCODING).len == strlen("chunked"));
    if (head->framing == HTTP_LENGTH) {
        char digits[32];
        struct slice value = http_field(head, HTTP_CONTENT_LENGTH);
        MUST(lengths == 1 && value.len < sizeof digits && strspn(value.at, "0123456789") == value.len);
        memcpy(digits, value.at, value.len);
        digits[value.len] = 0;
        MUST(strtoull(digits, NULL, 10) == head->content_length);
    }
}

static void must_be_good(const struct trial *trial, const struct parsed *parsed)
{
    const struct http_head *head = &parsed->head;
    size_t from = trial->is_request && parsed->bytes[0] == '\r' ? 2 : 0;

    MUST(head->bytes > 4 && head->bytes <= trial->message.len && head->bytes <= trial->max_head_bytes);
    must_have_clean_lines(parsed, from);
    must_be_framed_once(head);
    for (unsigned i = 0; i < head->field_count; i++) {
        MUST(http_is_token(head->fields[i].name));
        MUST(head->fields[i].name.at[head->fields[i].name.len] == ':');
        MUST(slice_is(head->fields[i].value, slice_trim(head->fields[i].value)));
    }
    if (!trial->is_request) {
        MUST(head->status >= 100 && head->status <= 999);
        return;
    }
    MUST(head->framing != HTTP_UNTIL_CLOSE && http_is_token(head->method));
    MUST(head->path.len && (head->path.at[0] == '/' || slice_is(head->path, SLICE("*"))));
    MUST(times(head, SLICE("Host")) == 1 || (head->minor == 0 && times(head, SLICE("Host")) == 0));
    MUST(times(head, SLICE("Authorization")) <= 1);
}

/* One byte less is not whole yet, and what follows the head does not matter. */
static void must_end_there(const struct trial *trial, const struct parsed *whole)
{
    for (size_t less = 0; less < 2; less++) {
        struct parsed parsed;
        size_t scanned = 0;
        parse(&parsed, trial, whole->head.bytes - less, &scanned);
        if (less)
            MUST(parsed.result == HTTP_MORE);
        else
            must_be_same(&parsed, whole);
        free(parsed.bytes);
    }
}

struct decoded {
    enum http_result result;
    const char *why;
    struct text payload;
    size_t used;
};

static void feed(struct http_body *body, struct decoded *decoded, const char *at, size_t len)
{
    char *piece = exact_copy(at, len);

    for (size_t used = 0, step; decoded->result == HTTP_MORE && used < len; used += step) {
        struct slice payload;
        decoded->result = http_body_next(body, piece + used, len - used, &step, &payload, &decoded->why);
        MUST(step <= len - used && (step > 0 || decoded->result != HTTP_MORE));
        MUST(payload.len == 0 || (payload.at >= piece + used && payload.at + payload.len <= piece + used + step));
        MUST(decoded->result != HTTP_BAD || (*decoded->why && payload.len == 0));
        text_add_slice(&decoded->payload, payload);
        MUST(body->seen == decoded->payload.len);
        decoded->used += decoded->result == HTTP_BAD ? 0 : step;
    }
    free(piece);
}

static void decode(struct decoded *decoded, const struct http_head *head, struct slice bytes, const size_t *steps)
{
    struct http_body body;

    *decoded = (struct decoded){ .result = HTTP_MORE, .why = "" };
    text_init(&decoded->payload, 1 << 24);
    http_body_init(&body, head->framing, head->content_length);
    if (head->framing == HTTP_NO_BODY || (head->framing == HTTP_LENGTH && head->content_length == 0))
        decoded->result = HTTP_DONE;
    for (size_t at = 0, len, piece = 0; at < bytes.len && decoded->result == HTTP_MORE; at += len, piece++) {
        len = steps && steps[piece % 3] < bytes.len - at ? steps[piece % 3] : bytes.len - at;
        feed(&body, decoded, bytes.at + at, len);
    }
}

/* Chunks read the slow way, once they are known to be good. */
static void must_be_these_chunks(const struct decoded *decoded, struct slice bytes)
{
    const char *at = bytes.at, *end = bytes.at + decoded->used;
    size_t payload = 0, size;

    do {
        char *after;
        const char *line_end = memmem(at, (size_t)(end - at), "\r\n", 2);
        MUST(line_end);
        size = strtoull(at, &after, 16);
        MUST(after > at && after <= line_end);
        at = line_end + 2;
        MUST(size <= (size_t)(end - at) && payload + size <= decoded->payload.len);
        MUST(size == 0 || memcmp(at, decoded->payload.at + payload, size) == 0);
        payload += size;
        if (size) {
            MUST(memcmp(at + size, "\r\n", 2) == 0);
            at += size + 2;
        }
    } while (size);
    MUST(payload == decoded->payload.len);
    MUST(end - at >= 2 && memcmp(end - 2, "\r\n", 2) == 0);
    MUST(end - at == 2 || memmem(at, (size_t)(end - at), "\r\n\r\n", 4) == end - 4);
}

static void try_body(const struct trial *trial, const struct http_head *head, struct slice bytes)
{
    struct decoded whole, cut;

    decode(&whole, head, bytes, NULL);
    decode(&cut, head, bytes, trial->steps);
    MUST(whole.result == cut.result && strcmp(whole.why, cut.why) == 0);
    MUST(slice_is(text_slice(&whole.payload), text_slice(&cut.payload)));
    MUST(whole.result == HTTP_BAD || whole.used == cut.used);
    if (whole.result == HTTP_DONE && head->framing == HTTP_CHUNKED)
        must_be_these_chunks(&whole, bytes);
    text_release(&whole.payload);
    text_release(&cut.payload);
}

static void try_message(bool is_request, const uint8_t *bytes, size_t len)
{
    struct trial trial;
    struct parsed whole;
    size_t scanned = 0;

    if (!trial_init(&trial, is_request, bytes, len))
        return;
    parse(&whole, &trial, trial.message.len, &scanned);
    must_not_depend_on_cuts(&trial, &whole);
    if (whole.result == HTTP_DONE) {
        must_be_good(&trial, &whole);
        must_end_there(&trial, &whole);
        try_body(&trial, &whole.head,
                 (struct slice){ trial.message.at + whole.head.bytes, trial.message.len - whole.head.bytes });
    }
    free(whole.bytes);
}
