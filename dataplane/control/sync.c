/*
 * Asking. A Sync is open nearly always; the control plane answers when it has something. What comes is applied, and the
 * next Sync says so: it waits until all workers have switched and the disk has it, but not for longer than SETTLE_MS.
 * When that confirmation comes later, or there is another thing to tell, a second Sync is asked beside the one that is
 * held; what the first brings then is taken if it still fits, and else overlooked.
 *
 * After the link came up the first Sync waits for nothing: its answer, "nothing new", is what makes our knowledge
 * current.
 */
#include "clock.h"
#include "control_parts.h"
#include "log.h"

uint64_t sync_applied(const struct control *control)
{
    return control->switched < control->durable ? control->switched : control->durable;
}

static bool is_settled(const struct control *control)
{
    return sync_applied(control) == control->held;
}

static struct slice trouble_of(const struct control *control)
{
    const struct text *trouble = control->trouble.len ? &control->trouble : &control->disk_trouble;

    return (struct slice){ trouble->len ? trouble->at : "", utf8_cut(text_slice(trouble), CODEC_MAX_TEXT) };
}

/* Of the disk: the version that it does not have. */
static uint64_t failed_of(const struct control *control)
{
    return control->trouble.len ? control->failed : control->disk_trouble.len ? control->held : 0;
}

static struct sync *open_sync(struct control *control, bool of_last)
{
    for (unsigned i = 0; i < MAX_SYNCS; i++)
        if (control->syncs[i].is_open && (!of_last || control->syncs[i].number == control->sync_number))
            return &control->syncs[i];
    return NULL;
}

static struct sync *free_sync(struct control *control)
{
    for (unsigned i = 0; i < MAX_SYNCS; i++)
        if (!control->syncs[i].is_open)
            return &control->syncs[i];
    return NULL;
}

/* ---- what comes ---- */

static void wait_for(struct control *control, int64_t ms)
{
    control->ask_at_ms = clock_ms() + ms;
}

/*
 * Said once a sentence, told with every Sync until something is applied. What is told not to be applied does not come
 * again, so that the next thing to come is another version: that one is asked for at once, since keys that it removes
 * are to go. Who sends the same all the same is asked ever more seldom, and who sends all there is (is_whole) too.
 */
static void is_trouble(struct control *control, uint64_t version, bool is_whole, const struct text *why)
{
    bool is_new = !slice_is(text_slice(why), text_slice(&control->trouble));

    control->apply_errors++;
    if (version && version != control->failed && !is_whole)
        control->retry_ms = 0;
    else if (!control->retry_ms)
        control->retry_ms = FIRST_RETRY_MS;
    else
        control->retry_ms = 2 * control->retry_ms < MAX_RETRY_MS ? 2 * control->retry_ms : MAX_RETRY_MS;
    control->failed = version;
    if (is_new) {
        text_clear(&control->trouble);
        text_add_slice(&control->trouble, text_slice(why));
        log_error("version %llu is not applied, version %llu stays: %s", (unsigned long long)version,
                  (unsigned long long)control->held, text_string(why));
    }
}

static void is_applied(struct control *control)
{
    if (control->trouble.len)
        log_info("version %llu is applied", (unsigned long long)control->held);
    text_clear(&control->trouble);
    control->failed = 0;
    control->retry_ms = 0;
}

static bool is_nothing_new(const struct qw_update *update)
{
    return !update->chunk && update->from == update->to;
}

static void take(struct control *control, const struct qw_update *update, bool is_of_last)
{
    struct text why;
    enum err err;

    if (is_nothing_new(update)) {
        control->is_current |= update->to == control->held;
        return;
    }
    if (!is_of_last && (update->chunk || update->from != control->held))
        return; /* what another one has brought meanwhile */
    text_init(&why, MAX_SENTENCE);
    err = update->chunk ? apply_piece(control, update, &why) : apply_changes(control, update, &why);
    if (err == ERR_OK && !control->fetch.is_open) {
        is_applied(control);
    } else if (err != ERR_OK && err != ERR_AGAIN) {
        /* What there was no memory for is wanted again; the rest waits for another version. */
        is_trouble(control, err == ERR_NO_MEMORY ? 0 : update->to, update->chunk, &why);
        control->is_current = true; /* heard it was */
        wait_for(control, control->retry_ms);
    }
    text_release(&why);
}

static void on_answer(void *arg, enum err err, const struct qw_message *answer)
{
    struct sync *sync = arg;
    struct control *control = sync->control;
    bool is_of_last = sync->number == control->sync_number;

    clock_turn();
    sync->is_open = false;
    if (err == ERR_GONE)
        return; /* the link's news say the rest */
    if (err == ERR_OK && answer->what == QW_UPDATE) {
        take(control, &answer->update, is_of_last);
    } else if (err == ERR_OK && answer->what == QW_REFUSED) {
        wait_for(control, answer->refused.retry_ms > FIRST_RETRY_MS ? answer->refused.retry_ms : FIRST_RETRY_MS);
    } else {
        char memory[MAX_SENTENCE];
        struct text why = text_over(memory, sizeof memory);
        text_add_literal(&why, "what the control plane sent cannot be read by this version of the gateway");
        is_trouble(control, 0, false, &why);
        wait_for(control, control->retry_ms);
    }
    sync_go_on(control);
}

/* ---- what goes ---- */

static void ask(struct control *control, struct sync *sync, int64_t now_ms)
{
    const struct fetch *fetch = &control->fetch;
    struct qw_message message = {
        .what = QW_SYNC,
        .sync = {
            .have = control->wants_resync ? 0 : control->held,
            .applied = sync_applied(control),
            .apply_error = trouble_of(control),
            .failed = failed_of(control),
            .wait_ms = control->is_current ? SYNC_WAIT_MS : 0,
            .snapshot = fetch->is_open ? fetch->version : 0,
            .next_chunk = fetch->is_open ? fetch->next : 0,
        },
    };

    *sync = (struct sync){ .control = control, .is_open = true, .number = ++control->sync_number };
    control->told_applied = message.sync.applied;
    control->told_failed = message.sync.failed;
    control->asked_ms = now_ms;
    if (link_client_ask(control->link, &message, on_answer, sync) == ERR_OK)
        return;
    sync->is_open = false;
    wait_for(control, FIRST_RETRY_MS);
}

void sync_go_on(struct control *control)
{
    int64_t now_ms = clock_ms();
    struct sync *sync = free_sync(control);
    bool has_news = control->told_applied != sync_applied(control) || control->told_failed != failed_of(control);
    bool is_lost = now_ms - control->asked_ms > SYNC_LOST_MS;

    if (!control->is_up || !sync || now_ms < control->ask_at_ms)
        return;
    if (open_sync(control, true) && !has_news && !is_lost)
        return;
    if (!is_settled(control) && now_ms < control->adopted_ms + SETTLE_MS && !control->fetch.is_open)
        return;
    ask(control, sync, now_ms);
}

void sync_up(struct control *control)
{
    control->is_current = false;
    control->ask_at_ms = 0;
    sync_go_on(control);
}

void sync_down(struct control *control)
{
    control->is_current = false;
    control->failed = 0; /* the next control plane may say it otherwise */
    fetch_end(control);  /* and have another one */
}

void sync_try_again(struct control *control)
{
    if (!control->trouble.len)
        return;
    control->failed = 0;
    control->retry_ms = 0;
    control->ask_at_ms = 0;
    sync_go_on(control);
}

void sync_resync(struct control *control)
{
    control->wants_resync = true;
    control->is_current = false;
    fetch_end(control);
    if (open_sync(control, true))
        control->sync_number++; /* it is not the last one any more */
    sync_go_on(control);
}
