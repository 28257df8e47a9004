/*
 * The OpenAPI 3.1 document, made of the tables of nouns and routes. What it says of bodies, parameters and answers is
 * what form.c and query.c hold; tests/e2e/test_openapi.py has schemathesis try the one against the other.
 */
#include <stdio.h>
#include <stdlib.h>

#include "parts.h"

enum { NAME_BYTES = 96, PATH_BYTES = 2 * NAME_BYTES };
#define MS_IN_SECOND INT64_C(1000)
#define VERSION_MAX  ((json_int_t)999999999999999999)

/* Memory may run out at every step: a piece that is missing makes the whole NULL. */
static bool is_short;

static json_t *set(json_t *object, const char *name, json_t *value)
{
    if (!object || !value || json_object_set_new(object, name, value) != 0)
        is_short = true;
    return object;
}

static json_t *add(json_t *list, json_t *value)
{
    if (!list || !value || json_array_append_new(list, value) != 0)
        is_short = true;
    return list;
}

static json_t *say(json_t *object, const char *name, const char *value)
{
    return set(object, name, json_string(value));
}

static json_t *typed(const char *type)
{
    return say(json_object(), "type", type);
}

static json_t *ref(const char *name, const char *suffix)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof path, "#/components/schemas/%s%s", name, suffix);
    return say(json_object(), "$ref", path);
}

/* ---- schemas ---- */

static json_t *text_schema(enum field_kind kind, bool is_given)
{
    const struct field_form *form = &field_forms[kind];
    json_t *schema = typed("string");

    if (form->format)
        say(schema, "format", form->format);
    if (!is_given)
        return schema;
    if (form->pattern)
        say(schema, "pattern", form->pattern);
    else if (kind == FIELD_NOTE || kind == FIELD_TEXT)
        say(schema, "pattern", "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]*$");
    if (form->min_chars)
        set(schema, "minLength", json_integer(form->min_chars));
    return set(schema, "maxLength", json_integer(form->max_chars));
}

static json_t *list_schema(const struct field *field, json_t *items, bool is_given)
{
    json_t *schema = set(typed("array"), "items", items);

    if (is_given)
        set(set(schema, "minItems", json_integer(field->min)), "maxItems", json_integer(field->max));
    return schema;
}

static json_t *words_schema(const char *const *words, bool is_nullable)
{
    json_t *list = json_array();

    for (; *words; words++)
        add(list, json_string(*words));
    if (is_nullable)
        add(list, json_null());
    return set(typed("string"), "enum", list);
}

/* Durations and sizes may be numbers, or text with a unit. */
static json_t *amount_schema(const struct setting *setting, int64_t factor, const char *pattern)
{
    json_t *number = typed("integer"), *text = say(typed("string"), "pattern", pattern);

    set(set(number, "minimum", json_integer(setting->min / factor)), "maximum", json_integer(setting->max / factor));
    if (setting->kind == SETTING_MS) {
        json_decref(number);
        return text;
    }
    return set(json_object(), "oneOf", add(add(json_array(), number), text));
}

static json_t *setting_schema(const struct setting *setting)
{
    switch (setting->kind) {
    case SETTING_BOOL:
        return typed("boolean");
    case SETTING_CHOICE:
        return words_schema(setting->words, false);
    case SETTING_LIST:
        return set(typed("array"), "items", words_schema(setting->words, false));
    case SETTING_SECONDS:
        return amount_schema(setting, MS_IN_SECOND, "^(0|[1-9][0-9]{0,11}) ?[smh]$");
    case SETTING_MS:
        return amount_schema(setting, 1, "^(0|[1-9][0-9]{0,11}) ?(ms|s|m|h)$");
    case SETTING_BYTES:
        return amount_schema(setting, 1, "^(0|[1-9][0-9]{0,11}) ?[KMG]iB$");
    default:
        return set(set(typed("integer"), "minimum", json_integer(setting->min)), "maximum", json_integer(setting->max));
    }
}

/* Of any setting; each by its name as the title. */
static json_t *settings_schema(void)
{
    json_t *list = json_array();

    for (size_t i = 0; i < setting_count; i++) {
        char memory[PATH_BYTES];
        struct text form = text_over(memory, sizeof memory);
        setting_add_form(&settings[i], &form);
        add(list, say(say(setting_schema(&settings[i]), "title", settings[i].name), "description", memory));
    }
    return set(json_object(), "anyOf", list);
}

static json_t *kind_schema(const struct field *field, bool is_given)
{
    static const char *const any[] = { "object", "array", "string", "number", "boolean" };
    json_t *schema;

    switch (field->kind) {
    case FIELD_COUNT:
        schema = typed("integer");
        return set(set(schema, "minimum", json_integer(field->min)), "maximum", json_integer(field->max));
    case FIELD_BOOL:
        return typed("boolean");
    case FIELD_CHOICE:
        return words_schema(field->words, field->use & NULLABLE);
    case FIELD_MODELS:
        return list_schema(field, text_schema(FIELD_MODEL, is_given), is_given);
    case FIELD_RANGES:
        return list_schema(field, text_schema(FIELD_RANGE, is_given), is_given);
    case FIELD_TEXTS:
        return list_schema(field, typed("string"), false);
    case FIELD_KEYS:
        return list_schema(field, ref("KeyImport", ""), is_given);
    case FIELD_OBJECT:
        return typed("object");
    case FIELD_ANY:
        if (is_given)
            return settings_schema();
        schema = json_array();
        for (size_t i = 0; i < sizeof any / sizeof *any; i++)
            add(schema, json_string(any[i]));
        return set(json_object(), "type", schema);
    default:
        return text_schema(field->kind, is_given);
    }
}

static json_t *field_schema(const struct field *field, bool is_given)
{
    json_t *schema = kind_schema(field, is_given);
    json_t *type = json_object_get(schema, "type");

    if (field->use & NULLABLE && json_is_string(type)) {
        json_t *types = add(json_array(), json_copy(type));
        set(schema, "type", add(types, json_string("null")));
    }
    say(schema, "description", field->help);
    if (is_given && field->fallback)
        set(schema, "default", json_loads(field->fallback, JSON_DECODE_ANY, NULL));
    return schema;
}

/* Of a body that is sent. */
static json_t *form_schema(const struct form *form)
{
    json_t *schema = typed("object"), *properties = json_object(), *required = json_array();
    bool has_ends = false;

    for (size_t i = 0; i < form->count; i++) {
        const struct field *field = &form->fields[i];
        if (!(field->use & form->use))
            continue;
        set(properties, field->name, field_schema(field, true));
        if (field->use & REQUIRED && !form->is_patch)
            add(required, json_string(field->name));
        has_ends |= form->excludes && strcmp(field->name, form->excludes[0]) == 0;
    }
    set(schema, "properties", properties);
    set(schema, "additionalProperties", json_false());
    if (json_array_size(required))
        set(schema, "required", required);
    else
        json_decref(required);
    if (form->is_patch)
        set(schema, "minProperties", json_integer(1));
    if (has_ends)
        set(schema, "not", json_pack("{s:[s,s]}", "required", form->excludes[0], form->excludes[1]));
    return schema;
}

/* Of what is answered: all of it is always there. */
static json_t *shown_schema(const struct noun *noun)
{
    json_t *schema = typed("object"), *properties = json_object(), *required = json_array();

    for (size_t i = 0; i < noun->field_count; i++) {
        if (!(noun->fields[i].use & SHOWN))
            continue;
        set(properties, noun->fields[i].name, field_schema(&noun->fields[i], false));
        add(required, json_string(noun->fields[i].name));
    }
    return set(set(schema, "properties", properties), "required", required);
}

static json_t *page_schema(const char *title)
{
    json_t *schema = json_pack("{s:s, s:[s,s], s:{s:{s:s}, s:{s:[s,s], s:s}}}", "type", "object", "required", "data",
                               "next_cursor", "properties", "data", "type", "array", "next_cursor", "type", "string",
                               "null", "description", "what to ask for the next page with; null: this is the last");

    set(json_object_get(json_object_get(schema, "properties"), "data"), "items", ref(title, ""));
    return schema;
}

/* What shows a secret once: null when the answer is given again. */
static json_t *made_schema(const char *title)
{
    json_t *secret = json_pack("{s:s, s:[s], s:{s:{s:[s,s], s:s}}}", "type", "object", "required", "secret",
                               "properties", "secret", "type", "string", "null", "description",
                               "shown here and never again; null: this answer was given before (Idempotency-Key)");

    return set(json_object(), "allOf", add(add(json_array(), ref(title, "")), secret));
}

static const struct {
    const char *title, *json;
} own_schemas[] = {
    { "Problem",
      "{\"type\":\"object\",\"description\":\"RFC "
      "9457\",\"required\":[\"type\",\"title\",\"status\",\"detail\",\"code\","
      "\"request_id\",\"errors\"],\"properties\":{\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},"
      "\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":\"string\"},\"code\":{\"type\":\"string\"},"
      "\"request_id\":{\"type\":\"string\"},\"errors\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":"
      "[\"detail\"],\"properties\":{\"pointer\":{\"type\":\"string\",\"description\":\"of the body, as RFC 6901 has "
      "it\"},"
      "\"parameter\":{\"type\":\"string\",\"description\":\"of the query\"},\"detail\":{\"type\":\"string\"}}}}}}" },
    { "Whoami",
      "{\"type\":\"object\",\"required\":[\"id\",\"name\",\"role\"],\"properties\":{\"id\":{\"type\":\"string\","
      "\"format\":\"uuid\"},\"name\":{\"type\":\"string\"},\"role\":{\"type\":\"string\",\"enum\":[\"viewer\","
      "\"billing\",\"operator\",\"owner\"]}}}" },
    { "KeysImported",
      "{\"type\":\"object\",\"required\":[\"imported\",\"keys\"],\"properties\":{\"imported\":{\"type\":\"integer\"},"
      "\"keys\":{\"type\":\"array\",\"description\":\"those whose secret was made here; empty when the answer is given "
      "again\",\"items\":{\"type\":\"object\",\"required\":[\"user\",\"name\",\"prefix\",\"secret\"],\"properties\":"
      "{\"user\":{\"type\":\"string\"},\"name\":{\"type\":\"string\"},\"prefix\":{\"type\":\"string\"},"
      "\"secret\":{\"type\":\"string\"}}}}}}" },
    { "GatewaysResync", "{\"type\":\"object\",\"required\":[\"gateways\"],\"properties\":{\"gateways\":{\"type\":"
                        "\"array\",\"description\":"
                        "\"the names of those that are told to\",\"items\":{\"type\":\"string\"}}}}" },
    { "Status",
      "{\"type\":\"object\",\"required\":[\"version\",\"leader\",\"database\",\"config_version\",\"gateways\",\"uptime_"
      "s\"],"
      "\"properties\":{\"version\":{\"type\":\"string\"},\"leader\":{\"type\":\"object\"},\"database\":{\"type\":"
      "\"object\",\"required\":[\"up\",\"reason\"],\"properties\":{\"up\":{\"type\":\"boolean\"},\"reason\":{\"type\":"
      "\"string\"}}},\"config_version\":{\"type\":\"integer\"},\"gateways\":{\"type\":\"object\",\"required\":"
      "[\"enrolled\",\"live\",\"behind\"],\"properties\":{\"enrolled\":{\"type\":\"integer\"},\"live\":{\"type\":"
      "\"integer\"},\"behind\":{\"type\":\"integer\"}}},\"uptime_s\":{\"type\":\"integer\"}}}" },
    { "Load",
      "{\"type\":\"object\",\"required\":[\"window_s\",\"gateways\",\"models\",\"users\"],\"properties\":{\"window_s\":"
      "{\"type\":\"number\"},\"gateways\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}},\"models\":{\"type\":"
      "\"array\",\"items\":{\"type\":\"object\"}},\"users\":{\"type\":\"array\",\"items\":{\"type\":\"object\"}}}}" },
    { "Confirmations",
      "{\"type\":\"object\",\"required\":[\"version\",\"confirmed\",\"pending\"],\"properties\":{\"version\":{\"type\":"
      "\"integer\"},\"confirmed\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"required\":[\"name\"],"
      "\"properties\":{\"name\":{\"type\":\"string\"}}}},\"pending\":{\"type\":\"array\",\"items\":{\"type\":"
      "\"object\","
      "\"required\":[\"name\",\"reason\",\"last_seen\",\"may_accept_until\"],\"properties\":{\"name\":{\"type\":"
      "\"string\"},\"reason\":{\"type\":\"string\"},\"last_seen\":{\"type\":[\"string\",\"null\"]},\"may_accept_"
      "until\":"
      "{\"type\":[\"string\",\"null\"],\"description\":\"until then a gateway that hears nothing may go by what it "
      "knows; null: without end\"}}}}}}" },
};

static void add_noun(json_t *schemas, const struct noun *noun)
{
    char name[NAME_BYTES];

    set(schemas, noun->title, shown_schema(noun));
    (void)snprintf(name, sizeof name, "%sPage", noun->title);
    set(schemas, name, page_schema(noun->title));
}

static json_t *schemas_make(void)
{
    json_t *schemas = json_object();
    const struct form import = { "KeyImport", noun_key.fields, noun_key.field_count, IMPORTED, form_ends, false };

    for (size_t i = 0; i < noun_count; i++)
        add_noun(schemas, nouns[i]);
    for (size_t i = 0; i < sizeof own_schemas / sizeof *own_schemas; i++)
        set(schemas, own_schemas[i].title, json_loads(own_schemas[i].json, 0, NULL));
    for (size_t i = 0; i < route_count; i++) {
        char made[NAME_BYTES];
        struct form form;
        if (routes[i].traits & HAS_SECRET) {
            (void)snprintf(made, sizeof made, "%sMade", routes[i].noun->title);
            set(schemas, made, made_schema(routes[i].noun->title));
        }
        if (!route_form(&routes[i], &form))
            continue;
        (void)snprintf(made, sizeof made, "%s%s", form.title,
                       routes[i].form  ? ""
                       : form.is_patch ? "Update"
                                       : "Create");
        set(schemas, made, form_schema(&form));
    }
    set(schemas, "KeyImport", form_schema(&import));
    return schemas;
}

/* ---- routes ---- */

static json_t *parameter(const char *in, const char *name, bool is_required, const char *help, json_t *schema)
{
    json_t *parameter = json_object();

    say(say(parameter, "name", name), "in", in);
    set(parameter, "required", json_boolean(is_required));
    return set(say(parameter, "description", help), "schema", schema);
}

static const struct field *key_field(const struct noun *noun)
{
    const struct field *field = noun->fields;

    while (strcmp(field->name, noun->key) != 0)
        field++;
    return field;
}

static json_t *id_schema(const struct route *route)
{
    json_t *schema;

    if (!route->noun)
        return json_pack("{s:s, s:i, s:I}", "type", "integer", "minimum", 0, "maximum", VERSION_MAX);
    if (route->noun == &noun_setting && route->method == METHOD_PUT) {
        schema = json_array();
        for (size_t i = 0; i < setting_count; i++)
            add(schema, json_string(settings[i].name));
        return set(typed("string"), "enum", schema);
    }
    if (strcmp(route->noun->key, "id") != 0)
        return text_schema(key_field(route->noun)->kind, true);
    schema = json_pack("{s:s, s:i, s:i}", "type", "string", "minLength", 1, "maxLength", ID_MAX_CHARS);
    return schema;
}

static json_t *list_parameters(json_t *parameters, const struct noun *noun)
{
    add(parameters, parameter("query", "limit", false, "entries a page",
                              json_pack("{s:s, s:i, s:i, s:i}", "type", "integer", "minimum", 1, "maximum",
                                        LIST_LIMIT_MAX, "default", LIST_LIMIT)));
    add(parameters,
        parameter("query", "cursor", false, "next_cursor of the page before, with the same filters",
                  json_pack("{s:s, s:s, s:i}", "type", "string", "format", "cursor", "maxLength", CURSOR_MAX_BYTES)));
    for (size_t i = 0; i < noun->filter_count; i++)
        add(parameters, parameter("query", noun->filters[i].name, false, noun->filters[i].help,
                                  kind_schema(&noun->filters[i], true)));
    return parameters;
}

static json_t *parameters_make(const struct route *route)
{
    json_t *parameters = json_array();

    if (strstr(route->path, "{id}"))
        add(parameters,
            parameter("path", "id", true, route->noun ? route->noun->id_help : "a version", id_schema(route)));
    if (route->traits & IS_LIST)
        (void)list_parameters(parameters, route->noun);
    if (route->traits & TAKES_WAIT)
        add(parameters, parameter("query", "wait", false, "how long to wait for them, 60s at most",
                                  json_pack("{s:s, s:s, s:s}", "type", "string", "pattern",
                                            "^([0-9]{1,4}ms|[0-9]s|[1-5][0-9]s)$", "default", "0s")));
    if (route->traits & (NEEDS_VERSION | TAKES_VERSION))
        add(parameters, parameter("header", "If-Match", route->traits & NEEDS_VERSION,
                                  "the version that is meant, in quotes, as ETag says it; * for whichever there is",
                                  json_pack("{s:s, s:s}", "type", "string", "pattern", "^(\"[1-9][0-9]{0,8}\"|\\*)$")));
    if (route->traits & TAKES_REPLAYS)
        add(parameters, parameter("header", "Idempotency-Key", false,
                                  "for a day, the same request with the same key gets the same answer and does nothing",
                                  json_pack("{s:s, s:s}", "type", "string", "pattern", "^[!-~]{1,255}$")));
    return parameters;
}

static json_t *body_make(const struct route *route)
{
    char name[NAME_BYTES];
    struct form form;
    json_t *content = json_object();

    if (!route_form(route, &form)) {
        json_decref(content);
        return NULL;
    }
    (void)snprintf(name, sizeof name, "%s%s", form.title, route->form ? "" : form.is_patch ? "Update" : "Create");
    set(content, "application/json", set(json_object(), "schema", ref(name, "")));
    if (form.is_patch)
        set(content, "application/merge-patch+json", set(json_object(), "schema", ref(name, "")));
    return set(set(json_object(), "content", content), "required", json_boolean(!(route->traits & MAY_MISS_BODY)));
}

static json_t *header(const char *help, bool is_required)
{
    json_t *header = say(json_object(), "description", help);

    set(header, "required", json_boolean(is_required));
    return set(header, "schema", typed("string"));
}

static json_t *good_answer(const struct route *route)
{
    json_t *answer = say(json_object(), "description", route->traits & IS_EMPTY ? "done" : "what there is now");
    json_t *headers = set(json_object(), "X-Request-Id", header("the request's name in logs", true));
    json_t *schema;
    bool is_plain = route->answer && strcmp(route->answer, "object") == 0;

    if (route->traits & IS_CHANGE)
        set(headers, "Qwen-Config-Version",
            header("the version of the configuration that has it: wait for it at "
                   "/admin/v1/confirmations",
                   true));
    if (route->noun && !(route->traits & (IS_LIST | IS_EMPTY)))
        set(headers, "ETag", header("its version, in quotes: for If-Match", false));
    if (route->traits & IS_MADE)
        set(headers, "Location", header("where it is", true));
    if (route->traits & TAKES_REPLAYS)
        set(headers, "Idempotency-Replayed", header("true: this answer was given before", false));
    set(answer, "headers", headers);
    if (route->traits & IS_EMPTY)
        return answer;
    if (is_plain)
        schema = typed("object");
    else if (route->answer)
        schema = ref(route->answer, "");
    else
        schema = ref(route->noun->title, route->traits & IS_LIST ? "Page" : route->traits & HAS_SECRET ? "Made" : "");
    return set(answer, "content", set(json_object(), "application/json", set(json_object(), "schema", schema)));
}

/* Which refusals the route knows, beside those that everything may meet. */
static bool may_answer(const struct route *route, unsigned status)
{
    bool is_change = route->traits & IS_CHANGE, has_id = strstr(route->path, "{id}");
    struct form form;

    switch (status) {
    case 401:
    case 429:
        return route->roles != EVERYBODY;
    case 403:
        return route->roles != EVERYBODY && route->roles != READERS;
    case 404:
        return has_id;
    case 405:
        return false;
    case 409:
    case 410:
        return is_change;
    case 415:
        return route_form(route, &form);
    case 422:
        return route->traits & TAKES_REPLAYS;
    case 428:
        return route->traits & NEEDS_VERSION;
    default:
        return true;
    }
}

static json_t *answers_make(const struct route *route)
{
    json_t *answers = json_object();
    unsigned good = route->traits & IS_EMPTY ? 204 : route->traits & IS_MADE ? 201 : 200;
    char status[8];

    (void)snprintf(status, sizeof status, "%u", good);
    set(answers, status, good_answer(route));
    for (size_t i = 0; i < problem_count; i++) {
        (void)snprintf(status, sizeof status, "%u", problems[i].status);
        if (!may_answer(route, problems[i].status) || json_object_get(answers, status))
            continue;
        set(answers, status,
            set(say(json_object(), "description", reason_of(problems[i].status)), "content",
                set(json_object(), "application/problem+json", set(json_object(), "schema", ref("Problem", "")))));
    }
    return answers;
}

static json_t *roles_make(unsigned roles)
{
    static const char *const names[] = { "viewer", "billing", "operator", "owner" };
    json_t *list = json_array();

    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (roles & 1U << i)
            add(list, json_string(names[i]));
    return list;
}

static json_t *route_make(const struct route *route)
{
    json_t *made = json_object(), *body = body_make(route);

    say(say(made, "operationId", route->id), "summary", route->help);
    if (route->roles == EVERYBODY)
        set(made, "security", json_array());
    else
        set(made, "x-roles", roles_make(route->roles));
    set(made, "parameters", parameters_make(route));
    if (body)
        set(made, "requestBody", body);
    return set(made, "responses", answers_make(route));
}

static json_t *paths_make(void)
{
    static const char *const names[METHODS] = { "get", "post", "put", "patch", "delete" };
    json_t *paths = json_object();

    for (size_t i = 0; i < route_count; i++) {
        json_t *path = json_object_get(paths, routes[i].path);
        if (!path) {
            set(paths, routes[i].path, json_object());
            path = json_object_get(paths, routes[i].path);
        }
        set(path, names[routes[i].method], route_make(&routes[i]));
    }
    return paths;
}

json_t *openapi_make(const char *version)
{
    static const char help[] =
        "Whoever asks has an admin token. Times are RFC 3339 in UTC, durations such as \"90d\", \"24h\", \"30m\" or "
        "\"15s\". What is changed raises the version of the configuration, which the answer names.";
    json_t *document = json_object(), *parts = json_object(), *bearer;

    is_short = false;
    say(document, "openapi", "3.1.0");
    set(document, "info",
        json_pack("{s:s, s:s, s:s, s:{s:s, s:s}}", "title", "Qwen Gateway, admin API", "version", version,
                  "description", help, "license", "name", "Apache-2.0", "identifier", "Apache-2.0"));
    set(document, "security", json_pack("[{s:[]}]", "token"));
    set(document, "paths", paths_make());
    bearer = json_pack("{s:{s:s, s:s, s:s}}", "token", "type", "http", "scheme", "bearer", "description",
                       "an admin token: qwen-control init makes the first one");
    set(parts, "schemas", schemas_make());
    set(document, "components", set(parts, "securitySchemes", bearer));
    if (!is_short)
        return document;
    json_decref(document);
    return NULL;
}
