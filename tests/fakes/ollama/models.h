/*
 * models - which models there are, which are loaded, and what /api/tags, /api/ps and /api/show say about them.
 * At the start those of tags.http; POST /set replaces them. One list for the process behind its own lock. A model stays
 * where it is until the process ends, so that a request may hold it. Times end in _ns, CLOCK_MONOTONIC.
 */
#pragma once
#include "books.h"
#include "bytes.h"

struct model;

enum { CAN_COMPLETE = 1, CAN_TOOLS = 2, CAN_THINK = 4, CAN_EMBED = 8, CAN_INSERT = 16, CAN_SEE = 32 };

void models_open(void);
void models_close(void);

/* The model of that name as Ollama looks names up, or NULL. */
struct model *model_find(struct slice name);
unsigned model_capabilities(const struct model *model);
struct slots *model_slots(const struct model *model);

/* What a request wants of the runner; another runner than the one there is takes a load. */
struct model_wish {
    int64_t num_ctx;
    bool shifts;
};
/* Has it loaded unless it is. When it is ready: a time in the past, if it is. */
uint64_t model_load(struct model *model, const struct model_wish *wish, uint64_t now_ns);
/* A request that used it has ended: keep_alive counts from here. */
void model_rests(struct model *model, int64_t keep_alive_ns, uint64_t now_ns);
void model_unload(struct model *model);
/* A test's say: these, one after the other, are what is loaded. size 0: as recorded; num_ctx 0: as by default. */
void models_unload_all(void);
bool model_set_resident(struct slice name, int64_t size, int64_t size_vram, int64_t num_ctx); /* false: no such model */

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
