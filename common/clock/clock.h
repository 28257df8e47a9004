/*
 * clock - the two clocks. Monotonic milliseconds and microseconds for every deadline and duration; the wall
 * clock (which may step) only for what people read. Any thread.
 */
#pragma once
#include <stdint.h>

struct text;

int64_t clock_ms(void);      /* CLOCK_MONOTONIC, ms */
int64_t clock_us(void);      /* CLOCK_MONOTONIC, us */
int64_t clock_wall_ms(void); /* CLOCK_REALTIME, ms since 1970 */
/*
 * For a thread that runs a loop: looks at the clocks once, and until it is called again the three above answer this
 * thread with what was seen (a request asks some sixteen times). To be called at the entry of every event; the wall
 * clock is looked at every CLOCK_WALL_MS only, so that a step of it is seen that much later. Threads that never call it
 * always look.
 */
enum { CLOCK_WALL_MS = 100 };
void clock_turn(void);
/* 2026-11-22T09:30:00.123Z */
void clock_add_wall(struct text *text, int64_t wall_ms);
/*
 * RFC 3339 as Ollama writes it (fraction of any length, Z or an offset) to seconds since 1970; -1: not one, or
 * before 1970, as Go's zero time is.
 */
int64_t clock_parse_rfc3339(const char *at, unsigned long len);
