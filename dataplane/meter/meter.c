#include "meter.h"

#include <assert.h>

#include "clock.h"
#include "log.h"
#include "metrics.h"

enum {
    STATUS_CALLER_LEFT = 499,
    NAME_MAX_BYTES = 128,
    USER_MAX_BYTES = 2 * NAME_MAX_BYTES + 1, /* frontend/alice */
    MODEL_MAX_BYTES = 256,
    PATH_MAX_BYTES = 256,
    WORD_MAX_BYTES = 64, /* request id, method, finish, why */
    NUMBERS_AND_NAMES_BYTES = 640,
    /* All fields at their longest; a backslash takes two bytes in JSON. */
    LINE_MAX_BYTES = 2 * (USER_MAX_BYTES + 2 * NAME_MAX_BYTES + MODEL_MAX_BYTES + PATH_MAX_BYTES + 4 * WORD_MAX_BYTES) +
                     NUMBERS_AND_NAMES_BYTES
};
static_assert((int)LINE_MAX_BYTES < (int)LOG_LINE_MAX, "the log would cut it, and JSON would not be JSON");

/*
 * Bytes that may stand in a field as they are. Controls, space and `"` in no field; `/` and `=` not in names from
 * outside, where they would pretend to be another's name or another field; a backslash not in JSON. Bytes above 0x7f
 * are looked at one character at a time.
 */
enum rule { FIELD = 1, NAME = 2, JSON = 4 };
static const unsigned char fits[256] = {
    ['!'] = FIELD | NAME | JSON, ['#' ... '.'] = FIELD | NAME | JSON,
    ['/'] = FIELD | JSON,        ['0' ... '<'] = FIELD | NAME | JSON,
    ['='] = FIELD | JSON,        ['>' ... '['] = FIELD | NAME | JSON,
    ['\\'] = FIELD | NAME,       [']' ... '~'] = FIELD | NAME | JSON,
};

/* Controls and line ends of Unicode: U+0080 ... U+009F, U+2028, U+2029. */
static bool is_wide_control(const unsigned char *at, size_t len)
{
    return (len == 2 && at[0] == 0xc2 && at[1] < 0xa0) ||
           (len == 3 && at[0] == 0xe2 && at[1] == 0x80 && (at[2] == 0xa8 || at[2] == 0xa9));
}

/* Bytes of the character that begins here; 0: it is not UTF-8. */
static size_t character(struct slice rest)
{
    unsigned char first = (unsigned char)rest.at[0];
    size_t len = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

    return len <= rest.len && utf8_valid((struct slice){ rest.at, len }) ? len : 0;
}

/*
 * A line being made, in one of its two forms, by a cursor into room that was reserved for the longest one. Fields have
 * been cleaned, so that nothing but a backslash needs escaping in JSON, and nothing at all in the text form.
 */
struct line {
    char *at;
    bool is_json;
};

static void add(struct line *line, struct slice bytes)
{
    memcpy(line->at, bytes.at, bytes.len);
    line->at += bytes.len;
}

/* With a length that the compiler knows, this is a store or two. */
#define ADD(line, literal)                                \
    do {                                                  \
        memcpy((line)->at, literal, sizeof(literal) - 1); \
        (line)->at += sizeof(literal) - 1;                \
    } while (0)

static void add_char(struct line *line, char c)
{
    *line->at++ = c;
}

static void add_digits(struct line *line, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;

    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    add(line, (struct slice){ digits + at, sizeof digits - at });
}

/* Takes a character that does not simply fit off the front. It becomes one `_`; a byte that is no character does as
 * well. */
static void add_odd(struct line *line, struct slice *rest, enum rule rule)
{
    size_t len = character(*rest);

    if (rule == JSON && *rest->at == '\\')
        ADD(line, "\\\\");
    else if (len > 1 && !is_wide_control((const unsigned char *)rest->at, len))
        add(line, (struct slice){ rest->at, len });
    else
        add_char(line, '_');
    rest->at += len ? len : 1;
    rest->len -= len ? len : 1;
}

static void add_clean(struct line *line, struct slice value, size_t max_bytes, enum rule rule)
{
    struct slice rest = { value.at, value.len > max_bytes ? utf8_cut(value, max_bytes) : value.len };

    while (rest.len) {
        if (fits[(unsigned char)*rest.at] & rule) {
            add_char(line, *rest.at++);
            rest.len--;
        } else
            add_odd(line, &rest, rule);
    }
}

void record_clean_name(struct slice name, struct text *out)
{
    struct line line;

    if (!text_reserve(out, NAME_MAX_BYTES))
        return;
    line = (struct line){ .at = out->at + out->len };
    add_clean(&line, name, NAME_MAX_BYTES, NAME);
    out->len = (size_t)(line.at - out->at);
    out->at[out->len] = 0;
}

static void add_value(struct line *line, struct slice value, size_t max_bytes)
{
    add_clean(line, value, max_bytes, line->is_json ? JSON : FIELD);
}

/* What stands before a value: in JSON `,"name":`, in text ` name=`, or for the fixed fields without a name only a
 * space. */
enum before { NAMED, BARE };
static void add_before(struct line *line, struct slice name, enum before before)
{
    if (line->is_json) {
        ADD(line, ",\"");
        add(line, name);
        ADD(line, "\":");
        return;
    }
    add_char(line, ' ');
    if (before == BARE)
        return;
    add(line, name);
    add_char(line, '=');
}

static void add_string(struct line *line, struct slice name, struct slice value, size_t max_bytes, enum before before)
{
    add_before(line, name, before);
    if (line->is_json)
        add_char(line, '"');
    add_value(line, value.len ? value : SLICE("-"), max_bytes);
    if (line->is_json)
        add_char(line, '"');
}

static void add_string_if_any(struct line *line, struct slice name, struct slice value, size_t max_bytes)
{
    if (value.len)
        add_string(line, name, value, max_bytes, NAMED);
}

static void add_number(struct line *line, struct slice name, uint64_t number, enum before before)
{
    add_before(line, name, before);
    add_digits(line, number);
}

/* Seconds with three decimals, rounded. */
static void add_seconds(struct line *line, struct slice name, int64_t us)
{
    uint64_t ms = us > 0 ? ((uint64_t)us + 500) / 1000 : 0;

    add_number(line, name, ms / 1000, NAMED);
    add_char(line, '.');
    add_char(line, (char)('0' + ms / 100 % 10));
    add_char(line, (char)('0' + ms / 10 % 10));
    add_char(line, (char)('0' + ms % 10));
}

/* address_text() goes through printf for IPv4, which is nearly every line. */
static void add_address(struct line *line, const struct address *address)
{
    static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
    char room[ADDRESS_TEXT_BYTES];

    if (memcmp(address->bytes, mapped, sizeof mapped) != 0) {
        add(line, slice_of(address_text(address, room)));
        return;
    }
    for (unsigned i = 12; i < 16; i++) {
        if (i > 12)
            add_char(line, '.');
        add_digits(line, address->bytes[i]);
    }
}

/* The clock writes into a text; this one is on the stack. */
static void add_time(struct line *line, int64_t wall_ms)
{
    char memory[32];
    struct text time = { .at = memory, .room = sizeof memory, .max = sizeof memory - 1 };

    clock_add_wall(&time, wall_ms);
    add(line, text_slice(&time));
}

static unsigned status_of(const struct record *record)
{
    return record->status ? record->status : STATUS_CALLER_LEFT;
}

static struct slice why_of(const struct record *record)
{
    return record->why.len || status_of(record) != STATUS_CALLER_LEFT ? record->why : SLICE("caller_left");
}

static void add_user(struct line *line, const struct record *record)
{
    if (line->is_json)
        ADD(line, "{\"user\":\"");
    if (record->user.len)
        add_value(line, record->user, USER_MAX_BYTES);
    else {
        add_char(line, '!');
        add_address(line, &record->address);
    }
}

/* user address time req= key= method path status */
static void add_fixed(struct line *line, const struct record *record, int64_t wall_ms)
{
    add_user(line, record);
    add(line, line->is_json ? SLICE("\",\"address\":\"") : SLICE(" "));
    add_address(line, &record->address);
    add(line, line->is_json ? SLICE("\",\"time\":\"") : SLICE(" "));
    add_time(line, wall_ms);
    if (line->is_json)
        add_char(line, '"');
    add_string(line, SLICE("req"), record->request_id, WORD_MAX_BYTES, NAMED);
    add_string(line, SLICE("key"), record->key, NAME_MAX_BYTES, NAMED);
    add_string(line, SLICE("method"), record->method, WORD_MAX_BYTES, BARE);
    add_string(line, SLICE("path"), record->path, PATH_MAX_BYTES, BARE);
    add_number(line, SLICE("status"), status_of(record), BARE);
}

static void add_tokens(struct line *line, const struct record *record)
{
    if (!record->has_tokens)
        return;
    add_number(line, SLICE("prompt_tokens"), record->prompt_tokens, NAMED);
    add_number(line, SLICE("completion_tokens"), record->completion_tokens, NAMED);
    if (record->is_estimated)
        add_number(line, SLICE("estimated"), 1, NAMED);
}

static int64_t first_token_us(const struct record *record)
{
    if (!record->first_token_us)
        return -1;
    return record->first_token_us > record->began_us ? record->first_token_us - record->began_us : 0;
}

static void add_rest(struct line *line, const struct record *record, int64_t now_us)
{
    add_string_if_any(line, SLICE("model"), record->model, MODEL_MAX_BYTES);
    add_string_if_any(line, SLICE("backend"), record->backend, NAME_MAX_BYTES);
    if (record->was_resent)
        add_number(line, SLICE("resent"), 1, NAMED);
    if (record->has_prompt || record->is_stream)
        add_number(line, SLICE("stream"), record->is_stream, NAMED);
    if (record->has_prompt)
        add_number(line, SLICE("prompt_chars"), record->prompt_chars, NAMED);
    add_tokens(line, record);
    if (record->has_queue)
        add_number(line, SLICE("queue_ms"), record->queue_us > 0 ? (uint64_t)record->queue_us / 1000 : 0, NAMED);
    if (record->first_token_us)
        add_number(line, SLICE("ttft_ms"), (uint64_t)first_token_us(record) / 1000, NAMED);
    add_seconds(line, SLICE("response_time"), now_us - record->began_us);
    add_string_if_any(line, SLICE("finish"), record->finish, WORD_MAX_BYTES);
    add_string_if_any(line, SLICE("why"), why_of(record), WORD_MAX_BYTES);
}

void record_format(const struct record *record, int64_t now_us, int64_t wall_ms, bool is_json, struct text *out)
{
    struct line line = { .is_json = is_json };

    if (!text_reserve(out, LINE_MAX_BYTES))
        return;
    line.at = out->at + out->len;
    add_fixed(&line, record, wall_ms);
    add_rest(&line, record, now_us);
    if (is_json)
        add_char(&line, '}');
    assert((size_t)(line.at - out->at) <= out->len + LINE_MAX_BYTES);
    out->len = (size_t)(line.at - out->at);
    out->at[out->len] = 0;
}

void record_close(struct record *record, struct metrics_shard *shard, int64_t now_us)
{
    char memory[LINE_MAX_BYTES + 1] __attribute__((uninitialized)); /* written before it is read */
    /* On the stack: with max set to its room it never grows. */
    struct text line = { .at = memory, .room = sizeof memory, .max = sizeof memory - 1 };
    struct metrics_request request = {
        .dialect = record->dialect,
        .model = record->model_label,
        .backend = record->backend,
        .reason = why_of(record),
        .status = status_of(record),
        .total_us = now_us - record->began_us,
        .first_token_us = first_token_us(record),
        .prompt_tokens = record->has_tokens ? record->prompt_tokens : 0,
        .completion_tokens = record->has_tokens ? record->completion_tokens : 0,
    };

    record_format(record, now_us, clock_wall_ms(), log_is_json(), &line);
    (void)log_request_line(text_slice(&line)); /* a dropped line is counted there */
    metrics_count_request(shard, &request);
}
