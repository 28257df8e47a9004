#include <stdio.h>
#include <unistd.h>

#include "relay.h"
#include "rig.h"

TEST(a_parked_question_is_answered_when_there_is_something)
{
    struct rig_client *client;
    struct link_server_counts counts;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    for (unsigned i = 0; i < LINK_LANES; i++)
        CHECK_EQ(rig_ask(client), ERR_OK);
    CHECK_EQ(rig_ask(client), ERR_FULL);
    RIG_UNTIL(rig.parked_count == LINK_LANES);
    link_server_counts(rig.server, &counts);
    CHECK(counts.asks == LINK_LANES && counts.peers == 1 && counts.strangers == 0);
    CHECK_EQ(client->answers, 0);
    rig_release(7);
    RIG_UNTIL(client->answers == LINK_LANES);
    CHECK_EQ(client->answer_to, 7);
    link_server_counts(rig.server, &counts);
    CHECK_EQ(counts.asks, 0);
    rig_close();
}

TEST(heartbeats_go_on_while_a_question_is_parked)
{
    const struct link_server_options limits = { .heartbeat_ms = 100, .silence_ms = 1000 };
    const struct link_client_options options = { .name = "gw1", .identity = one, .patience_ms = 400 };
    struct rig_client *client;
    int64_t began_ms;

    rig_open(&limits);
    rig.parks = true;
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 1);
    began_ms = rig_now_ms();
    RIG_UNTIL(link_client_heard_ms(client->link) > began_ms + 1200); /* longer than anybody is patient */
    CHECK(client->downs == 0 && rig.gone == 0);
    rig_release(2);
    RIG_UNTIL(client->answers == 1);
    rig_close();
}

TEST(an_answer_to_who_has_gone_does_no_harm)
{
    struct rig_client *client, *other;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 2);
    rig_client_close(client);
    RIG_UNTIL(rig.gone == 1);
    CHECK(!link_ask_peer(rig.parked[0]));
    link_ask_drop(rig.parked[--rig.parked_count]);
    rig_release(3);
    other = rig_client(1, "gw2", two); /* what they had been is used again */
    RIG_UNTIL(other->ups == 1);
    rig.parks = false;
    CHECK_EQ(rig_ask(other), ERR_OK);
    RIG_UNTIL(other->answers == 1);
    rig_close();
}

TEST(a_removed_gateway_is_refused_at_once)
{
    struct rig_client *client;
    const struct qw_message sync = { QW_SYNC, .sync = { .have = 1 } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1 && rig.peer);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 1);
    rig.known_count = 0;
    link_peer_remove(rig.peer, "gateway gw1 was removed");
    CHECK(rig.gone == 1 && !rig.peer);
    rig_release(9); /* which it is not told any more */
    RIG_UNTIL(client->downs == 1);
    CHECK(client->answers == 1 && client->answer == QW_REFUSED && client->refusal == QW_REMOVED);
    CHECK_EQ(client->reason, QW_REMOVED);
    CHECK_STR(client->why, strlen(client->why), "gateway gw1 was removed");
    rig_client_close(client);

    rig_know(SLICE("gw1"), one);
    rig.parks = false;
    fd = raw_open_sp(); /* one that does not listen */
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    link_peer_remove(rig.peer, "removed");
    raw_ask(fd, 5, raw_packed(&sync));
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_REMOVED);
    CHECK(raw_is_closed(fd));
    CHECK_EQ(rig.messages, 1);
    rig_close();
}

TEST(a_gateway_is_back_soon_after_its_control_plane_was_killed)
{
    struct rig_client *client;
    int64_t began_ms;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 1);
    rig_kill();
    RIG_UNTIL(client->downs == 1 && client->gone == 1);
    CHECK_EQ(client->reason, 0);
    began_ms = rig_now_ms();
    RIG_UNTIL(rig_now_ms() > began_ms + 500); /* it tries in vain */
    rig_restart();
    began_ms = rig_now_ms();
    RIG_UNTIL(client->ups == 2);
    CHECK(rig_now_ms() - began_ms <= 2000);
    rig.parks = false;
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(client->answers == 1);
    rig_close();
}

/* For longer than anybody is patient, and for shorter than it takes to notice. */
TEST(a_gateway_is_back_soon_after_a_partition_has_healed)
{
    static const int64_t cut_ms[] = { 2000, 700 };
    struct rig_client *client;
    struct relay *relay;
    const char *url;

    rig_open(&(struct link_server_options){ .heartbeat_ms = 300 });
    relay = relay_open(rig.url);
    url = relay_url(relay);
    client = rig_client_with(
        0, &(struct link_client_options){ .name = "gw1", .identity = one, .urls = &url, .url_count = 1 });
    RIG_UNTIL(client->ups == 1);
    for (unsigned i = 0; i < 2; i++) {
        unsigned answers = client->answers;
        int64_t began_ms = rig_now_ms();
        relay_cut(relay, true);
        RIG_UNTIL(rig_now_ms() > began_ms + cut_ms[i]);
        CHECK(link_client_is_up(client->link) == (cut_ms[i] < 1000));
        relay_cut(relay, false);
        began_ms = rig_now_ms();
        RIG_UNTIL(link_client_is_up(client->link) && (rig_ask(client) == ERR_OK || true) && client->answers > answers);
        CHECK(rig_now_ms() - began_ms <= 2000);
    }
    rig_close();
    relay_close(relay);
}

TEST(a_gateway_goes_to_the_next_address_where_one_is_dead)
{
    const char *urls[] = { "tcp://127.0.0.1:1", NULL };
    struct rig_client *client;
    const struct link_client_options options = {
        .name = "gw1", .identity = one, .urls = urls, .url_count = 2, .patience_ms = 300
    };

    rig_open(NULL);
    urls[1] = rig.url;
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(client->downs, 1);
    rig_close();
}

TEST(a_question_that_is_lost_with_its_connection_is_told_so)
{
    struct rig_client *client;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 2);
    rig_kill();
    RIG_UNTIL(client->gone == 2);
    CHECK_EQ(client->answers, 0);
    CHECK_EQ(rig_ask(client), ERR_AGAIN);
    rig_close();
}

TEST(a_gateway_that_says_goodbye_is_gone)
{
    static const struct qw_message bye = { .what = QW_BYE };
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    raw_ask(fd, 3, raw_packed(&bye));
    CHECK_EQ(raw_message(fd)->what, QW_BYE);
    CHECK_EQ(rig.gone, 1);
    CHECK(raw_is_closed(fd));
    rig_close();
}

TEST(a_control_plane_that_says_goodbye_is_left)
{
    const struct qw_message bye = { QW_BYE, .bye = { .why = SLICE("it restarts"), .retry_ms = 100 } };
    struct rig_client *client;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 1);
    link_ask_answer(rig.parked[--rig.parked_count], &bye);
    RIG_UNTIL(client->downs == 1);
    CHECK(client->answers == 1 && client->answer == QW_BYE);
    CHECK_STR(client->why, strlen(client->why), "it restarts");
    RIG_UNTIL(client->ups == 2);
    rig_close();
}

TEST(an_answer_that_cannot_be_packed_becomes_an_apology)
{
    static const struct qw_message wrong = { QW_UPDATE, .update = { .to = 0 } };
    struct rig_client *client;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(rig.parked_count == 1);
    link_ask_answer(rig.parked[--rig.parked_count], &wrong);
    RIG_UNTIL(client->answers == 1);
    CHECK(client->answer == QW_REFUSED && client->refusal == QW_UNAVAILABLE);
    rig_close();
}

TEST(the_longest_frame_passes)
{
    static char changes[CODEC_MAX_CHANGES];
    const struct qw_message update = { QW_UPDATE, .update = { .to = 5, .changes = { changes, sizeof changes } } };
    struct rig_client *client;

    rig_open(NULL);
    rig.parks = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(client->ups == 1);
    for (unsigned i = 1; i <= 3; i++) {
        CHECK_EQ(rig_ask(client), ERR_OK);
        RIG_UNTIL(rig.parked_count == 1);
        link_ask_answer(rig.parked[--rig.parked_count], &update);
        RIG_UNTIL(client->answers == i);
    }
    CHECK_EQ(client->answer_to, 5);
    rig_close();
}
