/*
 * gojson - JSON as Go's encoding/json reads it: invalid UTF-8 and lone surrogates become U+FFFD, members keep their
 * order and their duplicates, what follows the first value is ignored, and errors have Go's words.
 * Values live in the arena until the next arena_clear(); strings without escapes point into the parsed text.
 */
#pragma once
#include "bytes.h"

struct arena_block;
struct arena {
    struct arena_block *blocks;
    size_t used;
};

void *arena_take(struct arena *arena, size_t size); /* 16-byte aligned, not zeroed */
void arena_clear(struct arena *arena);              /* keeps one block */
void arena_release(struct arena *arena);

enum go_kind { GO_NULL, GO_BOOL, GO_NUMBER, GO_STRING, GO_ARRAY, GO_OBJECT };

struct go_value {
    enum go_kind kind;
    bool is_true;
    struct slice key;  /* of a member of an object */
    struct slice text; /* of a string, decoded; of a number, its digits */
    struct slice raw;  /* as it stood in the text */
    struct go_value *first;
    struct go_value *next;
};

enum go_result { GO_OK, GO_EMPTY, GO_ERROR };

/* GO_ERROR: ret_why has Go's text. */
enum go_result go_parse(struct arena *arena, struct slice text, struct go_value **ret_value, struct bytes *ret_why);

/* The last member whose key matches exactly; NULL if none. For maps, whose keys are case-sensitive. */
struct go_value *go_member(const struct go_value *object, const char *key);

/* "string", "number", "object" … as Go's errors say it. */
const char *go_kind_text(enum go_kind kind);
bool go_integer(const struct go_value *number, int64_t *ret); /* false: not an integer that fits */
/* strconv.Quote. */
void go_quote(struct bytes *b, struct slice text);
