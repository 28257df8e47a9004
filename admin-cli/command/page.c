/* qwadm(1), from the table, in the macros of man(7). */
#include "parts.h"

enum { FILL = 78 };

static size_t column_of(const struct text *out)
{
    const char *line = out->len ? memrchr(out->at, '\n', out->len) : NULL;

    return out->len - (line ? (size_t)(line + 1 - out->at) : 0);
}

/* One character as roff takes it: backslashes, dashes that are to be typed, dots and quotes at the start of a line. */
static void add_character(struct text *out, char c)
{
    if (c == '\\')
        text_add_literal(out, "\\e");
    else if (c == '-')
        text_add_literal(out, "\\-");
    else if ((c == '.' || c == '\'') && column_of(out) == 0)
        text_printf(out, "\\&%c", c);
    else
        text_add_char(out, c);
}

static void add_text(struct text *out, const char *words)
{
    for (const char *at = words; *at; at++) {
        size_t next = *at == ' ' ? strcspn(at + 1, " \n") : 0;

        if (*at == ' ' && column_of(out) + next > FILL)
            text_add_char(out, '\n');
        else
            add_character(out, *at);
    }
}

/* What is to stay on its line. */
static void add_as_is(struct text *out, const char *words)
{
    while (*words)
        add_character(out, *words++);
}

/* The same as an argument of a macro. */
static void add_quoted(struct text *out, const char *words)
{
    text_add_char(out, '"');
    for (; *words; words++) {
        if (*words == '"')
            text_add_literal(out, "\\(dq");
        else
            add_character(out, *words);
    }
    text_add_char(out, '"');
}

static void add_flag(struct text *out, const struct flag *flag)
{
    text_add_literal(out, ".TP\n");
    if (flag->letter)
        text_printf(out, "\\fB\\-%c\\fR, ", flag->letter);
    text_add_literal(out, "\\fB\\-\\-");
    add_text(out, flag->name);
    text_add_literal(out, "\\fR");
    if (flag->has_no) {
        text_add_literal(out, ", \\fB\\-\\-no\\-");
        add_text(out, flag->name);
        text_add_literal(out, "\\fR");
    }
    if (flag->kind == FLAG_WORD) {
        text_add_char(out, ' ');
        flag_add_words(flag, '|', out);
    } else if (flag->kind != FLAG_YES) {
        text_add_literal(out, " \\fI");
        add_text(out, flag_form(flag));
        text_add_literal(out, "\\fR");
    }
    text_add_char(out, '\n');
    add_text(out, flag->help);
    if (flag->is_required)
        add_text(out, " (needed)");
    if (flag->fallback) {
        add_text(out, " (default ");
        add_text(out, flag->fallback);
        text_add_char(out, ')');
    }
    text_add_literal(out, ".\n");
}

static void add_command(struct text *out, const struct command *command)
{
    const struct flag *flag;
    struct text name;

    text_init(&name, 256);
    text_add_literal(&name, "qwadm ");
    command_add_name(command, &name);
    if (command->argument)
        text_printf(&name, " %s", command->argument);
    text_add_literal(out, ".SS ");
    add_quoted(out, text_string(&name));
    text_release(&name);
    text_add_char(out, '\n');
    text_add_char(out, (char)(command->help[0] - 'a' + 'A'));
    add_text(out, command->help + 1);
    text_add_literal(out, ".\n");
    if (command->more) {
        add_text(out, command->more);
        text_add_char(out, '\n');
    }
    if (command->argument) {
        text_add_literal(out, ".TP\n\\fI");
        add_text(out, command->argument);
        text_add_literal(out, "\\fR\n");
        add_text(out, command->argument_help);
        text_add_literal(out, ".\n");
    }
    for (unsigned i = 0; (flag = command_flag(command, i)); i++)
        add_flag(out, flag);
    text_add_literal(out, ".PP\nExample:\n.PP\n.nf\n.RS\n");
    add_as_is(out, command->example);
    text_add_literal(out, "\n.RE\n.fi\n");
}

void page_add(struct text *out)
{
    text_add_literal(out,
                     ".\\\" Made from the table in admin-cli/command/table.c (qwadm --man-page).\n"
                     ".TH QWADM 1 2026-11-23 \"Qwen Gateway\"\n"
                     ".SH NAME\nqwadm \\- administers Qwen Gateway\n"
                     ".SH SYNOPSIS\n\\fBqwadm\\fR \\fINOUN\\fR \\fIVERB\\fR [\\fIARGUMENT\\fR] [\\fIFLAG\\fR ...]\n"
                     ".SH DESCRIPTION\n");
    add_text(out,
             "qwadm asks the control plane of Qwen Gateway, qwen-control, over its API: keys, users, models, backends, "
             "gateways, and what is going on.\n"
             "Answers go to standard output, everything else to standard error.\n"
             "It never asks a question where standard input is no terminal: what destroys wants --yes there.\n"
             "What the server says is shown without the characters that a terminal would obey.\n"
             "In CSV (RFC 4180) a text that a spreadsheet would take for a formula begins with an apostrophe.\n"
             "Durations are a whole number with d, h, m or s; times are UTC.\n");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        if (is_first_of_noun(id)) {
            text_add_literal(out, ".SH ");
            for (const char *letter = commands[id].noun; *letter; letter++)
                text_add_char(out, *letter >= 'a' && *letter <= 'z' ? (char)(*letter - 'a' + 'A') : *letter);
            text_add_char(out, '\n');
            if (*commands[id].verb) {
                text_add_char(out, (char)(noun_help(commands[id].noun)[0] - 'a' + 'A'));
                add_text(out, noun_help(commands[id].noun) + 1);
                text_add_literal(out, ".\n");
            }
        }
        add_command(out, &commands[id]);
    }
    text_add_literal(out, ".SH FLAGS OF EVERY COMMAND\n");
    for (const struct flag *flag = everywhere; flag->name; flag++)
        add_flag(out, flag);
}

void page_add_end(struct text *out)
{
    text_add_literal(out, ".SH EXIT STATUS\n");
    for (unsigned i = 0; i < exit_status_count; i++) {
        text_printf(out, ".TP\n%d\n", (int)exit_statuses[i].ending);
        add_text(out, exit_statuses[i].help);
        text_add_literal(out, ".\n");
    }
    text_add_literal(out, ".SH SEE ALSO\nqwen\\-control, qwen\\-gateway; docs/control.md\n");
}

void page_add_setting(struct text *out, const char *title, const char *help)
{
    text_add_literal(out, ".TP\n\\fB");
    add_text(out, title);
    text_add_literal(out, "\\fR\n");
    add_text(out, help);
    text_add_char(out, '\n');
}

void page_add_title(struct text *out, const char *title, const char *words)
{
    text_printf(out, ".SH %s\n", title);
    add_text(out, words);
    text_add_char(out, '\n');
}
