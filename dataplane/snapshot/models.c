/* models: the names callers use, and what stands behind them. */
#include "parts.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEEP_ALIVE_BYTES = 64, FOREVER = -1, MAX_KEEP_ALIVE_SECONDS = 10 * 366 * 24 * 3600 };

#define MODEL(member) offsetof(struct model, member)

/* A duration as Go's time.ParseDuration takes it: [-](NUMBER UNIT)+ */
static bool is_go_duration(struct slice text)
{
    static const char *const units[] = { "ns", "us", "ms", "s", "m", "h" };
    size_t at = text.len && text.at[0] == '-';
    bool has_any = false;

    while (at < text.len) {
        struct slice rest;
        size_t digits = 0, unit = 0;
        while (at < text.len && ((text.at[at] >= '0' && text.at[at] <= '9') || (text.at[at] == '.' && digits))) {
            if (text.at[at] == '.' && memchr(text.at + at - digits, '.', digits))
                return false;
            digits++;
            at++;
        }
        rest = (struct slice){ text.at + at, text.len - at };
        while (unit < sizeof units / sizeof *units && !slice_starts(rest, slice_of(units[unit])))
            unit++;
        if (!digits || unit == sizeof units / sizeof *units)
            return false;
        at += strlen(units[unit]);
        has_any = true;
    }
    return has_any;
}

static enum err keep_alive_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                                void *field)
{
    bool is_duration = node->kind == CONF_SCALAR && node->text.len <= KEEP_ALIVE_BYTES && is_go_duration(node->text);
    char json[KEEP_ALIVE_BYTES + 3];
    int64_t seconds = 0;

    if (is_duration) {
        (void)snprintf(json, sizeof json, "\"%s\"", node->text.at);
    } else if (node->kind == CONF_SCALAR && !node->is_quoted &&
               strspn(node->text.at, "-0123456789") == node->text.len && node->text.len) {
        enum err err = conf_integer(reading, node, FOREVER, MAX_KEEP_ALIVE_SECONDS, &seconds);
        if (err != ERR_OK)
            return err;
        (void)snprintf(json, sizeof json, "%lld", (long long)seconds);
    } else {
        return conf_refuse(reading->conf, node, reading->why, "must be %s", row->form);
    }
    *(const char **)field = conf_keep(reading->arena, slice_of(json));
    return *(const char **)field ? ERR_OK : no_memory(reading, node);
}

/* The name normalised, in the arena; refused where it is none, or a cloud's. */
static enum err normalise(struct conf_reading *reading, const struct conf_node *node, struct slice text,
                          const char **ret_name)
{
    struct text name;
    enum err err = ERR_OK;

    text_init(&name, 2 * MODEL_NAME_MAX_BYTES);
    if (!model_name_normalise(text, &name))
        err = conf_refuse(reading->conf, node, reading->why,
                          "is not the name of a model: letters, digits and ._-/ with a tag after : are");
    else if (model_name_is_cloud(text_slice(&name)))
        err = conf_refuse(reading->conf, node, reading->why, "is a cloud model: prompts would leave this machine");
    else if (!(*ret_name = conf_keep(reading->arena, text_slice(&name))))
        err = no_memory(reading, node);
    text_release(&name);
    return err;
}

enum err model_name_read(struct conf_reading *reading, const struct conf_node *node, const char **ret_name)
{
    struct slice text;
    enum err err = conf_string(reading, node, 1, MODEL_NAME_MAX_BYTES, &text);

    return err == ERR_OK ? normalise(reading, node, text, ret_name) : err;
}

static enum err backend_model_read(struct conf_reading *reading, const struct conf_row *row,
                                   const struct conf_node *node, void *field)
{
    struct model *model = (void *)((char *)field - offsetof(struct model, backend_model));
    struct slice text;
    enum err err = conf_string(reading, node, 1, MODEL_NAME_MAX_BYTES, &text);

    (void)row;
    if (err == ERR_OK)
        err = normalise(reading, node, text, &model->backend_name);
    if (err != ERR_OK)
        return err;
    model->backend_model = conf_keep(reading->arena, text);
    return model->backend_model ? ERR_OK : no_memory(reading, node);
}

static const struct conf_row model_rows[] = {
    { "model", CONF_OWN, MODEL(backend_model), .read = backend_model_read, .form = "the name of a model",
      .help = "what Ollama calls it; default: the same name" },
    { "num_ctx", CONF_NUMBER, MODEL(num_ctx), .min = 4, .max = 100000000,
      .help = "context length in tokens, sent with every request; default: not sent" },
    { "keep_alive", CONF_OWN, MODEL(keep_alive), .read = keep_alive_read,
      .form = "whole seconds (-1: for ever) or a duration such as 5m",
      .help = "how long it stays loaded, sent with every request; default: not sent" },
    { "max_prompt_chars", CONF_NUMBER, MODEL(max_prompt_chars), .min = 0, .max = 1000000000,
      .help = "instead of the general max_prompt_chars; 0: no limit" },
    { "max_system_chars", CONF_NUMBER, MODEL(max_system_chars), .min = 0, .max = 1000000000,
      .help = "instead of the general max_system_chars; 0: no limit" },
    { "think", CONF_OWN, MODEL(think), .read = think_read, .form = "true or false",
      .help = "whether it thinks when the caller does not say; default: as the model does" },
    { "preload", CONF_BOOL, MODEL(preload), "false",
      .help = "load it at the start and after a restart of Ollama, before the backend takes callers" },
};
enum { MODEL_ROWS = sizeof model_rows / sizeof *model_rows, ROW_PROMPT = 3, ROW_SYSTEM = 4 };

const struct conf_table model_table = { model_rows, MODEL_ROWS };

/* 0, or a duration that is: unloaded as soon as it is idle. */
static bool is_no_time(const char *keep_alive)
{
    return keep_alive && !strpbrk(keep_alive, "123456789");
}

static enum err model_read(struct conf_reading *reading, const struct conf_node *node, struct model *model)
{
    const struct conf_node at_key = { .key = node->key, .line = node->key_line, .parent = node->parent };
    const struct conf_node *map = conf_is_nothing(node) ? NULL : node; /* `name:` alone: all defaults */
    unsigned lines[MODEL_ROWS];
    enum err err = normalise(reading, &at_key, slice_of(node->key), &model->name);

    if (err == ERR_OK)
        err = conf_table_read(reading, &model_table, map, model, lines);
    if (err != ERR_OK)
        return err;
    model->has_max_prompt_chars = lines[ROW_PROMPT] != 0;
    model->has_max_system_chars = lines[ROW_SYSTEM] != 0;
    model->shown = conf_keep(reading->arena, slice_of(node->key));
    if (!model->backend_model) {
        model->backend_model = model->shown;
        model->backend_name = model->name;
    }
    if (model->preload && is_no_time(model->keep_alive))
        return conf_refuse(reading->conf, conf_member(node, "preload"), reading->why,
                           "loads what keep_alive unloads at once: leave one of them out");
    return model->shown ? ERR_OK : no_memory(reading, node);
}

/* While they are sorted, models keep the node they came from. */
struct placed_model {
    struct model model;
    const struct conf_node *node;
};

static int by_name_then_line(const void *left, const void *right)
{
    const struct placed_model *a = left, *b = right;
    int order = strcmp(a->model.name, b->model.name);

    if (order)
        return order;
    return a->node->key_line < b->node->key_line ? -1 : a->node->key_line > b->node->key_line;
}

static enum err place(struct conf_reading *reading, const struct placed_model *placed, size_t count,
                      struct snapshot *snapshot)
{
    for (size_t i = 0; i < count; i++) {
        const struct conf_node *node = placed[i].node;
        const struct conf_node at_key = { .key = node->key, .line = node->key_line, .parent = node->parent };
        if (i && strcmp(placed[i - 1].model.name, placed[i].model.name) == 0) {
            (void)conf_refuse(reading->conf, &at_key, reading->why, "is the same model as %s",
                              placed[i - 1].model.shown);
            add_line_number(reading->conf, placed[i - 1].node->key_line, reading->why);
            return ERR_BAD;
        }
        snapshot->models[i] = placed[i].model;
        snapshot->memory->model_lines[i] = node->key_line;
    }
    snapshot->model_count = count;
    return ERR_OK;
}

static enum err read_all(struct conf_reading *reading, const struct conf_node *map, struct placed_model *placed,
                         struct snapshot *snapshot)
{
    size_t count = 0;
    enum err err = ERR_OK;

    for (const struct conf_node *node = map->first; node && err == ERR_OK; node = node->next) {
        placed[count].node = node;
        err = model_read(reading, node, &placed[count++].model);
    }
    if (err != ERR_OK)
        return err;
    qsort(placed, count, sizeof *placed, by_name_then_line);
    return place(reading, placed, count, snapshot);
}

enum err models_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                     void *field)
{
    struct snapshot *snapshot = ((struct snapshot_reading *)reading->owner)->snapshot;
    struct placed_model *placed;
    enum err err = conf_expect(reading, node, CONF_MAP);

    (void)row;
    (void)field;
    if (err != ERR_OK)
        return err;
    if (!node->count)
        return conf_refuse(reading->conf, node, reading->why, "is empty: leave it out to offer what Ollama lists");
    snapshot->models = arena_take(reading->arena, node->count * sizeof *snapshot->models);
    snapshot->memory->model_lines = arena_take(reading->arena, node->count * sizeof(unsigned));
    placed = calloc(node->count, sizeof *placed);
    if (snapshot->models && snapshot->memory->model_lines && placed)
        err = read_all(reading, node, placed, snapshot);
    else
        err = no_memory(reading, node);
    free(placed);
    snapshot->has_models = true;
    return err;
}

const struct model *snapshot_find_model(const struct snapshot *snapshot, struct slice normalised)
{
    size_t low = 0, high = snapshot->model_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = model_name_order(snapshot->models[middle].name, normalised);
        if (order == 0)
            return &snapshot->models[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}
