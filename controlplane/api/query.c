/* The part of a target behind its question mark. */
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

enum { TEXT_MAX_BYTES = 16 << 10, WAIT_MAX_MS = 60000 };

void query_init(struct query *query)
{
    *query = (struct query){ .limit = LIST_LIMIT };
    text_init(&query->scope, TEXT_MAX_BYTES);
    text_init(&query->after, CURSOR_MAX_BYTES);
}

void query_release(struct query *query)
{
    json_decref(query->filter);
    text_release(&query->scope);
    text_release(&query->after);
}

static int hex_of(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool percent_decode(struct slice text, bool plus_is_space, struct text *out)
{
    size_t from = out->len;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_of(text.at[i + 1]) : -1;
            int low = high >= 0 ? hex_of(text.at[i + 2]) : -1;
            if (low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (!c)
            return false;
        text_add_char(out, c);
    }
    return out->err == ERR_OK && utf8_valid((struct slice){ text_string(out) + from, out->len - from });
}

static bool read_number(struct slice text, unsigned *ret_number)
{
    unsigned number = 0;

    if (!text.len || text.len > 6)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        number = number * 10 + (unsigned)(text.at[i] - '0');
    }
    *ret_number = number;
    return true;
}

static void read_limit(struct query *query, struct slice value, struct complaints *complaints)
{
    unsigned limit;

    if (!read_number(value, &limit) || limit < 1 || limit > LIST_LIMIT_MAX)
        complain(complaints, "limit", "must be a whole number from 1 to %d", LIST_LIMIT_MAX);
    else
        query->limit = limit;
}

static void read_wait(struct query *query, struct slice value, struct complaints *complaints)
{
    if (!duration_parse(value, &query->wait_ms) || query->wait_ms > WAIT_MAX_MS)
        complain(complaints, "wait", "must be a duration of up to %ds, such as 2s or 500ms", WAIT_MAX_MS / 1000);
}

struct query_reading {
    struct query *query;
    const struct noun *noun; /* whose filters it may have; NULL: none */
    bool has_wait;
    struct complaints *complaints;
    struct text name, value, cursor;
    bool had_limit, had_wait, had_cursor;
};

static void read_filter(struct query_reading *reading)
{
    char memory[COMPLAINT_MAX_BYTES];
    struct text why = text_over(memory, sizeof memory);
    struct slice value = text_slice(&reading->value);
    json_t *filter = reading->query->filter;
    const char *name = text_string(&reading->name);
    const struct field *field = NULL;

    for (size_t i = 0; reading->noun && i < reading->noun->filter_count; i++)
        if (strcmp(reading->noun->filters[i].name, name) == 0)
            field = &reading->noun->filters[i];
    if (!field)
        complain(reading->complaints, name, "is not known here");
    else if (json_object_get(filter, name))
        complain(reading->complaints, name, "is there twice");
    else if (!field_takes(field, value, &why))
        complain(reading->complaints, name, "%s", memory);
    else if (field->kind == FIELD_BOOL)
        (void)json_object_set_new(filter, name, json_boolean(slice_is(value, SLICE("true"))));
    else
        (void)json_object_set_new(filter, name, json_stringn_nocheck(value.at, value.len));
}

static bool is_twice(struct query_reading *reading, bool *had)
{
    if (*had)
        complain(reading->complaints, text_string(&reading->name), "is there twice");
    return *had || !(*had = true);
}

static void read_pair(struct query_reading *reading)
{
    struct slice name = text_slice(&reading->name), value = text_slice(&reading->value);

    if (reading->has_wait && slice_is(name, SLICE("wait"))) {
        if (!is_twice(reading, &reading->had_wait))
            read_wait(reading->query, value, reading->complaints);
    } else if (reading->noun && slice_is(name, SLICE("limit"))) {
        if (!is_twice(reading, &reading->had_limit))
            read_limit(reading->query, value, reading->complaints);
    } else if (reading->noun && slice_is(name, SLICE("cursor"))) {
        if (!is_twice(reading, &reading->had_cursor))
            text_add_slice(&reading->cursor, value);
        if (!value.len)
            complain(reading->complaints, "cursor", "is empty");
    } else {
        read_filter(reading);
    }
}

/* The cursor is of a list with just these filters. */
static void read_cursor(const struct query_reading *reading)
{
    struct query *query = reading->query;
    char *filter = json_dumps(query->filter, JSON_SORT_KEYS | JSON_COMPACT);

    text_printf(&query->scope, "%s?%s", reading->noun->name, filter ? filter : "");
    free(filter);
    if (reading->had_cursor &&
        (reading->cursor.err || !cursor_read(text_slice(&reading->cursor), text_slice(&query->scope), &query->after)))
        complain(reading->complaints, "cursor", "is not one of this list with these filters");
}

static void read_pairs(struct query_reading *reading, struct slice text)
{
    while (text.len) {
        const char *end = memchr(text.at, '&', text.len);
        struct slice pair = { text.at, end ? (size_t)(end - text.at) : text.len };
        const char *equals = pair.len ? memchr(pair.at, '=', pair.len) : NULL;
        struct slice name = { pair.at, equals ? (size_t)(equals - pair.at) : pair.len };
        struct slice value = { equals ? equals + 1 : "", equals ? pair.len - name.len - 1 : 0 };

        text.at += pair.len + (end != NULL);
        text.len -= pair.len + (end != NULL);
        text_clear(&reading->name);
        text_clear(&reading->value);
        if (!percent_decode(name, true, &reading->name) || !percent_decode(value, true, &reading->value))
            complain(reading->complaints, "?", "is not well formed: it has a bad escape, a zero byte or no UTF-8");
        else if (pair.len)
            read_pair(reading);
    }
}

void query_read(struct query *query, struct slice text, const struct noun *noun, bool has_wait,
                struct complaints *complaints)
{
    struct query_reading reading = { .query = query, .noun = noun, .has_wait = has_wait, .complaints = complaints };

    text_init(&reading.name, TEXT_MAX_BYTES);
    text_init(&reading.value, TEXT_MAX_BYTES);
    text_init(&reading.cursor, CURSOR_MAX_BYTES);
    query->filter = json_object();
    complaints->in_query = true;
    read_pairs(&reading, text);
    if (noun && !complaints->count)
        read_cursor(&reading);
    complaints->in_query = false;
    text_release(&reading.name);
    text_release(&reading.value);
    text_release(&reading.cursor);
}
