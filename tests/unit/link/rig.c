#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "closing.h"

struct rig rig;
struct identity *one, *two;

static const struct qw_version server_version = { 1, 3, 0 }, gateway_version = { 1, 2, 5 };

/* What nng's reaper, which nobody can wait for, has not given back when the process ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libnng.so\n";
}

/*
 * nng does not always give back what it has (closing.h): what was to be closed is waited for, and where that hangs, the
 * process ends without asking what is left. By exit(), before leaks are looked for.
 */
static void at_end(int status, void *arg)
{
    (void)arg;
    if (closing_wait(3000))
        return;
    fprintf(stderr, "nng hangs in nng_close()\n");
    _exit(status);
}

__attribute__((constructor)) static void make_ready(void)
{
    check_isolates = true; /* a socket that hangs is to be the end of one test's threads only */
    (void)on_exit(at_end, NULL);
    one = identity_new();
    two = identity_new();
}

static struct arena raw_arena;
static char raw_buffer[2 * CODEC_MAX_BYTES];
static struct text raw_text;

__attribute__((destructor)) static void free_identities(void)
{
    rig_close();
    one = identity_free(one);
    two = identity_free(two);
    arena_release(&raw_arena);
    text_release(&raw_text);
    arena_thread_stop();
}

int64_t rig_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- the owner of the server's end ----------------------------------------------------------------------- */

static const struct identity_key *key_of(struct slice name)
{
    for (unsigned i = 0; i < rig.known_count; i++)
        if (slice_is(rig.known[i].name, name))
            return &rig.known[i].key;
    return NULL;
}

static void park(struct link_ask *ask)
{
    if (rig.parked_count == RIG_PARKED)
        abort();
    rig.parked[rig.parked_count++] = ask;
}

static void on_hello(void *arg, struct link_ask *ask, const struct qw_hello *hello)
{
    (void)arg;
    rig.hellos++;
    if (rig.holds_hellos)
        park(ask);
    else
        link_ask_challenge(ask, key_of(hello->name));
}

static void on_enrol(void *arg, struct link_ask *ask, const struct qw_enrol *enrol)
{
    struct identity_key key;

    (void)arg;
    rig.enrols++;
    if (!rig.secret || !slice_is(enrol->secret, slice_of(rig.secret))) {
        link_ask_refuse(ask, QW_SECRET, "no such secret", 0);
        return;
    }
    memcpy(key.bytes, enrol->public_key.at, sizeof key.bytes);
    link_ask_challenge(ask, &key);
}

static void on_enrolled(void *arg, struct link_ask *ask, struct slice name, const struct identity_key *key,
                        const struct digest *secret_hash)
{
    struct digest hash;

    (void)arg;
    digest_sha256(slice_of(rig.secret), &hash);
    if (!digest_is(&hash, secret_hash) || !slice_is(name, SLICE("new")))
        abort();
    rig.enrolled++;
    if (rig.loses_race) {
        link_ask_refuse(ask, QW_SECRET, "used meanwhile", 0);
        return;
    }
    rig.secret = NULL;
    rig.known[rig.known_count].name = SLICE("new");
    rig.known[rig.known_count++].key = *key;
    link_ask_welcome(ask);
}

static void on_welcome(void *arg, struct link_peer *peer)
{
    (void)arg;
    rig.welcomes++;
    rig.peer = peer;
}

static void on_message(void *arg, struct link_peer *peer, struct link_ask *ask, const struct qw_message *message)
{
    const struct qw_message update = { QW_UPDATE, .update = { .from = 1, .to = 1 } };

    (void)arg;
    if (link_ask_peer(ask) != peer || (message->what != QW_SYNC && message->what != QW_LOAD && message->what != QW_ACK))
        abort();
    rig.messages++;
    if (rig.parks)
        park(ask);
    else
        link_ask_answer(ask, &update);
}

static void on_gone(void *arg, struct link_peer *peer)
{
    (void)arg;
    rig.gone++;
    if (rig.peer == peer)
        rig.peer = NULL;
}

static const struct link_server_events server_events = { on_hello,   on_enrol,   on_enrolled,
                                                         on_welcome, on_message, on_gone };

void rig_know(struct slice name, const struct identity *identity)
{
    rig.known[rig.known_count].name = name;
    identity_public(identity, &rig.known[rig.known_count++].key);
}

void rig_restart(void)
{
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    rig.options.url = rig.url;
    rig.server = link_server_open(&rig.options, &server_events, NULL, &why);
    if (!rig.server)
        check_fail(__FILE__, __LINE__, "%s", memory);
    (void)snprintf(rig.url, sizeof rig.url, "%s", link_server_url(rig.server));
}

void rig_open(const struct link_server_options *options)
{
    rig_close();
    rig = (struct rig){ 0 };
    if (options)
        rig.options = *options;
    if (!rig.options.version.major)
        rig.options.version = server_version;
    (void)snprintf(rig.url, sizeof rig.url, "tcp://127.0.0.1:0");
    rig_know(SLICE("gw1"), one);
    rig_know(SLICE("gw2"), two);
    rig_restart();
}

void rig_kill(void)
{
    rig.server = link_server_close(rig.server);
    rig.parked_count = 0;
    rig.peer = NULL;
}

void rig_close(void)
{
    for (unsigned i = 0; i < RIG_CLIENTS; i++)
        rig_client_close(&rig.clients[i]);
    rig_kill();
}

void rig_release(uint64_t version)
{
    const struct qw_message update = { QW_UPDATE, .update = { .from = 1, .to = version } };

    while (rig.parked_count)
        link_ask_answer(rig.parked[--rig.parked_count], &update);
}

/* --- the gateways' ends ---------------------------------------------------------------------------------- */

static void on_up(void *arg, const struct qw_welcome *welcome)
{
    struct rig_client *client = arg;

    if (welcome->session.len != CODEC_ID_BYTES)
        abort();
    client->ups++;
}

static void on_down(void *arg, enum qw_reason reason, const char *why)
{
    struct rig_client *client = arg;

    client->downs++;
    client->reason = reason;
    (void)snprintf(client->why, sizeof client->why, "%s", why);
}

static void on_answered(void *arg, enum err err, const struct qw_message *answer)
{
    struct rig_client *client = arg;

    if (err) {
        client->gone++;
        return;
    }
    client->answers++;
    client->answer = answer->what;
    if (answer->what == QW_UPDATE)
        client->answer_to = answer->update.to;
    if (answer->what == QW_REFUSED)
        client->refusal = answer->refused.reason;
}

struct rig_client *rig_client_with(unsigned i, const struct link_client_options *given)
{
    static const char *urls[RIG_CLIENTS];
    static const struct link_client_events events = { on_up, on_down };
    struct link_client_options options = *given;
    struct rig_client *client = &rig.clients[i];
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    if (!options.urls) {
        urls[i] = rig.url;
        options.urls = &urls[i];
        options.url_count = 1;
    }
    if (!options.version.major)
        options.version = gateway_version;
    rig_client_close(client);
    *client = (struct rig_client){ 0 };
    client->link = link_client_open(&options, &events, client, &why);
    if (!client->link)
        check_fail(__FILE__, __LINE__, "%s", memory);
    return client;
}

struct rig_client *rig_client(unsigned i, const char *name, const struct identity *identity)
{
    const struct link_client_options options = { .name = name, .identity = identity };

    return rig_client_with(i, &options);
}

void rig_client_close(struct rig_client *client)
{
    client->link = link_client_close(client->link);
}

enum err rig_ask(struct rig_client *client)
{
    const struct qw_message sync = { QW_SYNC, .sync = { .have = 1, .wait_ms = 30000 } };

    return link_client_ask(client->link, &sync, on_answered, client);
}

/* --- the loop -------------------------------------------------------------------------------------------- */

void rig_turn(int wait_ms)
{
    struct pollfd polls[1 + RIG_CLIENTS];
    nfds_t count = 0;

    polls[count++] = (struct pollfd){ rig.server ? link_server_fd(rig.server) : -1, POLLIN, 0 };
    for (unsigned i = 0; i < RIG_CLIENTS; i++)
        polls[count++] = (struct pollfd){ rig.clients[i].link ? link_client_fd(rig.clients[i].link) : -1, POLLIN, 0 };
    (void)poll(polls, count, wait_ms);
    if (polls[0].revents)
        link_server_take(rig.server);
    for (unsigned i = 0; i < RIG_CLIENTS; i++)
        if (polls[1 + i].revents)
            link_client_take(rig.clients[i].link);
}

/* --- by hand --------------------------------------------------------------------------------------------- */

int raw_open(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

    address.sin_port = htons((uint16_t)atoi(strrchr(rig.url, ':') + 1));
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    return fd;
}

/* False: closed before. */
static bool raw_read(int fd, char *at, size_t len)
{
    int64_t end_ms = rig_now_ms() + 10000;

    while (len) {
        ssize_t got = recv(fd, at, len, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            return false;
        if (got > 0) {
            at += got;
            len -= (size_t)got;
        } else if (rig_now_ms() > end_ms) {
            check_fail(__FILE__, __LINE__, "neither an answer nor an end");
        } else {
            rig_turn(1);
        }
    }
    return true;
}

static const uint8_t sp_req[8] = { 0, 'S', 'P', 0, 0, 0x30, 0, 0 };

int raw_open_sp(void)
{
    char theirs[8];
    int fd = raw_open();

    raw_send(fd, sp_req, sizeof sp_req);
    CHECK(raw_read(fd, theirs, sizeof theirs) && theirs[5] == 0x31);
    return fd;
}

void raw_send(int fd, const void *at, size_t len)
{
    const char *next = at;

    while (len) {
        ssize_t sent = send(fd, next, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN) {
            rig_turn(1);
            continue;
        }
        if (sent < 0)
            return; /* closed: whoever reads will see it */
        next += sent;
        len -= (size_t)sent;
    }
}

struct slice raw_framed(uint32_t id, struct slice body)
{
    uint64_t len = __builtin_bswap64(body.len + 4);
    uint32_t request = __builtin_bswap32(id | 0x80000000u);

    memcpy(raw_buffer, &len, 8);
    memcpy(raw_buffer + 8, &request, 4);
    memcpy(raw_buffer + 12, body.at, body.len);
    return (struct slice){ raw_buffer, 12 + body.len };
}

void raw_ask(int fd, uint32_t id, struct slice body)
{
    struct slice framed = raw_framed(id, body);

    raw_send(fd, framed.at, framed.len);
}

struct slice raw_reply(int fd)
{
    uint64_t len;

    if (!raw_read(fd, raw_buffer, 8))
        return (struct slice){ 0 };
    memcpy(&len, raw_buffer, 8);
    len = __builtin_bswap64(len);
    CHECK(len >= 4 && len <= sizeof raw_buffer);
    CHECK(raw_read(fd, raw_buffer, len));
    return (struct slice){ raw_buffer + 4, len - 4 };
}

bool raw_is_closed(int fd)
{
    char byte;
    bool is_closed = !raw_read(fd, &byte, 1);

    (void)close(fd);
    return is_closed;
}

const struct qw_message *raw_message(int fd)
{
    static struct qw_message message;
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    arena_release(&raw_arena);
    CHECK_EQ(message_unpack(raw_reply(fd), &raw_arena, &message, &why), ERR_OK);
    return &message;
}

struct slice raw_packed(const struct qw_message *message)
{
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    text_release(&raw_text);
    text_init(&raw_text, CODEC_MAX_BYTES);
    CHECK_EQ(message_pack(message, &raw_text, &why), ERR_OK);
    return text_slice(&raw_text);
}

struct slice raw_proof(const struct qw_message *challenge, const char *name, const struct identity *identity)
{
    const struct qw_version *theirs = challenge->challenge.version;
    const struct identity_claim claim = {
        .nonce = (const uint8_t *)challenge->challenge.nonce.at,
        .gateway_version = { gateway_version.major, gateway_version.minor, gateway_version.patch },
        .control_version = { theirs->major, theirs->minor, theirs->patch },
        .name = slice_of(name),
    };
    static struct identity_signature signature;
    const struct qw_message proof = { QW_PROOF,
                                      .proof = { { (const char *)signature.bytes, sizeof signature.bytes } } };

    CHECK_EQ(identity_sign(identity, &claim, &signature), ERR_OK);
    return raw_packed(&proof);
}

const struct qw_message *raw_greet(int fd, const char *name, const struct identity *identity)
{
    const struct qw_message hello = { QW_HELLO, .hello = { .name = slice_of(name), .version = &gateway_version } };
    const struct qw_message *answer;

    raw_ask(fd, 1, raw_packed(&hello));
    answer = raw_message(fd);
    if (answer->what != QW_CHALLENGE)
        return answer;
    raw_ask(fd, 2, raw_proof(answer, name, identity));
    return raw_message(fd);
}
