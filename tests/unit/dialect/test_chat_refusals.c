/* Requests that are refused, and what is said then: one sentence, the field, and nothing of the prompt. */
#include "chat_case.h"
#include "check.h"

#include <stdlib.h>

struct row {
    const char *body, *param, *says;
    enum cause cause;
};

#define M  "{\"model\":\"m\","
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define FIELD_ROW(fields, param, says)                  \
    {                                                   \
        M HI "," fields "}", param, says, CAUSE_INVALID \
    }
#define MESSAGE_ROW(message, param, says)                                                                \
    {                                                                                                    \
        M "\"messages\":[{\"role\":\"user\",\"content\":\"\"}," message "]}", param, says, CAUSE_INVALID \
    }
#define NOT_DONE(fields, param, says)                       \
    {                                                       \
        M HI "," fields "}", param, says, CAUSE_UNSUPPORTED \
    }
#define PART(part) "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"}," part "]}"

static const struct row rows[] = {
    { "", "", "body is missing", CAUSE_INVALID },
    { "  ", "", "ends before it is complete", CAUSE_INVALID },
    { "[]", "", "must be an object", CAUSE_INVALID },
    { "\"x\"", "", "must be an object", CAUSE_INVALID },
    { "{\"model\":", "", "ends before it is complete", CAUSE_INVALID },
    { "{\"model\":\"m\"", "", "ends before it is complete", CAUSE_INVALID },
    { "{\"model\":\"m\"} x", "", "something follows", CAUSE_INVALID },
    { "{'model':1}", "", "not valid JSON", CAUSE_INVALID },
    { "{\"model\":zork}", "", "not valid JSON", CAUSE_INVALID },
    { "{\"model\":\"\xff\"}", "", "not valid UTF-8", CAUSE_INVALID },
    { "{\"model\":\"\\ud800\"}", "", "not valid UTF-8", CAUSE_INVALID },
    { "{\"model\":\"a\",\"model\":\"b\"}", "model", "already has", CAUSE_INVALID },
    { "{\"model\":\"a\",\"mod\\u0045l\":\"b\"}", "modEl", "already has", CAUSE_INVALID },
    { "{\"zork\":1,\"ZORK\":2}", "ZORK", "already has", CAUSE_INVALID },
    { M "\"messages\":[{\"role\":\"user\",\"Role\":\"system\"}]}", "messages[0].Role", "already has", CAUSE_INVALID },
    { "{" HI "}", "model", "missing", CAUSE_INVALID },
    { "{\"model\":null," HI "}", "model", "missing", CAUSE_INVALID },
    { "{\"model\":\"\"," HI "}", "model", "name of a model", CAUSE_INVALID },
    { "{\"model\":5," HI "}", "model", "`model` must be a string", CAUSE_INVALID },
    { "{\"model\":\"m\"}", "messages", "at least one", CAUSE_INVALID },
    { M "\"messages\":[]}", "messages", "at least one", CAUSE_INVALID },
    { M "\"messages\":{}}", "messages", "must be an array", CAUSE_INVALID },
    { M "\"messages\":[5]}", "messages[0]", "each of `messages` must be an object", CAUSE_INVALID },
    { M "\"messages\":[null]}", "messages[0]", "each of `messages` must be an object", CAUSE_INVALID },
    MESSAGE_ROW("{\"content\":\"x\"}", "messages[1].role", "must have a `role`"),
    MESSAGE_ROW("{\"role\":\"king\",\"content\":\"x\"}", "messages[1].role", "`role` must be system, developer"),
    MESSAGE_ROW("{\"role\":\"User\",\"content\":\"x\"}", "messages[1].role", "`role` must be system, developer"),
    MESSAGE_ROW("{\"role\":5,\"content\":\"x\"}", "messages[1].role", "`role` must be a string"),
    MESSAGE_ROW("{\"role\":\"user\"}", "messages[1].content", "must hold `content`"),
    MESSAGE_ROW("{\"role\":\"user\",\"content\":null}", "messages[1].content", "must hold `content`"),
    MESSAGE_ROW("{\"role\":\"tool\",\"tool_call_id\":\"x\"}", "messages[1].content", "must hold `content`"),
    MESSAGE_ROW("{\"role\":\"user\",\"content\":2}", "messages[1].content",
                "`content` must be a string or an array of parts"),
    MESSAGE_ROW("{\"role\":\"user\",\"content\":{}}", "messages[1].content",
                "`content` must be a string or an array of parts"),
    MESSAGE_ROW("{\"role\":\"user\",\"content\":[\"x\"]}", "messages[1].content[0]",
                "each of `content` must be an object"),
    MESSAGE_ROW(PART("{\"text\":\"x\"}"), "messages[1].content[1].type", "of type text or image_url"),
    MESSAGE_ROW(PART("{\"type\":\"zork\"}"), "messages[1].content[1].type", "of type text or image_url"),
    MESSAGE_ROW(PART("{\"type\":\"text\"}"), "messages[1].content[1].text", "must hold `text`"),
    MESSAGE_ROW(PART("{\"type\":\"text\",\"text\":5}"), "messages[1].content[1].text", "`text` must be a string"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\"}"), "messages[1].content[1].image_url", "must hold `image_url`"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":{}}"), "messages[1].content[1].image_url",
                "must hold `image_url`"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":\"data:image/gif;base64,AAAA\"}"),
                "messages[1].content[1].image_url", "invalid image input"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":\"data:image/PNG;base64,AAAA\"}"),
                "messages[1].content[1].image_url", "invalid image input"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,AAA\"}"),
                "messages[1].content[1].image_url", "invalid image input"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,\"}"),
                "messages[1].content[1].image_url", "invalid image input"),
    MESSAGE_ROW(PART("{\"type\":\"image_url\",\"image_url\":\"data:image/png;base64,AA\\nA\"}"),
                "messages[1].content[1].image_url", "invalid image input"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"tool_calls\":{}}", "messages[1].tool_calls", "must be an array"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"tool_calls\":[{}]}", "messages[1].tool_calls[0].function",
                "must hold a `function`"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}",
                "messages[1].tool_calls[0].function.name", "must name its function"),
    MESSAGE_ROW(
        "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"secret\\\":\"}}]}",
        "messages[1].tool_calls[0].function.arguments", "`arguments` must be a JSON object, written as a string"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"[1]\"}}]}",
                "messages[1].tool_calls[0].function.arguments",
                "`arguments` must be a JSON object, written as a string"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]}",
                "messages[1].tool_calls[0].function.arguments",
                "`arguments` must be a JSON object, written as a string"),
    MESSAGE_ROW("{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":[]}", "messages[1].reasoning",
                "must be a string"),
    FIELD_ROW("\"stream\":1", "stream", "`stream` must be true or false"),
    FIELD_ROW("\"stream_options\":true", "stream_options", "must be an object"),
    FIELD_ROW("\"stream_options\":{\"include_usage\":\"yes\"}", "stream_options.include_usage",
              "must be true or false"),
    FIELD_ROW("\"temperature\":2.01", "temperature", "`temperature` must be a number from 0 to 2"),
    FIELD_ROW("\"temperature\":-0.1", "temperature", "`temperature` must be a number from 0 to 2"),
    FIELD_ROW("\"temperature\":1e400", "temperature", "`temperature` must be a number from 0 to 2"),
    FIELD_ROW("\"temperature\":\"1\"", "temperature", "`temperature` must be a number from 0 to 2"),
    FIELD_ROW("\"top_p\":1.5", "top_p", "from 0 to 1"),
    FIELD_ROW("\"min_p\":-1", "min_p", "from 0 to 1"),
    FIELD_ROW("\"frequency_penalty\":2.1", "frequency_penalty", "from -2 to 2"),
    FIELD_ROW("\"presence_penalty\":-3", "presence_penalty", "from -2 to 2"),
    FIELD_ROW("\"repeat_penalty\":0", "repeat_penalty", "from 0.01 to 10"),
    FIELD_ROW("\"top_k\":-2", "top_k", "whole number"),
    FIELD_ROW("\"top_k\":1.5", "top_k", "whole number"),
    FIELD_ROW("\"seed\":1.5", "seed", "whole number"),
    FIELD_ROW("\"seed\":99999999999999999999", "seed", "whole number"),
    FIELD_ROW("\"max_tokens\":0", "max_tokens", "at least 1"),
    FIELD_ROW("\"max_tokens\":-1", "max_tokens", "at least 1"),
    FIELD_ROW("\"max_completion_tokens\":1.5", "max_completion_tokens", "at least 1"),
    FIELD_ROW("\"max_completion_tokens\":\"9\"", "max_completion_tokens", "at least 1"),
    FIELD_ROW("\"stop\":5", "stop", "a string or an array of strings"),
    FIELD_ROW("\"stop\":[\"a\",5]", "stop[1]", "a string or an array of strings"),
    FIELD_ROW("\"top_logprobs\":21", "top_logprobs", "from 0 to 20"),
    FIELD_ROW("\"top_logprobs\":-1", "top_logprobs", "from 0 to 20"),
    FIELD_ROW("\"logprobs\":2", "logprobs", "must be true or false"),
    FIELD_ROW("\"n\":2", "n", "`n` must be 1"),
    FIELD_ROW("\"n\":0", "n", "`n` must be 1"),
    FIELD_ROW("\"user\":5", "user", "must be a string"),
    FIELD_ROW("\"response_format\":\"json\"", "response_format", "must be an object"),
    FIELD_ROW("\"response_format\":{}", "response_format.type", "must be text, json_object or json_schema"),
    FIELD_ROW("\"response_format\":{\"type\":\"xml\"}", "response_format.type",
              "must be text, json_object or json_schema"),
    FIELD_ROW("\"response_format\":{\"type\":\"json_schema\"}", "response_format.json_schema", "must hold a `schema`"),
    FIELD_ROW("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":\"x\"}}",
              "response_format.json_schema.schema", "must be a JSON schema"),
    FIELD_ROW("\"reasoning_effort\":\"extreme\"", "reasoning_effort",
              "invalid reasoning value: \"extreme\" (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", "
              "\"ultra\", \"max\", "
              "or \"none\")"),
    FIELD_ROW("\"reasoning_effort\":\"500\"", "reasoning_effort", "invalid reasoning value (must be"),
    FIELD_ROW("\"reasoning_effort\":5", "reasoning_effort", "must be a string"),
    FIELD_ROW("\"reasoning\":{\"effort\":\"x\"}", "reasoning.effort", "invalid reasoning value"),
    FIELD_ROW("\"think\":5", "think", "true, false or a level"),
    FIELD_ROW("\"think\":\"some\"", "think", "invalid reasoning value"),
    FIELD_ROW("\"enable_thinking\":1", "enable_thinking", "true or false"),
    FIELD_ROW("\"chat_template_kwargs\":{\"enable_thinking\":1}", "chat_template_kwargs.enable_thinking",
              "true or false"),
    FIELD_ROW("\"thinking\":{\"type\":\"x\"}", "thinking.type", "enabled, disabled or auto"),
    FIELD_ROW("\"tools\":{}", "tools", "must be an array"),
    FIELD_ROW("\"tools\":[{\"type\":\"function\"}]", "tools[0].function", "must hold a `function`"),
    FIELD_ROW("\"tools\":[{\"type\":\"function\",\"function\":{}}]", "tools[0].function.name", "must have a `name`"),
    FIELD_ROW("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"\"}}]", "tools[0].function.name",
              "not empty"),
    FIELD_ROW("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":5}}]",
              "tools[0].function.description", "must be a string"),
    FIELD_ROW("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":\"x\"}}]",
              "tools[0].function.parameters", "must be a JSON schema"),
    FIELD_ROW("\"tool_choice\":\"any\"", "tool_choice", "none, auto, required"),
    FIELD_ROW("\"tool_choice\":5", "tool_choice", "none, auto, required"),
    FIELD_ROW("\"tool_choice\":{}", "tool_choice", "none, auto, required"),
    FIELD_ROW("\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}", "tool_choice", "not in `tools`"),
    NOT_DONE("\"tool_choice\":{\"type\":\"custom\"}", "tool_choice.type", "function or allowed_tools"),
    NOT_DONE("\"tools\":[{\"type\":\"custom\",\"custom\":{}}]", "tools[0].type", "only tools of type `function`"),
    NOT_DONE("\"functions\":[{\"name\":\"f\"}]", "functions", "please use `tools`"),
    NOT_DONE("\"modalities\":[\"text\",\"audio\"]", "modalities[1]", "only text"),
    NOT_DONE("\"audio\":{\"voice\":\"x\"}", "audio", "not supported"),
    { M "\"messages\":[" PART("{\"type\":\"image_url\",\"image_url\":{\"url\":\"HTTPS://example.com/x.png\"}}") "]}",
      "messages[0].content[1].image_url",
      "image URLs are not currently supported, please use base64 encoded data instead", CAUSE_UNSUPPORTED },
    { M "\"messages\":[" PART("{\"type\":\"file\",\"file\":{}}") "]}", "messages[0].content[1].type", "file inputs",
      CAUSE_UNSUPPORTED },
    { M "\"messages\":[" PART("{\"type\":\"input_audio\",\"input_audio\":{}}") "]}", "messages[0].content[1].type",
      "audio inputs", CAUSE_UNSUPPORTED },
};

static void check_row(const struct row *row)
{
    size_t len = strlen(row->body);
    char *exact = malloc(len ? len : 1); /* so that a read past the end is seen */
    struct chat_case one;
    struct slice message, param;

    CHECK(exact);
    memcpy(exact, row->body, len);
    chat_case_run(&one, (struct slice){ exact, len });
    CHECK_ROW(!one.is_read, row->body);
    message = refusal_message(&one.refusal);
    param = one.refusal.param;
    if (one.refusal.cause != row->cause || !slice_has(message, slice_of(row->says)) ||
        !slice_is(param, slice_of(row->param)))
        check_fail(__FILE__, __LINE__, "row \"%s\": cause %d, param \"%.*s\", message \"%.*s\"", row->body,
                   (int)one.refusal.cause, (int)param.len, param.at, (int)message.len, message.at);
    CHECK_ROW(!refusal_text_invites_retry(message), row->body);
    CHECK_ROW(!slice_has(message, SLICE("secret")) && !slice_has(message, SLICE("zork")), row->body);
    chat_case_release(&one);
    free(exact);
}

TEST(what_is_wrong_is_named)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check_row(&rows[i]);
}

TEST(a_body_cut_anywhere_is_refused)
{
    static const char body[] = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":[{"
                               "\"type\":\"text\",\"text\":\"\\u00e9\"}]},"
                               "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"f\","
                               "\"arguments\":\"{\\\"a\\\":1}\"}}]}],"
                               "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{"
                               "\"type\":[\"object\"],\"properties\":{\"a\":true}}}}],"
                               "\"temperature\":0.5,\"seed\":-12,\"stop\":[\"a\"],\"logprobs\":false}";

    for (size_t len = 0; len <= sizeof body - 1; len++) {
        char *exact = malloc(len ? len : 1);
        struct chat_case one;
        CHECK(exact);
        memcpy(exact, body, len);
        chat_case_run(&one, (struct slice){ exact, len });
        CHECK_EQ(one.is_read, len == sizeof body - 1);
        if (!one.is_read)
            CHECK_EQ(one.refusal.cause, CAUSE_INVALID);
        chat_case_release(&one);
        free(exact);
    }
}

/* `open` and `close` repeated around nothing. */
static void check_nested(const char *before, const char *open, const char *close, const char *after)
{
    struct chat_case one;
    struct text body;

    text_init(&body, 1 << 24);
    text_add_string(&body, before);
    for (unsigned i = 0; i < 100000; i++)
        text_add_string(&body, open);
    for (unsigned i = 0; i < 100000; i++)
        text_add_string(&body, close);
    text_add_string(&body, after);
    chat_case_run(&one, text_slice(&body));
    CHECK(!one.is_read);
    CHECK(slice_has(one.refusal.message, SLICE("nested too deeply")));
    chat_case_release(&one);
    text_release(&body);
}

TEST(deep_nesting_is_refused_wherever_it_is)
{
    check_nested(M HI ",\"zork\":", "[", "]", "}");
    check_nested(M HI ",\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":",
                 "{\"properties\":{\"a\":", "}}", "}}}]}");
    check_nested(M HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":{\"a\":", "[", "]",
                 "}}}}");
    check_nested(M "\"messages\":[{\"x\":", "{\"role\":", "}", "}]}");
}

/* One element over and over, up to one more than allowed. */
static void check_many(const char *before, const char *element, unsigned max, const char *after)
{
    for (unsigned count = max; count <= max + 1; count++) {
        struct chat_case one;
        struct text body;

        text_init(&body, 1 << 24);
        text_add_string(&body, before);
        for (unsigned i = 0; i < count; i++) {
            text_add_string(&body, i ? "," : "");
            text_add_string(&body, element);
        }
        text_add_string(&body, after);
        chat_case_run(&one, text_slice(&body));
        CHECK_EQ(one.is_read, count == max);
        if (!one.is_read)
            CHECK(slice_has(one.refusal.message, SLICE("too many elements")));
        chat_case_release(&one);
        text_release(&body);
    }
}

TEST(endless_lists_are_refused)
{
    check_many(M "\"messages\":[", "{\"role\":\"tool\",\"content\":\"\",\"tool_call_id\":\"x\"}", 20000, "]}");
    check_many(M "\"messages\":[{\"role\":\"user\",\"content\":[", "{\"type\":\"text\",\"text\":\"\"}", 2000, "]}]}");
    check_many(M "\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[", "{\"function\":{\"name\":\"f\"}}", 1000,
               "]}]}");
    check_many(M HI ",\"tools\":[", "{\"function\":{\"name\":\"f\"}}", 1000, "]}");
    check_many(M HI ",\"stop\":[", "\"x\"", 64, "]}");
}

TEST(a_name_of_256_bytes_is_no_model)
{
    for (size_t len = 255; len <= 256; len++) {
        char name[257] = { 0 };
        struct chat_case one;
        struct text body;

        memset(name, 'a', len);
        text_init(&body, 4096);
        text_printf(&body, "{\"model\":\"%s\"," HI "}", name);
        chat_case_run(&one, text_slice(&body));
        CHECK_EQ(one.is_read, len == 255);
        chat_case_release(&one);
        text_release(&body);
    }
}
