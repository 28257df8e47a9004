/*
 * The request for /api/chat. Only the names written here can ever reach the engine: nothing that a caller calls a field
 * is passed on as one. Members stand in the order of Ollama's own struct; no white space.
 */
#include "ollama.h"

#include "json.h"

/* `,"NAME":` or, first in its object, `"NAME":`. */
struct members {
    struct text *out;
    bool has_one;
};

static void add_name(struct members *members, const char *name)
{
    if (members->has_one)
        text_add_char(members->out, ',');
    members->has_one = true;
    text_add_char(members->out, '"');
    text_add_string(members->out, name);
    text_add_literal(members->out, "\":");
}

static void add_wire(struct text *out, struct slice wire)
{
    text_add_char(out, '"');
    json_add_raw(out, wire);
    text_add_char(out, '"');
}

static void add_content(const struct part *parts, struct text *out)
{
    bool has_text = false;

    text_add_char(out, '"');
    for (; parts; parts = parts->next) {
        if (parts->kind != PART_TEXT)
            continue;
        if (has_text)
            text_add_literal(out, "\\n\\n");
        has_text = true;
        json_add_raw(out, parts->wire);
    }
    text_add_char(out, '"');
}

static void add_images(const struct part *parts, struct text *out)
{
    bool has_one = false;

    for (; parts; parts = parts->next) {
        if (parts->kind != PART_IMAGE)
            continue;
        text_add_string(out, has_one ? "," : ",\"images\":[");
        has_one = true;
        add_wire(out, parts->wire);
    }
    if (has_one)
        text_add_char(out, ']');
}

static void add_calls(const struct tool_call *calls, struct text *out)
{
    if (!calls)
        return;
    text_add_literal(out, ",\"tool_calls\":[");
    for (; calls; calls = calls->next) {
        text_add_char(out, '{');
        if (calls->id_wire.len) {
            text_add_literal(out, "\"id\":");
            add_wire(out, calls->id_wire);
            text_add_char(out, ',');
        }
        text_add_literal(out, "\"function\":{\"name\":");
        add_wire(out, calls->name_wire);
        text_add_literal(out, ",\"arguments\":");
        json_add_compact(out, calls->arguments_value);
        text_add_literal(out, "}}");
        if (calls->next)
            text_add_char(out, ',');
    }
    text_add_char(out, ']');
}

static void add_wire_member(struct text *out, const char *before, struct slice wire)
{
    if (!wire.len)
        return;
    text_add_string(out, before);
    add_wire(out, wire);
}

static void add_message(const struct message *message, struct text *out)
{
    static const char *const roles[] = {
        [ROLE_SYSTEM] = "system", [ROLE_USER] = "user", [ROLE_ASSISTANT] = "assistant", [ROLE_TOOL] = "tool"
    };

    text_add_literal(out, "{\"role\":\"");
    text_add_string(out, roles[message->role]);
    text_add_literal(out, "\",\"content\":");
    add_content(message->parts, out);
    add_wire_member(out, ",\"thinking\":", message->thinking_wire);
    add_images(message->parts, out);
    add_calls(message->tool_calls, out);
    add_wire_member(out, ",\"tool_name\":", message->tool_name_wire);
    add_wire_member(out, ",\"tool_call_id\":", message->tool_call_id_wire);
    text_add_char(out, '}');
}

static void add_messages(struct members *body, const struct message *messages)
{
    add_name(body, "messages");
    text_add_char(body->out, '[');
    for (; messages; messages = messages->next) {
        add_message(messages, body->out);
        if (messages->next)
            text_add_char(body->out, ',');
    }
    text_add_char(body->out, ']');
}

static void add_format(struct members *body, const struct inference *inference)
{
    if (inference->format == OUTPUT_TEXT)
        return;
    add_name(body, "format");
    if (inference->format == OUTPUT_JSON)
        text_add_literal(body->out, "\"json\"");
    else
        json_add_compact(body->out, inference->schema_value);
}

static void add_tools(struct members *body, const struct tool *tools)
{
    struct text *out = body->out;

    if (!tools)
        return;
    add_name(body, "tools");
    text_add_char(out, '[');
    for (; tools; tools = tools->next) {
        text_add_literal(out, "{\"type\":\"function\",\"function\":{\"name\":");
        add_wire(out, tools->name_wire);
        if (tools->has_description) {
            text_add_literal(out, ",\"description\":");
            add_wire(out, tools->description_wire);
        }
        text_add_literal(out, ",\"parameters\":");
        if (tools->parameters_value.len)
            json_add_compact(out, tools->parameters_value);
        else
            text_add_literal(out, "{\"type\":\"object\",\"properties\":{}}");
        text_add_literal(out, "}}");
        if (tools->next)
            text_add_char(out, ',');
    }
    text_add_char(out, ']');
}

static void add_number(struct members *options, const char *name, struct slice number, const char *if_absent)
{
    if (!number.len && !if_absent)
        return;
    add_name(options, name);
    text_add_slice(options->out, number.len ? number : slice_of(if_absent));
}

static void add_stops(struct members *options, const struct stop *stops)
{
    if (!stops)
        return;
    add_name(options, "stop");
    text_add_char(options->out, '[');
    for (; stops; stops = stops->next) {
        add_wire(options->out, stops->wire);
        if (stops->next)
            text_add_char(options->out, ',');
    }
    text_add_char(options->out, ']');
}

/* As Ollama's own /v1 does, temperature and top_p are 1 unless the caller says otherwise. */
static void add_options(struct members *body, const struct inference *inference, const struct placement *placement)
{
    struct members options = { .out = body->out };

    add_name(body, "options");
    text_add_char(body->out, '{');
    if (placement->num_ctx) {
        add_name(&options, "num_ctx");
        text_add_u64(body->out, placement->num_ctx);
    }
    add_number(&options, "seed", inference->seed, NULL);
    if (inference->max_tokens) {
        add_name(&options, "num_predict");
        text_add_i64(body->out, inference->max_tokens);
    }
    add_number(&options, "top_k", inference->top_k, NULL);
    add_number(&options, "top_p", inference->top_p, "1");
    add_number(&options, "min_p", inference->min_p, NULL);
    add_number(&options, "temperature", inference->temperature, "1");
    add_number(&options, "repeat_penalty", inference->repeat_penalty, NULL);
    add_number(&options, "presence_penalty", inference->presence_penalty, NULL);
    add_number(&options, "frequency_penalty", inference->frequency_penalty, NULL);
    add_stops(&options, inference->stops);
    text_add_char(body->out, '}');
}

static void add_think(struct members *body, enum think think)
{
    static const char *const values[] = {
        [THINK_NO] = "false",          [THINK_YES] = "true",      [THINK_LOW] = "\"low\"",
        [THINK_MEDIUM] = "\"medium\"", [THINK_HIGH] = "\"high\"", [THINK_MAX] = "\"max\"",
    };

    if (think == THINK_AS_MODEL)
        return;
    add_name(body, "think");
    text_add_string(body->out, values[think]);
}

void ollama_write_chat(const struct inference *inference, const struct placement *placement, struct text *out)
{
    struct members body = { .out = out };
    size_t bytes = inference_bytes(inference);

    if (bytes <= out->max - out->len) /* a guess must not break the text */
        (void)text_reserve(out, bytes);
    text_add_char(out, '{');
    add_name(&body, "model");
    json_add_string(out, placement->model);
    add_messages(&body, inference->messages);
    add_name(&body, "stream");
    text_add_string(out, inference->is_stream ? "true" : "false");
    add_format(&body, inference);
    if (placement->keep_alive.len) {
        add_name(&body, "keep_alive");
        text_add_slice(out, placement->keep_alive);
    }
    add_tools(&body, inference->tools);
    add_options(&body, inference, placement);
    add_think(&body, inference->think);
    text_add_literal(out, ",\"truncate\":false,\"shift\":false");
    if (inference->wants_logprobs) {
        text_add_literal(out, ",\"logprobs\":true,\"top_logprobs\":");
        text_add_u64(out, inference->top_logprobs);
    }
    text_add_char(out, '}');
}
