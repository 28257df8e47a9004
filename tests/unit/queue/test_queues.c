/* Queues with the fleet of a configuration: rules, lists of models, recovery, reloads; and the table of queues. */
#include <stdio.h>

#include "check.h"
#include "queue_parts.h"
#include "snapshot.h"

static const struct queue_rules rules = { .max_waiting = 100,
                                          .max_waiting_batch = 100,
                                          .max_waiting_per_user = 100,
                                          .batch_percent = 20,
                                          .slow_start_us = 10000000 };
enum { START_US = 5000000 };

static void on_ring(void *arg)
{
    (void)arg;
}
static struct queue_home home = { .ring = on_ring };

static struct fleet *fleet_of(const char *backends, struct fleet *old)
{
    struct snapshot *snapshot;
    struct fleet *fleet;
    struct text yaml, why;

    text_init(&yaml, 4096);
    text_init(&why, 4096);
    text_printf(&yaml, "auth: {enabled: false}\nbackends:\n%s", backends);
    snapshot = snapshot_parse("c.yaml", text_slice(&yaml), &why, NULL);
    if (!snapshot)
        check_fail(__FILE__, __LINE__, "%s", text_string(&why));
    fleet = fleet_new(snapshot, old, 1);
    CHECK(fleet);
    (void)snapshot_unref(snapshot);
    text_release(&yaml);
    text_release(&why);
    return fleet;
}

static void list_models(struct backend *backend, const char *name)
{
    char body[128];

    (void)snprintf(body, sizeof body, "{\"models\":[{\"name\":\"%s\"}]}", name);
    backend_set_catalog(backend, catalog_parse_tags(slice_of(body)));
}

static struct ticket *take(struct queue *queue, int64_t now_us)
{
    const struct ticket_wish wish = { .user = SLICE("user"), .weight = 1 };

    return ticket_take(queue, &home, &wish, &home, now_us);
}

static const char *backend_of(const struct ticket *ticket)
{
    return ticket_backend(ticket) ? ticket_backend(ticket)->name : "";
}

static void give_back(struct ticket **tickets, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ticket_give_back(tickets[i], NULL, START_US);
    while (queue_home_next(&home))
        ;
}

static unsigned granted(struct ticket *const *tickets, unsigned count)
{
    unsigned sum = 0;

    while (queue_home_next(&home))
        ;
    for (unsigned i = 0; i < count; i++)
        sum += ticket_state(tickets[i]) == TICKET_GRANTED;
    return sum;
}

TEST(slots_of_the_file_hold_for_each_backend_and_model)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 2}\n"
                                   "  - {name: b, url: 'http://127.0.0.1:2', slots: 1}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct ticket *tickets[10];

    queues_know(queues, fleet, &rules, START_US);
    for (unsigned i = 0; i < 10; i++)
        tickets[i] = take(queues_find(queues, i < 5 ? SLICE("x:latest") : SLICE("y:latest")), START_US);
    CHECK_EQ(granted(tickets, 5), 3);
    CHECK_EQ(granted(tickets + 5, 5), 3);
    give_back(tickets, 10);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(only_backends_that_have_the_model_are_asked_and_all_when_none_is_known_to)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1}\n"
                                   "  - {name: b, url: 'http://127.0.0.1:2', slots: 1}\n"
                                   "  - {name: c, url: 'http://127.0.0.1:3', slots: 1, models: [z]}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct queue *x;
    struct ticket *tickets[4];

    queues_know(queues, fleet, &rules, START_US);
    x = queues_find(queues, SLICE("x:latest"));
    for (unsigned i = 0; i < 3; i++)
        tickets[i] = take(x, START_US);
    CHECK_EQ(granted(tickets, 3), 2); /* never by c, which is for z alone */
    give_back(tickets, 3);
    list_models(fleet->backends[0], "y");
    list_models(fleet->backends[1], "x");
    list_models(fleet->backends[2], "x");
    queues_look(queues, START_US);
    for (unsigned i = 0; i < 2; i++)
        tickets[i] = take(x, START_US);
    CHECK_EQ(granted(tickets, 2), 1);
    CHECK(strcmp(backend_of(tickets[0]), "b") == 0);
    atomic_store(&fleet->backends[1]->breaker, BREAKER_OPEN); /* those who have it not are no help */
    tickets[2] = take(x, START_US);
    CHECK_EQ(ticket_state(tickets[2]), TICKET_NO_BACKEND);
    tickets[3] = take(queues_find(queues, SLICE("z:latest")), START_US); /* a new queue knows as well */
    CHECK_EQ(ticket_state(tickets[3]), TICKET_GRANTED);
    give_back(tickets, 4);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(a_model_whose_backend_has_yet_to_tell_its_list_is_not_asked_of_another_one)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1}\n"
                                   "  - {name: b, url: 'http://127.0.0.1:2', slots: 1, models: [z]}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct queue *z;
    struct ticket *tickets[3];

    list_models(fleet->backends[0], "y");
    atomic_store(&fleet->backends[1]->breaker, BREAKER_OPEN);
    queues_know(queues, fleet, &rules, START_US);
    z = queues_find(queues, SLICE("z:latest"));
    tickets[0] = take(z, START_US);
    CHECK_EQ(ticket_state(tickets[0]), TICKET_NO_BACKEND);
    atomic_store(&fleet->backends[1]->breaker, BREAKER_CLOSED);
    tickets[1] = take(z, START_US);
    CHECK(strcmp(backend_of(tickets[1]), "b") == 0);
    list_models(fleet->backends[1], "y"); /* it has not: whoever may be asked answers for itself */
    queues_look(queues, START_US);
    tickets[2] = take(z, START_US);
    CHECK(strcmp(backend_of(tickets[2]), "a") == 0);
    give_back(tickets, 3);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(a_backend_that_has_just_recovered_gets_its_slots_little_by_little)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 10}\n", NULL);
    struct queues *queues = queues_new();
    struct ticket *tickets[20];

    backend_opens(fleet->backends[0], 5000);
    backend_probed(fleet->backends[0], 10000);
    queues_know(queues, fleet, &rules, 10000000);
    for (unsigned i = 0; i < 20; i++)
        tickets[i] = take(queues_find(queues, SLICE("x:latest")), 10000000);
    CHECK_EQ(granted(tickets, 20), 1);
    queues_look(queues, 12500000);
    CHECK_EQ(granted(tickets, 20), 2);
    queues_look(queues, 15000000);
    CHECK_EQ(granted(tickets, 20), 5);
    queues_look(queues, 19999999);
    CHECK_EQ(granted(tickets, 20), 9);
    queues_look(queues, 20000000);
    CHECK_EQ(granted(tickets, 20), 10);
    give_back(tickets, 20);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(a_reload_drains_puts_on_standby_and_brings_new_backends)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1}\n"
                                   "  - {name: spare, url: 'http://127.0.0.1:2', slots: 1, weight: 0}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct queue *x = queues_find(queues, SLICE("x:latest"));
    struct ticket *tickets[4];
    struct fleet *next;

    tickets[0] = take(x, START_US);
    CHECK_EQ(ticket_state(tickets[0]), TICKET_NO_BACKEND); /* nothing is known yet */
    give_back(tickets, 1);
    queues_know(queues, fleet, &rules, START_US);
    for (unsigned i = 0; i < 3; i++)
        tickets[i] = take(x, START_US);
    CHECK_EQ(granted(tickets, 3), 1);
    CHECK(strcmp(backend_of(tickets[0]), "a") == 0);
    next = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1, drain: true}\n"
                    "  - {name: spare, url: 'http://127.0.0.1:2', slots: 1, weight: 0}\n",
                    fleet);
    queues_know(queues, next, &rules, START_US);
    (void)fleet_unref(fleet);
    CHECK_EQ(granted(tickets, 3), 2);
    CHECK(strcmp(backend_of(tickets[0]), "a") == 0); /* what runs finishes */
    CHECK(strcmp(backend_of(tickets[1]), "spare") == 0);
    CHECK(strcmp(ticket_why(tickets[1]), route_why_text(ROUTE_STANDBY)) == 0);
    fleet = fleet_of("  - {name: b, url: 'http://127.0.0.1:3', slots: 1}\n", next);
    queues_know(queues, fleet, &rules, START_US);
    (void)fleet_unref(next);
    CHECK_EQ(granted(tickets, 3), 3);
    CHECK(strcmp(backend_of(tickets[2]), "b") == 0);
    CHECK(strcmp(backend_of(tickets[0]), "a") == 0); /* still there, though the configuration is not */
    give_back(tickets, 3);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(where_the_model_is_loaded_is_asked_first)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 4}\n"
                                   "  - {name: b, url: 'http://127.0.0.1:2', slots: 4}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct ticket *tickets[4];

    backend_set_residents(fleet->backends[1],
                          residents_parse_ps(SLICE("{\"models\":[{\"name\":\"x\",\"model\":\"x\"}]}")));
    queues_know(queues, fleet, &rules, START_US);
    for (unsigned i = 0; i < 4; i++) {
        tickets[i] = take(queues_find(queues, SLICE("x:latest")), START_US);
        CHECK(strcmp(backend_of(tickets[i]), "b") == 0);
    }
    give_back(tickets, 4);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(a_thousand_names_have_queues_of_their_own_and_the_rest_share_one)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1}\n", NULL);
    struct queues *queues = queues_new();
    struct queue *other = NULL, *first = queues_find(queues, SLICE("model0"));
    struct queue_gauges gauges;
    struct ticket *tickets[2];

    queues_know(queues, fleet, &rules, START_US);
    for (unsigned i = 0; i < QUEUES_MAX + 100; i++) {
        char name[16];
        struct queue *queue =
            queues_find(queues, (struct slice){ name, (size_t)snprintf(name, sizeof name, "model%u", i) });
        CHECK(queue);
        if (i >= QUEUES_MAX) {
            CHECK(!other || queue == other);
            other = queue;
        }
    }
    CHECK_EQ(queues_count(queues), QUEUES_MAX + 1);
    CHECK(queues_find(queues, SLICE("model0")) == first && first != other);
    tickets[0] = take(other, START_US);
    tickets[1] = take(other, START_US);
    CHECK_EQ(granted(tickets, 2), 1);
    queues_gauges(queues, QUEUES_MAX, &gauges);
    CHECK_STR(gauges.model.at, gauges.model.len, "other");
    CHECK_EQ(gauges.running, 1);
    CHECK_EQ(gauges.waiting[QUEUE_INTERACTIVE], 1);
    CHECK_EQ(gauges.users_waiting, 1);
    CHECK_EQ(gauges.granted[QUEUE_INTERACTIVE], 1);
    give_back(tickets, 2);
    queues_free(queues);
    (void)fleet_unref(fleet);
}

TEST(people_are_told_who_waits_by_numbers_and_what_each_backend_does)
{
    struct fleet *fleet = fleet_of("  - {name: a, url: 'http://127.0.0.1:1', slots: 1}\n"
                                   "  - {name: b, url: 'http://127.0.0.1:2', slots: 2, drain: true}\n",
                                   NULL);
    struct queues *queues = queues_new();
    struct queue *x = queues_find(queues, SLICE("x:latest"));
    const struct ticket_outcome outcome = {
        .has_tokens = true, .prompt_tokens = 10, .completion_tokens = 90, .running_us = 3000000
    };
    struct ticket *tickets[3];
    struct text out;

    text_init(&out, 4096);
    queues_know(queues, fleet, &rules, START_US);
    CHECK(!queues_explain(queues, SLICE("y:latest"), START_US, &out));
    for (unsigned i = 0; i < 3; i++)
        tickets[i] = take(x, START_US);
    ticket_give_back(tickets[0], &outcome, START_US);
    CHECK(queues_explain(queues, SLICE("x:latest"), START_US, &out));
    CHECK_STR(
        out.at, out.len,
        "x:latest\n"
        "  running 1; waiting: 1 interactive of 1 users, 0 batch of 0 users, 0 sent again\n"
        "  a request takes 3.0 s and writes 90 tokens on average\n"
        "  a: busy, model not known to be loaded, 1 of 1 slots, 30.0 tokens/s, weight 1, score 0.0667\n"
        "  b: takes none, model not known to be loaded, 0 of 2 slots, speed not known yet, weight 1, score 0.0333\n"
        "  now: none, all slots are taken\n");
    give_back(tickets + 1, 2);
    text_release(&out);
    queues_free(queues);
    (void)fleet_unref(fleet);
}
