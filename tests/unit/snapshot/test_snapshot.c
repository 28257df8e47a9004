#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "given.h"
#include "keyring.h"

#define HEX "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"

static void write_file(const char *path, const char *bytes, mode_t mode)
{
    FILE *file = fopen(path, "w");

    CHECK(file && fputs(bytes, file) >= 0 && fclose(file) == 0 && chmod(path, mode) == 0);
}

static void read_file(const char *path, struct text *out)
{
    FILE *file = fopen(path, "r");
    char piece[4096];
    size_t got;

    if (!file)
        check_fail(__FILE__, __LINE__, "cannot read %s", path);
    while ((got = fread(piece, 1, sizeof piece, file)) > 0)
        text_add(out, piece, got);
    (void)fclose(file);
}

/* Loads such a file with such permissions; the warnings stay until the next call. */
static struct snapshot *loaded(const char *yaml, mode_t mode, const char **ret_why, const char **ret_warnings)
{
    static char why_kept[4096], warnings_kept[4096];
    char path[] = "/tmp/test_snapshot_XXXXXX";
    int fd = mkstemp(path);
    struct snapshot *snapshot;
    struct text why, warnings;

    CHECK(fd >= 0);
    (void)close(fd);
    write_file(path, yaml, mode);
    text_init(&why, sizeof why_kept - 1);
    text_init(&warnings, sizeof warnings_kept - 1);
    snapshot = snapshot_load(path, &why, &warnings);
    (void)unlink(path);
    (void)snprintf(why_kept, sizeof why_kept, "%s", text_string(&why));
    (void)snprintf(warnings_kept, sizeof warnings_kept, "%s", text_string(&warnings));
    text_release(&why);
    text_release(&warnings);
    *ret_why = why_kept;
    *ret_warnings = warnings_kept;
    return snapshot;
}

TEST(clear_keys_in_a_file_that_others_may_read_are_warned_about)
{
    static const struct {
        const char *yaml;
        mode_t mode;
        bool is_warned;
    } rows[] = {
        { "auth: {valid_keys: [k]}\n", 0600, false },
        { "auth: {valid_keys: [k]}\n", 0640, true },
        { "auth: {valid_keys: [k]}\n", 0604, true },
        { "auth: {valid_keys: [{key: k}]}\n", 0644, true },
        { "auth: {valid_keys: [\"sha256:" HEX "\"]}\n", 0644, false },
        { "auth: {valid_keys: [{key_sha256: " HEX "}]}\n", 0644, false },
        { "auth: {enabled: false}\n", 0644, false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *why, *warnings;
        struct snapshot *snapshot = loaded(rows[i].yaml, rows[i].mode, &why, &warnings);
        CHECK_ROW(snapshot && !*why, why);
        CHECK_ROW((strstr(warnings, "holds keys in clear and others may read it") != NULL) == rows[i].is_warned,
                  rows[i].yaml);
        snapshot_unref(snapshot);
    }
}

TEST(root_that_stays_root_is_warned_about)
{
    const char *why, *warnings;
    struct snapshot *snapshot = loaded("auth: {valid_keys: [k]}\n", 0600, &why, &warnings);
    bool is_root = geteuid() == 0;

    CHECK(snapshot);
    CHECK_ROW((strstr(warnings, "runs as root and stays so") != NULL) == is_root, warnings);
    snapshot_unref(snapshot);
    snapshot = loaded("auth: {valid_keys: [k]}\nuser: nobody\n", 0600, &why, &warnings);
    CHECK(snapshot && !strstr(warnings, "runs as root"));
    snapshot_unref(snapshot);
}

TEST(a_file_that_is_not_there_is_named)
{
    struct text why;

    text_init(&why, 256);
    CHECK(!snapshot_load("/nonexistent/config.yaml", &why, NULL));
    CHECK_STR(text_string(&why), why.len, "/nonexistent/config.yaml: cannot be read: No such file or directory");
    text_release(&why);
}

TEST(the_sample_configuration_is_taken)
{
    struct text why;
    struct snapshot *snapshot;

    text_init(&why, 4096);
    snapshot = snapshot_load(QG_SOURCE_DIR "/deploy/config/config.yaml", &why, NULL);
    CHECK_STR(text_string(&why), why.len, "");
    CHECK(snapshot && snapshot->key_count == 1 && snapshot->settings.max_requests == 30);
    CHECK(snapshot->settings.whitelist_enabled && snapshot->settings.whitelist.count == 2);
    snapshot_unref(snapshot);
    text_release(&why);
}

/*
 * A suggestion is a comment without the space that prose has after its '#'; its further lines have more than one.
 * That of `backends` stands in place of ollama_api.
 */
static void take_suggestions(const struct text *sample, struct text *out)
{
    for (const char *line = sample->at; *line;) {
        const char *end = strchr(line, '\n');
        const char *hash = line + strspn(line, " ");
        bool is_suggestion = *hash == '#' && (hash[1] != ' ' || hash[2] == ' ');
        bool is_replaced = slice_starts(slice_of(line), SLICE("ollama_api:"));
        CHECK(end);
        text_add(out, "#", is_replaced);
        text_add(out, line, (size_t)(hash - line));
        text_add(out, hash + is_suggestion, (size_t)(end + 1 - hash) - is_suggestion);
        line = end + 1;
    }
}

/* What it only suggests must be as good as what it sets. */
TEST(the_sample_configuration_is_taken_with_its_suggestions_too)
{
    char folder[] = "/tmp/test_sample_XXXXXX", config[64], key[64];
    struct text sample, all, why;
    struct snapshot *snapshot;

    text_init(&sample, 1 << 16);
    text_init(&all, 1 << 16);
    text_init(&why, 4096);
    read_file(QG_SOURCE_DIR "/deploy/config/config.yaml", &sample);
    take_suggestions(&sample, &all);
    CHECK(mkdtemp(folder));
    (void)snprintf(config, sizeof config, "%s/config.yaml", folder);
    (void)snprintf(key, sizeof key, "%s/webui.key", folder);
    write_file(config, text_string(&all), 0600);
    write_file(key, "key-of-the-web-ui\n", 0600);
    snapshot = snapshot_load(config, &why, NULL);
    (void)unlink(config);
    (void)unlink(key);
    (void)rmdir(folder);
    CHECK_STR(text_string(&why), why.len, "");
    CHECK(snapshot && snapshot->key_count == 4 && snapshot->model_count == 1);
    CHECK(snapshot->backend_count == 3 && snapshot->backends[1].slots == 2 && snapshot->backends[2].weight == 0);
    CHECK(snapshot->keys[2].class == KEY_BATCH && snapshot->models[0].preload);
    CHECK(strcmp(snapshot->keys[3].name, "webui") == 0 && snapshot->keys[3].delegates);
    CHECK(snapshot->settings.log_format == LOG_FORMAT_JSON && snapshot->settings.trusted_proxies.count == 1);
    snapshot_unref(snapshot);
    text_release(&sample);
    text_release(&all);
    text_release(&why);
}

TEST(a_snapshot_lives_until_its_last_reference_goes)
{
    struct snapshot *snapshot = given("auth: {valid_keys: [k]}\n");
    struct snapshot *held = snapshot_ref(snapshot);

    CHECK(held == snapshot);
    snapshot = snapshot_unref(snapshot);
    CHECK(!snapshot && strcmp(held->keys[0].name, "key1") == 0);
    held = snapshot_unref(held);
    CHECK(!held && !snapshot_unref(NULL));
}

TEST(what_a_reload_cannot_change_is_named)
{
    static const struct {
        const char *before, *after, *why; /* why: NULL when the reload may go on */
    } rows[] = {
        { "listen: \":1\"\n", "listen: \":1\"\n", NULL },
        { "", "listen: \":18789\"\n", NULL },
        { "", "max_requests: 5\n", NULL },
        { "", "auth_timeout", NULL },
        { "listen: \":1\"\n", "log_level: info\nlisten: \":2\"\n",
          "c.yaml:3: a change of listen from :1 to :2 needs a restart; nothing was changed" },
        { "operator_listen: \":1\"\n", "",
          "c.yaml:0: a change of operator_listen from :1 to 127.0.0.1:18790 needs a restart; nothing was changed" },
        { "", "workers: 2\n", "c.yaml:2: a change of workers from auto to 2 needs a restart; nothing was changed" },
        { "", "user: nobody\n", "c.yaml:2: a change of user from none to nobody needs a restart; nothing was changed" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char before[256], after[512];
        struct text why;
        if (i == 2 || i == 3) /* everything else may change */
            (void)snprintf(after, sizeof after, "%s",
                           "auth: {valid_keys: [other], header_key: X-B}\nrate_limit: {max_requests: 5}\n"
                           "backends: [{name: a, url: http://gpu2}]\nlog_level: debug\nmax_connections: 5\n"
                           "models: {a: {}}\nqueue_timeout: 1s\nmax_waiting: 1\nmax_waiting_per_user: 1\n"
                           "max_waiting_batch_percent: 1\nbatch_percent: 1\nslow_start: 0s\nwarm_timeout: "
                           "1s\nsession_header: X-B2\n");
        else
            (void)snprintf(after, sizeof after, "auth: {valid_keys: [k]}\n%s", rows[i].after);
        (void)snprintf(before, sizeof before, "auth: {valid_keys: [k]}\n%s", rows[i].before);
        struct snapshot *old = given(before), *new = given(after);
        text_init(&why, 4096);
        CHECK_ROW(snapshot_needs_restart(old, new, &why) == (rows[i].why != NULL), after);
        CHECK_STR(text_string(&why), why.len, rows[i].why ? rows[i].why : "");
        text_release(&why);
        snapshot_unref(old);
        snapshot_unref(new);
    }
}

static bool has_line(const struct text *out, const char *begin, const char *end)
{
    const char *at = strstr(text_string(out), begin);
    size_t len = at ? strcspn(at, "\n") : 0;

    return at && (at == out->at || at[-1] == '\n') && slice_ends((struct slice){ at, len }, slice_of(end));
}

TEST(every_setting_is_printed_with_its_value_and_source_and_no_secret)
{
    struct snapshot *snapshot =
        given("max_body_bytes: 1048576\nauth:\n  valid_keys:\n    - my-very-secret-key\n"
              "    - {key: other-secret, name: webui, user: ann, delegate: true, models: [m], allow: [10.0.0.0/8], "
              "max_requests: 3, max_total_requests: 9, max_prompt_chars: 0, think: false, weight: 4, class: batch}\n"
              "    - \"sha256:" HEX "\"\n"
              "models:\n  qwen3: {num_ctx: 4096, keep_alive: 5m, max_prompt_chars: 7, max_system_chars: 8, think: "
              "true, preload: true}\n"
              "whitelist: {enabled: true, ips: [127.0.0.1, 10.0.0.0/16, '::1', 'fd00::/8']}\n"
              "response_filter: {strip: [model, created]}\n"
              "backends:\n  - {name: gpu1, url: http://10.0.0.5, slots: 4, models: [b, A], drain: true}\n"
              "  - {name: gpu2, url: 'http://[fd00::1]:11434', weight: 0}\n");
    struct text out;

    text_init(&out, 1 << 20);
    snapshot_print(snapshot, &out);
    CHECK(has_line(&out, "listen:                       :18789 ", "# default"));
    CHECK(has_line(&out, "max_body_bytes:               1 MiB ", "# c.yaml:1"));
    CHECK(has_line(&out, "auth.valid_keys:              3 keys ", "# c.yaml:3"));
    CHECK(has_line(&out, "  key1                        sha256:0c1bb8e8… ", "# c.yaml:4"));
    CHECK(has_line(&out, "  webui                       sha256:", "# c.yaml:5"));
    CHECK(strstr(out.at, "…, user ann, delegate, models m:latest, allow [10.0.0.0/8], max_requests 3, "
                         "max_total_requests 9, max_prompt_chars 0, think off, weight 4, class batch # c.yaml:5\n"));
    CHECK(has_line(&out, "  key3                        sha256:5e884898… ", "# c.yaml:6"));
    CHECK(has_line(&out,
                   "  qwen3                       model qwen3, num_ctx 4096, keep_alive \"5m\", max_prompt_chars 7, "
                   "max_system_chars 8, think, preload ",
                   "# c.yaml:8"));
    CHECK(has_line(&out, "whitelist.ips:                [127.0.0.1, 10.0.0.0/16, ::1, fd00::/8] ", "# c.yaml:9"));
    CHECK(has_line(&out, "response_filter.strip:        [model, created] ", "# c.yaml:10"));
    CHECK(has_line(&out, "ollama_api:                   none, but backends ", "# default"));
    CHECK(has_line(&out, "backends:                     2 backends ", "# c.yaml:11"));
    CHECK(has_line(&out,
                   "  gpu1                        http://10.0.0.5:80, slots 4, weight 1, models a:latest b:latest, "
                   "drain ",
                   "# c.yaml:12"));
    CHECK(has_line(&out,
                   "  gpu2                        http://[fd00::1]:11434, slots 0 (no limit), weight 0 (standby) ",
                   "# c.yaml:13"));
    CHECK(has_line(&out, "rate_limit.window_seconds:    60 ", "# default"));
    CHECK(has_line(&out, "queue_timeout:                120s ", "# default"));
    CHECK(has_line(&out, "session_header:               X-Session-Id ", "# default"));
    CHECK(has_line(&out, "head_timeout:                 10s ", "# default"));
    CHECK(has_line(&out, "user:                         none ", "# default"));
    CHECK(!strstr(out.at, "a-secret") && !strstr(out.at, HEX) && out.err == ERR_OK);
    snapshot_unref(snapshot);
    text_release(&out);
}

TEST(ollama_api_alone_is_printed_as_the_only_place)
{
    struct snapshot *snapshot = given("auth: {enabled: false}\nollama_api: http://gpu1\n");
    struct text out;

    text_init(&out, 1 << 20);
    snapshot_print(snapshot, &out);
    CHECK(has_line(&out, "ollama_api:                   http://gpu1:80 ", "# c.yaml:2"));
    CHECK(has_line(&out, "backends:                     the one of ollama_api ", "# default"));
    CHECK(!strstr(out.at, "  ollama "));
    snapshot_unref(snapshot);
    text_release(&out);
}

TEST(the_plain_description_names_every_setting_with_its_default)
{
    struct text out;

    text_init(&out, 1 << 20);
    settings_describe(&out, false);
    CHECK(strstr(out.at, "  rate_limit.max_requests (default 30)\n"));
    CHECK(strstr(out.at, "  listen (default :18789)\n"));
    CHECK(strstr(out.at, "  key_sha256\n") && strstr(out.at, "  num_ctx\n") &&
          strstr(out.at, "  slots (default 0)\n") && out.err == ERR_OK);
    text_release(&out);
}

/*
 * The page is written by hand around the tables, which come from the program. After a change of a row run this
 * program with QG_UPDATE=1 in its environment: it puts the new tables in.
 */
TEST(the_reference_page_holds_the_tables_of_the_program)
{
    static const char page[] = QG_SOURCE_DIR "/docs/configuration.md";
    static const char begin[] = "<!-- tables: written by the program, see tests/unit/snapshot -->\n";
    static const char end[] = "<!-- end of tables -->\n";
    struct text tables, file, updated;
    const char *from, *to;

    text_init(&tables, 1 << 20);
    text_init(&file, 1 << 20);
    text_init(&updated, 1 << 20);
    settings_describe(&tables, true);
    read_file(page, &file);
    from = strstr(text_string(&file), begin);
    to = strstr(text_string(&file), end);
    CHECK(from && to && from < to);
    from += strlen(begin);
    if (getenv("QG_UPDATE")) {
        text_add(&updated, file.at, (size_t)(from - file.at));
        text_add_slice(&updated, text_slice(&tables));
        text_add_string(&updated, to);
        write_file(page, text_string(&updated), 0644);
    } else {
        CHECK_STR(from, (size_t)(to - from), text_string(&tables));
    }
    text_release(&tables);
    text_release(&file);
    text_release(&updated);
}
