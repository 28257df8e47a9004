/* Four workers with homes of their own at one queue, and a control thread that looks. The thread sanitizer judges too.
 */
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "stage.h"

enum { WORKERS = 4, SLOTS = 3, SITES = 2, MOST_OPEN = 16, STUCK_MS = 30000 };
#ifdef QG_SANITIZED
enum { REQUESTS = 10000 };
#else
enum { REQUESTS = 100000 };
#endif

static atomic_uint running[SITES], wrong, stuck, granted_in_all;
static atomic_bool is_over;

struct request {
    struct ticket *ticket;
    struct worker *worker;
    unsigned steps; /* until it ends */
    unsigned site;
    bool is_running;
};

struct worker {
    pthread_t thread;
    struct stage *stage;
    struct queue_home home;
    int bell;
    uint64_t chance;
    unsigned begun, letters, waits, again, tired, refused;
    struct request open[MOST_OPEN];
};

static void on_ring(void *arg)
{
    static const uint64_t one = 1;
    struct worker *worker = arg;

    if (write(worker->bell, &one, sizeof one) != sizeof one)
        atomic_fetch_add(&wrong, 1);
}

static unsigned draw(struct worker *worker, unsigned below)
{
    worker->chance ^= worker->chance << 13;
    worker->chance ^= worker->chance >> 7;
    worker->chance ^= worker->chance << 17;
    return (unsigned)(worker->chance >> 33) % below;
}

static void begin(struct request *request)
{
    struct stage *stage = request->worker->stage;

    request->site = ticket_backend(request->ticket) == stage->backends[1];
    request->is_running = true;
    request->steps = draw(request->worker, 5);
    if (atomic_fetch_add(&running[request->site], 1) >= SLOTS)
        atomic_fetch_add(&wrong, 1);
    atomic_fetch_add(&granted_in_all, 1);
}

static void stop(struct request *request)
{
    if (request->is_running)
        atomic_fetch_sub(&running[request->site], 1);
    request->is_running = false;
}

static void leave(struct request *request)
{
    const struct ticket_outcome outcome = {
        .has_tokens = true, .prompt_tokens = 10, .completion_tokens = draw(request->worker, 200), .running_us = 1000
    };

    stop(request);
    ticket_give_back(request->ticket, &outcome, 1);
    request->ticket = NULL;
}

/* Also of one that was refused. */
static void decided(struct request *request)
{
    switch (ticket_state(request->ticket)) {
    case TICKET_GRANTED:
        begin(request);
        break;
    case TICKET_WAITING:
        request->worker->waits++;
        break;
    default:
        request->worker->refused++;
        leave(request);
    }
}

static void enter(struct request *request)
{
    char name[] = "userX";
    struct ticket_wish wish = { .user = { name, 5 },
                                .weight = 1,
                                .class = draw(request->worker, 4) == 0 ? QUEUE_BATCH : QUEUE_INTERACTIVE,
                                .conversation = draw(request->worker, 3),
                                .prompt_tokens = 10 };

    name[4] = (char)('a' + draw(request->worker, 9));
    request->worker->begun++;
    request->ticket = ticket_take(request->worker->stage->queue, &request->worker->home, &wish, request, 1);
    if (request->ticket)
        decided(request);
    else
        atomic_fetch_add(&wrong, 1);
}

static void go_on(struct request *request)
{
    if (!request->ticket) {
        if (request->worker->begun < REQUESTS)
            enter(request);
    } else if (request->is_running && request->steps-- == 0) {
        if (draw(request->worker, 20)) {
            leave(request);
            return;
        }
        stop(request);
        request->worker->again++;
        ticket_take_again(request->ticket, draw(request->worker, 2), 1);
        decided(request);
    } else if (request->is_running) {
        ticket_answers(request->ticket, 1);
    } else if (draw(request->worker, 200) == 0) {
        request->worker->tired++; /* of waiting */
        leave(request);
    } else {
        (void)ticket_place(request->ticket);
    }
}

static void read_letters(struct worker *worker)
{
    struct request *request;

    while ((request = queue_home_next(&worker->home))) {
        worker->letters++;
        if (!request->ticket || request->is_running || ticket_state(request->ticket) == TICKET_WAITING)
            atomic_fetch_add(&wrong, 1);
        else
            decided(request);
    }
}

static bool has_more(const struct worker *worker, bool *ret_only_waits)
{
    bool has_open = false;

    *ret_only_waits = true;
    for (unsigned i = 0; i < MOST_OPEN; i++) {
        has_open |= worker->open[i].ticket != NULL;
        *ret_only_waits &= worker->open[i].ticket ? !worker->open[i].is_running : worker->begun == REQUESTS;
    }
    return has_open || worker->begun < REQUESTS;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    bool only_waits;

    for (unsigned i = 0; i < MOST_OPEN; i++)
        worker->open[i].worker = worker;
    while (has_more(worker, &only_waits)) {
        struct pollfd bell = { .fd = worker->bell, .events = POLLIN };
        uint64_t rung;
        /* Nothing to do but wait: whoever grants must ring. */
        if (only_waits && !atomic_load(&worker->home.news) && poll(&bell, 1, STUCK_MS) == 0) {
            atomic_fetch_add(&stuck, 1);
            return NULL;
        }
        if (bell.revents && read(worker->bell, &rung, sizeof rung) != sizeof rung)
            atomic_fetch_add(&wrong, 1);
        read_letters(worker);
        for (unsigned i = 0; i < MOST_OPEN; i++)
            go_on(&worker->open[i]);
        read_letters(worker);
    }
    return NULL;
}

static void *look_on(void *arg)
{
    struct stage *stage = arg;
    struct text out;

    text_init(&out, 4096);
    while (!atomic_load(&is_over)) {
        struct look *look = calloc(1, sizeof *look + SITES * sizeof(struct sight));
        struct queue_gauges gauges;
        look->op = (struct op){ .what = OP_LOOK, .now_us = 1 };
        look->rules = stage->rules;
        look->count = SITES;
        memcpy(look->sights, stage->sights, SITES * sizeof(struct sight));
        queue_do(stage->queue, &look->op, NULL);
        queues_gauges(stage->queues, 0, &gauges);
        text_clear(&out);
        if (!queues_explain(stage->queues, SLICE("model:latest"), 1, &out) || out.err)
            atomic_fetch_add(&wrong, 1);
        (void)sched_yield();
    }
    text_release(&out);
    return NULL;
}

TEST(four_workers_at_one_queue_lose_nothing_and_never_run_more_than_the_slots)
{
    static struct worker workers[WORKERS];
    struct stage stage;
    pthread_t looker;
    unsigned letters = 0, waits = 0, again = 0, tired = 0;
    uint64_t granted;

    stage_open(&stage, SITES, SLOTS);
    stage.rules.max_waiting = 55;
    stage_look(&stage);
    CHECK_EQ(pthread_create(&looker, NULL, look_on, &stage), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (struct worker){ .stage = &stage, .bell = eventfd(0, EFD_NONBLOCK), .chance = 12345 + i };
        workers[i].home = (struct queue_home){ .ring = on_ring, .arg = &workers[i] };
        CHECK_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++)
        (void)pthread_join(workers[i].thread, NULL);
    atomic_store(&is_over, true);
    (void)pthread_join(looker, NULL);
    for (unsigned i = 0; i < WORKERS; i++) {
        CHECK(!queue_home_next(&workers[i].home));
        CHECK_EQ(workers[i].begun, REQUESTS);
        (void)close(workers[i].bell);
        letters += workers[i].letters;
        waits += workers[i].waits;
        again += workers[i].again;
        tired += workers[i].tired;
    }
    CHECK_EQ(atomic_load(&wrong), 0);
    CHECK_EQ(atomic_load(&stuck), 0);
    CHECK_EQ(atomic_load(&running[0]) + atomic_load(&running[1]), 0);
    CHECK_EQ(atomic_load(&stage.queue->running), 0);
    CHECK_EQ(atomic_load(&stage.queue->waiting[0]) + atomic_load(&stage.queue->waiting[1]), 0);
    granted = atomic_load(&stage.queue->granted[0]) + atomic_load(&stage.queue->granted[1]);
    CHECK(granted >= atomic_load(&granted_in_all)); /* some had left before they read of it */
    CHECK(granted - atomic_load(&granted_in_all) <= tired);
    CHECK(letters > 0 && letters <= waits);
    CHECK(again > 0);
    stage_close(&stage);
}
