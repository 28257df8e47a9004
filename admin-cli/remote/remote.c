#include "remote.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

#include "clock.h"
#include "digest.h"
#include "problem.h"

enum { TICK_MS = 100, FIRST_PAUSE_MS = 200, LONGEST_PAUSE_MS = 5000, KEY_LETTERS = 32, HEADER_MAX = 4096 };

struct remote {
    struct remote_options options;
    CURLM *multi;
    CURL *easy;
    char *base;   /* http://HOST… without a slash at its end */
    char *socket; /* unix:/PATH */
    char *shown;  /* the server, for sentences */
    struct remote_waiting waiting;
};

/* One sending. */
struct sending {
    struct remote *remote;
    struct text body;
    bool is_json, is_too_long;
    uint64_t config_version;
    bool is_replay;
    int64_t retry_after_ms;
    char problem[CURL_ERROR_SIZE];
};

/* Opening -------------------------------------------------------------------------------------------------------- */

static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0;
}

static enum err check_url(const struct remote_options *options, struct text *why)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *user = NULL, *query = NULL;
    enum err err = ERR_BAD;

    if (!url)
        return ERR_NO_MEMORY;
    if (curl_url_set(url, CURLUPART_URL, options->server, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
        text_printf(why, "the server must be http://HOST:PORT, https://HOST or unix:/PATH, not \"%s\"",
                    options->server);
    else if (curl_url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK ||
             curl_url_get(url, CURLUPART_QUERY, &query, 0) == CURLUE_OK)
        text_add_literal(why, "the server must be named without a user and without a query");
    else if (strcmp(scheme, "http") == 0 && !is_loopback(host) && !options->allow_plain_http)
        text_printf(why,
                    "http to %s would send the token unencrypted: use https, or say allow_plain_http "
                    "(QWADM_ALLOW_PLAIN_HTTP=true) where the network is trusted",
                    host);
    else
        err = ERR_OK;
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(query);
    curl_url_cleanup(url);
    return err;
}

static enum err name_server(struct remote *remote, struct text *why)
{
    const char *server = remote->options.server;
    size_t len = strlen(server);

    if (strncmp(server, "unix:", 5) == 0) {
        if (server[5] != '/') {
            text_printf(why, "the server must be http://HOST:PORT, https://HOST or unix:/PATH, not \"%s\"", server);
            return ERR_BAD;
        }
        remote->socket = strdup(server + 5);
        remote->base = strdup("http://localhost");
    } else {
        enum err err = check_url(&remote->options, why);

        if (err != ERR_OK)
            return err;
        while (len && server[len - 1] == '/')
            len--;
        remote->base = strndup(server, len);
    }
    remote->shown = strdup(server);
    return remote->base && remote->shown ? ERR_OK : ERR_NO_MEMORY;
}

struct remote *remote_open(const struct remote_options *options, struct text *why)
{
    struct remote *remote = calloc(1, sizeof *remote);
    enum err err = remote && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? ERR_OK : ERR_NO_MEMORY;

    if (err == ERR_OK) {
        remote->options = *options;
        remote->waiting.fd = -1;
        err = name_server(remote, why);
    }
    if (err == ERR_OK) {
        remote->multi = curl_multi_init();
        remote->easy = curl_easy_init();
        err = remote->multi && remote->easy ? ERR_OK : ERR_NO_MEMORY;
    }
    if (err == ERR_OK)
        return remote;
    if (err == ERR_NO_MEMORY)
        text_add_string(why, err_text(err));
    remote_close(remote);
    return NULL;
}

void remote_close(struct remote *remote)
{
    if (!remote)
        return;
    if (remote->easy)
        curl_easy_cleanup(remote->easy);
    if (remote->multi)
        (void)curl_multi_cleanup(remote->multi);
    free(remote->base);
    free(remote->socket);
    free(remote->shown);
    free(remote);
    curl_global_cleanup();
}

void remote_wait_with(struct remote *remote, const struct remote_waiting *waiting)
{
    remote->waiting = waiting ? *waiting : (struct remote_waiting){ .fd = -1 };
}

void answer_release(struct answer *answer)
{
    json_decref(answer->body);
    answer->body = NULL;
}

void remote_add_escaped(struct text *out, struct slice text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";

    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] && strchr(plain, text.at[i]))
            text_add_char(out, text.at[i]);
        else
            text_printf(out, "%%%02X", (unsigned char)text.at[i]);
}

/* One sending ---------------------------------------------------------------------------------------------------- */

static size_t on_body(char *at, size_t size, size_t count, void *arg)
{
    struct sending *sending = arg;

    text_add(&sending->body, at, size * count);
    sending->is_too_long = sending->body.err == ERR_TOO_LONG;
    return sending->body.err ? 0 : size * count;
}

static bool header_is(struct slice line, const char *name, struct slice *ret_value)
{
    size_t len = strlen(name);

    if (line.len <= len || line.at[len] != ':' || strncasecmp(line.at, name, len) != 0)
        return false;
    *ret_value = slice_trim((struct slice){ line.at + len + 1, line.len - len - 1 });
    while (ret_value->len && strchr("\r\n", ret_value->at[ret_value->len - 1]))
        ret_value->len--;
    *ret_value = slice_trim(*ret_value);
    return true;
}

static uint64_t number_of(struct slice digits)
{
    uint64_t number = 0;

    for (size_t i = 0; i < digits.len && i < 18; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9')
            return 0;
        number = number * 10 + (uint64_t)(digits.at[i] - '0');
    }
    return number;
}

static size_t on_header(char *at, size_t size, size_t count, void *arg)
{
    struct sending *sending = arg;
    struct slice line = { at, size * count }, value;

    if (line.len > 5 && memcmp(line.at, "HTTP/", 5) == 0) { /* of an interim answer before, perhaps */
        sending->is_json = false;
        sending->config_version = 0;
        sending->is_replay = false;
        sending->retry_after_ms = 0;
    } else if (header_is(line, "Content-Type", &value)) {
        sending->is_json =
            slice_starts(value, SLICE("application/json")) || slice_starts(value, SLICE("application/problem+json"));
    } else if (header_is(line, "Qwen-Config-Version", &value)) {
        sending->config_version = number_of(value);
    } else if (header_is(line, "Idempotency-Replayed", &value)) {
        sending->is_replay = slice_is_nocase(value, SLICE("true"));
    } else if (header_is(line, "Retry-After", &value)) {
        sending->retry_after_ms = (int64_t)number_of(value) * 1000;
    }
    return line.len;
}

static bool add_header(struct curl_slist **headers, const char *name, const char *value)
{
    char line[HEADER_MAX];
    struct curl_slist *longer;
    bool is_good = snprintf(line, sizeof line, "%s: %s", name, value) < (int)sizeof line;

    longer = is_good ? curl_slist_append(*headers, line) : NULL;
    explicit_bzero(line, sizeof line);
    if (longer)
        *headers = longer;
    return longer;
}

static struct curl_slist *make_headers(const struct remote *remote, const struct ask *ask, const char *key)
{
    struct curl_slist *headers = NULL;
    char bearer[HEADER_MAX];
    bool is_good = add_header(&headers, "Accept", "application/json, application/problem+json");

    is_good = is_good && add_header(&headers, "Expect", "");
    if (remote->options.token) {
        is_good = is_good && snprintf(bearer, sizeof bearer, "Bearer %s", remote->options.token) < (int)sizeof bearer &&
                  add_header(&headers, "Authorization", bearer);
        explicit_bzero(bearer, sizeof bearer);
    }
    if (ask->body.at)
        is_good = is_good &&
                  add_header(&headers, "Content-Type",
                             strcmp(ask->method, "PATCH") == 0 ? "application/merge-patch+json" : "application/json");
    if (ask->if_match)
        is_good = is_good && add_header(&headers, "If-Match", ask->if_match);
    if (key)
        is_good = is_good && add_header(&headers, "Idempotency-Key", key);
    if (is_good)
        return headers;
    curl_slist_free_all(headers);
    return NULL;
}

static void set_up(struct remote *remote, const struct ask *ask, const char *url, struct curl_slist *headers,
                   struct sending *sending)
{
    CURL *easy = remote->easy;

    curl_easy_reset(easy);
    (void)curl_easy_setopt(easy, CURLOPT_URL, url);
    (void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, ask->method);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    (void)curl_easy_setopt(easy, CURLOPT_USERAGENT, remote->options.program);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, sending);
    (void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, sending);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, sending->problem);
    (void)curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(remote->options.timeout_ms + ask->more_time_ms));
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)remote->options.connect_timeout_ms);
    (void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
#if LIBCURL_VERSION_NUM >= 0x075500
    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    if (strncasecmp(remote->base, "https:", 6) != 0)
        (void)curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* a proxy would see the token */
    if (remote->options.ca_file)
        (void)curl_easy_setopt(easy, CURLOPT_CAINFO, remote->options.ca_file);
    if (remote->socket)
        (void)curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, remote->socket);
    if (ask->body.at) {
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, ask->body.at);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)ask->body.len);
    } else if (strcmp(ask->method, "POST") == 0) {
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L);
    }
}

/* What the transfer came to; CURL_LAST: something else was to be read. */
static CURLcode transfer(struct remote *remote)
{
    CURLcode result = CURLE_FAILED_INIT;
    int running = 1;

    if (curl_multi_add_handle(remote->multi, remote->easy) != CURLM_OK)
        return result;
    for (;;) {
        struct curl_waitfd other = { .fd = remote->waiting.fd, .events = CURL_WAIT_POLLIN };
        bool has_other = remote->waiting.fd >= 0;
        int ignored;
        CURLMsg *message;

        if (curl_multi_perform(remote->multi, &running) != CURLM_OK)
            break;
        message = curl_multi_info_read(remote->multi, &ignored);
        if (message && message->msg == CURLMSG_DONE) {
            result = message->data.result;
            break;
        }
        if (!running)
            break;
        if (curl_multi_poll(remote->multi, &other, has_other, TICK_MS, NULL) != CURLM_OK)
            break;
        if (has_other && other.revents) {
            result = CURL_LAST;
            break;
        }
        if (remote->waiting.on_tick)
            remote->waiting.on_tick(remote->waiting.arg);
    }
    (void)curl_multi_remove_handle(remote->multi, remote->easy);
    return result;
}

/* How it went ---------------------------------------------------------------------------------------------------- */

static void say_failure(const struct remote *remote, const struct ask *ask, const struct sending *sending,
                        CURLcode result, struct text *why)
{
    const char *curl_says = *sending->problem ? sending->problem : curl_easy_strerror(result);

    if (sending->is_too_long)
        text_printf(why, "%s sent an answer of more than %llu bytes (max_answer_bytes)", remote->shown,
                    (unsigned long long)remote->options.max_answer_bytes);
    else if (result == CURLE_OPERATION_TIMEDOUT)
        text_printf(why, "%s gave no answer within %lld ms: is qwen-control well? More time: --timeout", remote->shown,
                    (long long)(remote->options.timeout_ms + ask->more_time_ms));
    else if (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST)
        text_printf(why, "%s cannot be reached: %s. Does qwen-control run there? Another server: --server",
                    remote->shown, curl_says);
    else if (result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE)
        text_printf(why, "%s is not trusted: %s. Its certificates' authority: --ca-file", remote->shown, curl_says);
    else if (result == CURLE_SSL_CONNECT_ERROR)
        text_printf(why, "%s does not speak TLS with us: %s", remote->shown, curl_says);
    else if (result == CURLE_GOT_NOTHING || result == CURLE_PARTIAL_FILE || result == CURLE_RECV_ERROR ||
             result == CURLE_SEND_ERROR)
        text_printf(why, "%s ended the connection within its answer: %s", remote->shown, curl_says);
    else
        text_printf(why, "%s gave no answer that can be understood: %s", remote->shown, curl_says);
}

static void say_strange(const struct remote *remote, unsigned status, struct text *why)
{
    if (status >= 300 && status < 400)
        text_printf(why, "%s answers with a redirect (%u), which is not followed: --server must name the API itself",
                    remote->shown, status);
    else if (status == 502 || status == 503 || status == 504)
        text_printf(why, "%s answers %u, but not as qwen-control does: the proxy before it does not reach it",
                    remote->shown, status);
    else
        text_printf(why, "%s answers %u, but not as qwen-control does: is this its address?", remote->shown, status);
}

static bool may_be_sent_again(const struct ask *ask, CURLcode result)
{
    if (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST)
        return true;                                          /* nothing was sent */
    return ask->is_keyed || strcmp(ask->method, "POST") != 0; /* the others say what is to be, not what is to be done */
}

static bool is_passing(unsigned status)
{
    return status == 502 || status == 503 || status == 504;
}

static bool is_for_good(CURLcode result)
{
    return result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE ||
           result == CURLE_SSL_CONNECT_ERROR || result == CURLE_UNSUPPORTED_PROTOCOL || result == CURLE_WRITE_ERROR;
}

/* One sending, and what it came to; *ret_again: it is worth another. */
static enum err send_once(struct remote *remote, const struct ask *ask, const char *key, struct answer *answer,
                          int64_t *ret_pause_ms, bool *ret_again, struct text *why)
{
    struct sending sending = { .remote = remote };
    struct curl_slist *headers = make_headers(remote, ask, key);
    struct text url;
    long status = 0;
    CURLcode result = CURLE_OUT_OF_MEMORY;
    enum err err = ERR_GONE;

    text_init(&sending.body, remote->options.max_answer_bytes);
    text_init(&url, 1 << 20);
    text_printf(&url, "%s%s", remote->base, ask->path);
    if (headers && !url.err) {
        set_up(remote, ask, text_string(&url), headers, &sending);
        result = transfer(remote);
        (void)curl_easy_getinfo(remote->easy, CURLINFO_RESPONSE_CODE, &status);
    }
    *ret_again = false;
    *ret_pause_ms = sending.retry_after_ms;
    answer->status = (unsigned)status;
    answer->config_version = sending.config_version;
    answer->is_replay = sending.is_replay;
    if (result == CURL_LAST) {
        err = ERR_AGAIN;
    } else if (result != CURLE_OK) {
        say_failure(remote, ask, &sending, result, why);
        *ret_again = !is_for_good(result) && may_be_sent_again(ask, result);
    } else {
        err = problem_read(ask, text_slice(&sending.body), sending.is_json, answer, why);
        if (err == ERR_BAD) {
            say_strange(remote, (unsigned)status, why);
            err = ERR_GONE;
        }
        *ret_again = is_passing((unsigned)status) && may_be_sent_again(ask, CURLE_OK);
    }
    curl_slist_free_all(headers);
    text_release_wiped(&sending.body);
    text_release(&url);
    return err;
}

/* False: something else came. */
static bool pause_between(struct remote *remote, int64_t pause_ms)
{
    int64_t end_ms = clock_ms() + pause_ms;

    for (int64_t left; (left = end_ms - clock_ms()) > 0;) {
        struct curl_waitfd other = { .fd = remote->waiting.fd, .events = CURL_WAIT_POLLIN };
        bool has_other = remote->waiting.fd >= 0;

        if (curl_multi_poll(remote->multi, &other, has_other, (int)(left < TICK_MS ? left : TICK_MS), NULL) != CURLM_OK)
            return true;
        if (has_other && other.revents)
            return false;
        if (remote->waiting.on_tick)
            remote->waiting.on_tick(remote->waiting.arg);
    }
    return true;
}

enum err remote_ask(struct remote *remote, const struct ask *ask, struct answer *ret_answer, struct text *why)
{
    char key[KEY_LETTERS + 1] = "";
    int64_t pause_ms = FIRST_PAUSE_MS, wanted_ms;
    bool again = false;
    enum err err = ERR_GONE;

    if (ask->is_keyed)
        random_letters(key, KEY_LETTERS);
    *ret_answer = (struct answer){ 0 };
    for (unsigned turn = 0; turn <= remote->options.retries; turn++) {
        if (turn) {
            answer_release(ret_answer);
            *ret_answer = (struct answer){ .was_sent_again = true };
            text_clear(why);
        }
        err = send_once(remote, ask, ask->is_keyed ? key : NULL, ret_answer, &wanted_ms, &again, why);
        if (err == ERR_OK || err == ERR_AGAIN || !again || turn == remote->options.retries)
            break;
        if (wanted_ms > LONGEST_PAUSE_MS)
            break;
        if (!pause_between(remote, wanted_ms > pause_ms ? wanted_ms : pause_ms))
            return ERR_AGAIN;
        pause_ms *= 3;
    }
    if (err == ERR_GONE && strcmp(ask->method, "GET") != 0 && ret_answer->status == 0 && again)
        text_add_literal(why, ". Whether it was done is not known: look before you repeat it");
    return err;
}
