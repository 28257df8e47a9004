/*
 *     DIALING ─pipe─► GREETING ─Challenge─► PROVING ─Welcome─► UP
 *        ▲               └──────────────┴────────────────────┴──► RESTING ─┐
 *        └─────────────────────────────────────────────────────────────────┘
 *
 * Every attempt has a socket of its own, closed as a whole when it is over (by closing.h's thread). So nothing of it is
 * sent again on another connection (REQ does that by itself, even before the Hello), no request is cancelled while it
 * is being sent (after which nng is not to be trusted), and one that fell into a partition does not wait for TCP to
 * give up. Where the other side closed the connection, the socket is closed a moment later: nng dials again by itself,
 * half of the time at once (1.5.2 takes its random delay for negative), and leaks a connection that is made just when
 * its socket is closed.
 *
 * What starts the one deadline, and what it does:
 *     an attempt, each step of the greeting   patience_ms (enrol_ms for an Enrol)   the attempt is over
 *     UP                                      heartbeat_ms since we heard anything  a Beat is asked
 *     that Beat                               patience_ms without hearing anything  the attempt is over
 *     RESTING                                 what the end of the attempt says      the next attempt
 * While sockets cannot be closed, an attempt that finds nobody goes on for DIALING_MANY times as long: it leaves one
 * more.
 */
#include <assert.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "arena.h"
#include "clock.h"
#include "closing.h"
#include "digest.h"
#include "identity.h"
#include "link.h"
#include "news.h"

enum client_state { CLIENT_RESTING, CLIENT_DIALING, CLIENT_GREETING, CLIENT_PROVING, CLIENT_UP };

enum { OWN_LANE = LINK_LANES, LANES }; /* the last one is for greetings and heartbeats */

enum { CLOSE_PATIENCE_MS = 1000, DIALING_MANY = 20 };
enum { NNG_HEAD_BYTES = 64 }; /* what nng writes before a message counts as well */
enum { DEFAULT_HEARTBEAT_MS = 1000, MIN_HEARTBEAT_MS = 100, MAX_HEARTBEAT_MS = 60000 };
enum { REDIAL_MIN_MS = 100, REDIAL_MAX_MS = 400, NEVER_MS = 3600000, REST_MS = 100, FIRST_REFUSED_MS = 500 };

/* One question at a time. nng's thread has it while it is `is_away`. */
struct lane {
    struct news news; /* first */
    nng_ctx ctx;
    nng_aio *aio;
    bool has_ctx, is_sending;
    bool is_open; /* asked, not answered yet: ours */
    int error;    /* nng's */
    nng_msg *answer;
    link_answered *answered; /* NULL: our own question */
    void *arg;
    struct attempt *attempt;
};

/* What nng's threads know. They may come until its socket is closed, so it outlives its time with the client. */
struct attempt {
    struct closing closing; /* first */
    pthread_mutex_t lock;
    struct link_client *client; /* NULL: it is over. Under the lock; ours to read without */
    struct news pipe_news;
    bool is_pipe_up, is_pipe_lost; /* under the lock */
    nng_socket socket;
    nng_dialer dialer;
    struct lane lanes[LANES];
};

struct link_client {
    struct news_box box;

    struct link_client_options options;
    struct link_client_events events;
    void *arg;
    enum client_state state;
    unsigned attempt_url;                   /* which of the urls */
    struct attempt *attempt;                /* NULL: none */
    int64_t dialing_ms;                     /* since when it dials */
    int64_t deadline_ms, heard_ms, beat_ms; /* beat_ms: when the open Beat was asked */
    int64_t heartbeat_ms;
    int64_t refused_ms; /* how long we rest when we are refused again */
    bool enrols;        /* the next greeting is an Enrol */
    bool closes_late;   /* the socket of the attempt that is over is there until the next begins */
    uint8_t instance[CODEC_ID_BYTES];
    struct text scratch, why;
};

/* --- nng's threads --------------------------------------------------------------------------------------- */

/* With the attempt's lock held. */
static void tell(struct attempt *attempt, struct news *news)
{
    if (attempt->client)
        news_put(&attempt->client->box, news);
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct attempt *attempt = arg;

    (void)pipe;
    (void)pthread_mutex_lock(&attempt->lock);
    if (event == NNG_PIPE_EV_ADD_POST)
        attempt->is_pipe_up = true;
    else
        attempt->is_pipe_lost = true;
    tell(attempt, &attempt->pipe_news);
    (void)pthread_mutex_unlock(&attempt->lock);
}

/* A lane has sent, or has its answer. */
static void on_lane(void *arg)
{
    struct lane *lane = arg;

    lane->error = nng_aio_result(lane->aio);
    if (lane->is_sending && lane->error) {
        nng_msg_free(nng_aio_get_msg(lane->aio));
        nng_aio_set_msg(lane->aio, NULL);
    } else if (lane->is_sending) {
        lane->is_sending = false;
        nng_ctx_recv(lane->ctx, lane->aio);
        return;
    } else if (!lane->error) {
        lane->answer = nng_aio_get_msg(lane->aio);
        nng_aio_set_msg(lane->aio, NULL);
    }
    (void)pthread_mutex_lock(&lane->attempt->lock);
    tell(lane->attempt, &lane->news);
    (void)pthread_mutex_unlock(&lane->attempt->lock);
}

/* --- an attempt ------------------------------------------------------------------------------------------ */

static int tls_set_up(const struct link_client_options *options, nng_dialer dialer)
{
    nng_tls_config *config;
    int error = nng_tls_config_alloc(&config, NNG_TLS_MODE_CLIENT);

    if (error)
        return error;
    if (!(error = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED)) && options->tls_server_name)
        error = nng_tls_config_server_name(config, options->tls_server_name);
    if (!error && options->tls_ca_file)
        error = nng_tls_config_ca_file(config, options->tls_ca_file);
    if (!error && options->tls_own_file)
        error = nng_tls_config_cert_key_file(config, options->tls_own_file, NULL);
    if (!error)
        error = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config);
    nng_tls_config_free(config); /* the dialer holds it */
    return error;
}

static int dial(const struct link_client *client, struct attempt *attempt)
{
    const char *url = client->options.urls[client->attempt_url];
    int error = nng_dialer_create(&attempt->dialer, attempt->socket, url);

    if (!error && strncmp(url, "tls+", 4) == 0)
        error = tls_set_up(&client->options, attempt->dialer);
    if (error)
        return error;
    (void)nng_dialer_set_ms(attempt->dialer, NNG_OPT_RECONNMINT, REDIAL_MIN_MS);
    (void)nng_dialer_set_ms(attempt->dialer, NNG_OPT_RECONNMAXT, REDIAL_MAX_MS);
    return nng_dialer_start(attempt->dialer, NNG_FLAG_NONBLOCK);
}

static int lane_set_up(struct attempt *attempt, struct lane *lane)
{
    int error = nng_aio_alloc(&lane->aio, on_lane, lane);

    if (error)
        return error;
    lane->attempt = attempt;
    return nng_ctx_open(&lane->ctx, attempt->socket);
}

/* Own heartbeats decide what is lost; nng sends nothing again by itself. */
static int attempt_set_up(const struct link_client *client, struct attempt *attempt)
{
    int error = nng_req0_open(&attempt->socket);

    if (error)
        return error;
    if ((error = nng_socket_set_ms(attempt->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE)) ||
        (error = nng_socket_set_size(attempt->socket, NNG_OPT_RECVMAXSZ,
                                     client->options.max_message_bytes + NNG_HEAD_BYTES)) ||
        (error = nng_pipe_notify(attempt->socket, NNG_PIPE_EV_ADD_POST, on_pipe, attempt)) ||
        (error = nng_pipe_notify(attempt->socket, NNG_PIPE_EV_REM_POST, on_pipe, attempt)))
        return error;
    for (unsigned i = 0; i < LANES && !error; i++)
        error = lane_set_up(attempt, &attempt->lanes[i]);
    return error ? error : dial(client, attempt);
}

static void lane_tear_down(struct lane *lane)
{
    if (lane->aio) {
        nng_aio_stop(lane->aio);
        nng_aio_free(lane->aio);
    }
    if (lane->answer)
        nng_msg_free(lane->answer);
}

/* By the thread that closes. After nng_close() no thread of nng's knows it. */
static void attempt_close(struct closing *closing)
{
    struct attempt *attempt = (struct attempt *)(void *)closing;

    if (nng_socket_id(attempt->socket) > 0)
        (void)nng_close(attempt->socket);
    for (unsigned i = 0; i < LANES; i++)
        lane_tear_down(&attempt->lanes[i]);
    (void)pthread_mutex_destroy(&attempt->lock);
    free(attempt);
}

static struct attempt *attempt_new(struct link_client *client)
{
    struct attempt *attempt = calloc(1, sizeof *attempt);

    if (!attempt)
        return NULL;
    (void)pthread_mutex_init(&attempt->lock, NULL);
    attempt->closing.close = attempt_close;
    attempt->client = client;
    attempt->socket = (nng_socket)NNG_SOCKET_INITIALIZER;
    return attempt;
}

/* It is heard no more, and whatever it had to say is gone. */
static void attempt_give_up(struct link_client *client)
{
    struct attempt *attempt = client->attempt;

    if (!attempt)
        return;
    (void)pthread_mutex_lock(&attempt->lock);
    attempt->client = NULL;
    (void)pthread_mutex_unlock(&attempt->lock);
    while (news_next(&client->box))
        ;
    client->attempt = NULL;
    client->closes_late = false;
    closing_begin(&attempt->closing);
}

static void attempt_end(struct link_client *client, enum qw_reason reason, const char *why, int64_t rest_ms);

static void attempt_begin(struct link_client *client, int64_t now_ms)
{
    int error;

    attempt_give_up(client);
    client->attempt = attempt_new(client);
    error = client->attempt ? attempt_set_up(client, client->attempt) : NNG_ENOMEM;
    client->state = CLIENT_DIALING;
    client->dialing_ms = now_ms;
    client->deadline_ms = now_ms + client->options.patience_ms;
    if (error)
        attempt_end(client, 0, nng_strerror(error), client->options.patience_ms);
}

/* What was asked and not answered. Called once nothing comes from the attempt any more. */
static void lanes_answer_gone(struct attempt *attempt)
{
    for (unsigned i = 0; attempt && i < LANES; i++) {
        struct lane *lane = &attempt->lanes[i];
        link_answered *answered = lane->answered;
        bool was_open = lane->is_open;
        lane->is_open = false;
        lane->answered = NULL;
        if (was_open && answered)
            answered(lane->arg, ERR_GONE, NULL);
    }
}

/* Everything that was asked is answered with ERR_GONE, and after rest_ms the next attempt begins. */
static void attempt_end(struct link_client *client, enum qw_reason reason, const char *why, int64_t rest_ms)
{
    client->state = CLIENT_RESTING;
    client->deadline_ms = clock_ms() + rest_ms;
    lanes_answer_gone(client->attempt);
    if (!client->closes_late)
        attempt_give_up(client);
    client->events.on_down(client->arg, reason, why);
}

static void next_url(struct link_client *client)
{
    client->attempt_url = (client->attempt_url + 1) % client->options.url_count;
}

/* Up to a quarter less: a thousand gateways that lost the same control plane do not come back in step. */
static int64_t scattered(int64_t ms)
{
    uint32_t chance;

    random_bytes(&chance, sizeof chance);
    return ms - (ms / 4) * (int64_t)(chance >> 16) / 65536;
}

static void lost(struct link_client *client, const char *why)
{
    if (client->state != CLIENT_UP)
        next_url(client);
    attempt_end(client, 0, why, scattered(REST_MS));
}

/* The other side closed it, or it broke. */
static void lost_pipe(struct link_client *client, const char *why)
{
    client->closes_late = true;
    lost(client, why);
}

static void refused(struct link_client *client, const struct qw_refused *refusal)
{
    char memory[512];
    struct text text = text_over(memory, sizeof memory);
    bool is_passing = refusal->reason == QW_HELLO_FIRST || refusal->reason == QW_BUSY ||
                      refusal->reason == QW_UNAVAILABLE || refusal->reason == QW_NOT_LEADER;
    int64_t rest_ms = client->refused_ms;

    text_add(&text, refusal->detail.at, utf8_cut(refusal->detail, sizeof memory - 1));
    if (refusal->reason == QW_IDENTITY && client->options.enrol_secret && !client->enrols) {
        client->enrols = true;
        rest_ms = 0;
    } else if (is_passing) {
        rest_ms = FIRST_REFUSED_MS;
        next_url(client);
    } else {
        client->enrols = false;
        client->refused_ms =
            rest_ms * 2 < client->options.max_refused_ms ? rest_ms * 2 : client->options.max_refused_ms;
        next_url(client);
    }
    if (rest_ms && rest_ms < refusal->retry_ms)
        rest_ms =
            refusal->retry_ms < client->options.max_refused_ms ? refusal->retry_ms : client->options.max_refused_ms;
    attempt_end(client, refusal->reason, text_string(&text), scattered(rest_ms));
}

/* --- asking ---------------------------------------------------------------------------------------------- */

static enum err lane_ask(struct link_client *client, struct lane *lane, const struct qw_message *message)
{
    nng_msg *packed;
    enum err err;

    text_clear(&client->scratch);
    text_clear(&client->why);
    if ((err = message_pack(message, &client->scratch, &client->why)))
        return err;
    if (nng_msg_alloc(&packed, client->scratch.len) != 0)
        return ERR_NO_MEMORY;
    memcpy(nng_msg_body(packed), client->scratch.at, client->scratch.len);
    lane->is_open = lane->is_sending = true;
    nng_aio_set_msg(lane->aio, packed);
    nng_ctx_send(lane->ctx, lane->aio);
    return ERR_OK;
}

enum err link_client_ask(struct link_client *client, const struct qw_message *message, link_answered *answered,
                         void *arg)
{
    if (client->state != CLIENT_UP)
        return ERR_AGAIN;
    for (struct lane *lane = client->attempt->lanes; lane < client->attempt->lanes + LINK_LANES; lane++) {
        enum err err;
        if (lane->is_open)
            continue;
        if ((err = lane_ask(client, lane, message)))
            return err;
        lane->answered = answered;
        lane->arg = arg;
        return ERR_OK;
    }
    return ERR_FULL;
}

/* Our own questions cannot be refused by the codec but for a name or a secret that is none. */
static void own_ask(struct link_client *client, const struct qw_message *message, int64_t now_ms, int64_t patience_ms)
{
    client->deadline_ms = now_ms + patience_ms;
    if (lane_ask(client, &client->attempt->lanes[OWN_LANE], message) != ERR_OK)
        attempt_end(client, QW_BAD_MESSAGE, text_string(&client->why), client->options.max_refused_ms);
}

static void greet(struct link_client *client, int64_t now_ms)
{
    const struct link_client_options *options = &client->options;
    const struct qw_hello hello = {
        .name = slice_of(options->name),
        .version = &options->version,
        .features = options->features,
        .address = slice_of(options->address),
        .instance = { (const char *)client->instance, sizeof client->instance },
        .max_staleness_s = client->options.max_staleness_s,
    };
    struct qw_message message = { QW_HELLO, .hello = hello };
    struct identity_key key;

    client->state = CLIENT_GREETING;
    (void)nng_dialer_set_ms(client->attempt->dialer, NNG_OPT_RECONNMINT, NEVER_MS);
    (void)nng_dialer_set_ms(client->attempt->dialer, NNG_OPT_RECONNMAXT, NEVER_MS);
    if (client->enrols) {
        identity_public(options->identity, &key);
        message =
            (struct qw_message){ QW_ENROL, .enrol = { .hello = &hello,
                                                      .secret = slice_of(options->enrol_secret),
                                                      .public_key = { (const char *)key.bytes, sizeof key.bytes } } };
    }
    own_ask(client, &message, now_ms, client->enrols ? options->enrol_ms : options->patience_ms);
}

static void prove(struct link_client *client, const struct qw_challenge *challenge, int64_t now_ms)
{
    static const struct qw_version none;
    const struct qw_version *ours = &client->options.version;
    const struct qw_version *its = challenge->version ? challenge->version : &none;
    const struct identity_claim claim = {
        .nonce = (const uint8_t *)challenge->nonce.at,
        .gateway_version = { ours->major, ours->minor, ours->patch },
        .control_version = { its->major, its->minor, its->patch },
        .name = slice_of(client->options.name),
    };
    struct identity_signature signature;
    struct qw_message message = { .what = QW_PROOF };

    if (identity_sign(client->options.identity, &claim, &signature) != ERR_OK) {
        lost(client, "the challenge could not be signed");
        return;
    }
    message.proof.signature = (struct slice){ (const char *)signature.bytes, sizeof signature.bytes };
    client->state = CLIENT_PROVING;
    own_ask(client, &message, now_ms, client->enrols ? client->options.enrol_ms : client->options.patience_ms);
}

static void welcomed(struct link_client *client, const struct qw_welcome *welcome, int64_t now_ms)
{
    client->state = CLIENT_UP;
    client->enrols = false;
    client->refused_ms = FIRST_REFUSED_MS;
    client->heartbeat_ms = welcome->heartbeat_ms ? welcome->heartbeat_ms : DEFAULT_HEARTBEAT_MS;
    if (client->heartbeat_ms < MIN_HEARTBEAT_MS)
        client->heartbeat_ms = MIN_HEARTBEAT_MS;
    if (client->heartbeat_ms > MAX_HEARTBEAT_MS)
        client->heartbeat_ms = MAX_HEARTBEAT_MS;
    client->deadline_ms = now_ms + client->heartbeat_ms;
    client->events.on_up(client->arg, welcome);
}

/* --- hearing --------------------------------------------------------------------------------------------- */

/* After these the control plane closes the connection. */
static bool is_final(const struct qw_refused *refusal)
{
    return refusal->reason == QW_HELLO_FIRST || refusal->reason == QW_IDENTITY || refusal->reason == QW_REMOVED ||
           refusal->reason == QW_VERSION || refusal->reason == QW_NOT_LEADER;
}

static void own_answer(struct link_client *client, enum err err, const struct qw_message *answer, int64_t now_ms)
{
    if (err)
        lost(client, text_string(&client->why));
    else if (answer->what == QW_REFUSED)
        refused(client, &answer->refused);
    else if (client->state == CLIENT_GREETING && answer->what == QW_CHALLENGE)
        prove(client, &answer->challenge, now_ms);
    else if (client->state == CLIENT_PROVING && answer->what == QW_WELCOME)
        welcomed(client, &answer->welcome, now_ms);
    else if (client->state == CLIENT_UP && answer->what == QW_BEAT)
        client->deadline_ms = now_ms + client->heartbeat_ms;
    else
        lost(client, "not the answer to what was asked");
}

static void owners_answer(struct link_client *client, struct lane *lane, enum err err, const struct qw_message *answer)
{
    link_answered *answered = lane->answered;

    lane->answered = NULL;
    answered(lane->arg, err, err ? NULL : answer);
    if (err || client->state != CLIENT_UP)
        return;
    if (answer->what == QW_REFUSED && is_final(&answer->refused)) {
        refused(client, &answer->refused);
    } else if (answer->what == QW_BYE) {
        struct qw_refused bye = { .reason = QW_UNAVAILABLE,
                                  .detail = answer->bye.why,
                                  .retry_ms = answer->bye.retry_ms };
        refused(client, &bye);
    }
}

static void lane_news(struct link_client *client, struct lane *lane, int64_t now_ms)
{
    struct qw_message answer;
    struct arena arena;
    nng_msg *message = lane->answer;
    enum err err;

    lane->answer = NULL;
    if (client->state == CLIENT_RESTING) { /* what it belongs to is over */
        nng_msg_free(message);
        return;
    }
    if (lane->error) { /* the pipe's news says the same */
        lost_pipe(client, nng_strerror(lane->error));
        return;
    }
    lane->is_open = false;
    client->heard_ms = now_ms;
    arena_init(&arena);
    text_clear(&client->why);
    err = message_unpack((struct slice){ nng_msg_body(message), nng_msg_len(message) }, &arena, &answer, &client->why);
    if (lane->answered)
        owners_answer(client, lane, err ? ERR_BAD : ERR_OK, &answer);
    else
        own_answer(client, err, &answer, now_ms);
    arena_release(&arena);
    nng_msg_free(message);
}

static void pipe_news(struct link_client *client, struct attempt *attempt, int64_t now_ms)
{
    bool is_up, is_lost;

    (void)pthread_mutex_lock(&attempt->lock);
    is_up = attempt->is_pipe_up;
    is_lost = attempt->is_pipe_lost;
    (void)pthread_mutex_unlock(&attempt->lock);
    if (client->state == CLIENT_RESTING)
        return;
    if (is_lost)
        lost_pipe(client, "the connection was closed");
    else if (is_up && client->state == CLIENT_DIALING)
        greet(client, now_ms);
}

/* --- the loop's turn ------------------------------------------------------------------------------------- */

static void beat(struct link_client *client, int64_t now_ms)
{
    static const struct qw_message message = { .what = QW_BEAT };
    bool is_asked = client->attempt->lanes[OWN_LANE].is_open;
    int64_t waits_since_ms = client->heard_ms > client->beat_ms ? client->heard_ms : client->beat_ms;

    if (is_asked && now_ms >= waits_since_ms + client->options.patience_ms) {
        lost(client, "no answer");
    } else if (is_asked) {
        client->deadline_ms = waits_since_ms + client->options.patience_ms;
    } else if (now_ms >= client->heard_ms + client->heartbeat_ms) {
        client->beat_ms = now_ms;
        own_ask(client, &message, now_ms, client->options.patience_ms);
    } else {
        client->deadline_ms = client->heard_ms + client->heartbeat_ms;
    }
}

static void dialed_long(struct link_client *client, int64_t now_ms)
{
    if (closing_is_stuck() && now_ms - client->dialing_ms < DIALING_MANY * (int64_t)client->options.patience_ms)
        client->deadline_ms = now_ms + client->options.patience_ms;
    else
        lost(client, "nobody answers there");
}

static void deadline_came(struct link_client *client, int64_t now_ms)
{
    switch (client->state) {
    case CLIENT_RESTING:
        attempt_begin(client, now_ms);
        return;
    case CLIENT_UP:
        beat(client, now_ms);
        return;
    case CLIENT_DIALING:
        dialed_long(client, now_ms);
        return;
    default:
        lost(client, "no answer");
    }
}

void link_client_take(struct link_client *client)
{
    int64_t now_ms = clock_ms();
    struct news *news;

    news_hear(&client->box);
    while ((news = news_next(&client->box))) {
        if (news == &client->attempt->pipe_news)
            pipe_news(client, client->attempt, now_ms);
        else
            lane_news(client, (struct lane *)(void *)news, now_ms);
    }
    if (now_ms >= client->deadline_ms)
        deadline_came(client, now_ms);
    news_set_deadline(&client->box, client->deadline_ms);
}

/* --- opening and closing --------------------------------------------------------------------------------- */

static void take_defaults(struct link_client_options *options)
{
    options->patience_ms = options->patience_ms ? options->patience_ms : 1500;
    options->enrol_ms = options->enrol_ms ? options->enrol_ms : 10000;
    options->max_refused_ms = options->max_refused_ms ? options->max_refused_ms : 30000;
    options->max_message_bytes = options->max_message_bytes ? options->max_message_bytes : CODEC_MAX_BYTES;
}

struct link_client *link_client_open(const struct link_client_options *options, const struct link_client_events *events,
                                     void *arg, struct text *why)
{
    struct link_client *client = calloc(1, sizeof *client);

    assert(options->url_count > 0);
    if (!client || !news_open(&client->box)) {
        text_printf(why, "%s: no memory, or no descriptors", options->urls[0]);
        free(client);
        return NULL;
    }
    client->options = *options;
    client->events = *events;
    client->arg = arg;
    client->refused_ms = FIRST_REFUSED_MS;
    take_defaults(&client->options);
    text_init(&client->scratch, 2 * CODEC_MAX_BYTES);
    text_init(&client->why, CODEC_MAX_TEXT);
    random_bytes(client->instance, sizeof client->instance);
    news_set_deadline(&client->box, 0); /* the first attempt begins in the first turn */
    return client;
}

struct link_client *link_client_close(struct link_client *client)
{
    if (!client)
        return NULL;
    attempt_give_up(client);
    (void)closing_wait(CLOSE_PATIENCE_MS);
    text_release(&client->scratch);
    text_release(&client->why);
    news_close(&client->box);
    free(client);
    return NULL;
}

int link_client_fd(const struct link_client *client)
{
    return client->box.fd;
}

bool link_client_is_up(const struct link_client *client)
{
    return client->state == CLIENT_UP;
}

int64_t link_client_heard_ms(const struct link_client *client)
{
    return client->heard_ms;
}
