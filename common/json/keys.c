/*
 * Doubled keys. Keys are compared as Go's decoder would take them: decoded, and folded, where folding
 * reaches beyond ASCII only for the two characters that fold into it. (Other letters with two cases cannot
 * make a key look like one that anybody reads, since those are ASCII.)
 * A hash of the folded key is compared first; most are told apart by that alone.
 */
#include "scan.h"

#include <endian.h>

static uint32_t fold(uint32_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c + ('a' - 'A');
    if (c == 0x17f) /* the long s */
        return 's';
    if (c == 0x212a) /* the Kelvin sign */
        return 'k';
    return c;
}

static uint64_t mix(uint64_t hash, uint64_t eight)
{
    hash = (hash ^ eight) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 32;
}

/* One bit decides between the two cases of a letter; setting it in every byte folds, and a little more. */
static uint64_t folded(uint64_t eight)
{
    return eight | 0x2020202020202020u;
}

static uint64_t load8(const char *at)
{
    uint64_t eight;

    memcpy(&eight, at, sizeof eight);
    return le64toh(eight);
}

static uint64_t load4(const char *at)
{
    uint32_t four;

    memcpy(&four, at, sizeof four);
    return le32toh(four);
}

/* 1 to 7 bytes, the first lowest; loads that overlap agree on what they share. */
static uint64_t load_few(const char *at, size_t len)
{
    const unsigned char *byte = (const unsigned char *)at;

    if (len >= 4)
        return load4(at) | load4(at + len - 4) << (8 * (len - 4));
    return byte[0] | (uint64_t)byte[len / 2] << (8 * (len / 2)) | (uint64_t)byte[len - 1] << (8 * (len - 1));
}

static uint32_t hash_of_ascii(struct slice key)
{
    uint64_t hash = key.len;

    for (; key.len >= 8; key.at += 8, key.len -= 8)
        hash = mix(hash, folded(load8(key.at)));
    if (key.len)
        hash = mix(hash, folded(load_few(key.at, key.len)));
    return (uint32_t)hash;
}

/* The same over a character's last eight bits, which for ASCII is the character. */
static uint32_t hash_of_any(const struct json_string *key)
{
    const char *at = key->raw.at, *end = at + key->raw.len;
    uint64_t hash = key->chars, eight = 0;
    unsigned count = 0;

    while (at < end) {
        eight |= (uint64_t)(fold(next_char(&at)) & 0xff) << (8 * (count++ % 8));
        if (count % 8 && at < end)
            continue;
        hash = mix(hash, folded(eight));
        eight = 0;
    }
    return (uint32_t)hash;
}

static uint32_t hash_of(const struct json_string *key)
{
    bool is_ascii = !key->has_escapes && key->chars == key->raw.len;

    return is_ascii ? hash_of_ascii(key->raw) : hash_of_any(key);
}

/* Both are validated; the one that was seen is followed by its quote. */
static bool is_same(const char *seen, const struct json_string *key)
{
    const char *at = key->raw.at, *end = at + key->raw.len;

    while (at < end && *seen != '"')
        if (fold(next_char(&at)) != fold(next_char(&seen)))
            return false;
    return at == end && *seen == '"';
}

bool keys_add(struct json_reader *reader, struct json_keys *keys, const struct json_string *key)
{
    uint32_t hash = hash_of(key);
    enum json_error error = JSON_OK;

    for (unsigned i = 0; i < keys->count && !error; i++)
        if (keys->hashes[i] == hash && is_same(reader->start + keys->starts[i], key))
            error = JSON_DUPLICATE;
    if (!error && keys->count == JSON_MAX_KEYS)
        error = JSON_TOO_MANY;
    if (error) {
        (void)json_stop(reader, key->raw.at - 1, error);
        return false;
    }
    keys->hashes[keys->count] = hash;
    keys->starts[keys->count++] = (uint32_t)(key->raw.at - reader->start);
    return true;
}
