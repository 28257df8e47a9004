/* --help, for a terminal of 80 columns. */
#include "parts.h"

enum { WIDTH = 80, FLAG_COLUMN = 26, NAME_COLUMN = 24 };

/* Breaks at spaces, so that lines that begin at `column` end before WIDTH. The first line goes on where we are. */
static void add_wrapped(struct text *out, const char *words, unsigned column)
{
    unsigned at = column;

    while (*words) {
        size_t len = strcspn(words, " ");
        unsigned width = (unsigned)utf8_count((struct slice){ words, len });

        if (at > column && at + 1 + width > WIDTH) {
            text_printf(out, "\n%*s", (int)column, "");
            at = column;
        } else if (at > column) {
            text_add_char(out, ' ');
            at++;
        }
        text_add(out, words, len);
        at += width;
        words += len + (words[len] == ' ');
    }
    text_add_char(out, '\n');
}

static void add_row(struct text *out, const char *name, const char *help, unsigned column)
{
    size_t width = utf8_count(slice_of(name));

    text_printf(out, "  %s", name);
    if (width + 4 > column)
        text_printf(out, "\n%*s", (int)column, "");
    else
        text_printf(out, "%*s", (int)(column - 2 - width), "");
    add_wrapped(out, help, column);
}

static void add_flag(struct text *out, const struct flag *flag)
{
    struct text name, help;

    text_init(&name, 1024);
    text_init(&help, 4096);
    if (flag->letter)
        text_printf(&name, "-%c, ", flag->letter);
    text_printf(&name, "--%s", flag->name);
    if (flag->has_no)
        text_printf(&name, ", --no-%s", flag->name);
    if (flag->kind == FLAG_WORD) {
        text_add_char(&name, ' ');
        flag_add_words(flag, '|', &name);
    } else if (flag->kind != FLAG_YES) {
        text_printf(&name, " %s", flag_form(flag));
    }
    text_add_string(&help, flag->help);
    if (flag->is_required)
        text_add_literal(&help, " (needed)");
    if (flag->fallback)
        text_printf(&help, " (default %s)", flag->fallback);
    add_row(out, text_string(&name), text_string(&help), FLAG_COLUMN);
    text_release(&name);
    text_release(&help);
}

static void add_flags(struct text *out, const struct command *command)
{
    const struct flag *flag;

    for (unsigned i = 0; (flag = command_flag(command, i)); i++) {
        if (!i)
            text_add_literal(out, "\nFlags:\n");
        add_flag(out, flag);
    }
}

static void add_everywhere(struct text *out)
{
    text_add_literal(out, "\nEverywhere:\n");
    for (const struct flag *flag = everywhere; flag->name; flag++)
        add_flag(out, flag);
}

static void add_verbs(struct text *out, enum command_id id)
{
    const char *noun = commands[id].noun;

    for (enum command_id first = id; id < COMMAND_COUNT && strcmp(commands[id].noun, noun) == 0; id++)
        text_printf(out, "%s%s", id == first ? "" : "|", commands[id].verb);
}

void help_add_program(struct text *out)
{
    text_add_literal(out, "usage: qwadm NOUN VERB [ARGUMENT] [FLAG …]\n\n"
                          "Administers Qwen Gateway: asks its control plane, qwen-control, over its API.\n\n"
                          "Commands:\n");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        struct text name;

        if (!is_first_of_noun(id))
            continue;
        text_init(&name, 1024);
        text_add_string(&name, commands[id].noun);
        if (*commands[id].verb) {
            text_add_char(&name, ' ');
            add_verbs(&name, id);
        } else if (commands[id].argument) {
            text_printf(&name, " %s", commands[id].argument);
        }
        add_row(out, text_string(&name), noun_help(commands[id].noun), NAME_COLUMN);
        text_release(&name);
    }
    add_everywhere(out);
    add_row(out, "--version", "print the version", FLAG_COLUMN);
    add_row(out, "--man-page", "print the page qwadm(1)", FLAG_COLUMN);
    text_add_literal(out, "\nSettings come from flags, QWADM_… in the environment, ~/.config/qwadm.yaml and\n"
                          "/etc/qwadm.yaml, in this order. Begin with `qwadm login`.\n\n"
                          "Exit status:\n");
    for (unsigned i = 0; i < exit_status_count; i++) {
        char number[2] = { (char)('0' + exit_statuses[i].ending), 0 };

        add_row(out, number, exit_statuses[i].help, 5);
    }
    text_add_literal(out, "\nMore: qwadm NOUN VERB --help\n"
                          "Example: qwadm key create --user alice --name laptop --create-user\n");
}

void help_add_noun(const char *noun, struct text *out)
{
    enum command_id id = noun_first(noun);

    text_printf(out, "usage: qwadm %s ", noun);
    add_verbs(out, id);
    text_printf(out, " …\n\n%s: %s.\n\n", noun, noun_help(noun));
    for (enum command_id each = id; each < COMMAND_COUNT && strcmp(commands[each].noun, noun) == 0; each++) {
        struct text name;

        text_init(&name, 1024);
        command_add_name(&commands[each], &name);
        if (commands[each].argument)
            text_printf(&name, " %s", commands[each].argument);
        add_row(out, text_string(&name), commands[each].help, 30);
        text_release(&name);
    }
    text_printf(out, "\nMore: qwadm %s %s --help\nExample: %s\n", noun, commands[id].verb, commands[id].example);
}

void help_add_command(const struct command *command, struct text *out)
{
    const struct flag *flag;

    text_add_literal(out, "usage: qwadm ");
    command_add_name(command, out);
    if (command->argument)
        text_printf(out, " %s", command->argument);
    for (unsigned i = 0; (flag = command_flag(command, i)); i++)
        if (flag->is_required)
            text_printf(out, " --%s %s", flag->name, flag_form(flag));
    text_add_literal(out, " [FLAG …]\n\n");
    text_add_char(out, (char)(command->help[0] - 'a' + 'A'));
    text_printf(out, "%s.\n", command->help + 1);
    if (command->more) {
        text_add_char(out, '\n');
        add_wrapped(out, command->more, 0);
    }
    if (command->argument) {
        text_add_char(out, '\n');
        add_row(out, command->argument, command->argument_help, FLAG_COLUMN);
    }
    add_flags(out, command);
    add_everywhere(out);
    text_printf(out, "\nExample:\n  %s\n", command->example);
}
