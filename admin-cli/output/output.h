/*
 * output - what people and scripts read: tables that fit the terminal, CSV, JSON, sentences on standard error, and bars
 * for what takes long. main's, for as long as the program runs; one thread. Widths are columns of a terminal.
 *
 * What the server said is never trusted with a terminal: safe_add() stands between, and in JSON the same characters
 * become \uXXXX.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "text.h"

struct json_t;

enum output_format { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_CSV };
enum output_colour { COLOUR_AUTO, COLOUR_ALWAYS, COLOUR_NEVER };

struct output {
    enum output_format format;
    bool is_terminal; /* standard output */
    bool has_colour;
    bool is_quiet;
    unsigned width; /* of the terminal; 0: none, nothing is cut */
    bool has_failed;
};

void output_open(struct output *output, enum output_format format, enum output_colour colour, bool is_quiet);
/* The terminal of a descriptor; false: it is none, or does not know. */
bool terminal_size(int fd, unsigned *ret_width, unsigned *ret_height);

/* Text for a terminal: what it would obey, what turns the direction of reading and what cannot be seen is written out
 * (\x1b, \u202e), bytes that are not UTF-8 become U+FFFD. keep_lines: newlines stay. */
void safe_add(struct text *out, struct slice text, bool keep_lines);
/* Columns that safe text takes: East Asian and emoji two, what combines none. */
unsigned width_of(struct slice text);
/* Appends at most `width` columns of it, the last being … when something was left out, and fills up with spaces. */
void width_add(struct text *out, struct slice text, unsigned width, bool is_filled, bool is_right);

/* Everything to standard output. ERR_SYSTEM once, with a sentence on standard error. */
enum err output_write(struct output *output, struct slice bytes);
/* A sentence on standard error: an error (`qwadm: …`), or news that --quiet keeps back. Both pass through safe_add. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tell(const struct output *output, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Cells ---------------------------------------------------------------------------------------------------------- */

enum cell {
    CELL_TEXT,   /* strings, numbers; lists with spaces between */
    CELL_NUMBER, /* the same, to the right */
    CELL_TIME,   /* RFC 3339; a table has the minute */
    CELL_YES,    /* yes, or nothing for false */
    CELL_STATE,  /* a word; good ones are green, bad ones red */
};

struct column {
    const char *title; /* of the table; NULL: not in it */
    const char *field; /* of the object, and the title in CSV */
    enum cell cell;
    unsigned rank;         /* columns of a higher rank go first where there is no room; 0: never */
    const char *otherwise; /* what a table has for null; NULL: nothing */
};

/* One value as a table, or as CSV has it. */
void cell_add(const struct column *column, const struct json_t *object, bool is_table, struct text *out);

struct listing; /* many objects of one kind, in the format asked for */
struct listing *listing_begin(struct output *output, const struct column *columns, size_t count);
enum err listing_add(struct listing *listing, const struct json_t *object);
/* Prints what is not printed yet, and frees it. */
enum err listing_end(struct listing *listing);
/* One object: a line a field, JSON, or CSV with one line. */
enum err output_object(struct output *output, const struct column *columns, size_t count, const struct json_t *object);
/* JSON as it is shown. */
void json_add_pretty(struct text *out, const struct json_t *value, bool is_compact);

/* Waiting -------------------------------------------------------------------------------------------------------- */

/* A line on standard error, if that is a terminal, once it has taken a second. */
struct progress {
    const char *what;
    uint64_t done, total; /* total 0: nobody knows */
    int64_t begun_ms, shown_ms;
    bool is_on, is_shown;
};
void progress_begin(struct progress *progress, const struct output *output, const char *what, uint64_t total);
void progress_at(struct progress *progress, uint64_t done);
/* Takes the line away again. */
void progress_end(struct progress *progress);

/* Whether a person at the terminal says yes to "QUESTION [y/N] ". False where nobody can be asked. */
bool person_says_yes(const char *question);
bool can_ask(void);
