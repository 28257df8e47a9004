/*
 * http_inside - what the files of this room share among themselves; not a door: others include http.h.
 */
#pragma once
#include "http.h"

/* HTTP_PORTABLE lets a test compile what other machines get. */
#if defined(__SSE2__) && !defined(HTTP_PORTABLE)
#define HTTP_SSE2
#include <emmintrin.h>
#endif

/* What a byte may be part of; class.c holds the table. */
enum {
    CLASS_TOKEN = 1,     /* methods, names (RFC 9110 5.6.2) */
    CLASS_TARGET = 2,    /* a request's target: visible ASCII but '#' */
    CLASS_AUTHORITY = 4, /* host and port: no '@', no ',' */
    CLASS_CONTROL = 8,   /* never anywhere but in CRLF; HTAB is none of them */
};
extern const uint8_t http_class_of[256];

static inline bool http_is(char c, unsigned classes)
{
    return http_class_of[(unsigned char)c] & classes;
}

/* The first byte in [at, end) that is a control character (HTAB is not); end when there is none. */
static inline const char *http_skip_text(const char *at, const char *end)
{
#ifdef HTTP_SSE2
    const __m128i highest_control = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\t'), delete = _mm_set1_epi8(0x7f);

    for (; end - at >= 16; at += 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, highest_control), bytes);
        __m128i found = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(bytes, tab), low), _mm_cmpeq_epi8(bytes, delete));
        unsigned mask = (unsigned)_mm_movemask_epi8(found);
        if (mask)
            return at + __builtin_ctz(mask);
    }
#else
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;

    while (end - at >= 8) {
        uint64_t bytes, suspects, deletes;
        memcpy(&bytes, at, sizeof bytes);
        deletes = bytes ^ (ones * 0x7f);
        suspects = ((bytes - ones * 0x20) & ~bytes) | ((deletes - ones) & ~deletes);
        if (!(suspects & tops)) {
            at += 8;
            continue;
        }
        for (const char *block_end = at + 8; at < block_end; at++)
            if (http_is(*at, CLASS_CONTROL))
                return at;
    }
#endif
    while (at < end && !http_is(*at, CLASS_CONTROL))
        at++;
    return at;
}

/* The first byte in [at, end) that no name may hold; end when there is none. */
static inline const char *http_skip_token(const char *at, const char *end)
{
#ifdef HTTP_SSE2
    /* Nearly all names are letters, digits and '-'; what else a token may hold is left to the table below. */
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i lower = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
        __m128i letters =
            _mm_and_si128(_mm_cmpgt_epi8(lower, _mm_set1_epi8('a' - 1)), _mm_cmplt_epi8(lower, _mm_set1_epi8('z' + 1)));
        __m128i digits =
            _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8('0' - 1)), _mm_cmplt_epi8(bytes, _mm_set1_epi8('9' + 1)));
        __m128i good = _mm_or_si128(_mm_or_si128(letters, digits), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('-')));
        unsigned mask = (unsigned)_mm_movemask_epi8(good) ^ 0xffffu;
        if (!mask) {
            at += 16;
            continue;
        }
        at += __builtin_ctz(mask);
        if (*at == ':')
            return at;
        break;
    }
#endif
    while (at < end && http_is(*at, CLASS_TOKEN))
        at++;
    return at;
}

/* Which known field a name is, HTTP_OTHER if none; the name must be a token. */
enum http_field_name http_known_field(struct slice name);

/*
 * Decides how the body is framed and whether the connection can be kept, out of a head whose fields have
 * been read. HTTP_DONE or HTTP_BAD.
 */
enum http_result http_frame_request(struct http_head *head, const char **ret_why);
enum http_result http_frame_response(struct http_head *head, bool to_head, const char **ret_why);
