/*
 * journal - a file of updates, one behind the other, each with its checksum. Not a door: others include control.h.
 *
 *     header  magic 8, format 4, CRC-32C of magic, format and base 4, base 8 (the version it begins at)
 *     record  length of the changes 4, CRC-32C of the rest of the record 4, from 8, to 8, changes
 *
 * Numbers are little-endian. What a kill or a power cut tore off at the end is no record; everything before it is.
 * Pure; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

enum { JOURNAL_HEADER_BYTES = 24, JOURNAL_RECORD_BYTES = 24, JOURNAL_MAX_CHANGES = 64 << 20 };

void journal_add_header(struct text *out, uint64_t base);
void journal_add_record(struct text *out, struct slice changes, uint64_t from, uint64_t to);

struct journal_record {
    uint64_t from, to;
    struct slice changes;
};

/* Goes through a journal's bytes. */
struct journal_reading {
    struct slice left;
    uint64_t base;
    size_t good; /* bytes from the beginning up to the end of the last whole record */
};
/* False: it has no whole header, or another format's. */
bool journal_begin(struct slice bytes, struct journal_reading *ret_reading);
/* False: that was the last whole record; what is left over behind it is in `left`. */
bool journal_next(struct journal_reading *reading, struct journal_record *ret_record);
