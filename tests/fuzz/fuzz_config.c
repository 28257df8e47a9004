/*
 * fuzz_config - any bytes as a configuration file: they become a snapshot, with which everything that reads one
 * works, or one sentence on one line. The file need not be good YAML; see the corpus.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keyring.h"
#include "snapshot.h"

enum { SENTENCE_BYTES = 16 * 1024, PRINTED_BYTES = 64 * 1024 * 1024 };

static void must(int claim, const char *what, const struct text *text)
{
    if (claim)
        return;
    fprintf(stderr, "%s: %s\n", what, text_string(text));
    abort();
}

static void use(struct snapshot *snapshot)
{
    struct text printed, why;

    text_init(&printed, PRINTED_BYTES);
    text_init(&why, SENTENCE_BYTES);
    snapshot_print(snapshot, &printed);
    must(printed.len != 0 && printed.err == ERR_OK && utf8_valid(text_slice(&printed)), "not printed well", &printed);
    must(!snapshot_needs_restart(snapshot, snapshot, &why), "differs from itself", &why);
    for (size_t i = 0; i < snapshot->key_count; i++) {
        const struct key_rule *rule = &snapshot->keys[i];
        const struct key *key = keyring_find(snapshot->keyring, &rule->hash);
        must(key && slice_is(key_name(key), slice_of(rule->name)), "a key is not found", &printed);
        must(key->weight != 0, "a key without weight", &printed);
        must(!rule->models || key_may_use(key, slice_of(rule->models[0])), "a key may not use its model", &printed);
    }
    for (size_t i = 0; i < snapshot->model_count; i++) {
        const struct model *model = &snapshot->models[i];
        must(snapshot_find_model(snapshot, slice_of(model->name)) == model, "a model is not found", &printed);
    }
    must(!snapshot->settings.auth_enabled || snapshot->key_count, "nobody could be let in", &printed);
    must(snapshot->backend_count && snapshot->backend_count <= SNAPSHOT_MAX_BACKENDS, "no backend", &printed);
    must(snapshot->has_backends || snapshot->backend_count == 1, "backends from nowhere", &printed);
    for (size_t i = 0; i < snapshot->backend_count; i++) {
        const struct backend_rule *rule = &snapshot->backends[i];
        must(*rule->name && *rule->host && *rule->authority && rule->port, "no place", &printed);
        must(!rule->models == !rule->model_count, "a list of no models", &printed);
        for (size_t j = 1; j < rule->model_count; j++)
            must(strcmp(rule->models[j - 1], rule->models[j]) < 0, "models out of order", &printed);
        for (size_t j = 0; j < i; j++)
            must(strcmp(rule->name, snapshot->backends[j].name) != 0, "two of one name", &printed);
    }
    text_release(&printed);
    text_release(&why);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct snapshot *snapshot;
    struct text why, warnings;

    text_init(&why, SENTENCE_BYTES);
    text_init(&warnings, SENTENCE_BYTES);
    snapshot = snapshot_parse("config.yaml", (struct slice){ (const char *)bytes, len }, &why, &warnings);
    if (snapshot) {
        must(why.len == 0, "taken, and yet", &why);
        use(snapshot);
    } else {
        must(why.len != 0 && why.err == ERR_OK, "refused without a sentence", &why);
        must(slice_starts(text_slice(&why), SLICE("config.yaml:")), "names no file", &why);
        must(!memchr(why.at, '\n', why.len) && utf8_valid(text_slice(&why)), "not one line", &why);
    }
    snapshot_unref(snapshot);
    text_release(&why);
    text_release(&warnings);
    return 0;
}
