/*
 * ollama - the parts that this kind's files share: its native /api/chat (openai-ollama.md 2). Inside this room only.
 */
#pragma once
#include "arena.h"
#include "inference.h"
#include "kind.h"
#include "refusal.h"

void ollama_write_chat(const struct inference *inference, const struct placement *placement, struct text *out);
void ollama_write_load(const struct placement *placement, struct text *out);
enum err ollama_read_line(struct slice line, struct arena *arena, struct event *ret_event);
void ollama_read_error(unsigned status, struct slice body, struct slice shown_model, struct arena *arena,
                       struct refusal *ret_refusal);
void ollama_read_broken(struct slice error, struct slice shown_model, struct arena *arena, struct refusal *ret_refusal);
