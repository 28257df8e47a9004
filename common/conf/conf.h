/*
 * conf - a configuration file in YAML, read strictly: libyaml's only door. It knows nothing of what the
 * settings mean; rooms that do give it tables of rows.
 *
 * Reading has two steps. conf_open() turns the file into a tree of nodes that remember their lines, and refuses
 * what makes files ambiguous (doubled keys, anchors, aliases, tags, merge keys, a second document, bad UTF-8).
 * conf_table_read() then fills a struct from a map, row by row; defaults are text and pass through the same
 * parsers as the file's words.
 *
 * The tree belongs to struct conf and lives until conf_free(), which overwrites it: keys may stand in it.
 * What conf_table_read() fills in lives in the arena given to it. Any thread, one at a time.
 * Every refusal is ERR_BAD with one sentence "FILE:LINE: KEY …" in `why`; values of rows marked secret are never
 * quoted. Durations are milliseconds, sizes bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "text.h"

enum { CONF_MAX_BYTES = 1024 * 1024, CONF_MAX_DEPTH = 16 };

enum conf_kind { CONF_SCALAR, CONF_LIST, CONF_MAP };

struct conf_node {
    enum conf_kind kind;
    bool is_quoted;    /* scalars: quotes or a block style were used, so it is text whatever it looks like */
    unsigned line;     /* counted from 1; 0: a default, not from the file */
    struct slice text; /* scalars; followed by a NUL */
    const char *key;   /* within a map: its key */
    unsigned key_line;
    unsigned index; /* within a list: counted from 1 */
    unsigned count; /* of a list or a map */
    struct conf_node *first, *last, *next, *parent;
};

struct conf {
    const char *file;
    unsigned mode;                /* permission bits; 0 when it was parsed from memory */
    bool is_made;                 /* by conf_make(): sentences name no line */
    const struct conf_node *root; /* always a map */
    struct arena arena;
};

/* NULL: `why` says it. */
struct conf *conf_open(const char *file, struct text *why);
struct conf *conf_parse(const char *file, struct slice yaml, struct text *why);
void conf_free(struct conf *conf);

/*
 * A tree that no file says, put together by hand: `name` stands where sentences name the file. NULL: no memory.
 * conf_add: a map or a list as a member of a map (by `key`) or of a list (key empty). conf_add_scalar: what stands
 * between quotes is text, whatever it looks like. All is copied. NULL: no memory, or `parent` is NULL.
 */
struct conf *conf_make(const char *name);
struct conf_node *conf_root(struct conf *conf);
struct conf_node *conf_add(struct conf *conf, struct conf_node *parent, struct slice key, enum conf_kind kind);
struct conf_node *conf_add_scalar(struct conf *conf, struct conf_node *parent, struct slice key, struct slice text,
                                  bool is_quoted);

/* The member of a map, or NULL. */
const struct conf_node *conf_member(const struct conf_node *map, const char *key);
/* "auth.valid_keys[2].name" */
void conf_add_path(const struct conf_node *node, struct text *out);
/* "FILE:LINE: KEY " and then the words given; of a tree that was made "NAME: KEY ". Returns ERR_BAD. */
enum err conf_refuse(const struct conf *conf, const struct conf_node *node, struct text *why, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* In quotes, cut at 64 bytes, controls replaced: fit for one line. */
void conf_add_quoted(struct text *out, struct slice text);

enum conf_type {
    CONF_BOOL,    /* bool: true or false */
    CONF_COUNT,   /* unsigned: a whole number */
    CONF_NUMBER,  /* uint64_t: a whole number */
    CONF_BYTES,   /* uint64_t: a whole number, or one with KiB, MiB or GiB */
    CONF_MS,      /* int64_t: a whole number with ms, s, m or h */
    CONF_SECONDS, /* int64_t, in ms: whole seconds, as a bare number or with s, m or h */
    CONF_CHOICE,  /* an enum: one of the words, its position */
    CONF_STRING,  /* const char *: one line of text */
    CONF_OWN,     /* whatever the row's own `read` makes of it */
};

struct conf_reading {
    const struct conf *conf;
    struct arena *arena; /* where what is read will live */
    struct text *why;
    void *owner; /* for the rows' own readers */
    bool hides;  /* within the value of a secret row: no sentence quotes what stands there */
};

struct conf_row {
    const char *key; /* "listen"; "rate_limit.enabled" stands in the section rate_limit */
    enum conf_type type;
    size_t offset;            /* of the field in the struct that is filled */
    const char *fallback;     /* the default as text, "[]" for a list; NULL: the field stays as it is */
    int64_t min, max;         /* of numbers, durations (ms), sizes; of strings their bytes */
    const char *const *words; /* CONF_CHOICE: ended by NULL */
    enum err (*read)(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                     void *field);
    void (*print)(const void *field, struct text *out); /* CONF_OWN: the value as one would write it */
    bool is_live;                                       /* a reload may change it */
    bool is_secret;                                     /* no sentence quotes its value, nor unknown keys in it */
    const char *form;                                   /* CONF_OWN: what a value looks like, for people */
    const char *help;
};

struct conf_table {
    const struct conf_row *rows;
    size_t count;
};

/*
 * Fills `into` from the map; NULL: from defaults only. `lines` (one a row, may be NULL) tells where each value came
 * from; 0: it is the default. Unknown keys are refused with the nearest known one.
 */
enum err conf_table_read(struct conf_reading *reading, const struct conf_table *table, const struct conf_node *map,
                         void *into, unsigned *lines);
/* One value by its row, for readers of lists. */
enum err conf_value_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field);
/* Text on one line within [min, max] bytes; anything but a string is refused. The slice lives as long as the tree. */
enum err conf_string(struct conf_reading *reading, const struct conf_node *node, size_t min, size_t max,
                     struct slice *ret_text);
/* The kind asked for, or a refusal that says what stands there instead. */
enum err conf_expect(struct conf_reading *reading, const struct conf_node *node, enum conf_kind kind);
/* Nothing at all, `~` or null: a key without a value. */
bool conf_is_nothing(const struct conf_node *node);
/* What stands there, to follow "…, not ": "a list", "nothing", its text in quotes, or of a secret only its kind. */
void conf_add_what(const struct conf_reading *reading, const struct conf_node *node, struct text *out);
/* A whole number in decimal within [min, max]. */
enum err conf_integer(struct conf_reading *reading, const struct conf_node *node, int64_t min, int64_t max,
                      int64_t *ret_number);

/* An own copy with a NUL in the arena; NULL: no memory. */
const char *conf_keep(struct arena *arena, struct slice text);

/* The value a field has, as one would write it in the file. */
void conf_add_value(const struct conf_row *row, const void *field, struct text *out);
/* What values a row takes: "true or false", "1s to 24h" … */
void conf_add_form(const struct conf_row *row, struct text *out);
/* Every row with its default and meaning, for a terminal or as a section of a page. */
void conf_describe(const struct conf_table *table, const char *title, bool tells_reload, bool as_markdown,
                   struct text *out);
