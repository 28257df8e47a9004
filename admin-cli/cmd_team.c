/* Teams: users that belong together. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },     { NULL, "id", CELL_TEXT, 0, NULL },
    { "USERS", "users", CELL_NUMBER, 1, NULL }, { "NOTE", "note", CELL_TEXT, 2, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },  { "CREATED", "created_at", CELL_TIME, 3, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
};
static const struct noun team = NOUN("team", "/admin/v1/teams", "name", columns);

enum ending team_create(struct session *session)
{
    return cmd_create(session, &team, NULL);
}

enum ending team_list(struct session *session)
{
    return cmd_list(session, &team);
}

enum ending team_show(struct session *session)
{
    return cmd_show(session, &team);
}

enum ending team_update(struct session *session)
{
    return cmd_update(session, &team, NULL);
}

enum ending team_delete(struct session *session)
{
    return cmd_delete(session, &team, "was deleted");
}
