/*
 * shapes - which field of a protobuf-c struct is which field of ours, one row each, read in both directions by codec.c.
 * Not a door: others include codec.h.
 */
#pragma once
#include <protobuf-c/protobuf-c.h>

#include "codec.h"

enum row_kind {
    ROW_FLAG,
    ROW_U32,
    ROW_U64,
    ROW_CHOICE,   /* an enum; max: its last value */
    ROW_WORDS,    /* UTF-8 without NUL; max: bytes */
    ROW_BYTES,    /* max: bytes */
    ROW_EXACT,    /* max: bytes, not one fewer */
    ROW_INNER,    /* a pointer to the struct of `inner` */
    ROW_NAMES,    /* a list of words; max: how many */
    ROW_LIST,     /* a list of structs of `inner`; max: how many */
    ROW_U32_LIST, /* max: how many */
    ROW_U64_LIST,
    ROW_CASE, /* one of several, of which the shape's `what` says which; the struct of `inner` is at `at` */
};

struct row {
    enum row_kind kind;
    bool must; /* be there; of a list: have one */
    uint32_t max;
    size_t at, count_at; /* in our struct */
    const struct shape *inner;
};

struct shape {
    const ProtobufCMessageDescriptor *there; /* its fields in the order of their tags, as the rows are */
    const char *name;                        /* in sentences */
    size_t bytes;                            /* of our struct */
    const struct row *rows;
    unsigned row_count;
    bool restricts; /* a field that we do not know may be a restriction */
    bool has_what;  /* there are ROW_CASEs: `what_at` is where an unsigned or an enum says which */
    bool may_be_unknown;
    size_t what_at;
    const char *(*judge)(const void *ours); /* what no row can say; a sentence about what is wrong, or NULL */
};

/* From here on an unknown field may be overlooked even in what restricts. */
enum { HINTS_FROM = 1000 };

extern const struct shape envelope_shape; /* struct qw_message */
extern const struct shape change_shape;   /* struct qw_change */
