/* Completion: scripts that know the whole table, so that completing asks nobody and starts nothing. */
#include "parts.h"

/* Those of a command, or, without one, those that every command takes. */
static const struct flag *flag_at(const struct command *command, unsigned i)
{
    return command ? command_flag(command, i) : everywhere[i].name ? &everywhere[i] : NULL;
}

static void add_flag_names(const struct command *command, struct text *out)
{
    const struct flag *flag;

    for (unsigned i = 0; (flag = flag_at(command, i)); i++) {
        text_printf(out, " --%s", flag->name);
        if (flag->has_no)
            text_printf(out, " --no-%s", flag->name);
    }
}

static void add_verbs(const char *noun, struct text *out)
{
    for (enum command_id id = noun_first(noun); id < COMMAND_COUNT && strcmp(commands[id].noun, noun) == 0; id++)
        text_printf(out, " %s", commands[id].verb);
}

static bool takes_file(const struct command *command)
{
    return command->argument && strncmp(command->argument, "FILE", 4) == 0;
}

/* One `case` arm a flag that takes a value, over all tables: flags of one name are alike. */
static void add_value_arms(struct text *out)
{
    const struct flag *seen[256], *flag;
    size_t count = 0;

    for (int id = -1; id < (int)COMMAND_COUNT; id++) {
        for (unsigned at = 0; (flag = flag_at(id < 0 ? NULL : &commands[id], at)); at++) {
            bool is_new = true;

            for (size_t i = 0; i < count; i++)
                if (strcmp(seen[i]->name, flag->name) == 0)
                    is_new = false;
            if (!is_new || flag->kind == FLAG_YES || count == sizeof seen / sizeof *seen)
                continue;
            seen[count++] = flag;
            text_printf(out, "        --%s", flag->name);
            if (flag->letter)
                text_printf(out, "|-%c", flag->letter);
            text_add_literal(out, ") ");
            if (flag->kind == FLAG_FILE) {
                text_add_literal(out, "COMPREPLY=($(compgen -f -- \"$now\")); compopt -o filenames; return ;;\n");
            } else if (flag->kind == FLAG_WORD) {
                text_add_literal(out, "COMPREPLY=($(compgen -W \"");
                flag_add_words(flag, ' ', out);
                text_add_literal(out, "\" -- \"$now\")); return ;;\n");
            } else {
                text_add_literal(out, "return ;;\n");
            }
        }
    }
}

void completion_add_bash(struct text *out)
{
    text_add_literal(out, "# bash completion for qwadm: source <(qwadm completion bash)\n"
                          "_qwadm() {\n"
                          "    local now=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=() i\n"
                          "    COMPREPLY=()\n"
                          "    if [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
                          "    if [[ $now == = ]]; then now=; fi\n"
                          "    case $before in\n");
    add_value_arms(out);
    text_add_literal(out, "    esac\n"
                          "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                          "        case ${COMP_WORDS[i]} in\n"
                          "        ");
    for (const struct flag *flag = everywhere, *first = flag; flag->name; flag++) {
        if (flag->kind == FLAG_YES)
            continue;
        text_printf(out, "%s--%s", flag == first ? "" : "|", flag->name);
        if (flag->letter)
            text_printf(out, "|-%c", flag->letter);
    }
    text_add_literal(out, ") ((i++)) ;;\n"
                          "        -*) ;;\n"
                          "        *) words+=(\"${COMP_WORDS[i]}\") ;;\n"
                          "        esac\n"
                          "    done\n"
                          "    local flags=\"");
    add_flag_names(NULL, out);
    text_add_literal(out, "\" offer=\n"
                          "    case \"${words[0]-} ${words[1]-}\" in\n");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        const struct command *command = &commands[id];

        text_printf(out, "    \"%s %s\"%s) flags+=\"", command->noun, command->verb, *command->verb ? "" : "*");
        add_flag_names(command, out);
        text_add_literal(out, "\"");
        if (command->argument_words) {
            text_add_literal(out, "; [[ ${words[1]-} ]] || offer=\"");
            flag_add_words(&(struct flag){ .words = command->argument_words }, ' ', out);
            text_add_literal(out, "\"");
        }
        if (takes_file(command))
            text_add_literal(out,
                             "; [[ $now == -* ]] || { COMPREPLY=($(compgen -f -- \"$now\")); compopt -o filenames; "
                             "return; }");
        text_add_literal(out, " ;;\n");
    }
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        if (!is_first_of_noun(id) || !*commands[id].verb)
            continue;
        text_printf(out, "    \"%s \"*) offer=\"", commands[id].noun);
        add_verbs(commands[id].noun, out);
        text_add_literal(out, "\" ;;\n");
    }
    text_add_literal(out, "    \" \") flags+=\" --version --man-page\"; offer=\"");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++)
        if (is_first_of_noun(id))
            text_printf(out, " %s", commands[id].noun);
    text_add_literal(out, "\" ;;\n"
                          "    esac\n"
                          "    [[ $now == -* ]] && offer=$flags\n"
                          "    COMPREPLY=($(compgen -W \"$offer\" -- \"$now\"))\n"
                          "}\n"
                          "complete -F _qwadm qwadm\n");
}

/* Text within single quotes of the shell, and of _arguments, which wants some more escaped. */
static void add_zsh(struct text *out, const char *words)
{
    for (; *words; words++) {
        if (*words == '\'')
            text_add_literal(out, "'\\''");
        else if (strchr("[]:\\", *words))
            text_printf(out, "\\%c", *words);
        else
            text_add_char(out, *words);
    }
}

static void add_zsh_flags(const struct command *command, struct text *out)
{
    const struct flag *flags;

    for (unsigned i = 0; (flags = flag_at(command, i)); i++) {
        for (unsigned turn = 0; turn < 2u + flags->has_no; turn++) {
            if (turn == 1 && !flags->letter)
                continue;
            text_add_literal(out, " \\\n            '");
            if (turn == 1)
                text_printf(out, "-%c", flags->letter);
            else
                text_printf(out, "%s--%s%s", flags->kind == FLAG_LIST ? "*" : "", turn == 2 ? "no-" : "", flags->name);
            text_add_char(out, '[');
            add_zsh(out, flags->help);
            text_add_char(out, ']');
            if (flags->kind == FLAG_WORD) {
                text_printf(out, ":%s:(", flag_form(flags));
                flag_add_words(flags, ' ', out);
                text_add_char(out, ')');
            } else if (flags->kind == FLAG_FILE) {
                text_add_literal(out, ":FILE:_files");
            } else if (flags->kind != FLAG_YES) {
                text_printf(out, ":%s: ", flag_form(flags));
            }
            text_add_char(out, '\'');
        }
    }
}

static void add_zsh_command(const struct command *command, struct text *out)
{
    text_add_literal(out, "        _arguments \\\n            '1:noun: ' ");
    if (*command->verb)
        text_add_literal(out, "'2:verb: ' ");
    if (command->argument) {
        text_printf(out, "'%d:%s:", *command->verb ? 3 : 2, takes_file(command) ? "FILE" : command->argument);
        if (command->argument_words) {
            text_add_char(out, '(');
            flag_add_words(&(struct flag){ .words = command->argument_words }, ' ', out);
            text_add_char(out, ')');
        } else {
            text_add_string(out, takes_file(command) ? "_files" : " ");
        }
        text_add_literal(out, "'");
    }
    add_zsh_flags(command, out);
    add_zsh_flags(NULL, out);
    text_add_literal(out, " ;;\n");
}

void completion_add_zsh(struct text *out)
{
    text_add_literal(out, "#compdef qwadm\n"
                          "# zsh completion for qwadm: source <(qwadm completion zsh), or keep it as _qwadm in $fpath\n"
                          "_qwadm() {\n"
                          "    local -a offered given\n"
                          "    given=(${words[2,CURRENT-1]:#-*})\n"
                          "    case \"${given[1]} ${given[2]}\" in\n");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        text_printf(out, "    \"%s %s\"%s)\n", commands[id].noun, commands[id].verb, *commands[id].verb ? "" : "*");
        add_zsh_command(&commands[id], out);
    }
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        if (!is_first_of_noun(id) || !*commands[id].verb)
            continue;
        text_printf(out, "    \"%s \"*)\n        offered=(", commands[id].noun);
        for (enum command_id each = id; each < COMMAND_COUNT && strcmp(commands[each].noun, commands[id].noun) == 0;
             each++) {
            text_printf(out, "\n            '%s:", commands[each].verb);
            add_zsh(out, commands[each].help);
            text_add_char(out, '\'');
        }
        text_add_literal(out, ")\n        _describe verb offered ;;\n");
    }
    text_add_literal(out, "    *)\n        offered=(");
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        if (!is_first_of_noun(id))
            continue;
        text_printf(out, "\n            '%s:", commands[id].noun);
        add_zsh(out, noun_help(commands[id].noun));
        text_add_char(out, '\'');
    }
    text_add_literal(out, ")\n        _describe noun offered ;;\n"
                          "    esac\n"
                          "}\n"
                          "if [[ ${funcstack[1]} == _qwadm ]]; then _qwadm \"$@\"; else compdef _qwadm qwadm; fi\n");
}
