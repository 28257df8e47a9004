/*
 * bench_keyring - what keys cost: bytes resident a key (of the process, read from the kernel), looking one up at random
 * among 10,000 and among 1,000,000 with the hash known and with the hash to be made, one change and a hundred, and
 * reading the file that a gateway keeps them in. bench_keyring [KEYS] [FILE]
 *
 * Look-ups are chained, so that one waits for the one before, as a worker does: the next key is chosen by what was
 * found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "archive.h"
#include "keyring.h"

enum { LOOKS = 1000000, ROUNDS = 5, CHANGES = 200, MANY = 100 };

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static void must(bool claim, const struct text *why)
{
    if (claim)
        return;
    fprintf(stderr, "%s\n", why ? text_string(why) : "out of memory");
    exit(EXIT_FAILURE);
}

static size_t resident_bytes(void)
{
    unsigned long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%lu %lu", &pages, &resident) != 2)
        exit(EXIT_FAILURE);
    (void)fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}

static struct digest hash_of(unsigned n)
{
    char secret[48];
    struct digest hash;
    int len = snprintf(secret, sizeof secret, "qk_%043u", n); /* as long as a real one */

    digest_sha256((struct slice){ secret, (size_t)len }, &hash);
    return hash;
}

/* Two keys a user, a tenth of them with one of 16 lists of models. */
static void put(struct locksmith *smith, unsigned n, unsigned weight)
{
    char name[24], user[24], team[24], model[24];
    const char *models[] = { "qwen3:32b", model };
    struct key_rule rule = { .name = name, .user = user, .team = team, .weight = weight };
    struct text why;

    text_init(&why, 1024);
    (void)snprintf(name, sizeof name, "%s", n % 2 ? "laptop" : "ci");
    (void)snprintf(user, sizeof user, "user%06u", n / 2);
    (void)snprintf(team, sizeof team, "team%03u", n % 1000);
    (void)snprintf(model, sizeof model, "m%u:latest", n / 10 % 16);
    rule.hash = hash_of(n);
    memcpy(rule.id, rule.hash.bytes, sizeof rule.id);
    rule.expires_s = 1900000000;
    rule.max_requests = 30;
    if (n % 10 == 0) {
        rule.models = models;
        rule.model_count = 2;
    }
    must(locksmith_put(smith, &rule, &why) == ERR_OK, &why);
    text_release(&why);
}

static struct locksmith *make(unsigned count)
{
    struct locksmith *smith = locksmith_new();
    struct text why;

    text_init(&why, 1024);
    must(smith != NULL, NULL);
    locksmith_begin_whole(smith, 1);
    for (unsigned n = 0; n < count; n++)
        put(smith, n, 1);
    must(locksmith_commit(smith, &why) == ERR_OK, &why);
    text_release(&why);
    return smith;
}

static volatile uint32_t sink; /* so that nothing is left out because nobody looks */

/* The best of ROUNDS: the rest is noise. */
static double look_ns(const struct keyring *ring, const struct digest *hashes, unsigned count)
{
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t next = round;
        int64_t start = now_ns();
        for (unsigned i = 0; i < LOOKS; i++) {
            const struct key *key = keyring_find(ring, &hashes[(uint64_t)next * count >> 32]);
            next = next * 1664525u + 1013904223u + (key ? key->weight : 0);
        }
        double ns = (double)(now_ns() - start) / LOOKS;
        sink = next;
        best = ns < best ? ns : best;
    }
    return best;
}

/* What walking the table of hashes itself costs, which a worker does not: it has just made the hash. */
static double chain_ns(const struct digest *hashes, unsigned count)
{
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t next = round;
        int64_t start = now_ns();
        for (unsigned i = 0; i < LOOKS; i++)
            next = next * 1664525u + 1013904223u + (hashes[(uint64_t)next * count >> 32].bytes[20] & 1);
        double ns = (double)(now_ns() - start) / LOOKS;
        sink = next;
        best = ns < best ? ns : best;
    }
    return best;
}

static double hash_and_look_ns(const struct keyring *ring, unsigned count)
{
    static char secrets[1024][48];
    double best = 1e18;

    for (unsigned i = 0; i < 1024; i++)
        (void)snprintf(secrets[i], sizeof secrets[i], "qk_%043u", (unsigned)((uint64_t)i * 2654435761u % count));
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t found = 0;
        int64_t start = now_ns();
        for (unsigned i = 0; i < LOOKS / 4; i++) {
            struct digest hash;
            digest_sha256((struct slice){ secrets[(i + found) & 1023], 46 }, &hash);
            found += keyring_find(ring, &hash) == NULL;
        }
        double ns = (double)(now_ns() - start) / (LOOKS / 4);
        sink = found;
        best = ns < best ? ns : best;
    }
    return best;
}

static void bench_looks(struct locksmith *smith, unsigned count)
{
    struct digest *hashes = malloc(count * sizeof *hashes);
    struct keyring *ring = locksmith_ring(smith);

    must(hashes != NULL, NULL);
    for (unsigned n = 0; n < count; n++)
        hashes[n] = hash_of(n);
    printf("%9u keys: look-up %6.0f ns (and %.0f for choosing one), hash and look-up of one of 1,024 %6.0f ns\n", count,
           look_ns(ring, hashes, count) - chain_ns(hashes, count), chain_ns(hashes, count),
           hash_and_look_ns(ring, count));
    keyring_unref(ring);
    free(hashes);
}

static int by_number(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return a < b ? -1 : a > b;
}

/* A change is a batch; a ring is held all the while, as workers do. */
static void bench_changes(struct locksmith *smith, unsigned count, unsigned keys_a_batch)
{
    static int64_t took[CHANGES];
    struct keyring *held = NULL;
    struct text why;

    text_init(&why, 1024);
    for (unsigned i = 0; i < CHANGES; i++) {
        struct keyring *ring = locksmith_ring(smith);
        uint64_t version = keyring_version(ring);
        keyring_unref(held);
        held = ring;
        int64_t start = now_ns();
        must(locksmith_begin(smith, version, version + 1, &why) == ERR_OK, &why);
        for (unsigned k = 0; k < keys_a_batch; k++)
            put(smith, (i * keys_a_batch + k) * 7919u % count, 2);
        must(locksmith_commit(smith, &why) == ERR_OK, &why);
        took[i] = now_ns() - start;
    }
    keyring_unref(held);
    qsort(took, CHANGES, sizeof *took, by_number);
    printf("%9u keys: %3u changed in %8.1f us (median), %8.1f us (worst of %u)\n", count, keys_a_batch,
           (double)took[CHANGES / 2] / 1000, (double)took[CHANGES - 1] / 1000, CHANGES);
    text_release(&why);
}

static void bench_disk(struct locksmith *smith, const char *path)
{
    struct keyring *ring = locksmith_ring(smith);
    struct locksmith *other = locksmith_new();
    struct text why;
    int64_t start, saved, loaded;
    size_t before;

    text_init(&why, 4096);
    must(other != NULL, NULL);
    start = now_ns();
    must(keyring_save(ring, path, NULL, 0, &why) == ERR_OK, &why);
    saved = now_ns();
    before = resident_bytes();
    must(locksmith_load(other, path, NULL, &why) == ERR_OK, &why);
    loaded = now_ns();
    printf("%9zu keys: written to disk in %.0f ms, read in %.0f ms, resident then %.1f bytes a key\n",
           keyring_count(ring), (double)(saved - start) / 1e6, (double)(loaded - saved) / 1e6,
           ((double)resident_bytes() - (double)before) / (double)keyring_count(ring));
    keyring_unref(ring);
    locksmith_free(other);
    (void)unlink(path);
    text_release(&why);
}

int main(int argc, char **argv)
{
    unsigned most = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1000000;
    const char *path = argc > 2 ? argv[2] : "bench_keyring.keys";
    struct locksmith *smith = make(10000);
    struct keyring *ring;
    size_t before;

    bench_looks(smith, 10000);
    bench_changes(smith, 10000, 1);
    locksmith_free(smith);
    before = resident_bytes();
    smith = make(most);
    ring = locksmith_ring(smith);
    printf("%9u keys: resident %.1f bytes a key, by its own account %.1f\n", most,
           ((double)resident_bytes() - (double)before) / most, (double)keyring_bytes(ring) / most);
    keyring_unref(ring);
    bench_looks(smith, most);
    bench_changes(smith, most, 1);
    bench_changes(smith, most, MANY);
    bench_disk(smith, path);
    locksmith_free(smith);
    return EXIT_SUCCESS;
}
