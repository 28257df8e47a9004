/*
 * traffic - what the gateways do right now: their Loads added up over the last seconds. What it knows is gone with the
 * process, and is no bill.
 *
 * Owned by serve; outlives the roster, which feeds it. Loop thread only; knows no clock: time is passed in (monotonic).
 *
 * A Load is counted once: the same number of the same start of a gateway again adds nothing. Durations come as
 * histograms that can be added (qw.proto), so a percentile is of all gateways together, within an eighth.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "codec.h"
#include "text.h"

struct traffic;
struct traffic_source; /* a gateway */

struct traffic_options {
    int64_t window_ms;
    unsigned max_models, max_users; /* that are told apart; what comes beyond is "other" */
    unsigned max_named_users;       /* that the document names: those with the most tokens */
};

/* NULL: no memory. */
struct traffic *traffic_new(const struct traffic_options *options);
/* Returns NULL. Its sources have gone before. */
struct traffic *traffic_free(struct traffic *traffic);

/* NULL: no memory. */
struct traffic_source *traffic_source_new(struct traffic *traffic);
/* What it runs and what waits there is no more; what it did stays in the window. NULL is fine. Returns NULL. */
struct traffic_source *traffic_source_free(struct traffic_source *source);
/* It does not say anything any more: nothing runs there, as far as one knows. */
void traffic_source_silent(struct traffic_source *source);
/* `instance`: of this start of the gateway, may be empty. Returns the number of the last Load that is counted. */
uint64_t traffic_take(struct traffic_source *source, struct slice instance, const struct qw_load *load, int64_t now_ms);

/* Members of the load document, with a comma between: of one gateway "running", "waiting", "backends". */
void traffic_add_source(const struct traffic_source *source, struct text *out);
/* "models":[…],"users":[…] over all. */
void traffic_add_totals(struct traffic *traffic, int64_t now_ms, struct text *out);
int64_t traffic_window_ms(const struct traffic *traffic);
