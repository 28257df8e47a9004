/*
 * cmd - what the commands share: a session, and the few stories that most of them are (list, show, make, change, take
 * away). One file a noun stands beside it. main's, one thread; every function says by itself what went wrong.
 */
#pragma once
#include <jansson.h>

#include "command.h"
#include "config.h"
#include "output.h"
#include "remote.h"

struct session {
    struct call call;
    struct config config;
    struct output output;
    struct remote *remote;
    const char *waits_for; /* what a bar says; NULL: the server */
};

struct noun {
    const char *name;       /* "key" */
    const char *path;       /* "/admin/v1/keys" */
    const char *name_field; /* what it goes by: "name", "cidr" */
    const struct column *columns;
    size_t count;
    const char *made;             /* what is said of a new one; NULL: "was made" */
    void (*prepare)(json_t *row); /* makes a row more readable, for tables; may be NULL */
};
#define NOUN(noun, where, goes_by, table, ...)                                        \
    {                                                                                 \
        .name = (noun), .path = (where), .name_field = (goes_by), .columns = (table), \
        .count = sizeof(table) / sizeof *(table), __VA_ARGS__                         \
    }

#define ACTION(id) enum ending id(struct session *session);
COMMANDS(ACTION)
#undef ACTION

/* Asks, and complains where the answer is none or a refusal. END_DONE: ret_answer holds one, to be released. */
enum ending cmd_ask(struct session *session, const struct ask *ask, struct answer *ret_answer);
/* The same for what takes away: that it is gone is no refusal when it was sent again, because no answer had come. */
enum ending cmd_take_away(struct session *session, const struct ask *ask, struct answer *ret_answer);
/* "/admin/v1/keys/alice%2Flaptop" and what follows. */
void cmd_add_path(const struct noun *noun, const char *id, const char *more, struct text *out);

enum ending cmd_list(struct session *session, const struct noun *noun);
enum ending cmd_show(struct session *session, const struct noun *noun);
/* From the flags, and the argument as the name; `body` (taken over) instead where more is to be said. */
enum ending cmd_create(struct session *session, const struct noun *noun, json_t *body);
enum ending cmd_update(struct session *session, const struct noun *noun, json_t *body);
enum ending cmd_delete(struct session *session, const struct noun *noun, const char *done);
/* Its two halves. True: --yes, or a person says so; else *ret_ending. */
bool cmd_is_sure_of(const struct session *session, const struct noun *noun, enum ending *ret_ending);
enum ending cmd_delete_now(struct session *session, const struct noun *noun, const char *done);

/* What the flags say to the API; NULL: no memory. */
json_t *cmd_body(const struct session *session);
/* True when --yes or a person says so; else says why nothing is done, and sets *ret_ending. */
bool cmd_is_sure(const struct session *session, const char *question, enum ending *ret_ending);
/* The object's name as people say it: "alice/laptop". */
void cmd_add_name(const struct noun *noun, const json_t *object, struct text *out);
/* Prints an object that has a secret: the secret alone where the format is a table, with `words` beside it. */
enum ending cmd_print_secret(struct session *session, const struct noun *noun, const struct answer *answer,
                             const char *words);
/* Waits for as long as --wait says until the gateways go by this change, which was asked for at begun_ms. */
enum ending cmd_confirm(struct session *session, struct answer *answer, int64_t begun_ms, const char *done);
/* The same for what takes away: waits, then prints the object where it is asked for. */
enum ending cmd_finish(struct session *session, const struct noun *noun, struct answer *answer, int64_t begun_ms,
                       const char *done);
