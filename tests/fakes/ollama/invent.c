#include "invent.h"

#include <string.h>

enum { DEPTH_MAX = 12 };

struct inventor {
    struct bytes *b;
    const struct go_value *root;
    bool is_spaced;
    const char *filler;
};

static void invent(const struct inventor *in, const struct go_value *schema, int depth);

/* "#/$defs/x": a path from the root. */
static const struct go_value *resolve(const struct inventor *in, struct slice ref)
{
    const struct go_value *at = in->root;

    if (!slice_starts(ref, "#/"))
        return NULL;
    ref = (struct slice){ ref.at + 2, ref.len - 2 };
    while (at && at->kind == GO_OBJECT && ref.len) {
        const char *slash = memchr(ref.at, '/', ref.len);
        size_t len = slash ? (size_t)(slash - ref.at) : ref.len;
        const struct go_value *found = NULL;

        for (const struct go_value *v = at->first; v; v = v->next)
            if (v->key.len == len && memcmp(v->key.at, ref.at, len) == 0)
                found = v;
        at = found;
        ref = (struct slice){ ref.at + len + (slash ? 1 : 0), ref.len - len - (slash ? 1 : 0) };
    }
    return at;
}

static struct slice type_of(const struct go_value *schema)
{
    const struct go_value *type = go_member(schema, "type");

    if (type && type->kind == GO_ARRAY) {
        type = type->first;
        while (type && type->next && slice_is(type->text, "null"))
            type = type->next;
    }
    if (type && type->kind == GO_STRING)
        return type->text;
    return go_member(schema, "properties") ? SLICE("object")
           : go_member(schema, "items")    ? SLICE("array")
                                           : SLICE("string");
}

static void invent_object(const struct inventor *in, const struct go_value *schema, int depth)
{
    const struct go_value *properties = go_member(schema, "properties");
    bool is_first = true;

    bytes_text(in->b, "{");
    for (const struct go_value *v = properties ? properties->first : NULL; v && depth < DEPTH_MAX; v = v->next) {
        bytes_text(in->b, is_first ? "" : in->is_spaced ? ", " : ",");
        bytes_json(in->b, v->key);
        bytes_text(in->b, in->is_spaced ? " : " : ":");
        invent(in, v, depth + 1);
        is_first = false;
    }
    bytes_text(in->b, in->is_spaced && !is_first ? " }" : "}");
}

static void invent_array(const struct inventor *in, const struct go_value *schema, int depth)
{
    const struct go_value *items = go_member(schema, "items");

    bytes_text(in->b, "[");
    if (items && items->kind == GO_OBJECT && depth < DEPTH_MAX)
        invent(in, items, depth + 1);
    bytes_text(in->b, "]");
}

static void invent_plain(const struct inventor *in, const struct go_value *schema, struct slice type)
{
    const struct go_value *least = go_member(schema, "minimum");

    if (slice_is(type, "integer") || slice_is(type, "number"))
        bytes_slice(in->b, least && least->kind == GO_NUMBER ? least->text : SLICE("0"));
    else if (slice_is(type, "boolean"))
        bytes_text(in->b, "true");
    else if (slice_is(type, "null"))
        bytes_text(in->b, "null");
    else
        bytes_json(in->b, slice_of(in->filler));
}

static const struct go_value *first_of(const struct go_value *schema, const char *key)
{
    const struct go_value *list = go_member(schema, key);

    return list && list->kind == GO_ARRAY ? list->first : NULL;
}

static void invent(const struct inventor *in, const struct go_value *schema, int depth)
{
    static const char *const choices[] = { "anyOf", "oneOf", "allOf" };
    const struct go_value *found;
    struct slice type;

    if (schema->kind != GO_OBJECT || depth > DEPTH_MAX) {
        bytes_text(in->b, "null");
        return;
    }
    if ((found = go_member(schema, "const")) || (found = first_of(schema, "enum"))) {
        bytes_slice(in->b, found->raw);
        return;
    }
    if ((found = go_member(schema, "$ref")) && (found = resolve(in, found->text))) {
        invent(in, found, depth + 1);
        return;
    }
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        if ((found = first_of(schema, choices[i]))) {
            invent(in, found, depth + 1);
            return;
        }
    }
    type = type_of(schema);
    if (slice_is(type, "object"))
        invent_object(in, schema, depth);
    else if (slice_is(type, "array"))
        invent_array(in, schema, depth);
    else
        invent_plain(in, schema, type);
}

void invent_value(struct bytes *b, const struct go_value *schema, bool is_spaced, const char *filler)
{
    struct inventor in = { b, schema, is_spaced, filler };

    invent(&in, schema, 0);
}
