/* What is wanted of a backend, and what is done about it: news goes in with its time, findings and loads come out. */
#include "wants.h"

#include "backend.h"
#include "check.h"
#include "kind.h"
#include "snapshot.h"

#define FILE_START "auth: { enabled: false }\n"
#define TWO        FILE_START "models: { a: { preload: true, num_ctx: 4096, keep_alive: -1 }, b: { preload: true } }\n"

enum { TIMEOUT_MS = 60000, WALL_S = 1795339800 };

static const struct fleet_rule every_model = { .weight = 1 };

/* One backend, and the models that a file wants of it. What the log says goes to stderr. */
struct bed {
    struct snapshot *snapshot;
    struct backend *backend;
    struct wants *wants;
};

static struct snapshot *given(const char *yaml)
{
    struct snapshot *snapshot;
    struct text why;

    text_init(&why, 4096);
    snapshot = snapshot_parse("c.yaml", slice_of(yaml), &why, NULL);
    if (!snapshot)
        check_fail(__FILE__, __LINE__, "%s", text_string(&why));
    text_release(&why);
    return snapshot;
}

static struct bed make(const char *yaml, const struct fleet_rule *rule)
{
    const struct backend_rule place = { .name = "gpu1", .host = "127.0.0.1", .port = 9, .authority = "127.0.0.1:9" };
    struct bed bed = { .snapshot = given(yaml), .backend = backend_new(&place, &kind_ollama, 0) };

    bed.wants = wants_new(bed.snapshot, rule);
    CHECK(bed.backend && bed.wants);
    wants_begin(bed.wants, bed.backend, 0);
    return bed;
}

static void take_down(struct bed *bed)
{
    wants_free(bed->wants);
    (void)backend_unref(bed->backend);
    (void)snapshot_unref(bed->snapshot);
}

static void see_list(struct bed *bed, const char *body)
{
    struct catalog *catalog = catalog_parse_tags(slice_of(body));

    CHECK(catalog);
    wants_see_catalog(bed->wants, bed->backend, catalog);
    (void)catalog_unref(catalog);
}

static void see_loaded_at(struct bed *bed, int64_t now_ms, bool was_quiet, const char *body)
{
    const struct wants_look look = {
        .asked_ms = now_ms - 1, .now_ms = now_ms, .wall_s = WALL_S + now_ms / 1000, .was_quiet = was_quiet
    };
    struct residents *residents = residents_parse_ps(slice_of(body));

    CHECK(residents);
    wants_see_residents(bed->wants, bed->backend, residents, &look);
    (void)residents_unref(residents);
}

static void look(struct bed *bed, int64_t now_ms)
{
    wants_look_after(bed->wants, bed->backend, TIMEOUT_MS, now_ms);
}

/* The name of the next that is to be loaded, "" for none. */
static const char *next(struct bed *bed, int64_t now_ms)
{
    const struct want *want = wants_load_next(bed->wants, now_ms);

    return want ? want->name : "";
}

static void load_both(struct bed *bed, int64_t now_ms)
{
    CHECK(strcmp(next(bed, now_ms), "a:latest") == 0);
    wants_loaded(bed->wants, bed->backend, SLICE("a:latest"), 200, NULL, now_ms);
    CHECK(strcmp(next(bed, now_ms), "b:latest") == 0);
    wants_loaded(bed->wants, bed->backend, SLICE("b:latest"), 200, NULL, now_ms);
    look(bed, now_ms);
    CHECK(backend_takes_callers(bed->backend));
}

static void take_note(void *arg, enum finding finding, struct slice model)
{
    text_printf(arg, "%s %.*s;", finding_word(finding), (int)model.len, model.at);
}

static void check_findings(struct bed *bed, const char *wanted)
{
    struct text got;

    text_init(&got, 65536);
    backend_findings(bed->backend, take_note, &got);
    CHECK_STR(text_string(&got), got.len, wanted);
    text_release(&got);
}

#define LOADED(entries) "{\"models\":[" entries "]}"
#define A \
    "{\"name\":\"a\",\"size\":20,\"size_vram\":20,\"context_length\":4096,\"expires_at\":\"2318-01-01T00:00:00Z\"}"
#define B \
    "{\"name\":\"b\",\"size\":20,\"size_vram\":20,\"context_length\":2048,\"expires_at\":\"2318-01-01T00:00:00Z\"}"
#define C "{\"name\":\"c\",\"size\":20,\"size_vram\":20}"

TEST(models_are_loaded_one_after_the_other_before_callers_are_let_in)
{
    struct bed bed = make(TWO, &every_model);

    CHECK(!backend_takes_callers(bed.backend));
    look(&bed, 1000);
    CHECK(!backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 1000), "a:latest") == 0);
    CHECK_EQ(wants_find(bed.wants, SLICE("a:latest"))->num_ctx, 4096);
    CHECK(strcmp(wants_find(bed.wants, SLICE("a:latest"))->keep_alive, "-1") == 0);
    CHECK(strcmp(next(&bed, 1100), "") == 0); /* one at a time */
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 200, NULL, 5000);
    look(&bed, 5000);
    CHECK(!backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 5000), "b:latest") == 0);
    look(&bed, 5000);
    CHECK(!backend_takes_callers(bed.backend));
    wants_loaded(bed.wants, bed.backend, SLICE("b:latest"), 200, NULL, 9000);
    look(&bed, 9000);
    CHECK(backend_takes_callers(bed.backend));
    CHECK(!wants_are_busy(bed.wants));
    check_findings(&bed, "");
    take_down(&bed);
}

TEST(callers_do_not_wait_for_longer_than_the_timeout_which_counts_from_the_first_sign_of_life)
{
    struct bed bed = make(TWO, &every_model);

    look(&bed, 500000);
    CHECK(strcmp(next(&bed, 500000), "a:latest") == 0);
    look(&bed, 500000 + TIMEOUT_MS - 1);
    CHECK(!backend_takes_callers(bed.backend));
    look(&bed, 500000 + TIMEOUT_MS);
    CHECK(backend_takes_callers(bed.backend));
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 200, NULL, 900000);
    CHECK(strcmp(next(&bed, 900000), "b:latest") == 0); /* it goes on all the same */
    take_down(&bed);
}

TEST(a_load_that_fails_is_a_finding_holds_up_nobody_and_is_tried_again_later)
{
    struct bed bed = make(TWO, &every_model);

    CHECK(strcmp(next(&bed, 0), "a:latest") == 0);
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 500, "500", 1000);
    check_findings(&bed, "not_resident a:latest;");
    CHECK(strcmp(next(&bed, 1000), "b:latest") == 0);
    wants_loaded(bed.wants, bed.backend, SLICE("b:latest"), 404, "404", 1000);
    check_findings(&bed, "not_resident a:latest;model_missing b:latest;");
    look(&bed, 1000);
    CHECK(backend_takes_callers(bed.backend));
    see_loaded_at(&bed, 5000, false, LOADED(C));
    CHECK(strcmp(next(&bed, 5000), "") == 0);
    see_loaded_at(&bed, 1000 + WANT_AGAIN_MS, false, LOADED(C));
    CHECK(strcmp(next(&bed, 1000 + WANT_AGAIN_MS), "a:latest") == 0);
    CHECK(backend_takes_callers(bed.backend));
    check_findings(&bed,
                   "not_resident a:latest;model_missing b:latest;"); /* said once, and not over while it is tried */
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 200, NULL, 40000);
    see_loaded_at(&bed, 41000, false, LOADED(A));
    check_findings(&bed, "model_missing b:latest;");
    take_down(&bed);
}

TEST(a_connection_that_is_lost_is_no_answer_and_is_tried_again_a_few_times)
{
    struct bed bed = make(FILE_START "models: { a: { preload: true } }\n", &every_model);
    int64_t now_ms = 0;

    for (int i = 1; i < WANT_MAX_LOSSES; i++) {
        CHECK(strcmp(next(&bed, now_ms), "a:latest") == 0);
        wants_lost(bed.wants, bed.backend, SLICE("a:latest"), now_ms);
        CHECK(strcmp(next(&bed, now_ms + WANT_LOST_MS - 1), "") == 0);
        now_ms += WANT_LOST_MS;
        look(&bed, now_ms);
        CHECK(!backend_takes_callers(bed.backend));
        check_findings(&bed, "");
    }
    CHECK(strcmp(next(&bed, now_ms), "a:latest") == 0);
    wants_lost(bed.wants, bed.backend, SLICE("a:latest"), now_ms);
    look(&bed, now_ms);
    CHECK(backend_takes_callers(bed.backend));
    check_findings(&bed, "not_resident a:latest;");
    take_down(&bed);
}

TEST(a_restart_that_nobody_noticed_is_seen_by_what_is_not_loaded_any_more)
{
    struct bed bed = make(TWO, &every_model);

    load_both(&bed, 1000);
    see_loaded_at(&bed, 2000, false, LOADED(A "," B));
    CHECK(backend_takes_callers(bed.backend));
    see_loaded_at(&bed, 7000, false, LOADED(""));
    CHECK(!backend_takes_callers(bed.backend));
    check_findings(&bed, "");
    load_both(&bed, 8000);

    see_loaded_at(&bed, 9000, false, LOADED(A "," B));
    see_loaded_at(&bed, 14000, true, LOADED(C)); /* it did not answer in between, and somebody was quicker than we */
    CHECK(!backend_takes_callers(bed.backend));
    load_both(&bed, 15000);
    take_down(&bed);
}

TEST(a_model_that_another_one_has_pushed_out_stays_out)
{
    struct bed bed = make(TWO, &every_model);

    load_both(&bed, 1000);
    see_loaded_at(&bed, 2000, false, LOADED(A "," B));
    for (int64_t now_ms = 7000; now_ms < 100000; now_ms += 5000) {
        see_loaded_at(&bed, now_ms, false, LOADED(B "," C));
        CHECK(strcmp(next(&bed, now_ms), "") == 0);
        CHECK(backend_takes_callers(bed.backend));
        check_findings(&bed, "not_resident a:latest;");
    }
    see_loaded_at(&bed, 100000, false, LOADED(A "," B));
    check_findings(&bed, "");
    take_down(&bed);
}

TEST(a_model_whose_keep_alive_is_over_is_loaded_again_and_nobody_waits_for_it)
{
    struct bed bed = make(TWO, &every_model);

    load_both(&bed, 1000);
    see_loaded_at(&bed, 2000, false, LOADED("{\"name\":\"a\",\"expires_at\":\"2026-11-22T09:30:04Z\"}," B));
    see_loaded_at(&bed, 7000, false, LOADED(B));
    CHECK(strcmp(next(&bed, 7000), "a:latest") == 0);
    CHECK(backend_takes_callers(bed.backend));
    check_findings(&bed, "");
    take_down(&bed);
}

TEST(nor_when_it_was_the_only_one)
{
    struct bed bed = make(FILE_START "models: { a: { preload: true } }\n", &every_model);

    CHECK(strcmp(next(&bed, 0), "a:latest") == 0);
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 200, NULL, 1000);
    look(&bed, 1000);
    see_loaded_at(&bed, 2000, false, LOADED("{\"name\":\"a\",\"expires_at\":\"2026-11-22T09:30:04Z\"}"));
    see_loaded_at(&bed, 7000, false, LOADED(""));
    CHECK(backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 7000), "a:latest") == 0);
    take_down(&bed);
}

TEST(what_was_asked_before_the_load_ended_says_nothing_against_it)
{
    struct bed bed = make(TWO, &every_model);

    load_both(&bed, 5000);
    see_loaded_at(&bed, 5000, false, LOADED("")); /* asked at 4999 */
    check_findings(&bed, "");
    see_loaded_at(&bed, 6000, false, LOADED(""));
    check_findings(&bed, "not_resident a:latest;not_resident b:latest;");
    take_down(&bed);
}

TEST(each_thing_that_is_wrong_is_found_and_passes)
{
    struct bed bed = make(FILE_START "models: { a: { num_ctx: 4096 }, B: { model: \"library/b\" } }\n", &every_model);

    CHECK(backend_takes_callers(bed.backend)); /* nothing is to be loaded */
    see_list(&bed, "{\"models\":[{\"name\":\"a\"}]}");
    check_findings(&bed, "model_missing b:latest;");
    see_list(&bed, "{\"models\":[{\"name\":\"a\"},{\"name\":\"b\"}]}");
    check_findings(&bed, "");
    see_loaded_at(&bed, 1000, false,
                  LOADED("{\"name\":\"a\",\"size\":20,\"size_vram\":14,\"context_length\":4095}," C));
    check_findings(&bed, "partly_on_cpu a:latest;short_context a:latest;");
    see_loaded_at(&bed, 2000, false, LOADED("{\"name\":\"a\",\"size\":20,\"size_vram\":20,\"context_length\":4096}"));
    check_findings(&bed, "");
    see_loaded_at(&bed, 3000, false, LOADED("{\"name\":\"a\",\"size\":20,\"size_vram\":0,\"context_length\":1}"));
    check_findings(&bed, "partly_on_cpu a:latest;short_context a:latest;");
    see_loaded_at(&bed, 4000, false, LOADED("")); /* keep_alive let it go: nobody asked for it to stay */
    check_findings(&bed, "");
    see_loaded_at(&bed, 5000, false, LOADED("{\"name\":\"a\"},{\"name\":\"c\",\"size\":20,\"size_vram\":1}"));
    check_findings(&bed, ""); /* an old version; and a model that no caller can use */
    take_down(&bed);
}

TEST(without_a_section_of_models_all_that_is_loaded_counts)
{
    struct bed bed = make(FILE_START, &every_model);

    see_loaded_at(&bed, 1000, false, LOADED("{\"name\":\"c\",\"size\":20,\"size_vram\":1}"));
    check_findings(&bed, "partly_on_cpu c:latest;");
    see_loaded_at(&bed, 2000, false, LOADED(""));
    check_findings(&bed, "");
    take_down(&bed);
}

TEST(a_backend_is_asked_for_its_own_models_only_and_a_draining_one_loads_none)
{
    static const char *const names[] = { "b:latest", "z:latest" };
    const struct fleet_rule own = { .weight = 1, .models = names, .model_count = 2 };
    const struct fleet_rule draining = { .weight = 1, .drains = true };
    struct bed bed = make(TWO, &own);

    CHECK_EQ(bed.wants->count, 2);
    CHECK(strcmp(next(&bed, 0), "b:latest") == 0);
    see_list(&bed, "{\"models\":[]}");
    check_findings(&bed, "model_missing b:latest;model_missing z:latest;");
    take_down(&bed);
    bed = make(TWO, &draining);
    CHECK(backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 0), "") == 0);
    take_down(&bed);
}

TEST(a_model_that_was_missing_is_loaded_once_it_is_there)
{
    struct bed bed = make(FILE_START "models: { a: { preload: true } }\n", &every_model);

    see_list(&bed, "{\"models\":[]}");
    CHECK(strcmp(next(&bed, 0), "") == 0);
    look(&bed, 0);
    CHECK(backend_takes_callers(bed.backend));
    see_loaded_at(&bed, 1000, false, LOADED(""));
    check_findings(&bed, "model_missing a:latest;"); /* one thing is said once */
    see_list(&bed, "{\"models\":[{\"name\":\"a\"}]}");
    CHECK(strcmp(next(&bed, 2000), "a:latest") == 0);
    CHECK(backend_takes_callers(bed.backend));
    take_down(&bed);
}

static void reconfigure(struct bed *bed, const char *yaml)
{
    struct snapshot *snapshot = given(yaml);
    struct wants *wants = wants_new(snapshot, &every_model);

    CHECK(wants);
    wants_carry(wants, bed->wants);
    wants_free(bed->wants);
    (void)snapshot_unref(bed->snapshot);
    bed->snapshot = snapshot;
    bed->wants = wants;
}

TEST(a_new_configuration_keeps_what_is_known_and_loads_what_is_new)
{
    struct bed bed = make(TWO, &every_model);

    load_both(&bed, 1000);
    see_list(&bed, "{\"models\":[{\"name\":\"b\"},{\"name\":\"c\"}]}");
    see_loaded_at(&bed, 2000, false, LOADED(B));
    check_findings(&bed, "model_missing a:latest;");
    reconfigure(&bed, FILE_START "models: { b: { preload: true }, c: { preload: true } }\n");
    CHECK(backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 3000), "c:latest") == 0);
    see_loaded_at(&bed, 3500, false, LOADED(B));
    check_findings(&bed, ""); /* nobody wants a any more */
    reconfigure(&bed, FILE_START "models: { b: {} }\n");
    wants_loaded(bed.wants, bed.backend, SLICE("c:latest"), 500, "of another configuration", 4000);
    CHECK(strcmp(next(&bed, 5000), "") == 0);
    check_findings(&bed, "");
    take_down(&bed);
}

TEST(a_new_configuration_while_models_are_loaded_does_not_let_callers_in)
{
    struct bed bed = make(TWO, &every_model);

    look(&bed, 1000);
    CHECK(strcmp(next(&bed, 1000), "a:latest") == 0);
    reconfigure(&bed, TWO);
    look(&bed, 1500);
    CHECK(!backend_takes_callers(bed.backend));
    CHECK(strcmp(next(&bed, 1500), "") == 0); /* a is under way */
    wants_loaded(bed.wants, bed.backend, SLICE("a:latest"), 200, NULL, 2000);
    CHECK(strcmp(next(&bed, 2000), "b:latest") == 0);
    take_down(&bed);
}
