#include "tally.h"

#include <pthread.h>
#include <stdlib.h>

enum { COUNTS_BYTES = 64, STEP_BYTES = 8 }; /* of a message, at most, for a name's counts and a histogram's step */

struct tally {
    pthread_mutex_t lock;
    struct tally_book *now;   /* under the lock */
    struct tally_book *taken; /* the control thread's; empty */
};

/* ---- a book ---- */

static struct slice cut(struct slice name)
{
    return (struct slice){ name.at, utf8_cut(name, CODEC_MAX_NAME) };
}

static unsigned bucket_of(struct slice name)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < name.len; i++)
        hash = (hash ^ (unsigned char)name.at[i]) * 16777619u;
    return (hash ^ hash >> 16) % TALLY_BUCKETS;
}

static void counts_add(struct tally_counts *counts, const struct tally_counts *more)
{
    counts->requests += more->requests;
    counts->refused += more->refused;
    counts->prompt_tokens += more->prompt_tokens;
    counts->completion_tokens += more->completion_tokens;
}

static void histogram_add(struct tally_histogram *histogram, int64_t us)
{
    if (us < 0)
        us = 0;
    histogram->steps[histogram_step((uint64_t)us)]++;
    histogram->sum_us += (uint64_t)us;
}

static void histogram_merge(struct tally_histogram *histogram, const struct tally_histogram *more)
{
    histogram->sum_us += more->sum_us;
    for (unsigned i = 0; i < CODEC_STEPS; i++)
        histogram->steps[i] += more->steps[i];
}

static struct tally_model *model_of(struct tally_book *book, struct slice name)
{
    struct tally_model *model;

    name = cut(name);
    for (unsigned i = 0; i < book->model_count; i++) {
        model = book->models[i];
        if (slice_is(name, (struct slice){ model->name, model->name_bytes }))
            return model;
    }
    if (book->model_count == TALLY_MAX_MODELS)
        return &book->other_model;
    if (book->model_count == book->model_room) {
        if (!(model = calloc(1, sizeof *model)))
            return &book->other_model;
        book->models[book->model_room++] = model;
    }
    model = book->models[book->model_count++];
    *model = (struct tally_model){ .name_bytes = (uint8_t)name.len };
    memcpy(model->name, name.at, name.len);
    return model;
}

static struct tally_counts *user_of(struct tally_book *book, struct slice name)
{
    struct tally_user **bucket, *user;

    if (!name.len)
        return &book->nobody;
    name = cut(name);
    bucket = &book->users[bucket_of(name)];
    for (user = *bucket; user; user = user->next)
        if (slice_is(name, (struct slice){ user->name, user->name_bytes }))
            return &user->counts;
    if (book->user_count == TALLY_MAX_USERS || !(user = calloc(1, sizeof *user + name.len)))
        return &book->other_user;
    user->name_bytes = (uint8_t)name.len;
    memcpy(user->name, name.at, name.len);
    user->next = *bucket;
    *bucket = user;
    book->user_count++;
    return &user->counts;
}

static void book_add(struct tally_book *book, const struct tally_request *request)
{
    const struct tally_counts counts = { .requests = 1,
                                         .refused = request->was_refused,
                                         .prompt_tokens = request->prompt_tokens,
                                         .completion_tokens = request->completion_tokens };
    struct tally_model *model;

    counts_add(user_of(book, request->user), &counts);
    if (!request->model.len)
        return;
    model = model_of(book, request->model);
    counts_add(&model->counts, &counts);
    histogram_add(&model->duration, request->total_us);
    if (request->first_token_us >= 0)
        histogram_add(&model->first_token, request->first_token_us);
}

static void model_merge(struct tally_model *model, const struct tally_model *more)
{
    counts_add(&model->counts, &more->counts);
    histogram_merge(&model->duration, &more->duration);
    histogram_merge(&model->first_token, &more->first_token);
}

static void users_clear(struct tally_book *book)
{
    for (unsigned i = 0; i < TALLY_BUCKETS; i++) {
        while (book->users[i]) {
            struct tally_user *user = book->users[i];
            book->users[i] = user->next;
            free(user);
        }
    }
    book->user_count = 0;
}

static void book_clear(struct tally_book *book)
{
    users_clear(book);
    book->model_count = 0;
    book->other_model = (struct tally_model){ 0 };
    book->nobody = book->other_user = (struct tally_counts){ 0 };
}

void tally_book_release(struct tally_book *book)
{
    users_clear(book);
    for (unsigned i = 0; i < book->model_room; i++)
        free(book->models[i]);
    *book = (struct tally_book){ 0 };
}

bool tally_book_is_empty(const struct tally_book *book)
{
    return !book->user_count && !book->model_count && !book->nobody.requests && !book->other_user.requests;
}

static void book_merge(struct tally_book *book, const struct tally_book *more)
{
    for (unsigned i = 0; i < more->model_count; i++)
        model_merge(model_of(book, (struct slice){ more->models[i]->name, more->models[i]->name_bytes }),
                    more->models[i]);
    model_merge(&book->other_model, &more->other_model);
    for (unsigned i = 0; i < TALLY_BUCKETS; i++)
        for (const struct tally_user *user = more->users[i]; user; user = user->next)
            counts_add(user_of(book, (struct slice){ user->name, user->name_bytes }), &user->counts);
    counts_add(&book->nobody, &more->nobody);
    counts_add(&book->other_user, &more->other_user);
}

/* ---- moving what fits into a message ---- */

static size_t histogram_bytes(const struct tally_histogram *histogram)
{
    size_t bytes = COUNTS_BYTES;

    for (unsigned i = 0; i < CODEC_STEPS; i++)
        bytes += histogram->steps[i] ? STEP_BYTES : 0;
    return bytes;
}

static void models_move(struct tally_book *from, struct tally_book *into, size_t *left)
{
    while (from->model_count) {
        struct tally_model *last = from->models[from->model_count - 1];
        size_t bytes =
            COUNTS_BYTES + last->name_bytes + histogram_bytes(&last->duration) + histogram_bytes(&last->first_token);
        if (bytes > *left)
            return;
        *left -= bytes;
        model_merge(model_of(into, (struct slice){ last->name, last->name_bytes }), last);
        from->model_count--;
    }
}

static void users_move(struct tally_book *from, struct tally_book *into, size_t *left)
{
    for (unsigned i = 0; i < TALLY_BUCKETS; i++) {
        while (from->users[i]) {
            struct tally_user *user = from->users[i];
            size_t bytes = COUNTS_BYTES + user->name_bytes;
            if (bytes > *left)
                return;
            *left -= bytes;
            from->users[i] = user->next;
            from->user_count--;
            user->next = into->users[i];
            into->users[i] = user;
            into->user_count++;
        }
    }
}

void tally_book_move(struct tally_book *from, struct tally_book *into, size_t max_bytes)
{
    size_t others = 4 * COUNTS_BYTES + histogram_bytes(&from->other_model.duration) +
                    histogram_bytes(&from->other_model.first_token);
    size_t left = max_bytes > others ? max_bytes - others : 0;

    book_clear(into);
    into->other_model = from->other_model;
    into->nobody = from->nobody;
    into->other_user = from->other_user;
    from->other_model = (struct tally_model){ 0 };
    from->nobody = from->other_user = (struct tally_counts){ 0 };
    models_move(from, into, &left);
    users_move(from, into, &left);
}

/* ---- a worker's ---- */

struct tally *tally_new(void)
{
    struct tally *tally = calloc(1, sizeof *tally);

    if (!tally)
        return NULL;
    (void)pthread_mutex_init(&tally->lock, NULL);
    tally->now = calloc(1, sizeof *tally->now);
    tally->taken = calloc(1, sizeof *tally->taken);
    if (tally->now && tally->taken)
        return tally;
    tally_free(tally);
    return NULL;
}

void tally_free(struct tally *tally)
{
    if (!tally)
        return;
    if (tally->now)
        tally_book_release(tally->now);
    if (tally->taken)
        tally_book_release(tally->taken);
    free(tally->now);
    free(tally->taken);
    (void)pthread_mutex_destroy(&tally->lock);
    free(tally);
}

void tally_add(struct tally *tally, const struct tally_request *request)
{
    (void)pthread_mutex_lock(&tally->lock);
    book_add(tally->now, request);
    (void)pthread_mutex_unlock(&tally->lock);
}

void tally_take(struct tally *tally, struct tally_book *book)
{
    struct tally_book *taken = tally->taken;

    (void)pthread_mutex_lock(&tally->lock);
    tally->taken = tally->now;
    tally->now = taken;
    (void)pthread_mutex_unlock(&tally->lock);
    book_merge(book, tally->taken);
    book_clear(tally->taken);
}
