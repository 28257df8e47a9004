/*
 * How names of models compare. Ollama's whole form is HOST/NAMESPACE/MODEL:TAG; what is left out is
 * registry.ollama.ai, library and latest. HOST may have a port, so a tag is what follows the last colon
 * behind the last slash.
 */
#include "model_name.h"

static const char default_host[] = "registry.ollama.ai/";
static const char default_namespace[] = "library/";
enum { MAX_PARTS = 3 };

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Letters, digits, "._-", beginning with a letter, a digit or "_": so no part is "..". */
static bool is_part(struct slice part)
{
    if (!part.len || (!is_alnum(part.at[0]) && part.at[0] != '_'))
        return false;
    for (size_t i = 0; i < part.len; i++)
        if (!is_alnum(part.at[i]) && part.at[i] != '.' && part.at[i] != '_' && part.at[i] != '-')
            return false;
    return true;
}

static bool is_part_with_suffix(struct slice part)
{
    const char *colon = part.len ? memchr(part.at, ':', part.len) : NULL;
    struct slice suffix;

    if (!colon)
        return is_part(part);
    suffix = (struct slice){ colon + 1, part.len - (size_t)(colon - part.at) - 1 };
    part.len = (size_t)(colon - part.at);
    return is_part(part) && is_part(suffix);
}

/* Every part is well formed; a colon stands in the last (its tag) or in the first of three (a port) only. */
static bool is_model_name(struct slice name, bool *ret_has_tag)
{
    unsigned parts = 1, part = 0;

    if (!name.len || name.len > MODEL_NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < name.len; i++)
        parts += name.at[i] == '/';
    if (parts > MAX_PARTS)
        return false;
    for (struct slice left = name; part < parts; part++) {
        const char *slash = left.len ? memchr(left.at, '/', left.len) : NULL;
        struct slice this_part = { left.at, slash ? (size_t)(slash - left.at) : left.len };
        bool is_last = part + 1 == parts;
        bool may_have_suffix = is_last || (part == 0 && parts == MAX_PARTS);
        if (may_have_suffix ? !is_part_with_suffix(this_part) : !is_part(this_part))
            return false;
        if (is_last)
            *ret_has_tag = memchr(this_part.at, ':', this_part.len) != NULL;
        else
            left = (struct slice){ slash + 1, left.len - this_part.len - 1 };
    }
    return true;
}

static bool drop_prefix(struct slice *name, const char *prefix)
{
    struct slice wanted = slice_of(prefix);

    if (name->len <= wanted.len || !slice_is_nocase((struct slice){ name->at, wanted.len }, wanted))
        return false;
    name->at += wanted.len;
    name->len -= wanted.len;
    return true;
}

static unsigned slashes_in(struct slice name)
{
    unsigned count = 0;

    for (size_t i = 0; i < name.len; i++)
        count += name.at[i] == '/';
    return count;
}

bool model_name_normalise(struct slice name, struct text *out)
{
    size_t before = out->len;
    bool has_tag = false;

    if (!is_model_name(name, &has_tag))
        return false;
    if (slashes_in(name) == 2)
        (void)drop_prefix(&name, default_host);
    if (slashes_in(name) == 1)
        (void)drop_prefix(&name, default_namespace);
    for (size_t i = 0; i < name.len; i++)
        text_add_char(out, lower(name.at[i]));
    if (!has_tag)
        text_add_literal(out, ":latest");
    return out->err == ERR_OK && out->len - before <= MODEL_NAME_MAX_BYTES; /* what comes of a name is a name */
}

bool model_name_is_cloud(struct slice normalised)
{
    const char *colon = normalised.len ? memrchr(normalised.at, ':', normalised.len) : NULL;
    struct slice base = { normalised.at, colon ? (size_t)(colon - normalised.at) : normalised.len };
    struct slice tag = { NULL, 0 };

    if (colon)
        tag = (struct slice){ colon + 1, normalised.len - base.len - 1 };
    return slice_is(tag, SLICE("cloud")) || slice_ends(tag, SLICE("-cloud")) || slice_ends(base, SLICE("-cloud"));
}

int model_name_order(const char *name, struct slice other)
{
    struct slice own = slice_of(name);
    size_t shared = own.len < other.len ? own.len : other.len;
    int order = shared ? memcmp(own.at, other.at, shared) : 0;

    if (order)
        return order;
    return own.len < other.len ? -1 : own.len > other.len;
}

bool model_names_have(const char *const *names, size_t count, struct slice normalised)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = model_name_order(names[middle], normalised);
        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}
