/* One change from the log's JSON and from the view's columns. */
#include "arena.h"
#include "check.h"
#include "codec.h"
#include "pack.h"

static const char uuid[] = "00112233-4455-6677-8899-aabbccddeeff";
static const uint8_t id[] = { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                              0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff };
#define HASH "abababababababababababababababababababababababababababababababab"

static struct text out, why;
static struct arena arena;

static void clean(void)
{
    text_release(&out);
    text_release(&why);
    arena_release(&arena);
    text_init(&out, CODEC_MAX_CHANGES);
    text_init(&why, 1024);
    arena_init(&arena);
}

__attribute__((destructor)) static void end(void)
{
    clean();
    arena_thread_stop();
}

static enum err pack(const char *kind, const char *name, const char *body)
{
    clean();
    return pack_logged(slice_of(kind), slice_of(name), slice_of(body), &out, &why);
}

/* The one change that was packed. */
static const struct qw_change *packed(void)
{
    const struct qw_change *changes;
    size_t count;

    CHECK_EQ(changes_unpack(text_slice(&out), &arena, &changes, &count, &why), ERR_OK);
    CHECK_EQ(count, 1);
    return changes;
}

TEST(a_key_packs_to_the_same_bytes_from_the_log_and_from_the_view)
{
    static const struct slice models = SLICE("qwen3:32b small:latest"), allow = SLICE("10.0.0.0/8"),
                              nothing = { "", 0 };
    static const struct {
        const char *body;
        struct key_row row;
    } rows[] = {
        { "{\"hash\":\"" HASH "\",\"user\":\"alice\",\"team\":\"research\",\"name\":\"Ab3\",\"delegate\":true,"
          "\"class\":\"batch\",\"expires\":1800000000,\"weight\":3,\"rpm\":30,\"max_concurrent\":4,"
          "\"models\":[\"qwen3:32b\",\"small:latest\"],\"allow\":[\"10.0.0.0/8\"]}",
          { .user = SLICE("alice"),
            .team = SLICE("research"),
            .name = SLICE("Ab3"),
            .class = SLICE("batch"),
            .delegates = true,
            .expires_s = 1800000000,
            .weight = 3,
            .rpm = 30,
            .max_concurrent = 4,
            .models = &models,
            .allow = &allow } },
        { "{\"hash\":\"" HASH "\",\"user\":\"bob\",\"team\":null,\"name\":\"n\",\"delegate\":false,"
          "\"class\":\"interactive\",\"expires\":null,\"weight\":1,\"rpm\":null,\"max_concurrent\":null,"
          "\"models\":null,\"allow\":null}",
          { .user = SLICE("bob"), .name = SLICE("n"), .class = SLICE("interactive"), .weight = 1 } },
        { "{\"hash\":\"" HASH "\",\"user\":\"bob\",\"name\":\"n\",\"class\":\"interactive\",\"weight\":1,\"allow\":[]}",
          { .user = SLICE("bob"), .name = SLICE("n"), .class = SLICE("interactive"), .weight = 1, .allow = &nothing } },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct key_row row = rows[i].row;
        struct text other;

        text_init(&other, CODEC_MAX_CHANGES);
        row.id = slice_of(uuid);
        memset(row.hash, 0xab, sizeof row.hash);
        CHECK_ROW(pack("key", uuid, rows[i].body) == ERR_OK, rows[i].body);
        CHECK_ROW(pack_key(&row, &other, &why) == ERR_OK, rows[i].body);
        CHECK_ROW(slice_is(text_slice(&out), text_slice(&other)), rows[i].body);
        text_release(&other);
        CHECK_ROW(slice_is(packed()->key.id, (struct slice){ (const char *)id, sizeof id }), rows[i].body);
    }
    CHECK(packed()->key.allow && packed()->key.allow->count == 0); /* from nowhere is not from everywhere */
}

TEST(a_key_that_lets_nobody_in_any_more_is_removed)
{
    CHECK_EQ(pack("key", uuid, "{\"gone\":true,\"hash\":\"" HASH "\",\"cut\":true}"), ERR_OK);
    CHECK_EQ(packed()->what, QW_CHANGE_REMOVED);
    CHECK(packed()->removed.noun == QW_KEY && packed()->removed.cuts && packed()->removed.hash.len == 32);
    CHECK_EQ(pack("key", uuid, "{\"gone\":true,\"hash\":\"" HASH "\"}"), ERR_OK);
    CHECK(!packed()->removed.cuts);
}

TEST(what_is_gone_is_removed_by_its_name)
{
    clean();
    CHECK_EQ(pack_logged(SLICE("model"), SLICE("qwen3:32b"), (struct slice){ 0 }, &out, &why), ERR_OK);
    CHECK_EQ(packed()->removed.noun, QW_MODEL);
    CHECK_STR(packed()->removed.name.at, packed()->removed.name.len, "qwen3:32b");
}

TEST(a_model_keeps_what_is_absent_apart_from_what_is_nothing)
{
    CHECK_EQ(pack("model", "m",
                  "{\"backend_model\":null,\"num_ctx\":4096,\"keep_alive\":\"5m\",\"max_prompt_chars\":0,"
                  "\"max_system_chars\":null,\"think\":false,\"preload\":true}"),
             ERR_OK);
    CHECK_STR(packed()->model.keep_alive.at, packed()->model.keep_alive.len, "\"5m\"");
    CHECK(packed()->model.max_prompt_chars && packed()->model.max_prompt_chars->value == 0);
    CHECK(!packed()->model.max_system_chars && packed()->model.preloads);
    CHECK_EQ(packed()->model.think, QW_THINK_OFF);
    CHECK_EQ(pack("model", "m", "{\"keep_alive\":\"-1\",\"think\":null,\"preload\":false}"), ERR_OK);
    CHECK_STR(packed()->model.keep_alive.at, packed()->model.keep_alive.len, "-1");
    CHECK_EQ(packed()->model.think, QW_THINK_NOT_SAID);
}

TEST(a_backend_of_weight_0_is_standby)
{
    CHECK_EQ(pack("backend", "gpu1",
                  "{\"url\":\"http://10.0.0.5:11434\",\"kind\":\"ollama\",\"slots\":4,\"models\":[\"m\"],\"weight\":0,"
                  "\"drain\":true}"),
             ERR_OK);
    CHECK(packed()->backend.is_standby && packed()->backend.drains && packed()->backend.slots == 4);
    CHECK_EQ(packed()->backend.models->count, 1);
    CHECK_EQ(pack("backend", "gpu1", "{\"url\":\"http://10.0.0.5:11434\",\"weight\":2}"), ERR_OK);
    CHECK(!packed()->backend.is_standby && packed()->backend.weight == 2 && !packed()->backend.models);
}

TEST(a_setting_and_a_range_are_taken_as_they_are)
{
    CHECK_EQ(pack("setting", "rate_limit.max_requests", "{\"value\":[1, {\"a\": \"\xc3\xa9\"}]}"), ERR_OK);
    CHECK_STR(packed()->setting.value.at, packed()->setting.value.len, "[1,{\"a\":\"\xc3\xa9\"}]");
    CHECK_EQ(pack("range", "10.0.0.0/8", "{}"), ERR_OK);
    CHECK_STR(packed()->range.cidr.at, packed()->range.cidr.len, "10.0.0.0/8");
}

TEST(what_no_message_can_say_is_refused_and_a_key_is_taken_away_then)
{
    static const struct {
        const char *kind, *name, *body;
        bool is_taken_away;
    } rows[] = {
        { "key", "no uuid", "{\"hash\":\"" HASH "\",\"user\":\"u\",\"name\":\"n\",\"class\":\"batch\"}", false },
        { "key", uuid, "{\"hash\":\"ab\",\"user\":\"u\",\"name\":\"n\",\"class\":\"batch\"}", false },
        { "key", uuid, "{\"hash\":\"" HASH "\",\"user\":\"u\",\"name\":\"n\",\"class\":\"royal\"}", true },
        { "key", uuid, "{\"hash\":\"" HASH "\",\"name\":\"n\",\"class\":\"batch\"}", true },
        { "key", uuid, "{\"hash\":\"" HASH "\",\"user\":\"u\",\"name\":\"n\",\"class\":\"batch\",\"models\":\"all\"}",
          true },
        { "key", uuid, "{\"hash\":\"" HASH "\",\"user\":\"u\",\"name\":\"n\",\"class\":\"batch\",\"rpm\":-1}", true },
        { "key", uuid, "{\"hash\":\"" HASH "\",\"user\":\"u\",\"name\":\"n\",\"class\":\"batch\",\"allow\":[1]}",
          true },
        { "key", uuid, "[]", false },
        { "key", uuid, "{", false },
        { "quota", "x", "{}", false },
        { "backend", "b", "{\"weight\":1}", false },
        { "setting", "s", "{}", false },
        { "range", "", "{}", false },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_ROW(pack(rows[i].kind, rows[i].name, rows[i].body) != ERR_OK, rows[i].body);
        CHECK_ROW(why.len > 0, rows[i].body);
        CHECK_ROW((out.len > 0) == rows[i].is_taken_away, rows[i].body);
        if (rows[i].is_taken_away)
            CHECK_ROW(packed()->what == QW_CHANGE_REMOVED && packed()->removed.noun == QW_KEY, rows[i].body);
    }
}

TEST(what_cannot_be_packed_leaves_what_was_packed_before)
{
    size_t before;

    CHECK_EQ(pack("range", "10.0.0.0/8", "{}"), ERR_OK);
    before = out.len;
    CHECK(pack_logged(SLICE("backend"), SLICE("b"), SLICE("{}"), &out, &why) != ERR_OK);
    CHECK_EQ(out.len, before);
    CHECK_EQ(packed()->what, QW_RANGE);
}
