#include "scribe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "archive.h"
#include "journal.h"
#include "keyring.h"
#include "log.h"

const struct archive_form heard_form = { .magic = "QGHEARD\n", .format = 1 };
const struct archive_form removed_form = { .magic = "QGGONE!\n", .format = 1 };

enum { MAX_PATH = 1300, MAX_BATCH_BYTES = 8 << 20, MAX_SENTENCE = 512 };

enum task { GO_ON, BEGIN, NOTE, SAVE, TIDY, HEARD, REMOVED };

struct job {
    struct job *next;
    enum task task;
    uint64_t from, to, epoch; /* of a journal that begins, `to` */
    uint64_t bytes, keep_from;
    struct keyring *ring; /* counted */
    struct text text;     /* a packed record; the archive's others */
};

struct scribe {
    struct scribe_options options;
    pthread_mutex_t lock;
    pthread_cond_t has_work;
    struct job *first, **last; /* under the lock, as the next three */
    bool is_closing;
    struct scribe_news news;
    pthread_t thread, compactor;
    bool is_compacting; /* the control thread's: `compactor` must be joined */

    /* the thread's */
    int fd;
    uint64_t journal_at; /* where the next record goes */
    int64_t removed_s;   /* what `removed` is to say; 0: nothing */
    bool is_removed_unwritten;
    struct text batch;
    uint64_t batch_to, batch_epoch;
};

void scribe_add_journal_path(const char *folder, uint64_t base, struct text *out)
{
    text_printf(out, "%s/journal.%020llu", folder, (unsigned long long)base);
}

/* ---- what the threads tell ---- */

static void tell(struct scribe *scribe)
{
    scribe->options.on_news(scribe->options.arg);
}

static void set_trouble(struct scribe *scribe, const char *what)
{
    (void)snprintf(scribe->news.trouble, sizeof scribe->news.trouble, "%s", what);
}

static void is_on_disk(struct scribe *scribe, uint64_t to, uint64_t epoch)
{
    (void)pthread_mutex_lock(&scribe->lock);
    scribe->news.durable = to;
    scribe->news.epoch = epoch;
    scribe->news.journal_bytes = scribe->journal_at;
    (void)pthread_mutex_unlock(&scribe->lock);
    tell(scribe);
}

static void cannot(struct scribe *scribe, const char *what)
{
    char sentence[MAX_SENTENCE];

    (void)snprintf(sentence, sizeof sentence, "the journal of %s: %s: %s", scribe->options.folder, what,
                   strerror(errno));
    (void)pthread_mutex_lock(&scribe->lock);
    scribe->news.is_broken = true;
    set_trouble(scribe, sentence);
    (void)pthread_mutex_unlock(&scribe->lock);
    tell(scribe);
}

/* The thread's own look at what it alone writes. */
static bool is_broken(struct scribe *scribe)
{
    bool is;

    (void)pthread_mutex_lock(&scribe->lock);
    is = scribe->news.is_broken;
    (void)pthread_mutex_unlock(&scribe->lock);
    return is;
}

/* ---- the journal ---- */

static bool write_all(int fd, const char *at, size_t len, uint64_t offset)
{
    while (len) {
        ssize_t sent = pwrite(fd, at, len, (off_t)offset);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        at += sent;
        offset += (uint64_t)sent;
        len -= (size_t)sent;
    }
    return true;
}

/* A name lasts when its folder has reached the disk. */
static bool sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_good = fd >= 0 && fsync(fd) == 0;

    if (fd >= 0)
        (void)close(fd);
    return is_good;
}

static bool open_journal(struct scribe *scribe, uint64_t base, int flags)
{
    char memory[MAX_PATH];
    struct text path = text_over(memory, sizeof memory);

    if (scribe->fd >= 0)
        (void)close(scribe->fd);
    scribe_add_journal_path(scribe->options.folder, base, &path);
    scribe->fd = open(memory, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    return scribe->fd >= 0;
}

/* What a torn tail left behind is cut off, so that the next record follows the last good one. */
static void go_on(struct scribe *scribe, const struct job *job)
{
    if (!open_journal(scribe, job->to, 0) || ftruncate(scribe->fd, (off_t)job->bytes) != 0) {
        cannot(scribe, "it cannot be opened");
        return;
    }
    scribe->journal_at = job->bytes;
}

static void begin(struct scribe *scribe, uint64_t base)
{
    char memory[JOURNAL_HEADER_BYTES + 1];
    struct text header = text_over(memory, sizeof memory);

    journal_add_header(&header, base);
    if (!open_journal(scribe, base, O_CREAT | O_TRUNC) || !write_all(scribe->fd, header.at, header.len, 0) ||
        fdatasync(scribe->fd) != 0 || !sync_folder(scribe->options.folder)) {
        cannot(scribe, "it cannot be begun");
        return;
    }
    scribe->journal_at = header.len;
}

/* A record that is not whole does not stay: the next one must be found behind the last good one. */
static void flush(struct scribe *scribe)
{
    struct text *batch = &scribe->batch;

    if (!batch->len && !batch->err)
        return;
    if (batch->err) {
        errno = ENOMEM;
        cannot(scribe, "it cannot be written");
    } else if (!is_broken(scribe)) {
        if (write_all(scribe->fd, batch->at, batch->len, scribe->journal_at) && fdatasync(scribe->fd) == 0) {
            scribe->journal_at += batch->len;
            is_on_disk(scribe, scribe->batch_to, scribe->batch_epoch);
        } else {
            cannot(scribe, "it cannot be written");
            (void)!ftruncate(scribe->fd, (off_t)scribe->journal_at);
        }
    }
    text_release(batch);
    text_init(batch, SIZE_MAX / 4);
}

/* Several that wait reach the disk together. */
static void note(struct scribe *scribe, const struct job *job)
{
    if (scribe->batch.len > MAX_BATCH_BYTES)
        flush(scribe);
    text_add_slice(&scribe->batch, text_slice(&job->text));
    scribe->batch_to = job->to;
    scribe->batch_epoch = job->epoch;
}

/* ---- the archive ---- */

static void tidy(struct scribe *scribe, uint64_t keep_from)
{
    DIR *folder = opendir(scribe->options.folder);
    const struct dirent *entry;

    if (!folder)
        return;
    while ((entry = readdir(folder))) {
        unsigned long long base;
        int end = 0;
        char path[MAX_PATH + 300];
        if (sscanf(entry->d_name, "journal.%20llu%n", &base, &end) != 1 || entry->d_name[end] || base >= keep_from)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", scribe->options.folder, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(folder);
}

/* The archive before this one is of another history. */
static void drop_previous(const struct scribe *scribe)
{
    char path[MAX_PATH + 16];

    (void)snprintf(path, sizeof path, "%s.previous", scribe->options.path);
    (void)unlink(path);
}

/* False: why is in `trouble`. */
static bool save(struct scribe *scribe, const struct job *job)
{
    const struct archive_section section = { .kind = SCRIBE_SECTION_OTHERS, .bytes = text_slice(&job->text) };
    struct text why;
    bool is_good;

    text_init(&why, MAX_SENTENCE);
    is_good = keyring_save(job->ring, scribe->options.path, &section, 1, &why) == ERR_OK;
    (void)pthread_mutex_lock(&scribe->lock);
    scribe->news.archive = keyring_version(job->ring);
    scribe->news.archive_failed = !is_good;
    if (!is_good)
        set_trouble(scribe, text_string(&why));
    (void)pthread_mutex_unlock(&scribe->lock);
    text_release(&why);
    return is_good;
}

static void set_broken(struct scribe *scribe, bool is_so)
{
    (void)pthread_mutex_lock(&scribe->lock);
    scribe->news.is_broken = is_so;
    (void)pthread_mutex_unlock(&scribe->lock);
}

static void save_and_begin(struct scribe *scribe, const struct job *job)
{
    uint64_t version = keyring_version(job->ring);

    if (!save(scribe, job)) {
        set_broken(scribe, true); /* what follows builds on it, and would lead on from nothing */
        tell(scribe);
        return;
    }
    set_broken(scribe, false);
    tidy(scribe, job->keep_from ? job->keep_from : UINT64_MAX);
    if (!job->keep_from)
        drop_previous(scribe);
    begin(scribe, version);
    is_on_disk(scribe, version, job->epoch);
}

static void write_heard(struct scribe *scribe, const struct job *job)
{
    struct archive_writer *writer;
    struct text why;

    text_init(&why, MAX_SENTENCE);
    writer = archive_begin(scribe->options.heard_path, &heard_form, job->to, 0, &why);
    if (!writer || archive_finish(writer, &why) != ERR_OK)
        log_debug("%s", text_string(&why)); /* the journal's trouble is told, and the next one comes in a minute */
    text_release(&why);
}

/* The one before goes first: alone it would say the same. */
static bool forget_removed(const struct scribe *scribe, struct text *why)
{
    char previous[PATH_MAX];

    (void)snprintf(previous, sizeof previous, "%s.previous", scribe->options.removed_path);
    if ((unlink(previous) == 0 || errno == ENOENT) && (unlink(scribe->options.removed_path) == 0 || errno == ENOENT))
        return true;
    text_printf(why, "%s cannot be taken away: %s", scribe->options.removed_path, strerror(errno));
    return false;
}

static bool keep_removed(const struct scribe *scribe, struct text *why)
{
    struct archive_writer *writer =
        archive_begin(scribe->options.removed_path, &removed_form, (uint64_t)scribe->removed_s, 0, why);

    return writer && archive_finish(writer, why) == ERR_OK;
}

static void write_removed(struct scribe *scribe)
{
    bool was_unwritten = scribe->is_removed_unwritten;
    struct text why;

    text_init(&why, MAX_SENTENCE);
    scribe->is_removed_unwritten = !(scribe->removed_s ? keep_removed(scribe, &why) : forget_removed(scribe, &why));
    if (scribe->is_removed_unwritten && !was_unwritten)
        log_error("%s: whether this gateway is removed is not kept over a restart until it can be", text_string(&why));
    text_release(&why);
}

/* ---- the thread ---- */

static void job_free(struct job *job)
{
    (void)keyring_unref(job->ring);
    text_release(&job->text);
    free(job);
}

static void work(struct scribe *scribe, struct job *job)
{
    if (job->task != NOTE)
        flush(scribe);
    switch (job->task) {
    case GO_ON:
        go_on(scribe, job);
        break;
    case BEGIN:
        begin(scribe, job->to);
        break;
    case NOTE:
        note(scribe, job);
        break;
    case SAVE:
        save_and_begin(scribe, job);
        break;
    case TIDY:
        tidy(scribe, job->keep_from);
        break;
    case HEARD:
        write_heard(scribe, job);
        break;
    case REMOVED:
        scribe->removed_s = (int64_t)job->to;
        write_removed(scribe);
        break;
    }
    if (job->task != REMOVED && scribe->is_removed_unwritten)
        write_removed(scribe);
    job_free(job);
}

/* All that is there now; NULL: it is time to end. */
static struct job *wait_for_work(struct scribe *scribe)
{
    struct job *jobs;

    (void)pthread_mutex_lock(&scribe->lock);
    while (!scribe->first && !scribe->is_closing)
        (void)pthread_cond_wait(&scribe->has_work, &scribe->lock);
    jobs = scribe->first;
    scribe->first = NULL;
    scribe->last = &scribe->first;
    (void)pthread_mutex_unlock(&scribe->lock);
    return jobs;
}

static void *run(void *arg)
{
    struct scribe *scribe = arg;
    struct job *jobs, *next;

    while ((jobs = wait_for_work(scribe))) {
        for (; jobs; jobs = next) {
            next = jobs->next;
            work(scribe, jobs);
        }
        flush(scribe);
    }
    return NULL;
}

static bool post(struct scribe *scribe, const struct job *job)
{
    struct job *copy = malloc(sizeof *copy);

    if (!copy)
        return false;
    *copy = *job;
    copy->next = NULL;
    (void)pthread_mutex_lock(&scribe->lock);
    *scribe->last = copy;
    scribe->last = &copy->next;
    (void)pthread_cond_signal(&scribe->has_work);
    (void)pthread_mutex_unlock(&scribe->lock);
    return true;
}

/* ---- the door ---- */

struct scribe *scribe_open(const struct scribe_options *options)
{
    struct scribe *scribe = calloc(1, sizeof *scribe);

    if (!scribe)
        return NULL;
    scribe->options = *options;
    scribe->fd = -1;
    scribe->last = &scribe->first;
    text_init(&scribe->batch, SIZE_MAX / 4);
    (void)pthread_mutex_init(&scribe->lock, NULL);
    (void)pthread_cond_init(&scribe->has_work, NULL);
    if (pthread_create(&scribe->thread, NULL, run, scribe) == 0)
        return scribe;
    free(scribe);
    return NULL;
}

static void join_compactor(struct scribe *scribe)
{
    if (scribe->is_compacting)
        (void)pthread_join(scribe->compactor, NULL);
    scribe->is_compacting = false;
}

struct scribe *scribe_close(struct scribe *scribe)
{
    if (!scribe)
        return NULL;
    join_compactor(scribe);
    (void)pthread_mutex_lock(&scribe->lock);
    scribe->is_closing = true;
    (void)pthread_cond_signal(&scribe->has_work);
    (void)pthread_mutex_unlock(&scribe->lock);
    (void)pthread_join(scribe->thread, NULL);
    if (scribe->fd >= 0)
        (void)close(scribe->fd);
    text_release(&scribe->batch);
    (void)pthread_cond_destroy(&scribe->has_work);
    (void)pthread_mutex_destroy(&scribe->lock);
    free(scribe);
    return NULL;
}

bool scribe_go_on(struct scribe *scribe, uint64_t base, uint64_t bytes)
{
    return post(scribe, &(struct job){ .task = GO_ON, .to = base, .bytes = bytes });
}

bool scribe_begin(struct scribe *scribe, uint64_t base)
{
    return post(scribe, &(struct job){ .task = BEGIN, .to = base });
}

bool scribe_note(struct scribe *scribe, struct slice changes, uint64_t from, uint64_t to, uint64_t epoch)
{
    struct job job = { .task = NOTE, .from = from, .to = to, .epoch = epoch };

    text_init(&job.text, SIZE_MAX / 4);
    journal_add_record(&job.text, changes, from, to);
    if (!job.text.err && post(scribe, &job))
        return true;
    text_release(&job.text);
    return false;
}

/* Owns the ring's reference and the text's copy. */
static bool make_saving(struct job *job, struct keyring *ring, const struct text *others, uint64_t keep_from,
                        uint64_t epoch)
{
    *job = (struct job){ .task = SAVE, .keep_from = keep_from, .epoch = epoch };
    text_init(&job->text, SIZE_MAX / 4);
    text_add_slice(&job->text, text_slice(others));
    if (job->text.err)
        return false;
    job->ring = keyring_ref(ring);
    return true;
}

bool scribe_save(struct scribe *scribe, struct keyring *ring, const struct text *others, uint64_t keep_from,
                 uint64_t epoch)
{
    struct job job;

    if (make_saving(&job, ring, others, keep_from, epoch) && post(scribe, &job))
        return true;
    (void)keyring_unref(job.ring);
    text_release(&job.text);
    return false;
}

struct compaction {
    struct scribe *scribe;
    struct job job;
};

static void *compact(void *arg)
{
    struct compaction *compaction = arg;
    struct scribe *scribe = compaction->scribe;

    if (save(scribe, &compaction->job))
        (void)post(scribe, &(struct job){ .task = TIDY, .keep_from = compaction->job.keep_from });
    (void)keyring_unref(compaction->job.ring);
    text_release(&compaction->job.text);
    free(compaction);
    tell(scribe);
    return NULL;
}

bool scribe_compact(struct scribe *scribe, struct keyring *ring, const struct text *others, uint64_t keep_from,
                    uint64_t epoch)
{
    struct compaction *compaction = calloc(1, sizeof *compaction);

    join_compactor(scribe); /* it has told that it is done */
    if (!compaction)
        return false;
    compaction->scribe = scribe;
    if (make_saving(&compaction->job, ring, others, keep_from, epoch) && scribe_begin(scribe, keyring_version(ring))) {
        scribe->is_compacting = pthread_create(&scribe->compactor, NULL, compact, compaction) == 0;
        if (scribe->is_compacting)
            return true;
    }
    (void)keyring_unref(compaction->job.ring);
    text_release(&compaction->job.text);
    free(compaction);
    return false;
}

bool scribe_heard(struct scribe *scribe, int64_t wall_s)
{
    return post(scribe, &(struct job){ .task = HEARD, .to = (uint64_t)wall_s });
}

bool scribe_removed(struct scribe *scribe, int64_t wall_s)
{
    return post(scribe, &(struct job){ .task = REMOVED, .to = (uint64_t)wall_s });
}

void scribe_news(struct scribe *scribe, struct scribe_news *ret_news)
{
    (void)pthread_mutex_lock(&scribe->lock);
    *ret_news = scribe->news;
    (void)pthread_mutex_unlock(&scribe->lock);
}
