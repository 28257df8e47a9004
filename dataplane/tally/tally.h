/*
 * tally - what requests took, by model and by user, until the control plane has counted it.
 *
 * struct tally       a worker's: it adds, the control thread takes. The lock between them is held for one addition, or
 * for exchanging two pointers; nobody waits who has a caller waiting, since requests are added when they are over.
 * struct tally_book  figures that one thread adds to and reads.
 *
 * Beyond TALLY_MAX_MODELS and TALLY_MAX_USERS, and where there is no memory, everything counts as TALLY_OTHER: sums
 * stay right. Names are cut at CODEC_MAX_NAME bytes.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec.h"
#include "text.h"

enum { TALLY_MAX_MODELS = 256, TALLY_MAX_USERS = 9990 };

/* No user and no model is called so. Nobody: no key was good, as the log's first field says with a '!'. */
#define TALLY_OTHER  SLICE("!other")
#define TALLY_NOBODY SLICE("!nobody")

/* One that is over. */
struct tally_request {
    struct slice model; /* as callers name it; empty: none was asked for */
    struct slice user;  /* as the log shows it; empty: nobody */
    bool was_refused;
    int64_t total_us, first_token_us; /* first_token_us -1: none came */
    uint64_t prompt_tokens, completion_tokens;
};

struct tally_counts {
    uint64_t requests, refused, prompt_tokens, completion_tokens;
};

struct tally_histogram {
    uint64_t sum_us;
    uint32_t steps[CODEC_STEPS]; /* of histogram_step() */
};

struct tally_model {
    struct tally_counts counts;
    struct tally_histogram first_token, duration;
    uint8_t name_bytes;
    char name[CODEC_MAX_NAME];
};

struct tally_user {
    struct tally_user *next;
    struct tally_counts counts;
    uint8_t name_bytes;
    char name[];
};

enum { TALLY_BUCKETS = 1024 };

struct tally_book {
    struct tally_model *models[TALLY_MAX_MODELS]; /* those with a count first; the others are kept for the next ones */
    struct tally_model other_model;
    unsigned model_count, model_room;
    struct tally_user *users[TALLY_BUCKETS];
    struct tally_counts nobody, other_user;
    unsigned user_count;
};

struct tally;

/* NULL: no memory. */
struct tally *tally_new(void);
void tally_free(struct tally *tally);
/* Its worker's thread. */
void tally_add(struct tally *tally, const struct tally_request *request);
/* Control thread: what was added since the last time goes into the book. */
void tally_take(struct tally *tally, struct tally_book *book);

/* Zeroed memory is an empty book. */
void tally_book_release(struct tally_book *book);
/* Nothing has been added. */
bool tally_book_is_empty(const struct tally_book *book);
/* As many figures as fit into so many bytes of a message go from one book into the other, which was empty. */
void tally_book_move(struct tally_book *from, struct tally_book *into, size_t max_bytes);
