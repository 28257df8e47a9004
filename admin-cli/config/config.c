/* The one table of settings. To add one: a field in struct config, a row here; the page is written by its test. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"

#define SETTING(member) offsetof(struct config, member)
#define SECOND          INT64_C(1000)
#define HOUR            (3600 * SECOND)

enum { PATH_MAX_BYTES = 4096, TOKEN_MAX_BYTES = 512, SENTENCE_BYTES = 8192 };

static const char *const formats[] = { "table", "json", "csv", NULL };
static const char *const colours[] = { "auto", "always", "never", NULL };

static const struct conf_row rows[] = {
    { "server", CONF_STRING, SETTING(server), "http://127.0.0.1:18800", 1, PATH_MAX_BYTES,
      .help = "where qwen-control is: http://HOST:PORT, https://HOST/PATH, or unix:/PATH of its socket" },
    { "token", CONF_STRING, SETTING(token), NULL, 1, TOKEN_MAX_BYTES, .is_secret = true,
      .help = "the admin token; a file with it must have mode 600" },
    { "token_file", CONF_STRING, SETTING(token_file), NULL, 1, PATH_MAX_BYTES,
      .help = "a file of mode 600 that holds the token instead" },
    { "ca_file", CONF_STRING, SETTING(ca_file), NULL, 1, PATH_MAX_BYTES,
      .help = "certificates that https is checked against, instead of the system's" },
    { "allow_plain_http", CONF_BOOL, SETTING(allow_plain_http), "false",
      .help = "send the token unencrypted to other machines too" },
    { "output", CONF_CHOICE, SETTING(output), "table", .words = formats, .help = "how answers are printed" },
    { "color", CONF_CHOICE, SETTING(color), "auto", .words = colours,
      .help = "colours; auto: on a terminal, unless NO_COLOR is set" },
    { "timeout", CONF_MS, SETTING(timeout_ms), "30s", 10, HOUR, .help = "how long one answer may take" },
    { "connect_timeout", CONF_MS, SETTING(connect_timeout_ms), "5s", 10, HOUR, .help = "how long connecting may take" },
    { "retries", CONF_COUNT, SETTING(retries), "2", 0, 10,
      .help = "how often what is safe to repeat is sent again when no answer comes" },
    { "max_answer_bytes", CONF_BYTES, SETTING(max_answer_bytes), "64MiB", 1024, INT64_C(1) << 30,
      .help = "the longest answer that is taken" },
};
enum { ROWS = sizeof rows / sizeof *rows };
static const struct conf_table table = { rows, ROWS };

static size_t size_of(const struct conf_row *row)
{
    static const size_t sizes[] = {
        [CONF_BOOL] = sizeof(bool),  [CONF_COUNT] = sizeof(unsigned),  [CONF_BYTES] = sizeof(uint64_t),
        [CONF_MS] = sizeof(int64_t), [CONF_CHOICE] = sizeof(unsigned), [CONF_STRING] = sizeof(const char *)
    };

    return sizes[row->type];
}

static void take_over(struct config *config, const struct config *from, const struct conf_row *row)
{
    memcpy((char *)config + row->offset, (const char *)from + row->offset, size_of(row));
}

static bool is_row(const struct conf_row *row, const char *key)
{
    return strcmp(row->key, key) == 0;
}

/* A layer that says a token by one way takes away what lower ones say by the other. */
static enum err settle_token(struct config *config, bool says_token, bool says_file, const char *from, struct text *why)
{
    if (says_token && says_file) {
        text_printf(why, "%s says both token and token_file: which of them?", from);
        return ERR_BAD;
    }
    if (says_token)
        config->token_file = NULL;
    if (says_file)
        config->token = NULL;
    if (says_token || says_file)
        config->token_from = conf_keep(&config->arena, slice_of(from));
    return ERR_OK;
}

static enum err read_layer(struct config *config, const struct conf *conf, struct text *why)
{
    struct config said = { 0 };
    unsigned lines[ROWS] = { 0 };
    struct conf_reading reading = { .conf = conf, .arena = &config->arena, .why = why };
    bool says_token = false, says_file = false;
    enum err err = conf_table_read(&reading, &table, conf->root, &said, lines);

    if (err != ERR_OK)
        return err;
    for (unsigned i = 0; i < ROWS; i++) {
        if (!lines[i])
            continue;
        take_over(config, &said, &rows[i]);
        says_token |= is_row(&rows[i], "token");
        says_file |= is_row(&rows[i], "token_file");
    }
    if (says_token && conf->mode & 077) {
        text_printf(why, "%s holds a token and others may read it: chmod 600 %s", conf->file, conf->file);
        return ERR_BAD;
    }
    return settle_token(config, says_token, says_file, conf->file, why);
}

/* A file that need not be there. */
static enum err read_file(struct config *config, const char *file, bool must_be, struct text *why)
{
    struct stat status;
    struct conf *conf;
    enum err err;

    if (!must_be && stat(file, &status) != 0 && (errno == ENOENT || errno == ENOTDIR || errno == EACCES))
        return ERR_OK;
    conf = conf_open(file, why);
    if (!conf)
        return ERR_BAD;
    err = read_layer(config, conf, why);
    conf_free(conf);
    return err;
}

/* The same parsers; what they say of FILE:LINE becomes the name of what said it. */
static enum err read_word(struct config *config, const struct conf_row *row, const char *name, const char *value,
                          struct text *why)
{
    const struct conf conf = { .file = name };
    struct text sentence, prefix;
    struct conf_reading reading = { .conf = &conf, .arena = &config->arena, .why = &sentence, .hides = row->is_secret };
    const char *kept = conf_keep(&config->arena, slice_of(value));
    const struct conf_node node = {
        .kind = CONF_SCALAR, .is_quoted = row->type == CONF_STRING, .key = row->key, .text = slice_of(kept)
    };
    enum err err;

    if (!kept) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return ERR_NO_MEMORY;
    }
    text_init(&sentence, SENTENCE_BYTES);
    text_init(&prefix, SENTENCE_BYTES);
    text_printf(&prefix, "%s:0: %s ", name, row->key);
    err = utf8_valid(node.text) ? conf_value_read(&reading, row, &node, (char *)config + row->offset) : ERR_BAD;
    if (err != ERR_OK && !sentence.len)
        text_printf(why, "%s must be UTF-8", name);
    else if (err != ERR_OK && slice_starts(text_slice(&sentence), text_slice(&prefix)))
        text_printf(why, "%s %s", name, text_string(&sentence) + prefix.len);
    else if (err != ERR_OK)
        text_add_slice(why, text_slice(&sentence));
    text_release(&sentence);
    text_release(&prefix);
    return err;
}

static enum err read_environment(struct config *config, struct text *why)
{
    bool says_token = false, says_file = false;

    for (unsigned i = 0; i < ROWS; i++) {
        char name[64] = "QWADM_";
        const char *value;
        size_t len = strlen(name);

        for (const char *at = rows[i].key; *at && len + 1 < sizeof name; at++)
            name[len++] = (char)toupper((unsigned char)*at);
        name[len] = 0;
        value = getenv(name);
        if (!value || !*value)
            continue;
        if (read_word(config, &rows[i], name, value, why) != ERR_OK)
            return ERR_BAD;
        says_token |= is_row(&rows[i], "token");
        says_file |= is_row(&rows[i], "token_file");
    }
    return settle_token(config, says_token, says_file, "the environment (QWADM_…)", why);
}

static enum err read_flags(struct config *config, const struct config_flag *flags, struct text *why)
{
    for (; flags && flags->key; flags++) {
        const struct conf_row *row = rows;

        if (!flags->value)
            continue;
        while (!is_row(row, flags->key))
            row++;
        if (read_word(config, row, flags->flag, flags->value, why) != ERR_OK ||
            settle_token(config, false, is_row(row, "token_file"), flags->flag, why) != ERR_OK)
            return ERR_BAD;
    }
    return ERR_OK;
}

static const char *own_file(struct config *config)
{
    const char *folder = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    struct text path;
    const char *kept = NULL;

    text_init(&path, PATH_MAX_BYTES);
    if (folder && *folder == '/')
        text_printf(&path, "%s/qwadm.yaml", folder);
    else if (home && *home == '/')
        text_printf(&path, "%s/.config/qwadm.yaml", home);
    if (path.len && !path.err)
        kept = conf_keep(&config->arena, text_slice(&path));
    text_release(&path);
    return kept;
}

static enum err read_files(struct config *config, const char *only_file, bool is_new, struct text *why)
{
    if (only_file)
        return read_file(config, only_file, !is_new, why);
    if (read_file(config, "/etc/qwadm.yaml", false, why) != ERR_OK)
        return ERR_BAD;
    return config->own_file ? read_file(config, config->own_file, false, why) : ERR_OK;
}

enum err config_load(struct config *config, const char *only_file, bool is_new, const struct config_flag *flags,
                     struct text *why)
{
    struct conf_reading reading = { .arena = &config->arena, .why = why };
    enum err err;

    *config = (struct config){ 0 };
    arena_init(&config->arena);
    config->own_file = only_file ? only_file : own_file(config);
    err = conf_table_read(&reading, &table, NULL, config, NULL);
    if (err == ERR_OK)
        err = read_files(config, only_file, is_new, why);
    if (err == ERR_OK)
        err = read_environment(config, why);
    if (err == ERR_OK)
        err = read_flags(config, flags, why);
    return err;
}

void config_release(struct config *config)
{
    arena_release(&config->arena);
}

/* Secrets -------------------------------------------------------------------------------------------------------- */

enum err config_read_secret(const char *file, struct text *out, struct text *why)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat status;
    char memory[TOKEN_MAX_BYTES + 3];
    ssize_t len;
    struct slice secret;
    enum err err = ERR_BAD;

    if (fd < 0 || fstat(fd, &status) != 0) {
        text_printf(why, "%s cannot be read: %s", file, strerror(errno));
        if (fd >= 0)
            (void)close(fd);
        return ERR_BAD;
    }
    if (S_ISREG(status.st_mode) && status.st_mode & 077) {
        text_printf(why, "%s holds a token and others may read it: chmod 600 %s", file, file);
        (void)close(fd);
        return ERR_BAD;
    }
    len = read(fd, memory, sizeof memory);
    (void)close(fd);
    secret = (struct slice){ memory, len < 0 ? 0 : (size_t)len };
    while (secret.len && strchr("\r\n \t", secret.at[secret.len - 1]))
        secret.len--;
    if (len < 0)
        text_printf(why, "%s cannot be read: %s", file, strerror(errno));
    else if (!secret.len)
        text_printf(why, "%s is empty, but a token should stand in it", file);
    else if (secret.len > TOKEN_MAX_BYTES || memchr(secret.at, '\n', secret.len) || !utf8_valid(secret))
        text_printf(why, "%s is not one line with a token", file);
    else
        err = ERR_OK;
    if (err == ERR_OK)
        text_add_slice(out, secret);
    explicit_bzero(memory, sizeof memory);
    return err;
}

enum err config_read_token(struct config *config, struct text *why)
{
    struct text secret;
    enum err err = ERR_OK;

    if (config->token)
        return ERR_OK;
    if (!config->token_file) {
        text_add_literal(why, "no admin token is known: run `qwadm login`, or set QWADM_TOKEN, or give --token-file");
        return ERR_NOT_FOUND;
    }
    text_init(&secret, TOKEN_MAX_BYTES);
    err = config_read_secret(config->token_file, &secret, why);
    if (err == ERR_OK)
        config->token = conf_keep(&config->arena, text_slice(&secret));
    text_release_wiped(&secret);
    return err == ERR_OK && !config->token ? ERR_NO_MEMORY : err;
}

/* Keeping -------------------------------------------------------------------------------------------------------- */

static void add_yaml_string(struct text *out, const char *value)
{
    text_add_char(out, '"');
    for (; *value; value++) {
        if (*value == '"' || *value == '\\')
            text_add_char(out, '\\');
        text_add_char(out, *value);
    }
    text_add_char(out, '"');
}

/* What the user's own file said, with what is new. */
static enum err write_settings(struct config *config, const char *token, struct text *out, struct text *why)
{
    struct config own = { 0 };
    unsigned lines[ROWS] = { 0 };
    struct stat status;
    struct conf *conf = stat(config->own_file, &status) == 0 ? conf_open(config->own_file, why) : NULL;
    struct conf_reading reading = { .conf = conf, .arena = &config->arena, .why = why };

    if (conf && conf_table_read(&reading, &table, conf->root, &own, lines) != ERR_OK) {
        conf_free(conf);
        return ERR_BAD;
    }
    conf_free(conf);
    own.server = config->server;
    own.token = token;
    own.ca_file = config->ca_file;
    own.allow_plain_http = config->allow_plain_http;
    text_add_literal(out, "# Written by `qwadm login`. Only its owner may read this file: it holds a token.\n");
    for (unsigned i = 0; i < ROWS; i++) {
        const char *words = NULL;
        bool is_ours = is_row(&rows[i], "server") || is_row(&rows[i], "token");

        is_ours |= is_row(&rows[i], "ca_file") && own.ca_file;
        is_ours |= is_row(&rows[i], "allow_plain_http") && own.allow_plain_http;
        if (is_row(&rows[i], "token_file") || (!is_ours && !lines[i]))
            continue;
        text_printf(out, "%s: ", rows[i].key);
        memcpy(&words, (const char *)&own + rows[i].offset, rows[i].type == CONF_STRING ? sizeof words : 0);
        if (rows[i].type == CONF_STRING)
            add_yaml_string(out, words);
        else
            conf_add_value(&rows[i], (const char *)&own + rows[i].offset, out);
        text_add_char(out, '\n');
    }
    return out->err;
}

static enum err make_folders(const char *file, struct text *why)
{
    char path[PATH_MAX_BYTES + 1];
    size_t len = strlen(file);

    if (len >= sizeof path)
        return ERR_TOO_LONG;
    memcpy(path, file, len + 1);
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            text_printf(why, "%s cannot be made: %s", path, strerror(errno));
            return ERR_SYSTEM;
        }
        *slash = '/';
    }
    return ERR_OK;
}

static enum err replace_file(const char *file, struct slice words, struct text *why)
{
    char fresh[PATH_MAX_BYTES + 16];
    const char *what = "made";
    int fd;

    if (make_folders(file, why) != ERR_OK)
        return ERR_SYSTEM;
    (void)snprintf(fresh, sizeof fresh, "%s.XXXXXX", file);
    fd = mkostemp(fresh, O_CLOEXEC); /* 0600 */
    if (fd >= 0) {
        what = "written";
        if (write(fd, words.at, words.len) == (ssize_t)words.len && fsync(fd) == 0 && close(fd) == 0) {
            if (rename(fresh, file) == 0)
                return ERR_OK;
        } else {
            (void)close(fd);
        }
        text_printf(why, "%s cannot be %s: %s", file, what, strerror(errno));
        (void)unlink(fresh);
        return ERR_SYSTEM;
    }
    text_printf(why, "%s cannot be %s: %s", file, what, strerror(errno));
    return ERR_SYSTEM;
}

enum err config_keep(struct config *config, const char *token, struct text *why)
{
    struct text words;
    enum err err;

    if (!config->own_file) {
        text_add_literal(why, "there is no HOME in which the token could be kept: set it, or give --config FILE");
        return ERR_BAD;
    }
    text_init(&words, 1 << 16);
    err = write_settings(config, token, &words, why);
    if (err == ERR_OK)
        err = replace_file(config->own_file, text_slice(&words), why);
    text_release_wiped(&words);
    return err;
}

/* Describing ----------------------------------------------------------------------------------------------------- */

void config_describe(void (*row)(void *arg, const char *title, const char *help), void *arg)
{
    struct text help;

    for (unsigned i = 0; i < ROWS; i++) {
        text_init(&help, 4096);
        text_printf(&help, "%s: ", rows[i].help);
        conf_add_form(&rows[i], &help);
        if (rows[i].fallback)
            text_printf(&help, " (default %s)", rows[i].fallback);
        text_add_char(&help, '.');
        row(arg, rows[i].key, text_string(&help));
        text_release(&help);
    }
}
