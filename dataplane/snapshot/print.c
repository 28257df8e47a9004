/* What people see of it: the settings in force with their sources, and what settings there are. */
#include "parts.h"

enum { SHOWN_HASH_DIGITS = 8, LINE_BYTES = 64 * 1024, VALUE_COLUMN = 30, SOURCE_COLUMN = 56 };

/* Enough to tell two apart, of the hash only. */
static void add_masked(struct text *out, const struct digest *hash)
{
    struct text hex;

    text_init(&hex, DIGEST_HEX);
    digest_add_hex(&hex, hash);
    text_printf(out, "sha256:%.*s…", SHOWN_HASH_DIGITS, text_string(&hex));
    text_release(&hex);
}

/* Code points, not bytes, fill a column. */
static void pad_to(struct text *line, size_t column)
{
    size_t width = utf8_count(text_slice(line));

    do
        text_add_char(line, ' ');
    while (++width < column && line->err == ERR_OK);
}

static void add_line(struct text *out, struct text *line, const struct snapshot *snapshot, unsigned source)
{
    pad_to(line, SOURCE_COLUMN);
    if (source)
        text_printf(line, "# %s:%u\n", snapshot->memory->file, source);
    else
        text_add_literal(line, "# default\n");
    text_add_slice(out, text_slice(line));
    text_clear(line);
}

static void add_think(struct text *line, enum think_default think)
{
    if (think != THINK_UNSET)
        text_add_string(line, think == THINK_ON ? ", think" : ", think off");
}

static void print_key(const struct key_rule *key, struct text *line)
{
    text_printf(line, "  %s", key->name);
    pad_to(line, VALUE_COLUMN);
    add_masked(line, &key->hash);
    if (strcmp(key->user, key->name) != 0)
        text_printf(line, ", user %s", key->user);
    if (key->delegates)
        text_add_literal(line, ", delegate");
    for (size_t i = 0; i < key->model_count; i++)
        text_printf(line, "%s%s", i ? " " : ", models ", key->models[i]);
    if (key->has_allow) {
        text_add_literal(line, ", allow ");
        cidrs_print(&key->allow, line);
    }
    if (key->max_requests)
        text_printf(line, ", max_requests %u", key->max_requests);
    if (key->max_total_requests)
        text_printf(line, ", max_total_requests %u", key->max_total_requests);
    if (key->has_max_prompt_chars)
        text_printf(line, ", max_prompt_chars %llu", (unsigned long long)key->max_prompt_chars);
    add_think(line, (enum think_default)key->think);
    if (key->weight != 1)
        text_printf(line, ", weight %u", key->weight);
    if (key->class == KEY_BATCH)
        text_add_literal(line, ", class batch");
}

static void print_model(const struct model *model, struct text *line)
{
    text_printf(line, "  %s", model->shown);
    pad_to(line, VALUE_COLUMN);
    text_printf(line, "model %s", model->backend_model);
    if (model->num_ctx)
        text_printf(line, ", num_ctx %llu", (unsigned long long)model->num_ctx);
    if (model->keep_alive)
        text_printf(line, ", keep_alive %s", model->keep_alive);
    if (model->has_max_prompt_chars)
        text_printf(line, ", max_prompt_chars %llu", (unsigned long long)model->max_prompt_chars);
    if (model->has_max_system_chars)
        text_printf(line, ", max_system_chars %llu", (unsigned long long)model->max_system_chars);
    add_think(line, model->think);
    if (model->preload)
        text_add_literal(line, ", preload");
}

static void print_backend(const struct backend_rule *rule, struct text *line)
{
    text_printf(line, "  %s", rule->name);
    pad_to(line, VALUE_COLUMN);
    backend_url_print(rule, line);
    text_printf(line, ", slots %u%s, weight %u%s", rule->slots, rule->slots ? "" : " (no limit)", rule->weight,
                rule->weight ? "" : " (standby)");
    for (size_t i = 0; i < rule->model_count; i++)
        text_printf(line, "%s%s", i ? " " : ", models ", rule->models[i]);
    if (rule->drains)
        text_add_literal(line, ", drain");
}

void keys_print(const void *field, struct text *out)
{
    const struct snapshot *snapshot = HOLDER(struct snapshot, keys, field);

    text_printf(out, "%zu key%s", snapshot->key_count, snapshot->key_count == 1 ? "" : "s");
}

void models_print(const void *field, struct text *out)
{
    const struct snapshot *snapshot = HOLDER(struct snapshot, models, field);

    if (snapshot->has_models)
        text_printf(out, "%zu model%s", snapshot->model_count, snapshot->model_count == 1 ? "" : "s");
    else
        text_add_literal(out, "those that Ollama lists");
}

static void print_entries(const struct snapshot *snapshot, const struct conf_row *row, struct text *line,
                          struct text *out)
{
    bool is_keys = row->offset == offsetof(struct snapshot, keys);
    bool is_models = row->offset == offsetof(struct snapshot, models);
    bool is_backends = row->offset == offsetof(struct snapshot, has_backends) && snapshot->has_backends;

    for (size_t i = 0; is_keys && i < snapshot->key_count; i++) {
        print_key(&snapshot->keys[i], line);
        add_line(out, line, snapshot, snapshot->memory->key_lines[i]);
    }
    for (size_t i = 0; is_models && i < snapshot->model_count; i++) {
        print_model(&snapshot->models[i], line);
        add_line(out, line, snapshot, snapshot->memory->model_lines[i]);
    }
    for (size_t i = 0; is_backends && i < snapshot->backend_count; i++) {
        print_backend(&snapshot->backends[i], line);
        add_line(out, line, snapshot, snapshot->memory->backend_lines[i]);
    }
}

void snapshot_print(const struct snapshot *snapshot, struct text *out)
{
    struct text line;

    text_init(&line, LINE_BYTES);
    for (size_t i = 0; i < settings_table.count; i++) {
        const struct conf_row *row = &settings_table.rows[i];
        text_printf(&line, "%s:", row->key);
        pad_to(&line, VALUE_COLUMN);
        conf_add_value(row, (const char *)snapshot + row->offset, &line);
        add_line(out, &line, snapshot, snapshot->memory->setting_lines[i]);
        print_entries(snapshot, row, &line, out);
    }
    text_release(&line);
}

void settings_describe(struct text *out, bool as_markdown)
{
    conf_describe(&settings_table, "Settings", true, as_markdown, out);
    conf_describe(&backend_table, "An entry of backends", false, as_markdown, out);
    conf_describe(&key_table, "An entry of auth.valid_keys", false, as_markdown, out);
    conf_describe(&model_table, "An entry of models", false, as_markdown, out);
}
