/* The life of a snapshot: read, checked as a whole, counted, given back. */
#include "parts.h"

#include <stdlib.h>
#include <unistd.h>

enum { WORDS_BYTES = 1024 };

static const struct conf_node *setting_node(const struct conf *conf, const char *section, const char *key)
{
    const struct conf_node *map = section ? conf_member(conf->root, section) : conf->root;
    const struct conf_node *node = conf_member(map, key);

    return node ? node : map ? map : conf->root;
}

static enum err check_auth(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    const struct conf_node *node = setting_node(conf, "auth", "valid_keys");

    if (!snapshot->settings.auth_enabled || snapshot->key_count || snapshot->settings.control.url_count)
        return ERR_OK;
    if (node->key && strcmp(node->key, "valid_keys") == 0)
        return conf_refuse(conf, node, why, "is empty: nobody could be let in; add a key, or set auth.enabled: false");
    return conf_refuse(conf, node, why,
                       "has no auth.valid_keys, but keys are asked for: add a key, or set auth.enabled: false");
}

static enum err check_whitelist(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    if (!snapshot->settings.whitelist_enabled || snapshot->settings.whitelist.count ||
        snapshot->settings.control.url_count)
        return ERR_OK;
    return conf_refuse(conf, setting_node(conf, "whitelist", "ips"), why,
                       "names no address in whitelist.ips, but whitelist.enabled is true: nobody could connect");
}

static enum err check_headers(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    const struct settings *settings = &snapshot->settings;

    if (!slice_is_nocase(slice_of(settings->header_key), slice_of(settings->user_header)))
        return ERR_OK;
    return conf_refuse(conf, setting_node(conf, "auth", "user_header"), why,
                       "needs different headers for auth.header_key and auth.user_header");
}

/* What names a conversation must not be a secret. */
static enum err check_session_header(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    const struct settings *settings = &snapshot->settings;

    if (!slice_is_nocase(slice_of(settings->header_key), slice_of(settings->session_header)))
        return ERR_OK;
    return conf_refuse(conf, setting_node(conf, NULL, "session_header"), why,
                       "needs different headers for auth.header_key and session_header");
}

/* With SO_REUSEPORT the kernel would let both have one port, and hand callers to the operator's listener. */
static bool is_same_place(const struct endpoint *one, const struct endpoint *other)
{
    if (one->path || other->path)
        return one->path && other->path && strcmp(one->path, other->path) == 0;
    if (!one->port || one->port != other->port)
        return false;
    return !*one->host || !*other->host || strcmp(one->host, other->host) == 0;
}

static enum err check_listeners(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    if (!is_same_place(&snapshot->settings.listen, &snapshot->settings.operator_listen))
        return ERR_OK;
    return conf_refuse(conf, setting_node(conf, NULL, "operator_listen"), why,
                       "gives listen and operator_listen the same place");
}

static enum err check_whole(const struct conf *conf, const struct snapshot *snapshot, struct text *why)
{
    static enum err (*const checks[])(const struct conf *, const struct snapshot *, struct text *) = {
        check_control, check_auth, check_whitelist, check_headers, check_session_header, check_listeners,
    };
    enum err err = ERR_OK;

    for (size_t i = 0; i < sizeof checks / sizeof *checks && err == ERR_OK; i++)
        err = checks[i](conf, snapshot, why);
    return err;
}

static void warn_of_settings(const struct conf *conf, const struct snapshot *snapshot, struct text *warnings)
{
    const struct settings *settings = &snapshot->settings;

    if (!settings->auth_enabled && !settings->whitelist_enabled && !settings->control.url_count)
        text_printf(warnings, "%s:%u: auth.enabled is false and there is no whitelist: whoever reaches %s is served\n",
                    conf->file, setting_node(conf, "auth", "enabled")->line, settings->listen.text);
    if (settings->max_body_bytes > settings->max_body_memory_bytes / 4)
        text_printf(warnings,
                    "%s:%u: max_body_bytes is over a quarter of max_body_memory_bytes, which is all that one key gets: "
                    "larger bodies will not be taken\n",
                    conf->file, setting_node(conf, NULL, "max_body_bytes")->line);
    backends_warn(conf, snapshot, warnings);
}

static void warn_of_place(const struct conf *conf, const struct snapshot *snapshot, struct text *warnings)
{
    if (snapshot->memory->has_clear_keys && conf->mode & 044)
        text_printf(warnings,
                    "%s: holds keys in clear and others may read it: chmod 600 it, or write hashes "
                    "(qwen-gateway --hash-key)\n",
                    conf->file);
    if (geteuid() == 0 && !snapshot->settings.user)
        text_printf(warnings, "%s: runs as root and stays so: set user: to the name of a user with fewer rights\n",
                    conf->file);
}

struct snapshot *snapshot_new(const char *file)
{
    struct snapshot *snapshot = calloc(1, sizeof *snapshot);
    struct snapshot_memory *memory = calloc(1, sizeof *memory);

    if (!snapshot || !memory) {
        free(snapshot);
        free(memory);
        return NULL;
    }
    arena_init(&memory->arena);
    snapshot->memory = memory;
    snapshot->refs = 1;
    memory->file = conf_keep(&memory->arena, slice_of(file));
    return memory->file ? snapshot : snapshot_unref(snapshot);
}

static void snapshot_free(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->key_count; i++)
        cidr_list_release(&snapshot->keys[i].allow);
    (void)keyring_unref(snapshot->keyring);
    cidr_list_release(&snapshot->settings.whitelist);
    if (!snapshot->memory->base)
        cidr_list_release(&snapshot->settings.trusted_proxies);
    (void)snapshot_unref(snapshot->memory->base);
    arena_release(&snapshot->memory->arena);
    free(snapshot->memory);
    free(snapshot);
}

static struct snapshot *build(const struct conf *conf, struct text *why, struct text *warnings)
{
    struct snapshot *snapshot = snapshot_new(conf->file);
    struct snapshot_reading owner = { .snapshot = snapshot, .warnings = warnings };
    struct conf_reading reading = { .conf = conf, .why = why, .owner = &owner };
    enum err err;

    if (!snapshot) {
        text_printf(why, "%s: cannot be kept: %s", conf->file, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    reading.arena = &snapshot->memory->arena;
    err = conf_table_read(&reading, &settings_table, conf->root, snapshot, snapshot->memory->setting_lines);
    if (err == ERR_OK) {
        snapshot->settings.user_from_body = strcmp(snapshot->settings.user_header, "body.user") == 0;
        snapshot->memory->says_whitelist = conf_member(conf_member(conf->root, "whitelist"), "enabled");
        err = check_whole(conf, snapshot, why);
    }
    if (snapshot->settings.control.url_count) { /* not the one of ollama_api's default */
        snapshot->has_backends = true;
        snapshot->backend_count = 0;
    }
    if (err == ERR_OK)
        err = keys_make_ring(conf, snapshot, why);
    return err == ERR_OK ? snapshot : snapshot_unref(snapshot);
}

struct snapshot *snapshot_parse(const char *file, struct slice yaml, struct text *why, struct text *warnings)
{
    struct conf *conf = conf_parse(file, yaml, why);
    struct snapshot *snapshot = conf ? build(conf, why, warnings) : NULL;

    if (snapshot && warnings)
        warn_of_settings(conf, snapshot, warnings);
    conf_free(conf);
    return snapshot;
}

/*
 * The C library copies through the vector registers, and bytes of the file stay there. When a library's call to another
 * is bound for the first time, the loader saves them on the stack, at whatever depth that happens to be.
 */
__attribute__((noinline)) static void wipe_registers(void) /* all of these are the caller's to save */
{
#ifdef __x86_64__
#define ZERO(n) "vpxord %zmm" #n ", %zmm" #n ", %zmm" #n "\n\t"
    if (__builtin_cpu_supports("avx512f"))
        __asm__ volatile(ZERO(16) ZERO(17) ZERO(18) ZERO(19) ZERO(20) ZERO(21) ZERO(22) ZERO(23) ZERO(24) ZERO(25)
                             ZERO(26) ZERO(27) ZERO(28) ZERO(29) ZERO(30) ZERO(31));
#undef ZERO
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroall"); /* 0 to 15 */
#endif
}

/* What the functions that read the file have left behind. */
__attribute__((noinline)) static void wipe_traces(void)
{
    char stack[64 << 10];

    explicit_bzero(stack, sizeof stack);
    wipe_registers();
}

struct snapshot *snapshot_load(const char *file, struct text *why, struct text *warnings)
{
    struct conf *conf = conf_open(file, why);
    struct snapshot *snapshot = conf ? build(conf, why, warnings) : NULL;

    if (snapshot && warnings) {
        warn_of_settings(conf, snapshot, warnings);
        warn_of_place(conf, snapshot, warnings);
    }
    conf_free(conf);
    wipe_traces();
    return snapshot;
}

void snapshot_ref_more(struct snapshot *snapshot, unsigned count)
{
    (void)__atomic_add_fetch(&snapshot->refs, count, __ATOMIC_RELAXED);
}

struct snapshot *snapshot_ref(struct snapshot *snapshot)
{
    snapshot_ref_more(snapshot, 1);
    return snapshot;
}

struct snapshot *snapshot_unref(struct snapshot *snapshot)
{
    /* Acquire and release: whoever frees must see all that the others did with it. */
    if (snapshot && __atomic_sub_fetch(&snapshot->refs, 1, __ATOMIC_ACQ_REL) == 0)
        snapshot_free(snapshot);
    return NULL;
}

bool snapshot_needs_restart(const struct snapshot *old, const struct snapshot *new, struct text *why)
{
    struct text before, after;
    bool needs = false;

    text_init(&before, WORDS_BYTES);
    text_init(&after, WORDS_BYTES);
    for (size_t i = 0; i < settings_table.count && !needs; i++) {
        const struct conf_row *row = &settings_table.rows[i];
        if (row->is_live)
            continue;
        text_clear(&before);
        text_clear(&after);
        conf_add_value(row, (const char *)old + row->offset, &before);
        conf_add_value(row, (const char *)new + row->offset, &after);
        needs = !slice_is(text_slice(&before), text_slice(&after));
        if (needs)
            text_printf(why, "%s:%u: a change of %s from %s to %s needs a restart; nothing was changed",
                        new->memory->file, new->memory->setting_lines[i], row->key, text_string(&before),
                        text_string(&after));
    }
    text_release(&before);
    text_release(&after);
    return needs;
}
