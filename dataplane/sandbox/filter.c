/*
 * The system calls. A call is one of four kinds:
 *
 *     needed       goes through
 *     an attack's  nothing of ours ever makes it, and whoever breaks in needs it: the kernel ends the process, and its
 *                  audit says which call it was
 *     denied       EPERM: a library may try it and go on without (code loaded late)
 *     any other    ENOSYS, as on a kernel that lacks it. Not the end: a newer C library tries newer calls first, and an
 *                  update of the machine must not become an outage.
 *
 * Arguments that are pointers cannot be judged: so files are the file system's permissions' affair (user:), and clone3,
 * whose flags lie in memory, is among the others; the C library then takes clone.
 */
#include "sandbox.h"

#include <errno.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "names.h"

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* By name: a kernel, a library or a processor that does not know one skips it. */
static const char *const needed[] = {
    /* memory */
    "brk", "munmap", "mremap", "madvise",
    /* threads */
    "futex", "set_robust_list", "rseq", "sched_yield", "sched_getaffinity", "membarrier", "exit", "exit_group",
    "gettid", "getpid", "getppid",
    /* signals */
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
    /* time and chance */
    "clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "getrandom",
    /* waiting */
    "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "poll", "ppoll", "select", "pselect6", "eventfd2",
    "pipe2", "timerfd_create", "timerfd_settime",
    /* files: the configuration, the log, the resolver's, /proc/self */
    "open", "openat", "close", "read", "readv", "pread64", "write", "writev", "lseek", "stat", "lstat", "fstat",
    "newfstatat", "fstatat64", "statx", "fcntl", "dup", "access", "faccessat", "faccessat2", "getdents64", "readlink",
    "readlinkat", "getcwd", "unlink", "unlinkat", "fsync", "fdatasync",
    /* and what the control plane says, kept: archives, journals */
    "pwrite64", "ftruncate", "link", "linkat", "rename", "renameat", "renameat2",
    /* sockets */
    "bind", "connect", "accept", "accept4", "shutdown", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg",
    "recvmmsg", "getsockname", "getpeername", "getsockopt", "setsockopt",
    /* asking who and where we are */
    "uname", "sysinfo", "getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage"
};

static const char *const attacks[] = {
    /* other programs, other processes */
    "execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
    "pidfd_getfd",
    /* other rights, other views of the machine */
    "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid", "capset",
    "unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount",
    "open_by_handle_at", "name_to_handle_at", "mknod", "mknodat", "personality", "modify_ldt",
    /* the kernel itself, and its richest sources of faults */
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl",
    "add_key", "request_key", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot",
    "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "syslog", "settimeofday", "clock_settime", "adjtimex",
    "clock_adjtime", "sethostname", "setdomainname", "vhangup"
};

/* A call that depends on an argument: (argument & mask) is `value`. */
struct condition {
    const char *call;
    uint32_t action;
    unsigned count;
    struct scmp_arg_cmp args[2];
};

#define IS(argument, value)                 \
    {                                       \
        (argument), SCMP_CMP_EQ, (value), 0 \
    }
#define HAS(argument, mask, value)                      \
    {                                                   \
        (argument), SCMP_CMP_MASKED_EQ, (mask), (value) \
    }
#define WHERE(call, action, one) \
    {                            \
        (call), (action), 1,     \
        {                        \
            one                  \
        }                        \
    }
#define WHERE_BOTH(call, action, ...) \
    {                                 \
        (call), (action), 2,          \
        {                             \
            __VA_ARGS__               \
        }                             \
    }
#define ALLOW SCMP_ACT_ALLOW
#define KILL  SCMP_ACT_KILL_PROCESS
#define DENY  SCMP_ACT_ERRNO(EPERM)

enum { OWN_PROCESS, PROTECTION = 2, MAP_FLAGS = 3 };

static const struct condition conditions[] = {
    /* threads, no processes */
    WHERE("clone", ALLOW, HAS(0, CLONE_THREAD, CLONE_THREAD)),
    WHERE("clone", KILL, HAS(0, CLONE_THREAD, 0)),
    /* no new code: what is mapped from a file, denied; what was written in memory, an attack */
    WHERE("mmap", ALLOW, HAS(PROTECTION, PROT_EXEC, 0)),
    WHERE_BOTH("mmap", DENY, HAS(PROTECTION, PROT_EXEC, PROT_EXEC), HAS(MAP_FLAGS, MAP_ANONYMOUS, 0)),
    WHERE_BOTH("mmap", KILL, HAS(PROTECTION, PROT_EXEC, PROT_EXEC), HAS(MAP_FLAGS, MAP_ANONYMOUS, MAP_ANONYMOUS)),
    WHERE("mprotect", ALLOW, HAS(PROTECTION, PROT_EXEC, 0)),
    WHERE("mprotect", KILL, HAS(PROTECTION, PROT_EXEC, PROT_EXEC)),
    /* families: callers and backends, the service manager; netlink is how a look-up learns of our own addresses */
    WHERE("socket", ALLOW, IS(0, AF_INET)),
    WHERE("socket", ALLOW, IS(0, AF_INET6)),
    WHERE("socket", ALLOW, IS(0, AF_UNIX)),
    WHERE_BOTH("socket", ALLOW, IS(0, AF_NETLINK), IS(2, 0)),
    WHERE("socket", KILL, IS(0, AF_PACKET)),
    WHERE("socket", KILL, IS(0, AF_ALG)),
    WHERE("socketpair", ALLOW, IS(0, AF_UNIX)),
    /* our own limits, our own name; TIOCSTI and its like are not here */
    WHERE("prlimit64", ALLOW, IS(0, 0)),
    WHERE("prctl", ALLOW, IS(0, PR_SET_NAME)),
    WHERE("prctl", ALLOW, IS(0, PR_SET_VMA)),
    WHERE("ioctl", ALLOW, IS(1, SIOCOUTQ)),
    WHERE("ioctl", ALLOW, IS(1, FIONREAD)),
    WHERE("ioctl", ALLOW, IS(1, FIONBIO)),
    WHERE("ioctl", ALLOW, IS(1, TCGETS)),
    WHERE("ioctl", ALLOW, IS(1, SIOCGIFINDEX)),
};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* What a rule's action becomes: where calls are only logged, nothing ends and nothing fails. */
static uint32_t action_of(uint32_t action, enum sandbox_rule rule)
{
    return action == ALLOW || rule == SANDBOX_ENFORCE ? action : SCMP_ACT_LOG;
}

static int add(scmp_filter_ctx filter, enum sandbox_rule rule, const struct condition *condition)
{
    int call = seccomp_syscall_resolve_name(condition->call);
    uint32_t action = action_of(condition->action, rule);
    int result;

    if (call == __NR_SCMP_ERROR || (rule == SANDBOX_LOG && action == SCMP_ACT_LOG)) /* unknown, or the default */
        return 0;
    result = seccomp_rule_add_array(filter, action, call, condition->count, condition->args);
    return result == -EDOM ? 0 : result; /* this processor has no such call */
}

static int add_all(scmp_filter_ctx filter, enum sandbox_rule rule)
{
    /* abort() is a signal to oneself. */
    const struct condition own = WHERE("tgkill", ALLOW, IS(OWN_PROCESS, (uint64_t)getpid()));
    int result = add(filter, rule, &own);

    for (size_t i = 0; i < COUNT(needed) && result == 0; i++)
        result = add(filter, rule, &(struct condition){ .call = needed[i], .action = ALLOW });
    for (size_t i = 0; i < COUNT(attacks) && result == 0; i++)
        result = add(filter, rule, &(struct condition){ .call = attacks[i], .action = KILL });
    for (size_t i = 0; i < COUNT(conditions) && result == 0; i++)
        result = add(filter, rule, &conditions[i]);
    return result;
}

static int set_up(scmp_filter_ctx filter)
{
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1); /* all threads */

    if (result == 0)
        result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, KILL);
    /* These two only cost or save time: no slower branches for a filter's sake, and a tree instead of a list. */
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    (void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    return result;
}

enum err sandbox_close(enum sandbox_rule rule, struct text *why)
{
    scmp_filter_ctx filter;
    int result = -ENOMEM;

    if (rule == SANDBOX_NONE)
        return ERR_OK;
    names_load();
    filter = seccomp_init(rule == SANDBOX_LOG ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(ENOSYS));
    if (filter) {
        result = set_up(filter);
        if (result == 0)
            result = add_all(filter, rule);
        if (result == 0)
            result = seccomp_load(filter);
        seccomp_release(filter);
    }
    if (result == 0)
        return ERR_OK;
    text_printf(why, "cannot limit system calls: %s; to run without such limits set seccomp: none", strerror(-result));
    return ERR_SYSTEM;
}

bool sandbox_is_impossible(void)
{
#ifdef QG_SANITIZED
    return true;
#else
    return false;
#endif
}
