/* The list of models, as Ollama's /api/tags gives it. */
#include "backend.h"
#include "check.h"

#include <string.h>

#define LIST(entries) "{\"models\":[" entries "]}"

static struct catalog *parse(const char *body)
{
    return catalog_parse_tags(slice_of(body));
}

TEST(a_list_is_sorted_and_says_what_each_model_can_do)
{
    struct catalog *catalog =
        parse(LIST("{\"name\":\"ignored\",\"model\":\"Qwen3:32B\",\"modified_at\":\"2026-11-22T09:30:00.5Z\","
                   "\"size\":1,\"details\":{\"families\":[\"a\"]},\"capabilities\":[\"completion\",\"tools\",7,"
                   "\"unheard-of\"]},{\"name\":\"alpha\"}"));
    const struct listing *listing;

    CHECK(catalog);
    CHECK_EQ(catalog->count, 2);
    CHECK(strcmp(catalog->listings[0].name, "alpha:latest") == 0);
    CHECK(!catalog->listings[0].has_capabilities);
    listing = catalog_find(catalog, SLICE("qwen3:32b"));
    CHECK(listing);
    CHECK(strcmp(listing->shown, "Qwen3:32B") == 0);
    CHECK_EQ(listing->modified_s, 1795339800);
    CHECK(listing->has_capabilities);
    CHECK_EQ(listing->capabilities, CAN_COMPLETE | CAN_TOOLS);
    CHECK(!catalog_find(catalog, SLICE("qwen3")));
    (void)catalog_unref(catalog);
}

TEST(names_may_be_escaped)
{
    struct catalog *catalog = parse(LIST("{\"model\":\"qwen\\u0033:\\u0033\\u0032b\"}"));

    CHECK(catalog && catalog_find(catalog, SLICE("qwen3:32b")));
    (void)catalog_unref(catalog);
}

TEST(what_runs_elsewhere_or_has_no_sane_name_is_left_out)
{
    struct catalog *catalog = parse(
        LIST("{\"model\":\"a:cloud\"},{\"model\":\"b\",\"remote_host\":\"https://there\"},{\"model\":\"b\\u0000c\"},"
             "{\"model\":7},{},3,null,\"d\",[],{\"model\":\"e\",\"capabilities\":{}}"));

    CHECK(catalog);
    CHECK_EQ(catalog->count, 1);
    CHECK(strcmp(catalog->listings[0].name, "e:latest") == 0);
    CHECK(!catalog->listings[0].has_capabilities);
    (void)catalog_unref(catalog);
}

TEST(no_models_is_a_list_too_and_many_are)
{
    struct catalog *catalog = parse(LIST(""));
    struct text many;

    CHECK(catalog);
    CHECK_EQ(catalog->count, 0);
    CHECK(!catalog_find(catalog, SLICE("a")));
    (void)catalog_unref(catalog);
    text_init(&many, 1 << 20);
    text_add_literal(&many, "{\"models\":[{\"name\":\"m0\"}");
    for (int i = 1; i < 1000; i++)
        text_printf(&many, ",{\"name\":\"m%d\"}", i);
    text_add_literal(&many, "]}");
    catalog = catalog_parse_tags(text_slice(&many));
    CHECK(catalog);
    CHECK_EQ(catalog->count, 1000);
    CHECK(catalog_find(catalog, SLICE("m999:latest")));
    (void)catalog_unref(catalog);
    text_release(&many);
}

TEST(what_is_no_list_is_refused_whole)
{
    static const char *const bodies[] = {
        "",
        "[]",
        "{}",
        "{\"models\":null}",
        "{\"models\":{}}",
        "{\"models\":[{\"name\":\"a\"}",
        "{\"models\":[{\"name\":\"a\"},{\"name\":\"b\"]}",
        "{\"models\":[{\"name\":\"a\"}]} and more",
        "{\"models\":[{\"name\":\"\xff\"}]}",
        "{\"models\":[{\"name\":\"a\",\"capabilities\":[\"tools\"}]}",
    };

    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        CHECK_ROW(!parse(bodies[i]), bodies[i]);
}
