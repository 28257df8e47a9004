/* qwen-control: options, then what was asked for. */
#include <event2/event.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "migrate.h"
#include "settings.h"
#include "store.h"
#include "text.h"

static const char default_file[] = "/etc/qwen-gateway/control.yaml";
static const char program[] = "qwen-control";

enum { CONTROL_FAILED = 1, CONTROL_REFUSED = 2, CLOSE_LOG_MS = 1000 };

static const char usage[] =
    "usage: qwen-control [--config FILE] migrate [--status]\n"
    "       qwen-control [--config FILE] check\n"
    "\n"
    "The control plane of Qwen Gateway: its database so far.\n"
    "\n"
    "  migrate          bring the database's tables to this program's version; does nothing when they are\n"
    "    --status       only say which migrations are applied and which are missing (0 none, 1 some, or no answer)\n"
    "  check            read and check the configuration, then ask the database whether it is there and of this\n"
    "                   version (0 good, 1 the database, 2 the configuration)\n"
    "  --config FILE    the configuration (default /etc/qwen-gateway/control.yaml)\n"
    "  --settings       print every setting with its default and meaning, and exit\n"
    "  --version        print the version\n"
    "  --help           print this\n"
    "\n"
    "The database is named by `database` in the file, or by PGHOST, PGDATABASE, PGUSER and the like.\n"
    "Example: qwen-control --config control.yaml migrate\n";

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

static int check(const char *file, const struct settings *settings)
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
        status = check_database(settings);
        log_close(CLOSE_LOG_MS);
    }
    if (status == EXIT_SUCCESS)
        printf("%s: good; the database is at %s\n", file, migrations[migration_count - 1].name);
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

static int run(const char *file, const char *command, bool only_status)
{
    struct text why, warnings;
    struct settings *settings;
    int status;

    text_init(&why, 8192);
    text_init(&warnings, 8192);
    settings = settings_load(file, &why, &warnings);
    if (!settings) {
        status = say(text_string(&why), CONTROL_REFUSED);
    } else {
        if (warnings.len)
            fprintf(stderr, "%s: warning: %s", program, text_string(&warnings));
        status = strcmp(command, "migrate") == 0 ? migrate(settings, only_status) : check(file, settings);
    }
    (void)settings_free(settings);
    text_release(&why);
    text_release(&warnings);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "status", no_argument, NULL, 't' },
        { "settings", no_argument, NULL, 's' },     { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    const char *file = default_file, *command;
    bool only_status = false;
    int option;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            file = optarg;
            break;
        case 't':
            only_status = true;
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
    command = optind < argc ? argv[optind++] : "";
    if (!*command)
        return say("which command? try --help", CONTROL_REFUSED);
    if (strcmp(command, "migrate") != 0 && strcmp(command, "check") != 0) {
        fprintf(stderr, "%s: there is no command \"%s\"; try --help\n", program, command);
        return CONTROL_REFUSED;
    }
    if (optind < argc) {
        fprintf(stderr, "%s: unexpected argument \"%s\"; try --help\n", program, argv[optind]);
        return CONTROL_REFUSED;
    }
    if (only_status && strcmp(command, "migrate") != 0)
        return say("--status belongs to migrate", CONTROL_REFUSED);
    return run(file, command, only_status);
}
