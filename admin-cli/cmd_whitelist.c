/* The whitelist: from where callers may connect. */
#include "cmd.h"

static const struct column columns[] = {
    { "RANGE", "cidr", CELL_TEXT, 0, NULL },    { "NOTE", "note", CELL_TEXT, 1, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },  { "CREATED", "created_at", CELL_TIME, 2, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
};
static const struct noun range = NOUN("range", "/admin/v1/whitelist", "cidr", columns, .made = "was added");

enum ending whitelist_add(struct session *session)
{
    return cmd_create(session, &range, NULL);
}

enum ending whitelist_list(struct session *session)
{
    return cmd_list(session, &range);
}

enum ending whitelist_remove(struct session *session)
{
    return cmd_delete(session, &range, "was removed");
}
