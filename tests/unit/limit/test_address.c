#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "limit.h"

static struct address address_number(unsigned number)
{
    return (struct address){ .bytes = { [10] = 0xff,
                                        [11] = 0xff,
                                        [12] = 10,
                                        [13] = (uint8_t)(number >> 16),
                                        [14] = (uint8_t)(number >> 8),
                                        [15] = (uint8_t)number } };
}

TEST(an_address_may_have_so_many_open_and_no_more)
{
    struct limits *limits = limits_new();
    struct address one = address_number(1), two = address_number(2);

    for (unsigned i = 0; i < 3; i++)
        CHECK(address_enter(limits, &one, 3));
    CHECK(!address_enter(limits, &one, 3));
    CHECK(address_enter(limits, &two, 3));
    CHECK(address_enter(limits, &one, 4)); /* a reload allowed more */
    CHECK(address_enter(limits, &one, 0)); /* 0 is no limit, but counts */
    CHECK(!address_enter(limits, &one, 5));
    for (unsigned i = 0; i < 5; i++)
        address_leave(limits, &one);
    CHECK(address_enter(limits, &one, 1));
    address_leave(limits, &one);
    address_leave(limits, &two);
    limits_free(limits);
}

TEST(sixty_four_thousand_addresses_come_and_go)
{
    struct limits *limits = limits_new();
    enum { ADDRESSES = 65536 };

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < ADDRESSES; i++) {
            struct address address = address_number(i);
            CHECK(address_enter(limits, &address, 1));
        }
        for (unsigned i = 0; i < ADDRESSES; i++) {
            struct address address = address_number(i);
            CHECK(!address_enter(limits, &address, 1));
        }
        CHECK_EQ(addresses_live(limits), ADDRESSES);
        for (unsigned i = 0; i < ADDRESSES; i++) {
            struct address address = address_number(i);
            address_leave(limits, &address);
        }
        CHECK_EQ(addresses_live(limits), 0);
    }
    limits_free(limits);
}

TEST(a_refused_address_is_logged_once_a_second)
{
    struct limits *limits = limits_new();
    struct address one = address_number(1), two = address_number(2);

    CHECK(address_may_log(limits, &one, 0));
    CHECK(!address_may_log(limits, &one, 0));
    CHECK(!address_may_log(limits, &one, 999));
    CHECK(address_may_log(limits, &two, 999));
    CHECK(address_may_log(limits, &one, 1000));
    CHECK(!address_may_log(limits, &one, 1999));
    CHECK(address_may_log(limits, &one, 2000));
    limits_free(limits);
}

TEST(a_flood_of_addresses_never_makes_one_of_them_log_twice)
{
    struct limits *limits = limits_new();
    enum { ADDRESSES = 20000 };
    static unsigned char said[ADDRESSES];
    unsigned lines = 0;

    memset(said, 0, sizeof said);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < ADDRESSES; i++) {
            struct address address = address_number(i);
            if (address_may_log(limits, &address, 5000 + round)) {
                CHECK(!said[i]);
                said[i] = 1;
                lines++;
            }
        }
    }
    CHECK(lines >= 1000 && lines <= 4096);
    limits_free(limits);
}

TEST(connections_in_all_have_a_ceiling)
{
    struct limits *limits = limits_new();

    CHECK(connection_enter(limits, 2));
    CHECK(connection_enter(limits, 2));
    CHECK(!connection_enter(limits, 2));
    CHECK_EQ(connections_open(limits), 2);
    connection_leave(limits);
    CHECK(connection_enter(limits, 2));
    CHECK(connection_enter(limits, 0));
    CHECK_EQ(connections_open(limits), 3);
    limits_free(limits);
}

TEST(bodies_stay_under_the_ceiling_and_a_quarter_of_it_a_key)
{
    struct limits *limits = limits_new();
    struct digest one = { .bytes = { 1 } }, two = { .bytes = { 2 } };
    struct holder *first = limits_holder(limits, &one), *second = limits_holder(limits, &two);

    CHECK(body_reserve(limits, first, 20, 100));
    CHECK(body_reserve(limits, first, 5, 100));
    CHECK(!body_reserve(limits, first, 1, 100));
    CHECK_EQ(body_bytes(limits), 25);
    CHECK(!body_reserve(limits, second, 76, 100)); /* more than is left in all */
    CHECK(body_reserve(limits, second, 75, 100));  /* one body larger than the quarter, since there is no other */
    CHECK(!body_reserve(limits, second, 1, 100));
    CHECK(!body_reserve(limits, NULL, 1, 100));
    body_release(limits, first, 25);
    CHECK(body_reserve(limits, NULL, 25, 100));
    body_release(limits, NULL, 25);
    body_release(limits, second, 75);
    CHECK_EQ(body_bytes(limits), 0);
    CHECK(!body_reserve(limits, first, 101, 100));
    CHECK(body_reserve(limits, first, UINT64_MAX / 8, 0));
    CHECK_EQ(body_bytes(limits), UINT64_MAX / 8);
    limits_free(limits);
}

enum { THREADS = 4, ROUNDS = 20000, CEILING = 3 };

static struct {
    struct limits *limits;
    _Atomic int inside, worst;
} race;

static void seen(int inside)
{
    int worst = atomic_load(&race.worst);

    while (inside > worst && !atomic_compare_exchange_weak(&race.worst, &worst, inside))
        ;
}

static void *race_run(void *thread)
{
    struct address address = address_number(1);

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct address own = address_number(i + 2);
        if (connection_enter(race.limits, CEILING + 100)) {
            (void)address_enter(race.limits, &own, 0);
            if (address_enter(race.limits, &address, CEILING)) {
                seen(atomic_fetch_add(&race.inside, 1) + 1);
                atomic_fetch_sub(&race.inside, 1);
                address_leave(race.limits, &address);
            }
            address_leave(race.limits, &own);
            connection_leave(race.limits);
        }
        if (body_reserve(race.limits, NULL, 40, 100))
            body_release(race.limits, NULL, 40);
        (void)address_may_log(race.limits, &own, i);
    }
    return thread;
}

TEST(four_threads_keep_the_counts)
{
    pthread_t threads[THREADS];

    race.limits = limits_new();
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, race_run, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    CHECK(atomic_load(&race.worst) >= 1 && atomic_load(&race.worst) <= CEILING);
    CHECK_EQ(connections_open(race.limits), 0);
    CHECK_EQ(body_bytes(race.limits), 0);
    limits_free(race.limits);
}
