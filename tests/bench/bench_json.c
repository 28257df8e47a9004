/*
 * bench_json - nanoseconds a document, ours beside jansson's. The documents have the shapes that clients send
 * and Ollama answers with: an agent's turn (a 30 kB system prompt, 22 tools), the same in other scripts, a
 * short request, a line of a stream. Each is measured ROUNDS times and the best is shown: the rest is noise.
 */
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "jansson_tree.h"
#include "json.h"

enum { ROUNDS = 15, ROUND_US = 20000, PROMPT_BYTES = 30000, TOOLS = 22, MOST_BYTES = 1 << 20 };

static struct text copied; /* what the translating way writes, as a request to Ollama is written */

static void read_message(struct json_reader *reader, bool is_copied)
{
    struct json_keys keys;
    struct json_string key, content;

    json_object(reader, &keys);
    while (json_member(reader, &keys, &key)) {
        if (!json_string_is(&key, "content") || json_peek(reader) != JSON_STRING)
            json_skip(reader, NULL);
        else if (json_string(reader, &content) && is_copied)
            json_add_raw(&copied, content.raw);
    }
}

static bool read_request(struct slice text, bool is_copied)
{
    struct json_reader reader;
    struct json_keys keys;
    struct json_string key;
    struct slice tools;

    text_clear(&copied);
    json_open(&reader, text, JSON_MAX_DEPTH);
    json_object(&reader, &keys);
    while (json_member(&reader, &keys, &key)) {
        if (json_string_is(&key, "messages")) {
            json_array(&reader);
            while (json_element(&reader))
                read_message(&reader, is_copied);
        } else if (json_string_is(&key, "message")) {
            read_message(&reader, is_copied);
        } else if (json_skip(&reader, &tools) && is_copied && json_string_is(&key, "tools")) {
            json_add_compact(&copied, tools);
        }
    }
    return json_close(&reader);
}

static bool visit(struct slice text)
{
    return read_request(text, false);
}

static bool translate(struct slice text)
{
    return read_request(text, true);
}

static bool skip(struct slice text)
{
    return json_is_valid(text, JSON_OBJECT);
}

static double best_ns(bool (*way)(struct slice), struct slice text)
{
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start = clock_us(), now = start;
        uint64_t runs = 0;
        for (; now - start < ROUND_US; now = clock_us())
            for (unsigned i = 0; i < 16; i++, runs++)
                if (!way(text)) {
                    fprintf(stderr, "refused\n");
                    exit(EXIT_FAILURE);
                }
        double ns = (double)(now - start) * 1000 / (double)runs;
        best = ns < best ? ns : best;
    }
    return best;
}

static void add_tool(struct text *out, unsigned number)
{
    static const char *const names[] = { "path", "offset", "limit", "file_path" };

    text_printf(out, "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%u\",\"description\":\"",
                number ? "," : "", number);
    text_add_string(out, "Reads one file of the project and returns its text, at most 2000 lines; use offset and "
                         "limit for more. Paths may be relative to the working folder or absolute.\",");
    text_add_string(out, "\"parameters\":{\"type\":\"object\",\"required\":[\"path\"],\"properties\":{");
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        text_printf(out,
                    "%s\"%s\":{\"description\":\"Line number to start reading from (1-indexed)\",\"type\":\"number\"}",
                    i ? "," : "", names[i]);
    text_add_string(out, "}},\"strict\":false}}");
}

/* An agent's turn: `line`, as it stands in JSON, again and again as the system prompt. */
static struct text agent_turn(const char *line)
{
    struct text out;

    text_init(&out, MOST_BYTES);
    text_add_string(&out, "{\"model\":\"qwen3:32b\",\"messages\":[{\"role\":\"developer\",\"content\":\"");
    while (out.len < PROMPT_BYTES)
        text_add_string(&out, line);
    text_add_string(&out,
                    "\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"run echo\"}]}],\"stream\":true,"
                    "\"stream_options\":{\"include_usage\":true},\"store\":false,"
                    "\"max_completion_tokens\":8192,\"tools\":[");
    for (unsigned i = 0; i < TOOLS; i++)
        add_tool(&out, i);
    text_add_string(&out, "]}");
    return out;
}

/* As Python writes JSON: a space behind each comma and colon. */
static struct text spaced(struct text tight)
{
    struct text out;
    bool in_string = false;

    text_init(&out, MOST_BYTES);
    for (size_t i = 0; i < tight.len; i++) {
        in_string ^= tight.at[i] == '"' && tight.at[i - 1] != '\\';
        text_add_char(&out, tight.at[i]);
        if (!in_string && (tight.at[i] == ',' || tight.at[i] == ':'))
            text_add_char(&out, ' ');
    }
    text_release(&tight);
    return out;
}

static struct text of_string(const char *string)
{
    struct text out;

    text_init(&out, MOST_BYTES);
    text_add_string(&out, string);
    return out;
}

static const char english[] = "- Keep answers short, cite the file and the line, and never guess what a tool says.\\n";
static const char russian[] = "- Отвечай коротко, называй файл и строку, не угадывай, что ответит инструмент.\\n";
static const char chinese[] = "- 回答要简短，注明文件和行号，不要猜测工具会返回什么内容。\\n";
static const char thai[] = "- ตอบสั้น ๆ ระบุไฟล์และบรรทัด อย่าเดาว่าเครื่องมือจะตอบอะไร "
                           "🙂\\n";
static const char quotes[] = "- “Keep” answers short — cite the file’s line … and never “guess” it. \\\"So\\\"\\n";
static const char short_request[] =
    "{\"model\":\"qwen3:32b\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant.\"},"
    "{\"role\":\"user\",\"content\":\"Write a haiku about the sea, please.\"}],\"temperature\":0.7,\"top_p\":0.9,"
    "\"max_tokens\":256,\"stream\":true}";
static const char stream_line[] =
    "{\"model\":\"qwen3:32b\",\"created_at\":\"2026-11-22T09:30:00.123456789Z\",\"message\":{\"role\":\"assistant\","
    "\"content\":\" hello\"},\"done\":false}";

int main(void)
{
    struct {
        const char *name;
        struct text text;
    } rows[] = {
        { "agent, English", agent_turn(english) },     { "agent, spaced", spaced(agent_turn(english)) },
        { "agent, Russian", agent_turn(russian) },     { "agent, Chinese", agent_turn(chinese) },
        { "agent, Thai, emoji", agent_turn(thai) },    { "agent, curly quotes", agent_turn(quotes) },
        { "short request", of_string(short_request) }, { "stream line", of_string(stream_line) },
    };

    text_init(&copied, MOST_BYTES);
    printf("%-20s %8s %10s %10s %10s %12s %14s\n", "ns a document", "bytes", "skip", "visit", "translate", "jansson",
           "jansson+write");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct slice text = text_slice(&rows[i].text);
        printf("%-20s %8zu %10.0f %10.0f %10.0f %12.0f %14.0f\n", rows[i].name, text.len, best_ns(skip, text),
               best_ns(visit, text), best_ns(translate, text), best_ns(jansson_tree, text),
               best_ns(jansson_tree_and_back, text));
        text_release(&rows[i].text);
    }
    text_release(&copied);
    return EXIT_SUCCESS;
}
