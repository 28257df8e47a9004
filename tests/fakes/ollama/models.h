/*
 * models - which models there are, and what /api/tags, /api/ps and /api/show say about them.
 * At the start those of tags.http; POST /set replaces them. One list for the process behind its own lock.
 */
#pragma once
#include "bytes.h"

enum { CAN_COMPLETE = 1, CAN_TOOLS = 2, CAN_THINK = 4, CAN_EMBED = 8, CAN_INSERT = 16, CAN_SEE = 32 };

void models_open(void);
void models_close(void);

/* Capabilities of the model of that name as Ollama looks names up, 0 if there is none. Marks it as loaded when told to.
 */
unsigned model_find(struct slice name, bool loads, int64_t num_ctx);

/* What stands in errors: registry.ollama.ai/library/loop:latest. */
void model_full_name(struct slice name, struct bytes *ret);

/* The bit of a capability's name, 0 if unknown. */
unsigned capability_bit(const char *name);
void models_clear(void);
void models_add(const char *name, unsigned capabilities);
void models_restore(void); /* those of the start */

void models_tags(struct bytes *ret_json);
void models_ps(struct bytes *ret_json);
bool model_show(struct slice name, struct bytes *ret_json); /* false: no such model */
