/* given - a snapshot from YAML in a test, or the sentence that refuses it. */
#pragma once
#include <stdio.h>

#include "check.h"
#include "snapshot.h"

/* NULL when it was refused; ret_why (may be NULL) then holds the sentence until the next call. */
static inline struct snapshot *given_with(const char *yaml, const char **ret_why, const char **ret_warnings)
{
    static char why_kept[4096], warnings_kept[4096];
    struct snapshot *snapshot;
    struct text why, warnings;

    text_init(&why, sizeof why_kept - 1);
    text_init(&warnings, sizeof warnings_kept - 1);
    snapshot = snapshot_parse("c.yaml", slice_of(yaml), &why, &warnings);
    (void)snprintf(why_kept, sizeof why_kept, "%s", text_string(&why));
    (void)snprintf(warnings_kept, sizeof warnings_kept, "%s", text_string(&warnings));
    text_release(&why);
    text_release(&warnings);
    if (ret_why)
        *ret_why = why_kept;
    if (ret_warnings)
        *ret_warnings = warnings_kept;
    return snapshot;
}

static inline struct snapshot *given(const char *yaml)
{
    const char *why;
    struct snapshot *snapshot = given_with(yaml, &why, NULL);

    if (!snapshot)
        check_fail(__FILE__, __LINE__, "%s\nwas refused: %s", yaml, why);
    if (*why)
        check_fail(__FILE__, __LINE__, "%s\nwas taken, and yet: %s", yaml, why);
    return snapshot;
}

struct refusal {
    const char *yaml, *why;
};

static inline void check_refusals(const struct refusal *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *why;
        struct snapshot *snapshot = given_with(rows[i].yaml, &why, NULL);
        if (snapshot)
            check_fail(__FILE__, __LINE__, "%s\nwas taken, wanted: %s", rows[i].yaml, rows[i].why);
        if (strcmp(why, rows[i].why) != 0)
            check_fail(__FILE__, __LINE__, "%s\nwas refused with\n  %s\nwanted\n  %s", rows[i].yaml, why, rows[i].why);
    }
}
#define CHECK_REFUSALS(rows) check_refusals((rows), sizeof(rows) / sizeof *(rows))
