/* nng sometimes never returns from nng_close(): that keeps nobody waiting but the thread that closes. */
#include <dlfcn.h>
#include <nng/nng.h>
#include <pthread.h>

#include "closing.h"
#include "relay.h"
#include "rig.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t is_let_go = PTHREAD_COND_INITIALIZER;
static bool holds;
static unsigned held;

/* Stands before the library's. */
int nng_close(nng_socket socket)
{
    int (*close_really)(nng_socket) = (int (*)(nng_socket))dlsym(RTLD_NEXT, "nng_close");

    (void)pthread_mutex_lock(&lock);
    held += holds;
    while (holds)
        (void)pthread_cond_wait(&is_let_go, &lock);
    (void)pthread_mutex_unlock(&lock);
    return close_really(socket);
}

static void hold(bool shall)
{
    (void)pthread_mutex_lock(&lock);
    holds = shall;
    held = 0;
    (void)pthread_cond_broadcast(&is_let_go);
    (void)pthread_mutex_unlock(&lock);
}

static bool is_held(void)
{
    bool is;

    (void)pthread_mutex_lock(&lock);
    is = held > 0;
    (void)pthread_mutex_unlock(&lock);
    return is;
}

TEST(a_socket_that_cannot_be_closed_keeps_no_gateway_waiting)
{
    struct rig_client *client;
    struct relay *relay;
    const char *url;
    int64_t began_ms;

    rig_open(NULL);
    relay = relay_open(rig.url);
    url = relay_url(relay);
    client = rig_client_with(0, &(struct link_client_options){
                                    .name = "gw1", .identity = one, .urls = &url, .url_count = 1, .patience_ms = 300 });
    RIG_UNTIL(client->ups == 1);
    CHECK(!closing_is_stuck());
    hold(true);
    relay_cut(relay, true);
    RIG_UNTIL(client->downs > 0 && is_held());
    relay_cut(relay, false);
    RIG_UNTIL(client->ups == 2); /* with another socket, while the first one is being closed */
    CHECK_EQ(rig_ask(client), ERR_OK);
    RIG_UNTIL(client->answers == 1);
    CHECK(is_held());

    /* And who finds nobody then stays with the socket that it has. */
    RIG_UNTIL(closing_is_stuck());
    relay_cut(relay, true);
    RIG_UNTIL(client->downs > 1 && !link_client_is_up(client->link));
    unsigned downs = client->downs;
    began_ms = rig_now_ms();
    RIG_UNTIL(rig_now_ms() > began_ms + 1500); /* five times its patience */
    CHECK(client->downs <= downs + 2);
    relay_cut(relay, false);
    RIG_UNTIL(link_client_is_up(client->link));

    began_ms = rig_now_ms();
    rig_client_close(client);
    CHECK(rig_now_ms() - began_ms < 5000);
    hold(false);
    rig_close();
    relay_close(relay);
}

TEST(a_server_that_cannot_be_closed_keeps_nobody_waiting)
{
    int64_t began_ms;

    rig_open(NULL);
    hold(true);
    began_ms = rig_now_ms();
    rig.server = link_server_close(rig.server);
    CHECK(rig_now_ms() - began_ms < 5000 && is_held());
    hold(false);
    rig_close();
}
