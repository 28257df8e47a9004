/*
 * answer - decides what a request gets: Ollama's routes, its checks in its order, its refusals in its words, and what
 * a script says instead. Fills a play; sends nothing.
 */
#pragma once
#include "play.h"

/* play is freshly reset; arena is scratch for this call. */
void answer_plan(struct play *play, enum route route, const struct http_request *req, const char *base,
                 struct arena *arena);
