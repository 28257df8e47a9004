/*
 * publish - what gateways are to know, packed: the changes of the last versions in memory (the tail), and now and then
 * all there is in a file of its own (the spool). It reads change_log and the views published_key and published_other;
 * who is told what is the roster's to say.
 *
 * Owned by serve; opened after the store, closed before it. Loop thread only. Times are in _ms.
 *
 *     change_log ─► reading ─► tail: version after version, none left out; the oldest go first
 *     published_* ─► building ─► spool: one version whole, in pieces, in a file without a name
 *
 * A version is there when all of it was read; versions come in their order. What it has told stays true while the
 * database is away.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct event_base;
struct store;
struct publish;

struct publish_options {
    uint64_t tail_versions; /* that are kept at most */
    uint64_t tail_bytes;    /* that they may take */
    uint64_t log_versions;  /* that the database keeps at least; older ones are taken out of it. 0: none ever */
    int64_t poll_ms;        /* how often it looks without being woken */
    const char *spool_folder;
    uint64_t spool_slack;   /* the spool is made anew when so many changes came since, … */
    int64_t spool_retry_ms; /* after one that came to nothing */
};

/* NULL, with one sentence. */
struct publish *publish_open(struct event_base *base, struct store *store, const struct publish_options *options,
                             struct text *why);
/* Returns NULL. */
struct publish *publish_close(struct publish *publish);
/* Something was committed: look now. */
void publish_wake(struct publish *publish);
/* The newest version that is there whole; 0: none yet. */
uint64_t publish_version(const struct publish *publish);
/* How often the database's newest version was seen: a number that rises, so that one can wait for a look that began
 * later. */
uint64_t publish_looks(const struct publish *publish);
/* Told whenever there is a newer version, a look has ended or a spool is ready. Stays until publish_close(). */
enum err publish_watch(struct publish *publish, void (*on_news)(void *arg), void *arg);

/*
 * An Update that leads on from version `have`, as far as one frame goes: *ret_to is the version reached. The frame is
 * good until the next call. ERR_NOT_FOUND: the tail does not reach back so far, or a version on the way is too large
 * for a frame: a snapshot it must be. ERR_AGAIN: there is nothing newer.
 */
enum err publish_delta(struct publish *publish, uint64_t have, struct slice *ret_frame, uint64_t *ret_to);
/*
 * A piece of a snapshot. `version`: of the one that was begun with (0: none); where that is not kept any more, or the
 * piece is none of it, it begins anew, and *ret_version says with which. ERR_AGAIN: none is ready yet; it is being
 * made. Asking for piece 0 of no version begins with one from which deltas lead on, which may have to be made first.
 */
enum err publish_piece(struct publish *publish, uint64_t version, uint32_t piece, struct slice *ret_frame,
                       uint64_t *ret_version);

struct publish_counts {
    uint64_t tail_first, tail_bytes; /* the oldest version that a delta can begin at */
    uint64_t spool_version, spool_bytes, spool_changes, spools_made;
    uint64_t unpackable; /* changes that no message can hold: left out, and said */
};
void publish_counts(const struct publish *publish, struct publish_counts *ret_counts);
