/*
 * settings - what qwen-control is told by its file: one table of rows, read by conf. Immutable; main's, for as long as
 * the program runs. Times are in _ms.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cidr.h"
#include "text.h"

struct settings_memory;

struct settings {
    const char *database; /* may hold a password: never printed */
    const char *database_role;
    unsigned database_connections, database_pipeline, database_max_waiting;
    int64_t database_wait_timeout_ms, database_connect_timeout_ms, database_statement_timeout_ms;
    int64_t database_reconnect_delay_ms, database_reconnect_max_ms;
    const char *admin_listen; /* as place.h has it */
    struct cidr_list admin_trusted_proxies;
    uint64_t admin_max_head_bytes, admin_max_body_bytes, admin_max_body_memory_bytes;
    unsigned admin_max_json_depth, admin_max_connections, admin_max_waits, admin_wrong_tokens;
    int64_t admin_request_timeout_ms, admin_write_timeout_ms, admin_linger_timeout_ms, admin_drain_timeout_ms;
    int64_t admin_token_memory_ms, admin_cleanup_interval_ms;
    const char *link_listen;
    unsigned link_max_connections;
    int64_t link_heartbeat_ms, link_max_wait_ms;
    int64_t gateway_live_ms, gateway_gather_ms, gateway_gather_max_ms;
    int64_t gateway_persist_ms, gateway_last_seen_ms, gateway_poll_ms;
    uint64_t change_memory_bytes;
    unsigned change_memory_versions, change_log_versions;
    int64_t change_poll_ms;
    const char *snapshot_folder;
    unsigned snapshot_slack;
    int64_t snapshot_retry_ms;
    const char *leader_name;
    int64_t leader_lease_ms, leader_renew_ms, leader_hold_ms;
    int64_t load_window_ms;
    unsigned load_models, load_users, load_named_users;
    unsigned log_level, log_format; /* enum log_level; 0: text, 1: json */
    struct settings_memory *memory;
};

/* NULL: `why` is a sentence with file and line. `warnings`: one a line. */
struct settings *settings_load(const char *file, struct text *why, struct text *warnings);
struct settings *settings_parse(const char *file, struct slice yaml, struct text *why);
/* Returns NULL. */
struct settings *settings_free(struct settings *settings);
/* Every setting with its default and meaning. */
void settings_describe(struct text *out, bool as_markdown);
