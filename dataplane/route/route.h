/*
 * route - which of the backends that could take a request does take it (architecture: "Routing"). Pure: everything it
 * looks at is passed in, chance too, and nothing is remembered. Any thread.
 *
 *  1. Only sites that can take requests and have a free slot; standby ones (weight 0) only while no other can take any.
 *  2. Those where the model is resident before those where it is not. Where slots have no limit somebody must say when
 * it is worth loading the model elsewhere too: when ROUTE_BUSY run.
 *  3. The conversation's own site (weighted rendezvous hashing, so that every gateway names the same one), as long as
 * its load stays within 1.25 times its part of the whole (consistent hashing with bounded loads, Mirrokni et al. 2016).
 *  4. Else the better of two at random by (running + reported + 1) / (speed x weight).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "text.h"

enum { ROUTE_NONE = -1, ROUTE_BUSY = 4, ROUTE_MAX_SITES = 256 };

/* A backend as one model's requests see it. */
struct route_site {
    const char *name;
    uint64_t name_hash; /* route_name_hash(name) */
    bool can_take;      /* breaker closed, not draining, has the model, warm */
    bool is_resident;   /* the model is loaded there */
    unsigned weight;    /* 0: standby */
    unsigned slots;     /* that may run at once now: fewer than configured after a recovery; UINT_MAX: no limit */
    unsigned running;   /* handed over by us and not ended */
    unsigned reported;  /* by others, as far as known */
    double speed;       /* tokens a second of one request, measured; 0: not known yet */
};
/* The same in every gateway and at every start. */
uint64_t route_name_hash(struct slice name);

struct route_wish {
    uint64_t conversation; /* hash; 0: none */
    int avoid;             /* a site that has failed it; ROUTE_NONE */
};

/* For --explain, metrics and the log: a row each in route.c with its words. */
enum route_why {
    ROUTE_NOBODY,   /* no site can take any: the caller is told */
    ROUTE_ALL_BUSY, /* some can, none has a free slot: wait */
    ROUTE_ONLY,     /* one was left */
    ROUTE_AFFINITY,
    ROUTE_BETTER, /* of two */
    ROUTE_STANDBY,
    ROUTE_WHYS
};
const char *route_why_text(enum route_why why);

/*
 * The index of the site chosen, or ROUTE_NONE with ROUTE_NOBODY or ROUTE_ALL_BUSY. `chance`: 64 random bits. A site to
 * avoid is never chosen: where it is the only one that can take any, that is ROUTE_NOBODY, for it has just failed. At
 * most ROUTE_MAX_SITES are looked at.
 */
int route_choose(const struct route_site *sites, unsigned count, const struct route_wish *wish, uint64_t chance,
                 enum route_why *ret_why);
/* The conversation's own site if it has a free slot and is below the bound, else ROUTE_NONE: for the affinity hit rate.
 */
int route_own_site(const struct route_site *sites, unsigned count, const struct route_wish *wish);
/* What stands in for a speed that is not known yet: the mean of the others, or 1. */
double route_usual_speed(const struct route_site *sites, unsigned count);
/* Smaller is better. */
double route_score(const struct route_site *site, double usual_speed);
/* Candidates, scores, what would be chosen now and why: a line each, for people. */
void route_explain(const struct route_site *sites, unsigned count, const struct route_wish *wish, uint64_t chance,
                   struct text *out);
