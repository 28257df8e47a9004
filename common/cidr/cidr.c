#include "cidr.h"

#include <stdlib.h>

enum { V4_PREFIX_BITS = 96, ADDRESS_BITS = 128, QUOTED_BYTES = 64 };

/* In quotes, cut, and on one line whatever it holds. */
static void add_quoted(struct text *why, struct slice text)
{
    size_t len = utf8_cut(text, QUOTED_BYTES);

    text_add_char(why, '"');
    for (size_t i = 0; i < len; i++)
        text_add_char(why, (unsigned char)text.at[i] < 0x20 || text.at[i] == 0x7f ? '?' : text.at[i]);
    text_add_string(why, len < text.len ? "…\"" : "\"");
}

/* Clears what stands behind the mask; true: something did. */
static bool clear_behind(struct address *address, unsigned bits)
{
    bool had_any = false;

    for (unsigned i = 0; i < sizeof address->bytes; i++) {
        unsigned kept = bits >= (i + 1) * 8 ? 8 : bits <= i * 8 ? 0 : bits - i * 8;
        uint8_t mask = (uint8_t)(0xff00u >> kept);
        had_any |= (address->bytes[i] & (uint8_t)~mask) != 0;
        address->bytes[i] &= mask;
    }
    return had_any;
}

/* 1 to 3 decimal digits without leading zeros, up to max. */
static bool parse_bits(struct slice text, unsigned max, unsigned *ret_bits)
{
    unsigned bits = 0;

    if (!text.len || text.len > 3 || (text.len > 1 && text.at[0] == '0'))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        bits = bits * 10 + (unsigned)(text.at[i] - '0');
    }
    if (bits > max)
        return false;
    *ret_bits = bits;
    return true;
}

enum err cidr_parse(struct slice text, struct cidr *ret_cidr, struct text *why)
{
    const char *slash = text.len ? memchr(text.at, '/', text.len) : NULL;
    struct slice address = { text.at, slash ? (size_t)(slash - text.at) : text.len };
    bool is_v4 = !address.len || !memchr(address.at, ':', address.len);
    unsigned width = is_v4 ? ADDRESS_BITS - V4_PREFIX_BITS : ADDRESS_BITS;
    unsigned bits = width;
    char meant[ADDRESS_TEXT_BYTES];
    struct cidr cidr;

    if (!address_parse(address, &cidr.base)) {
        add_quoted(why, text);
        text_add_literal(why, " is not an IP address, nor a range such as 10.0.0.0/16 or fd00::/8");
        return ERR_BAD;
    }
    if (slash && !parse_bits((struct slice){ slash + 1, text.len - address.len - 1 }, width, &bits)) {
        add_quoted(why, text);
        text_printf(why, " needs a number from 0 to %u after the /", width);
        return ERR_BAD;
    }
    cidr.bits = bits + (is_v4 ? V4_PREFIX_BITS : 0);
    if (clear_behind(&cidr.base, cidr.bits)) {
        add_quoted(why, text);
        text_printf(why, " has bits set behind its mask: did you mean %s/%u?", address_text(&cidr.base, meant), bits);
        return ERR_BAD;
    }
    *ret_cidr = cidr;
    return ERR_OK;
}

bool cidr_has(const struct cidr *cidr, const struct address *address)
{
    unsigned whole = cidr->bits / 8, rest = cidr->bits % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);

    if (memcmp(cidr->base.bytes, address->bytes, whole) != 0)
        return false;
    return rest == 0 || ((cidr->base.bytes[whole] ^ address->bytes[whole]) & mask) == 0;
}

static bool list_has(const struct cidr_list *list, const struct address *address)
{
    for (size_t i = 0; i < list->count; i++)
        if (cidr_has(&list->items[i], address))
            return true;
    return false;
}

bool cidr_list_has(const struct cidr_list *list, const struct address *address)
{
    static const struct address v6_loopback = { .bytes = { [15] = 1 } };
    static const struct address v4_loopback = { .bytes = { [10] = 0xff, 0xff, 127, 0, 0, 1 } };

    if (list_has(list, address))
        return true;
    return address_is(address, &v6_loopback) && list_has(list, &v4_loopback);
}

enum err cidr_list_add(struct cidr_list *list, struct cidr cidr)
{
    struct cidr *items;

    /* The room doubles whenever the count reaches a power of two. */
    if ((list->count & (list->count - 1)) == 0) {
        items = reallocarray(list->items, list->count ? list->count * 2 : 1, sizeof *items);
        if (!items)
            return ERR_NO_MEMORY;
        list->items = items;
    }
    list->items[list->count++] = cidr;
    return ERR_OK;
}

void cidr_list_release(struct cidr_list *list)
{
    free(list->items);
    *list = (struct cidr_list){ 0 };
}
