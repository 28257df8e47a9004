/*
 * The one table of settings. From it come the parser, --print-config, --help, docs/configuration.md and the
 * check of a reload. To add a setting: a field in struct settings, a row here.
 */
#include "parts.h"

#include <assert.h>

#define FIELD(member)   offsetof(struct snapshot, member)
#define SETTING(member) offsetof(struct snapshot, settings.member)

enum { HEADER_MAX_BYTES = 64, MAX_WORKERS = 256 };
#define MS     INT64_C(1)
#define SECOND INT64_C(1000)
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)
#define KIB    (INT64_C(1) << 10)
#define MIB    (INT64_C(1) << 20)
#define GIB    (INT64_C(1) << 30)

static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const log_formats[] = { "text", "json", NULL };
static const char *const seccomp_rules[] = { "enforce", "log", "none", NULL };
static const char *const when_stales[] = { "refuse", "serve", NULL };
static const char *const retry_afters[] = { "window", "exact", NULL };

enum err no_memory(struct conf_reading *reading, const struct conf_node *node)
{
    (void)conf_refuse(reading->conf, node, reading->why, "cannot be kept: %s", err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

static enum err workers_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                             void *field)
{
    int64_t number = 0;
    enum err err = ERR_OK;

    if (node->kind != CONF_SCALAR || !slice_is(node->text, SLICE("auto")))
        err = conf_integer(reading, node, row->min, row->max, &number);
    if (err == ERR_OK)
        *(unsigned *)field = (unsigned)number;
    return err;
}

static void workers_print(const void *field, struct text *out)
{
    if (*(const unsigned *)field)
        text_add_u64(out, *(const unsigned *)field);
    else
        text_add_literal(out, "auto");
}

static enum err keep_text(struct conf_reading *reading, const struct conf_node *node, struct slice text,
                          const char **field)
{
    *field = conf_keep(reading->arena, text);
    return *field ? ERR_OK : no_memory(reading, node);
}

/* A name as useradd makes them, so that a slip is seen before anything is opened. */
static enum err user_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                          void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!is_letter && (i == 0 || !((c >= '0' && c <= '9') || strchr("-.$", c))))
            return conf_refuse(reading->conf, node, reading->why, "is not the name of a user");
    }
    return keep_text(reading, node, text, field);
}

static void user_print(const void *field, struct text *out)
{
    const char *user = *(const char *const *)field;

    text_add_string(out, user ? user : "none");
}

static enum err log_file_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                              void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    *(const char **)field = NULL;
    return slice_is(text, SLICE("stderr")) ? ERR_OK : keep_text(reading, node, text, field);
}

static void log_file_print(const void *field, struct text *out)
{
    const char *file = *(const char *const *)field;

    text_add_string(out, file ? file : "stderr");
}

/* RFC 9110's token. */
static bool is_field_name(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool is_alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!is_alnum && !(c && strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return text.len != 0;
}

/* Fields that mean something to HTTP itself, or that the gateway reads for another purpose. */
static bool is_taken_field(struct slice text)
{
    static const char *const taken[] = {
        "authorization", "host", "connection", "content-length", "content-type", "transfer-encoding",
        "expect",        "te",   "trailer",    "upgrade",        "accept",       "x-forwarded-for",
        "x-request-id",
    };

    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (slice_is_nocase(text, slice_of(taken[i])))
            return true;
    return false;
}

static enum err header_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                            void *field)
{
    struct slice text;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    if (!is_field_name(text))
        return conf_refuse(reading->conf, node, reading->why, "is not the name of a header");
    if (is_taken_field(text))
        return conf_refuse(reading->conf, node, reading->why, "cannot be %s, which has a meaning of its own", text.at);
    return keep_text(reading, node, text, field);
}

static void header_print(const void *field, struct text *out)
{
    text_add_string(out, *(const char *const *)field);
}

static enum err strip_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                           void *field)
{
    struct settings *settings = &((struct snapshot_reading *)reading->owner)->snapshot->settings;
    enum err err = conf_expect(reading, node, CONF_LIST);

    (void)row;
    (void)field;
    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next) {
        static const char *const words[] = { "model", "created", NULL };
        static const struct conf_row word = { .type = CONF_CHOICE, .words = words };
        unsigned which = 0;
        err = conf_value_read(reading, &word, item, &which);
        if (err == ERR_OK && which == 0)
            settings->strip_model = true;
        else if (err == ERR_OK)
            settings->strip_created = true;
    }
    return err;
}

static void strip_print(const void *field, struct text *out)
{
    const struct settings *settings = HOLDER(struct settings, strip_model, field);

    text_add_string(out, settings->strip_model     ? settings->strip_created ? "[model, created]" : "[model]"
                         : settings->strip_created ? "[created]"
                                                   : "[]");
}

#define ENDPOINT_FORM "HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH"
#define CIDRS_FORM    "a list of addresses and ranges such as 10.0.0.0/16"

static const struct conf_row rows[] = {
    { "listen", CONF_OWN, SETTING(listen), ":18789", .read = endpoint_read, .print = endpoint_print,
      .form = ENDPOINT_FORM,
      .help = "where callers connect; `:PORT` is IPv4 and IPv6; who comes through a unix socket counts as ::1" },
    { "operator_listen", CONF_OWN, SETTING(operator_listen), "127.0.0.1:18790", .read = endpoint_read,
      .print = endpoint_print, .form = ENDPOINT_FORM,
      .help = "where the operator reads /metrics, /healthz, /readyz and /explain; nothing there changes anything" },
    { "ollama_api", CONF_OWN, FIELD(backends), "http://localhost:11434", .read = ollama_api_read,
      .print = ollama_api_print, .is_live = true, .form = "http://HOST[:PORT]",
      .help = "where the one Ollama listens; without a port it is 80, as in every URL" },
    { "backends", CONF_OWN, FIELD(has_backends), .read = backends_read, .print = backends_print, .is_live = true,
      .form = "a list of backends", .help = "where models run, in place of ollama_api; see below" },
    { "workers", CONF_OWN, SETTING(workers), "auto", 1, MAX_WORKERS, .read = workers_read, .print = workers_print,
      .form = "auto or a whole number from 1 to 256", .help = "threads that serve callers; auto: one a core" },
    { "user", CONF_OWN, SETTING(user), .min = 1, .max = 32, .read = user_read, .print = user_print,
      .form = "the name of a user", .help = "whom to become after opening what needs root" },
    { "seccomp", CONF_CHOICE, SETTING(seccomp), "enforce", .words = seccomp_rules,
      .help = "system calls that the gateway has no use for: refused, told to the kernel's audit, or free" },
    { "core_dumps", CONF_BOOL, SETTING(core_dumps), "false",
      .help = "whether a crash leaves a core dump, and `user` may trace the process; both show keys and prompts" },
    { "operator_hosts", CONF_OWN, SETTING(operator_hosts), "[]", .read = hosts_read, .print = hosts_print,
      .is_live = true, .form = "a list of hosts' names",
      .help = "by which names, beside localhost, addresses and that of operator_listen, the operator may ask" },
    { "trusted_proxies", CONF_OWN, SETTING(trusted_proxies), "[]", .read = cidrs_read, .print = cidrs_print,
      .is_live = true, .form = CIDRS_FORM, .help = "whose X-Forwarded-For is believed, read from the right" },

    { "auth.enabled", CONF_BOOL, SETTING(auth_enabled), "true", .is_live = true, .help = "whether callers need a key" },
    { "auth.header_key", CONF_OWN, SETTING(header_key), "X-Api-Key", 1, HEADER_MAX_BYTES, .read = header_read,
      .print = header_print, .is_live = true, .form = "the name of a header",
      .help = "the header that holds the key; `Authorization: Bearer` always does as well" },
    { "auth.user_header", CONF_OWN, SETTING(user_header), "X-User-Id", 1, HEADER_MAX_BYTES, .read = header_read,
      .print = header_print, .is_live = true, .form = "the name of a header, or body.user",
      .help = "where a delegate key names the person it asks for; body.user: the body's field `user`" },
    { "auth.valid_keys", CONF_OWN, FIELD(keys), "[]", .read = keys_read, .print = keys_print, .is_live = true,
      .is_secret = true, .form = "a list of keys", .help = "who may call; see below" },

    { "control.url", CONF_OWN, SETTING(control.urls), .read = control_urls_read, .print = control_urls_print,
      .form = "tcp://HOST:PORT or tls+tcp://HOST:PORT, or a list of such",
      .help =
          "where the control plane listens; keys, whitelist, models and backends come from there, not from the file" },
    { "control.name", CONF_OWN, SETTING(control.name), .read = plain_name_read, .print = word_print,
      .form = "1 to 64 letters, digits and ._-", .help = "by which the control plane knows this gateway" },
    { "control.state", CONF_OWN, SETTING(control.state), "/var/lib/qwen-gateway/control", 1, 1024, .read = path_read,
      .print = word_print, .form = "a folder",
      .help = "where this gateway's identity lies, and what the control plane has said, for a start without it; `user` "
              "must be able to write there" },
    { "control.enroll_secret_file", CONF_OWN, SETTING(control.enroll_secret_file), .min = 1, .max = 1024,
      .read = path_read, .print = word_print, .form = "a file",
      .help = "the secret of `qwadm gateway enroll`, with which a gateway that is not known yet becomes known; read at "
              "the start, and not missed once it is" },
    { "control.max_staleness", CONF_MS, SETTING(control.max_staleness_ms), "24h", SECOND, 365 * DAY,
      .help = "how long what was heard last is good for" },
    { "control.when_stale", CONF_CHOICE, SETTING(control.when_stale), "refuse", .words = when_stales,
      .help = "what callers get after that: 503, or service by what was heard last" },
    { "control.address", CONF_OWN, SETTING(control.address), .read = word_read, .print = word_print, .form = "text",
      .help = "where callers reach this gateway, for people who look at the list of gateways" },
    { "control.tls.ca_file", CONF_OWN, SETTING(control.tls_ca_file), .min = 1, .max = 1024, .read = path_read,
      .print = word_print, .form = "a file (PEM)", .help = "of tls+tcp: whose certificates are trusted" },
    { "control.tls.own_file", CONF_OWN, SETTING(control.tls_own_file), .min = 1, .max = 1024, .read = path_read,
      .print = word_print, .form = "a file (PEM)",
      .help = "of tls+tcp: this gateway's certificate and private key, which `user` must be able to read" },
    { "control.tls.server_name", CONF_OWN, SETTING(control.tls_server_name), .read = word_read, .print = word_print,
      .form = "a host's name", .help = "of tls+tcp: the name that the certificate over there must have" },
    { "control.max_journal_bytes", CONF_BYTES, SETTING(control.max_journal_bytes), "16 MiB", 4 * KIB, GIB,
      .help =
          "how much of what was said since may lie in `state` beside the last whole file, before a new one is made" },

    { "rate_limit.enabled", CONF_BOOL, SETTING(rate_enabled), "true", .is_live = true,
      .help = "whether requests are counted against a limit" },
    { "rate_limit.max_requests", CONF_COUNT, SETTING(max_requests), "30", 1, 1000000, .is_live = true,
      .help = "requests a key (a person of a delegate key) may make in any window" },
    { "rate_limit.window_seconds", CONF_SECONDS, SETTING(window_ms), "60", SECOND, DAY, .is_live = true,
      .help = "how long the sliding window is" },
    { "rate_limit.retry_after", CONF_CHOICE, SETTING(retry_after), "window", .words = retry_afters, .is_live = true,
      .help = "what Retry-After says: the whole window, or exactly the seconds left" },

    { "whitelist.enabled", CONF_BOOL, SETTING(whitelist_enabled), "false", .is_live = true,
      .help = "whether only listed addresses may connect" },
    { "whitelist.ips", CONF_OWN, SETTING(whitelist), "[]", .read = cidrs_read, .print = cidrs_print, .is_live = true,
      .form = CIDRS_FORM, .help = "which addresses may connect; 127.0.0.1 also admits ::1" },

    { "models", CONF_OWN, FIELD(models), .read = models_read, .print = models_print, .is_live = true,
      .form = "a map from callers' names to models",
      .help = "which models there are; see below. Left out: those that Ollama lists" },
    { "queue_timeout", CONF_MS, SETTING(queue_timeout_ms), "120s", 10 * MS, DAY, .is_live = true,
      .help = "how long a request may wait for a free slot of a backend" },
    { "max_waiting", CONF_COUNT, SETTING(max_waiting), "1000", 1, 1000000, .is_live = true,
      .help = "requests that may wait for one model" },
    { "max_waiting_per_user", CONF_COUNT, SETTING(max_waiting_per_user), "100", 1, 1000000, .is_live = true,
      .help = "the same of one user (a person of a delegate key)" },
    { "max_waiting_batch_percent", CONF_COUNT, SETTING(max_waiting_batch_percent), "50", 1, 99, .is_live = true,
      .help = "how many in a hundred of max_waiting, rounded down, may be of keys of class batch: the rest is kept for "
              "interactive ones" },
    { "batch_percent", CONF_COUNT, SETTING(batch_percent), "10", 1, 50, .is_live = true,
      .help = "how many in a hundred go to keys of class batch while interactive ones wait as well" },
    { "session_header", CONF_OWN, SETTING(session_header), "X-Session-Id", 1, HEADER_MAX_BYTES, .read = header_read,
      .print = header_print, .is_live = true, .form = "the name of a header",
      .help = "where a caller names its conversation, which then stays with one backend; without it the first "
              "messages tell" },
    { "slow_start", CONF_MS, SETTING(slow_start_ms), "10s", 0, HOUR, .is_live = true,
      .help = "from when a backend answers again until it is given as many requests as before" },
    { "warm_timeout", CONF_MS, SETTING(warm_timeout_ms), "300s", 10 * MS, DAY, .is_live = true,
      .help = "how long a backend may take to load the models of `preload` until it takes callers without them" },
    { "response_filter.strip", CONF_OWN, SETTING(strip_model), "[]", .read = strip_read, .print = strip_print,
      .is_live = true, .form = "a list of model and created", .help = "fields of answers that are left out" },

    { "max_body_bytes", CONF_BYTES, SETTING(max_body_bytes), "32 MiB", KIB, GIB, .is_live = true,
      .help = "how large a request's body may be" },
    { "max_body_memory_bytes", CONF_BYTES, SETTING(max_body_memory_bytes), "1 GiB", 64 * KIB, 1024 * GIB,
      .is_live = true, .help = "how much all bodies being read or waiting may take; a key gets a quarter" },
    { "max_head_bytes", CONF_BYTES, SETTING(max_head_bytes), "64 KiB", KIB, MIB, .is_live = true,
      .help = "how large a request's (or an answer's) head may be" },
    { "max_line_bytes", CONF_BYTES, SETTING(max_line_bytes), "64 MiB", KIB, GIB, .is_live = true,
      .help = "how long one line of Ollama's stream may be" },
    { "write_buffer_bytes", CONF_BYTES, SETTING(write_buffer_bytes), "256 KiB", 4 * KIB, GIB, .is_live = true,
      .help = "how much may wait for a slow reader before Ollama's stream is held back" },
    { "max_buffer_memory_bytes", CONF_BYTES, SETTING(max_buffer_memory_bytes), "64 MiB", 64 * KIB, 1024 * GIB,
      .is_live = true,
      .help = "how much unfinished heads and streams that are not read may take in all; then 4 KiB a connection" },
    { "max_prompt_chars", CONF_NUMBER, SETTING(max_prompt_chars), "32768", 0, 1000000000, .is_live = true,
      .help = "Unicode characters of user, assistant and tool messages in one request; 0: no limit" },
    { "max_system_chars", CONF_NUMBER, SETTING(max_system_chars), "131072", 0, 1000000000, .is_live = true,
      .help = "the same for system text; 0: no limit" },
    { "max_connections", CONF_COUNT, SETTING(max_connections), "15000", 1, 1000000, .is_live = true,
      .help = "callers' connections in all; capped by the limit on open files" },
    { "max_connections_per_address", CONF_COUNT, SETTING(max_connections_per_address), "1000", 1, 1000000,
      .is_live = true, .help = "connections from one address; trusted proxies are not counted" },

    { "head_timeout", CONF_MS, SETTING(head_timeout_ms), "10s", 10 * MS, HOUR, .is_live = true,
      .help = "how long a request's head may take" },
    { "body_timeout", CONF_MS, SETTING(body_timeout_ms), "60s", 10 * MS, DAY, .is_live = true,
      .help = "how long a request's body may take, waiting for memory included" },
    { "idle_timeout", CONF_MS, SETTING(idle_timeout_ms), "120s", 10 * MS, DAY, .is_live = true,
      .help = "how long a kept connection may be silent between requests" },
    { "write_timeout", CONF_MS, SETTING(write_timeout_ms), "60s", 10 * MS, DAY, .is_live = true,
      .help = "how long a caller may take nothing of what is ready for it" },
    { "connect_timeout", CONF_MS, SETTING(connect_timeout_ms), "3s", 10 * MS, HOUR, .is_live = true,
      .help = "how long Ollama may show no sign of life" },
    { "first_token_timeout", CONF_MS, SETTING(first_token_timeout_ms), "300s", 10 * MS, DAY, .is_live = true,
      .help = "how long Ollama, alive, may take until the first byte of an answer" },
    { "stream_idle_timeout", CONF_MS, SETTING(stream_idle_timeout_ms), "120s", 10 * MS, DAY, .is_live = true,
      .help = "how long Ollama may be silent within an answer" },
    { "drain_timeout", CONF_MS, SETTING(drain_timeout_ms), "30s", 0, DAY, .is_live = true,
      .help = "how long open requests may take to finish after SIGTERM" },
    { "drain_delay", CONF_MS, SETTING(drain_delay_ms), "0s", 0, HOUR, .is_live = true,
      .help = "how long new connections are still taken after SIGTERM, while /readyz already says 503" },
    { "linger_timeout", CONF_MS, SETTING(linger_timeout_ms), "2s", 0, HOUR, .is_live = true,
      .help = "how long the rest of a refused body is read and thrown away" },
    { "heartbeat_interval", CONF_MS, SETTING(heartbeat_interval_ms), "10s", 10 * MS, HOUR, .is_live = true,
      .help = "how often a silent stream shows the caller a sign of life" },
    { "commit_after", CONF_MS, SETTING(commit_after_ms), "10s", 0, HOUR, .is_live = true,
      .help = "when a streamed answer's status goes out though Ollama has not begun to answer" },

    { "log_level", CONF_CHOICE, SETTING(log_level), "info", .words = log_levels, .is_live = true,
      .help = "what is worth a line; each request's own line always is" },
    { "log_file", CONF_OWN, SETTING(log_file), "stderr", 1, 4096, .read = log_file_read, .print = log_file_print,
      .is_live = true, .form = "stderr or a file", .help = "where the log goes; SIGUSR1 opens the file again" },
    { "log_format", CONF_CHOICE, SETTING(log_format), "text", .words = log_formats, .is_live = true,
      .help = "how a line looks" },
};
static_assert(sizeof rows / sizeof *rows <= SETTINGS_MAX);
/* CONF_CHOICE writes an unsigned into each of these. */
static_assert(sizeof(enum log_format) == sizeof(unsigned) && sizeof(enum retry_after) == sizeof(unsigned) &&
              sizeof(enum seccomp_rule) == sizeof(unsigned));
static_assert(sizeof((struct settings){ 0 }.log_level) == sizeof(unsigned));

const struct conf_table settings_table = { rows, sizeof rows / sizeof *rows };
