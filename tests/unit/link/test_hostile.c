#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rig.h"

/* Who holds thousands of connections: a process of its own, because of its descriptors, and begun before nng is. */
static struct {
    int in, out; /* of the helper: commands, answers */
    pid_t pid;
} crowd;

static int connect_to(uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                   .sin_port = htons(port) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

struct order {
    uint16_t port;
    unsigned count;
    bool speaks_sp;
};

/* Opens so many more, says how many it has got, and holds them until it is told to open none. */
static void crowd_run(int in, int out)
{
    static const uint8_t sp[8] = { 0, 'S', 'P', 0, 0, 0x30, 0, 0 };
    static int fds[16384];
    struct order order;
    unsigned have = 0;

    while (read(in, &order, sizeof order) == sizeof order) {
        while (!order.count && have)
            (void)close(fds[--have]);
        for (unsigned i = 0; i < order.count && (fds[have] = connect_to(order.port)) >= 0; i++, have++)
            if (order.speaks_sp)
                (void)!write(fds[have], sp, sizeof sp);
        (void)!write(out, &have, sizeof have);
    }
    _exit(0);
}

__attribute__((constructor)) static void crowd_begin(void)
{
    struct rlimit limit;
    int to[2], from[2];

    (void)!getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    if (pipe(to) != 0 || pipe(from) != 0)
        abort();
    crowd.pid = fork();
    if (crowd.pid == 0) {
        (void)close(to[1]);
        crowd_run(to[0], from[1]);
    }
    (void)close(to[0]);
    (void)close(from[1]);
    crowd.in = to[1];
    crowd.out = from[0];
}

__attribute__((destructor)) static void crowd_end(void)
{
    (void)close(crowd.in);
    (void)close(crowd.out);
    (void)waitpid(crowd.pid, NULL, 0);
}

/* Serves the rig meanwhile; how many the crowd is then. */
static unsigned crowd_tell(unsigned count, bool speaks_sp)
{
    const struct order order = { (uint16_t)atoi(strrchr(rig.url, ':') + 1), count, speaks_sp };
    struct pollfd answer = { crowd.out, POLLIN, 0 };
    unsigned have = 0;

    CHECK(write(crowd.in, &order, sizeof order) == sizeof order);
    RIG_UNTIL(poll(&answer, 1, 0) == 1);
    CHECK(read(crowd.out, &have, sizeof have) == sizeof have);
    return have;
}

/* nng listens with room for 128, and where that is full the kernel has whoever comes wait for a second: so some at a
 * time, and when the next one is answered, they have been taken. */
static void crowd_come(unsigned count, bool speaks_sp)
{
    enum { SOME = 100 };

    for (unsigned have = 0; have < count;) {
        unsigned more = count - have < SOME ? count - have : SOME;
        CHECK_EQ(crowd_tell(more, speaks_sp), have + more);
        have += more;
        (void)close(raw_open_sp());
    }
}

static void crowd_go(void)
{
    (void)crowd_tell(0, false);
}

static unsigned as_many_as_may_be(unsigned wanted)
{
    struct rlimit limit;

    (void)!getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur < wanted + 256 ? (unsigned)limit.rlim_cur - 256 : wanted;
}

static void must_serve(unsigned i)
{
    struct rig_client *client = rig_client(i, "gw1", one);
    int64_t began_ms = rig_now_ms();

    RIG_UNTIL(client->ups == 1);
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(client->answers == 1);
    CHECK(rig_now_ms() - began_ms < 5000);
    rig_client_close(client);
}

TEST(ten_thousand_silent_connections_keep_nobody_out)
{
    const struct link_server_options limits = { .max_strangers = 500, .greeting_ms = 60000 };
    unsigned many = as_many_as_may_be(10000);
    struct rig_client *client;
    struct link_server_counts counts;

    rig_open(&limits);
    client = rig_client(1, "gw2", two);
    RIG_UNTIL(client->ups == 1);
    crowd_come(many, true);
    must_serve(0);
    RIG_UNTIL((link_server_counts(rig.server, &counts), counts.strangers) <= 500);
    RIG_UNTIL((link_server_counts(rig.server, &counts), counts.pushed_out) >= many - 501);
    CHECK(client->downs == 0 && rig_ask(client) == ERR_OK);
    RIG_UNTIL(client->answers == 1);
    crowd_go();
    rig_close();
}

TEST(connections_that_do_not_even_begin_keep_nobody_out)
{
    unsigned many = as_many_as_may_be(2000);

    rig_open(NULL);
    crowd_come(many, false);
    must_serve(0);
    crowd_go();
    rig_close();
}

TEST(who_says_nothing_is_closed)
{
    const struct link_server_options limits = { .greeting_ms = 100, .silence_ms = 200, .heartbeat_ms = 100 };
    struct link_server_counts counts;
    int stranger, gateway;

    rig_open(&limits);
    stranger = raw_open_sp();
    CHECK(raw_is_closed(stranger));
    gateway = raw_open_sp();
    CHECK_EQ(raw_greet(gateway, "gw1", one)->what, QW_WELCOME);
    CHECK(raw_is_closed(gateway));
    CHECK_EQ(rig.gone, 1);
    link_server_counts(rig.server, &counts);
    CHECK_EQ(counts.silent, 2);
    rig_close();
}

TEST(garbage_is_closed_and_others_are_served)
{
    static const struct {
        const char *what;
        const char *bytes;
        size_t len;
        bool after_sp;
    } rows[] = {
        { "not SP", "GET / HTTP/1.1\r\n\r\n", 18, false },
        { "another version of SP", "\0SP\1\0\x30\0\0", 8, false },
        { "another protocol", "\0SP\0\0\x10\0\0", 8, false },
        { "the longest length", "\xff\xff\xff\xff\xff\xff\xff\xff", 8, true },
        { "2^63", "\x80\0\0\0\0\0\0\0", 8, true },
        { "a length above the limit", "\0\0\0\0\0\x10\x01\0", 8, true },
        { "no room for a request id", "\0\0\0\0\0\0\0\3abc", 11, true },
        { "a trace without an end", "\0\0\0\0\0\0\0\x08\0\0\0\1\0\0\0\2", 16, true },
    };

    rig_open(NULL);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = rows[i].after_sp ? raw_open_sp() : raw_open();
        char theirs[8];
        raw_send(fd, rows[i].bytes, rows[i].len);
        if (!rows[i].after_sp)
            (void)!recv(fd, theirs, sizeof theirs, 0); /* what it says of itself */
        CHECK_ROW(raw_is_closed(fd), rows[i].what);
    }
    must_serve(0);
    CHECK_EQ(rig.messages, 1);
    rig_close();
}

TEST(a_frame_over_the_limit_closes_its_connection_alone)
{
    static char bytes[CODEC_MAX_BYTES + 1024];
    struct slice framed;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    framed = raw_framed(7, (struct slice){ bytes, sizeof bytes });
    raw_send(fd, framed.at, framed.len);
    CHECK(raw_is_closed(fd));
    must_serve(0);
    rig_close();
}

TEST(a_long_greeting_is_not_even_read)
{
    static char letters[CODEC_MAX_NAME];
    struct slice features[64];
    const struct qw_message hello = { QW_HELLO, .hello = { .name = SLICE("gw1"), .features = { features, 64 } } };
    const struct qw_message *answer;
    int fd;

    memset(letters, 'a', sizeof letters);
    for (unsigned i = 0; i < 64; i++)
        features[i] = (struct slice){ letters, sizeof letters };
    rig_open(NULL);
    fd = raw_open_sp();
    raw_ask(fd, 1, raw_packed(&hello)); /* which is in order but for its 16 KiB */
    answer = raw_message(fd);
    CHECK(answer->what == QW_REFUSED && answer->refused.reason == QW_HELLO_FIRST);
    (void)close(fd);
    rig_close();
}

/* A whole conversation in two pieces, cut once at every byte; and once byte by byte. */
TEST(a_message_may_be_split_at_every_byte)
{
    static const uint8_t sp[8] = { 0, 'S', 'P', 0, 0, 0x30, 0, 0 };
    const struct qw_message hello = { QW_HELLO,
                                      .hello = { .name = SLICE("gw1"), .version = &(struct qw_version){ 1, 2, 5 } } };
    char stream[256], theirs[8];
    size_t len = sizeof sp;
    struct slice framed;

    rig_open(NULL);
    memcpy(stream, sp, sizeof sp);
    framed = raw_framed(1, raw_packed(&hello));
    memcpy(stream + len, framed.at, framed.len);
    len += framed.len;
    for (size_t cut = 0; cut <= len; cut++) {
        int fd = raw_open();
        for (size_t i = 0; cut == len && i < len; i++)
            raw_send(fd, stream + i, 1);
        if (cut < len) {
            raw_send(fd, stream, cut);
            rig_turn(0);
            raw_send(fd, stream + cut, len - cut);
        }
        CHECK(recv(fd, theirs, sizeof theirs, MSG_WAITALL) == sizeof theirs);
        CHECK_EQ(raw_message(fd)->what, QW_CHALLENGE);
        (void)close(fd);
    }
    CHECK_EQ(rig.hellos, len + 1);
    rig_close();
}

TEST(a_gateway_that_asks_too_much_at_once_is_closed)
{
    const struct link_server_options limits = { .max_asks = 4 };
    const struct qw_message sync = { QW_SYNC, .sync = { .have = 1 } };
    struct slice packed;
    int fd;

    rig_open(&limits);
    rig.parks = true;
    fd = raw_open_sp();
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    packed = raw_packed(&sync);
    for (uint32_t i = 0; i < 20; i++)
        raw_ask(fd, 10 + i, packed);
    CHECK(raw_is_closed(fd));
    CHECK(rig.parked_count == 4 && rig.gone == 1);
    rig_release(2);
    rig.parks = false;
    must_serve(0);
    rig_close();
}

/* What comes after the Welcome from the one who was welcomed is read strictly as well. */
TEST(a_gateway_is_told_what_cannot_be_read)
{
    static const struct {
        struct slice frame;
        enum qw_reason reason;
    } rows[] = {
        { { "garbage", 7 }, QW_BAD_MESSAGE },          { { "", 0 }, QW_BAD_MESSAGE },
        { { "\x72\x00", 2 }, QW_UNSUPPORTED },         /* tag 14 */
        { { "\x5a\x00", 2 }, QW_BAD_MESSAGE },         /* a Load without its number */
        { { "\x52\x02\x10\x01", 4 }, QW_BAD_MESSAGE }, /* an Update, which is not its to send */
    };
    const struct qw_message *answer;
    int fd;

    rig_open(NULL);
    fd = raw_open_sp();
    CHECK_EQ(raw_greet(fd, "gw1", one)->what, QW_WELCOME);
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        raw_ask(fd, 5 + i, rows[i].frame);
        answer = raw_message(fd);
        CHECK_EQ(answer->what, QW_REFUSED);
        CHECK_EQ(answer->refused.reason, rows[i].reason);
    }
    CHECK_EQ(rig.gone, 0);
    (void)close(fd);
    rig_close();
}
