#include "shapes.h"

#include "qw.pb-c.h"

enum { MAX_FEATURES = 64, MAX_NAMES = 1024, MAX_MODELS = 1024, MAX_USERS = 10000, MAX_BACKENDS = 64, MAX_ORDERS = 256 };

/* clang-format off: a macro a line */
#define AT(type, field) .at = offsetof(struct qw_##type, field)
#define FLAG(type, field)         \
    {                             \
        ROW_FLAG, AT(type, field) \
    }
#define U32(type, field)         \
    {                            \
        ROW_U32, AT(type, field) \
    }
#define U64(type, field)         \
    {                            \
        ROW_U64, AT(type, field) \
    }
#define CHOICE(type, field, last)                  \
    {                                              \
        ROW_CHOICE, AT(type, field), .max = (last) \
    }
#define NAME(type, field)                                 \
    {                                                     \
        ROW_WORDS, AT(type, field), .max = CODEC_MAX_NAME \
    }
#define TEXT(type, field)                                 \
    {                                                     \
        ROW_WORDS, AT(type, field), .max = CODEC_MAX_TEXT \
    }
#define BYTES(type, field, most)                  \
    {                                             \
        ROW_BYTES, AT(type, field), .max = (most) \
    }
#define EXACT(type, field, count)                  \
    {                                              \
        ROW_EXACT, AT(type, field), .max = (count) \
    }
#define INNER(type, field, shape)                     \
    {                                                 \
        ROW_INNER, AT(type, field), .inner = &(shape) \
    }
#define CASE(type, field, shape)                     \
    {                                                \
        ROW_CASE, AT(type, field), .inner = &(shape) \
    }
#define MUST(row, type, field, ...)                     \
    {                                                   \
        row, AT(type, field), .must = true, __VA_ARGS__ \
    }
#define LIST(row, type, field, count, ...)                                               \
    {                                                                                    \
        row, AT(type, field), .count_at = offsetof(struct qw_##type, count), __VA_ARGS__ \
    }
#define MUST_NAME(type, field)         MUST(ROW_WORDS, type, field, .max = CODEC_MAX_NAME)
#define MUST_TEXT(type, field)         MUST(ROW_WORDS, type, field, .max = CODEC_MAX_TEXT)
#define MUST_EXACT(type, field, count) MUST(ROW_EXACT, type, field, .max = (count))
#define MUST_U64(type, field)          MUST(ROW_U64, type, field, .max = 0)
#define MUST_U32(type, field)          MUST(ROW_U32, type, field, .max = 0)

#define SHAPE(lower, there_, ...)                                                     \
    static const struct row lower##_rows[] = { __VA_ARGS__ };                         \
    static const struct shape lower##_shape = { .there = &qw__##there_##__descriptor, \
                                                .name = #lower,                       \
                                                .bytes = sizeof(struct qw_##lower),   \
                                                .rows = lower##_rows,                 \
                                                .row_count = sizeof lower##_rows / sizeof *lower##_rows,
/* clang-format on */

static const char *removed_judge(const void *ours)
{
    const struct qw_removed *removed = ours;
    bool is_key = removed->noun == QW_KEY;
    bool says_what = is_key ? removed->id.len && removed->hash.len && !removed->name.len
                            : removed->name.len && !removed->id.len && !removed->hash.len;

    return says_what ? NULL : "a removed does not say what";
}

static const char *chunk_judge(const void *ours)
{
    const struct qw_chunk *chunk = ours;

    return chunk->index >= chunk->count ? "a chunk lies behind the last one" : NULL;
}

static const char *histogram_judge(const void *ours)
{
    const struct qw_histogram *histogram = ours;

    if (histogram->step_count != histogram->count_count)
        return "a histogram has not one count a step";
    for (size_t i = 0; i < histogram->step_count; i++)
        if (histogram->steps[i] >= CODEC_STEPS || (i && histogram->steps[i] <= histogram->steps[i - 1]))
            return "a histogram's steps do not rise";
    return NULL;
}

/* clang-format off: a table a message */
#define END \
    }       \
    ;
#define RESTRICTS     \
    .restricts = true \
    }                 \
    ;

static const struct shape beat_shape = { .there = &qw__beat__descriptor, .name = "beat" };
static const struct shape drain_shape = { .there = &qw__drain__descriptor, .name = "drain" };
static const struct shape undrain_shape = { .there = &qw__undrain__descriptor, .name = "undrain" };
static const struct shape resync_shape = { .there = &qw__resync__descriptor, .name = "resync" };

SHAPE(version, version, U32(version, major), U32(version, minor), U32(version, patch))
END

    SHAPE(hello, hello, MUST_NAME(hello, name), INNER(hello, version, version_shape),
          LIST(ROW_NAMES, hello, features.names, features.count, .max = MAX_FEATURES), NAME(hello, address),
          EXACT(hello, instance, CODEC_ID_BYTES), U32(hello, max_staleness_s)) END

    SHAPE(challenge, challenge, MUST_EXACT(challenge, nonce, CODEC_NONCE_BYTES),
          INNER(challenge, version, version_shape)) END

    SHAPE(proof, proof, MUST_EXACT(proof, signature, CODEC_SIGNATURE_BYTES)) END

    SHAPE(enrol, enrol, MUST(ROW_INNER, enrol, hello, .inner = &hello_shape), MUST_NAME(enrol, secret),
          MUST_EXACT(enrol, public_key, CODEC_HASH_BYTES)) END

    SHAPE(welcome, welcome, MUST_EXACT(welcome, session, CODEC_ID_BYTES), U32(welcome, heartbeat_ms),
          LIST(ROW_NAMES, welcome, features.names, features.count, .max = MAX_FEATURES), U64(welcome, now_ms)) END

    SHAPE(refused, refused, MUST(ROW_CHOICE, refused, reason, .max = QW_REASONS - 1), TEXT(refused, detail),
          U32(refused, retry_ms)) END

    SHAPE(bye, bye, TEXT(bye, why), U32(bye, retry_ms)) END

    SHAPE(sync, sync, U64(sync, have), U64(sync, applied), TEXT(sync, apply_error), U32(sync, wait_ms),
          U64(sync, snapshot), U32(sync, next_chunk), U64(sync, failed)) END

    SHAPE(chunk, chunk, U32(chunk, index), MUST_U32(chunk, count))
        .judge = chunk_judge END

                 SHAPE(update, update, U64(update, from), MUST_U64(update, to),
                       BYTES(update, changes, CODEC_MAX_CHANGES), INNER(update, chunk, chunk_shape),
                       EXACT(update, checksum, CODEC_HASH_BYTES)) END

                 SHAPE(histogram, histogram, LIST(ROW_U32_LIST, histogram, steps, step_count, .max = CODEC_STEPS),
                       LIST(ROW_U64_LIST, histogram, counts, count_count, .max = CODEC_STEPS), U64(histogram, sum_us))
                     .judge =
    histogram_judge END

    SHAPE(model_load, model_load, MUST_NAME(model_load, model), U32(model_load, running), U32(model_load, waiting),
          U64(model_load, requests), U64(model_load, refused), U64(model_load, prompt_tokens),
          U64(model_load, completion_tokens), INNER(model_load, first_token, histogram_shape),
          INNER(model_load, duration, histogram_shape)) END

    SHAPE(user_load, user_load, MUST_NAME(user_load, user), U64(user_load, requests), U64(user_load, refused),
          U64(user_load, prompt_tokens), U64(user_load, completion_tokens)) END

    SHAPE(backend_load, backend_load, MUST_NAME(backend_load, name), FLAG(backend_load, is_up),
          U32(backend_load, running), U32(backend_load, waiting)) END

    SHAPE(load, load, MUST_U64(load, sequence), U32(load, running), U32(load, waiting),
          LIST(ROW_LIST, load, models, model_count, .max = MAX_MODELS, .inner = &model_load_shape),
          LIST(ROW_LIST, load, users, user_count, .max = MAX_USERS, .inner = &user_load_shape),
          LIST(ROW_LIST, load, backends, backend_count, .max = MAX_BACKENDS, .inner = &backend_load_shape),
          U64(load, now_ms)) END

    SHAPE(command, command, MUST_U64(command, id), { ROW_CASE, .inner = &drain_shape },
          { ROW_CASE, .inner = &undrain_shape }, { ROW_CASE, .inner = &resync_shape })
        .has_what = true,
 .may_be_unknown = true,
 .what_at = offsetof(struct qw_command, order) END

            SHAPE(commands, commands, U64(commands, counted),
                  LIST(ROW_LIST, commands, commands, count, .max = MAX_ORDERS, .inner = &command_shape)) END

            SHAPE(done, done, MUST_U64(done, id), TEXT(done, error)) END

            SHAPE(ack, ack, LIST(ROW_LIST, ack, done, count, .max = MAX_ORDERS, .inner = &done_shape)) END

            SHAPE(names, names, LIST(ROW_NAMES, names, names, count, .max = MAX_NAMES)) RESTRICTS

            SHAPE(number, number, U64(number, value)) RESTRICTS

            SHAPE(key, key, MUST_EXACT(key, id, CODEC_ID_BYTES), MUST_EXACT(key, hash, CODEC_HASH_BYTES),
                  MUST_NAME(key, user), NAME(key, team), MUST_NAME(key, name), FLAG(key, delegates),
                  CHOICE(key, class, QW_CLASSES - 1), U64(key, expires_s), U32(key, weight), U32(key, rpm),
                  U32(key, max_concurrent), INNER(key, models, names_shape), INNER(key, allow, names_shape)) RESTRICTS

            SHAPE(range, range, MUST_NAME(range, cidr)) RESTRICTS

            SHAPE(model, model, MUST_NAME(model, name), NAME(model, backend_model), U64(model, num_ctx),
                  TEXT(model, keep_alive), FLAG(model, preloads), INNER(model, max_prompt_chars, number_shape),
                  INNER(model, max_system_chars, number_shape), CHOICE(model, think, QW_THINKS - 1)) RESTRICTS

            SHAPE(backend, backend, MUST_NAME(backend, name), MUST_TEXT(backend, url), NAME(backend, kind),
                  U32(backend, slots), U32(backend, weight), FLAG(backend, is_standby), FLAG(backend, drains),
                  INNER(backend, models, names_shape)) RESTRICTS

            SHAPE(setting, setting, MUST_NAME(setting, name), MUST_TEXT(setting, value)) RESTRICTS

            SHAPE(removed, removed, MUST(ROW_CHOICE, removed, noun, .max = QW_NOUNS - 1),
                  EXACT(removed, id, CODEC_ID_BYTES), NAME(removed, name), FLAG(removed, cuts),
                  EXACT(removed, hash, CODEC_HASH_BYTES))
                .judge = removed_judge,
 RESTRICTS

 static const struct row change_rows[] = {
     CASE(change, key, key_shape),         CASE(change, range, range_shape),     CASE(change, model, model_shape),
     CASE(change, backend, backend_shape), CASE(change, setting, setting_shape), CASE(change, removed, removed_shape),
 };
const struct shape change_shape = {
    .there = &qw__change__descriptor,
    .name = "change",
    .bytes = sizeof(struct qw_change),
    .rows = change_rows,
    .row_count = sizeof change_rows / sizeof *change_rows,
    .restricts = true,
    .has_what = true,
    .what_at = offsetof(struct qw_change, what),
};

static const struct row envelope_rows[] = {
    CASE(message, hello, hello_shape),     CASE(message, challenge, challenge_shape),
    CASE(message, proof, proof_shape),     CASE(message, enrol, enrol_shape),
    CASE(message, welcome, welcome_shape), CASE(message, refused, refused_shape),
    CASE(message, hello, beat_shape),      CASE(message, bye, bye_shape),
    CASE(message, sync, sync_shape),       CASE(message, update, update_shape),
    CASE(message, load, load_shape),       CASE(message, commands, commands_shape),
    CASE(message, ack, ack_shape),
};
const struct shape envelope_shape = {
    .there = &qw__envelope__descriptor,
    .name = "message",
    .bytes = sizeof(struct qw_message),
    .rows = envelope_rows,
    .row_count = sizeof envelope_rows / sizeof *envelope_rows,
    .restricts = true,
    .has_what = true,
    .what_at = offsetof(struct qw_message, what),
};
