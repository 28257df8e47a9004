/*
 * bench_link - a thousand gateways on one link, each with the real link_client and a key of its own, against a
 * link_server in a process of its own. How long from releasing a held answer until all of them have it, what the
 * server's process costs while nothing happens but heartbeats, and how long until all are there.
 *
 *     bench_link [GATEWAYS [ROUNDS [IDLE_SECONDS]]]          1000 100 5
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "digest.h"
#include "identity.h"
#include "link.h"

static const struct qw_version version = { 1, 0, 0 };

static void die(const char *what)
{
    fprintf(stderr, "bench_link: %s\n", what);
    exit(EXIT_FAILURE);
}

/* --- the control plane: its process ---------------------------------------------------------------------- */

static struct {
    struct identity *identity; /* one pair for all: a name is proven all the same */
    struct identity_key key;
    struct link_ask **parked;
    unsigned parked_count, room;
} control;

static void on_hello(void *arg, struct link_ask *ask, const struct qw_hello *hello)
{
    (void)arg;
    (void)hello;
    link_ask_challenge(ask, &control.key);
}

static void on_enrol(void *arg, struct link_ask *ask, const struct qw_enrol *enrol)
{
    (void)arg;
    (void)enrol;
    link_ask_drop(ask);
}

static void on_peer(void *arg, struct link_peer *peer)
{
    (void)arg;
    (void)peer;
}

static uint64_t cpu_us(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static uint64_t resident_kib(void)
{
    struct rusage usage;

    (void)getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss;
}

/* As publish does it: packed once, the time of the release where the version stands else. */
static void release(void)
{
    char memory[256], said[256];
    struct text frame = text_over(memory, sizeof memory), why = text_over(said, sizeof said);
    const struct qw_message update = {
        QW_UPDATE, .update = { .from = 1, .to = (uint64_t)clock_us(), .changes = { "a change", 8 } }
    };

    if (message_pack(&update, &frame, &why) != ERR_OK)
        die(said);
    for (unsigned i = 0; i < control.parked_count; i++)
        link_ask_answer_frame(control.parked[i], text_slice(&frame));
    control.parked_count = 0;
}

/* Sync is parked; Load asks how many are; Ack releases them; a Load over a million asks for the CPU time. */
static void on_message(void *arg, struct link_peer *peer, struct link_ask *ask, const struct qw_message *message)
{
    struct qw_message answer = { QW_COMMANDS, .commands = { .counted = control.parked_count } };

    (void)arg;
    (void)peer;
    if (message->what == QW_SYNC) {
        if (control.parked_count == control.room) {
            control.room = control.room ? 2 * control.room : 1024;
            control.parked = realloc(control.parked, control.room * sizeof *control.parked);
            if (!control.parked)
                die("no memory");
        }
        control.parked[control.parked_count++] = ask;
        return;
    }
    if (message->what == QW_LOAD && message->load.sequence == 1000001)
        answer.commands.counted = cpu_us();
    if (message->what == QW_LOAD && message->load.sequence == 1000002)
        answer.commands.counted = resident_kib();
    if (message->what == QW_ACK)
        release();
    link_ask_answer(ask, &answer);
}

static int control_run(const char *key_file)
{
    static const struct link_server_events events = { on_hello, on_enrol, NULL, on_peer, on_message, on_peer };
    const struct link_server_options options = { .url = "tcp://127.0.0.1:0", .version = version };
    char memory[256];
    struct text why = text_over(memory, sizeof memory);
    struct link_server *server;
    struct pollfd wait;

    if (identity_open(key_file, &control.identity, &why) != ERR_OK)
        die(memory);
    identity_public(control.identity, &control.key);
    server = link_server_open(&options, &events, NULL, &why);
    if (!server)
        die(memory);
    printf("%s\n", link_server_url(server));
    (void)fflush(stdout);
    wait = (struct pollfd){ link_server_fd(server), POLLIN, 0 };
    while (getppid() != 1) {
        (void)poll(&wait, 1, 1000);
        link_server_take(server);
    }
    return EXIT_SUCCESS;
}

/* --- the gateways ---------------------------------------------------------------------------------------- */

struct gateway {
    struct link_client *link;
    char name[24];
    bool has_asked;
};

static struct gateway *gateways;
static unsigned count = 1000, up, answered;
static int epoll;
static int64_t *took_us; /* of this round, one a gateway */
static uint64_t told;
static bool is_told;

static void on_up(void *gateway, const struct qw_welcome *welcome)
{
    (void)gateway;
    (void)welcome;
    up++;
}

static void on_down(void *arg, enum qw_reason reason, const char *why)
{
    struct gateway *gateway = arg;

    fprintf(stderr, "%s: %s %s\n", gateway->name, reason_name(reason), why);
}

static void on_update(void *arg, enum err err, const struct qw_message *answer)
{
    struct gateway *gateway = arg;

    gateway->has_asked = false;
    if (err || answer->what != QW_UPDATE)
        die("no update");
    took_us[answered++] = clock_us() - (int64_t)answer->update.to;
}

static void on_told(void *arg, enum err err, const struct qw_message *answer)
{
    (void)arg;
    if (err || answer->what != QW_COMMANDS)
        die("no commands");
    told = answer->commands.counted;
    is_told = true;
}

static void turn(int wait_ms)
{
    struct epoll_event events[256];
    int ready = epoll_wait(epoll, events, 256, wait_ms);

    for (int i = 0; i < ready; i++)
        link_client_take(((struct gateway *)events[i].data.ptr)->link);
}

/* What the server says to a Load with this number, or to an Ack (0). */
static uint64_t ask(uint64_t sequence)
{
    static const struct qw_done nothing = { .id = 1 };
    struct qw_message message = { QW_LOAD, .load = { .sequence = sequence } };

    if (!sequence)
        message = (struct qw_message){ QW_ACK, .ack = { .done = &nothing, .count = 1 } };
    is_told = false;
    if (link_client_ask(gateways[0].link, &message, on_told, NULL) != ERR_OK)
        die("cannot ask");
    while (!is_told)
        turn(100);
    return told;
}

static void park_all(void)
{
    const struct qw_message sync = { QW_SYNC, .sync = { .have = 1, .wait_ms = 60000 } };

    for (unsigned i = 0; i < count; i++)
        if (!gateways[i].has_asked) {
            if (link_client_ask(gateways[i].link, &sync, on_update, &gateways[i]) != ERR_OK)
                die("cannot ask");
            gateways[i].has_asked = true;
        }
    while (ask(1) < count)
        turn(0);
}

static int by_size(const void *left, const void *right)
{
    int64_t one = *(const int64_t *)left, other = *(const int64_t *)right;

    return (one > other) - (one < other);
}

static void say(const char *what, int64_t *us, size_t number)
{
    qsort(us, number, sizeof *us, by_size);
    printf("%-44s p50 %7.1f ms, p99 %7.1f ms, longest %7.1f ms\n", what, (double)us[number / 2] / 1000,
           (double)us[number * 99 / 100] / 1000, (double)us[number - 1] / 1000);
}

static void rounds_run(unsigned rounds)
{
    int64_t *all_us = calloc((size_t)rounds * count, sizeof *all_us), *last_us = calloc(rounds, sizeof *last_us);

    if (!all_us || !last_us)
        die("no memory");
    for (unsigned i = 0; i < rounds; i++) {
        park_all();
        answered = 0;
        took_us = all_us + (size_t)i * count;
        (void)ask(0);
        while (answered < count)
            turn(100);
        last_us[i] = took_us[count - 1];
    }
    say("from the release until a gateway has it", all_us, (size_t)rounds * count);
    say("from the release until all have it", last_us, rounds);
    free(all_us);
    free(last_us);
}

static void idle_run(unsigned seconds)
{
    uint64_t before;
    int64_t began_us;

    park_all();
    before = ask(1000001);
    began_us = clock_us();
    while (clock_us() - began_us < (int64_t)seconds * 1000000)
        turn(100);
    printf("server, only heartbeats: %.1f %% of a core; most memory %.1f MiB\n",
           (double)(ask(1000001) - before) * 100 / (double)(clock_us() - began_us), (double)ask(1000002) / 1024);
}

static pid_t control_start(const char *self, char *key_file, char *ret_url, int len)
{
    char role[] = "--serve", *const arguments[] = { (char *)(uintptr_t)self, role, key_file, NULL };
    posix_spawn_file_actions_t actions;
    int ends[2];
    pid_t pid;
    FILE *from;

    if (pipe(ends) != 0 || posix_spawn_file_actions_init(&actions) != 0 ||
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO) != 0 ||
        posix_spawn(&pid, "/proc/self/exe", &actions, NULL, arguments, environ) != 0)
        die("cannot start the server");
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    from = fdopen(ends[0], "r");
    if (!from || !fgets(ret_url, len, from))
        die("the server does not say where it is");
    (void)fclose(from);
    ret_url[strcspn(ret_url, "\n")] = 0;
    return pid;
}

static void gateways_open(const char *url, const struct identity *identity)
{
    static const struct link_client_events events = { on_up, on_down };
    static const char *urls[1];
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    urls[0] = url;
    for (unsigned i = 0; i < count; i++) {
        struct gateway *gateway = &gateways[i];
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = gateway };
        const struct link_client_options options = { .urls = urls,
                                                     .url_count = 1,
                                                     .name = gateway->name,
                                                     .version = version,
                                                     .identity = identity,
                                                     .patience_ms = 10000 };
        (void)snprintf(gateway->name, sizeof gateway->name, "gateway-%u", i);
        gateway->link = link_client_open(&options, &events, gateway, &why);
        if (!gateway->link || epoll_ctl(epoll, EPOLL_CTL_ADD, link_client_fd(gateway->link), &event) != 0)
            die(memory);
    }
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 100, idle = argc > 3 ? (unsigned)atoi(argv[3]) : 5;
    char folder[] = "/tmp/qg-bench-link.XXXXXX", key_file[64], url[128], memory[256];
    struct rlimit limit;
    struct text why = text_over(memory, sizeof memory);
    struct identity *identity;
    int64_t began_us;
    pid_t pid;

    (void)!getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    if (argc > 2 && strcmp(argv[1], "--serve") == 0)
        return control_run(argv[2]);
    count = argc > 1 ? (unsigned)atoi(argv[1]) : count;
    gateways = calloc(count, sizeof *gateways);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!gateways || epoll < 0 || !rounds || !mkdtemp(folder))
        die("cannot begin");
    (void)snprintf(key_file, sizeof key_file, "%s/key.pem", folder);
    if (identity_open_or_make(key_file, &identity, &why) != ERR_OK)
        die(memory);
    pid = control_start(argv[0], key_file, url, sizeof url);
    (void)unlink(key_file);
    (void)rmdir(folder);
    began_us = clock_us();
    gateways_open(url, identity);
    while (up < count)
        turn(100);
    printf("%u gateways, all proven after %.1f s\n", count, (double)(clock_us() - began_us) / 1e6);
    rounds_run(rounds);
    idle_run(idle);
    for (unsigned i = 0; i < count; i++)
        (void)link_client_close(gateways[i].link);
    (void)identity_free(identity);
    (void)kill(pid, SIGTERM);
    (void)waitpid(pid, NULL, 0);
    return EXIT_SUCCESS;
}
