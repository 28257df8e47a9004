#include "tally.h"

#include <pthread.h>
#include <stdio.h>

#include "check.h"

enum { THREADS = 3, EACH = 20000 };

static void add(struct tally *tally, const char *model, const char *user, uint64_t tokens)
{
    tally_add(tally, &(struct tally_request){ .model = slice_of(model),
                                              .user = slice_of(user),
                                              .was_refused = tokens == 0,
                                              .total_us = 1500,
                                              .first_token_us = tokens ? 700 : -1,
                                              .prompt_tokens = tokens,
                                              .completion_tokens = 2 * tokens });
}

static const struct tally_counts *user_in(const struct tally_book *book, const char *name)
{
    for (unsigned i = 0; i < TALLY_BUCKETS; i++)
        for (const struct tally_user *user = book->users[i]; user; user = user->next)
            if (slice_is((struct slice){ user->name, user->name_bytes }, slice_of(name)))
                return &user->counts;
    return NULL;
}

TEST(what_is_added_is_taken_once)
{
    static struct tally_book book;
    struct tally *tally = tally_new();
    const struct tally_counts *ann;

    add(tally, "m", "ann", 3);
    add(tally, "m", "ann", 4);
    add(tally, "", "", 0);
    tally_take(tally, &book);
    tally_take(tally, &book);
    ann = user_in(&book, "ann");
    CHECK(ann && ann->requests == 2 && ann->prompt_tokens == 7 && ann->completion_tokens == 14 && !ann->refused);
    CHECK_EQ(book.nobody.requests, 1);
    CHECK_EQ(book.nobody.refused, 1);
    CHECK_EQ(book.model_count, 1);
    CHECK_EQ(book.models[0]->counts.requests, 2);
    CHECK_EQ(book.models[0]->duration.sum_us, 3000);
    CHECK_EQ(book.models[0]->duration.steps[histogram_step(1500)], 2);
    CHECK_EQ(book.models[0]->first_token.steps[histogram_step(700)], 2);
    tally_book_release(&book);
    CHECK(tally_book_is_empty(&book));
    tally_free(tally);
}

static uint64_t requests_of(const struct tally_book *book, uint64_t *ret_by_model)
{
    uint64_t sum = book->nobody.requests + book->other_user.requests;

    for (unsigned i = 0; i < TALLY_BUCKETS; i++)
        for (const struct tally_user *user = book->users[i]; user; user = user->next)
            sum += user->counts.requests;
    *ret_by_model = book->other_model.counts.requests;
    for (unsigned i = 0; i < book->model_count; i++)
        *ret_by_model += book->models[i]->counts.requests;
    return sum;
}

TEST(beyond_what_is_told_apart_sums_stay_right)
{
    static struct tally_book book, part;
    struct tally *tally = tally_new();
    uint64_t by_model, by_user = 0, models = 0, moved_models;
    unsigned messages = 0;
    char name[32];

    for (unsigned i = 0; i < TALLY_MAX_USERS + 500; i++) {
        (void)snprintf(name, sizeof name, "name-%u", i);
        add(tally, name, name, 1);
    }
    tally_take(tally, &book);
    CHECK_EQ(requests_of(&book, &by_model), TALLY_MAX_USERS + 500);
    CHECK_EQ(by_model, TALLY_MAX_USERS + 500);
    CHECK_EQ(book.other_user.requests, 500);
    while (!tally_book_is_empty(&book)) {
        tally_book_move(&book, &part, 100 << 10);
        CHECK(!tally_book_is_empty(&part));
        by_user += requests_of(&part, &moved_models);
        models += moved_models;
        messages++;
    }
    CHECK(messages > 3);
    CHECK_EQ(by_user, TALLY_MAX_USERS + 500);
    CHECK_EQ(models, TALLY_MAX_USERS + 500);
    tally_book_release(&book);
    tally_book_release(&part);
    tally_free(tally);
}

static void *add_many(void *arg)
{
    for (unsigned i = 0; i < EACH; i++)
        add(arg, i % 2 ? "a" : "b", i % 3 ? "ann" : "bob", 1);
    return NULL;
}

TEST(nothing_is_lost_between_the_threads)
{
    static struct tally_book book;
    struct tally *tallies[THREADS];
    pthread_t threads[THREADS];
    uint64_t by_model;

    for (unsigned i = 0; i < THREADS; i++) {
        tallies[i] = tally_new();
        CHECK(pthread_create(&threads[i], NULL, add_many, tallies[i]) == 0);
    }
    for (unsigned i = 0; i < 1000; i++)
        tally_take(tallies[i % THREADS], &book);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        tally_take(tallies[i], &book);
        tally_free(tallies[i]);
    }
    CHECK_EQ(requests_of(&book, &by_model), THREADS * EACH);
    CHECK_EQ(by_model, THREADS * EACH);
    tally_book_release(&book);
}
