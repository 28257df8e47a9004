/*
 * command - what qwadm can be told: one table of commands and their flags, from which the parser, --help, the page
 * qwadm(1) and the completions of bash and zsh are made.
 *
 * The tables are constant. struct call is one command line, read and checked; it borrows argv, is main's, and lives as
 * long as the program. One thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

/* What the program ends with; the numbers are a promise to scripts. */
enum ending { END_DONE, END_REFUSED, END_USAGE, END_UNREACHABLE, END_UNCONFIRMED };

/* Each has a row in table.c and a function of this name in one of the cmd_*.c. */
#define COMMANDS(X)       \
    X(key_create)         \
    X(key_list)           \
    X(key_show)           \
    X(key_update)         \
    X(key_revoke)         \
    X(key_rotate)         \
    X(key_import)         \
    X(user_create)        \
    X(user_list)          \
    X(user_show)          \
    X(user_update)        \
    X(user_disable)       \
    X(user_enable)        \
    X(user_delete)        \
    X(team_create)        \
    X(team_list)          \
    X(team_show)          \
    X(team_update)        \
    X(team_delete)        \
    X(whitelist_add)      \
    X(whitelist_list)     \
    X(whitelist_remove)   \
    X(model_create)       \
    X(model_list)         \
    X(model_show)         \
    X(model_update)       \
    X(model_delete)       \
    X(backend_create)     \
    X(backend_list)       \
    X(backend_show)       \
    X(backend_update)     \
    X(backend_delete)     \
    X(gateway_enroll)     \
    X(gateway_list)       \
    X(gateway_show)       \
    X(gateway_resync)     \
    X(gateway_remove)     \
    X(admin_token_create) \
    X(admin_token_list)   \
    X(admin_token_revoke) \
    X(audit_list)         \
    X(status)             \
    X(top)                \
    X(login)              \
    X(completion)
#define COMMAND_ENUM(id) COMMAND_##id,
enum command_id { COMMANDS(COMMAND_ENUM) COMMAND_COUNT };
#undef COMMAND_ENUM

enum flag_kind {
    FLAG_YES,    /* stands alone; `has_no`: --no-NAME says the opposite */
    FLAG_TEXT,   /* one line */
    FLAG_NUMBER, /* a whole number from min to max */
    FLAG_LIST,   /* texts separated by commas; may be repeated */
    FLAG_FILE,   /* a path, which completion completes */
    FLAG_WORD,   /* one of `words` */
    FLAG_SPAN,   /* 90d, 24h, 30m, 15s */
    FLAG_WHEN,   /* a span from now, a date, a time, or "never" where `is_clearable` */
};

struct flag {
    const char *name; /* without its dashes */
    char letter;
    enum flag_kind kind;
    const char *form; /* what stands for its value in help; NULL: the kind's own */
    const char *const *words;
    int64_t min, max;
    const char *field; /* what the API calls it, in a body or a query; NULL: it is the command's own matter */
    bool is_required, has_no;
    bool is_clearable;    /* an empty value takes away what was set */
    bool is_past;         /* FLAG_WHEN: a span counts back from now */
    const char *fallback; /* what holds without it, for help, and for flag_text(); NULL: nothing is said */
    const char *help;
};

struct command {
    const char *noun, *verb; /* verb "": a noun that needs none */
    const char *argument;    /* "KEY"; NULL: none */
    const char *argument_help;
    const char *const *argument_words; /* those that it may be; NULL: any */
    const char *instead;               /* the flag that stands for all of them; NULL: there is none */
    const char *help;                  /* one line, as an order */
    const char *more;                  /* what else is worth knowing; may be NULL */
    const char *example;
    const struct flag *flags[6]; /* lists, each ended by one without a name */
    bool is_destructive;         /* asks first, or wants --yes */
};

extern const struct command commands[COMMAND_COUNT];
extern const struct flag everywhere[]; /* what every command takes */
/* Its flags one by one, all of their lists; NULL: there are no more. */
const struct flag *command_flag(const struct command *command, unsigned i);

enum { CALL_MAX_FLAGS = 32, CALL_MAX_VALUES = 64 };

struct call {
    enum command_id id; /* COMMAND_COUNT: none was named, as with --version */
    const char *argument;
    struct given {
        const struct flag *flag;
        const char *value; /* "" and "no" for FLAG_YES */
    } given[CALL_MAX_VALUES];
    unsigned given_count;
    bool wants_help, wants_version, wants_man_page;
    const char *help_noun; /* help was asked for this noun alone */
};

/* ERR_BAD: `why` says what is wrong, and what was probably meant. */
enum err call_parse(struct call *call, int argc, char *const *argv, struct text *why);

/* Of a flag of this command or one that stands everywhere; asking for one that it has not is our mistake. */
bool call_takes(const struct call *call, const char *name);       /* it could be given */
bool call_has(const struct call *call, const char *name);         /* it was given */
bool call_says_yes(const struct call *call, const char *name);    /* given, and not as --no-NAME */
const char *call_text(const struct call *call, const char *name); /* given, else its fallback, else NULL */
int64_t call_span_ms(const struct call *call, const char *name);  /* the same as milliseconds; -1: none */
int64_t call_number(const struct call *call, const char *name, int64_t otherwise);

/* 90d and the like to milliseconds. */
bool span_parse(struct slice text, int64_t *ret_ms);
/* A date or a time (RFC 3339) to seconds since 1970. A date alone is its first moment in UTC. */
bool when_parse(struct slice text, int64_t *ret_seconds);

/* "key create", "status" */
void command_add_name(const struct command *command, struct text *out);
void help_add_program(struct text *out);
void help_add_noun(const char *noun, struct text *out);
void help_add_command(const struct command *command, struct text *out);
/* qwadm(1), in the macros of man(7): all commands; further chapters with their rows; the end. */
void page_add(struct text *out);
void page_add_title(struct text *out, const char *title, const char *words);
void page_add_setting(struct text *out, const char *title, const char *help);
void page_add_end(struct text *out);
void completion_add_bash(struct text *out);
void completion_add_zsh(struct text *out);

/* The nearest of `count` words, or NULL when none is near. */
const char *suggest(struct slice word, const char *const *words, size_t count);
