#include "archive.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

static const struct archive_form form = { .magic = "TESTTEST", .format = 3 };

struct place {
    char folder[32], path[48], previous[64], fresh[56];
};

static struct place place_new(void)
{
    struct place place = { .folder = "/tmp/test_archive_XXXXXX" };

    CHECK(mkdtemp(place.folder));
    (void)snprintf(place.path, sizeof place.path, "%s/a", place.folder);
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

static void write_one(const char *path, uint64_t stamp, const char *words)
{
    struct archive_section sections[] = { { 7, slice_of(words) }, { 8, SLICE("") }, { 7, SLICE("the last") } };
    struct archive_writer *writer;
    struct text why;

    text_init(&why, 4096);
    writer = archive_begin(path, &form, stamp, 3, &why);
    CHECK(writer);
    for (size_t i = 0; i < 3; i++)
        archive_add(writer, &sections[i]);
    CHECK_EQ(archive_finish(writer, &why), ERR_OK);
    text_release(&why);
}

static enum err take_one(void *arg, struct archive *archive, struct text *why)
{
    struct archive_section section;

    *(uint64_t *)arg = archive_stamp(archive);
    CHECK_EQ(archive_count(archive), 3);
    CHECK(archive_next(archive, &section, why) == ERR_OK && section.kind == 7);
    if (slice_is(section.bytes, SLICE("not good"))) {
        text_printf(why, "%s is not good", archive_path(archive));
        return ERR_BAD;
    }
    CHECK(archive_next(archive, &section, why) == ERR_OK && section.kind == 8 && section.bytes.len == 0);
    CHECK(archive_next(archive, &section, why) == ERR_OK && slice_is(section.bytes, SLICE("the last")));
    CHECK(archive_next(archive, &section, why) == ERR_NOT_FOUND);
    return ERR_OK;
}

/* The stamp of what was read; 0: nothing was. */
static uint64_t read_one(const char *path, enum err wanted, const char *why_wanted)
{
    uint64_t stamp = 0;
    struct text why;

    text_init(&why, 4096);
    CHECK_EQ(archive_read(path, &form, take_one, &stamp, &why), wanted);
    if (!strstr(text_string(&why), why_wanted) || !*why_wanted != !why.len)
        check_fail(__FILE__, __LINE__, "said: %s\nwanted: %s", text_string(&why), why_wanted);
    text_release(&why);
    return stamp;
}

TEST(the_newest_is_read_and_the_one_before_is_kept)
{
    struct place place = place_new();

    write_one(place.path, 1, "one");
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 1);
    CHECK(access(place.previous, F_OK) != 0);
    write_one(place.path, 2, "two");
    write_one(place.path, 3, "three");
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 3);
    CHECK_EQ(read_one(place.previous, ERR_OK, ""), 2);
    CHECK(access(place.fresh, F_OK) != 0);
    place_remove(&place);
}

TEST(what_its_reader_refuses_is_as_bad_as_what_is_damaged)
{
    struct place place = place_new();

    write_one(place.path, 1, "one");
    write_one(place.path, 2, "not good");
    CHECK_EQ(read_one(place.path, ERR_OK, "/a is not good"), 1);
    CHECK(unlink(place.previous) == 0);
    (void)read_one(place.path, ERR_BAD, "/a is not good");
    place_remove(&place);
}

/* A writer that was killed between any two of its steps. */
TEST(at_every_moment_there_is_a_whole_one)
{
    struct place place = place_new();

    CHECK_EQ(read_one(place.path, ERR_NOT_FOUND, "/a cannot be read: No such file or directory"), 0);
    write_one(place.path, 1, "one");
    write_one(place.path, 2, "two");
    write_one(place.fresh, 3, "three");
    CHECK(truncate(place.fresh, 50) == 0); /* cut while it was written */
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 2);
    CHECK(unlink(place.previous) == 0); /* before the one of now got its second name */
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 2);
    CHECK(link(place.path, place.previous) == 0); /* before the new one got its name */
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 2);
    write_one(place.path, 4, "four"); /* what is left over is in nobody's way */
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 4);
    CHECK_EQ(read_one(place.previous, ERR_OK, ""), 2);
    CHECK(unlink(place.path) == 0); /* by whoever */
    CHECK_EQ(read_one(place.path, ERR_OK, "/a cannot be read: No such file or directory"), 2);
    place_remove(&place);
}

TEST(a_writer_that_is_called_off_leaves_nothing)
{
    struct place place = place_new();
    struct archive_writer *writer;
    struct text why;

    text_init(&why, 4096);
    write_one(place.path, 1, "one");
    writer = archive_begin(place.path, &form, 2, 3, &why);
    CHECK(writer && access(place.fresh, F_OK) == 0);
    archive_cancel(writer);
    CHECK(access(place.fresh, F_OK) != 0);
    CHECK_EQ(read_one(place.path, ERR_OK, ""), 1);
    place_remove(&place);
    text_release(&why);
}

TEST(a_folder_or_a_socket_is_no_archive)
{
    (void)read_one("/tmp", ERR_BAD, "/tmp is not a regular file");
    (void)read_one("/dev/zero", ERR_BAD, "/dev/zero is not a regular file");
}

TEST(too_long_a_name_and_too_many_sections_are_refused)
{
    char path[5000];
    struct text why;

    text_init(&why, 8192);
    memset(path, 'a', sizeof path - 1);
    path[sizeof path - 1] = 0;
    CHECK(!archive_begin(path, &form, 1, 0, &why));
    CHECK(slice_ends(text_slice(&why), SLICE("cannot be written: File name too long")));
    CHECK(!archive_begin("/tmp/x", &form, 1, ARCHIVE_MAX_SECTIONS + 1, &why));
    text_release(&why);
}

TEST(what_lies_in_memory_is_refused_when_cut_as_well)
{
    struct place place = place_new();
    char bytes[512];
    struct text why;
    FILE *file;
    size_t len;
    enum err err;

    write_one(place.path, 1, "one");
    file = fopen(place.path, "rb");
    CHECK(file);
    len = fread(bytes, 1, sizeof bytes, file);
    (void)fclose(file);
    text_init(&why, 4096);
    CHECK(len == 40 + 3 * 16 + 11);
    for (size_t cut = 0; cut < len; cut++) { /* the checksum of the header knows the length */
        char *exactly = malloc(cut + 1);
        struct archive *archive;
        memcpy(exactly, bytes, cut);
        archive = archive_over((struct slice){ exactly, cut }, &form, &err, &why);
        CHECK(!archive && err == ERR_BAD);
        free(exactly);
    }
    text_release(&why);
    place_remove(&place);
}
