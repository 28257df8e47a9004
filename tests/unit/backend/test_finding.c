/* What is wrong with a backend: said once when it begins, once when it has passed; and when it takes callers. */
#include "backend.h"
#include "check.h"
#include "kind.h"
#include "snapshot.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* What the log said goes here instead of to stderr. */
struct said {
    int file, stderr_was;
    char text[65536];
};

static void listen_in(struct said *said)
{
    said->file = memfd_create("said", MFD_CLOEXEC);
    said->stderr_was = dup(STDERR_FILENO);
    (void)dup2(said->file, STDERR_FILENO);
}

static void listen_no_more(struct said *said)
{
    ssize_t len = pread(said->file, said->text, sizeof said->text - 1, 0);

    said->text[len > 0 ? len : 0] = 0;
    (void)dup2(said->stderr_was, STDERR_FILENO);
    (void)close(said->stderr_was);
    (void)close(said->file);
}

static unsigned times(const char *text, const char *part)
{
    unsigned count = 0;

    for (; (text = strstr(text, part)); text += strlen(part))
        count++;
    return count;
}

static struct backend *some_backend(void)
{
    const struct backend_rule rule = { .name = "gpu1", .host = "127.0.0.1", .port = 9, .authority = "127.0.0.1:9" };

    return backend_new(&rule, &kind_ollama, 1000);
}

static void take_note(void *arg, enum finding finding, struct slice model)
{
    text_printf(arg, "%s %.*s;", finding_word(finding), (int)model.len, model.at);
}

static void check_findings(struct backend *backend, const char *wanted)
{
    struct text got;

    text_init(&got, 65536);
    backend_findings(backend, take_note, &got);
    CHECK_STR(text_string(&got), got.len, wanted);
    text_release(&got);
}

TEST(a_finding_is_said_when_it_begins_and_when_it_has_passed)
{
    struct backend *backend = some_backend();
    struct said said;

    listen_in(&said);
    for (int i = 0; i < 3; i++)
        backend_finds(backend, FINDING_PARTLY_ON_CPU, SLICE("qwen3:32b"), true, i ? NULL : "14 of 20 GB");
    listen_no_more(&said);
    CHECK_EQ(times(said.text, "\n"), 1);
    CHECK(strstr(said.text, "backend gpu1: qwen3:32b is partly on the CPU (14 of 20 GB): answers will be slow"));
    check_findings(backend, "partly_on_cpu qwen3:32b;");

    listen_in(&said);
    for (int i = 0; i < 3; i++)
        backend_finds(backend, FINDING_PARTLY_ON_CPU, SLICE("qwen3:32b"), false, NULL);
    listen_no_more(&said);
    CHECK_EQ(times(said.text, "\n"), 1);
    CHECK(strstr(said.text, "backend gpu1: qwen3:32b is no longer partly on the CPU"));
    check_findings(backend, "");

    listen_in(&said);
    backend_finds(backend, FINDING_PARTLY_ON_CPU, SLICE("qwen3:32b"), true, NULL);
    backend_finds(backend, FINDING_PARTLY_ON_CPU, SLICE("qwen3:32b"), false, "is not loaded any more");
    listen_no_more(&said);
    CHECK(strstr(said.text, "backend gpu1: qwen3:32b is not loaded any more"));
    (void)backend_unref(backend);
}

TEST(findings_are_kept_apart_by_what_they_are_and_by_model)
{
    struct backend *backend = some_backend();
    struct said said;

    listen_in(&said);
    backend_finds(backend, FINDING_MODEL_MISSING, SLICE("a:latest"), true, NULL);
    backend_finds(backend, FINDING_MODEL_MISSING, SLICE("a:late"), true, NULL);
    backend_finds(backend, FINDING_FEWER_SLOTS, SLICE("a:latest"), true, NULL);
    backend_finds(backend, FINDING_NOT_RESIDENT, SLICE("a:latest"), false, NULL);
    listen_no_more(&said);
    CHECK_EQ(times(said.text, "\n"), 3);
    check_findings(backend, "model_missing a:latest;model_missing a:late;fewer_slots a:latest;");
    listen_in(&said);
    backend_finds(backend, FINDING_MODEL_MISSING, SLICE("a:latest"), false, NULL);
    listen_no_more(&said);
    check_findings(backend, "fewer_slots a:latest;model_missing a:late;");
    (void)backend_unref(backend);
}

TEST(more_findings_than_are_kept_are_neither_kept_nor_said_until_there_is_room)
{
    struct backend *backend = some_backend();
    struct said said;
    char name[24];

    listen_in(&said);
    for (int i = 0; i < BACKEND_MAX_FINDINGS + 10; i++) {
        (void)snprintf(name, sizeof name, "m%d:latest", i);
        backend_finds(backend, FINDING_MODEL_MISSING, slice_of(name), true, NULL);
    }
    listen_no_more(&said);
    CHECK_EQ(times(said.text, "\n"), BACKEND_MAX_FINDINGS);
    listen_in(&said);
    backend_finds(backend, FINDING_MODEL_MISSING, SLICE("m0:latest"), false, NULL);
    backend_finds(backend, FINDING_MODEL_MISSING, slice_of(name), true, NULL);
    listen_no_more(&said);
    CHECK_EQ(times(said.text, "\n"), 2);
    CHECK(strstr(said.text, name));
    (void)backend_unref(backend);
}

TEST(every_finding_has_a_word_of_its_own)
{
    for (unsigned i = 0; i < FINDINGS; i++)
        for (unsigned k = 0; k < i; k++)
            CHECK(strcmp(finding_word((enum finding)i), finding_word((enum finding)k)) != 0);
}

TEST(a_backend_takes_callers_when_it_is_closed_and_warm)
{
    struct backend *backend = some_backend();
    struct said said;

    CHECK(backend_takes_callers(backend));
    backend_warms(backend, true, 1000);
    CHECK(!backend_takes_callers(backend) && backend_is_warming(backend));
    backend_warms(backend, false, 2000);
    CHECK(backend_takes_callers(backend) && !backend_is_warming(backend));
    CHECK_EQ(backend_recovered_ms(backend), 0); /* it starts: it has not been away */

    listen_in(&said);
    backend_opens(backend, 3000);
    CHECK(!backend_takes_callers(backend));
    backend_warms(backend, true, 4000);
    CHECK(!backend_is_warming(backend)); /* it does not answer */
    backend_probed(backend, 5000);
    listen_no_more(&said);
    CHECK(backend_is_closed(backend));
    CHECK(!backend_takes_callers(backend));
    CHECK(strstr(said.text, "loading its models before it takes requests"));
    CHECK_EQ(backend_recovered_ms(backend), 5000);
    atomic_store(&backend->has_taken, true);
    backend_warms(backend, false, 9000);
    CHECK(backend_takes_callers(backend));
    CHECK_EQ(backend_recovered_ms(backend), 9000);
    (void)backend_unref(backend);
}

TEST(a_fleet_is_starting_until_one_has_taken_callers_or_all_are_away)
{
    struct fleet *fleet = calloc(1, sizeof *fleet + 2 * sizeof(struct backend *));
    struct fleet_rule rules[2] = { 0 };
    bool is_starting;
    struct said said;

    atomic_init(&fleet->refs, 1);
    fleet->count = 2;
    fleet->rules = rules;
    for (unsigned i = 0; i < 2; i++)
        fleet->backends[i] = some_backend();
    CHECK(!fleet_is_ready(fleet, &is_starting) && is_starting); /* nobody has asked them yet */
    rules[0].drains = rules[1].drains = true;
    CHECK(!fleet_is_ready(fleet, &is_starting) && !is_starting); /* and whoever asks them will give them nothing */
    rules[0].drains = rules[1].drains = false;

    for (unsigned i = 0; i < 2; i++)
        atomic_store(&fleet->backends[i]->is_probed, true);
    backend_warms(fleet->backends[0], true, 1000);
    backend_warms(fleet->backends[1], true, 1000);
    CHECK(!fleet_is_ready(fleet, &is_starting) && is_starting); /* they load */

    backend_warms(fleet->backends[0], false, 2000);
    atomic_store(&fleet->backends[0]->has_taken, true);
    CHECK(fleet_is_ready(fleet, &is_starting));
    rules[0].drains = true;
    CHECK(!fleet_is_ready(fleet, &is_starting) && !is_starting); /* the only one that could takes nothing new */
    rules[0].drains = false;

    listen_in(&said);
    backend_opens(fleet->backends[0], 3000);
    CHECK(!fleet_is_ready(fleet, &is_starting) && !is_starting); /* one away, one loads */
    atomic_store(&fleet->backends[0]->has_taken, false);
    CHECK(!fleet_is_ready(fleet, &is_starting) && is_starting); /* the same, at the start */
    backend_opens(fleet->backends[1], 3000);
    listen_no_more(&said);
    CHECK(!fleet_is_ready(fleet, &is_starting) && !is_starting); /* all away */
    (void)fleet_unref(fleet);
}

/* The resolver refuses a label of more than 63 letters without asking anybody. */
TEST(that_a_host_does_not_resolve_is_said_once_and_not_whenever_it_is_looked_up)
{
#define LABEL "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    struct snapshot *snapshot;
    struct said said;
    struct fleet *fleet;
    struct text why;

    text_init(&why, 4096);
    snapshot = snapshot_parse("c.yaml", SLICE("auth: {enabled: false}\nollama_api: http://" LABEL ":1\n"), &why, NULL);
    CHECK(snapshot);
    text_release(&why);
    listen_in(&said);
    fleet = fleet_new(snapshot, NULL, 1000);
    CHECK(!fleet_renew(fleet, 2000));
    CHECK(!fleet_renew(fleet, 3000));
    listen_no_more(&said);
    CHECK_EQ(fleet->backends[0]->address_count, 0);
    CHECK_EQ(times(said.text, "does not resolve"), 1);
    (void)fleet_unref(fleet);
    (void)snapshot_unref(snapshot);
}
