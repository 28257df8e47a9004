/*
 * ask - the body of a request as Ollama's handlers see it after Go has decoded it: keys match in any case, the last
 * duplicate wins, types are checked with Go's words. Slices point into the body or the arena; short-lived.
 */
#pragma once
#include "gojson.h"

/* Unless a request says otherwise. */
#define KEEP_ALIVE_NS ((int64_t)300 * 1000000000)

enum ask_kind { ASK_CHAT, ASK_GENERATE, ASK_EMBED, ASK_SHOW };

struct ask {
    enum ask_kind kind;
    struct slice model;
    const struct go_value *messages; /* the array; NULL if none */
    const struct go_value *options;  /* the object; NULL if none */
    const struct go_value *tools;    /* the first tool; NULL if none */
    const struct go_value *format;   /* as sent; NULL if none */
    const struct go_value *input;    /* of embed */
    struct slice prompt;             /* of generate */
    struct slice suffix;
    struct slice last_user; /* content of the last message of role user, or the prompt */
    bool ends_in_tool;      /* the last message is a tool's result */
    bool has_messages;      /* or a prompt */
    bool streams;           /* unless told otherwise, yes */
    bool has_think;
    bool thinks;
    bool truncates;
    bool shifts;
    bool has_logprobs;
    bool unloads;          /* keep_alive is 0 */
    int64_t keep_alive_ns; /* -1: for ever */
    int64_t top_logprobs;
    uint64_t text_bytes; /* of everything that is rendered into the prompt */
    uint64_t text_words;
};

/* false: ret_why has the text Ollama answers with status 400. */
bool ask_read(struct ask *ask, enum ask_kind kind, struct arena *arena, struct slice body, struct bytes *ret_why);

/* false: ret_why says which option is of the wrong type; Ollama answers 500. Unknown options are ignored. */
bool ask_check_options(const struct ask *ask, struct bytes *ret_why);
/* The integer option of that name, or fallback. */
int64_t ask_option(const struct ask *ask, const char *name, int64_t fallback);
