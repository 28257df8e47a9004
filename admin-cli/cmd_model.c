/* Models: what callers may name, and how it is run. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },
    { "ALIAS OF", "alias_of", CELL_TEXT, 2, NULL },
    { "BACKEND MODEL", "backend_model", CELL_TEXT, 3, NULL },
    { "NUM_CTX", "num_ctx", CELL_NUMBER, 1, NULL },
    { "KEEP ALIVE", "keep_alive", CELL_TEXT, 5, NULL },
    { "THINK", "think", CELL_TEXT, 6, NULL },
    { "PRELOAD", "preload", CELL_YES, 4, NULL },
    { NULL, "max_prompt_chars", CELL_NUMBER, 0, NULL },
    { NULL, "max_system_chars", CELL_NUMBER, 0, NULL },
    { "NOTE", "note", CELL_TEXT, 7, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },
    { NULL, "created_at", CELL_TIME, 0, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
};
static const struct noun model = NOUN("model", "/admin/v1/models", "name", columns);

/* The flags' words for it are three: on, off, and neither. */
static json_t *body_of(const struct session *session)
{
    json_t *body = cmd_body(session);
    const char *think = json_string_value(json_object_get(body, "think"));

    if (think)
        (void)json_object_set_new(body, "think",
                                  strcmp(think, "default") == 0 ? json_null() : json_boolean(strcmp(think, "on") == 0));
    return body;
}

enum ending model_create(struct session *session)
{
    return cmd_create(session, &model, body_of(session));
}

enum ending model_list(struct session *session)
{
    return cmd_list(session, &model);
}

enum ending model_show(struct session *session)
{
    return cmd_show(session, &model);
}

enum ending model_update(struct session *session)
{
    return cmd_update(session, &model, body_of(session));
}

enum ending model_delete(struct session *session)
{
    return cmd_delete(session, &model, "was deleted");
}
