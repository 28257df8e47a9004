/* A map, read by a table of rows: which key is which row, which is none, and what was probably meant. */
#include "conf.h"

#include <assert.h>

enum { MAX_ROWS = 96, MAX_KEY = 64, PATH_BYTES = 256 };

struct match {
    struct conf_reading *reading;
    const struct conf_table *table;
    const struct conf_node *found[MAX_ROWS];
};

static char folded(char c)
{
    if (c >= 'A' && c <= 'Z')
        return (char)(c + ('a' - 'A'));
    return c == '-' || c == ' ' ? '_' : c;
}

/* Levenshtein's distance, letter case and '-' for '_' being no difference. */
static unsigned distance(struct slice left, struct slice right)
{
    unsigned row[MAX_KEY + 1];

    if (left.len > MAX_KEY || right.len > MAX_KEY)
        return MAX_KEY;
    for (unsigned j = 0; j <= right.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= left.len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= right.len; j++) {
            unsigned changed = diagonal + (folded(left.at[i - 1]) != folded(right.at[j - 1]));
            unsigned shorter = row[j] + 1, longer = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = changed < shorter ? changed : shorter;
            row[j] = longer < row[j] ? longer : row[j];
        }
    }
    return row[right.len];
}

/* Of "rate_limit.enabled" what follows the prefix "rate_limit." up to the next dot; empty: another section's. */
static struct slice component(const struct conf_row *row, struct slice prefix)
{
    struct slice key = slice_of(row->key);
    const char *dot;

    if (!slice_starts(key, prefix))
        return (struct slice){ NULL, 0 };
    key.at += prefix.len;
    key.len -= prefix.len;
    dot = memchr(key.at, '.', key.len);
    return dot ? (struct slice){ key.at, (size_t)(dot - key.at) } : key;
}

/* The last word of a row's key. */
static struct slice last_word(const struct conf_row *row)
{
    const char *dot = strrchr(row->key, '.');

    return slice_of(dot ? dot + 1 : row->key);
}

/* The nearest word of this section, or, if it stands in the wrong section, the whole key it has in the right one. */
static struct slice nearest(const struct conf_table *table, struct slice prefix, struct slice key)
{
    struct slice best = { NULL, 0 };
    unsigned best_distance = key.len < 5 ? 2 : key.len < 10 ? 3 : 4; /* what is this far off is something else */

    for (size_t i = 0; i < table->count; i++) {
        struct slice word = component(&table->rows[i], prefix);
        unsigned so_far = word.len ? distance(key, word) : MAX_KEY;
        if (so_far < best_distance) {
            best = word;
            best_distance = so_far;
        }
    }
    for (size_t i = 0; !best.at && i < table->count; i++)
        if (distance(key, last_word(&table->rows[i])) == 0)
            best = slice_of(table->rows[i].key);
    return best;
}

static enum err refuse_unknown(struct match *match, const struct conf_node *node, struct slice prefix)
{
    struct slice near = nearest(match->table, prefix, slice_of(node->key));
    struct conf_node at_key = *node;

    at_key.line = node->key_line;
    /* Somebody may have written a secret where a key belongs. */
    if (match->reading->hides && !near.at) {
        at_key.key = node->parent->key;
        at_key.index = node->parent->index;
        at_key.parent = node->parent->parent;
        return conf_refuse(match->reading->conf, &at_key, match->reading->why, "holds an unknown key");
    }
    if (!near.at)
        return conf_refuse(match->reading->conf, &at_key, match->reading->why, "is not a known setting");
    return conf_refuse(match->reading->conf, &at_key, match->reading->why, "is not a known setting: did you mean %.*s?",
                       (int)near.len, near.at);
}

static bool is_section(const struct conf_table *table, struct slice path_with_dot)
{
    for (size_t i = 0; i < table->count; i++)
        if (slice_starts(slice_of(table->rows[i].key), path_with_dot))
            return true;
    return false;
}

static enum err match_map(struct match *match, const struct conf_node *map, struct slice prefix);

static enum err match_section(struct match *match, const struct conf_node *node, struct slice prefix, struct slice path)
{
    char dotted[PATH_BYTES];
    enum err err;

    if (path.len + 1 >= sizeof dotted)
        return refuse_unknown(match, node, prefix);
    memcpy(dotted, path.at, path.len);
    dotted[path.len] = '.';
    path = (struct slice){ dotted, path.len + 1 };
    if (!is_section(match->table, path))
        return refuse_unknown(match, node, prefix);
    if (conf_is_nothing(node))
        return conf_refuse(match->reading->conf, node, match->reading->why,
                           "has no value: write its settings below it, or leave it out");
    err = conf_expect(match->reading, node, CONF_MAP);
    return err == ERR_OK ? match_map(match, node, path) : err;
}

static enum err match_node(struct match *match, const struct conf_node *node, struct slice prefix)
{
    char path[PATH_BYTES];
    struct slice key = slice_of(node->key);

    if (prefix.len + key.len >= sizeof path || memchr(key.at, '.', key.len))
        return refuse_unknown(match, node, prefix);
    if (prefix.len)
        memcpy(path, prefix.at, prefix.len);
    memcpy(path + prefix.len, key.at, key.len);
    key = (struct slice){ path, prefix.len + key.len };
    for (size_t i = 0; i < match->table->count; i++)
        if (slice_is(key, slice_of(match->table->rows[i].key))) {
            match->found[i] = node;
            return ERR_OK;
        }
    return match_section(match, node, prefix, key);
}

static enum err match_map(struct match *match, const struct conf_node *map, struct slice prefix)
{
    enum err err = ERR_OK;

    for (const struct conf_node *node = map->first; node && err == ERR_OK; node = node->next)
        err = match_node(match, node, prefix);
    return err;
}

/* Its default passes through the same parser as the file's words. */
static enum err read_default(struct conf_reading *reading, const struct conf_row *row, void *field)
{
    struct conf_node node = { .key = row->key, .text = slice_of(row->fallback) };

    if (strcmp(row->fallback, "[]") == 0)
        node.kind = CONF_LIST;
    return conf_value_read(reading, row, &node, field);
}

enum err conf_table_read(struct conf_reading *reading, const struct conf_table *table, const struct conf_node *map,
                         void *into, unsigned *lines)
{
    struct match match = { .reading = reading, .table = table };
    enum err err = ERR_OK;

    assert(table->count <= MAX_ROWS);
    if (map)
        err = conf_expect(reading, map, CONF_MAP);
    if (map && err == ERR_OK)
        err = match_map(&match, map, (struct slice){ "", 0 });
    for (size_t i = 0; i < table->count && err == ERR_OK; i++) {
        const struct conf_row *row = &table->rows[i];
        void *field = (char *)into + row->offset;
        if (lines)
            lines[i] = match.found[i] ? match.found[i]->key_line : 0;
        if (match.found[i])
            err = conf_value_read(reading, row, match.found[i], field);
        else if (row->fallback)
            err = read_default(reading, row, field);
    }
    return err;
}
