#include "given.h"

#define OFF    "auth: {enabled: false}\n"
#define MODELS OFF "models:\n"

TEST(a_model_has_what_its_entry_says)
{
    struct snapshot *snapshot =
        given(MODELS "  Zeta:\n  qwen3:32b:\n    model: registry.internal/AI/Qwen3:32b\n"
                     "    num_ctx: 32768\n    keep_alive: -1\n    max_prompt_chars: 0\n"
                     "    max_system_chars: 5\n    think: true\n    preload: true\n  small: {keep_alive: 1h30m}\n");
    const struct model *model = snapshot_find_model(snapshot, SLICE("qwen3:32b"));

    CHECK(snapshot->has_models && snapshot->model_count == 3 && model);
    CHECK(strcmp(model->name, "qwen3:32b") == 0 && strcmp(model->shown, "qwen3:32b") == 0);
    CHECK(strcmp(model->backend_model, "registry.internal/AI/Qwen3:32b") == 0 && model->num_ctx == 32768);
    CHECK(strcmp(model->keep_alive, "-1") == 0 && model->think == THINK_ON && model->preload);
    CHECK(model->has_max_prompt_chars && model->max_prompt_chars == 0);
    CHECK(model->has_max_system_chars && model->max_system_chars == 5);
    model = snapshot_find_model(snapshot, SLICE("zeta:latest"));
    CHECK(model && strcmp(model->shown, "Zeta") == 0 && strcmp(model->backend_model, "Zeta") == 0);
    CHECK(!model->keep_alive && !model->num_ctx && !model->has_max_prompt_chars && !model->has_max_system_chars);
    CHECK(model->think == THINK_UNSET && !model->preload);
    CHECK(strcmp(snapshot_find_model(snapshot, SLICE("small:latest"))->keep_alive, "\"1h30m\"") == 0);
    CHECK(!snapshot_find_model(snapshot, SLICE("zeta")) && !snapshot_find_model(snapshot, SLICE("")));
    CHECK(!snapshot_find_model(snapshot, SLICE("zeta:latest\0")) && !snapshot_find_model(snapshot, SLICE("zz:latest")));
    for (size_t i = 1; i < snapshot->model_count; i++)
        CHECK(strcmp(snapshot->models[i - 1].name, snapshot->models[i].name) < 0);
    snapshot_unref(snapshot);
}

TEST(models_are_taken_in_flow_style)
{
    struct snapshot *snapshot = given(OFF "models: {qwen3:32b: {num_ctx: 4096}, \"a/b\": {}}\n");

    CHECK(snapshot_find_model(snapshot, SLICE("qwen3:32b"))->num_ctx == 4096);
    CHECK(snapshot_find_model(snapshot, SLICE("a/b:latest")));
    snapshot_unref(snapshot);
}

TEST(without_the_section_there_are_no_rules_for_models)
{
    struct snapshot *snapshot = given(OFF);

    CHECK(!snapshot->has_models && !snapshot->model_count && !snapshot_find_model(snapshot, SLICE("qwen3:latest")));
    snapshot_unref(snapshot);
}

TEST(keep_alive_is_seconds_or_a_duration_of_go)
{
    static const struct {
        const char *written, *json; /* NULL: refused */
    } rows[] = {
        { "0", "0" },
        { "-1", "-1" },
        { "3600", "3600" },
        { "5m", "\"5m\"" },
        { "\"5m\"", "\"5m\"" },
        { "1.5h", "\"1.5h\"" },
        { "1h2m3s4ms", "\"1h2m3s4ms\"" },
        { "-1m", "\"-1m\"" },
        { "-2", NULL },
        { "\"-1\"", NULL },
        { "\"60\"", NULL },
        { "5 m", NULL },
        { "5d", NULL },
        { "m", NULL },
        { "1.2.3s", NULL },
        { ".5s", NULL },
        { "'5m\"'", NULL },
        { "true", NULL },
        { "[5m]", NULL },
        { "\"-\"", NULL },
        { "", NULL },
        { "1-1", NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[128];
        const char *why;
        (void)snprintf(yaml, sizeof yaml, MODELS "  m:\n    keep_alive: %s\n", rows[i].written);
        struct snapshot *snapshot = given_with(yaml, &why, NULL);
        CHECK_ROW((snapshot != NULL) == (rows[i].json != NULL), yaml);
        CHECK_ROW(!snapshot || strcmp(snapshot->models[0].keep_alive, rows[i].json) == 0, yaml);
        CHECK_ROW(snapshot || slice_starts(slice_of(why), SLICE("c.yaml:4: models.m.keep_alive must be ")), why);
        snapshot_unref(snapshot);
    }
}

TEST(bad_models_are_refused_with_file_line_and_key)
{
    static const struct refusal rows[] = {
        { OFF "models: {}\n", "c.yaml:2: models is empty: leave it out to offer what Ollama lists" },
        { OFF "models: [qwen3]\n", "c.yaml:2: models must be a map (key: value), not a list" },
        { OFF "models:\n", "c.yaml:2: models must be a map (key: value), not nothing" },
        { MODELS "  qwen3: registry/x\n", "c.yaml:3: models.qwen3 must be a map (key: value), not \"registry/x\"" },
        { MODELS "  'a b': {}\n",
          "c.yaml:3: models.\"a b\" is not the name of a model: letters, digits and ._-/ with a tag after : are" },
        { MODELS "  gpt-oss:120b-cloud:\n",
          "c.yaml:3: models.gpt-oss:120b-cloud is a cloud model: prompts would leave this machine" },
        { MODELS "  ok:\n    model: kimi:cloud\n",
          "c.yaml:4: models.ok.model is a cloud model: prompts would leave this machine" },
        { MODELS "  ok:\n    model: 'a b'\n",
          "c.yaml:4: models.ok.model is not the name of a model: letters, digits and ._-/ with a tag after : are" },
        { MODELS "  b: {}\n  qwen3: {}\n  a: {}\n  Qwen3:latest: {}\n",
          "c.yaml:6: models.Qwen3:latest is the same model as qwen3 in line 4" },
        { MODELS "  m:\n    num_ctx: 0\n",
          "c.yaml:4: models.m.num_ctx must be a whole number from 4 to 100000000, not \"0\"" },
        { MODELS "  m:\n    num_ctx: \"4096\"\n", "c.yaml:4: models.m.num_ctx must be a whole number without quotes" },
        { MODELS "  m:\n    num_ctxx: 4096\n",
          "c.yaml:4: models.m.num_ctxx is not a known setting: did you mean num_ctx?" },
        { MODELS "  m:\n    temperature: 1\n", "c.yaml:4: models.m.temperature is not a known setting" },
        { MODELS "  m:\n    think: high\n", "c.yaml:4: models.m.think must be true or false, not \"high\"" },
        { MODELS "  m:\n    preload: always\n", "c.yaml:4: models.m.preload must be true or false, not \"always\"" },
        { MODELS "  m:\n    preload: true\n    keep_alive: 0\n",
          "c.yaml:4: models.m.preload loads what keep_alive unloads at once: leave one of them out" },
        { MODELS "  m: {keep_alive: 0m0s, preload: true}\n",
          "c.yaml:3: models.m.preload loads what keep_alive unloads at once: leave one of them out" },
        { MODELS "  m:\n    max_prompt_chars: 5k\n",
          "c.yaml:4: models.m.max_prompt_chars must be a whole number from 0 to 1000000000, not \"5k\"" },
    };

    CHECK_REFUSALS(rows);
}

TEST(what_is_preloaded_may_stay_for_any_time)
{
    static const char *const rows[] = {
        "", "keep_alive: -1, ", "keep_alive: 1, ", "keep_alive: 10m, ", "keep_alive: 0.5s, ", "keep_alive: 90s, "
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[128];
        (void)snprintf(yaml, sizeof yaml, MODELS "  m: {%spreload: true}\n", rows[i]);
        struct snapshot *snapshot = given(yaml);
        CHECK_ROW(snapshot->models[0].preload, yaml);
        snapshot_unref(snapshot);
    }
}
