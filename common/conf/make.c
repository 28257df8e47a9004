/* Trees that no file says. Their nodes have line 0, as defaults have, but a line of their key: they are said. */
#include "conf.h"

#include <stdlib.h>

struct conf *conf_make(const char *name)
{
    struct conf *conf = calloc(1, sizeof *conf);
    struct conf_node *root;

    if (!conf)
        return NULL;
    arena_init(&conf->arena);
    conf->is_made = true;
    conf->file = conf_keep(&conf->arena, slice_of(name));
    conf->root = root = ARENA_NEW(&conf->arena, struct conf_node);
    if (conf->file && root) {
        root->kind = CONF_MAP;
        return conf;
    }
    conf_free(conf);
    return NULL;
}

struct conf_node *conf_root(struct conf *conf)
{
    return (struct conf_node *)(uintptr_t)conf->root;
}

struct conf_node *conf_add(struct conf *conf, struct conf_node *parent, struct slice key, enum conf_kind kind)
{
    struct conf_node *node = parent ? ARENA_NEW(&conf->arena, struct conf_node) : NULL;

    if (!node)
        return NULL;
    node->kind = kind;
    node->parent = parent;
    node->key_line = 1;
    if (parent->kind == CONF_MAP && !(node->key = conf_keep(&conf->arena, key)))
        return NULL;
    parent->count++;
    if (parent->kind == CONF_LIST)
        node->index = parent->count;
    if (parent->last)
        parent->last->next = node;
    else
        parent->first = node;
    parent->last = node;
    return node;
}

struct conf_node *conf_add_scalar(struct conf *conf, struct conf_node *parent, struct slice key, struct slice text,
                                  bool is_quoted)
{
    const char *copy = conf_keep(&conf->arena, text);
    struct conf_node *node = copy ? conf_add(conf, parent, key, CONF_SCALAR) : NULL;

    if (!node)
        return NULL;
    node->text = (struct slice){ copy, text.len };
    node->is_quoted = is_quoted;
    return node;
}
