#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "sandbox.h"

/* A child drops, then looks: 0, or the number of what is not as it should be. */
static int child_status(int (*look)(void))
{
    pid_t child = fork();
    int status = 0;

    if (child == 0)
        _exit(look());
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static enum err drop(const char *user, bool may_dump)
{
    struct text why;
    enum err err;

    text_init(&why, 1024);
    err = sandbox_drop(user, may_dump, &why);
    text_release(&why);
    return err;
}

/* Is this line of /proc/self/status so? */
static bool status_says(const char *name, const char *value)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[512], wanted[64];
    bool says = false;

    (void)snprintf(wanted, sizeof wanted, "%s:\t%s\n", name, value);
    while (file && fgets(line, sizeof line, file))
        says |= strcmp(line, wanted) == 0;
    if (file)
        (void)fclose(file);
    return says;
}

static int look_at_dumps(void)
{
    struct rlimit limit;

    if (drop(NULL, false) != ERR_OK)
        return 1;
    if (prctl(PR_GET_DUMPABLE) != 0)
        return 2;
    if (getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur != 0 || limit.rlim_max != 0)
        return 3;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 4;
}

static int look_at_allowed_dumps(void)
{
    struct rlimit before, limit;

    if (getrlimit(RLIMIT_CORE, &before) != 0 || drop(NULL, true) != ERR_OK)
        return 1;
    if (getrlimit(RLIMIT_CORE, &limit) != 0 || limit.rlim_cur != before.rlim_max)
        return 2;
    return prctl(PR_GET_DUMPABLE) == 1 ? 0 : 3;
}

static int look_at_user(void)
{
    static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };

    if (drop("nobody", false) != ERR_OK)
        return 1;
    if (getuid() == 0 || geteuid() == 0 || getgid() == 0 || setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0)
        return 2;
    for (unsigned i = 0; i < sizeof sets / sizeof *sets; i++)
        if (!status_says(sets[i], "0000000000000000"))
            return 3;
    return prctl(PR_GET_DUMPABLE) == 0 ? 0 : 4;
}

static int look_at_nobody_known(void)
{
    return drop("nosuchuser-qg", false) == ERR_BAD && geteuid() == 0 ? 0 : 1;
}

TEST(no_core_and_no_new_privileges)
{
    CHECK_EQ(child_status(look_at_dumps), 0);
}

TEST(dumps_may_be_allowed)
{
    CHECK_EQ(child_status(look_at_allowed_dumps), 0);
}

TEST(root_becomes_the_user_and_cannot_come_back)
{
    if (geteuid() == 0)
        CHECK_EQ(child_status(look_at_user), 0);
}

TEST(a_user_whom_nobody_knows_is_an_error)
{
    if (geteuid() == 0)
        CHECK_EQ(child_status(look_at_nobody_known), 0);
}
