/* auth.valid_keys: who may call, and what each of them may do. */
#include "parts.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORDS_BYTES = 256, KEY_FILE_BYTES = 4096, KEY_PATH_BYTES = 4096 };

#define ENTRY(member) offsetof(struct key_entry, member)

static const char *const classes[] = { "interactive", "batch", NULL };
/* CONF_CHOICE writes an unsigned into it. */
static_assert(sizeof(enum key_class) == sizeof(unsigned));
/* think_read() serves keys and models. */
static_assert((int)KEY_THINK_UNSET == (int)THINK_UNSET && (int)KEY_THINK_ON == (int)THINK_ON &&
              (int)KEY_THINK_OFF == (int)THINK_OFF && sizeof(enum key_think) == sizeof(enum think_default));

static enum err take_secret(struct conf_reading *reading, const struct conf_node *node, struct slice text,
                            struct key_entry *entry)
{
    struct secret secret;
    struct text why;
    enum err err;

    text_init(&why, WORDS_BYTES);
    err = secret_parse(text, &secret, &why);
    if (err != ERR_OK) {
        (void)conf_refuse(reading->conf, node, reading->why, "%s", text_string(&why));
    } else {
        entry->source_count++;
        entry->key.hash = secret.hash;
        entry->is_clear = !secret.is_hashed;
        if (secret.public_id.len)
            entry->public_id = conf_keep(reading->arena, secret.public_id);
        if (secret.public_id.len && !entry->public_id)
            err = no_memory(reading, node);
    }
    text_release(&why);
    return err;
}

static enum err key_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, 1, SECRET_MAX_BYTES, &text);

    (void)row;
    return err == ERR_OK ? take_secret(reading, node, text, field) : err;
}

static enum err key_sha256_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                                void *field)
{
    struct key_entry *entry = field;
    struct slice text;

    (void)row;
    if (node->kind == CONF_SCALAR && node->text.len == DIGEST_HEX) {
        text = node->text; /* may consist of decimal digits only: no reason to ask for quotes */
    } else {
        enum err err = conf_string(reading, node, 1, SECRET_MAX_BYTES, &text);
        if (err != ERR_OK)
            return err;
    }
    if (slice_starts(text, SLICE("sha256:")))
        text = (struct slice){ text.at + 7, text.len - 7 };
    if (!digest_parse_hex(text, &entry->key.hash))
        return conf_refuse(reading->conf, node, reading->why,
                           "needs 64 hexadecimal digits (qwen-gateway --hash-key prints them)");
    entry->source_count++;
    return ERR_OK;
}

/* A relative name counts from the configuration's folder. */
static bool path_of(const char *config, struct slice name, char out[KEY_PATH_BYTES])
{
    const char *slash = strrchr(config, '/');
    size_t folder = name.at[0] != '/' && slash ? (size_t)(slash - config) + 1 : 0;

    if (folder + name.len >= KEY_PATH_BYTES)
        return false;
    memcpy(out, config, folder);
    memcpy(out + folder, name.at, name.len);
    out[folder + name.len] = 0;
    return true;
}

/* Reads a regular file of at most KEY_FILE_BYTES; what is wrong with it, or NULL. Other kinds are not even opened. */
static const char *read_key_file(const char *path, char bytes[KEY_FILE_BYTES + 1], size_t *ret_len, unsigned *ret_mode)
{
    struct stat about;
    ssize_t got = -1;
    int fd;

    if (stat(path, &about) != 0)
        return strerror(errno);
    if (!S_ISREG(about.st_mode))
        return "it is not a regular file";
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return strerror(errno);
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode))
        got = read(fd, bytes, KEY_FILE_BYTES + 1);
    (void)close(fd);
    if (got < 0)
        return "reading it failed";
    *ret_len = (size_t)got;
    *ret_mode = about.st_mode & 07777;
    return NULL;
}

static void warn_of_mode(const struct conf_reading *reading, const char *path, unsigned mode, struct text *warnings)
{
    if (warnings && mode & 044)
        text_printf(warnings, "%s: holds a key in clear (named in %s) and others may read it: chmod 600 it\n", path,
                    reading->conf->file);
}

static enum err take_key_file(struct conf_reading *reading, const struct conf_node *node, const char *path,
                              struct key_entry *entry)
{
    char bytes[KEY_FILE_BYTES + 1];
    struct slice line = { bytes, 0 };
    unsigned mode = 0;
    const char *wrong = read_key_file(path, bytes, &line.len, &mode);
    enum err err;

    if (wrong)
        return conf_refuse(reading->conf, node, reading->why, "cannot be read: %s", wrong);
    if (slice_ends(line, SLICE("\n")))
        line.len -= slice_ends(line, SLICE("\r\n")) ? 2 : 1;
    if (!line.len || memchr(line.at, '\n', line.len))
        err = conf_refuse(reading->conf, node, reading->why, "must hold one line, the key");
    else
        err = take_secret(reading, node, line, entry);
    explicit_bzero(bytes, sizeof bytes);
    if (err == ERR_OK && entry->is_clear)
        warn_of_mode(reading, path, mode, entry->warnings);
    entry->is_clear = false; /* not in the configuration itself */
    return err;
}

static enum err key_file_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                              void *field)
{
    char path[KEY_PATH_BYTES];
    struct slice name;
    enum err err = conf_string(reading, node, 1, KEY_PATH_BYTES - 1, &name);

    (void)row;
    if (err != ERR_OK)
        return err;
    if (!path_of(reading->conf->file, name, path))
        return conf_refuse(reading->conf, node, reading->why, "is too long a path");
    return take_key_file(reading, node, path, field);
}

static enum err name_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                          void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, 1, NAME_MAX_BYTES, &text);

    (void)row;
    if (err != ERR_OK)
        return err;
    if (!key_word_is_good(text))
        return conf_refuse(
            reading->conf, node, reading->why,
            "must not hold spaces, control characters, /, = or \", nor begin with !: it stands in the log");
    *(const char **)field = conf_keep(reading->arena, text);
    return *(const char **)field ? ERR_OK : no_memory(reading, node);
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static enum err key_models_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                                void *field)
{
    struct key_rule *key = &((struct key_entry *)field)->key;
    enum err err = conf_expect(reading, node, CONF_LIST);
    const char **names;
    size_t count = 0;

    (void)row;
    if (err != ERR_OK)
        return err;
    if (!node->count)
        return conf_refuse(reading->conf, node, reading->why, "is empty: leave it out to allow every model");
    names = arena_take(reading->arena, node->count * sizeof *names);
    if (!names)
        return no_memory(reading, node);
    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next)
        err = model_name_read(reading, item, &names[count++]);
    if (err != ERR_OK)
        return err;
    qsort(names, count, sizeof *names, by_name);
    key->models = names;
    key->model_count = count;
    return ERR_OK;
}

static enum err key_allow_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                               void *field)
{
    struct key_rule *key = &((struct key_entry *)field)->key;

    if (node->kind == CONF_LIST && !node->count)
        return conf_refuse(reading->conf, node, reading->why, "is empty: leave it out to allow every address");
    key->has_allow = true;
    return cidrs_read(reading, row, node, &key->allow);
}

enum err think_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    static const struct conf_row as_bool = { .type = CONF_BOOL };
    bool is_on = false;
    enum err err = conf_value_read(reading, &as_bool, node, &is_on);

    (void)row;
    if (err == ERR_OK)
        *(enum think_default *)field = is_on ? THINK_ON : THINK_OFF;
    return err;
}

static const struct conf_row key_rows[] = {
    { "key", CONF_OWN, 0, .read = key_read, .is_secret = true, .form = "1 to 256 bytes, or sha256:HEX",
      .help = "the secret itself, or its hash" },
    { "key_sha256", CONF_OWN, 0, .read = key_sha256_read, .is_secret = true, .form = "64 hexadecimal digits",
      .help = "its SHA-256, as `qwen-gateway --hash-key` prints it" },
    { "key_file", CONF_OWN, 0, .read = key_file_read, .form = "a file",
      .help = "a file whose one line is the key; a relative name counts from this file's folder" },
    { "name", CONF_OWN, ENTRY(key.name), .read = name_read, .form = "1 to 128 bytes",
      .help = "what log and limits call the key; default: a qk_ key's public id, else key1, key2 … by position" },
    { "user", CONF_OWN, ENTRY(key.user), .read = name_read, .form = "1 to 128 bytes",
      .help = "whose key it is; default: its name" },
    { "delegate", CONF_BOOL, ENTRY(key.delegates), "false",
      .help = "whether it may name the person it asks for, who then has the limits" },
    { "models", CONF_OWN, 0, .read = key_models_read, .form = "a list of models",
      .help = "which it may use; default: all" },
    { "allow", CONF_OWN, 0, .read = key_allow_read, .form = "a list of addresses and ranges",
      .help = "from where it may be used; default: anywhere" },
    { "max_requests", CONF_COUNT, ENTRY(key.max_requests), .min = 1, .max = 1000000,
      .help = "instead of rate_limit.max_requests" },
    { "max_total_requests", CONF_COUNT, ENTRY(key.max_total_requests), .min = 1, .max = 100000000,
      .help = "over all persons of a delegate key together" },
    { "max_prompt_chars", CONF_NUMBER, ENTRY(key.max_prompt_chars), .min = 0, .max = 1000000000,
      .help = "instead of the general max_prompt_chars; 0: no limit" },
    { "think", CONF_OWN, ENTRY(key.think), .read = think_read, .form = "true or false",
      .help = "whether models think when the caller does not say; default: as the model does" },
    { "weight", CONF_COUNT, ENTRY(key.weight), "1", 1, KEY_WEIGHT_MAX,
      .help = "its share where callers wait, beside the others'; a person of a delegate key has it as well" },
    { "class", CONF_CHOICE, ENTRY(key.class), "interactive", .words = classes,
      .help = "batch waits while interactive ones do, but for the share of batch_percent" },
};
enum { KEY_ROWS = sizeof key_rows / sizeof *key_rows };

const struct conf_table key_table = { key_rows, KEY_ROWS };

static unsigned line_of_row(const unsigned lines[KEY_ROWS], const char *key)
{
    for (size_t i = 0; i < KEY_ROWS; i++)
        if (strcmp(key_rows[i].key, key) == 0)
            return lines[i];
    assert(!"a row of key_rows");
    return 0;
}

static enum err entry_read(struct conf_reading *reading, const struct conf_node *node, struct key_entry *entry)
{
    unsigned lines[KEY_ROWS];
    struct slice text;
    enum err err;

    if (node->kind == CONF_SCALAR) {
        entry->key.is_plain = true;
        err = conf_string(reading, node, 1, SECRET_MAX_BYTES, &text);
        return err == ERR_OK ? take_secret(reading, node, text, entry) : err;
    }
    err = conf_expect(reading, node, CONF_MAP);
    if (err == ERR_OK)
        err = conf_table_read(reading, &key_table, node, entry, lines);
    if (err != ERR_OK)
        return err;
    if (entry->source_count != 1)
        return conf_refuse(reading->conf, node, reading->why, "needs exactly one of key, key_sha256 and key_file");
    entry->key.has_max_prompt_chars = line_of_row(lines, "max_prompt_chars") != 0;
    return ERR_OK;
}

static enum err name_entry(struct conf_reading *reading, const struct conf_node *node, struct key_entry *entry)
{
    char by_position[16];

    (void)snprintf(by_position, sizeof by_position, "key%u", node->index);
    if (!entry->key.name)
        entry->key.name = entry->public_id ? entry->public_id : conf_keep(reading->arena, slice_of(by_position));
    if (!entry->key.user)
        entry->key.user = entry->key.name;
    return entry->key.name ? ERR_OK : no_memory(reading, node);
}

static const struct conf_node *item_at(const struct conf_node *list, size_t position)
{
    const struct conf_node *item = list->first;

    while (position--)
        item = item->next;
    return item;
}

static int by_name_then_place(const void *left, const void *right)
{
    const struct key_rule *const *a = left, *const *b = right;
    int order = strcmp((*a)->name, (*b)->name);

    return order ? order : *a < *b ? -1 : *a > *b;
}

static int by_hash_then_place(const void *left, const void *right)
{
    const struct key_rule *const *a = left, *const *b = right;
    int order = memcmp((*a)->hash.bytes, (*b)->hash.bytes, sizeof(*a)->hash.bytes);

    return order ? order : *a < *b ? -1 : *a > *b;
}

static bool is_same_name(const struct key_rule *one, const struct key_rule *other)
{
    return strcmp(one->name, other->name) == 0;
}

static bool is_same_key(const struct key_rule *one, const struct key_rule *other)
{
    return digest_is(&one->hash, &other->hash);
}

/* The first entry of the file that is the same as one before it, with that one. ERR_OK with NULL: there is none. */
static enum err find_double(const struct snapshot *snapshot, int (*order)(const void *, const void *),
                            bool (*is_same)(const struct key_rule *, const struct key_rule *),
                            const struct key_rule **ret_later, const struct key_rule **ret_earlier)
{
    const struct key_rule **sorted = calloc(snapshot->key_count + 1, sizeof *sorted);

    if (!sorted)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < snapshot->key_count; i++)
        sorted[i] = &snapshot->keys[i];
    qsort(sorted, snapshot->key_count, sizeof *sorted, order);
    *ret_later = *ret_earlier = NULL;
    for (size_t i = 1; i < snapshot->key_count; i++)
        if (is_same(sorted[i - 1], sorted[i]) && (!*ret_later || sorted[i] < *ret_later)) {
            *ret_later = sorted[i];
            *ret_earlier = sorted[i - 1];
        }
    free(sorted);
    return ERR_OK;
}

static unsigned line_of_key(const struct snapshot *snapshot, const struct key_rule *rule)
{
    return snapshot->memory->key_lines[rule - snapshot->keys];
}

static enum err refuse_double_keys(struct conf_reading *reading, const struct conf_node *list,
                                   const struct snapshot *snapshot)
{
    const struct key_rule *later, *earlier;
    enum err err = find_double(snapshot, by_hash_then_place, is_same_key, &later, &earlier);

    if (err != ERR_OK)
        return no_memory(reading, list);
    if (!later)
        return ERR_OK;
    return conf_refuse(reading->conf, item_at(list, (size_t)(later - snapshot->keys)), reading->why,
                       "is the same key as in line %u", line_of_key(snapshot, earlier));
}

static enum err refuse_double_names(struct conf_reading *reading, const struct conf_node *list,
                                    const struct snapshot *snapshot)
{
    const struct key_rule *later, *earlier;
    enum err err = find_double(snapshot, by_name_then_place, is_same_name, &later, &earlier);

    if (err != ERR_OK)
        return no_memory(reading, list);
    if (!later)
        return ERR_OK;
    return conf_refuse(reading->conf, item_at(list, (size_t)(later - snapshot->keys)), reading->why,
                       "is named %s, as is the key in line %u", later->name, line_of_key(snapshot, earlier));
}

static enum err items_read(struct conf_reading *reading, const struct conf_node *list, struct snapshot *snapshot)
{
    struct snapshot_reading *owner = reading->owner;
    enum err err = ERR_OK;

    for (const struct conf_node *item = list->first; item && err == ERR_OK; item = item->next) {
        struct key_entry entry = { .key.weight = 1, .snapshot = snapshot, .warnings = owner->warnings };
        snapshot->memory->key_lines[snapshot->key_count] = item->line;
        err = entry_read(reading, item, &entry);
        if (err == ERR_OK)
            err = name_entry(reading, item, &entry);
        snapshot->memory->has_clear_keys |= entry.is_clear;
        snapshot->keys[snapshot->key_count++] = entry.key; /* also after a failure: it may own a list */
    }
    return err;
}

enum err keys_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node, void *field)
{
    struct snapshot *snapshot = ((struct snapshot_reading *)reading->owner)->snapshot;
    enum err err = conf_expect(reading, node, CONF_LIST);

    (void)row;
    (void)field;
    if (err != ERR_OK)
        return err;
    snapshot->keys = arena_take(reading->arena, (node->count + 1) * sizeof *snapshot->keys);
    snapshot->memory->key_lines = arena_take(reading->arena, (node->count + 1) * sizeof(unsigned));
    if (!snapshot->keys || !snapshot->memory->key_lines)
        return no_memory(reading, node);
    err = items_read(reading, node, snapshot);
    if (err == ERR_OK)
        err = refuse_double_keys(reading, node, snapshot);
    if (err == ERR_OK)
        err = refuse_double_names(reading, node, snapshot);
    return err;
}

static enum err put_all(struct locksmith *smith, const struct snapshot *snapshot, struct text *why)
{
    enum err err = ERR_OK;

    locksmith_begin_whole(smith, 0);
    for (size_t i = 0; i < snapshot->key_count && err == ERR_OK; i++)
        err = locksmith_put(smith, &snapshot->keys[i], why);
    return err == ERR_OK ? locksmith_commit(smith, why) : err;
}

enum err keys_make_ring(const struct conf *conf, struct snapshot *snapshot, struct text *why)
{
    struct locksmith *smith = locksmith_new();
    enum err err = ERR_NO_MEMORY;
    struct text what;

    text_init(&what, WORDS_BYTES);
    if (smith)
        err = put_all(smith, snapshot, &what);
    if (err == ERR_OK)
        snapshot->keyring = locksmith_ring(smith);
    else
        text_printf(why, "%s: cannot be kept: %s", conf->file, what.len ? text_string(&what) : err_text(err));
    locksmith_free(smith);
    text_release(&what);
    return err;
}

bool key_may_use(const struct key *key, struct slice normalised_model)
{
    return !key->models || model_names_have(key->models->names, key->models->count, normalised_model);
}
