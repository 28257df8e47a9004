/*
 * reading - what all dialects share when they read a request's body: a table of fields for each kind of object,
 * the path to where the reader stands, and complaints that name it. Inside this room only.
 *
 * A struct reading lives on the stack of one dialect's read(). Functions return false when reading must stop: then
 * either the refusal is made, or the reader's error is set and reading_end() makes one of it.
 * A field whose value is null counts as absent; a field that no table names is passed over.
 */
#pragma once
#include "arena.h"
#include "inference.h"
#include "json.h"
#include "refusal.h"

enum { READING_MAX_PATH = 10 };

struct step {
    struct slice name; /* empty: an index */
    size_t index;
};

struct reading {
    struct json_reader json;
    struct arena *arena;
    struct inference *inference;
    struct refusal *refusal;
    struct step path[READING_MAX_PATH];
    unsigned depth;
};

/* One row of a table: rows end with one that has no `read`. */
struct field {
    struct slice name;
    bool (*read)(struct reading *reading, void *thing, const struct field *field);
    size_t place;       /* of the member it fills, in the struct that `read` knows */
    double min, max;    /* of a number */
    const char *wanted; /* "a number from 0 to 2" */
};
/* FIELD("model", read_model, .place = ...) */
#define FIELD(literal, reader, ...)                                               \
    {                                                                             \
        .name = { (literal), sizeof(literal) - 1 }, .read = (reader), __VA_ARGS__ \
    }
#define FIELDS_END   \
    {                \
        .read = NULL \
    }

void reading_begin(struct reading *reading, struct slice body, struct arena *arena, struct inference *inference,
                   struct refusal *refusal);
/* The end of the body is reached, or reading stopped before: true when all is well. */
bool reading_end(struct reading *reading, bool is_read);

/* The object that is next, field by field. */
bool reading_object(struct reading *reading, const struct field *fields, void *thing);
/* The array that is next: `read` once for each element, null or not; more than `max` of them are refused. */
bool reading_array(struct reading *reading, size_t max, bool (*read)(struct reading *reading, void *thing),
                   void *thing);

/*
 * Complaints about the value that is next or was read last; always false. wants: "`NAME` must be WANTED". refuse: the
 * sentence as it stands (copied).
 */
COLD bool reading_wants(struct reading *reading, const char *wanted);
COLD bool reading_refuse(struct reading *reading, enum cause cause, const char *sentence);
/* The same about a field of the object where the reader stands, for what is missing or is seen only at its end. */
COLD bool reading_field_refuse(struct reading *reading, const char *field, enum cause cause, const char *sentence);
COLD bool reading_no_memory(struct reading *reading);
/* True when a value of this type is next; else the complaint is made. */
bool reading_expects(struct reading *reading, enum json_type type, const char *wanted);

/* Whether the value that is read between the two, white space before it passed, is tight (inference.h). */
struct tightness {
    bool has_line_breaks; /* before it */
};
struct tightness tightness_begin(struct reading *reading);
bool tightness_end(struct reading *reading, struct tightness before);

/* Values. Each complains when it finds another type. */
bool reading_string(struct reading *reading, struct json_string *ret_string);
bool reading_bool(struct reading *reading, bool *ret_bool);
/* Decoded: UTF-8 in the body or the arena. */
bool reading_plain(struct reading *reading, const struct json_string *string, struct slice *ret_plain);
/* As a wire slice that is the same for the same text however it was escaped: for names and ids that are compared. */
bool reading_wire(struct reading *reading, const struct json_string *string, struct slice *ret_wire);

/* Readers for tables; `place` is in struct inference. Numbers are kept as written (struct slice). */
bool reading_number_field(struct reading *reading, void *thing, const struct field *field);
bool reading_integer_field(struct reading *reading, void *thing, const struct field *field);
bool reading_bool_field(struct reading *reading, void *thing, const struct field *field);
/* Reads an integer within the field's range. */
bool reading_integer(struct reading *reading, const struct field *field, struct slice *ret_written,
                     int64_t *ret_integer);
