#include "route.h"

#include <limits.h>
#include <math.h>

/* What a choice is made from: computed once, in the order of the rules. */
struct choice {
    const struct route_site *sites;
    unsigned count;
    int avoid;
    bool is_standby;     /* none but standby ones can take any */
    bool has_some;       /* some site can take any */
    bool asks_residents; /* one of them is resident and has room: no other is asked */
    unsigned free;       /* candidates in all */
    double load;         /* of all that can take any */
    double capacity;     /* the same sites': sum of speed x weight */
    double usual_speed;
};

static const char *const why_texts[ROUTE_WHYS] = {
    [ROUTE_NOBODY] = "no backend can take it", [ROUTE_ALL_BUSY] = "all slots are taken",
    [ROUTE_ONLY] = "the only candidate",       [ROUTE_AFFINITY] = "the conversation's own",
    [ROUTE_BETTER] = "the better of two",      [ROUTE_STANDBY] = "standby: no other can take it",
};

const char *route_why_text(enum route_why why)
{
    return why_texts[why];
}

uint64_t route_name_hash(struct slice name)
{
    static const uint64_t seed[2] = { 0x2d358dccaa6c78a5u, 0x8bb84b93962eacc9u };

    return slice_hash(seed, name);
}

static double weight_of(const struct route_site *site)
{
    return site->weight ? site->weight : 1; /* among standby ones all are equal */
}

double route_usual_speed(const struct route_site *sites, unsigned count)
{
    double sum = 0;
    unsigned known = 0;

    for (unsigned i = 0; i < count; i++) {
        sum += sites[i].speed;
        known += sites[i].speed > 0;
    }
    return known ? sum / known : 1;
}

static double capacity_of(const struct route_site *site, double usual_speed)
{
    return (site->speed > 0 ? site->speed : usual_speed) * weight_of(site);
}

double route_score(const struct route_site *site, double usual_speed)
{
    return ((double)site->running + site->reported + 1) / capacity_of(site, usual_speed);
}

static bool is_asked(const struct choice *choice, unsigned i)
{
    const struct route_site *site = &choice->sites[i];

    return site->can_take && (int)i != choice->avoid && (site->weight == 0) == choice->is_standby;
}

static bool is_free(const struct choice *choice, unsigned i)
{
    return is_asked(choice, i) && choice->sites[i].running < choice->sites[i].slots;
}

/* Residents with room go first. One without a limit has room until it is busy enough for loading the model elsewhere.
 */
static bool draws(const struct route_site *site)
{
    return site->is_resident && (site->slots != UINT_MAX || site->running < ROUTE_BUSY);
}

static bool is_candidate(const struct choice *choice, unsigned i)
{
    return is_free(choice, i) && (!choice->asks_residents || choice->sites[i].is_resident);
}

static void choice_init(struct choice *choice, const struct route_site *sites, unsigned count, int avoid)
{
    *choice = (struct choice){
        .sites = sites, .count = count < ROUTE_MAX_SITES ? count : ROUTE_MAX_SITES, .avoid = avoid, .is_standby = true
    };
    for (unsigned i = 0; i < choice->count; i++) {
        bool can_take = sites[i].can_take && (int)i != avoid;
        choice->has_some |= can_take;
        choice->is_standby &= !(can_take && sites[i].weight);
    }
    choice->usual_speed = route_usual_speed(sites, choice->count);
    for (unsigned i = 0; i < choice->count; i++) {
        if (!is_asked(choice, i))
            continue;
        choice->load += (double)sites[i].running + sites[i].reported;
        choice->capacity += capacity_of(&sites[i], choice->usual_speed);
        choice->asks_residents |= is_free(choice, i) && draws(&sites[i]);
    }
    for (unsigned i = 0; i < choice->count; i++)
        choice->free += is_candidate(choice, i);
}

static uint64_t mix(uint64_t bits)
{
    bits = (bits ^ bits >> 32) * 0xd6e8feb86659fd93u;
    bits = (bits ^ bits >> 32) * 0xd6e8feb86659fd93u;
    return bits ^ bits >> 32;
}

/* Weighted rendezvous hashing: each site draws a number from (conversation, site), and the highest has it. When a site
 * goes or comes only its own conversations move. */
static int own_of(const struct choice *choice, uint64_t conversation)
{
    int own = ROUTE_NONE;
    double highest = 0;

    for (unsigned i = 0; i < choice->count; i++) {
        const struct route_site *site = &choice->sites[i];
        double drawn, height;
        if (!is_asked(choice, i))
            continue;
        drawn = ((double)(mix(conversation ^ site->name_hash) >> 11) + 0.5) * 0x1p-53;
        height = -weight_of(site) / log(drawn);
        if (own == ROUTE_NONE || height > highest) {
            own = (int)i;
            highest = height;
        }
    }
    return own;
}

/* With this request its load stays within 1.25 times its part of all, rounded up. */
static bool is_below_bound(const struct choice *choice, unsigned i)
{
    const struct route_site *site = &choice->sites[i];
    double part = capacity_of(site, choice->usual_speed) / choice->capacity;

    return (double)site->running + site->reported + 1 <= ceil(1.25 * (choice->load + 1) * part);
}

static int affine(const struct choice *choice, uint64_t conversation)
{
    int own = conversation && choice->count > 1 ? own_of(choice, conversation) : ROUTE_NONE;

    return own != ROUTE_NONE && is_free(choice, (unsigned)own) && is_below_bound(choice, (unsigned)own) ? own
                                                                                                        : ROUTE_NONE;
}

static unsigned nth_candidate(const struct choice *choice, unsigned nth)
{
    unsigned i = 0;

    while (!is_candidate(choice, i) || nth--)
        i++;
    return i;
}

static unsigned better_of_two(const struct choice *choice, uint64_t chance)
{
    unsigned first = (unsigned)((uint32_t)chance % choice->free);
    unsigned second = (first + 1 + (unsigned)((uint32_t)(chance >> 32) % (choice->free - 1))) % choice->free;
    unsigned one = nth_candidate(choice, first), other = nth_candidate(choice, second);

    return route_score(&choice->sites[other], choice->usual_speed) <
                   route_score(&choice->sites[one], choice->usual_speed)
               ? other
               : one;
}

static int choose(const struct choice *choice, const struct route_wish *wish, uint64_t chance, enum route_why *ret_why)
{
    int own;

    *ret_why = choice->has_some ? ROUTE_ALL_BUSY : ROUTE_NOBODY;
    if (!choice->free)
        return ROUTE_NONE;
    *ret_why = choice->is_standby ? ROUTE_STANDBY : ROUTE_AFFINITY;
    own = affine(choice, wish->conversation);
    if (own != ROUTE_NONE && is_candidate(choice, (unsigned)own))
        return own;
    *ret_why = choice->is_standby ? ROUTE_STANDBY : choice->free == 1 ? ROUTE_ONLY : ROUTE_BETTER;
    return (int)(choice->free == 1 ? nth_candidate(choice, 0) : better_of_two(choice, chance));
}

int route_choose(const struct route_site *sites, unsigned count, const struct route_wish *wish, uint64_t chance,
                 enum route_why *ret_why)
{
    struct choice choice;

    if (count == 1) { /* most have one backend */
        bool can_take = sites->can_take && wish->avoid != 0;
        bool is_free_now = can_take && sites->running < sites->slots;
        *ret_why = !can_take       ? ROUTE_NOBODY
                   : !is_free_now  ? ROUTE_ALL_BUSY
                   : sites->weight ? ROUTE_ONLY
                                   : ROUTE_STANDBY;
        return is_free_now ? 0 : ROUTE_NONE;
    }
    choice_init(&choice, sites, count, wish->avoid);
    return choose(&choice, wish, chance, ret_why);
}

int route_own_site(const struct route_site *sites, unsigned count, const struct route_wish *wish)
{
    struct choice choice;

    if (!wish->conversation || count < 2)
        return ROUTE_NONE;
    choice_init(&choice, sites, count, wish->avoid);
    return affine(&choice, wish->conversation);
}

static void explain_site(const struct choice *choice, unsigned i, struct text *out)
{
    const struct route_site *site = &choice->sites[i];

    text_printf(out, "  %s: %s, model %s, ", site->name,
                !site->can_take                            ? "takes none"
                : site->weight == 0 && !choice->is_standby ? "standby"
                : !is_free(choice, i)                      ? "busy"
                : is_candidate(choice, i)                  ? "candidate"
                                                           : "free, but the model is loaded elsewhere",
                site->is_resident ? "loaded" : "not known to be loaded");
    if (site->slots == UINT_MAX)
        text_printf(out, "%u running, slots without limit, ", site->running);
    else
        text_printf(out, "%u of %u slots, ", site->running, site->slots);
    if (site->speed > 0)
        text_printf(out, "%.1f tokens/s, ", site->speed);
    else
        text_add_literal(out, "speed not known yet, ");
    text_printf(out, "weight %u, score %.4f\n", site->weight, route_score(site, choice->usual_speed));
}

/* It has room, and is not asked: others are only busy. */
static bool has_free_standby(const struct choice *choice)
{
    for (unsigned i = 0; i < choice->count; i++) {
        const struct route_site *site = &choice->sites[i];
        if (site->weight == 0 && !choice->is_standby && site->can_take && site->running < site->slots)
            return true;
    }
    return false;
}

void route_explain(const struct route_site *sites, unsigned count, const struct route_wish *wish, uint64_t chance,
                   struct text *out)
{
    struct choice choice;
    enum route_why why;
    int chosen;

    choice_init(&choice, sites, count, wish->avoid);
    for (unsigned i = 0; i < choice.count; i++)
        explain_site(&choice, i, out);
    chosen = route_choose(sites, count, wish, chance, &why);
    if (chosen == ROUTE_NONE)
        text_printf(out, "  now: none, %s\n",
                    why == ROUTE_ALL_BUSY && has_free_standby(&choice) ? "all slots but a standby's are taken"
                                                                       : route_why_text(why));
    else
        text_printf(out, "  now: %s, %s\n", sites[chosen].name, route_why_text(why));
}
