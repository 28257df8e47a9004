/* What lies on the disk, damaged in every way that a kill, a power cut or a bad disk can. */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "check.h"
#include "codec.h"
#include "control.h"
#include "digest.h"
#include "journal.h"
#include "keyring.h"
#include "scribe.h"
#include "snapshot.h"

enum { RECORDS = 3 };

static void add_key(struct text *out, const char *secret)
{
    struct digest hash;
    struct qw_change change = { .what = QW_KEY };
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    digest_sha256(slice_of(secret), &hash);
    change.key = (struct qw_key){ .id = { (const char *)hash.bytes, CODEC_ID_BYTES },
                                  .hash = { (const char *)hash.bytes, CODEC_HASH_BYTES },
                                  .user = SLICE("ann"),
                                  .name = slice_of(secret) };
    CHECK_EQ(change_pack(&change, out, &why), ERR_OK);
}

/* A header and RECORDS records, the n-th with key "secret-n". ends[n]: bytes up to the n-th record's end. */
static void make_journal(struct text *out, uint64_t base, size_t ends[RECORDS + 1])
{
    text_init(out, 1 << 20);
    journal_add_header(out, base);
    ends[0] = out->len;
    for (unsigned i = 0; i < RECORDS; i++) {
        char secret[16];
        struct text changes;
        text_init(&changes, 1 << 20);
        (void)snprintf(secret, sizeof secret, "secret-%u", i);
        add_key(&changes, secret);
        journal_add_record(out, text_slice(&changes), base + i, base + i + 1);
        text_release(&changes);
        ends[i + 1] = out->len;
    }
}

static unsigned count_records(struct slice bytes)
{
    struct journal_reading reading;
    struct journal_record record;
    unsigned count = 0;

    if (!journal_begin(bytes, &reading))
        return 0;
    while (journal_next(&reading, &record)) {
        CHECK_EQ(record.from, 5 + count);
        CHECK_EQ(record.to, 6 + count);
        CHECK(record.changes.len > 32);
        count++;
    }
    CHECK_EQ(reading.good + reading.left.len, bytes.len);
    return count;
}

TEST(a_journal_torn_at_any_byte_has_the_records_before)
{
    struct text journal;
    size_t ends[RECORDS + 1];

    make_journal(&journal, 5, ends);
    for (size_t len = 0; len <= journal.len; len++) {
        unsigned whole = 0;
        while (whole < RECORDS && ends[whole + 1] <= len)
            whole++;
        CHECK_EQ(count_records((struct slice){ journal.at, len }), len < ends[0] ? 0 : whole);
    }
    text_release(&journal);
}

TEST(a_journal_with_any_bit_turned_has_the_records_before)
{
    struct text journal;
    size_t ends[RECORDS + 1];

    make_journal(&journal, 5, ends);
    for (size_t bit = 0; bit < 8 * journal.len; bit++) {
        unsigned whole = 0;
        journal.at[bit / 8] ^= (char)(1 << bit % 8);
        while (whole < RECORDS && ends[whole + 1] <= bit / 8)
            whole++;
        CHECK_EQ(count_records(text_slice(&journal)), bit / 8 < ends[0] ? 0 : whole);
        journal.at[bit / 8] ^= (char)(1 << bit % 8);
    }
    text_release(&journal);
}

/* ---- a gateway's start from it ---- */

static char folder[] = "/tmp/qg-control-XXXXXX";
static struct event_base *base;
static struct snapshot *file;

static void write_journal(uint64_t version, struct slice bytes)
{
    char memory[256];
    struct text path = text_over(memory, sizeof memory);
    FILE *out;

    scribe_add_journal_path(folder, version, &path);
    out = fopen(memory, "we");
    CHECK(out && fwrite(bytes.at, 1, bytes.len, out) == bytes.len && fclose(out) == 0);
}

__attribute__((constructor)) static void make_place(void)
{
    char yaml[512], words[1024];
    struct text why = text_over(words, sizeof words);

    if (!mkdtemp(folder))
        abort();
    (void)snprintf(yaml, sizeof yaml, "control: {url: 'tcp://127.0.0.1:1', name: gw, state: %s}\n", folder);
    file = snapshot_parse("c.yaml", slice_of(yaml), &why, NULL);
    base = event_base_new();
    if (!file || !base)
        abort();
}

__attribute__((destructor)) static void remove_place(void)
{
    char command[128];

    snapshot_unref(file);
    event_base_free(base);
    arena_thread_stop();
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    (void)!system(command);
}

/* How many of the journal's keys a gateway that starts now lets in: the first ones, and no gap. */
static unsigned keys_after_start(void)
{
    const struct control_options options = { .base = base, .file = file, .version = "0.1.0" };
    char memory[1024];
    struct text why = text_over(memory, sizeof memory);
    struct control *control = control_open(&options, &why);
    struct control_news news;
    unsigned count = 0;

    if (!control)
        check_fail(__FILE__, __LINE__, "%s", memory);
    control_know(control, &news);
    for (unsigned i = 0; i < RECORDS; i++) {
        char secret[16];
        struct digest hash;
        (void)snprintf(secret, sizeof secret, "secret-%u", i);
        digest_sha256(slice_of(secret), &hash);
        if (keyring_find(news.keys, &hash)) {
            CHECK_EQ(count, i);
            count++;
        }
    }
    CHECK_EQ(keyring_version(news.keys), count);
    CHECK_EQ(keyring_count(news.keys), count);
    control_close(control);
    return count;
}

static void empty_place(void)
{
    char command[160];

    (void)snprintf(command, sizeof command, "rm -f %s/journal.* %s/keys* %s/heard*", folder, folder, folder);
    CHECK(system(command) == 0);
}

TEST(a_start_from_a_torn_journal_has_what_was_whole)
{
    struct text journal;
    size_t ends[RECORDS + 1];

    make_journal(&journal, 0, ends);
    (void)!freopen("/dev/null", "w", stderr); /* each says that it was torn */
    for (size_t len = 0; len <= journal.len; len += len == ends[0] || len == ends[2] ? 1 : 7) {
        unsigned whole = 0;
        while (whole < RECORDS && ends[whole + 1] <= len)
            whole++;
        empty_place();
        write_journal(0, (struct slice){ journal.at, len });
        CHECK_EQ(keys_after_start(), whole);
        CHECK_EQ(keys_after_start(), whole); /* the tail is cut off, and nothing else */
    }
    text_release(&journal);
}

TEST(journals_lead_on_from_each_other_and_not_over_a_gap)
{
    struct text journal, second;
    size_t ends[RECORDS + 1];

    make_journal(&journal, 0, ends);
    text_init(&second, 1 << 20);
    journal_add_header(&second, 2);
    text_add(&second, journal.at + ends[2], ends[3] - ends[2]);
    empty_place();
    write_journal(0, (struct slice){ journal.at, ends[2] });
    write_journal(2, text_slice(&second));
    CHECK_EQ(keys_after_start(), 3);
    empty_place();
    write_journal(0, (struct slice){ journal.at, ends[1] });
    write_journal(2, text_slice(&second));
    CHECK_EQ(keys_after_start(), 1);
    text_release(&second);
    text_release(&journal);
}
