/* Users: people, and programs that stand for themselves. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },        { NULL, "id", CELL_TEXT, 0, NULL },
    { "TEAM", "team", CELL_TEXT, 3, NULL },        { "CLASS", "class", CELL_TEXT, 4, NULL },
    { "WEIGHT", "weight", CELL_NUMBER, 5, NULL },  { "KEYS", "keys", CELL_NUMBER, 2, NULL },
    { "DISABLED", "disabled", CELL_YES, 1, NULL }, { "NOTE", "note", CELL_TEXT, 6, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },     { "CREATED", "created_at", CELL_TIME, 7, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
};
static const struct noun user = NOUN("user", "/admin/v1/users", "name", columns);

enum ending user_create(struct session *session)
{
    return cmd_create(session, &user, NULL);
}

enum ending user_list(struct session *session)
{
    return cmd_list(session, &user);
}

enum ending user_show(struct session *session)
{
    return cmd_show(session, &user);
}

enum ending user_update(struct session *session)
{
    return cmd_update(session, &user, NULL);
}

enum ending user_disable(struct session *session)
{
    return cmd_update(session, &user, json_pack("{s:b}", "disabled", 1));
}

enum ending user_enable(struct session *session)
{
    return cmd_update(session, &user, json_pack("{s:b}", "disabled", 0));
}

enum ending user_delete(struct session *session)
{
    return cmd_delete(session, &user, "was deleted, and its keys revoked");
}
