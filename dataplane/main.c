/* qwen-gateway: options, then the rooms (gateway/). */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway.h"
#include "operator.h"
#include "request.h"
#include "snapshot.h"
#include "text.h"

static const char default_file[] = "/etc/qwen-gateway/config.yaml";

enum { EXPLAIN_PATIENCE_MS = 5000 };

enum action { RUN, CHECK, PRINT_CONFIG };

static const char usage[] =
    "usage: qwen-gateway [--config FILE] [--check | --print-config]\n"
    "       qwen-gateway --explain MODEL [--config FILE]\n"
    "       qwen-gateway --hash-key < FILE\n"
    "\n"
    "Stands in front of Ollama: keys, whitelists, limits, OpenAI's API, a log line a request.\n"
    "\n"
    "  --config FILE    the configuration (default /etc/qwen-gateway/config.yaml)\n"
    "  --check          read and check the configuration, say what is wrong, and exit (0 good, 2 refused)\n"
    "  --print-config   print every setting with its value and where it came from, keys masked\n"
    "  --explain MODEL  ask the gateway that runs with that configuration what a request for the model would meet "
    "now:\n"
    "                   which backends could take it, their scores, who waits, and why it would go where (1: no "
    "answer)\n"
    "  --hash-key       read a key from standard input and print it as valid_keys takes it: sha256:HEX\n"
    "  --settings       print every setting with its default and meaning, and exit\n"
    "  --states         print the life of a request as a graph for dot\n"
    "  --version        print the version\n"
    "  --help           print this\n"
    "\n"
    "Signals: HUP reloads the configuration, USR1 opens the log file anew, TERM drains and ends (twice: at once).\n"
    "Example: qwen-gateway --config config.yaml\n"
    "         curl -H 'X-Api-Key: KEY' http://localhost:18789/v1/models\n";

static int print(struct text *out)
{
    (void)fwrite(text_string(out), 1, out->len, stdout);
    text_release(out);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int hash_key(void)
{
    struct text secret, out, why;
    char buffer[1024];
    size_t got;
    int status;

    text_init(&secret, 64 << 10);
    text_init(&out, 256);
    text_init(&why, 1024);
    if (isatty(STDIN_FILENO))
        fputs("type the key, then Enter and Ctrl-D: ", stderr);
    while ((got = fread(buffer, 1, sizeof buffer, stdin)) > 0)
        text_add(&secret, buffer, got);
    explicit_bzero(buffer, sizeof buffer);
    if (key_hash_describe(text_slice(&secret), &out, &why) == ERR_OK) {
        text_add_char(&out, '\n');
        status = print(&out);
    } else {
        fprintf(stderr, "qwen-gateway: --hash-key: %s\n", text_string(&why));
        status = GATEWAY_REFUSED;
    }
    text_release_wiped(&secret);
    text_release(&out);
    text_release(&why);
    return status;
}

static int print_states(void)
{
    struct text out;

    text_init(&out, 64 << 10);
    request_print_states(&out);
    return print(&out);
}

static int print_settings(void)
{
    struct text out;

    text_init(&out, 1 << 20);
    settings_describe(&out, false);
    return print(&out);
}

/* One a line. */
static void print_warnings(struct slice lines)
{
    while (lines.len) {
        const char *end = memchr(lines.at, '\n', lines.len);
        size_t len = end ? (size_t)(end - lines.at) : lines.len;

        fprintf(stderr, "qwen-gateway: warning: %.*s\n", (int)len, lines.at);
        lines = (struct slice){ lines.at + len + (end != NULL), lines.len - len - (end != NULL) };
    }
}

static int run(const char *file, enum action action)
{
    struct text why, warnings, out;
    struct snapshot *snapshot;
    int status = EXIT_SUCCESS;

    text_init(&why, 4096);
    text_init(&warnings, 64 << 10);
    text_init(&out, 4 << 20);
    snapshot = snapshot_load(file, &why, &warnings);
    if (!snapshot) {
        fprintf(stderr, "qwen-gateway: %s\n", text_string(&why));
        status = GATEWAY_REFUSED;
    } else {
        print_warnings(text_slice(&warnings));
        if (action == PRINT_CONFIG)
            snapshot_print(snapshot, &out);
        else if (action == CHECK)
            text_printf(&out, "%s: good; keys: %zu, models: %zu\n", file, snapshot->key_count, snapshot->model_count);
        if (action == RUN)
            status = gateway_run(file, snapshot, QG_VERSION);
        else
            (void)snapshot_unref(snapshot);
    }
    if (out.len)
        status = print(&out);
    text_release(&why);
    text_release(&warnings);
    text_release(&out);
    return status;
}

/* The file says only where to ask: what the gateway answers is from what it has read itself. */
static int explain(const char *file, const char *model)
{
    struct text why, out;
    struct snapshot *snapshot;
    int status;

    text_init(&why, 4096);
    text_init(&out, 4 << 20);
    snapshot = snapshot_load(file, &why, NULL);
    if (!snapshot)
        status = GATEWAY_REFUSED;
    else if (operator_explain(&snapshot->settings.operator_listen, slice_of(model), EXPLAIN_PATIENCE_MS, &out, &why))
        status = GATEWAY_FAILED;
    else
        status = EXIT_SUCCESS;
    if (status == EXIT_SUCCESS)
        status = print(&out);
    else {
        fprintf(stderr, "qwen-gateway: %s\n", text_string(&why));
        text_release(&out);
    }
    (void)snapshot_unref(snapshot);
    text_release(&why);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' }, { "check", no_argument, NULL, 'k' },
        { "print-config", no_argument, NULL, 'p' }, { "explain", required_argument, NULL, 'e' },
        { "hash-key", no_argument, NULL, 'H' },     { "settings", no_argument, NULL, 's' },
        { "states", no_argument, NULL, 'S' },       { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },         { NULL, 0, NULL, 0 },
    };
    const char *file = default_file, *model = NULL;
    enum action action = RUN;
    int option;

    while ((option = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            file = optarg;
            break;
        case 'k':
            action = CHECK;
            break;
        case 'p':
            action = PRINT_CONFIG;
            break;
        case 'e':
            model = optarg;
            break;
        case 'H':
            return hash_key();
        case 's':
            return print_settings();
        case 'S':
            return print_states();
        case 'v':
            puts("qwen-gateway " QG_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            fputs("qwen-gateway: try --help\n", stderr);
            return GATEWAY_REFUSED;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "qwen-gateway: unexpected argument \"%s\"; try --help\n", argv[optind]);
        return GATEWAY_REFUSED;
    }
    return model ? explain(file, model) : run(file, action);
}
