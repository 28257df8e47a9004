/* host - what a Host field names. Not a door: others include operator.h. */
#pragma once
#include <stdbool.h>

#include "text.h"

/*
 * "HOST", "HOST:PORT", "[V6]", "[V6]:PORT". True when it is no name but an address, or nothing; else *ret_name is the
 * name, without port and final dot.
 */
bool host_is_no_name(struct slice field, struct slice *ret_name);
