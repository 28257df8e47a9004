/* backends: where models run, and ollama_api, which is the one backend of a file without that section. */
#include "parts.h"

#include <assert.h>
#include <stdlib.h>

enum { BACKEND_NAME_MAX_BYTES = 64, MAX_SLOTS = 10000, MAX_WEIGHT = 1000 };

#define RULE(member) offsetof(struct backend_rule, member)

/* "backends", whatever stands below it. */
static struct conf_node at_key(const struct conf_node *node)
{
    return (struct conf_node){ .key = node->key, .line = node->key_line, .parent = node->parent };
}

enum err ollama_api_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field)
{
    struct snapshot *snapshot = ((struct snapshot_reading *)reading->owner)->snapshot;
    struct backend_rule *rule = ARENA_NEW(reading->arena, struct backend_rule);

    if (!rule)
        return no_memory(reading, node);
    *rule = (struct backend_rule){ .name = "ollama", .weight = 1 };
    *(struct backend_rule **)field = rule;
    snapshot->backend_count = 1;
    return url_read(reading, row, node, rule);
}

void ollama_api_print(const void *field, struct text *out)
{
    const struct snapshot *snapshot = HOLDER(struct snapshot, backends, field);

    if (snapshot->has_backends)
        text_add_literal(out, "none, but backends");
    else
        backend_url_print(&snapshot->backends[0], out);
}

enum err plain_name_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, 1, BACKEND_NAME_MAX_BYTES, &text);

    (void)row;
    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-')
            return conf_refuse(reading->conf, node, reading->why,
                               "must consist of letters, digits and ._-: it stands in the log and in metrics");
    }
    *(const char **)field = conf_keep(reading->arena, text);
    return *(const char **)field ? ERR_OK : no_memory(reading, node);
}

/* While they are sorted, names keep the node they came from. */
struct placed_name {
    const char *name;
    const struct conf_node *node;
};

static int by_name_then_place(const void *left, const void *right)
{
    const struct placed_name *a = left, *b = right;
    int order = strcmp(a->name, b->name);

    if (order)
        return order;
    return a->node->index < b->node->index ? -1 : a->node->index > b->node->index;
}

static enum err names_read(struct conf_reading *reading, const struct conf_node *list, struct placed_name *placed,
                           const char **names)
{
    enum err err = ERR_OK;
    size_t count = 0;

    for (const struct conf_node *item = list->first; item && err == ERR_OK; item = item->next) {
        placed[count].node = item;
        err = model_name_read(reading, item, &placed[count++].name);
    }
    if (err != ERR_OK)
        return err;
    qsort(placed, count, sizeof *placed, by_name_then_place);
    for (size_t i = 0; i < count; i++) {
        if (i && strcmp(placed[i - 1].name, placed[i].name) == 0)
            return conf_refuse(reading->conf, placed[i].node, reading->why, "is the same model as [%u] in line %u",
                               placed[i - 1].node->index, placed[i - 1].node->line);
        names[i] = placed[i].name;
    }
    return ERR_OK;
}

static enum err backend_models_read(struct conf_reading *reading, const struct conf_row *row,
                                    const struct conf_node *node, void *field)
{
    struct backend_rule *rule = field;
    enum err err = conf_expect(reading, node, CONF_LIST);
    struct placed_name *placed;
    const char **names;

    (void)row;
    if (err != ERR_OK)
        return err;
    if (!node->count)
        return conf_refuse(reading->conf, node, reading->why, "is empty: leave it out for all that the backend lists");
    names = arena_take(reading->arena, node->count * sizeof *names);
    placed = calloc(node->count, sizeof *placed);
    err = names && placed ? names_read(reading, node, placed, names) : no_memory(reading, node);
    free(placed);
    rule->models = names;
    rule->model_count = node->count;
    return err;
}

static const char *const kinds[] = { "ollama", NULL };

static const struct conf_row backend_rows[] = {
    { "name", CONF_OWN, RULE(name), .read = plain_name_read, .form = "1 to 64 letters, digits and ._-",
      .help = "what log and metrics call it; each its own" },
    { "url", CONF_OWN, 0, .read = url_read, .form = "http://HOST[:PORT]",
      .help = "where it listens; without a port it is 80, as in every URL" },
    { "kind", CONF_CHOICE, RULE(kind), "ollama", .words = kinds, .help = "which API it speaks" },
    { "slots", CONF_COUNT, RULE(slots), "0", 0, MAX_SLOTS,
      .help = "requests of one model that it runs at a time: its OLLAMA_NUM_PARALLEL, so that who waits does so here, "
              "in fair order; 0: no limit, and Ollama queues by itself, first come first served" },
    { "models", CONF_OWN, 0, .read = backend_models_read, .form = "a list of models",
      .help = "which of its models it is asked for, by the names it lists; default: all that it lists" },
    { "weight", CONF_COUNT, RULE(weight), "1", 0, MAX_WEIGHT,
      .help =
          "its part of conversations and, with measured speed, of load; 0: standby, used while no other can take any" },
    { "drain", CONF_BOOL, RULE(drains), "false", .help = "whether it takes nothing new; what runs there finishes" },
};

const struct conf_table backend_table = { backend_rows, sizeof backend_rows / sizeof *backend_rows };
/* CONF_CHOICE writes an unsigned into it. */
static_assert(sizeof(enum backend_kind) == sizeof(unsigned));

void add_line_number(const struct conf *conf, unsigned line, struct text *out)
{
    if (!conf->is_made)
        text_printf(out, " in line %u", line);
}

static enum err refuse_doubles(struct conf_reading *reading, const struct conf_node *item,
                               const struct snapshot *snapshot, size_t count)
{
    const struct backend_rule *rule = &snapshot->backends[count];

    for (size_t i = 0; i < count; i++) {
        bool is_named_so = strcmp(snapshot->backends[i].name, rule->name) == 0;
        if (!is_named_so && !backend_is_same_place(&snapshot->backends[i], rule))
            continue;
        if (is_named_so)
            (void)conf_refuse(reading->conf, item, reading->why, "is named %s, as is the backend", rule->name);
        else
            (void)conf_refuse(reading->conf, item, reading->why, "is at the host and port of %s",
                              snapshot->backends[i].name);
        add_line_number(reading->conf, snapshot->memory->backend_lines[i], reading->why);
        return ERR_BAD;
    }
    return ERR_OK;
}

static enum err backend_read(struct conf_reading *reading, const struct conf_node *item, struct backend_rule *rule)
{
    enum err err;

    if (item->kind != CONF_MAP) /* not quoted: it may be a URL with a password */
        return conf_refuse(reading->conf, item, reading->why,
                           "must be a map with a name and a url, such as {name: gpu1, url: http://10.0.0.5:11434}");
    err = conf_table_read(reading, &backend_table, item, rule, NULL);
    if (err != ERR_OK)
        return err;
    if (!rule->name)
        return conf_refuse(reading->conf, item, reading->why, "needs a name, which log and metrics call it by");
    if (!rule->host)
        return conf_refuse(reading->conf, item, reading->why, "needs a url, such as http://10.0.0.5:11434");
    return ERR_OK;
}

static enum err items_read(struct conf_reading *reading, const struct conf_node *list, struct snapshot *snapshot)
{
    enum err err = ERR_OK;
    size_t count = 0;

    for (const struct conf_node *item = list->first; item && err == ERR_OK; item = item->next, count++) {
        snapshot->memory->backend_lines[count] = item->line;
        err = backend_read(reading, item, &snapshot->backends[count]);
        if (err == ERR_OK)
            err = refuse_doubles(reading, item, snapshot, count);
    }
    snapshot->backend_count = count;
    return err;
}

/* What is wrong with the list as a whole. */
static enum err list_check(struct conf_reading *reading, const struct conf_node *node)
{
    const struct conf_node *other = conf_member(reading->conf->root, "ollama_api");
    const struct conf_node place = at_key(node);

    if (other)
        return conf_refuse(reading->conf, &place, reading->why,
                           "excludes ollama_api, which stands in line %u: leave one of them out", other->key_line);
    if (node->kind != CONF_LIST)
        return conf_refuse(reading->conf, &place, reading->why, "must be a list, each entry with a name and a url");
    if (!node->count)
        return conf_refuse(reading->conf, &place, reading->why, "is empty: leave it out for the one of ollama_api");
    if (node->count > SNAPSHOT_MAX_BACKENDS)
        return conf_refuse(reading->conf, &place, reading->why, "has %u entries, but at most %d are allowed",
                           node->count, SNAPSHOT_MAX_BACKENDS);
    return ERR_OK;
}

enum err backends_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                       void *field)
{
    struct snapshot *snapshot = ((struct snapshot_reading *)reading->owner)->snapshot;
    enum err err = list_check(reading, node);

    (void)row;
    if (err != ERR_OK)
        return err;
    *(bool *)field = true;
    snapshot->backends = arena_take(reading->arena, node->count * sizeof *snapshot->backends);
    snapshot->memory->backend_lines = arena_take(reading->arena, node->count * sizeof(unsigned));
    if (!snapshot->backends || !snapshot->memory->backend_lines)
        return no_memory(reading, node);
    return items_read(reading, node, snapshot);
}

void backends_print(const void *field, struct text *out)
{
    const struct snapshot *snapshot = HOLDER(struct snapshot, has_backends, field);

    if (snapshot->has_backends)
        text_printf(out, "%zu backend%s", snapshot->backend_count, snapshot->backend_count == 1 ? "" : "s");
    else
        text_add_literal(out, "the one of ollama_api");
}

static bool is_for(const struct backend_rule *rule, struct slice normalised)
{
    return !rule->models || model_names_have(rule->models, rule->model_count, normalised);
}

static bool has_backend(const struct snapshot *snapshot, const struct model *model)
{
    for (size_t i = 0; i < snapshot->backend_count; i++)
        if (is_for(&snapshot->backends[i], slice_of(model->backend_name)))
            return true;
    return false;
}

/* "FILE:LINE: " of a file, "NAME: " of a tree that was made. */
static void begin_warning(const struct conf *conf, unsigned line, struct text *warnings)
{
    text_printf(warnings, "%s:", conf->file);
    if (!conf->is_made)
        text_printf(warnings, "%u:", line);
}

void backends_warn(const struct conf *conf, const struct snapshot *snapshot, struct text *warnings)
{
    const struct snapshot_memory *memory = snapshot->memory;
    bool all_drain = snapshot->backend_count > 0;

    for (size_t i = 0; i < snapshot->backend_count; i++)
        all_drain &= snapshot->backends[i].drains;
    if (all_drain) {
        begin_warning(conf, memory->backend_lines ? memory->backend_lines[0] : 0, warnings);
        text_add_literal(warnings, " every backend drains: no request will be taken\n");
    }
    for (size_t i = 0; i < snapshot->model_count; i++) {
        if (!snapshot->backend_count || has_backend(snapshot, &snapshot->models[i]))
            continue;
        begin_warning(conf, memory->model_lines[i], warnings);
        text_printf(warnings, " models.%s stands for %s, which is in no backend's `models`\n",
                    snapshot->models[i].shown, snapshot->models[i].backend_model);
    }
}
