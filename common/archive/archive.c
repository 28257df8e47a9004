#include "archive.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digest.h"

enum { HEADER_BYTES = 40, ROW_BYTES = 16, CHECKED_BYTES = 32, MAX_PATH = 4096, MAX_SENTENCE = 8192 };

struct archive {
    const char *path;
    int fd;             /* -1: over memory */
    struct slice whole; /* that memory */
    uint64_t stamp, at; /* `at`: where the next section begins */
    uint32_t count, next;
    char *table;
    char *room; /* the section's bytes, when they come from a file */
    size_t room_bytes;
};

static void put32(char *at, uint32_t number)
{
    number = htole32(number);
    memcpy(at, &number, sizeof number);
}
static void put64(char *at, uint64_t number)
{
    number = htole64(number);
    memcpy(at, &number, sizeof number);
}
static uint32_t get32(const char *at)
{
    uint32_t number;

    memcpy(&number, at, sizeof number);
    return le32toh(number);
}
static uint64_t get64(const char *at)
{
    uint64_t number;

    memcpy(&number, at, sizeof number);
    return le64toh(number);
}

/* Of the header, as far as it is checked, and the table. */
static uint32_t sum_of_head(const char *header, const char *table, size_t count)
{
    uint32_t sum = crc32c_of(0, (struct slice){ header, CHECKED_BYTES });

    return crc32c_of(sum, (struct slice){ table, count * ROW_BYTES });
}

/* ---- writing ---- */

struct archive_writer {
    char path[MAX_PATH], fresh[MAX_PATH], previous[MAX_PATH];
    int fd;
    int error; /* an errno; 0: all is well */
    uint64_t at;
    size_t count, added;
    char *head; /* header and table */
};

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

/* A name in a folder lasts when the folder has reached the disk. */
static bool sync_folder(const char *path)
{
    char folder[MAX_PATH];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    bool is_good;
    int fd;

    memcpy(folder, path, len);
    folder[len] = 0;
    fd = open(!slash ? "." : len ? folder : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    is_good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0)
        (void)close(fd);
    return is_good;
}

/* What was there stays reachable under one name or the other, whatever moment this stops at. */
static bool give_its_name(const struct archive_writer *writer)
{
    if (unlink(writer->previous) != 0 && errno != ENOENT)
        return false;
    if (link(writer->path, writer->previous) != 0 && errno != ENOENT)
        return false;
    return rename(writer->fresh, writer->path) == 0 && sync_folder(writer->path);
}

static size_t head_bytes(size_t sections)
{
    return HEADER_BYTES + sections * ROW_BYTES;
}

static void writer_free(struct archive_writer *writer)
{
    if (writer->fd >= 0)
        (void)close(writer->fd);
    free(writer->head);
    free(writer);
}

static struct archive_writer *writer_new(const char *path, size_t count)
{
    struct archive_writer *writer = calloc(1, sizeof *writer);

    if (!writer)
        return NULL;
    (void)snprintf(writer->path, MAX_PATH, "%s", path);
    (void)snprintf(writer->fresh, MAX_PATH, "%s.new", path);
    (void)snprintf(writer->previous, MAX_PATH, "%s.previous", path);
    writer->fd = -1;
    writer->count = count;
    writer->at = head_bytes(count);
    writer->head = calloc(1, head_bytes(count));
    if (writer->head)
        return writer;
    writer_free(writer);
    return NULL;
}

static void cannot_write(const char *path, int error, struct text *why)
{
    text_printf(why, "%s cannot be written: %s", path, strerror(error));
}

struct archive_writer *archive_begin(const char *path, const struct archive_form *form, uint64_t stamp, size_t count,
                                     struct text *why)
{
    bool fits = count <= ARCHIVE_MAX_SECTIONS && strlen(path) + sizeof ".previous" <= MAX_PATH;
    struct archive_writer *writer = fits ? writer_new(path, count) : NULL;

    if (!writer) {
        cannot_write(path, fits ? ENOMEM : ENAMETOOLONG, why);
        return NULL;
    }
    if (unlink(writer->fresh) == 0 || errno == ENOENT)
        writer->fd = open(writer->fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (writer->fd < 0) {
        cannot_write(writer->fresh, errno, why);
        writer_free(writer);
        return NULL;
    }
    memcpy(writer->head, form->magic, ARCHIVE_MAGIC_BYTES);
    put32(writer->head + 8, form->format);
    put32(writer->head + 12, (uint32_t)count);
    put64(writer->head + 24, stamp);
    return writer;
}

void archive_add(struct archive_writer *writer, const struct archive_section *section)
{
    char *row = writer->head + head_bytes(writer->added);

    assert(writer->added < writer->count);
    put32(row, section->kind);
    put32(row + 4, crc32c_of(0, section->bytes));
    put64(row + 8, section->bytes.len);
    writer->added++;
    if (!writer->error && !write_all(writer->fd, section->bytes.at, section->bytes.len, writer->at))
        writer->error = errno;
    writer->at += section->bytes.len;
}

static bool write_head(struct archive_writer *writer)
{
    char *head = writer->head;

    put64(head + 16, writer->at);
    put32(head + 32, sum_of_head(head, head + HEADER_BYTES, writer->count));
    return write_all(writer->fd, head, head_bytes(writer->count), 0) && fdatasync(writer->fd) == 0;
}

enum err archive_finish(struct archive_writer *writer, struct text *why)
{
    enum err err = ERR_OK;

    assert(writer->added == writer->count || writer->error);
    if (!writer->error && !(write_head(writer) && give_its_name(writer)))
        writer->error = errno;
    if (writer->error) {
        cannot_write(writer->path, writer->error, why);
        (void)unlink(writer->fresh); /* a full disk shall not stay full because of us */
        err = ERR_SYSTEM;
    }
    writer_free(writer);
    return err;
}

void archive_cancel(struct archive_writer *writer)
{
    (void)unlink(writer->fresh);
    writer_free(writer);
}

/* ---- reading ---- */

__attribute__((format(printf, 3, 4))) static enum err refuse(const struct archive *archive, struct text *why,
                                                             const char *format, ...)
{
    va_list args;

    text_printf(why, "%s ", archive->path);
    va_start(args, format);
    text_vprintf(why, format, args);
    va_end(args);
    return ERR_BAD;
}

static enum err read_at(const struct archive *archive, uint64_t offset, char *at, size_t len, struct text *why)
{
    if (archive->fd < 0) {
        memcpy(at, archive->whole.at + offset, len);
        return ERR_OK;
    }
    while (len) {
        ssize_t got = pread(archive->fd, at, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            return refuse(archive, why, "is cut short while it is read");
        if (got < 0) {
            text_printf(why, "%s cannot be read: %s", archive->path, strerror(errno));
            return ERR_SYSTEM;
        }
        at += got;
        offset += (uint64_t)got;
        len -= (size_t)got;
    }
    return ERR_OK;
}

static enum err no_memory(const struct archive *archive, struct text *why)
{
    text_printf(why, "%s cannot be read: %s", archive->path, err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

/* Do the table's lengths add up to what there is? */
static bool adds_up(const struct archive *archive, uint64_t length)
{
    uint64_t left = length - HEADER_BYTES - (uint64_t)archive->count * ROW_BYTES;

    for (uint32_t i = 0; i < archive->count; i++) {
        uint64_t bytes = get64(archive->table + i * ROW_BYTES + 8);
        if (bytes > left)
            return false;
        left -= bytes;
    }
    return left == 0;
}

/* Nothing is believed before the checksum, but what it takes to find that: magic, format, the number of sections. */
static enum err read_head(struct archive *archive, const struct archive_form *form, uint64_t length, struct text *why)
{
    char header[HEADER_BYTES];
    enum err err;

    if (length < HEADER_BYTES)
        return refuse(archive, why, "is cut: it has %llu bytes", (unsigned long long)length);
    err = read_at(archive, 0, header, HEADER_BYTES, why);
    if (err != ERR_OK)
        return err;
    if (memcmp(header, form->magic, ARCHIVE_MAGIC_BYTES) != 0)
        return refuse(archive, why, "is a file of another kind");
    if (get32(header + 8) > form->format)
        return refuse(archive, why,
                      "was written by a later version of the program: its format is %u, this one reads up to %u",
                      get32(header + 8), form->format);
    archive->count = get32(header + 12);
    if (!get32(header + 8) || archive->count > ARCHIVE_MAX_SECTIONS || get32(header + 36))
        return refuse(archive, why, "is damaged: its header makes no sense");
    if (length < HEADER_BYTES + (uint64_t)archive->count * ROW_BYTES)
        return refuse(archive, why, "is cut: it has %llu bytes", (unsigned long long)length);
    archive->table = malloc(archive->count * ROW_BYTES + 1);
    if (!archive->table)
        return no_memory(archive, why);
    err = read_at(archive, HEADER_BYTES, archive->table, archive->count * ROW_BYTES, why);
    if (err != ERR_OK)
        return err;
    if (sum_of_head(header, archive->table, archive->count) != get32(header + 32))
        return refuse(archive, why, "is damaged: the checksum of its header is wrong");
    if (get64(header + 16) != length)
        return refuse(archive, why, "is %s: it has %llu bytes of %llu", get64(header + 16) > length ? "cut" : "damaged",
                      (unsigned long long)length, (unsigned long long)get64(header + 16));
    if (!adds_up(archive, length))
        return refuse(archive, why, "is damaged: its sections do not add up");
    archive->stamp = get64(header + 24);
    archive->at = HEADER_BYTES + (uint64_t)archive->count * ROW_BYTES;
    return ERR_OK;
}

static struct archive *begin(struct archive *archive, const struct archive_form *form, uint64_t length,
                             enum err *ret_err, struct text *why)
{
    *ret_err = read_head(archive, form, length, why);
    if (*ret_err == ERR_OK)
        return archive;
    archive_close(archive);
    return NULL;
}

struct archive *archive_over(struct slice bytes, const struct archive_form *form, enum err *ret_err, struct text *why)
{
    struct archive *archive = calloc(1, sizeof *archive);

    *ret_err = ERR_NO_MEMORY;
    if (!archive)
        return NULL;
    *archive = (struct archive){ .path = "memory", .fd = -1, .whole = bytes };
    return begin(archive, form, bytes.len, ret_err, why);
}

struct archive *archive_open(const char *path, const struct archive_form *form, enum err *ret_err, struct text *why)
{
    struct archive *archive = calloc(1, sizeof *archive);
    struct stat about;

    *ret_err = ERR_NO_MEMORY;
    if (!archive)
        return NULL;
    *archive = (struct archive){ .path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) };
    if (archive->fd < 0 || fstat(archive->fd, &about) != 0) {
        *ret_err = errno == ENOENT ? ERR_NOT_FOUND : ERR_SYSTEM;
        text_printf(why, "%s cannot be read: %s", path, strerror(errno));
        archive_close(archive);
        return NULL;
    }
    if (!S_ISREG(about.st_mode)) {
        *ret_err = refuse(archive, why, "is not a regular file");
        archive_close(archive);
        return NULL;
    }
    return begin(archive, form, (uint64_t)about.st_size, ret_err, why);
}

void archive_close(struct archive *archive)
{
    if (!archive)
        return;
    if (archive->fd >= 0)
        (void)close(archive->fd);
    free(archive->table);
    free(archive->room);
    free(archive);
}

const char *archive_path(const struct archive *archive)
{
    return archive->path;
}

uint64_t archive_stamp(const struct archive *archive)
{
    return archive->stamp;
}

size_t archive_count(const struct archive *archive)
{
    return archive->count;
}

/* Where the section's bytes lie now. */
static enum err fetch(struct archive *archive, size_t bytes, struct slice *ret_bytes, struct text *why)
{
    if (archive->fd < 0) {
        *ret_bytes = (struct slice){ archive->whole.at + archive->at, bytes };
        return ERR_OK;
    }
    if (archive->room_bytes < bytes) {
        char *more = realloc(archive->room, bytes);
        if (!more)
            return no_memory(archive, why);
        archive->room = more;
        archive->room_bytes = bytes;
    }
    *ret_bytes = (struct slice){ archive->room, bytes };
    return read_at(archive, archive->at, archive->room, bytes, why);
}

enum err archive_next(struct archive *archive, struct archive_section *ret_section, struct text *why)
{
    const char *row = archive->table + archive->next * ROW_BYTES;
    struct archive_section section;
    enum err err;

    if (archive->next == archive->count)
        return ERR_NOT_FOUND;
    err = fetch(archive, get64(row + 8), &section.bytes, why);
    if (err != ERR_OK)
        return err;
    if (crc32c_of(0, section.bytes) != get32(row + 4))
        return refuse(archive, why, "is damaged: the checksum of section %u is wrong", archive->next + 1);
    section.kind = get32(row);
    archive->next++;
    archive->at += section.bytes.len;
    *ret_section = section;
    return ERR_OK;
}

/* ---- the newest, or the one before ---- */

static enum err read_one(const char *path, const struct archive_form *form,
                         enum err (*take)(void *arg, struct archive *archive, struct text *why), void *arg,
                         struct text *why)
{
    enum err err = ERR_OK;
    struct archive *archive = archive_open(path, form, &err, why);

    if (archive)
        err = take(arg, archive, why);
    archive_close(archive);
    return err;
}

enum err archive_read(const char *path, const struct archive_form *form,
                      enum err (*take)(void *arg, struct archive *archive, struct text *why), void *arg,
                      struct text *why)
{
    char previous[MAX_PATH];
    enum err err = read_one(path, form, take, arg, why), err_before;
    struct text why_not_that;

    if (err == ERR_OK || strlen(path) + sizeof ".previous" > MAX_PATH)
        return err;
    (void)snprintf(previous, sizeof previous, "%s.previous", path);
    text_init(&why_not_that, MAX_SENTENCE);
    err_before = read_one(previous, form, take, arg, &why_not_that);
    if (err_before == ERR_OK)
        err = ERR_OK;
    else if (err_before != ERR_NOT_FOUND)
        text_printf(why, "; %s", text_string(&why_not_that));
    if (err == ERR_NOT_FOUND && err_before != ERR_NOT_FOUND)
        err = err_before;
    text_release(&why_not_that);
    return err;
}
