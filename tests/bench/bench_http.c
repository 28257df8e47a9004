/*
 * bench_http - nanoseconds a head, and how fast chunks come apart. The heads are those that clients and Ollama
 * send. Each is measured ROUNDS times and the best is shown: the rest is noise.
 */
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "http.h"

enum { ROUNDS = 15, ROUND_US = 20000, MAX_HEAD = 65536, MOST_BYTES = 1 << 22, STREAM_BYTES = 1 << 20 };

#define SDK_FIELDS                                                              \
    "host: 127.0.0.1:18789\r\n"                                                 \
    "connection: keep-alive\r\n"                                                \
    "accept: application/json\r\n"                                              \
    "user-agent: OpenAI/JS 7.57.0\r\n"                                          \
    "x-stainless-retry-count: 0\r\n"                                            \
    "x-stainless-lang: js\r\n"                                                  \
    "x-stainless-package-version: 7.57.0\r\n"                                   \
    "x-stainless-os: Linux\r\n"                                                 \
    "x-stainless-arch: x64\r\n"                                                 \
    "x-stainless-runtime: node\r\n"                                             \
    "x-stainless-runtime-version: v24.21.0\r\n"                                 \
    "authorization: Bearer qk_7f3aB81xQz_0123456789abcdefghijklmnopqABCDEF\r\n" \
    "content-type: application/json\r\n"                                        \
    "accept-language: *\r\n"                                                    \
    "sec-fetch-mode: cors\r\n"                                                  \
    "accept-encoding: gzip, deflate\r\n"
#define SDK_REQUEST "POST /v1/chat/completions HTTP/1.1\r\n" SDK_FIELDS "content-length: 102\r\n\r\n"

struct row {
    const char *name;
    struct slice bytes;
    bool is_request;
    unsigned pieces;
};

static struct http_head head;

static enum http_result parse(const struct row *row, size_t len, size_t *scanned)
{
    const char *why;

    return row->is_request ? http_parse_request(&head, row->bytes.at, len, MAX_HEAD, scanned, &why)
                           : http_parse_response(&head, row->bytes.at, len, MAX_HEAD, scanned, false, &why);
}

/* The head, in as many equal pieces as the row says. */
static uint64_t take_head(const struct row *row)
{
    enum http_result result = HTTP_MORE;
    size_t scanned = 0;

    for (unsigned piece = 1; piece <= row->pieces; piece++)
        result = parse(row, row->bytes.len * piece / row->pieces, &scanned);
    if (result != HTTP_DONE) {
        fprintf(stderr, "%s: refused\n", row->name);
        exit(EXIT_FAILURE);
    }
    return head.bytes;
}

/* A chunked body, all of it in one buffer. */
static uint64_t take_body(const struct row *row)
{
    enum http_result result = HTTP_MORE;
    struct http_body body;
    const char *why;

    http_body_init(&body, HTTP_CHUNKED, 0);
    for (size_t at = 0, used; result == HTTP_MORE; at += used) {
        struct slice payload;
        result = http_body_next(&body, row->bytes.at + at, row->bytes.len - at, &used, &payload, &why);
    }
    if (result != HTTP_DONE) {
        fprintf(stderr, "%s: %s\n", row->name, why);
        exit(EXIT_FAILURE);
    }
    return body.seen;
}

static double best_ns(uint64_t (*take)(const struct row *), const struct row *row, unsigned turns)
{
    double best = 1e18;

    for (unsigned round = 0; round < ROUNDS; round++) {
        int64_t start = clock_us(), now = start;
        uint64_t runs = 0;
        for (; now - start < ROUND_US; now = clock_us())
            for (unsigned i = 0; i < turns; i++, runs++)
                (void)take(row);
        double ns = (double)(now - start) * 1000 / (double)runs;
        best = ns < best ? ns : best;
    }
    return best;
}

static void bench_heads(void)
{
    static const struct row rows[] = {
        { "request of an SDK", SLICE(SDK_REQUEST), true, 1 },
        { "the same in 4 pieces", SLICE(SDK_REQUEST), true, 4 },
        { "the same with no body", SLICE("GET /v1/models HTTP/1.1\r\n" SDK_FIELDS "\r\n"), true, 1 },
        { "request of curl",
          SLICE("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:18789\r\nUser-Agent: curl/7.88.1\r\n"
                "Accept: */*\r\nX-Api-Key: prod-key-2024-qwen3\r\n"
                "Content-Type: application/json\r\nContent-Length: 76\r\n\r\n"),
          true, 1 },
        { "answer of Ollama",
          SLICE("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: Sun, 22 Nov 2026 14:17:11 GMT\r\n"
                "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n82\r\n{\"model\":\"qwen3:32b\""),
          false, 1 },
    };

    printf("%-26s %8s %8s %10s\n", "heads", "bytes", "fields", "ns");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double ns = best_ns(take_head, &rows[i], 16);
        printf("%-26s %8zu %8u %10.0f\n", rows[i].name, head.bytes, head.field_count, ns);
    }
}

static struct text chunks_of(size_t size)
{
    struct text out;

    text_init(&out, MOST_BYTES);
    for (size_t sent = 0; sent < STREAM_BYTES; sent += size) {
        text_printf(&out, "%zx\r\n", size);
        for (size_t i = 0; i < size; i++)
            text_add_char(&out, 'x');
        text_add_literal(&out, "\r\n");
    }
    text_add_literal(&out, "0\r\n\r\n");
    return out;
}

static void bench_chunks(void)
{
    static const size_t sizes[] = { 16, 130, 1024, 16384 };

    printf("\n%-26s %8s %8s %10s\n", "chunks", "bytes", "GB/s", "ns a chunk");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct text stream = chunks_of(sizes[i]);
        struct row row = { "chunks", text_slice(&stream), false, 1 };
        double ns = best_ns(take_body, &row, 1), chunks = (double)((STREAM_BYTES + sizes[i] - 1) / sizes[i]);
        printf("%-26s %8zu %8.1f %10.1f\n", "", sizes[i], (double)row.bytes.len / ns, ns / chunks);
        text_release(&stream);
    }
}

int main(void)
{
    bench_heads();
    bench_chunks();
    return EXIT_SUCCESS;
}
