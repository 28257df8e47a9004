/*
 * archive - a file of sections that is either whole or not taken, with the one before it beside it (NAME.previous).
 *
 *     header   magic 8, format 4, sections 4, length of the file 8, stamp 8, CRC-32C of all these and the table 4,
 * zeros 4 table    a section each: kind 4, CRC-32C 4, length 8 bytes    of the sections, one after another
 *
 * Numbers are little-endian. Whoever writes one makes NAME.new, has it reach the disk, keeps what was there as
 * NAME.previous and gives the new one its name: there is a whole one at every moment. Reading is strict: a file that is
 * cut, longer than it says, damaged in any bit, or of a format above the reader's is refused with the reason.
 * No state is shared; any thread, but one writer a name. Paths and memory given stay the caller's, and must outlive it.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum { ARCHIVE_MAGIC_BYTES = 8, ARCHIVE_MAX_SECTIONS = 4096 };

/* What a kind of archive is called, and how far its reader goes. */
struct archive_form {
    char magic[ARCHIVE_MAGIC_BYTES];
    uint32_t format; /* 1 ... : of what is written, and the highest that is read */
};

struct archive_section {
    uint32_t kind;
    struct slice bytes;
};

/*
 * Writing one, a section at a time: `count` of them, in their order. Nothing is seen of it before archive_finish(),
 * which frees the writer whatever comes of it: ERR_OK, or ERR_SYSTEM with one sentence, and what was there stays. The
 * file is its owner's alone (0600). NULL: no memory, or the first step failed, and `why` says so.
 */
struct archive_writer;
struct archive_writer *archive_begin(const char *path, const struct archive_form *form, uint64_t stamp, size_t count,
                                     struct text *why);
/* What fails here is said by archive_finish(). */
void archive_add(struct archive_writer *writer, const struct archive_section *section);
enum err archive_finish(struct archive_writer *writer, struct text *why);
/* Instead of finishing. */
void archive_cancel(struct archive_writer *writer);

struct archive;

/* The one of that name itself. NULL: `why` says in one sentence what is wrong with it; *ret_err is ERR_NOT_FOUND where
 * there is none, ERR_BAD, ERR_NO_MEMORY or ERR_SYSTEM. The header and the table are good then, sections not yet looked
 * at. */
struct archive *archive_open(const char *path, const struct archive_form *form, enum err *ret_err, struct text *why);
/* The same of bytes in memory. */
struct archive *archive_over(struct slice bytes, const struct archive_form *form, enum err *ret_err, struct text *why);
void archive_close(struct archive *archive);
const char *archive_path(const struct archive *archive);
uint64_t archive_stamp(const struct archive *archive);
size_t archive_count(const struct archive *archive);
/* The next section, in their order; its bytes are good until the next call. ERR_NOT_FOUND: that was the last one.
 * ERR_BAD and the others: as archive_open. */
enum err archive_next(struct archive *archive, struct archive_section *ret_section, struct text *why);

/*
 * Has `take` read the archive of that name; where that is not there or no good, the previous one. `take` is given it
 * freshly opened and goes through its sections; what it says is wrong is worth as much as a wrong checksum, and then it
 * must have kept nothing. ERR_OK: it was read; `why` holds words only when that was the previous one, and says what is
 * wrong with the newest: to be said once. ERR_NOT_FOUND: there is neither. Else neither is any good, `why` tells of
 * both.
 */
enum err archive_read(const char *path, const struct archive_form *form,
                      enum err (*take)(void *arg, struct archive *archive, struct text *why), void *arg,
                      struct text *why);
