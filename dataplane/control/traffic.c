/*
 * Load: what requests took since the last one, and what there is now. What was sent is sent again, under its number,
 * until the control plane has counted it; meanwhile the next one grows. Commands come back with the answer.
 */
#include <stdlib.h>

#include "clock.h"
#include "control_parts.h"
#include "json.h"
#include "log.h"

enum { MAX_BOOK_BYTES = 600 << 10, MAX_LOAD_MODELS = 1024, MAX_ACKS = 64 };

bool control_add_tally(struct control *control, struct tally *tally)
{
    if (control->tally_count == MAX_TALLIES)
        return false;
    control->tallies[control->tally_count++] = tally;
    return true;
}

void traffic_release(struct control *control)
{
    tally_book_release(&control->next);
    tally_book_release(&control->sent);
}

/* ---- a book as a message ---- */

static const struct qw_histogram *histogram_of(const struct tally_histogram *histogram, struct arena *arena)
{
    struct qw_histogram *packed = ARENA_NEW(arena, struct qw_histogram);
    uint32_t *steps = arena_take(arena, CODEC_STEPS * sizeof *steps);
    uint64_t *counts = arena_take(arena, CODEC_STEPS * sizeof *counts);
    size_t count = 0;

    if (!packed || !steps || !counts)
        return NULL;
    for (unsigned i = 0; i < CODEC_STEPS; i++) {
        if (!histogram->steps[i])
            continue;
        steps[count] = i;
        counts[count++] = histogram->steps[i];
    }
    *packed = (struct qw_histogram){
        .steps = steps, .step_count = count, .counts = counts, .count_count = count, .sum_us = histogram->sum_us
    };
    return count ? packed : NULL;
}

/* The row of that name, which may be there for what waits now. */
static struct qw_model_load *row_of(struct qw_model_load *rows, size_t *count, struct slice name)
{
    for (size_t i = 0; i < *count; i++)
        if (slice_is(rows[i].model, name))
            return &rows[i];
    if (*count == MAX_LOAD_MODELS)
        return NULL;
    rows[*count] = (struct qw_model_load){ .model = name };
    return &rows[(*count)++];
}

static void add_model(struct qw_model_load *rows, size_t *count, const struct tally_model *model, struct slice name,
                      struct arena *arena)
{
    struct qw_model_load *row = row_of(rows, count, name);

    if (!row)
        return;
    row->requests = model->counts.requests;
    row->refused = model->counts.refused;
    row->prompt_tokens = model->counts.prompt_tokens;
    row->completion_tokens = model->counts.completion_tokens;
    row->first_token = histogram_of(&model->first_token, arena);
    row->duration = histogram_of(&model->duration, arena);
}

static bool add_models(const struct tally_book *book, struct arena *arena, struct qw_load *load)
{
    struct qw_model_load *rows = arena_take(arena, (MAX_LOAD_MODELS + 1) * sizeof *rows);
    size_t count = load->model_count;

    if (!rows)
        return false;
    if (count > MAX_LOAD_MODELS - TALLY_MAX_MODELS - 1) /* what was counted must have room */
        count = MAX_LOAD_MODELS - TALLY_MAX_MODELS - 1;
    if (count)
        memcpy(rows, load->models, count * sizeof *rows);
    for (unsigned i = 0; i < book->model_count; i++)
        add_model(rows, &count, book->models[i], (struct slice){ book->models[i]->name, book->models[i]->name_bytes },
                  arena);
    if (book->other_model.counts.requests)
        add_model(rows, &count, &book->other_model, TALLY_OTHER, arena);
    load->models = rows;
    load->model_count = count;
    return true;
}

static void add_user(struct qw_user_load *rows, size_t *count, const struct tally_counts *counts, struct slice name)
{
    if (counts->requests)
        rows[(*count)++] = (struct qw_user_load){ name, counts->requests, counts->refused, counts->prompt_tokens,
                                                  counts->completion_tokens };
}

static bool add_users(const struct tally_book *book, struct arena *arena, struct qw_load *load)
{
    struct qw_user_load *rows = arena_take(arena, (book->user_count + 2) * sizeof *rows);

    if (!rows)
        return false;
    load->user_count = 0;
    for (unsigned i = 0; i < TALLY_BUCKETS; i++)
        for (const struct tally_user *user = book->users[i]; user; user = user->next)
            add_user(rows, &load->user_count, &user->counts, (struct slice){ user->name, user->name_bytes });
    add_user(rows, &load->user_count, &book->nobody, TALLY_NOBODY);
    add_user(rows, &load->user_count, &book->other_user, TALLY_OTHER);
    load->users = rows;
    return true;
}

/* ---- commands ---- */

static bool is_done(const struct control *control, uint64_t id)
{
    for (unsigned i = 0; i < MAX_DONE; i++)
        if (control->done[i] == id)
            return true;
    return false;
}

static void set_drained(struct control *control, bool is_drained)
{
    control->is_drained = is_drained;
    log_info(is_drained ? "the control plane says to take nothing new: callers get 503"
                        : "the control plane says to take requests again");
    if (control_look_at_age(control, clock_ms()))
        control_tell(control);
}

/* What is wrong with it; empty: it is done, or begun. */
static struct slice obey(struct control *control, const struct qw_command *command)
{
    if (is_done(control, command->id))
        return (struct slice){ 0 };
    switch (command->order) {
    case QW_DRAIN:
        set_drained(control, true);
        break;
    case QW_UNDRAIN:
        set_drained(control, false);
        break;
    case QW_RESYNC:
        log_info("the control plane says to fetch everything anew");
        sync_resync(control);
        control->resync = command->id;
        break;
    default:
        return SLICE("this version of the gateway does not know the command");
    }
    control->done[control->done_at++ % MAX_DONE] = command->id;
    return (struct slice){ 0 };
}

static void on_acked(void *arg, enum err err, const struct qw_message *answer)
{
    struct control *control = arg;

    (void)err;
    (void)answer; /* what it commands comes again with the next Load */
    control->is_acking = false;
}

static void acknowledge(struct control *control, const struct qw_done *done, size_t count)
{
    const struct qw_message message = { QW_ACK, .ack = { done, count } };

    if (count)
        control->is_acking = link_client_ask(control->link, &message, on_acked, control) == ERR_OK;
}

/* One that goes on for a while comes again until it is acknowledged, which is when it is over. */
static void obey_all(struct control *control, const struct qw_commands *commands)
{
    struct qw_done done[MAX_ACKS];
    size_t count = 0;

    if (control->is_acking)
        return;
    for (size_t i = 0; i < commands->count && count < MAX_ACKS; i++) {
        struct slice trouble = obey(control, &commands->commands[i]);
        if (commands->commands[i].id != control->resync)
            done[count++] = (struct qw_done){ commands->commands[i].id, trouble };
    }
    acknowledge(control, done, count);
}

/* Every worker serves by what was fetched, and the disk has it. */
static void end_resync(struct control *control)
{
    const struct qw_done done = { control->resync, { 0 } };

    if (!control->resync || control->wants_resync || sync_applied(control) != control->held || control->is_acking)
        return;
    log_info("everything was fetched anew: version %llu", (unsigned long long)control->held);
    control->resync = 0;
    acknowledge(control, &done, 1);
}

/* ---- Load ---- */

static void on_loaded(void *arg, enum err err, const struct qw_message *answer)
{
    struct control *control = arg;

    clock_turn();
    control->is_loading = false;
    if (err != ERR_OK) {
        control->loads_lost++;
        return;
    }
    if (answer->what != QW_COMMANDS)
        return;
    if (answer->commands.counted >= control->sequence)
        control->has_sent = false;
    obey_all(control, &answer->commands);
}

static void send(struct control *control, struct arena *arena, struct qw_message *message)
{
    struct qw_load *load = &message->load;

    load->sequence = control->sequence;
    load->now_ms = (uint64_t)clock_wall_ms();
    if (!add_models(&control->sent, arena, load) || !add_users(&control->sent, arena, load))
        return;
    control->is_loading = link_client_ask(control->link, message, on_loaded, control) == ERR_OK;
    if (control->is_loading)
        control->loaded_ms = clock_ms();
}

/* Every second while requests run or ran, else now and then. */
static bool is_due(const struct control *control, const struct qw_load *load, int64_t now_ms)
{
    return control->has_sent || load->running || load->waiting || !tally_book_is_empty(&control->next) ||
           now_ms - control->loaded_ms >= LOAD_IDLE_MS;
}

void traffic_tick(struct control *control, int64_t now_ms)
{
    struct qw_message message = { .what = QW_LOAD };
    struct arena arena;

    for (unsigned i = 0; i < control->tally_count; i++)
        tally_take(control->tallies[i], &control->next);
    if (control->is_up)
        end_resync(control);
    if (!control->is_up || control->is_loading)
        return;
    arena_init(&arena);
    control->options.measure(control->options.arg, &arena, &message.load);
    if (is_due(control, &message.load, now_ms)) {
        if (!control->has_sent) {
            tally_book_move(&control->next, &control->sent, MAX_BOOK_BYTES);
            control->sequence++;
            control->has_sent = true;
        }
        send(control, &arena, &message);
    }
    arena_release(&arena);
}

/* ---- for the operator ---- */

void control_report(const struct control *control, struct text *out)
{
    struct control_gauges gauges;

    control_gauges(control, &gauges);
    text_printf(out, ",\"control\":{\"link\":\"%s\",\"heard_s\":", gauges.is_up ? "up" : "down");
    if (gauges.heard_ms < 0)
        text_add_literal(out, "null");
    else
        text_printf(out, "%lld.%03lld", (long long)(gauges.heard_ms / 1000), (long long)(gauges.heard_ms % 1000));
    text_printf(out, ",\"version\":%llu,\"applied\":%llu,\"stale\":%s,\"trouble\":", (unsigned long long)gauges.held,
                (unsigned long long)gauges.applied, gauges.is_stale ? "true" : "false");
    json_add_string(out, gauges.trouble);
    text_add_char(out, '}');
}
