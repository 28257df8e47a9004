/* What the control plane says, over what the file says. */
#include "parts.h"

#include <stdlib.h>

/* Listeners, timeouts, logs, headers, users of the machine stay the file's. */
static const char *const decided[] = {
    "rate_limit.enabled",
    "rate_limit.max_requests",
    "rate_limit.window_seconds",
    "rate_limit.retry_after",
    "whitelist.enabled",
    "max_waiting",
    "max_waiting_per_user",
    "max_waiting_batch_percent",
    "batch_percent",
    "slow_start",
    "response_filter.strip",
    "max_body_bytes",
    "max_prompt_chars",
    "max_system_chars",
};

static const struct conf_row *row_of(const char *key)
{
    for (size_t i = 0; i < settings_table.count; i++)
        if (strcmp(settings_table.rows[i].key, key) == 0)
            return &settings_table.rows[i];
    return NULL;
}

static bool is_decided(const char *key)
{
    for (size_t i = 0; i < sizeof decided / sizeof *decided; i++)
        if (strcmp(decided[i], key) == 0)
            return true;
    return false;
}

static enum err setting_read(struct conf_reading *reading, struct snapshot *snapshot, const struct conf_node *node)
{
    const struct conf_row *row = row_of(node->key);

    if (!row)
        return conf_refuse(reading->conf, node, reading->why, "is not a known setting");
    if (!is_decided(node->key))
        return conf_refuse(reading->conf, node, reading->why, "is not the control plane's to say: it stays the file's");
    if (row->offset == offsetof(struct snapshot, settings.strip_model))
        snapshot->settings.strip_model = snapshot->settings.strip_created = false;
    return conf_value_read(reading, row, node, (char *)snapshot + row->offset);
}

static enum err settings_read(struct conf_reading *reading, struct snapshot *snapshot, const struct conf_node *map,
                              bool *ret_says_whitelist)
{
    enum err err = ERR_OK;

    for (const struct conf_node *node = map ? map->first : NULL; node && err == ERR_OK; node = node->next) {
        err = setting_read(reading, snapshot, node);
        *ret_says_whitelist |= strcmp(node->key, "whitelist.enabled") == 0;
    }
    return err;
}

static enum err all_read(struct conf_reading *reading, struct snapshot *snapshot)
{
    const struct conf_node *root = reading->conf->root, *node;
    bool says_whitelist = snapshot->memory->says_whitelist;
    enum err err = settings_read(reading, snapshot, conf_member(root, "settings"), &says_whitelist);

    if (err == ERR_OK && (node = conf_member(root, "whitelist")))
        err = cidrs_read(reading, NULL, node, &snapshot->settings.whitelist);
    if (err == ERR_OK && (node = conf_member(root, "models")) && node->count)
        err = models_read(reading, NULL, node, &snapshot->models);
    if (err == ERR_OK && (node = conf_member(root, "backends")) && node->count)
        err = backends_read(reading, NULL, node, &snapshot->has_backends);
    if (!says_whitelist) /* nobody has said, so a list that is there counts */
        snapshot->settings.whitelist_enabled = snapshot->settings.whitelist.count > 0;
    return err;
}

static struct snapshot *begin(struct snapshot *file)
{
    struct snapshot *snapshot = snapshot_new(file->memory->file);

    if (!snapshot)
        return NULL;
    snapshot->memory->base = snapshot_ref(file);
    snapshot->memory->says_whitelist = file->memory->says_whitelist;
    memcpy(snapshot->memory->setting_lines, file->memory->setting_lines, sizeof file->memory->setting_lines);
    snapshot->settings = file->settings;
    snapshot->settings.whitelist = (struct cidr_list){ 0 };
    snapshot->keyring = keyring_ref(file->keyring);
    snapshot->has_backends = true;
    return snapshot;
}

struct snapshot *snapshot_over(struct snapshot *file, const struct conf *said, struct text *why, struct text *warnings)
{
    struct snapshot *snapshot = begin(file);
    struct snapshot_reading owner = { .snapshot = snapshot, .warnings = warnings };
    struct conf_reading reading = { .conf = said, .why = why, .owner = &owner };
    enum err err;

    if (!snapshot) {
        text_printf(why, "%s: cannot be kept: %s", said->file, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    reading.arena = &snapshot->memory->arena;
    err = all_read(&reading, snapshot);
    if (err == ERR_OK && warnings)
        backends_warn(said, snapshot, warnings);
    return err == ERR_OK ? snapshot : snapshot_unref(snapshot);
}
