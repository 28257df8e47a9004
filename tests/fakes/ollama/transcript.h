/*
 * transcript - what a real Ollama answered, as recorded in ../ollama-transcripts/ and compiled in.
 * A file is two lines with the request, then the answer to the last byte. Read-only after transcripts_open();
 * any thread. `words` are the pieces of one recorded answer, ready to be said again.
 */
#pragma once
#include "bytes.h"

struct transcript_file {
    const char *name; /* without .http */
    const unsigned char *at;
    size_t len;
};

/* Made by the build; ends with a row without a name. */
extern const struct transcript_file transcript_files[];

struct piece {
    struct slice thinking;
    struct slice content;
    struct slice tool_arguments; /* the members of a tool call: "name":…,"arguments":{…} */
};

struct words {
    struct piece *pieces;
    size_t count;
    unsigned eval_count; /* as the final line counts them */
};

extern struct words words_plain;
extern struct words words_thinking;

/* dir may be NULL: then only the compiled-in ones. Files of dir win over those. */
void transcripts_open(const char *dir);
void transcripts_close(void);

/* The whole answer, or only its body without framing. False: there is no such transcript. */
bool transcript_answer(struct slice name, struct bytes *ret_answer);
bool transcript_body(const char *name, struct bytes *ret_body);
