/* Each case is a child of its own: the filter is for good. Children call the kernel directly, under any sanitizer. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "sandbox.h"

enum { NOT_CLOSED = 200 };

static void close_or_end(enum sandbox_rule rule)
{
    struct text why;

    text_init(&why, 1024);
    if (sandbox_close(rule, &why) != ERR_OK)
        _exit(NOT_CLOSED);
    text_release(&why);
}

/* How a child under the filter that does this ends: its exit status, which is what `act` returns, or -SIGNAL. */
static int end_of(enum sandbox_rule rule, int (*act)(void))
{
    pid_t child = fork();
    int status = 0;

    if (child == 0) {
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* no core file of a death that is wanted */
        close_or_end(rule);
        _exit(act());
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* 0, or errno. */
static int told(long result)
{
    return result < 0 ? errno : 0;
}

static char *const nothing[] = { NULL };

static int do_execve(void)
{
    return told(syscall(SYS_execve, "/bin/true", nothing, nothing));
}
static int do_execveat(void)
{
    return told(syscall(SYS_execveat, AT_FDCWD, "/bin/true", nothing, nothing, 0));
}
static int do_fork(void)
{
    long child = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0)
        syscall(SYS_exit, 0);
    return told(child);
}
static int do_clone3(void)
{
    return told(syscall(SYS_clone3, NULL, 0));
}
static int do_ptrace(void)
{
    return told(syscall(SYS_ptrace, 0 /* PTRACE_TRACEME */, 0, NULL, NULL));
}
static int do_read_another(void)
{
    return told(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
}
static int do_setuid(void)
{
    return told(syscall(SYS_setuid, 0));
}
static int do_unshare(void)
{
    return told(syscall(SYS_unshare, CLONE_FILES));
}
static int do_bpf(void)
{
    return told(syscall(SYS_bpf, 0, NULL, 0));
}
static int do_io_uring(void)
{
    return told(syscall(SYS_io_uring_setup, 1, NULL));
}
static int do_packets(void)
{
    return told(syscall(SYS_socket, AF_PACKET, SOCK_RAW, 0));
}
static int do_firewall(void)
{
    return told(syscall(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
}
static int map(int protection, int flags, int file)
{
    long at = syscall(SYS_mmap, NULL, 4096, protection, flags, file, 0);
    return at < 0 && at > -4096 ? errno : 0;
}
static int do_written_code(void)
{
    return map(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}
static int do_turned_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return told(syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC));
}
static int do_code_of_a_file(void)
{
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/bin/true", O_RDONLY, 0);
    return file < 0 ? 199 : map(PROT_READ | PROT_EXEC, MAP_PRIVATE, file);
}
static int do_unheard_of(void)
{
    return told(syscall(4000));
}
static int do_signal_another(void)
{
    return told(syscall(SYS_tgkill, getppid(), getppid(), 0));
}
static int do_limit_another(void)
{
    struct rlimit limit;
    return told(syscall(SYS_prlimit64, getppid(), RLIMIT_CORE, NULL, &limit));
}
static int do_listen(void)
{
    return told(syscall(SYS_listen, 0, 1));
}
static int do_dumpable(void)
{
    return told(syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0));
}

TEST(what_only_an_attack_calls_ends_the_process)
{
    static const struct {
        const char *what;
        int (*act)(void);
    } rows[] = {
        { "execve", do_execve },
        { "execveat", do_execveat },
        { "fork", do_fork },
        { "ptrace", do_ptrace },
        { "another's memory", do_read_another },
        { "setuid", do_setuid },
        { "unshare", do_unshare },
        { "bpf", do_bpf },
        { "io_uring", do_io_uring },
        { "raw packets", do_packets },
        { "writable code", do_written_code },
        { "data turned into code", do_turned_code },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(end_of(SANDBOX_ENFORCE, rows[i].act) == -SIGSYS, rows[i].what);
}

TEST(what_a_library_may_try_fails_and_goes_on)
{
    static const struct {
        const char *what;
        int (*act)(void);
        int error;
    } rows[] = {
        { "code of a file", do_code_of_a_file, EPERM },
        { "a call of the future", do_unheard_of, ENOSYS },
        { "clone3", do_clone3, ENOSYS },
        { "another family of netlink", do_firewall, ENOSYS },
        { "another's signal", do_signal_another, ENOSYS },
        { "another's limits", do_limit_another, ENOSYS },
        { "a new listener", do_listen, ENOSYS },
        { "dumps again", do_dumpable, ENOSYS },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(end_of(SANDBOX_ENFORCE, rows[i].act) == rows[i].error, rows[i].what);
}

TEST(where_calls_are_only_logged_they_work)
{
    CHECK_EQ(end_of(SANDBOX_LOG, do_unshare), 0);
    CHECK_EQ(end_of(SANDBOX_LOG, do_fork), 0);
    CHECK_EQ(end_of(SANDBOX_LOG, do_written_code), 0);
}

TEST(without_a_rule_there_is_no_filter)
{
    CHECK_EQ(end_of(SANDBOX_NONE, do_unshare), 0);
    CHECK_EQ(end_of(SANDBOX_NONE, do_execve), 0); /* /bin/true */
}

/* ---- threads ---- */

static int news[2];

static void *wait_then_unshare(void *arg)
{
    char byte;

    (void)arg;
    (void)!read(news[0], &byte, 1);
    (void)syscall(SYS_unshare, CLONE_FILES);
    _exit(0);
}

TEST(threads_that_were_there_before_are_under_it_too)
{
    pid_t child;
    int status = 0;

    CHECK(pipe(news) == 0);
    child = fork();
    if (child == 0) {
        pthread_t thread;
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        if (pthread_create(&thread, NULL, wait_then_unshare, NULL) != 0)
            _exit(NOT_CLOSED);
        close_or_end(SANDBOX_ENFORCE);
        (void)!write(news[1], "", 1);
        for (;;)
            (void)pause();
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    (void)close(news[0]);
    (void)close(news[1]);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}
