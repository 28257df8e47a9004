#include "check.h"
#include "digest.h"
#include "identity.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t nonce[IDENTITY_NONCE_BYTES] = { 1, 2, 3 };
static const struct identity_claim claim = {
    .nonce = nonce, .gateway_version = { 1, 2, 3 }, .control_version = { 1, 3, 0 }, .name = { "gw1", 3 }
};

static char folder[64], path[128], other[128];

static void folder_make(void)
{
    (void)snprintf(folder, sizeof folder, "%s/qw-identity.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    CHECK(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/key.pem", folder);
    (void)snprintf(other, sizeof other, "%s/other", folder);
}

static void folder_clear(void)
{
    (void)unlink(path);
    (void)unlink(other);
    CHECK_EQ(rmdir(folder), 0); /* nothing else was left in it */
}

TEST(a_signature_is_good_for_what_it_is_over_and_nothing_else)
{
    struct identity *identity = identity_new(), *stranger = identity_new();
    static const uint8_t other_nonce[IDENTITY_NONCE_BYTES] = { 1, 2, 4 };
    struct identity_signature signature;
    struct identity_claim changed;
    struct identity_key key, strangers;

    CHECK(identity && stranger);
    identity_public(identity, &key);
    identity_public(stranger, &strangers);
    CHECK_EQ(identity_sign(identity, &claim, &signature), ERR_OK);
    CHECK(identity_verify(&key, &claim, &signature));
    CHECK(!identity_verify(&strangers, &claim, &signature));
    changed = claim, changed.nonce = other_nonce;
    CHECK(!identity_verify(&key, &changed, &signature));
    changed = claim, changed.name = SLICE("gw2");
    CHECK(!identity_verify(&key, &changed, &signature));
    changed = claim, changed.gateway_version[1] = 1;
    CHECK(!identity_verify(&key, &changed, &signature));
    changed = claim, changed.control_version[2] = 1;
    CHECK(!identity_verify(&key, &changed, &signature));
    signature.bytes[63] ^= 1;
    CHECK(!identity_verify(&key, &claim, &signature));
    (void)identity_free(identity);
    (void)identity_free(stranger);
}

TEST(a_key_is_made_once_for_its_owner_alone)
{
    char memory[512];
    struct text why = text_over(memory, sizeof memory);
    struct identity *first = NULL, *second = NULL;
    struct identity_key one, two;
    struct stat stat_of;
    mode_t mask = umask(0);

    folder_make();
    CHECK_EQ(identity_open(path, &first, &why), ERR_NOT_FOUND);
    text_clear(&why);
    CHECK_EQ(identity_open_or_make(path, &first, &why), ERR_OK);
    (void)umask(mask);
    CHECK_EQ(why.len, 0);
    CHECK(stat(path, &stat_of) == 0);
    CHECK_EQ(stat_of.st_mode & 07777, 0600);
    CHECK_EQ(identity_open_or_make(path, &second, &why), ERR_OK);
    identity_public(first, &one);
    identity_public(second, &two);
    CHECK(memcmp(&one, &two, sizeof one) == 0);
    (void)identity_free(first);
    (void)identity_free(second);
    folder_clear();
}

static void *make(void *ret)
{
    char memory[512];
    struct text why = text_over(memory, sizeof memory);
    struct identity *identity = NULL;

    if (identity_open_or_make(path, &identity, &why) == ERR_OK)
        identity_public(identity, ret);
    (void)identity_free(identity);
    return NULL;
}

TEST(of_many_that_make_it_at_once_all_have_the_same)
{
    enum { MANY = 8 };
    struct identity_key keys[MANY] = { 0 };
    pthread_t threads[MANY];

    folder_make();
    for (unsigned i = 0; i < MANY; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, make, &keys[i]), 0);
    for (unsigned i = 0; i < MANY; i++)
        (void)pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < MANY; i++)
        CHECK(memcmp(&keys[i], &keys[0], sizeof *keys) == 0);
    CHECK(memcmp(&keys[0], &(struct identity_key){ 0 }, sizeof *keys) != 0);
    folder_clear();
}

static void write_file(const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0);
    (void)close(fd);
}

TEST(a_file_that_is_no_key_or_not_private_is_refused)
{
    static const char ec[] = "-----BEGIN PRIVATE KEY-----\n"
                             "MC4CAQAwBQYDK2VuBCIEIIiWmNBSe/1zNPbJIFiuSmTxjnLzm0nEeTGHRMVMxl1u\n" /* X25519 */
                             "-----END PRIVATE KEY-----\n";
    static const struct {
        const char *text;
        mode_t mode;
        enum err err;
    } rows[] = {
        { "", 0600, ERR_BAD },     { "-----BEGIN PRIVATE KEY-----\n", 0600, ERR_BAD },
        { ec, 0600, ERR_BAD },     { ec, 0640, ERR_REFUSED },
        { ec, 0604, ERR_REFUSED },
    };
    char memory[512];

    folder_make();
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text why = text_over(memory, sizeof memory);
        struct identity *identity = NULL;
        write_file(rows[i].text, rows[i].mode);
        CHECK_EQ(identity_open_or_make(path, &identity, &why), rows[i].err); /* and not made anew */
        CHECK(!identity && slice_starts(text_slice(&why), slice_of(path)));
    }
    folder_clear();
}

TEST(a_key_that_cannot_be_written_leaves_nothing)
{
    char memory[512];
    struct text why = text_over(memory, sizeof memory);
    struct identity *identity = NULL;

    folder_make();
    (void)snprintf(path, sizeof path, "%s/none/key.pem", folder);
    CHECK_EQ(identity_open_or_make(path, &identity, &why), ERR_SYSTEM);
    CHECK(!identity && why.len);
    folder_clear();
}
