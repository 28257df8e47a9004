/*
 * Heads: the request line or the status line, then fields up to an empty line.
 *
 * What must stay true: nothing is decided by a line before that line is complete (its CRLF lies in the
 * buffer) or is broken by a control character. So an outcome depends on the bytes up to some control
 * character only, never on where the pieces were cut; and bytes that bring none cannot change it. That is
 * all that `scanned` is for: it marks how far there was none, and a head that comes byte by byte is parsed
 * again only when a line ends.
 */
#include <assert.h>

#include "http_inside.h"

struct reading {
    struct http_head *head;
    const char *at;  /* not read yet */
    const char *end; /* of what lies there and may be looked at */
    const char *why;
    struct slice authority; /* of an absolute-form target; at NULL without one */
};

enum { VERSION_BYTES = sizeof "HTTP/1.1" - 1 };

COLD static enum http_result bad(struct reading *reading, const char *why)
{
    reading->why = why;
    return HTTP_BAD;
}

/* Finds the CRLF that ends the line going on at `from`, and moves the reading behind it. */
static inline enum http_result line_end(struct reading *reading, const char *from, const char **ret_end)
{
    const char *at = http_skip_text(from, reading->end);

    if (at == reading->end)
        return HTTP_MORE;
    if (*at == '\n')
        return bad(reading, "a line feed without a carriage return");
    if (*at != '\r')
        return bad(reading, *at ? "a control character in the head" : "a NUL in the head");
    if (at + 1 == reading->end)
        return HTTP_MORE;
    if (at[1] != '\n')
        return bad(reading, "a carriage return without a line feed");
    *ret_end = at;
    reading->at = at + 2;
    return HTTP_DONE;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* "HTTP/1.0" or "HTTP/1.1" and nothing else: 1.10, 2.0 or lower case are not versions that we speak. */
static bool read_version(const char *at, const char *end, unsigned *ret_minor)
{
    if (end - at != VERSION_BYTES || memcmp(at, "HTTP/1.", VERSION_BYTES - 1) != 0)
        return false;
    if (at[VERSION_BYTES - 1] != '0' && at[VERSION_BYTES - 1] != '1')
        return false;
    *ret_minor = (unsigned)(at[VERSION_BYTES - 1] - '0');
    return true;
}

static bool all_are(struct slice slice, unsigned classes)
{
    for (size_t i = 0; i < slice.len; i++)
        if (!http_is(slice.at[i], classes))
            return false;
    return true;
}

static struct slice between(const char *at, const char *end)
{
    return (struct slice){ at, (size_t)(end - at) };
}

static const char *find_or_end(const char *at, const char *end, char c)
{
    const char *found = at < end ? memchr(at, c, (size_t)(end - at)) : NULL;

    return found ? found : end;
}

/* The length of "http://" or "https://" at the front of a target, 0 if it begins otherwise. */
static size_t scheme_bytes(struct slice target)
{
    static const struct slice schemes[] = { { "http://", 7 }, { "https://", 8 } };

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (target.len >= schemes[i].len && slice_is_nocase((struct slice){ target.at, schemes[i].len }, schemes[i]))
            return schemes[i].len;
    return 0;
}

COLD static enum http_result read_absolute_form(struct reading *reading, size_t skip)
{
    const char *from = reading->head->target.at + skip;
    const char *end = reading->head->target.at + reading->head->target.len;
    const char *query = find_or_end(from, end, '?');
    const char *path = find_or_end(from, query, '/');

    reading->authority = between(from, path);
    if (reading->authority.len == 0 || !all_are(reading->authority, CLASS_AUTHORITY))
        return bad(reading, "a target with a malformed authority");
    /* Without a path it means "/" (RFC 9112 3.2.1): the scheme's own slash is at hand. */
    reading->head->path = path < query ? between(path, query) : (struct slice){ from - 1, 1 };
    return HTTP_DONE;
}

static enum http_result read_target(struct reading *reading)
{
    struct http_head *head = reading->head;
    struct slice target = head->target;
    size_t skip;

    for (size_t i = 0; i < target.len; i++)
        if (!http_is(target.at[i], CLASS_TARGET))
            return bad(reading, target.at[i] == '#' ? "a fragment in the target" : "a malformed request line");
    if (target.len && target.at[0] == '/') {
        head->path = between(target.at, find_or_end(target.at, target.at + target.len, '?'));
        return HTTP_DONE;
    }
    if (slice_is(target, SLICE("*"))) {
        head->path = target;
        return slice_is(head->method, SLICE("OPTIONS")) ? HTTP_DONE
                                                        : bad(reading, "an asterisk target is for OPTIONS only");
    }
    skip = scheme_bytes(target);
    return skip ? read_absolute_form(reading, skip) : bad(reading, "a target that is no path");
}

static enum http_result read_request_line(struct reading *reading)
{
    struct http_head *head = reading->head;
    const char *line, *end, *space, *version;
    enum http_result result;

    if (reading->end - reading->at >= 2 && memcmp(reading->at, "\r\n", 2) == 0)
        reading->at += 2;
    line = reading->at;
    result = line_end(reading, line, &end);
    if (result != HTTP_DONE)
        return result;
    space = find_or_end(line, end, ' ');
    head->method = between(line, space);
    if (!http_is_token(head->method))
        return bad(reading, "a malformed method");
    version = memrchr(line, ' ', (size_t)(end - line));
    if (!version || version == space)
        return bad(reading, "a malformed request line");
    if (!read_version(version + 1, end, &head->minor))
        return bad(reading, "a version other than HTTP/1.0 and HTTP/1.1");
    head->target = between(space + 1, version);
    return read_target(reading);
}

/* The space after the status may be missing with the reason: some servers do, and nobody reads it otherwise. */
static enum http_result read_status_line(struct reading *reading)
{
    struct http_head *head = reading->head;
    const char *line = reading->at, *end;
    enum http_result result = line_end(reading, line, &end);

    if (result != HTTP_DONE)
        return result;
    if (end - line < VERSION_BYTES + 4 || line[VERSION_BYTES] != ' ')
        return bad(reading, "a malformed status line");
    if (!read_version(line, line + VERSION_BYTES, &head->minor))
        return bad(reading, "a version other than HTTP/1.0 and HTTP/1.1");
    line += VERSION_BYTES + 1;
    if (line[0] < '1' || line[0] > '9' || line[1] < '0' || line[1] > '9' || line[2] < '0' || line[2] > '9')
        return bad(reading, "a malformed status");
    head->status = (unsigned)((line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0'));
    line += 3;
    if (line < end && *line++ != ' ')
        return bad(reading, "a malformed status line");
    head->reason = between(line, end);
    return HTTP_DONE;
}

/* Why a line whose name stops at `at`, which is not a colon, is no field. */
COLD static const char *why_no_field(const char *line, const char *at)
{
    if (at == line && is_blank(*at))
        return "a folded header line";
    if (is_blank(*at))
        return "white space before a header's colon";
    return *at == '\r' ? "a header without a colon" : "a malformed header name";
}

static inline enum http_result read_field(struct reading *reading)
{
    struct http_head *head = reading->head;
    const char *name = reading->at, *colon, *value, *end;
    enum http_result result = line_end(reading, name, &end);
    struct http_field *field;
    enum http_field_name known;

    if (result != HTTP_DONE)
        return result;
    /* Looking for the colon apart from the line's end lets the processor begin the next line meanwhile. */
    colon = http_skip_token(name, reading->end);
    if (*colon != ':')
        return bad(reading, why_no_field(name, colon));
    if (colon == name)
        return bad(reading, "a header without a name");
    if (head->field_count == HTTP_MAX_FIELDS) {
        reading->why = "too many headers";
        return HTTP_TOO_BIG;
    }
    for (value = colon + 1; is_blank(*value); value++)
        ; /* stops at the CR at the latest */
    while (end > value && is_blank(end[-1]))
        end--;
    field = &head->fields[head->field_count++];
    *field = (struct http_field){ between(name, colon), between(value, end) };
    known = http_known_field(field->name);
    if (known && head->count[known]++ == 0)
        head->first[known] = (uint8_t)head->field_count;
    return HTTP_DONE;
}

static enum http_result read_fields(struct reading *reading)
{
    enum http_result result;

    do {
        if (reading->end - reading->at >= 2 && reading->at[0] == '\r' && reading->at[1] == '\n') {
            reading->at += 2;
            return HTTP_DONE;
        }
        result = read_field(reading);
    } while (result == HTTP_DONE);
    return result;
}

/* Nothing yet may well lie nowhere yet. */
static struct reading reading_of(struct http_head *head, const char *at, size_t len)
{
    const char *from = len ? at : "";

    return (struct reading){ .head = head, .at = from, .end = from + len };
}

/* All but the fields themselves, which are 4 KiB and good up to field_count. */
static void head_begin(struct http_head *head)
{
    head->method = head->target = head->path = head->reason = (struct slice){ NULL, 0 };
    head->status = head->minor = head->field_count = 0;
    head->framing = HTTP_NO_BODY;
    head->content_length = 0;
    head->keeps_alive = head->expects_continue = false;
    head->bytes = 0;
    memset(head->first, 0, sizeof head->first);
    memset(head->count, 0, sizeof head->count);
}

static enum http_result request_is_whole(struct reading *reading)
{
    struct http_head *head = reading->head;
    enum http_result result = http_frame_request(head, &reading->why);

    if (result == HTTP_DONE && reading->authority.at &&
        !slice_is_nocase(reading->authority, http_field(head, HTTP_HOST)))
        return bad(reading, "a target that contradicts the Host header");
    return result;
}

/* Could the bytes since last time have ended a line, or broken one? */
static bool is_worth_reading(const char *at, size_t len, size_t scanned)
{
    assert(scanned <= len);
    return scanned == 0 || http_skip_text(at + scanned, at + len) < at + len;
}

/* Turns what the lines said into the caller's answer. `len` is at most max_bytes. */
static enum http_result settle(struct reading *reading, enum http_result result, const char *at, size_t len,
                               size_t max_bytes, size_t *scanned, const char **ret_why)
{
    *scanned = 0;
    if (result == HTTP_DONE) {
        reading->head->bytes = (size_t)(reading->at - at);
        return HTTP_DONE;
    }
    if (result == HTTP_MORE && len < max_bytes) {
        /* A CR at the end is looked at again, with what follows it. */
        *scanned = len && at[len - 1] == '\r' ? len - 1 : len;
        return HTTP_MORE;
    }
    if (result == HTTP_MORE) {
        *ret_why = "the head is too big";
        return HTTP_TOO_BIG;
    }
    *ret_why = reading->why;
    return result;
}

enum http_result http_parse_request(struct http_head *ret_head, const char *at, size_t len, size_t max_bytes,
                                    size_t *scanned, const char **ret_why)
{
    size_t seen = len < max_bytes ? len : max_bytes;
    struct reading reading = reading_of(ret_head, at, seen);
    enum http_result result = HTTP_MORE;

    if (is_worth_reading(at, seen, *scanned)) {
        head_begin(ret_head);
        result = read_request_line(&reading);
        if (result == HTTP_DONE)
            result = read_fields(&reading);
        if (result == HTTP_DONE)
            result = request_is_whole(&reading);
    }
    return settle(&reading, result, at, seen, max_bytes, scanned, ret_why);
}

enum http_result http_parse_response(struct http_head *ret_head, const char *at, size_t len, size_t max_bytes,
                                     size_t *scanned, bool to_head, const char **ret_why)
{
    size_t seen = len < max_bytes ? len : max_bytes;
    struct reading reading = reading_of(ret_head, at, seen);
    enum http_result result = HTTP_MORE;

    if (is_worth_reading(at, seen, *scanned)) {
        head_begin(ret_head);
        result = read_status_line(&reading);
        if (result == HTTP_DONE)
            result = read_fields(&reading);
        if (result == HTTP_DONE)
            result = http_frame_response(ret_head, to_head, &reading.why);
    }
    return settle(&reading, result, at, seen, max_bytes, scanned, ret_why);
}
