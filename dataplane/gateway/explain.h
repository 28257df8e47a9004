/*
 * explain - the answer to --explain: what a request for a model would meet now, as lines for people. It reads what the
 * queue and the backends know, and adds why a backend takes none and what is wrong with it. Control thread only.
 */
#pragma once
#include <stdint.h>

#include "text.h"

struct fleet;
struct queues;
struct snapshot;

/* `model` as a caller would write it. 200; or 404 with one sentence: nobody could ask for it. */
unsigned explain_model(const struct snapshot *snapshot, struct fleet *fleet, struct queues *queues, struct slice model,
                       int64_t now_us, struct text *out);
