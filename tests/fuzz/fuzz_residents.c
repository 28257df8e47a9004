/*
 * fuzz_residents - any bytes as Ollama's list of loaded models. What is taken is JSON (jansson judges) with a list of
 * models, is sorted, and each is found by a name that stays as it is when it is normalised again; sizes make sense.
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

static void judge_resident(const struct residents *residents, size_t i)
{
    const struct resident *resident = &residents->models[i];
    struct slice name = slice_of(resident->name);
    struct text again;

    text_init(&again, 1024);
    must(model_name_normalise(name, &again) && slice_is(text_slice(&again), name), "normalised", name);
    must(resident->size_vram <= resident->size && resident->expires_s >= -1, "sane sizes", name);
    must(i == 0 || strcmp(residents->models[i - 1].name, resident->name) <= 0, "sorted", name);
    must(residents_find(residents, name) && strcmp(residents_find(residents, name)->name, resident->name) == 0, "found",
         name);
    text_release(&again);
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
