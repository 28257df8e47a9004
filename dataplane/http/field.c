/* Fields: which are known, how to find them, and the small grammars that their values share. */
#include "http_inside.h"

enum { LONGEST_KNOWN = sizeof "transfer-encoding" - 1, SHORTEST_KNOWN = sizeof "host" - 1, SLOTS = 32 };

struct known {
    uint8_t len;
    char name[LONGEST_KNOWN + 1];
};

static const struct known known_fields[HTTP_FIELD_NAMES] = {
#define KNOWN(id, text) [HTTP_##id] = { sizeof(text) - 1, text },
    HTTP_FIELDS(KNOWN)
#undef KNOWN
};

/*
 * A name's length and first letter choose the one known field it can be. Two in one slot do not compile
 * (the compiler warns of an initializer written twice); one without a slot fails the unit test.
 */
#define SLOT(len, letter) (((len) + SLOTS - ((letter)&0x1f)) % SLOTS)
static const uint8_t slots[SLOTS] = {
    [SLOT(4, 'h')] = HTTP_HOST,
    [SLOT(10, 'c')] = HTTP_CONNECTION,
    [SLOT(14, 'c')] = HTTP_CONTENT_LENGTH,
    [SLOT(12, 'c')] = HTTP_CONTENT_TYPE,
    [SLOT(16, 'c')] = HTTP_CONTENT_ENCODING,
    [SLOT(17, 't')] = HTTP_TRANSFER_ENCODING,
    [SLOT(6, 'e')] = HTTP_EXPECT,
    [SLOT(13, 'a')] = HTTP_AUTHORIZATION,
    [SLOT(6, 'a')] = HTTP_ACCEPT,
    [SLOT(12, 'x')] = HTTP_X_REQUEST_ID,
    [SLOT(15, 'x')] = HTTP_X_FORWARDED_FOR,
    [SLOT(11, 'r')] = HTTP_RETRY_AFTER,
    [SLOT(7, 'u')] = HTTP_UPGRADE,
};

/* Setting bit 0x20 makes letters lower and leaves '-' as it is; no other byte of a token becomes either. */
static bool same_8(const char *name, const char *known)
{
    uint64_t ours, theirs;

    memcpy(&ours, known, sizeof ours);
    memcpy(&theirs, name, sizeof theirs);
    return (theirs | 0x2020202020202020u) == ours;
}

static bool same_4(const char *name, const char *known)
{
    uint32_t ours, theirs;

    memcpy(&ours, known, sizeof ours);
    memcpy(&theirs, name, sizeof theirs);
    return (theirs | 0x20202020u) == ours;
}

/* Words that overlap where the length is no multiple of theirs. */
static bool same_name(const char *name, const char *known, size_t len)
{
    if (len < 8)
        return same_4(name, known) && same_4(name + len - 4, known + len - 4);
    return same_8(name, known) && same_8(name + len - 8, known + len - 8) && (len <= 16 || same_8(name + 8, known + 8));
}

enum http_field_name http_known_field(struct slice name)
{
    enum http_field_name id;

    if (name.len < SHORTEST_KNOWN || name.len > LONGEST_KNOWN)
        return HTTP_OTHER;
    id = slots[SLOT(name.len, (unsigned char)name.at[0])];
    if (known_fields[id].len != name.len || !same_name(name.at, known_fields[id].name, name.len))
        return HTTP_OTHER;
    return id;
}

struct slice http_field(const struct http_head *head, enum http_field_name name)
{
    if (name == HTTP_OTHER || head->first[name] == 0)
        return (struct slice){ NULL, 0 };
    return head->fields[head->first[name] - 1].value;
}

struct slice http_field_named(const struct http_head *head, struct slice name, unsigned *ret_count)
{
    struct slice value = { NULL, 0 };
    unsigned count = 0;

    for (unsigned i = 0; i < head->field_count; i++) {
        if (head->fields[i].name.len != name.len || !slice_is_nocase(head->fields[i].name, name))
            continue;
        if (count++ == 0)
            value = head->fields[i].value;
    }
    if (ret_count)
        *ret_count = count;
    return value;
}

bool http_list_has(struct slice list, struct slice token)
{
    while (list.len) {
        const char *comma = memchr(list.at, ',', list.len);
        struct slice element = { list.at, comma ? (size_t)(comma - list.at) : list.len };
        size_t step = element.len + (comma != NULL);
        if (slice_is_nocase(slice_trim(element), token))
            return token.len > 0; /* an empty element is none (RFC 9110 5.6.1.2) */
        list = (struct slice){ list.at + step, list.len - step };
    }
    return false;
}

bool http_is_token(struct slice slice)
{
    for (size_t i = 0; i < slice.len; i++)
        if (!http_is(slice.at[i], CLASS_TOKEN))
            return false;
    return slice.len > 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool percent_decode_into(struct slice segment, struct text *out)
{
    for (size_t i = 0; i < segment.len; i++) {
        char c = segment.at[i];
        if (c == '%') {
            int high = segment.len - i > 2 ? hex_digit(segment.at[i + 1]) : -1;
            int low = segment.len - i > 2 ? hex_digit(segment.at[i + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (http_is(c, CLASS_CONTROL) || c == '\t')
            return false;
        text_add_char(out, c);
    }
    return true;
}

bool http_percent_decode(struct slice segment, struct text *out)
{
    size_t before = out->len;

    if (percent_decode_into(segment, out) && !out->err &&
        (out->len == before || utf8_valid((struct slice){ out->at + before, out->len - before })))
        return true;
    if (out->len > before) {
        out->len = before;
        out->at[before] = 0;
    }
    return false;
}
