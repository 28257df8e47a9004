/*
 * schema - the JSON schemas of tools, made fit for engines whose decoder is strict about the keywords it knows
 * (openai-ollama.md 2.1) and would answer a schema that OpenAI takes with an error. Inside this room only.
 * What is fit stays where it is, byte for byte; only values of the wrong type are replaced, by harmless ones of the
 * right type. Keywords the engine does not know are left to it: it passes over them. Order is kept.
 */
#pragma once
#include "arena.h"
#include "json.h"

/*
 * Reads the schema that is next: an object, or true or false, which are {}. *ret_schema lies in the reader's text or in
 * the arena. False: the reader's error is set, or, where it is not, there is no memory.
 */
bool schema_read(struct json_reader *json, struct arena *arena, struct slice *ret_schema);
