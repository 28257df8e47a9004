/*
 * backend - one place where models run, as all threads see it: its breaker, its last sign of life, what it runs
 * now, and the catalog of models it lists. Counted; it outlives reloads that do not change its address, and
 * requests keep it while they use it. Workers read and count (atomics, one short lock for the catalog's
 * pointer); the control thread alone probes it (probe.h).
 *
 *     CLOSED ── 5 failures in a row, or no life for 3 s ──► OPEN ── every half second ──► HALF_OPEN (one probe)
 *       ▲───────────────────────── the probe is answered ────────────────────────────────────┘
 *
 * A request that fails because its caller left, or that the engine answers with any status, is no failure.
 * Times are monotonic ms.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "text.h"

struct backend_rule;
struct kind;
struct snapshot;

enum {
    BACKEND_MAX_ADDRESSES = 8,
    BACKEND_NO_LIFE_MS = 3000,  /* behaviour.md 2.2, row 16 */
    BACKEND_PATIENCE_MS = 1500, /* how long a probe may go without an answer before silence counts */
    BACKEND_MAX_FAILURES = 5,   /* behaviour.md 2.6 */
    BACKEND_LOOK_UP_MS = 10000, /* open for so long: perhaps its name means another address by now */
    BACKEND_MAX_FINDINGS = 64,  /* that are kept of one backend at a time */
};

enum breaker { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

enum capability {
    CAN_COMPLETE = 1 << 0,
    CAN_TOOLS = 1 << 1,
    CAN_THINK = 1 << 2,
    CAN_SEE = 1 << 3,
    CAN_EMBED = 1 << 4,
    CAN_INSERT = 1 << 5,
};

/* A model as a backend lists it. */
struct listing {
    const char *name;      /* normalised */
    const char *shown;     /* as the backend writes it */
    int64_t modified_s;    /* seconds since 1970 */
    unsigned capabilities; /* enum capability */
    bool has_capabilities; /* the backend said (old versions do not) */
};

/* Immutable, counted. */
struct catalog {
    atomic_uint refs;
    size_t count, room;
    struct listing *listings; /* sorted by name; cloud names left out */
};

/* A model that a backend has loaded. */
struct resident {
    const char *name;         /* normalised */
    uint64_t size, size_vram; /* bytes, of all and of what is in graphics memory; size 0: not said */
    uint64_t context_length;  /* tokens; 0: not said */
    int64_t expires_s;        /* when keep_alive lets it go, by the backend's clock; -1: not said */
};

/* Immutable, counted. */
struct residents {
    atomic_uint refs;
    size_t count, room;
    struct resident *models; /* sorted by name */
};

enum residency { RESIDENCY_UNKNOWN, RESIDENCY_NO, RESIDENCY_YES };

/* What is wrong with a backend although it answers. */
enum finding {
    FINDING_MODEL_MISSING, /* `models:` (of the file, or of the backend) has it, the backend's list has not */
    FINDING_NOT_RESIDENT,  /* it is to be kept loaded, but is not */
    FINDING_PARTLY_ON_CPU, /* size_vram < size */
    FINDING_SHORT_CONTEXT, /* loaded with fewer tokens than num_ctx */
    FINDING_FEWER_SLOTS,   /* runs fewer at once than `slots`, as seen from when first bytes come */
    FINDINGS
};

struct found; /* finding.c */

struct backend {
    atomic_uint refs;
    const struct kind *kind;
    char *name;
    char *host;
    char *authority;
    uint16_t port;

    /* Written by the control thread while no worker reads them: before the first publication. */
    struct sockaddr_storage addresses[BACKEND_MAX_ADDRESSES];
    socklen_t address_bytes[BACKEND_MAX_ADDRESSES];
    unsigned address_count;
    const char *unresolved;   /* why it has none; NULL: it has */
    atomic_uint good_address; /* the one that answered last: tried first */

    _Atomic(enum breaker) breaker;
    atomic_int_least64_t opened_ms; /* when it left CLOSED */
    atomic_uint was_opened;         /* how often, for the metrics */
    atomic_bool is_probed;          /* it has answered once, or its breaker has opened */
    atomic_bool is_warming;         /* it loads what is to be loaded before it takes callers */
    atomic_bool has_taken;          /* it has taken callers once */
    atomic_int_least64_t recovered_ms;

    char apart[64]; /* cache lines: every worker writes to what follows, with every request, and reads what is above */
    atomic_int_least64_t alive_ms; /* the last byte or answer from there */
    atomic_int_least64_t asked_ms; /* the first probe since then that has no answer; 0: none is owed */
    atomic_uint failures;          /* in a row */
    atomic_uint running;           /* requests handed over and not ended */

    atomic_uint catalog_turn;        /* tag requests ended so far, either way: a waiting request sees it move */
    atomic_int_least64_t catalog_ms; /* when the last one ended */
    atomic_bool wants_catalog;       /* a request missed a name */
    pthread_mutex_t catalog_lock;    /* held for a pointer's copy */
    struct catalog *catalog;         /* NULL until the first listing */

    pthread_mutex_t news_lock;   /* of what follows; held for a look at it */
    struct residents *residents; /* NULL: not known */
    struct found *found;         /* what holds now */
    unsigned found_count;
};

/* Resolves the host (blocking, literal addresses at once); a name that does not resolve leaves no address. */
struct backend *backend_new(const struct backend_rule *rule, const struct kind *kind, int64_t now_ms);
/* The same without an address. */
struct backend *backend_new_unasked(const struct backend_rule *rule, const struct kind *kind, int64_t now_ms);
struct backend *backend_ref(struct backend *backend);
struct backend *backend_unref(struct backend *backend);
/* Time to look its host up (again)? There is no address yet, or none of a name's has answered for a while. */
bool backend_wants_address(const struct backend *backend, int64_t now_ms);
/* Does this object still stand for that rule? */
bool backend_is(const struct backend *backend, const struct backend_rule *rule);

/* News from workers and probes. Each is a few atomics. */
void backend_asked(struct backend *backend, int64_t now_ms); /* a probe sets out */
void backend_not_asked(struct backend *backend);             /* it could not: that is no evidence against the backend */
void backend_lives(struct backend *backend, int64_t now_ms); /* a byte came from there */
void backend_failed(struct backend *backend, int64_t now_ms); /* connecting failed, or it ended before its first byte */
void backend_opens(struct backend *backend, int64_t now_ms);  /* no life for BACKEND_NO_LIFE_MS */
void backend_probed(struct backend *backend, int64_t now_ms); /* a probe was answered: close the breaker */
bool backend_is_closed(const struct backend *backend);
/* Its models are being loaded: until that is over it takes no callers. What was open or warming has recovered then. */
void backend_warms(struct backend *backend, bool is_warming, int64_t now_ms);
/* May it be given requests: breaker closed and, where models are to be preloaded, they are. Two atomics. */
bool backend_takes_callers(const struct backend *backend);
/* It answers, but loads its models first: who waits for it will be served. */
bool backend_is_warming(const struct backend *backend);
/*
 * When it last began to take callers again after it had been away (its breaker open, or restarted and loading); 0: it
 * has not been away. For slow start.
 */
int64_t backend_recovered_ms(const struct backend *backend);
/*
 * Has there been no sign of life since then, for BACKEND_NO_LIFE_MS, although a probe asked for one? Without the
 * question a gateway that was stopped for a while itself would find every backend dead.
 */
bool backend_is_silent(const struct backend *backend, int64_t since_ms, int64_t now_ms);

struct catalog *backend_catalog(struct backend *backend);                   /* counted for the caller, or NULL */
void backend_set_catalog(struct backend *backend, struct catalog *catalog); /* takes the reference */
struct catalog *catalog_unref(struct catalog *catalog);
const struct listing *catalog_find(const struct catalog *catalog, struct slice normalised);
struct catalog *catalog_new(void);
/* Keeps the order; a name that is there already stays as it is. False: no memory. */
bool catalog_add_copy(struct catalog *catalog, const struct listing *listing);
/* From the body of GET /api/tags; NULL: not what Ollama sends. */
struct catalog *catalog_parse_tags(struct slice body);

/* Loaded there, as /api/ps last said. A short lock; not for every request. */
enum residency backend_residency(struct backend *backend, struct slice normalised_model);
struct residents *backend_residents(struct backend *backend); /* counted for the caller, or NULL */
void backend_set_residents(struct backend *backend,
                           struct residents *residents); /* takes the reference; NULL: unknown */
struct residents *residents_unref(struct residents *residents);
const struct resident *residents_find(const struct residents *residents, struct slice normalised);
/* From the body of GET /api/ps; NULL: not what Ollama sends. What a version does not say is not said. */
struct residents *residents_parse_ps(struct slice body);

/*
 * Findings. Each is said in the log once when it begins, with `detail` (may be NULL) in brackets, and once when it has
 * passed, with `detail` in place of how that usually comes about. Any thread; a short lock. At most
 * BACKEND_MAX_FINDINGS at a time: what is beyond waits until others pass.
 */
void backend_finds(struct backend *backend, enum finding finding, struct slice model, bool is_so, const char *detail);
/* Calls `tell` for each that holds now, with the lock held: it only takes notes. */
void backend_findings(struct backend *backend, void (*tell)(void *arg, enum finding finding, struct slice model),
                      void *arg);
const char *finding_word(enum finding finding); /* model_missing, ... */

/* What the configuration says of a backend that a reload may change without making it another one. */
struct fleet_rule {
    unsigned slots;            /* requests of one model at a time; 0: no limit */
    unsigned weight;           /* 0: standby */
    bool drains;               /* takes nothing new */
    const char *const *models; /* normalised names of its models that it is for; model_count 0: all that it lists */
    size_t model_count;
};

bool fleet_rule_is_for(const struct fleet_rule *rule, struct slice normalised_model);

/* All backends of one configuration. Immutable, counted, swapped together with the snapshot. */
struct fleet {
    atomic_uint refs;
    size_t count;
    struct snapshot *snapshot; /* counted: the rules point into it */
    struct fleet_rule *rules;  /* as many, in the same order; part of the fleet */
    struct backend *backends[];
};
/* Takes over the backends of `old` (may be NULL) that still stand for the same rule; looks up the hosts of the others,
 * which blocks where fleet_asks_resolver() says so. NULL: no memory. */
struct fleet *fleet_new(struct snapshot *snapshot, struct fleet *old, int64_t now_ms);
/* The same without blocking: hosts that somebody would have to be asked for have no address yet (fleet_renew). */
struct fleet *fleet_new_unasked(struct snapshot *snapshot, struct fleet *old, int64_t now_ms);
/* Has it hosts that are neither known from `old` nor found without asking anybody? */
bool fleet_asks_resolver(const struct snapshot *snapshot, const struct fleet *old);
/*
 * The same fleet with the hosts looked up again where backend_wants_address() says so. Blocks on the resolver: for a
 * thread of its own. Returns NULL when nothing is different.
 */
struct fleet *fleet_renew(struct fleet *old, int64_t now_ms);
struct fleet *fleet_ref(struct fleet *fleet);
void fleet_ref_more(struct fleet *fleet, unsigned count);
struct fleet *fleet_unref(struct fleet *fleet);
/*
 * What the backends of a fleet offer. A listing of that name, of the first backend that is for it and lists it; its
 * catalog comes with it, counted for the caller.
 */
const struct listing *fleet_find(const struct fleet *fleet, struct slice normalised, struct catalog **ret_catalog);
/* Is it configured for one of the backends, by its name? */
bool fleet_names(const struct fleet *fleet, struct slice normalised);
/*
 * What it can do may differ between the backends that list it and do not drain; one that does not say can all. Of these
 * capabilities, those that the one lacks which lacks fewest: 0 where one has them all, or none lists it.
 */
unsigned fleet_lacks(const struct fleet *fleet, struct slice normalised, unsigned needs);
/* Wherever it may come to, are they there? */
bool fleet_all_can(const struct fleet *fleet, struct slice normalised, unsigned needs);
/* All of them as one list, counted for the caller; NULL: no list has come yet, or no memory. */
struct catalog *fleet_catalog(const struct fleet *fleet);
/* Is number i configured for that model by its name, and has told no list yet that would say otherwise? It may be away,
 * but whoever asks for the model is to meet it, and nobody else. */
bool fleet_expects(const struct fleet *fleet, size_t i, struct slice normalised);
/* Is a name that they do not list one that nobody has? Some backend lives, every one that does has told its list, and
 * none that is away is expected to have it. */
bool fleet_knows_models(const struct fleet *fleet, struct slice normalised);
/*
 * Ready: some backend takes callers, and does not drain. *ret_is_starting: none has taken any yet, and not all of those
 * that do not drain are away.
 */
bool fleet_is_ready(const struct fleet *fleet, bool *ret_is_starting);
