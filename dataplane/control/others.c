#include "others.h"

#include <assert.h>
#include <stdlib.h>

#include "arena.h"
#include "conf.h"
#include "json.h"

enum { FIRST_ROOM = 16, MAX_VALUE_DEPTH = 8, NUMBER_BYTES = 32 };

struct other {
    unsigned noun;
    size_t name_bytes, packed_bytes;
    char bytes[]; /* the name, then the change, packed */
};

static struct slice name_of(const struct other *other)
{
    return (struct slice){ other->bytes, other->name_bytes };
}

static struct slice packed_of(const struct other *other)
{
    return (struct slice){ other->bytes + other->name_bytes, other->packed_bytes };
}

/* ---- the set ---- */

static int order(const struct other *other, unsigned noun, struct slice name)
{
    size_t len = other->name_bytes < name.len ? other->name_bytes : name.len;
    int by_name;

    if (other->noun != noun)
        return other->noun < noun ? -1 : 1;
    by_name = memcmp(other->bytes, name.at, len);
    return by_name ? by_name : other->name_bytes < name.len ? -1 : other->name_bytes > name.len;
}

/* Where it is, or where it would be. */
static size_t place_of(const struct others *others, unsigned noun, struct slice name, bool *ret_is_there)
{
    size_t low = 0, high = others->count;

    *ret_is_there = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int is = order(others->items[middle], noun, name);
        if (is == 0) {
            *ret_is_there = true;
            return middle;
        }
        if (is < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct slice name_in(const struct qw_change *change)
{
    switch (change->what) {
    case QW_RANGE:
        return change->range.cidr;
    case QW_MODEL:
        return change->model.name;
    case QW_BACKEND:
        return change->backend.name;
    default:
        return change->setting.name;
    }
}

static struct other *other_new(unsigned noun, struct slice name, struct slice packed)
{
    struct other *other = malloc(sizeof *other + name.len + packed.len);

    if (!other)
        return NULL;
    other->noun = noun;
    other->name_bytes = name.len;
    other->packed_bytes = packed.len;
    memcpy(other->bytes, name.at, name.len);
    memcpy(other->bytes + name.len, packed.at, packed.len);
    return other;
}

static bool make_room(struct others *others)
{
    size_t room = others->room ? 2 * others->room : FIRST_ROOM;
    struct other **more;

    if (others->count < others->room)
        return true;
    more = realloc(others->items, room * sizeof(struct other *));
    if (!more)
        return false;
    others->items = more;
    others->room = room;
    return true;
}

static enum err put(struct others *others, struct other *other)
{
    bool is_there;
    size_t at = place_of(others, other->noun, name_of(other), &is_there);

    if (is_there) {
        free(others->items[at]);
        others->items[at] = other;
        return ERR_OK;
    }
    if (!make_room(others)) {
        free(other);
        return ERR_NO_MEMORY;
    }
    memmove(&others->items[at + 1], &others->items[at], (others->count - at) * sizeof(struct other *));
    others->items[at] = other;
    others->count++;
    return ERR_OK;
}

void others_release(struct others *others)
{
    for (size_t i = 0; i < others->count; i++)
        free(others->items[i]);
    free(others->items);
    *others = (struct others){ 0 };
}

enum err others_copy(const struct others *from, struct others *into)
{
    *into = (struct others){ .items = calloc(from->count + 1, sizeof(struct other *)), .room = from->count + 1 };
    if (!into->items)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < from->count; i++) {
        const struct other *other = from->items[i];
        into->items[i] = other_new(other->noun, name_of(other), packed_of(other));
        if (!into->items[i]) {
            others_release(into);
            return ERR_NO_MEMORY;
        }
        into->count++;
    }
    return ERR_OK;
}

enum err others_put(struct others *others, const struct qw_change *change, struct text *why)
{
    struct other *other;
    struct text packed;
    enum err err;

    assert(change->what > QW_KEY && change->what < QW_NOUNS);
    text_init(&packed, CODEC_MAX_CHANGES);
    err = change_pack(change, &packed, why);
    if (err == ERR_OK) {
        other = other_new(change->what, name_in(change), text_slice(&packed));
        err = other ? put(others, other) : ERR_NO_MEMORY;
    }
    text_release(&packed);
    return err;
}

void others_remove(struct others *others, enum qw_noun noun, struct slice name)
{
    bool is_there;
    size_t at = place_of(others, noun, name, &is_there);

    if (!is_there)
        return;
    free(others->items[at]);
    others->count--;
    memmove(&others->items[at], &others->items[at + 1], (others->count - at) * sizeof(struct other *));
}

void others_pack(const struct others *others, struct text *out)
{
    for (size_t i = 0; i < others->count; i++)
        text_add_slice(out, packed_of(others->items[i]));
}

enum err others_unpack(struct slice bytes, struct others *others, struct text *why)
{
    const struct qw_change *changes;
    struct arena arena;
    size_t count = 0;
    enum err err;

    arena_init(&arena);
    err = changes_unpack(bytes, &arena, &changes, &count, why);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        if (changes[i].what <= QW_KEY || changes[i].what >= QW_NOUNS) {
            text_add_literal(why, "holds what does not belong there");
            err = ERR_BAD;
        } else {
            err = others_put(others, &changes[i], why);
        }
    }
    arena_release(&arena);
    return err;
}

/* ---- the tree ---- */

struct growing {
    struct conf *conf;
    struct conf_node *ranges, *models, *backends, *settings;
};

static const struct slice no_key = { "", 0 };

static bool add_text(struct growing *tree, struct conf_node *parent, const char *key, struct slice text)
{
    return conf_add_scalar(tree->conf, parent, slice_of(key), text, true);
}

static bool add_number(struct growing *tree, struct conf_node *parent, const char *key, uint64_t number)
{
    char memory[NUMBER_BYTES];
    struct text text = text_over(memory, sizeof memory);

    text_add_u64(&text, number);
    return conf_add_scalar(tree->conf, parent, slice_of(key), text_slice(&text), false);
}

static bool add_flag(struct growing *tree, struct conf_node *parent, const char *key, bool is_so)
{
    return conf_add_scalar(tree->conf, parent, slice_of(key), is_so ? SLICE("true") : SLICE("false"), false);
}

static bool add_value(struct growing *tree, struct conf_node *parent, struct slice key, struct json_reader *reader);

static bool add_string(struct growing *tree, struct conf_node *parent, struct slice key, struct json_reader *reader)
{
    struct json_string string;
    struct text text;
    bool is_good;

    if (!json_string(reader, &string))
        return false;
    text_init(&text, CODEC_MAX_TEXT);
    json_string_decode(&string, &text);
    is_good = !text.err && !memchr(text_string(&text), 0, text.len) &&
              conf_add_scalar(tree->conf, parent, key, text_slice(&text), true);
    text_release(&text);
    return is_good;
}

static bool add_list(struct growing *tree, struct conf_node *parent, struct slice key, struct json_reader *reader)
{
    struct conf_node *list = conf_add(tree->conf, parent, key, CONF_LIST);

    if (!list || !json_array(reader))
        return false;
    while (json_element(reader))
        if (!add_value(tree, list, no_key, reader))
            return false;
    return !reader->error;
}

/* What is no string stands as written, as it would in the file. */
static bool add_value(struct growing *tree, struct conf_node *parent, struct slice key, struct json_reader *reader)
{
    enum json_type type = json_peek(reader);
    struct slice raw;

    if (type == JSON_STRING)
        return add_string(tree, parent, key, reader);
    if (type == JSON_ARRAY)
        return add_list(tree, parent, key, reader);
    if (type == JSON_OBJECT || !json_skip(reader, &raw))
        return false;
    return conf_add_scalar(tree->conf, parent, key, raw, false);
}

/* False: it is no JSON that a setting could have, or there is no memory. */
static bool add_json(struct growing *tree, struct conf_node *parent, struct slice key, struct slice json)
{
    struct json_reader reader;

    json_open(&reader, json, MAX_VALUE_DEPTH);
    return add_value(tree, parent, key, &reader) && json_close(&reader);
}

static bool add_names(struct growing *tree, struct conf_node *parent, const char *key, const struct qw_names *names)
{
    struct conf_node *list;

    if (!names)
        return true;
    list = conf_add(tree->conf, parent, slice_of(key), CONF_LIST);
    for (size_t i = 0; list && i < names->count; i++)
        if (!conf_add_scalar(tree->conf, list, no_key, names->names[i], true))
            return false;
    return list;
}

static bool add_model(struct growing *tree, const struct qw_model *model)
{
    struct conf_node *map = conf_add(tree->conf, tree->models, model->name, CONF_MAP);
    bool is_good = map;

    if (is_good && model->backend_model.len)
        is_good = add_text(tree, map, "model", model->backend_model);
    if (is_good && model->num_ctx)
        is_good = add_number(tree, map, "num_ctx", model->num_ctx);
    if (is_good && model->keep_alive.len)
        is_good = add_json(tree, map, SLICE("keep_alive"), model->keep_alive);
    if (is_good && model->max_prompt_chars)
        is_good = add_number(tree, map, "max_prompt_chars", model->max_prompt_chars->value);
    if (is_good && model->max_system_chars)
        is_good = add_number(tree, map, "max_system_chars", model->max_system_chars->value);
    if (is_good && model->think)
        is_good = add_flag(tree, map, "think", model->think == QW_THINK_ON);
    return is_good && (!model->preloads || add_flag(tree, map, "preload", true));
}

static bool add_backend(struct growing *tree, const struct qw_backend *backend)
{
    struct conf_node *map = conf_add(tree->conf, tree->backends, no_key, CONF_MAP);
    bool is_good = map && add_text(tree, map, "name", backend->name) && add_text(tree, map, "url", backend->url);

    if (is_good && backend->kind.len)
        is_good = add_text(tree, map, "kind", backend->kind);
    if (is_good && backend->slots)
        is_good = add_number(tree, map, "slots", backend->slots);
    if (is_good && (backend->weight || backend->is_standby))
        is_good = add_number(tree, map, "weight", backend->is_standby ? 0 : backend->weight);
    if (is_good && backend->drains)
        is_good = add_flag(tree, map, "drain", true);
    return is_good && add_names(tree, map, "models", backend->models);
}

static bool add_change(struct growing *tree, const struct qw_change *change)
{
    switch (change->what) {
    case QW_RANGE:
        return conf_add_scalar(tree->conf, tree->ranges, no_key, change->range.cidr, true);
    case QW_MODEL:
        return add_model(tree, &change->model);
    case QW_BACKEND:
        return add_backend(tree, &change->backend);
    default:
        return add_json(tree, tree->settings, change->setting.name, change->setting.value);
    }
}

static bool begin(struct growing *tree, const char *name)
{
    struct conf_node *root;

    tree->conf = conf_make(name);
    if (!tree->conf)
        return false;
    root = conf_root(tree->conf);
    tree->ranges = conf_add(tree->conf, root, SLICE("whitelist"), CONF_LIST);
    tree->models = conf_add(tree->conf, root, SLICE("models"), CONF_MAP);
    tree->backends = conf_add(tree->conf, root, SLICE("backends"), CONF_LIST);
    tree->settings = conf_add(tree->conf, root, SLICE("settings"), CONF_MAP);
    return tree->ranges && tree->models && tree->backends && tree->settings;
}

static void complain(struct text *why, const char *name, const struct other *other)
{
    static const char *const nouns[] = {
        [QW_RANGE] = "range", [QW_MODEL] = "model", [QW_BACKEND] = "backend", [QW_SETTING] = "setting"
    };

    text_printf(why, "%s: the %s ", name, nouns[other->noun]);
    conf_add_quoted(why, name_of(other));
    text_add_literal(why, " has a value that cannot be taken");
}

struct conf *others_tree(const struct others *others, const char *name, struct text *why)
{
    struct growing tree = { 0 };
    bool is_good = begin(&tree, name);
    struct arena arena;

    arena_init(&arena);
    for (size_t i = 0; i < others->count && is_good; i++) {
        const struct qw_change *change;
        size_t count;
        is_good = changes_unpack(packed_of(others->items[i]), &arena, &change, &count, why) == ERR_OK && count == 1 &&
                  add_change(&tree, change);
        if (!is_good && !why->len)
            complain(why, name, others->items[i]);
    }
    arena_release(&arena);
    if (is_good)
        return tree.conf;
    conf_free(tree.conf);
    return NULL;
}
