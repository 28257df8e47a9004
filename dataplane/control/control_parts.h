/*
 * control_parts - what the files of this room share; nobody else includes it.
 *
 * control.c   opening and closing, the link's news, how old what we know is
 * sync.c      asking, and what is answered
 * apply.c     an Update becomes a ring, an overlay, news for the workers
 * others.c    what is no key: kept packed, and as the tree that the file's tables read
 * disk.c      the folder `state`: what of it is read at a start, and what goes there when
 * journal.c   a journal's form
 * scribe.c    the thread that writes there
 * traffic.c   Load and Commands
 *
 * Versions. `held`: what this thread knows; keys that a later one removes may be missing, where the rest of that one
 * could not be taken. `switched`: what all workers serve by. `durable`: what a start would find on the disk. The
 * control plane is told the least of them.
 */
#pragma once
#include "arena.h"
#include "codec.h"
#include "control.h"
#include "digest.h"
#include "keyring.h"
#include "link.h"
#include "others.h"
#include "scribe.h"
#include "snapshot.h"
#include "tally.h"

struct event;
struct identity;

enum {
    MAX_SENTENCE = 4096,
    MAX_PATH = 1200,
    SYNC_WAIT_MS = 20000,
    SYNC_LOST_MS = 45000,  /* an answer that is held for longer than it may be */
    SETTLE_MS = 1000,      /* so long an update's confirmation may take before we ask on without it */
    FIRST_RETRY_MS = 1000, /* after an update that could not be applied; doubled each time */
    MAX_RETRY_MS = 30000,
    DISK_RETRY_MS = 5000,
    HEARD_MS = 60000, /* how often it is written down that something was heard */
    LOAD_IDLE_MS = 5000,
    MAX_DONE = 32, /* commands that are remembered */
    MAX_TALLIES = 256,
    MAX_SYNCS = 3, /* open at a time: one that has news to tell does not wait for the one before */
};

/* A snapshot that comes in pieces. */
struct fetch {
    bool is_open;
    uint64_t version;
    uint32_t next, count;
    struct digest_run run;
    struct others others;
};

struct sync {
    struct control *control;
    bool is_open;
    unsigned number;
};

struct control {
    struct control_options options;
    char *secret;
    struct snapshot *first; /* whose settings of `control` hold until we end */
    struct snapshot *file, *snapshot;
    const struct control_settings *settings; /* first's */
    struct identity *identity;
    int folder; /* `state`, locked; -1: not yet */
    struct locksmith *smith;
    struct keyring *ring; /* of now */
    struct others others;
    uint64_t held, switched, durable;
    uint64_t turn, turned; /* `turned`: the one that all workers have confirmed */
    struct digest *cuts;   /* of the turns that are not confirmed yet */
    size_t cut_count;
    int64_t adopted_ms;

    /* the link */
    struct link_client *link;
    struct event *link_event, *second;
    bool is_up, has_said_down;
    enum qw_reason down_reason;

    /* asking */
    struct sync syncs[MAX_SYNCS];
    unsigned sync_number;               /* of the last one */
    uint64_t told_applied, told_failed; /* in it */
    int64_t asked_ms, ask_at_ms;
    bool is_current;   /* since the link came up, the control plane has said that we have all of it */
    bool wants_resync; /* forget what is held */
    struct fetch fetch;
    int64_t retry_ms; /* the next pause after what cannot be applied */
    uint64_t failed;  /* the version that could not be */
    struct text trouble;
    uint64_t apply_errors;

    /* how old what we know is */
    int64_t heard_ms; /* monotonic; may lie before the machine's start. Good when has_heard */
    bool has_heard;
    int64_t heard_written_ms;
    enum cause refuses;
    bool is_drained;
    bool is_removed; /* the control plane said so, and has not taken us back */

    /* the disk */
    char path[MAX_PATH], heard_path[MAX_PATH], removed_path[MAX_PATH];
    bool wants_removed; /* what the folder says of that is to be written yet */
    int64_t removed_written_ms;
    struct scribe *scribe;
    struct event *scribe_event;
    uint64_t archive_version; /* of the archive that is there; journals from there on are kept */
    uint64_t epoch;           /* raised when what is on the disk begins anew */
    uint64_t journal_bytes;
    uint64_t saving;  /* version of the archive that is being written; 0: none */
    bool wants_whole; /* the journal cannot lead on: an archive must be written */
    int64_t whole_ms; /* when that was tried last */
    bool begins_anew; /* until then: what is on the disk is of another history */
    struct text disk_trouble;

    /* traffic */
    struct tally *tallies[MAX_TALLIES];
    unsigned tally_count;
    struct tally_book next, sent; /* `sent`: not counted by the control plane yet */
    uint64_t sequence;            /* of `sent` */
    bool has_sent, is_loading, is_acking;
    int64_t loaded_ms;
    uint64_t loads_lost;
    uint64_t done[MAX_DONE]; /* 0: none */
    unsigned done_at;
    uint64_t resync; /* the command that is being carried out; 0: none */
};

/* control.c */
/* How long ago the control plane was heard; -1: never. */
int64_t control_age_ms(const struct control *control, int64_t now_ms);
/* Why callers are refused now. True: it is another reason than before, or none any more; to be told. */
bool control_look_at_age(struct control *control, int64_t now_ms);
/* The one line about it. */
void control_say_removed(void);
/* The news of this turn, to all workers. */
void control_tell(struct control *control);

/* sync.c */
uint64_t sync_applied(const struct control *control);
/* Asks, when there is something to ask or to tell. */
void sync_go_on(struct control *control);
void sync_up(struct control *control);
void sync_down(struct control *control);
void sync_resync(struct control *control);
/* What could not be applied may be by now. */
void sync_try_again(struct control *control);

/* apply.c */
/* One of either kind. Its words are the rest of no sentence: a whole one. */
enum err apply_changes(struct control *control, const struct qw_update *update, struct text *why);
enum err apply_piece(struct control *control, const struct qw_update *update, struct text *why);
/* What lies in a journal: nobody is told. `to` may be what is held: then only removals of keys count. */
enum err apply_quietly(struct control *control, struct slice changes, uint64_t to, struct text *why);
void fetch_end(struct control *control);
/* The snapshot of these over the file. NULL: why. */
struct snapshot *overlay(struct snapshot *file, const struct others *others, uint64_t version, struct text *why,
                         struct text *warnings);

/* disk.c */
enum err disk_open(struct control *control, struct text *why);
/* What was applied, to be kept. */
void disk_note(struct control *control, struct slice changes, uint64_t from, uint64_t to);
/* is_other: of another history than what is there, none of which may come back. */
void disk_note_whole(struct control *control, bool is_other);
/* The ring has lost keys without being of another version. */
void disk_note_ring(struct control *control);
/* is_removed is so from now on, over restarts. */
void disk_note_removed(struct control *control);
/* Every second. */
void disk_tick(struct control *control, int64_t now_ms);
void disk_close(struct control *control);

/* traffic.c */
void traffic_tick(struct control *control, int64_t now_ms);
void traffic_release(struct control *control);

/* Lines one by one. */
void warn_lines(const struct text *lines);
