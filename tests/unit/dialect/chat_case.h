/*
 * chat_case - one request through the dialect and on to Ollama's JSON, for the tests of this folder.
 * Owned by the test; chat_case_release() gives everything back.
 */
#pragma once
#include "arena.h"
#include "dialect.h"
#include "kind.h"

struct chat_case {
    struct arena arena;
    struct inference inference;
    struct refusal refusal;
    struct text written; /* what Ollama would get */
    bool is_read;
};

/* Reads `body`; when it is accepted, writes Ollama's request for a model called "M" there. Nothing in it is tight then.
 */
void chat_case_run(struct chat_case *one, struct slice body);
void chat_case_release(struct chat_case *one);
