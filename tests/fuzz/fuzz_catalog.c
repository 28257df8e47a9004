/*
 * fuzz_catalog - any bytes as Ollama's list of models. What is taken is JSON (jansson judges) with a list of models, is
 * sorted, and each of its models is found by a name that stays as it is when it is normalised again.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend.h"
#include "snapshot.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void must(bool claim, const char *what, struct slice shown)
{
    if (claim)
        return;
    fprintf(stderr, "not so: %s\n%.*s\n", what, (int)shown.len, shown.at ? shown.at : "");
    abort();
}

static void judge_json(struct slice body)
{
    json_error_t error;
    json_t *json = json_loadb(body.at, body.len, JSON_ALLOW_NUL, &error);
    enum json_error_code code = json_error_code(&error);

    /* Values that nobody looks at may hold numbers and keys that jansson cannot. */
    must(json || code == json_error_numeric_overflow || code == json_error_null_byte_in_key, error.text, body);
    must(!json || json_object_get(json, "models"), "a list", body);
    json_decref(json);
}

static void judge_listing(const struct catalog *catalog, size_t i)
{
    const struct listing *listing = &catalog->listings[i];
    struct slice name = slice_of(listing->name);
    struct text again;

    text_init(&again, 1024);
    must(model_name_normalise(name, &again) && slice_is(text_slice(&again), name), "normalised", name);
    must(!model_name_is_cloud(name) && *listing->shown && listing->modified_s >= 0, "a model of ours", name);
    must(i == 0 || strcmp(catalog->listings[i - 1].name, listing->name) <= 0, "sorted", name);
    must(catalog_find(catalog, name) && strcmp(catalog_find(catalog, name)->name, listing->name) == 0, "found", name);
    text_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice body = { (const char *)bytes, len };
    struct catalog *catalog = catalog_parse_tags(body);

    if (!catalog)
        return 0;
    judge_json(body);
    for (size_t i = 0; i < catalog->count; i++)
        judge_listing(catalog, i);
    (void)catalog_unref(catalog);
    return 0;
}
