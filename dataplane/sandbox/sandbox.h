/*
 * sandbox - what the process gives up for good, so that whoever breaks into it gains little: root, core dumps, new
 * privileges, and the system calls it has no use for. libseccomp's only door. Called at start by the main thread, in
 * the order below; nothing of it is ever taken back.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

/* ENFORCE: what is not needed fails or ends the process. LOG: the kernel's audit tells of it, and it goes on. */
enum sandbox_rule { SANDBOX_ENFORCE, SANDBOX_LOG, SANDBOX_NONE };

/*
 * Root becomes `user` with its groups (NULL: stays), checks that it cannot come back, and drops every capability;
 * somebody else keeps the name and loses what capabilities there are. From then on no program that is run could gain
 * privileges. Unless may_dump, there is neither a core dump nor tracing by the same user. Before there are threads.
 * ERR_SYSTEM or ERR_BAD with a sentence.
 */
enum err sandbox_drop(const char *user, bool may_dump, struct text *why);

/*
 * From now on all threads, those to come too, have the system calls of filter.c. Loads beforehand what looking up hosts
 * would load later, since code can then be loaded no more. ERR_SYSTEM with a sentence: the kernel refused.
 */
enum err sandbox_close(enum sandbox_rule rule, struct text *why);
/* Built with sanitizers, which read memory maps, trace themselves and start programs: the filter would end them. */
bool sandbox_is_impossible(void);
