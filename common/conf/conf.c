#include "conf.h"

#include "yaml_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { QUOTED_BYTES = 64, PATH_BYTES = 1024 };

const char *conf_keep(struct arena *arena, struct slice text)
{
    char *copy = arena_take(arena, text.len + 1);

    if (copy && text.len)
        memcpy(copy, text.at, text.len);
    return copy;
}

void conf_add_quoted(struct text *out, struct slice text)
{
    size_t len = utf8_cut(text, QUOTED_BYTES);

    text_add_char(out, '"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        bool is_c1 = c == 0xc2 && i + 1 < len && (unsigned char)text.at[i + 1] < 0xa0;
        bool is_line_end = c == 0xe2 && i + 2 < len && (unsigned char)text.at[i + 1] == 0x80 &&
                           ((unsigned char)text.at[i + 2] | 1) == 0xa9;
        text_add_char(out, c < 0x20 || c == 0x7f || is_c1 || is_line_end ? '?' : (char)c);
        i += is_line_end ? 2 : is_c1;
    }
    text_add_string(out, len < text.len ? "…\"" : "\"");
}

static bool is_plain_key(struct slice key)
{
    for (size_t i = 0; i < key.len; i++) {
        char c = key.at[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && !strchr("_-.:/", c))
            return false;
    }
    return key.len != 0 && key.len <= QUOTED_BYTES;
}

void conf_add_path(const struct conf_node *node, struct text *out)
{
    const struct conf_node *steps[CONF_MAX_DEPTH + 1];
    size_t count = 0;

    for (; node && (node->key || node->index) && count <= CONF_MAX_DEPTH; node = node->parent)
        steps[count++] = node;
    for (size_t i = count; i-- > 0;) {
        if (steps[i]->index) {
            text_printf(out, "[%u]", steps[i]->index);
            continue;
        }
        if (i + 1 != count)
            text_add_char(out, '.');
        if (is_plain_key(slice_of(steps[i]->key)))
            text_add_string(out, steps[i]->key);
        else
            conf_add_quoted(out, slice_of(steps[i]->key));
    }
}

enum err conf_refuse(const struct conf *conf, const struct conf_node *node, struct text *why, const char *format, ...)
{
    struct text path;
    va_list args;

    text_init(&path, PATH_BYTES);
    conf_add_path(node, &path);
    if (conf->is_made)
        text_printf(why, "%s: ", conf->file);
    else
        text_printf(why, "%s:%u: ", conf->file, node->line);
    if (path.len)
        text_printf(why, "%s ", text_string(&path));
    text_release(&path);
    va_start(args, format);
    text_vprintf(why, format, args);
    va_end(args);
    return ERR_BAD;
}

const struct conf_node *conf_member(const struct conf_node *map, const char *key)
{
    if (!map || map->kind != CONF_MAP)
        return NULL;
    for (const struct conf_node *node = map->first; node; node = node->next)
        if (strcmp(node->key, key) == 0)
            return node;
    return NULL;
}

struct conf *conf_parse(const char *file, struct slice yaml, struct text *why)
{
    struct conf *conf = calloc(1, sizeof *conf);

    if (!conf) {
        text_printf(why, "%s: cannot be read: %s", file, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    arena_init(&conf->arena);
    conf->file = conf_keep(&conf->arena, slice_of(file));
    if (!conf->file) {
        text_printf(why, "%s: cannot be read: %s", file, err_text(ERR_NO_MEMORY));
    } else if (yaml.len > CONF_MAX_BYTES) {
        text_printf(why, "%s: is larger than %d KiB, which no configuration needs", file, CONF_MAX_BYTES / 1024);
    } else if (yaml_tree_read(conf, yaml, why) == ERR_OK) {
        return conf;
    }
    conf_free(conf);
    return NULL;
}

void conf_free(struct conf *conf)
{
    if (!conf)
        return;
    arena_release(&conf->arena);
    free(conf);
}

/* Up to one byte more than is allowed, so that a file that grows meanwhile is caught as well. */
static enum err read_all(int fd, struct text *bytes)
{
    ssize_t got;

    while (bytes->len < bytes->max) {
        size_t piece = bytes->max - bytes->len < 65536 ? bytes->max - bytes->len : 65536;
        if (!text_reserve(bytes, piece))
            return bytes->err;
        got = read(fd, bytes->at + bytes->len, piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ERR_SYSTEM;
        if (got == 0)
            break;
        bytes->len += (size_t)got;
    }
    return ERR_OK;
}

static struct conf *open_failed(const char *file, struct text *why, const char *reason)
{
    text_printf(why, "%s: cannot be read: %s", file, reason);
    return NULL;
}

static struct conf *read_and_parse(const char *file, int fd, unsigned mode, struct text *why)
{
    struct conf *conf = NULL;
    struct text bytes;
    enum err err;

    text_init(&bytes, CONF_MAX_BYTES + 1);
    /* In one piece from the start: a buffer that grows leaves copies of keys behind. */
    if (!text_reserve(&bytes, CONF_MAX_BYTES + 1))
        return open_failed(file, why, err_text(bytes.err));
    err = read_all(fd, &bytes);
    if (err == ERR_SYSTEM)
        (void)open_failed(file, why, strerror(errno));
    else if (err != ERR_OK)
        (void)open_failed(file, why, err_text(err));
    else
        conf = conf_parse(file, text_slice(&bytes), why);
    if (conf)
        conf->mode = mode;
    text_release_wiped(&bytes);
    return conf;
}

struct conf *conf_open(const char *file, struct text *why)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct conf *conf = NULL;
    struct stat about;

    if (fd < 0)
        return open_failed(file, why, strerror(errno));
    if (fstat(fd, &about) != 0)
        (void)open_failed(file, why, strerror(errno));
    else if (!S_ISREG(about.st_mode))
        (void)open_failed(file, why, S_ISDIR(about.st_mode) ? "it is a folder" : "it is not a regular file");
    else
        conf = read_and_parse(file, fd, about.st_mode & 07777, why);
    (void)close(fd);
    return conf;
}
