/*
 * fuzz_keyring - any bytes as the file that a gateway keeps its keys in, and any sections as one whose checksums are
 * right: pieces of a kind (1 byte), a length (2), and so many bytes. What is taken has the keys that it says it has,
 * each is found, and each would pass as a rule of the control plane's.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#include "archive.h"
#include "keyring.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void must(bool claim, const char *what)
{
    if (claim)
        return;
    fprintf(stderr, "not so: %s\n", what);
    abort();
}

static void judge_key(struct locksmith *again, const struct keyring *ring, const struct key *key)
{
    struct key_rule rule = { .hash = key->hash,
                             .name = key_name(key).at,
                             .user = key_user(key).at,
                             .team = key_team(key),
                             .has_allow = key->allow != NULL,
                             .max_prompt_chars = key->max_prompt_chars,
                             .has_max_prompt_chars = key->has_max_prompt_chars,
                             .think = (enum key_think)key->think,
                             .weight = key->weight,
                             .class = (enum key_class)key->class,
                             .expires_s = key->expires_s };
    struct text why;

    if (key->allow)
        rule.allow = *key->allow;
    if (key->models) {
        rule.models = key->models->names;
        rule.model_count = key->models->count;
    }
    text_init(&why, 1024);
    must(keyring_find(ring, &key->hash) == key, "a key is found");
    must(strlen(rule.name) == key_name(key).len && strlen(rule.user) == key_user(key).len, "words end where they end");
    must(locksmith_put(again, &rule, &why) == ERR_OK, text_string(&why));
    text_release(&why);
}

static void judge(struct locksmith *smith)
{
    struct keyring *ring = locksmith_ring(smith), *same;
    struct locksmith *again = locksmith_new();
    size_t count = 0;
    struct text why;

    text_init(&why, 1024);
    must(again != NULL, "memory");
    locksmith_begin_whole(again, keyring_version(ring));
    for (const struct key *key = keyring_next(ring, NULL); key; key = keyring_next(ring, key), count++)
        judge_key(again, ring, key);
    must(count == keyring_count(ring), "as many keys as it says");
    must(locksmith_commit(again, &why) == ERR_OK, text_string(&why));
    same = locksmith_ring(again);
    must(keyring_count(same) == count, "no key twice");
    keyring_unref(same);
    keyring_unref(ring);
    locksmith_free(again);
    text_release(&why);
}

static void load(struct slice file)
{
    struct locksmith *smith = locksmith_new();
    struct archive *archive;
    struct text why;
    enum err err;

    text_init(&why, 4096);
    must(smith != NULL, "memory");
    archive = archive_over(file, &keyring_form, &err, &why);
    if (archive)
        err = locksmith_load_from(smith, archive, NULL, &why);
    must((err == ERR_OK) == !why.len, "a reason where it is refused, and only there");
    if (err == ERR_OK)
        judge(smith);
    archive_close(archive);
    locksmith_free(smith);
    text_release(&why);
}

static void put32(char *at, uint32_t number)
{
    number = htole32(number);
    memcpy(at, &number, sizeof number);
}

/* Sections with a header and right checksums around them. */
static void load_sections(const uint8_t *bytes, size_t len)
{
    enum { HEADER = 40, ROW = 16, MOST = 64 };
    char *file = calloc(1, HEADER + MOST * ROW + len), head[HEADER + MOST * ROW] = { 0 };
    size_t count = 0, body = 0;

    must(file != NULL, "memory");
    while (len >= 3 && count < MOST) {
        size_t piece = (size_t)bytes[1] | (size_t)bytes[2] << 8;
        char *row = head + HEADER + count++ * ROW;
        piece = piece < len - 3 ? piece : len - 3;
        memcpy(file + HEADER + MOST * ROW + body, bytes + 3, piece);
        put32(row, bytes[0]);
        put32(row + 4, crc32c_of(0, (struct slice){ (const char *)bytes + 3, piece }));
        put32(row + 8, (uint32_t)piece);
        body += piece;
        bytes += 3 + piece;
        len -= 3 + piece;
    }
    memcpy(head, keyring_form.magic, ARCHIVE_MAGIC_BYTES);
    put32(head + 8, keyring_form.format);
    put32(head + 12, (uint32_t)count);
    put32(head + 16, (uint32_t)(HEADER + count * ROW + body));
    put32(head + 32, crc32c_of(crc32c_of(0, (struct slice){ head, 32 }), (struct slice){ head + HEADER, count * ROW }));
    memmove(file + HEADER + count * ROW, file + HEADER + MOST * ROW, body);
    memcpy(file, head, HEADER + count * ROW);
    load((struct slice){ file, HEADER + count * ROW + body });
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    load((struct slice){ (const char *)bytes, len });
    load_sections(bytes, len);
    return 0;
}
