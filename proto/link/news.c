#include "news.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

static bool watch(int epoll, int fd)
{
    struct epoll_event event = { .events = EPOLLIN };

    return fd >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool news_open(struct news_box *box)
{
    *box = (struct news_box){ .deadline_ms = INT64_MAX };
    box->last = &box->first;
    box->fd = epoll_create1(EPOLL_CLOEXEC);
    box->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    box->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    (void)pthread_mutex_init(&box->lock, NULL);
    if (box->fd >= 0 && watch(box->fd, box->bell) && watch(box->fd, box->timer))
        return true;
    news_close(box);
    return false;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}

void news_close(struct news_box *box)
{
    close_if_open(box->bell);
    close_if_open(box->timer);
    close_if_open(box->fd);
    (void)pthread_mutex_destroy(&box->lock);
}

void news_ring(struct news_box *box)
{
    uint64_t one = 1;

    (void)!write(box->bell, &one, sizeof one); /* it fails only where it rings already */
}

void news_put_locked(struct news_box *box, struct news *news)
{
    if (news->is_queued)
        return;
    if (!box->first)
        news_ring(box);
    news->is_queued = true;
    news->next = NULL;
    *box->last = news;
    box->last = &news->next;
}

void news_put(struct news_box *box, struct news *news)
{
    (void)pthread_mutex_lock(&box->lock);
    news_put_locked(box, news);
    (void)pthread_mutex_unlock(&box->lock);
}

void news_hear(struct news_box *box)
{
    uint64_t rings;

    (void)!read(box->bell, &rings, sizeof rings);
}

struct news *news_next(struct news_box *box)
{
    struct news *news;

    (void)pthread_mutex_lock(&box->lock);
    news = box->first;
    if (news) {
        box->first = news->next;
        if (!box->first)
            box->last = &box->first;
        news->is_queued = false;
    }
    (void)pthread_mutex_unlock(&box->lock);
    return news;
}

void news_set_deadline(struct news_box *box, int64_t at_ms)
{
    struct itimerspec when = { 0 };
    int64_t ms = at_ms < 1 ? 1 : at_ms; /* 0 would stop it */

    if (at_ms == box->deadline_ms)
        return;
    box->deadline_ms = at_ms;
    if (at_ms != INT64_MAX)
        when.it_value = (struct timespec){ ms / 1000, ms % 1000 * 1000000 };
    (void)timerfd_settime(box->timer, TFD_TIMER_ABSTIME, &when, NULL); /* also silences one that has rung */
}
