#include "terminator.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct terminator {
    pthread_t thread;
    _Atomic bool is_closing;
    SSL_CTX *tls;
    int listener, bell;
    struct sockaddr_in to;
    char url[64], folder[128];
};

static void must(bool is_done, const char *what)
{
    if (is_done)
        return;
    fprintf(stderr, "terminator: %s\n", what);
    abort();
}

/* --- certificates ---------------------------------------------------------------------------------------- */

struct certified {
    EVP_PKEY *key;
    X509 *certificate;
};

static void name_set(X509_NAME *name, const char *text)
{
    must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)text, -1, -1, 0) == 1, "name");
}

static void extension_add(X509 *certificate, int kind, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);

    must(extension && X509_add_ext(certificate, extension, -1) == 1, value);
    X509_EXTENSION_free(extension);
}

/* Signed by `by`, NULL: by itself, which makes it a CA. */
static struct certified certify(const char *name, const struct certified *by)
{
    static long serial;
    struct certified made = { EVP_EC_gen("P-256"), X509_new() };
    char host[128];

    must(made.key && made.certificate, "key");
    (void)X509_set_version(made.certificate, X509_VERSION_3);
    (void)ASN1_INTEGER_set(X509_get_serialNumber(made.certificate), ++serial);
    (void)X509_gmtime_adj(X509_getm_notBefore(made.certificate), -3600);
    (void)X509_gmtime_adj(X509_getm_notAfter(made.certificate), 3600);
    (void)X509_set_pubkey(made.certificate, made.key);
    name_set(X509_get_subject_name(made.certificate), name);
    (void)X509_set_issuer_name(made.certificate, X509_get_subject_name(by ? by->certificate : made.certificate));
    if (by) {
        (void)snprintf(host, sizeof host, "DNS:%s", name);
        extension_add(made.certificate, NID_subject_alt_name, host);
    } else {
        extension_add(made.certificate, NID_basic_constraints, "critical,CA:TRUE");
    }
    must(X509_sign(made.certificate, by ? by->key : made.key, EVP_sha256()) > 0, "signature");
    return made;
}

static void certified_free(struct certified *certified)
{
    EVP_PKEY_free(certified->key);
    X509_free(certified->certificate);
}

static void store(const char *folder, const char *file, const struct certified *certified, bool with_key)
{
    char path[256];
    FILE *to;

    (void)snprintf(path, sizeof path, "%s/%s", folder, file);
    to = fopen(path, "w");
    must(to && PEM_write_X509(to, certified->certificate) == 1, path);
    must(!with_key || PEM_write_PrivateKey(to, certified->key, NULL, NULL, 0, NULL, NULL) == 1, path);
    (void)fclose(to);
}

static SSL_CTX *tls_new(const struct certified *own, const struct certified *ca)
{
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());

    must(tls && SSL_CTX_use_certificate(tls, own->certificate) == 1 && SSL_CTX_use_PrivateKey(tls, own->key) == 1 &&
             X509_STORE_add_cert(SSL_CTX_get_cert_store(tls), ca->certificate) == 1,
         "TLS");
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return tls;
}

/* --- carrying -------------------------------------------------------------------------------------------- */

static bool carry_in(SSL *tls, int to)
{
    char bytes[16384];
    int got;

    do {
        got = SSL_read(tls, bytes, sizeof bytes);
        if (got <= 0 || send(to, bytes, (size_t)got, MSG_NOSIGNAL) != got)
            return false;
    } while (SSL_pending(tls) > 0);
    return true;
}

static bool carry_out(SSL *tls, int from)
{
    char bytes[16384];
    ssize_t got = recv(from, bytes, sizeof bytes, 0);

    return got > 0 && SSL_write(tls, bytes, (int)got) == got;
}

/* One connection, until it ends. */
static void carry(struct terminator *terminator, int from)
{
    SSL *tls = SSL_new(terminator->tls);
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool goes_on = SSL_set_fd(tls, from) == 1 && SSL_accept(tls) == 1 &&
                   connect(to, (struct sockaddr *)&terminator->to, sizeof terminator->to) == 0;

    while (goes_on && !atomic_load(&terminator->is_closing)) {
        struct pollfd polls[3] = { { from, POLLIN, 0 }, { to, POLLIN, 0 }, { terminator->bell, POLLIN, 0 } };
        (void)poll(polls, 3, -1);
        if (polls[0].revents)
            goes_on = carry_in(tls, to);
        if (goes_on && polls[1].revents)
            goes_on = carry_out(tls, to);
    }
    SSL_free(tls);
    (void)close(from);
    (void)close(to);
}

static void *run(void *arg)
{
    struct terminator *terminator = arg;

    while (!atomic_load(&terminator->is_closing)) {
        struct pollfd polls[2] = { { terminator->listener, POLLIN, 0 }, { terminator->bell, POLLIN, 0 } };
        (void)poll(polls, 2, -1);
        if (polls[0].revents && !polls[1].revents)
            carry(terminator, accept(terminator->listener, NULL, NULL));
    }
    return NULL;
}

struct terminator *terminator_open(const char *to_url, const char *folder)
{
    struct terminator *terminator = calloc(1, sizeof *terminator);
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct certified ca = certify("ca", NULL), other_ca = certify("other-ca", NULL), own = certify("control.test", &ca);
    struct certified gateway = certify("gateway", &ca), stranger = certify("stranger", &other_ca);
    socklen_t len = sizeof here;

    must(terminator && signal(SIGPIPE, SIG_IGN) != SIG_ERR, "memory"); /* OpenSSL writes plainly */
    (void)snprintf(terminator->folder, sizeof terminator->folder, "%s", folder);
    store(folder, "ca.pem", &ca, false);
    store(folder, "other-ca.pem", &other_ca, false);
    store(folder, "gateway.pem", &gateway, true);
    store(folder, "stranger.pem", &stranger, true);
    terminator->tls = tls_new(&own, &ca);
    terminator->to = here;
    terminator->to.sin_port = htons((uint16_t)atoi(strrchr(to_url, ':') + 1));
    terminator->bell = eventfd(0, EFD_CLOEXEC);
    terminator->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(terminator->listener, (struct sockaddr *)&here, len) == 0 && listen(terminator->listener, 16) == 0 &&
             getsockname(terminator->listener, (struct sockaddr *)&here, &len) == 0 &&
             pthread_create(&terminator->thread, NULL, run, terminator) == 0,
         "listening");
    (void)snprintf(terminator->url, sizeof terminator->url, "tls+tcp://127.0.0.1:%u", (unsigned)ntohs(here.sin_port));
    certified_free(&ca);
    certified_free(&other_ca);
    certified_free(&own);
    certified_free(&gateway);
    certified_free(&stranger);
    return terminator;
}

void terminator_close(struct terminator *terminator)
{
    static const char *const files[] = { "ca.pem", "other-ca.pem", "gateway.pem", "stranger.pem" };
    uint64_t ring = 1;
    char path[256];

    atomic_store(&terminator->is_closing, true);
    (void)!write(terminator->bell, &ring, sizeof ring);
    (void)pthread_join(terminator->thread, NULL);
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", terminator->folder, files[i]);
        (void)unlink(path);
    }
    SSL_CTX_free(terminator->tls);
    (void)close(terminator->listener);
    (void)close(terminator->bell);
    free(terminator);
}

const char *terminator_url(const struct terminator *terminator)
{
    return terminator->url;
}
