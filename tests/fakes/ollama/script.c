#include "script.h"
#include "transcript.h"

#include <stdlib.h>
#include <string.h>

typedef bool field_fn(struct deed *deed, const json_t *value, size_t offset);

static bool field_number(struct deed *deed, const json_t *value, size_t offset)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *(int64_t *)(void *)((char *)deed + offset) = json_integer_value(value);
    return true;
}

static bool field_bool(struct deed *deed, const json_t *value, size_t offset)
{
    *(bool *)((char *)deed + offset) = json_is_true(value);
    return json_is_boolean(value);
}

static bool field_text(struct deed *deed, const json_t *value, size_t offset)
{
    char **text = (char **)(void *)((char *)deed + offset);

    free(*text);
    *text = json_is_string(value) ? strdup(json_string_value(value)) : NULL;
    return *text;
}

static bool field_status(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    deed->status = (int)json_integer_value(value);
    return json_is_integer(value) && deed->status >= 100 && deed->status <= 999;
}

static bool field_body(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    free(deed->body);
    if (json_is_string(value)) {
        deed->body_len = json_string_length(value);
        deed->body = (char *)slice_copy((struct slice){ json_string_value(value), deed->body_len }).at;
        return true;
    }
    deed->body = json_dumps(value, JSON_COMPACT);
    deed->body_len = deed->body ? strlen(deed->body) : 0;
    return deed->body;
}

static int base64_digit(char c)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(alphabet, c) : NULL;

    return at ? (int)(at - alphabet) : -1;
}

static bool base64_decode(const char *text, struct bytes *ret)
{
    unsigned bits = 0;
    int count = 0;

    for (; *text && *text != '='; text++) {
        int digit = base64_digit(*text);

        if (digit < 0)
            return false;
        bits = bits << 6 | (unsigned)digit;
        count += 6;
        if (count >= 8) {
            count -= 8;
            bytes_add(ret, (char[]){ (char)(bits >> count) }, 1);
        }
    }
    return true;
}

static bool field_raw(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    deed->raw.len = 0;
    deed->has_raw = json_is_string(value) && base64_decode(json_string_value(value), &deed->raw);
    return deed->has_raw;
}

static bool field_transcript(struct deed *deed, const json_t *value, size_t offset)
{
    struct bytes answer = { 0 };
    bool is_known;

    if (!field_text(deed, value, offset))
        return false;
    is_known = transcript_answer(slice_of(deed->transcript), &answer);
    bytes_release(&answer);
    return is_known;
}

static bool keep_lines(struct deed *deed, const json_t *value, const char *behind)
{
    size_t count = json_array_size(value);

    if (!json_is_array(value) || deed->has_lines)
        return false;
    deed->has_lines = true;
    deed->lines = must_alloc(count * sizeof *deed->lines);
    for (size_t i = 0; i < count; i++) {
        const json_t *line = json_array_get(value, i);
        struct bytes copy = { 0 };

        if (!json_is_string(line))
            return false;
        bytes_add(&copy, json_string_value(line), json_string_length(line));
        bytes_text(&copy, behind);
        deed->lines[deed->line_count++] =
            slice_copy((struct slice){ copy.at, json_string_length(line) + strlen(behind) });
        deed->lines[i].len = json_string_length(line);
        bytes_release(&copy);
    }
    return true;
}

static bool field_lines(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    return keep_lines(deed, value, "\n");
}

static bool field_chunks(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    deed->lines_are_chunks = true;
    return keep_lines(deed, value, "");
}

static bool field_error(struct deed *deed, const json_t *value, size_t offset)
{
    const json_t *text = json_object_get(value, "text");

    (void)offset;
    if (!json_is_object(value) ||
        !field_number(deed, json_object_get(value, "n"), offsetof(struct deed, error_after_tokens)))
        return false;
    return !text || field_text(deed, text, offsetof(struct deed, error_text));
}

static bool field_trailing(struct deed *deed, const json_t *value, size_t offset)
{
    (void)offset;
    bytes_add(&deed->trailing, json_string_value(value), json_string_length(value));
    return json_is_string(value);
}

#define DEED(field) offsetof(struct deed, field)

static const struct {
    const char *key;
    field_fn *read;
    size_t offset;
} fields[] = {
    { "transcript", field_transcript, DEED(transcript) },
    { "status", field_status, 0 },
    { "body", field_body, 0 },
    { "content_type", field_text, DEED(content_type) },
    { "raw", field_raw, 0 },
    { "keep", field_bool, DEED(keeps) },
    { "head_delay_ms", field_number, DEED(head_delay_ms) },
    { "first_token_ms", field_number, DEED(first_token_ms) },
    { "token_ms", field_number, DEED(token_ms) },
    { "tokens", field_number, DEED(tokens) },
    { "lines", field_lines, 0 },
    { "chunks", field_chunks, 0 },
    { "no_done", field_bool, DEED(leaves_out_done) },
    { "split", field_number, DEED(split) },
    { "split_ms", field_number, DEED(split_ms) },
    { "hangup_after_bytes", field_number, DEED(hangup_after_bytes) },
    { "reset_after_bytes", field_number, DEED(reset_after_bytes) },
    { "stall_after_bytes", field_number, DEED(stall_after_bytes) },
    { "stall_after_tokens", field_number, DEED(stall_after_tokens) },
    { "error_after_tokens", field_error, 0 },
    { "silent", field_bool, DEED(is_silent) },
    { "close_before_answer", field_bool, DEED(closes_first) },
    { "long_line", field_number, DEED(long_line) },
    { "die", field_bool, DEED(dies) },
    { "trailing", field_trailing, 0 },
};

static bool read_field(struct deed *deed, const char *key, const json_t *value, struct bytes *ret_why)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].key, key) != 0)
            continue;
        if (fields[i].read(deed, value, fields[i].offset))
            return true;
        bytes_print(ret_why, "do.%s is not as it should be", key);
        return false;
    }
    bytes_print(ret_why, "do.%s is unknown", key);
    return false;
}

bool script_read(json_t *json, struct deed *deed, const char **ret_path, uint64_t *ret_times, struct bytes *ret_why)
{
    const char *key;
    json_t *value;

    json_object_foreach(json, key, value)
    {
        if (strcmp(key, "path") == 0 && json_is_string(value))
            *ret_path = json_string_value(value);
        else if (strcmp(key, "times") == 0 && json_is_integer(value) && json_integer_value(value) >= 0)
            *ret_times = (uint64_t)json_integer_value(value);
        else if (strcmp(key, "do") != 0 || !json_is_object(value))
            bytes_print(ret_why, "%s is unknown or of the wrong type", key);
        if (ret_why->len)
            return false;
    }
    json_object_foreach(json_object_get(json, "do"), key, value)
    {
        if (!read_field(deed, key, value, ret_why))
            return false;
    }
    if (!json_object_get(json, "do"))
        bytes_text(ret_why, "do is missing");
    return ret_why->len == 0;
}
