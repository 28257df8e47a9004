/* Gateways: where callers come in. They join with a secret that is good once. */
#include "cmd.h"

static const struct column columns[] = {
    { "NAME", "name", CELL_TEXT, 0, NULL },
    { NULL, "id", CELL_TEXT, 0, NULL },
    { "ENROLLED", "enrolled", CELL_YES, 2, NULL },
    { "APPLIED", "applied_version", CELL_NUMBER, 1, NULL },
    { "DESIRED", "desired_version", CELL_NUMBER, 3, NULL },
    { "LAST SEEN", "last_seen", CELL_TIME, 4, "never" },
    { "SOFTWARE", "software", CELL_TEXT, 6, NULL },
    { "ADDRESS", "address", CELL_TEXT, 5, NULL },
    { "ERROR", "apply_error", CELL_TEXT, 7, NULL },
    { "NOTE", "note", CELL_TEXT, 8, NULL },
    { NULL, "enroll_expires_at", CELL_TIME, 0, NULL },
    { NULL, "features", CELL_TEXT, 0, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },
    { NULL, "created_at", CELL_TIME, 0, NULL },
    { NULL, "removed_at", CELL_TIME, 0, NULL },
};
static const struct noun gateway = NOUN("gateway", "/admin/v1/gateways", "name", columns);

enum ending gateway_enroll(struct session *session)
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
    ending = cmd_ask(
        session, &(struct ask){ .method = "POST", .path = gateway.path, .body = slice_of(dumped), .is_keyed = true },
        &answer);
    free(dumped);
    if (ending != END_DONE)
        return ending;
    expires = json_string_value(json_object_get(answer.body, "enroll_expires_at"));
    text_init(&words, 1 << 12);
    text_printf(&words, "gateway %s may join once with this secret%s%s:", session->call.argument,
                expires ? ", until " : "", expires ? expires : "");
    ending = cmd_print_secret(session, &gateway, &answer, text_string(&words));
    text_release(&words);
    answer_release(&answer);
    return ending;
}

enum ending gateway_list(struct session *session)
{
    return cmd_list(session, &gateway);
}

enum ending gateway_show(struct session *session)
{
    return cmd_show(session, &gateway);
}

enum ending gateway_remove(struct session *session)
{
    return cmd_delete(session, &gateway, "was removed");
}
