#include "arena.h"
#include "check.h"
#include "codec.h"

static const uint8_t bytes_16[16] = { 1, 2, 3 }, bytes_32[32] = { 4, 5, 6 }, bytes_64[64] = { 7, 8, 9 };
#define ID16 ((struct slice){ (const char *)bytes_16, 16 })
#define ID32 ((struct slice){ (const char *)bytes_32, 32 })
#define ID64 ((struct slice){ (const char *)bytes_64, 64 })

/* What one test needs; released by whoever made it, unless the test fails. */
struct bench {
    struct arena arena;
    struct text frame, again, why;
    struct qw_message message;
};

static struct bench *bench_new(void)
{
    static struct bench bench;

    text_release(&bench.frame);
    text_release(&bench.again);
    text_release(&bench.why);
    arena_release(&bench.arena);
    bench = (struct bench){ 0 };
    arena_init(&bench.arena);
    text_init(&bench.frame, 4 * CODEC_MAX_BYTES);
    text_init(&bench.again, 4 * CODEC_MAX_BYTES);
    text_init(&bench.why, 4096);
    return &bench;
}

__attribute__((destructor)) static void bench_clear(void)
{
    struct bench *bench = bench_new();

    arena_release(&bench->arena);
    arena_thread_stop();
}

static enum err unpack(struct bench *bench)
{
    return message_unpack(text_slice(&bench->frame), &bench->arena, &bench->message, &bench->why);
}

static const struct qw_version version = { 1, 2, 3 };
static const struct slice features[] = { { "cut", 3 }, { "load", 4 } };
static const struct qw_hello hello = {
    .name = { "gw1", 3 }, .version = &version, .features = { features, 2 }, .address = { "10.0.0.1:18789", 14 }
};
static const uint32_t steps[] = { 3, 17, 495 };
static const uint64_t counts[] = { 1, 2, UINT64_MAX };
static const struct qw_histogram histogram = { steps, 3, counts, 3, 12345678901 };
static const struct qw_model_load model_loads[] = {
    { .model = { "qwen3:32b", 9 },
      .running = 1,
      .waiting = 2,
      .requests = 3,
      .refused = 4,
      .prompt_tokens = 5,
      .completion_tokens = 6,
      .first_token = &histogram,
      .duration = &histogram },
    { .model = { "other", 5 } },
};
static const struct qw_user_load user_loads[] = { { { "alice", 5 }, 1, 2, 3, 4 },
                                                  { { "frontend/bob", 12 }, 0, 0, 0, 9 } };
static const struct qw_backend_load backend_loads[] = { { { "gpu1", 4 }, true, 1, 2 }, { { "gpu2", 4 }, false, 0, 0 } };
static const struct qw_command commands[] = { { 7, QW_DRAIN }, { 8, QW_UNDRAIN }, { 9, QW_RESYNC } };
static const struct qw_done done[] = { { 7, { 0 } }, { 8, { "no such thing", 13 } } };
static const struct qw_chunk chunk = { 2, 3 };

static const struct qw_message messages[] = {
    { QW_HELLO, .hello = { .name = { "gw1", 3 },
                           .version = &version,
                           .features = { features, 2 },
                           .address = { "10.0.0.1:18789", 14 },
                           .instance = { (const char *)bytes_16, 16 },
                           .max_staleness_s = 86400 } },
    { QW_HELLO, .hello = { .name = { "\xe5\x8c\x97", 3 } } },
    { QW_CHALLENGE, .challenge = { .nonce = { (const char *)bytes_32, 32 }, .version = &version } },
    { QW_PROOF, .proof = { .signature = { (const char *)bytes_64, 64 } } },
    { QW_ENROL, .enrol = { .hello = &hello, .secret = { "qe_x", 4 }, .public_key = { (const char *)bytes_32, 32 } } },
    { QW_WELCOME, .welcome = { .session = { (const char *)bytes_16, 16 },
                               .heartbeat_ms = 1000,
                               .features = { features, 1 },
                               .now_ms = 1763860000000 } },
    { QW_REFUSED, .refused = { .reason = QW_UNAVAILABLE, .detail = { "no database", 11 }, .retry_ms = 500 } },
    { .what = QW_BEAT },
    { QW_BYE, .bye = { .why = { "restart", 7 }, .retry_ms = 100 } },
    { .what = QW_BYE },
    { QW_SYNC, .sync = { .have = 1,
                         .applied = 2,
                         .apply_error = { "no", 2 },
                         .wait_ms = 30000,
                         .snapshot = 4,
                         .next_chunk = 5,
                         .failed = UINT64_MAX } },
    { QW_UPDATE, .update = { .from = 1,
                             .to = 2,
                             .changes = { "whatever\0", 9 },
                             .chunk = &chunk,
                             .checksum = { (const char *)bytes_32, 32 } } },
    { QW_LOAD, .load = { .sequence = 1,
                         .running = 2,
                         .waiting = 3,
                         .models = model_loads,
                         .model_count = 2,
                         .users = user_loads,
                         .user_count = 2,
                         .backends = backend_loads,
                         .backend_count = 2,
                         .now_ms = 4 } },
    { QW_COMMANDS, .commands = { .counted = 5, .commands = commands, .count = 3 } },
    { QW_ACK, .ack = { .done = done, .count = 2 } },
};
enum { MESSAGES = sizeof messages / sizeof *messages };

TEST(every_message_comes_back_as_it_went)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        struct bench *bench = bench_new();
        const char *name = message_name(messages[i].what);

        CHECK_ROW(message_pack(&messages[i], &bench->frame, &bench->why) == ERR_OK, name);
        CHECK_ROW(unpack(bench) == ERR_OK, name);
        CHECK_ROW(bench->message.what == messages[i].what, name);
        CHECK_ROW(message_pack(&bench->message, &bench->again, &bench->why) == ERR_OK, name);
        CHECK_ROW(slice_is(text_slice(&bench->frame), text_slice(&bench->again)), name);
    }
}

TEST(what_was_unpacked_is_what_was_meant)
{
    struct bench *bench = bench_new();
    const struct qw_load *load = &bench->message.load;

    CHECK_EQ(message_pack(&messages[12], &bench->frame, &bench->why), ERR_OK);
    CHECK_EQ(unpack(bench), ERR_OK);
    CHECK_EQ(load->model_count, 2);
    CHECK_STR(load->models[0].model.at, load->models[0].model.len, "qwen3:32b");
    CHECK_EQ(load->models[0].completion_tokens, 6);
    CHECK_EQ(load->models[0].first_token->step_count, 3);
    CHECK_EQ(load->models[0].duration->steps[2], 495);
    CHECK(load->models[0].duration->counts[2] == UINT64_MAX);
    CHECK(!load->models[1].first_token);
    CHECK_STR(load->users[1].user.at, load->users[1].user.len, "frontend/bob");
    CHECK(load->backends[0].is_up && !load->backends[1].is_up);
}

/* --- bytes by hand: what stands in them is what qw.proto says, whoever wrote them ------------------------- */

static void add_number(struct text *out, unsigned tag, uint64_t number)
{
    for (uint64_t rest = tag << 3;; rest >>= 7) {
        text_add_char(out, (char)(rest > 0x7f ? rest | 0x80 : rest));
        if (rest <= 0x7f)
            break;
    }
    for (; number > 0x7f; number >>= 7)
        text_add_char(out, (char)(number | 0x80));
    text_add_char(out, (char)number);
}

static void add_bytes(struct text *out, unsigned tag, struct slice bytes)
{
    uint64_t len = bytes.len;

    for (uint64_t rest = tag << 3 | 2;; rest >>= 7) {
        text_add_char(out, (char)(rest > 0x7f ? rest | 0x80 : rest));
        if (rest <= 0x7f)
            break;
    }
    for (; len > 0x7f; len >>= 7)
        text_add_char(out, (char)(len | 0x80));
    text_add_char(out, (char)len);
    text_add_slice(out, bytes);
}

/* A Changes with one change, which is `tag` with the inside that was put together. */
static struct slice changes_around(struct bench *bench, unsigned tag, const struct text *inside)
{
    struct text change;

    text_init(&change, CODEC_MAX_BYTES);
    add_bytes(&change, tag, text_slice(inside));
    text_clear(&bench->frame);
    add_bytes(&bench->frame, 1, text_slice(&change));
    text_release(&change);
    return text_slice(&bench->frame);
}

static enum err unpack_change(struct bench *bench, unsigned tag, const struct qw_change **ret_changes,
                              size_t *ret_count)
{
    return changes_unpack(changes_around(bench, tag, &bench->again), &bench->arena, ret_changes, ret_count,
                          &bench->why);
}

static void add_key(struct text *out)
{
    add_bytes(out, 1, ID16);
    add_bytes(out, 2, ID32);
    add_bytes(out, 3, SLICE("alice"));
    add_bytes(out, 5, SLICE("laptop"));
}

TEST(a_key_on_the_wire_is_read_field_by_field)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    const struct qw_key *key;
    size_t count;

    add_key(&bench->again);
    add_bytes(&bench->again, 4, SLICE("research"));
    add_number(&bench->again, 6, 1);
    add_number(&bench->again, 7, QW_BATCH);
    add_number(&bench->again, 8, 1800000000);
    add_number(&bench->again, 9, 3);
    add_number(&bench->again, 10, 30);
    add_number(&bench->again, 11, 4);
    add_bytes(&bench->again, 12, SLICE("\x0a\x09qwen3:32b"));
    add_bytes(&bench->again, 13, SLICE(""));
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_OK);
    CHECK_EQ(count, 1);
    CHECK_EQ(changes[0].what, QW_KEY);
    key = &changes[0].key;
    CHECK(slice_is(key->id, ID16) && slice_is(key->hash, ID32));
    CHECK_STR(key->user.at, key->user.len, "alice");
    CHECK_STR(key->team.at, key->team.len, "research");
    CHECK_STR(key->name.at, key->name.len, "laptop");
    CHECK(key->delegates);
    CHECK_EQ(key->class, QW_BATCH);
    CHECK_EQ(key->expires_s, 1800000000);
    CHECK_EQ(key->weight, 3);
    CHECK_EQ(key->rpm, 30);
    CHECK_EQ(key->max_concurrent, 4);
    CHECK(key->models && key->models->count == 1);
    CHECK_STR(key->models->names[0].at, key->models->names[0].len, "qwen3:32b");
    CHECK(key->allow && key->allow->count == 0); /* from nowhere, which is not the same as from everywhere */
}

TEST(a_key_without_lists_may_all)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_key(&bench->again);
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_OK);
    CHECK(!changes[0].key.models && !changes[0].key.allow && !changes[0].key.expires_s);
}

TEST(a_restriction_that_the_reader_does_not_know_is_refused)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_key(&bench->again);
    add_number(&bench->again, 14, 1);
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_REFUSED);
    CHECK_STR(bench->why.at, bench->why.len, "field 14 of a key is a restriction that this version does not know");
}

TEST(a_hint_that_the_reader_does_not_know_is_overlooked)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_key(&bench->again);
    add_number(&bench->again, 1000, 1);
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_OK);
}

TEST(a_restriction_inside_a_list_is_seen_as_well)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_key(&bench->again);
    add_bytes(&bench->again, 13, SLICE("\x10\x01"));
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_REFUSED);
    CHECK_STR(bench->why.at, bench->why.len, "field 2 of a names is a restriction that this version does not know");
}

TEST(a_class_a_noun_and_a_sort_of_change_that_are_not_known_are_refused)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_key(&bench->again);
    add_number(&bench->again, 7, 3);
    CHECK_EQ(unpack_change(bench, QW_KEY, &changes, &count), ERR_REFUSED);

    text_clear(&bench->again);
    add_number(&bench->again, 1, 9);
    add_bytes(&bench->again, 3, SLICE("x"));
    CHECK_EQ(unpack_change(bench, QW_CHANGE_REMOVED, &changes, &count), ERR_REFUSED);

    text_clear(&bench->again);
    add_bytes(&bench->again, 1, SLICE("10.0.0.0/8"));
    CHECK_EQ(unpack_change(bench, 7, &changes, &count), ERR_REFUSED);
    CHECK_EQ(unpack_change(bench, QW_RANGE, &changes, &count), ERR_OK);
}

TEST(changes_packed_one_by_one_are_one_list)
{
    static const struct qw_number limit = { 0 };
    static const struct slice some[] = { { "a", 1 }, { "b", 1 } };
    static const struct qw_names names = { some, 2 };
    const struct qw_change packed[] = {
        { QW_KEY, .key = { .id = ID16, .hash = ID32, .user = SLICE("u"), .name = SLICE("n"), .allow = &names } },
        { QW_RANGE, .range = { SLICE("10.0.0.0/8") } },
        { QW_MODEL, .model = { .name = SLICE("m"),
                               .backend_model = SLICE("b"),
                               .num_ctx = 32768,
                               .keep_alive = SLICE("\"5m\""),
                               .preloads = true,
                               .max_prompt_chars = &limit,
                               .think = QW_THINK_OFF } },
        { QW_BACKEND, .backend = { .name = SLICE("b"),
                                   .url = SLICE("http://127.0.0.1:11434"),
                                   .slots = 4,
                                   .weight = 2,
                                   .is_standby = true,
                                   .drains = true,
                                   .models = &names } },
        { QW_SETTING, .setting = { SLICE("whitelist"), SLICE("true") } },
        { QW_CHANGE_REMOVED, .removed = { .noun = QW_KEY, .id = ID16, .cuts = true, .hash = ID32 } },
        { QW_CHANGE_REMOVED, .removed = { .noun = QW_MODEL, .name = SLICE("m") } },
    };
    enum { COUNT = sizeof packed / sizeof *packed };
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    for (unsigned i = 0; i < COUNT; i++)
        CHECK_EQ(change_pack(&packed[i], &bench->frame, &bench->why), ERR_OK);
    CHECK_EQ(changes_unpack(text_slice(&bench->frame), &bench->arena, &changes, &count, &bench->why), ERR_OK);
    CHECK_EQ(count, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        CHECK_EQ(changes[i].what, packed[i].what);
        CHECK_EQ(change_pack(&changes[i], &bench->again, &bench->why), ERR_OK);
    }
    CHECK(slice_is(text_slice(&bench->frame), text_slice(&bench->again)));
    CHECK(changes[2].model.max_prompt_chars && !changes[2].model.max_system_chars);
    CHECK_EQ(changes[2].model.think, QW_THINK_OFF);
    CHECK(changes[5].removed.cuts && slice_is(changes[5].removed.hash, ID32));
}

TEST(a_removed_says_what_by_what_its_noun_goes_by)
{
    static const struct {
        const char *name;
        struct qw_removed removed;
        enum err err;
    } rows[] = {
        { "a key", { .noun = QW_KEY, .id = ID16, .hash = ID32 }, ERR_OK },
        { "a key without its hash", { .noun = QW_KEY, .id = ID16 }, ERR_BAD },
        { "a key without its id", { .noun = QW_KEY, .hash = ID32 }, ERR_BAD },
        { "a key with a name", { .noun = QW_KEY, .id = ID16, .hash = ID32, .name = SLICE("n") }, ERR_BAD },
        { "a model", { .noun = QW_MODEL, .name = SLICE("m") }, ERR_OK },
        { "a model without a name", { .noun = QW_MODEL }, ERR_BAD },
        { "a model with a hash", { .noun = QW_MODEL, .name = SLICE("m"), .hash = ID32 }, ERR_BAD },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct qw_change change = { QW_CHANGE_REMOVED, .removed = rows[i].removed };
        struct bench *bench = bench_new();

        CHECK_ROW(change_pack(&change, &bench->frame, &bench->why) == rows[i].err, rows[i].name);
    }
}

TEST(a_removed_key_without_its_hash_is_not_taken)
{
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    add_number(&bench->again, 1, QW_KEY);
    add_bytes(&bench->again, 2, ID16);
    CHECK_EQ(unpack_change(bench, QW_CHANGE_REMOVED, &changes, &count), ERR_BAD);
    text_clear(&bench->why);
    add_bytes(&bench->again, 5, ID32);
    CHECK_EQ(unpack_change(bench, QW_CHANGE_REMOVED, &changes, &count), ERR_OK);
    CHECK(slice_is(changes[0].removed.id, ID16) && slice_is(changes[0].removed.hash, ID32));
}

TEST(a_list_of_changes_that_is_cut_is_refused_at_every_byte)
{
    const struct qw_change range = { QW_RANGE, .range = { SLICE("10.0.0.0/8") } };
    struct bench *bench = bench_new();
    const struct qw_change *changes;
    size_t count;

    CHECK_EQ(change_pack(&range, &bench->frame, &bench->why), ERR_OK);
    for (size_t len = 1; len < bench->frame.len; len++)
        CHECK(changes_unpack((struct slice){ bench->frame.at, len }, &bench->arena, &changes, &count, &bench->why));
}

/* --- what is refused ------------------------------------------------------------------------------------- */

static enum err unpack_as(struct bench *bench, unsigned what)
{
    text_clear(&bench->frame);
    add_bytes(&bench->frame, what, text_slice(&bench->again));
    return unpack(bench);
}

TEST(a_message_that_the_reader_does_not_know_is_refused)
{
    struct bench *bench = bench_new();

    CHECK_EQ(unpack_as(bench, QW_BEAT), ERR_OK);
    CHECK_EQ(unpack_as(bench, QW_WHATS), ERR_REFUSED);
    CHECK_STR(bench->why.at, bench->why.len, "a message of sort 14, which this version does not know");
}

TEST(two_messages_in_a_frame_are_refused)
{
    struct bench *bench = bench_new();

    add_bytes(&bench->frame, QW_BEAT, SLICE(""));
    CHECK_EQ(unpack(bench), ERR_OK);
    add_bytes(&bench->frame, QW_BEAT, SLICE(""));
    CHECK_EQ(unpack(bench), ERR_BAD);
}

TEST(what_must_be_there_is_asked_for)
{
    static const struct {
        unsigned what, tag;
        struct slice bytes;
        const char *why;
    } rows[] = {
        { QW_HELLO, 0, { 0 }, "`name` of a hello is missing" },
        { QW_CHALLENGE, 0, { 0 }, "`nonce` of a challenge is missing" },
        { QW_CHALLENGE, 1, { (const char *)bytes_32, 31 }, "`nonce` of a challenge is too short" },
        { QW_CHALLENGE, 1, { (const char *)bytes_64, 33 }, "`nonce` of a challenge is too long" },
        { QW_PROOF, 0, { 0 }, "`signature` of a proof is missing" },
        { QW_ENROL, 2, { "qe_x", 4 }, "`hello` of a enrol is missing" },
        { QW_WELCOME, 0, { 0 }, "`session` of a welcome is missing" },
        { QW_REFUSED, 0, { 0 }, "`reason` of a refused is missing" },
        { QW_UPDATE, 0, { 0 }, "`to` of a update is missing" },
        { QW_LOAD, 0, { 0 }, "`sequence` of a load is missing" },
        { QW_HELLO, 1, { "a\0b", 3 }, "`name` of a hello is not text" },
        { QW_HELLO, 1, { "\xff", 1 }, "`name` of a hello is not text" },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct bench *bench = bench_new();
        if (rows[i].tag)
            add_bytes(&bench->again, rows[i].tag, rows[i].bytes);
        CHECK_ROW(unpack_as(bench, rows[i].what) == ERR_BAD, rows[i].why);
        CHECK_STR(bench->why.at, bench->why.len, rows[i].why);
    }
}

TEST(what_may_not_be_sent_is_not_packed)
{
    struct bench *bench = bench_new();
    struct qw_message message = { .what = QW_HELLO };

    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_BAD);
    CHECK_STR(bench->why.at, bench->why.len, "`name` of a hello is missing");
    CHECK_EQ(bench->frame.len, 0);
}

TEST(no_frame_is_longer_than_a_mebibyte)
{
    static char long_bytes[CODEC_MAX_BYTES + 1];
    struct bench *bench = bench_new();
    struct qw_message message = { QW_UPDATE, .update = { .to = 1, .changes = { long_bytes, CODEC_MAX_CHANGES } } };

    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_OK);
    CHECK(bench->frame.len <= CODEC_MAX_BYTES);
    message.update.changes.len++;
    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_BAD);
    CHECK_EQ(
        message_unpack((struct slice){ long_bytes, sizeof long_bytes }, &bench->arena, &bench->message, &bench->why),
        ERR_TOO_LONG);
}

/* Two bytes each, of which protobuf-c makes structs of hundreds. */
TEST(a_frame_full_of_empty_parts_takes_no_more_than_its_share)
{
    struct bench *bench = bench_new();

    for (unsigned i = 0; i < 400 * 1024; i++)
        add_bytes(&bench->again, 4, SLICE(""));
    CHECK(unpack_as(bench, QW_LOAD) != ERR_OK);
}

TEST(a_histogram_whose_steps_do_not_rise_is_refused)
{
    static const uint32_t falling[] = { 3, 3 };
    const struct qw_histogram wrong = { falling, 2, counts, 2, 0 }, uneven = { steps, 3, counts, 2, 0 };
    struct qw_model_load loads[] = { { .model = SLICE("m"), .duration = &wrong } };
    struct qw_message message = { QW_LOAD, .load = { .sequence = 1, .models = loads, .model_count = 1 } };
    struct bench *bench = bench_new();

    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_BAD);
    loads[0].duration = &uneven;
    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_BAD);
    loads[0].duration = &histogram;
    CHECK_EQ(message_pack(&message, &bench->frame, &bench->why), ERR_OK);
}

TEST(a_command_that_the_gateway_does_not_know_is_left_to_it)
{
    struct bench *bench = bench_new();

    add_bytes(&bench->again, 2, SLICE("\x08\x07\x7a\x00")); /* id 7, and tag 15 */
    CHECK_EQ(unpack_as(bench, QW_COMMANDS), ERR_OK);
    CHECK_EQ(bench->message.commands.count, 1);
    CHECK_EQ(bench->message.commands.commands[0].id, 7);
    CHECK_EQ(bench->message.commands.commands[0].order, 0);
}

TEST(every_duration_has_its_step)
{
    for (unsigned step = 0; step < CODEC_STEPS; step++) {
        uint64_t floor = histogram_floor_us(step);
        CHECK_EQ(histogram_step(floor), step);
        CHECK(step == 0 || histogram_step(floor - 1) == step - 1);
    }
    CHECK_EQ(histogram_step(UINT64_MAX), CODEC_STEPS - 1);
}
