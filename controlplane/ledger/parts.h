/* What the files of ledger/ share: outcome.c says what went wrong. Not a door. */
#pragma once
#include "ledger.h"

struct answer;

/* Slices live as long as the answer. */
void outcome_from(const struct answer *answer, struct outcome *ret_outcome);
/* "there is no user alice", in memory of the caller's. */
void outcome_missing(const char *noun, struct slice id, struct text *words, struct outcome *ret_outcome);
void outcome_no_memory(struct outcome *ret_outcome);
