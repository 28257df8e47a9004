/* What is read from elsewhere at the moment of a scrape: the gateway's own gauges, backends, queues. */
#include "metrics_parts.h"

enum {
    MAX_QUEUES = MAX_MODELS - 1, /* what is beyond is summed up as model "other": two classes each */
    MAX_ROWS = 512
};

static void print_process_gauges(const struct metrics_gauges *gauges, struct text *out)
{
    print_one(out, PREFIX "connections_open", "gauge", "Connections from callers open now.", gauges->connections_open);
    print_one(out, PREFIX "body_bytes", "gauge", "Memory held by request bodies now.", (long long)gauges->body_bytes);
    print_one(out, PREFIX "log_dropped_total", "counter", "Request lines that could not be written to the log.",
              (long long)gauges->log_dropped);
    print_one(out, PREFIX "draining", "gauge", "1 while the gateway finishes what runs and takes nothing new.",
              gauges->is_draining);
    print_one(out, PREFIX "start_time_seconds", "gauge", "When the gateway started, since 1970.", gauges->started_s);
    add_family(out, PREFIX "build_info", "gauge", "1, with the version.");
    text_add_literal(out, PREFIX "build_info{");
    add_label(out, "version", gauges->version);
    text_add_literal(out, "} 1\n");
}

/* ---- backends ---- */

enum backend_family { BACKEND_UP, BACKEND_RUNNING, BACKEND_SLOTS, BACKEND_WEIGHT, BACKEND_FAMILIES };

static const struct {
    const char *name, *help;
} backend_families[BACKEND_FAMILIES] = {
    [BACKEND_UP] = { PREFIX "backend_up", "1 while the backend answers." },
    [BACKEND_RUNNING] = { PREFIX "backend_running", "Requests that the backend works on for us." },
    [BACKEND_SLOTS] = { PREFIX "backend_slots",
                        "Requests of a model that the backend may be given at once; 0: no limit." },
    [BACKEND_WEIGHT] = { PREFIX "backend_weight", "The backend's weight, as configured; 0: standby." },
};

static unsigned backend_number(const struct metrics_backend *backend, enum backend_family family)
{
    switch (family) {
    case BACKEND_UP:
        return backend->is_up;
    case BACKEND_RUNNING:
        return backend->running;
    case BACKEND_SLOTS:
        return backend->slots;
    default:
        return backend->weight;
    }
}

static void print_states(const struct metrics_gauges *gauges, struct text *out)
{
    static const char *const words[METRICS_STATE_COUNT] = {
#define STATE_WORD(name, word) [METRICS_##name] = word,
        METRICS_STATES(STATE_WORD)
#undef STATE_WORD
    };

    add_family(out, PREFIX "backend_state", "gauge", "1 for the state that the backend is in, 0 for the others.");
    for (unsigned i = 0; i < gauges->backend_count; i++)
        for (unsigned state = 0; state < METRICS_STATE_COUNT; state++) {
            text_add_literal(out, PREFIX "backend_state{");
            add_label(out, "backend", gauges->backends[i].name);
            text_printf(out, ",state=\"%s\"} %d\n", words[state], gauges->backends[i].state == state);
        }
}

static void print_backends(const struct metrics_gauges *gauges, struct text *out)
{
    for (unsigned family = 0; family < BACKEND_FAMILIES; family++) {
        add_family(out, backend_families[family].name, "gauge", backend_families[family].help);
        for (unsigned i = 0; i < gauges->backend_count; i++) {
            text_printf(out, "%s{", backend_families[family].name);
            add_label(out, "backend", gauges->backends[i].name);
            text_printf(out, "} %u\n", backend_number(&gauges->backends[i], (enum backend_family)family));
        }
    }
    print_states(gauges, out);
}

static void add_backend_and_model(struct text *out, struct slice backend, struct slice model)
{
    text_add_char(out, '{');
    add_label(out, "backend", backend);
    text_add_char(out, ',');
    add_label(out, "model", model);
}

static void print_residences(const struct metrics_gauges *gauges, struct text *out)
{
    add_family(out, PREFIX "backend_model_resident", "gauge", "1 while the model is loaded there, 0 while it is not.");
    for (unsigned i = 0; i < gauges->residence_count && i < MAX_ROWS; i++) {
        text_add_literal(out, PREFIX "backend_model_resident");
        add_backend_and_model(out, gauges->residences[i].backend, gauges->residences[i].model);
        text_printf(out, "} %d\n", gauges->residences[i].is_resident);
    }
}

static void print_findings(const struct metrics_gauges *gauges, struct text *out)
{
    add_family(out, PREFIX "backend_finding", "gauge",
               "1 while something is wrong with a backend that answers; there is no series when nothing is.");
    for (unsigned i = 0; i < gauges->finding_count && i < MAX_ROWS; i++) {
        text_add_literal(out, PREFIX "backend_finding");
        add_backend_and_model(out, gauges->findings[i].backend, gauges->findings[i].model);
        text_add_char(out, ',');
        add_label(out, "finding", gauges->findings[i].word);
        text_add_literal(out, "} 1\n");
    }
}

/* ---- queues ---- */

enum queue_family {
    QUEUE_WAITING,
    QUEUE_USERS,
    QUEUE_RUNNING,
    QUEUE_GRANTED,
    QUEUE_AFFINITY_HITS,
    QUEUE_AFFINITY_TRIES,
    QUEUE_FAMILIES
};

static const struct {
    const char *name, *type, *help;
    bool by_class;
} queue_families[QUEUE_FAMILIES] = {
    [QUEUE_WAITING] = { PREFIX "queue_waiting", "gauge", "Requests that wait for a slot.", true },
    [QUEUE_USERS] = { PREFIX "queue_users_waiting", "gauge", "Users who have a request waiting.", false },
    [QUEUE_RUNNING] = { PREFIX "queue_running", "gauge", "Requests that have a slot.", false },
    [QUEUE_GRANTED] = { PREFIX "queue_granted_total", "counter", "Slots given to requests.", true },
    [QUEUE_AFFINITY_HITS] = { PREFIX "queue_affinity_hits_total", "counter",
                              "Requests of a conversation that went to that conversation's own backend.", false },
    [QUEUE_AFFINITY_TRIES] = { PREFIX "queue_affinity_tries_total", "counter",
                               "Requests of a conversation that has a backend of its own which could be asked.",
                               false },
};

static uint64_t queue_number(const struct metrics_queue *queue, enum queue_family family, unsigned which)
{
    switch (family) {
    case QUEUE_WAITING:
        return queue->waiting[which];
    case QUEUE_USERS:
        return queue->users_waiting;
    case QUEUE_RUNNING:
        return queue->running;
    case QUEUE_GRANTED:
        return queue->granted[which];
    case QUEUE_AFFINITY_HITS:
        return queue->affinity_hits;
    default:
        return queue->affinity_tries;
    }
}

static void queue_add(struct metrics_queue *sum, const struct metrics_queue *queue)
{
    for (unsigned which = 0; which < METRICS_CLASSES; which++) {
        sum->waiting[which] += queue->waiting[which];
        sum->granted[which] += queue->granted[which];
    }
    sum->users_waiting += queue->users_waiting;
    sum->running += queue->running;
    sum->affinity_hits += queue->affinity_hits;
    sum->affinity_tries += queue->affinity_tries;
}

static void print_queue(struct text *out, enum queue_family family, const struct metrics_queue *queue)
{
    unsigned classes = queue_families[family].by_class ? METRICS_CLASSES : 1;

    for (unsigned which = 0; which < classes; which++) {
        text_printf(out, "%s{", queue_families[family].name);
        add_label(out, "model", queue->model);
        if (queue_families[family].by_class)
            text_printf(out, ",class=\"%s\"", class_words[which]);
        text_printf(out, "} %llu\n", (unsigned long long)queue_number(queue, family, which));
    }
}

static bool is_other(const struct metrics_queue *queue)
{
    return slice_is(queue->model, SLICE("other"));
}

static void print_queues(const struct metrics_gauges *gauges, struct text *out)
{
    unsigned count = gauges->queue_count < MAX_QUEUES ? gauges->queue_count : MAX_QUEUES;
    struct metrics_queue other = { .model = SLICE("other") };
    bool has_other = false;

    for (unsigned i = 0; i < gauges->queue_count; i++) {
        if (i < count && !is_other(&gauges->queues[i]))
            continue;
        queue_add(&other, &gauges->queues[i]);
        has_other = true;
    }
    for (unsigned family = 0; family < QUEUE_FAMILIES; family++) {
        add_family(out, queue_families[family].name, queue_families[family].type, queue_families[family].help);
        for (unsigned i = 0; i < count; i++)
            if (!is_other(&gauges->queues[i]))
                print_queue(out, (enum queue_family)family, &gauges->queues[i]);
        if (has_other)
            print_queue(out, (enum queue_family)family, &other);
    }
}

static void print_control(const struct metrics_gauges *gauges, struct text *out)
{
    const struct metrics_control *control = gauges->control;

    if (!control)
        return;
    print_one(out, PREFIX "control_up", "gauge", "1 while the control plane is there.", control->is_up);
    add_family(out, PREFIX "control_heard_seconds", "gauge",
               "How long ago the control plane was heard last; -1: never yet.");
    if (control->heard_ms < 0)
        text_add_literal(out, PREFIX "control_heard_seconds -1\n");
    else
        text_printf(out, PREFIX "control_heard_seconds %lld.%03lld\n", (long long)(control->heard_ms / 1000),
                    (long long)(control->heard_ms % 1000));
    print_one(out, PREFIX "control_stale", "gauge", "1 while callers are refused for that.", control->is_stale);
    add_family(
        out, PREFIX "control_version", "gauge",
        "The version of the configuration that is held, and the one that is confirmed: served by and on the disk.");
    text_printf(out, PREFIX "control_version{state=\"held\"} %llu\n" PREFIX "control_version{state=\"applied\"} %llu\n",
                (unsigned long long)control->held, (unsigned long long)control->applied);
    print_one(out, PREFIX "control_apply_errors_total", "counter", "Updates that could not be applied.",
              (long long)control->apply_errors);
    print_one(out, PREFIX "control_loads_lost_total", "counter", "Reports of load that had to be sent again.",
              (long long)control->loads_lost);
    print_one(out, PREFIX "control_keys", "gauge", "Keys that the control plane has told of.",
              (long long)control->keys);
    print_one(out, PREFIX "control_journal_bytes", "gauge", "What was applied since the last whole file on the disk.",
              (long long)control->journal_bytes);
}

void print_gauges(const struct metrics_gauges *gauges, struct text *out)
{
    print_process_gauges(gauges, out);
    print_control(gauges, out);
    print_backends(gauges, out);
    print_residences(gauges, out);
    print_findings(gauges, out);
    print_queues(gauges, out);
}
