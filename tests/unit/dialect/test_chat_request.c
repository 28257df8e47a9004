/* What a caller of /v1/chat/completions asks, and what Ollama is asked then: openai-ollama.md 3, 3.1 and 7 (A). */
#include "chat_case.h"
#include "check.h"

#define USER_HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
/* What follows the messages when nothing is asked for. */
#define REST ",\"stream\":false,\"options\":{\"top_p\":1,\"temperature\":1},\"truncate\":false,\"shift\":false}"

struct row {
    const char *name, *body, *wanted;
};

static void check_row(const struct row *row)
{
    /* Exactly as long as it is, on the heap, so that a read past its end is seen. */
    struct slice body = slice_of(row->body);
    struct chat_case one;
    bool is_same;

    chat_case_run(&one, body);
    if (!one.is_read) {
        struct slice message = refusal_message(&one.refusal);
        struct text why;
        text_init(&why, 4096);
        text_add_slice(&why, message);
        chat_case_release(&one);
        check_fail(__FILE__, __LINE__, "row \"%s\" is refused: %s", row->name, text_string(&why));
    }
    is_same = slice_is(text_slice(&one.written), slice_of(row->wanted));
    if (!is_same)
        check_fail(__FILE__, __LINE__, "row \"%s\" is\n  %s, wanted\n  %s", row->name, text_string(&one.written),
                   row->wanted);
    chat_case_release(&one);
}

#define CHECK_ROWS(rows)                                           \
    do {                                                           \
        for (size_t i = 0; i < sizeof(rows) / sizeof *(rows); i++) \
            check_row(&(rows)[i]);                                 \
    } while (0)

/* {"model":"m",MESSAGES} becomes MESSAGES */
#define MESSAGES(name, from, to)                                                                         \
    {                                                                                                    \
        name, "{\"model\":\"m\",\"messages\":[" from "]}", "{\"model\":\"M\",\"messages\":[" to "]" REST \
    }

TEST(messages_keep_their_meaning)
{
    static const struct row rows[] = {
        MESSAGES("plain", "{\"role\":\"user\",\"content\":\"Hello\"}", "{\"role\":\"user\",\"content\":\"Hello\"}"),
        MESSAGES("empty content", "{\"role\":\"user\",\"content\":\"\"}", "{\"role\":\"user\",\"content\":\"\"}"),
        MESSAGES("developer is system",
                 "{\"role\":\"developer\",\"content\":\"s\"},{\"content\":\"u\",\"role\":\"user\"}",
                 "{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"}"),
        MESSAGES(
            "texts are joined by an empty line",
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}",
            "{\"role\":\"user\",\"content\":\"a\\n\\nb\"}"),
        MESSAGES("no parts", "{\"role\":\"user\",\"content\":[]}", "{\"role\":\"user\",\"content\":\"\"}"),
        MESSAGES("escapes stay as written",
                 "{\"role\":\"user\",\"content\":\"\\u00e9\\n\\\"\\ud83d\\ude80 \xe4\xbd\xa0\"}",
                 "{\"role\":\"user\",\"content\":\"\\u00e9\\n\\\"\\ud83d\\ude80 \xe4\xbd\xa0\"}"),
        MESSAGES("an image beside text",
                 "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hello\"},{\"type\":\"image_url\","
                 "\"image_url\":{\"url\":\"data:image/jpeg;base64,AAECAw==\",\"detail\":\"low\"}}]}",
                 "{\"role\":\"user\",\"content\":\"Hello\",\"images\":[\"AAECAw==\"]}"),
        MESSAGES("images by string, with escaped slashes",
                 "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"data:image\\/png;base64,\\/"
                 "\\/\\/\\/\"},"
                 "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:;base64,AAAA\"}}]}",
                 "{\"role\":\"user\",\"content\":\"\",\"images\":[\"////\",\"AAAA\"]}"),
        MESSAGES("a call without content",
                 "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"id\",\"type\":\"function\",\"function\":{\"name\":"
                 "\"get_current_weather\",\"arguments\":\"{\\\"location\\\": \\\"Paris, France\\\", "
                 "\\\"z\\\":1,\\\"a\\\":2}\"}}]}",
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"id\",\"function\":{\"name\":"
                 "\"get_current_weather\",\"arguments\":{\"location\":\"Paris, France\",\"z\":1,\"a\":2}}}]}"),
        MESSAGES(
            "a call with content and thoughts",
            "{\"role\":\"assistant\",\"content\":\"t\",\"reasoning\":\"r\",\"tool_calls\":[{\"id\":\"i\",\"function\":"
            "{\"name\":\"f\",\"arguments\":\"\"}}]}",
            "{\"role\":\"assistant\",\"content\":\"t\",\"thinking\":\"r\",\"tool_calls\":[{\"id\":\"i\",\"function\":"
            "{\"name\":\"f\",\"arguments\":{}}}]}"),
        MESSAGES("null content and no calls", "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":null}",
                 "{\"role\":\"assistant\",\"content\":\"\"}"),
        MESSAGES("reasoning_content", "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_content\":\"r\"}",
                 "{\"role\":\"assistant\",\"content\":\"c\",\"thinking\":\"r\"}"),
        MESSAGES("reasoning_text and thinking: the first that says something",
                 "{\"role\":\"assistant\",\"content\":\"c\",\"reasoning_text\":\"\",\"thinking\":\"r\"}",
                 "{\"role\":\"assistant\",\"content\":\"c\",\"thinking\":\"r\"}"),
        MESSAGES("only the model thinks",
                 "{\"role\":\"user\",\"content\":\"c\",\"reasoning\":\"r\",\"tool_call_id\":\"x\"}",
                 "{\"role\":\"user\",\"content\":\"c\"}"),
        MESSAGES("assistant parts and refusals",
                 "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"refusal\","
                 "\"refusal\":\"no\"}]},"
                 "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"never\"}",
                 "{\"role\":\"assistant\",\"content\":\"a\\n\\nno\"},{\"role\":\"assistant\",\"content\":\"never\"}"),
        MESSAGES(
            "a result finds its function's name",
            "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"id_\\u0061bc\",\"function\":{\"name\":"
            "\"get_current_weather\",\"arguments\":\"{}\"}},{\"id\":\"other\",\"function\":{\"name\":\"g\","
            "\"arguments\":\"{}\"}}]},"
            "{\"role\":\"tool\",\"tool_call_id\":\"id_abc\",\"content\":[{\"type\":\"text\",\"text\":\"sun\"}]}",
            "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"id_abc\",\"function\":{\"name\":"
            "\"get_current_weather\",\"arguments\":{}}},{\"id\":\"other\",\"function\":{\"name\":\"g\",\"arguments\":{}"
            "}}]},"
            "{\"role\":\"tool\",\"content\":\"sun\",\"tool_name\":\"get_current_weather\",\"tool_call_id\":\"id_"
            "abc\"}"),
        MESSAGES("the last call of an id counts",
                 "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"f\"}}]},"
                 "{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"g\"}}]},"
                 "{\"role\":\"tool\",\"tool_call_id\":\"i\",\"content\":\"x\"}",
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"f\","
                 "\"arguments\":{}}}]},"
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"g\","
                 "\"arguments\":{}}}]},"
                 "{\"role\":\"tool\",\"content\":\"x\",\"tool_name\":\"g\",\"tool_call_id\":\"i\"}"),
        MESSAGES("a result with a name and no id", "{\"role\":\"tool\",\"name\":\"f\",\"content\":\"x\"}",
                 "{\"role\":\"tool\",\"content\":\"x\",\"tool_name\":\"f\"}"),
        MESSAGES("an unknown id", "{\"role\":\"tool\",\"tool_call_id\":\"nope\",\"content\":\"x\"}",
                 "{\"role\":\"tool\",\"content\":\"x\",\"tool_call_id\":\"nope\"}"),
        MESSAGES("the old way of calling functions",
                 "{\"role\":\"assistant\",\"content\":null,\"function_call\":{\"name\":\"f\",\"arguments\":\"{"
                 "\\\"a\\\":1}\"}},"
                 "{\"role\":\"function\",\"name\":\"f\",\"content\":\"x\"}",
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
                 "{\"a\":1}}}]},"
                 "{\"role\":\"tool\",\"content\":\"x\",\"tool_name\":\"f\"}"),
        MESSAGES("line separators are escaped",
                 "{\"role\":\"user\",\"content\":\"a\xe2\x80\xa8"
                 "b\xc2\x85\"}",
                 "{\"role\":\"user\",\"content\":\"a\\u2028b\\u0085\"}"),
    };

    CHECK_ROWS(rows);
}

/* {"model":"m",FIELDS,messages} adds TO to options */
#define OPTIONS(name, from, to)                                                                                      \
    {                                                                                                                \
        name, "{\"model\":\"m\"," from "," USER_HI "}",                                                              \
            "{\"model\":\"M\"," USER_HI ",\"stream\":false,\"options\":{" to "},\"truncate\":false,\"shift\":false}" \
    }

TEST(samplers_pass_as_they_were_written)
{
    static const struct row rows[] = {
        OPTIONS("null is absent",
                "\"stream\":null,\"max_tokens\":null,\"temperature\":null,\"top_p\":null,\"stop\":null,\"tools\":null,"
                "\"n\":null,"
                "\"seed\":null,\"response_format\":null,\"tool_choice\":null,\"reasoning_effort\":null,\"think\":null,"
                "\"logprobs\":null,\"top_logprobs\":null,\"stream_options\":null,\"user\":null,\"functions\":null,"
                "\"audio\":null",
                "\"top_p\":1,\"temperature\":1"),
        OPTIONS(
            "all of them",
            "\"seed\":123,\"max_tokens\":999,\"stop\":[\"\\n\",\"stop\"],\"temperature\":1.5,\"frequency_penalty\":-2,"
            "\"presence_penalty\":0.25,\"top_p\":0.6,\"top_k\":40,\"min_p\":0.05,\"repeat_penalty\":1.1",
            "\"seed\":123,\"num_predict\":999,\"top_k\":40,\"top_p\":0.6,\"min_p\":0.05,\"temperature\":1.5,"
            "\"repeat_penalty\":1.1,\"presence_penalty\":0.25,\"frequency_penalty\":-2,\"stop\":[\"\\n\",\"stop\"]"),
        OPTIONS("max_completion_tokens wins", "\"max_completion_tokens\":7,\"max_tokens\":9",
                "\"num_predict\":7,\"top_p\":1,\"temperature\":1"),
        OPTIONS("max_completion_tokens wins, behind", "\"max_tokens\":9,\"max_completion_tokens\":7",
                "\"num_predict\":7,\"top_p\":1,\"temperature\":1"),
        OPTIONS("integers with a fraction of zero", "\"max_tokens\":100.0,\"seed\":1e2,\"top_k\":4.0e1",
                "\"seed\":1e2,\"num_predict\":100,\"top_k\":4.0e1,\"top_p\":1,\"temperature\":1"),
        OPTIONS("the ends of the ranges",
                "\"temperature\":2,\"top_p\":0,\"presence_penalty\":-2.0,\"frequency_penalty\":2e0",
                "\"top_p\":0,\"temperature\":2,\"presence_penalty\":-2.0,\"frequency_penalty\":2e0"),
        OPTIONS("one stop text", "\"stop\":\"END\"", "\"top_p\":1,\"temperature\":1,\"stop\":[\"END\"]"),
        OPTIONS("more than four, and an empty one", "\"stop\":[\"1\",\"2\",\"\",\"3\",\"4\",\"5\"]",
                "\"top_p\":1,\"temperature\":1,\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]"),
        OPTIONS("nothing to stop at", "\"stop\":[]", "\"top_p\":1,\"temperature\":1"),
        OPTIONS(
            "what only Ollama's API has, and what nobody has",
            "\"keep_alive\":0,\"options\":{\"num_ctx\":1},\"num_ctx\":5,\"format\":\"json\",\"truncate\":true,"
            "\"shift\":true,"
            "\"Temperature\":0,\"raw\":true,\"zork\":[{\"a\":[1,2,{}]}],\"store\":false,\"metadata\":{\"a\":\"b\"},"
            "\"parallel_tool_calls\":false,\"logit_bias\":{\"1\":2},\"n\":1,\"function_call\":\"none\",\"functions\":[ "
            "],"
            "\"modalities\":[\"text\"],\"service_tier\":\"auto\",\"response_format\":{\"type\":\"text\"},\"tools\":[]",
            "\"top_p\":1,\"temperature\":1"),
    };

    CHECK_ROWS(rows);
}

/* {"model":"m",FIELDS,messages} puts BEFORE before the options and AFTER behind them */
#define AROUND(name, from, before, after)                                                                              \
    {                                                                                                                  \
        name, "{\"model\":\"m\"," from "," USER_HI "}",                                                                \
            "{\"model\":\"M\"," USER_HI ",\"stream\":" before ",\"options\":{\"top_p\":1,\"temperature\":1}" after "}" \
    }
#define FIXED ",\"truncate\":false,\"shift\":false"

TEST(formats_and_logprobs_are_asked_for)
{
    static const struct row rows[] = {
        AROUND("stream", "\"stream\":true,\"stream_options\":{\"include_usage\":true}", "true", FIXED),
        AROUND("json_object", "\"response_format\":{\"type\":\" JSON_object \"}", "false,\"format\":\"json\"", FIXED),
        AROUND("json_schema",
               "\"response_format\":{\"json_schema\":{\"strict\":true,\"name\":\"x\",\"schema\":{ \"type\" : "
               "\"object\", \"b\":1,"
               "\"a\":[ ] }},\"type\":\"json_schema\"}",
               "false,\"format\":{\"type\":\"object\",\"b\":1,\"a\":[]}", FIXED),
        AROUND("logprobs", "\"logprobs\":true,\"top_logprobs\":5", "false",
               FIXED ",\"logprobs\":true,\"top_logprobs\":5"),
        AROUND("logprobs without alternatives", "\"logprobs\":true", "false",
               FIXED ",\"logprobs\":true,\"top_logprobs\":0"),
        AROUND("alternatives without logprobs", "\"logprobs\":false,\"top_logprobs\":20", "false", FIXED),
    };

    CHECK_ROWS(rows);
}

#define THINK(name, from, value) AROUND(name, from, "false", ",\"think\":" value FIXED)

TEST(every_way_of_asking_for_thinking_is_understood)
{
    static const struct row rows[] = {
        AROUND("unset", "\"reasoning_effort\":\"\"", "false", FIXED),
        THINK("none", "\"reasoning_effort\":\"none\"", "false"),
        THINK("minimal", "\"reasoning_effort\":\"minimal\"", "\"low\""),
        THINK("low", "\"reasoning_effort\":\"low\"", "\"low\""),
        THINK("medium", "\"reasoning_effort\":\"medium\"", "\"medium\""),
        THINK("high", "\"reasoning_effort\":\"high\"", "\"high\""),
        THINK("xhigh", "\"reasoning_effort\":\"xhigh\"", "\"max\""),
        THINK("ultra", "\"reasoning_effort\":\"ultra\"", "\"max\""),
        THINK("max", "\"reasoning_effort\":\"max\"", "\"max\""),
        THINK("the object wins",
              "\"reasoning_effort\":\"low\",\"reasoning\":{\"effort\":\"high\",\"summary\":\"auto\"}", "\"high\""),
        THINK("an object that says nothing", "\"reasoning\":{},\"reasoning_effort\":\"low\"", "\"low\""),
        THINK("think", "\"think\":true", "true"),
        THINK("think not", "\"think\":false", "false"),
        THINK("think by level", "\"think\":\"medium\"", "\"medium\""),
        THINK("enable_thinking", "\"enable_thinking\":false", "false"),
        THINK("chat_template_kwargs", "\"chat_template_kwargs\":{\"x\":1,\"enable_thinking\":true}", "true"),
        THINK("thinking enabled", "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2048}", "true"),
        THINK("thinking disabled", "\"thinking\":{\"type\":\"disabled\"}", "false"),
        AROUND("thinking auto", "\"thinking\":{\"type\":\"auto\"}", "false", FIXED),
    };

    CHECK_ROWS(rows);
}

#define TOOL(name, more)      "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"" more "}}"
#define NO_PARAMETERS         ",\"parameters\":{\"type\":\"object\",\"properties\":{}}"
#define TOOLS(name, from, to) AROUND(name, from, "false,\"tools\":[" to "]", FIXED)
#define SCHEMA(name, from, to) \
    TOOLS(name, "\"tools\":[" TOOL("f", ",\"parameters\":" from) "]", TOOL("f", ",\"parameters\":" to))

TEST(tools_are_passed_on)
{
    static const struct row rows[] = {
        SCHEMA("as they are",
               "{\"type\":\"object\",\"required\":[\"location\"],\"properties\":{\"unit\":{\"type\":\"string\","
               "\"enum\":[\"c\",\"f\"]},"
               "\"location\":{\"type\":[\"string\",\"null\"],\"description\":\"d\"},\"LOCATION\":{}}}",
               "{\"type\":\"object\",\"required\":[\"location\"],\"properties\":{\"unit\":{\"type\":\"string\","
               "\"enum\":[\"c\",\"f\"]},"
               "\"location\":{\"type\":[\"string\",\"null\"],\"description\":\"d\"},\"LOCATION\":{}}}"),
        TOOLS("with white space and more keys",
              "\"tools\":[ { \"function\" : { \"strict\" : false, \"description\" : \"d\", \"name\" : \"f\" } , "
              "\"type\":\"function\", "
              "\"keep_alive\":0 } ]",
              TOOL("f", ",\"description\":\"d\"" NO_PARAMETERS)),
        TOOLS("without parameters", "\"tools\":[" TOOL("f", ",\"parameters\":null") "]", TOOL("f", NO_PARAMETERS)),
        TOOLS("auto", "\"tools\":[" TOOL("f", "") "],\"tool_choice\":\"auto\"", TOOL("f", NO_PARAMETERS)),
        TOOLS("required", "\"tool_choice\":\"required\",\"tools\":[" TOOL("f", "") "]", TOOL("f", NO_PARAMETERS)),
        AROUND("none", "\"tools\":[" TOOL("f", "") "],\"tool_choice\":\"none\"", "false", FIXED),
        TOOLS("one by name",
              "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"\\u0067\"}},\"tools\":[" TOOL(
                  "f", "") "," TOOL("g", "") "," TOOL("h", "") "]",
              TOOL("g", NO_PARAMETERS)),
        TOOLS("some by name",
              "\"tools\":[" TOOL("f", "") "," TOOL("g", "") "," TOOL(
                  "h", "") "],\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":"
                           "{\"mode\":\"auto\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"h\"}},{"
                           "\"type\":\"function\",\"name\":\"f\"}]}}",
              TOOL("f", NO_PARAMETERS) "," TOOL("h", NO_PARAMETERS)),
    };

    CHECK_ROWS(rows);
}

/* U+0085, U+2028 and U+2029 never reach the engine as they are, wherever they stand and however they are written. */
TEST(characters_that_split_lines_go_out_escaped_wherever_they_stand)
{
    static const struct row rows[] = {
        MESSAGES("in a prompt", "{\"role\":\"user\",\"content\":\"\xe2\x80\xa8\\u2028\"}",
                 "{\"role\":\"user\",\"content\":\"\\u2028\\u2028\"}"),
        MESSAGES("far behind in a prompt of other scripts",
                 "{\"role\":\"user\",\"content\":\"\xd0\x9e\xd1\x82\xd0\xb2\xd0\xb5\xd1\x82 "
                 "\xe2\x80\x94 \xd0\xb4\xd0\xb0, \xe2\x80\x9c\xd0\xb8\xe2\x80\x9d\xc2\x85\"}",
                 "{\"role\":\"user\",\"content\":\"\xd0\x9e\xd1\x82\xd0\xb2\xd0\xb5\xd1\x82 "
                 "\xe2\x80\x94 \xd0\xb4\xd0\xb0, \xe2\x80\x9c\xd0\xb8\xe2\x80\x9d\\u0085\"}"),
        MESSAGES("in arguments, raw, escaped once, escaped twice",
                 "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
                 "\"{\\\"a\\\":\\\"\xe2\x80\xa9\\u2028\\\\u2028\\\"}\"}}]}",
                 "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
                 "\"arguments\":{\"a\":\"\\u2029\\u2028\\u2028\"}}}]}"),
        MESSAGES("in a thought and an id",
                 "{\"role\":\"assistant\",\"thinking\":\"\xe2\x80\xa8\",\"tool_calls\":[{\"id\":\"\xc2\x85\","
                 "\"function\":{\"name\":\"f\"}}]}",
                 "{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"\\u2028\",\"tool_calls\":[{\"id\":"
                 "\"\\u0085\",\"function\":{\"name\":\"f\",\"arguments\":{}}}]}"),
        SCHEMA("in a schema", "{\"description\":\"a\xe2\x80\xa8\\u2028\",\"x\":{\"\xc2\x85\":1}}",
               "{\"description\":\"a\\u2028\\u2028\",\"x\":{\"\\u0085\":1}}"),
        SCHEMA("in a schema that is mended", "{\"type\":1,\"x\":[ \"\xc2\x85\" ]}",
               "{\"type\":\"object\",\"x\":[\"\\u0085\"]}"),
        TOOLS("in a description",
              "\"tools\":[" TOOL("f", ",\"description\":\"\xe2\x80\xa8\"") "," TOOL("g", ",\"parameters\":{}") "]",
              TOOL("f", ",\"description\":\"\\u2028\"" NO_PARAMETERS) "," TOOL("g", ",\"parameters\":{}")),
    };

    CHECK_ROWS(rows);
}

#define CALLED(arguments) \
    "{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":" arguments "}}]}"
#define WITH(schema, arguments)                                                                                        \
    "{\"model\":\"m\",\"messages\":[" CALLED(arguments) "],\"tools\":[" TOOL(                                          \
        "f",                                                                                                           \
        ",\"parameters\":" schema) "],"                                                                                \
                                   "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":" schema \
                                   "}}}"

TEST(only_what_holds_no_space_and_splits_no_line_is_copied_as_it_stands)
{
    static const struct {
        const char *body;
        bool strings, schemas, call;
    } rows[] = {
        { WITH("{\"a\":[1,{}]}", "\"{\\\"a\\\":[1]}\""), true, true, true },
        { WITH("  {\"a b\":\" \"} ", "\"{\\\"a b\\\":\\\" \\\"}\""), true, true, true },
        { WITH("{\"\xd0\x9e\":\"\xe2\x80\x94\"}", "\"{\\\"\xd0\x9e\\\":1}\""), true, true, true },
        { WITH("{ \"a\":1}", "\" {}\""), true, false, false },
        { WITH("{\"a\" :1}", "\"{} \""), true, false, false },
        { WITH("{\"a\": 1}", "\"{\\n}\""), true, false, false },
        { WITH("{\"a\":1 }", "\"{\\\"a\\\":[1, 2]}\""), true, false, false },
        { WITH("{\"a\":1 ,\"b\":1}", "\"{\\\"a\\\":[1 ,2]}\""), true, false, false },
        { WITH("{\"a\":1, \"b\":1}", "\"{\\\"a\\\":[ 1]}\""), true, false, false },
        { WITH("{\"a\":[ ]}", "\"{\\\"a\\\":[1 ]}\""), true, false, false },
        { WITH("{\"a\":{\"b\":[1,{\"c\": 1}]}}", "\"{\\\"a\\\":{\\\"b\\\": 1}}\""), true, false, false },
        { WITH("{\"enum\":[ 1]}", "\"{\\\"a\\\":\\t1}\""), true, false, false },
        { WITH("{\"required\":[\"a\" ]}", "\"{\\\"a\\\":\\r1}\""), true, false, false },
        { WITH("{\"a\":\"\xe2\x80\xa8\"}", "\"{}\""), false, false, true },
        { WITH("{\"\xc2\x85\":1}", "\"{}\""), false, false, true },
        { WITH("{}", "\"{\\\"a\\\":\\\"\\u2028\\\"}\""), true, true, false },
        { WITH("{}", "\"{\\\"a\\\":\\\"\xe2\x80\xa8\\\"}\""), false, true, false },
        { WITH("{\"a\":\"\\u2028\"}", "\"{\\\"a\\\":\\\"\\\\u2028\\\"}\""), true, true, true },
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct inference inference;
        struct refusal refusal;
        struct arena arena;
        arena_init(&arena);
        CHECK_ROW(dialect_chat.read(slice_of(rows[i].body), &arena, &inference, &refusal), rows[i].body);
        CHECK_ROW(inference.is_tight == rows[i].strings, rows[i].body);
        CHECK_ROW(inference.schema_is_tight == rows[i].schemas, rows[i].body);
        CHECK_ROW(inference.tools->is_tight == rows[i].schemas, rows[i].body);
        CHECK_ROW(inference.messages->tool_calls->is_tight == rows[i].call, rows[i].body);
        arena_release(&arena);
    }
}

/* Each of these would be a 400 with a Go decoder's text, were it sent on as it is. */
TEST(schemas_that_ollama_would_refuse_are_mended)
{
    static const struct row rows[] = {
        SCHEMA("a boolean", "true", "{}"),
        SCHEMA("a list of types", "{\"type\":[\"object\",\"null\"],\"properties\":{}}",
               "{\"type\":\"object\",\"properties\":{}}"),
        SCHEMA("null first", "{\"type\":[\"null\",\"array\"]}", "{\"type\":\"array\"}"),
        SCHEMA("no type in the list", "{\"type\":[]}", "{\"type\":\"object\"}"),
        SCHEMA("a number for a type", "{ \"type\" : 5 , \"a\" : 1 }", "{\"type\":\"object\",\"a\":1}"),
        SCHEMA("in other case", "{\"TYPE\":[\"object\"],\"Required\":\"x\",\"PROPERTIES\":[]}",
               "{\"TYPE\":\"object\",\"Required\":[],\"PROPERTIES\":{}}"),
        SCHEMA("boolean properties",
               "{\"properties\":{\"a\":true,\"b\":false,\"c\":{\"properties\":{\"d\":true}},\"e\":null}}",
               "{\"properties\":{\"a\":{},\"b\":{},\"c\":{\"properties\":{\"d\":{}}},\"e\":null}}"),
        SCHEMA("required that is no list of strings",
               "{\"required\":[\"a\",1],\"properties\":{\"a\":{\"required\":true}}}",
               "{\"required\":[],\"properties\":{\"a\":{\"required\":[]}}}"),
        SCHEMA("types within",
               "{\"properties\":{\"a\":{\"type\":[\"string\",5]},\"b\":{\"type\":{}},\"c\":{\"type\":null}}}",
               "{\"properties\":{\"a\":{\"type\":[]},\"b\":{\"type\":[]},\"c\":{\"type\":null}}}"),
        SCHEMA("words within",
               "{\"properties\":{\"a\":{\"description\":5,\"enum\":\"x\",\"items\":[true],\"anyOf\":[true,{\"type\":1}]"
               "}}}",
               "{\"properties\":{\"a\":{\"description\":\"\",\"enum\":[],\"items\":[true],\"anyOf\":[{},{\"type\":[]}]}"
               "}}"),
        SCHEMA("the long s", "{\"propertie\xc5\xbf\":5,\"de\\u017fcription\":[1]}",
               "{\"propertie\xc5\xbf\":null,\"de\\u017fcription\":null}"),
        SCHEMA("unknown keywords",
               "{\"type\":\"object\",\"additionalProperties\":false,\"$schema\":\"x\",\"oneOf\":[1],\"$ref\":2}",
               "{\"type\":\"object\",\"additionalProperties\":false,\"$schema\":\"x\",\"oneOf\":[1],\"$ref\":2}"),
    };

    CHECK_ROWS(rows);
}

TEST(what_the_gateway_decides_is_sent_and_only_that)
{
    struct placement placement = { .model = SLICE("hf.co/\"x\":latest"),
                                   .num_ctx = 40960,
                                   .keep_alive = SLICE("\"24h\"") };
    struct slice body = SLICE("{\"model\":\"m\",\"keep_alive\":0,\"num_ctx\":1," USER_HI ",\"max_tokens\":3}");
    struct chat_case one;
    struct text out;

    chat_case_run(&one, body);
    CHECK(one.is_read);
    text_init(&out, 4096);
    kind_ollama.write_chat(&one.inference, &placement, &out);
    CHECK_STR(out.at, out.len,
              "{\"model\":\"hf.co/\\\"x\\\":latest\"," USER_HI
              ",\"stream\":false,\"keep_alive\":\"24h\",\"options\":{\"num_ctx\":40960,"
              "\"num_predict\":3,\"top_p\":1,\"temperature\":1},\"truncate\":false,\"shift\":false}");
    text_release(&out);
    chat_case_release(&one);
}

TEST(characters_are_counted_by_who_said_them)
{
    struct slice body = SLICE(
        "{\"model\":\"\\u0071wen\",\"user\":\"al\\u0069ce\",\"messages\":[{\"role\":\"system\",\"content\":\"12345\"},"
        "{\"content\":[{\"type\":\"text\",\"text\":\"\\ud83d\\ude80\xe4\xbd\xa0\"}],\"role\":\"developer\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"123\"},{\"type\":\"image_url\",\"image_url\":"
        "\"data:;base64,AAAA\"}]},"
        "{\"role\":\"assistant\",\"content\":\"1\",\"reasoning\":\"does not "
        "count\",\"tool_calls\":[{\"function\":{\"name\":\"nor\","
        "\"arguments\":\"{\\\"this\\\":1}\"}}]},{\"role\":\"tool\",\"content\":\"\\n\\n\"}],"
        "\"tools\":[{\"function\":{\"name\":\"nor\",\"description\":\"this\"}}]}");
    struct chat_case one;

    chat_case_run(&one, body);
    CHECK(one.is_read);
    CHECK_EQ(one.inference.system_chars, 7);
    CHECK_EQ(one.inference.prompt_chars, 6);
    CHECK_EQ(one.inference.image_count, 1);
    CHECK_STR(one.inference.model.at, one.inference.model.len, "qwen");
    CHECK_STR(one.inference.user.at, one.inference.user.len, "alice");
    chat_case_release(&one);
}

TEST(a_result_is_not_matched_with_a_call_of_long_ago)
{
    struct chat_case one;
    struct text body;

    text_init(&body, 1 << 20);
    text_add_literal(&body, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[");
    for (unsigned i = 0; i < 257; i++)
        text_printf(&body, "%s{\"id\":\"id%u\",\"function\":{\"name\":\"f%u\"}}", i ? "," : "", i, i);
    text_add_literal(&body, "]},{\"role\":\"tool\",\"tool_call_id\":\"id0\",\"content\":\"\"},"
                            "{\"role\":\"tool\",\"tool_call_id\":\"id1\",\"content\":\"\"}]}");
    chat_case_run(&one, text_slice(&body));
    CHECK(one.is_read);
    CHECK_EQ(one.inference.messages->next->tool_name_wire.len, 0);
    CHECK(slice_is(one.inference.messages->next->next->tool_name_wire, SLICE("f1")));
    chat_case_release(&one);
    text_release(&body);
}
