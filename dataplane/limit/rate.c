/*
 * The exact sliding window. An admission at t counts for [t, t + window_ms], both ends included because times are whole
 * milliseconds and the parts cut off may add up to almost one; one more is admitted while fewer than max count.
 * What stays true, under the holder's lock: times on a ring never go down. Workers read the clock each for themselves
 * and may come a little out of order, so "now" is never earlier than what a window has already seen.
 */
#include "limit_parts.h"

#include <stdlib.h>

enum {
    FIRST_ROOM = 8,
    KEPT_ROOM = 64, /* a ring of this size is kept when it runs empty */
    NO_MEMORY_RESET_MS = 1000
};

static int64_t time_at(const struct window *window, uint32_t index)
{
    return window->times[(window->head + index) & (window->room - 1)];
}

static int64_t newest_of(const struct window *window)
{
    return time_at(window, window->count - 1);
}

void window_release(struct window *window)
{
    free(window->times);
    *window = (struct window){ 0 };
}

void window_pass(struct window *window, int64_t window_ms, int64_t now_ms)
{
    while (window->count && time_at(window, 0) < now_ms - window_ms) {
        window->head = (window->head + 1) & (window->room - 1);
        window->count--;
    }
    if (!window->count && window->room > KEPT_ROOM)
        window_release(window);
}

void window_tidy(struct window *window, int64_t window_ms, int64_t now_ms)
{
    window_pass(window, window_ms, now_ms);
    if (!window->count)
        window_release(window);
}

/* Room for one more. */
static bool window_reserve(struct window *window)
{
    uint32_t room = window->room ? window->room * 2 : FIRST_ROOM;
    int64_t *times;

    if (window->count < window->room)
        return true;
    if (room < window->room)
        return false;
    times = malloc(room * sizeof *times);
    if (!times)
        return false;
    for (uint32_t i = 0; i < window->count; i++)
        times[i] = time_at(window, i);
    free(window->times);
    *window = (struct window){ .times = times, .room = room, .count = window->count };
    return true;
}

static void window_add(struct window *window, int64_t now_ms)
{
    window->times[(window->head + window->count) & (window->room - 1)] = now_ms;
    window->count++;
}

static struct rate_state window_state(const struct window *window, unsigned max, int64_t window_ms, int64_t now_ms)
{
    struct rate_state state = { .limit = max };

    if (!max)
        return state;
    state.is_full = window->count >= max;
    if (state.is_full) /* a reload may have left more on the ring than are allowed now */
        state.reset_ms = time_at(window, window->count - max) + window_ms + 1 - now_ms;
    else if (window->count)
        state.reset_ms = newest_of(window) + window_ms - now_ms;
    state.remaining = state.is_full ? 0 : max - window->count;
    return state;
}

/* Both must admit, so of two full ones the longer wait counts. */
static struct rate_state tighter(struct rate_state a, struct rate_state b)
{
    if (!a.limit || !b.limit)
        return a.limit ? a : b;
    if (a.is_full != b.is_full)
        return a.is_full ? a : b;
    if (a.is_full)
        return a.reset_ms >= b.reset_ms ? a : b;
    return a.remaining <= b.remaining ? a : b;
}

static int64_t later(int64_t now_ms, const struct window *window)
{
    return window->count && newest_of(window) > now_ms ? newest_of(window) : now_ms;
}

static struct rate_state both(struct person *person, const struct rate_rule *rule, int64_t now_ms)
{
    struct holder *holder = person->holder;

    return tighter(window_state(&person->window, rule->max_requests, rule->window_ms, now_ms),
                   window_state(&holder->total, rule->max_total, rule->window_ms, now_ms));
}

/* Under the lock. Returns the now that counts. */
static int64_t bring_up(struct person *person, const struct rate_rule *rule, int64_t now_ms)
{
    struct holder *holder = person->holder;

    now_ms = later(later(now_ms, &person->window), &holder->total);
    holder->window_ms = rule->window_ms;
    window_pass(&person->window, rule->window_ms, now_ms);
    window_pass(&holder->total, rule->window_ms, now_ms);
    return now_ms;
}

void rate_look(struct person *person, const struct rate_rule *rule, int64_t now_ms, struct rate_state *ret_state)
{
    struct holder *holder = person->holder;

    if (!rule->max_requests && !rule->max_total) {
        *ret_state = (struct rate_state){ 0 };
        return;
    }
    (void)pthread_mutex_lock(&holder->lock);
    now_ms = bring_up(person, rule, now_ms);
    *ret_state = both(person, rule, now_ms);
    (void)pthread_mutex_unlock(&holder->lock);
}

/* Under the lock. */
static struct rate_state take(struct person *person, const struct rate_rule *rule, int64_t now_ms)
{
    struct holder *holder = person->holder;
    struct rate_state state = both(person, rule, now_ms);

    if (state.is_full)
        return state;
    if ((rule->max_requests && !window_reserve(&person->window)) ||
        (rule->max_total && !window_reserve(&holder->total))) {
        /* What cannot be remembered cannot be admitted. */
        return (struct rate_state){ .is_full = true, .limit = state.limit, .reset_ms = NO_MEMORY_RESET_MS };
    }
    if (rule->max_requests) {
        window_add(&person->window, now_ms);
        person_is_newest(person);
    }
    if (rule->max_total)
        window_add(&holder->total, now_ms);
    state = both(person, rule, now_ms);
    state.is_full = false; /* this one was admitted, even if it was the last */
    state.reset_ms = rule->window_ms;
    return state;
}

void rate_take(struct person *person, const struct rate_rule *rule, int64_t now_ms, struct rate_state *ret_state)
{
    struct holder *holder = person->holder;

    if (!rule->max_requests && !rule->max_total) {
        *ret_state = (struct rate_state){ 0 };
        return;
    }
    (void)pthread_mutex_lock(&holder->lock);
    now_ms = bring_up(person, rule, now_ms);
    *ret_state = take(person, rule, now_ms);
    (void)pthread_mutex_unlock(&holder->lock);
}
