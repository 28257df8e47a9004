/*
 * The folder `state`. At a start: the archive, or the one before where it is no good, which is said; then every journal
 * from its version on, as far as one leads on from the other, as one batch. A record that is not whole ends a journal:
 * behind it nothing was ever confirmed.
 */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive.h"
#include "clock.h"
#include "control_parts.h"
#include "identity.h"
#include "journal.h"
#include "log.h"

enum { MAX_JOURNALS = 1024, MAX_JOURNAL_FILE = 1 << 30 };

/* ---- the archive ---- */

struct loading {
    struct control *control;
    struct others others;
    struct snapshot *snapshot; /* of them */
};

static void forget_loaded(void *arg)
{
    struct loading *loading = arg;

    others_release(&loading->others);
    loading->snapshot = snapshot_unref(loading->snapshot);
}

static enum err take_section(void *arg, const struct archive_section *section, struct text *why)
{
    struct loading *loading = arg;
    enum err err;

    if (section->kind != SCRIBE_SECTION_OTHERS || loading->snapshot) {
        text_add_literal(why, "has a section of a kind that this version does not know");
        return ERR_BAD;
    }
    err = others_unpack(section->bytes, &loading->others, why);
    if (err != ERR_OK)
        return err;
    text_add_literal(why, "holds what cannot be taken: ");
    loading->snapshot = overlay(loading->control->file, &loading->others, 0, why, NULL);
    if (!loading->snapshot)
        return ERR_BAD;
    text_clear(why);
    return ERR_OK;
}

static void load_archive(struct control *control)
{
    struct loading loading = { .control = control };
    const struct keyring_others others = { .begin = forget_loaded, .take = take_section, .arg = &loading };
    struct text why;
    enum err err;

    text_init(&why, MAX_SENTENCE);
    err = locksmith_load(control->smith, control->path, &others, &why);
    if (err == ERR_OK) {
        struct keyring *ring = locksmith_ring(control->smith);
        control->held = control->archive_version = keyring_version(ring);
        (void)keyring_unref(ring);
        control->others = loading.others;
        control->snapshot = loading.snapshot;
        if (why.len)
            log_error("%s: going on from the one before, of version %llu", text_string(&why),
                      (unsigned long long)control->held);
    } else {
        forget_loaded(&loading);
        if (err != ERR_NOT_FOUND)
            log_error("%s: beginning with nothing, until the control plane is heard", text_string(&why));
    }
    text_release(&why);
}

/* ---- the journals ---- */

struct journals {
    uint64_t bases[MAX_JOURNALS];
    unsigned count;
};

static int by_number(const void *left, const void *right)
{
    const uint64_t *a = left, *b = right;

    return *a < *b ? -1 : *a > *b;
}

static void find_journals(const char *state, struct journals *journals)
{
    DIR *folder = opendir(state);
    const struct dirent *entry;

    while (folder && (entry = readdir(folder)) && journals->count < MAX_JOURNALS) {
        unsigned long long base;
        int end = 0;
        if (sscanf(entry->d_name, "journal.%20llu%n", &base, &end) == 1 && !entry->d_name[end])
            journals->bases[journals->count++] = base;
    }
    if (folder)
        (void)closedir(folder);
    qsort(journals->bases, journals->count, sizeof *journals->bases, by_number);
}

static bool read_whole(const char *path, struct text *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : 1;

    while (got > 0 && text_reserve(out, 1 << 20)) {
        got = read(fd, out->at + out->len, 1 << 20);
        if (got > 0)
            out->len += (size_t)got;
        else if (got < 0 && errno == EINTR)
            got = 1;
    }
    if (fd >= 0)
        (void)close(fd);
    return got == 0;
}

/* What all journals lead to from where the archive is. */
struct replay {
    struct text changes;
    uint64_t at;
    uint64_t last_base, last_good; /* the last journal, and how much of it is good */
    bool is_open;                  /* it leads to `at`: the next record may follow there */
};

static void replay_journal(const char *path, uint64_t base, struct replay *replay)
{
    struct journal_reading reading;
    struct journal_record record;
    struct text bytes;

    text_init(&bytes, MAX_JOURNAL_FILE);
    replay->is_open = false;
    if (!read_whole(path, &bytes) || !journal_begin(text_slice(&bytes), &reading) || reading.base != base) {
        log_warn("%s is no journal, or not a whole one: it is left out", path);
    } else {
        uint64_t end = base;
        while (journal_next(&reading, &record)) {
            if (record.from == replay->at && record.to >= record.from) { /* the same: removals only */
                text_add_slice(&replay->changes, record.changes);
                replay->at = record.to;
            }
            end = record.to;
        }
        if (reading.left.len)
            log_warn("%s ends in %zu bytes that are no whole record: they are left out", path, reading.left.len);
        replay->is_open = end == replay->at;
        replay->last_base = base;
        replay->last_good = reading.good;
    }
    text_release(&bytes);
}

static void replay_all(struct control *control, struct replay *replay)
{
    struct journals journals = { .count = 0 };
    char memory[MAX_PATH + 100];

    find_journals(control->settings->state, &journals);
    for (unsigned i = 0; i < journals.count; i++) {
        struct text path = text_over(memory, sizeof memory);
        scribe_add_journal_path(control->settings->state, journals.bases[i], &path);
        replay_journal(memory, journals.bases[i], replay);
    }
}

static void load_journals(struct control *control, struct replay *replay)
{
    struct text why;

    text_init(&why, MAX_SENTENCE);
    replay_all(control, replay);
    if (replay->changes.len || replay->changes.err) {
        enum err err = replay->changes.err ? replay->changes.err
                                           : apply_quietly(control, text_slice(&replay->changes), replay->at, &why);
        if (err != ERR_OK) {
            log_error("what was applied since version %llu cannot be taken from %s: %s", //
                      (unsigned long long)control->held, control->settings->state,
                      why.len ? text_string(&why) : err_text(err));
            replay->is_open = false;
        }
    }
    text_release(&why);
}

/* ---- when something was heard ---- */

static enum err take_heard(void *arg, struct archive *archive, struct text *why)
{
    (void)why;
    *(int64_t *)arg = (int64_t)archive_stamp(archive);
    return ERR_OK;
}

/* When one of the files was written. Not before its news had come, but maybe long after: a start writes too, and so
 * does who copies. */
static int64_t newest_file_s(const struct control *control)
{
    DIR *folder = opendir(control->settings->state);
    const struct dirent *entry;
    int64_t newest_s = 0;

    while (folder && (entry = readdir(folder))) {
        struct stat about;
        bool is_ours = strcmp(entry->d_name, "keys") == 0 || strncmp(entry->d_name, "journal.", 8) == 0;
        if (is_ours && fstatat(dirfd(folder), entry->d_name, &about, 0) == 0 && about.st_mtime > newest_s)
            newest_s = about.st_mtime;
    }
    if (folder)
        (void)closedir(folder);
    return newest_s;
}

/*
 * By the time of day, since no other clock goes on over a restart; a clock that was set back makes it now. What `heard`
 * says is up to a minute behind: rather that than files' times, by which each start would make old knowledge fresh.
 */
static void load_heard(struct control *control)
{
    int64_t heard_s = 0, ago_ms;
    struct text why;

    text_init(&why, MAX_SENTENCE);
    if (archive_read(control->heard_path, &heard_form, take_heard, &heard_s, &why) != ERR_OK)
        heard_s = 0;
    if (!heard_s && control->held) /* killed before it was written for the first time; it is in a moment */
        heard_s = newest_file_s(control);
    if (heard_s > 0) {
        ago_ms = clock_wall_ms() - heard_s * 1000;
        control->has_heard = true;
        control->heard_ms = clock_ms() - (ago_ms > 0 ? ago_ms : 0);
    }
    text_release(&why);
}

/* A note that cannot be read says it as well: rather nobody let in than somebody who may not. */
static void load_removed(struct control *control)
{
    int64_t removed_s = 0;
    struct text why;

    text_init(&why, MAX_SENTENCE);
    control->is_removed =
        archive_read(control->removed_path, &removed_form, take_heard, &removed_s, &why) != ERR_NOT_FOUND;
    if (control->is_removed)
        control_say_removed();
    text_release(&why);
}

/* ---- the scribe ---- */

static void on_scribe_news(void *arg)
{
    static const uint64_t one = 1;
    const struct control *control = arg;

    (void)!write(event_get_fd(control->scribe_event), &one, sizeof one);
}

static void whole_failed(struct control *control)
{
    control->wants_whole = true;
    control->whole_ms = clock_ms();
}

static uint64_t keep_from(const struct control *control)
{
    return control->held >= control->archive_version && !control->begins_anew ? control->archive_version : 0;
}

/* Everything into a fresh archive. While another one is being written it must wait. */
static void save_whole(struct control *control)
{
    struct text packed;

    control->wants_whole = true;
    control->whole_ms = clock_ms();
    if (control->saving)
        return;
    text_init(&packed, SIZE_MAX / 4);
    others_pack(&control->others, &packed);
    if (!packed.err && scribe_save(control->scribe, control->ring, &packed, keep_from(control), control->epoch)) {
        control->saving = control->held;
        control->wants_whole = false;
    }
    text_release(&packed);
}

static void archive_done(struct control *control, const struct scribe_news *news)
{
    if (!control->saving || news->archive != control->saving)
        return;
    control->saving = 0;
    if (news->archive_failed) {
        whole_failed(control);
        return;
    }
    control->archive_version = news->archive;
    if (control->wants_whole) /* it had to wait for this one */
        save_whole(control);
    else
        control->begins_anew = false;
}

/* Rather than a journal that grows for ever, a new archive. A journal that began at this very version must not be begun
 * anew before the archive is there. */
static void compact(struct control *control)
{
    struct text packed;

    if (control->held == control->archive_version) {
        save_whole(control);
        return;
    }
    text_init(&packed, SIZE_MAX / 4);
    others_pack(&control->others, &packed);
    if (!packed.err && scribe_compact(control->scribe, control->ring, &packed, keep_from(control), control->epoch))
        control->saving = control->held;
    text_release(&packed);
}

static void say_trouble(struct control *control, const struct scribe_news *news)
{
    bool is_there = news->is_broken || news->archive_failed;
    struct slice trouble = slice_of(is_there ? news->trouble : "");

    if (slice_is(trouble, text_slice(&control->disk_trouble)))
        return;
    text_clear(&control->disk_trouble);
    text_add_slice(&control->disk_trouble, trouble);
    if (is_there)
        log_error("%s: what the control plane says is not kept, and not confirmed, until it can be", news->trouble);
    else
        log_info("what the control plane says is kept on the disk again");
}

static void on_scribe(evutil_socket_t fd, short what, void *arg)
{
    struct control *control = arg;
    struct scribe_news news;
    uint64_t count;

    (void)what;
    clock_turn();
    (void)!read(fd, &count, sizeof count);
    scribe_news(control->scribe, &news);
    if (news.epoch == control->epoch)
        control->durable = news.durable;
    control->journal_bytes = news.journal_bytes;
    archive_done(control, &news);
    if (news.is_broken && !control->wants_whole && !control->saving)
        whole_failed(control);
    say_trouble(control, &news);
    if (news.journal_bytes > control->settings->max_journal_bytes && !control->saving && !control->wants_whole)
        compact(control);
    sync_go_on(control);
}

static bool open_scribe(struct control *control, const struct replay *replay)
{
    const struct scribe_options options = {
        .folder = control->settings->state,
        .path = control->path,
        .heard_path = control->heard_path,
        .removed_path = control->removed_path,
        .on_news = on_scribe_news,
        .arg = control,
    };
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    if (fd < 0)
        return false;
    control->scribe_event = event_new(control->options.base, fd, EV_READ | EV_PERSIST, on_scribe, control);
    if (!control->scribe_event) {
        (void)close(fd);
        return false;
    }
    if (event_add(control->scribe_event, NULL) != 0 || !(control->scribe = scribe_open(&options)))
        return false;
    if (replay->is_open && replay->at == control->held) {
        control->journal_bytes = replay->last_good;
        return scribe_go_on(control->scribe, replay->last_base, replay->last_good);
    }
    if (replay->last_good && control->held) { /* there are some, but they do not lead here */
        control->wants_whole = true;
        return true;
    }
    return scribe_begin(control->scribe, control->held);
}

/* ---- the door ---- */

static enum err open_identity(struct control *control, struct text *why)
{
    char path[MAX_PATH];

    if (snprintf(path, sizeof path, "%s/identity.pem", control->settings->state) >= (int)sizeof path ||
        snprintf(control->path, MAX_PATH, "%s/keys", control->settings->state) >= MAX_PATH ||
        snprintf(control->heard_path, MAX_PATH, "%s/heard", control->settings->state) >= MAX_PATH ||
        snprintf(control->removed_path, MAX_PATH, "%s/removed", control->settings->state) >= MAX_PATH) {
        text_add_literal(why, "control.state: the path is too long");
        return ERR_BAD;
    }
    return identity_open_or_make(path, &control->identity, why);
}

/* Two that write one journal would leave nothing whole behind. The lock is the process's: it goes when that ends. */
static enum err lock_folder(struct control *control, struct text *why)
{
    const char *state = control->settings->state;

    control->folder = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (control->folder >= 0 && flock(control->folder, LOCK_EX | LOCK_NB) == 0)
        return ERR_OK;
    if (control->folder >= 0 && errno == EWOULDBLOCK)
        text_printf(why, "control.state: the folder %s is in use by another qwen-gateway", state);
    else
        text_printf(why, "control.state: the folder %s cannot be used: %s", state, strerror(errno));
    return ERR_SYSTEM;
}

enum err disk_open(struct control *control, struct text *why)
{
    struct replay replay = { 0 };
    enum err err = lock_folder(control, why);

    if (err == ERR_OK)
        err = open_identity(control, why);
    if (err != ERR_OK)
        return err;
    load_archive(control);
    text_init(&replay.changes, SIZE_MAX / 4);
    replay.at = control->held;
    load_journals(control, &replay);
    load_heard(control);
    load_removed(control);
    if (!open_scribe(control, &replay)) {
        text_add_literal(why, "control.state cannot be kept: out of memory, threads or descriptors");
        err = ERR_NO_MEMORY;
    }
    text_release(&replay.changes);
    return err;
}

void disk_close(struct control *control)
{
    if (control->scribe && control->has_heard)
        (void)scribe_heard(control->scribe, (clock_wall_ms() - control_age_ms(control, clock_ms())) / 1000);
    control->scribe = scribe_close(control->scribe);
    if (control->scribe_event) {
        (void)close(event_get_fd(control->scribe_event));
        event_free(control->scribe_event);
        control->scribe_event = NULL;
    }
    if (control->folder >= 0)
        (void)close(control->folder);
}

void disk_note(struct control *control, struct slice changes, uint64_t from, uint64_t to)
{
    if (control->wants_whole || !scribe_note(control->scribe, changes, from, to, control->epoch))
        save_whole(control);
}

void disk_note_whole(struct control *control, bool is_other)
{
    control->epoch++;
    control->durable = 0;
    control->begins_anew |= is_other;
    save_whole(control);
}

void disk_note_ring(struct control *control)
{
    save_whole(control);
}

void disk_note_removed(struct control *control)
{
    int64_t said_s = control->is_removed ? clock_wall_ms() / 1000 : 0;

    control->wants_removed = !scribe_removed(control->scribe, said_s);
    control->removed_written_ms = clock_ms();
}

void disk_tick(struct control *control, int64_t now_ms)
{
    int64_t every_ms =
        control->settings->max_staleness_ms / 4 < HEARD_MS ? control->settings->max_staleness_ms / 4 : HEARD_MS;

    if (control->wants_removed || (control->is_removed && now_ms - control->removed_written_ms >= HEARD_MS))
        disk_note_removed(control);
    if (control->wants_whole && !control->saving && now_ms - control->whole_ms >= DISK_RETRY_MS)
        save_whole(control);
    if (control->has_heard && control->heard_ms > control->heard_written_ms &&
        now_ms - control->heard_written_ms >= every_ms) {
        control->heard_written_ms = now_ms;
        (void)scribe_heard(control->scribe, (clock_wall_ms() - control_age_ms(control, now_ms)) / 1000);
    }
}
