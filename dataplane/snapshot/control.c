/* control: where the control plane is, and what may not stand in the file beside it. */
#include "parts.h"

#include <assert.h>

enum { URL_MAX_BYTES = 512, WORD_MAX_BYTES = 255 };

/* CONF_CHOICE writes an unsigned into it. */
static_assert(sizeof(enum when_stale) == sizeof(unsigned));

static enum err url_add(struct conf_reading *reading, const struct conf_node *node, const char **ret_url)
{
    struct slice text;
    const char *wrong;
    enum err err = conf_string(reading, node, 1, URL_MAX_BYTES, &text);

    if (err != ERR_OK)
        return err;
    wrong = link_url_wrong(text);
    if (wrong)
        return conf_refuse(reading->conf, node, reading->why, "%s", wrong);
    *ret_url = conf_keep(reading->arena, text);
    return *ret_url ? ERR_OK : no_memory(reading, node);
}

enum err control_urls_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                           void *field)
{
    struct control_settings *control = (void *)((char *)field - offsetof(struct control_settings, urls));
    const char **urls = arena_take(reading->arena, SNAPSHOT_MAX_CONTROLS * sizeof *urls);
    enum err err = ERR_OK;

    (void)row;
    if (!urls)
        return no_memory(reading, node);
    control->urls = urls;
    if (node->kind == CONF_SCALAR) {
        err = url_add(reading, node, &urls[0]);
        control->url_count = err == ERR_OK;
        return err;
    }
    err = conf_expect(reading, node, CONF_LIST);
    if (err == ERR_OK && (!node->count || node->count > SNAPSHOT_MAX_CONTROLS))
        return conf_refuse(reading->conf, node, reading->why, "must name 1 to %d addresses", SNAPSHOT_MAX_CONTROLS);
    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next)
        err = url_add(reading, item, &urls[control->url_count++]);
    return err;
}

void control_urls_print(const void *field, struct text *out)
{
    const struct control_settings *control = HOLDER(struct control_settings, urls, field);

    for (size_t i = 0; i < control->url_count; i++)
        text_printf(out, "%s%s", i ? ", " : "", control->urls[i]);
    if (!control->url_count)
        text_add_literal(out, "none");
}

enum err path_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    if (text.at[0] != '/')
        return conf_refuse(reading->conf, node, reading->why, "must be a path that begins with /");
    *(const char **)field = conf_keep(reading->arena, text);
    return *(const char **)field ? ERR_OK : no_memory(reading, node);
}

enum err word_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, 1, WORD_MAX_BYTES, &text);

    (void)row;
    if (err != ERR_OK)
        return err;
    *(const char **)field = conf_keep(reading->arena, text);
    return *(const char **)field ? ERR_OK : no_memory(reading, node);
}

void word_print(const void *field, struct text *out)
{
    const char *word = *(const char *const *)field;

    text_add_string(out, word ? word : "none");
}

/* ---- what stands beside it ---- */

static const struct excluded {
    const char *section, *key, *what;
} excluded[] = {
    { "auth", "valid_keys", "keys come" },   { "whitelist", "ips", "the whitelist comes" },
    { NULL, "ollama_api", "backends come" }, { NULL, "backends", "backends come" },
    { NULL, "models", "models come" },
};

static enum err refuse_excluded(const struct conf *conf, const struct conf_node *control, struct text *why)
{
    for (size_t i = 0; i < sizeof excluded / sizeof *excluded; i++) {
        const struct excluded *row = &excluded[i];
        const struct conf_node *node =
            conf_member(row->section ? conf_member(conf->root, row->section) : conf->root, row->key);
        struct conf_node at_key;
        if (!node)
            continue;
        at_key = (struct conf_node){ .key = node->key, .line = node->key_line, .parent = node->parent };
        return conf_refuse(conf, &at_key, why,
                           "excludes control, which stands in line %u: %s from the control plane then, so leave one of "
                           "them out",
                           control->key_line, row->what);
    }
    return ERR_OK;
}

static bool has_tls(const struct control_settings *control)
{
    for (size_t i = 0; i < control->url_count; i++)
        if (slice_starts(slice_of(control->urls[i]), SLICE("tls+")))
            return true;
    return false;
}

enum err check_control(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    const struct control_settings *control = &snapshot->settings.control;
    const struct conf_node *node = conf_member(conf->root, "control");
    struct conf_node at_key;

    if (!node)
        return ERR_OK;
    at_key = (struct conf_node){ .key = node->key, .line = node->key_line, .parent = node->parent };
    if (!control->url_count)
        return conf_refuse(conf, &at_key, why, "needs a url, where the control plane listens: tcp://127.0.0.1:18801");
    if (!control->name)
        return conf_refuse(conf, &at_key, why, "needs a name, by which the control plane knows this gateway");
    if (has_tls(control) && !control->tls_ca_file)
        return conf_refuse(conf, &at_key, why,
                           "has a url with tls+tcp://, so it needs tls.ca_file to know whom to trust");
    return refuse_excluded(conf, node, why);
}
