/*
 * Events, not documents: libyaml's document loader expands aliases and keeps the last of doubled keys, both of
 * which are refused here. The depth is bounded by our own stack, so libyaml's nesting never is.
 * Whatever libyaml holds of the file is overwritten as far as it can be reached: its input buffers, tokens and
 * events. (Strings that it grew by realloc while scanning a long scalar are out of reach.)
 */
#include "yaml_tree.h"

#include <stdlib.h>
#include <yaml.h>

struct builder {
    struct conf *conf;
    struct slice yaml;
    struct text *why;
    struct conf_node *open[CONF_MAX_DEPTH]; /* the lists and maps around the place we are at */
    unsigned depth;
    struct slice key; /* in a map: read, its value not yet */
    unsigned key_line;
    bool has_key;
    unsigned documents;
    struct conf_node *root;
};

static enum err refuse_at(struct builder *builder, size_t line, const char *words)
{
    text_printf(builder->why, "%s:%zu: %s", builder->conf->file, line, words);
    return ERR_BAD;
}

/* With the key that is being read, where there is one: "FILE:LINE: auth.valid_keys words". */
static enum err refuse_here(struct builder *builder, size_t line, const char *words)
{
    struct conf_node here = { .line = (unsigned)line };
    struct conf_node *around = builder->depth ? builder->open[builder->depth - 1] : NULL;

    here.parent = around;
    if (around && around->kind == CONF_LIST)
        here.index = around->count + 1;
    else if (builder->has_key)
        here.key = builder->key.at;
    else if (around)
        here = (struct conf_node){
            .line = (unsigned)line, .key = around->key, .index = around->index, .parent = around->parent
        };
    return conf_refuse(builder->conf, &here, builder->why, "%s", words);
}

static enum err no_memory(struct builder *builder)
{
    text_printf(builder->why, "%s: cannot be read: %s", builder->conf->file, err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

static enum err add_node(struct builder *builder, struct conf_node *node)
{
    struct conf_node *around = builder->depth ? builder->open[builder->depth - 1] : NULL;

    node->parent = around;
    if (!around) {
        builder->root = node;
        return ERR_OK;
    }
    if (around->kind == CONF_LIST) {
        node->index = around->count + 1;
    } else {
        node->key = builder->key.at;
        node->key_line = builder->key_line;
        builder->has_key = false;
    }
    if (around->last)
        around->last->next = node;
    else
        around->first = node;
    around->last = node;
    around->count++;
    return ERR_OK;
}

static bool expects_key(const struct builder *builder)
{
    return builder->depth && builder->open[builder->depth - 1]->kind == CONF_MAP && !builder->has_key;
}

static enum err take_key(struct builder *builder, const yaml_event_t *event, size_t line)
{
    struct slice text = { (const char *)event->data.scalar.value, event->data.scalar.length };
    bool is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;

    if (is_plain && slice_is(text, SLICE("<<")))
        return refuse_here(builder, line, "uses a merge key (<<), which is not allowed: write the settings out");
    if (!text.len || memchr(text.at, 0, text.len) || memchr(text.at, '\n', text.len))
        return refuse_here(builder, line, "holds a key that is empty or not one line");
    builder->key = (struct slice){ conf_keep(&builder->conf->arena, text), text.len };
    builder->key_line = (unsigned)line;
    builder->has_key = true;
    return builder->key.at ? ERR_OK : no_memory(builder);
}

static enum err take_scalar(struct builder *builder, const yaml_event_t *event, size_t line)
{
    struct slice text = { (const char *)event->data.scalar.value, event->data.scalar.length };
    struct conf_node *node;

    if (event->data.scalar.tag)
        return refuse_here(builder, line, "uses a tag (!), which is not allowed");
    if (event->data.scalar.anchor)
        return refuse_here(builder, line, "uses an anchor (&), which is not allowed: write the value out");
    if (expects_key(builder))
        return take_key(builder, event, line);
    node = ARENA_NEW(&builder->conf->arena, struct conf_node);
    if (!node)
        return no_memory(builder);
    node->kind = CONF_SCALAR;
    node->line = (unsigned)line;
    node->is_quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = (struct slice){ conf_keep(&builder->conf->arena, text), text.len };
    return node->text.at ? add_node(builder, node) : no_memory(builder);
}

static enum err enter(struct builder *builder, enum conf_kind kind, size_t line, const yaml_char_t *tag,
                      const yaml_char_t *anchor)
{
    struct conf_node *node;

    if (tag)
        return refuse_here(builder, line, "uses a tag (!), which is not allowed");
    if (anchor)
        return refuse_here(builder, line, "uses an anchor (&), which is not allowed: write the value out");
    if (expects_key(builder))
        return refuse_here(builder, line, "has a list or map where a key was expected");
    if (builder->depth == CONF_MAX_DEPTH)
        return refuse_at(builder, line, "is nested too deep");
    node = ARENA_NEW(&builder->conf->arena, struct conf_node);
    if (!node)
        return no_memory(builder);
    node->kind = kind;
    node->line = (unsigned)line;
    (void)add_node(builder, node);
    builder->open[builder->depth++] = node;
    return ERR_OK;
}

static int by_key_then_line(const void *left, const void *right)
{
    const struct conf_node *const *a = left, *const *b = right;
    int order = strcmp((*a)->key, (*b)->key);

    if (order)
        return order;
    return (*a)->key_line < (*b)->key_line ? -1 : (*a)->key_line > (*b)->key_line;
}

/* The doubled key that comes first in the file. */
static enum err refuse_doubles(struct builder *builder, struct conf_node *map)
{
    const struct conf_node **sorted = calloc(map->count ? map->count : 1, sizeof *sorted);
    const struct conf_node *double_of = NULL, *first = NULL;
    size_t count = 0;

    if (!sorted)
        return no_memory(builder);
    for (const struct conf_node *node = map->first; node; node = node->next)
        sorted[count++] = node;
    qsort(sorted, count, sizeof *sorted, by_key_then_line);
    for (size_t i = 1; i < count; i++)
        if (strcmp(sorted[i]->key, sorted[i - 1]->key) == 0 && (!first || sorted[i]->key_line < double_of->key_line)) {
            first = sorted[i - 1];
            double_of = sorted[i];
        }
    free(sorted);
    if (!first)
        return ERR_OK;
    struct conf_node at_key = *double_of;
    at_key.line = double_of->key_line;
    return conf_refuse(builder->conf, &at_key, builder->why, "is there twice (first in line %u)", first->key_line);
}

static enum err leave(struct builder *builder)
{
    struct conf_node *node = builder->open[--builder->depth];

    return node->kind == CONF_MAP ? refuse_doubles(builder, node) : ERR_OK;
}

static enum err take_document(struct builder *builder, const yaml_event_t *event, size_t line)
{
    if (event->data.document_start.version_directive ||
        event->data.document_start.tag_directives.start != event->data.document_start.tag_directives.end)
        return refuse_at(builder, line, "directives (%) are not allowed");
    if (builder->documents++)
        return refuse_at(builder, line, "a second document begins here (---): a configuration is one document");
    return ERR_OK;
}

static enum err take_event(struct builder *builder, const yaml_event_t *event)
{
    size_t line = event->start_mark.line + 1;

    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return take_document(builder, event, line);
    case YAML_ALIAS_EVENT:
        return refuse_here(builder, line, "uses an alias (*), which is not allowed: write the value out");
    case YAML_SCALAR_EVENT:
        return take_scalar(builder, event, line);
    case YAML_SEQUENCE_START_EVENT:
        return enter(builder, CONF_LIST, line, event->data.sequence_start.tag, event->data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
        return enter(builder, CONF_MAP, line, event->data.mapping_start.tag, event->data.mapping_start.anchor);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return leave(builder);
    default:
        return ERR_OK;
    }
}

static size_t line_of(struct slice yaml, size_t offset)
{
    size_t line = 1;

    for (size_t i = 0; i < offset && i < yaml.len; i++)
        line += yaml.at[i] == '\n';
    return line;
}

/* Does the line begin with a tab (after spaces)? The commonest mistake, and libyaml's words for it are obscure. */
static bool is_indented_by_tab(struct slice yaml, size_t line)
{
    size_t at = 0;

    for (; line > 1 && at < yaml.len; at++)
        line -= yaml.at[at] == '\n';
    while (at < yaml.len && yaml.at[at] == ' ')
        at++;
    return at < yaml.len && yaml.at[at] == '\t';
}

static enum err refuse_syntax(struct builder *builder, const yaml_parser_t *parser)
{
    size_t line = parser->problem_mark.line + 1;

    if (parser->error == YAML_MEMORY_ERROR)
        return no_memory(builder);
    if (parser->error == YAML_READER_ERROR) {
        line = line_of(builder->yaml, parser->problem_offset);
        return refuse_at(builder, line, "holds a character that is not allowed in YAML (a control character?)");
    }
    if (is_indented_by_tab(builder->yaml, line))
        return refuse_at(builder, line, "is indented by a tab: YAML wants spaces");
    text_printf(builder->why, "%s:%zu: is not valid YAML: %s", builder->conf->file, line,
                parser->problem ? parser->problem : "it cannot be understood");
    if (parser->context)
        text_printf(builder->why, " (%s that begins in line %zu)", parser->context, parser->context_mark.line + 1);
    return ERR_BAD;
}

static void wipe_event(yaml_event_t *event)
{
    if (event->type == YAML_SCALAR_EVENT && event->data.scalar.value)
        explicit_bzero(event->data.scalar.value, event->data.scalar.length);
    yaml_event_delete(event);
}

static void wipe_parser(yaml_parser_t *parser)
{
    for (yaml_token_t *token = parser->tokens.head; token != parser->tokens.tail; token++)
        if (token->type == YAML_SCALAR_TOKEN && token->data.scalar.value)
            explicit_bzero(token->data.scalar.value, token->data.scalar.length);
    if (parser->raw_buffer.start)
        explicit_bzero(parser->raw_buffer.start, (size_t)(parser->raw_buffer.end - parser->raw_buffer.start));
    if (parser->buffer.start)
        explicit_bzero(parser->buffer.start, (size_t)(parser->buffer.end - parser->buffer.start));
    yaml_parser_delete(parser);
}

static enum err take_all(struct builder *builder, yaml_parser_t *parser)
{
    bool has_ended = false;
    yaml_event_t event;
    enum err err;

    while (!has_ended) {
        if (!yaml_parser_parse(parser, &event))
            return refuse_syntax(builder, parser);
        has_ended = event.type == YAML_STREAM_END_EVENT;
        err = take_event(builder, &event);
        wipe_event(&event);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

static enum err check_utf8(struct builder *builder)
{
    struct slice left = builder->yaml;

    if (utf8_valid(left))
        return ERR_OK;
    for (size_t line = 1;; line++) { /* no character spans a line's end */
        const char *end = memchr(left.at, '\n', left.len);
        struct slice this_line = { left.at, end ? (size_t)(end - left.at) : left.len };
        if (!end || !utf8_valid(this_line))
            return refuse_at(builder, line, "is not UTF-8");
        left.at = end + 1;
        left.len -= this_line.len + 1;
    }
}

static enum err check_root(struct builder *builder)
{
    const struct conf_node *root = builder->root;

    if (!root || (root->kind == CONF_SCALAR && !root->text.len && !root->is_quoted)) {
        text_printf(builder->why, "%s:1: the file is empty: nothing is configured", builder->conf->file);
        return ERR_BAD;
    }
    if (root->kind != CONF_MAP)
        return refuse_at(builder, root->line, "the file must hold settings, one `key: value` a line");
    builder->conf->root = root;
    return ERR_OK;
}

enum err yaml_tree_read(struct conf *conf, struct slice yaml, struct text *why)
{
    struct builder builder = { .conf = conf, .yaml = yaml, .why = why };
    yaml_parser_t parser;
    enum err err = check_utf8(&builder);

    if (err != ERR_OK)
        return err;
    if (!yaml_parser_initialize(&parser))
        return no_memory(&builder);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)(yaml.len ? yaml.at : ""), yaml.len);
    err = take_all(&builder, &parser);
    wipe_parser(&parser);
    return err == ERR_OK ? check_root(&builder) : err;
}
