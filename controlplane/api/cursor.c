/*
 * Where a list goes on. A cursor is opaque: base64url of a check over what is listed and the position, then the
 * position. One that was made for another list, or by hand, is no cursor.
 */
#include "parts.h"

#include "digest.h"

enum { CHECK_BYTES = 4 };

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void write_check(struct slice scope, struct slice position, char at[CHECK_BYTES])
{
    uint32_t sum = crc32c_of(crc32c_of(crc32c_of(0, scope), (struct slice){ "", 1 }), position);

    for (unsigned i = 0; i < CHECK_BYTES; i++)
        at[i] = (char)(sum >> (8 * i));
}

static void add_base64(struct text *out, struct slice bytes)
{
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t left = bytes.len - i;
        uint32_t group = (uint32_t)(unsigned char)bytes.at[i] << 16;
        group |= left > 1 ? (uint32_t)(unsigned char)bytes.at[i + 1] << 8 : 0;
        group |= left > 2 ? (uint32_t)(unsigned char)bytes.at[i + 2] : 0;
        for (size_t k = 0; k <= left && k < 4; k++)
            text_add_char(out, letters[group >> (18 - 6 * k) & 63]);
    }
}

static bool read_base64(struct slice text, struct text *out)
{
    uint32_t group = 0;
    unsigned bits = 0;

    if (text.len % 4 == 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        const char *found = text.at[i] ? strchr(letters, text.at[i]) : NULL;
        if (!found)
            return false;
        group = group << 6 | (uint32_t)(found - letters);
        bits += 6;
        if (bits < 8)
            continue;
        bits -= 8;
        text_add_char(out, (char)(group >> bits & 255));
    }
    return (group & ((1U << bits) - 1)) == 0;
}

void cursor_write(struct slice scope, struct slice position, struct text *out)
{
    char check[CHECK_BYTES];
    struct text inside;

    text_init(&inside, CURSOR_MAX_BYTES);
    write_check(scope, position, check);
    text_add(&inside, check, sizeof check);
    text_add_slice(&inside, position);
    add_base64(out, text_slice(&inside));
    text_release(&inside);
}

bool cursor_read(struct slice cursor, struct slice scope, struct text *ret_position)
{
    char check[CHECK_BYTES];
    struct slice position;
    struct text inside;
    bool is_good = false;

    text_init(&inside, CURSOR_MAX_BYTES);
    if (cursor.len <= CURSOR_MAX_BYTES && read_base64(cursor, &inside) && inside.len > CHECK_BYTES) {
        position = (struct slice){ inside.at + CHECK_BYTES, inside.len - CHECK_BYTES };
        write_check(scope, position, check);
        is_good = memcmp(check, inside.at, CHECK_BYTES) == 0;
        if (is_good)
            text_add_slice(ret_position, position);
    }
    text_release(&inside);
    return is_good;
}
