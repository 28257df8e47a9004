/*
 * codec - messages of the link, to and from bytes: protobuf-c's only door. qw.proto says who sends what to whom; the
 * structs here are the same in C, field for field, and hold for both sides.
 *
 * Unpacked: slices and lists lie in the arena. To be packed: wherever the caller has them. What may be missing is an
 * empty slice, 0, false, an empty list or a NULL pointer; where empty is another thing than missing, it is a pointer.
 * Strict both ways: lengths, counts, UTF-8, what must be there, restrictions that this program does not know.
 *     ERR_BAD       not well formed, or something missing, too long or out of range
 *     ERR_REFUSED   perhaps in order, but it has a part that this program does not know and must not overlook
 *     ERR_TOO_LONG  over CODEC_MAX_BYTES
 *     ERR_NO_MEMORY
 * with one sentence in `why`. Any thread; nothing is kept.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct arena;

enum {
    CODEC_MAX_BYTES = 1024 * 1024,   /* of a frame */
    CODEC_MAX_CHANGES = 1000 * 1024, /* bytes of Update.changes, so that the frame around them fits */
    CODEC_MAX_NAME = 255,
    CODEC_MAX_TEXT = 4096,
    CODEC_ID_BYTES = 16,
    CODEC_HASH_BYTES = 32,
    CODEC_NONCE_BYTES = 32,
    CODEC_SIGNATURE_BYTES = 64,
    CODEC_STEPS = 496, /* of a histogram */
};

/* The tags of Envelope. */
enum qw_what {
    QW_HELLO = 1,
    QW_CHALLENGE,
    QW_PROOF,
    QW_ENROL,
    QW_WELCOME,
    QW_REFUSED,
    QW_BEAT,
    QW_BYE,
    QW_SYNC,
    QW_UPDATE,
    QW_LOAD,
    QW_COMMANDS,
    QW_ACK,
    QW_WHATS
};

enum qw_reason {
    QW_HELLO_FIRST = 1,
    QW_BAD_MESSAGE,
    QW_VERSION,
    QW_IDENTITY,
    QW_SECRET,
    QW_REMOVED,
    QW_BUSY,
    QW_NOT_LEADER,
    QW_UNSUPPORTED,
    QW_UNAVAILABLE,
    QW_REASONS
};

enum qw_noun { QW_KEY = 1, QW_RANGE, QW_MODEL, QW_BACKEND, QW_SETTING, QW_NOUNS };
enum qw_class { QW_CLASS_NOT_SAID, QW_INTERACTIVE, QW_BATCH, QW_CLASSES };
enum qw_think { QW_THINK_NOT_SAID, QW_THINK_ON, QW_THINK_OFF, QW_THINKS };

struct qw_version {
    uint32_t major, minor, patch;
};

struct qw_names {
    const struct slice *names;
    size_t count;
};

struct qw_hello {
    struct slice name;
    const struct qw_version *version;
    struct qw_names features;
    struct slice address, instance;
    uint32_t max_staleness_s;
};

struct qw_challenge {
    struct slice nonce;
    const struct qw_version *version;
};

struct qw_proof {
    struct slice signature;
};

struct qw_enrol {
    const struct qw_hello *hello;
    struct slice secret, public_key;
};

struct qw_welcome {
    struct slice session;
    uint32_t heartbeat_ms;
    struct qw_names features;
    uint64_t now_ms;
};

struct qw_refused {
    enum qw_reason reason;
    struct slice detail;
    uint32_t retry_ms;
};

struct qw_bye {
    struct slice why;
    uint32_t retry_ms;
};

struct qw_sync {
    uint64_t have, applied;
    struct slice apply_error;
    uint32_t wait_ms;
    uint64_t snapshot;
    uint32_t next_chunk;
    uint64_t failed;
};

struct qw_chunk {
    uint32_t index, count;
};

struct qw_update {
    uint64_t from, to;
    struct slice changes; /* for changes_unpack() */
    const struct qw_chunk *chunk;
    struct slice checksum;
};

struct qw_histogram {
    const uint32_t *steps;
    size_t step_count;
    const uint64_t *counts;
    size_t count_count;
    uint64_t sum_us;
};

struct qw_model_load {
    struct slice model;
    uint32_t running, waiting;
    uint64_t requests, refused, prompt_tokens, completion_tokens;
    const struct qw_histogram *first_token, *duration;
};

struct qw_user_load {
    struct slice user;
    uint64_t requests, refused, prompt_tokens, completion_tokens;
};

struct qw_backend_load {
    struct slice name;
    bool is_up;
    uint32_t running, waiting;
};

struct qw_load {
    uint64_t sequence;
    uint32_t running, waiting;
    const struct qw_model_load *models;
    size_t model_count;
    const struct qw_user_load *users;
    size_t user_count;
    const struct qw_backend_load *backends;
    size_t backend_count;
    uint64_t now_ms;
};

/* 0: one that this program does not know. */
enum qw_order { QW_DRAIN = 2, QW_UNDRAIN, QW_RESYNC };

struct qw_command {
    uint64_t id;
    enum qw_order order;
};

struct qw_commands {
    uint64_t counted;
    const struct qw_command *commands;
    size_t count;
};

struct qw_done {
    uint64_t id;
    struct slice error;
};

struct qw_ack {
    const struct qw_done *done;
    size_t count;
};

struct qw_message {
    enum qw_what what;
    union {
        struct qw_hello hello;
        struct qw_challenge challenge;
        struct qw_proof proof;
        struct qw_enrol enrol;
        struct qw_welcome welcome;
        struct qw_refused refused;
        struct qw_bye bye;
        struct qw_sync sync;
        struct qw_update update;
        struct qw_load load;
        struct qw_commands commands;
        struct qw_ack ack;
    };
};

struct qw_key {
    struct slice id, hash, user, team, name;
    bool delegates;
    enum qw_class class;
    uint64_t expires_s;
    uint32_t weight, rpm, max_concurrent;
    const struct qw_names *models, *allow; /* NULL: all */
};

struct qw_range {
    struct slice cidr;
};

struct qw_number {
    uint64_t value;
};

struct qw_model {
    struct slice name, backend_model;
    uint64_t num_ctx;
    struct slice keep_alive;
    bool preloads;
    const struct qw_number *max_prompt_chars, *max_system_chars; /* NULL: as the settings say */
    enum qw_think think;
};

struct qw_backend {
    struct slice name, url, kind;
    uint32_t slots, weight;
    bool is_standby, drains;
    const struct qw_names *models; /* NULL: all that it lists */
};

struct qw_setting {
    struct slice name, value;
};

struct qw_removed {
    enum qw_noun noun;
    struct slice id, name;
    bool cuts;
    struct slice hash;
};

/* The tags of Change are the nouns; what is gone comes behind them. */
enum qw_change_what { QW_CHANGE_REMOVED = QW_NOUNS };

struct qw_change {
    unsigned what; /* an enum qw_noun: it is there now; QW_CHANGE_REMOVED */
    union {
        struct qw_key key;
        struct qw_range range;
        struct qw_model model;
        struct qw_backend backend;
        struct qw_setting setting;
        struct qw_removed removed;
    };
};

/* Appends one frame. */
enum err message_pack(const struct qw_message *message, struct text *out, struct text *why);
enum err message_unpack(struct slice frame, struct arena *arena, struct qw_message *ret_message, struct text *why);
/* What it is called in sentences: "Hello". */
const char *message_name(enum qw_what what);
/* "hello_first", for logs. */
const char *reason_name(enum qw_reason reason);

/*
 * Appends one change. What is appended one behind the other is the packed Changes of Update.changes: a change is packed
 * once and put together for each reader.
 */
enum err change_pack(const struct qw_change *change, struct text *out, struct text *why);
/* All of them, in their order; `bytes` may be longer than a frame's (a gateway's disk). */
enum err changes_unpack(struct slice bytes, struct arena *arena, const struct qw_change **ret_changes,
                        size_t *ret_count, struct text *why);

/* Into which step of a histogram a duration falls. */
unsigned histogram_step(uint64_t us);
/* The first duration of a step. */
uint64_t histogram_floor_us(unsigned step);
