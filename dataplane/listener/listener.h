/*
 * listener - opening sockets to listen on: one set a worker (SO_REUSEPORT), or duplicates of inherited ones. Called at
 * start, before threads. What callers' connections inherit from a listening socket (no delay, keepalive, user timeout)
 * is set here once instead of by a system call a connection.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct endpoint;

enum { LISTENER_MAX = 16 }; /* sockets a worker */

/* count sockets for each worker: sockets[worker * count + i]. */
struct listeners {
    int *sockets;
    size_t workers, count;
};

/*
 * "localhost" and other names listen on each of their addresses; port 0 becomes one port for all of them. ERR_SYSTEM
 * with a sentence that names the endpoint; for a port in use, that it is. For unix:PATH the workers share one socket.
 */
enum err listeners_open(const struct endpoint *endpoint, size_t workers, struct listeners *ret, struct text *why);
/* Every worker accepts from duplicates of these and none opens its own. */
enum err listeners_inherit(const int *inherited, size_t count, size_t workers, struct listeners *ret, struct text *why);
/* Closes what is still there and frees; sockets handed to a worker are set to -1 by the caller. */
void listeners_release(struct listeners *listeners);

/* One socket, also for unix:PATH (mode 0660; a stale one is replaced, one in use is not). */
enum err listener_open_one(const struct endpoint *endpoint, int *ret_socket, struct text *why);
/* "127.0.0.1:18789", "[::]:18789" or "unix:PATH": where the socket really listens. */
void listener_describe(int socket, struct text *out);
