#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "some.h"

/* A folder of its own with a snapshot's name in it. */
struct place {
    char folder[32], path[48], previous[64], fresh[56];
};

static struct place place_new(void)
{
    struct place place = { .folder = "/tmp/test_keyring_XXXXXX" };

    CHECK(mkdtemp(place.folder));
    (void)snprintf(place.path, sizeof place.path, "%s/keys", place.folder);
    (void)snprintf(place.previous, sizeof place.previous, "%s.previous", place.path);
    (void)snprintf(place.fresh, sizeof place.fresh, "%s.new", place.path);
    return place;
}

static void place_remove(const struct place *place)
{
    (void)unlink(place->path);
    (void)unlink(place->previous);
    (void)unlink(place->fresh);
    (void)rmdir(place->folder);
}

static void save(const struct locksmith *smith, const char *path)
{
    struct keyring *ring = locksmith_ring((struct locksmith *)(uintptr_t)smith);
    struct text why;

    text_init(&why, 4096);
    if (keyring_save(ring, path, NULL, 0, &why) != ERR_OK)
        check_fail(__FILE__, __LINE__, "%s", text_string(&why));
    keyring_unref(ring);
    text_release(&why);
}

/* What loading says, kept until the next call. */
static const char *said;
static enum err load(struct locksmith *smith, const char *path)
{
    static char kept[4096];
    struct text why;
    enum err err;

    text_init(&why, sizeof kept - 1);
    err = locksmith_load(smith, path, NULL, &why);
    (void)snprintf(kept, sizeof kept, "%s", text_string(&why));
    text_release(&why);
    said = kept;
    return err;
}

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(1 << 20);

    CHECK(file && bytes);
    *ret_len = fread(bytes, 1, 1 << 20, file);
    CHECK(*ret_len < 1 << 20);
    (void)fclose(file);
    return bytes;
}

static void write_file(const char *path, const char *bytes, size_t len)
{
    FILE *file = fopen(path, "wb");

    CHECK(file && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

/* Keys of every sort. */
static struct locksmith *varied(unsigned count, uint64_t version)
{
    struct locksmith *smith = locksmith_new();
    struct cidr ranges[3];
    struct text why;

    text_init(&why, 1024);
    CHECK(cidr_parse(SLICE("10.0.0.0/8"), &ranges[0], &why) == ERR_OK);
    CHECK(cidr_parse(SLICE("::1"), &ranges[1], &why) == ERR_OK);
    CHECK(cidr_parse(SLICE("192.168.1.7"), &ranges[2], &why) == ERR_OK);
    locksmith_begin_whole(smith, version);
    for (unsigned n = 0; n < count; n++) {
        static const char *const models[] = { "a:latest", "b:latest", "c:7b", "d:latest" };
        struct some_key key;
        some_rule(&key, n);
        key.rule.team = n % 2 ? "lab" : NULL;
        key.rule.is_plain = n % 3 == 0;
        key.rule.delegates = n % 3 == 1;
        key.rule.models = n % 5 ? models + n % 4 : NULL;
        key.rule.model_count = n % 5 ? 4 - n % 4 : 0;
        key.rule.has_allow = n % 7 == 0;
        key.rule.allow = (struct cidr_list){ .items = ranges, .count = 1 + n % 3 };
        key.rule.max_requests = n;
        key.rule.max_total_requests = 2 * n;
        key.rule.max_concurrent = n % 11;
        key.rule.has_max_prompt_chars = n % 4 == 0;
        key.rule.max_prompt_chars = n % 4 == 0 ? 1000 * n : 0;
        key.rule.think = (enum key_think)(n % 3);
        key.rule.class = (enum key_class)(n % 2);
        key.rule.weight = 1 + n % 1000;
        key.rule.expires_s = n % 9 ? 0 : 4102444800 + n;
        CHECK(locksmith_put(smith, &key.rule, &why) == ERR_OK);
    }
    some_commit(smith);
    text_release(&why);
    return smith;
}

static bool is_same_key(const struct key *one, const struct key *other)
{
    bool is_same = strcmp(key_team(one), key_team(other)) == 0 && slice_is(key_name(one), key_name(other)) &&
                   slice_is(key_user(one), key_user(other)) && memcmp(one->id, other->id, sizeof one->id) == 0 &&
                   one->is_plain == other->is_plain && one->delegates == other->delegates &&
                   one->has_max_prompt_chars == other->has_max_prompt_chars && one->think == other->think &&
                   one->class == other->class && one->weight == other->weight && one->expires_s == other->expires_s &&
                   one->max_requests == other->max_requests && one->max_total_requests == other->max_total_requests &&
                   one->max_concurrent == other->max_concurrent && one->max_prompt_chars == other->max_prompt_chars &&
                   !one->models == !other->models && !one->allow == !other->allow;

    if (is_same && one->models) {
        is_same = one->models->count == other->models->count;
        for (size_t i = 0; is_same && i < one->models->count; i++)
            is_same = strcmp(one->models->names[i], other->models->names[i]) == 0;
    }
    if (is_same && one->allow)
        is_same = one->allow->count == other->allow->count &&
                  memcmp(one->allow->items, other->allow->items, one->allow->count * sizeof(struct cidr)) == 0;
    return is_same;
}

static void check_same(struct locksmith *smith, struct locksmith *other)
{
    struct keyring *one = locksmith_ring(smith), *two = locksmith_ring(other);

    CHECK_EQ(keyring_count(one), keyring_count(two));
    CHECK_EQ(keyring_version(one), keyring_version(two));
    for (const struct key *key = keyring_next(one, NULL); key; key = keyring_next(one, key)) {
        const struct key *same = keyring_find(two, &key->hash);
        CHECK(same && is_same_key(key, same));
    }
    keyring_unref(one);
    keyring_unref(two);
}

TEST(what_was_saved_is_loaded)
{
    static const unsigned counts[] = { 0, 1, 2, 3000 };
    struct place place = place_new();
    struct stat about;

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct locksmith *smith = varied(counts[i], 40 + i), *other = some_locksmith(5, 1);
        save(smith, place.path);
        CHECK_EQ(load(other, place.path), ERR_OK);
        CHECK_STR(said, strlen(said), "");
        check_same(smith, other);
        locksmith_free(smith);
        locksmith_free(other);
    }
    CHECK(stat(place.path, &about) == 0 && (about.st_mode & 07777) == 0600); /* who may call stands in it */
    CHECK(access(place.fresh, F_OK) != 0);
    place_remove(&place);
}

TEST(where_there_is_no_file_that_is_said_and_nothing_changes)
{
    struct place place = place_new();
    struct locksmith *smith = some_locksmith(5, 1), *same = some_locksmith(5, 1);

    CHECK_EQ(load(smith, place.path), ERR_NOT_FOUND);
    check_same(smith, same);
    locksmith_free(smith);
    locksmith_free(same);
    place_remove(&place);
}

/* Cut anywhere: the header, the table, between sections, in a key. */
TEST(of_a_file_that_was_cut_the_one_before_is_taken_and_said_once)
{
    struct place place = place_new();
    struct locksmith *older = varied(40, 1), *newer = varied(50, 2);
    size_t len;
    char *bytes;

    save(older, place.path);
    save(newer, place.path);
    bytes = read_file(place.path, &len);
    for (size_t cut = 0; cut < len; cut += cut < 100 ? 1 : 37) {
        struct locksmith *smith = locksmith_new();
        write_file(place.path, bytes, cut);
        CHECK_EQ(load(smith, place.path), ERR_OK);
        CHECK_ROW(strstr(said, place.path) == said && !strstr(said, "previous"), said);
        CHECK_ROW(strstr(said, " is cut: ") || strstr(said, "checksum"), said);
        check_same(smith, older);
        locksmith_free(smith);
    }
    write_file(place.path, bytes, len);
    CHECK_EQ(load(older, place.path), ERR_OK);
    check_same(older, newer);
    free(bytes);
    locksmith_free(older);
    locksmith_free(newer);
    place_remove(&place);
}

TEST(a_file_with_any_bit_wrong_is_not_taken)
{
    struct place place = place_new();
    struct locksmith *older = varied(3, 1), *newer = varied(4, 2);
    size_t len;
    char *bytes;

    save(older, place.path);
    save(newer, place.path);
    bytes = read_file(place.path, &len);
    for (size_t bit = 0; bit < len * 8; bit += bit < 2000 ? 1 : 13) {
        struct locksmith *smith = locksmith_new();
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        write_file(place.path, bytes, len);
        CHECK_EQ(load(smith, place.path), ERR_OK);
        CHECK_ROW(*said && !strchr(said, '\n') && !strstr(said, "previous"), said);
        check_same(smith, older);
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        locksmith_free(smith);
    }
    free(bytes);
    locksmith_free(older);
    locksmith_free(newer);
    place_remove(&place);
}

TEST(where_both_are_bad_nothing_changes_and_both_reasons_are_told)
{
    struct place place = place_new();
    struct locksmith *smith = some_locksmith(20, 9), *same = some_locksmith(20, 9);

    write_file(place.path, "something else altogether, long enough for a header", 51);
    write_file(place.previous, "", 0);
    CHECK_EQ(load(smith, place.path), ERR_BAD);
    CHECK_ROW(strstr(said, "/keys is a file of another kind; "), said);
    CHECK_ROW(strstr(said, "/keys.previous is cut: it has 0 bytes"), said);
    check_same(smith, same);
    locksmith_free(smith);
    locksmith_free(same);
    place_remove(&place);
}

/* Well formed as an archive, and yet not a ring: what is written by hand here. */
struct byhand {
    uint32_t kind;
    const char *bytes;
    size_t len;
};

static void check_byhand(const struct byhand *rows, size_t count, uint32_t format, const char *why_not)
{
    struct place place = place_new();
    struct archive_form form = keyring_form;
    struct locksmith *smith = some_locksmith(20, 9), *same = some_locksmith(20, 9);
    struct archive_writer *writer;
    struct text why;

    form.format = format;
    text_init(&why, 4096);
    writer = archive_begin(place.path, &form, 1, count, &why);
    CHECK(writer);
    for (size_t i = 0; i < count; i++)
        archive_add(writer, &(struct archive_section){ rows[i].kind, { rows[i].bytes, rows[i].len } });
    CHECK_EQ(archive_finish(writer, &why), ERR_OK);
    CHECK_EQ(load(smith, place.path), ERR_BAD);
    if (!strstr(said, why_not))
        check_fail(__FILE__, __LINE__, "said: %s\nwanted: %s", said, why_not);
    check_same(smith, same);
    locksmith_free(smith);
    locksmith_free(same);
    place_remove(&place);
    text_release(&why);
}

#define EIGHT(n) n "\0\0\0\0\0\0\0"
#define FOUR(n)  n "\0\0\0"
#define EMPTY    EIGHT("\0") FOUR("\0")
#define SECTION(kind, bytes)               \
    {                                      \
        (kind), (bytes), sizeof(bytes) - 1 \
    }
#define HASH "0123456789abcdef0123456789abcdef"
/* A key up to its models. */
#define KEY                     HASH "an id of 16 byte" EIGHT("\0") FOUR("\0") FOUR("\0") FOUR("\0") FOUR("\0")
#define REST                    "\1\0\0\1\1\0"
#define CHECK_BYHAND(rows, why) check_byhand(rows, sizeof(rows) / sizeof *(rows), 1, why)

TEST(a_file_of_a_later_format_is_not_taken)
{
    static const struct byhand rows[] = { SECTION(1, EMPTY) };

    check_byhand(rows, 1, 2,
                 "/keys was written by a later version of the program: its format is 2, this one reads up to 1");
}

TEST(sections_that_make_no_ring_are_refused)
{
    static const struct byhand none[] = { SECTION(1, EIGHT("\1") FOUR("\0")) };
    static const struct byhand unknown[] = { SECTION(1, EMPTY), SECTION(3, "") };
    static const struct byhand others[] = { SECTION(1, EMPTY), SECTION(16, "") };
    static const struct byhand two[] = { SECTION(1, EMPTY), SECTION(1, EMPTY) };
    static const struct byhand late[] = { SECTION(2, ""), SECTION(1, EMPTY) };
    static const struct byhand early[] = { SECTION(1, EIGHT("\0") "\0\0") };
    static const struct byhand more[] = { SECTION(1, EMPTY "x") };
    static const struct byhand lists[] = { SECTION(1, EIGHT("\0") "\xff\xff\xff\xff"
                                                                  "x") };
    static const struct byhand no_list[] = { SECTION(1, EIGHT("\0") FOUR("\1") "\0" FOUR("\0")) };
    static const struct byhand sort[] = { SECTION(1, EIGHT("\0") FOUR("\1") "\2" FOUR("\1") "\1m") };
    static const struct byhand upper[] = { SECTION(1, EIGHT("\0") FOUR("\1") "\0" FOUR("\1") "\1M") };
    static const struct byhand nul[] = { SECTION(1, EIGHT("\0") FOUR("\1") "\0" FOUR("\1") "\2m\0") };
    static const struct byhand bits[] = { SECTION(1, EIGHT("\0") FOUR("\1") "\1" FOUR("\1") "0123456789abcdef\x81") };

    CHECK_BYHAND(none, "/keys has not the keys that it says it has");
    CHECK_BYHAND(unknown, "/keys has a section of a kind that this version does not know");
    CHECK_BYHAND(others, "/keys has a section of a kind that this version does not know");
    CHECK_BYHAND(two, "/keys has two lists of lists");
    CHECK_BYHAND(late, "/keys has keys before its list of lists");
    CHECK_BYHAND(early, "/keys has a section that ends too early");
    CHECK_BYHAND(more, "/keys has more bytes than it has lists");
    CHECK_BYHAND(lists, "/keys has a section that ends too early");
    CHECK_BYHAND(no_list, "/keys has a list that is none");
    CHECK_BYHAND(sort, "/keys has a list that is none");
    CHECK_BYHAND(upper, "/keys has a list that is none");
    CHECK_BYHAND(nul, "/keys has a list that is none");
    CHECK_BYHAND(bits, "/keys has a list that is none");
}

TEST(keys_that_are_none_are_refused)
{
#define RING_OF(n) SECTION(1, EIGHT(n) FOUR("\1") "\0" FOUR("\1") "\1m")
    static const struct {
        struct byhand rows[2];
        const char *why;
    } rows[] = {
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\2") FOUR("\0") REST "n\0u\0\0") }, "/keys has a key that is none" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\0") FOUR("\1") REST "n\0u\0\0") }, "/keys has a key that is none" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") REST "n\0u\0") }, "/keys has a key that is none" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") REST "nxu\0\0") }, "/keys has a key that is none" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") "\1\0\0\2\1\0"
                                                                "n\0\0u\0\0") },
          "a key that is none" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") "\1\0\x40\1\1\0"
                                                                "n\0u\0\0") },
          "a key that is none" },
        { { RING_OF("\1"), SECTION(2, HASH) }, "/keys has a section that ends too early" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") "\0\0\0\1\1\0"
                                                                "n\0u\0\0") },
          "/keys cannot be taken: the key sha256:30313233… must have a weight from 1 to 1000" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") "\1\0\x18\1\1\0"
                                                                "n\0u\0\0") },
          "/keys cannot be taken: the key sha256:30313233… asks for what this version does not know" },
        { { RING_OF("\1"), SECTION(2, KEY FOUR("\1") FOUR("\0") REST " \0u\0\0") },
          "/keys cannot be taken: the key sha256:30313233… has a name that cannot stand in a log" },
        { { RING_OF("\2"),
            SECTION(2, KEY FOUR("\1") FOUR("\0") REST "n\0u\0\0" KEY FOUR("\0") FOUR("\0") REST "n\0u\0\0") },
          "/keys has not the keys that it says it has" },
        { { RING_OF("\0"), SECTION(2, KEY FOUR("\1") FOUR("\0") REST "n\0u\0\0") },
          "/keys has not the keys that it says it has" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_byhand(rows[i].rows, 2, 1, rows[i].why);
}

static unsigned begun, taken;
static void on_begin(void *arg)
{
    (void)arg;
    begun++;
    taken = 0;
}
static enum err on_other(void *arg, const struct archive_section *section, struct text *why)
{
    if (section->kind == 17 && slice_is(section->bytes, slice_of(arg))) {
        taken++;
        return ERR_OK;
    }
    text_add_literal(why, "has something else");
    return ERR_BAD;
}

TEST(what_others_put_beside_the_keys_comes_back_from_the_same_file)
{
    struct place place = place_new();
    struct locksmith *smith = varied(10, 3), *other = locksmith_new();
    struct keyring *ring = locksmith_ring(smith);
    char wanted[] = "older";
    struct archive_section section = { .kind = 17, .bytes = SLICE("older") };
    struct keyring_others others = { .begin = on_begin, .take = on_other, .arg = wanted };
    struct text why;

    text_init(&why, 4096);
    CHECK_EQ(keyring_save(ring, place.path, &section, 1, &why), ERR_OK);
    section.bytes = SLICE("newer");
    CHECK_EQ(keyring_save(ring, place.path, &section, 1, &why), ERR_OK);
    CHECK_EQ(locksmith_load(other, place.path, &others, &why), ERR_OK); /* of the newest its owner will have nothing */
    CHECK_ROW(slice_ends(text_slice(&why), SLICE("/keys has something else")), text_string(&why));
    CHECK(begun == 2 && taken == 1);
    check_same(other, smith);
    CHECK_EQ(load(other, place.path), ERR_BAD);
    keyring_unref(ring);
    locksmith_free(smith);
    locksmith_free(other);
    place_remove(&place);
    text_release(&why);
}

TEST(a_file_that_cannot_be_written_leaves_what_was)
{
    struct place place = place_new();
    struct locksmith *older = varied(10, 1), *newer = varied(11, 2), *smith = locksmith_new();
    struct keyring *ring = locksmith_ring(newer);
    struct text why;

    text_init(&why, 4096);
    save(older, place.path);
    CHECK(mkdir(place.fresh, 0700) == 0);
    CHECK_EQ(keyring_save(ring, place.path, NULL, 0, &why), ERR_SYSTEM);
    CHECK_ROW(strstr(text_string(&why), "/keys.new cannot be written: "), text_string(&why));
    CHECK_EQ(load(smith, place.path), ERR_OK);
    CHECK_STR(said, strlen(said), "");
    check_same(smith, older);
    CHECK(rmdir(place.fresh) == 0);
    text_clear(&why);
    CHECK_EQ(keyring_save(ring, "/nonexistent/keys", NULL, 0, &why), ERR_SYSTEM);
    CHECK_STR(text_string(&why), why.len, "/nonexistent/keys.new cannot be written: No such file or directory");
    keyring_unref(ring);
    locksmith_free(older);
    locksmith_free(newer);
    locksmith_free(smith);
    place_remove(&place);
    text_release(&why);
}
