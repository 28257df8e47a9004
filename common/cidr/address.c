#include "cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

static const uint8_t mapped_prefix[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

static void map_v4(const void *four_bytes, struct address *ret_address)
{
    memcpy(ret_address->bytes, mapped_prefix, sizeof mapped_prefix);
    memcpy(ret_address->bytes + sizeof mapped_prefix, four_bytes, 4);
}

static bool is_mapped(const struct address *address)
{
    return memcmp(address->bytes, mapped_prefix, sizeof mapped_prefix) == 0;
}

bool address_parse(struct slice text, struct address *ret_address)
{
    char string[ADDRESS_TEXT_BYTES];
    struct in_addr v4;
    struct in6_addr v6;

    if (!text.len || text.len >= sizeof string || memchr(text.at, 0, text.len))
        return false;
    memcpy(string, text.at, text.len);
    string[text.len] = 0;
    if (inet_pton(AF_INET, string, &v4) == 1) {
        map_v4(&v4, ret_address);
        return true;
    }
    if (inet_pton(AF_INET6, string, &v6) != 1)
        return false;
    memcpy(ret_address->bytes, &v6, sizeof ret_address->bytes);
    return true;
}

static bool is_port(struct slice text)
{
    uint32_t port = 0;

    if (!text.len || text.len > 5)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(text.at[i] - '0');
    }
    return port <= UINT16_MAX;
}

bool address_parse_loose(struct slice text, struct address *ret_address)
{
    const char *end = text.at + text.len;
    const char *stop;
    struct slice inner;

    if (!text.len)
        return false;
    if (text.at[0] == '[') {
        stop = memchr(text.at, ']', text.len);
        if (!stop)
            return false;
        inner = (struct slice){ text.at + 1, (size_t)(stop - text.at) - 1 };
        if (!memchr(inner.at, ':', inner.len))
            return false;
        if (stop + 1 != end && (stop[1] != ':' || !is_port((struct slice){ stop + 2, (size_t)(end - stop) - 2 })))
            return false;
        return address_parse(inner, ret_address);
    }
    stop = memchr(text.at, ':', text.len);
    if (stop && !memchr(stop + 1, ':', (size_t)(end - stop) - 1)) { /* one colon only: v4:port */
        if (!is_port((struct slice){ stop + 1, (size_t)(end - stop) - 1 }))
            return false;
        text.len = (size_t)(stop - text.at);
    }
    return address_parse(text, ret_address);
}

void address_of_sockaddr(const struct sockaddr *sockaddr, struct address *ret_address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (sockaddr->sa_family == AF_INET) {
        memcpy(&v4, sockaddr, sizeof v4);
        map_v4(&v4.sin_addr, ret_address);
    } else if (sockaddr->sa_family == AF_INET6) {
        memcpy(&v6, sockaddr, sizeof v6);
        memcpy(ret_address->bytes, &v6.sin6_addr, sizeof ret_address->bytes);
    } else {
        *ret_address = (struct address){ .bytes = { [15] = 1 } };
    }
}

bool address_is(const struct address *address, const struct address *other)
{
    return memcmp(address->bytes, other->bytes, sizeof address->bytes) == 0;
}

const char *address_text(const struct address *address, char out[ADDRESS_TEXT_BYTES])
{
    const char *made = is_mapped(address) ? inet_ntop(AF_INET, address->bytes + 12, out, ADDRESS_TEXT_BYTES)
                                          : inet_ntop(AF_INET6, address->bytes, out, ADDRESS_TEXT_BYTES);

    if (!made)
        out[0] = 0; /* cannot be: the room is enough for both */
    return out;
}
