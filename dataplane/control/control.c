/*
 * Timers: `second`, every second: the age of what is known, Load, what could not be asked or written before.
 */
#include "control.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "control_parts.h"
#include "identity.h"
#include "log.h"

enum { MAX_SECRET_BYTES = 256, AGAIN_MS = 1000 };

/* ---- before root is given up ---- */

/* Its last folder only: who names a place whose parents are missing has mistyped it. */
static enum err make_folder(const char *folder, const char *user, struct text *why)
{
    const struct passwd *entry = user && geteuid() == 0 ? getpwnam(user) : NULL;

    if (mkdir(folder, 0700) != 0) {
        if (errno == EEXIST)
            return ERR_OK;
        text_printf(why, "control.state: the folder %s cannot be made: %s", folder, strerror(errno));
        return ERR_SYSTEM;
    }
    if (entry && chown(folder, entry->pw_uid, entry->pw_gid) != 0) {
        text_printf(why, "control.state: the folder %s cannot be given to %s: %s", folder, user, strerror(errno));
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

static enum err read_secret(const char *path, struct text *secret, struct text *why)
{
    char bytes[MAX_SECRET_BYTES + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    int error = errno;

    if (fd >= 0)
        (void)close(fd);
    if (fd < 0 && error == ENOENT)
        return ERR_OK; /* it is not missed once the gateway is known */
    if (got < 0) {
        text_printf(why, "control.enroll_secret_file: %s cannot be read: %s", path, strerror(error));
        return ERR_SYSTEM;
    }
    while (got && (bytes[got - 1] == '\n' || bytes[got - 1] == '\r'))
        got--;
    if (!got || got > MAX_SECRET_BYTES || memchr(bytes, '\n', (size_t)got) || memchr(bytes, 0, (size_t)got)) {
        text_printf(why, "control.enroll_secret_file: %s must hold one line, the secret", path);
        return ERR_BAD;
    }
    text_add(secret, bytes, (size_t)got);
    explicit_bzero(bytes, sizeof bytes);
    return ERR_OK;
}

enum err control_prepare(const struct settings *settings, struct text *secret, struct text *why)
{
    const struct control_settings *control = &settings->control;
    enum err err = make_folder(control->state, settings->user, why);

    if (err == ERR_OK && control->enroll_secret_file)
        err = read_secret(control->enroll_secret_file, secret, why);
    return err;
}

/* ---- how old what is known is ---- */

int64_t control_age_ms(const struct control *control, int64_t now_ms)
{
    if (!control->has_heard)
        return -1;
    return now_ms > control->heard_ms ? now_ms - control->heard_ms : 0;
}

static bool is_stale(const struct control *control, int64_t now_ms)
{
    int64_t age_ms = control_age_ms(control, now_ms);

    if (control->is_removed) /* somebody has said so, and when_stale is for what nobody said */
        return true;
    if (!control->held) /* nothing is known: nobody could be let in, and it is not the caller's fault */
        return true;
    return control->settings->when_stale == STALE_REFUSE &&
           (age_ms < 0 || age_ms > control->settings->max_staleness_ms);
}

bool control_look_at_age(struct control *control, int64_t now_ms)
{
    enum cause before = control->refuses;

    control->refuses = is_stale(control, now_ms) ? CAUSE_STALE : control->is_drained ? CAUSE_DRAINING : CAUSE_NONE;
    if (control->refuses == before)
        return false;
    if (control->refuses == CAUSE_STALE && control->held && !control->is_removed)
        log_error(
            "nothing was heard of the control plane for %lld s, which is more than control.max_staleness: callers "
            "get 503 until it is heard again",
            (long long)(control_age_ms(control, now_ms) / 1000));
    else if (before == CAUSE_STALE)
        log_info("what is known is fresh: callers are served");
    return true;
}

/* By the control plane, from which a link comes up again only when it is enrolled again. Until then what the folder
 * says holds over restarts, also without a link. */
static void be_removed(struct control *control)
{
    if (control->is_removed)
        return;
    control->is_removed = true;
    control_say_removed();
    disk_note_removed(control);
    if (control_look_at_age(control, clock_ms()))
        control_tell(control);
}

void control_say_removed(void)
{
    log_error("the control plane has removed this gateway: callers get 503 until it is enrolled again");
}

static void hear(struct control *control, int64_t now_ms)
{
    if (!control->is_up || !control->is_current)
        return;
    control->has_heard = true;
    control->heard_ms = link_client_heard_ms(control->link);
    if (control->is_removed) {
        control->is_removed = false;
        disk_note_removed(control);
    }
    if (control_look_at_age(control, now_ms))
        control_tell(control);
}

/* ---- workers ---- */

void control_know(const struct control *control, struct control_news *ret_news)
{
    *ret_news = (struct control_news){
        .snapshot = control->snapshot,
        .keys = control->ring,
        .cuts = control->cuts,
        .cut_count = control->cut_count,
        .turn = control->turn,
        .refuses = control->refuses,
    };
}

void control_tell(struct control *control)
{
    struct control_news news;

    control_know(control, &news);
    control->options.adopt(control->options.arg, &news);
}

void control_turned(struct control *control, uint64_t turn)
{
    if (turn < control->turn || control->turned == control->turn)
        return;
    control->turned = control->turn;
    control->switched = control->held;
    free(control->cuts);
    control->cuts = NULL;
    control->cut_count = 0;
    sync_go_on(control);
}

struct snapshot *control_reload(struct control *control, struct snapshot *file, struct text *why, struct text *warnings)
{
    struct snapshot *fresh = overlay(file, &control->others, control->held, why, warnings);

    if (!fresh)
        return NULL;
    (void)snapshot_unref(control->file);
    (void)snapshot_unref(control->snapshot);
    control->file = snapshot_ref(file);
    control->snapshot = snapshot_ref(fresh);
    sync_try_again(control);
    return fresh;
}

/* ---- the link ---- */

static void on_up(void *arg, const struct qw_welcome *welcome)
{
    struct control *control = arg;

    (void)welcome;
    clock_turn();
    control->is_up = true;
    control->has_said_down = false;
    control->down_reason = 0;
    log_info("the control plane is there; version %llu is what is known", (unsigned long long)control->held);
    sync_up(control);
}

/* Said when it is lost, and when there is another reason why it cannot be had. */
static void on_down(void *arg, enum qw_reason reason, const char *why)
{
    struct control *control = arg;
    bool was_up = control->is_up;

    clock_turn();
    control->is_up = false;
    sync_down(control);
    if (reason == QW_REMOVED)
        be_removed(control);
    if (reason == QW_IDENTITY && control->secret && !was_up && !control->has_said_down)
        return;              /* it is not known there yet: the secret's turn */
    if (control->is_removed) /* which is said once */
        log_debug("the control plane cannot be had: %s", why ? why : "");
    else if (was_up || !control->has_said_down || reason != control->down_reason)
        log_warn("the control plane %s%s%s%s%s: serving goes on by version %llu", was_up ? "is lost" : "cannot be had",
                 why && *why ? ": " : "", why ? why : "", reason ? ", " : "", reason ? reason_name(reason) : "",
                 (unsigned long long)control->held);
    control->has_said_down = true;
    control->down_reason = reason;
}

static void on_link(evutil_socket_t fd, short what, void *arg)
{
    struct control *control = arg;

    (void)fd;
    (void)what;
    clock_turn();
    link_client_take(control->link);
    hear(control, clock_ms());
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
    struct control *control = arg;
    int64_t now_ms;
    bool has_changed;

    (void)fd;
    (void)what;
    clock_turn();
    now_ms = clock_ms();
    has_changed = control_look_at_age(control, now_ms);
    if (has_changed || (control->turned != control->turn && now_ms > control->adopted_ms + AGAIN_MS))
        control_tell(control);
    disk_tick(control, now_ms);
    traffic_tick(control, now_ms);
    sync_go_on(control);
    (void)locksmith_tidy(control->smith);
}

static struct qw_version version_of(const char *text)
{
    struct qw_version version = { 0 };

    (void)sscanf(text, "%u.%u.%u", &version.major, &version.minor, &version.patch);
    return version;
}

/* Whole seconds, up: what the control plane counts on must not be less than what we do. */
static uint32_t staleness_s(const struct control_settings *settings)
{
    return settings->when_stale == STALE_SERVE ? 0 : (uint32_t)((settings->max_staleness_ms + 999) / 1000);
}

enum err control_start(struct control *control, struct text *why)
{
    static const struct link_client_events events = { on_up, on_down };
    static const struct timeval second = { .tv_sec = 1 };
    const struct control_settings *settings = control->settings;
    const struct link_client_options options = {
        .urls = settings->urls,
        .url_count = (unsigned)settings->url_count,
        .name = settings->name,
        .version = version_of(control->options.version),
        .address = settings->address,
        .max_staleness_s = staleness_s(settings),
        .identity = control->identity,
        .enrol_secret = control->secret,
        .tls_ca_file = settings->tls_ca_file,
        .tls_own_file = settings->tls_own_file,
        .tls_server_name = settings->tls_server_name,
    };

    control->link = link_client_open(&options, &events, control, why);
    if (!control->link)
        return ERR_SYSTEM;
    control->link_event =
        event_new(control->options.base, link_client_fd(control->link), EV_READ | EV_PERSIST, on_link, control);
    control->second = event_new(control->options.base, -1, EV_PERSIST, on_second, control);
    if (control->link_event && control->second && event_add(control->link_event, NULL) == 0 &&
        event_add(control->second, &second) == 0)
        return ERR_OK;
    text_add_literal(why, "cannot follow the control plane: out of memory");
    return ERR_NO_MEMORY;
}

/* ---- opening, closing ---- */

static bool keep_secret(struct control *control, struct slice secret)
{
    if (!secret.len)
        return true;
    control->secret = calloc(1, secret.len + 1);
    if (control->secret)
        memcpy(control->secret, secret.at, secret.len);
    return control->secret;
}

static enum err open_parts(struct control *control, struct text *why)
{
    enum err err;

    control->smith = locksmith_new();
    if (!control->smith || !keep_secret(control, control->options.secret)) {
        text_add_literal(why, "out of memory");
        return ERR_NO_MEMORY;
    }
    err = disk_open(control, why);
    if (err != ERR_OK)
        return err;
    if (!control->snapshot) {
        control->snapshot = overlay(control->file, &control->others, control->held, why, NULL);
        if (!control->snapshot)
            return ERR_NO_MEMORY;
    }
    (void)keyring_unref(control->ring); /* of a journal */
    control->ring = locksmith_ring(control->smith);
    control->switched = control->durable = control->held;
    (void)control_look_at_age(control, clock_ms());
    return ERR_OK;
}

struct control *control_open(const struct control_options *options, struct text *why)
{
    struct control *control = calloc(1, sizeof *control);

    if (!control) {
        text_add_literal(why, "out of memory");
        return NULL;
    }
    control->options = *options;
    control->folder = -1;
    control->first = snapshot_ref(options->file);
    control->file = snapshot_ref(options->file);
    control->settings = &control->first->settings.control;
    text_init(&control->trouble, MAX_SENTENCE);
    text_init(&control->disk_trouble, MAX_SENTENCE);
    return open_parts(control, why) == ERR_OK ? control : control_close(control);
}

static void event_end(struct event *event)
{
    if (event)
        event_free(event);
}

struct control *control_close(struct control *control)
{
    if (!control)
        return NULL;
    event_end(control->link_event);
    event_end(control->second);
    control->link = link_client_close(control->link);
    disk_close(control);
    traffic_release(control);
    fetch_end(control);
    others_release(&control->others);
    (void)keyring_unref(control->ring);
    locksmith_free(control->smith);
    control->identity = identity_free(control->identity);
    (void)snapshot_unref(control->snapshot);
    (void)snapshot_unref(control->file);
    (void)snapshot_unref(control->first);
    if (control->secret)
        explicit_bzero(control->secret, strlen(control->secret));
    free(control->secret);
    free(control->cuts);
    text_release(&control->trouble);
    text_release(&control->disk_trouble);
    free(control);
    return NULL;
}

/* ---- for people ---- */

void control_gauges(const struct control *control, struct control_gauges *ret_gauges)
{
    const struct text *trouble = control->trouble.len ? &control->trouble : &control->disk_trouble;
    struct slice removed = SLICE("the control plane has removed this gateway");

    *ret_gauges = (struct control_gauges){
        .is_up = control->is_up,
        .is_stale = control->refuses == CAUSE_STALE,
        .heard_ms = control_age_ms(control, clock_ms()),
        .held = control->held,
        .applied = sync_applied(control),
        .apply_errors = control->apply_errors,
        .loads_lost = control->loads_lost,
        .keys = keyring_count(control->ring),
        .journal_bytes = control->journal_bytes,
        .trouble = control->is_removed ? removed : (struct slice){ trouble->len ? trouble->at : "", trouble->len },
    };
}
