#include <stdio.h>
#include <unistd.h>

#include "rig.h"

TEST(a_gateway_proves_who_it_is_and_asks)
{
    static const struct slice features[] = { { "cut", 3 }, { "load", 4 } };
    const struct link_client_options options = {
        .name = "gw1", .identity = one, .features = { features, 2 }, .address = "10.0.0.1:18789", .max_staleness_s = 60
    };
    struct rig_client *client;

    rig_open(NULL);
    client = rig_client_with(0, &options);
    CHECK_EQ(rig_ask(client), ERR_AGAIN);
    RIG_UNTIL(client->ups == 1 && rig.peer);
    CHECK_STR(link_peer_name(rig.peer).at, link_peer_name(rig.peer).len, "gw1");
    CHECK_STR(link_peer_address(rig.peer).at, link_peer_address(rig.peer).len, "10.0.0.1:18789");
    CHECK_EQ(link_peer_instance(rig.peer).len, CODEC_ID_BYTES);
    CHECK_EQ(link_peer_version(rig.peer).minor, 2);
    CHECK_EQ(link_peer_max_staleness_s(rig.peer), 60);
    CHECK(link_peer_can(rig.peer, SLICE("cut")) && link_peer_can(rig.peer, SLICE("load")));
    CHECK(!link_peer_can(rig.peer, SLICE("lo")));
    CHECK_STR(link_peer_feature(rig.peer, 1).at, link_peer_feature(rig.peer, 1).len, "load");
    CHECK_EQ(link_peer_feature(rig.peer, 2).len, 0);
    CHECK(memcmp(link_peer_key(rig.peer)->bytes, rig.known[0].key.bytes, IDENTITY_KEY_BYTES) == 0);
    CHECK(link_server_find(rig.server, SLICE("gw1")) == rig.peer && !link_server_find(rig.server, SLICE("gw2")));
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(client->answers == 1);
    CHECK_EQ(client->answer, QW_UPDATE);
    rig_close();
}

TEST(a_wrong_key_is_refused_and_so_is_an_unknown_name_in_the_same_words)
{
    struct rig_client *wrong, *unknown;

    rig_open(NULL);
    wrong = rig_client(0, "gw1", two);
    unknown = rig_client(1, "gw9", two);
    RIG_UNTIL(wrong->downs && unknown->downs);
    CHECK_EQ(wrong->reason, QW_IDENTITY);
    CHECK_EQ(unknown->reason, QW_IDENTITY);
    CHECK_STR(wrong->why, strlen(wrong->why), unknown->why);
    CHECK_EQ(rig.welcomes, 0);
    rig_close();
}

TEST(a_stolen_name_does_not_disturb_its_owner)
{
    struct rig_client *owner, *thief;

    rig_open(NULL);
    owner = rig_client(0, "gw1", one);
    RIG_UNTIL(owner->ups == 1);
    thief = rig_client(1, "gw1", two);
    RIG_UNTIL(thief->downs == 1);
    CHECK_EQ(rig_ask(owner), ERR_OK);
    RIG_UNTIL(owner->answers == 1);
    CHECK(owner->downs == 0 && rig.gone == 0 && rig.welcomes == 1);
    rig_close();
}

TEST(a_gateway_that_comes_again_takes_the_place_of_its_old_connection)
{
    struct rig_client *first, *second;

    rig_open(NULL);
    first = rig_client(0, "gw1", one);
    RIG_UNTIL(first->ups == 1);
    second = rig_client(1, "gw1", one);
    RIG_UNTIL(second->ups == 1);
    CHECK(rig.gone == 1 && rig.peer);
    RIG_UNTIL(first->downs == 1);
    rig_close();
}

TEST(a_secret_registers_a_key_once)
{
    struct identity *fresh = identity_new();
    const struct link_client_options options = { .name = "new", .identity = fresh, .enrol_secret = "qe_right" };
    struct rig_client *client;

    rig_open(NULL);
    rig.secret = "qe_right";
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->ups == 1);
    CHECK(rig.enrolled == 1 && !rig.secret);
    CHECK(rig.enrols == 1 && rig.hellos == 1 && client->downs == 1); /* it said who it is first, in vain */
    rig_client_close(client);
    client = rig_client_with(0, &options); /* the secret still stands in its file */
    RIG_UNTIL(client->ups == 1);
    CHECK(rig.enrols == 1 && client->downs == 0);
    rig_close();
    (void)identity_free(fresh);
}

TEST(who_does_not_hold_the_key_that_it_enrols_does_not_use_up_the_secret)
{
    static const struct qw_version version = { 1, 2, 5 };
    static const struct qw_hello hello = { .name = { "new", 3 }, .version = &version };
    struct identity *fresh = identity_new();
    struct identity_key key;
    struct qw_message enrol = { QW_ENROL, .enrol = { .hello = &hello, .secret = SLICE("qe_right") } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    rig.secret = "qe_right";
    fd = raw_open_sp();
    identity_public(fresh, &key);
    enrol.enrol.public_key = (struct slice){ (const char *)key.bytes, sizeof key.bytes };
    raw_ask(fd, 1, raw_packed(&enrol));
    answer = raw_message(fd);
    CHECK(answer && answer->what == QW_CHALLENGE);
    raw_ask(fd, 2, raw_proof(answer, "new", two));
    answer = raw_message(fd);
    CHECK(answer && answer->what == QW_REFUSED && answer->refused.reason == QW_IDENTITY);
    CHECK(rig.enrols == 1 && rig.enrolled == 0 && rig.secret && rig.welcomes == 0);
    (void)close(fd);
    rig_close();
    (void)identity_free(fresh);
}

TEST(who_loses_the_race_for_a_secret_is_refused_and_closed)
{
    const struct link_client_options options = { .name = "new", .identity = two, .enrol_secret = "qe_right" };
    struct rig_client *client;
    struct link_server_counts counts = { 0 };

    rig_open(NULL);
    rig.secret = "qe_right";
    rig.loses_race = true;
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->downs == 2);
    CHECK_EQ(client->reason, QW_SECRET);
    CHECK(rig.enrolled == 1 && rig.welcomes == 0);
    rig_client_close(client);
    RIG_UNTIL((link_server_counts(rig.server, &counts), counts.strangers == 0));
    rig_close();
}

TEST(who_was_refused_instead_of_challenged_is_closed)
{
    static const struct qw_version version = { 1, 2, 5 };
    static const struct qw_message hello = { QW_HELLO, .hello = { .name = { "gw1", 3 }, .version = &version } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    rig.holds_hellos = true;
    fd = raw_open_sp();
    raw_ask(fd, 1, raw_packed(&hello));
    RIG_UNTIL(rig.parked_count == 1);
    link_ask_refuse(rig.parked[--rig.parked_count], QW_NOT_LEADER, "another leads", 0);
    answer = raw_message(fd);
    CHECK(answer && answer->what == QW_REFUSED && answer->refused.reason == QW_NOT_LEADER);
    CHECK(raw_is_closed(fd));
    rig_close();
}

TEST(a_wrong_secret_is_refused)
{
    const struct link_client_options options = { .name = "new", .identity = two, .enrol_secret = "qe_wrong" };
    struct rig_client *client;

    rig_open(NULL);
    rig.secret = "qe_right";
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->downs == 2);
    CHECK_EQ(client->reason, QW_SECRET);
    CHECK(rig.secret && rig.welcomes == 0);
    rig_close();
}

TEST(versions_that_do_not_go_together_are_told_so)
{
    static const struct {
        struct qw_version gateway;
        bool is_served;
    } rows[] = {
        { { 1, 3, 0 }, true },  { { 1, 2, 9 }, true },  { { 1, 1, 0 }, true },
        { { 1, 0, 9 }, false }, { { 1, 4, 0 }, false }, { { 2, 3, 0 }, false },
    };
    struct link_client_options options = { .name = "gw1", .identity = one, .version = { 1, 4, 0 } };
    struct rig_client *client;

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_EQ(link_version_is_served(&(struct qw_version){ 1, 3, 0 }, &rows[i].gateway), rows[i].is_served);
    rig_open(NULL);
    client = rig_client_with(0, &options);
    RIG_UNTIL(client->downs == 1);
    CHECK_EQ(client->reason, QW_VERSION);
    CHECK_STR(client->why, strlen(client->why),
              "this control plane (1.3.0) serves gateways of its own and the two previous minor versions, not 1.4.0");
    CHECK_EQ(rig.hellos, 0);
    rig_close();
}

TEST(nothing_is_heard_before_a_hello)
{
    static const struct qw_message sync = { QW_SYNC, .sync = { .have = 1 } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    for (uint32_t i = 0; i < 3; i++) {
        raw_ask(fd, i, i == 1 ? SLICE("garbage") : raw_packed(&sync));
        answer = raw_message(fd);
        CHECK_EQ(answer->what, QW_REFUSED);
        CHECK_EQ(answer->refused.reason, QW_HELLO_FIRST);
    }
    CHECK(raw_is_closed(fd)); /* three are enough */
    CHECK_EQ(rig.messages, 0);
    rig_close();
}

TEST(a_recorded_proof_is_worth_nothing_on_another_connection)
{
    const struct qw_message hello = { QW_HELLO,
                                      .hello = { .name = SLICE("gw1"), .version = &(struct qw_version){ 1, 2, 5 } } };
    const struct qw_message *answer;
    char recorded[256];
    struct slice proof;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    raw_ask(fd, 1, raw_packed(&hello));
    proof = raw_proof(raw_message(fd), "gw1", one);
    memcpy(recorded, proof.at, proof.len);
    proof.at = recorded;
    raw_ask(fd, 2, proof);
    CHECK_EQ(raw_message(fd)->what, QW_WELCOME);
    raw_ask(fd, 3, proof); /* nor on the same one */
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_BAD_MESSAGE);
    (void)close(fd);

    fd = raw_open_sp();
    raw_ask(fd, 1, raw_packed(&hello));
    CHECK_EQ(raw_message(fd)->what, QW_CHALLENGE);
    raw_ask(fd, 2, proof);
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_IDENTITY);
    CHECK(raw_is_closed(fd));
    CHECK_EQ(rig.welcomes, 1);
    rig_close();
}

TEST(a_second_hello_changes_nothing)
{
    const struct qw_message hello = { QW_HELLO,
                                      .hello = { .name = SLICE("gw2"), .version = &(struct qw_version){ 1, 2, 5 } } };
    const struct qw_message sync = { QW_SYNC, .sync = { .have = 1 } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    raw_ask(fd, 3, raw_packed(&hello));
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_BAD_MESSAGE);
    raw_ask(fd, 4, raw_packed(&sync));
    CHECK_EQ(raw_message(fd)->what, QW_UPDATE);
    CHECK(rig.peer && slice_is(link_peer_name(rig.peer), SLICE("gw1")));
    (void)close(fd);
    rig_close();
}

TEST(a_proof_without_a_challenge_is_refused)
{
    const struct qw_message hello = { QW_HELLO,
                                      .hello = { .name = SLICE("gw1"), .version = &(struct qw_version){ 1, 2, 5 } } };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    raw_ask(fd, 1, raw_packed(&hello));
    CHECK_EQ(raw_message(fd)->what, QW_CHALLENGE);
    raw_ask(fd, 2, raw_packed(&hello)); /* not what comes next */
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_BAD_MESSAGE);
    CHECK(raw_is_closed(fd));
    rig_close();
}

TEST(an_owner_that_takes_his_time_over_a_hello_is_waited_for)
{
    struct rig_client *client;

    rig_open(NULL);
    rig.holds_hellos = true;
    client = rig_client(0, "gw1", one);
    RIG_UNTIL(rig.parked_count == 1);
    link_ask_challenge(rig.parked[--rig.parked_count], &rig.known[0].key);
    RIG_UNTIL(client->ups == 1);
    rig_close();
}

/* Bytes of a gateway 1.1.0, as they were recorded when 1.1 was current: they are never made anew. */
TEST(a_gateway_of_an_older_version_is_understood)
{
    static const uint8_t hello[] = { 0x0a, 0x18, 0x0a, 0x03, 'g', 'w',  '1',  0x12, 0x04, 0x08, 0x01, 0x10, 0x01,
                                     0x1a, 0x03, 'c',  'u',  't', 0x22, 0x06, 'n',  'o',  'd',  'e',  '-',  '1' };
    static const uint8_t sync[] = { 0x4a, 0x07, 0x08, 0x05, 0x10, 0x05, 0x20, 0xb0, 0x6d };
    static const uint8_t load[] = { 0x5a, 0x11, 0x08, 0x01, 0x10, 0x02, 0x22, 0x0b, 0x0a, 0x05,
                                    'q',  'w',  'e',  'n',  '3',  0x10, 0x01, 0x20, 0x07 };
    static const uint8_t ack[] = { 0x6a, 0x04, 0x0a, 0x02, 0x08, 0x07 };
    static const uint8_t beat[] = { 0x3a, 0x00 };
    static const struct slice asked[] = { { (const char *)sync, sizeof sync },
                                          { (const char *)load, sizeof load },
                                          { (const char *)ack, sizeof ack } };
    struct identity_signature signature;
    struct qw_message proof = { QW_PROOF, .proof = { { (const char *)signature.bytes, sizeof signature.bytes } } };
    const struct qw_message *answer;
    struct identity_claim claim;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    raw_ask(fd, 1, (struct slice){ (const char *)hello, sizeof hello });
    answer = raw_message(fd);
    CHECK_EQ(answer->what, QW_CHALLENGE);
    claim = (struct identity_claim){ .nonce = (const uint8_t *)answer->challenge.nonce.at,
                                     .gateway_version = { 1, 1, 0 },
                                     .control_version = { 1, 3, 0 },
                                     .name = SLICE("gw1") };
    CHECK_EQ(identity_sign(one, &claim, &signature), ERR_OK);
    raw_ask(fd, 2, raw_packed(&proof));
    CHECK_EQ(raw_message(fd)->what, QW_WELCOME);
    CHECK(link_peer_version(rig.peer).minor == 1 && link_peer_can(rig.peer, SLICE("cut")));
    for (unsigned i = 0; i < 3; i++) {
        raw_ask(fd, 3 + i, asked[i]);
        CHECK_EQ(raw_message(fd)->what, QW_UPDATE);
    }
    raw_ask(fd, 9, (struct slice){ (const char *)beat, sizeof beat });
    CHECK_EQ(raw_message(fd)->what, QW_BEAT);
    CHECK_EQ(rig.messages, 3);
    (void)close(fd);
    rig_close();
}
