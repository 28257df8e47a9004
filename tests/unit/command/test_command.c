#include <stdio.h>

#include "check.h"
#include "command.h"

enum { MAX_WORDS = 40 };

struct parsed {
    struct call call;
    enum err err;
    struct text why;
    char memory[1024];
    char *words[MAX_WORDS];
};

/* As a shell without quotes would. */
static void parse(struct parsed *parsed, const char *line)
{
    int count = 0;
    char *rest = parsed->memory;

    (void)snprintf(parsed->memory, sizeof parsed->memory, "qwadm %s", line);
    for (char *word; (word = strsep(&rest, " ")) && count < MAX_WORDS;)
        if (*word)
            parsed->words[count++] = strcmp(word, "''") == 0 ? word + 2 : word;
    text_init(&parsed->why, 4096);
    parsed->err = call_parse(&parsed->call, count, parsed->words, &parsed->why);
}

TEST(every_command_can_be_named_and_says_what_it_is)
{
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        const struct command *command = &commands[id];
        struct parsed parsed;
        struct text line;

        CHECK(command->noun && command->verb && command->help && command->example);
        CHECK_ROW(strstr(command->example, "qwadm ") != NULL, command->noun);
        text_init(&line, 1024);
        command_add_name(command, &line);
        CHECK_ROW(strstr(command->example, text_string(&line)) != NULL, text_string(&line));
        text_add_literal(&line, " --help");
        parse(&parsed, text_string(&line));
        CHECK_ROW(parsed.err == ERR_OK && parsed.call.wants_help && parsed.call.id == id, text_string(&line));
        text_release(&parsed.why);
        text_release(&line);
    }
}

TEST(every_example_is_understood)
{
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        char example[512];
        struct parsed parsed;
        char *at, *end;

        (void)snprintf(example, sizeof example, "%s", commands[id].example);
        at = strstr(example, "qwadm ") + 6;
        at[strcspn(at, "<>)\"")] = 0; /* what is the shell's */
        for (end = at + strlen(at); end > at && end[-1] == ' ';)
            *--end = 0;
        if (strcmp(at + strlen(at) - 6, "--note") == 0)
            at[strlen(at) - 6 - 1] = 0; /* its value was in quotes */
        parse(&parsed, at);
        CHECK_STR(text_string(&parsed.why), parsed.why.len, "");
        CHECK_ROW(parsed.call.id == id, at);
        text_release(&parsed.why);
    }
}

TEST(names_of_flags_are_told_apart_within_a_command)
{
    for (enum command_id id = 0; id < COMMAND_COUNT; id++) {
        const struct flag *one, *other;

        for (unsigned i = 0; (one = command_flag(&commands[id], i)); i++) {
            CHECK_ROW(one->help != NULL, one->name);
            for (unsigned j = i + 1; (other = command_flag(&commands[id], j)); j++) {
                CHECK_ROW(strcmp(one->name, other->name) != 0, one->name);
                CHECK_ROW(!one->letter || one->letter != other->letter, one->name);
            }
            for (other = everywhere; other->name; other++) {
                CHECK_ROW(strcmp(one->name, other->name) != 0, one->name);
                CHECK_ROW(!one->letter || one->letter != other->letter, one->name);
            }
        }
    }
}

static const struct {
    const char *line, *why;
} wrong[] = {
    { "", "which command? qwadm --help says what there is" },
    { "kye create", "there is no command \"kye\": did you mean key?" },
    { "user crate", "there is no \"user crate\": did you mean user create?" },
    { "key", "key what? It takes create, list, show, update, revoke, rotate, import" },
    { "gateway dance", "there is no \"gateway dance\": gateway takes enroll, list, show, resync and remove" },
    { "zzz", "there is no command \"zzz\"; qwadm --help says what there is" },
    { "key create --user alice",
      "key create needs --name NAME: what the user calls it; the user has no other of this name" },
    { "key show", "key show needs KEY: its id, its public id (the part after qk_), or USER/NAME" },
    { "key show a b", "\"b\" is one word too many for key show; --help says what it takes" },
    { "key list --usr alice", "there is no --usr for key list: did you mean --user?" },
    { "key list --user", "--user needs a value: USER" },
    { "key list -u", "-u needs a value: USER" },
    { "key list -x", "there is no -x; --help says what there is" },
    { "key list --user a --user b", "--user is given twice" },
    { "key list --state revokd",
      "--state must be one of active revoked expired, not \"revokd\": did you mean revoked?" },
    { "key create --user a --name b --rpm 0", "--rpm must be a whole number from 1 to 1000000, not \"0\"" },
    { "key create --user a --name b --rpm 3x", "--rpm must be a whole number from 1 to 1000000, not \"3x\"" },
    { "key create --user a --name b --rpm 9999999999999999999999",
      "--rpm must be a whole number from 1 to 1000000, not \"9999999999999999999999\"" },
    { "key create --user a --name ''", "--name must not be empty" },
    { "key create --user a --name b --expires soon", "--expires must be a time from now (90d, 24h, 30m, 15s), a date "
                                                     "(2027-01-31) or a time (2027-01-31T12:00:00Z), or "
                                                     "never, not \"soon\"" },
    { "key rotate k --keep 1w", "--keep must be a whole number with d, h, m or s (24h), not \"1w\"" },
    { "key revoke k --cut=yes", "--cut takes no value" },
    { "key revoke k --no-cut", "there is no --no-cut for key revoke; --help says what there is" },
    { "key show a\x1b[31m", "KEY must be one line of UTF-8, and not empty" },
    { "key list --user \xff", "--user must be one line of UTF-8" },
    { "completion fish", "SHELL must be one of bash zsh, not \"fish\"" },
};

TEST(what_is_wrong_is_one_sentence)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct parsed parsed;

        parse(&parsed, wrong[i].line);
        CHECK_ROW(parsed.err == ERR_BAD, wrong[i].line);
        CHECK_STR(text_string(&parsed.why), parsed.why.len, wrong[i].why);
        text_release(&parsed.why);
    }
}

TEST(flags_stand_where_one_likes)
{
    static const char *const lines[] = {
        "-o json key show k", "key -o json show k",       "key show -o json k",          "key show k -o json",
        "key show k -ojson",  "key show k --output=json", "key show --output json -- k",
    };

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct parsed parsed;

        parse(&parsed, lines[i]);
        CHECK_STR(text_string(&parsed.why), parsed.why.len, "");
        CHECK_EQ(parsed.call.id, COMMAND_key_show);
        CHECK_STR(parsed.call.argument, strlen(parsed.call.argument), "k");
        CHECK_STR(call_text(&parsed.call, "output"), strlen(call_text(&parsed.call, "output")), "json");
        text_release(&parsed.why);
    }
}

TEST(behind_two_dashes_everything_is_a_word)
{
    struct parsed parsed;

    parse(&parsed, "key show -- --help");
    CHECK_EQ(parsed.err, ERR_OK);
    CHECK(!parsed.call.wants_help);
    CHECK_STR(parsed.call.argument, strlen(parsed.call.argument), "--help");
    text_release(&parsed.why);
}

TEST(the_last_yes_or_no_counts)
{
    struct parsed parsed;

    parse(&parsed, "backend update gpu1 --drain --no-drain");
    CHECK_EQ(parsed.err, ERR_OK);
    CHECK(call_has(&parsed.call, "drain") && !call_says_yes(&parsed.call, "drain"));
    text_release(&parsed.why);
}

TEST(what_is_not_given_is_its_default)
{
    struct parsed parsed;

    parse(&parsed, "key revoke k");
    CHECK_EQ(call_span_ms(&parsed.call, "wait"), 10000);
    CHECK(!call_says_yes(&parsed.call, "cut") && !call_has(&parsed.call, "wait"));
    CHECK(call_takes(&parsed.call, "cut") && !call_takes(&parsed.call, "keep"));
    CHECK_EQ(call_number(&parsed.call, "wait", 7), 7);
    text_release(&parsed.why);
}

TEST(spans_have_one_unit)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: none */
    } rows[] = {
        { "90d", INT64_C(7776000000) },
        { "24h", 86400000 },
        { "30m", 1800000 },
        { "0s", 0 },
        { "15s", 15000 },
        { "999999999d", INT64_C(86399999913600000) },
        { "9999999999s", -1 },
        { "d", -1 },
        { "", -1 },
        { "5", -1 },
        { "-5s", -1 },
        { "5 s", -1 },
        { "1h30m", -1 },
        { "5ms", -1 },
        { "1.5h", -1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ms = -1;

        CHECK_ROW(span_parse(slice_of(rows[i].text), &ms) == (rows[i].ms >= 0) && ms == rows[i].ms, rows[i].text);
    }
}

TEST(times_are_dates_or_rfc_3339)
{
    static const struct {
        const char *text;
        int64_t seconds; /* -1: none */
    } rows[] = {
        { "2027-01-31", 1801353600 },
        { "2027-01-31T12:00:00Z", 1801396800 },
        { "2027-01-31T13:00:00+01:00", 1801396800 },
        { "2027-02-29", -1 },
        { "2027-1-31", -1 },
        { "tomorrow", -1 },
        { "2027-01-31T12:00", -1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t seconds = -1;

        CHECK_ROW(when_parse(slice_of(rows[i].text), &seconds) == (rows[i].seconds >= 0) && seconds == rows[i].seconds,
                  rows[i].text);
    }
}

TEST(a_suggestion_is_near_or_none)
{
    static const char *const words[] = { "create", "list", "revoke", "rotate", "import" };
    static const struct {
        const char *typed, *meant;
    } rows[] = { { "craete", "create" }, { "creat", "create" },
                 { "rev", "revoke" },    { "lsit", "list" },
                 { "ls", NULL },         { "rotat", "rotate" },
                 { "delete", NULL },     { "zzzzzz", NULL },
                 { "", NULL },           { "a-word-that-is-far-longer-than-any-of-those-there-are", NULL } };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *said = suggest(slice_of(rows[i].typed), words, sizeof words / sizeof *words);

        CHECK_ROW(said == rows[i].meant || (said && rows[i].meant && strcmp(said, rows[i].meant) == 0), rows[i].typed);
    }
}
