#include "place.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cidr.h"

enum { BACKLOG = 1024, PORT_DIGITS = 5, PATH_BYTES = sizeof((struct sockaddr_un){ 0 }.sun_path) };

struct target {
    struct sockaddr_storage address;
    socklen_t bytes;
    const char *path; /* of a unix socket; else NULL */
};

static bool is_loopback(const struct address *address)
{
    static const struct address v6 = { .bytes = { [15] = 1 } };
    static const struct cidr v4 = { .base = { .bytes = { [10] = 0xff, 0xff, 127 } }, .bits = 96 + 8 };

    return address_is(address, &v6) || cidr_has(&v4, address);
}

static bool parse_port(struct slice text, uint16_t *ret_port)
{
    unsigned port = 0;

    if (!text.len || text.len > PORT_DIGITS || (text.len > 1 && text.at[0] == '0'))
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text.at[i] - '0');
    }
    *ret_port = (uint16_t)port;
    return port <= UINT16_MAX;
}

static void aim(const struct address *address, bool is_v6, uint16_t port, struct target *target)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&target->address;
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&target->address;

    if (is_v6) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        memcpy(&v6->sin6_addr, address->bytes, sizeof v6->sin6_addr);
        target->bytes = sizeof *v6;
    } else {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, address->bytes + 12, sizeof v4->sin_addr);
        target->bytes = sizeof *v4;
    }
}

/* NULL, or words. */
static const char *parse(struct slice place, struct target *target)
{
    static const char form[] = "must be an address of this machine's own with a port, as in 127.0.0.1:18800 or "
                               "[::1]:18800, or unix:/PATH";
    const char *colon = place.len ? memrchr(place.at, ':', place.len) : NULL;
    struct sockaddr_un *local = (struct sockaddr_un *)(void *)&target->address;
    struct address address;
    struct slice host;
    uint16_t port;
    bool is_v6;

    *target = (struct target){ 0 };
    if (slice_starts(place, SLICE("unix:"))) {
        struct slice path = { place.at + 5, place.len - 5 };
        if (!path.len || path.at[0] != '/' || path.len >= PATH_BYTES)
            return "needs a path of at most 107 bytes that begins with / after unix:";
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, path.at, path.len);
        target->path = local->sun_path;
        target->bytes = sizeof *local;
        return NULL;
    }
    if (!colon || !parse_port((struct slice){ colon + 1, (size_t)(place.at + place.len - colon) - 1 }, &port))
        return form;
    host = (struct slice){ place.at, (size_t)(colon - place.at) };
    is_v6 = host.len > 2 && host.at[0] == '[' && host.at[host.len - 1] == ']';
    if (is_v6)
        host = (struct slice){ host.at + 1, host.len - 2 };
    if (!host.len || !address_parse(host, &address) || is_v6 != (memchr(host.at, ':', host.len) != NULL))
        return form;
    if (!is_loopback(&address))
        return "must be an address of this machine's own (127.0.0.1, [::1] or unix:/PATH): for other machines put "
               "Nginx "
               "with TLS in front of it";
    aim(&address, is_v6, port, target);
    return NULL;
}

const char *place_check(struct slice place)
{
    struct target target;

    return parse(place, &target);
}

/* A socket file that nobody answers on was left by a process that is gone. */
static void remove_stale(const struct target *target)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat file;

    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&target->address, target->bytes) != 0 && errno == ECONNREFUSED &&
        lstat(target->path, &file) == 0 && S_ISSOCK(file.st_mode))
        (void)unlink(target->path);
    (void)close(fd);
}

/* -1 with errno. */
static int listen_at(const struct target *target)
{
    int fd = socket(target->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, reason;

    if (fd < 0)
        return -1;
    if (!target->path) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (bind(fd, (const struct sockaddr *)&target->address, target->bytes) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    reason = errno;
    (void)close(fd);
    errno = reason;
    return -1;
}

enum err place_open(const char *place, int *ret_socket, struct text *why)
{
    struct target target;
    const char *wrong = parse(slice_of(place), &target);
    mode_t mask;

    if (wrong) {
        text_printf(why, "%s %s", place, wrong);
        return ERR_BAD;
    }
    if (target.path)
        remove_stale(&target);
    mask = umask(0117);
    *ret_socket = listen_at(&target);
    (void)umask(mask);
    if (*ret_socket >= 0)
        return ERR_OK;
    if (errno == EADDRINUSE)
        text_printf(why, "cannot listen on %s: another program does already", place);
    else if (errno == ENOENT)
        text_printf(why, "cannot listen on %s: the folder does not exist", place);
    else
        text_printf(why, "cannot listen on %s: %s", place, strerror(errno));
    return ERR_SYSTEM;
}

void place_describe(int socket, struct text *out)
{
    struct sockaddr_storage address = { 0 };
    socklen_t bytes = sizeof address;
    char host[INET6_ADDRSTRLEN] = "";

    if (getsockname(socket, (struct sockaddr *)&address, &bytes) != 0)
        return;
    if (address.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&address;
        (void)inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof host);
        text_printf(out, "[%s]:%u", host, (unsigned)ntohs(v6->sin6_port));
    } else if (address.ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&address;
        (void)inet_ntop(AF_INET, &v4->sin_addr, host, sizeof host);
        text_printf(out, "%s:%u", host, (unsigned)ntohs(v4->sin_port));
    } else {
        text_printf(out, "unix:%s", ((const struct sockaddr_un *)(const void *)&address)->sun_path);
    }
}

void place_remove(const char *place)
{
    if (strncmp(place, "unix:", 5) == 0)
        (void)unlink(place + 5);
}
