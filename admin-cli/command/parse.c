/* A command line, read from left to right: noun, verb, an argument; flags may stand anywhere behind the noun's name. */
#include "parts.h"

#include <assert.h>
#include <stdlib.h>

#include "clock.h"

#define SECOND INT64_C(1000)
#define DAY    (24 * 3600 * SECOND)

enum { MAX_WORDS = CALL_MAX_FLAGS + 16, MAX_SPAN_DIGITS = 9 };

struct parsing {
    struct call *call;
    struct text *why;
    const struct command *command;
    const char *noun; /* as typed */
    bool has_command; /* noun and verb are known */
    bool only_words;  /* behind -- */
};

/* Values --------------------------------------------------------------------------------------------------------- */

bool span_parse(struct slice text, int64_t *ret_ms)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = { { 'd', DAY }, { 'h', 3600 * SECOND }, { 'm', 60 * SECOND }, { 's', SECOND } };
    int64_t number = 0;

    if (text.len < 2 || text.len - 1 > MAX_SPAN_DIGITS)
        return false;
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        number = number * 10 + (text.at[i] - '0');
    }
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (units[i].unit == text.at[text.len - 1]) {
            *ret_ms = number * units[i].ms; /* nine digits of days are far from the end of an int64_t */
            return true;
        }
    }
    return false;
}

bool when_parse(struct slice text, int64_t *ret_seconds)
{
    static const char midnight[] = "T00:00:00Z";
    char whole[sizeof "2026-11-22" + sizeof midnight];
    int64_t seconds;

    if (text.len == strlen("2026-11-22")) {
        memcpy(whole, text.at, text.len);
        memcpy(whole + text.len, midnight, sizeof midnight);
        text = slice_of(whole);
    }
    seconds = clock_parse_rfc3339(text.at, text.len);
    if (seconds < 0)
        return false;
    *ret_seconds = seconds;
    return true;
}

static bool parse_number(const char *value, int64_t *ret_number)
{
    char *end;
    size_t len = strlen(value);

    if (!len || len > 15 || strspn(value, "0123456789") != len)
        return false;
    *ret_number = strtoll(value, &end, 10);
    return true;
}

static bool has_controls(const char *value)
{
    for (; *value; value++)
        if ((unsigned char)*value < 0x20 || *value == 0x7f)
            return true;
    return false;
}

static enum err refuse_word(const struct flag *flag, const char *value, struct text *why)
{
    size_t count = 0;
    const char *near;

    while (flag->words[count])
        count++;
    near = suggest(slice_of(value), flag->words, count);
    text_printf(why, "--%s must be one of ", flag->name);
    flag_add_words(flag, ' ', why);
    text_printf(why, ", not \"%s\"", value);
    if (near)
        text_printf(why, ": did you mean %s?", near);
    return ERR_BAD;
}

static enum err check_number(const struct flag *flag, const char *value, struct text *why)
{
    int64_t number;

    if (parse_number(value, &number) && number >= flag->min && number <= flag->max)
        return ERR_OK;
    text_printf(why, "--%s must be a whole number from %lld to %lld, not \"%s\"", flag->name, (long long)flag->min,
                (long long)flag->max, value);
    return ERR_BAD;
}

static enum err check_when(const struct flag *flag, const char *value, struct text *why)
{
    int64_t unused;

    if (span_parse(slice_of(value), &unused) || when_parse(slice_of(value), &unused) ||
        (flag->is_clearable && strcmp(value, "never") == 0))
        return ERR_OK;
    text_printf(
        why,
        "--%s must be a time from now (90d, 24h, 30m, 15s), a date (2027-01-31) or a time (2027-01-31T12:00:00Z)%s, "
        "not \"%s\"",
        flag->name, flag->is_clearable ? ", or never" : "", value);
    return ERR_BAD;
}

static enum err check_value(const struct flag *flag, const char *value, struct text *why)
{
    int64_t unused;

    if (!utf8_valid(slice_of(value)) || has_controls(value)) {
        text_printf(why, "--%s must be one line of UTF-8", flag->name);
        return ERR_BAD;
    }
    if (!*value && flag->is_clearable)
        return ERR_OK;
    if (!*value && (flag->is_required || flag->kind != FLAG_TEXT) && flag->kind != FLAG_LIST) {
        text_printf(why, "--%s must not be empty", flag->name);
        return ERR_BAD;
    }
    switch (flag->kind) {
    case FLAG_NUMBER:
        return check_number(flag, value, why);
    case FLAG_WORD:
        for (const char *const *word = flag->words; *word; word++)
            if (strcmp(*word, value) == 0)
                return ERR_OK;
        return refuse_word(flag, value, why);
    case FLAG_SPAN:
        if (span_parse(slice_of(value), &unused))
            return ERR_OK;
        text_printf(why, "--%s must be a whole number with d, h, m or s (24h), not \"%s\"", flag->name, value);
        return ERR_BAD;
    case FLAG_WHEN:
        return check_when(flag, value, why);
    default:
        return ERR_OK;
    }
}

/* Flags ---------------------------------------------------------------------------------------------------------- */

/* The flags that may stand here, one by one: the command's own, then those of all. */
static const struct flag *flag_at(const struct command *command, unsigned i)
{
    unsigned own = 0;

    while (command && command_flag(command, own))
        own++;
    return i < own ? command_flag(command, i) : everywhere[i - own].name ? &everywhere[i - own] : NULL;
}

static const struct flag *find(const struct command *command, struct slice name)
{
    const struct flag *flag;

    for (unsigned i = 0; (flag = flag_at(command, i)); i++)
        if (slice_is(slice_of(flag->name), name))
            break;
    return flag;
}

static const struct flag *find_letter(const struct command *command, char letter)
{
    const struct flag *flag;

    for (unsigned i = 0; (flag = flag_at(command, i)); i++)
        if (flag->letter == letter)
            break;
    return flag;
}

static enum err refuse_flag(const struct parsing *parsing, struct slice name)
{
    const char *words[MAX_WORDS];
    const char *near;
    size_t count = 0;

    for (const struct flag *flag; count < MAX_WORDS && (flag = flag_at(parsing->command, (unsigned)count));)
        words[count++] = flag->name;
    near = suggest(name, words, count);
    text_printf(parsing->why, "there is no --%.*s", (int)name.len, name.at);
    if (parsing->command) {
        text_add_literal(parsing->why, " for ");
        command_add_name(parsing->command, parsing->why);
    }
    if (near)
        text_printf(parsing->why, ": did you mean --%s?", near);
    else
        text_add_literal(parsing->why, "; --help says what there is");
    return ERR_BAD;
}

static enum err give(struct parsing *parsing, const struct flag *flag, const char *value)
{
    struct call *call = parsing->call;

    if (flag->kind != FLAG_LIST && flag->kind != FLAG_YES && call_has(call, flag->name)) {
        text_printf(parsing->why, "--%s is given twice", flag->name);
        return ERR_BAD;
    }
    if (call->given_count == CALL_MAX_VALUES) {
        text_printf(parsing->why, "there are more than %d flags", CALL_MAX_VALUES);
        return ERR_BAD;
    }
    if (flag->kind != FLAG_YES && check_value(flag, value, parsing->why) != ERR_OK)
        return ERR_BAD;
    if (strcmp(flag->name, "help") == 0)
        call->wants_help = true;
    call->given[call->given_count++] = (struct given){ flag, value };
    return ERR_OK;
}

/* Sets *ret_used when the next word was the value. */
static enum err read_long(struct parsing *parsing, const char *word, const char *next, bool *ret_used)
{
    const char *sign = strchr(word, '=');
    struct slice name = { word, sign ? (size_t)(sign - word) : strlen(word) };
    const struct flag *flag = find(parsing->command, name);
    const char *value = sign ? sign + 1 : next;
    bool says_no = !flag && slice_starts(name, SLICE("no-"));

    if (says_no) {
        flag = find(parsing->command, (struct slice){ name.at + 3, name.len - 3 });
        if (flag && !flag->has_no)
            flag = NULL;
    }
    if (!flag)
        return refuse_flag(parsing, name);
    if (flag->kind == FLAG_YES) {
        if (!sign)
            return give(parsing, flag, says_no ? "no" : "");
        text_printf(parsing->why, "--%s takes no value", flag->name);
        return ERR_BAD;
    }
    if (!value) {
        text_printf(parsing->why, "--%s needs a value: %s", flag->name, flag_form(flag));
        return ERR_BAD;
    }
    *ret_used = !sign;
    return give(parsing, flag, value);
}

static enum err read_short(struct parsing *parsing, const char *word, const char *next, bool *ret_used)
{
    for (; *word; word++) {
        const struct flag *flag = find_letter(parsing->command, *word);
        enum err err;

        if (!flag) {
            text_printf(parsing->why, "there is no -%c; --help says what there is", *word);
            return ERR_BAD;
        }
        if (flag->kind != FLAG_YES) {
            if (!word[1] && !next) {
                text_printf(parsing->why, "-%c needs a value: %s", *word, flag_form(flag));
                return ERR_BAD;
            }
            *ret_used = !word[1];
            return give(parsing, flag, word[1] ? word + 1 : next);
        }
        err = give(parsing, flag, "");
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

/* Words ---------------------------------------------------------------------------------------------------------- */

static enum err refuse_noun(const char *word, struct text *why)
{
    const char *words[COMMAND_COUNT];
    const char *near;
    size_t count = 0;

    for (enum command_id id = 0; id < COMMAND_COUNT; id++)
        if (is_first_of_noun(id))
            words[count++] = commands[id].noun;
    near = suggest(slice_of(word), words, count);
    text_printf(why, "there is no command \"%s\"", word);
    if (near)
        text_printf(why, ": did you mean %s?", near);
    else
        text_add_literal(why, "; qwadm --help says what there is");
    return ERR_BAD;
}

static enum err refuse_verb(const char *noun, const char *word, struct text *why)
{
    const char *words[COMMAND_COUNT];
    const char *near;
    size_t count = 0;

    for (enum command_id id = noun_first(noun); id < COMMAND_COUNT && strcmp(commands[id].noun, noun) == 0; id++)
        words[count++] = commands[id].verb;
    near = suggest(slice_of(word), words, count);
    text_printf(why, "there is no \"%s %s\"", noun, word);
    if (near) {
        text_printf(why, ": did you mean %s %s?", noun, near);
    } else {
        text_printf(why, ": %s takes ", noun);
        for (size_t i = 0; i < count; i++)
            text_printf(why, "%s%s", i ? i + 1 == count ? " and " : ", " : "", words[i]);
    }
    return ERR_BAD;
}

static void choose(struct parsing *parsing, enum command_id id)
{
    parsing->command = &commands[id];
    parsing->has_command = true;
    parsing->call->id = id;
}

static enum err read_argument(struct parsing *parsing, const char *word)
{
    const struct command *command = parsing->command;

    if (!command->argument || parsing->call->argument) {
        text_printf(parsing->why, "\"%s\" is one word too many for ", word);
        command_add_name(command, parsing->why);
        text_add_literal(parsing->why, "; --help says what it takes");
        return ERR_BAD;
    }
    if (!*word || !utf8_valid(slice_of(word)) || has_controls(word)) {
        text_printf(parsing->why, "%s must be one line of UTF-8, and not empty", command->argument);
        return ERR_BAD;
    }
    if (command->argument_words) {
        const struct flag words = { .name = command->argument, .words = command->argument_words };
        const char *const *known = command->argument_words;

        while (*known && strcmp(*known, word) != 0)
            known++;
        if (!*known) {
            text_printf(parsing->why, "%s must be one of ", command->argument);
            flag_add_words(&words, ' ', parsing->why);
            text_printf(parsing->why, ", not \"%s\"", word);
            return ERR_BAD;
        }
    }
    parsing->call->argument = word;
    return ERR_OK;
}

static enum err read_word(struct parsing *parsing, const char *word)
{
    enum command_id id;

    if (parsing->has_command)
        return read_argument(parsing, word);
    if (!parsing->noun) {
        if (strcmp(word, "help") == 0) { /* as in `qwadm help key create` */
            parsing->call->wants_help = true;
            return ERR_OK;
        }
        id = noun_first(word);
        if (id == COMMAND_COUNT)
            return refuse_noun(word, parsing->why);
        parsing->noun = commands[id].noun;
        if (!*commands[id].verb)
            choose(parsing, id);
        return ERR_OK;
    }
    for (id = noun_first(parsing->noun); id < COMMAND_COUNT && strcmp(commands[id].noun, parsing->noun) == 0; id++) {
        if (strcmp(commands[id].verb, word) == 0) {
            choose(parsing, id);
            return ERR_OK;
        }
    }
    return refuse_verb(parsing->noun, word, parsing->why);
}

/* The whole ------------------------------------------------------------------------------------------------------ */

/* Flags that stand before the verb are looked at once it is known. */
static enum err find_command(struct parsing *parsing, int argc, char *const *argv)
{
    for (int i = 1; i < argc && !parsing->has_command; i++) {
        if (strcmp(argv[i], "--") == 0)
            break;
        if (argv[i][0] == '-' && argv[i][1]) {
            const struct flag *flag =
                argv[i][1] == '-' ? find(NULL, slice_of(argv[i] + 2)) : find_letter(NULL, argv[i][1]);
            if (flag && flag->kind != FLAG_YES && (argv[i][1] == '-' || !argv[i][2]))
                i++; /* its value */
            continue;
        }
        if (read_word(parsing, argv[i]) != ERR_OK)
            return ERR_BAD;
    }
    return ERR_OK;
}

static enum err check_whole(const struct parsing *parsing)
{
    const struct command *command = parsing->command;
    const struct flag *flag;
    struct text *why = parsing->why;

    if (command->instead && call_has(parsing->call, command->instead)) {
        if (parsing->call->argument) {
            text_printf(why, "\"%s\" is one word too many beside --%s", parsing->call->argument, command->instead);
            return ERR_BAD;
        }
    } else if (command->argument && !parsing->call->argument) {
        command_add_name(command, why);
        text_printf(why, " needs %s: %s", command->argument, command->argument_help);
        return ERR_BAD;
    }
    for (unsigned i = 0; (flag = command_flag(command, i)); i++) {
        if (flag->is_required && !call_has(parsing->call, flag->name)) {
            command_add_name(command, why);
            text_printf(why, " needs --%s %s: %s", flag->name, flag_form(flag), flag->help);
            return ERR_BAD;
        }
    }
    return ERR_OK;
}

static enum err need_a_command(const struct parsing *parsing)
{
    struct text *why = parsing->why;

    if (!parsing->noun) {
        text_add_literal(why, "which command? qwadm --help says what there is");
        return ERR_BAD;
    }
    text_printf(why, "%s what? It takes ", parsing->noun);
    for (enum command_id id = noun_first(parsing->noun);
         id < COMMAND_COUNT && strcmp(commands[id].noun, parsing->noun) == 0; id++)
        text_printf(why, "%s%s", id == noun_first(parsing->noun) ? "" : ", ", commands[id].verb);
    return ERR_BAD;
}

enum err call_parse(struct call *call, int argc, char *const *argv, struct text *why)
{
    struct parsing parsing = { .call = call, .why = why };
    unsigned words = 0, words_of_command;

    *call = (struct call){ .id = COMMAND_COUNT };
    if (find_command(&parsing, argc, argv) != ERR_OK)
        return ERR_BAD;
    words_of_command = !parsing.has_command ? 2 : *parsing.command->verb ? 2 : 1;
    if (call->wants_help)
        words_of_command++;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        bool has_used = false;
        enum err err = ERR_OK;

        if (!parsing.only_words && strcmp(word, "--") == 0)
            parsing.only_words = true;
        else if (!parsing.only_words && strcmp(word, "--version") == 0)
            call->wants_version = true;
        else if (!parsing.only_words && strcmp(word, "--man-page") == 0)
            call->wants_man_page = true;
        else if (!parsing.only_words && word[0] == '-' && word[1] == '-')
            err = read_long(&parsing, word + 2, next, &has_used);
        else if (!parsing.only_words && word[0] == '-' && word[1])
            err = read_short(&parsing, word + 1, next, &has_used);
        else if (++words > words_of_command) /* those before it have been read */
            err = parsing.has_command ? read_argument(&parsing, word) : ERR_OK;
        if (err != ERR_OK)
            return err;
        i += has_used;
    }
    call->help_noun = parsing.has_command ? NULL : parsing.noun;
    if (call->wants_help || call->wants_version || call->wants_man_page)
        return ERR_OK;
    return parsing.has_command ? check_whole(&parsing) : need_a_command(&parsing);
}

/* Asking --------------------------------------------------------------------------------------------------------- */

bool call_takes(const struct call *call, const char *name)
{
    return find(&commands[call->id], slice_of(name));
}

bool call_has(const struct call *call, const char *name)
{
    for (unsigned i = 0; i < call->given_count; i++)
        if (strcmp(call->given[i].flag->name, name) == 0)
            return true;
    return false;
}

bool call_says_yes(const struct call *call, const char *name)
{
    bool says = false;

    for (unsigned i = 0; i < call->given_count; i++)
        if (strcmp(call->given[i].flag->name, name) == 0)
            says = strcmp(call->given[i].value, "no") != 0; /* the last one counts */
    return says;
}

const char *call_text(const struct call *call, const char *name)
{
    const struct flag *flag = find(call->id < COMMAND_COUNT ? &commands[call->id] : NULL, slice_of(name));

    assert(flag);
    for (unsigned i = call->given_count; i-- > 0;)
        if (strcmp(call->given[i].flag->name, name) == 0)
            return call->given[i].value;
    return flag ? flag->fallback : NULL;
}

int64_t call_span_ms(const struct call *call, const char *name)
{
    const char *text = call_text(call, name);
    int64_t ms;

    return text && span_parse(slice_of(text), &ms) ? ms : -1;
}

int64_t call_number(const struct call *call, const char *name, int64_t otherwise)
{
    const char *text = call_text(call, name);
    int64_t number;

    return text && parse_number(text, &number) ? number : otherwise;
}
