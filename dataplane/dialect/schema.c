/*
 * Invariant: `out` holds the schema as it goes on up to `kept`, a place in the text that was read; from there on
 * nothing was replaced yet. So a schema without a fault costs one pass and no copy.
 */
#include "schema.h"

struct mending {
    struct json_reader *json;
    const char *kept;
    struct text out;
    bool is_mended;
};

/* Puts another value into the place of one that was read. */
static bool put(struct mending *mending, struct slice value, struct slice instead)
{
    text_add(&mending->out, mending->kept, (size_t)(value.at - mending->kept));
    text_add_slice(&mending->out, instead);
    mending->kept = value.at + value.len;
    mending->is_mended = true;
    return true;
}

/* The value that is next must be of this type, or null. */
static bool typed(struct mending *mending, enum json_type wanted, struct slice instead)
{
    struct slice value;
    enum json_type found = json_skip_typed(mending->json, &value);

    if (found == wanted || found == JSON_NULL)
        return true;
    return found != JSON_NONE && put(mending, value, instead);
}

/* An array of strings, or null. */
static bool strings(struct mending *mending)
{
    struct slice value;
    bool is_fine = true;

    if (json_peek(mending->json) != JSON_ARRAY)
        return typed(mending, JSON_NULL, SLICE("[]"));
    value.at = mending->json->at;
    if (!json_array(mending->json))
        return false;
    while (json_element(mending->json))
        is_fine &= json_skip_typed(mending->json, NULL) == JSON_STRING;
    if (mending->json->error)
        return false;
    value.len = (size_t)(mending->json->at - value.at);
    return is_fine || put(mending, value, SLICE("[]"));
}

/* `type` of the outermost schema must be one string: the first that is not "null". */
static bool root_type(struct mending *mending)
{
    struct slice value, instead = SLICE("\"object\"");
    bool is_found = false;

    if (json_peek(mending->json) != JSON_ARRAY)
        return typed(mending, JSON_STRING, instead);
    value.at = mending->json->at;
    if (!json_array(mending->json))
        return false;
    while (json_element(mending->json)) {
        struct slice type;
        if (json_skip_typed(mending->json, &type) != JSON_STRING || is_found || slice_is(type, SLICE("\"null\"")))
            continue;
        is_found = true;
        instead = type;
    }
    if (mending->json->error)
        return false;
    value.len = (size_t)(mending->json->at - value.at);
    return put(mending, value, instead);
}

static bool type(struct mending *mending)
{
    return json_peek(mending->json) == JSON_STRING ? json_skip(mending->json, NULL) : strings(mending);
}

static bool mend(struct mending *mending, bool is_root);

static bool any_of(struct mending *mending)
{
    if (json_peek(mending->json) != JSON_ARRAY)
        return typed(mending, JSON_ARRAY, SLICE("[]"));
    if (!json_array(mending->json))
        return false;
    while (json_element(mending->json))
        if (!mend(mending, false))
            return false;
    return !mending->json->error;
}

static bool properties(struct mending *mending)
{
    struct json_string name;

    if (json_peek(mending->json) != JSON_OBJECT)
        return typed(mending, JSON_OBJECT, SLICE("{}"));
    if (!json_object(mending->json, NULL))
        return false;
    while (json_member(mending->json, NULL, &name))
        if (!mend(mending, false))
            return false;
    return !mending->json->error;
}

enum keyword { OTHER, TYPE, PROPERTIES, REQUIRED, DESCRIPTION, ENUM, ANY_OF };

static inline uint64_t load8(const char *at)
{
    uint64_t bytes;

    memcpy(&bytes, at, sizeof bytes);
    return bytes | 0x2020202020202020u; /* one bit decides between the two cases of a letter */
}

static inline uint32_t load4(const char *at)
{
    uint32_t bytes;

    memcpy(&bytes, at, sizeof bytes);
    return bytes | 0x20202020u;
}

/* Is it this word of 4 to 8 small letters, or of 8 to 16, in any case? The key is as long as the word. */
static inline bool is_short_word(struct slice key, const char *word)
{
    return load4(key.at) == load4(word) && load4(key.at + key.len - 4) == load4(word + key.len - 4);
}

static inline bool is_long_word(struct slice key, const char *word)
{
    return load8(key.at) == load8(word) && load8(key.at + key.len - 8) == load8(word + key.len - 8);
}

static enum keyword keyword_plain(struct slice key)
{
    switch (key.len) {
    case 4:
        return is_short_word(key, "type") ? TYPE : is_short_word(key, "enum") ? ENUM : OTHER;
    case 5:
        return is_short_word(key, "anyof") ? ANY_OF : OTHER;
    case 8:
        return is_long_word(key, "required") ? REQUIRED : OTHER;
    case 10:
        return is_long_word(key, "properties") ? PROPERTIES : OTHER;
    case 11:
        return is_long_word(key, "description") ? DESCRIPTION : OTHER;
    default:
        return OTHER;
    }
}

static enum keyword keyword_escaped(const struct json_string *key)
{
    static const char *const names[] = {
        [TYPE] = "type", [PROPERTIES] = "properties", [REQUIRED] = "required", [DESCRIPTION] = "description",
        [ENUM] = "enum", [ANY_OF] = "anyOf"
    };

    for (enum keyword i = TYPE; i <= ANY_OF; i++)
        if (json_string_is_nocase(key, names[i]))
            return i;
    return OTHER;
}

/* A keyword that the engine's decoder does not know. */
static bool other(struct mending *mending, const struct json_string *key)
{
    /* The decoder takes the long s for an s: a keyword with one in it would be a known one that was not looked at. */
    if (!key->has_escapes && key->chars == key->raw.len)
        return json_skip(mending->json, NULL);
    return typed(mending, JSON_NONE, SLICE("null"));
}

/* As Go's decoder matches: in any case. */
static bool keyword(struct mending *mending, const struct json_string *key, bool is_root)
{
    switch (key->has_escapes ? keyword_escaped(key) : keyword_plain(key->raw)) {
    case TYPE:
        return is_root ? root_type(mending) : type(mending);
    case PROPERTIES:
        return properties(mending);
    case REQUIRED:
        return strings(mending);
    case DESCRIPTION:
        return is_root ? json_skip(mending->json, NULL) : typed(mending, JSON_STRING, SLICE("\"\""));
    case ENUM:
        return is_root ? json_skip(mending->json, NULL) : typed(mending, JSON_ARRAY, SLICE("[]"));
    case ANY_OF:
        return is_root ? json_skip(mending->json, NULL) : any_of(mending);
    case OTHER:
        break;
    }
    return other(mending, key);
}

static bool mend(struct mending *mending, bool is_root)
{
    struct json_string key;

    if (json_peek(mending->json) != JSON_OBJECT)
        return typed(mending, JSON_OBJECT, SLICE("{}"));
    if (!json_object(mending->json, NULL))
        return false;
    while (json_member(mending->json, NULL, &key))
        if (!keyword(mending, &key, is_root))
            return false;
    return !mending->json->error;
}

bool schema_read(struct json_reader *json, struct arena *arena, struct slice *ret_schema)
{
    struct mending mending = { .json = json };
    bool is_read;

    (void)json_peek(json); /* passes over white space */
    *ret_schema = (struct slice){ json->at, 0 };
    mending.kept = json->at;
    text_init(&mending.out, SIZE_MAX / 2);
    is_read = mend(&mending, true);
    if (is_read && !mending.is_mended) {
        ret_schema->len = (size_t)(json->at - ret_schema->at);
    } else if (is_read) {
        text_add(&mending.out, mending.kept, (size_t)(json->at - mending.kept));
        *ret_schema = arena_copy(arena, text_slice(&mending.out));
        is_read = !mending.out.err && ret_schema->at;
    }
    text_release_wiped(&mending.out);
    return is_read;
}
