#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAIRS = 64 };

struct relay {
    pthread_t thread;
    _Atomic bool is_cut, is_closing;
    int bell, listener;
    struct sockaddr_in to;
    char url[64];
    int ends[2 * PAIRS]; /* -1: free; 2 i and 2 i + 1 belong together */
};

static void accept_one(struct relay *relay)
{
    int from = accept(relay->listener, NULL, NULL), to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    for (unsigned i = 0; i < PAIRS; i++)
        if (relay->ends[2 * i] < 0 && connect(to, (struct sockaddr *)&relay->to, sizeof relay->to) == 0) {
            relay->ends[2 * i] = from;
            relay->ends[2 * i + 1] = to;
            return;
        }
    (void)close(from);
    (void)close(to);
}

static void carry(struct relay *relay, unsigned end)
{
    char bytes[65536];
    ssize_t got = recv(relay->ends[end], bytes, sizeof bytes, 0);

    if (got > 0 && send(relay->ends[end ^ 1], bytes, (size_t)got, MSG_NOSIGNAL) == got)
        return;
    (void)close(relay->ends[end]);
    (void)close(relay->ends[end ^ 1]);
    relay->ends[end] = relay->ends[end ^ 1] = -1;
}

static void *run(void *arg)
{
    struct relay *relay = arg;
    struct pollfd polls[2 + 2 * PAIRS];
    uint64_t rings;

    while (!atomic_load(&relay->is_closing)) {
        bool is_cut = atomic_load(&relay->is_cut);
        polls[0] = (struct pollfd){ relay->bell, POLLIN, 0 };
        polls[1] = (struct pollfd){ is_cut ? -1 : relay->listener, POLLIN, 0 };
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            polls[2 + i] = (struct pollfd){ is_cut ? -1 : relay->ends[i], POLLIN, 0 };
        (void)poll(polls, 2 + 2 * PAIRS, -1);
        if (polls[0].revents) {
            (void)!read(relay->bell, &rings, sizeof rings);
            continue;
        }
        if (polls[1].revents)
            accept_one(relay);
        for (unsigned i = 0; i < 2 * PAIRS; i++)
            if (polls[2 + i].revents && polls[2 + i].fd == relay->ends[i])
                carry(relay, i);
    }
    return NULL;
}

static void ring(struct relay *relay)
{
    uint64_t one_ring = 1;

    (void)!write(relay->bell, &one_ring, sizeof one_ring);
}

struct relay *relay_open(const char *to_url)
{
    struct relay *relay = calloc(1, sizeof *relay);
    socklen_t len = sizeof relay->to;
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };

    if (!relay)
        abort();
    memset(relay->ends, -1, sizeof relay->ends);
    relay->to = here;
    relay->to.sin_port = htons((uint16_t)atoi(strrchr(to_url, ':') + 1));
    relay->bell = eventfd(0, EFD_CLOEXEC);
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(relay->listener, (struct sockaddr *)&here, sizeof here) != 0 || listen(relay->listener, 64) != 0 ||
        getsockname(relay->listener, (struct sockaddr *)&here, &len) != 0 ||
        pthread_create(&relay->thread, NULL, run, relay) != 0)
        abort();
    (void)snprintf(relay->url, sizeof relay->url, "tcp://127.0.0.1:%u", (unsigned)ntohs(here.sin_port));
    return relay;
}

void relay_close(struct relay *relay)
{
    atomic_store(&relay->is_closing, true);
    ring(relay);
    (void)pthread_join(relay->thread, NULL);
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        if (relay->ends[i] >= 0)
            (void)close(relay->ends[i]);
    (void)close(relay->listener);
    (void)close(relay->bell);
    free(relay);
}

const char *relay_url(const struct relay *relay)
{
    return relay->url;
}

void relay_cut(struct relay *relay, bool is_cut)
{
    atomic_store(&relay->is_cut, is_cut);
    ring(relay);
}
