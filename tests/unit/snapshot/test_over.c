/* The section `control`, and what the control plane says over a file that has it. */
#include "conf.h"
#include "given.h"
#include "keyring.h"

#define CONTROL "control: {url: 'tcp://127.0.0.1:1', name: gw}\n"

TEST(a_file_with_control_needs_neither_keys_nor_backends)
{
    struct snapshot *snapshot =
        given("control:\n  url: [tcp://10.0.0.1:18801, tls+tcp://control.example:18801]\n  name: gpu-node.1\n"
              "  state: /srv/state\n  max_staleness: 90s\n  when_stale: serve\n  tls: {ca_file: /etc/ca.pem}\n");
    const struct control_settings *control = &snapshot->settings.control;

    CHECK_EQ(control->url_count, 2);
    CHECK(strcmp(control->urls[1], "tls+tcp://control.example:18801") == 0 && strcmp(control->name, "gpu-node.1") == 0);
    CHECK(strcmp(control->state, "/srv/state") == 0 && control->max_staleness_ms == 90000);
    CHECK(control->when_stale == STALE_SERVE && control->max_journal_bytes == 16 << 20);
    CHECK(!control->enroll_secret_file && !control->address && strcmp(control->tls_ca_file, "/etc/ca.pem") == 0);
    CHECK_EQ(snapshot->backend_count, 0);
    CHECK_EQ(snapshot->key_count, 0);
    CHECK(!snapshot->has_models && !snapshot->settings.whitelist_enabled);
    snapshot_unref(snapshot);
}

TEST(without_control_nothing_is_different)
{
    struct snapshot *snapshot = given("auth: {enabled: false}\nwhitelist: {enabled: true, ips: [10.0.0.0/8]}\n");

    CHECK_EQ(snapshot->settings.control.url_count, 0);
    CHECK_EQ(snapshot->backend_count, 1);
    snapshot_unref(snapshot);
}

TEST(a_bad_section_is_refused)
{
    static const struct refusal rows[] = {
        { "control: {url: 'http://a:1', name: g}\n",
          "c.yaml:1: control.url must begin with tcp:// or tls+tcp://, such as tcp://127.0.0.1:18801" },
        { "control: {url: 'tcp://a', name: g}\n",
          "c.yaml:1: control.url must name a host and a port, such as tcp://127.0.0.1:18801" },
        { "control: {url: [], name: g}\n", "c.yaml:1: control.url must name 1 to 8 addresses" },
        { "control: {url: 'tcp://a:1'}\n",
          "c.yaml:1: control needs a name, by which the control plane knows this gateway" },
        { "control: {name: g}\n",
          "c.yaml:1: control needs a url, where the control plane listens: tcp://127.0.0.1:18801" },
        { "control: {url: 'tcp://a:1', name: g, state: here}\n",
          "c.yaml:1: control.state must be a path that begins with /" },
        { "control: {url: 'tls+tcp://a:1', name: g}\n",
          "c.yaml:1: control has a url with tls+tcp://, so it needs tls.ca_file to know whom to trust" },
        { CONTROL "auth:\n  valid_keys: [x]\n", "c.yaml:3: auth.valid_keys excludes control, which stands in line 1: "
                                                "keys come from the control plane then, so "
                                                "leave one of them out" },
        { "models: {m: {}}\n" CONTROL, "c.yaml:1: models excludes control, which stands in line 2: models come from "
                                       "the control plane then, so leave "
                                       "one of them out" },
    };

    CHECK_REFUSALS(rows);
}

/* ---- over it ---- */

static struct conf *tree;
static struct conf_node *ranges, *models, *backends, *settings;

static void begin(void)
{
    tree = conf_make("version 7");
    ranges = conf_add(tree, conf_root(tree), SLICE("whitelist"), CONF_LIST);
    models = conf_add(tree, conf_root(tree), SLICE("models"), CONF_MAP);
    backends = conf_add(tree, conf_root(tree), SLICE("backends"), CONF_LIST);
    settings = conf_add(tree, conf_root(tree), SLICE("settings"), CONF_MAP);
    CHECK(ranges && models && backends && settings);
}

static void set(const char *name, const char *value)
{
    CHECK(conf_add_scalar(tree, settings, slice_of(name), slice_of(value), false));
}

static void add_backend(const char *name, const char *url)
{
    struct conf_node *map = conf_add(tree, backends, SLICE(""), CONF_MAP);

    CHECK(conf_add_scalar(tree, map, SLICE("name"), slice_of(name), true));
    CHECK(conf_add_scalar(tree, map, SLICE("url"), slice_of(url), true));
}

static struct snapshot *over(const char *yaml, const char **ret_why)
{
    static char memory[2048];
    struct text why = text_over(memory, sizeof memory);
    struct snapshot *file = given(yaml), *snapshot = snapshot_over(file, tree, &why, NULL);

    conf_free(tree);
    snapshot_unref(file); /* what is over it keeps it */
    *ret_why = memory;
    if (!snapshot != (why.len > 0))
        check_fail(__FILE__, __LINE__, "refused without a word, or taken with one: %s", memory);
    return snapshot;
}

TEST(what_is_said_over_a_file_is_read_as_if_it_stood_there)
{
    struct snapshot *snapshot;
    struct conf_node *map;
    const char *why;

    begin();
    CHECK(conf_add_scalar(tree, ranges, SLICE(""), SLICE("10.0.0.0/8"), true));
    map = conf_add(tree, models, SLICE("House"), CONF_MAP);
    CHECK(conf_add_scalar(tree, map, SLICE("model"), SLICE("qwen3:32b"), true));
    CHECK(conf_add_scalar(tree, map, SLICE("max_prompt_chars"), SLICE("9"), false));
    add_backend("gpu1", "http://10.0.0.5:11434");
    set("rate_limit.max_requests", "5");
    set("rate_limit.window_seconds", "10");
    snapshot = over("trusted_proxies: [10.9.0.0/16]\nmax_prompt_chars: 5\n" CONTROL, &why);
    CHECK(snapshot && snapshot->settings.max_prompt_chars == 5 && snapshot->settings.max_requests == 5);
    CHECK(snapshot->settings.window_ms == 10000 && snapshot->settings.trusted_proxies.count == 1);
    CHECK(snapshot->settings.whitelist_enabled && snapshot->settings.whitelist.count == 1);
    CHECK(snapshot->has_models && snapshot->model_count == 1 && snapshot->models[0].has_max_prompt_chars);
    CHECK(snapshot_find_model(snapshot, SLICE("house:latest")) && snapshot->models[0].max_prompt_chars == 9);
    CHECK(snapshot->backend_count == 1 && strcmp(snapshot->backends[0].authority, "10.0.0.5:11434") == 0);
    CHECK(strcmp(snapshot->settings.control.name, "gw") == 0 && snapshot->keyring);
    snapshot_unref(snapshot);
}

TEST(nothing_said_leaves_nothing)
{
    struct snapshot *snapshot;
    const char *why;

    begin();
    snapshot = over(CONTROL, &why);
    CHECK(snapshot && !snapshot->backend_count && !snapshot->has_models && !snapshot->settings.whitelist_enabled);
    snapshot_unref(snapshot);
}

TEST(whether_there_is_a_whitelist_is_said_or_follows_from_its_ranges)
{
    static const struct {
        const char *yaml, *setting;
        bool has_range, is_on;
    } rows[] = {
        { CONTROL, NULL, true, true },
        { CONTROL, NULL, false, false },
        { CONTROL "whitelist: {enabled: true}\n", NULL, false, true },
        { CONTROL "whitelist: {enabled: false}\n", NULL, true, false },
        { CONTROL, "false", true, false },
        { CONTROL "whitelist: {enabled: false}\n", "true", false, true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct snapshot *snapshot;
        const char *why;
        begin();
        if (rows[i].has_range)
            CHECK(conf_add_scalar(tree, ranges, SLICE(""), SLICE("10.0.0.0/8"), true));
        if (rows[i].setting)
            set("whitelist.enabled", rows[i].setting);
        snapshot = over(rows[i].yaml, &why);
        CHECK(snapshot);
        CHECK_EQ(snapshot->settings.whitelist_enabled, rows[i].is_on);
        snapshot_unref(snapshot);
    }
}

TEST(what_is_wrong_is_said_with_the_files_own_words_and_without_a_line)
{
    static const struct {
        const char *setting, *value, *why;
    } rows[] = {
        { "max_waiting", "0", "version 7: settings.max_waiting must be a whole number from 1 to 1000000, not \"0\"" },
        { "max_wait", "1", "version 7: settings.max_wait is not a known setting" },
        { "log_level", "debug",
          "version 7: settings.log_level is not the control plane's to say: it stays the file's" },
        { "drain_timeout", "1s",
          "version 7: settings.drain_timeout is not the control plane's to say: it stays the file's" },
    };
    struct snapshot *snapshot;
    const char *why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin();
        set(rows[i].setting, rows[i].value);
        CHECK(!over(CONTROL, &why));
        CHECK_STR(why, strlen(why), rows[i].why);
    }
    begin();
    add_backend("gpu1", "http://10.0.0.5");
    add_backend("gpu2", "http://10.0.0.5:80");
    snapshot = over(CONTROL, &why);
    CHECK(!snapshot);
    CHECK_STR(why, strlen(why), "version 7: backends[2] is at the host and port of gpu1");
    begin();
    CHECK(conf_add(tree, models, SLICE("Qwen3"), CONF_MAP) && conf_add(tree, models, SLICE("qwen3:latest"), CONF_MAP));
    CHECK(!over(CONTROL, &why));
    CHECK(strstr(why, "is the same model as") && !strstr(why, "line"));
}
