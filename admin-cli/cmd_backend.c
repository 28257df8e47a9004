/* Backends: where models run. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },       { "URL", "url", CELL_TEXT, 1, NULL },
    { NULL, "kind", CELL_TEXT, 0, NULL },         { "SLOTS", "slots", CELL_NUMBER, 2, NULL },
    { "WEIGHT", "weight", CELL_NUMBER, 4, NULL }, { "DRAIN", "drain", CELL_YES, 3, NULL },
    { "MODELS", "models", CELL_TEXT, 5, "all" },  { "NOTE", "note", CELL_TEXT, 6, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },    { NULL, "created_at", CELL_TIME, 0, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
};
static const struct noun backend = NOUN("backend", "/admin/v1/backends", "name", columns);

enum ending backend_create(struct session *session)
{
    return cmd_create(session, &backend, NULL);
}

enum ending backend_list(struct session *session)
{
    return cmd_list(session, &backend);
}

enum ending backend_show(struct session *session)
{
    return cmd_show(session, &backend);
}

enum ending backend_update(struct session *session)
{
    return cmd_update(session, &backend, NULL);
}

enum ending backend_delete(struct session *session)
{
    return cmd_delete(session, &backend, "was deleted");
}
