#include "clock.h"

#include <stdbool.h>
#include <time.h>

#include "text.h"

static int64_t now(clockid_t clock, int64_t per_second)
{
    struct timespec ts;

    (void)clock_gettime(clock, &ts);
    return ts.tv_sec * per_second + ts.tv_nsec / (1000000000 / per_second);
}

/* What clock_turn() saw; 0: it was never called on this thread. */
static _Thread_local int64_t turn_us, wall_seen_us, wall_offset_ms;

void clock_turn(void)
{
    turn_us = now(CLOCK_MONOTONIC, 1000000);
    if (!wall_seen_us || turn_us - wall_seen_us >= CLOCK_WALL_MS * 1000) {
        wall_seen_us = turn_us;
        wall_offset_ms = now(CLOCK_REALTIME, 1000) - turn_us / 1000;
    }
}

int64_t clock_ms(void)
{
    return turn_us ? turn_us / 1000 : now(CLOCK_MONOTONIC, 1000);
}

int64_t clock_us(void)
{
    return turn_us ? turn_us : now(CLOCK_MONOTONIC, 1000000);
}

int64_t clock_wall_ms(void)
{
    return turn_us ? turn_us / 1000 + wall_offset_ms : now(CLOCK_REALTIME, 1000);
}

/* Days since 1970-01-01 of a Gregorian date, after Howard Hinnant's days_from_civil. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    unsigned of_era = (unsigned)(year - era * 400);
    unsigned of_year = (153 * (month + (month > 2 ? -3u : 9u)) + 2) / 5 + day - 1;
    return era * 146097 + (int64_t)(of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468;
}

void clock_add_wall(struct text *text, int64_t wall_ms)
{
    /* One thread's lines come many a second: the date part is made once a second. */
    static _Thread_local int64_t cached_second = INT64_MIN;
    static _Thread_local char cached[24];
    int64_t second = wall_ms / 1000 - (wall_ms % 1000 < 0);
    int64_t ms = wall_ms - second * 1000;
    char fraction[5];

    if (second != cached_second) {
        time_t when = (time_t)second;
        struct tm tm;
        (void)gmtime_r(&when, &tm);
        (void)strftime(cached, sizeof cached, "%Y-%m-%dT%H:%M:%S", &tm);
        cached_second = second;
    }
    fraction[0] = '.';
    fraction[1] = (char)('0' + ms / 100);
    fraction[2] = (char)('0' + ms / 10 % 10);
    fraction[3] = (char)('0' + ms % 10);
    fraction[4] = 'Z';
    text_add_string(text, cached);
    text_add(text, fraction, sizeof fraction);
}

static int digits(const char **at, const char *end, unsigned count)
{
    int number = 0;

    for (unsigned i = 0; i < count; i++, (*at)++) {
        if (*at == end || **at < '0' || **at > '9')
            return -1;
        number = number * 10 + (**at - '0');
    }
    return number;
}

static bool passes(const char **at, const char *end, char wanted)
{
    if (*at == end || **at != wanted)
        return false;
    (*at)++;
    return true;
}

static int days_in(int year, int month)
{
    static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

    return days[month - 1] + (month == 2 && is_leap);
}

static bool parse_date(const char **at, const char *end, int64_t *ret_seconds)
{
    int year, month, day;

    if ((year = digits(at, end, 4)) < 0 || !passes(at, end, '-') || (month = digits(at, end, 2)) < 1 || month > 12 ||
        !passes(at, end, '-') || (day = digits(at, end, 2)) < 1 || day > days_in(year, month))
        return false;
    *ret_seconds = days_of(year, (unsigned)month, (unsigned)day) * 86400;
    return true;
}

/* HH:MM, in seconds. */
static bool parse_hour(const char **at, const char *end, int64_t *ret_seconds)
{
    int hour, minute;

    if ((hour = digits(at, end, 2)) < 0 || hour > 23 || !passes(at, end, ':') || (minute = digits(at, end, 2)) < 0 ||
        minute > 59)
        return false;
    *ret_seconds = hour * 3600 + minute * 60;
    return true;
}

/* :SS with its fraction, which is left out. 60 is a leap second. */
static bool parse_second(const char **at, const char *end, int64_t *ret_seconds)
{
    int second;

    if (!passes(at, end, ':') || (second = digits(at, end, 2)) < 0 || second > 60)
        return false;
    if (passes(at, end, '.')) {
        if (digits(at, end, 1) < 0)
            return false;
        while (*at < end && **at >= '0' && **at <= '9')
            (*at)++;
    }
    *ret_seconds = second;
    return true;
}

/* Z, or how far the local time is ahead. */
static bool parse_zone(const char **at, const char *end, int64_t *ret_seconds)
{
    bool is_behind;

    *ret_seconds = 0;
    if (passes(at, end, 'Z'))
        return true;
    is_behind = passes(at, end, '-');
    if ((!is_behind && !passes(at, end, '+')) || !parse_hour(at, end, ret_seconds))
        return false;
    if (is_behind)
        *ret_seconds = -*ret_seconds;
    return true;
}

int64_t clock_parse_rfc3339(const char *at, unsigned long len)
{
    const char *end = at + len;
    int64_t date, hour, second, zone, moment;

    if (!parse_date(&at, end, &date) || !passes(&at, end, 'T') || !parse_hour(&at, end, &hour) ||
        !parse_second(&at, end, &second) || !parse_zone(&at, end, &zone) || at != end)
        return -1;
    moment = date + hour + second - zone;
    return moment < 0 ? -1 : moment;
}
