/* options - what the command line said. Set once before the workers start, then only read. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *listen;
    const char *control;
    const char *transcripts;
    unsigned workers;
    uint64_t num_parallel;
    int64_t num_ctx;
    int64_t token_bytes;
    int64_t tokens; /* pieces of the default answer; 0: the recorded words */
    int64_t token_ms;
    int64_t first_token_ms;
    int64_t load_ms; /* of a model that is not resident */
    int64_t speed;   /* percent: all paces are divided by it */
    bool is_bench;
    bool is_cold; /* no model is resident at the start */
    bool is_quiet;
    bool checks_host; /* we listen on loopback, as Ollama does */
};

extern struct options options;
