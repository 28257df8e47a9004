/*
 * The answer of /v1/chat/completions, streamed or whole (openai-ollama.md 4). Reasoning goes out under both names in
 * use. A chunk costs about one pass over its bytes: what all chunks of an answer begin with is kept in the answer.
 */
#include "chat.h"

#include "digest.h"
#include "json.h"

enum { CALL_ID_LETTERS = 8, ARGUMENTS_MAX_BYTES = 256 * 1024 * 1024 };

static void add_fields(const struct answer *answer, const char *object, struct text *out)
{
    text_add_literal(out, "{\"id\":\"");
    text_add_string(out, answer->id);
    text_add_literal(out, "\",\"object\":\"");
    text_add_string(out, object);
    if (!answer->strips_created) {
        text_add_literal(out, "\",\"created\":");
        text_add_i64(out, answer->created_s);
    } else {
        text_add_char(out, '"');
    }
    if (!answer->strips_model) {
        text_add_literal(out, ",\"model\":");
        json_add_string(out, answer->model);
    }
    text_add_literal(out, ",\"system_fingerprint\":\"fp_gateway\",\"choices\":[");
}

/* `data: {"id":...,"choices":[` */
static void add_head(struct answer *answer, struct text *out)
{
    size_t start = out->len;

    if (answer->head.len) {
        text_add_slice(out, answer->head);
        return;
    }
    text_add_literal(out, "data: ");
    add_fields(answer, "chat.completion.chunk", out);
    if (answer->arena && !out->err)
        answer->head = arena_copy(answer->arena, (struct slice){ out->at + start, out->len - start });
}

/* `,"NAME":"RAW"`: `name` brings all that stands before the text. */
static void add_raw(struct text *out, const char *name, struct slice wire)
{
    text_add_string(out, name);
    json_add_raw(out, wire);
    text_add_char(out, '"');
}

static void add_reasoning(struct text *out, struct slice thinking_wire)
{
    add_raw(out, "\"reasoning\":\"", thinking_wire);
    add_raw(out, ",\"reasoning_content\":\"", thinking_wire);
}

/* OpenAI carries arguments as JSON within a string. */
static void add_arguments(struct text *out, struct slice arguments_value)
{
    struct text compact;

    text_init(&compact, ARGUMENTS_MAX_BYTES);
    json_add_compact(&compact, arguments_value);
    json_add_string(out, text_slice(&compact));
    if (compact.err && !out->err)
        out->err = compact.err;
    text_release_wiped(&compact);
}

static void add_call(struct text *out, const struct tool_call *call)
{
    char letters[CALL_ID_LETTERS];

    text_add_literal(out, "{\"id\":\"");
    if (call->id_wire.len) {
        json_add_raw(out, call->id_wire);
    } else {
        random_letters(letters, sizeof letters);
        text_add_literal(out, "call_");
        text_add(out, letters, sizeof letters);
    }
    text_add_literal(out, "\",\"index\":");
    text_add_u64(out, call->index);
    add_raw(out, ",\"type\":\"function\",\"function\":{\"name\":\"", call->name_wire);
    text_add_literal(out, ",\"arguments\":");
    add_arguments(out, call->arguments_value);
    text_add_literal(out, "}}");
}

/* The calls themselves; `,"tool_calls":` before them. */
static void add_calls(struct answer *answer, const struct tool_call *calls, struct text *out)
{
    if (!calls)
        return;
    answer->has_tool_calls = true;
    text_add_literal(out, ",\"tool_calls\":[");
    for (; calls; calls = calls->next) {
        add_call(out, calls);
        if (calls->next)
            text_add_char(out, ',');
    }
    text_add_char(out, ']');
}

static void add_logprobs(struct text *out, struct slice logprobs_value)
{
    if (!logprobs_value.len)
        return;
    text_add_literal(out, ",\"logprobs\":{\"content\":");
    json_add_compact(out, logprobs_value);
    text_add_char(out, '}');
}

/* Head of the chunk, up to its delta's first field; the role stands in the first chunk only. */
static void chunk_begin(struct answer *answer, struct text *out)
{
    add_head(answer, out);
    text_add_literal(out, "{\"index\":0,\"delta\":{");
    if (!answer->is_begun)
        text_add_literal(out, "\"role\":\"assistant\",");
    answer->is_begun = true;
}

static void chunk_end(struct slice logprobs_value, struct text *out)
{
    text_add_char(out, '}');
    add_logprobs(out, logprobs_value);
    text_add_literal(out, ",\"finish_reason\":null}]}\n\n");
}

/* Thinking together with content or calls goes out as two chunks: this is the first. */
static void chunk_thinking(struct answer *answer, const struct event *event, struct text *out)
{
    chunk_begin(answer, out);
    add_reasoning(out, event->thinking_wire);
    chunk_end(event->logprobs_value, out);
}

static void chunk_content(struct answer *answer, const struct event *event, bool has_thinking,
                          struct slice logprobs_value, struct text *out)
{
    chunk_begin(answer, out);
    add_raw(out, "\"content\":\"", event->content_wire);
    if (has_thinking) {
        text_add_char(out, ',');
        add_reasoning(out, event->thinking_wire);
    }
    add_calls(answer, event->tool_calls, out);
    chunk_end(logprobs_value, out);
}

static const char *finish_reason(const struct answer *answer, enum finish finish)
{
    if (finish == FINISH_LENGTH)
        return "length";
    return answer->has_tool_calls ? "tool_calls" : "stop";
}

static void add_usage(struct text *out, const struct event *event)
{
    text_add_literal(out, "\"usage\":{\"prompt_tokens\":");
    text_add_u64(out, event->prompt_tokens);
    text_add_literal(out, ",\"completion_tokens\":");
    text_add_u64(out, event->completion_tokens);
    text_add_literal(out, ",\"total_tokens\":");
    text_add_u64(out, event->prompt_tokens + event->completion_tokens);
    text_add_char(out, '}');
}

/* `counted` NULL: the engine did not say how many tokens there were. */
static void finish(struct answer *answer, enum finish finish, const struct event *counted, struct text *out)
{
    add_head(answer, out);
    text_add_literal(out, "{\"index\":0,\"delta\":{},\"finish_reason\":\"");
    text_add_string(out, finish_reason(answer, finish));
    text_add_literal(out, "\"}]}\n\n");
    if (answer->wants_usage && counted) {
        add_head(answer, out);
        text_add_literal(out, "],");
        add_usage(out, counted);
        text_add_literal(out, "}\n\n");
    }
    text_add_literal(out, "data: [DONE]\n\n");
    answer->is_finished = true;
}

void chat_stream_event(struct answer *answer, const struct event *event, struct text *out)
{
    bool has_thinking = event->thinking_wire.len != 0;
    bool has_rest = event->content_wire.len || event->tool_calls;

    if (has_thinking && has_rest) {
        chunk_thinking(answer, event, out);
        chunk_content(answer, event, false, (struct slice){ 0 }, out);
    } else if (has_thinking || has_rest || event->logprobs_value.len || !answer->is_begun) {
        chunk_content(answer, event, has_thinking, event->logprobs_value, out);
    }
    if (event->is_done)
        finish(answer, event->finish, event, out);
}

void chat_stream_finish(struct answer *answer, struct text *out)
{
    static const struct event nothing = { 0 };

    if (!answer->is_begun)
        chunk_content(answer, &nothing, false, (struct slice){ 0 }, out);
    finish(answer, FINISH_STOP, NULL, out);
}

void chat_stream_error(struct answer *answer, const struct refusal *refusal, struct text *out)
{
    text_add_literal(out, "data: ");
    refusal_write(refusal, ERROR_SHAPE_OPENAI, answer->request_id, out);
    text_add_literal(out, "\n\n");
    answer->is_finished = true;
}

void chat_stream_heartbeat(struct answer *answer, struct text *out)
{
    (void)answer;
    text_add_literal(out, ": ping\n\n");
}

void chat_whole(struct answer *answer, const struct event *event, struct text *out)
{
    add_fields(answer, "chat.completion", out);
    add_raw(out, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"", event->content_wire);
    if (event->thinking_wire.len) {
        text_add_char(out, ',');
        add_reasoning(out, event->thinking_wire);
    }
    add_calls(answer, event->tool_calls, out);
    text_add_char(out, '}');
    add_logprobs(out, event->logprobs_value);
    text_add_literal(out, ",\"finish_reason\":\"");
    text_add_string(out, finish_reason(answer, event->finish));
    text_add_literal(out, "\"}],");
    add_usage(out, event);
    text_add_char(out, '}');
    answer->is_begun = true;
    answer->is_finished = true;
}
