/*
 * backend_parts - what this room's files share. Inside this room only.
 */
#pragma once
#include "backend.h"

void findings_release(struct backend *backend);
