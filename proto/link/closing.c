#include "closing.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "clock.h"

enum { STUCK_MS = 3000 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t is_more, is_done;
    struct closing *first, *last; /* not begun yet */
    bool has_thread, is_closing;
    int64_t since_ms; /* since when it is closing the one that it closes */
} line = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void *close_each(void *arg)
{
    (void)pthread_mutex_lock(&line.lock);
    for (;;) {
        struct closing *closing = line.first;

        line.is_closing = closing != NULL;
        if (!closing) {
            (void)pthread_cond_broadcast(&line.is_done);
            (void)pthread_cond_wait(&line.is_more, &line.lock);
            continue;
        }
        line.first = closing->next;
        line.since_ms = clock_ms();
        (void)pthread_mutex_unlock(&line.lock);
        closing->close(closing);
        (void)pthread_mutex_lock(&line.lock);
    }
    return arg;
}

/* Signals are for the threads that wait for them. */
static bool start(void)
{
    pthread_condattr_t monotonic;
    pthread_t thread;
    sigset_t all, before;
    int error;

    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&line.is_more, NULL);
    (void)pthread_cond_init(&line.is_done, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, close_each, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        (void)pthread_detach(thread);
    return !error;
}

void closing_begin(struct closing *closing)
{
    bool is_alone;

    closing->next = NULL;
    (void)pthread_mutex_lock(&line.lock);
    line.has_thread = line.has_thread || start();
    is_alone = !line.has_thread;
    if (!is_alone) {
        if (line.first)
            line.last->next = closing;
        else
            line.first = closing;
        line.last = closing;
        line.since_ms = line.is_closing ? line.since_ms : clock_ms();
        (void)pthread_cond_signal(&line.is_more);
    }
    (void)pthread_mutex_unlock(&line.lock);
    if (is_alone) /* there is no thread to be had: better here than never */
        closing->close(closing);
}

bool closing_wait(int64_t patience_ms)
{
    int64_t until_ms = clock_ms() + patience_ms;
    struct timespec until = { until_ms / 1000, until_ms % 1000 * 1000000 };
    bool is_done;

    (void)pthread_mutex_lock(&line.lock);
    while (line.has_thread && (line.first || line.is_closing))
        if (pthread_cond_timedwait(&line.is_done, &line.lock, &until) != 0)
            break;
    is_done = !line.first && !line.is_closing;
    (void)pthread_mutex_unlock(&line.lock);
    return is_done;
}

bool closing_is_stuck(void)
{
    bool is_stuck;

    (void)pthread_mutex_lock(&line.lock);
    is_stuck = line.is_closing && clock_ms() - line.since_ms > STUCK_MS;
    (void)pthread_mutex_unlock(&line.lock);
    return is_stuck;
}
