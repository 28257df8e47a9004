#include "standing.h"

#include <stdlib.h>

#include "backend.h"
#include "metrics.h"

enum { MAX_RESIDENCES = 512 }; /* more are not printed */

/* What backend_findings() is told with. */
struct taking {
    struct standing *standing;
    struct metrics_gauges *gauges;
    struct slice backend;
};

static void take_finding(void *arg, enum finding finding, struct slice model)
{
    struct taking *taking = arg;
    struct slice name = arena_copy(&taking->standing->names, model);

    if (!name.at || taking->gauges->finding_count == taking->standing->finding_room)
        return;
    taking->standing->findings[taking->gauges->finding_count++] =
        (struct metrics_finding){ .backend = taking->backend, .model = name, .word = slice_of(finding_word(finding)) };
}

static void take_residences(struct taking *taking, const struct catalog *catalog, const struct residents *residents)
{
    for (size_t i = 0; i < catalog->count && taking->gauges->residence_count < taking->standing->residence_room; i++) {
        struct slice listed = slice_of(catalog->listings[i].name);
        struct slice name = arena_copy(&taking->standing->names, listed);
        if (!name.at)
            return;
        taking->standing->residences[taking->gauges->residence_count++] = (struct metrics_residence){
            .backend = taking->backend, .model = name, .is_resident = residents_find(residents, listed)
        };
    }
}

static void take_backend(struct taking *taking, struct backend *backend)
{
    struct catalog *catalog = backend_catalog(backend);
    struct residents *residents = backend_residents(backend);

    taking->backend = slice_of(backend->name);
    backend_findings(backend, take_finding, taking);
    if (catalog && residents)
        take_residences(taking, catalog, residents);
    (void)catalog_unref(catalog);
    (void)residents_unref(residents);
}

void standing_take(struct standing *standing, const struct fleet *fleet, struct metrics_gauges *gauges)
{
    struct taking taking = { .standing = standing, .gauges = gauges };

    *standing = (struct standing){ 0 };
    arena_init(&standing->names);
    standing->findings = calloc(fleet->count * BACKEND_MAX_FINDINGS + 1, sizeof *standing->findings);
    standing->finding_room = standing->findings ? (unsigned)fleet->count * BACKEND_MAX_FINDINGS : 0;
    standing->residences = calloc(MAX_RESIDENCES, sizeof *standing->residences);
    standing->residence_room = standing->residences ? MAX_RESIDENCES : 0;
    for (size_t i = 0; i < fleet->count; i++)
        take_backend(&taking, fleet->backends[i]);
    gauges->findings = standing->findings;
    gauges->residences = standing->residences;
}

void standing_release(struct standing *standing)
{
    arena_release(&standing->names);
    free(standing->findings);
    free(standing->residences);
}
