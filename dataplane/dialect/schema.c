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

/* Reads over the value that is next and puts another into its place. */
static bool replace(struct mending *mending, struct slice instead)
{
    struct slice value;

    if (!json_skip(mending->json, &value))
        return false;
    text_add(&mending->out, mending->kept, (size_t)(value.at - mending->kept));
    text_add_slice(&mending->out, instead);
    mending->kept = value.at + value.len;
    mending->is_mended = true;
    return true;
}

static bool is_type(enum json_type found, enum json_type wanted)
{
    return found == wanted || found == JSON_NULL || found == JSON_NONE; /* NONE: let the reader complain */
}

static bool typed(struct mending *mending, enum json_type wanted, struct slice instead)
{
    if (is_type(json_peek(mending->json), wanted))
        return json_skip(mending->json, NULL);
    return replace(mending, instead);
}

/* Is the value that is next an array of strings, or null? The reader is a copy: nothing is read. */
static bool is_list_of_strings(struct json_reader json)
{
    if (json_peek(&json) == JSON_NULL)
        return true;
    if (json_peek(&json) != JSON_ARRAY || !json_array(&json))
        return false;
    while (json_element(&json))
        if (json_peek(&json) != JSON_STRING || !json_skip(&json, NULL))
            return false;
    return true;
}

static bool strings(struct mending *mending)
{
    if (is_list_of_strings(*mending->json))
        return json_skip(mending->json, NULL);
    return replace(mending, SLICE("[]"));
}

/* `type` of the outermost schema must be one string: the first that is not "null". */
static bool root_type(struct mending *mending)
{
    struct json_reader json = *mending->json;
    struct slice instead = SLICE("\"object\"");
    bool is_found = false;

    if (is_type(json_peek(&json), JSON_STRING))
        return json_skip(mending->json, NULL);
    if (json_peek(&json) == JSON_ARRAY && json_array(&json)) {
        while (!is_found && json_element(&json)) {
            struct slice type;
            is_found = json_peek(&json) == JSON_STRING;
            if (!json_skip(&json, &type))
                break;
            is_found = is_found && !slice_is(type, SLICE("\"null\""));
            if (is_found)
                instead = type;
        }
    }
    return replace(mending, instead);
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

/* As Go's decoder matches: in any case. */
static bool is_keyword(const struct json_string *key, struct slice name)
{
    return key->has_escapes ? json_string_is_nocase(key, name.at) : slice_is_nocase(key->raw, name);
}

static bool keyword(struct mending *mending, const struct json_string *key, bool is_root)
{
    if (is_keyword(key, SLICE("type")))
        return is_root ? root_type(mending) : type(mending);
    if (is_keyword(key, SLICE("properties")))
        return properties(mending);
    if (is_keyword(key, SLICE("required")))
        return strings(mending);
    if (!is_root && is_keyword(key, SLICE("description")))
        return typed(mending, JSON_STRING, SLICE("\"\""));
    if (!is_root && is_keyword(key, SLICE("enum")))
        return typed(mending, JSON_ARRAY, SLICE("[]"));
    if (!is_root && is_keyword(key, SLICE("anyOf")))
        return any_of(mending);
    /* The decoder takes the long s for an s: a keyword with one in it would be a known one that was not looked at. */
    if (!key->has_escapes && key->chars == key->raw.len)
        return json_skip(mending->json, NULL);
    return replace(mending, SLICE("null"));
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
