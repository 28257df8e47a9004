/*
 * fuzz_chat_request - any bytes as the body of /v1/chat/completions. What is accepted becomes a request to Ollama that
 * is JSON (jansson judges) and holds known keys only, with the values that the gateway decides, whatever the caller
 * wrote, and the same whether values are copied as they stand or the careful way; what is refused gets an error that is
 * JSON, says something and invites no agent to try again.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "dialect.h"
#include "kind.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void must(bool claim, const char *what, struct slice shown)
{
    if (claim)
        return;
    fprintf(stderr, "not so: %s\n%.*s\n", what, (int)shown.len, shown.at ? shown.at : "");
    abort();
}

/* Some values are passed on as they are (schemas, arguments), with numbers and keys that jansson cannot hold. */
static bool is_beyond_jansson(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);

    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key;
}

static void only_keys(const json_t *object, const char *const *known, struct slice shown)
{
    const char *key;
    json_t *value;

    must(json_is_object(object), "an object", shown);
    json_object_foreach((json_t *)object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0)
            i++;
        must(known[i], "known keys only", shown);
    }
}

static void judge_calls(const json_t *calls, struct slice shown)
{
    static const char *const keys[] = { "id", "function", NULL };
    static const char *const function_keys[] = { "name", "arguments", NULL };
    size_t i;
    json_t *call;

    json_array_foreach(calls, i, call)
    {
        const json_t *function = json_object_get(call, "function");
        only_keys(call, keys, shown);
        only_keys(function, function_keys, shown);
        must(json_is_string(json_object_get(function, "name")), "a name", shown);
        must(json_is_object(json_object_get(function, "arguments")), "arguments are an object", shown);
    }
}

static void judge_messages(const json_t *messages, struct slice shown)
{
    static const char *const keys[] = { "role",       "content",   "thinking",     "images",
                                        "tool_calls", "tool_name", "tool_call_id", NULL };
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    size_t i;
    json_t *message;

    must(json_array_size(messages) > 0, "a message", shown);
    json_array_foreach(messages, i, message)
    {
        const char *role = json_string_value(json_object_get(message, "role"));
        bool is_known = false;
        only_keys(message, keys, shown);
        for (size_t k = 0; role && k < sizeof roles / sizeof *roles; k++)
            is_known |= strcmp(role, roles[k]) == 0;
        must(is_known, "a known role", shown);
        must(json_is_string(json_object_get(message, "content")), "content is a string", shown);
        judge_calls(json_object_get(message, "tool_calls"), shown);
    }
}

/* What Ollama's strict decoder wants of a schema. */
static void judge_schema(const json_t *schema, bool is_root, unsigned depth, struct slice shown)
{
    const json_t *type, *required, *list;
    const char *key;
    json_t *value;
    size_t i;

    if (json_is_null(schema) && !is_root)
        return;
    must(json_is_object(schema) && depth < 64, "a schema is an object", shown);
    type = json_object_get(schema, "type");
    must(!type || json_is_string(type) || json_is_null(type) || (!is_root && json_is_array(type)), "type of a type",
         shown);
    required = json_object_get(schema, "required");
    must(!required || json_is_null(required) || json_is_array(required), "required is a list", shown);
    json_array_foreach(required, i, value) must(json_is_string(value), "required names are strings", shown);
    list = is_root ? NULL : json_object_get(schema, "anyOf");
    json_array_foreach(list, i, value) judge_schema(value, false, depth + 1, shown);
    must(is_root || !json_object_get(schema, "enum") || json_is_null(json_object_get(schema, "enum")) ||
             json_is_array(json_object_get(schema, "enum")),
         "enum is a list", shown);
    json_object_foreach(json_object_get(schema, "properties"), key, value) judge_schema(value, false, depth + 1, shown);
}

static void judge_tools(const json_t *tools, struct slice shown)
{
    static const char *const keys[] = { "type", "function", NULL };
    static const char *const function_keys[] = { "name", "description", "parameters", NULL };
    size_t i;
    json_t *tool;

    json_array_foreach(tools, i, tool)
    {
        const json_t *function = json_object_get(tool, "function");
        only_keys(tool, keys, shown);
        only_keys(function, function_keys, shown);
        must(json_string_length(json_object_get(function, "name")) > 0, "a name", shown);
        judge_schema(json_object_get(function, "parameters"), true, 0, shown);
    }
}

static void judge(const struct text *written)
{
    static const char *const keys[] = { "model", "messages", "stream", "format",   "keep_alive",   "tools", "options",
                                        "think", "truncate", "shift",  "logprobs", "top_logprobs", NULL };
    static const char *const options[] = { "num_ctx",
                                           "seed",
                                           "num_predict",
                                           "top_k",
                                           "top_p",
                                           "min_p",
                                           "temperature",
                                           "repeat_penalty",
                                           "presence_penalty",
                                           "frequency_penalty",
                                           "stop",
                                           NULL };
    struct slice shown = text_slice(written);
    json_error_t error;
    json_t *json = json_loadb(written->at, written->len, JSON_ALLOW_NUL, &error);
    const json_t *model;

    if (!json) {
        must(is_beyond_jansson(&error), error.text, shown);
        return;
    }
    only_keys(json, keys, shown);
    only_keys(json_object_get(json, "options"), options, shown);
    model = json_object_get(json, "model");
    must(json_is_string(model) && strcmp(json_string_value(model), "M") == 0, "the gateway's model", shown);
    must(json_is_false(json_object_get(json, "truncate")) && json_is_false(json_object_get(json, "shift")),
         "no cutting", shown);
    must(json_integer_value(json_object_get(json, "keep_alive")) == -1, "the gateway's keep_alive", shown);
    must(json_integer_value(json_object_get(json_object_get(json, "options"), "num_ctx")) == 4096,
         "the gateway's num_ctx", shown);
    must(json_is_boolean(json_object_get(json, "stream")), "stream is said", shown);
    judge_messages(json_object_get(json, "messages"), shown);
    judge_tools(json_object_get(json, "tools"), shown);
    json_decref(json);
}

static void judge_refusal(const struct refusal *refusal)
{
    struct slice message = refusal_message(refusal);
    struct text written;
    json_t *json;

    text_init(&written, 1 << 20);
    refusal_write(refusal, ERROR_SHAPE_OPENAI, (struct slice){ 0 }, &written);
    json = json_loadb(written.at, written.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    must(json != NULL, "an error is JSON", text_slice(&written));
    must(message.len > 0 && !refusal_text_invites_retry(message), "an error that is final", message);
    json_decref(json);
    text_release(&written);
}

static void judge_copying(struct inference *inference, const struct placement *placement, const struct text *written)
{
    struct text careful;

    inference->is_tight = inference->schema_is_tight = false;
    for (struct tool *tool = inference->tools; tool; tool = tool->next)
        tool->is_tight = false;
    for (struct message *message = inference->messages; message; message = message->next)
        for (struct tool_call *call = message->tool_calls; call; call = call->next)
            call->is_tight = false;
    text_init(&careful, 1 << 26);
    kind_ollama.write_chat(inference, placement, &careful);
    must(slice_is(text_slice(&careful), text_slice(written)), "copied as it may be", text_slice(written));
    text_release(&careful);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct placement placement = { .model = SLICE("M"), .num_ctx = 4096, .keep_alive = SLICE("-1") };
    struct inference inference;
    struct refusal refusal;
    struct text written;
    struct arena arena;

    arena_init(&arena);
    text_init(&written, 1 << 26);
    if (dialect_chat.read((struct slice){ (const char *)bytes, len }, &arena, &inference, &refusal)) {
        kind_ollama.write_chat(&inference, &placement, &written);
        must(!written.err, "room enough", (struct slice){ 0 });
        judge(&written);
        judge_copying(&inference, &placement, &written);
    } else {
        judge_refusal(&refusal);
    }
    text_release(&written);
    arena_release(&arena);
    return 0;
}
