/* Lines that Ollama sends or might send, and the events they are. */
#include <stdlib.h>

#include "arena.h"
#include "check.h"
#include "inference.h"
#include "kind.h"
#include "refusal.h"

/* From memory that ends where the line does, so that a read past it is seen. */
static enum err read_line(const char *line, struct arena *arena, struct event *event, char **ret_memory)
{
    size_t len = strlen(line);
    char *exact = malloc(len ? len : 1);

    CHECK(exact);
    memcpy(exact, line, len);
    *ret_memory = exact;
    return kind_ollama.read_line((struct slice){ exact, len }, arena, event);
}

TEST(what_is_no_line_of_ollama_is_bad)
{
    static const char *const lines[] = {
        "",
        " ",
        "<html><body>502</body></html>",
        "[]",
        "5",
        "\"x\"",
        "null",
        "{",
        "{}",
        "{\"done\":false}",
        "{\"zork\":1}",
        "{\"message\":{\"content\":\"x\"},\"done\":false} trailing",
        "{\"message\":{\"content\":\"x\"},\"done\":fal",
        "{\"message\":\"x\",\"done\":false}",
        "{\"message\":[],\"done\":false}",
        "{\"message\":{\"content\":5},\"done\":false}",
        "{\"message\":{\"content\":\"\xff\"},\"done\":false}",
        "{\"message\":{\"content\":\"\\ud800\"},\"done\":false}",
        "{\"message\":{\"content\":\"x\"},\"done\":\"yes\"}",
        "{\"message\":{\"content\":\"x\"},\"done\":true,\"eval_count\":\"5\"}",
        "{\"message\":{\"content\":\"x\"},\"done\":true,\"eval_count\":-1}",
        "{\"message\":{\"content\":\"x\"},\"done\":true,\"done_reason\":5}",
        "{\"message\":{\"tool_calls\":5},\"done\":false}",
        "{\"message\":{\"tool_calls\":[5]},\"done\":false}",
        "{\"message\":{\"tool_calls\":[{}]},\"done\":false}",
        "{\"message\":{\"tool_calls\":[{\"function\":{}}]},\"done\":false}",
        "{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"done\":false}",
        "{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"index\":\"0\"}}]},\"done\":false}",
        "{\"message\":{\"content\":\"x\"},\"logprobs\":{},\"done\":false}",
        "{\"message\":{\"content\":\"x\"},\"logprobs\":[5],\"done\":false}",
        "{\"message\":{},\"logprobs\":[{\"top_logprobs\":[],\"top_logprobs\":[]}],\"done\":false}",
        "{\"error\":5}",
    };

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct event event;
        struct arena arena;
        char *memory;
        enum err err;
        arena_init(&arena);
        err = read_line(lines[i], &arena, &event, &memory);
        CHECK_ROW(err == ERR_BAD, lines[i]);
        arena_release(&arena);
        free(memory);
    }
}

TEST(all_that_an_answer_can_hold_is_read)
{
    struct event event;
    struct arena arena;
    char *memory;

    arena_init(&arena);
    CHECK_EQ(read_line(" {\"model\":\"m\",\"created_at\":\"x\",\"remote_host\":\"y\",\"message\":{\"role\":"
                       "\"assistant\",\"content\":\"c\\n\","
                       "\"thinking\":\"t\",\"images\":null,\"tool_calls\":[{\"id\":\"a\",\"function\":{\"index\":3,"
                       "\"name\":\"f\",\"arguments\":"
                       "{\"b\":{}}}},{\"function\":{\"name\":\"g\"}}]},\"done\":true,\"done_reason\":\"length\","
                       "\"logprobs\":[{\"token\":\"x\","
                       "\"logprob\":-1e-3}],\"prompt_eval_count\":26,\"eval_count\":290,\"eval_duration\":1} \r",
                       &arena, &event, &memory),
             ERR_OK);
    CHECK_STR(event.content_wire.at, event.content_wire.len, "c\\n");
    CHECK_STR(event.thinking_wire.at, event.thinking_wire.len, "t");
    CHECK_STR(event.tool_calls->arguments_value.at, event.tool_calls->arguments_value.len, "{\"b\":{}}");
    CHECK_EQ(event.tool_calls->index, 3);
    CHECK_STR(event.tool_calls->next->name_wire.at, event.tool_calls->next->name_wire.len, "g");
    CHECK_STR(event.tool_calls->next->arguments_value.at, event.tool_calls->next->arguments_value.len, "{}");
    CHECK_EQ(event.tool_calls->next->index, 1);
    CHECK(!event.tool_calls->next->next);
    CHECK_STR(event.logprobs_value.at, event.logprobs_value.len,
              "[{\"token\":\"x\",\"logprob\":-1e-3,\"bytes\":null,\"top_logprobs\":[]}]");
    CHECK(event.is_done);
    CHECK_EQ(event.finish, FINISH_LENGTH);
    CHECK_EQ(event.prompt_tokens, 26);
    CHECK_EQ(event.completion_tokens, 290);
    CHECK_EQ(event.error.len, 0);
    arena_release(&arena);
    free(memory);
}

TEST(nulls_are_nothing)
{
    struct event event;
    struct arena arena;
    char *memory;

    arena_init(&arena);
    CHECK_EQ(
        read_line(
            "{\"message\":{\"content\":null,\"thinking\":null,\"tool_calls\":null},\"done\":null,\"done_reason\":null,"
            "\"logprobs\":null,\"eval_count\":null,\"error\":null}",
            &arena, &event, &memory),
        ERR_OK);
    CHECK(!event.is_done && !event.content_wire.len && !event.tool_calls && !event.error.len);
    CHECK_EQ(event.finish, FINISH_NONE);
    arena_release(&arena);
    free(memory);
}

TEST(an_error_line_is_an_error_and_nothing_else)
{
    struct event event;
    struct arena arena;
    char *memory;

    arena_init(&arena);
    CHECK_EQ(read_line("{\"message\":{\"content\":\"x\"},\"done\":true,\"error\":\"an error: \\u003cEOF\\u003e\"}",
                       &arena, &event, &memory),
             ERR_OK);
    CHECK_STR(event.error.at, event.error.len, "an error: <EOF>");
    CHECK(!event.is_done && !event.content_wire.len);
    free(memory);
    CHECK_EQ(read_line("{\"error\":\"\"}", &arena, &event, &memory), ERR_OK);
    CHECK_STR(event.error.at, event.error.len, "unknown error");
    free(memory);
    arena_release(&arena);
}
