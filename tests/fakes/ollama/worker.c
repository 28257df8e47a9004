#include "worker.h"
#include "conn.h"
#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct worker *workers;
static unsigned worker_count;
static struct address model_address;
static int place_holder = -1; /* bound, not listening: keeps the port ours while mute */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t obeyed = PTHREAD_COND_INITIALIZER;
static uint64_t version;

/* --- addresses --- */

bool address_read(struct address *address, const char *text, struct bytes *ret_why)
{
    const char *colon = strrchr(text, ':');
    char *end;
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    struct slice host = { text, colon ? (size_t)(colon - text) : 0 };
    unsigned char any[16];

    if (port < 0 || port > 65535 || !colon[1] || *end) {
        bytes_print(ret_why, "%s: wanted HOST:PORT", text);
        return false;
    }
    if (host.len > 2 && host.at[0] == '[')
        host = (struct slice){ host.at + 1, host.len - 2 };
    if (slice_is(host, "localhost"))
        host = SLICE("127.0.0.1");
    (void)snprintf(address->host, sizeof address->host, "%.*s", (int)host.len, host.at);
    address->port = (uint16_t)port;
    address->family = strchr(address->host, ':') ? AF_INET6 : AF_INET;
    if (inet_pton(address->family, address->host, any) != 1) {
        bytes_print(ret_why, "%s: the host must be an address or localhost", text);
        return false;
    }
    return true;
}

static socklen_t address_fill(const struct address *address, struct sockaddr_storage *to)
{
    struct sockaddr_in *four = (struct sockaddr_in *)to;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)to;

    memset(to, 0, sizeof *to);
    if (address->family == AF_INET6) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(address->port);
        (void)inet_pton(AF_INET6, address->host, &six->sin6_addr);
        return sizeof *six;
    }
    four->sin_family = AF_INET;
    four->sin_port = htons(address->port);
    (void)inet_pton(AF_INET, address->host, &four->sin_addr);
    return sizeof *four;
}

int address_bind(struct address *address, bool is_shared)
{
    struct sockaddr_storage to;
    socklen_t len = address_fill(address, &to);
    int one = 1;
    int fd = socket(address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (is_shared)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&to, len) < 0) {
        int why = errno;

        (void)close(fd);
        errno = why;
        return -1;
    }
    (void)getsockname(fd, (struct sockaddr *)&to, &len);
    address->port = ntohs(to.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&to)->sin6_port
                                                   : ((struct sockaddr_in *)&to)->sin_port);
    return fd;
}

/* --- listening --- */

static void on_knock(struct source *source, uint32_t events)
{
    struct listener *listener = (struct listener *)source;

    (void)events;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                perror("fake-ollama: accept");
            return;
        }
        conn_open(listener->worker, fd, listener->is_control);
    }
}

static void listener_start(struct listener *listener, struct worker *worker, int fd)
{
    listener->source.on_ready = on_knock;
    listener->worker = worker;
    listener->fd = fd;
    if (fd >= 0)
        loop_watch(&worker->loop, fd, &listener->source, EPOLLIN);
}

static void listener_open(struct worker *worker)
{
    int fd = address_bind(&model_address, true);

    if (fd < 0 || listen(fd, 4096) < 0) {
        perror("fake-ollama: listen");
        exit(1);
    }
    listener_start(&worker->model, worker, fd);
}

static void listener_close(struct listener *listener)
{
    if (listener->fd >= 0)
        (void)close(listener->fd);
    listener->fd = -1;
}

/* --- settings --- */

static void obey_blackhole(struct worker *worker, bool is_blackhole)
{
    struct conn *next;

    if (worker->is_blackhole == is_blackhole)
        return;
    worker->is_blackhole = is_blackhole;
    if (worker->model.fd >= 0) {
        if (is_blackhole)
            loop_forget(&worker->loop, worker->model.fd);
        else
            loop_watch(&worker->loop, worker->model.fd, &worker->model.source, EPOLLIN);
    }
    for (struct conn *conn = is_blackhole ? NULL : worker->conns; conn; conn = next) {
        next = conn->next;
        if (!conn->is_control)
            conn_resume(conn);
    }
}

static void drop_all(struct worker *worker)
{
    struct conn *next;

    for (struct conn *conn = worker->conns; conn; conn = next) {
        next = conn->next;
        if (!conn->is_control)
            conn_reset(conn);
    }
}

static void obey(struct worker *worker)
{
    struct settings settings;
    uint64_t wanted;

    (void)pthread_mutex_lock(&lock);
    wanted = version;
    (void)pthread_mutex_unlock(&lock);
    if (__atomic_load_n(&worker->obeyed, __ATOMIC_ACQUIRE) == wanted)
        return;
    settings = books_settings();
    if (settings.is_mute && worker->model.fd >= 0) {
        listener_close(&worker->model);
    } else if (!settings.is_mute && worker->model.fd < 0) {
        listener_open(worker);
        if (worker->is_blackhole)
            loop_forget(&worker->loop, worker->model.fd);
    }
    obey_blackhole(worker, settings.is_blackhole);
    if (worker->drops != settings.drops)
        drop_all(worker);
    worker->drops = settings.drops;
    (void)pthread_mutex_lock(&lock);
    __atomic_store_n(&worker->obeyed, wanted, __ATOMIC_RELEASE);
    (void)pthread_cond_signal(&obeyed);
    (void)pthread_mutex_unlock(&lock);
}

void workers_obey(struct worker *self, const struct settings *settings)
{
    books_set(settings);
    (void)pthread_mutex_lock(&lock);
    version++;
    (void)pthread_mutex_unlock(&lock);
    obey(self);
    for (unsigned i = 0; i < worker_count; i++) {
        if (&workers[i] == self)
            continue;
        loop_wake(&workers[i].loop);
        (void)pthread_mutex_lock(&lock);
        while (__atomic_load_n(&workers[i].obeyed, __ATOMIC_ACQUIRE) != version)
            (void)pthread_cond_wait(&obeyed, &lock);
        (void)pthread_mutex_unlock(&lock);
    }
}

/* --- threads --- */

static struct conn *next_granted(struct worker *worker)
{
    struct conn *conn;

    books_lock();
    conn = worker->granted;
    if (conn) {
        worker->granted = conn->granted_next;
        conn->is_listed_granted = false;
    }
    books_unlock();
    return conn;
}

static void on_wake(struct loop *loop)
{
    struct worker *worker = (struct worker *)loop;
    struct conn *conn;

    while ((conn = next_granted(worker)))
        conn_granted(conn);
    obey(worker);
    if (worker->number == 0)
        control_look();
}

static void on_turn(struct loop *loop)
{
    struct worker *worker = (struct worker *)loop;

    while (worker->dead) {
        struct conn *conn = worker->dead;

        worker->dead = conn->next;
        conn_free(conn);
    }
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;

    loop_run(&worker->loop);
    while (worker->conns)
        conn_close(worker->conns);
    on_turn(&worker->loop);
    play_thread_end();
    return NULL;
}

/* A waiter on the control side is served by the first worker. */
static void wake_first(void)
{
    if (control_is_watched())
        loop_wake(&workers[0].loop);
}

static void worker_init(struct worker *worker, unsigned number, int control_fd)
{
    worker->number = number;
    loop_init(&worker->loop);
    worker->loop.on_wake = on_wake;
    worker->loop.on_turn = on_turn;
    listener_open(worker);
    worker->control.is_control = true;
    listener_start(&worker->control, worker, number == 0 ? control_fd : -1);
}

void workers_start(unsigned count, const struct address *model, int control_fd)
{
    pthread_attr_t attr;

    model_address = *model;
    place_holder = address_bind(&model_address, true);
    worker_count = count;
    workers = must_alloc(count * sizeof *workers);
    for (unsigned i = 0; i < count; i++)
        worker_init(&workers[i], i, control_fd);
    books_on_change(wake_first);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, (size_t)64 << 20); /* JSON may nest 10000 deep */
    for (unsigned i = 0; i < count; i++) {
        if (pthread_create(&workers[i].thread, &attr, worker_main, &workers[i]) != 0) {
            perror("fake-ollama: thread");
            exit(1);
        }
    }
    (void)pthread_attr_destroy(&attr);
}

void workers_stop(void)
{
    for (unsigned i = 0; i < worker_count; i++) {
        __atomic_store_n(&workers[i].loop.stops, true, __ATOMIC_RELEASE);
        loop_wake(&workers[i].loop);
    }
    for (unsigned i = 0; i < worker_count; i++)
        (void)pthread_join(workers[i].thread, NULL);
    for (unsigned i = 0; i < worker_count; i++) {
        listener_close(&workers[i].model);
        listener_close(&workers[i].control);
        loop_release(&workers[i].loop);
        arena_release(&workers[i].arena);
    }
    (void)close(place_holder);
    free(workers);
}
