/* What the files of this room share. */
#pragma once
#include "command.h"

#define COMMAND_PROGRAM "qwadm"

/* Where a noun's rows begin; COMMAND_COUNT: there is no such noun. Rows of one noun follow each other. */
enum command_id noun_first(const char *noun);
bool is_first_of_noun(enum command_id id);
/* What is said of the noun as a whole. */
const char *noun_help(const char *noun);

struct exit_status {
    enum ending ending;
    const char *help;
};
extern const struct exit_status exit_statuses[];
extern const unsigned exit_status_count;

/* "NAME", "on|off" …: what stands for a flag's value. NULL: it takes none. */
const char *flag_form(const struct flag *flag);
void flag_add_words(const struct flag *flag, char between, struct text *out);
