/*
 * fuzz_residents - any bytes as Ollama's list of loaded models. What is taken is JSON (jansson judges) with a list of
 * models, is sorted, and each is found by a name that stays as it is when it is normalised again; sizes make sense.
 */
#include "listed.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void judge_resident(const struct residents *residents, size_t i)
{
    const struct resident *resident = &residents->models[i];
    struct slice name = slice_of(resident->name);

    judge_name(name);
    must(resident->size_vram <= resident->size && resident->expires_s >= -1, "sane sizes", name);
    must(i == 0 || strcmp(residents->models[i - 1].name, resident->name) <= 0, "sorted", name);
    must(residents_find(residents, name) && strcmp(residents_find(residents, name)->name, resident->name) == 0, "found",
         name);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice body = { (const char *)bytes, len };
    struct residents *residents = residents_parse_ps(body);

    if (!residents)
        return 0;
    judge_json(body);
    for (size_t i = 0; i < residents->count; i++)
        judge_resident(residents, i);
    (void)residents_unref(residents);
    return 0;
}
