#include "window.h"

#include <stdlib.h>

void window_release(struct window *window)
{
    for (unsigned i = 0; i < WINDOW_SLOTS; i++) {
        free(window->slots[i].first_token);
        free(window->slots[i].duration);
    }
    *window = (struct window){ 0 };
}

struct slot *window_slot(struct window *window, int64_t number)
{
    struct slot *slot = &window->slots[number % WINDOW_SLOTS];

    if (slot->number != number) {
        free(slot->first_token);
        free(slot->duration);
        *slot = (struct slot){ .number = number };
    }
    return slot;
}

static bool is_within(const struct slot *slot, int64_t number)
{
    return slot->number > number - WINDOW_SLOTS && slot->number <= number;
}

void window_sum(const struct window *window, int64_t number, struct sums *ret_sums)
{
    *ret_sums = (struct sums){ 0 };
    for (unsigned i = 0; i < WINDOW_SLOTS; i++) {
        const struct slot *slot = &window->slots[i];
        if (!is_within(slot, number))
            continue;
        ret_sums->requests += slot->sums.requests;
        ret_sums->refused += slot->sums.refused;
        ret_sums->prompt_tokens += slot->sums.prompt_tokens;
        ret_sums->completion_tokens += slot->sums.completion_tokens;
    }
}

bool window_is_empty(const struct window *window, int64_t number)
{
    for (unsigned i = 0; i < WINDOW_SLOTS; i++)
        if (window->slots[i].number && is_within(&window->slots[i], number))
            return false;
    return true;
}

void window_count(uint32_t **counts, const struct qw_histogram *histogram)
{
    if (!histogram || !histogram->step_count)
        return;
    if (!*counts)
        *counts = calloc(CODEC_STEPS, sizeof **counts);
    for (size_t i = 0; *counts && i < histogram->step_count; i++) {
        uint32_t *count = &(*counts)[histogram->steps[i]];
        *count = histogram->counts[i] > UINT32_MAX - *count ? UINT32_MAX : *count + (uint32_t)histogram->counts[i];
    }
}

static void add(const uint32_t *from, uint64_t counts[CODEC_STEPS])
{
    for (unsigned i = 0; from && i < CODEC_STEPS; i++)
        counts[i] += from[i];
}

void window_first_token(const struct window *window, int64_t number, uint64_t counts[CODEC_STEPS])
{
    for (unsigned i = 0; i < WINDOW_SLOTS; i++)
        if (is_within(&window->slots[i], number))
            add(window->slots[i].first_token, counts);
}

void window_duration(const struct window *window, int64_t number, uint64_t counts[CODEC_STEPS])
{
    for (unsigned i = 0; i < WINDOW_SLOTS; i++)
        if (is_within(&window->slots[i], number))
            add(window->slots[i].duration, counts);
}

int64_t histogram_percentile_us(const uint64_t counts[CODEC_STEPS], unsigned percent)
{
    double all = 0, below = 0, wanted;

    for (unsigned i = 0; i < CODEC_STEPS; i++)
        all += (double)counts[i];
    if (all <= 0)
        return -1;
    wanted = all * percent / 100;
    for (unsigned i = 0; i < CODEC_STEPS; i++) {
        double count = (double)counts[i], from = (double)histogram_floor_us(i);
        double to = i + 1 < CODEC_STEPS ? (double)histogram_floor_us(i + 1) : from;
        if (count > 0 && below + count >= wanted) {
            double us = from + (to - from) * (wanted - below) / count;
            return us < (double)INT64_MAX ? (int64_t)us : INT64_MAX;
        }
        below += count;
    }
    return -1;
}
