/* The wide scans against the byte table; test_scan_portable.c compiles this once more without SIMD. */
#include <stdlib.h>

#include "check.h"
#include "http_inside.h"

#ifdef HTTP_PORTABLE
#define SCAN_TEST(name) TEST(name##_without_simd)
#else
#define SCAN_TEST(name) TEST(name)
#endif

enum { LONGEST = 40 };

typedef const char *skip(const char *at, const char *end);

/* Every length, every place of a byte in it, every byte: where does the scan stop? */
static void check_stops(skip *scan, char filler, bool (*stops_at)(unsigned char))
{
    for (size_t len = 1; len <= LONGEST; len++) {
        char *bytes = malloc(len);
        CHECK(bytes);
        memset(bytes, filler, len);
        CHECK(scan(bytes, bytes + len) == bytes + len);
        for (size_t at = 0; at < len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                bytes[at] = (char)byte;
                CHECK_EQ(scan(bytes, bytes + len) - bytes, stops_at((unsigned char)byte) ? at : len);
            }
            bytes[at] = filler;
        }
        free(bytes);
    }
}

static bool is_control(unsigned char byte)
{
    return (byte < 0x20 && byte != '\t') || byte == 0x7f;
}

static bool is_no_token(unsigned char byte)
{
    return !http_is_token((struct slice){ (const char *)&byte, 1 });
}

SCAN_TEST(the_scan_for_controls_stops_at_the_first_one)
{
    check_stops(http_skip_text, 'x', is_control);
    check_stops(http_skip_text, '\t', is_control);
    check_stops(http_skip_text, (char)0xff, is_control);
}

SCAN_TEST(the_scan_of_names_stops_where_a_token_ends)
{
    check_stops(http_skip_token, 'x', is_no_token);
    check_stops(http_skip_token, '_', is_no_token);
}
