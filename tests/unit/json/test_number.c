#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "json.h"

TEST(a_number_is_taken_as_the_rfc_has_it_and_no_other)
{
    static const struct {
        const char *text;
        enum json_error error;
    } rows[] = {
        { "0", JSON_OK },
        { "-0", JSON_OK },
        { "10", JSON_OK },
        { "1.50", JSON_OK },
        { "0.0", JSON_OK },
        { "1e5", JSON_OK },
        { "1E+05", JSON_OK },
        { "1.5e-10", JSON_OK },
        { "1e99999999999999999999", JSON_OK },
        { "123456789012345678901234567890", JSON_OK },
        { "-", JSON_ENDS_EARLY },
        { "1.", JSON_ENDS_EARLY },
        { "1e", JSON_ENDS_EARLY },
        { "1e-", JSON_ENDS_EARLY },
        { "01", JSON_TRAILING },
        { "-01", JSON_TRAILING },
        { "1.e5", JSON_SYNTAX },
        { "--1", JSON_SYNTAX },
        { "-a", JSON_SYNTAX },
        { "1.5.2", JSON_TRAILING },
        { "0x10", JSON_TRAILING },
        { "1e5.0", JSON_TRAILING },
        { ".5", JSON_SYNTAX },
        { "+1", JSON_SYNTAX },
        { "Infinity", JSON_SYNTAX },
        { "NaN", JSON_SYNTAX },
        { "1_000", JSON_TRAILING },
        { "1f", JSON_TRAILING },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct json_reader reader;
        struct slice number = { 0 };
        json_open(&reader, slice_of(rows[i].text), JSON_MAX_DEPTH);
        json_number(&reader, &number);
        CHECK_ROW(json_close(&reader) == !rows[i].error, rows[i].text);
        CHECK_ROW(reader.error == rows[i].error, rows[i].text);
        CHECK_ROW(rows[i].error || slice_is(number, slice_of(rows[i].text)), rows[i].text);
    }
}

TEST(an_integer_is_one_however_it_is_written)
{
    static const struct {
        const char *text;
        bool is_integer;
        int64_t value;
    } rows[] = {
        { "0", true, 0 },
        { "-0", true, 0 },
        { "0e99999999999999999999", true, 0 },
        { "0.000", true, 0 },
        { "42", true, 42 },
        { "-42", true, -42 },
        { "1.0", true, 1 },
        { "1e2", true, 100 },
        { "1.5e1", true, 15 },
        { "150e-1", true, 15 },
        { "100000000000000000000000000000e-28", true, 10 },
        { "0.00000000000000000000000000001e30", true, 10 },
        { "1.5", false, 0 },
        { "15e-1", false, 0 },
        { "1e-1", false, 0 },
        { "1e-99999999999999999999", false, 0 },
        { "9223372036854775807", true, INT64_MAX },
        { "9223372036854775808", false, 0 },
        { "-9223372036854775808", true, INT64_MIN },
        { "-9223372036854775809", false, 0 },
        { "9223372036854775807.5", false, 0 },
        { "9.223372036854775807e18", true, INT64_MAX },
        { "1e18", true, 1000000000000000000 },
        { "1e19", false, 0 },
        { "9999999999999999999", false, 0 },
        { "18446744073709551617", false, 0 },
        { "1e99999999999999999999", false, 0 },
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t value = 77;
        CHECK_ROW(json_number_i64(slice_of(rows[i].text), &value) == rows[i].is_integer, rows[i].text);
        CHECK_ROW(value == (rows[i].is_integer ? rows[i].value : 77), rows[i].text);
    }
}

TEST(a_double_is_the_nearest_one)
{
    static const char *const rows[] = {
        "0",
        "0.7",
        "-2.5e-3",
        "1e308",
        "4.9e-324",
        "2.2250738585072014e-308",
        "1e-400",
        "123456789012345678901234567890",
        "0.1e-5",
        "1.7976931348623157e308",
        "9007199254740993",
        "0.1000000000000000055511151231257827",
    };

    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        double value = 77;
        CHECK_ROW(json_number_double(slice_of(rows[i]), &value), rows[i]);
        CHECK_ROW(value == strtod(rows[i], NULL), rows[i]);
    }
}

TEST(a_number_does_not_end_where_its_text_ends_in_memory)
{
    int64_t integer;
    double real;

    CHECK(json_number_i64((struct slice){ "123456", 3 }, &integer));
    CHECK_EQ(integer, 123);
    CHECK(json_number_double((struct slice){ "1.5999", 3 }, &real));
    CHECK(real == 1.5);
}

TEST(minus_zero_keeps_its_sign_as_a_double)
{
    double value = 1;

    CHECK(json_number_double(SLICE("-0.0"), &value));
    CHECK(value == 0 && signbit(value));
}

TEST(what_is_infinite_as_a_double_is_refused)
{
    double value = 77;

    CHECK(!json_number_double(SLICE("1e309"), &value));
    CHECK(!json_number_double(SLICE("-1e99999999999999999999"), &value));
    CHECK(value == 77);
}

TEST(a_number_of_a_thousand_digits_is_rounded_by_all_of_them)
{
    /* Half way between 1 and the next double, and then a little more, far behind. */
    struct text text;
    double value;

    text_init(&text, 10000);
    text_add_string(&text, "1.00000000000000011102230246251565404236316680908203125");
    CHECK(json_number_double(text_slice(&text), &value));
    CHECK(value == 1);
    for (unsigned i = 0; i < 2000; i++)
        text_add_char(&text, '0');
    CHECK(json_number_double(text_slice(&text), &value));
    CHECK(value == 1);
    text_add_char(&text, '1');
    CHECK(json_number_double(text_slice(&text), &value));
    CHECK(value > 1);
    CHECK(value == strtod(text_string(&text), NULL));

    text_clear(&text);
    text_add_string(&text, "0.");
    for (unsigned i = 0; i < 2000; i++)
        text_add_char(&text, '0');
    text_add_string(&text, "15e2001");
    CHECK(json_number_double(text_slice(&text), &value));
    CHECK(value == 1.5);
    text_release(&text);
}
