/* listed - what fuzz_catalog and fuzz_residents ask of any list of models that was taken. */
#pragma once
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend.h"
#include "model_name.h"
#include "snapshot.h"

static inline void must(bool claim, const char *what, struct slice shown)
{
    if (claim)
        return;
    fprintf(stderr, "not so: %s\n%.*s\n", what, (int)shown.len, shown.at ? shown.at : "");
    abort();
}

static inline void judge_json(struct slice body)
{
    json_error_t error;
    json_t *json = json_loadb(body.at, body.len, JSON_ALLOW_NUL, &error);
    enum json_error_code code = json_error_code(&error);

    /* Values that nobody looks at may hold numbers and keys that jansson cannot. */
    must(json || code == json_error_numeric_overflow || code == json_error_null_byte_in_key, error.text, body);
    must(!json || json_object_get(json, "models"), "a list", body);
    json_decref(json);
}

/* Its name stays as it is when it is normalised again. */
static inline void judge_name(struct slice name)
{
    struct text again;

    text_init(&again, 1024);
    must(model_name_normalise(name, &again) && slice_is(text_slice(&again), name), "normalised", name);
    text_release(&again);
}
