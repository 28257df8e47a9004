#include "problem.h"

#include <jansson.h>

enum { MAX_DETAILS = 5 };

/* What to do about it, behind the server's own words. */
static const struct {
    const char *code, *advice;
} advices[] = {
    { "unauthorized", "run `qwadm login` with a token that is valid" },
    { "version_conflict", "look at it again, then repeat" },
    { "database_away", "try again when its database is back" },
};

static const char *string_of(const json_t *object, const char *field)
{
    const char *value = json_string_value(json_object_get(object, field));

    return value ? value : "";
}

static void add_sentence(struct text *out, const char *words)
{
    size_t len = strlen(words);

    while (len && (words[len - 1] == '.' || words[len - 1] == ' '))
        len--;
    text_add(out, words, len);
}

/* "/user there is no such user": a pointer into what was sent stands before what is wrong there. */
static void add_place(struct text *out, const char *detail)
{
    size_t len = strcspn(detail, " ");

    text_add(out, detail + 1, len - 1);
    text_add_literal(out, ": ");
    add_sentence(out, detail[len] ? detail + len + 1 : "is wrong");
}

/* What is listed and not already said. */
static void add_details(const json_t *errors, const char *detail, struct text *why)
{
    size_t count = json_array_size(errors);

    for (size_t i = 0; i < count && i < MAX_DETAILS; i++) {
        const json_t *each = json_array_get(errors, i);
        const char *words = string_of(each, "detail");
        const char *pointer = *string_of(each, "pointer") ? string_of(each, "pointer") : string_of(each, "parameter");

        if (!*words || strstr(detail, words))
            continue;
        text_printf(why, "; %s%s", *pointer ? pointer + (*pointer == '/') : "", *pointer ? ": " : "");
        add_sentence(why, words);
    }
    if (count > MAX_DETAILS)
        text_printf(why, "; and %zu more", count - MAX_DETAILS);
}

/* What the asker knows to do about what is wrong in one place of what it sent. */
static void add_hint(const json_t *errors, const struct ask *ask, struct text *why)
{
    size_t i;
    json_t *each;

    json_array_foreach(errors, i, each)
    {
        if (ask->hint && strcmp(string_of(each, "pointer"), ask->hint_at) == 0) {
            text_printf(why, "; %s", ask->hint);
            return;
        }
    }
}

static void say_problem(const json_t *body, const struct ask *ask, struct answer *answer, struct text *why)
{
    const char *detail = string_of(body, "detail"), *code = string_of(body, "code"),
               *request = string_of(body, "request_id");

    if (!*detail)
        detail = string_of(body, "title");
    (void)snprintf(answer->code, sizeof answer->code, "%s", code);
    if (*detail == '/')
        add_place(why, detail);
    else if (*detail)
        add_sentence(why, detail);
    else
        text_printf(why, "the server refused it (%u)", answer->status);
    add_details(json_object_get(body, "errors"), detail, why);
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++)
        if (strcmp(advices[i].code, code) == 0)
            text_printf(why, "; %s", advices[i].advice);
    add_hint(json_object_get(body, "errors"), ask, why);
    if (answer->status >= 500 && *request)
        text_printf(why, " (request %s)", request);
}

enum err problem_read(const struct ask *ask, struct slice body, bool is_json, struct answer *answer, struct text *why)
{
    json_error_t error;
    bool is_good = answer->status >= 200 && answer->status < 300;

    if (is_good && !body.len && answer->status == 204)
        return ERR_OK;
    if (!is_json)
        return ERR_BAD;
    answer->body = json_loadb(body.at, body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json_is_object(answer->body))
        return ERR_BAD;
    if (is_good)
        return ERR_OK;
    if (!json_is_string(json_object_get(answer->body, "code")) &&
        !json_is_string(json_object_get(answer->body, "title")))
        return ERR_BAD;
    say_problem(answer->body, ask, answer, why);
    return ERR_REFUSED;
}
