/*
 * fuzz_catalog - any bytes as Ollama's list of models. What is taken is JSON (jansson judges) with a list of models, is
 * sorted, and each of its models is found by a name that stays as it is when it is normalised again.
 */
#include "listed.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void judge_listing(const struct catalog *catalog, size_t i)
{
    const struct listing *listing = &catalog->listings[i];
    struct slice name = slice_of(listing->name);

    judge_name(name);
    must(!model_name_is_cloud(name) && *listing->shown && listing->modified_s >= 0, "a model of ours", name);
    must(i == 0 || strcmp(catalog->listings[i - 1].name, listing->name) <= 0, "sorted", name);
    must(catalog_find(catalog, name) && strcmp(catalog_find(catalog, name)->name, listing->name) == 0, "found", name);
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
