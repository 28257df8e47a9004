/* Values on their way to the database, and rows on their way back. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

enum { NUMBER_BYTES = 24, ALIGNMENT = 16 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* PostgreSQL has no zero byte in a text; libpq would cut it there without a word. */
static bool is_sendable(const struct value *value)
{
    if (value->bytes.len > INT_MAX / 2)
        return false;
    if (value->kind != VALUE_IS_TEXT || !value->bytes.len)
        return true;
    return !memchr(value->bytes.at, 0, value->bytes.len) && utf8_valid(value->bytes);
}

size_t wire_values_bytes(const struct value *values, size_t count)
{
    size_t bytes = aligned(count * sizeof(char *)) + aligned(count * 2 * sizeof(int));

    if (count > MAX_VALUES)
        return SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        if (!is_sendable(&values[i]))
            return SIZE_MAX;
        bytes += values[i].kind == VALUE_IS_NUMBER ? NUMBER_BYTES : values[i].bytes.len + 2;
    }
    return aligned(bytes);
}

void wire_values_write(struct wire_values *wire, const struct value *values, size_t count, char **memory)
{
    char *at = *memory, *const end = at + wire_values_bytes(values, count);

    wire->count = (int)count;
    wire->at = (const char **)(void *)at;
    at += aligned(count * sizeof(char *));
    wire->lens = (int *)(void *)at;
    wire->formats = wire->lens + count;
    at += aligned(count * 2 * sizeof(int));
    for (size_t i = 0; i < count; i++) {
        const struct value *value = &values[i];
        size_t len = value->bytes.len;
        if (value->kind == VALUE_IS_NUMBER)
            len = (size_t)snprintf(at, NUMBER_BYTES, "%lld", (long long)value->number);
        else if (value->kind == VALUE_IS_BOOL)
            at[len = 0] = value->number ? 't' : 'f', len = 1;
        else if (len)
            memcpy(at, value->bytes.at, len);
        at[len] = 0;
        wire->at[i] = value->kind == VALUE_NONE ? NULL : at;
        wire->lens[i] = (int)len;
        wire->formats[i] = value->kind == VALUE_IS_BYTES;
        at += value->kind == VALUE_IS_NUMBER ? NUMBER_BYTES : value->bytes.len + 2;
    }
    *memory = end;
}

/* ---- rows ---- */

size_t rows_count(const struct rows *rows)
{
    return (size_t)PQntuples(rows->result);
}

uint64_t rows_touched(const struct rows *rows)
{
    return strtoull(PQcmdTuples(rows->result), NULL, 10);
}

bool rows_is_null(const struct rows *rows, size_t row, unsigned column)
{
    return PQgetisnull(rows->result, (int)row, (int)column);
}

struct slice rows_text(const struct rows *rows, size_t row, unsigned column)
{
    return (struct slice){ PQgetvalue(rows->result, (int)row, (int)column),
                           (size_t)PQgetlength(rows->result, (int)row, (int)column) };
}

int64_t rows_number(const struct rows *rows, size_t row, unsigned column)
{
    return strtoll(PQgetvalue(rows->result, (int)row, (int)column), NULL, 10);
}

bool rows_bool(const struct rows *rows, size_t row, unsigned column)
{
    return *PQgetvalue(rows->result, (int)row, (int)column) == 't';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool rows_bytes(const struct rows *rows, size_t row, unsigned column, void *at, size_t len)
{
    struct slice hex = rows_text(rows, row, column);
    uint8_t *out = at;

    if (hex.len != 2 + 2 * len || hex.at[0] != '\\' || hex.at[1] != 'x')
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(hex.at[2 + 2 * i]), low = hex_digit(hex.at[3 + 2 * i]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void rows_release(struct rows *rows)
{
    PQclear(rows->result);
    rows->result = NULL;
}
