#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "clock.h"
#include "text.h"

TEST(the_monotonic_clock_never_goes_back)
{
    int64_t ms = clock_ms(), us = clock_us();

    CHECK(us / 1000 >= ms);
    for (unsigned i = 0; i < 1000; i++) {
        int64_t later = clock_us();
        CHECK(later >= us);
        us = later;
    }
    CHECK(clock_ms() >= ms);
}

TEST(the_wall_clock_is_the_systems)
{
    int64_t before = (int64_t)time(NULL), now = clock_wall_ms(), after;
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    after = ts.tv_sec;
    CHECK(now / 1000 >= before - 1 && now / 1000 <= after);
}

static void writes(int64_t wall_ms, const char *wanted)
{
    struct text text;

    text_init(&text, 100);
    clock_add_wall(&text, wall_ms);
    CHECK_STR(text.at, text.len, wanted);
    text_release(&text);
}

TEST(a_moment_is_written_in_utc_with_milliseconds)
{
    writes(0, "1970-01-01T00:00:00.000Z");
    writes(1795339800123, "2026-11-22T09:30:00.123Z");
    writes(1795339800999, "2026-11-22T09:30:00.999Z");
    writes(1795339801000, "2026-11-22T09:30:01.000Z");
    writes(951782400007, "2000-02-29T00:00:00.007Z");
    writes(253402300799999, "9999-12-31T23:59:59.999Z");
}

TEST(a_moment_before_1970_is_written_right_too)
{
    writes(-1, "1969-12-31T23:59:59.999Z");
    writes(-1000, "1969-12-31T23:59:59.000Z");
    writes(-1001, "1969-12-31T23:59:58.999Z");
}

TEST(rfc_3339_is_read_as_ollama_writes_it)
{
    static const struct {
        const char *text;
        long long seconds;
    } rows[] = {
        { "1970-01-01T00:00:00Z", 0 },
        { "2026-11-22T09:30:00Z", 1795339800 },
        { "2026-11-22T09:30:00.123456789Z", 1795339800 },
        { "2026-11-22T11:30:00.5+02:00", 1795339800 },
        { "2026-11-22T01:30:00-08:00", 1795339800 },
        { "2026-11-22T15:00:00+05:30", 1795339800 },
        { "2000-02-29T12:00:00Z", 951825600 },
        { "2024-02-29T00:00:00Z", 1709164800 },
        { "2100-03-01T00:00:00Z", 4107542400 },
        { "1999-12-31T23:59:59Z", 946684799 },
        { "2016-12-31T23:59:60Z", 1483228800 }, /* a leap second */
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(clock_parse_rfc3339(rows[i].text, strlen(rows[i].text)) == rows[i].seconds, rows[i].text);
}

TEST(what_is_not_rfc_3339_is_refused)
{
    static const char *const rows[] = {
        "",
        "2026",
        "2026-11-22",
        "2026-11-22T09:30:00",
        "2026-11-22 09:30:00Z",
        "2026-11-22T09:30Z",
        "2026-11-22T09:30:00ZZ",
        "2026-11-22T09:30:00.Z",
        "2026-11-22T09:30:00+02",
        "2026-11-22T09:30:00+0200",
        "2026-11-22T09:30:00+02:00x",
        "2026-11-22T09:30:00+24:00",
        "2026-11-22T09:30:00+02:60",
        "2026-00-22T09:30:00Z",
        "2026-13-22T09:30:00Z",
        "2026-11-00T09:30:00Z",
        "2026-11-31T09:30:00Z",
        "2026-02-29T09:30:00Z",
        "2100-02-29T09:30:00Z",
        "2026-11-22T24:00:00Z",
        "2026-11-22T09:60:00Z",
        "2026-11-22T09:30:61Z",
        "2026-1-22T09:30:00Z",
        "-026-11-22T09:30:00Z",
        "0001-01-01T00:00:00Z", /* Go's zero time: no moment, and before 1970 */
        "1969-12-31T23:59:59Z",
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(clock_parse_rfc3339(rows[i], strlen(rows[i])) == -1, rows[i]);
}

TEST(no_prefix_of_a_moment_is_read_beyond_its_end)
{
    static const char whole[] = "2026-11-22T11:30:00.5+02:00";

    for (size_t len = 0; len < sizeof whole - 1; len++) {
        char *copy = malloc(len ? len : 1);
        CHECK(copy);
        memcpy(copy, whole, len);
        CHECK_EQ(clock_parse_rfc3339(copy, len), -1);
        free(copy);
    }
}

TEST(every_day_is_read_as_the_c_library_writes_it)
{
    for (int64_t day = 0; day < 60000; day++) {
        time_t when = (time_t)(day * 86400 + day % 86400);
        char written[40];
        struct tm tm;
        CHECK(gmtime_r(&when, &tm));
        CHECK(strftime(written, sizeof written, "%Y-%m-%dT%H:%M:%SZ", &tm));
        CHECK_EQ(clock_parse_rfc3339(written, strlen(written)), when);
    }
}

TEST(a_turn_holds_the_time_still_for_its_thread)
{
    int64_t held_us;

    clock_turn();
    held_us = clock_us();
    for (int64_t began = clock(); clock() == began;) /* until the processor's own clock has gone on */
        ;
    CHECK_EQ(clock_us(), held_us);
    CHECK_EQ(clock_ms(), held_us / 1000);
    clock_turn();
    CHECK(clock_us() > held_us);
}

TEST(a_turn_shows_the_wall_clock_as_it_is)
{
    struct timespec wall;
    int64_t off_ms;

    clock_turn();
    (void)clock_gettime(CLOCK_REALTIME, &wall);
    off_ms = wall.tv_sec * 1000 + wall.tv_nsec / 1000000 - clock_wall_ms();
    CHECK(off_ms >= -2 && off_ms <= 2 + CLOCK_WALL_MS);
}
