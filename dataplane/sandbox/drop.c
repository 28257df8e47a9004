/* Root, capabilities, core dumps. */
#include "sandbox.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static enum err fail(struct text *why, const char *what)
{
    text_printf(why, "%s: %s", what, strerror(errno));
    return ERR_SYSTEM;
}

/* Only root may, and only before the capabilities are gone: so this comes first. The kernel says where they end. */
static void empty_bounding_set(void)
{
    for (unsigned long capability = 0; prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; capability++)
        ;
}

static bool drop_capabilities(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return syscall(SYS_capset, &header, none) == 0;
}

/* Groups, group, user: each needs the rights that the next takes away. */
static bool become(const char *user, const struct passwd *entry)
{
    return initgroups(user, entry->pw_gid) == 0 && setresgid(entry->pw_gid, entry->pw_gid, entry->pw_gid) == 0 &&
           setresuid(entry->pw_uid, entry->pw_uid, entry->pw_uid) == 0;
}

static bool can_come_back(const struct passwd *entry)
{
    uid_t real, effective, saved;
    gid_t real_group, effective_group, saved_group;

    if (getresuid(&real, &effective, &saved) != 0 || getresgid(&real_group, &effective_group, &saved_group) != 0)
        return true;
    if (real != entry->pw_uid || effective != entry->pw_uid || saved != entry->pw_uid)
        return true;
    if (real_group != entry->pw_gid || effective_group != entry->pw_gid || saved_group != entry->pw_gid)
        return true;
    return setuid(0) == 0 || seteuid(0) == 0;
}

static enum err change_user(const char *user, struct text *why)
{
    const struct passwd *entry;

    errno = 0;
    entry = getpwnam(user);
    if (!entry) {
        text_printf(why, "user: there is no user %s on this machine", user);
        return ERR_BAD;
    }
    if (entry->pw_uid == 0) {
        text_printf(why, "user: %s is root; name somebody who is not", user);
        return ERR_BAD;
    }
    empty_bounding_set();
    if (!become(user, entry)) {
        text_printf(why, "user: cannot become %s: %s", user, strerror(errno));
        return ERR_SYSTEM;
    }
    if (can_come_back(entry)) {
        text_printf(why, "user: became %s, but root could be had back", user);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

/* Becoming somebody else has made the process undumpable already: so it is said either way. */
static enum err set_dumps(bool may_dump, struct text *why)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_CORE, &limit) != 0)
        return fail(why, "cannot read the limit of core dumps");
    limit.rlim_cur = may_dump ? limit.rlim_max : 0;
    if (!may_dump)
        limit.rlim_max = 0;
    if (setrlimit(RLIMIT_CORE, &limit) != 0 || prctl(PR_SET_DUMPABLE, may_dump, 0, 0, 0) != 0)
        return fail(why, "cannot set whether core is dumped");
    return ERR_OK;
}

enum err sandbox_drop(const char *user, bool may_dump, struct text *why)
{
    enum err err = ERR_OK;

    if (user && geteuid() == 0)
        err = change_user(user, why);
    if (err == ERR_OK && geteuid() != 0 && !drop_capabilities())
        err = fail(why, "cannot drop capabilities");
    if (err == ERR_OK && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        err = fail(why, "cannot renounce new privileges");
    return err == ERR_OK ? set_dumps(may_dump, why) : err;
}
