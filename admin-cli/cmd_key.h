/* cmd_key - what key_import() shares with the other commands for keys. */
#pragma once
#include "cmd.h"

extern const struct noun key_noun;
