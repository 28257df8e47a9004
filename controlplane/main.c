/* qwen-control: options, then what was asked for. */
#include <event2/event.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "migrate.h"
#include "serve.h"
#include "settings.h"
#include "store.h"
#include "text.h"

static const char default_file[] = "/etc/qwen-gateway/control.yaml";
static const char program[] = "qwen-control";

enum { CONTROL_FAILED = 1, CONTROL_REFUSED = 2, CLOSE_LOG_MS = 1000 };

static const char usage[] =
    "usage: qwen-control [--config FILE] run\n"
    "       qwen-control [--config FILE] migrate [--status]\n"
    "       qwen-control [--config FILE] init [--name NAME] [--expires DURATION]\n"
    "       qwen-control [--config FILE] check\n"
    "\n"
    "The control plane of Qwen Gateway: the admin API, and what gateways go by.\n"
    "\n"
    "  run              serve until SIGTERM; a second one ends at once\n"
    "  migrate          bring the database's tables to this program's version; does nothing when they are\n"
    "    --status       only say which migrations are applied and which are missing (0 none, 1 some, or no answer)\n"
    "  init             make the first owner's admin token and print it, once; refused when there is one that is good\n"
    "    --name NAME        whose it is, for the audit log (default owner)\n"
    "    --expires DURATION how long it is good, such as 90d, 24h or 30m (default 90d)\n"
    "  check            read and check the configuration, then ask the database whether it is there and of this\n"
    "                   version (0 good, 1 the database, 2 the configuration)\n"
    "  --config FILE    the configuration (default /etc/qwen-gateway/control.yaml)\n"
    "  --settings       print every setting with its default and meaning, and exit\n"
    "  --version        print the version\n"
    "  --help           print this\n"
    "\n"
    "The database is named by `database` in the file, or by PGHOST, PGDATABASE, PGUSER and the like.\n"
    "Example: qwen-control --config control.yaml migrate && qwen-control --config control.yaml init\n";

static void tell(const char *line)
{
    puts(line);
    (void)fflush(stdout); /* it may be killed at the next */
}

static int say(const char *why, int status)
{
    fprintf(stderr, "%s: %s\n", program, why);
    return status;
}

static int migrate(const struct settings *settings, bool only_status)
{
    const struct migrating migrating = {
        .database = settings->database,
        .program = program,
        .connect_timeout_ms = settings->database_connect_timeout_ms,
        .tell = tell,
    };
    int status = EXIT_SUCCESS;
    struct text why;

    text_init(&why, 8192);
    if ((only_status ? migrate_status : migrate_run)(&migrating, &why) != ERR_OK)
        status = say(text_string(&why), CONTROL_FAILED);
    text_release(&why);
    return status;
}

struct checking {
    struct event_base *base;
    int status;
};

static void on_verified(void *arg, enum err err, const char *why)
{
    struct checking *checking = arg;

    checking->status = err == ERR_OK ? EXIT_SUCCESS : say(why, CONTROL_FAILED);
    (void)event_base_loopbreak(checking->base);
}

/* As the running program does: over the pool, in the role that may do nothing but what it must. */
static int check_database(const struct settings *settings)
{
    const struct store_options options = {
        .database = settings->database,
        .role = settings->database_role,
        .program = program,
        .connections = settings->database_connections,
        .pipeline = settings->database_pipeline,
        .max_waiting = settings->database_max_waiting,
        .wait_timeout_ms = settings->database_wait_timeout_ms,
        .connect_timeout_ms = settings->database_connect_timeout_ms,
        .statement_timeout_ms = settings->database_statement_timeout_ms,
        .reconnect_delay_ms = settings->database_reconnect_delay_ms,
        .reconnect_max_ms = settings->database_reconnect_max_ms,
    };
    struct checking checking = { .base = event_base_new(), .status = CONTROL_FAILED };
    struct store *store = NULL;
    struct text why;

    text_init(&why, 8192);
    if (!checking.base)
        return say(err_text(ERR_NO_MEMORY), CONTROL_FAILED);
    store = store_open(checking.base, &options, &why);
    if (!store)
        (void)say(text_string(&why), CONTROL_FAILED);
    else if (migrate_verify(store, on_verified, &checking) != ERR_OK)
        (void)say(err_text(ERR_NO_MEMORY), CONTROL_FAILED);
    else
        (void)event_base_dispatch(checking.base);
    store_close(store);
    event_base_free(checking.base);
    text_release(&why);
    return checking.status;
}

/* With the log open; `work` is what is done meanwhile. */
static int with_log(const struct settings *settings, int (*work)(const struct settings *settings))
{
    const struct log_options options = { .level = (enum log_level)settings->log_level,
                                         .is_json = settings->log_format };
    struct text why;
    int status;

    text_init(&why, 8192);
    if (log_open(&options, &why) != ERR_OK) {
        status = say(text_string(&why), CONTROL_FAILED);
    } else {
        log_thread_start();
        status = work(settings);
        log_close(CLOSE_LOG_MS);
    }
    text_release(&why);
    return status;
}

static int check(const char *file, const struct settings *settings)
{
    int status = with_log(settings, check_database);

    if (status == EXIT_SUCCESS)
        printf("%s: good; the database is at %s\n", file, migrations[migration_count - 1].name);
    return status;
}

static int serve(const struct settings *settings)
{
    struct text why;
    int status = EXIT_SUCCESS;

    text_init(&why, 8192);
    if (serve_run(settings, QG_VERSION, &why) != ERR_OK)
        status = why.len ? say(text_string(&why), CONTROL_FAILED) : CONTROL_FAILED;
    text_release(&why);
    return status;
}

/* The token alone goes to stdout, so that it can be put into a file. */
static int make_first(const struct settings *settings, const struct serve_first *first)
{
    struct text secret, why;
    int status = EXIT_SUCCESS;
    enum err err;

    text_init(&secret, 256);
    text_init(&why, 8192);
    err = serve_init(settings, first, &secret, &why);
    if (err != ERR_OK) {
        status = say(text_string(&why), err == ERR_BAD ? CONTROL_REFUSED : CONTROL_FAILED);
    } else {
        puts(text_string(&secret));
        status = fflush(stdout) == 0 ? EXIT_SUCCESS : CONTROL_FAILED;
        fprintf(stderr, "%s: this is the owner's token %s, good for %s; it is shown once\n", program, first->name,
                first->expires_in);
    }
    text_release_wiped(&secret);
    text_release(&why);
    return status;
}

static int print_settings(void)
{
    struct text out;

    text_init(&out, 1 << 20);
    settings_describe(&out, false);
    (void)fwrite(text_string(&out), 1, out.len, stdout);
    text_release(&out);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

struct command {
    const char *file, *name;
    bool only_status;
    struct serve_first first;
};

static int run(const struct command *command)
{
    struct text why, warnings;
    struct settings *settings;
    int status;

    text_init(&why, 8192);
    text_init(&warnings, 8192);
    settings = settings_load(command->file, &why, &warnings);
    if (!settings) {
        status = say(text_string(&why), CONTROL_REFUSED);
    } else {
        if (warnings.len)
            fprintf(stderr, "%s: warning: %s", program, text_string(&warnings));
        if (strcmp(command->name, "migrate") == 0)
            status = migrate(settings, command->only_status);
        else if (strcmp(command->name, "init") == 0)
            status = make_first(settings, &command->first);
        else if (strcmp(command->name, "run") == 0)
            status = with_log(settings, serve);
        else
            status = check(command->file, settings);
    }
    (void)settings_free(settings);
    text_release(&why);
    text_release(&warnings);
    return status;
}

static bool is_command(const char *name)
{
    static const char *const names[] = { "run", "migrate", "init", "check" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* Options that belong to one command. */
static const char *misplaced(const struct command *command)
{
    bool is_init = strcmp(command->name, "init") == 0;

    if (command->only_status && strcmp(command->name, "migrate") != 0)
        return "--status belongs to migrate";
    if ((command->first.name || command->first.expires_in) && !is_init)
        return command->first.name ? "--name belongs to init" : "--expires belongs to init";
    return NULL;
}

static int run_command(struct command *command, int count, char **arguments)
{
    const char *why;

    command->name = count ? arguments[0] : "";
    if (!*command->name)
        return say("which command? try --help", CONTROL_REFUSED);
    if (!is_command(command->name)) {
        fprintf(stderr, "%s: there is no command \"%s\"; try --help\n", program, command->name);
        return CONTROL_REFUSED;
    }
    if (count > 1) {
        fprintf(stderr, "%s: unexpected argument \"%s\"; try --help\n", program, arguments[1]);
        return CONTROL_REFUSED;
    }
    why = misplaced(command);
    if (why)
        return say(why, CONTROL_REFUSED);
    if (!command->first.name)
        command->first.name = "owner";
    if (!command->first.expires_in)
        command->first.expires_in = "90d";
    return run(command);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "status", no_argument, NULL, 't' },
        { "name", required_argument, NULL, 'n' },   { "expires", required_argument, NULL, 'e' },
        { "settings", no_argument, NULL, 's' },     { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    struct command command = { .file = default_file };
    int option;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            command.file = optarg;
            break;
        case 't':
            command.only_status = true;
            break;
        case 'n':
            command.first.name = optarg;
            break;
        case 'e':
            command.first.expires_in = optarg;
            break;
        case 's':
            return print_settings();
        case 'v':
            puts("qwen-control " QG_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            return say("try --help", CONTROL_REFUSED);
        }
    }
    return run_command(&command, argc - optind, argv + optind);
}
