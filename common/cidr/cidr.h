/*
 * cidr - addresses and ranges of addresses. IPv4 lives in IPv6's mapped form (::ffff:0:0/96), so that both
 * compare alike. Plain values; any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

struct sockaddr;

struct address {
    uint8_t bytes[16];
};

struct cidr {
    struct address base;
    unsigned bits; /* 0 ... 128, counted in the mapped form */
};

/* A list belongs to whoever holds it; items on the heap, freed by cidr_list_release(). */
struct cidr_list {
    struct cidr *items;
    size_t count;
};

/* Enough for any address as text, with its NUL. */
enum { ADDRESS_TEXT_BYTES = 48 };

/* IPv4 or IPv6 in text (no port, no brackets, no zone). False: neither. */
bool address_parse(struct slice text, struct address *ret_address);
/* Also "[v6]:port", "v4:port" and "[v6]", as proxies write them into X-Forwarded-For. */
bool address_parse_loose(struct slice text, struct address *ret_address);
/* From accept(); AF_UNIX and others become ::1. */
void address_of_sockaddr(const struct sockaddr *sockaddr, struct address *ret_address);
bool address_is(const struct address *address, const struct address *other);
/* Mapped ones print as IPv4. Returns out. */
const char *address_text(const struct address *address, char out[ADDRESS_TEXT_BYTES]);

/*
 * "10.0.0.0/16", "::1", "127.0.0.1". ERR_BAD with one sentence in `why` (naming the text, what is wrong, and for bits
 * set behind the mask the range that was probably meant). 0.0.0.0/0 and ::/0 are allowed.
 */
enum err cidr_parse(struct slice text, struct cidr *ret_cidr, struct text *why);
bool cidr_has(const struct cidr *cidr, const struct address *address);
/* 127.0.0.1 in a list also admits ::1 (behaviour.md 2.1: `localhost` reaches the gateway either way). */
bool cidr_list_has(const struct cidr_list *list, const struct address *address);
enum err cidr_list_add(struct cidr_list *list, struct cidr cidr);
void cidr_list_release(struct cidr_list *list);
