#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "queue_parts.h"

enum {
    FIRST_BUCKETS = 16,
    FIRST_TURNS = 8,
    OWN_PART = 8,        /* a new value's part in a user's mean is 1/8 */
    ALL_PART = 32,       /* in the mean of all */
    FAIR_MOST_OWED = 64, /* rounds that corrections may hold a lane back by */
};

void fair_init(struct fair *fair)
{
    *fair = (struct fair){ .completion = 0 };
}

/* ---- users ---- */

static struct user **bucket_of(const struct fair *fair, uint64_t hash)
{
    return &fair->buckets[hash & (fair->bucket_count - 1)];
}

static void grow_buckets(struct fair *fair)
{
    uint32_t wanted = fair->bucket_count ? fair->bucket_count * 2 : FIRST_BUCKETS;
    struct user **buckets = calloc(wanted, sizeof(struct user *));

    if (!buckets)
        return; /* longer chains, or none yet: user_new() looks */
    for (uint32_t i = 0; i < fair->bucket_count; i++) {
        while (fair->buckets[i]) {
            struct user *user = fair->buckets[i];
            fair->buckets[i] = user->next;
            user->next = buckets[user->hash & (wanted - 1)];
            buckets[user->hash & (wanted - 1)] = user;
        }
    }
    free(fair->buckets);
    fair->buckets = buckets;
    fair->bucket_count = wanted;
}

static void idle_enter(struct fair *fair, struct user *user)
{
    user->newer = NULL;
    user->older = fair->last_idle;
    *(fair->last_idle ? &fair->last_idle->newer : &fair->longest_idle) = user;
    fair->last_idle = user;
    fair->idle_count++;
}

static void idle_leave(struct fair *fair, struct user *user)
{
    *(user->older ? &user->older->newer : &fair->longest_idle) = user->newer;
    *(user->newer ? &user->newer->older : &fair->last_idle) = user->older;
    fair->idle_count--;
}

static double pay_of(const struct user *user)
{
    return (double)FAIR_QUANTUM * user->weight;
}

static double paid_while_away(double balance, double rounds, double pay)
{
    return balance > pay ? fmax(pay, balance - rounds * pay) : fmin(pay, balance + rounds * pay);
}

/* Pays for the rounds that have passed. */
static double balance_now(const struct fair *fair, struct user *user, enum queue_class class)
{
    struct share *share = &user->shares[class];
    double rounds = (double)(fair->lanes[class].round - share->round), pay = pay_of(user);

    if (rounds > 0)
        share->balance = share->place ? share->balance + rounds * pay : paid_while_away(share->balance, rounds, pay);
    share->round = fair->lanes[class].round;
    return share->balance;
}

/* So much more has been charged to this user, who has a part in the round whether he has more waiting or not. */
static void lane_goes_on(struct lane *lane, double tokens, const struct user *user, const struct share *share)
{
    double weights = (double)lane->weights + (share->place ? 0 : user->weight);

    lane->progress = fmax(lane->progress + tokens / (FAIR_QUANTUM * weights), -FAIR_MOST_OWED);
    if (lane->progress >= 1) {
        uint64_t rounds = (uint64_t)lane->progress;
        lane->round += rounds;
        lane->progress -= (double)rounds;
    }
}

static bool has_debt(const struct fair *fair, struct user *user)
{
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        if (balance_now(fair, user, class) <= 0)
            return true;
    return false;
}

static void forget(struct fair *fair, struct user *user)
{
    struct user **at = bucket_of(fair, user->hash);

    idle_leave(fair, user);
    while (*at != user)
        at = &(*at)->next;
    *at = user->next;
    fair->user_count--;
    free(user);
}

/* The longest idle one, or one almost as long idle that owes nothing. */
static void forget_one(struct fair *fair)
{
    struct user *user = fair->longest_idle;

    for (unsigned looked = 0; looked < FAIR_LOOK_FOR_IDLE && user; looked++, user = user->newer) {
        if (!has_debt(fair, user)) {
            forget(fair, user);
            return;
        }
    }
    forget(fair, fair->longest_idle);
}

static struct user *user_find(const struct fair *fair, uint64_t hash, struct slice name)
{
    struct user *user = fair->bucket_count ? *bucket_of(fair, hash) : NULL;

    while (user && (user->hash != hash || !slice_is(user->name, name)))
        user = user->next;
    return user;
}

static struct user *user_new(struct fair *fair, uint64_t hash, struct slice name)
{
    struct user *user;
    struct user **bucket;

    if (fair->user_count >= fair->bucket_count)
        grow_buckets(fair);
    if (!fair->bucket_count || !(user = malloc(sizeof *user + name.len)))
        return NULL;
    bucket = bucket_of(fair, hash);
    *user = (struct user){ .next = *bucket, .hash = hash, .name = { (char *)(user + 1), name.len }, .weight = 1 };
    if (name.len)
        memcpy(user + 1, name.at, name.len);
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        user->shares[class] = (struct share){ .balance = FAIR_QUANTUM, .round = fair->lanes[class].round };
    *bucket = user;
    fair->user_count++;
    idle_enter(fair, user);
    return user;
}

struct user *fair_user(struct fair *fair, uint64_t hash, struct slice name)
{
    struct user *user = user_find(fair, hash, name);

    if (user)
        return user;
    if (fair->idle_count >= FAIR_MAX_IDLE)
        forget_one(fair);
    return user_new(fair, hash, name);
}

void fair_hold(struct fair *fair, struct user *user)
{
    if (user->tickets++ == 0)
        idle_leave(fair, user);
}

void fair_let_go(struct fair *fair, struct user *user)
{
    assert(user->tickets > 0);
    if (--user->tickets == 0)
        idle_enter(fair, user);
}

void fair_release(struct fair *fair)
{
    for (uint32_t i = 0; i < fair->bucket_count; i++) {
        while (fair->buckets[i]) {
            struct user *user = fair->buckets[i];
            fair->buckets[i] = user->next;
            free(user);
        }
    }
    free(fair->buckets);
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        free(fair->lanes[class].turns);
    fair_init(fair);
}

/* ---- turns: a heap ---- */

static bool is_before(const struct turn *turn, const struct turn *other)
{
    return turn->round != other->round ? turn->round < other->round : turn->number < other->number;
}

static void turn_put(struct lane *lane, enum queue_class class, uint32_t place, struct turn turn)
{
    lane->turns[place - 1] = turn;
    turn.user->shares[class].place = place;
}

static uint32_t rise(struct lane *lane, enum queue_class class, uint32_t place, struct turn turn)
{
    for (; place > 1 && is_before(&turn, &lane->turns[place / 2 - 1]); place /= 2)
        turn_put(lane, class, place, lane->turns[place / 2 - 1]);
    return place;
}

static uint32_t sink(struct lane *lane, enum queue_class class, uint32_t place, struct turn turn)
{
    for (uint32_t below; (below = place * 2) <= lane->users; place = below) {
        if (below < lane->users && is_before(&lane->turns[below], &lane->turns[below - 1]))
            below++;
        if (!is_before(&lane->turns[below - 1], &turn))
            break;
        turn_put(lane, class, place, lane->turns[below - 1]);
    }
    return place;
}

static void turn_settle(struct lane *lane, enum queue_class class, uint32_t place, struct turn turn)
{
    place = rise(lane, class, place, turn);
    turn_put(lane, class, sink(lane, class, place, turn), turn);
}

static void turn_remove(struct lane *lane, enum queue_class class, struct user *user)
{
    uint32_t place = user->shares[class].place;
    struct turn last = lane->turns[--lane->users];

    lane->weights -= user->weight;
    user->shares[class].place = 0;
    if (last.user != user)
        turn_settle(lane, class, place, last);
}

static bool has_room(struct lane *lane)
{
    uint32_t wanted = lane->room ? lane->room * 2 : FIRST_TURNS;
    struct turn *turns;

    if (lane->users < lane->room)
        return true;
    turns = realloc(lane->turns, wanted * sizeof *turns);
    if (!turns)
        return false;
    lane->turns = turns;
    lane->room = wanted;
    return true;
}

/* The round in which the user has tokens to spend: this one, or that which will have paid his debt. */
static uint64_t round_of(const struct fair *fair, struct user *user, enum queue_class class)
{
    double balance = balance_now(fair, user, class);
    uint64_t round = fair->lanes[class].round;

    return balance > 0 ? round : round + 1 + (uint64_t)(-balance / pay_of(user));
}

/* ---- lines ---- */

/* Tickets of the same user may come by keys of different weight. */
static void user_weighs(struct fair *fair, struct user *user, unsigned weight)
{
    if (user->weight == weight)
        return;
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++) {
        (void)balance_now(fair, user, class); /* what has passed was paid by the old one */
        if (user->shares[class].place)
            fair->lanes[class].weights += (uint64_t)weight - user->weight;
    }
    user->weight = weight;
}

bool fair_enter(struct fair *fair, struct ticket *ticket)
{
    struct user *user = ticket->user;
    struct share *share = &user->shares[ticket->class];
    struct lane *lane = &fair->lanes[ticket->class];

    if (!share->waiting && !has_room(lane))
        return false;
    user_weighs(fair, user, ticket->weight);
    ticket->newer = NULL;
    ticket->older = share->newest;
    *(share->newest ? &share->newest->newer : &share->oldest) = ticket;
    share->newest = ticket;
    lane->waiting++;
    if (share->waiting++ == 0) {
        struct turn turn = { round_of(fair, user, ticket->class), lane->numbers++, user };
        lane->weights += user->weight;
        turn_settle(lane, ticket->class, ++lane->users, turn);
    }
    return true;
}

static void leave_line(struct fair *fair, struct ticket *ticket)
{
    struct share *share = &ticket->user->shares[ticket->class];

    *(ticket->older ? &ticket->older->newer : &share->oldest) = ticket->newer;
    *(ticket->newer ? &ticket->newer->older : &share->newest) = ticket->older;
    share->waiting--;
    fair->lanes[ticket->class].waiting--;
}

void fair_leave(struct fair *fair, struct ticket *ticket)
{
    leave_line(fair, ticket);
    (void)balance_now(fair, ticket->user, ticket->class); /* he waited until now */
    if (!ticket->user->shares[ticket->class].waiting)
        turn_remove(&fair->lanes[ticket->class], ticket->class, ticket->user);
}

static bool both_wait(const struct fair *fair)
{
    return fair->lanes[QUEUE_INTERACTIVE].users && fair->lanes[QUEUE_BATCH].users;
}

struct ticket *fair_next(const struct fair *fair, unsigned batch_percent)
{
    enum queue_class class = fair->lanes[QUEUE_INTERACTIVE].users ? QUEUE_INTERACTIVE : QUEUE_BATCH;

    if (both_wait(fair) && fair->batch_credit + batch_percent >= 100)
        class = QUEUE_BATCH;
    return fair->lanes[class].users ? fair->lanes[class].turns[0].user->shares[class].oldest : NULL;
}

double fair_expects(const struct fair *fair, const struct ticket *ticket)
{
    double completion = ticket->user->completion;

    if (completion <= 0)
        completion = fair->completion > 0 ? fair->completion : FAIR_FIRST_GUESS;
    return (double)ticket->prompt_tokens + completion;
}

void fair_grant(struct fair *fair, struct ticket *next, unsigned batch_percent)
{
    struct user *user = next->user;
    struct share *share = &user->shares[next->class];
    struct lane *lane = &fair->lanes[next->class];
    uint64_t round = lane->turns[0].round;

    assert(lane->turns[0].user == user && share->oldest == next);
    if (both_wait(fair))
        fair->batch_credit =
            next->class == QUEUE_BATCH ? fair->batch_credit + batch_percent - 100 : fair->batch_credit + batch_percent;
    lane->round = round > lane->round ? round : lane->round;
    next->is_charged = true;
    next->charged = fair_expects(fair, next);
    share->balance = balance_now(fair, user, next->class) - next->charged;
    lane_goes_on(lane, next->charged, user, share);
    leave_line(fair, next);
    if (share->waiting)
        turn_settle(lane, next->class, 1, (struct turn){ round_of(fair, user, next->class), lane->numbers++, user });
    else
        turn_remove(lane, next->class, user);
}

void fair_grant_free(struct fair *fair, struct ticket *ticket)
{
    struct user *user = ticket->user;

    assert(!fair->lanes[QUEUE_INTERACTIVE].users && !fair->lanes[QUEUE_BATCH].users);
    for (unsigned class = 0; class < QUEUE_CLASSES; class ++)
        lane_goes_on(&fair->lanes[class], fair_expects(fair, ticket), user, &user->shares[class]);
}

/* ---- what is learned when one ends ---- */

static void correct(struct fair *fair, struct ticket *ticket, double actual)
{
    struct user *user = ticket->user;
    struct share *share = &user->shares[ticket->class];
    struct lane *lane = &fair->lanes[ticket->class];

    share->balance = balance_now(fair, user, ticket->class) + ticket->charged - actual;
    lane_goes_on(lane, actual - ticket->charged, user, share);
    ticket->is_charged = false;
    if (share->place) {
        struct turn turn = lane->turns[share->place - 1];
        turn.round = round_of(fair, user, ticket->class);
        turn_settle(lane, ticket->class, share->place, turn);
    }
}

static void learn(double *mean, double tokens, unsigned part)
{
    *mean = *mean > 0 ? *mean + (tokens - *mean) / part : tokens;
    if (*mean < 1)
        *mean = 1; /* 0 says that nothing was learned */
}

/* Who sends long prompts and hangs up before a word has come has had a backend read them all the same. */
static double cost_of(const struct ticket *ticket, const struct ticket_outcome *outcome)
{
    uint64_t prompt = outcome->has_tokens ? outcome->prompt_tokens : 0;

    if (!outcome->has_tokens && !outcome->was_given_up)
        return 0;
    if (outcome->was_given_up && prompt < ticket->prompt_tokens)
        prompt = ticket->prompt_tokens;
    return (double)prompt + (double)outcome->completion_tokens;
}

void fair_settle(struct fair *fair, struct ticket *ticket, const struct ticket_outcome *outcome)
{
    if (ticket->is_charged)
        correct(fair, ticket, outcome ? cost_of(ticket, outcome) : 0);
    if (outcome && outcome->has_tokens) {
        learn(&ticket->user->completion, (double)outcome->completion_tokens, OWN_PART);
        learn(&fair->completion, (double)outcome->completion_tokens, ALL_PART);
    }
}

/* ---- estimates ---- */

unsigned fair_place(const struct fair *fair, const struct user *user, enum queue_class class, unsigned batch_percent)
{
    const struct lane *lane = &fair->lanes[class];
    const struct lane *other = &fair->lanes[class == QUEUE_BATCH ? QUEUE_INTERACTIVE : QUEUE_BATCH];
    const struct share *share = &user->shares[class];
    uint64_t users = lane->users + (share->waiting == 0);
    uint64_t own = (share->waiting + 1) * users; /* each of the others has a turn for each of ours */
    uint64_t place = own < lane->waiting + 1 ? own : lane->waiting + 1;
    uint64_t part = class == QUEUE_BATCH ? batch_percent : 100 - batch_percent;
    uint64_t theirs = part ? place * (100 - part) / part : other->waiting;

    return (unsigned)(place + (theirs < other->waiting ? theirs : other->waiting));
}
