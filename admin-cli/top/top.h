/*
 * top - what is going on, as one picture that fits a terminal. Pure: whoever shows it hands in what the API said.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct json_t;

struct top_view {
    const struct json_t *load, *status; /* /admin/v1/load and /admin/v1/status; NULL: not known yet */
    const char *server;
    const char *why; /* why there is nothing newer; NULL: there is */
    int64_t age_ms;  /* how old `load` is */
    int64_t wall_ms; /* what the clock says */
    unsigned width, height;
    bool has_colour;
    bool is_live; /* on a screen: names the keys */
};

/* Appends at most `height` lines of at most `width` columns, each ended by a newline. */
void top_add_frame(const struct top_view *view, struct text *out);
