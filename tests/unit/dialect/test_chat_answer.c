/* Events of an answer, and the bytes a caller of /v1/chat/completions gets: openai-ollama.md 4 and 7 (B). */
#include <stdio.h>

#include "arena.h"
#include "check.h"
#include "dialect.h"
#include "kind.h"

static const char head[] =
    "data: {\"id\":\"chatcmpl-x\",\"object\":\"chat.completion.chunk\",\"created\":1790000000,\"model\":\"qwen3:32b\","
    "\"system_fingerprint\":\"fp_gateway\",\"choices\":[";

static struct answer an_answer(bool wants_usage)
{
    struct inference inference = { .model = SLICE("qwen3:32b"), .is_stream = true, .wants_usage = wants_usage };
    struct answer answer;

    answer_init(&answer, &dialect_chat, &inference, SLICE("abc"), 1790000000);
    (void)snprintf(answer.id, sizeof answer.id, "chatcmpl-x");
    return answer;
}

/* Ollama's lines, one a '\n', as the caller would get them; what each chunk begins with is left out. */
static void stream_of(struct answer *answer, const char *lines, struct text *out)
{
    struct arena arena;

    arena_init(&arena);
    while (*lines) {
        const char *end = strchrnul(lines, '\n');
        struct event event;
        CHECK_EQ(kind_ollama.read_line((struct slice){ lines, (size_t)(end - lines) }, &arena, &event), ERR_OK);
        answer->dialect->stream_event(answer, &event, out);
        lines = *end ? end + 1 : end;
    }
    arena_release(&arena);
}

/* The stream with "> " in place of every head. */
static void shorten(const struct text *stream, struct text *ret_short)
{
    const char *at = stream->at, *end = stream->at + stream->len;

    while (at < end) {
        if (slice_starts((struct slice){ at, (size_t)(end - at) }, SLICE(head))) {
            text_add_literal(ret_short, "> ");
            at += sizeof head - 1;
        } else {
            text_add_char(ret_short, *at++);
        }
    }
}

struct row {
    const char *name, *lines, *wanted;
    bool wants_usage;
};

#define LINE(message, more)                                                                                      \
    "{\"model\":\"registry.ollama.ai/library/x\",\"created_at\":\"2026-11-22T14:17:11Z\",\"message\":{\"role\":" \
    "\"assistant\"," message "}," more "}\n"
#define CONTENT(text)        LINE("\"content\":\"" text "\"", "\"done\":false")
#define DONE(reason, counts) LINE("\"content\":\"\"", "\"done\":true,\"done_reason\":\"" reason "\"" counts)
#define COUNTS               ",\"total_duration\":5,\"prompt_eval_count\":3,\"eval_count\":2,\"eval_duration\":7"
#define CALL(id, index, name, arguments) \
    "{\"id\":\"" id "\",\"function\":{\"index\":" index ",\"name\":\"" name "\",\"arguments\":" arguments "}}"

#define CHUNK(delta)   "> {\"index\":0,\"delta\":{" delta "},\"finish_reason\":null}]}\n\n"
#define ROLE           "\"role\":\"assistant\","
#define THOUGHT(text)  "\"reasoning\":\"" text "\",\"reasoning_content\":\"" text "\""
#define FINISH(reason) "> {\"index\":0,\"delta\":{},\"finish_reason\":\"" reason "\"}]}\n\n"
#define USAGE          "> ],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n"
#define END            "data: [DONE]\n\n"
#define LOGPROB                                                                                                      \
    "[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[{\"token\":\"b\",\"logprob\":-1,\"bytes\":" \
    "null}]}]"

static const struct row rows[] = {
    { "22: thinking, content and the end in one",
      LINE("\"content\":\"c\",\"thinking\":\"t\"", "\"done\":true,\"done_reason\":\"stop\"" COUNTS),
      CHUNK(ROLE THOUGHT("t")) CHUNK("\"content\":\"c\"") FINISH("stop") USAGE END, true },
    { "23: content and the end, usage not asked for",
      LINE("\"content\":\"c\"", "\"done\":true,\"done_reason\":\"stop\"" COUNTS),
      CHUNK(ROLE "\"content\":\"c\"") FINISH("stop") END, false },
    { "24: thinking and a call",
      LINE("\"content\":\"\",\"thinking\":\"t\",\"tool_calls\":[" CALL("call_1", "0", "f", "{\"a\":1}") "]",
           "\"done\":false"),
      CHUNK(ROLE THOUGHT("t"))
          CHUNK("\"content\":\"\",\"tool_calls\":[{\"id\":\"call_1\",\"index\":0,\"type\":\"function\",\"function\":"
                "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}}]"),
      false },
    { "25: thinking and content", LINE("\"content\":\"c\",\"thinking\":\"t\"", "\"done\":false"),
      CHUNK(ROLE THOUGHT("t")) CHUNK("\"content\":\"c\""), false },
    { "26: three chunks, the role in the first", CONTENT("a") CONTENT("b") CONTENT("c") DONE("stop", ""),
      CHUNK(ROLE "\"content\":\"a\"") CHUNK("\"content\":\"b\"") CHUNK("\"content\":\"c\"") FINISH("stop") END, false },
    { "28: length", CONTENT("a") DONE("length", COUNTS), CHUNK(ROLE "\"content\":\"a\"") FINISH("length") USAGE END,
      true },
    { "29: a call at the end",
      LINE("\"content\":\"\",\"tool_calls\":[" CALL("i", "7", "f", "{ \"z\": \"\xe2\x80\xa8\", \"a\": [1, 2] }") "]",
           "\"done\":true,\"done_reason\":\"stop\""),
      CHUNK(ROLE "\"content\":\"\",\"tool_calls\":[{\"id\":\"i\",\"index\":7,\"type\":\"function\",\"function\":{"
                 "\"name\":\"f\",\"arguments\":"
                 "\"{\\\"z\\\":\\\"\\\\u2028\\\",\\\"a\\\":[1,2]}\"}}]") FINISH("tool_calls") END,
      false },
    { "30: an empty end with counts makes no content chunk", CONTENT("a") DONE("stop", COUNTS),
      CHUNK(ROLE "\"content\":\"a\"") FINISH("stop") USAGE END, true },
    { "31: an end with logprobs only",
      CONTENT("a")
          LINE("\"content\":\"\"", "\"done\":true,\"logprobs\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],"
                                   "\"top_logprobs\":[{\"token\":\"b\",\"logprob\":-1}]}]"),
      CHUNK(ROLE "\"content\":\"a\"") "> {\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":{\"content\":" LOGPROB
                                      "},\"finish_reason\":null}]}\n\n" FINISH("stop") END,
      false },
    { "32: an empty end comes first", DONE("stop", ""), CHUNK(ROLE "\"content\":\"\"") FINISH("stop") END, false },
    { "33: a call, then length",
      LINE("\"content\":\"\",\"tool_calls\":[" CALL("i", "0", "f", "{}") "]", "\"done\":false") DONE("length", ""),
      CHUNK(ROLE "\"content\":\"\",\"tool_calls\":[{\"id\":\"i\",\"index\":0,\"type\":\"function\",\"function\":{"
                 "\"name\":\"f\",\"arguments\":\"{}\"}}]") FINISH("length") END,
      false },
    { "33: a call, then the end",
      LINE("\"content\":\"\",\"tool_calls\":[" CALL("i", "0", "f", "{}") "]", "\"done\":false") DONE("stop", ""),
      CHUNK(ROLE "\"content\":\"\",\"tool_calls\":[{\"id\":\"i\",\"index\":0,\"type\":\"function\",\"function\":{"
                 "\"name\":\"f\",\"arguments\":\"{}\"}}]") FINISH("tool_calls") END,
      false },
    { "33: unload, which agents do not know", CONTENT("a") DONE("unload", ""),
      CHUNK(ROLE "\"content\":\"a\"") FINISH("stop") END, false },
    { "33: no reason", CONTENT("a") LINE("\"content\":\"\"", "\"done\":true"),
      CHUNK(ROLE "\"content\":\"a\"") FINISH("stop") END, false },
    { "34: thoughts only", LINE("\"content\":\"\",\"thinking\":\"t\"", "\"done\":false"),
      CHUNK(ROLE "\"content\":\"\"," THOUGHT("t")), false },
    { "35: logprobs on the first half",
      LINE("\"content\":\"c\",\"thinking\":\"t\"", "\"done\":false,\"logprobs\":[{\"token\":\"a\",\"logprob\":0}]"),
      "> {\"index\":0,\"delta\":{" ROLE THOUGHT(
          "t") "},\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":0,\"bytes\":null,\"top_logprobs\":[]}]},"
               "\"finish_reason\":null}]}\n\n" CHUNK("\"content\":\"c\""),
      false },
    { "nothing new makes no chunk", CONTENT("a") CONTENT("") CONTENT("b"),
      CHUNK(ROLE "\"content\":\"a\"") CHUNK("\"content\":\"b\""), false },
    { "escapes and separators", CONTENT("\\u003cb\\u003e\\n\\\"\xe2\x80\xa9\xc2\x85\xf0\x9f\x9a\x80"),
      CHUNK(ROLE "\"content\":\"\\u003cb\\u003e\\n\\\"\\u2029\\u0085\xf0\x9f\x9a\x80\""), false },
};

TEST(streams_look_like_openai)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct answer answer = an_answer(rows[i].wants_usage);
        struct text stream, brief;
        text_init(&stream, 1 << 20);
        text_init(&brief, 1 << 20);
        stream_of(&answer, rows[i].lines, &stream);
        shorten(&stream, &brief);
        if (!slice_is(text_slice(&brief), slice_of(rows[i].wanted)))
            check_fail(__FILE__, __LINE__, "row \"%s\" is\n%s, wanted\n%s", rows[i].name, text_string(&brief),
                       rows[i].wanted);
        CHECK_EQ(answer.is_finished, slice_ends(text_slice(&brief), SLICE(END)));
        text_release(&stream);
        text_release(&brief);
    }
}

TEST(a_call_without_an_id_gets_one)
{
    struct answer answer = an_answer(false);
    struct text stream;

    text_init(&stream, 1 << 20);
    stream_of(&answer,
              "{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\"}},{\"function\":{\"name\":\"g\","
              "\"arguments\":null}}]},\"done\":false}",
              &stream);
    CHECK(strstr(stream.at, "\"tool_calls\":[{\"id\":\"call_"));
    CHECK(strstr(
        stream.at,
        "\"index\":0,\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"call_"));
    CHECK(strstr(stream.at, "\"index\":1,\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]"));
    text_release(&stream);
}

/* Answers that are not streamed: what stands behind "model", and behind it. */
static const struct row wholes[] = {
    { "plain", LINE("\"content\":\"Hello \\\"you\\\"\"", "\"done\":true,\"done_reason\":\"stop\"" COUNTS),
      "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello "
      "\\\"you\\\"\"},\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}",
      false },
    { "thoughts",
      LINE("\"content\":\"c\",\"thinking\":\"t\"",
           "\"done\":true,\"done_reason\":\"length\",\"eval_count\":10,\"prompt_eval_count\":20"),
      "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"c\"," THOUGHT(
          "t") "},\"finish_reason\":\"length\"}],"
               "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":10,\"total_tokens\":30}}",
      false },
    { "calls, and no counts",
      LINE("\"content\":\"\",\"tool_calls\":[" CALL("a", "2", "f", "{\"x\":\"\\u003c\"}") "," CALL("b", "7", "g",
                                                                                                   "{}") "]",
           "\"done\":true,\"done_reason\":\"stop\""),
      "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"index\":2,"
      "\"type\":\"function\",\"function\":"
      "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":\\\"\\\\u003c\\\"}\"}},{\"id\":\"b\",\"index\":7,\"type\":"
      "\"function\",\"function\":{\"name\":\"g\","
      "\"arguments\":\"{}\"}}]},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":0,\"completion_"
      "tokens\":0,\"total_tokens\":0}}",
      false },
    { "calls and length",
      LINE("\"content\":\"\",\"tool_calls\":[" CALL("a", "0", "f", "{}") "]",
           "\"done\":true,\"done_reason\":\"length\""),
      "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"a\",\"index\":0,"
      "\"type\":\"function\",\"function\":"
      "{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":0,"
      "\"completion_tokens\":0,"
      "\"total_tokens\":0}}",
      false },
    { "logprobs",
      LINE("\"content\":\"a\"",
           "\"done\":true,\"logprobs\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":"
           "[{\"token\":\"b\",\"logprob\":-1}]}]"),
      "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\"},\"logprobs\":{\"content\":" LOGPROB
      "},\"finish_reason\":\"stop\"}],"
      "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}}",
      false },
};

TEST(whole_answers_look_like_openai)
{
    static const char start[] =
        "{\"id\":\"chatcmpl-x\",\"object\":\"chat.completion\",\"created\":1790000000,\"model\":\"qwen3:32b\","
        "\"system_fingerprint\":\"fp_gateway\",\"choices\":[";

    for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++) {
        struct answer answer = an_answer(false);
        struct event event;
        struct arena arena;
        struct text out;
        arena_init(&arena);
        text_init(&out, 1 << 20);
        CHECK_EQ(kind_ollama.read_line(slice_of(wholes[i].lines), &arena, &event), ERR_OK);
        dialect_chat.whole(&answer, &event, &out);
        CHECK_ROW(slice_starts(text_slice(&out), SLICE(start)), wholes[i].name);
        CHECK_STR(out.at + sizeof start - 1, out.len - (sizeof start - 1), wholes[i].wanted);
        text_release(&out);
        arena_release(&arena);
    }
}

TEST(a_stream_that_just_ends_is_finished)
{
    struct answer answer = an_answer(true);
    struct text stream, brief;

    text_init(&stream, 1 << 20);
    text_init(&brief, 1 << 20);
    dialect_chat.stream_finish(&answer, &stream);
    shorten(&stream, &brief);
    CHECK_STR(brief.at, brief.len, CHUNK(ROLE "\"content\":\"\"") FINISH("stop") END);
    CHECK(answer.is_finished);
    text_release(&stream);
    text_release(&brief);
}

TEST(what_was_asked_to_be_stripped_is)
{
    struct answer answer = an_answer(false);
    struct event event = { .content_wire = SLICE("x"), .is_done = true, .finish = FINISH_STOP };
    struct text out;

    text_init(&out, 4096);
    answer.strips_model = answer.strips_created = true;
    dialect_chat.stream_event(&answer, &event, &out);
    CHECK(slice_starts(
        text_slice(&out),
        SLICE("data: {\"id\":\"chatcmpl-x\",\"object\":\"chat.completion.chunk\",\"system_fingerprint\":")));
    CHECK(!strstr(out.at, "created") && !strstr(out.at, "model"));
    text_clear(&out);
    dialect_chat.whole(&answer, &event, &out);
    CHECK(slice_starts(text_slice(&out),
                       SLICE("{\"id\":\"chatcmpl-x\",\"object\":\"chat.completion\",\"system_fingerprint\":")));
    CHECK(!strstr(out.at, "created") && !strstr(out.at, "\"model\""));
    text_release(&out);
}

TEST(what_chunks_begin_with_is_the_same_whether_it_is_kept_or_made_each_time)
{
    struct event event = { .content_wire = SLICE("x") };
    struct answer answer = an_answer(false);
    struct text chunks[3];
    struct arena arena;
    char name[255];

    memset(name, '"', sizeof name);
    answer.model = (struct slice){ name, sizeof name };
    answer.is_begun = true;
    arena_init(&arena);
    for (unsigned i = 0; i < 3; i++) {
        text_init(&chunks[i], 1 << 16);
        answer.arena = i ? &arena : NULL;
        CHECK_EQ(answer.head.len > 0, i == 2);
        dialect_chat.stream_event(&answer, &event, &chunks[i]);
        CHECK(chunks[i].len > 2 * sizeof name);
        CHECK(slice_is(text_slice(&chunks[i]), text_slice(&chunks[0])));
    }
    for (unsigned i = 0; i < 3; i++)
        text_release(&chunks[i]);
    arena_release(&arena);
}

TEST(ids_are_long_and_never_the_same)
{
    struct inference inference = { .model = SLICE("m") };
    struct answer one, two;

    answer_init(&one, &dialect_chat, &inference, SLICE("r"), 1);
    answer_init(&two, &dialect_chat, &inference, SLICE("r"), 1);
    CHECK_EQ(strlen(one.id), 31);
    CHECK(strncmp(one.id, "chatcmpl-", 9) == 0);
    CHECK(strcmp(one.id, two.id) != 0);
    for (const char *at = one.id + 9; *at; at++)
        CHECK(*at >= 'a' && *at <= 'z');
}

TEST(heartbeats_are_comments)
{
    struct answer answer = an_answer(false);
    struct text out;

    text_init(&out, 64);
    dialect_chat.stream_heartbeat(&answer, &out);
    CHECK_STR(out.at, out.len, ": ping\n\n");
    text_release(&out);
}
