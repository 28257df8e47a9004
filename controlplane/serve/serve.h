/*
 * serve - the control plane as a process: opens the rooms in their order, runs the loop, and closes them in reverse.
 * And what has to happen once before anybody can use it: the first admin token.
 *
 * Main thread; the program's only loop is made here. What it says goes to the log (stderr).
 */
#pragma once
#include "text.h"

struct settings;

/* Until SIGTERM or SIGINT: what is asked then is still answered; a second one ends at once. ERR_OK; else
 * `why` says what it could not open, or is empty when the log has said it. */
enum err serve_run(const struct settings *settings, const char *version, struct text *why);

/*
 * The first owner's token, as long as there is none that is good. Blocks. Its secret is appended to *secret, and is
 * nowhere else. ERR_REFUSED: there is one.
 */
struct serve_first {
    const char *name;       /* of the token: who acts with it */
    const char *expires_in; /* "90d" */
};
enum err serve_init(const struct settings *settings, const struct serve_first *first, struct text *secret,
                    struct text *why);
