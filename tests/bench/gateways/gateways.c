/*
 * bench_gateways - simulated gateways, many in one process: each with the real link client and an identity of its own.
 * They follow as real ones do (Sync held back, Beat, Load every 5 s, or every second when busy, commands acknowledged),
 * but have no callers and no disk, and of what they are told they keep the version and which keys there are. The
 * checksum of a snapshot is not looked at: who asks compares count and sum with the database.
 *
 *     bench_gateways URL COUNT [PREFIX]         tcp://127.0.0.1:18801 1000 gateway-
 *
 * It first says "key NAME HEX" of each, so that whoever started it registers them, and "ready". Then a line on stdin is
 * a question, and its answer a line of JSON on stdout; times are us of CLOCK_MONOTONIC:
 *     open                  begin to connect
 *     state                 {"up","faults","downs","snapshots","behind","groups":[{"version","keys","sum","gateways"}]}
 *     when VERSION TIMEOUT  answered once all have it, or after so many ms: {"version","reached","first_us",…}
 *     up COUNT TIMEOUT      answered once so many are connected: {"up","now_us"}
 *     busy 0|1              Loads as of a gateway with callers
 *     mute COUNT            the last so many say and hear nothing; the others are all there are
 *     quit                  or the end of stdin
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "arena.h"
#include "arrivals.h"
#include "clock.h"
#include "digest.h"
#include "identity.h"
#include "known.h"
#include "link.h"

enum {
    SYNC_WAIT_MS = 20000,
    IDLE_LOAD_US = 5000000,
    BUSY_LOAD_US = 1000000,
    TICK_MS = 20,
    AGAIN_US = 100000,
    LINE_BYTES = 256,
    MAX_QUESTIONS = 64
};

struct gateway {
    struct link_client *link;
    struct identity *identity;
    char name[64];
    struct known known, coming; /* coming: the pieces so far of a snapshot */
    uint64_t version, snapshot, load_sequence;
    uint32_t next_chunk;
    int64_t load_us, sync_us; /* when to send the next; sync_us 0: one is under way */
    bool is_up, is_muted, is_loading;
};

static const struct qw_version version = { QG_VERSION_MAJOR, QG_VERSION_MINOR, QG_VERSION_PATCH };
static const char *url;
static struct gateway *gateways;
static unsigned count, up, muted;
static uint64_t faults, downs, snapshots;
static bool is_busy, is_open;
static int epoll;
static struct arena arena;

static void die(const char *what)
{
    fprintf(stderr, "bench_gateways: %s\n", what);
    exit(EXIT_FAILURE);
}

/* What a real gateway would have refused. */
static void fault(const struct gateway *gateway, const char *what)
{
    fprintf(stderr, "%s: %s\n", gateway->name, what);
    faults++;
}

/* --- what one is told ------------------------------------------------------------------------------------ */

static bool take_changes(struct gateway *gateway, struct known *known, struct slice bytes)
{
    char memory[512];
    struct text why = text_over(memory, sizeof memory);
    const struct qw_change *changes;
    size_t number;

    if (changes_unpack(bytes, &arena, &changes, &number, &why) != ERR_OK) {
        fault(gateway, memory);
        return false;
    }
    for (size_t i = 0; i < number; i++) {
        const struct qw_change *change = &changes[i];
        if (change->what == QW_KEY && !known_add(known, (const uint8_t *)change->key.hash.at))
            die("no memory");
        if (change->what == QW_CHANGE_REMOVED && change->removed.noun == QW_KEY)
            known_remove(known, (const uint8_t *)change->removed.hash.at);
    }
    return true;
}

static void reach(struct gateway *gateway, uint64_t to)
{
    arrivals_note(gateway->version, to, clock_us());
    gateway->version = to;
}

static void take_piece(struct gateway *gateway, const struct qw_update *update)
{
    if (update->chunk->index == 0 || update->to != gateway->snapshot) {
        known_release(&gateway->coming);
        gateway->snapshot = update->to;
        gateway->next_chunk = 0;
    }
    if (update->chunk->index != gateway->next_chunk) {
        fault(gateway, "a piece of a snapshot out of its order");
        gateway->snapshot = gateway->next_chunk = 0;
        return;
    }
    if (!take_changes(gateway, &gateway->coming, update->changes))
        return;
    if (++gateway->next_chunk < update->chunk->count)
        return;
    known_release(&gateway->known);
    gateway->known = gateway->coming;
    gateway->coming = (struct known){};
    gateway->snapshot = gateway->next_chunk = 0;
    snapshots++;
    reach(gateway, update->to);
}

static void take_update(struct gateway *gateway, const struct qw_update *update)
{
    arena_init(&arena);
    if (update->chunk)
        take_piece(gateway, update);
    else if (update->from != gateway->version)
        fault(gateway, "changes that build on another version");
    else if (update->to > update->from && take_changes(gateway, &gateway->known, update->changes))
        reach(gateway, update->to);
    arena_release(&arena);
}

/* --- what one says --------------------------------------------------------------------------------------- */

static void ask_what_is_new(struct gateway *gateway);

static void on_update(void *arg, enum err err, const struct qw_message *answer)
{
    struct gateway *gateway = arg;

    gateway->sync_us = clock_us();
    if (err == ERR_OK && answer->what == QW_UPDATE) {
        take_update(gateway, &answer->update);
        ask_what_is_new(gateway);
        return;
    }
    gateway->sync_us += AGAIN_US;
    if (err == ERR_OK && answer->what != QW_REFUSED)
        fault(gateway, "an answer that is no Update");
}

static void ask_what_is_new(struct gateway *gateway)
{
    const struct qw_message sync = { QW_SYNC, .sync = { .have = gateway->version,
                                                        .applied = gateway->version,
                                                        .wait_ms = SYNC_WAIT_MS,
                                                        .snapshot = gateway->snapshot,
                                                        .next_chunk = gateway->next_chunk } };

    if (gateway->is_up && link_client_ask(gateway->link, &sync, on_update, gateway) == ERR_OK)
        gateway->sync_us = 0;
    else
        gateway->sync_us = clock_us() + AGAIN_US;
}

static void on_commands(void *arg, enum err err, const struct qw_message *answer)
{
    struct gateway *gateway = arg;
    struct qw_done done[16];
    size_t number = 0;
    struct qw_message ack = { QW_ACK, .ack = { .done = done } };

    gateway->is_loading = false;
    if (err != ERR_OK || answer->what != QW_COMMANDS)
        return;
    for (; number < answer->commands.count && number < sizeof done / sizeof *done; number++) {
        const struct qw_command *command = &answer->commands.commands[number];
        done[number] = (struct qw_done){ .id = command->id };
        if (command->order == QW_RESYNC) {
            known_release(&gateway->known);
            gateway->version = gateway->snapshot = gateway->next_chunk = 0;
        }
    }
    ack.ack.count = number;
    if (number && link_client_ask(gateway->link, &ack, on_commands, gateway) == ERR_OK)
        gateway->is_loading = true;
}

/* A second of a gateway with callers: two models, twenty users, and times that fall into twelve steps. */
static void say_load(struct gateway *gateway)
{
    static const uint32_t steps[] = { 120, 121, 122, 123, 124, 125, 126, 127, 128, 130, 132, 140 };
    static const uint64_t counts[] = { 1, 2, 4, 6, 9, 12, 9, 6, 4, 2, 1, 1 };
    static const struct qw_histogram times = { steps, 12, counts, 12, 57000000 };
    static const struct qw_model_load models[] = {
        { SLICE("qwen3:32b"), 4, 2, 40, 1, 9000, 21000, &times, &times },
        { SLICE("qwen3:4b"), 1, 0, 17, 0, 3000, 8000, &times, &times },
    };
    static const struct qw_backend_load backends[] = { { SLICE("gpu1"), true, 4, 2 }, { SLICE("gpu2"), true, 1, 0 } };
    static char names[20][16];
    static struct qw_user_load users[20];
    struct qw_message load = { QW_LOAD, .load = { .sequence = ++gateway->load_sequence } };

    if (is_busy) {
        for (unsigned i = 0; i < 20 && !users[19].user.at; i++) {
            (void)snprintf(names[i], sizeof names[i], "user-%u", i);
            users[i] = (struct qw_user_load){ slice_of(names[i]), 3, 0, 600, 1450 };
        }
        load.load.running = 5;
        load.load.waiting = 2;
        load.load.models = models;
        load.load.model_count = 2;
        load.load.users = users;
        load.load.user_count = 20;
        load.load.backends = backends;
        load.load.backend_count = 2;
    }
    load.load.now_ms = (uint64_t)clock_wall_ms();
    if (link_client_ask(gateway->link, &load, on_commands, gateway) == ERR_OK)
        gateway->is_loading = true;
}

static void on_up(void *arg, const struct qw_welcome *welcome)
{
    struct gateway *gateway = arg;
    uint32_t chance;

    (void)welcome;
    gateway->is_up = true;
    up++;
    random_bytes(&chance, sizeof chance);
    gateway->load_us = clock_us() + chance % (is_busy ? BUSY_LOAD_US : IDLE_LOAD_US);
    ask_what_is_new(gateway);
}

static void on_down(void *arg, enum qw_reason reason, const char *why)
{
    struct gateway *gateway = arg;

    if (gateway->is_up)
        up--;
    gateway->is_up = false;
    if (downs++ < 20)
        fprintf(stderr, "%s: %s %s\n", gateway->name, reason ? reason_name(reason) : "lost", why);
}

/* What is due without anything having come. */
static void tick(int64_t now_us)
{
    for (unsigned i = 0; i < count - muted; i++) {
        struct gateway *gateway = &gateways[i];
        if (!gateway->is_up)
            continue;
        if (gateway->sync_us && gateway->sync_us <= now_us)
            ask_what_is_new(gateway);
        if (gateway->load_us <= now_us && !gateway->is_loading) {
            say_load(gateway);
            gateway->load_us += is_busy ? BUSY_LOAD_US : IDLE_LOAD_US;
            if (gateway->load_us < now_us)
                gateway->load_us = now_us;
        }
    }
}

/* --- what we are asked ----------------------------------------------------------------------------------- */

/* A question that waits for its answer. */
static struct question {
    bool is_version; /* else: for how many are up */
    uint64_t wanted;
    int64_t until_us;
} questions[MAX_QUESTIONS];
static unsigned question_count;

static bool answer_now(const struct question *question, int64_t now_us)
{
    struct arrival arrival = arrivals_of(question->wanted);

    if (!question->is_version) {
        if (up < question->wanted && now_us < question->until_us)
            return false;
        printf("{\"up\":%u,\"now_us\":%" PRId64 "}\n", up, now_us);
        return true;
    }
    if (!arrival.all_us && now_us < question->until_us)
        return false;
    printf("{\"version\":%" PRIu64 ",\"reached\":%u,\"first_us\":%" PRId64 ",\"half_us\":%" PRId64
           ",\"most_us\":%" PRId64 ",\"all_us\":%" PRId64 "}\n",
           arrival.version, arrival.reached, arrival.first_us, arrival.half_us, arrival.most_us, arrival.all_us);
    return true;
}

static void answer_questions(int64_t now_us)
{
    unsigned left = 0;

    for (unsigned i = 0; i < question_count; i++)
        if (!answer_now(&questions[i], now_us))
            questions[left++] = questions[i];
    question_count = left;
    (void)fflush(stdout);
}

static void put_question(bool is_version, uint64_t wanted, int64_t timeout_ms)
{
    if (question_count == MAX_QUESTIONS)
        die("too many questions");
    questions[question_count++] = (struct question){ is_version, wanted, clock_us() + timeout_ms * 1000 };
}

/* Those who are in the same state are a group. */
static void say_state(void)
{
    unsigned here = count - muted, behind = 0, *head = calloc(here + 1, sizeof *head), groups = 0;
    unsigned *members = calloc(here + 1, sizeof *members);
    uint64_t newest = 0;

    if (!head || !members)
        die("no memory");
    for (unsigned i = 0; i < here; i++) {
        const struct gateway *one = &gateways[i];
        unsigned g = 0;
        for (; g < groups; g++) {
            const struct gateway *other = &gateways[head[g]];
            if (one->version == other->version && one->known.count == other->known.count &&
                one->known.sum == other->known.sum)
                break;
        }
        if (g == groups)
            head[groups++] = i;
        members[g]++;
        newest = one->version > newest ? one->version : newest;
    }
    for (unsigned i = 0; i < here; i++)
        behind += gateways[i].version < newest;
    printf("{\"up\":%u,\"faults\":%" PRIu64 ",\"downs\":%" PRIu64 ",\"snapshots\":%" PRIu64
           ",\"behind\":%u,\"groups\":[",
           up, faults, downs, snapshots, behind);
    for (unsigned g = 0; g < groups; g++)
        printf("%s{\"version\":%" PRIu64 ",\"keys\":%" PRIu32 ",\"sum\":%" PRIu64 ",\"gateways\":%u}", g ? "," : "",
               gateways[head[g]].version, gateways[head[g]].known.count, gateways[head[g]].known.sum, members[g]);
    printf("]}\n");
    free(head);
    free(members);
}

static void open_all(void)
{
    static const struct link_client_events events = { on_up, on_down };
    char memory[256];
    struct text why = text_over(memory, sizeof memory);

    for (unsigned i = 0; i < count; i++) {
        struct gateway *gateway = &gateways[i];
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = gateway };
        const struct link_client_options options = {
            .urls = &url, .url_count = 1, .name = gateway->name, .version = version, .identity = gateway->identity
        };
        gateway->link = link_client_open(&options, &events, gateway, &why);
        if (!gateway->link || epoll_ctl(epoll, EPOLL_CTL_ADD, link_client_fd(gateway->link), &event) != 0)
            die(memory);
    }
    is_open = true;
}

static void mute(unsigned number)
{
    for (unsigned i = count - number; i < count - muted && is_open; i++) {
        gateways[i].is_muted = true;
        (void)epoll_ctl(epoll, EPOLL_CTL_DEL, link_client_fd(gateways[i].link), NULL);
        up -= gateways[i].is_up;
    }
    muted = number;
    arrivals_expect(count - muted);
}

/* False: the end. */
static bool take_line(const char *line)
{
    uint64_t number = 0;
    long long timeout_ms = 0;

    if (strcmp(line, "quit") == 0)
        return false;
    if (strcmp(line, "open") == 0 && !is_open) {
        open_all();
        printf("{}\n");
    } else if (strcmp(line, "state") == 0) {
        say_state();
    } else if (sscanf(line, "when %" SCNu64 " %lld", &number, &timeout_ms) == 2) {
        put_question(true, number, timeout_ms);
    } else if (sscanf(line, "up %" SCNu64 " %lld", &number, &timeout_ms) == 2) {
        put_question(false, number, timeout_ms);
    } else if (sscanf(line, "busy %" SCNu64, &number) == 1) {
        is_busy = number != 0;
        printf("{}\n");
    } else if (sscanf(line, "mute %" SCNu64, &number) == 1 && number < count && number >= muted) {
        mute((unsigned)number);
        printf("{}\n");
    } else {
        die(line);
    }
    return true;
}

static bool take_lines(void)
{
    static char lines[LINE_BYTES];
    static size_t len;
    ssize_t got = read(STDIN_FILENO, lines + len, sizeof lines - len - 1);
    char *end;

    if (got <= 0)
        return false;
    len += (size_t)got;
    lines[len] = 0;
    while ((end = strchr(lines, '\n'))) {
        *end = 0;
        if (!take_line(lines))
            return false;
        len -= (size_t)(end + 1 - lines);
        memmove(lines, end + 1, len + 1);
    }
    return len < sizeof lines - 1;
}

static void make_all(const char *prefix)
{
    struct rlimit limit;

    (void)!getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    gateways = calloc(count, sizeof *gateways);
    if (!gateways)
        die("no memory");
    for (unsigned i = 0; i < count; i++) {
        char memory[DIGEST_HEX + 1];
        struct text hex = text_over(memory, sizeof memory);
        struct identity_key key;
        struct digest bytes;
        gateways[i].identity = identity_new();
        if (!gateways[i].identity)
            die("no memory");
        identity_public(gateways[i].identity, &key);
        memcpy(bytes.bytes, key.bytes, sizeof bytes.bytes);
        digest_add_hex(&hex, &bytes);
        (void)snprintf(gateways[i].name, sizeof gateways[i].name, "%s%u", prefix, i + 1);
        printf("key %s %s\n", gateways[i].name, memory);
    }
    printf("ready\n");
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    struct epoll_event event = { .events = EPOLLIN }, events[256];
    int64_t ticked_us = 0;
    bool goes_on = true;

    count = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
    if (!count || argc > 4)
        die("URL COUNT [PREFIX]");
    url = argv[1];
    make_all(argc > 3 ? argv[3] : "gateway-");
    arrivals_expect(count);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        die("cannot wait");
    while (goes_on) {
        int ready = epoll_wait(epoll, events, 256, TICK_MS);
        for (int i = 0; i < ready && goes_on; i++) {
            if (events[i].data.ptr)
                link_client_take(((struct gateway *)events[i].data.ptr)->link);
            else
                goes_on = take_lines();
        }
        if (clock_us() - ticked_us >= TICK_MS * 1000) {
            ticked_us = clock_us();
            tick(ticked_us);
        }
        answer_questions(clock_us());
    }
    for (unsigned i = 0; i < count; i++) {
        if (gateways[i].link)
            (void)link_client_close(gateways[i].link);
        (void)identity_free(gateways[i].identity);
        known_release(&gateways[i].known);
        known_release(&gateways[i].coming);
    }
    free(gateways);
    return EXIT_SUCCESS;
}
