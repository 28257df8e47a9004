/*
 * kind - the kinds of backend: APIs that engines speak. Each writes the engine's request from the internal
 * form, and reads the engine's answer, line by line, into events. It knows nothing of what callers speak.
 * One file a kind; one table lists them. No state of its own: everything is passed in. Loop thread only.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct arena;
struct event;
struct inference;
struct refusal;

/* What the gateway decides, never the caller (openai-ollama.md 0.7: a difference reloads the model). */
struct placement {
    struct slice model;      /* the backend's name for it, plain */
    uint64_t num_ctx;        /* 0: not sent */
    struct slice keep_alive; /* as JSON; empty: not sent */
};

struct kind {
    const char *name; /* "ollama" */
    const char *chat_path;
    /* The body of the engine's request, from known fields only. */
    void (*write_chat)(const struct inference *inference, const struct placement *placement, struct text *out);
    /* The body of a request, to chat_path too, that has the model loaded just as chats want it, and costs no token. */
    void (*write_load)(const struct placement *placement, struct text *out);
    /*
     * One line of a stream, or the whole body when not streamed, into an event; its slices point into `line` or
     * `arena`. ERR_BAD: not what the engine may send. An engine's own error line gives an event with `error`.
     */
    enum err (*read_line)(struct slice line, struct arena *arena, struct event *ret_event);
    /* An answer with a status other than 200, its body as far as it was read, to what the caller is told
     * (rows 18 to 20 of behaviour.md 2.2). Texts are cleaned; `shown_model` replaces whatever the engine calls it. */
    void (*read_error)(unsigned status, struct slice body, struct slice shown_model, struct arena *arena,
                       struct refusal *ret_refusal);
    /* The same for an error that came as a line after a 200. */
    void (*read_broken)(struct slice error, struct slice shown_model, struct arena *arena, struct refusal *ret_refusal);
};

extern const struct kind kind_ollama;
