/* The operator's listener and who asks it for an explanation, over the sockets they use. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "operator.h"
#include "snapshot.h"

enum { PATIENCE_MS = 20000 };

/* ---- places to listen ---- */

struct place {
    int socket;
    struct endpoint endpoint;
    char folder[32], path[64], text[80];
};

static void listen_on_port(struct place *place)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t bytes = sizeof address;

    *place = (struct place){ .socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) };
    CHECK_EQ(bind(place->socket, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(place->socket, 8), 0);
    CHECK_EQ(getsockname(place->socket, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(place->text, sizeof place->text, "127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    place->endpoint = (struct endpoint){ .text = place->text, .host = "127.0.0.1", .port = ntohs(address.sin_port) };
}

static void listen_on_path(struct place *place)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    *place = (struct place){ .socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), .folder = "/tmp/qg-op-XXXXXX" };
    CHECK(mkdtemp(place->folder));
    (void)snprintf(place->path, sizeof place->path, "%s/sock", place->folder);
    (void)snprintf(place->text, sizeof place->text, "unix:%s", place->path);
    memcpy(address.sun_path, place->path, sizeof place->path);
    CHECK_EQ(bind(place->socket, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(place->socket, 8), 0);
    place->endpoint = (struct endpoint){ .text = place->text, .path = place->path };
}

static void place_release(struct place *place)
{
    if (place->path[0]) {
        (void)unlink(place->path);
        (void)rmdir(place->folder);
    }
}

/* ---- a gateway's listener, in a thread of its own ---- */

struct house {
    struct event_base *base;
    struct event *end;
    struct operator* operator;
    int pipe[2];
    pthread_t thread;
    char asked[512];
    unsigned status;
    const char *said;
};

static void nothing_to_print(void *arg, struct text *out)
{
    (void)arg;
    (void)out;
}

static unsigned not_ready(void *arg, struct text *out)
{
    (void)arg;
    text_add_literal(out, "{}");
    return 503;
}

static unsigned explain(void *arg, struct slice model, struct text *out)
{
    struct house *house = arg;

    (void)snprintf(house->asked, sizeof house->asked, "%.*s", (int)model.len, model.at);
    text_add_string(out, house->said);
    return house->status;
}

static bool knows_nobody(void *arg, struct slice name)
{
    (void)arg;
    (void)name;
    return false;
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)event_base_loopbreak(arg);
}

static void *run(void *arg)
{
    (void)event_base_dispatch(((struct house *)arg)->base);
    return NULL;
}

static void house_open(struct house *house, const struct place *place, unsigned status, const char *said)
{
    struct operator_options options = {
        .socket = place->socket,
        .print_metrics = nothing_to_print,
        .readiness = not_ready,
        .explain = explain,
        .knows_host = knows_nobody,
        .arg = house,
    };

    CHECK_EQ(evutil_make_socket_nonblocking(place->socket), 0); /* as listener_open_one() gives it */
    *house = (struct house){ .base = event_base_new(), .status = status, .said = said };
    CHECK_EQ(pipe(house->pipe), 0);
    house->end = event_new(house->base, house->pipe[0], EV_READ, on_end, house->base);
    CHECK_EQ(event_add(house->end, NULL), 0);
    options.base = house->base;
    house->operator= operator_new(&options);
    CHECK(house->operator);
    CHECK_EQ(pthread_create(&house->thread, NULL, run, house), 0);
}

static void house_close(struct house *house)
{
    CHECK_EQ(write(house->pipe[1], "x", 1), 1);
    (void)pthread_join(house->thread, NULL);
    operator_free(house->operator);
    event_free(house->end);
    event_base_free(house->base);
    (void)close(house->pipe[0]);
    (void)close(house->pipe[1]);
}

/* ---- somebody else's ---- */

struct stranger {
    int socket;
    const char *says;
    size_t bytes;
    bool waits; /* until the other end has gone */
    pthread_t thread;
};

static void *speak(void *arg)
{
    const struct stranger *stranger = arg;
    char request[4096];
    int fd = accept(stranger->socket, NULL, NULL);

    (void)!read(fd, request, sizeof request);
    for (size_t said = 0; said < stranger->bytes;) {
        ssize_t bytes = send(fd, stranger->says + said, stranger->bytes - said, MSG_NOSIGNAL);
        if (bytes <= 0)
            break;
        said += (size_t)bytes;
    }
    if (stranger->waits)
        while (read(fd, request, sizeof request) > 0)
            ;
    (void)close(fd);
    (void)close(stranger->socket);
    return NULL;
}

static void stranger_start(struct stranger *stranger, struct place *place, struct slice says, bool waits)
{
    listen_on_port(place);
    *stranger = (struct stranger){ .socket = place->socket, .says = says.at, .bytes = says.len, .waits = waits };
    CHECK_EQ(pthread_create(&stranger->thread, NULL, speak, stranger), 0);
}

struct asked {
    struct text out, why;
    enum err err;
};

static struct asked ask(const struct place *place, const char *model, int patience_ms)
{
    struct asked asked;

    text_init(&asked.out, 4 << 20);
    text_init(&asked.why, 4096);
    asked.err = operator_explain(&place->endpoint, slice_of(model), patience_ms, &asked.out, &asked.why);
    return asked;
}

static void asked_release(struct asked *asked)
{
    text_release(&asked->out);
    text_release(&asked->why);
}

static struct asked ask_stranger(struct slice says, bool waits, int patience_ms)
{
    struct stranger stranger;
    struct place place;
    struct asked asked;

    stranger_start(&stranger, &place, says, waits);
    asked = ask(&place, "m", patience_ms);
    (void)pthread_join(stranger.thread, NULL);
    return asked;
}

TEST(the_explanation_comes_as_it_is_over_a_port_and_over_a_unix_socket)
{
    static void (*const listens[])(struct place *) = { listen_on_port, listen_on_path };

    for (size_t i = 0; i < sizeof listens / sizeof *listens; i++) {
        struct place place;
        struct house house;
        struct asked asked;
        listens[i](&place);
        house_open(&house, &place, 200, "gpu1 0.25 resident\ngpu2 0.50\n");
        asked = ask(&place, "qwen3:32b", PATIENCE_MS);
        house_close(&house);
        place_release(&place);
        CHECK_STR(text_string(&asked.why), asked.why.len, "");
        CHECK_EQ(asked.err, ERR_OK);
        CHECK_STR(text_string(&asked.out), asked.out.len, "gpu1 0.25 resident\ngpu2 0.50\n");
        CHECK_STR(house.asked, strlen(house.asked), "qwen3:32b");
        asked_release(&asked);
    }
}

TEST(a_name_of_any_bytes_is_asked_for_as_it_is)
{
    static const char *const names[] = { "hf.co/someone/model:Q4_K_M", "a b&model=c+d%20#e?f=g",
                                         "gr\xc3\xbcn\r\nHost: x", "100%" };
    struct place place;
    struct house house;

    listen_on_port(&place);
    house_open(&house, &place, 200, "x\n");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct asked asked = ask(&place, names[i], PATIENCE_MS);
        CHECK_ROW(asked.err == ERR_OK, names[i]);
        CHECK_STR(house.asked, strlen(house.asked), names[i]);
        asked_release(&asked);
    }
    house_close(&house);
}

TEST(a_gateway_that_says_no_is_quoted_in_one_sentence)
{
    struct place place;
    struct house house;
    struct asked asked;

    listen_on_port(&place);
    house_open(&house, &place, 404, "no backend has a model nope\n");
    asked = ask(&place, "nope", PATIENCE_MS);
    CHECK_EQ(asked.err, ERR_REFUSED);
    CHECK(slice_starts(text_slice(&asked.why), slice_of(place.text)));
    CHECK(slice_ends(text_slice(&asked.why), SLICE(" answered 404: no backend has a model nope")));
    asked_release(&asked);
    asked = ask(&place, "", PATIENCE_MS);
    house_close(&house);
    CHECK_EQ(asked.err, ERR_REFUSED);
    CHECK(slice_has(text_slice(&asked.why), SLICE(" answered 400: which model?")));
    asked_release(&asked);
}

TEST(where_nobody_listens_the_sentence_says_where_and_why)
{
    char path[] = "/tmp/qg-nobody-XXXXXX";
    struct place place;
    struct asked asked;

    listen_on_port(&place);
    (void)close(place.socket);
    asked = ask(&place, "m", PATIENCE_MS);
    CHECK_EQ(asked.err, ERR_SYSTEM);
    CHECK(slice_has(text_slice(&asked.why), slice_of(place.text)));
    CHECK(slice_has(text_slice(&asked.why), SLICE("Connection refused")));
    asked_release(&asked);

    CHECK(mkdtemp(path));
    (void)rmdir(path);
    place.endpoint = (struct endpoint){ .text = "unix:gone", .path = path };
    asked = ask(&place, "m", PATIENCE_MS);
    CHECK_EQ(asked.err, ERR_SYSTEM);
    CHECK(slice_has(text_slice(&asked.why), SLICE("unix:gone")));
    CHECK(slice_has(text_slice(&asked.why), SLICE("No such file")));
    asked_release(&asked);

    place.endpoint = (struct endpoint){ .text = "127.0.0.1:0", .host = "127.0.0.1" };
    asked = ask(&place, "m", PATIENCE_MS);
    CHECK_EQ(asked.err, ERR_SYSTEM);
    CHECK(slice_has(text_slice(&asked.why), SLICE("which port")));
    asked_release(&asked);
}

TEST(what_somebody_else_says_there_is_taken_for_what_it_is)
{
    static const struct {
        const char *name;
        struct slice says;
        enum err wanted;
        const char *out, *why;
    } rows[] = {
        { "no HTTP", SLICE("220 mail.example ESMTP\r\n\r\n"), ERR_BAD, NULL, "is no gateway" },
        { "half a head", SLICE("HTTP/1.1 200 OK\r\nContent-Le"), ERR_SYSTEM, NULL, "hung up" },
        { "half a body", SLICE("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), ERR_SYSTEM, NULL, "hung up" },
        { "nothing", SLICE(""), ERR_SYSTEM, NULL, "hung up" },
        { "broken chunks", SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), ERR_BAD, NULL,
          "is no gateway" },
        { "chunks", SLICE("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nd\n\r\n0\r\n\r\n"),
          ERR_OK, "abcd\n", "" },
        { "until the end", SLICE("HTTP/1.0 200 OK\r\n\r\nabc\n"), ERR_OK, "abc\n", "" },
        { "an older gateway",
          SLICE("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
                "\r\n{\"error\":\"x\"}"),
          ERR_REFUSED, NULL, "answered 404: {\"error\":\"x\"}" },
        { "forbidden", SLICE("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno\nmore\n"), ERR_REFUSED, NULL,
          "answered 403: no" },
        { "what a terminal obeys",
          SLICE("HTTP/1.0 200 OK\r\n\r\na\x1b[2J\tb\r\n\xc2\x9b"
                "c\xc3\xbc\x7f\n"),
          ERR_OK, "a?[2J\tb?\n??c\xc3\xbc?\n", "" },
        { "what is no text", SLICE("HTTP/1.0 200 OK\r\n\r\na\xff\xc2"), ERR_OK, "a??", "" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct asked asked = ask_stranger(rows[i].says, false, PATIENCE_MS);
        CHECK_ROW(asked.err == rows[i].wanted, rows[i].name);
        CHECK_ROW(!rows[i].out || strcmp(text_string(&asked.out), rows[i].out) == 0, rows[i].name);
        CHECK_ROW(strstr(text_string(&asked.why), rows[i].why), rows[i].name);
        CHECK_ROW(!strchr(text_string(&asked.why), '\n'), rows[i].name);
        asked_release(&asked);
    }
}

TEST(who_is_silent_or_does_not_end_is_not_waited_for)
{
    static const char head[] = "HTTP/1.0 200 OK\r\n\r\n";
    enum { ENDLESS = 2 << 20 };
    char *endless = malloc(ENDLESS);
    struct asked asked = ask_stranger(SLICE("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), true, 50);

    CHECK(endless);
    CHECK_EQ(asked.err, ERR_TIMEOUT);
    CHECK(strstr(text_string(&asked.why), "is silent"));
    asked_release(&asked);
    memset(endless, 'x', ENDLESS);
    memcpy(endless, head, sizeof head - 1);
    asked = ask_stranger((struct slice){ endless, ENDLESS }, false, PATIENCE_MS);
    CHECK_EQ(asked.err, ERR_BAD);
    CHECK(strstr(text_string(&asked.why), "too long"));
    asked_release(&asked);
    free(endless);
}
