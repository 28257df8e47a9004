/* script - the JSON of POST /script. An unknown or mistyped field is an error. */
#pragma once
#include "books.h"

#include <jansson.h>

/* false: ret_why has the sentence for the test's author. path and times keep their values where nothing is said. */
bool script_read(json_t *json, struct deed *deed, const char **ret_path, uint64_t *ret_times, struct bytes *ret_why);
