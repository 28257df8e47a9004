/* Keys: what lets callers in. */
#include "cmd_key.h"

#include <stdlib.h>

#include "clock.h"

static const struct column columns[] = {
    { "USER", "user", CELL_TEXT, 0, NULL },
    { "NAME", "name", CELL_TEXT, 0, NULL },
    { "ID", "prefix", CELL_TEXT, 2, "-" },
    { NULL, "id", CELL_TEXT, 0, NULL },
    { "TEAM", "team", CELL_TEXT, 8, NULL },
    { "STATE", "state", CELL_STATE, 1, NULL },
    { "EXPIRES", "expires_at", CELL_TIME, 3, "never" },
    { "MODELS", "models", CELL_TEXT, 5, "all" },
    { "RPM", "rpm", CELL_NUMBER, 4, "-" },
    { NULL, "max_concurrent", CELL_NUMBER, 0, NULL },
    { "ALLOW", "allow", CELL_TEXT, 6, "everywhere" },
    { NULL, "delegate", CELL_YES, 0, NULL },
    { NULL, "replaced_by", CELL_TEXT, 0, NULL },
    { NULL, "note", CELL_TEXT, 0, NULL },
    { NULL, "version", CELL_NUMBER, 0, NULL },
    { NULL, "created_at", CELL_TIME, 0, NULL },
    { NULL, "updated_at", CELL_TIME, 0, NULL },
    { NULL, "revoked_at", CELL_TIME, 0, NULL },
};
const struct noun key_noun = NOUN("key", "/admin/v1/keys", "name", columns);

/* Who pastes a whole secret means its public id, which is all that is sent of it. */
static void find_public_id(struct session *session)
{
    enum { BEFORE = 3, LETTERS = 10 };
    static char public_id[LETTERS + 1];
    const char *typed = session->call.argument;

    if (strncmp(typed, "qk_", BEFORE) != 0 || strlen(typed) < BEFORE + LETTERS)
        return;
    memcpy(public_id, typed + BEFORE, LETTERS);
    public_id[LETTERS] = 0;
    session->call.argument = public_id;
}

enum ending key_create(struct session *session)
{
    json_t *body = cmd_body(session);
    char *dumped = json_dumps(body, JSON_COMPACT);
    int64_t begun_ms = clock_ms();
    const char *expires;
    struct text words, name;
    struct answer answer;
    enum ending ending, confirmed = END_DONE;
    const struct ask ask = {
        .method = "POST",
        .path = key_noun.path,
        .body = slice_of(dumped),
        .is_keyed = true,
        .hint_at = "/user",
        .hint = "--create-user makes it",
    };

    json_decref(body);
    ending = cmd_ask(session, &ask, &answer);
    free(dumped);
    if (ending != END_DONE)
        return ending;
    text_init(&words, 1 << 12);
    text_init(&name, 1 << 12);
    cmd_add_name(&key_noun, answer.body, &name);
    expires = json_string_value(json_object_get(answer.body, "expires_at"));
    text_printf(&words, "key %s%s%s; this is its secret, which is not shown again:", text_string(&name),
                expires ? ", valid until " : "", expires ? expires : "");
    ending = cmd_print_secret(session, &key_noun, &answer, text_string(&words));
    if (ending == END_DONE && call_span_ms(&session->call, "wait") > 0) {
        text_clear(&words);
        text_printf(&words, "key %s was made", text_string(&name));
        confirmed = cmd_confirm(session, &answer, begun_ms, text_string(&words));
    }
    text_release(&words);
    text_release(&name);
    answer_release(&answer);
    return ending == END_DONE ? confirmed : ending;
}

enum ending key_list(struct session *session)
{
    return cmd_list(session, &key_noun);
}

enum ending key_show(struct session *session)
{
    find_public_id(session);
    return cmd_show(session, &key_noun);
}

enum ending key_update(struct session *session)
{
    find_public_id(session);
    return cmd_update(session, &key_noun, NULL);
}

/* To ask one thing of one key. */
static enum ending ask_of_key(struct session *session, const char *what, json_t *body,
                              enum ending (*asking)(struct session *, const struct ask *, struct answer *),
                              struct answer *ret_answer)
{
    char *dumped = json_dumps(body, JSON_COMPACT);
    struct text path;
    enum ending ending;

    json_decref(body);
    text_init(&path, 1 << 16);
    cmd_add_path(&key_noun, session->call.argument, what, &path);
    ending = asking(
        session,
        &(struct ask){ .method = "POST", .path = text_string(&path), .body = slice_of(dumped), .is_keyed = true },
        ret_answer);
    text_release(&path);
    free(dumped);
    return ending;
}

enum ending key_revoke(struct session *session)
{
    bool cuts = call_says_yes(&session->call, "cut");
    struct text words, name;
    struct answer answer;
    int64_t begun_ms;
    enum ending ending = END_REFUSED;
    bool is_sure;

    find_public_id(session);
    text_init(&words, 1 << 12);
    text_printf(&words, "Revoke key %s for good%s?", session->call.argument,
                cuts ? ", and end what it has running" : "");
    is_sure = cmd_is_sure(session, text_string(&words), &ending);
    begun_ms = clock_ms();
    if (is_sure)
        ending = ask_of_key(session, "/revoke", json_pack("{s:b}", "cut", cuts), cmd_take_away, &answer);
    if (is_sure && ending == END_DONE) {
        text_init(&name, 1 << 12);
        if (answer.body)
            cmd_add_name(&key_noun, answer.body, &name);
        else
            text_add_string(&name, session->call.argument);
        text_clear(&words);
        text_printf(&words, "key %s is revoked", text_string(&name));
        ending = cmd_finish(session, &key_noun, &answer, begun_ms, text_string(&words));
        text_release(&name);
        answer_release(&answer);
    }
    text_release(&words);
    return ending;
}

enum ending key_rotate(struct session *session)
{
    const char *keep = call_text(&session->call, "keep");
    int64_t begun_ms = clock_ms();
    struct text words, name;
    struct answer answer;
    enum ending ending, confirmed = END_DONE;

    find_public_id(session);
    ending = ask_of_key(session, "/rotate", json_pack("{s:s}", "keep_for", keep), cmd_ask, &answer);
    if (ending != END_DONE)
        return ending;
    text_init(&words, 1 << 12);
    text_init(&name, 1 << 12);
    cmd_add_name(&key_noun, answer.body, &name);
    text_printf(&words, "key %s; this is its new secret, which is not shown again. The old one ", text_string(&name));
    if (call_span_ms(&session->call, "keep") > 0)
        text_printf(&words, "lets in for %s more:", keep);
    else
        text_add_literal(&words, "is revoked:");
    ending = cmd_print_secret(session, &key_noun, &answer, text_string(&words));
    if (ending == END_DONE && call_span_ms(&session->call, "wait") > 0) {
        text_clear(&words);
        text_printf(&words, "key %s has its new secret", text_string(&name));
        confirmed = cmd_confirm(session, &answer, begun_ms, text_string(&words));
    }
    text_release(&words);
    text_release(&name);
    answer_release(&answer);
    return ending == END_DONE ? confirmed : ending;
}
