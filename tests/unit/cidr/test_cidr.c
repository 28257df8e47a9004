#include "cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "check.h"

static struct address address_of(const char *text)
{
    struct address address;

    if (!address_parse(slice_of(text), &address))
        check_fail(__FILE__, __LINE__, "not an address: %s", text);
    return address;
}

static struct cidr cidr_of(const char *text)
{
    struct cidr cidr = { 0 };
    struct text why;

    text_init(&why, 512);
    if (cidr_parse(slice_of(text), &cidr, &why) != ERR_OK)
        check_fail(__FILE__, __LINE__, "%s: %s", text, text_string(&why));
    CHECK_EQ(why.len, 0);
    text_release(&why);
    return cidr;
}

TEST(addresses_are_read_and_written_alike)
{
    static const struct {
        const char *written, *shown;
    } rows[] = {
        { "127.0.0.1", "127.0.0.1" },
        { "0.0.0.0", "0.0.0.0" },
        { "255.255.255.255", "255.255.255.255" },
        { "::1", "::1" },
        { "::", "::" },
        { "2001:DB8:0:0::1", "2001:db8::1" },
        { "::ffff:10.1.2.3", "10.1.2.3" },
        { "::ffff:a01:203", "10.1.2.3" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct address address = address_of(rows[i].written);
        char shown[ADDRESS_TEXT_BYTES];
        CHECK_ROW(strcmp(address_text(&address, shown), rows[i].shown) == 0, rows[i].written);
    }
}

TEST(what_is_no_address_is_refused)
{
    static const char *const rows[] = {
        "",
        " ",
        "localhost",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.1.2",
        "010.0.0.1",
        "1.2.3.4 ",
        "::1%eth0",
        "[::1]",
        "1:2",
        "10.0.0.1:80",
        ":::",
        "12345::",
        "::ffff:10.0.0.256",
        "0x7f.0.0.1",
        "1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc:dddd:eeee",
    };
    struct address address;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_ROW(!address_parse(slice_of(rows[i]), &address), rows[i]);
    CHECK(!address_parse(SLICE("127.0.0.1\0"), &address));
    CHECK(!address_parse((struct slice){ NULL, 0 }, &address));
}

TEST(a_proxy_may_add_brackets_and_a_port)
{
    static const struct {
        const char *written, *shown; /* NULL: refused */
    } rows[] = {
        { "10.0.0.1", "10.0.0.1" },
        { "10.0.0.1:80", "10.0.0.1" },
        { "10.0.0.1:65535", "10.0.0.1" },
        { "::1", "::1" },
        { "[::1]", "::1" },
        { "[2001:db8::1]:443", "2001:db8::1" },
        { "10.0.0.1:65536", NULL },
        { "10.0.0.1:", NULL },
        { "10.0.0.1:8o", NULL },
        { "[::1", NULL },
        { "[::1]x", NULL },
        { "[::1]:", NULL },
        { "[10.0.0.1]", NULL },
        { "[]", NULL },
        { "unknown", NULL },
        { "_hidden", NULL },
        { "", NULL },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct address address;
        char shown[ADDRESS_TEXT_BYTES];
        bool is_good = address_parse_loose(slice_of(rows[i].written), &address);
        CHECK_ROW(is_good == (rows[i].shown != NULL), rows[i].written);
        CHECK_ROW(!is_good || strcmp(address_text(&address, shown), rows[i].shown) == 0, rows[i].written);
    }
}

TEST(sockets_of_every_family_have_an_address)
{
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000102) };
    struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
    struct sockaddr_un local = { .sun_family = AF_UNIX };
    struct address address, wanted = address_of("10.0.1.2");

    address_of_sockaddr((const struct sockaddr *)&v4, &address);
    CHECK(address_is(&address, &wanted));
    CHECK_EQ(inet_pton(AF_INET6, "::ffff:10.0.1.2", &v6.sin6_addr), 1);
    address_of_sockaddr((const struct sockaddr *)&v6, &address);
    CHECK(address_is(&address, &wanted));
    wanted = address_of("::1");
    address_of_sockaddr((const struct sockaddr *)&local, &address);
    CHECK(address_is(&address, &wanted));
}

TEST(a_range_has_what_lies_within)
{
    static const struct {
        const char *range, *address;
        bool is_within;
    } rows[] = {
        { "10.0.0.0/16", "10.0.0.0", true },
        { "10.0.0.0/16", "10.0.255.255", true },
        { "10.0.0.0/16", "10.1.0.0", false },
        { "10.0.0.0/16", "::ffff:10.0.7.7", true },
        { "10.0.0.0/9", "10.127.255.255", true },
        { "10.0.0.0/9", "10.128.0.0", false },
        { "192.168.1.64/27", "192.168.1.95", true },
        { "192.168.1.64/27", "192.168.1.96", false },
        { "127.0.0.1", "127.0.0.1", true },
        { "127.0.0.1", "127.0.0.2", false },
        { "0.0.0.0/0", "8.8.8.8", true },
        { "0.0.0.0/0", "2001:db8::1", false },
        { "::/0", "2001:db8::1", true },
        { "::/0", "8.8.8.8", true },
        { "fd00::/8", "fdff:1::2", true },
        { "fd00::/8", "fe00::", false },
        { "2001:db8::/33", "2001:db8:7fff::", true },
        { "2001:db8::/33", "2001:db8:8000::", false },
        { "::1", "::1", true },
        { "::1/128", "::2", false },
        { "::ffff:10.0.0.0/104", "10.9.9.9", true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cidr cidr = cidr_of(rows[i].range);
        struct address address = address_of(rows[i].address);
        CHECK_ROW(cidr_has(&cidr, &address) == rows[i].is_within, rows[i].range);
    }
}

TEST(a_bad_range_is_refused_with_a_sentence_that_names_it)
{
    static const struct {
        const char *written, *why;
    } rows[] = {
        { "10.0.0.300", "\"10.0.0.300\" is not an IP address, nor a range such as 10.0.0.0/16 or fd00::/8" },
        { "", "\"\" is not an IP address, nor a range such as 10.0.0.0/16 or fd00::/8" },
        { "/8", "\"/8\" is not an IP address, nor a range such as 10.0.0.0/16 or fd00::/8" },
        { "10.0.0.0/33", "\"10.0.0.0/33\" needs a number from 0 to 32 after the /" },
        { "10.0.0.0/", "\"10.0.0.0/\" needs a number from 0 to 32 after the /" },
        { "10.0.0.0/08", "\"10.0.0.0/08\" needs a number from 0 to 32 after the /" },
        { "10.0.0.0/-1", "\"10.0.0.0/-1\" needs a number from 0 to 32 after the /" },
        { "10.0.0.0/8/8", "\"10.0.0.0/8/8\" needs a number from 0 to 32 after the /" },
        { "fd00::/129", "\"fd00::/129\" needs a number from 0 to 128 after the /" },
        { "10.0.3.7/16", "\"10.0.3.7/16\" has bits set behind its mask: did you mean 10.0.0.0/16?" },
        { "fd12:3456::1/16", "\"fd12:3456::1/16\" has bits set behind its mask: did you mean fd12::/16?" },
        { "10.0.0.1/0", "\"10.0.0.1/0\" has bits set behind its mask: did you mean 0.0.0.0/0?" },
        { "a\nb", "\"a?b\" is not an IP address, nor a range such as 10.0.0.0/16 or fd00::/8" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cidr cidr;
        struct text why;
        text_init(&why, 512);
        CHECK_EQ(cidr_parse(slice_of(rows[i].written), &cidr, &why), ERR_BAD);
        CHECK_STR(text_string(&why), why.len, rows[i].why);
        text_release(&why);
    }
}

TEST(a_list_that_has_127_0_0_1_also_admits_the_other_loopback)
{
    struct cidr_list list = { 0 };
    struct address v6 = address_of("::1"), other = address_of("::2");

    CHECK(!cidr_list_has(&list, &v6));
    CHECK_EQ(cidr_list_add(&list, cidr_of("10.0.0.0/8")), ERR_OK);
    CHECK(!cidr_list_has(&list, &v6));
    CHECK_EQ(cidr_list_add(&list, cidr_of("127.0.0.1")), ERR_OK);
    CHECK(cidr_list_has(&list, &v6));
    CHECK(!cidr_list_has(&list, &other));
    cidr_list_release(&list);
    CHECK_EQ(list.count, 0);
}

TEST(a_list_of_the_v6_loopback_does_not_admit_127_0_0_1)
{
    struct cidr_list list = { 0 };
    struct address v4 = address_of("127.0.0.1");

    CHECK_EQ(cidr_list_add(&list, cidr_of("::1")), ERR_OK);
    CHECK(!cidr_list_has(&list, &v4));
    cidr_list_release(&list);
}

TEST(a_long_list_keeps_all_its_items)
{
    struct cidr_list list = { 0 };
    char text[32];

    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof text, "10.0.%u.0/24", i);
        CHECK_EQ(cidr_list_add(&list, cidr_of(text)), ERR_OK);
    }
    for (unsigned i = 0; i < 101; i++) {
        (void)snprintf(text, sizeof text, "10.0.%u.9", i);
        struct address address = address_of(text);
        CHECK_ROW(cidr_list_has(&list, &address) == (i < 100), text);
    }
    cidr_list_release(&list);
}
