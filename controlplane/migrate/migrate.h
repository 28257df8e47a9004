/*
 * migrate - the tables: migrations/NNNN_name.sql, compiled into the program, each applied once, in order, in a
 * transaction of its own that also writes it into schema_migration with its SHA-256. They are only ever added to.
 *
 * Whoever applies them holds a lock, so that two at a time wait for each other. A database whose history differs
 * from the program's, or goes further, is left alone.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct store;

struct migration {
    const char *name;         /* "0001_ground"; its number is its place, from 1 */
    const unsigned char *sql; /* ends with a NUL that `bytes` does not count */
    unsigned bytes;
};
extern const struct migration migrations[];
extern const unsigned migration_count;

struct migrating {
    const char *database, *program;
    int64_t connect_timeout_ms;
    void (*tell)(const char *line); /* what was done, as it is done */
};

/* Applies what is missing. Blocks. */
enum err migrate_run(const struct migrating *migrating, struct text *why);
/* Tells of each migration whether it is applied, and changes nothing. ERR_OK: all are. Blocks. */
enum err migrate_status(const struct migrating *migrating, struct text *why);
/* For who runs: is the database of this program? Calls back once; `why` is a sentence, "" when it is. */
enum err migrate_verify(struct store *store, void (*on_verified)(void *arg, enum err err, const char *why), void *arg);
