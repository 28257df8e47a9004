/* fake-ollama - a stand-in for Ollama that does what a test tells it, and says what it saw. See ../README.md. */
#include "conn.h"
#include "models.h"
#include "options.h"
#include "transcript.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct options options = {
    .listen = "127.0.0.1:0",
    .control = "127.0.0.1:0",
    .workers = 1,
    .num_ctx = 40960,
    .token_bytes = 4,
    .speed = 100,
};

static const struct option names[] = {
    { "listen", required_argument, NULL, 'l' },
    { "control", required_argument, NULL, 'c' },
    { "workers", required_argument, NULL, 'w' },
    { "transcripts", required_argument, NULL, 't' },
    { "num-parallel", required_argument, NULL, 'p' },
    { "num-ctx", required_argument, NULL, 'x' },
    { "token-bytes", required_argument, NULL, 'b' },
    { "tokens", required_argument, NULL, 'n' },
    { "token-ms", required_argument, NULL, 'm' },
    { "first-token-ms", required_argument, NULL, 'f' },
    { "load-ms", required_argument, NULL, 'L' },
    { "speed", required_argument, NULL, 's' },
    { "cold", no_argument, NULL, 'C' },
    { "bench", no_argument, NULL, 'B' },
    { "quiet", no_argument, NULL, 'q' },
    { "help", no_argument, NULL, 'h' },
    { 0 },
};

static const char help[] = "fake-ollama - a stand-in for Ollama\n"
                           "  --listen HOST:PORT       the model's side (127.0.0.1:0: any free port)\n"
                           "  --control HOST:PORT      the tests' side, or none (127.0.0.1:0)\n"
                           "  --workers N              threads (1)\n"
                           "  --transcripts DIR        recordings that win over the built-in ones\n"
                           "  --num-parallel N         requests that a model runs at once, 0 for all (0)\n"
                           "  --num-ctx N              tokens a prompt may have (40960)\n"
                           "  --token-bytes N          bytes of text that make a token (4)\n"
                           "  --tokens N               pieces of a default answer, 0 for the recorded words (0)\n"
                           "  --token-ms MS            between two pieces (0)\n"
                           "  --first-token-ms MS      before the first (0)\n"
                           "  --load-ms MS             how long a model takes to load (0)\n"
                           "  --speed PERCENT          of the pace that these and the prompts say (100)\n"
                           "  --cold                   no model is loaded at the start\n"
                           "  --bench                  no checks of bodies, one fixed answer to /api/chat\n"
                           "  --quiet                  no word about malformed requests on stderr\n";

static int64_t number(const char *text, int64_t least, int64_t most)
{
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno || *end || end == text || value < least || value > most) {
        fprintf(stderr, "fake-ollama: %s is not a number from %lld to %lld\n", text, (long long)least, (long long)most);
        exit(2);
    }
    return value;
}

static void read_option(int option, const char *value)
{
    switch (option) {
    case 'l':
        options.listen = value;
        break;
    case 'c':
        options.control = value;
        break;
    case 'w':
        options.workers = (unsigned)number(value, 1, 256);
        break;
    case 't':
        options.transcripts = value;
        break;
    case 'p':
        options.num_parallel = (uint64_t)number(value, 0, 1000000);
        break;
    case 'x':
        options.num_ctx = number(value, 4, 100000000);
        break;
    case 'b':
        options.token_bytes = number(value, 1, 1000);
        break;
    case 'n':
        options.tokens = number(value, 0, 100000000);
        break;
    case 'm':
        options.token_ms = number(value, 0, 86400000);
        break;
    case 'f':
        options.first_token_ms = number(value, 0, 86400000);
        break;
    case 'L':
        options.load_ms = number(value, 0, 86400000);
        break;
    case 's':
        options.speed = number(value, 1, 100000);
        break;
    case 'C':
        options.is_cold = true;
        break;
    case 'B':
        options.is_bench = true;
        break;
    case 'q':
        options.is_quiet = true;
        break;
    case 'h':
        fputs(help, stdout);
        exit(0);
    default:
        fputs(help, stderr);
        exit(2);
    }
}

static void read_options(int argc, char **argv)
{
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1)
        read_option(option, optarg);
    if (optind < argc) {
        fprintf(stderr, "fake-ollama: what is %s?\n", argv[optind]);
        exit(2);
    }
}

static struct address read_address(const char *text)
{
    struct address address = { 0 };
    struct bytes why = { 0 };

    if (!address_read(&address, text, &why)) {
        fprintf(stderr, "fake-ollama: %.*s\n", (int)why.len, why.at);
        exit(2);
    }
    return address;
}

static int listen_alone(struct address *address, const char *text)
{
    int fd = address_bind(address, false);

    if (fd < 0 || listen(fd, 4096) < 0) {
        fprintf(stderr, "fake-ollama: cannot listen on %s: %s\n", text, strerror(errno));
        exit(1);
    }
    return fd;
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void print_ready(const struct address *model, const struct address *control)
{
    const char *open = model->family == AF_INET6 ? "[" : "";
    const char *close = model->family == AF_INET6 ? "]" : "";

    printf("listening %s%s%s:%u control ", open, model->host, close, model->port);
    if (control)
        printf("%s:%u\n", control->host, control->port);
    else
        printf("none\n");
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    bool is_controlled;
    struct address model;
    struct address control = { 0 };
    int control_fd = -1;
    sigset_t ends;
    int which;

    read_options(argc, argv);
    is_controlled = strcmp(options.control, "none") != 0;
    model = read_address(options.listen);
    options.checks_host = strncmp(model.host, "127.", 4) == 0 || strcmp(model.host, "::1") == 0;
    raise_file_limit();
    transcripts_open(options.transcripts);
    books_open(
        is_controlled,
        (struct settings){ .num_parallel = options.num_parallel, .load_ms = options.load_ms, .speed = options.speed });
    models_open();
    /* A first listener of our own finds out whether the port is taken; sharing it would hide that. */
    (void)close(listen_alone(&model, options.listen));
    if (is_controlled) {
        control = read_address(options.control);
        control_fd = listen_alone(&control, options.control);
    }
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
    workers_start(options.workers, &model, control_fd);
    print_ready(&model, is_controlled ? &control : NULL);
    (void)sigwait(&ends, &which);
    workers_stop();
    books_close();
    models_close();
    transcripts_close();
    return 0;
}
