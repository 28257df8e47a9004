#include "given.h"

#define OFF "auth: {enabled: false}\n"

static bool admits(const struct cidr_list *list, const char *text)
{
    struct address address;

    CHECK(address_parse(slice_of(text), &address));
    return cidr_list_has(list, &address);
}

TEST(the_configuration_of_the_contract_is_taken_in_both_styles)
{
    static const char *const rows[] = {
        "listen: \":18789\"\n"
        "ollama_api: \"http://localhost:11434\"\n"
        "log_level: \"info\"\n"
        "rate_limit: { enabled: true, max_requests: 30, window_seconds: 60 }\n"
        "auth:       { enabled: true, header_key: \"X-Api-Key\", valid_keys: [\"prod-key-2024-qwen3\"] }\n"
        "whitelist:  { enabled: true, ips: [\"127.0.0.1\", \"10.0.0.0/16\"] }\n",
        "listen: :18789\n"
        "ollama_api: http://localhost:11434\n"
        "log_level: info\n"
        "rate_limit:\n  enabled: true\n  max_requests: 30\n  window_seconds: 60\n"
        "auth:\n  enabled: true\n  header_key: X-Api-Key\n  valid_keys:\n    - prod-key-2024-qwen3\n"
        "whitelist:\n  enabled: true\n  ips:\n  - 127.0.0.1\n  - 10.0.0.0/16\n",
    };

    for (size_t i = 0; i < 2; i++) {
        struct snapshot *snapshot = given(rows[i]);
        const struct settings *settings = &snapshot->settings;
        CHECK(strcmp(settings->listen.host, "") == 0 && settings->listen.port == 18789 && !settings->listen.path);
        CHECK(snapshot->backend_count == 1 && strcmp(snapshot->backends[0].host, "localhost") == 0);
        CHECK(snapshot->backends[0].port == 11434 && strcmp(snapshot->backends[0].authority, "127.0.0.1:11434") == 0);
        CHECK(strcmp(snapshot->backends[0].name, "ollama") == 0);
        CHECK(settings->log_level == 1 && settings->rate_enabled && settings->max_requests == 30);
        CHECK(settings->window_ms == 60000 && settings->retry_after == RETRY_AFTER_WINDOW && settings->auth_enabled);
        CHECK(strcmp(settings->header_key, "X-Api-Key") == 0 && snapshot->key_count == 1);
        CHECK(settings->whitelist_enabled && settings->whitelist.count == 2);
        CHECK(admits(&settings->whitelist, "::1") && admits(&settings->whitelist, "10.0.200.1"));
        CHECK(!admits(&settings->whitelist, "127.0.0.2"));
        snapshot = snapshot_unref(snapshot);
        CHECK(!snapshot);
    }
}

TEST(what_is_left_out_has_the_defaults_of_the_contract)
{
    struct snapshot *snapshot = given("auth: {valid_keys: [k]}\n");
    const struct settings *settings = &snapshot->settings;
    const struct {
        const char *name;
        int64_t got, wanted;
    } rows[] = {
        { "listen", settings->listen.port, 18789 },
        { "operator_listen", settings->operator_listen.port, 18790 },
        { "workers", settings->workers, 0 },
        { "rate_limit.enabled", settings->rate_enabled, true },
        { "rate_limit.max_requests", settings->max_requests, 30 },
        { "rate_limit.window_seconds", settings->window_ms, 60000 },
        { "auth.enabled", settings->auth_enabled, true },
        { "whitelist.enabled", settings->whitelist_enabled, false },
        { "whitelist.ips", (int64_t)settings->whitelist.count, 0 },
        { "trusted_proxies", (int64_t)settings->trusted_proxies.count, 0 },
        { "max_body_bytes", (int64_t)settings->max_body_bytes, 33554432 },
        { "max_prompt_chars", (int64_t)settings->max_prompt_chars, 32768 },
        { "max_system_chars", (int64_t)settings->max_system_chars, 131072 },
        { "max_body_memory_bytes", (int64_t)settings->max_body_memory_bytes, 1073741824 },
        { "max_buffer_memory_bytes", (int64_t)settings->max_buffer_memory_bytes, 67108864 },
        { "max_connections", settings->max_connections, 15000 },
        { "max_connections_per_address", settings->max_connections_per_address, 1000 },
        { "max_line_bytes", (int64_t)settings->max_line_bytes, 67108864 },
        { "max_head_bytes", (int64_t)settings->max_head_bytes, 65536 },
        { "write_buffer_bytes", (int64_t)settings->write_buffer_bytes, 262144 },
        { "head_timeout", settings->head_timeout_ms, 10000 },
        { "body_timeout", settings->body_timeout_ms, 60000 },
        { "idle_timeout", settings->idle_timeout_ms, 120000 },
        { "write_timeout", settings->write_timeout_ms, 60000 },
        { "connect_timeout", settings->connect_timeout_ms, 3000 },
        { "first_token_timeout", settings->first_token_timeout_ms, 300000 },
        { "stream_idle_timeout", settings->stream_idle_timeout_ms, 120000 },
        { "drain_timeout", settings->drain_timeout_ms, 30000 },
        { "drain_delay", settings->drain_delay_ms, 0 },
        { "linger_timeout", settings->linger_timeout_ms, 2000 },
        { "heartbeat_interval", settings->heartbeat_interval_ms, 10000 },
        { "commit_after", settings->commit_after_ms, 10000 },
        { "queue_timeout", settings->queue_timeout_ms, 120000 },
        { "max_waiting", settings->max_waiting, 1000 },
        { "max_waiting_per_user", settings->max_waiting_per_user, 100 },
        { "batch_percent", settings->batch_percent, 10 },
        { "slow_start", settings->slow_start_ms, 10000 },
        { "warm_timeout", settings->warm_timeout_ms, 300000 },
        { "log_level", settings->log_level, 1 },
        { "log_format", settings->log_format, LOG_FORMAT_TEXT },
        { "response_filter.strip", settings->strip_model || settings->strip_created, false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].got != rows[i].wanted)
            check_fail(__FILE__, __LINE__, "%s is %lld, wanted %lld", rows[i].name, (long long)rows[i].got,
                       (long long)rows[i].wanted);
    CHECK(strcmp(settings->operator_listen.host, "127.0.0.1") == 0);
    CHECK(strcmp(settings->header_key, "X-Api-Key") == 0 && strcmp(settings->user_header, "X-User-Id") == 0);
    CHECK(strcmp(settings->session_header, "X-Session-Id") == 0);
    CHECK(!settings->user_from_body && !settings->log_file && !settings->user && !snapshot->has_models);
    CHECK(strcmp(snapshot->backends[0].host, "localhost") == 0 && snapshot->backends[0].port == 11434);
    snapshot_unref(snapshot);
}

TEST(every_setting_reaches_its_field)
{
    struct snapshot *snapshot = given(
        "listen: 10.0.0.1:1\noperator_listen: unix:/run/qwen-gateway/operator.sock\nworkers: 3\nuser: qwen-gateway\n"
        "trusted_proxies: [127.0.0.1, 'fd00::/8']\nlog_level: error\nlog_file: /var/log/x.log\nlog_format: json\n"
        "rate_limit: {enabled: false, max_requests: 5, window_seconds: 90s, retry_after: exact}\n"
        "auth: {enabled: false, header_key: X-K, user_header: body.user}\n"
        "whitelist: {ips: [10.0.0.0/8]}\nresponse_filter: {strip: [created, model]}\n"
        "max_body_bytes: 1 MiB\nmax_body_memory_bytes: 8 MiB\nmax_head_bytes: 8KiB\nmax_line_bytes: 2 MiB\n"
        "write_buffer_bytes: 65536\nmax_buffer_memory_bytes: 3 MiB\nmax_prompt_chars: 0\nmax_system_chars: "
        "1\nmax_connections: 7\n"
        "max_connections_per_address: 6\nhead_timeout: 1s\nbody_timeout: 2s\nidle_timeout: 3s\nwrite_timeout: 4s\n"
        "connect_timeout: 500ms\nfirst_token_timeout: 6m\nstream_idle_timeout: 7s\ndrain_timeout: 8s\n"
        "drain_delay: 9s\nlinger_timeout: 0s\nheartbeat_interval: 11s\ncommit_after: 12s\n"
        "queue_timeout: 13s\nmax_waiting: 14\nmax_waiting_per_user: 15\nbatch_percent: 16\nslow_start: 17s\n"
        "warm_timeout: 18s\nsession_header: X-Chat\n");
    const struct settings *settings = &snapshot->settings;

    CHECK(strcmp(settings->listen.host, "10.0.0.1") == 0 && settings->listen.port == 1);
    CHECK(strcmp(settings->operator_listen.path, "/run/qwen-gateway/operator.sock") == 0);
    CHECK(settings->workers == 3 && strcmp(settings->user, "qwen-gateway") == 0 && settings->log_level == 3);
    CHECK(settings->trusted_proxies.count == 2 && admits(&settings->trusted_proxies, "fdab::1"));
    CHECK(strcmp(settings->log_file, "/var/log/x.log") == 0 && settings->log_format == LOG_FORMAT_JSON);
    CHECK(!settings->rate_enabled && settings->max_requests == 5 && settings->window_ms == 90000);
    CHECK(settings->retry_after == RETRY_AFTER_EXACT && !settings->auth_enabled && settings->user_from_body);
    CHECK(strcmp(settings->header_key, "X-K") == 0 && !settings->whitelist_enabled && settings->whitelist.count == 1);
    CHECK(settings->strip_model && settings->strip_created);
    CHECK(settings->max_body_bytes == 1 << 20 && settings->max_body_memory_bytes == 8 << 20);
    CHECK(settings->max_head_bytes == 8192 && settings->max_line_bytes == 2 << 20);
    CHECK(settings->write_buffer_bytes == 65536 && settings->max_prompt_chars == 0 && settings->max_system_chars == 1);
    CHECK(settings->max_buffer_memory_bytes == 3 << 20);
    CHECK(settings->max_connections == 7 && settings->max_connections_per_address == 6);
    CHECK(settings->head_timeout_ms == 1000 && settings->body_timeout_ms == 2000 && settings->idle_timeout_ms == 3000);
    CHECK(settings->write_timeout_ms == 4000 && settings->connect_timeout_ms == 500);
    CHECK(settings->first_token_timeout_ms == 360000 && settings->stream_idle_timeout_ms == 7000);
    CHECK(settings->drain_timeout_ms == 8000 && settings->drain_delay_ms == 9000 && settings->linger_timeout_ms == 0);
    CHECK(settings->heartbeat_interval_ms == 11000 && settings->commit_after_ms == 12000);
    CHECK(settings->queue_timeout_ms == 13000 && settings->max_waiting == 14 && settings->max_waiting_per_user == 15);
    CHECK(settings->batch_percent == 16 && settings->slow_start_ms == 17000 && settings->warm_timeout_ms == 18000);
    CHECK(strcmp(settings->session_header, "X-Chat") == 0);
    snapshot_unref(snapshot);
}

TEST(one_word_of_the_strip_list_strips_one_field)
{
    struct snapshot *snapshot = given(OFF "response_filter: {strip: [model]}\n");

    CHECK(snapshot->settings.strip_model && !snapshot->settings.strip_created);
    snapshot_unref(snapshot);
}

TEST(a_place_to_listen_has_many_forms)
{
    static const struct {
        const char *written, *host, *path;
        unsigned port;
    } rows[] = {
        { ":18789", "", NULL, 18789 },
        { ":0", "", NULL, 0 },
        { "127.0.0.1:80", "127.0.0.1", NULL, 80 },
        { "localhost:8080", "localhost", NULL, 8080 },
        { "gpu-1.internal:65535", "gpu-1.internal", NULL, 65535 },
        { "[::1]:18789", "::1", NULL, 18789 },
        { "[2001:db8::5]:1", "2001:db8::5", NULL, 1 },
        { "unix:/run/qwen.sock", "", "/run/qwen.sock", 0 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[256];
        (void)snprintf(yaml, sizeof yaml, OFF "listen: \"%s\"\n", rows[i].written);
        struct snapshot *snapshot = given(yaml);
        const struct endpoint *listen = &snapshot->settings.listen;
        CHECK_ROW(strcmp(listen->text, rows[i].written) == 0 && strcmp(listen->host, rows[i].host) == 0, yaml);
        CHECK_ROW(listen->port == rows[i].port, yaml);
        CHECK_ROW(rows[i].path ? listen->path && strcmp(listen->path, rows[i].path) == 0 : !listen->path, yaml);
        snapshot_unref(snapshot);
    }
}

TEST(what_is_no_place_to_listen_is_refused)
{
#define LISTEN_WANTED "c.yaml:1: listen must be HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH"
    static const struct refusal rows[] = {
        { "listen: 18789\n", LISTEN_WANTED ": write \":18789\"" },
        { "listen: localhost\n", LISTEN_WANTED " with a port from 0 to 65535, not \"localhost\"" },
        { "listen: \":65536\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \":65536\"" },
        { "listen: \":\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \":\"" },
        { "listen: \"::1:80\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"::1:80\"" },
        { "listen: \"[10.0.0.1]:80\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"[10.0.0.1]:80\"" },
        { "listen: \"[::1\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"[::1\"" },
        { "listen: \"[::1]80\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"[::1]80\"" },
        { "listen: \"*:80\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"*:80\"" },
        { "listen: 10.0.0.300:80\n", LISTEN_WANTED " with a port from 0 to 65535, not \"10.0.0.300:80\"" },
        { "listen: a..b:80\n", LISTEN_WANTED " with a port from 0 to 65535, not \"a..b:80\"" },
        { "listen: \"host:0x50\"\n", LISTEN_WANTED " with a port from 0 to 65535, not \"host:0x50\"" },
        { "listen: \"unix:\"\n", "c.yaml:1: listen needs a path that begins with / after unix:" },
        { "listen: unix:run/x\n", "c.yaml:1: listen needs a path that begins with / after unix:" },
        { "listen: unix:/12345678901234567890123456789012345678901234567890123456789012345678901234567890"
          "1234567890123456789012345678\n",
          "c.yaml:1: listen has a path of 109 bytes, but at most 107 are allowed" },
        { OFF "listen: \":80\"\noperator_listen: \":80\"\n",
          "c.yaml:3: operator_listen gives listen and operator_listen the same place" },
        { OFF "listen: \":80\"\noperator_listen: 127.0.0.1:80\n",
          "c.yaml:3: operator_listen gives listen and operator_listen the same place" },
        { OFF "listen: unix:/a\noperator_listen: unix:/a\n",
          "c.yaml:3: operator_listen gives listen and operator_listen the same place" },
        { OFF "listen: \":18790\"\n", "c.yaml:1: gives listen and operator_listen the same place" },
    };

    CHECK_REFUSALS(rows);
}

TEST(ollama_is_found_under_every_spelling_of_a_plain_url)
{
    static const struct {
        const char *written, *host;
        unsigned port;
        const char *authority;
    } rows[] = {
        { "http://localhost:11434", "localhost", 11434, "127.0.0.1:11434" },
        { "http://LOCALHOST:11434/", "LOCALHOST", 11434, "127.0.0.1:11434" },
        { "HTTP://127.0.0.1:1", "127.0.0.1", 1, "127.0.0.1:1" },
        { "http://127.9.9.9:1", "127.9.9.9", 1, "127.0.0.1:1" },
        { "http://[::1]:11434", "::1", 11434, "127.0.0.1:11434" },
        { "http://gpu1", "gpu1", 80, "gpu1:80" },
        { "http://10.0.0.5:11434", "10.0.0.5", 11434, "10.0.0.5:11434" },
        { "http://[fd00::1]", "fd00::1", 80, "[fd00::1]:80" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char yaml[256];
        (void)snprintf(yaml, sizeof yaml, OFF "ollama_api: \"%s\"\n", rows[i].written);
        struct snapshot *snapshot = given(yaml);
        CHECK_ROW(snapshot->backend_count == 1 && strcmp(snapshot->backends[0].host, rows[i].host) == 0, yaml);
        CHECK_ROW(snapshot->backends[0].port == rows[i].port, yaml);
        CHECK_ROW(strcmp(snapshot->backends[0].authority, rows[i].authority) == 0, yaml);
        snapshot_unref(snapshot);
    }
}

TEST(what_is_no_url_of_an_ollama_is_refused_without_quoting_it)
{
#define API "c.yaml:1: ollama_api "
    static const struct refusal rows[] = {
        { "ollama_api: https://gpu1\n",
          API "cannot be https: Ollama speaks plain http; put both on one machine or a private network" },
        { "ollama_api: localhost:11434\n", API "must begin with http://, such as http://localhost:11434" },
        { "ollama_api: ftp://x\n", API "must begin with http://, such as http://localhost:11434" },
        { "ollama_api: http://user:password@gpu1\n", API "must not hold a user or password (@)" },
        { "ollama_api: http://gpu1/v1\n", API "must not hold a path: http://HOST:PORT is all" },
        { "ollama_api: http://gpu1//\n", API "must not hold a path: http://HOST:PORT is all" },
        { "ollama_api: http://gpu1?x=1\n", API "must not hold a query (?) or fragment (#)" },
        { "ollama_api: 'http://gpu1#x'\n", API "must not hold a query (?) or fragment (#)" },
        { "ollama_api: 'http://'\n", API "must name a host or address: http://HOST:PORT" },
        { "ollama_api: 'http://:11434'\n", API "must name a host or address: http://HOST:PORT" },
        { "ollama_api: 'http://gpu 1'\n", API "must name a host or address: http://HOST:PORT" },
        { "ollama_api: 'http://gpu1:'\n", API "must name a host or address: http://HOST:PORT" },
        { "ollama_api: http://gpu1:0\n", API "must have a port from 1 to 65535" },
        { "ollama_api: http://gpu1:99999\n", API "must have a port from 1 to 65535" },
        { "ollama_api: [http://a]\n", API "must be text, not a list" },
    };

    CHECK_REFUSALS(rows);
}

TEST(other_settings_are_refused_with_file_line_and_key)
{
    static const struct refusal rows[] = {
        { "workers: 0\n", "c.yaml:1: workers must be a whole number from 1 to 256, not \"0\"" },
        { "workers: many\n", "c.yaml:1: workers must be a whole number from 1 to 256, not \"many\"" },
        { "user: 'a b'\n", "c.yaml:1: user is not the name of a user" },
        { "user: -x\n", "c.yaml:1: user is not the name of a user" },
        { "user: 1000\n", "c.yaml:1: user must be text: put it in quotes" },
        { "log_level: verbose\n", "c.yaml:1: log_level must be debug, info, warn or error, not \"verbose\"" },
        { "log_format: xml\n", "c.yaml:1: log_format must be text or json, not \"xml\"" },
        { "log_file: ''\n", "c.yaml:1: log_file must not be empty" },
        { "head_timeout: 5\n",
          "c.yaml:1: head_timeout must be a duration (a number with ms, s, m or h) from 10ms to 1h, "
          "not \"5\"" },
        { "max_body_bytes: 2 GiB\n",
          "c.yaml:1: max_body_bytes must be a size (bytes, or a number with KiB, MiB or GiB) from "
          "1 KiB to 1 GiB, not \"2 GiB\"" },
        { "whitelist:\n  enabled: true\n  ips:\n    - 127.0.0.1\n    - 10.0.3.7/16\n",
          "c.yaml:5: whitelist.ips[2] is wrong: \"10.0.3.7/16\" has bits set behind its mask: did you mean "
          "10.0.0.0/16?" },
        { "whitelist: {ips: [localhost]}\n",
          "c.yaml:1: whitelist.ips[1] is wrong: \"localhost\" is not an IP address, nor a "
          "range such as 10.0.0.0/16 or fd00::/8" },
        { "whitelist: {ips: 127.0.0.1}\n", "c.yaml:1: whitelist.ips must be a list, not \"127.0.0.1\"" },
        { "whitelist: {ips: [[127.0.0.1]]}\n", "c.yaml:1: whitelist.ips[1] must be text, not a list" },
        { "trusted_proxies: [10.0.0.1/33]\n",
          "c.yaml:1: trusted_proxies[1] is wrong: \"10.0.0.1/33\" needs a number from 0 to 32 after the /" },
        { OFF "whitelist: {enabled: true}\n", "c.yaml:2: whitelist names no address in whitelist.ips, but "
                                              "whitelist.enabled is true: nobody could connect" },
        { "rate_limit: {max_requests: 0}\n",
          "c.yaml:1: rate_limit.max_requests must be a whole number from 1 to 1000000, not \"0\"" },
        { "rate_limit: {retry_after: never}\n",
          "c.yaml:1: rate_limit.retry_after must be window or exact, not \"never\"" },
        { "response_filter: {strip: [id]}\n",
          "c.yaml:1: response_filter.strip[1] must be model or created, not \"id\"" },
        { "response_filter: {strip: model}\n", "c.yaml:1: response_filter.strip must be a list, not \"model\"" },
        { "auth: {header_key: 'X Key'}\n", "c.yaml:1: auth.header_key is not the name of a header" },
        { "auth: {header_key: Authorization}\n",
          "c.yaml:1: auth.header_key cannot be Authorization, which has a meaning of its own" },
        { "auth: {user_header: host}\n", "c.yaml:1: auth.user_header cannot be host, which has a meaning of its own" },
        { OFF "x: 1\n", "c.yaml:2: x is not a known setting" },
        { "auth:\n  enabled: false\n  header_key: X-A\n  user_header: x-a\n",
          "c.yaml:4: auth.user_header needs different headers for auth.header_key and auth.user_header" },
        { "auth: {enabled: false, header_key: X-A}\nsession_header: x-a\n",
          "c.yaml:2: session_header needs different headers for auth.header_key and session_header" },
        { OFF "session_header: 'a b'\n", "c.yaml:2: session_header is not the name of a header" },
        { OFF "session_header: x-request-id\n",
          "c.yaml:2: session_header cannot be x-request-id, which has a meaning of its own" },
        { "queue_timeout: 9ms\n", "c.yaml:1: queue_timeout must be a duration (a number with ms, s, m or h) from 10ms "
                                  "to 24h, not \"9ms\"" },
        { "warm_timeout: 25h\n", "c.yaml:1: warm_timeout must be a duration (a number with ms, s, m or h) from 10ms "
                                 "to 24h, not \"25h\"" },
        { "slow_start: 2h\n",
          "c.yaml:1: slow_start must be a duration (a number with ms, s, m or h) from 0s to 1h, not \"2h\"" },
        { "max_waiting: 0\n", "c.yaml:1: max_waiting must be a whole number from 1 to 1000000, not \"0\"" },
        { "max_waiting_per_user: 0\n",
          "c.yaml:1: max_waiting_per_user must be a whole number from 1 to 1000000, not \"0\"" },
        { "batch_percent: 0\n", "c.yaml:1: batch_percent must be a whole number from 1 to 50, not \"0\"" },
        { "batch_percent: 51\n", "c.yaml:1: batch_percent must be a whole number from 1 to 50, not \"51\"" },
        { "rate_limit:\n  max_request: 5\n",
          "c.yaml:2: rate_limit.max_request is not a known setting: did you mean max_requests?" },
        { "max_requests: 5\n", "c.yaml:1: max_requests is not a known setting: did you mean rate_limit.max_requests?" },
        { "log_level: info\nlisten: \":80\"\n",
          "c.yaml:1: has no auth.valid_keys, but keys are asked for: add a key, or set auth.enabled: false" },
        /* what later work brings is unknown so far */
        { "control: {}\n", "c.yaml:1: control needs a url, where the control plane listens: tcp://127.0.0.1:18801" },
    };

    CHECK_REFUSALS(rows);
}

TEST(what_works_but_should_be_mended_is_warned_about)
{
    const char *why, *warnings;
    struct snapshot *snapshot = given_with(OFF "max_body_memory_bytes: 64 MiB\n", &why, &warnings);

    CHECK(snapshot);
    CHECK_STR(
        warnings, strlen(warnings),
        "c.yaml:1: auth.enabled is false and there is no whitelist: whoever reaches :18789 is served\n"
        "c.yaml:1: max_body_bytes is over a quarter of max_body_memory_bytes, which is all that one key gets: larger "
        "bodies will not be taken\n");
    snapshot_unref(snapshot);
    snapshot = given_with("auth: {valid_keys: [k]}\n", &why, &warnings);
    CHECK_STR(warnings, strlen(warnings), "");
    snapshot_unref(snapshot);
}
