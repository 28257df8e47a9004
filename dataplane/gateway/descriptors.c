#include "descriptors.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/resource.h>
#include <unistd.h>

#include "log.h"

enum {
    OWN = 128,   /* beside connections: listeners, loops, logs, probes */
    SPARED = 32, /* the part of them that workers leave to the control thread */
};

static bool raise_limit(struct rlimit *ret_limit)
{
    if (getrlimit(RLIMIT_NOFILE, ret_limit) != 0)
        return false;
    if (ret_limit->rlim_cur == ret_limit->rlim_max)
        return true;
    ret_limit->rlim_cur = ret_limit->rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, ret_limit);
    return getrlimit(RLIMIT_NOFILE, ret_limit) == 0;
}

/* So many of `all`, but no more than that part: a process may be given very few. */
static rlim_t share(rlim_t all, rlim_t wanted, rlim_t part)
{
    return all / part < wanted ? all / part : wanted;
}

struct descriptors descriptors_share(unsigned wanted_connections, bool says)
{
    struct descriptors descriptors = { .connections = wanted_connections, .limit = INT_MAX };
    struct rlimit limit;
    rlim_t room;

    if (!raise_limit(&limit))
        return descriptors;
    room = limit.rlim_cur - share(limit.rlim_cur, OWN, 2);
    if (limit.rlim_cur < INT_MAX)
        descriptors.limit = (int)(limit.rlim_cur - share(limit.rlim_cur, SPARED, 8));
    if (wanted_connections <= room)
        return descriptors;
    if (says)
        log_warn("max_connections is %u, but with %llu file descriptors there can be %llu at most: raise the limit "
                 "(LimitNOFILE=) or lower max_connections",
                 wanted_connections, (unsigned long long)limit.rlim_cur, (unsigned long long)room);
    descriptors.connections = (unsigned)room;
    return descriptors;
}

void descriptors_widen(const struct descriptors *descriptors, int fd)
{
    unsigned long long wanted = descriptors->connections * 2ull + OWN;
    unsigned long long most = (unsigned long long)descriptors->limit;
    int last = fcntl(fd, F_DUPFD_CLOEXEC, (int)(wanted < most ? wanted : most) - 1);

    if (last >= 0)
        (void)close(last);
}
