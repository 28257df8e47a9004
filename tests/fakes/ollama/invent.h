/* invent - the smallest JSON value that a JSON schema allows, for structured output and tool arguments. */
#pragma once
#include "gojson.h"

/*
 * Every property, in order. Spaced: {"a" : 0 } as a model under a grammar wrote it; otherwise compact.
 * filler stands for any string without enum or const.
 */
void invent_value(struct bytes *b, const struct go_value *schema, bool is_spaced, const char *filler);
