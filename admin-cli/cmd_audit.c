/* The audit log: who did what, from where. */
#include "cmd.h"

static const struct column columns[] = {
    { NULL, "id", CELL_NUMBER, 0, NULL },          { "TIME", "at", CELL_TIME, 0, NULL },
    { "ACTOR", "actor", CELL_TEXT, 1, NULL },      { "ADDRESS", "address", CELL_TEXT, 4, NULL },
    { "ACTION", "action", CELL_TEXT, 0, NULL },    { "NOUN", "noun", CELL_TEXT, 3, NULL },
    { "OBJECT", "object_id", CELL_TEXT, 2, NULL }, { NULL, "token_id", CELL_TEXT, 0, NULL },
    { NULL, "request_id", CELL_TEXT, 0, NULL },    { NULL, "before", CELL_TEXT, 0, NULL },
    { NULL, "after", CELL_TEXT, 0, NULL },
};
static const struct noun audit = NOUN("entry", "/admin/v1/audit", "id", columns);

enum ending audit_list(struct session *session)
{
    return cmd_list(session, &audit);
}
