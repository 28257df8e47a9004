/*
 * window - what happened in the last seconds: a ring of slots, of which each forgets what it held when its time comes
 * again. Not a door: others include traffic.h.
 */
#pragma once
#include "codec.h"

enum { WINDOW_SLOTS = 10 };

struct sums {
    uint64_t requests, refused, prompt_tokens, completion_tokens;
};

struct slot {
    int64_t number; /* of its time: now / length of a slot */
    struct sums sums;
    uint32_t *first_token, *duration; /* CODEC_STEPS counts each; NULL: none */
};

struct window {
    struct slot slots[WINDOW_SLOTS];
};

void window_release(struct window *window);
/* The slot of this time, emptied if it held an older one. */
struct slot *window_slot(struct window *window, int64_t number);
bool window_is_empty(const struct window *window, int64_t number);
void window_sum(const struct window *window, int64_t number, struct sums *ret_sums);
/* What does not fit is left out, since it is but a picture. */
void window_count(uint32_t **counts, const struct qw_histogram *histogram);
/* Adds the counts of all slots. */
void window_first_token(const struct window *window, int64_t number, uint64_t counts[CODEC_STEPS]);
void window_duration(const struct window *window, int64_t number, uint64_t counts[CODEC_STEPS]);

/* Below how many us this share of all counts lies, evened out within its step; -1: there are none. */
int64_t histogram_percentile_us(const uint64_t counts[CODEC_STEPS], unsigned percent);
