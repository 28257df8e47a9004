/* What of the admin API needs no connection: durations, cursors, paths, queries, the limiter, problems. */
#include <stdlib.h>

#include "check.h"
#include "parts.h"

TEST(a_duration_is_a_number_and_a_unit)
{
    static const struct {
        const char *text;
        int64_t ms; /* -1: it is none */
    } rows[] = {
        { "90d", INT64_C(90) * 86400000 },
        { "24h", 86400000 },
        { "30m", 1800000 },
        { "15s", 15000 },
        { "500ms", 500 },
        { "0s", 0 },
        { "999999999d", INT64_C(999999999) * 86400000 },
        { "1000000000s", -1 },
        { "", -1 },
        { "s", -1 },
        { "5", -1 },
        { "-5s", -1 },
        { "5 s", -1 },
        { "5S", -1 },
        { "5sm", -1 },
        { "1.5h", -1 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t ms = -1;
        CHECK_ROW(duration_parse(slice_of(rows[i].text), &ms) == (rows[i].ms >= 0), rows[i].text);
        CHECK_ROW(ms == rows[i].ms, rows[i].text);
    }
}

TEST(a_cursor_leads_back_to_its_place_in_its_own_list_alone)
{
    static const char position[] = "2026-11-23 04:00:00+00|0|\n\xc3\xa9";
    struct text cursor, found;

    for (size_t len = 1; len < sizeof position; len++) {
        struct slice place = { position, len };
        text_init(&cursor, CURSOR_MAX_BYTES);
        text_init(&found, CURSOR_MAX_BYTES);
        cursor_write(SLICE("key?{}"), place, &cursor);
        CHECK(cursor_read(text_slice(&cursor), SLICE("key?{}"), &found));
        CHECK(slice_is(text_slice(&found), place));
        CHECK(!cursor_read(text_slice(&cursor), SLICE("key?{\"user\":\"a\"}"), &found));
        CHECK(!cursor_read(text_slice(&cursor), SLICE("user?{}"), &found));
        CHECK_EQ(strspn(text_string(&cursor), "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
                 cursor.len);
        for (size_t i = 0; i < cursor.len; i++) { /* no letter can be changed */
            cursor.at[i] = cursor.at[i] == 'A' ? 'B' : 'A';
            CHECK(!cursor_read(text_slice(&cursor), SLICE("key?{}"), &found));
            text_clear(&cursor);
            cursor_write(SLICE("key?{}"), place, &cursor);
        }
        for (size_t i = 0; i < cursor.len; i++)
            CHECK(!cursor_read((struct slice){ cursor.at, i }, SLICE("key?{}"), &found));
        text_release(&cursor);
        text_release(&found);
    }
}

TEST(what_is_no_cursor_is_refused)
{
    static const char *const rows[] = { "", "A", "AAAA", "AAAAAA==", "A\x80", "....", "AAAAAAAAA" };
    struct text found;

    text_init(&found, 100);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(!cursor_read(slice_of(rows[i]), SLICE("x"), &found), rows[i]);
    text_release(&found);
}

TEST(a_path_finds_its_route)
{
    static const struct {
        const char *method, *path, *id, *param; /* id NULL: there is none */
    } rows[] = {
        { "GET", "/admin/v1/users", "listUsers", NULL },
        { "GET", "/admin/v1/users/alice", "getUser", "alice" },
        { "PATCH", "/admin/v1/users/a%2Fb", "updateUser", "a%2Fb" },
        { "POST", "/admin/v1/keys/import", "importKeys", NULL },
        { "GET", "/admin/v1/keys/import", NULL, NULL },
        { "POST", "/admin/v1/keys/x/rotate", "rotateKey", "x" },
        { "POST", "/admin/v1/keys/x/dance", NULL, NULL },
        { "GET", "/admin/openapi.json", "getDocument", NULL },
        { "GET", "/admin/v1/users/", NULL, NULL },
        { "GET", "/admin/v1/users//", NULL, NULL },
        { "GET", "/admin/v1//users", NULL, NULL },
        { "GET", "admin/v1/users", NULL, NULL },
        { "GET", "/admin/v1/users/alice/", NULL, NULL },
        { "GET", "/admin/v1/user", NULL, NULL },
        { "GET", "/", NULL, NULL },
        { "GET", "", NULL, NULL },
        { "get", "/admin/v1/users", NULL, NULL },
        { "OTHER", "/admin/v1/users", NULL, NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice param = { NULL, 0 };
        unsigned methods;
        const struct route *route = route_find(rows[i].method, slice_of(rows[i].path), &param, &methods);
        CHECK_ROW(rows[i].id ? route && strcmp(route->id, rows[i].id) == 0 : !route, rows[i].path);
        CHECK_ROW(!rows[i].param || slice_is(param, slice_of(rows[i].param)), rows[i].path);
    }
}

TEST(a_path_without_the_method_says_which_there_are)
{
    struct slice param;
    unsigned methods;

    CHECK(!route_find("PUT", SLICE("/admin/v1/users/alice"), &param, &methods));
    CHECK_EQ(methods, 1U << METHOD_GET | 1U << METHOD_PATCH | 1U << METHOD_DELETE);
    CHECK(!route_find("GET", SLICE("/admin/v1/keys/import"), &param, &methods));
    CHECK_EQ(methods, 1U << METHOD_POST);
    CHECK(!route_find("GET", SLICE("/nothing"), &param, &methods));
    CHECK_EQ(methods, 0);
}

TEST(every_route_is_whole)
{
    for (size_t i = 0; i < route_count; i++) {
        const struct route *route = &routes[i];
        CHECK_ROW(route->handle && route->help && route->id, route->path);
        CHECK_ROW(route->answer || route->noun, route->path);
        CHECK_ROW(!(route->traits & IS_CHANGE) == (route->method == METHOD_GET), route->path);
        CHECK_ROW(!(route->traits & IS_CHANGE) || (route->action && !(route->roles & (ROLE_VIEWER | ROLE_BILLING))),
                  route->path);
        CHECK_ROW(!(route->traits & IS_LIST) || route->noun, route->path);
        for (size_t k = 0; k < i; k++)
            CHECK_ROW(strcmp(routes[k].id, route->id) != 0, route->id);
    }
}

TEST(escapes_are_decoded_or_refused)
{
    static const struct {
        const char *text, *decoded; /* NULL: refused */
    } rows[] = {
        { "a%2Fb%2fc", "a/b/c" }, { "a+b", "a b" }, { "%C3%A9", "\xc3\xa9" }, { "", "" },      { "%", NULL },
        { "%4", NULL },           { "%zz", NULL },  { "%ff", NULL },          { "%00", NULL }, { "%ED%A0%80", NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;
        text_init(&out, 100);
        CHECK_ROW(percent_decode(slice_of(rows[i].text), true, &out) == (rows[i].decoded != NULL), rows[i].text);
        CHECK_ROW(!rows[i].decoded || strcmp(text_string(&out), rows[i].decoded) == 0, rows[i].text);
        text_release(&out);
    }
}

TEST(depth_is_counted_outside_of_strings)
{
    CHECK(!json_is_deep(SLICE("[[[[]]]]"), 4));
    CHECK(json_is_deep(SLICE("[[[[]]]]"), 3));
    CHECK(!json_is_deep(SLICE("{\"[[[[[[\": \"{{{\\\"{{{\"}"), 1));
    CHECK(!json_is_deep(SLICE("[][][][]"), 1));
    CHECK(!json_is_deep(SLICE("\"\\"), 1));
}

static struct address address_of(const char *text)
{
    struct address address;

    CHECK(address_parse(slice_of(text), &address));
    return address;
}

TEST(wrong_tokens_are_counted_by_address_and_minute)
{
    struct limiter *limiter = malloc(sizeof *limiter);
    struct address one = address_of("192.0.2.1"), other = address_of("192.0.2.2");

    limiter_init(limiter, 3);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(limiter_count(limiter, &one, 1000 + i), 0);
    CHECK_EQ(limiter_count(limiter, &one, 1010), 59990);
    CHECK_EQ(limiter_count(limiter, &other, 1010), 0);
    CHECK_EQ(limiter_count(limiter, &one, 60999), 1);
    CHECK_EQ(limiter_count(limiter, &one, 61000), 0);
    free(limiter);
}

TEST(who_has_one_address_of_ipv6_has_the_whole_net)
{
    struct limiter *limiter = malloc(sizeof *limiter);
    struct address one = address_of("2001:db8::1"), same = address_of("2001:db8::ffff:1"),
                   other = address_of("2001:db8:0:1::1");

    limiter_init(limiter, 1);
    CHECK_EQ(limiter_count(limiter, &one, 1), 0);
    CHECK(limiter_count(limiter, &same, 1) > 0);
    CHECK_EQ(limiter_count(limiter, &other, 1), 0);
    free(limiter);
}

TEST(many_addresses_take_no_more_memory_and_do_not_free_one_that_comes_on)
{
    struct limiter *limiter = malloc(sizeof *limiter);
    struct address one = address_of("192.0.2.1");
    unsigned refused = 0;

    limiter_init(limiter, 5);
    for (uint32_t i = 0; i < 100000; i++) {
        struct address many = address_of("10.0.0.0");
        memcpy(many.bytes + 13, (char *)&i, 3);
        (void)limiter_count(limiter, &many, 1 + i / 100);
        if (i % 10 == 0)
            refused += limiter_count(limiter, &one, 1 + i / 100) > 0;
    }
    CHECK(refused > 0); /* it may lose its place, but not all the time */
    free(limiter);
}

TEST(a_problem_is_json_whatever_stands_in_it)
{
    struct text out;
    json_t *read;

    for (size_t i = 0; i < problem_count; i++) {
        text_init(&out, 4096);
        problem_write(&problems[i], SLICE("\"quoted\" \\ \x01 \xc3\xa9"), SLICE("id"), SLICE("{\"detail\":\"x\"}"),
                      &out);
        read = json_loads(text_string(&out), 0, NULL);
        CHECK_ROW(read, problems[i].code);
        CHECK_EQ(json_integer_value(json_object_get(read, "status")), problems[i].status);
        CHECK_ROW(strcmp(reason_of(problems[i].status), "Internal Server Error") != 0 || problems[i].status == 500,
                  problems[i].code);
        json_decref(read);
        text_release(&out);
    }
    CHECK(strcmp(problem_of("never heard of")->code, "internal") == 0);
}
