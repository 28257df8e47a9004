/*
 * config - what qwadm goes by: flags, QWADM_… in the environment, ~/.config/qwadm.yaml (under XDG_CONFIG_HOME, if that
 * is set), /etc/qwadm.yaml; of each setting the first that says it holds. One table of rows. main's, for as long as the
 * program runs. Times are in _ms.
 *
 * A token stands in a file that only its owner may read, or in the environment; never in a flag, where others see it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "text.h"

struct config {
    const char *server, *token_file, *ca_file;
    const char *token;      /* once config_read_token() was asked */
    unsigned output, color; /* enum output_format, enum output_colour */
    int64_t timeout_ms, connect_timeout_ms;
    unsigned retries;
    uint64_t max_answer_bytes;
    bool allow_plain_http;
    const char *own_file;   /* which file is the user's own: where login writes; NULL: there is no home */
    const char *token_from; /* what said the token, for sentences */
    struct arena arena;
};

/* A setting that a flag says; NULL as the last one's key. */
struct config_flag {
    const char *key, *flag, *value;
};

/* `only_file`: read this one and no other; is_new: it need not be there yet. ERR_BAD with a sentence. */
enum err config_load(struct config *config, const char *only_file, bool is_new, const struct config_flag *flags,
                     struct text *why);
void config_release(struct config *config);
/* Reads token_file, if that is what holds. ERR_NOT_FOUND: no token was said anywhere. */
enum err config_read_token(struct config *config, struct text *why);
/* A file with one line, of mode 600. The secret is appended. */
enum err config_read_secret(const char *file, struct text *out, struct text *why);
/* Writes own_file, whole or not at all, with mode 600: what it said before, with this server, token and CA file. */
enum err config_keep(struct config *config, const char *token, struct text *why);

/* Row by row: its name, and what it means, for the page. */
void config_describe(void (*row)(void *arg, const char *title, const char *help), void *arg);
