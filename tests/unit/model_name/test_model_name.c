#include "check.h"
#include "model_name.h"

TEST(names_of_models_compare_as_ollama_compares_them)
{
    static const struct {
        const char *name, *normalised; /* NULL: no name */
    } rows[] = {
        { "qwen3", "qwen3:latest" },
        { "Qwen3:32B", "qwen3:32b" },
        { "qwen3:latest", "qwen3:latest" },
        { "library/qwen3", "qwen3:latest" },
        { "registry.ollama.ai/library/qwen3:8b", "qwen3:8b" },
        { "Registry.Ollama.AI/Library/Qwen3", "qwen3:latest" },
        { "registry.ollama.ai/me/x", "me/x:latest" },
        { "me/x", "me/x:latest" },
        { "registry.internal/library/qwen3", "registry.internal/library/qwen3:latest" },
        { "registry.internal:5000/ai/qwen3:32b", "registry.internal:5000/ai/qwen3:32b" },
        { "hf.co/Org/Model-GGUF:Q4_K_M", "hf.co/org/model-gguf:q4_k_m" },
        { "_x.y-z", "_x.y-z:latest" },
        { "", NULL },
        { ":", NULL },
        { "x:", NULL },
        { ":latest", NULL },
        { "a:b:c", NULL },
        { "a b", NULL },
        { "a/", NULL },
        { "/a", NULL },
        { "a//b", NULL },
        { "a/b/c/d", NULL },
        { "../x", NULL },
        { "a/../x", NULL },
        { "-x", NULL },
        { "a:5000/b", NULL },
        { "x@sha256:abc", NULL },
        { "qwen3\n", NULL },
        { "qwén", NULL },
        { "http://x/y", NULL },
    };
    struct text out;

    text_init(&out, 512);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        text_clear(&out);
        CHECK_ROW(model_name_normalise(slice_of(rows[i].name), &out) == (rows[i].normalised != NULL), rows[i].name);
        CHECK_STR(text_string(&out), out.len, rows[i].normalised ? rows[i].normalised : "");
    }
    CHECK(!model_name_normalise(SLICE("a\0b"), &out) && !model_name_normalise((struct slice){ NULL, 0 }, &out));
    text_release(&out);
}

TEST(a_name_of_a_model_has_at_most_255_bytes_with_its_tag)
{
    char name[257];
    struct text out;

    memset(name, 'a', sizeof name);
    text_init(&out, 1024);
    CHECK(model_name_normalise((struct slice){ name, 248 }, &out)); /* ":latest" comes to it */
    CHECK_EQ(out.len, 255);
    CHECK(!model_name_normalise((struct slice){ name, 249 }, &out));
    text_clear(&out);
    memcpy(name + 100, ":", 1);
    CHECK(model_name_normalise((struct slice){ name, 255 }, &out));
    CHECK(!model_name_normalise((struct slice){ name, 256 }, &out));
    text_release(&out);
}

TEST(cloud_names_are_known)
{
    static const struct {
        const char *normalised;
        bool is_cloud;
    } rows[] = {
        { "gpt-oss:120b-cloud", true }, { "qwen3:cloud", true },      { "gpt-oss-cloud:latest", true },
        { "me/x:cloud", true },         { "qwen3:32b", false },       { "cloud:latest", false },
        { "cloud/x:latest", false },    { "x-clouds:latest", false }, { "xcloud:latest", false },
        { "x:cloudy", false },          { "x:precloud", false },      { "h:5000/a/b-cloud:latest", true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(model_name_is_cloud(slice_of(rows[i].normalised)) == rows[i].is_cloud, rows[i].normalised);
}
