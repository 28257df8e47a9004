/*
 * remote - the control plane's API, as seen from here: libcurl's only door. One question at a time, each answered or
 * given up within its time; sent again only where that does nothing twice. Redirects are not followed, proxies from the
 * environment are used for https only, and what is longer than allowed or no JSON is no answer.
 * main's, for as long as the program runs; one thread. Times are in _ms.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct json_t;
struct remote;

struct remote_options {
    const char *server; /* http://…, https://…, unix:/PATH */
    const char *token, *ca_file;
    const char *program; /* "qwadm/0.1.0" */
    int64_t timeout_ms, connect_timeout_ms;
    unsigned retries;
    uint64_t max_answer_bytes;
    bool allow_plain_http;
};

/* Where something else is waited for as well (keys, signals): when it can be read, asking ends with ERR_AGAIN. */
struct remote_waiting {
    int fd;                     /* -1: nothing */
    void (*on_tick)(void *arg); /* some ten times a second while an answer is waited for; may be NULL */
    void *arg;
};

struct ask {
    const char *method, *path; /* the path with its query, escaped */
    struct slice body;         /* JSON; nothing: none */
    const char *if_match;
    bool is_keyed;        /* carries an Idempotency-Key, so that it may be sent again */
    int64_t more_time_ms; /* the server was asked to wait for this long */
    const char *hint_at,
        *hint; /* what to do when this place in the body (a JSON pointer) is wrong; NULL: nothing is known */
};

struct answer {
    unsigned status;
    struct json_t *body; /* NULL: it had none */
    uint64_t config_version;
    bool is_replay; /* it is the answer to an earlier sending, without what is told only once */
    bool was_sent_again;
    char code[64]; /* of a refusal */
};

/* NULL: `why` says what is wrong with the options. */
struct remote *remote_open(const struct remote_options *options, struct text *why);
void remote_close(struct remote *remote);
void remote_wait_with(struct remote *remote, const struct remote_waiting *waiting);
/*
 * ERR_OK: 2xx. ERR_REFUSED: a refusal of the API. ERR_GONE: no answer that could be understood. ERR_AGAIN: something
 * else came. With a sentence, but for the last; answer_release() is due in any case.
 */
enum err remote_ask(struct remote *remote, const struct ask *ask, struct answer *ret_answer, struct text *why);
void answer_release(struct answer *answer);
/* Appends what stands for one segment of a path or one value of a query. */
void remote_add_escaped(struct text *out, struct slice text);
