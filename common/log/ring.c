#include <stdlib.h>

#include "log_parts.h"

bool ring_init(struct ring *ring, uint32_t size)
{
    *ring = (struct ring){ .bytes = malloc(size), .size = size };
    return ring->bytes;
}

void ring_release(struct ring *ring)
{
    free(ring->bytes);
    ring->bytes = NULL;
}

static void copy_in(struct ring *ring, uint64_t to, const char *at, size_t len)
{
    size_t place = to & (ring->size - 1);
    size_t first = ring->size - place;

    if (first > len)
        first = len;
    memcpy(ring->bytes + place, at, first);
    if (len > first)
        memcpy(ring->bytes, at + first, len - first);
}

static uint64_t used(const struct ring *ring, uint64_t written)
{
    return written - ring->seen_read;
}

bool ring_put(struct ring *ring, struct slice line)
{
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);

    if (ring->size - used(ring, written) < line.len + 1)
        ring->seen_read = atomic_load_explicit(&ring->read, memory_order_acquire);
    if (ring->size - used(ring, written) < line.len + 1)
        return false;
    copy_in(ring, written, line.at, line.len);
    ring->bytes[(written + line.len) & (ring->size - 1)] = '\n';
    /* Not release alone: writer_nudge() must not read the writer's mood before the writer can see this line. */
    atomic_store_explicit(&ring->written, written + line.len + 1, memory_order_seq_cst);
    return true;
}

bool ring_is_half_full(struct ring *ring)
{
    uint64_t written = atomic_load_explicit(&ring->written, memory_order_relaxed);

    if (used(ring, written) <= ring->size / 2)
        return false;
    ring->seen_read = atomic_load_explicit(&ring->read, memory_order_acquire);
    return used(ring, written) > ring->size / 2;
}

bool ring_is_empty(struct ring *ring)
{
    return atomic_load_explicit(&ring->written, memory_order_seq_cst) ==
           atomic_load_explicit(&ring->read, memory_order_relaxed);
}

uint64_t ring_count_lines(const struct ring *ring, uint64_t from, uint64_t to)
{
    uint64_t lines = 0;

    for (; from < to; from++)
        lines += ring->bytes[from & (ring->size - 1)] == '\n';
    return lines;
}

uint64_t ring_last_line_end(const struct ring *ring, uint64_t from, uint64_t to)
{
    while (to > from && ring->bytes[(to - 1) & (ring->size - 1)] != '\n')
        to--;
    return to;
}
