/*
 * model_name - how names of models compare, in both planes. Pure; any thread.
 */
#pragma once
#include <stdbool.h>

#include "text.h"

enum { MODEL_NAME_MAX_BYTES = 255 };

/*
 * The one way names of models compare (Ollama: case does not matter, no tag means :latest, registry.ollama.ai/ and
 * library/ are the defaults): lower case, `:latest` added, default host and namespace left out. False: not a name of a
 * model (empty, over 255 bytes, characters outside [A-Za-z0-9._:/-], parts that are empty or begin with '.' or '-').
 */
bool model_name_normalise(struct slice name, struct text *out);
/* Would Ollama send it to its makers' servers (tag `cloud`, name or tag ending in `-cloud`)? Of a normalised name. */
bool model_name_is_cloud(struct slice normalised);
/* Is it among these, which are normalised and sorted (of a key, of a backend)? */
bool model_names_have(const char *const *names, size_t count, struct slice normalised);
/* As strcmp: the order in which names of models are kept. */
int model_name_order(const char *name, struct slice other);
