/*
 * pack - one row of change_log or of the views, as the link's change. The same object packs to the same bytes, from
 * wherever it comes. Not a door: others include publish.h.
 */
#pragma once
#include "text.h"

/* A row of published_key, as its columns say it. */
struct key_row {
    struct slice id; /* as a uuid is written */
    uint8_t hash[32];
    struct slice user, team, name, class;
    bool delegates;
    int64_t expires_s, weight, rpm, max_concurrent; /* 0: none */
    const struct slice *models, *allow;             /* with a space between; NULL: all */
};

/*
 * Appends it. `body`: JSON; `at` NULL: it is gone. ERR_BAD with one sentence: no message can say it; then nothing is
 * appended, but of a key that can be named that it is gone, so that nobody is let in by what cannot be told.
 */
enum err pack_logged(struct slice kind, struct slice id, struct slice body, struct text *out, struct text *why);
enum err pack_key(const struct key_row *row, struct text *out, struct text *why);
