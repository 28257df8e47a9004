/*
 * The request of /v1/chat/completions, field by field (openai-ollama.md 3): the table below is the list of what is
 * understood. Everything else is passed over, as OpenAI's and Ollama's own servers do.
 */
#include "chat.h"

enum { MODEL_MAX_BYTES = 255 };

static bool read_model(struct reading *reading, void *thing, const struct field *field)
{
    struct json_string model;

    (void)thing, (void)field;
    if (!reading_string(reading, &model) || !reading_plain(reading, &model, &reading->inference->model))
        return false;
    if (!reading->inference->model.len || reading->inference->model.len > MODEL_MAX_BYTES)
        return reading_wants(reading, "the name of a model, 1 to 255 bytes long");
    return true;
}

static bool read_user(struct reading *reading, void *thing, const struct field *field)
{
    struct json_string user;

    (void)thing, (void)field;
    return reading_string(reading, &user) && reading_plain(reading, &user, &reading->inference->user);
}

/* Only a hint: of another type it is passed over, as whatever else is not understood. */
static bool read_cache_key(struct reading *reading, void *thing, const struct field *field)
{
    struct json_string key;

    (void)thing, (void)field;
    if (json_peek(&reading->json) != JSON_STRING)
        return json_skip(&reading->json, NULL);
    return reading_string(reading, &key) && reading_wire(reading, &key, &reading->inference->cache_key);
}

static bool read_stream_options(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("include_usage", reading_bool_field, .place = offsetof(struct inference, wants_usage)),
        FIELDS_END,
    };

    (void)field;
    return reading_object(reading, fields, thing);
}

static bool read_max_tokens(struct reading *reading, void *thing, const struct field *field)
{
    struct slice written;

    return reading_integer(reading, field, &written, (int64_t *)(void *)((char *)thing + field->place));
}

static bool read_top_logprobs(struct reading *reading, void *thing, const struct field *field)
{
    struct slice written;
    int64_t count;

    (void)thing;
    if (!reading_integer(reading, field, &written, &count))
        return false;
    reading->inference->top_logprobs = (unsigned)count;
    return true;
}

static bool read_n(struct reading *reading, void *thing, const struct field *field)
{
    struct slice written;
    int64_t count;

    (void)thing;
    return reading_integer(reading, field, &written, &count);
}

/* Engines would end at once on an empty stop text, so it is left out. */
static bool read_stop_text(struct reading *reading, void *thing)
{
    struct stop ***next = thing;
    struct json_string text;
    struct stop *stop;

    if (!reading_expects(reading, JSON_STRING, "a string or an array of strings") ||
        !json_string(&reading->json, &text))
        return false;
    if (!text.raw.len)
        return true;
    stop = ARENA_NEW(reading->arena, struct stop);
    if (!stop)
        return reading_no_memory(reading);
    stop->wire = text.raw;
    **next = stop;
    *next = &stop->next;
    return true;
}

static bool read_stop(struct reading *reading, void *thing, const struct field *field)
{
    struct stop **next = &reading->inference->stops;

    (void)thing, (void)field;
    if (json_peek(&reading->json) == JSON_ARRAY)
        return reading_array(reading, CHAT_MAX_STOPS, read_stop_text, &next);
    return read_stop_text(reading, &next);
}

/* response_format: its type may stand before or behind the schema. */
struct wanted_format {
    struct json_string type;
    struct slice schema_value;
    bool schema_is_tight;
};

static bool read_format_type(struct reading *reading, void *thing, const struct field *field)
{
    struct wanted_format *format = thing;

    (void)field;
    return reading_string(reading, &format->type);
}

static bool read_schema(struct reading *reading, void *thing, const struct field *field)
{
    struct wanted_format *format = thing;
    struct tightness before;

    (void)field;
    if (!reading_expects(reading, JSON_OBJECT, "a JSON schema, which is an object"))
        return false;
    before = tightness_begin(reading);
    if (!json_skip(&reading->json, &format->schema_value))
        return false;
    format->schema_is_tight = tightness_end(reading, before);
    return true;
}

static bool read_json_schema(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("schema", read_schema), FIELDS_END };

    (void)field;
    return reading_object(reading, fields, thing);
}

static bool format_decide(struct reading *reading, const struct wanted_format *format)
{
    struct json_string type = format->type;

    type.raw = slice_trim(type.raw);
    if (json_string_is_nocase(&type, "text"))
        return true;
    if (json_string_is_nocase(&type, "json_object")) {
        reading->inference->format = OUTPUT_JSON;
        return true;
    }
    if (!json_string_is_nocase(&type, "json_schema"))
        return reading_field_refuse(reading, "type", CAUSE_INVALID,
                                    "`response_format.type` must be text, json_object or json_schema");
    if (!format->schema_value.len)
        return reading_field_refuse(reading, "json_schema", CAUSE_INVALID,
                                    "`response_format.json_schema` must hold a `schema`");
    reading->inference->format = OUTPUT_SCHEMA;
    reading->inference->schema_value = format->schema_value;
    reading->inference->schema_is_tight = format->schema_is_tight;
    return true;
}

static bool read_response_format(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("type", read_format_type),
        FIELD("json_schema", read_json_schema),
        FIELDS_END,
    };
    struct wanted_format format = { .type.raw = SLICE("") };

    (void)thing, (void)field;
    return reading_object(reading, fields, &format) && format_decide(reading, &format);
}

static bool read_functions(struct reading *reading, void *thing, const struct field *field)
{
    struct slice functions;

    (void)thing, (void)field;
    if (!reading_expects(reading, JSON_ARRAY, "an array"))
        return false;
    if (!json_skip(&reading->json, &functions))
        return false;
    /* An empty list asks for nothing. */
    for (size_t i = 1; i + 1 < functions.len; i++)
        if (functions.at[i] > ' ')
            return reading_refuse(reading, CAUSE_UNSUPPORTED, "`functions` is not supported here, please use `tools`");
    return true;
}

static bool read_modality(struct reading *reading, void *thing)
{
    struct json_string modality;

    (void)thing;
    if (!reading_string(reading, &modality))
        return false;
    if (!json_string_is(&modality, "text"))
        return reading_refuse(reading, CAUSE_UNSUPPORTED, "only text can be asked for in `modalities`");
    return true;
}

static bool read_modalities(struct reading *reading, void *thing, const struct field *field)
{
    (void)field;
    return reading_array(reading, CHAT_MAX_STOPS, read_modality, thing);
}

static bool read_audio(struct reading *reading, void *thing, const struct field *field)
{
    (void)thing, (void)field;
    return reading_refuse(reading, CAUSE_UNSUPPORTED, "audio output is not supported");
}

#define NUMBER(name, low, high, words)                                                                         \
    FIELD(#name, reading_number_field, .place = offsetof(struct inference, name), .min = (low), .max = (high), \
          .wanted = "a number " words)

/* In the order in which they are likely; the first match ends the search. */
static const struct field fields[] = {
    FIELD("model", read_model),
    FIELD("messages", chat_messages),
    FIELD("stream", reading_bool_field, .place = offsetof(struct inference, is_stream)),
    FIELD("stream_options", read_stream_options),
    FIELD("max_completion_tokens", read_max_tokens, .place = offsetof(struct chat, max_completion_tokens), .min = 1,
          .max = 1e15, .wanted = "a whole number, at least 1"),
    FIELD("max_tokens", read_max_tokens, .place = offsetof(struct chat, max_tokens), .min = 1, .max = 1e15,
          .wanted = "a whole number, at least 1"),
    FIELD("tools", chat_tools),
    FIELD("tool_choice", chat_tool_choice),
    NUMBER(temperature, 0, 2, "from 0 to 2"),
    NUMBER(top_p, 0, 1, "from 0 to 1"),
    NUMBER(min_p, 0, 1, "from 0 to 1"),
    NUMBER(frequency_penalty, -2, 2, "from -2 to 2"),
    NUMBER(presence_penalty, -2, 2, "from -2 to 2"),
    NUMBER(repeat_penalty, 0.01, 10, "from 0.01 to 10"),
    FIELD("top_k", reading_integer_field, .place = offsetof(struct inference, top_k), .min = -1, .max = 1e6,
          .wanted = "a whole number from -1 to 1000000"),
    FIELD("seed", reading_integer_field, .place = offsetof(struct inference, seed), .min = -9.3e18, .max = 9.3e18,
          .wanted = "a whole number"),
    FIELD("stop", read_stop),
    FIELD("response_format", read_response_format),
    FIELD("reasoning_effort", chat_effort, .place = THINK_EFFORT),
    FIELD("reasoning", chat_reasoning),
    FIELD("think", chat_think),
    FIELD("enable_thinking", chat_enable_thinking, .place = THINK_ENABLE),
    FIELD("chat_template_kwargs", chat_template_kwargs),
    FIELD("thinking", chat_thinking),
    FIELD("logprobs", reading_bool_field, .place = offsetof(struct inference, wants_logprobs)),
    FIELD("top_logprobs", read_top_logprobs, .min = 0, .max = 20, .wanted = "a whole number from 0 to 20"),
    FIELD("n", read_n, .min = 1, .max = 1, .wanted = "1, only one choice can be made at a time"),
    FIELD("user", read_user),
    FIELD("prompt_cache_key", read_cache_key),
    FIELD("functions", read_functions),
    FIELD("modalities", read_modalities),
    FIELD("audio", read_audio),
    FIELDS_END,
};

static bool decide(struct reading *reading, struct chat *chat)
{
    struct inference *inference = reading->inference;

    if (!inference->model.len)
        return reading_field_refuse(reading, "model", CAUSE_INVALID, "`model` is missing");
    if (!inference->messages)
        return reading_field_refuse(reading, "messages", CAUSE_INVALID, "`messages` must hold at least one message");
    for (unsigned i = THINK_PLACES; i-- > 0;)
        if (chat->think[i] != THINK_AS_MODEL)
            inference->think = chat->think[i];
    inference->max_tokens = chat->max_completion_tokens ? chat->max_completion_tokens : chat->max_tokens;
    return chat_choose_tools(reading, chat);
}

bool chat_read(struct slice body, struct arena *arena, struct inference *ret, struct refusal *ret_refusal)
{
    struct chat chat = { .next_message = &ret->messages, .next_tool = &ret->tools };
    struct reading reading;

    reading_begin(&reading, body, arena, ret, ret_refusal);
    if (!body.len)
        return reading_refuse(&reading, CAUSE_INVALID, "the request body is missing");
    return reading_end(&reading, reading_object(&reading, fields, &chat)) && decide(&reading, &chat);
}
