/*
 * bench_translate - nanoseconds for what the gateway does with the bodies of one request: a short one and an agent's
 * turn of 49 kB, from OpenAI's JSON to Ollama's, and a whole answer and one line of a stream, from Ollama's to
 * OpenAI's. Each is measured ROUNDS times and the best is shown: the rest is noise. `bench_translate FILE...` measures
 * the bodies in these files.
 */
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "clock.h"
#include "dialect.h"
#include "kind.h"

enum { ROUNDS = 600, ROUND_US = 500, PROMPT_BYTES = 30000, TOOLS = 22 };

static struct text agent, written;
static struct answer answer;

__attribute__((noinline)) static void request(struct slice body)
{
    struct placement placement = { .model = SLICE("qwen3:32b"), .num_ctx = 40960, .keep_alive = SLICE("-1") };
    struct inference inference;
    struct refusal refusal;
    struct arena arena;

    arena_init(&arena);
    text_clear(&written);
    if (!dialect_chat.read(body, &arena, &inference, &refusal)) {
        fprintf(stderr, "refused\n");
        exit(EXIT_FAILURE);
    }
    kind_ollama.write_chat(&inference, &placement, &written);
    arena_release(&arena);
}

__attribute__((noinline)) static void line(struct slice text)
{
    struct event event;
    struct arena arena;

    arena_init(&arena);
    text_clear(&written);
    if (kind_ollama.read_line(text, &arena, &event) != ERR_OK) {
        fprintf(stderr, "refused\n");
        exit(EXIT_FAILURE);
    }
    dialect_chat.stream_event(&answer, &event, &written);
    arena_release(&arena);
}

static __attribute__((noinline)) void whole(struct slice text)
{
    struct event event;
    struct arena arena;

    arena_init(&arena);
    text_clear(&written);
    if (kind_ollama.read_line(text, &arena, &event) != ERR_OK) {
        fprintf(stderr, "refused\n");
        exit(EXIT_FAILURE);
    }
    dialect_chat.whole(&answer, &event, &written);
    arena_release(&arena);
}

static double best_ns(void (*way)(struct slice), struct slice text)
{
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start = clock_us(), now = start;
        uint64_t runs = 0;
        double ns;
        for (; now - start < ROUND_US; now = clock_us())
            for (unsigned i = 0; i < 16; i++, runs++)
                way(text);
        ns = (double)(now - start) * 1000 / (double)runs;
        best = ns < best ? ns : best;
    }
    return best;
}

static void make_agent(void)
{
    text_init(&agent, 1 << 20);
    text_add_literal(&agent, "{\"model\":\"qwen3:32b\",\"messages\":[{\"role\":\"developer\",\"content\":\"");
    while (agent.len < PROMPT_BYTES)
        text_add_literal(&agent,
                         "You are a careful assistant.\\nDo what \\\"the user\\\" asks, and say so when you cannot. ");
    text_add_literal(
        &agent,
        "\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Say hello\"}]}],\"stream\":true,"
        "\"stream_options\":{\"include_usage\":true},\"store\":false,\"max_completion_tokens\":8192,\"tools\":[");
    for (unsigned i = 0; i < TOOLS; i++)
        text_printf(
            &agent,
            "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%u\",\"description\":\"Reads a file, or a part of "
            "one, and says "
            "what is in it; large files are cut, so that asking again for the rest is a good thing to "
            "do.\",\"parameters\":{\"type\":"
            "\"object\",\"required\":[\"path\"],\"properties\":{\"path\":{\"description\":\"Path to the file to read "
            "(relative or "
            "absolute)\",\"type\":\"string\"},\"offset\":{\"description\":\"Line number to start reading from "
            "(1-indexed)\",\"type\":"
            "\"number\"},\"limit\":{\"description\":\"Maximum number of lines to "
            "read\",\"type\":\"number\"},\"mode\":{\"type\":"
            "\"string\",\"enum\":[\"text\",\"lines\",\"bytes\"],\"description\":\"How to read\"}}},\"strict\":false}}",
            i ? "," : "", i);
    text_add_literal(&agent, "],\"reasoning_effort\":\"low\"}");
}

static void show(const char *name, void (*way)(struct slice), struct slice text)
{
    printf("%-28s %8zu bytes %10.0f ns\n", name, text.len, best_ns(way, text));
}

static void show_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct text body;
    char piece[4096];

    if (!file) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    text_init(&body, 1 << 26);
    for (size_t got; (got = fread(piece, 1, sizeof piece, file)) > 0;)
        text_add(&body, piece, got);
    (void)fclose(file);
    show(path, request, text_slice(&body));
    text_release(&body);
}

int main(int count, char **args)
{
    static const char brief[] = "{\"model\":\"qwen3:32b\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a "
                                "helpful assistant.\"},{\"role\":\"user\","
                                "\"content\":\"What is the capital of France, and since "
                                "when?\"}],\"stream\":true,\"max_tokens\":256,\"temperature\":0.7,\"top_p\":0.95}";
    static const char chunk[] = "{\"model\":\"qwen3:32b\",\"created_at\":\"2026-11-22T14:17:11.721074599Z\","
                                "\"message\":{\"role\":\"assistant\","
                                "\"content\":\" scripted\"},\"done\":false}";
    static const char thought[] = "{\"model\":\"qwen3:32b\",\"created_at\":\"2026-11-22T14:17:11.708336836Z\","
                                  "\"message\":{\"role\":\"assistant\","
                                  "\"content\":\"\",\"thinking\":\" greets\"},\"done\":false}";
    static const char all[] =
        "{\"model\":\"qwen3:32b\",\"created_at\":\"2026-11-22T14:17:11.721074599Z\",\"message\":{\"role\":"
        "\"assistant\","
        "\"content\":\"The capital of France is Paris, and has been since "
        "987.\"},\"done\":true,\"done_reason\":\"stop\","
        "\"total_duration\":1200000000,\"load_duration\":40000000,\"prompt_eval_count\":31,\"prompt_eval_duration\":"
        "90000000,\"eval_count\":17,\"eval_duration\":1000000000}";
    struct inference inference = { .model = SLICE("qwen3:32b"), .is_stream = true };

    text_init(&written, 1 << 26);
    answer_init(&answer, &dialect_chat, &inference, SLICE("abc"), 1790000000);
    for (int i = 1; i < count; i++)
        show_file(args[i]);
    if (count > 1)
        return EXIT_SUCCESS;
    make_agent();
    show("short request", request, SLICE(brief));
    show("agent's turn", request, text_slice(&agent));
    show("whole answer", whole, SLICE(all));
    show("stream chunk, content", line, SLICE(chunk));
    show("stream chunk, thinking", line, SLICE(thought));
    text_release(&agent);
    text_release(&written);
    return EXIT_SUCCESS;
}
