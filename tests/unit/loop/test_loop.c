#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "loop.h"

/* One end of a pair, and what its watch was told. */
struct ear {
    struct watch watch;
    struct loop *loop;
    int fd, far;
    unsigned told, what;
    struct ear *other; /* whom it leaves for when it is told */
};

static void leave(struct ear *ear)
{
    loop_leave(ear->loop, ear->fd, &ear->watch);
    (void)close(ear->fd);
    ear->fd = -1;
}

static void on_event(struct watch *watch, unsigned what)
{
    struct ear *ear = (void *)((char *)watch - offsetof(struct ear, watch));

    ear->told++;
    ear->what = what;
    if (ear->other && ear->other->fd >= 0)
        leave(ear->other);
}

static void listen_with(struct ear *ear, struct loop *loop, enum loop_manner manner)
{
    int ends[2];

    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    *ear = (struct ear){ .watch.on_event = on_event, .loop = loop, .fd = ends[0], .far = ends[1] };
    CHECK(loop_watch(loop, ear->fd, &ear->watch, manner));
}

static void hush(struct ear *ear)
{
    if (ear->fd >= 0)
        leave(ear);
    if (ear->far >= 0)
        (void)close(ear->far);
}

TEST(an_edge_is_told_once_and_what_is_readable_again_and_again)
{
    struct loop loop;
    struct ear edges, level;

    CHECK(loop_open(&loop));
    listen_with(&edges, &loop, LOOP_AT_EDGES);
    listen_with(&level, &loop, LOOP_WHILE_READABLE);
    loop_turn(&loop, 0);
    CHECK_EQ(edges.told, 1u); /* it can be written to */
    CHECK_EQ(edges.what, (unsigned)LOOP_WRITABLE);
    CHECK_EQ(level.told, 0u);
    CHECK_EQ(write(edges.far, "x", 1) + write(level.far, "x", 1), 2);
    for (int turn = 0; turn < 3; turn++)
        loop_turn(&loop, 0);
    CHECK_EQ(edges.told, 2u);
    CHECK_EQ(edges.what, (unsigned)(LOOP_READABLE | LOOP_WRITABLE));
    CHECK_EQ(level.told, 3u);
    CHECK_EQ(level.what, (unsigned)LOOP_READABLE);
    hush(&edges);
    hush(&level);
    loop_close(&loop);
}

TEST(an_end_of_the_other_side_is_told_together_with_the_bytes_before_it)
{
    struct loop loop;
    struct ear half, whole;

    CHECK(loop_open(&loop));
    listen_with(&half, &loop, LOOP_AT_EDGES);
    listen_with(&whole, &loop, LOOP_AT_EDGES);
    CHECK_EQ(write(half.far, "x", 1), 1);
    CHECK_EQ(shutdown(half.far, SHUT_WR), 0);
    (void)close(whole.far);
    whole.far = -1;
    loop_turn(&loop, 0);
    CHECK_EQ(half.what, (unsigned)(LOOP_READABLE | LOOP_WRITABLE | LOOP_CLOSED));
    CHECK_EQ(whole.what, (unsigned)(LOOP_READABLE | LOOP_WRITABLE | LOOP_CLOSED));
    CHECK_EQ(half.told + whole.told, 2u);
    hush(&half);
    hush(&whole);
    loop_close(&loop);
}

TEST(who_left_is_told_nothing_not_even_what_has_come_in_the_same_turn)
{
    struct loop loop;
    struct ear ears[2];

    CHECK(loop_open(&loop));
    for (int i = 0; i < 2; i++) {
        listen_with(&ears[i], &loop, LOOP_WHILE_READABLE);
        CHECK_EQ(write(ears[i].far, "x", 1), 1);
    }
    ears[0].other = &ears[1]; /* whoever is told first */
    ears[1].other = &ears[0];
    loop_turn(&loop, 0);
    CHECK_EQ(ears[0].told + ears[1].told, 1u);
    for (int i = 0; i < 2; i++)
        hush(&ears[i]);
    loop_close(&loop);
}

TEST(news_of_more_than_a_turn_holds_reach_everybody)
{
    enum { EARS = LOOP_BATCH + 40 };
    static struct ear ears[EARS];
    struct loop loop, outer;
    struct ear inner = { .watch.on_event = on_event };
    unsigned told = 0;

    CHECK(loop_open(&loop) && loop_open(&outer));
    CHECK(loop_watch(&outer, loop.fd, &inner.watch, LOOP_WHILE_READABLE));
    for (int i = 0; i < EARS; i++)
        listen_with(&ears[i], &loop, LOOP_AT_EDGES);
    loop_turn(&loop, 0);
    loop_turn(&outer, 0);
    CHECK_EQ(inner.told, 1u); /* its descriptor says that there is more */
    loop_turn(&loop, 0);
    loop_turn(&outer, 0);
    CHECK_EQ(inner.told, 1u); /* and that there is none any more */
    for (int i = 0; i < EARS; i++) {
        told += ears[i].told;
        hush(&ears[i]);
    }
    CHECK_EQ(told, (unsigned)EARS);
    loop_close(&loop);
    loop_close(&outer);
}

TEST(a_descriptor_that_cannot_be_watched_is_refused)
{
    struct loop loop;
    struct ear ear = { .watch.on_event = on_event };

    CHECK(loop_open(&loop));
    CHECK(!loop_watch(&loop, -1, &ear.watch, LOOP_AT_EDGES));
    loop_turn(&loop, 0);
    CHECK_EQ(ear.told, 0u);
    loop_close(&loop);
    loop_close(&loop); /* twice does no harm */
    CHECK_EQ(loop.fd, -1);
}
