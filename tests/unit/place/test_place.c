/* Where the control plane may listen. */
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "place.h"

TEST(only_addresses_of_this_machine_are_places)
{
    static const struct {
        const char *place;
        bool is_good;
    } rows[] = {
        { "127.0.0.1:18800", true },
        { "127.9.9.9:0", true },
        { "[::1]:65535", true },
        { "unix:/run/control.sock", true },
        { "0.0.0.0:18800", false },
        { ":18800", false },
        { "10.0.0.5:18800", false },
        { "[::]:18800", false },
        { "[2001:db8::1]:18800", false },
        { "[::ffff:10.0.0.1]:80", false },
        { "[::ffff:127.0.0.1]:80", true },
        { "::1:80", false },
        { "[127.0.0.1]:80", false },
        { "localhost:18800", false },
        { "127.0.0.1", false },
        { "127.0.0.1:", false },
        { "127.0.0.1:65536", false },
        { "127.0.0.1:080", false },
        { "127.0.0.1:-1", false },
        { "unix:", false },
        { "unix:relative", false },
        { "", false },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(!place_check(slice_of(rows[i].place)) == rows[i].is_good, rows[i].place);
}

TEST(a_path_has_an_end)
{
    char place[140] = "unix:/";

    memset(place + 6, 'x', sizeof place - 7);
    CHECK(place_check(slice_of(place)));
    place[5 + 107] = 0;
    CHECK(!place_check(slice_of(place)));
}

TEST(a_socket_is_opened_and_described)
{
    struct text why, out;
    int first = -1, second = -1;
    char place[64];

    text_init(&why, 1000);
    text_init(&out, 100);
    CHECK_EQ(place_open("127.0.0.1:0", &first, &why), ERR_OK);
    place_describe(first, &out);
    CHECK(slice_starts(text_slice(&out), SLICE("127.0.0.1:")) && out.len > 10);
    (void)snprintf(place, sizeof place, "%s", text_string(&out));
    CHECK_EQ(place_open(place, &second, &why), ERR_SYSTEM);
    CHECK(strstr(text_string(&why), "another program does already"));
    (void)close(first);
    text_release(&why);
    text_release(&out);
}

TEST(a_stale_unix_socket_is_replaced_and_one_in_use_is_not)
{
    struct text why, out;
    int first = -1, second = -1;
    char place[64];

    (void)snprintf(place, sizeof place, "unix:/tmp/qg-test-place-%d", (int)getpid());
    text_init(&why, 1000);
    text_init(&out, 100);
    CHECK_EQ(place_open(place, &first, &why), ERR_OK);
    place_describe(first, &out);
    CHECK_STR(text_string(&out), out.len, place);
    CHECK_EQ(place_open(place, &second, &why), ERR_SYSTEM);
    CHECK_EQ(access(place + 5, F_OK), 0);
    (void)close(first);
    text_clear(&why);
    CHECK_EQ(place_open(place, &second, &why), ERR_OK);
    (void)close(second);
    place_remove(place);
    CHECK(access(place + 5, F_OK) != 0);
    text_release(&why);
    text_release(&out);
}
