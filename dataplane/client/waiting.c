/*
 * Who makes room. Whoever keeps us waiting stands in one of three lines, each ordered by since when:
 *
 *     STRANGERS  has not sent a head that was let in, or is only lingering
 *     KEPT       was let in before and is silent between two requests
 *     SLOW       sends its body, or waits with it until memory is free for it (its rate is not taken yet: a key could
 *                hold every place so); or does not read its answer (since it last took some of it)
 *
 * When places or descriptors have run out, one of them closes, found without a search: the first of the strangers, else
 * the first of the kept, else of the slow ones, if it has stood there for PATIENCE_MS; and where nobody has, the first
 * of the kept, or of the strangers. Where most are strangers it is they who take the places: then the first of them
 * goes before any slow one, since a flood of newcomers, none of whom has stood there for long, must not end the
 * requests of those with a key. So a caller who asks as soon as it is connected gets in, one who asks every now and
 * then keeps its connection while others can be spared, and a request that we are working on never goes.
 *
 * And who holds memory: unfinished heads and unread answers are weighed. While they weigh more than
 * max_buffer_memory_bytes, each connection may hold TIGHT_BYTES of its own.
 */
#include "client_parts.h"

#include "clock.h"

enum { PATIENCE_MS = 1000, MAX_LOOKS = 8, TIGHT_BYTES = 4096 };

void client_waits_no_more(struct client *client)
{
    struct waiter *waiter = &client->waiter;

    if (!waiter->next)
        return;
    waiter->next->prev = waiter->prev;
    waiter->prev->next = waiter->next;
    waiter->next = waiter->prev = NULL;
    client->house->ring->line_counts[waiter->line]--;
}

void client_waits(struct client *client, enum line line)
{
    struct waiter *head = &client->house->ring->lines[line], *waiter = &client->waiter;

    client_waits_no_more(client);
    waiter->line = line;
    client->house->ring->line_counts[line]++;
    waiter->since_ms = clock_ms();
    waiter->next = head;
    waiter->prev = head->prev;
    head->prev->next = waiter;
    head->prev = waiter;
}

void client_know(struct client *client)
{
    client->is_known = true;
}

static struct client *client_of(struct waiter *waiter)
{
    return (void *)((char *)waiter - offsetof(struct client, waiter));
}

/* The first in line but for `spared`, if it has stood there for so long. */
static struct client *first_in(const struct client_house *house, enum line line, int64_t ms,
                               const struct client *spared)
{
    struct waiter *head = &house->ring->lines[line], *first = head->next;

    if (first != head && client_of(first) == spared)
        first = first->next;
    if (first == head || clock_ms() - first->since_ms < ms)
        return NULL;
    return client_of(first);
}

/* One that takes what the kernel holds for it is not as slow as it looks from here. */
static struct client *slowest(const struct client_house *house, const struct client *spared)
{
    for (unsigned looks = 0; looks < MAX_LOOKS; looks++) {
        struct client *client = first_in(house, LINE_SLOW, PATIENCE_MS, spared);
        if (!client || !client_unsent(client) || !client_is_taking(client))
            return client;
        client_waits(client, LINE_SLOW);
    }
    return NULL;
}

bool clients_make_room(struct client_house *house, const struct client *spared)
{
    struct client *client = first_in(house, LINE_STRANGERS, PATIENCE_MS, spared);

    if (!client)
        client = first_in(house, LINE_KEPT, PATIENCE_MS, spared);
    if (!client && house->ring->line_counts[LINE_STRANGERS] > house->count / 2)
        client = first_in(house, LINE_STRANGERS, 0, spared);
    if (!client)
        client = slowest(house, spared);
    if (!client)
        client = first_in(house, LINE_KEPT, 0, spared);
    if (!client)
        client = first_in(house, LINE_STRANGERS, 0, spared);
    if (!client)
        return false;
    client_lose(client, CLIENT_CROWDED_OUT);
    return true;
}

void client_weigh(struct client *client)
{
    size_t weight = client->in.room + client->out.room;

    if (client->stage == STAGE_DEAD)
        return;
    client->house->held_bytes += weight - client->weight;
    client->weight = weight;
}

bool client_is_too_heavy(const struct client *client)
{
    return client->house->held_bytes > client->house->settings.max_held_bytes && client->in.len > TIGHT_BYTES;
}

size_t client_write_room(const struct client *client)
{
    const struct client_settings *settings = &client->house->settings;

    return client->house->held_bytes > settings->max_held_bytes && settings->write_buffer_bytes > TIGHT_BYTES
               ? TIGHT_BYTES
               : settings->write_buffer_bytes;
}
