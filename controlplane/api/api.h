/*
 * api - the admin API: REST and JSON under /admin/v1, on libevent's evhttp. What there is stands in two tables, of
 * nouns with their fields and of routes; validation, dispatch and the OpenAPI document are made of them.
 *
 * Owned by serve; opened after store, publish, leader and roster, closed before them. Loop thread only. Times are in
 * _ms, sizes in _bytes.
 *
 * Every request is answered exactly once, or its connection is gone. A connection has request_ms for sending each
 * request whole and write_ms for reading its answer, whatever it does meanwhile; when there are too many, the one that
 * has kept us waiting longest makes room, and if there is none, the request that has waited longest for gateways is
 * answered that too much is asked.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct api;
struct cidr_list;
struct event_base;
struct leader;
struct publish;
struct roster;
struct store;

struct api_options {
    const char *listen;  /* as place.h has it */
    const char *version; /* the program's */
    const struct cidr_list *trusted_proxies;
    uint64_t max_head_bytes, max_body_bytes;
    uint64_t max_waiting_bytes; /* of bodies that are being received, together */
    unsigned max_depth;         /* of JSON */
    unsigned max_connections;
    unsigned max_waits;    /* requests that wait for gateways; at most half of max_connections, half of it a token's */
    unsigned wrong_tokens; /* a minute from one address */
    int64_t request_ms, write_ms, linger_ms;
    int64_t token_memory_ms; /* how long a good token is good for looking while the database is away */
    int64_t forget_ms;       /* how often answers kept for Idempotency-Key are looked through */
};

/* Who the API asks. Everything outlives it. */
struct api_doors {
    struct store *store;
    struct publish *publish;
    struct roster *roster;
    struct leader *leader;
};

/* NULL, with one sentence. */
struct api *api_open(struct event_base *base, const struct api_doors *doors, const struct api_options *options,
                     struct text *why);
/* Nobody new is let in; what is open goes on. */
void api_stop(struct api *api);
/* Requests that are not answered yet. */
unsigned api_open_requests(const struct api *api);
/* Cuts what is open. What the database still owes is waited for within, until store_close(). */
void api_close(struct api *api);
/* Where it listens. */
void api_describe(const struct api *api, struct text *out);
