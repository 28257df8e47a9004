/* The one table of settings. To add one: a field in struct settings, a row here, docs/control.md (written by its test).
 */
#include "settings.h"

#include <stdlib.h>

#include "conf.h"
#include "place.h"
#include "store.h"

#define SETTING(member) offsetof(struct settings, member)
#define MS              INT64_C(1)
#define SECOND          INT64_C(1000)
#define HOUR            (3600 * SECOND)
#define KIB             INT64_C(1024)
#define MIB             (1024 * KIB)

enum { DATABASE_MAX_BYTES = 4096, ROLE_MAX_BYTES = 63, PLACE_MAX_BYTES = 512, WORDS_BYTES = 512 };

struct settings_memory {
    struct arena arena;
};

static const char *const log_levels[] = { "debug", "info", "warn", "error", NULL };
static const char *const log_formats[] = { "text", "json", NULL };

static enum err keep(struct conf_reading *reading, const struct conf_node *node, struct slice text, const char **field)
{
    *field = conf_keep(reading->arena, text);
    if (*field)
        return ERR_OK;
    (void)conf_refuse(reading->conf, node, reading->why, "cannot be kept: %s", err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

static enum err database_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                              void *field)
{
    struct slice text;
    struct text words;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    text_init(&words, WORDS_BYTES);
    err = keep(reading, node, text, field);
    if (err == ERR_OK && database_check(*(const char **)field, &words) != ERR_OK)
        err = conf_refuse(reading->conf, node, reading->why, "%s", text_string(&words));
    text_release(&words);
    return err;
}

static enum err place_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                           void *field)
{
    struct slice text;
    const char *wrong;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    wrong = place_check(text);
    return wrong ? conf_refuse(reading->conf, node, reading->why, "%s", wrong) : keep(reading, node, text, field);
}

/* Gateways come over TCP only. */
static enum err link_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                          void *field)
{
    enum err err = place_read(reading, row, node, field);

    if (err == ERR_OK && strncmp(*(const char *const *)field, "unix:", 5) == 0)
        err = conf_refuse(reading->conf, node, reading->why, "is a unix socket: gateways come over TCP");
    return err;
}

static void place_print(const void *field, struct text *out)
{
    text_add_string(out, *(const char *const *)field);
}

static enum err ranges_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                            void *field)
{
    enum err err = conf_expect(reading, node, CONF_LIST);

    for (const struct conf_node *item = node->first; item && err == ERR_OK; item = item->next) {
        struct cidr cidr = { 0 };
        struct slice text;
        struct text words;

        err = conf_string(reading, item, (size_t)row->min, (size_t)row->max, &text);
        if (err != ERR_OK)
            return err;
        text_init(&words, WORDS_BYTES);
        err = cidr_parse(text, &cidr, &words);
        if (err != ERR_OK)
            err = conf_refuse(reading->conf, item, reading->why, "is wrong: %s", text_string(&words));
        else if (cidr_list_add(field, cidr) != ERR_OK)
            err = conf_refuse(reading->conf, item, reading->why, "cannot be kept: %s", err_text(ERR_NO_MEMORY));
        text_release(&words);
    }
    return err;
}

static const struct conf_row rows[] = {
    { "database", CONF_OWN, SETTING(database), NULL, 0, DATABASE_MAX_BYTES, .read = database_read, .is_secret = true,
      .form = "a connection string of PostgreSQL: \"host=… dbname=… user=…\" or a postgresql:// URI",
      .help =
          "where PostgreSQL is; what it does not say comes from PGHOST, PGDATABASE, PGUSER, PGPASSFILE and the like. "
          "A host is looked up while everything else waits: write an address" },
    { "database_role", CONF_STRING, SETTING(database_role), "qwen_control", 0, ROLE_MAX_BYTES,
      .help = "the role that every connection becomes, so that it can do no more than it must; empty: none" },
    { "database_connections", CONF_COUNT, SETTING(database_connections), "4", 1, 100,
      .help = "connections that are kept open" },
    { "database_pipeline", CONF_COUNT, SETTING(database_pipeline), "32", 1, 1000,
      .help = "questions that may be under way on one connection" },
    { "database_max_waiting", CONF_COUNT, SETTING(database_max_waiting), "10000", 1, 1000000,
      .help = "questions that may wait for a connection" },
    { "database_wait_timeout", CONF_MS, SETTING(database_wait_timeout_ms), "5s", 10 * MS, HOUR,
      .help = "how long a question may wait for a connection, as while the database is away" },
    { "database_connect_timeout", CONF_MS, SETTING(database_connect_timeout_ms), "3s", 10 * MS, HOUR,
      .help = "how long connecting may take, over all hosts that `database` names" },
    { "database_statement_timeout", CONF_MS, SETTING(database_statement_timeout_ms), "10s", 10 * MS, HOUR,
      .help = "how long one statement may take, and how long a transaction may do nothing" },
    { "database_reconnect_delay", CONF_MS, SETTING(database_reconnect_delay_ms), "100ms", 10 * MS, HOUR,
      .help = "when a lost connection is tried again first; each further attempt waits twice as long" },
    { "database_reconnect_max", CONF_MS, SETTING(database_reconnect_max_ms), "3s", 10 * MS, HOUR,
      .help = "what that waiting grows to" },
    { "admin_listen", CONF_OWN, SETTING(admin_listen), "127.0.0.1:18800", 1, PLACE_MAX_BYTES, .read = place_read,
      .print = place_print, .form = "an address of this machine's own with a port, or unix:PATH",
      .help = "where the admin API listens. From other machines it is reached through Nginx, with TLS" },
    { "admin_trusted_proxies", CONF_OWN, SETTING(admin_trusted_proxies), "[]", 1, WORDS_BYTES, .read = ranges_read,
      .form = "a list of addresses and ranges",
      .help =
          "in front of the admin API: what they say in X-Forwarded-For is the caller's address, in the audit log and "
          "for wrong tokens. Who comes over a unix socket is 127.0.0.1" },
    { "admin_max_head_bytes", CONF_BYTES, SETTING(admin_max_head_bytes), "16KiB", KIB, MIB,
      .help = "how long a request's head may be" },
    { "admin_max_body_bytes", CONF_BYTES, SETTING(admin_max_body_bytes), "4MiB", KIB, 64 * MIB,
      .help = "how long a request's body may be: an import of a thousand keys takes about half a MiB" },
    { "admin_max_body_memory_bytes", CONF_BYTES, SETTING(admin_max_body_memory_bytes), "64MiB", MIB, 1024 * MIB,
      .help = "what all requests that are being received may take together; small ones always have room" },
    { "admin_max_json_depth", CONF_COUNT, SETTING(admin_max_json_depth), "32", 4, 1000,
      .help = "how deep a body may be nested" },
    { "admin_max_connections", CONF_COUNT, SETTING(admin_max_connections), "200", 1, 10000,
      .help = "connections to the admin API; where there are more, the one that has kept it waiting longest is cut" },
    { "admin_max_waits", CONF_COUNT, SETTING(admin_max_waits), "100", 1, 10000,
      .help = "requests that wait for gateways to confirm a version, but never more than half of "
              "`admin_max_connections`; one token has half of these. Further ones are answered 503" },
    { "admin_request_timeout", CONF_MS, SETTING(admin_request_timeout_ms), "30s", 10 * MS, HOUR,
      .help = "how long a request may take to arrive as a whole, counted from the connection or the last answer" },
    { "admin_write_timeout", CONF_MS, SETTING(admin_write_timeout_ms), "30s", 10 * MS, HOUR,
      .help = "how long a caller may take to read an answer" },
    { "admin_linger_timeout", CONF_MS, SETTING(admin_linger_timeout_ms), "2s", 10 * MS, HOUR,
      .help = "how long what a refused caller still sends is read and thrown away, so that the answer is not lost" },
    { "admin_drain_timeout", CONF_MS, SETTING(admin_drain_timeout_ms), "5s", 10 * MS, HOUR,
      .help = "how long requests that are under way may take when the program is stopped" },
    { "admin_wrong_tokens", CONF_COUNT, SETTING(admin_wrong_tokens), "10", 1, 1000000,
      .help =
          "wrong tokens a minute from one address (of IPv6 a /64); further ones are answered 429, right ones pass" },
    { "admin_token_memory", CONF_MS, SETTING(admin_token_memory_ms), "5m", 0, HOUR,
      .help = "how long after a token was last seen to be good it may look at status, load and confirmations while the "
              "database is away" },
    { "admin_cleanup_interval", CONF_MS, SETTING(admin_cleanup_interval_ms), "10m", 10 * MS, 24 * HOUR,
      .help = "how often answers kept for an Idempotency-Key are removed when their day is over" },
    { "link_listen", CONF_OWN, SETTING(link_listen), "127.0.0.1:18801", 1, PLACE_MAX_BYTES, .read = link_read,
      .print = place_print, .form = "an address of this machine's own with a port",
      .help =
          "where gateways come to. What comes there is proven but not encrypted: other machines come through a proxy "
          "that speaks TLS with them" },
    { "link_max_connections", CONF_COUNT, SETTING(link_max_connections), "16384", 16, 1000000,
      .help = "connections there at a time" },
    { "link_heartbeat", CONF_MS, SETTING(link_heartbeat_ms), "1400ms", 100 * MS, 60 * SECOND,
      .help = "how often a gateway that has nothing to say shows that it is there" },
    { "link_max_wait", CONF_MS, SETTING(link_max_wait_ms), "60s", SECOND, HOUR,
      .help = "how long a gateway's question for news is held back at most" },
    { "gateway_live", CONF_MS, SETTING(gateway_live_ms), "3s", 100 * MS, 60 * SECOND,
      .help = "a gateway that was heard within it is live: what is to be confirmed waits for it" },
    { "gateway_gather", CONF_MS, SETTING(gateway_gather_ms), "10ms", MS, 10 * SECOND,
      .help =
          "the first change is told at once; those right behind it are gathered for so long, then for twice as long, "
          "and so on" },
    { "gateway_gather_max", CONF_MS, SETTING(gateway_gather_max_ms), "200ms", MS, 10 * SECOND,
      .help = "what that grows to while changes keep coming" },
    { "gateway_persist", CONF_MS, SETTING(gateway_persist_ms), "2s", 100 * MS, 60 * SECOND,
      .help = "how often what gateways say of themselves is written down, all in one statement" },
    { "gateway_last_seen", CONF_MS, SETTING(gateway_last_seen_ms), "30s", SECOND, HOUR,
      .help = "how often it is written down of a gateway without other news that it is there" },
    { "gateway_poll", CONF_MS, SETTING(gateway_poll_ms), "5s", 100 * MS, HOUR,
      .help = "how often changed gateways are looked for where the database has not said that there are some" },
    { "change_memory", CONF_BYTES, SETTING(change_memory_bytes), "64MiB", 1024 * 1024, INT64_C(64) << 30,
      .help = "memory for the changes that gateways may have missed; who has missed more gets a snapshot" },
    { "change_memory_versions", CONF_COUNT, SETTING(change_memory_versions), "100000", 10, 100000,
      .help = "versions that are kept there at most" },
    { "change_log_versions", CONF_COUNT, SETTING(change_log_versions), "200000", 100000, 100000000,
      .help = "versions that the log in the database keeps; older ones are taken out of it" },
    { "change_poll", CONF_MS, SETTING(change_poll_ms), "1s", 10 * MS, 60 * SECOND,
      .help = "how often changes are looked for where the database has not said that there are some" },
    { "snapshot_folder", CONF_STRING, SETTING(snapshot_folder), "/var/tmp", 1, DATABASE_MAX_BYTES,
      .help =
          "where all that gateways are to know is kept for new ones, in a file without a name: some 130 bytes a key" },
    { "snapshot_slack", CONF_COUNT, SETTING(snapshot_slack), "10000", 1, 100000000,
      .help = "it is made anew when so many changes have come since, and a twentieth of what is in it" },
    { "snapshot_retry", CONF_MS, SETTING(snapshot_retry_ms), "5s", 10 * MS, HOUR,
      .help = "when it is tried again where it could not be made" },
    { "leader_name", CONF_STRING, SETTING(leader_name), NULL, 0, ROLE_MAX_BYTES,
      .help = "what this control plane is called where people ask who leads; empty: the machine's name and its "
              "`admin_listen`" },
    { "leader_lease", CONF_MS, SETTING(leader_lease_ms), "5s", 500 * MS, HOUR,
      .help = "how long a control plane that is gone keeps another from taking the lead" },
    { "leader_renew", CONF_MS, SETTING(leader_renew_ms), "1s", 50 * MS, HOUR,
      .help = "how often the leader prolongs its lease; at most half of it" },
    { "leader_hold", CONF_MS, SETTING(leader_hold_ms), "1h", SECOND, 24 * HOUR,
      .help = "how long a leader tells gateways from memory while the database is away" },
    { "load_window", CONF_MS, SETTING(load_window_ms), "10s", SECOND, HOUR,
      .help = "over how long requests, tokens and times are added up" },
    { "load_models", CONF_COUNT, SETTING(load_models), "1000", 1, 100000,
      .help = "models that are told apart there; what comes beyond is `other`" },
    { "load_users", CONF_COUNT, SETTING(load_users), "20000", 1, 1000000, .help = "users that are told apart there" },
    { "load_named_users", CONF_COUNT, SETTING(load_named_users), "100", 1, 100000,
      .help = "users that are named there: those with the most tokens" },
    { "log_level", CONF_CHOICE, SETTING(log_level), "info", .words = log_levels, .help = "what is worth a line" },
    { "log_format", CONF_CHOICE, SETTING(log_format), "text", .words = log_formats,
      .help = "how a line looks; all go to stderr" },
};
static const struct conf_table table = { rows, sizeof rows / sizeof *rows };

/* Two settings that go together: where one is said, the sentence is about that. */
static enum err check_pair(const struct conf *conf, const char *small, int64_t small_ms, const char *large,
                           int64_t large_ms, struct text *why)
{
    const struct conf_node *node = conf_member(conf->root, large);

    if (large_ms >= small_ms)
        return ERR_OK;
    if (!node)
        node = conf_member(conf->root, small);
    return conf_refuse(conf, node, why, "makes %s (%lld ms) less than %s (%lld ms)", large, (long long)large_ms, small,
                       (long long)small_ms);
}

static enum err check_whole(const struct conf *conf, const struct settings *settings, struct text *why)
{
    enum err err = check_pair(conf, "database_reconnect_delay", settings->database_reconnect_delay_ms,
                              "database_reconnect_max", settings->database_reconnect_max_ms, why);

    if (err == ERR_OK)
        err = check_pair(conf, "gateway_gather", settings->gateway_gather_ms, "gateway_gather_max",
                         settings->gateway_gather_max_ms, why);
    if (err == ERR_OK && settings->leader_lease_ms < 2 * settings->leader_renew_ms) {
        const struct conf_node *node = conf_member(conf->root, "leader_renew");
        if (!node)
            node = conf_member(conf->root, "leader_lease");
        err = conf_refuse(conf, node, why, "makes leader_renew (%lld ms) more than half of leader_lease (%lld ms)",
                          (long long)settings->leader_renew_ms, (long long)settings->leader_lease_ms);
    }
    return err;
}

static struct settings *build(const struct conf *conf, struct text *why)
{
    struct settings *settings = calloc(1, sizeof *settings);
    struct settings_memory *memory = calloc(1, sizeof *memory);
    struct conf_reading reading = { .conf = conf, .why = why };
    enum err err;

    if (!settings || !memory) {
        text_printf(why, "%s: cannot be kept: %s", conf->file, err_text(ERR_NO_MEMORY));
        free(settings);
        free(memory);
        return NULL;
    }
    arena_init(&memory->arena);
    settings->memory = memory;
    settings->database = settings->leader_name = "";
    reading.arena = &memory->arena;
    err = conf_table_read(&reading, &table, conf->root, settings, NULL);
    if (err == ERR_OK)
        err = check_whole(conf, settings, why);
    return err == ERR_OK ? settings : settings_free(settings);
}

struct settings *settings_parse(const char *file, struct slice yaml, struct text *why)
{
    struct conf *conf = conf_parse(file, yaml, why);
    struct settings *settings = conf ? build(conf, why) : NULL;

    conf_free(conf);
    return settings;
}

struct settings *settings_load(const char *file, struct text *why, struct text *warnings)
{
    struct conf *conf = conf_open(file, why);
    struct settings *settings = conf ? build(conf, why) : NULL;

    if (settings && conf->mode & 044 && database_has_secret(settings->database))
        text_printf(warnings, "%s: holds a password and others may read it: chmod 600 it, or use a passfile\n", file);
    conf_free(conf);
    return settings;
}

struct settings *settings_free(struct settings *settings)
{
    if (!settings)
        return NULL;
    cidr_list_release(&settings->admin_trusted_proxies);
    arena_release(&settings->memory->arena);
    free(settings->memory);
    free(settings);
    return NULL;
}

void settings_describe(struct text *out, bool as_markdown)
{
    conf_describe(&table, "Settings", false, as_markdown, out);
}
