/*
 * A deadline lies in the slot of the time it was last *placed* for. Moving it later leaves it where it is
 * (the slot's visit places it anew); moving it earlier takes it out and places it. So the common case, an
 * idle deadline pushed on by every byte, writes one number.
 */
#include "wheel.h"

#include <stddef.h>

static struct deadline *slot_of(struct wheel *wheel, int64_t at_ms)
{
    return &wheel->slots[(uint64_t)(at_ms / WHEEL_TICK_MS) % WHEEL_SLOTS];
}

void wheel_init(struct wheel *wheel, int64_t now_ms)
{
    for (unsigned i = 0; i < WHEEL_SLOTS; i++)
        wheel->slots[i] = (struct deadline){ .next = &wheel->slots[i], .prev = &wheel->slots[i] };
    wheel->turned_ms = now_ms;
    wheel->count = 0;
}

static void place(struct wheel *wheel, struct deadline *deadline)
{
    /* What is already due goes into the slot that is visited next. */
    int64_t at_ms = deadline->at_ms > wheel->turned_ms ? deadline->at_ms : wheel->turned_ms + 1;
    struct deadline *head = slot_of(wheel, at_ms + WHEEL_TICK_MS - 1);

    deadline->next = head;
    deadline->prev = head->prev;
    head->prev->next = deadline;
    head->prev = deadline;
}

static void take_out(struct deadline *deadline)
{
    deadline->next->prev = deadline->prev;
    deadline->prev->next = deadline->next;
    deadline->next = deadline->prev = NULL;
}

void wheel_set(struct wheel *wheel, struct deadline *deadline, int64_t at_ms)
{
    if (deadline_is_set(deadline)) {
        if (at_ms >= deadline->at_ms) {
            deadline->at_ms = at_ms;
            return;
        }
        take_out(deadline);
        wheel->count--;
    }
    deadline->at_ms = at_ms;
    place(wheel, deadline);
    wheel->count++;
}

void wheel_clear(struct wheel *wheel, struct deadline *deadline)
{
    if (!deadline_is_set(deadline))
        return;
    take_out(deadline);
    wheel->count--;
}

static void visit(struct wheel *wheel, struct deadline *head, int64_t now_ms)
{
    struct deadline mine = { .next = &mine, .prev = &mine };

    if (head->next == head)
        return;
    /* Onto a ring of its own first: callbacks may set deadlines in this very slot. */
    mine = (struct deadline){ .next = head->next, .prev = head->prev };
    mine.next->prev = mine.prev->next = &mine;
    head->next = head->prev = head;
    while (mine.next != &mine) {
        struct deadline *deadline = mine.next;
        take_out(deadline);
        if (deadline->at_ms > now_ms) {
            place(wheel, deadline);
            continue;
        }
        wheel->count--;
        deadline->on_due(deadline, now_ms);
    }
}

int wheel_wait_ms(const struct wheel *wheel, int64_t now_ms)
{
    int64_t next_ms = (wheel->turned_ms / WHEEL_TICK_MS + 1) * WHEEL_TICK_MS;

    if (!wheel->count)
        return -1;
    return next_ms > now_ms ? (int)(next_ms - now_ms) : 0;
}

void wheel_turn(struct wheel *wheel, int64_t now_ms)
{
    int64_t first = wheel->turned_ms / WHEEL_TICK_MS + 1;
    int64_t last = now_ms / WHEEL_TICK_MS;

    if (last - first >= WHEEL_SLOTS)
        first = last - WHEEL_SLOTS + 1;
    if (now_ms > wheel->turned_ms)
        wheel->turned_ms = now_ms;
    for (int64_t tick = first; tick <= last; tick++)
        visit(wheel, &wheel->slots[(uint64_t)tick % WHEEL_SLOTS], now_ms);
}
