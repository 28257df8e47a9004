/*
 * problem - what came as an answer, read: JSON, or a refusal (RFC 9457) as one sentence with what to do about it.
 */
#pragma once
#include "remote.h"

/* ERR_OK, ERR_REFUSED with a sentence, or ERR_BAD: it is not an answer of the API (nothing is said then). */
enum err problem_read(const struct ask *ask, struct slice body, bool is_json, struct answer *answer, struct text *why);
