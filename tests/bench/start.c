/*
 * How long a program takes from its start to its first answer, and what it then holds: it is asked again and again, a
 * moment apart, from when it is started until it gives the expected status. Then it is ended.
 */
#include "load.h"
#include "reply.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AGAIN_US = 100, GIVE_UP_US = 10000000, SCRATCH_BYTES = 16 << 10 };

_Noreturn static void become(const struct load *load)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    cpu_set_t cores;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (load->core >= 0) {
        CPU_ZERO(&cores);
        CPU_SET((size_t)load->core, &cores);
        (void)sched_setaffinity(0, sizeof cores, &cores);
    }
    (void)dup2(nowhere, STDOUT_FILENO);
    (void)execv(load->command[0], load->command);
    perror(load->command[0]);
    _exit(EXIT_FAILURE);
}

/* The status of the answer, or 0: there was none. */
static int ask_once(const struct load *load)
{
    static char scratch[SCRATCH_BYTES];
    struct reply reply = { 0 };
    ssize_t got = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)&load->to, sizeof load->to) == 0 &&
        send(fd, load->request, load->request_bytes, MSG_NOSIGNAL) == (ssize_t)load->request_bytes)
        while (reply.state < REPLY_DONE && (got = read(fd, scratch, sizeof scratch)) > 0)
            (void)reply_feed(&reply, scratch, (size_t)got, NULL, NULL);
    (void)close(fd);
    return reply.state == REPLY_DONE ? reply.status : 0;
}

int load_start(struct load *load)
{
    const struct timespec moment = { .tv_nsec = AGAIN_US * 1000 };
    uint64_t start_us = load_now_us(), took_us = 0;
    struct watch_memory memory;
    unsigned refused = 0;
    int pid, status = 0;

    if (!load->command[0] || (pid = fork()) < 0)
        return EXIT_FAILURE;
    if (pid == 0)
        become(load);
    while (took_us < GIVE_UP_US && waitpid(pid, NULL, WNOHANG) == 0 && (status = ask_once(load)) != load->expects) {
        refused += status != 0;
        (void)nanosleep(&moment, NULL);
        took_us = load_now_us() - start_us;
    }
    took_us = load_now_us() - start_us;
    if (status != load->expects) {
        fprintf(stderr, "bench_load: %s gave no answer %d, the last was %d\n", load->command[0], load->expects, status);
        (void)kill(pid, SIGKILL);
        return EXIT_FAILURE;
    }
    memory = watch_memory(pid);
    (void)kill(pid, SIGTERM);
    (void)waitpid(pid, NULL, 0);
    printf("{\"start_us\":%llu,\"refused\":%u,\"resident\":%llu,\"own\":%llu}\n", (unsigned long long)took_us, refused,
           (unsigned long long)memory.resident_bytes, (unsigned long long)memory.own_bytes);
    return EXIT_SUCCESS;
}
