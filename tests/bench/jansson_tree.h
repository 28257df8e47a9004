/*
 * jansson_tree - what jansson takes for the same text: the tree built and freed, and written out again too.
 * In a file of its own, because one source file cannot include both jansson's header and ours.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

/* False when jansson does not take it. */
bool jansson_tree(struct slice text);
bool jansson_tree_and_back(struct slice text);
