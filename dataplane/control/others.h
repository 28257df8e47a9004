/*
 * others - what the control plane says that is no key: ranges, models, backends, settings. Each is kept packed as it
 * came, under its noun and its name; together they are the section of the archive beside the keys, and the tree that
 * the tables of the file read. One owner, one thread. Not a door: others include control.h.
 */
#pragma once
#include "codec.h"
#include "text.h"

struct conf;
struct other;

/* Zeroed memory is an empty one. */
struct others {
    struct other **items; /* sorted by noun and name */
    size_t count, room;
};

void others_release(struct others *others);
/* ERR_NO_MEMORY: *into is empty then. */
enum err others_copy(const struct others *from, struct others *into);
/* One that is there is replaced. ERR_NO_MEMORY; ERR_BAD with a sentence: it cannot be packed. */
enum err others_put(struct others *others, const struct qw_change *change, struct text *why);
/* One that is not there is no error. */
void others_remove(struct others *others, enum qw_noun noun, struct slice name);
/* All of them, for changes_unpack(). */
void others_pack(const struct others *others, struct text *out);
/* From others_pack(): into an empty one. */
enum err others_unpack(struct slice bytes, struct others *others, struct text *why);
/* For snapshot_over(); `name` begins its sentences. NULL: no memory, or a value that is no JSON, and `why` says it. */
struct conf *others_tree(const struct others *others, const char *name, struct text *why);
