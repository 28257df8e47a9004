/*
 * csv - tables as text, RFC 4180: read strictly, written so that a spreadsheet takes no cell for a formula.
 * The reader borrows the text, which outlives it; a record's cells live until the next one is read. One thread.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

enum { CSV_MAX_CELLS = 64 };

struct csv {
    const char *at, *end;
    unsigned line; /* counted from 1 */
};

struct csv_record {
    unsigned line; /* where it begins */
    unsigned count;
    struct slice cells[CSV_MAX_CELLS];
    const char *why;    /* what is wrong with it, as one clause; NULL: nothing. Then its cells mean nothing */
    struct text memory; /* of cells that had quotes in them */
};

/* A byte order mark at the start is passed over. */
void csv_open(struct csv *csv, struct slice text);
void csv_record_init(struct csv_record *record);
void csv_record_release(struct csv_record *record);
/* False: there is none any more. Lines without anything on them are passed over. */
bool csv_next(struct csv *csv, struct csv_record *record);

/* Cells are separated by whoever writes them: a comma between, csv_add_end() behind the last. */
void csv_add_cell(struct text *out, struct slice cell);
void csv_add_end(struct text *out);
