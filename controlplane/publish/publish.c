/*
 * ticks   every poll_ms: a look at the log, whether a snapshot is due, and now and then pruning
 */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "parts.h"
#include "store.h"

enum { MAX_WHY = 512, PRUNE_MS = 10 * 60 * 1000 };

static const struct statement prune_statement = { .name = "publish_prune", .sql = "SELECT change_log_prune($1)" };

/* --- news ------------------------------------------------------------------------------------------------ */

enum err publish_watch(struct publish *publish, void (*on_news)(void *arg), void *arg)
{
    struct watch *watch = calloc(1, sizeof *watch);

    if (!watch)
        return ERR_NO_MEMORY;
    *watch = (struct watch){ publish->watches, on_news, arg };
    publish->watches = watch;
    return ERR_OK;
}

void publish_news(struct publish *publish)
{
    spool_consider(publish, clock_ms());
    for (struct watch *watch = publish->watches; watch; watch = watch->next)
        watch->on_news(watch->arg);
}

void publish_left_out(struct publish *publish, uint64_t version, struct slice kind, struct slice id, struct slice why)
{
    publish->unpackable++;
    log_error("%.*s %.*s of version %llu cannot be told to gateways and is left out: %.*s", (int)kind.len, kind.at,
              (int)id.len, id.at, (unsigned long long)version, (int)why.len, why.at);
}

uint64_t publish_version(const struct publish *publish)
{
    return publish->reading.has_begun ? tail_newest(&publish->tail) : 0;
}

uint64_t publish_looks(const struct publish *publish)
{
    return publish->reading.looks;
}

void publish_wake(struct publish *publish)
{
    log_look(publish);
}

void publish_counts(const struct publish *publish, struct publish_counts *ret_counts)
{
    *ret_counts = (struct publish_counts){
        .tail_first = publish->tail.base,
        .tail_bytes = publish->tail.bytes,
        .spool_version = publish->spool.version,
        .spool_bytes = publish->spool.bytes,
        .spool_changes = publish->spool.changes,
        .spools_made = publish->spools_made,
        .unpackable = publish->unpackable,
    };
}

/* --- frames ---------------------------------------------------------------------------------------------- */

static enum err pack(struct publish *publish, const struct qw_message *message, struct text *frame)
{
    enum err err;

    text_clear(frame);
    text_clear(&publish->why);
    err = message_pack(message, frame, &publish->why);
    if (err != ERR_OK)
        log_error("an update cannot be packed, the gateway waits: %s", text_string(&publish->why));
    return err;
}

enum err publish_delta(struct publish *publish, uint64_t have, struct slice *ret_frame, uint64_t *ret_to)
{
    struct qw_message message = { .what = QW_UPDATE };
    enum err err;

    if (publish->delta_to && have == publish->delta_from && publish->delta_to == tail_newest(&publish->tail)) {
        *ret_frame = text_slice(&publish->delta);
        *ret_to = publish->delta_to;
        return ERR_OK;
    }
    publish->delta_to = 0;
    text_clear(&publish->scratch);
    err = tail_collect(&publish->tail, have, CODEC_MAX_CHANGES, &publish->scratch, ret_to);
    if (err != ERR_OK)
        return err;
    message.update = (struct qw_update){ .from = have, .to = *ret_to, .changes = text_slice(&publish->scratch) };
    if ((err = pack(publish, &message, &publish->delta)) != ERR_OK)
        return err;
    publish->delta_from = have;
    publish->delta_to = *ret_to;
    *ret_frame = text_slice(&publish->delta);
    return ERR_OK;
}

static bool read_all(int fd, const struct piece *piece, struct text *out)
{
    text_clear(out);
    if (!text_reserve(out, piece->len))
        return false;
    while (out->len < piece->len) {
        ssize_t got = pread(fd, out->at + out->len, piece->len - out->len, (off_t)(piece->at + out->len));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        out->len += (size_t)got;
    }
    return true;
}

static enum err piece_frame(struct publish *publish, const struct spool *spool, uint32_t index, struct slice *ret_frame)
{
    const struct qw_chunk chunk = { index, spool->count };
    struct qw_message message = { .what = QW_UPDATE };
    enum err err;

    if (!read_all(spool->fd, &spool->pieces[index], &publish->scratch)) {
        log_error("a snapshot cannot be read back, the gateway waits: %s", strerror(errno));
        return ERR_SYSTEM;
    }
    message.update =
        (struct qw_update){ .to = spool->version, .changes = text_slice(&publish->scratch), .chunk = &chunk };
    if (index + 1 == spool->count)
        message.update.checksum = (struct slice){ (const char *)spool->sum.bytes, DIGEST_BYTES };
    if ((err = pack(publish, &message, &publish->frame)) != ERR_OK)
        return err;
    *ret_frame = text_slice(&publish->frame);
    return ERR_OK;
}

enum err publish_piece(struct publish *publish, uint64_t version, uint32_t piece, struct slice *ret_frame,
                       uint64_t *ret_version)
{
    const struct spool *both[] = { &publish->spool, &publish->spool_before };
    const struct spool *spool = &publish->spool;

    for (unsigned i = 0; version && i < 2; i++)
        if (both[i]->fd >= 0 && both[i]->version == version && piece < both[i]->count) {
            *ret_version = version;
            return piece_frame(publish, both[i], piece, ret_frame);
        }
    if (!spool_is_usable(publish, spool)) {
        publish->building.is_wanted = true;
        spool_consider(publish, clock_ms());
        return ERR_AGAIN;
    }
    *ret_version = spool->version;
    return piece_frame(publish, spool, 0, ret_frame);
}

/* --- waking ---------------------------------------------------------------------------------------------- */

static void on_pruned(void *arg, const struct answer *answer)
{
    struct publish *publish = arg;

    publish->pruning = NULL;
    if (answer->err != ERR_OK)
        log_warn("old changes could not be taken out of the log, which is tried again later: %s", answer->sentence);
    else if (rows_number(&answer->rows[0], 0, 0) > 0)
        log_info("%lld old changes were taken out of the log", (long long)rows_number(&answer->rows[0], 0, 0));
}

static void prune(struct publish *publish, int64_t now_ms)
{
    struct value value = VALUE_NUMBER((int64_t)publish->options.log_versions);
    const struct ask ask = { &prune_statement, &value, 1 };

    if (!publish->options.log_versions || now_ms < publish->prune_ms || publish->pruning)
        return;
    publish->prune_ms = now_ms + PRUNE_MS;
    if (store_ask(publish->store, &ask, 1, on_pruned, publish, &publish->pruning) != ERR_OK)
        publish->pruning = NULL;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct publish *publish = arg;
    int64_t now_ms = clock_ms();

    (void)fd;
    (void)what;
    log_look(publish);
    spool_consider(publish, now_ms);
    prune(publish, now_ms);
}

static void on_wake(void *arg, const char *payload)
{
    if (!payload || strcmp(payload, "config") == 0)
        log_look(arg);
}

/* --- opening and closing --------------------------------------------------------------------------------- */

static bool start(struct publish *publish)
{
    const struct timeval every = { publish->options.poll_ms / 1000, (publish->options.poll_ms % 1000) * 1000 };

    publish->tick = event_new(publish->base, -1, EV_PERSIST, on_tick, publish);
    return publish->tick && event_add(publish->tick, &every) == 0 &&
           store_listen(publish->store, "qwen_change", on_wake, publish) == ERR_OK;
}

struct publish *publish_open(struct event_base *base, struct store *store, const struct publish_options *options,
                             struct text *why)
{
    struct publish *publish = calloc(1, sizeof *publish);

    if (!publish) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return NULL;
    }
    *publish = (struct publish){
        .base = base,
        .store = store,
        .options = *options,
        .reading = { .seq = -1 },
        .building = { .spool = { .fd = -1 } },
        .spool = { .fd = -1 },
        .spool_before = { .fd = -1 },
        .prune_ms = clock_ms() + PRUNE_MS,
    };
    tail_init(&publish->tail, options->tail_versions, options->tail_bytes);
    text_init(&publish->reading.bytes, CODEC_MAX_CHANGES);
    text_init(&publish->building.piece, CODEC_MAX_CHANGES);
    text_init(&publish->delta, 2 * CODEC_MAX_BYTES);
    text_init(&publish->scratch, 2 * CODEC_MAX_BYTES);
    text_init(&publish->frame, 2 * CODEC_MAX_BYTES);
    text_init(&publish->why, MAX_WHY);
    if (access(options->spool_folder, W_OK | X_OK) != 0) {
        text_printf(why, "%s cannot be written to: %s", options->spool_folder, strerror(errno));
        return publish_close(publish);
    }
    if (!start(publish)) {
        text_add_string(why, err_text(ERR_NO_MEMORY));
        return publish_close(publish);
    }
    log_look(publish);
    return publish;
}

struct publish *publish_close(struct publish *publish)
{
    struct watch *watch;

    if (!publish)
        return NULL;
    log_forget(publish);
    building_cancel(publish);
    if (publish->pruning)
        question_forget(publish->pruning);
    while ((watch = publish->watches)) {
        publish->watches = watch->next;
        free(watch);
    }
    if (publish->tick)
        event_free(publish->tick);
    spool_release(&publish->spool);
    spool_release(&publish->spool_before);
    tail_release(&publish->tail);
    text_release(&publish->reading.bytes);
    text_release(&publish->building.piece);
    text_release(&publish->delta);
    text_release(&publish->scratch);
    text_release(&publish->frame);
    text_release(&publish->why);
    free(publish);
    return NULL;
}
