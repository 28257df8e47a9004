#include "listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "snapshot.h"

enum { BACKLOG = 4096, KEEPALIVE_S = 10, KEEPALIVE_PROBES = 2, USER_TIMEOUT_MS = 30000 };

struct place {
    struct sockaddr_storage address;
    socklen_t bytes;
};

static bool complain(struct text *why, const struct endpoint *endpoint, int reason)
{
    if (reason == EADDRINUSE)
        text_printf(why,
                    "cannot listen on %s: another program is using that port already; stop it or choose another port",
                    endpoint->text);
    else if (reason == EACCES && endpoint->path)
        text_printf(why, "cannot listen on %s: not allowed to make a file in that folder", endpoint->text);
    else if (reason == EACCES)
        text_printf(why, "cannot listen on %s: not allowed; ports below 1024 need root", endpoint->text);
    else if (reason == EADDRNOTAVAIL)
        text_printf(why, "cannot listen on %s: this machine does not have that address", endpoint->text);
    else if (reason == ENOENT)
        text_printf(why, "cannot listen on %s: the folder does not exist", endpoint->text);
    else
        text_printf(why, "cannot listen on %s: %s", endpoint->text, strerror(reason));
    return false;
}

static void set_options(int fd, int family)
{
    int on = 1, off = 0, idle = KEEPALIVE_S, probes = KEEPALIVE_PROBES;
    unsigned patience = USER_TIMEOUT_MS;

    if (family == AF_UNIX)
        return;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof idle);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
}

/* -1 with errno. */
static int open_at(const struct place *place, bool shares_port)
{
    int family = place->address.ss_family, on = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    set_options(fd, family);
    if (shares_port)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&place->address, place->bytes) != 0 || listen(fd, BACKLOG) != 0) {
        int reason = errno;
        (void)close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

static uint16_t *port_of(struct place *place)
{
    struct sockaddr *any = (struct sockaddr *)&place->address;

    return any->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)(void *)any)->sin6_port
                                      : &((struct sockaddr_in *)(void *)any)->sin_port;
}

static size_t any_address(uint16_t port, struct place *places)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&places[0].address;
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&places[0].address;
    int probe = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(&places[0], 0, sizeof places[0]);
    if (probe >= 0) {
        (void)close(probe);
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        places[0].bytes = sizeof *v6;
    } else { /* a host without IPv6 */
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        places[0].bytes = sizeof *v4;
    }
    return 1;
}

/* Where the endpoint's host says. 0: it does not resolve, as `why` tells. */
static size_t find_places(const struct endpoint *endpoint, struct place *places, struct text *why)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *found = NULL;
    size_t count = 0;
    char port[8];
    int result;

    if (!endpoint->host[0])
        return any_address(endpoint->port, places);
    (void)snprintf(port, sizeof port, "%u", (unsigned)endpoint->port);
    result = getaddrinfo(endpoint->host, port, &hints, &found);
    if (result != 0) {
        text_printf(why, "cannot listen on %s: the host does not resolve (%s)", endpoint->text, gai_strerror(result));
        return 0;
    }
    for (struct addrinfo *info = found; info && count < LISTENER_MAX; info = info->ai_next) {
        memcpy(&places[count].address, info->ai_addr, info->ai_addrlen);
        places[count++].bytes = info->ai_addrlen;
    }
    freeaddrinfo(found);
    return count;
}

/*
 * With SO_REUSEPORT a second gateway would silently share the port: so it is first taken without, which fails when
 * anybody listens there, and given back for the real sockets.
 */
static bool is_free(struct place *place, const struct endpoint *endpoint, struct text *why)
{
    struct place taken = { .bytes = sizeof taken.address };
    int fd = open_at(place, false);

    if (fd < 0)
        return complain(why, endpoint, errno);
    if (getsockname(fd, (struct sockaddr *)&taken.address, &taken.bytes) == 0)
        *port_of(place) = *port_of(&taken); /* the kernel's choice becomes ours */
    (void)close(fd);
    return true;
}

static bool allocate(struct listeners *listeners, size_t workers, size_t count)
{
    *listeners = (struct listeners){ .workers = workers, .count = count };
    listeners->sockets = calloc(workers * count, sizeof *listeners->sockets);
    for (size_t i = 0; listeners->sockets && i < workers * count; i++)
        listeners->sockets[i] = -1;
    return listeners->sockets != NULL;
}

/* "localhost" may name an address family that this machine lacks: one place that works is enough. */
static size_t keep_free(struct place *places, size_t count, const struct endpoint *endpoint, struct text *why)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        if (kept)
            *port_of(&places[i]) = *port_of(&places[0]);
        text_clear(why);
        if (is_free(&places[i], endpoint, why))
            places[kept++] = places[i];
        else if (errno != EADDRNOTAVAIL && errno != EAFNOSUPPORT)
            return 0;
    }
    if (kept)
        text_clear(why);
    return kept;
}

/* There can be only one socket at a path: so the workers share it. */
static enum err open_shared(const struct endpoint *endpoint, size_t workers, struct listeners *ret, struct text *why)
{
    int socket = -1;
    enum err err = listener_open_one(endpoint, &socket, why);

    if (err == ERR_OK)
        err = listeners_inherit(&socket, 1, workers, ret, why);
    if (socket >= 0)
        (void)close(socket);
    return err;
}

enum err listeners_open(const struct endpoint *endpoint, size_t workers, struct listeners *ret, struct text *why)
{
    struct place places[LISTENER_MAX];
    size_t count;

    *ret = (struct listeners){ 0 };
    if (endpoint->path)
        return open_shared(endpoint, workers, ret, why);
    count = find_places(endpoint, places, why);
    if (!count || !(count = keep_free(places, count, endpoint, why)))
        return ERR_SYSTEM;
    if (!allocate(ret, workers, count))
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < workers * count; i++) {
        ret->sockets[i] = open_at(&places[i % count], true);
        if (ret->sockets[i] < 0) {
            (void)complain(why, endpoint, errno);
            listeners_release(ret);
            return ERR_SYSTEM;
        }
    }
    return ERR_OK;
}

enum err listeners_inherit(const int *inherited, size_t count, size_t workers, struct listeners *ret, struct text *why)
{
    if (!allocate(ret, workers, count))
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < workers * count; i++) {
        int from = inherited[i % count], flags = fcntl(from, F_GETFL);
        struct sockaddr_storage address;
        socklen_t bytes = sizeof address;

        if (getsockname(from, (struct sockaddr *)&address, &bytes) == 0)
            set_options(from, address.ss_family);
        ret->sockets[i] = fcntl(from, F_DUPFD_CLOEXEC, 3);
        if (ret->sockets[i] < 0 || flags < 0 || fcntl(from, F_SETFL, flags | O_NONBLOCK) != 0) {
            text_printf(why, "the inherited socket %d cannot be used: %s", from, strerror(errno));
            listeners_release(ret);
            return ERR_SYSTEM;
        }
    }
    return ERR_OK;
}

void listeners_release(struct listeners *listeners)
{
    for (size_t i = 0; listeners->sockets && i < listeners->workers * listeners->count; i++)
        if (listeners->sockets[i] >= 0)
            (void)close(listeners->sockets[i]);
    free(listeners->sockets);
    *listeners = (struct listeners){ 0 };
}

/* A socket file that nobody answers on was left by a process that is gone. */
static void remove_stale(const struct place *place, const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat file;

    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)&place->address, place->bytes) != 0 && errno == ECONNREFUSED &&
        lstat(path, &file) == 0 && S_ISSOCK(file.st_mode))
        (void)unlink(path);
    (void)close(fd);
}

static enum err open_unix(const struct endpoint *endpoint, int *ret_socket, struct text *why)
{
    struct place place = { .bytes = sizeof(struct sockaddr_un) };
    struct sockaddr_un *address = (struct sockaddr_un *)(void *)&place.address;
    mode_t mask;

    address->sun_family = AF_UNIX;
    if (strlen(endpoint->path) >= sizeof address->sun_path) {
        text_printf(why, "cannot listen on %s: the path is too long for a socket", endpoint->text);
        return ERR_SYSTEM;
    }
    strcpy(address->sun_path, endpoint->path); /* its length was checked above */
    remove_stale(&place, endpoint->path);
    mask = umask(0117);
    *ret_socket = open_at(&place, false);
    (void)umask(mask);
    if (*ret_socket >= 0)
        return ERR_OK;
    if (errno == EADDRINUSE)
        text_printf(why, "cannot listen on %s: another program is using that socket already", endpoint->text);
    else
        (void)complain(why, endpoint, errno);
    return ERR_SYSTEM;
}

enum err listener_open_one(const struct endpoint *endpoint, int *ret_socket, struct text *why)
{
    struct place places[LISTENER_MAX];
    size_t count;

    if (endpoint->path)
        return open_unix(endpoint, ret_socket, why);
    count = find_places(endpoint, places, why);
    for (size_t i = 0; i < count; i++) {
        *ret_socket = open_at(&places[i], false);
        if (*ret_socket >= 0)
            return ERR_OK;
    }
    if (count)
        (void)complain(why, endpoint, errno);
    return ERR_SYSTEM;
}

void listener_describe(int socket, struct text *out)
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
