/*
 * standing - how the backends stand, for one scrape: which models are loaded where, and what is wrong with whom. Holds
 * what it names until it is released. Control thread.
 */
#pragma once
#include "arena.h"

struct fleet;
struct metrics_finding;
struct metrics_gauges;
struct metrics_residence;

struct standing {
    struct arena names;
    struct metrics_finding *findings;
    struct metrics_residence *residences;
    unsigned finding_room, residence_room;
};

/* Puts them into the gauges, which must not outlive it. What there is no memory for is left out. */
void standing_take(struct standing *standing, const struct fleet *fleet, struct metrics_gauges *gauges);
void standing_release(struct standing *standing);
