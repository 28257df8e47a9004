/* Bodies held against the fields of their nouns. */
#include <stdlib.h>

#include "check.h"
#include "parts.h"

static struct form form_of(const char *id)
{
    struct form form = { 0 };

    for (size_t i = 0; i < route_count; i++)
        if (strcmp(routes[i].id, id) == 0)
            CHECK(route_form(&routes[i], &form));
    CHECK(form.title);
    return form;
}

/* What the ledger is told, or "POINTER DETAIL" of each complaint, one a line. */
static void say(const char *id, const char *body, struct text *out)
{
    struct form form = form_of(id);
    struct complaints complaints;
    json_t *given = json_loads(body, JSON_ALLOW_NUL | JSON_DECODE_ANY, NULL), *made, *list, *entry;
    size_t i;

    CHECK_ROW(given, body);
    CHECK(fields_open());
    complaints_init(&complaints);
    made = form_read(&form, given, &complaints);
    if (made) {
        char *json = json_dumps(made, JSON_COMPACT | JSON_SORT_KEYS);
        text_add_string(out, json);
        free(json);
    } else {
        struct text array;
        text_init(&array, 1 << 20);
        text_printf(&array, "[%s]", text_string(&complaints.list));
        list = json_loads(text_string(&array), 0, NULL);
        CHECK_ROW(list, text_string(&array));
        json_array_foreach(list, i, entry)
            text_printf(out, "%s%s %s", i ? "\n" : "", json_string_value(json_object_get(entry, "pointer")),
                        json_string_value(json_object_get(entry, "detail")));
        json_decref(list);
        text_release(&array);
    }
    json_decref(made);
    json_decref(given);
    complaints_release(&complaints);
    fields_close();
}

TEST(a_body_is_taken_or_every_mistake_in_it_is_named)
{
    static const struct {
        const char *id, *body, *said;
    } rows[] = {
        { "createUser", "{\"name\":\"alice\"}", "{\"name\":\"alice\"}" },
        { "createUser", "{\"name\":\"alice\",\"team\":null}", "{\"name\":\"alice\"}" },
        { "updateUser", "{\"team\":null}", "{\"team\":null}" },
        { "updateUser", "{}", " holds no field: nothing would change" },
        { "createUser", "{}", "/name is missing" },
        { "createUser", "[]", " must be an object, not a list" },
        { "createUser", "7", " must be an object, not a number" },
        { "createUser", "{\"name\":\"Alice\",\"weight\":0,\"class\":\"slow\",\"disabled\":1,\"a~/b\":1}",
          "/name must be a name of lower-case letters, digits and . _ @ + - (128 at most)\n"
          "/weight must be a whole number from 1 to 1000\n/class must be interactive or batch\n"
          "/disabled must be true or false, not a number\n/a~0~1b is not known here" },
        { "createUser", "{\"name\":null}", "/name must be text, not null" },
        { "createUser", "{\"name\":\"a\",\"id\":\"x\"}", "/id is not known here" },
        { "createUser", "{\"name\":\"a\",\"weight\":7.0}", "{\"name\":\"a\",\"weight\":7}" },
        { "createUser", "{\"name\":\"a\",\"weight\":7.5}", "/weight must be a whole number from 1 to 1000" },
        { "createUser", "{\"name\":\"a\",\"weight\":9007199254740993.0}",
          "/weight must be a whole number from 1 to 1000" },
        { "createUser", "{\"name\":\"a\\u0000b\"}",
          "/name must be a name of lower-case letters, digits and . _ @ + - (128 at most)" },
        { "createUser", "{\"name\":\"a\",\"note\":\"x\\u0000\"}",
          "/note must be one line of text without control characters (1000 characters at most)" },
        { "createUser", "{\"name\":\"a\",\"note\":\"\\u202e\"}",
          "/note must be one line of text without control characters (1000 characters at most)" },
        { "createUser", "{\"name\":\"a\",\"note\":\"\\u2029\"}",
          "/note must be one line of text without control characters (1000 characters at most)" },
        { "createUser", "{\"name\":\"a\",\"note\":\"'; \\u00e9 \\u2030 \\u206a\"}",
          "{\"name\":\"a\",\"note\":\"'; \xc3\xa9 \xe2\x80\xb0 \xe2\x81\xaa\"}" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"models\":[\"qwen3:32b\",\"a/b/c:d\",\"h:1/n/m:t\"]}",
          "{\"models\":[\"qwen3:32b\",\"a/b/c:d\",\"h:1/n/m:t\"],\"name\":\"b\",\"user\":\"a\"}" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"models\":[\"a/b/c/d\",\"../x\",7]}",
          "/models/0 must be the name of a model, such as qwen3:32b (200 characters at most)\n"
          "/models/1 must be the name of a model, such as qwen3:32b (200 characters at most)\n"
          "/models/2 must be text, not a number" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"models\":[]}", "/models must have 1 to 1000 entries" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"allow\":[\"10.0.0.1/8\"]}",
          "/allow/0 is wrong: \"10.0.0.1/8\" has bits set behind its mask: did you mean 10.0.0.0/8?" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"expires_in\":\"90d\",\"expires_at\":\"2030-01-01T00:00:00Z\"}",
          "/expires_in cannot stand beside expires_at" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"expires_in\":\"0s\"}",
          "/expires_in must be from 1s to 3153600000s" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"expires_at\":\"2030-02-30T00:00:00Z\"}",
          "/expires_at must be a time as RFC 3339 has it, such as \"2026-12-24T18:00:00Z\"" },
        { "createKey", "{\"user\":\"a\",\"name\":\"b\",\"hash\":\"x\",\"secret\":\"y\"}",
          "/hash is not known here\n/secret is not known here" },
        { "importKeys", "{\"keys\":[{\"user\":\"a\",\"name\":\"b\"},{\"user\":\"a\",\"rpm\":-1},7]}",
          "/keys/1/rpm must be a whole number from 1 to 1000000\n/keys/1/name is missing\n/keys/2 must be an object, "
          "not a "
          "number" },
        { "importKeys", "{\"keys\":{}}", "/keys must be a list, not an object" },
        { "createBackend", "{\"name\":\"gpu1\",\"url\":\"http://[::1]:11434/\"}",
          "{\"name\":\"gpu1\",\"url\":\"http://[::1]:11434/\"}" },
        { "putSetting", "{\"value\":{\"a\":[1,null,\"x\"]}}", "{\"value\":{\"a\":[1,null,\"x\"]}}" },
        { "putSetting", "{\"value\":null}", "/value must be anything but null, not null" },
        { "putSetting", "{\"value\":{\"a\":[\"x\\u0000\"]}}", "/value must not hold the character U+0000" },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct text out;
        text_init(&out, 1 << 20);
        say(rows[i].id, rows[i].body, &out);
        CHECK_STR(text_string(&out), out.len, rows[i].said);
        text_release(&out);
    }
}

TEST(a_backend_is_where_a_gateway_would_take_it)
{
    static const struct {
        const char *url;
        bool is_good;
    } rows[] = {
        { "http://localhost:11434", true },
        { "http://10.0.0.5", true },
        { "http://10.example.com/", true },
        { "http://gpu_1:65535", true },
        { "http://[2001:db8::5]:80", true },
        { "https://gpu1:11434", false },
        { "http://user@gpu1", false },
        { "http://gpu1:0", false },
        { "http://gpu1:65536", false },
        { "http://gpu1:080", false },
        { "http://1.2.3", false },
        { "http://1.2.3.256", false },
        { "http://[1]", false },
        { "http://[::1", false },
        { "http://gpu1/path", false },
        { "http://gpu1?x", false },
        { "http://", false },
        { "http:// ", false },
        { "http://gpu1\n", false },
    };
    const struct field *field = NULL;

    for (size_t i = 0; i < noun_backend.field_count; i++)
        if (strcmp(noun_backend.fields[i].name, "url") == 0)
            field = &noun_backend.fields[i];
    CHECK(field && fields_open());
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char memory[COMPLAINT_MAX_BYTES];
        struct text why = text_over(memory, sizeof memory);
        CHECK_ROW(field_takes(field, slice_of(rows[i].url), &why) == rows[i].is_good, rows[i].url);
    }
    fields_close();
}

TEST(many_complaints_are_counted_but_not_all_are_told)
{
    struct form form = form_of("importKeys");
    struct complaints complaints;
    json_t *list = json_array(), *given;

    for (int i = 0; i < 1000; i++)
        (void)json_array_append_new(list, json_object());
    given = json_pack("{s:o}", "keys", list);
    CHECK(fields_open());
    complaints_init(&complaints);
    CHECK(!form_read(&form, given, &complaints));
    CHECK_EQ(complaints.count, 2000);
    CHECK_STR(text_string(&complaints.sentence), complaints.sentence.len, "/keys/0/user is missing");
    CHECK(complaints.list.len < 4096 && !complaints.list.err);
    complaints_release(&complaints);
    json_decref(given);
    fields_close();
}

TEST(a_query_has_filters_a_limit_and_a_cursor)
{
    struct complaints complaints;
    struct query query;
    struct text text;

    CHECK(fields_open());
    text_init(&text, 4096);
    query_init(&query);
    complaints_init(&complaints);
    query_read(&query, SLICE("user=alice&state=active&limit=7&&name="), &noun_key, false, &complaints);
    CHECK_EQ(complaints.count, 1); /* no key has an empty name */
    complaints_release(&complaints);
    query_release(&query);

    query_init(&query);
    complaints_init(&complaints);
    query_read(&query, SLICE("state=active&user=alice&limit=7"), &noun_key, false, &complaints);
    CHECK_EQ(complaints.count, 0);
    CHECK_EQ(query.limit, 7);
    CHECK_STR(text_string(&query.scope), query.scope.len, "key?{\"state\":\"active\",\"user\":\"alice\"}");
    text_add_literal(&text, "user=alice&state=active&cursor=");
    cursor_write(text_slice(&query.scope), SLICE("here"), &text);
    complaints_release(&complaints);
    query_release(&query);

    query_init(&query);
    complaints_init(&complaints);
    query_read(&query, text_slice(&text), &noun_key, false, &complaints);
    CHECK_EQ(complaints.count, 0);
    CHECK_STR(text_string(&query.after), query.after.len, "here");
    complaints_release(&complaints);
    query_release(&query);
    text_release(&text);
    fields_close();
}

TEST(the_document_can_be_made_and_names_everything_that_it_refers_to)
{
    json_t *document = openapi_make("0.0.0"), *schemas;
    char *json = json_dumps(document, JSON_COMPACT);

    CHECK(document && json);
    schemas = json_object_get(json_object_get(document, "components"), "schemas");
    for (const char *at = json; (at = strstr(at, "#/components/schemas/")); at++) {
        char name[64];
        const char *from = at + strlen("#/components/schemas/");
        size_t len = strcspn(from, "\"");
        CHECK(len < sizeof name);
        memcpy(name, from, len);
        name[len] = 0;
        CHECK_ROW(json_object_get(schemas, name), name);
    }
    free(json);
    json_decref(document);
}
