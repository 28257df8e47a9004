#include <stdio.h>
#include <stdlib.h>

#include "backend.h"
#include "check.h"
#include "snapshot.h"

#define OFF "auth: {enabled: false}\n"
#define TWO                                                                                          \
    OFF "backends:\n  - {name: a, url: 'http://127.0.0.1:1', slots: 4, models: [x, Y], weight: 3}\n" \
        "  - {name: b, url: 'http://127.0.0.1:2', drain: true}\n"

/* The fleet holds all it needs: the test's own reference to the snapshot is given back at once. */
static struct fleet *fleet_of(const char *yaml, struct fleet *old)
{
    struct snapshot *snapshot;
    struct fleet *fleet;
    struct text why;

    text_init(&why, 4096);
    snapshot = snapshot_parse("c.yaml", slice_of(yaml), &why, NULL);
    if (!snapshot)
        check_fail(__FILE__, __LINE__, "%s\nwas refused: %s", yaml, text_string(&why));
    text_release(&why);
    fleet = fleet_new(snapshot, old, 1000);
    CHECK(fleet);
    (void)snapshot_unref(snapshot);
    return fleet;
}

TEST(a_fleet_has_the_rules_of_the_file_and_outlives_its_snapshot)
{
    struct fleet *fleet = fleet_of(TWO, NULL);
    const struct fleet_rule *rule = fleet->rules;

    CHECK_EQ(fleet->count, 2);
    CHECK(strcmp(fleet->backends[0]->name, "a") == 0 && strcmp(fleet->backends[1]->name, "b") == 0);
    CHECK(rule[0].slots == 4 && rule[0].weight == 3 && !rule[0].drains && rule[0].model_count == 2);
    CHECK(strcmp(rule[0].models[0], "x:latest") == 0 && strcmp(rule[0].models[1], "y:latest") == 0);
    CHECK(rule[1].slots == 0 && rule[1].weight == 1 && rule[1].drains && rule[1].model_count == 0);
    CHECK(fleet_rule_is_for(&rule[0], SLICE("y:latest")) && !fleet_rule_is_for(&rule[0], SLICE("z:latest")));
    CHECK(fleet_rule_is_for(&rule[1], SLICE("z:latest")));
    (void)fleet_unref(fleet);
}

TEST(the_one_backend_of_ollama_api_has_no_limit)
{
    struct fleet *fleet = fleet_of(OFF "ollama_api: http://127.0.0.1:1\n", NULL);

    CHECK(fleet->count == 1 && strcmp(fleet->backends[0]->name, "ollama") == 0);
    CHECK(fleet->rules[0].slots == 0 && fleet->rules[0].weight == 1 && !fleet->rules[0].drains);
    CHECK(fleet_rule_is_for(&fleet->rules[0], SLICE("anything:latest")));
    (void)fleet_unref(fleet);
}

/* Its breaker and its list of models come along; what is said of it is new. */
TEST(a_backend_stays_the_same_when_only_its_rules_change)
{
    struct fleet *old = fleet_of(TWO, NULL);
    struct backend *a = old->backends[0], *b = old->backends[1];
    struct fleet *fleet;

    backend_opens(a, 1000);
    fleet =
        fleet_of(OFF "backends:\n  - {name: c, url: 'http://127.0.0.1:3'}\n  - {name: b, url: 'http://127.0.0.1:2', "
                     "weight: 0}\n  - {name: a, url: 'http://127.0.0.1:1', slots: 2, drain: true}\n",
                 old);
    (void)fleet_unref(old);
    CHECK(fleet->count == 3 && fleet->backends[2] == a && fleet->backends[1] == b);
    CHECK(!backend_is_closed(a) && backend_is_closed(fleet->backends[0]));
    CHECK(fleet->rules[2].slots == 2 && fleet->rules[2].weight == 1 && fleet->rules[2].drains);
    CHECK(fleet->rules[2].model_count == 0 && fleet->rules[1].weight == 0 && !fleet->rules[1].drains);
    CHECK_EQ(atomic_load(&a->refs), 1);
    (void)fleet_unref(fleet);
}

TEST(a_backend_at_another_place_or_of_another_name_is_another_one)
{
    static const char *const rows[] = {
        OFF "backends: [{name: a, url: 'http://127.0.0.1:9'}]\n",
        OFF "backends: [{name: a, url: 'http://127.0.0.2:1'}]\n",
        OFF "backends: [{name: other, url: 'http://127.0.0.1:1'}]\n",
        OFF "ollama_api: http://127.0.0.1:1\n",
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fleet *old = fleet_of(TWO, NULL), *fleet = fleet_of(rows[i], old);
        CHECK_ROW(fleet->count == 1 && fleet->backends[0] != old->backends[0], rows[i]);
        (void)fleet_unref(old);
        (void)fleet_unref(fleet);
    }
}

TEST(a_fleet_whose_host_moved_keeps_its_rules)
{
    struct fleet *old = fleet_of(TWO, NULL), *fleet;

    CHECK(!fleet_renew(old, 2000));      /* nothing is different */
    old->backends[0]->address_count = 0; /* as if its name had not resolved before */
    fleet = fleet_renew(old, 2000);
    CHECK(fleet && fleet->count == 2 && fleet->backends[0] != old->backends[0]);
    CHECK(fleet->backends[1] == old->backends[1] && fleet->backends[0]->address_count == 1);
    (void)fleet_unref(old);
    CHECK(fleet->rules[0].slots == 4 && strcmp(fleet->rules[0].models[1], "y:latest") == 0 && fleet->rules[1].drains);
    (void)fleet_unref(fleet);
}

TEST(a_fleet_lives_until_its_last_reference_goes)
{
    struct fleet *fleet = fleet_of(TWO, NULL), *held = fleet_ref(fleet);

    CHECK(!fleet_unref(fleet));
    CHECK(strcmp(held->rules[0].models[0], "x:latest") == 0);
    CHECK(!fleet_unref(held) && !fleet_unref(NULL));
}

/* An odd number of backends and an even one: the rules stand behind the pointers. */
TEST(a_fleet_of_any_size_has_a_rule_for_each)
{
    for (unsigned count = 1; count <= 64; count++) {
        struct fleet *fleet;
        struct text yaml;
        text_init(&yaml, 1 << 16);
        text_add_literal(&yaml, OFF "backends:\n");
        for (unsigned i = 1; i <= count; i++)
            text_printf(&yaml, "  - {name: n%u, url: 'http://127.0.0.1:%u', slots: %u}\n", i, i, i);
        fleet = fleet_of(text_string(&yaml), NULL);
        CHECK_EQ(fleet->count, count);
        for (unsigned i = 0; i < count; i++)
            CHECK(fleet->rules[i].slots == i + 1 && fleet->backends[i]->port == i + 1);
        (void)fleet_unref(fleet);
        text_release(&yaml);
    }
}

/* ---- what a model can do, where backends differ ---- */

static void list_x(struct backend *backend, const char *capabilities)
{
    char body[256];

    (void)snprintf(body, sizeof body, "{\"models\":[{\"name\":\"x\"%s%s}]}", *capabilities ? ",\"capabilities\":" : "",
                   capabilities);
    backend_set_catalog(backend, catalog_parse_tags(slice_of(body)));
}

TEST(one_backend_that_can_is_enough_and_halves_of_two_are_not)
{
    enum { ALL = CAN_COMPLETE | CAN_TOOLS | CAN_SEE };
    const struct slice x = SLICE("x:latest");
    struct fleet *fleet = fleet_of(OFF "backends:\n  - {name: a, url: 'http://127.0.0.1:1'}\n"
                                       "  - {name: b, url: 'http://127.0.0.1:2'}\n"
                                       "  - {name: others, url: 'http://127.0.0.1:3', models: [y]}\n"
                                       "  - {name: leaving, url: 'http://127.0.0.1:4', drain: true}\n",
                                   NULL);

    CHECK_EQ(fleet_lacks(fleet, x, ALL), 0); /* no list says otherwise */
    list_x(fleet->backends[0], "[\"completion\"]");
    list_x(fleet->backends[2], "[\"completion\",\"tools\",\"vision\"]");
    list_x(fleet->backends[3], "[\"completion\",\"tools\",\"vision\"]");
    CHECK_EQ(fleet_lacks(fleet, x, ALL), CAN_TOOLS | CAN_SEE);
    list_x(fleet->backends[1], "[\"completion\",\"tools\"]");
    CHECK_EQ(fleet_lacks(fleet, x, CAN_COMPLETE | CAN_TOOLS), 0);
    CHECK_EQ(fleet_lacks(fleet, x, ALL), CAN_SEE);
    CHECK(fleet_all_can(fleet, x, CAN_COMPLETE) && !fleet_all_can(fleet, x, CAN_TOOLS));
    list_x(fleet->backends[0], "[\"completion\",\"vision\"]");
    CHECK(fleet_lacks(fleet, x, ALL) != 0);
    list_x(fleet->backends[0], ""); /* of an old version, which does not say */
    CHECK_EQ(fleet_lacks(fleet, x, ALL), 0);
    (void)fleet_unref(fleet);
}
