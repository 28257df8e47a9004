/*
 * bench_load - the load generator of tests/bench/run, which says what it is told and reads what it prints.
 *
 *   bench_load requests --port N --body FILE --connections N --warm-ms N --run-ms N
 *   bench_load requests --port N --body FILE --connections N --warm-ms N --run-ms N --rate N
 *   bench_load streams  --port N --body FILE --connections N --tokens N --spread-ms N
 *   bench_load start    --port N --body FILE [--core N] -- PROGRAM ARGUMENTS
 * and, with all, --pid N (whose cost to take), --backend-pid N, --path PATH, --key KEY, --expects STATUS.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BODY_BYTES = 16 << 20 };

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

uint64_t load_now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int load_connect(const struct load *load, void *who)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = who };
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        give_up("socket");
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&load->to, sizeof load->to) != 0 && errno != EINPROGRESS)
        give_up("connect");
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        give_up("epoll_ctl");
    return fd;
}

int load_wait(const struct load *load, struct epoll_event *events, int most, uint64_t until_us)
{
    uint64_t now_us = load_now_us();
    uint64_t wait_us = until_us > now_us ? until_us - now_us : 0;
    struct timespec wait = { .tv_sec = (time_t)(wait_us / 1000000), .tv_nsec = (long)(wait_us % 1000000) * 1000 };

    return epoll_pwait2(load->epoll, events, most, &wait, NULL);
}

void load_print_cost(const struct watch *before, const struct watch *after)
{
    uint64_t tick_us = 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);

    printf("\"took_us\":%llu,\"ran_us\":%.3f,\"user_ticks\":%llu,\"system_ticks\":%llu,"
           "\"callers_us\":%.3f,\"backend_us\":%.3f,\"busy_us\":%llu",
           (unsigned long long)(after->at_us - before->at_us), (double)(after->ran_ns - before->ran_ns) / 1000,
           (unsigned long long)(after->user_ticks - before->user_ticks),
           (unsigned long long)(after->system_ticks - before->system_ticks),
           (double)(after->own_ran_ns - before->own_ran_ns) / 1000,
           (double)(after->backend_ran_ns - before->backend_ran_ns) / 1000,
           (unsigned long long)((after->busy_ticks - before->busy_ticks) * tick_us));
}

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end || value > 100000000) {
        fprintf(stderr, "bench_load: %s is not a number\n", text);
        exit(EXIT_FAILURE);
    }
    return (unsigned)value;
}

static void make_request(struct load *load, const char *file, const char *path, const char *key, unsigned port)
{
    FILE *body = fopen(file, "re");
    char *room = malloc(MAX_BODY_BYTES);
    size_t bytes;
    int head;

    if (!body || !room)
        give_up(file);
    bytes = fread(room, 1, MAX_BODY_BYTES, body);
    (void)fclose(body);
    load->request = malloc(bytes + 1024);
    if (!load->request)
        give_up(file);
    head = snprintf(load->request, 1024,
                    "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUser-Agent: OpenAI/Python 2.8.1\r\n"
                    "Accept: application/json\r\nAccept-Encoding: identity\r\nContent-Type: application/json\r\n"
                    "Authorization: Bearer %s\r\nContent-Length: %zu\r\n\r\n",
                    path, port, key, bytes);
    memcpy(load->request + head, room, bytes);
    load->request_bytes = (size_t)head + bytes;
    free(room);
}

static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void read_options(struct load *load, int argc, char **argv)
{
    static const struct option names[] = {
        { "port", required_argument, NULL, 'p' },
        { "body", required_argument, NULL, 'b' },
        { "key", required_argument, NULL, 'k' },
        { "connections", required_argument, NULL, 'c' },
        { "pid", required_argument, NULL, 'P' },
        { "expects", required_argument, NULL, 'e' },
        { "warm-ms", required_argument, NULL, 'w' },
        { "run-ms", required_argument, NULL, 'r' },
        { "tokens", required_argument, NULL, 't' },
        { "spread-ms", required_argument, NULL, 's' },
        { "path", required_argument, NULL, 'u' },
        { "rate", required_argument, NULL, 'R' },
        { "core", required_argument, NULL, 'C' },
        { "backend-pid", required_argument, NULL, 'B' },
        { NULL, 0, NULL, 0 },
    };
    const char *body = "", *key = "none", *path = "/v1/chat/completions";
    unsigned port = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        unsigned *into = option == 'p'   ? &port
                         : option == 'c' ? &load->connections
                         : option == 'w' ? &load->warm_ms
                         : option == 'r' ? &load->run_ms
                         : option == 't' ? &load->tokens
                         : option == 's' ? &load->spread_ms
                         : option == 'R' ? &load->rate
                                         : NULL;
        if (option == '?')
            exit(EXIT_FAILURE);
        if (into)
            *into = number(optarg);
        else if (option == 'P')
            load->pid = (int)number(optarg);
        else if (option == 'e')
            load->expects = (int)number(optarg);
        else if (option == 'B')
            load->backend_pid = (int)number(optarg);
        else if (option == 'C')
            load->core = (int)number(optarg);
        else
            *(option == 'b' ? &body : option == 'u' ? &path : &key) = optarg;
    }
    load->to = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    load->to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load->command = argv + optind;
    make_request(load, body, path, key, port);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct load *load);
    } kinds[] = { { "requests", load_requests }, { "streams", load_streams }, { "start", load_start } };
    struct load load = { .expects = 200, .connections = 1, .run_ms = 1000, .tokens = 1, .core = -1 };
    int status = 2;

    if (argc < 2) {
        fputs("usage: bench_load requests|streams|start --port N --body FILE …, see tests/bench/run\n", stderr);
        return 2;
    }
    read_options(&load, argc - 1, argv + 1);
    raise_file_limit();
    (void)prctl(PR_SET_TIMERSLACK, 1); /* wake when it is time, not up to 50 us later */
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load.epoll < 0)
        give_up("epoll");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(argv[1], kinds[i].name) == 0)
            status = kinds[i].run(&load);
    free(load.request);
    (void)close(load.epoll);
    return status;
}
