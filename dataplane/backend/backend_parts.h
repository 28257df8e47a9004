/*
 * backend_parts - what this room's files share. Inside this room only.
 */
#pragma once
#include "backend.h"

void findings_release(struct backend *backend);
/* An address, which needs no resolver. */
bool host_is_literal(const char *host);
