/*
 * fuzz_ollama_stream - any bytes as what Ollama answers: the first says with which status, whether streamed, and where
 * the bytes are cut into lines they are read one by one. Every event that comes of it must be one that OpenAI's clients
 * can read: JSON (jansson judges), no line break within, the finish chunk and [DONE] last and once; every error, one
 * that is JSON and final where the cause is.
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

static void judge_json(struct slice said)
{
    json_error_t error;
    json_t *json = json_loadb(said.at, said.len, JSON_ALLOW_NUL, &error);

    /* Numbers of logprobs are passed on as they are. */
    must(json || json_error_code(&error) == json_error_numeric_overflow, error.text, said);
    must(!json || json_is_object(json), "an object", said);
    must(!slice_has(said, SLICE("\xc2\x85")) && !slice_has(said, SLICE("\xe2\x80\xa8")) &&
             !slice_has(said, SLICE("\xe2\x80\xa9")),
         "nothing that Python takes for a line's end", said);
    json_decref(json);
}

/* data: JSON, again and again; [DONE] only at the end. */
static void judge_stream(struct slice stream, bool is_whole)
{
    bool is_done = false;

    while (stream.len) {
        const char *end = memmem(stream.at, stream.len, "\n\n", 2);
        struct slice event;
        must(!is_done && end && slice_starts(stream, SLICE("data: ")), "an event", stream);
        event = (struct slice){ stream.at + 6, (size_t)(end - stream.at) - 6 };
        must(!memchr(event.at, '\n', event.len) && !memchr(event.at, '\r', event.len), "one line", event);
        is_done = slice_is(event, SLICE("[DONE]"));
        if (!is_done)
            judge_json(event);
        stream.len -= (size_t)(end + 2 - stream.at);
        stream.at = end + 2;
    }
    must(is_done == is_whole, "[DONE] at the end", (struct slice){ 0 });
}

static void judge_refusal(const struct refusal *refusal)
{
    struct slice message = refusal_message(refusal);
    struct text written;

    text_init(&written, 1 << 22);
    refusal_write(refusal, ERROR_SHAPE_OPENAI, SLICE("abc"), &written);
    judge_json(text_slice(&written));
    must(refusal->cause != CAUSE_NONE && message.len, "a cause", text_slice(&written));
    must(cause_row(refusal->cause)->heals || !refusal_text_invites_retry(message), "final", message);
    must(refusal_status(refusal) >= 400 && refusal_status(refusal) < 600, "a status", text_slice(&written));
    must(!slice_has(message, SLICE("://")) && !slice_has(message, SLICE("registry.")) &&
             !slice_has(message, SLICE("\n")),
         "nothing of the machine", message);
    text_release(&written);
}

static struct answer an_answer(bool is_stream)
{
    struct inference inference = { .model = SLICE("qwen3:32b"), .is_stream = is_stream, .wants_usage = true };
    struct answer answer;

    answer_init(&answer, &dialect_chat, &inference, SLICE("abc"), 1790000000);
    return answer;
}

/* False: the answer ends here. */
static bool one_line(struct answer *answer, struct slice line, struct text *out)
{
    struct refusal refusal = { .cause = CAUSE_UPSTREAM };
    struct event event;
    struct arena arena;
    enum err err;

    arena_init(&arena);
    err = kind_ollama.read_line(line, &arena, &event);
    if (err || event.error.len) {
        if (!err)
            kind_ollama.read_broken(event.error, answer->model, &arena, &refusal);
        judge_refusal(&refusal);
        dialect_chat.stream_error(answer, &refusal, out);
    } else {
        dialect_chat.stream_event(answer, &event, out);
    }
    arena_release(&arena);
    return !answer->is_finished;
}

static void stream(struct slice body)
{
    struct answer answer = an_answer(true);
    bool has_error = false;
    struct text out;

    text_init(&out, 1 << 26);
    while (body.len && !answer.is_finished) {
        const char *end = memchr(body.at, '\n', body.len);
        struct slice line = { body.at, end ? (size_t)(end - body.at) : body.len };
        size_t before = out.len;
        if (!one_line(&answer, line, &out))
            has_error = slice_has((struct slice){ out.at + before, out.len - before }, SLICE("data: {\"error\":"));
        body.at += line.len + (end != NULL);
        body.len -= line.len + (end != NULL);
    }
    if (!answer.is_finished)
        dialect_chat.stream_finish(&answer, &out);
    must(!out.err, "room enough", (struct slice){ 0 });
    judge_stream(text_slice(&out), !has_error);
    text_release(&out);
}

static void whole(struct slice body)
{
    struct answer answer = an_answer(false);
    struct event event;
    struct arena arena;
    struct text out;

    arena_init(&arena);
    text_init(&out, 1 << 26);
    if (kind_ollama.read_line(body, &arena, &event) == ERR_OK && !event.error.len) {
        dialect_chat.whole(&answer, &event, &out);
        judge_json(text_slice(&out));
    }
    text_release(&out);
    arena_release(&arena);
}

static void error(unsigned status, struct slice body)
{
    struct refusal refusal;
    struct arena arena;

    arena_init(&arena);
    kind_ollama.read_error(status, body, SLICE("qwen3:32b"), &arena, &refusal);
    judge_refusal(&refusal);
    arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static const unsigned statuses[] = { 400, 401, 403, 404, 408, 422, 429, 499, 500, 501, 502, 503, 302 };
    struct slice body;

    if (!len)
        return 0;
    body = (struct slice){ (const char *)bytes + 1, len - 1 };
    if (bytes[0] == 's')
        stream(body);
    else if (bytes[0] == 'w')
        whole(body);
    else
        error(statuses[bytes[0] % (sizeof statuses / sizeof *statuses)], body);
    return 0;
}
