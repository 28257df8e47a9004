#include <stdlib.h>

#include "given.h"
#include "model_name.h"

#define OFF      "auth: {enabled: false}\n"
#define BACKENDS OFF "backends:\n"

TEST(a_backend_has_what_its_entry_says)
{
    struct snapshot *snapshot = given(
        BACKENDS "  - name: gpu-1.a_B\n    url: http://10.0.0.5:11434\n    kind: ollama\n    slots: 4\n"
                 "    models: [Qwen3:32B, llama3, registry.ollama.ai/library/phi4]\n    weight: 7\n    drain: true\n"
                 "  - {name: gpu2, url: 'http://[fd00::1]/'}\n"
                 "  - {url: 'http://localhost:11434', name: spare, weight: 0}\n");
    const struct backend_rule *rule = snapshot->backends;

    CHECK(snapshot->has_backends && snapshot->backend_count == 3);
    CHECK(strcmp(rule[0].name, "gpu-1.a_B") == 0 && strcmp(rule[0].host, "10.0.0.5") == 0 && rule[0].port == 11434);
    CHECK(strcmp(rule[0].authority, "10.0.0.5:11434") == 0 && rule[0].kind == BACKEND_OLLAMA);
    CHECK(rule[0].slots == 4 && rule[0].weight == 7 && rule[0].drains && rule[0].model_count == 3);
    CHECK(model_names_have(rule[0].models, 3, SLICE("qwen3:32b")));
    CHECK(model_names_have(rule[0].models, 3, SLICE("llama3:latest")));
    CHECK(model_names_have(rule[0].models, 3, SLICE("phi4:latest")));
    CHECK(!model_names_have(rule[0].models, 3, SLICE("llama3")));
    CHECK(!model_names_have(rule[0].models, 3, SLICE("zzz:latest")));
    CHECK(!model_names_have(rule[0].models, 0, SLICE("phi4:latest")));
    CHECK(strcmp(rule[1].name, "gpu2") == 0 && strcmp(rule[1].authority, "[fd00::1]:80") == 0);
    CHECK(rule[1].slots == 0 && rule[1].weight == 1 && !rule[1].drains && !rule[1].models && !rule[1].model_count);
    CHECK(rule[1].kind == BACKEND_OLLAMA);
    CHECK(strcmp(rule[2].authority, "127.0.0.1:11434") == 0 && rule[2].weight == 0);
    snapshot_unref(snapshot);
}

TEST(ollama_api_is_one_backend_without_limits)
{
    static const char *const rows[] = { OFF, OFF "ollama_api: http://gpu1:11434\n" };

    for (size_t i = 0; i < 2; i++) {
        struct snapshot *snapshot = given(rows[i]);
        const struct backend_rule *rule = snapshot->backends;
        CHECK(!snapshot->has_backends && snapshot->backend_count == 1 && strcmp(rule->name, "ollama") == 0);
        CHECK(rule->slots == 0 && rule->weight == 1 && !rule->drains && !rule->models && !rule->model_count);
        CHECK(rule->kind == BACKEND_OLLAMA && strcmp(rule->host, i ? "gpu1" : "localhost") == 0);
        snapshot_unref(snapshot);
    }
}

TEST(backends_at_their_limits_are_taken)
{
    struct snapshot *snapshot =
        given(BACKENDS "  - {name: '0123456789012345678901234567890123456789012345678901234567890123', url: http://a, "
                       "slots: 10000, weight: 1000}\n  - {name: \"-\", url: http://b, slots: 0, weight: 0}\n");

    CHECK(snapshot->backends[0].slots == 10000 && snapshot->backends[0].weight == 1000);
    CHECK(strlen(snapshot->backends[0].name) == 64 && snapshot->backends[1].slots == 0);
    snapshot_unref(snapshot);
}

/* So many entries, on lines of their own from line 3. */
static void many(unsigned count, struct text *out)
{
    text_add_literal(out, BACKENDS);
    for (unsigned i = 1; i <= count; i++)
        text_printf(out, "  - {name: gpu%u, url: http://gpu%u}\n", i, i);
}

TEST(there_are_at_most_64_backends)
{
    struct snapshot *snapshot;
    struct text yaml;
    const char *why;

    text_init(&yaml, 1 << 16);
    many(64, &yaml);
    snapshot = given(text_string(&yaml));
    CHECK(snapshot->backend_count == 64 && strcmp(snapshot->backends[63].name, "gpu64") == 0);
    snapshot_unref(snapshot);
    text_clear(&yaml);
    many(65, &yaml);
    CHECK(!given_with(text_string(&yaml), &why, NULL));
    CHECK_STR(why, strlen(why), "c.yaml:2: backends has 65 entries, but at most 64 are allowed");
    text_release(&yaml);
}

TEST(bad_backends_are_refused_with_file_line_and_key)
{
#define NAME_WANTED "must consist of letters, digits and ._-: it stands in the log and in metrics"
#define MAP_WANTED  "must be a map with a name and a url, such as {name: gpu1, url: http://10.0.0.5:11434}"
#define FIRST       "  - {name: a, url: http://a}\n"
    static const struct refusal rows[] = {
        { OFF "backends: []\n", "c.yaml:2: backends is empty: leave it out for the one of ollama_api" },
        { OFF "backends:\n", "c.yaml:2: backends must be a list, each entry with a name and a url" },
        { OFF "backends: http://me:secret@gpu1\n",
          "c.yaml:2: backends must be a list, each entry with a name and a url" },
        { OFF "backends: {gpu1: http://gpu1}\n",
          "c.yaml:2: backends must be a list, each entry with a name and a url" },
        { BACKENDS "  - http://me:secret@gpu1\n", "c.yaml:3: backends[1] " MAP_WANTED },
        { BACKENDS FIRST "  -\n", "c.yaml:4: backends[2] " MAP_WANTED },
        { BACKENDS "  - [a]\n", "c.yaml:3: backends[1] " MAP_WANTED },

        { "ollama_api: http://gpu1\n" BACKENDS FIRST,
          "c.yaml:3: backends excludes ollama_api, which stands in line 1: leave one of them out" },
        { BACKENDS FIRST "ollama_api: http://localhost:11434\n",
          "c.yaml:2: backends excludes ollama_api, which stands in line 4: leave one of them out" },
        { OFF "ollama_api: http://localhost:11434\nbackends: []\n",
          "c.yaml:3: backends excludes ollama_api, which stands in line 2: leave one of them out" },

        { BACKENDS "  - url: http://a\n", "c.yaml:3: backends[1] needs a name, which log and metrics call it by" },
        { BACKENDS "  - name: ''\n", "c.yaml:3: backends[1].name must not be empty" },
        { BACKENDS "  - name: 5\n", "c.yaml:3: backends[1].name must be text: put it in quotes" },
        { BACKENDS "  - name: a b\n", "c.yaml:3: backends[1].name " NAME_WANTED },
        { BACKENDS "  - name: gpu/1\n", "c.yaml:3: backends[1].name " NAME_WANTED },
        { BACKENDS "  - name: 'gpu\"1'\n", "c.yaml:3: backends[1].name " NAME_WANTED },
        { BACKENDS "  - name: Müller\n", "c.yaml:3: backends[1].name " NAME_WANTED },
        { BACKENDS "  - name: '01234567890123456789012345678901234567890123456789012345678901234'\n",
          "c.yaml:3: backends[1].name is 65 bytes long, but at most 64 are allowed" },
        { BACKENDS FIRST "  - {name: b, url: http://b}\n  - url: http://c\n    name: a\n",
          "c.yaml:5: backends[3] is named a, as is the backend in line 3" },

        { BACKENDS "  - name: a\n", "c.yaml:3: backends[1] needs a url, such as http://10.0.0.5:11434" },
        { BACKENDS "  - name: a\n    url: https://a\n",
          "c.yaml:4: backends[1].url cannot be https: Ollama speaks plain http; put both on one machine or a private "
          "network" },
        { BACKENDS "  - name: a\n    url: http://me:secret@a\n",
          "c.yaml:4: backends[1].url must not hold a user or password (@)" },
        { BACKENDS "  - name: a\n    url: http://a:0\n", "c.yaml:4: backends[1].url must have a port from 1 to 65535" },
        { BACKENDS "  - name: a\n    url: gpu1:11434\n",
          "c.yaml:4: backends[1].url must begin with http://, such as http://localhost:11434" },
        { BACKENDS FIRST "  - {name: b, url: http://A:80/}\n",
          "c.yaml:4: backends[2] is at the host and port of a in line 3" },
        { BACKENDS "  - {name: a, url: 'http://[fd00::1]:1'}\n  - {name: b, url: 'http://[fd00:0::0:1]:1'}\n",
          "c.yaml:4: backends[2] is at the host and port of a in line 3" },
        { BACKENDS "  - {name: a, url: 'http://127.0.0.1:1'}\n  - {name: b, url: 'http://LocalHost:1'}\n",
          "c.yaml:4: backends[2] is at the host and port of a in line 3" },
        { BACKENDS "  - {name: a, url: 'http://localhost:1'}\n  - {name: b, url: 'http://[::1]:1'}\n",
          "c.yaml:4: backends[2] is at the host and port of a in line 3" },

        { BACKENDS "  - name: a\n    kind: openai\n", "c.yaml:4: backends[1].kind must be ollama, not \"openai\"" },
        { BACKENDS "  - name: a\n    slots: -1\n",
          "c.yaml:4: backends[1].slots must be a whole number from 0 to 10000, not \"-1\"" },
        { BACKENDS "  - name: a\n    slots: 10001\n",
          "c.yaml:4: backends[1].slots must be a whole number from 0 to 10000, not \"10001\"" },
        { BACKENDS "  - name: a\n    slots: \"4\"\n",
          "c.yaml:4: backends[1].slots must be a whole number without quotes" },
        { BACKENDS "  - name: a\n    weight: 1001\n",
          "c.yaml:4: backends[1].weight must be a whole number from 0 to 1000, not \"1001\"" },
        { BACKENDS "  - name: a\n    weight: 0.5\n",
          "c.yaml:4: backends[1].weight must be a whole number from 0 to 1000, not \"0.5\"" },
        { BACKENDS "  - name: a\n    drain: soon\n",
          "c.yaml:4: backends[1].drain must be true or false, not \"soon\"" },
        { BACKENDS "  - name: a\n    models: qwen3\n", "c.yaml:4: backends[1].models must be a list, not \"qwen3\"" },
        { BACKENDS "  - name: a\n    models: []\n",
          "c.yaml:4: backends[1].models is empty: leave it out for all that the backend lists" },
        { BACKENDS "  - name: a\n    models:\n      - ok\n      - a b\n",
          "c.yaml:6: backends[1].models[2] is not the name of a model: letters, digits and ._-/ with a tag after : "
          "are" },
        { BACKENDS "  - name: a\n    models: [gpt-oss:120b-cloud]\n",
          "c.yaml:4: backends[1].models[1] is a cloud model: prompts would leave this machine" },
        { BACKENDS "  - name: a\n    models:\n      - qwen3\n      - llama3\n      - library/Qwen3:latest\n",
          "c.yaml:7: backends[1].models[3] is the same model as [1] in line 5" },
        { BACKENDS "  - name: a\n    slot: 4\n",
          "c.yaml:4: backends[1].slot is not a known setting: did you mean slots?" },
        { BACKENDS "  - name: a\n    api_key_file: x\n", "c.yaml:4: backends[1].api_key_file is not a known setting" },
    };

    CHECK_REFUSALS(rows);
}

/* One Ollama may listen on a port of 127.0.0.1, another on that of ::1 or of 127.0.0.2. */
TEST(backends_that_may_be_different_ones_are_taken)
{
    static const char *const rows[][2] = {
        { "http://gpu1:1", "http://gpu1:2" },           { "http://gpu1:1", "http://gpu2:1" },
        { "http://127.0.0.1:1", "http://127.0.0.2:1" }, { "http://127.0.0.1:1", "http://[::1]:1" },
        { "http://localhost:1", "http://127.0.0.2:1" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[256];
        (void)snprintf(yaml, sizeof yaml, BACKENDS "  - {name: a, url: '%s'}\n  - {name: b, url: '%s'}\n", rows[i][0],
                       rows[i][1]);
        struct snapshot *snapshot = given(yaml);
        CHECK_ROW(snapshot->backend_count == 2, yaml);
        snapshot_unref(snapshot);
    }
}

TEST(backends_that_serve_nobody_are_warned_about)
{
    static const struct {
        const char *yaml, *warning; /* "": none */
    } rows[] = {
        { "backends:\n  - {name: a, url: http://a, drain: true}\n  - {name: b, url: http://b, drain: true}\n",
          "c.yaml:3: every backend drains: no request will be taken\n" },
        { "backends:\n  - {name: a, url: http://a, drain: true}\n  - {name: b, url: http://b, weight: 0}\n", "" },
        { "backends:\n  - {name: a, url: http://a, models: [x, y]}\n  - {name: b, url: http://b, models: [z]}\n"
          "models:\n  one: {model: library/X}\n  two: {model: q}\n  Z:\n",
          "c.yaml:7: models.two stands for q, which is in no backend's `models`\n" },
        { "backends:\n  - {name: a, url: http://a, models: [x]}\n  - {name: b, url: http://b}\nmodels: {q: {}}\n", "" },
        { "models: {q: {}}\n", "" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[512];
        const char *why, *warnings;
        (void)snprintf(yaml, sizeof yaml, "auth: {valid_keys: [k]}\n%s", rows[i].yaml);
        struct snapshot *snapshot = given_with(yaml, &why, &warnings);
        CHECK_ROW(snapshot, why);
        CHECK_STR(warnings, strlen(warnings), rows[i].warning);
        snapshot_unref(snapshot);
    }
}

/* A list as long as the file may be is no reason to stand still. */
TEST(a_long_list_of_models_is_read_at_once)
{
    struct snapshot *snapshot;
    struct text yaml;

    text_init(&yaml, 1 << 20);
    text_add_literal(&yaml, BACKENDS "  - name: a\n    url: http://a\n    models: [");
    for (unsigned i = 0; i < 100000; i++)
        text_printf(&yaml, "%sm%x", i ? "," : "", i);
    text_add_literal(&yaml, "]\n");
    snapshot = given(text_string(&yaml));
    CHECK_EQ(snapshot->backends[0].model_count, 100000);
    CHECK(model_names_have(snapshot->backends[0].models, 100000, SLICE("m1869f:latest")));
    snapshot_unref(snapshot);
    text_release(&yaml);
}
