/*
 * probe - looks after the backends without spending a token: GET /api/version for life, GET /api/tags for the
 * models, GET /api/ps for what is loaded; and loads the models that are to be preloaded, one after the other, at the
 * start and whenever a backend has been away, before it takes callers (wants.h). Control thread only. Every probe has a
 * connection of its own, so that it also sees whether new ones are taken. Intervals: life every second while the
 * breaker is closed, every half second while it is open; the lists every 5 s, at once after a recovery and with a new
 * configuration, and the one of models when a worker misses a name (at most once a second), the one of what is loaded
 * once a second while something is being loaded.
 */
#pragma once
#include <stdint.h>

struct event_base;
struct fleet;
struct prober;

/* on_news: a probe ended; workers that wait for a list should look again. */
struct prober *prober_new(struct event_base *base, void (*on_news)(void *arg), void *arg);
/* Ends every probe under way without a word to anybody. */
void prober_free(struct prober *prober);
/*
 * From now on these, with the rules and the snapshot in it; keeps a reference. The first probes start at once. Before
 * this returns, a backend that has to load models first takes no callers.
 */
void prober_watch(struct prober *prober, struct fleet *fleet);
/* A worker asked for a list, or reported a failure: look now instead of at the next tick. */
void prober_nudge(struct prober *prober);
