/*
 * The request for /api/chat. Only the names written here can ever reach the engine: nothing that a caller calls a field
 * is passed on as one. Members stand in the order of Ollama's own struct; no white space.
 */
#include "ollama.h"

#include "json.h"

/* Where the request goes, and whether the strings in it can be copied as they stand. */
struct writing {
    struct text *out;
    bool is_tight;
};

/* The inside of a string. */
static void add_raw(struct writing *writing, struct slice wire)
{
    if (writing->is_tight)
        text_add_slice(writing->out, wire);
    else
        json_add_raw(writing->out, wire);
}

static void add_value(struct text *out, struct slice value, bool is_tight)
{
    if (is_tight)
        text_add_slice(out, value);
    else
        json_add_compact(out, value);
}

static void add_content(struct writing *writing, const struct part *parts)
{
    bool has_text = false;

    for (; parts; parts = parts->next) {
        if (parts->kind != PART_TEXT)
            continue;
        if (has_text)
            text_add_literal(writing->out, "\\n\\n");
        has_text = true;
        add_raw(writing, parts->wire);
    }
}

static void add_images(struct writing *writing, const struct part *parts)
{
    bool has_one = false;

    for (; parts; parts = parts->next) {
        if (parts->kind != PART_IMAGE)
            continue;
        text_add_string(writing->out, has_one ? ",\"" : ",\"images\":[\"");
        has_one = true;
        text_add_slice(writing->out, parts->wire); /* base64 */
        text_add_char(writing->out, '"');
    }
    if (has_one)
        text_add_char(writing->out, ']');
}

static void add_calls(struct writing *writing, const struct tool_call *calls)
{
    struct text *out = writing->out;

    if (!calls)
        return;
    text_add_literal(out, ",\"tool_calls\":[");
    for (; calls; calls = calls->next) {
        text_add_char(out, '{');
        if (calls->id_wire.len) {
            text_add_literal(out, "\"id\":\"");
            add_raw(writing, calls->id_wire);
            text_add_literal(out, "\",");
        }
        text_add_literal(out, "\"function\":{\"name\":\"");
        add_raw(writing, calls->name_wire);
        text_add_literal(out, "\",\"arguments\":");
        add_value(out, calls->arguments_value, calls->is_tight);
        text_add_literal(out, "}}");
        if (calls->next)
            text_add_char(out, ',');
    }
    text_add_char(out, ']');
}

/* `before` brings all that stands before the string's inside. */
static void add_wire_member(struct writing *writing, const char *before, struct slice wire)
{
    if (!wire.len)
        return;
    text_add_string(writing->out, before);
    add_raw(writing, wire);
    text_add_char(writing->out, '"');
}

static void add_message(struct writing *writing, const struct message *message)
{
    static const struct slice begins[] = {
        [ROLE_SYSTEM] = SLICE("{\"role\":\"system\",\"content\":\""),
        [ROLE_USER] = SLICE("{\"role\":\"user\",\"content\":\""),
        [ROLE_ASSISTANT] = SLICE("{\"role\":\"assistant\",\"content\":\""),
        [ROLE_TOOL] = SLICE("{\"role\":\"tool\",\"content\":\""),
    };

    text_add_slice(writing->out, begins[message->role]);
    add_content(writing, message->parts);
    text_add_char(writing->out, '"');
    add_wire_member(writing, ",\"thinking\":\"", message->thinking_wire);
    add_images(writing, message->parts);
    add_calls(writing, message->tool_calls);
    add_wire_member(writing, ",\"tool_name\":\"", message->tool_name_wire);
    add_wire_member(writing, ",\"tool_call_id\":\"", message->tool_call_id_wire);
    text_add_char(writing->out, '}');
}

static void add_messages(struct writing *writing, const struct message *messages)
{
    text_add_literal(writing->out, ",\"messages\":[");
    for (; messages; messages = messages->next) {
        add_message(writing, messages);
        if (messages->next)
            text_add_char(writing->out, ',');
    }
    text_add_char(writing->out, ']');
}

static void add_format(struct text *out, const struct inference *inference)
{
    if (inference->format == OUTPUT_TEXT)
        return;
    text_add_literal(out, ",\"format\":");
    if (inference->format == OUTPUT_JSON)
        text_add_literal(out, "\"json\"");
    else
        add_value(out, inference->schema_value, inference->schema_is_tight);
}

static void add_tool(struct writing *writing, const struct tool *tool)
{
    struct text *out = writing->out;

    text_add_literal(out, "{\"type\":\"function\",\"function\":{\"name\":\"");
    add_raw(writing, tool->name_wire);
    if (tool->has_description) {
        text_add_literal(out, "\",\"description\":\"");
        add_raw(writing, tool->description_wire);
    }
    text_add_literal(out, "\",\"parameters\":");
    if (tool->parameters_value.len)
        add_value(out, tool->parameters_value, tool->is_tight);
    else
        text_add_literal(out, "{\"type\":\"object\",\"properties\":{}}");
    text_add_literal(out, "}}");
}

static void add_tools(struct writing *writing, const struct tool *tools)
{
    if (!tools)
        return;
    text_add_literal(writing->out, ",\"tools\":[");
    for (; tools; tools = tools->next) {
        add_tool(writing, tools);
        if (tools->next)
            text_add_char(writing->out, ',');
    }
    text_add_char(writing->out, ']');
}

/* `,"NAME":`, without the comma where it is the object's first: `start` is where the object's inside begins. */
#define add_name(out, start, name) add_name_piece((out), (start), ",\"" name "\":", sizeof(",\"" name "\":") - 1)
static void add_name_piece(struct text *out, size_t start, const char *piece, size_t len)
{
    bool is_first = out->len == start;

    text_add(out, piece + is_first, len - is_first);
}

#define add_number(out, start, name, number) \
    do {                                     \
        if ((number).len) {                  \
            add_name((out), (start), name);  \
            text_add_slice((out), (number)); \
        }                                    \
    } while (0)

static void add_stops(struct writing *writing, size_t start, const struct stop *stops)
{
    struct text *out = writing->out;

    if (!stops)
        return;
    add_name(out, start, "stop");
    text_add_literal(out, "[\"");
    for (; stops; stops = stops->next) {
        add_raw(writing, stops->wire);
        if (stops->next)
            text_add_literal(out, "\",\"");
    }
    text_add_literal(out, "\"]");
}

/* As Ollama's own /v1 does, temperature and top_p are 1 unless the caller says otherwise. */
static void add_options(struct writing *writing, const struct inference *inference, const struct placement *placement)
{
    struct text *out = writing->out;
    struct slice top_p = inference->top_p.len ? inference->top_p : SLICE("1");
    struct slice temperature = inference->temperature.len ? inference->temperature : SLICE("1");
    size_t start;

    text_add_literal(out, ",\"options\":{");
    start = out->len;
    if (placement->num_ctx) {
        text_add_literal(out, "\"num_ctx\":");
        text_add_u64(out, placement->num_ctx);
    }
    add_number(out, start, "seed", inference->seed);
    if (inference->max_tokens) {
        add_name(out, start, "num_predict");
        text_add_i64(out, inference->max_tokens);
    }
    add_number(out, start, "top_k", inference->top_k);
    add_number(out, start, "top_p", top_p);
    add_number(out, start, "min_p", inference->min_p);
    add_number(out, start, "temperature", temperature);
    add_number(out, start, "repeat_penalty", inference->repeat_penalty);
    add_number(out, start, "presence_penalty", inference->presence_penalty);
    add_number(out, start, "frequency_penalty", inference->frequency_penalty);
    add_stops(writing, start, inference->stops);
    text_add_char(out, '}');
}

static void add_think(struct text *out, enum think think)
{
    static const char *const members[] = {
        [THINK_NO] = ",\"think\":false",      [THINK_YES] = ",\"think\":true",
        [THINK_LOW] = ",\"think\":\"low\"",   [THINK_MEDIUM] = ",\"think\":\"medium\"",
        [THINK_HIGH] = ",\"think\":\"high\"", [THINK_MAX] = ",\"think\":\"max\"",
    };

    if (think != THINK_AS_MODEL)
        text_add_string(out, members[think]);
}

static void add_keep_alive(struct text *out, const struct placement *placement)
{
    if (!placement->keep_alive.len)
        return;
    text_add_literal(out, ",\"keep_alive\":");
    text_add_slice(out, placement->keep_alive);
}

/* `shift` and num_ctx decide how the model is loaded: were they other than a chat's, the first chat would load it anew.
 */
#define NEVER_CUT ",\"truncate\":false,\"shift\":false"

void ollama_write_chat(const struct inference *inference, const struct placement *placement, struct text *out)
{
    struct writing writing = { .out = out, .is_tight = inference->is_tight };
    size_t bytes = inference_bytes(inference);

    if (bytes <= out->max - out->len) /* a guess must not break the text */
        (void)text_reserve(out, bytes);
    text_add_literal(out, "{\"model\":");
    json_add_string(out, placement->model);
    add_messages(&writing, inference->messages);
    text_add_string(out, inference->is_stream ? ",\"stream\":true" : ",\"stream\":false");
    add_format(out, inference);
    add_keep_alive(out, placement);
    add_tools(&writing, inference->tools);
    add_options(&writing, inference, placement);
    add_think(out, inference->think);
    text_add_literal(out, NEVER_CUT);
    if (inference->wants_logprobs) {
        text_add_literal(out, ",\"logprobs\":true,\"top_logprobs\":");
        text_add_u64(out, inference->top_logprobs);
    }
    text_add_char(out, '}');
}

/* Without messages Ollama loads the model and says no word. */
void ollama_write_load(const struct placement *placement, struct text *out)
{
    text_add_literal(out, "{\"model\":");
    json_add_string(out, placement->model);
    text_add_literal(out, ",\"messages\":[],\"stream\":false");
    add_keep_alive(out, placement);
    if (placement->num_ctx) {
        text_add_literal(out, ",\"options\":{\"num_ctx\":");
        text_add_u64(out, placement->num_ctx);
        text_add_char(out, '}');
    }
    text_add_literal(out, NEVER_CUT "}");
}
