/*
 * A ring as an archive: a section of lists (KIND_RING), then one of keys for each shard that has some (KIND_KEYS).
 * Numbers are little-endian.
 *
 *     ring   keys in all 8, lists 4, then each list: 0 for models or 1 for ranges, how many 4, then
 *            of a model: length 1, the name; of a range: address 16, bits 1
 *     key    hash 32, id 16, expires 8, max_prompt_chars 4, max_requests 4, max_total_requests 4, max_concurrent 4,
 *            models 4 and allow 4 (0: all, else 1 + a list's position), weight 2, flags 1, bytes of name, user and team
 *            1 each, then these three with a NUL behind each
 *     flags  1 plain, 2 delegate, 4 has max_prompt_chars, 8 and 16 think, 32 batch; the others must be 0
 *
 * What is read passes the same checks as what comes from the control plane, and a ring is taken whole or not at all.
 */
#include "archive.h"
#include "parts.h"

#include <assert.h>
#include <endian.h>
#include <stdlib.h>

enum { KIND_RING = 1, KIND_KEYS = 2, FORMAT = 1, MAX_SENTENCE = 1024 };
enum {
    FLAG_PLAIN = 1,
    FLAG_DELEGATE = 2,
    FLAG_PROMPT = 4,
    THINK_SHIFT = 3,
    THINK_MASK = 3,
    FLAG_BATCH = 32,
    FLAGS = 63
};

static_assert((int)KEYRING_OWN_KINDS > (int)KIND_KEYS);

const struct archive_form keyring_form = { .magic = "QGKEYS\r\n", .format = FORMAT };

/* ---- writing ---- */

static void add8(struct text *out, uint8_t number)
{
    text_add(out, (const char *)&number, sizeof number);
}
static void add16(struct text *out, uint16_t number)
{
    number = htole16(number);
    text_add(out, (const char *)&number, sizeof number);
}
static void add32(struct text *out, uint32_t number)
{
    number = htole32(number);
    text_add(out, (const char *)&number, sizeof number);
}
static void add64(struct text *out, uint64_t number)
{
    number = htole64(number);
    text_add(out, (const char *)&number, sizeof number);
}

/* Which list has which number: a table by address. */
struct numbering {
    const struct list **slots;
    uint32_t *numbers; /* beside the slots: 1 + a position in `in_order` */
    const struct list **in_order;
    size_t room, count;
};

static size_t numbering_slot(const struct numbering *numbering, const struct list *list)
{
    size_t at = ((uintptr_t)list >> 4) * 0x9e3779b97f4a7c15u >> 20 & (numbering->room - 1);

    while (numbering->slots[at] && numbering->slots[at] != list)
        at = (at + 1) & (numbering->room - 1);
    return at;
}

static void numbering_release(struct numbering *numbering)
{
    free(numbering->slots);
    free(numbering->numbers);
    free(numbering->in_order);
}

static bool numbering_grow(struct numbering *numbering)
{
    struct numbering more = { .room = numbering->room ? 2 * numbering->room : 64, .count = numbering->count };

    more.slots = calloc(more.room, sizeof(struct list *));
    more.numbers = calloc(more.room, sizeof *more.numbers);
    more.in_order = calloc(more.room, sizeof(struct list *));
    if (!more.slots || !more.numbers || !more.in_order) {
        numbering_release(&more);
        return false;
    }
    for (size_t i = 0; i < numbering->count; i++) {
        size_t slot = numbering_slot(&more, numbering->in_order[i]);
        more.in_order[i] = more.slots[slot] = numbering->in_order[i];
        more.numbers[slot] = (uint32_t)i + 1;
    }
    numbering_release(numbering);
    *numbering = more;
    return true;
}

static bool numbering_add(struct numbering *numbering, const struct list *list)
{
    size_t slot;

    if (2 * (numbering->count + 1) > numbering->room && !numbering_grow(numbering))
        return false;
    slot = numbering_slot(numbering, list);
    if (!numbering->slots[slot]) {
        numbering->slots[slot] = numbering->in_order[numbering->count++] = list;
        numbering->numbers[slot] = (uint32_t)numbering->count;
    }
    return true;
}

static bool number_lists(const struct keyring *ring, struct numbering *numbering)
{
    for (const struct key *key = keyring_next(ring, NULL); key; key = keyring_next(ring, key)) {
        if (key->models && !numbering_add(numbering, list_holding_models(key->models)))
            return false;
        if (key->allow && !numbering_add(numbering, list_holding_ranges(key->allow)))
            return false;
    }
    return true;
}

static void add_list(struct text *out, const struct list *list)
{
    add8(out, list->is_models ? 0 : 1);
    add32(out, (uint32_t)(list->is_models ? list->models.count : list->allow.count));
    for (size_t i = 0; list->is_models && i < list->models.count; i++) {
        add8(out, (uint8_t)strlen(list->models.names[i]));
        text_add_string(out, list->models.names[i]);
    }
    for (size_t i = 0; !list->is_models && i < list->allow.count; i++) {
        text_add(out, (const char *)list->allow.items[i].base.bytes, sizeof list->allow.items[i].base.bytes);
        add8(out, (uint8_t)list->allow.items[i].bits);
    }
}

static void add_key(struct text *out, const struct key *key, const struct numbering *numbering)
{
    const struct list *models = key->models ? list_holding_models(key->models) : NULL;
    const struct list *allow = key->allow ? list_holding_ranges(key->allow) : NULL;
    size_t words = key_copy_bytes(key) - offsetof(struct key, words);

    text_add(out, (const char *)key->hash.bytes, sizeof key->hash.bytes);
    text_add(out, (const char *)key->id, sizeof key->id);
    add64(out, (uint64_t)key->expires_s);
    add32(out, key->max_prompt_chars);
    add32(out, key->max_requests);
    add32(out, key->max_total_requests);
    add32(out, key->max_concurrent);
    add32(out, models ? numbering->numbers[numbering_slot(numbering, models)] : 0);
    add32(out, allow ? numbering->numbers[numbering_slot(numbering, allow)] : 0);
    add16(out, key->weight);
    add8(out, (uint8_t)((key->is_plain ? FLAG_PLAIN : 0) | (key->delegates ? FLAG_DELEGATE : 0) |
                        (key->has_max_prompt_chars ? FLAG_PROMPT : 0) | key->think << THINK_SHIFT |
                        (key->class == KEY_BATCH ? FLAG_BATCH : 0)));
    add8(out, key->name_bytes);
    add8(out, key->user_bytes);
    add8(out, (uint8_t)(words - key->name_bytes - key->user_bytes - 3));
    text_add(out, key->words, words);
}

static void add_sections(struct archive_writer *writer, const struct keyring *ring, const struct numbering *numbering,
                         struct text *bytes)
{
    const struct key *key = keyring_next(ring, NULL);

    add64(bytes, ring->count);
    add32(bytes, (uint32_t)numbering->count);
    for (size_t i = 0; i < numbering->count; i++)
        add_list(bytes, numbering->in_order[i]);
    archive_add(writer, &(struct archive_section){ .kind = KIND_RING, .bytes = text_slice(bytes) });
    while (key && !bytes->err) {
        unsigned shard = shard_of(&key->hash);
        text_clear(bytes);
        for (; key && shard_of(&key->hash) == shard; key = keyring_next(ring, key))
            add_key(bytes, key, numbering);
        archive_add(writer, &(struct archive_section){ .kind = KIND_KEYS, .bytes = text_slice(bytes) });
    }
}

static size_t count_shards(const struct keyring *ring)
{
    size_t count = 0;

    for (size_t i = 0; i < SHARDS; i++)
        count += shard_at(&ring->places[i]) != NULL;
    return count;
}

static enum err cannot_write(const char *path, struct text *why)
{
    text_printf(why, "%s cannot be written: %s", path, err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

enum err keyring_save(const struct keyring *ring, const char *path, const struct archive_section *others, size_t count,
                      struct text *why)
{
    struct numbering numbering = { 0 };
    struct archive_writer *writer;
    enum err err = ERR_SYSTEM;
    struct text bytes;

    if (!numbering_grow(&numbering) || !number_lists(ring, &numbering)) {
        numbering_release(&numbering);
        return cannot_write(path, why);
    }
    writer = archive_begin(path, &keyring_form, ring->version, count + 1 + count_shards(ring), why);
    if (writer) {
        text_init(&bytes, SIZE_MAX / 4);
        for (size_t i = 0; i < count; i++)
            archive_add(writer, &others[i]);
        add_sections(writer, ring, &numbering, &bytes);
        if (bytes.err) {
            archive_cancel(writer);
            err = cannot_write(path, why);
        } else {
            err = archive_finish(writer, why);
        }
        text_release(&bytes);
    }
    numbering_release(&numbering);
    return err;
}

/* ---- reading ---- */

/* What is left of a section. Nothing is read behind its end: `is_bad` says that it was tried. */
struct reading {
    struct slice left;
    bool is_bad;
};

static const char *take(struct reading *reading, size_t len)
{
    const char *at = reading->left.at;

    if (reading->left.len < len) {
        reading->is_bad = true;
        return NULL;
    }
    reading->left.at += len;
    reading->left.len -= len;
    return at;
}
static uint8_t take8(struct reading *reading)
{
    const char *at = take(reading, 1);

    return at ? (uint8_t)*at : 0;
}
static uint16_t take16(struct reading *reading)
{
    const char *at = take(reading, 2);
    uint16_t number = 0;

    if (at)
        memcpy(&number, at, sizeof number);
    return le16toh(number);
}
static uint32_t take32(struct reading *reading)
{
    const char *at = take(reading, 4);
    uint32_t number = 0;

    if (at)
        memcpy(&number, at, sizeof number);
    return le32toh(number);
}
static uint64_t take64(struct reading *reading)
{
    const char *at = take(reading, 8);
    uint64_t number = 0;

    if (at)
        memcpy(&number, at, sizeof number);
    return le64toh(number);
}

/* One attempt at one file. */
struct load {
    struct locksmith *smith;
    const struct keyring_others *others; /* NULL: none are expected */
    bool has_ring;
    uint64_t key_count;
    const struct list **lists; /* held */
    uint32_t list_count;
};

static enum err refuse(struct text *why, const char *what)
{
    text_add_string(why, what);
    return ERR_BAD;
}

static const struct list *read_models(struct load *load, struct reading *reading, uint32_t count)
{
    char *words = calloc(count, KEY_MODEL_MAX_BYTES + 1);
    const char **names = malloc(count * sizeof *names);
    const struct list *list = NULL;

    for (uint32_t i = 0; words && names && i < count; i++) {
        uint8_t len = take8(reading);
        const char *at = take(reading, len);
        names[i] = words + (size_t)i * (KEY_MODEL_MAX_BYTES + 1);
        if (at)
            memcpy(words + (size_t)i * (KEY_MODEL_MAX_BYTES + 1), at, len);
        if (strlen(names[i]) != len || !key_model_is_good(names[i]))
            reading->is_bad = true;
    }
    if (words && names && !reading->is_bad)
        list = list_of_models(locksmith_lists(load->smith), names, count);
    free(words);
    free(names);
    return list;
}

static const struct list *read_ranges(struct load *load, struct reading *reading, uint32_t count)
{
    struct cidr_list ranges = { .items = calloc(count, sizeof *ranges.items), .count = count };
    const struct list *list = NULL;

    for (uint32_t i = 0; ranges.items && i < count; i++) {
        const char *at = take(reading, sizeof ranges.items[i].base.bytes);
        if (at)
            memcpy(ranges.items[i].base.bytes, at, sizeof ranges.items[i].base.bytes);
        ranges.items[i].bits = take8(reading);
        if (ranges.items[i].bits > 128)
            reading->is_bad = true;
    }
    if (ranges.items && !reading->is_bad)
        list = list_of_ranges(locksmith_lists(load->smith), &ranges);
    free(ranges.items);
    return list;
}

/* The lists, which the keys name by their position. */
static enum err read_ring(struct load *load, struct slice bytes, struct text *why)
{
    struct reading reading = { .left = bytes };
    uint32_t count;

    if (load->has_ring)
        return refuse(why, "has two lists of lists");
    load->has_ring = true;
    load->key_count = take64(&reading);
    count = take32(&reading);
    if (reading.is_bad || count > reading.left.len) /* each takes more than a byte */
        return refuse(why, "has a section that ends too early");
    load->lists = calloc((size_t)count + 1, sizeof(struct list *));
    while (load->lists && load->list_count < count) {
        uint8_t kind = take8(&reading);
        uint32_t items = take32(&reading);
        const struct list *list = NULL;
        if (kind > 1 || !items || items > KEY_LIST_MAX || items > reading.left.len)
            return refuse(why, "has a list that is none");
        list = kind ? read_ranges(load, &reading, items) : read_models(load, &reading, items);
        if (reading.is_bad)
            return refuse(why, "has a list that is none");
        if (!list)
            break;
        list_ref(list);
        load->lists[load->list_count++] = list;
    }
    if (load->list_count < count)
        return ERR_NO_MEMORY;
    return reading.left.len ? refuse(why, "has more bytes than it has lists") : ERR_OK;
}

/* The list of that number and sort; NULL with false: there is none. */
static bool list_numbered(const struct load *load, uint32_t number, bool is_models, const struct list **ret_list)
{
    *ret_list = number && number <= load->list_count ? load->lists[number - 1] : NULL;
    return !number || (*ret_list && (*ret_list)->is_models == is_models);
}

static void read_flags(struct key_rule *rule, uint8_t flags)
{
    rule->is_plain = flags & FLAG_PLAIN;
    rule->delegates = flags & FLAG_DELEGATE;
    rule->has_max_prompt_chars = flags & FLAG_PROMPT;
    rule->think = (enum key_think)(flags >> THINK_SHIFT & THINK_MASK);
    rule->class = flags & FLAG_BATCH ? KEY_BATCH : KEY_INTERACTIVE;
}

/* A word and the NUL behind it; NULL: it is not one. */
static const char *take_word(struct reading *reading, size_t len)
{
    const char *at = take(reading, len + 1);

    return at && strnlen(at, len + 1) == len ? at : NULL;
}

static enum err read_key(struct load *load, struct reading *reading, struct text *why)
{
    struct key_rule rule = { 0 };
    const struct list *models, *allow;
    uint8_t flags, name, user, team;
    bool has_lists;
    const char *at = take(reading, sizeof rule.hash.bytes + sizeof rule.id);

    if (!at)
        return refuse(why, "has a section that ends too early");
    memcpy(rule.hash.bytes, at, sizeof rule.hash.bytes);
    memcpy(rule.id, at + sizeof rule.hash.bytes, sizeof rule.id);
    rule.expires_s = (int64_t)take64(reading);
    rule.max_prompt_chars = take32(reading);
    rule.max_requests = take32(reading);
    rule.max_total_requests = take32(reading);
    rule.max_concurrent = take32(reading);
    has_lists = list_numbered(load, take32(reading), true, &models);
    has_lists = list_numbered(load, take32(reading), false, &allow) && has_lists;
    rule.weight = take16(reading);
    flags = take8(reading);
    name = take8(reading);
    user = take8(reading);
    team = take8(reading);
    rule.name = take_word(reading, name);
    rule.user = take_word(reading, user);
    rule.team = take_word(reading, team);
    if (reading->is_bad || !rule.name || !rule.user || !rule.team || !has_lists || flags > FLAGS)
        return refuse(why, "has a key that is none");
    read_flags(&rule, flags);
    if (rule_check(&rule, NULL) != ERR_OK) {
        text_add_literal(why, "cannot be taken: ");
        return rule_check(&rule, why);
    }
    return locksmith_put_listed(load->smith, &rule, models, allow, why);
}

static enum err read_keys(struct load *load, struct slice bytes, struct text *why)
{
    struct reading reading = { .left = bytes };
    enum err err = ERR_OK;

    if (!load->has_ring)
        return refuse(why, "has keys before its list of lists");
    while (reading.left.len && err == ERR_OK)
        err = read_key(load, &reading, why);
    return err == ERR_OK ? locksmith_settle(load->smith) : err;
}

/* What is wrong with it begins with the verb. */
static enum err read_section(struct load *load, const struct archive_section *section, struct text *what)
{
    if (section->kind == KIND_RING)
        return read_ring(load, section->bytes, what);
    if (section->kind == KIND_KEYS)
        return read_keys(load, section->bytes, what);
    if (section->kind >= KEYRING_OWN_KINDS && load->others)
        return load->others->take(load->others->arg, section, what);
    return refuse(what, "has a section of a kind that this version does not know");
}

static enum err read_sections(struct load *load, struct archive *archive, struct text *what, struct text *why)
{
    struct archive_section section;
    enum err err;

    while ((err = archive_next(archive, &section, why)) == ERR_OK) {
        err = read_section(load, &section, what);
        if (err != ERR_OK)
            return err;
    }
    if (err != ERR_NOT_FOUND)
        return err;
    if (!load->has_ring || locksmith_settled(load->smith) != load->key_count)
        return refuse(what, "has not the keys that it says it has");
    return ERR_OK;
}

static void load_release(struct load *load)
{
    while (load->list_count)
        list_unref(load->lists[--load->list_count]);
    free(load->lists);
}

enum err locksmith_load_from(struct locksmith *smith, struct archive *archive, const struct keyring_others *others,
                             struct text *why)
{
    struct load load = { .smith = smith, .others = others };
    struct text what;
    size_t said = why->len;
    enum err err;

    text_init(&what, MAX_SENTENCE);
    locksmith_begin_whole(smith, archive_stamp(archive));
    if (others)
        others->begin(others->arg);
    err = read_sections(&load, archive, &what, why);
    load_release(&load);
    if (err == ERR_OK)
        err = locksmith_commit(smith, &what);
    else
        locksmith_abandon(smith);
    if (err != ERR_OK && why->len == said)
        text_printf(why, "%s %s", archive_path(archive), what.len ? text_string(&what) : err_text(err));
    text_release(&what);
    return err;
}

struct attempt {
    struct locksmith *smith;
    const struct keyring_others *others;
};

static enum err attempt(void *arg, struct archive *archive, struct text *why)
{
    const struct attempt *with = arg;

    return locksmith_load_from(with->smith, archive, with->others, why);
}

enum err locksmith_load(struct locksmith *smith, const char *path, const struct keyring_others *others,
                        struct text *why)
{
    struct attempt with = { .smith = smith, .others = others };

    return archive_read(path, &keyring_form, attempt, &with, why);
}
