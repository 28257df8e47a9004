/* A real Ollama's answers (tests/fakes/ollama-transcripts), through the kind and then the dialect. */
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "check.h"
#include "dialect.h"
#include "kind.h"

struct transcript {
    struct text file;
    unsigned status;
    struct text body; /* without chunk framing */
};

static void transcript_read(struct transcript *transcript, const char *name)
{
    char path[512], part[4096];
    const char *at, *head;
    FILE *file;
    size_t len;

    (void)snprintf(path, sizeof path, "%s/tests/fakes/ollama-transcripts/%s", QG_SOURCE_DIR, name);
    text_init(&transcript->file, 1 << 20);
    text_init(&transcript->body, 1 << 20);
    file = fopen(path, "rb");
    CHECK_ROW(file, path);
    while ((len = fread(part, 1, sizeof part, file)))
        text_add(&transcript->file, part, len);
    (void)fclose(file);
    head = strstr(transcript->file.at, "HTTP/1.1 ");
    CHECK_ROW(head, path);
    transcript->status = (unsigned)strtoul(head + 9, NULL, 10);
    at = strstr(head, "\r\n\r\n");
    CHECK_ROW(at, path);
    at += 4;
    if (!memmem(head, (size_t)(at - head), "chunked", 7)) {
        text_add_string(&transcript->body, at);
        return;
    }
    while ((len = strtoul(at, NULL, 16))) {
        at = strstr(at, "\r\n") + 2;
        text_add(&transcript->body, at, len);
        at += len + 2;
    }
}

static void transcript_release(struct transcript *transcript)
{
    text_release(&transcript->file);
    text_release(&transcript->body);
}

static struct answer an_answer(bool is_stream)
{
    struct inference inference = { .model = SLICE("shown"), .is_stream = is_stream, .wants_usage = true };
    struct answer answer;

    answer_init(&answer, &dialect_chat, &inference, SLICE("abc"), 1790000000);
    return answer;
}

/* What the caller has of an answer in the end. */
struct heard {
    struct text content, reasoning, arguments;
    char finish[16];
    long long prompt_tokens, completion_tokens;
    unsigned chunks;
    bool is_done, has_error;
};

static void hear_string(struct text *heard, const json_t *value)
{
    if (value)
        text_add(heard, json_string_value(value), json_string_length(value));
}

static void hear_message(struct heard *heard, const json_t *message)
{
    size_t i;
    json_t *call;

    hear_string(&heard->content, json_object_get(message, "content"));
    hear_string(&heard->reasoning, json_object_get(message, "reasoning"));
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
        hear_string(&heard->arguments, json_object_get(json_object_get(call, "function"), "arguments"));
}

static void hear(struct heard *heard, struct slice said)
{
    json_t *json = json_loadb(said.at, said.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const json_t *choice, *usage;

    CHECK(json);
    heard->chunks++;
    heard->has_error |= json_object_get(json, "error") != NULL;
    choice = json_array_get(json_object_get(json, "choices"), 0);
    hear_message(heard, json_object_get(choice, "delta"));
    hear_message(heard, json_object_get(choice, "message"));
    if (json_is_string(json_object_get(choice, "finish_reason")))
        (void)snprintf(heard->finish, sizeof heard->finish, "%s",
                       json_string_value(json_object_get(choice, "finish_reason")));
    usage = json_object_get(json, "usage");
    if (usage) {
        heard->prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
        heard->completion_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
    }
    CHECK(!slice_has(said, SLICE("ollama")) && !slice_has(said, SLICE("created_at")) &&
          !slice_has(said, SLICE("duration")));
    json_decref(json);
}

static void hear_stream(struct heard *heard, struct slice stream)
{
    while (stream.len) {
        const char *end = memmem(stream.at, stream.len, "\n\n", 2);
        struct slice event;
        CHECK(end);
        CHECK(slice_starts(stream, SLICE("data: ")));
        event = (struct slice){ stream.at + 6, (size_t)(end - stream.at) - 6 };
        stream.len -= (size_t)(end + 2 - stream.at);
        stream.at = end + 2;
        if (slice_is(event, SLICE("[DONE]")))
            heard->is_done = true;
        else
            hear(heard, event);
    }
}

static void answer_line(struct answer *answer, struct slice line, struct text *out)
{
    struct refusal refusal;
    struct event event;
    struct arena arena;

    arena_init(&arena);
    CHECK_EQ(kind_ollama.read_line(line, &arena, &event), ERR_OK);
    if (event.error.len) {
        kind_ollama.read_broken(event.error, answer->model, &arena, &refusal);
        dialect_chat.stream_error(answer, &refusal, out);
    } else if (answer->is_stream) {
        dialect_chat.stream_event(answer, &event, out);
    } else {
        dialect_chat.whole(answer, &event, out);
    }
    arena_release(&arena);
}

static void hear_transcript(const char *name, bool is_stream, struct heard *heard)
{
    struct answer answer = an_answer(is_stream);
    struct transcript transcript;
    struct text out;
    const char *at, *end;

    transcript_read(&transcript, name);
    CHECK_EQ(transcript.status, 200);
    *heard = (struct heard){ 0 };
    text_init(&heard->content, 4096);
    text_init(&heard->reasoning, 4096);
    text_init(&heard->arguments, 4096);
    text_init(&out, 1 << 20);
    for (at = transcript.body.at; *at; at = *end ? end + 1 : end) {
        end = strchrnul(at, '\n');
        answer_line(&answer, (struct slice){ at, (size_t)(end - at) }, &out);
    }
    if (is_stream)
        hear_stream(heard, text_slice(&out));
    else
        hear(heard, text_slice(&out));
    text_release(&out);
    transcript_release(&transcript);
}

static void heard_release(struct heard *heard)
{
    text_release(&heard->content);
    text_release(&heard->reasoning);
    text_release(&heard->arguments);
}

TEST(every_chat_transcript_is_understood)
{
#define PLAIN                                                                                                         \
    "Hello ! I am a scripted model . \xe4\xbd\xa0\xe5\xa5\xbd\xef\xbc\x8c\xe4\xb8\x96\xe7\x95\x8c\xe3\x80\x82 Emoji " \
    "\xf0\x9f\x9a\x80 done.\n"
#define THOUGHT "Okay, the user greets me..\n"
#define ANSWER  "Answer : forty-two indeed!!"
    static const struct {
        const char *name;
        bool is_stream;
        const char *content, *reasoning, *arguments, *finish;
        long long prompt_tokens, completion_tokens;
    } rows[] = {
        { "chat-plain.http", false, PLAIN, "", "", "stop", 22, 17 },
        { "chat-thinking.http", false, ANSWER, THOUGHT, "", "stop", 22, 15 },
        { "chat-tool.http", false, "", "", "{\"city\":\"Paris\"}", "tool_calls", 22, 10 },
        { "chat-schema-thinking.http", false, "{\"a\" : 0 }", THOUGHT, "", "stop", 51, 5 },
        { "chat-load-only.http", false, "", "", "", "stop", 0, 0 },
        { "chat-stream-plain.http", true, PLAIN, "", "", "stop", 22, 17 },
        { "chat-stream-thinking.http", true, ANSWER, THOUGHT, "", "stop", 22, 15 },
        { "chat-stream-tool.http", true, "", "", "{\"city\":\"Paris\"}", "tool_calls", 22, 10 },
        { "chat-stream-length.http", true, "Hello ! I", "", "", "length", 22, 3 },
        { "chat-stream-logprobs.http", true, "Hello ! I am", "", "", "length", 22, 4 },
        { "chat-stream-runner-dies.http", true, " r0 r1 r2", "", "", "", 0, 0 },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct heard heard;
        hear_transcript(rows[i].name, rows[i].is_stream, &heard);
        CHECK_STR(text_string(&heard.content), heard.content.len, rows[i].content);
        CHECK_STR(text_string(&heard.reasoning), heard.reasoning.len, rows[i].reasoning);
        CHECK_STR(text_string(&heard.arguments), heard.arguments.len, rows[i].arguments);
        CHECK_STR(heard.finish, strlen(heard.finish), rows[i].finish);
        CHECK_EQ(heard.prompt_tokens, rows[i].prompt_tokens);
        CHECK_EQ(heard.completion_tokens, rows[i].completion_tokens);
        CHECK_EQ(heard.has_error, !rows[i].finish[0]);
        CHECK_EQ(heard.is_done, rows[i].is_stream && rows[i].finish[0]);
        heard_release(&heard);
    }
}

TEST(every_error_transcript_is_understood)
{
    static const struct {
        const char *name;
        enum cause cause;
    } rows[] = {
        { "error-cloud.http", CAUSE_MODEL_NOT_ALLOWED },  { "error-embed-unsupported.http", CAUSE_UPSTREAM },
        { "error-empty.http", CAUSE_BACKEND_SAYS },       { "error-format.http", CAUSE_UPSTREAM },
        { "error-json.http", CAUSE_BACKEND_SAYS },        { "error-method.http", CAUSE_BACKEND_SAYS },
        { "error-model.http", CAUSE_MODEL_UNKNOWN },      { "error-no-model.http", CAUSE_BACKEND_SAYS },
        { "error-no-thinking.http", CAUSE_UNSUPPORTED },  { "error-no-tools.http", CAUSE_UNSUPPORTED },
        { "error-option-type.http", CAUSE_UPSTREAM },     { "error-overflow-stream.http", CAUSE_OVERFLOW },
        { "error-overflow.http", CAUSE_OVERFLOW },        { "error-path.http", CAUSE_BACKEND_SAYS },
        { "error-tool-schema.http", CAUSE_BACKEND_SAYS }, { "error-type.http", CAUSE_BACKEND_SAYS },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct transcript transcript;
        struct refusal refusal;
        struct arena arena;
        struct slice message;
        arena_init(&arena);
        transcript_read(&transcript, rows[i].name);
        kind_ollama.read_error(transcript.status, text_slice(&transcript.body), SLICE("shown"), &arena, &refusal);
        message = refusal_message(&refusal);
        CHECK_ROW(refusal.cause == rows[i].cause, rows[i].name);
        CHECK_ROW(message.len, rows[i].name);
        CHECK_ROW(!slice_has(message, SLICE("ollama")) && !slice_has(message, SLICE("Go struct")), rows[i].name);
        CHECK_ROW(cause_row(refusal.cause)->heals || !refusal_text_invites_retry(message), rows[i].name);
        if (refusal.cause == CAUSE_OVERFLOW)
            CHECK_ROW(slice_has(message, SLICE("2048")) && slice_has(message, SLICE("6020")), rows[i].name);
        transcript_release(&transcript);
        arena_release(&arena);
    }
}
