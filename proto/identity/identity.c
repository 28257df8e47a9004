#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digest.h"

enum { FILE_MAX = 4096 }; /* a PEM of 119 bytes, and what people write around it */

struct identity {
    EVP_PKEY *pair;
    struct identity_key key;
};

static struct identity *identity_of(EVP_PKEY *pair)
{
    struct identity *identity = calloc(1, sizeof *identity);
    size_t len = sizeof identity->key.bytes;

    if (identity && EVP_PKEY_get_raw_public_key(pair, identity->key.bytes, &len) == 1 && len == IDENTITY_KEY_BYTES) {
        identity->pair = pair;
        return identity;
    }
    free(identity);
    EVP_PKEY_free(pair);
    return NULL;
}

struct identity *identity_new(void)
{
    EVP_PKEY *pair = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

    return pair ? identity_of(pair) : NULL;
}

struct identity *identity_free(struct identity *identity)
{
    if (identity) {
        EVP_PKEY_free(identity->pair);
        free(identity);
    }
    return NULL;
}

void identity_public(const struct identity *identity, struct identity_key *ret_key)
{
    *ret_key = identity->key;
}

/* --- the file -------------------------------------------------------------------------------------------- */

COLD static enum err file_complain(struct text *why, enum err err, const char *path, const char *what)
{
    text_printf(why, "%s: %s", path, what);
    return err;
}

/* Without a passphrase; one that asks for it is not ours, and must not have OpenSSL ask the terminal. */
static int no_passphrase(char *at, int room, int is_writing, void *arg)
{
    (void)at;
    (void)room;
    (void)is_writing;
    (void)arg;
    return -1;
}

static enum err pem_parse(const char *path, char *pem, size_t len, struct identity **ret_identity, struct text *why)
{
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    EVP_PKEY *pair = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;

    BIO_free(bio);
    if (pair && EVP_PKEY_get_base_id(pair) == EVP_PKEY_ED25519 && (*ret_identity = identity_of(pair)))
        return ERR_OK;
    if (pair && EVP_PKEY_get_base_id(pair) != EVP_PKEY_ED25519)
        EVP_PKEY_free(pair);
    return file_complain(why, ERR_BAD, path, "not an Ed25519 private key");
}

static enum err file_judge(int fd, const char *path, struct text *why)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0)
        return file_complain(why, ERR_SYSTEM, path, strerror(errno));
    if (!S_ISREG(stat.st_mode))
        return file_complain(why, ERR_BAD, path, "not a file");
    if (stat.st_mode & (S_IRWXG | S_IRWXO))
        return file_complain(why, ERR_REFUSED, path, "a private key that others may read: set its mode to 0600");
    return ERR_OK;
}

enum err identity_open(const char *path, struct identity **ret_identity, struct text *why)
{
    char pem[FILE_MAX];
    enum err err;
    ssize_t len;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return file_complain(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM, path, strerror(errno));
    err = file_judge(fd, path, why);
    if (!err) {
        len = read(fd, pem, sizeof pem);
        err = len < 0 ? file_complain(why, ERR_SYSTEM, path, strerror(errno))
                      : pem_parse(path, pem, (size_t)len, ret_identity, why);
        explicit_bzero(pem, sizeof pem);
    }
    (void)close(fd);
    return err;
}

static bool write_all(int fd, const char *at, size_t len)
{
    while (len) {
        ssize_t written = write(fd, at, len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return false;
        at += written;
        len -= (size_t)written;
    }
    return true;
}

static bool folder_sync(const char *path)
{
    char folder[FILE_MAX];
    const char *end = strrchr(path, '/');
    bool is_done;
    int fd;

    (void)snprintf(folder, sizeof folder, "%.*s", end ? (int)(end - path) + 1 : 1, end ? path : ".");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    is_done = fsync(fd) == 0;
    (void)close(fd);
    return is_done;
}

/* Writes it beside `path`, and gives it the name unless somebody was faster. */
static enum err pem_store(const char *path, const char *pem, size_t len, struct text *why)
{
    char beside[FILE_MAX];
    char letters[9] = { 0 };
    int fd;
    enum err err = ERR_OK;

    random_letters(letters, sizeof letters - 1);
    if ((size_t)snprintf(beside, sizeof beside, "%s.%s", path, letters) >= sizeof beside)
        return file_complain(why, ERR_TOO_LONG, path, "too long a name");
    fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return file_complain(why, ERR_SYSTEM, beside, strerror(errno));
    if (!write_all(fd, pem, len) || fsync(fd) != 0)
        err = file_complain(why, ERR_SYSTEM, beside, strerror(errno));
    (void)close(fd);
    if (!err && link(beside, path) != 0 && errno != EEXIST)
        err = file_complain(why, ERR_SYSTEM, path, strerror(errno));
    (void)unlink(beside);
    if (!err && !folder_sync(path))
        err = file_complain(why, ERR_SYSTEM, path, strerror(errno));
    return err;
}

static enum err identity_make(const char *path, struct text *why)
{
    struct identity *identity = identity_new();
    BIO *bio = BIO_new(BIO_s_secmem());
    char *pem = NULL;
    long len;
    enum err err = ERR_NO_MEMORY;

    if (identity && bio && PEM_write_bio_PrivateKey(bio, identity->pair, NULL, NULL, 0, NULL, NULL) == 1 &&
        (len = BIO_get_mem_data(bio, &pem)) > 0)
        err = pem_store(path, pem, (size_t)len, why);
    else
        text_printf(why, "%s: no key could be made", path);
    BIO_free(bio);
    (void)identity_free(identity);
    return err;
}

enum err identity_open_or_make(const char *path, struct identity **ret_identity, struct text *why)
{
    enum err err = identity_open(path, ret_identity, why);

    if (err != ERR_NOT_FOUND)
        return err;
    text_clear(why);
    err = identity_make(path, why);
    return err ? err : identity_open(path, ret_identity, why);
}

/* --- the proof ------------------------------------------------------------------------------------------- */

static const char purpose[] = "qwen-link-1"; /* its NUL belongs to it: nothing else that is signed begins so */

static void add_version(struct text *out, const uint32_t version[3])
{
    for (unsigned i = 0; i < 3; i++)
        for (int shift = 24; shift >= 0; shift -= 8)
            text_add_char(out, (char)(version[i] >> shift));
}

/* False: no memory, or too long a name. */
static bool claim_write(const struct identity_claim *claim, struct text *out)
{
    text_add(out, purpose, sizeof purpose);
    text_add(out, (const char *)claim->nonce, IDENTITY_NONCE_BYTES);
    add_version(out, claim->gateway_version);
    add_version(out, claim->control_version);
    text_add_slice(out, claim->name);
    return !out->err;
}

enum err identity_sign(const struct identity *identity, const struct identity_claim *claim,
                       struct identity_signature *ret_signature)
{
    char memory[512];
    struct text text = text_over(memory, sizeof memory);
    size_t len = sizeof ret_signature->bytes;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    enum err err = ERR_SYSTEM;

    if (!digest)
        return ERR_NO_MEMORY;
    if (claim_write(claim, &text) && EVP_DigestSignInit(digest, NULL, NULL, NULL, identity->pair) == 1 &&
        EVP_DigestSign(digest, ret_signature->bytes, &len, (const uint8_t *)text.at, text.len) == 1)
        err = ERR_OK;
    EVP_MD_CTX_free(digest);
    return err;
}

bool identity_verify(const struct identity_key *key, const struct identity_claim *claim,
                     const struct identity_signature *signature)
{
    char memory[512];
    struct text text = text_over(memory, sizeof memory);
    EVP_PKEY *public = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->bytes, sizeof key->bytes);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool is_good =
        public && digest && claim_write(claim, &text) && EVP_DigestVerifyInit(digest, NULL, NULL, NULL, public) == 1 &&
        EVP_DigestVerify(digest, signature->bytes, sizeof signature->bytes, (const uint8_t *)text.at, text.len) == 1;

    EVP_MD_CTX_free(digest);
    EVP_PKEY_free(public);
    return is_good;
}
