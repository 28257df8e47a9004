/*
 * scrape - what /metrics shows of backends and queues at this moment, read from where it lives. Control thread only.
 * What is given lies in heap memory of the caller's (free()); NULL: no memory, and then it is left out.
 */
#pragma once
#include <stdint.h>

struct fleet;
struct metrics_backend;
struct metrics_queue;
struct queues;

struct metrics_backend *scrape_backends(const struct fleet *fleet, int64_t slow_start_ms, int64_t now_ms,
                                        unsigned *ret_count);
struct metrics_queue *scrape_queues(const struct queues *queues, unsigned *ret_count);
