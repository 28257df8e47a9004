/* What is wrong with a backend although it answers: a list of what holds now, said when it begins and when it passed.
 */
#include <stdlib.h>
#include <string.h>

#include "backend_parts.h"
#include "log.h"

struct found {
    enum finding finding;
    char *model;
};

static const struct {
    const char *word, *what, *advice, *over;
} rows[FINDINGS] = {
    [FINDING_MODEL_MISSING] = { "model_missing", "is configured for it, but it does not list it",
                                "pull it there, or take it out of the configuration", "is in its list now" },
    [FINDING_NOT_RESIDENT] = { "not_resident", "is to be kept loaded, but is not",
                               "the next request waits until it is; see whether it fits into memory beside the others, "
                               "and that keep_alive lets it stay",
                               "is loaded again" },
    [FINDING_PARTLY_ON_CPU] = { "partly_on_cpu", "is partly on the CPU",
                                "answers will be slow; give it a smaller num_ctx or fewer requests at once "
                                "(OLLAMA_NUM_PARALLEL), or free graphics memory",
                                "is no longer partly on the CPU" },
    [FINDING_SHORT_CONTEXT] = { "short_context", "is loaded with a shorter context than num_ctx",
                                "longer prompts will be refused; see whether somebody else asks for it with another "
                                "num_ctx, and that num_ctx is no more than it was trained for",
                                "has the context of num_ctx now" },
    [FINDING_FEWER_SLOTS] = { "fewer_slots", "runs fewer requests at once than its slots",
                              "the rest waits there, where no queue is fair; set OLLAMA_NUM_PARALLEL to its slots, or "
                              "slots to what it runs",
                              "runs as many requests at once as its slots" },
};

const char *finding_word(enum finding finding)
{
    return rows[finding].word;
}

static struct found *find(struct backend *backend, enum finding finding, struct slice model)
{
    for (unsigned i = 0; i < backend->found_count; i++)
        if (backend->found[i].finding == finding && slice_is(slice_of(backend->found[i].model), model))
            return &backend->found[i];
    return NULL;
}

/* False: no room, or no memory. The next look finds it again. */
static bool add(struct backend *backend, enum finding finding, struct slice model)
{
    char *name;

    if (backend->found_count == BACKEND_MAX_FINDINGS)
        return false;
    if (!backend->found)
        backend->found = calloc(BACKEND_MAX_FINDINGS, sizeof *backend->found);
    name = strndup(model.at, model.len);
    if (!backend->found || !name) {
        free(name);
        return false;
    }
    backend->found[backend->found_count++] = (struct found){ finding, name };
    return true;
}

static void drop(struct backend *backend, struct found *found)
{
    free(found->model);
    *found = backend->found[--backend->found_count];
}

/* True: it is news. */
static bool note(struct backend *backend, enum finding finding, struct slice model, bool is_so)
{
    struct found *found = find(backend, finding, model);

    if (is_so)
        return !found && add(backend, finding, model);
    if (found)
        drop(backend, found);
    return found;
}

void backend_finds(struct backend *backend, enum finding finding, struct slice model, bool is_so, const char *detail)
{
    bool is_news;

    (void)pthread_mutex_lock(&backend->news_lock);
    is_news = note(backend, finding, model, is_so);
    (void)pthread_mutex_unlock(&backend->news_lock);
    if (is_news && is_so)
        log_warn("backend %s: %.*s %s%s%s%s: %s", backend->name, (int)model.len, model.at, rows[finding].what,
                 detail ? " (" : "", detail ? detail : "", detail ? ")" : "", rows[finding].advice);
    else if (is_news)
        log_info("backend %s: %.*s %s", backend->name, (int)model.len, model.at, detail ? detail : rows[finding].over);
}

void backend_findings(struct backend *backend, void (*tell)(void *arg, enum finding finding, struct slice model),
                      void *arg)
{
    (void)pthread_mutex_lock(&backend->news_lock);
    for (unsigned i = 0; i < backend->found_count; i++)
        tell(arg, backend->found[i].finding, slice_of(backend->found[i].model));
    (void)pthread_mutex_unlock(&backend->news_lock);
}

void findings_release(struct backend *backend)
{
    while (backend->found_count)
        drop(backend, backend->found);
    free(backend->found);
    backend->found = NULL;
}
