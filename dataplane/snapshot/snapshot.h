/*
 * snapshot - what the gateway knows: settings, keys, whitelists, models, backends. Read from one YAML file.
 * Immutable once loaded, counted, swapped whole on reload; a request keeps the one it began with until it
 * ends, so that a reload never changes a rule halfway through. Any thread may hold and read one.
 * What merely runs (rate windows, breakers, open requests) lives elsewhere and finds its rule by a name or a
 * hash that outlives the snapshot.
 * Durations end in _ms, sizes in _bytes; 0 in a limit means "no limit" where the table says so.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "cidr.h"
#include "text.h"

struct conf;
struct key;
struct key_rule;
struct keyring;

enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum seccomp_rule { SECCOMP_ENFORCE, SECCOMP_LOG, SECCOMP_NONE };
enum retry_after { RETRY_AFTER_WINDOW, RETRY_AFTER_EXACT };
/* What to do about thinking when the caller does not say: leave it to the model, or switch it. */
enum think_default { THINK_UNSET, THINK_ON, THINK_OFF };
/* The API that a backend speaks. */
enum backend_kind { BACKEND_OLLAMA };

/* What a gateway does that has heard nothing of its control plane for max_staleness. */
enum when_stale { STALE_REFUSE, STALE_SERVE };

enum { SNAPSHOT_MAX_BACKENDS = 64, SNAPSHOT_MAX_CONTROLS = 8 };

/* Where to listen: "HOST:PORT", ":PORT" (IPv4 and IPv6), "[::1]:PORT" or "unix:PATH". Port 0: the kernel's choice. */
struct endpoint {
    const char *text; /* as written */
    const char *path; /* unix:PATH; else NULL */
    const char *host; /* "" for every address; may be a name such as localhost */
    uint16_t port;
};

/* The section `control`: where keys, whitelist, models and backends come from, instead of the file. */
struct control_settings {
    const char *const *urls;
    size_t url_count;  /* 0: the section is not there */
    const char *name;  /* of this gateway */
    const char *state; /* a folder */
    const char *enroll_secret_file, *address, *tls_ca_file, *tls_own_file, *tls_server_name; /* NULL: none */
    int64_t max_staleness_ms;
    enum when_stale when_stale;
    uint64_t max_journal_bytes;
};

struct settings {
    struct endpoint listen;
    struct endpoint operator_listen;
    unsigned workers; /* 0: auto, one a core */
    const char *user; /* to drop to; NULL: stay */
    enum seccomp_rule seccomp;
    bool core_dumps;
    const char *const *operator_hosts; /* names by which the operator may ask */
    size_t operator_host_count;
    int log_level;        /* enum log_level of log.h */
    const char *log_file; /* NULL: stderr */
    enum log_format log_format;

    bool rate_enabled;
    unsigned max_requests;
    int64_t window_ms;
    enum retry_after retry_after;

    bool auth_enabled;
    const char *header_key;  /* X-Api-Key */
    const char *user_header; /* X-User-Id, another header, or "body.user" */
    bool user_from_body;     /* user_header is body.user */

    bool whitelist_enabled;
    struct cidr_list whitelist;
    struct cidr_list trusted_proxies;

    uint64_t max_body_bytes;
    uint64_t max_body_memory_bytes;
    uint64_t max_line_bytes;
    uint64_t max_prompt_chars; /* 0: off */
    uint64_t max_system_chars; /* 0: off */
    uint64_t max_head_bytes;
    uint64_t max_buffer_memory_bytes;
    unsigned max_connections;
    unsigned max_connections_per_address;
    uint64_t write_buffer_bytes; /* what may wait for a slow reader before the backend is held back */

    int64_t head_timeout_ms, body_timeout_ms, idle_timeout_ms, write_timeout_ms, connect_timeout_ms;
    int64_t first_token_timeout_ms, stream_idle_timeout_ms, drain_timeout_ms, drain_delay_ms, linger_timeout_ms;
    int64_t heartbeat_interval_ms, commit_after_ms;

    int64_t queue_timeout_ms;
    unsigned max_waiting, max_waiting_per_user; /* of one model */
    unsigned max_waiting_batch_percent;         /* of max_waiting */
    unsigned batch_percent;                     /* of the grants, while interactive ones wait as well */
    int64_t slow_start_ms, warm_timeout_ms;
    const char *session_header; /* X-Session-Id: names the conversation */

    bool strip_model, strip_created; /* response_filter.strip */

    struct control_settings control;
};

/* One entry of `models:`. Without the section there is none, and names pass as the backends list them. */
struct model {
    const char *name;          /* the caller's, normalised: lower case, tag added */
    const char *shown;         /* as written in the file */
    const char *backend_model; /* the backend's name, as written */
    const char *backend_name;  /* the same, normalised */
    uint64_t num_ctx;          /* 0: not sent */
    const char *keep_alive;    /* as JSON (a quoted duration or a number); NULL: not sent */
    bool has_max_prompt_chars, has_max_system_chars;
    uint64_t max_prompt_chars, max_system_chars;
    enum think_default think;
    bool preload;
};

/* One place where models run. */
struct backend_rule {
    const char *name; /* in logs, metrics: "ollama" for ollama_api */
    enum backend_kind kind;
    const char *host; /* may be a name */
    uint16_t port;
    const char *authority;     /* what to send as Host: 127.0.0.1:11434 for any loopback spelling */
    unsigned slots;            /* requests of one model it runs at a time; 0: no limit */
    unsigned weight;           /* 0: standby */
    bool drains;               /* takes nothing new */
    const char *const *models; /* normalised, sorted; NULL: all that it lists */
    size_t model_count;
};

struct snapshot {
    struct settings settings;
    struct key_rule *keys; /* valid_keys, as the file has them */
    size_t key_count;
    struct keyring *keyring; /* the same, to be looked up: of version 0; counted */
    struct model *models;    /* sorted by name */
    size_t model_count;
    bool has_models;               /* the section is there */
    struct backend_rule *backends; /* at least one, but with `control`; SNAPSHOT_MAX_BACKENDS at most */
    size_t backend_count;
    bool has_backends;              /* the section, or `control`, is there; else it is the one of ollama_api */
    struct snapshot_memory *memory; /* everything pointed to from here */
    unsigned refs;                  /* atomic */
};

/*
 * Reads, checks and builds. NULL: `why` holds one sentence that names file, line and key (give it 4 KiB or more).
 * `warnings` (may be NULL) gets a line each for what works but should be mended (plain keys that others may read, root
 * without `user` ...).
 */
struct snapshot *snapshot_load(const char *file, struct text *why, struct text *warnings);
/* The same from memory, `file` only named in sentences: for tests and fuzzing. */
struct snapshot *snapshot_parse(const char *file, struct slice yaml, struct text *why, struct text *warnings);
/*
 * The snapshot of a file with `control`, and what the control plane says: a tree that was made (conf_make) with any of
 * the maps `models`, `settings` (by the names of the file's own: "rate_limit.max_requests") and the lists `backends`,
 * `whitelist`. It is read by the tables that read the file, and refused with the same sentences. NULL: `why` has one.
 */
struct snapshot *snapshot_over(struct snapshot *file, const struct conf *said, struct text *why, struct text *warnings);
struct snapshot *snapshot_ref(struct snapshot *snapshot);
void snapshot_ref_more(struct snapshot *snapshot, unsigned count);
/* Returns NULL: `snap = snapshot_unref(snap);` */
struct snapshot *snapshot_unref(struct snapshot *snapshot);

/* True, with the sentence, when going from `old` to `new` takes a restart (listen, operator_listen, workers, user …).
 */
bool snapshot_needs_restart(const struct snapshot *old, const struct snapshot *new, struct text *why);

/* By normalised name; NULL when `models:` is there and has none of that name, or is not there. */
const struct model *snapshot_find_model(const struct snapshot *snapshot, struct slice normalised);
bool key_may_use(const struct key *key, struct slice normalised_model);

/*
 * --hash-key: "sha256:HEX" of a secret, which may end in a newline. ERR_BAD with one sentence that does not quote it:
 * empty, too long, not printable ASCII, a qk_ key with wrong check digits, or a hash already.
 */
enum err key_hash_describe(struct slice secret, struct text *out, struct text *why);

/* --print-config: every setting with its value and where it came from, keys masked. */
void snapshot_print(const struct snapshot *snapshot, struct text *out);
/* --help's and the documentation's list of settings: name, default, range, meaning; as Markdown when asked. */
void settings_describe(struct text *out, bool as_markdown);
