#include "check.h"
#include "text.h"

TEST(slices_are_the_same_when_their_bytes_are)
{
    CHECK(slice_is(SLICE("abc"), slice_of("abc")));
    CHECK(!slice_is(SLICE("abc"), SLICE("abd")));
    CHECK(!slice_is(SLICE("abc"), SLICE("ab")));
    CHECK(slice_is(SLICE(""), (struct slice){ NULL, 0 }));
    CHECK(slice_is(SLICE("a\0b"), SLICE("a\0b")));
    CHECK(!slice_is(SLICE("a\0b"), SLICE("a\0c")));
    CHECK_EQ(slice_of(NULL).len, 0);
}

TEST(only_ascii_letters_compare_without_case)
{
    CHECK(slice_is_nocase(SLICE("Content-LENGTH"), SLICE("content-length")));
    CHECK(slice_is_nocase(SLICE(""), (struct slice){ NULL, 0 }));
    CHECK(!slice_is_nocase(SLICE("abc"), SLICE("abcd")));
    CHECK(!slice_is_nocase(SLICE("@[`{"), SLICE("`{@[")));
    CHECK(!slice_is_nocase(SLICE("\xc3\xa9"), SLICE("\xc3\x89")));
}

TEST(a_slice_starts_and_ends_with_what_it_starts_and_ends_with)
{
    CHECK(slice_starts(SLICE("bearer x"), SLICE("bearer ")));
    CHECK(slice_starts(SLICE("x"), SLICE("")));
    CHECK(slice_starts((struct slice){ NULL, 0 }, (struct slice){ NULL, 0 }));
    CHECK(!slice_starts(SLICE("bear"), SLICE("bearer")));
    CHECK(!slice_starts(SLICE("xbearer"), SLICE("bearer")));
    CHECK(slice_ends(SLICE("model:latest"), SLICE(":latest")));
    CHECK(slice_ends(SLICE("x"), (struct slice){ NULL, 0 }));
    CHECK(!slice_ends(SLICE("latest"), SLICE(":latest")));
    CHECK(!slice_ends(SLICE("model:latestx"), SLICE(":latest")));
}

TEST(a_slice_has_what_stands_anywhere_in_it)
{
    CHECK(slice_has(SLICE("text/html,*/*"), SLICE("html")));
    CHECK(slice_has(SLICE("a\0b"), SLICE("\0b")));
    CHECK(slice_has((struct slice){ NULL, 0 }, SLICE("")));
    CHECK(!slice_has((struct slice){ NULL, 0 }, SLICE("a")));
    CHECK(!slice_has(SLICE("text/htm"), SLICE("html")));
}

TEST(trimming_takes_spaces_and_tabs_off_both_ends)
{
    struct slice trimmed = slice_trim(SLICE(" \t a b\t "));

    CHECK_STR(trimmed.at, trimmed.len, "a b");
    CHECK_EQ(slice_trim(SLICE(" \t ")).len, 0);
    CHECK_EQ(slice_trim((struct slice){ NULL, 0 }).len, 0);
    CHECK_EQ(slice_trim(SLICE("\nx\r")).len, 3);
}

TEST(an_empty_text_has_no_bytes_and_is_a_string)
{
    struct text text;

    text_init(&text, 10);
    CHECK_EQ(text.len, 0);
    CHECK_STR(text_string(&text), strlen(text_string(&text)), "");
    text_add_string(&text, "");
    CHECK_EQ(text.len, 0);
    CHECK_STR(text_string(&text), strlen(text_string(&text)), "");
    text_release(&text);
    text_release(&text);
}

TEST(a_text_grows_byte_by_byte_and_stays_ended_by_nul)
{
    struct text text;

    text_init(&text, 10000);
    for (size_t i = 0; i < 5000; i++) {
        text_add_char(&text, (char)('a' + i % 26));
        CHECK_EQ(text.len, i + 1);
        CHECK(text.at[i] == (char)('a' + i % 26) && text.at[i + 1] == 0);
        CHECK(text.room > text.len);
    }
    for (size_t i = 0; i < 5000; i++)
        CHECK(text.at[i] == (char)('a' + i % 26));
    text_release(&text);
}

TEST(a_text_reaches_its_ceiling_and_breaks_beyond_it)
{
    struct text text;

    text_init(&text, 5);
    text_add_string(&text, "abc");
    text_add_string(&text, "de");
    CHECK(!text.err);
    text_add_char(&text, 'f');
    CHECK_EQ(text.err, ERR_TOO_LONG);
    text_add_string(&text, "");
    CHECK_STR(text.at, text.len, "abcde");
    text_clear(&text);
    CHECK(!text.err);
    CHECK_STR(text_string(&text), text.len, "");
    text_add_string(&text, "fits");
    CHECK_STR(text.at, text.len, "fits");
    text_release(&text);
}

TEST(a_broken_text_takes_nothing_more_even_if_it_would_fit)
{
    struct text text;

    text_init(&text, 5);
    text_add_string(&text, "abc");
    text_add_string(&text, "defg");
    CHECK_EQ(text.err, ERR_TOO_LONG);
    text_add_char(&text, 'd');
    text_add_u64(&text, 1);
    text_printf(&text, "%d", 1);
    CHECK(!text_reserve(&text, 0));
    CHECK_STR(text.at, text.len, "abc");
    text_release(&text);
}

TEST(a_ceiling_of_nothing_holds_nothing)
{
    struct text text;

    text_init(&text, 0);
    text_add(&text, "", 0);
    CHECK(!text.err);
    text_add_char(&text, 'x');
    CHECK_EQ(text.err, ERR_TOO_LONG);
    text_release(&text);
}

TEST(no_length_is_too_absurd_to_be_refused)
{
    struct text text;

    text_init(&text, SIZE_MAX);
    text_add_string(&text, "abc");
    CHECK(!text_reserve(&text, SIZE_MAX));
    CHECK_EQ(text.err, ERR_TOO_LONG);
    text_clear(&text);
    text_add_string(&text, "abc");
    CHECK(!text_reserve(&text, SIZE_MAX - 3));
    CHECK(text.err);
    CHECK_STR(text.at, text.len, "abc");
    text_release(&text);
}

TEST(reserved_room_may_be_written_by_hand)
{
    struct text text;

    text_init(&text, 1000);
    CHECK(text_reserve(&text, 500));
    memset(text.at, 'x', 500);
    text.len += 500;
    text_add_char(&text, 'y');
    CHECK_EQ(text.len, 501);
    CHECK(text.at[499] == 'x' && text.at[500] == 'y' && text.at[501] == 0);
    text_release(&text);
}

TEST(numbers_are_written_in_full)
{
    struct text text;

    text_init(&text, 1000);
    text_add_u64(&text, 0);
    text_add_char(&text, ' ');
    text_add_u64(&text, UINT64_MAX);
    text_add_char(&text, ' ');
    text_add_i64(&text, INT64_MIN);
    text_add_char(&text, ' ');
    text_add_i64(&text, -1);
    text_add_char(&text, ' ');
    text_add_i64(&text, INT64_MAX);
    CHECK_STR(text.at, text.len, "0 18446744073709551615 -9223372036854775808 -1 9223372036854775807");
    text_release(&text);
}

TEST(what_is_printed_is_appended_however_long_it_is)
{
    struct text text;

    text_init(&text, 1000);
    text_printf(&text, "%s=%d;", "a", 7);
    text_printf(&text, "%0300d", 1);
    CHECK_EQ(text.len, 304);
    CHECK(slice_starts(text_slice(&text), SLICE("a=7;000")));
    CHECK(slice_ends(text_slice(&text), SLICE("001")));
    text_printf(&text, "%0700d", 1);
    CHECK_EQ(text.err, ERR_TOO_LONG);
    CHECK_EQ(text.len, 304);
    text_release(&text);
}

TEST(a_text_over_memory_of_the_callers_ends_where_that_ends)
{
    char memory[8 + 1];
    struct text text;

    memset(memory, '#', sizeof memory);
    text = text_over(memory, 8);
    CHECK_EQ(text.len, 0);
    CHECK_STR(text_string(&text), strlen(text_string(&text)), "");
    text_add_literal(&text, "seven");
    text_add_u64(&text, 42);
    CHECK_STR(text.at, text.len, "seven42");
    CHECK(text.at == memory);
    CHECK_EQ(memory[7], 0);
    text_add_char(&text, '!');
    CHECK_EQ(text.err, ERR_TOO_LONG);
    CHECK_EQ(text.len, 7);
    CHECK_EQ(memory[8], '#');
}

TEST(bytes_are_dropped_from_the_front)
{
    struct text text;

    text_init(&text, 100);
    text_drop_front(&text, 0);
    text_add_string(&text, "abcdef");
    text_drop_front(&text, 2);
    CHECK_STR(text.at, text.len, "cdef");
    CHECK_EQ(text.at[4], 0);
    text_drop_front(&text, 4);
    CHECK_EQ(text.len, 0);
    CHECK_EQ(text.at[0], 0);
    text_release(&text);
}

TEST(every_number_of_digits_is_written)
{
    uint64_t number = 9;
    struct text text;

    for (size_t digits = 1; digits <= 19; digits++, number = number * 10 + 9) {
        text_init(&text, 100);
        text_add_u64(&text, number);
        CHECK_EQ(text.len, digits);
        CHECK_EQ(text.at[0], '9');
        text_clear(&text);
        text_add_u64(&text, number + 1);
        CHECK_EQ(text.len, digits + 1);
        CHECK(slice_starts(text_slice(&text), SLICE("10")));
        text_release(&text);
    }
}

TEST(a_released_text_keeps_its_ceiling_and_can_be_used_again)
{
    struct text text;

    text_init(&text, 3);
    text_add_string(&text, "abc");
    text_release_wiped(&text);
    CHECK_EQ(text.len, 0);
    CHECK(!text.at);
    text_add_string(&text, "abc");
    CHECK(!text.err);
    text_add_char(&text, 'd');
    CHECK_EQ(text.err, ERR_TOO_LONG);
    text_release_wiped(&text);
    text_release_wiped(&text);
}

/* Are the bytes from here to the end of what was filled before zero? */
static bool is_clean(const struct text *text, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        if (text->at[i])
            return false;
    return true;
}

TEST(a_text_that_is_wiped_holds_nothing_of_what_was_ever_in_it)
{
    struct text text;

    text_init(&text, 1000);
    text_add_literal(&text, "a key and a prompt");
    text_drop_front(&text, 6);
    CHECK_STR(text.at, text.len, "and a prompt");
    text_clear(&text);
    text_add_literal(&text, "short");
    text_clear_wiped(&text);
    CHECK_EQ(text.len, 0);
    CHECK(is_clean(&text, 0, 18));
    text_release(&text);
}
