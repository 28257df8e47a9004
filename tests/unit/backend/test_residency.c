/* What is loaded, as Ollama's /api/ps gives it. */
#include "backend.h"
#include "check.h"
#include "snapshot.h"

#include "kind.h"

#include <string.h>

#define LIST(entries) "{\"models\":[" entries "]}"

static struct residents *parse(const char *body)
{
    return residents_parse_ps(slice_of(body));
}

TEST(a_list_says_what_is_loaded_and_how)
{
    struct residents *residents =
        parse(LIST("{\"name\":\"other\",\"model\":\"Qwen3:32B\",\"size\":20000000000,\"digest\":\"d\",\"details\":{},"
                   "\"expires_at\":\"2026-11-22T09:30:00.5Z\",\"size_vram\":14000000000,\"context_length\":4096},"
                   "{\"name\":\"alpha\"}"));
    const struct resident *resident;

    CHECK(residents);
    CHECK_EQ(residents->count, 2);
    CHECK(strcmp(residents->models[0].name, "alpha:latest") == 0);
    CHECK_EQ(residents->models[0].size, 0);
    CHECK_EQ(residents->models[0].context_length, 0);
    CHECK_EQ(residents->models[0].expires_s, -1);
    resident = residents_find(residents, SLICE("qwen3:32b"));
    CHECK(resident);
    CHECK_EQ(resident->size, 20000000000);
    CHECK_EQ(resident->size_vram, 14000000000);
    CHECK_EQ(resident->context_length, 4096);
    CHECK_EQ(resident->expires_s, 1795339800);
    CHECK(!residents_find(residents, SLICE("qwen3:32")));
    CHECK(!residents_find(residents, SLICE("qwen3:32bb")));
    CHECK(!residents_find(residents, SLICE("other:latest")));
    (void)residents_unref(residents);
}

TEST(what_a_version_does_not_say_is_not_said)
{
    static const char *const sizes[] = {
        "\"size\":7",
        "\"size_vram\":7",
        "\"size\":7,\"size_vram\":\"7\"",
        "\"size\":7,\"size_vram\":-1",
        "\"size\":7,\"size_vram\":1e99",
        "\"size\":7,\"size_vram\":8",
        "\"size\":null,\"size_vram\":7",
        "\"size\":7.5,\"size_vram\":7",
    };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char body[256] = LIST("{\"name\":\"a\",");
        struct residents *residents;
        strcpy(body + strlen("{\"models\":[{\"name\":\"a\","), sizes[i]);
        strcat(body, ",\"context_length\":[],\"expires_at\":7}]}");
        residents = parse(body);
        CHECK_ROW(residents && residents->count == 1, sizes[i]);
        CHECK_ROW(!residents->models[0].size && !residents->models[0].size_vram, sizes[i]);
        CHECK_ROW(!residents->models[0].context_length && residents->models[0].expires_s == -1, sizes[i]);
        (void)residents_unref(residents);
    }
}

TEST(nothing_loaded_is_an_answer_too_and_nothing_like_it_is_none)
{
    static const char *const bodies[] = { "", "404 page not found", "{}", "[]", "{\"models\":null}", LIST("{") };
    struct residents *residents = parse(LIST(""));

    CHECK(residents);
    CHECK_EQ(residents->count, 0);
    CHECK(!residents_find(residents, SLICE("a:latest")));
    (void)residents_unref(residents);
    residents = parse(LIST("3,null,\"d\",[],{},{\"name\":7},{\"name\":\"b\\u0000c\"}"));
    CHECK(residents);
    CHECK_EQ(residents->count, 0);
    (void)residents_unref(residents);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        CHECK_ROW(!parse(bodies[i]), bodies[i]);
}

TEST(a_backend_says_what_it_has_loaded_once_it_is_known)
{
    const struct backend_rule rule = { .name = "gpu1", .host = "127.0.0.1", .port = 9, .authority = "127.0.0.1:9" };
    struct backend *backend = backend_new(&rule, &kind_ollama, 1000);

    CHECK(backend);
    CHECK_EQ(backend_residency(backend, SLICE("a:latest")), RESIDENCY_UNKNOWN);
    backend_set_residents(backend, parse(LIST("{\"name\":\"a\"}")));
    CHECK_EQ(backend_residency(backend, SLICE("a:latest")), RESIDENCY_YES);
    CHECK_EQ(backend_residency(backend, SLICE("b:latest")), RESIDENCY_NO);
    backend_set_residents(backend, NULL);
    CHECK_EQ(backend_residency(backend, SLICE("a:latest")), RESIDENCY_UNKNOWN);
    (void)backend_unref(backend);
}
