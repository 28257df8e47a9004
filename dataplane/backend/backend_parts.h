/*
 * backend_parts - what this room's files share. Inside this room only.
 */
#pragma once
#include "backend.h"

struct json_reader;
struct json_string;

void findings_release(struct backend *backend);
/* An address, which needs no resolver. */
bool host_is_literal(const char *host);

/* listed.c: a list of models as Ollama writes it, read entry by entry. */
struct listed {
    const char *name;  /* normalised; NULL: it has none that a model could have */
    const char *shown; /* as it stands there */
    int64_t time_s;    /* -1: not said */
};
struct listed_story {
    const char *time; /* the key of the entry's time */
    /* A member besides names and time, comes before its entry. False: it is not wanted, and was not read. */
    bool (*member)(void *arg, const struct json_string *key, struct json_reader *reader);
    /* All of an entry, good during the call. False: no memory. */
    bool (*entry)(void *arg, const struct listed *listed);
};
/* False: not such a list, or no memory; some of its entries may have been told. */
bool listed_read(struct slice body, const struct listed_story *story, void *arg);
