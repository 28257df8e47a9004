/*
 * rig - both ends of a link in one process, and an owner of the server's end that does what a test says. rig_until()
 * serves all of them until a claim is true; it never waits for a while, and gives up after ten seconds.
 */
#pragma once
#include <stdatomic.h>

#include "check.h"
#include "digest.h"
#include "identity.h"
#include "link.h"

enum { RIG_GATEWAYS = 8, RIG_CLIENTS = 8, RIG_PARKED = 64 };

struct rig_client {
    struct link_client *link;
    unsigned ups, downs, answers, gone;
    enum qw_reason reason; /* of the last on_down() */
    char why[128];
    enum qw_what answer; /* the last */
    uint64_t answer_to;  /* of an Update */
    enum qw_reason refusal;
};

struct rig {
    struct link_server *server;
    struct link_server_options options;
    char url[64];
    /* What the database would say. */
    struct {
        struct slice name;
        struct identity_key key;
    } known[RIG_GATEWAYS];
    unsigned known_count;
    const char *secret; /* of an Enrol */
    bool loses_race;    /* the database says no when the key is to be registered */
    bool parks;         /* asks are kept instead of answered with an Update */
    bool holds_hellos;
    struct link_ask *parked[RIG_PARKED];
    unsigned parked_count;
    unsigned hellos, enrols, enrolled, welcomes, gone, messages;
    struct link_peer *peer; /* welcomed last; NULL when it went */
    struct rig_client clients[RIG_CLIENTS];
};

extern struct rig rig;
extern struct identity *one, *two; /* two gateways' keys */

/* A server with these limits (NULL: as they are), which knows gateway gw1 by `one` and gw2 by `two`. */
void rig_open(const struct link_server_options *options);
/* The server alone, at the same address. */
void rig_kill(void);
void rig_restart(void);
void rig_close(void);
void rig_know(struct slice name, const struct identity *identity);

struct rig_client *rig_client(unsigned i, const char *name, const struct identity *identity);
/* With everything that may be said; url and others are filled in where they are missing. */
struct rig_client *rig_client_with(unsigned i, const struct link_client_options *options);
void rig_client_close(struct rig_client *client);
/* Asks a Sync. */
enum err rig_ask(struct rig_client *client);
/* Answers what is parked with an Update to this version. */
void rig_release(uint64_t version);

/* Serves everything once, waiting up to wait_ms for something to do. */
void rig_turn(int wait_ms);
int64_t rig_now_ms(void);
#define RIG_UNTIL(claim)                                                            \
    do {                                                                            \
        for (int64_t end_ms_ = rig_now_ms() + 10000; !(claim);) {                   \
            rig_turn(20);                                                           \
            if (rig_now_ms() > end_ms_)                                             \
                check_fail(__FILE__, __LINE__, "did not come to pass: %s", #claim); \
        }                                                                           \
    } while (0)

/* A connection that speaks as it likes: nng's framing by hand. */
int raw_open(void);
/* The eight bytes with which SP begins, both ways. */
int raw_open_sp(void);
void raw_send(int fd, const void *at, size_t len);
/* One REQ message with this body. */
void raw_ask(int fd, uint32_t id, struct slice body);
struct slice raw_framed(uint32_t id, struct slice body);
/* The body of the next reply, good until the next call; serves the rig meanwhile. Empty: the connection was closed. */
struct slice raw_reply(int fd);
bool raw_is_closed(int fd);
/* The reply, unpacked. */
const struct qw_message *raw_message(int fd);
struct slice raw_packed(const struct qw_message *message);
/* Hello and Proof as this gateway; returns the last answer. */
const struct qw_message *raw_greet(int fd, const char *name, const struct identity *identity);
struct slice raw_proof(const struct qw_message *challenge, const char *name, const struct identity *identity);
