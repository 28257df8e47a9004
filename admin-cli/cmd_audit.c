/* The audit log: who did what, from where. */
#include "cmd.h"

static const struct column columns[] = {
    { NULL, "id", CELL_NUMBER, 0, NULL },       { "TIME", "at", CELL_TIME, 0, NULL },
    { "ACTOR", "actor", CELL_TEXT, 1, NULL },   { "ADDRESS", "address", CELL_TEXT, 4, NULL },
    { "ACTION", "action", CELL_TEXT, 0, NULL }, { "NOUN", "noun", CELL_TEXT, 3, NULL },
    { "OBJECT", "object", CELL_TEXT, 2, NULL }, { NULL, "object_id", CELL_TEXT, 0, NULL },
    { NULL, "token_id", CELL_TEXT, 0, NULL },   { NULL, "request_id", CELL_TEXT, 0, NULL },
    { NULL, "before", CELL_TEXT, 0, NULL },     { NULL, "after", CELL_TEXT, 0, NULL },
};
/* What it went by then says more than its id. */
static void name_object(json_t *row)
{
    static const char *const names[] = { "name", "cidr" };
    const json_t *was = json_object_get(row, "after");
    const char *user, *name = NULL;
    struct text words;

    if (!json_is_object(was))
        was = json_object_get(row, "before");
    user = json_string_value(json_object_get(was, "user"));
    for (size_t i = 0; i < sizeof names / sizeof *names && !name; i++)
        name = json_string_value(json_object_get(was, names[i]));
    text_init(&words, 1 << 20);
    if (name)
        text_printf(&words, "%s%s%s", user ? user : "", user ? "/" : "", name);
    if (words.len && !words.err)
        (void)json_object_set_new(row, "object", json_string(text_string(&words)));
    else
        (void)json_object_set(row, "object", json_object_get(row, "object_id"));
    text_release(&words);
}

static const struct noun audit = NOUN("entry", "/admin/v1/audit", "id", columns, .prepare = name_object);

enum ending audit_list(struct session *session)
{
    return cmd_list(session, &audit);
}
