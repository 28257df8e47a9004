/* The asking end: one blocking GET over TCP or a unix socket, and what came of it in a sentence. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "http.h"
#include "operator.h"
#include "snapshot.h"

enum {
    MAX_HEAD_BYTES = 16 << 10,
    MAX_ANSWER_BYTES = 1 << 20,
    MAX_REFUSAL_BYTES = 300, /* of what is answered instead, in our sentence */
    READ_BYTES = 16 << 10
};

struct asking {
    const struct endpoint *endpoint;
    int patience_ms;
    int fd;
    struct text got; /* as it came: 0 - done - not looked at - len */
    size_t scanned, done;
    bool has_head;
    unsigned status;
    struct http_body body;
};

/* ---- connecting ---- */

static int connect_to(const struct asking *asking, const struct sockaddr *address, socklen_t bytes)
{
    struct timeval patience = { .tv_sec = asking->patience_ms / 1000, .tv_usec = asking->patience_ms % 1000 * 1000 };
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience); /* holds for connecting as well */
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, address, bytes) != 0) {
        int reason = errno;
        (void)close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

static int connect_to_path(const struct asking *asking)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (strlen(asking->endpoint->path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, asking->endpoint->path, strlen(asking->endpoint->path));
    return connect_to(asking, (const struct sockaddr *)&address, sizeof address);
}

/* A name has several addresses; no host at all (":PORT") is this machine. */
static int connect_to_host(const struct asking *asking)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM }, *found = NULL;
    const char *host = asking->endpoint->host[0] ? asking->endpoint->host : NULL;
    int fd = -1, reason = EHOSTUNREACH;
    char port[8];

    (void)snprintf(port, sizeof port, "%u", (unsigned)asking->endpoint->port);
    if (getaddrinfo(host, port, &hints, &found) != 0)
        found = NULL;
    for (const struct addrinfo *info = found; info && fd < 0; info = info->ai_next) {
        fd = connect_to(asking, info->ai_addr, info->ai_addrlen);
        reason = fd < 0 ? errno : 0;
    }
    if (found)
        freeaddrinfo(found);
    errno = reason;
    return fd;
}

static enum err open_connection(struct asking *asking, struct text *why)
{
    const char *where = asking->endpoint->text;

    if (!asking->endpoint->path && !asking->endpoint->port) {
        text_printf(why, "operator_listen is %s: which port that has become stands in the gateway's log only", where);
        return ERR_SYSTEM;
    }
    asking->fd = asking->endpoint->path ? connect_to_path(asking) : connect_to_host(asking);
    if (asking->fd >= 0)
        return ERR_OK;
    if (errno == EINPROGRESS || errno == EAGAIN) {
        text_printf(why, "nobody answers at %s (operator_listen)", where);
        return ERR_TIMEOUT;
    }
    text_printf(why, "no gateway at %s (operator_listen): %s", where, strerror(errno));
    return ERR_SYSTEM;
}

/* ---- asking ---- */

/* Any name there is to the listener; localhost is one that it always goes by. */
static void write_request(struct slice model, struct text *out)
{
    text_add_literal(out, "GET /explain?model=");
    for (size_t i = 0; i < model.len; i++) {
        unsigned char byte = (unsigned char)model.at[i];
        bool is_plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') ||
                        memchr("-._~:/", byte, 6);
        if (is_plain)
            text_add_char(out, (char)byte);
        else
            text_printf(out, "%%%02X", byte);
    }
    text_add_literal(out, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
}

static enum err send_request(const struct asking *asking, struct slice model, struct text *why)
{
    struct text request;
    enum err err = ERR_OK;

    text_init(&request, MAX_HEAD_BYTES);
    write_request(model, &request);
    for (size_t sent = 0; !err && !request.err && sent < request.len;) {
        ssize_t bytes = send(asking->fd, request.at + sent, request.len - sent, MSG_NOSIGNAL);
        if (bytes >= 0)
            sent += (size_t)bytes;
        else if (errno != EINTR) {
            text_printf(why, "%s (operator_listen) hung up: %s", asking->endpoint->text, strerror(errno));
            err = ERR_SYSTEM;
        }
    }
    if (request.err) {
        text_add_literal(why, "that is too long for the name of a model");
        err = ERR_REFUSED;
    }
    text_release(&request);
    return err;
}

/* ---- the answer ---- */

static enum http_result take_head(struct asking *asking, const char **ret_why)
{
    struct http_head head;
    enum http_result result =
        http_parse_response(&head, asking->got.at, asking->got.len, MAX_HEAD_BYTES, &asking->scanned, false, ret_why);

    if (result != HTTP_DONE)
        return result;
    asking->has_head = true;
    asking->status = head.status;
    asking->done = head.bytes;
    http_body_init(&asking->body, head.framing, head.content_length);
    return HTTP_DONE;
}

/* What has come, as far as it goes: its payload is added to out. */
static enum http_result take(struct asking *asking, struct text *out, const char **ret_why)
{
    enum http_result result = asking->has_head ? HTTP_DONE : take_head(asking, ret_why);
    size_t used;

    if (result != HTTP_DONE)
        return result;
    do {
        struct slice payload = { "", 0 };
        result = http_body_next(&asking->body, asking->got.at + asking->done, asking->got.len - asking->done, &used,
                                &payload, ret_why);
        asking->done += used;
        text_add_slice(out, payload);
    } while (result == HTTP_MORE && used);
    return result;
}

static enum err hung_up(const struct asking *asking, ssize_t bytes, struct text *why)
{
    bool is_over = !bytes && asking->has_head && asking->body.framing == HTTP_UNTIL_CLOSE;

    if (is_over)
        return ERR_OK;
    if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        text_printf(why, "%s (operator_listen) is silent", asking->endpoint->text);
        return ERR_TIMEOUT;
    }
    text_printf(why, "%s (operator_listen) hung up before its answer was whole", asking->endpoint->text);
    return ERR_SYSTEM;
}

static enum err read_answer(struct asking *asking, struct text *out, struct text *why)
{
    enum http_result result = HTTP_MORE;
    const char *what = "it is too long";

    while (result == HTTP_MORE && text_reserve(&asking->got, READ_BYTES)) {
        ssize_t bytes = recv(asking->fd, asking->got.at + asking->got.len, READ_BYTES, 0);
        if (bytes < 0 && errno == EINTR)
            continue;
        if (bytes <= 0)
            return hung_up(asking, bytes, why);
        asking->got.len += (size_t)bytes;
        result = take(asking, out, &what);
    }
    if (result == HTTP_DONE && !out->err)
        return ERR_OK;
    text_printf(why, "what answers at %s (operator_listen) is no gateway: %s", asking->endpoint->text, what);
    return ERR_BAD;
}

/* Controls but line ends and tabs become '?', those of Unicode as well: a terminal would obey them. */
static void make_harmless(struct text *out)
{
    bool is_text = utf8_valid(text_slice(out));

    for (size_t i = 0; i < out->len; i++) {
        unsigned char byte = (unsigned char)out->at[i];
        if ((byte < ' ' && byte != '\n' && byte != '\t') || byte == 0x7f || (byte >= 0x80 && !is_text))
            out->at[i] = '?';
        else if (byte == 0xc2 && (unsigned char)out->at[i + 1] < 0xa0)
            out->at[i] = out->at[i + 1] = '?';
    }
}

/* Anything but 200, by whomever: its first line, for a web page has many. */
static enum err refused(const struct asking *asking, const struct text *out, struct text *why)
{
    struct slice said = { text_string(out), strcspn(text_string(out), "\n") };

    said.len = utf8_cut(said, MAX_REFUSAL_BYTES);
    text_printf(why, "%s (operator_listen) answered %u: ", asking->endpoint->text, asking->status);
    text_add_slice(why, said);
    return ERR_REFUSED;
}

enum err operator_explain(const struct endpoint *endpoint, struct slice model, int patience_ms, struct text *out,
                          struct text *why)
{
    struct asking asking = { .endpoint = endpoint, .patience_ms = patience_ms };
    enum err err = open_connection(&asking, why);

    if (err)
        return err;
    text_init(&asking.got, MAX_ANSWER_BYTES);
    text_clear(out);
    err = send_request(&asking, model, why);
    if (!err)
        err = read_answer(&asking, out, why);
    make_harmless(out);
    if (!err && asking.status != 200)
        err = refused(&asking, out, why);
    text_release(&asking.got);
    (void)close(asking.fd);
    return err;
}
