/* Readers look up while a locksmith works. Under the thread sanitizer this says what is shared how. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "some.h"

enum { READERS = 4, KEYS = 3000, CHANGES = 400 };

/* As a worker's letter box: a ring handed over under a lock. */
struct reader {
    pthread_t thread;
    pthread_mutex_t lock;
    struct keyring *mail;
    unsigned seed;
    atomic_ulong looked;
};

static atomic_bool is_over;

/* Key n's weight is that of the last change that touched it, and of every ring: 1 + its version % 1000 for key 0. */
static void look(struct reader *reader, const struct keyring *ring, void *memory)
{
    unsigned n = (unsigned)rand_r(&reader->seed) % KEYS, id;
    const struct key *key = some_found(ring, n), *copy;

    if (key) { /* the odd ones come and go */
        memcpy(&id, key->id, sizeof id);
        CHECK(id == n && key->models->count == 1);
        copy = key_copy(key, memory);
        CHECK(copy->models == key->models && copy->weight == key->weight);
        key_let_go(copy);
    }
    CHECK(key || n % 2);
    key = some_found(ring, 0);
    CHECK_EQ(key->weight, 1 + keyring_version(ring) % 1000);
}

static void *read_on(void *arg)
{
    struct reader *reader = arg;
    struct keyring *ring = NULL;
    void *memory = malloc(1024);

    while (!atomic_load(&is_over)) {
        (void)pthread_mutex_lock(&reader->lock);
        if (reader->mail) {
            (void)keyring_unref(ring);
            ring = reader->mail;
            reader->mail = NULL;
        }
        (void)pthread_mutex_unlock(&reader->lock);
        for (unsigned i = 0; i < 20; i++)
            look(reader, ring, memory);
        atomic_fetch_add(&reader->looked, 1);
    }
    keyring_unref(ring);
    free(memory);
    return NULL;
}

static void put(struct locksmith *smith, unsigned n, uint64_t version)
{
    char model[32];
    const char *models[] = { model };
    struct some_key key;
    struct text why;

    text_init(&why, 1024);
    (void)snprintf(model, sizeof model, "m%u:latest", (unsigned)version % 50);
    some_rule(&key, n);
    key.rule.weight = 1 + (unsigned)version % 1000;
    key.rule.models = models;
    key.rule.model_count = 1;
    CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
    text_release(&why);
}

static void hand_over(struct reader *reader, struct locksmith *smith)
{
    (void)pthread_mutex_lock(&reader->lock);
    (void)keyring_unref(reader->mail);
    reader->mail = locksmith_ring(smith);
    (void)pthread_mutex_unlock(&reader->lock);
}

TEST(readers_look_up_while_keys_change)
{
    static struct reader readers[READERS];
    struct locksmith *smith = locksmith_new();

    locksmith_begin_whole(smith, 1);
    for (unsigned n = 0; n < KEYS; n++)
        put(smith, n, 1);
    some_commit(smith);
    for (unsigned i = 0; i < READERS; i++) {
        readers[i].seed = i;
        (void)pthread_mutex_init(&readers[i].lock, NULL);
        hand_over(&readers[i], smith);
        CHECK(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]) == 0);
    }
    for (uint64_t version = 2; version < CHANGES; version++) {
        some_begin(smith, version - 1, version);
        put(smith, 0, version);
        for (unsigned k = 0; k < 3; k++) {
            unsigned n = (unsigned)(version * 7 + k * 11) % KEYS | 1;
            if (version % 2)
                some_removal(smith, n);
            else
                put(smith, n, version);
        }
        some_commit(smith);
        for (unsigned i = 0; i < READERS; i++)
            hand_over(&readers[i], smith);
        CHECK(locksmith_tidy(smith) <= 2 * READERS); /* what each has in hand and in its box, nothing piles up */
    }
    for (unsigned i = 0; i < READERS; i++)
        while (!atomic_load(&readers[i].looked))
            (void)sched_yield();
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < READERS; i++) {
        (void)pthread_join(readers[i].thread, NULL);
        (void)keyring_unref(readers[i].mail);
        (void)pthread_mutex_destroy(&readers[i].lock);
    }
    CHECK_EQ(locksmith_tidy(smith), 0);
    locksmith_free(smith);
}
