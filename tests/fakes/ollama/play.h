/*
 * play - one answer being given: what is said, in which pieces, at which times.
 * Lives in its connection; play_begin() … play_end(). It only writes bytes to a buffer and says when the next are
 * due; sending, splitting and hanging up are the connection's.
 */
#pragma once
#include "ask.h"
#include "books.h"
#include "transcript.h"

enum play_how {
    PLAY_FIXED,  /* bytes made beforehand */
    PLAY_PIECES, /* the model speaks */
    PLAY_LINES,  /* a script's lines */
    PLAY_SILENT, /* nothing, ever */
    PLAY_HANGUP, /* close without a byte */
};

enum play_step { PLAY_MORE, PLAY_ENDED, PLAY_STALLED, PLAY_DIES };

struct play {
    enum play_how how;
    bool is_generate;
    bool streams;
    bool is_http10;
    bool is_head_only; /* the method was HEAD */
    bool keeps_alive;
    bool needs_slot;
    struct model *model_used; /* until the end of the request; NULL: none */
    struct slots *slots;      /* where it wants one */
    int64_t keep_alive_ns;    /* of model_used, from the end on */
    uint64_t ready_ns;        /* model_used is loaded: nothing is said before */
    bool is_load;             /* asks the model nothing */
    char id[64];              /* a test's own number; "": none */
    bool has_head;            /* is out already */
    struct deed *deed;
    struct bytes fixed;
    struct bytes model; /* as a JSON string */
    const char *allow;  /* of a 405 */

    const struct words *words; /* said first, from..to */
    size_t words_from;
    size_t words_to;
    struct bytes echo; /* then this, eight bytes at a time */
    size_t echo_at;
    bool echoes_whole; /* all of it in one piece */
    struct bytes call; /* then this tool call */
    int64_t counted;   /* then that many pieces: prefix and number */
    const char *prefix;
    bool is_unnumbered;
    bool leaves_out_done;

    int64_t limit; /* pieces at most; reaching it is "length" */
    int64_t said;
    unsigned eval_whole; /* eval_count when said to the end; 0: what was said */
    int64_t prompt_tokens;
    int64_t eval_tokens;  /* as the last line said; -1: it has not come yet */
    struct bytes context; /* generate: "1,2,3" */
    bool has_logprobs;
    int64_t top_logprobs;

    int64_t head_delay_ms;
    int64_t first_token_ms;
    int64_t token_ms;
    int64_t speed; /* percent of the last two */
    uint64_t began_ns;
    uint64_t first_ns; /* when the first piece went */
    uint64_t due_ns;   /* of the next step */
};

void play_thread_end(void);         /* when a worker's thread ends */
void play_reset(struct play *play); /* gives back what it holds */

/* Starts the clock; due_ns says when the first step is wanted. */
void play_begin(struct play *play, uint64_t now_ns);
/* The next bytes. PLAY_MORE: come again at due_ns. ret_tokens: pieces in them. */
enum play_step play_step(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens);
/* What Go does when the request's context is cancelled under the handler. */
void play_cancel(struct play *play, struct bytes *out);

/* A whole answer into play->fixed. Bodies over 2048 bytes go chunked, as Go's server does it. */
void play_fix(struct play *play, int status, const char *content_type, struct slice body);
void play_fix_error(struct play *play, int status, struct slice text);
/* The line of a model that was loaded or unloaded: no speech, no counts. */
void play_write_load(const struct play *play, struct bytes *out, const char *reason);
/* {"error":…} as the answer to a request for a stream: chunked, without a charset. */
void play_fix_stream_error(struct play *play, int status, struct slice text);
