/*
 * pieces - feeds messages to the codec whole, cut in two at every byte (long ones at hundreds), and byte by byte,
 * and insists that the outcome is the same each time. Buffers are allocated to the byte, so that a sanitizer sees
 * every read past the end; slices are checked to lie inside.
 */
#pragma once
#include "check.h"
#include "http.h"

enum side { REQUEST, RESPONSE, RESPONSE_TO_HEAD };

struct outcome {
    enum http_result result;
    const char *why; /* "" unless the result has one */
    struct http_head head;
    char *bytes; /* what the head's slices point into */
};

/* Ends the test when two ways of cutting differ. The caller releases the outcome. */
void outcome_of(struct outcome *ret_outcome, enum side side, struct slice message, size_t max_bytes);
void outcome_release(struct outcome *outcome);

struct body_outcome {
    enum http_result result;
    const char *why;
    size_t used; /* up to the end of the body or the fault's call */
    struct text payload;
};

void body_outcome_of(struct body_outcome *ret_outcome, enum http_framing framing, uint64_t length,
                     struct slice message);
void body_outcome_release(struct body_outcome *outcome);

const char *result_name(enum http_result result);
