#include "jansson_tree.h"

#include <jansson.h>
#include <stdlib.h>

enum { FLAGS = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY };

bool jansson_tree(struct slice text)
{
    json_t *tree = json_loadb(text.at, text.len, FLAGS, NULL);

    json_decref(tree);
    return tree != NULL;
}

bool jansson_tree_and_back(struct slice text)
{
    json_t *tree = json_loadb(text.at, text.len, FLAGS, NULL);
    char *written = tree ? json_dumps(tree, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    bool is_fine = written != NULL;

    free(written);
    json_decref(tree);
    return is_fine;
}
