/* Admin tokens: who may use this API. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },
    { NULL, "id", CELL_TEXT, 0, NULL },
    { "ROLE", "role", CELL_TEXT, 1, NULL },
    { "EXPIRES", "expires_at", CELL_TIME, 2, NULL },
    { "LAST USED", "last_used_at", CELL_TIME, 4, "never" },
    { "REVOKED", "revoked_at", CELL_TIME, 3, NULL },
    { "CREATED", "created_at", CELL_TIME, 5, NULL },
};
static const struct noun admin_token = NOUN("admin token", "/admin/v1/admin-tokens", "name", columns);

enum ending admin_token_create(struct session *session)
{
    json_t *body = cmd_body(session);
    char *dumped;
    struct text words;
    struct answer answer;
    const char *expires;
    enum ending ending;

    (void)json_object_set_new(body, "name", json_string(session->call.argument));
    dumped = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    ending =
        cmd_ask(session,
                &(struct ask){ .method = "POST", .path = admin_token.path, .body = slice_of(dumped), .is_keyed = true },
                &answer);
    free(dumped);
    if (ending != END_DONE)
        return ending;
    expires = json_string_value(json_object_get(answer.body, "expires_at"));
    text_init(&words, 1 << 12);
    text_printf(&words, "admin token %s, role %s%s%s; it is not shown again:", session->call.argument,
                call_text(&session->call, "role"), expires ? ", valid until " : "", expires ? expires : "");
    ending = cmd_print_secret(session, &admin_token, &answer, text_string(&words));
    text_release(&words);
    answer_release(&answer);
    return ending;
}

enum ending admin_token_list(struct session *session)
{
    return cmd_list(session, &admin_token);
}

enum ending admin_token_revoke(struct session *session)
{
    return cmd_delete(session, &admin_token, "was revoked");
}
