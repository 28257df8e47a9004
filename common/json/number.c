/* Numbers: their grammar, and what they are in C. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "scan.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* At least one digit. */
static const char *pass_digits(struct json_reader *reader, const char *at)
{
    if (at == reader->end)
        return json_stop(reader, at, JSON_ENDS_EARLY);
    if (!is_digit(*at))
        return json_stop(reader, at, JSON_SYNTAX);
#ifdef __SSE2__
    if (reader->end - at >= 16) { /* the durations of an answer have ten digits each */
        __m128i value = _mm_sub_epi8(_mm_loadu_si128((const __m128i_u *)at), _mm_set1_epi8('0'));
        __m128i digits = _mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value);
        at += __builtin_ctz(~(unsigned)_mm_movemask_epi8(digits));
    }
#endif
    while (at < reader->end && is_digit(*at))
        at++;
    return at;
}

const char *pass_number(struct json_reader *reader, const char *at)
{
    if (*at == '-')
        at++;
    if (at < reader->end && *at == '0')
        at++;
    else
        at = pass_digits(reader, at);
    if (at && at < reader->end && *at == '.')
        at = pass_digits(reader, at + 1);
    if (at && at < reader->end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < reader->end && (*at == '+' || *at == '-'))
            at++;
        at = pass_digits(reader, at);
    }
    return at;
}

/*
 * A number taken apart: ± digits × 10^scale, without zeros at either end of the digits. Digits past the
 * first KEPT are one digit more, a 1, if any of them is not zero: which double is nearest is decided sooner.
 */
enum { KEPT = 800 };
struct parts {
    bool is_negative;
    int count;
    int64_t scale;
    char digits[KEPT + 1];
};

static int64_t exponent_of(const char *at, const char *end)
{
    bool is_negative = *at == '-';
    int64_t exponent = 0;

    if (*at == '-' || *at == '+')
        at++;
    for (; at < end; at++)
        if (exponent < INT64_MAX / 1000) /* beyond any sense, and far from overflow */
            exponent = exponent * 10 + (*at - '0');
    return is_negative ? -exponent : exponent;
}

static void parts_of(struct slice number, struct parts *parts)
{
    const char *at = number.at, *end = at + number.len;
    bool is_fraction = false, is_longer = false;

    parts->count = 0;
    parts->scale = 0;
    parts->is_negative = *at == '-';
    for (at += parts->is_negative; at < end && (*at == '.' || is_digit(*at)); at++) {
        if (*at == '.') {
            is_fraction = true;
            continue;
        }
        parts->scale -= is_fraction;
        if (parts->count == KEPT) {
            parts->scale++;
            is_longer |= *at != '0';
        } else if (parts->count || *at != '0') {
            parts->digits[parts->count++] = *at;
        }
    }
    if (is_longer) {
        parts->digits[parts->count++] = '1';
        parts->scale--;
    }
    if (at < end)
        parts->scale += exponent_of(at + 1, end);
    for (; parts->count && parts->digits[parts->count - 1] == '0'; parts->count--)
        parts->scale++;
}

/* Up to 18 digits and a sign, which is nearly every whole number that anybody sends. */
static bool plain_i64(struct slice number, int64_t *ret_number)
{
    bool is_negative = number.at[0] == '-';
    int64_t size = 0;

    if (number.len > 18)
        return false;
    for (size_t i = is_negative; i < number.len; i++) {
        if (!is_digit(number.at[i]))
            return false;
        size = size * 10 + (number.at[i] - '0');
    }
    *ret_number = is_negative ? -size : size;
    return true;
}

static bool any_i64(struct slice number, int64_t *ret_number)
{
    struct parts parts __attribute__((uninitialized));
    uint64_t size = 0;

    parts_of(number, &parts);
    if (parts.count) {
        if (parts.scale < 0 || parts.scale > 18 || parts.count + parts.scale > 19)
            return false;
        for (int i = 0; i < parts.count + parts.scale; i++)
            size = size * 10 + (i < parts.count ? (uint64_t)(parts.digits[i] - '0') : 0);
    }
    if (size > (uint64_t)INT64_MAX + parts.is_negative)
        return false;
    *ret_number = parts.is_negative ? (int64_t)(0 - size) : (int64_t)size;
    return true;
}

bool json_number_i64(struct slice number, int64_t *ret_number)
{
    return plain_i64(number, ret_number) || any_i64(number, ret_number);
}

bool json_number_double(struct slice number, double *ret_number)
{
    /* The number again, ended by NUL, for the one function that rounds rightly. */
    char plain[KEPT + 32] __attribute__((uninitialized));
    struct parts parts __attribute__((uninitialized));
    double value;

    parts_of(number, &parts);
    (void)snprintf(plain, sizeof plain, "%s%.*se%lld", parts.is_negative ? "-" : "", parts.count ? parts.count : 1,
                   parts.count ? parts.digits : "0", (long long)parts.scale);
    value = strtod(plain, NULL);
    if (!isfinite(value))
        return false;
    *ret_number = value;
    return true;
}
