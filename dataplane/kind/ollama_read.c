/*
 * A line of Ollama's stream, or its whole answer, into an event. What is said about the engine itself (model,
 * created_at, durations) is passed over. The engine is trusted to be no attacker, not to be right: what has another
 * shape than it should is ERR_BAD.
 */
#include "ollama.h"

#include "json.h"

struct line {
    struct json_reader json;
    struct arena *arena;
    struct event *event;
    bool has_message, is_out_of_memory;
};

static bool no_memory(struct line *line)
{
    line->is_out_of_memory = true;
    return false;
}

/* Null counts as absent, as it does for Go. */
static bool skip_null(struct line *line)
{
    return json_peek(&line->json) == JSON_NULL && json_null(&line->json);
}

static bool read_wire(struct line *line, struct slice *ret_wire)
{
    struct json_string string;

    if (skip_null(line))
        return true;
    if (!json_string(&line->json, &string))
        return false;
    *ret_wire = string.raw;
    return true;
}

static bool read_count(struct line *line, uint64_t *ret_count)
{
    struct slice number;
    int64_t count;

    if (skip_null(line))
        return true;
    if (!json_number(&line->json, &number) || !json_number_i64(number, &count) || count < 0)
        return json_fail(&line->json, JSON_TYPE);
    *ret_count = (uint64_t)count;
    return true;
}

static bool read_function(struct line *line, struct tool_call *call)
{
    struct json_string key;
    uint64_t index = call->index;

    if (!json_object(&line->json, NULL))
        return false;
    while (json_member(&line->json, NULL, &key)) {
        bool is_read;
        if (json_string_is(&key, "name"))
            is_read = read_wire(line, &call->name_wire);
        else if (json_string_is(&key, "index"))
            is_read = read_count(line, &index);
        else if (json_string_is(&key, "arguments") && json_peek(&line->json) != JSON_NULL)
            is_read = json_peek(&line->json) == JSON_OBJECT ? json_skip(&line->json, &call->arguments_value)
                                                            : json_fail(&line->json, JSON_TYPE);
        else
            is_read = json_skip(&line->json, NULL);
        if (!is_read)
            return false;
    }
    call->index = index > UINT32_MAX ? UINT32_MAX : (uint32_t)index;
    return !line->json.error;
}

static bool read_call(struct line *line, struct tool_call *call)
{
    struct json_string key;

    if (!json_object(&line->json, NULL))
        return false;
    while (json_member(&line->json, NULL, &key)) {
        bool is_read;
        if (json_string_is(&key, "id"))
            is_read = read_wire(line, &call->id_wire);
        else if (json_string_is(&key, "function"))
            is_read = read_function(line, call);
        else
            is_read = json_skip(&line->json, NULL);
        if (!is_read)
            return false;
    }
    if (!call->name_wire.len)
        return json_fail(&line->json, JSON_TYPE);
    if (!call->arguments_value.len)
        call->arguments_value = SLICE("{}");
    return !line->json.error;
}

static bool read_calls(struct line *line)
{
    struct tool_call **next = &line->event->tool_calls;
    uint32_t index = 0;

    if (skip_null(line))
        return true;
    if (!json_array(&line->json))
        return false;
    while (json_element(&line->json)) {
        struct tool_call *call = ARENA_NEW(line->arena, struct tool_call);
        if (!call)
            return no_memory(line);
        call->index = index++;
        if (!read_call(line, call))
            return false;
        *next = call;
        next = &call->next;
    }
    return !line->json.error;
}

static bool read_message(struct line *line)
{
    struct json_string key;

    if (!json_object(&line->json, NULL))
        return false;
    line->has_message = true;
    while (json_member(&line->json, NULL, &key)) {
        bool is_read;
        if (json_string_is(&key, "content"))
            is_read = read_wire(line, &line->event->content_wire);
        else if (json_string_is(&key, "thinking"))
            is_read = read_wire(line, &line->event->thinking_wire);
        else if (json_string_is(&key, "tool_calls"))
            is_read = read_calls(line);
        else
            is_read = json_skip(&line->json, NULL);
        if (!is_read)
            return false;
    }
    return !line->json.error;
}

/* --- logprobs: OpenAI wants every key of every token, Ollama leaves out what is empty ------------------------ */

static bool add_tokens(struct json_reader *json, bool has_alternatives, struct text *out);

static bool add_token(struct json_reader *json, bool has_alternatives, struct text *out)
{
    struct slice token = SLICE("\"\""), logprob = SLICE("0"), bytes = SLICE("null");
    struct text alternatives;
    struct json_string key;
    bool is_read = json_object(json, NULL);

    text_init(&alternatives, out->max);
    while (is_read && json_member(json, NULL, &key)) {
        if (json_string_is(&key, "token") && json_peek(json) == JSON_STRING)
            is_read = json_skip(json, &token);
        else if (json_string_is(&key, "logprob") && json_peek(json) == JSON_NUMBER)
            is_read = json_skip(json, &logprob);
        else if (json_string_is(&key, "bytes") && json_peek(json) == JSON_ARRAY)
            is_read = json_skip(json, &bytes);
        else if (has_alternatives && json_string_is(&key, "top_logprobs") && json_peek(json) == JSON_ARRAY)
            is_read = !alternatives.len && add_tokens(json, false, &alternatives); /* twice is not Ollama's */
        else
            is_read = json_skip(json, NULL);
    }
    text_add_literal(out, "{\"token\":");
    text_add_slice(out, token);
    text_add_literal(out, ",\"logprob\":");
    text_add_slice(out, logprob);
    text_add_literal(out, ",\"bytes\":");
    text_add_slice(out, bytes);
    if (has_alternatives) {
        text_add_literal(out, ",\"top_logprobs\":");
        text_add_slice(out, alternatives.len ? text_slice(&alternatives) : SLICE("[]"));
    }
    text_add_char(out, '}');
    if (alternatives.err && !out->err)
        out->err = alternatives.err;
    text_release_wiped(&alternatives);
    return is_read && !json->error;
}

static bool add_tokens(struct json_reader *json, bool has_alternatives, struct text *out)
{
    bool has_one = false;

    if (!json_array(json))
        return false;
    text_add_char(out, '[');
    while (json_element(json)) {
        if (has_one)
            text_add_char(out, ',');
        has_one = true;
        if (!add_token(json, has_alternatives, out))
            return false;
    }
    text_add_char(out, ']');
    return !json->error;
}

static bool read_logprobs(struct line *line)
{
    struct text list;
    bool is_read;

    if (skip_null(line))
        return true;
    text_init(&list, SIZE_MAX / 4);
    is_read = add_tokens(&line->json, true, &list);
    if (is_read) {
        line->event->logprobs_value = arena_copy(line->arena, text_slice(&list));
        is_read = (!list.err && line->event->logprobs_value.at) || no_memory(line);
    }
    text_release_wiped(&list);
    return is_read;
}

/* --- the line ------------------------------------------------------------------------------------------------ */

static bool read_done(struct line *line)
{
    if (skip_null(line))
        return true;
    return json_bool(&line->json, &line->event->is_done);
}

/* Everything but `length` is a normal end: agents throw on words that they do not know. */
static bool read_done_reason(struct line *line)
{
    struct json_string reason;

    if (skip_null(line))
        return true;
    if (!json_string(&line->json, &reason))
        return false;
    line->event->finish = json_string_is(&reason, "length") ? FINISH_LENGTH : FINISH_STOP;
    return true;
}

static bool read_error(struct line *line)
{
    struct json_string error;
    struct text plain;

    if (skip_null(line))
        return true;
    if (!json_string(&line->json, &error))
        return false;
    text_init(&plain, SIZE_MAX / 4);
    json_string_decode(&error, &plain);
    if (!plain.len)
        text_add_literal(&plain, "unknown error");
    line->event->error = arena_copy(line->arena, text_slice(&plain));
    text_release_wiped(&plain);
    return line->event->error.at ? true : no_memory(line);
}

static bool read_member(struct line *line, const struct json_string *key)
{
    if (json_string_is(key, "message"))
        return skip_null(line) || read_message(line);
    if (json_string_is(key, "done"))
        return read_done(line);
    if (json_string_is(key, "done_reason"))
        return read_done_reason(line);
    if (json_string_is(key, "prompt_eval_count"))
        return read_count(line, &line->event->prompt_tokens);
    if (json_string_is(key, "eval_count"))
        return read_count(line, &line->event->completion_tokens);
    if (json_string_is(key, "logprobs"))
        return read_logprobs(line);
    if (json_string_is(key, "error"))
        return read_error(line);
    return json_skip(&line->json, NULL);
}

enum err ollama_read_line(struct slice text, struct arena *arena, struct event *ret_event)
{
    struct event event = { 0 };
    struct line line = { .arena = arena, .event = &event };
    struct json_string key;

    json_open(&line.json, text, JSON_MAX_DEPTH);
    if (!json_object(&line.json, NULL))
        return ERR_BAD;
    while (json_member(&line.json, NULL, &key))
        if (!read_member(&line, &key))
            return line.is_out_of_memory ? ERR_NO_MEMORY : ERR_BAD;
    if (!json_close(&line.json))
        return ERR_BAD;
    if (event.error.len) {
        *ret_event = (struct event){ .error = event.error };
        return ERR_OK;
    }
    if (!line.has_message && !event.is_done)
        return ERR_BAD;
    event.finish = !event.is_done ? FINISH_NONE : event.finish == FINISH_LENGTH ? FINISH_LENGTH : FINISH_STOP;
    *ret_event = event;
    return ERR_OK;
}
