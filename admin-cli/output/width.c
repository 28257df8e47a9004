/*
 * How wide text is, and what of it a terminal may see.
 * Width is asked of the C library in its UTF-8 locale, whatever the user's own is; what is said of emoji that are made
 * of several characters stands here: a joiner (U+200D) makes one of two, as do a tone of skin and two letters of a
 * flag.
 */
#include <locale.h>
#include <wchar.h>

#include "output.h"

#define JOINER 0x200du

/* The character that stands here, and its bytes; 0 bytes: not UTF-8. */
static uint32_t character_at(const char *at, size_t left, size_t *ret_bytes)
{
    unsigned char first = (unsigned char)*at;
    size_t bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    uint32_t character = bytes == 1 ? first : first & (0x7fu >> bytes);

    *ret_bytes = 0;
    if (bytes > left || !utf8_valid((struct slice){ at, bytes }))
        return 0;
    for (size_t i = 1; i < bytes; i++)
        character = character << 6 | ((unsigned char)at[i] & 0x3f);
    *ret_bytes = bytes;
    return character;
}

/* Controls, line breaks, what sets the direction of text, and what cannot be seen at all. */
static bool is_unsafe(uint32_t c)
{
    static const uint32_t ranges[][2] = {
        { 0x0000, 0x001f }, { 0x007f, 0x009f },   { 0x00ad, 0x00ad },   { 0x061c, 0x061c },   { 0x115f, 0x1160 },
        { 0x17b4, 0x17b5 }, { 0x180b, 0x180f },   { 0x200b, 0x200b },   { 0x200e, 0x200f },   { 0x2028, 0x202e },
        { 0x2060, 0x206f }, { 0x3164, 0x3164 },   { 0xfeff, 0xfeff },   { 0xffa0, 0xffa0 },   { 0xfff0, 0xfffb },
        { 0xfffe, 0xffff }, { 0x1bca0, 0x1bca3 }, { 0x1d173, 0x1d17a }, { 0xe0000, 0xe0fff }, { 0xf0000, 0x10ffff },
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

void safe_add(struct text *out, struct slice text, bool keep_lines)
{
    for (size_t i = 0, bytes; i < text.len; i += bytes) {
        uint32_t c = character_at(text.at + i, text.len - i, &bytes);

        if (!bytes) {
            bytes = 1;
            text_add_literal(out, "\xef\xbf\xbd");
        } else if (c == '\n' && keep_lines) {
            text_add_char(out, '\n');
        } else if (!is_unsafe(c)) {
            text_add(out, text.at + i, bytes);
        } else if (c < 0x80) {
            text_printf(out, "\\x%02x", c);
        } else {
            text_printf(out, c > 0xffff ? "\\U%08x" : "\\u%04x", c);
        }
    }
}

static unsigned width_of_one(uint32_t c)
{
    static locale_t locale;
    int width;

    if (c >= 0x20 && c < 0x7f)
        return 1;
    if (!locale)
        locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", NULL);
    if (locale)
        (void)uselocale(locale);
    width = wcwidth((wchar_t)c);
    return width < 0 ? 1 : (unsigned)width;
}

struct measuring {
    uint32_t before;
    bool is_half_a_flag;
    unsigned last_width;
};

/* How many columns this character adds behind those before it. */
static unsigned added_width(struct measuring *measuring, uint32_t c)
{
    uint32_t before = measuring->before;
    unsigned width = width_of_one(c);
    bool is_flag = c >= 0x1f1e6 && c <= 0x1f1ff;

    measuring->before = c;
    if (is_flag) { /* a letter of a flag: two of them are one picture */
        measuring->is_half_a_flag = !measuring->is_half_a_flag;
        measuring->last_width = measuring->is_half_a_flag ? 2 : 0;
        return measuring->last_width;
    }
    measuring->is_half_a_flag = false;
    if (before == JOINER && width == 2)
        return 0;
    if (c >= 0x1f3fb && c <= 0x1f3ff && measuring->last_width == 2) /* the tone of the skin before it */
        return 0;
    if (c == 0xfe0f && measuring->last_width == 1 && before >= 0x203c) { /* shown as a picture after all */
        measuring->last_width = 2;
        return 1;
    }
    if (width)
        measuring->last_width = width;
    return width;
}

unsigned width_of(struct slice text)
{
    struct measuring measuring = { 0 };
    unsigned width = 0;

    for (size_t i = 0, bytes; i < text.len; i += bytes) {
        uint32_t c = character_at(text.at + i, text.len - i, &bytes);

        width += added_width(&measuring, bytes ? c : 0xfffd);
        bytes += !bytes;
    }
    return width;
}

static void add_spaces(struct text *out, unsigned count)
{
    while (count--)
        text_add_char(out, ' ');
}

void width_add(struct text *out, struct slice text, unsigned width, bool is_filled, bool is_right)
{
    struct measuring measuring = { 0 };
    unsigned whole = width_of(text), used = 0;
    size_t i = 0, fits = 0, bytes;
    unsigned fits_width = 0;

    if (whole <= width) {
        if (is_right && is_filled)
            add_spaces(out, width - whole);
        text_add_slice(out, text);
        if (!is_right && is_filled)
            add_spaces(out, width - whole);
        return;
    }
    for (; i < text.len; i += bytes) { /* cut where a character that has columns of its own begins */
        uint32_t c = character_at(text.at + i, text.len - i, &bytes);
        unsigned more = added_width(&measuring, bytes ? c : 0xfffd);

        bytes += !bytes;
        if (more && used + 1 <= width) {
            fits = i;
            fits_width = used;
        }
        used += more;
        if (used + 1 > width)
            break;
    }
    if (used + 1 <= width) {
        fits = i;
        fits_width = used;
    }
    text_add(out, text.at, fits);
    if (width)
        text_add_literal(out, "…");
    if (is_filled)
        add_spaces(out, width - fits_width - (width != 0));
}
