/*
 * Cardinality is bounded here. The first label sets get numbers of their own; then those of further models are counted
 * as model "other"; and when even these become too many, only the first letter of the status is told apart.
 */
#include <stdlib.h>

#include "metrics_parts.h"

enum { RESERVED_FOR_OTHER = 96, RESERVED_FOR_STRICT = 16 };

void names_init(struct names *names, unsigned label_count, unsigned max)
{
    unsigned reserved = label_count == 1 ? 1 : RESERVED_FOR_OTHER + RESERVED_FOR_STRICT;

    *names = (struct names){
        .label_count = label_count,
        .max = max,
        .folds_at = max - reserved,
        .strict_at = label_count == 1 ? max : max - RESERVED_FOR_STRICT,
    };
}

void names_release(struct names *names)
{
    for (unsigned i = 0; i < atomic_load_explicit(&names->count, memory_order_relaxed); i++)
        if (names->sets[i] < names->reserve || names->sets[i] >= names->reserve + STATUS_CLASSES)
            free(names->sets[i]);
}

static uint64_t hash_labels(const struct slice *labels, unsigned count)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (unsigned i = 0; i < count; i++) {
        uint64_t word = 0;
        size_t at = 0;
        for (; at + sizeof word <= labels[i].len; at += sizeof word) {
            memcpy(&word, labels[i].at + at, sizeof word);
            hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
            hash ^= hash >> 29;
        }
        word = labels[i].len + 1;
        for (; at < labels[i].len; at++)
            word = word << 8 | (unsigned char)labels[i].at[at];
        hash = (hash ^ word) * 0xd6e8feb86659fd93u;
        hash ^= hash >> 32;
    }
    return hash;
}

static bool is_set(const struct label_set *set, uint64_t hash, const struct slice *labels, unsigned count)
{
    if (set->hash != hash)
        return false;
    for (unsigned i = 0; i < count; i++)
        if (!slice_is(set->labels[i], labels[i]))
            return false;
    return true;
}

static struct label_set *set_new(uint64_t hash, const struct slice *labels, unsigned count)
{
    struct label_set *set;
    size_t bytes = 0;
    char *at;

    for (unsigned i = 0; i < count; i++)
        bytes += labels[i].len;
    set = malloc(sizeof *set + bytes);
    if (!set)
        return NULL;
    *set = (struct label_set){ .hash = hash };
    at = (char *)(set + 1);
    for (unsigned i = 0; i < count; i++) {
        if (labels[i].len)
            memcpy(at, labels[i].at, labels[i].len);
        set->labels[i] = (struct slice){ at, labels[i].len };
        at += labels[i].len;
    }
    return set;
}

static int find(const struct names *names, uint64_t hash, const struct slice *labels)
{
    unsigned count = atomic_load_explicit(&names->count, memory_order_relaxed);

    for (unsigned i = 0; i < count; i++)
        if (is_set(names->sets[i], hash, labels, names->label_count))
            return (int)i;
    return -1;
}

/* One that needs no memory, for labels that are literals. NULL: all are used. */
static struct label_set *set_of_reserve(struct names *names, uint64_t hash, const struct slice *literals)
{
    struct label_set *set;

    if (names->reserve_used == STATUS_CLASSES)
        return NULL;
    set = &names->reserve[names->reserve_used++];
    set->hash = hash;
    memcpy(set->labels, literals, names->label_count * sizeof *literals);
    return set;
}

/* Under the lock. */
static int find_or_add(struct names *names, const struct slice *labels, unsigned max, bool are_literals)
{
    uint64_t hash = hash_labels(labels, names->label_count);
    unsigned count = atomic_load_explicit(&names->count, memory_order_relaxed);
    int number = find(names, hash, labels);
    struct label_set *set;

    if (number >= 0 || count >= max)
        return number;
    set = set_new(hash, labels, names->label_count);
    if (!set && are_literals)
        set = set_of_reserve(names, hash, labels);
    if (!set)
        return -1;
    names->sets[count] = set;
    atomic_store_explicit(&names->count, count + 1, memory_order_release);
    return (int)count;
}

/* Under the lock. */
static int add(struct names *names, const struct slice *labels)
{
    struct slice folded[MAX_LABELS];
    bool is_models = names->label_count == 1;
    int number = find_or_add(names, labels, names->folds_at, false);

    if (number >= 0)
        return number;
    memcpy(folded, labels, names->label_count * sizeof *folded);
    folded[is_models ? 0 : LABEL_MODEL] = SLICE("other");
    number = find_or_add(names, folded, names->strict_at, is_models);
    if (number >= 0 || is_models)
        return number;
    folded[LABEL_DIALECT] = folded[LABEL_BACKEND] = folded[LABEL_REASON] = SLICE("other");
    return find_or_add(names, folded, names->max, true); /* the status is a literal too: status_class() */
}

/* Cut and made valid UTF-8, into `room` of LABEL_BYTES. */
static struct slice cleaned(struct slice label, char *room)
{
    label.len = utf8_cut(label, LABEL_BYTES);
    if (utf8_valid(label))
        return label;
    for (size_t i = 0; i < label.len; i++)
        room[i] = (unsigned char)label.at[i] < 0x80 ? label.at[i] : '_';
    return (struct slice){ room, label.len };
}

static int ask(struct metrics *metrics, struct names *names, const struct slice *labels)
{
    char room[MAX_LABELS][LABEL_BYTES];
    struct slice clean[MAX_LABELS];
    int number;

    for (unsigned i = 0; i < names->label_count; i++)
        clean[i] = cleaned(labels[i], room[i]);
    (void)pthread_mutex_lock(&metrics->lock);
    number = add(names, clean);
    (void)pthread_mutex_unlock(&metrics->lock);
    return number;
}

/* A full table is emptied: models that come and go for months must not fill it for ever. */
static void remember(struct known *known, uint64_t hash, int number)
{
    unsigned at = (unsigned)hash % (MAX_REQUEST_SETS * 2);

    if (known->count >= MAX_REQUEST_SETS)
        *known = (struct known){ 0 };
    while (known->number[at])
        at = (at + 1) % (MAX_REQUEST_SETS * 2);
    known->hash[at] = hash;
    known->number[at] = (uint16_t)(number + 1);
    known->count++;
}

/* Two sets whose 64 bits are alike would be counted as one; labels are nobody's to choose (configured names or
 * "other"). */
int names_number(struct metrics *metrics, struct names *names, struct known *known, const struct slice *labels)
{
    uint64_t hash = hash_labels(labels, names->label_count);
    unsigned at = (unsigned)hash % (MAX_REQUEST_SETS * 2);
    int number;

    for (; known->number[at]; at = (at + 1) % (MAX_REQUEST_SETS * 2))
        if (known->hash[at] == hash)
            return known->number[at] - 1;
    number = ask(metrics, names, labels);
    if (number >= 0)
        remember(known, hash, number);
    return number;
}
