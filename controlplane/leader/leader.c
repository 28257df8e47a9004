/*
 * One question at a time: "is it still ours?", every renew_ms, or as soon as the one before is answered where the
 * database takes longer than that. What it answers is worth lease_ms from when it was asked.
 *
 * ticks   4 times a lease_ms or more: state changes by time alone are told, and a gap between two of them means that
 * this process stood still; then it knows nothing until what it asks next is answered
 * asks    renew_ms after it asked last, and when another resigns (qwen_leader)
 */
#include "leader.h"

#include <event2/event.h>
#include <stdlib.h>

#include "clock.h"
#include "digest.h"
#include "json.h"
#include "log.h"
#include "store.h"

enum { MAX_NAME = 200, TICK_MS = 250, MARK_LETTERS = 10 };

enum leader_state { LEADER_FOLLOWS, LEADER_LEADS, LEADER_HOLDS };
static const char *const state_names[] = { "follows", "leads", "holds" };

struct watch {
    struct watch *next;
    void (*on_change)(void *arg);
    void *arg;
};

struct leader {
    struct event_base *base;
    struct store *store;
    struct leader_options options;
    char me[MAX_NAME + 1];
    size_t name_len; /* of it, what people are told; the rest makes it this process's own */
    struct event *tick;
    struct question *question;
    int64_t asked_ms; /* when the open question was asked, or the last one */
    int64_t next_ms;  /* when to ask again */
    int64_t tick_ms;
    int64_t epoch; /* that we hold, or held last; 0: another's */
    int64_t deadline_ms;
    bool is_failing; /* the last answer was none */
    bool is_unsure;  /* we stood still, and nothing that was asked since is answered */
    int64_t unsure_ms;
    bool is_resigning, is_resigned;
    void (*on_done)(void *arg);
    void *done_arg;
    char holder[MAX_NAME + 1];
    int64_t seen_epoch, seen_left_ms, seen_ms; /* of whoever holds it */
    int64_t uncertain_until_ms;
    enum leader_state told_state;
    int64_t told_epoch;
    struct watch *watches;
};

static const struct statement hold_statement = {
    .name = "leader_hold",
    .sql = "SELECT holder, epoch, is_mine, left_ms, uncertain_until_ms FROM leader_hold($1, $2, $3, $4)",
};
static const struct statement resign_statement = { .name = "leader_resign", .sql = "SELECT leader_resign($1, $2)" };

static bool stood_still(const struct leader *leader, int64_t now_ms)
{
    return now_ms - leader->tick_ms > leader->options.lease_ms / 2 + TICK_MS;
}

static enum leader_state state_at(const struct leader *leader, int64_t now_ms)
{
    bool is_away = leader->is_failing || !store_is_up(leader->store) || leader->question;

    if (!leader->epoch || leader->is_resigned)
        return LEADER_FOLLOWS;
    if (now_ms < leader->deadline_ms)
        return LEADER_LEADS;
    if (leader->is_unsure || stood_still(leader, now_ms) || !is_away)
        return LEADER_FOLLOWS;
    return now_ms < leader->deadline_ms + leader->options.hold_ms ? LEADER_HOLDS : LEADER_FOLLOWS;
}

int64_t leader_epoch(const struct leader *leader)
{
    return state_at(leader, clock_ms()) == LEADER_LEADS ? leader->epoch : 0;
}

bool leader_serves(const struct leader *leader)
{
    return state_at(leader, clock_ms()) != LEADER_FOLLOWS;
}

const char *leader_holder(const struct leader *leader)
{
    return *leader->holder ? leader->holder : "nobody";
}

int64_t leader_uncertain_until_ms(const struct leader *leader)
{
    return leader->uncertain_until_ms;
}

void leader_add_status(const struct leader *leader, struct text *out)
{
    int64_t now_ms = clock_ms(), left_ms = leader->seen_left_ms - (now_ms - leader->seen_ms);

    text_add_literal(out, "\"leader\":{\"holder\":");
    if (*leader->holder)
        json_add_string(out, slice_of(leader->holder));
    else
        text_add_literal(out, "null");
    text_add_literal(out, ",\"this\":");
    json_add_string(out, (struct slice){ leader->me, leader->name_len });
    text_printf(out, ",\"epoch\":%lld,\"state\":\"%s\",\"expires_in_ms\":%lld}", (long long)leader->seen_epoch,
                state_names[state_at(leader, now_ms)], (long long)(left_ms > 0 ? left_ms : 0));
}

enum err leader_watch(struct leader *leader, void (*on_change)(void *arg), void *arg)
{
    struct watch *watch = calloc(1, sizeof *watch);

    if (!watch)
        return ERR_NO_MEMORY;
    *watch = (struct watch){ leader->watches, on_change, arg };
    leader->watches = watch;
    return ERR_OK;
}

static void say(const struct leader *leader, enum leader_state state)
{
    if (state == LEADER_LEADS)
        log_info("this control plane leads, with epoch %lld", (long long)leader->epoch);
    else if (state == LEADER_HOLDS)
        log_warn("the database does not prolong the lead; gateways are told from memory for %lld s at most",
                 (long long)(leader->options.hold_ms / 1000));
    else
        log_info("this control plane follows; %s leads", leader_holder(leader));
}

static void tell(struct leader *leader)
{
    enum leader_state state = state_at(leader, clock_ms());
    int64_t epoch = state == LEADER_LEADS ? leader->epoch : 0;

    if (state == leader->told_state && epoch == leader->told_epoch)
        return;
    if (state != leader->told_state)
        say(leader, state);
    leader->told_state = state;
    leader->told_epoch = epoch;
    for (struct watch *watch = leader->watches; watch; watch = watch->next)
        watch->on_change(watch->arg);
}

/* --- asking ---------------------------------------------------------------------------------------------- */

static void ask(struct leader *leader);

static void done(struct leader *leader)
{
    void (*on_done)(void *arg) = leader->on_done;

    leader->on_done = NULL;
    if (on_done)
        on_done(leader->done_arg);
}

static void on_resigned(void *arg, const struct answer *answer)
{
    struct leader *leader = arg;

    leader->question = NULL;
    if (answer->err != ERR_OK)
        log_warn("the lead could not be given back, and runs out by itself: %s", answer->sentence);
    done(leader);
}

static void resign_now(struct leader *leader)
{
    struct value values[] = { VALUE_TEXT(slice_of(leader->me)), VALUE_NUMBER(leader->epoch) };
    const struct ask resignation = { &resign_statement, values, 2 };
    bool led = leader->epoch;

    leader->is_resigned = true;
    tell(leader);
    if (!led || store_ask(leader->store, &resignation, 1, on_resigned, leader, &leader->question) != ERR_OK)
        done(leader);
}

static void learn(struct leader *leader, const struct rows *row)
{
    struct slice holder = rows_text(row, 0, 0);
    const char *mark = memrchr(holder.at, '#', holder.len);
    bool is_mine = rows_bool(row, 0, 2);

    if (mark)
        holder.len = (size_t)(mark - holder.at);
    holder.len = utf8_cut(holder, MAX_NAME);
    memcpy(leader->holder, holder.at, holder.len);
    leader->holder[holder.len] = 0;
    leader->seen_epoch = rows_number(row, 0, 1);
    leader->seen_left_ms = rows_number(row, 0, 3);
    leader->seen_ms = clock_ms();
    leader->uncertain_until_ms = rows_number(row, 0, 4);
    leader->epoch = is_mine ? leader->seen_epoch : 0;
    leader->deadline_ms = leader->asked_ms + leader->options.lease_ms;
}

static void on_answer(void *arg, const struct answer *answer)
{
    struct leader *leader = arg;
    bool is_good = answer->err == ERR_OK && rows_count(&answer->rows[0]) == 1;

    leader->question = NULL;
    if (is_good) {
        learn(leader, &answer->rows[0]);
        leader->is_unsure &= leader->asked_ms < leader->unsure_ms;
    } else if (!leader->is_failing) {
        log_debug("who leads is not known: %s", answer->sentence);
    }
    leader->is_failing = !is_good;
    if (leader->is_resigning) {
        resign_now(leader);
        return;
    }
    if (is_good && clock_ms() >= leader->next_ms)
        ask(leader); /* it took long: the next answer will too, and the lease does not wait for a tick */
    tell(leader);
}

static void ask(struct leader *leader)
{
    struct value values[] = { VALUE_TEXT(slice_of(leader->me)), VALUE_NUMBER(leader->epoch),
                              VALUE_NUMBER(leader->options.lease_ms), VALUE_NUMBER(leader->options.hold_ms) };
    const struct ask hold = { &hold_statement, values, sizeof values / sizeof *values };

    if (leader->question || leader->is_resigned)
        return;
    leader->asked_ms = clock_ms();
    leader->next_ms = leader->asked_ms + leader->options.renew_ms;
    if (store_ask(leader->store, &hold, 1, on_answer, leader, &leader->question) != ERR_OK)
        leader->is_failing = true;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct leader *leader = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    if (stood_still(leader, now_ms)) {
        leader->is_unsure = true;
        leader->unsure_ms = now_ms;
    }
    leader->tick_ms = now_ms;
    if (now_ms >= leader->next_ms)
        ask(leader);
    tell(leader);
}

static void on_wake(void *arg, const char *payload)
{
    (void)payload;
    ask(arg);
}

/* --- opening and closing --------------------------------------------------------------------------------- */

static bool start(struct leader *leader)
{
    int64_t every_ms = leader->options.renew_ms < TICK_MS ? leader->options.renew_ms : TICK_MS;
    const struct timeval every = { every_ms / 1000, (every_ms % 1000) * 1000 };

    leader->tick = event_new(leader->base, -1, EV_PERSIST, on_tick, leader);
    return leader->tick && event_add(leader->tick, &every) == 0 &&
           store_listen(leader->store, "qwen_leader", on_wake, leader) == ERR_OK;
}

struct leader *leader_open(struct event_base *base, struct store *store, const struct leader_options *options,
                           struct text *why)
{
    struct leader *leader = calloc(1, sizeof *leader);
    char mark[MARK_LETTERS + 1] = "";

    if (!leader) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    leader->base = base;
    leader->store = store;
    leader->options = *options;
    leader->name_len = utf8_cut(slice_of(options->holder), MAX_NAME - 1 - MARK_LETTERS);
    random_letters(mark, MARK_LETTERS);
    memcpy(leader->me, options->holder, leader->name_len);
    leader->me[leader->name_len] = '#';
    memcpy(leader->me + leader->name_len + 1, mark, sizeof mark);
    leader->tick_ms = clock_ms();
    if (!start(leader)) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return leader_close(leader);
    }
    ask(leader);
    return leader;
}

struct leader *leader_close(struct leader *leader)
{
    struct watch *watch;

    if (!leader)
        return NULL;
    if (leader->question)
        question_forget(leader->question);
    while ((watch = leader->watches)) {
        leader->watches = watch->next;
        free(watch);
    }
    if (leader->tick)
        event_free(leader->tick);
    free(leader);
    return NULL;
}

static void resign_later(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    resign_now(arg);
}

void leader_resign(struct leader *leader, void (*on_done)(void *arg), void *arg)
{
    static const struct timeval now;

    leader->on_done = on_done;
    leader->done_arg = arg;
    leader->is_resigning = true;
    /* What is under way may take the lead yet; so that is waited for. */
    if (!leader->question && event_base_once(leader->base, -1, EV_TIMEOUT, resign_later, leader, &now) != 0)
        resign_now(leader);
}
