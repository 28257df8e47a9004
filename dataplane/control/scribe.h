/*
 * scribe - who writes into the folder `state`, and waits for the disk so that the control thread need not: a thread
 * that works off a queue in its order, and for a new archive beside it another one, so that the journal goes on
 * meanwhile.
 *
 *     keys             the archive: all keys, and what else there is, of one version; keys.previous the one before
 *     journal.VERSION  what was applied since that version, until the next one begins
 *     heard            when the control plane was heard last (an archive of nothing, whose stamp it is)
 *     removed          there while the gateway is removed; its stamp is when the control plane said so
 *
 * Not a door: others include control.h. The functions are the control thread's; on_news comes from the others.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct keyring;
struct scribe;

extern const struct archive_form heard_form, removed_form;

enum { SCRIBE_SECTION_OTHERS = 16 }; /* the archive's section of what is no key */

struct scribe_options {
    const char *folder; /* these four outlive it */
    const char *path, *heard_path, *removed_path;
    void (*on_news)(void *arg);
    void *arg;
};

/* NULL: no memory, or no thread. */
struct scribe *scribe_open(const struct scribe_options *options);
/* Works off what is there, then ends. NULL is fine. Returns NULL. */
struct scribe *scribe_close(struct scribe *scribe);

/* "FOLDER/journal.VERSION" */
void scribe_add_journal_path(const char *folder, uint64_t base, struct text *out);

/* What follows is copied, or a reference is taken. False: no memory, and nothing will be done. */

/* Goes on with the journal that begins at `base`, behind these bytes of it, which are good. */
bool scribe_go_on(struct scribe *scribe, uint64_t base, uint64_t bytes);
/* Begins a journal. */
bool scribe_begin(struct scribe *scribe, uint64_t base);
bool scribe_note(struct scribe *scribe, struct slice changes, uint64_t from, uint64_t to, uint64_t epoch);
/* Writes the archive, then begins a journal at its version; older ones than `keep_from` go; when that is 0 all, and the
 * archive before with them. What stands behind it in the queue waits. */
bool scribe_save(struct scribe *scribe, struct keyring *ring, const struct text *others, uint64_t keep_from,
                 uint64_t epoch);
/* The same beside the queue: the journal of that version begins at once. One at a time, and not while one is saved. */
bool scribe_compact(struct scribe *scribe, struct keyring *ring, const struct text *others, uint64_t keep_from,
                    uint64_t epoch);
bool scribe_heard(struct scribe *scribe, int64_t wall_s);
/* 0: it is not removed any more. What cannot be written is tried again with every job that follows. */
bool scribe_removed(struct scribe *scribe, int64_t wall_s);

struct scribe_news {
    uint64_t epoch, durable; /* the last version that is on the disk, of the last epoch */
    uint64_t journal_bytes;  /* in the last journal */
    uint64_t archive;        /* the version of the last archive that was written, or could not be; 0: none */
    bool archive_failed;
    bool is_broken; /* the journal cannot be written: nothing more is, until an archive was saved */
    char trouble[512];
};
/* As of now. */
void scribe_news(struct scribe *scribe, struct scribe_news *ret_news);
