/* What Ollama says when it fails, and what a caller is told: rows 18 to 20 of behaviour.md 2.2. */
#include "arena.h"
#include "check.h"
#include "inference.h"
#include "kind.h"
#include "refusal.h"

struct row {
    const char *body, *says; /* the whole message; NULL: the table's */
    unsigned status, told;
    enum cause cause;
};

#define SAID(text) "{\"error\":\"" text "\"}"
#define OVERFLOW(prompt, context)                                                                                   \
    SAID("{\\\"error\\\":{\\\"code\\\":400,\\\"message\\\":\\\"request (" prompt " tokens) exceeds the available "  \
         "context size (" context " tokens), try increasing it\\\",\\\"type\\\":\\\"exceed_context_size_error\\\"," \
         "\\\"n_prompt_tokens\\\":" prompt ",\\\"n_ctx\\\":" context "}}")
#define TOO_LONG(prompt, context)                                                                           \
    "This model's maximum context length is " context " tokens. However, your messages resulted in " prompt \
    " tokens. Please reduce the "                                                                           \
    "length of the messages."
#define NO_NUMBERS \
    "The prompt is too long: it exceeds the context window of this model. Please reduce the length of the messages."
#define UNKNOWN      "the model `qwen3:32b` was not found"
#define NOT_ACCEPTED "the model server does not accept this request"

#define BUSY "the model server is busy right now, please try again in a moment"

static const struct row rows[] = {
    { OVERFLOW("6020", "2048"), TOO_LONG("6020", "2048"), 400, 400, CAUSE_OVERFLOW },
    { OVERFLOW("4500", "1500"), TOO_LONG("45_00", "15_00"), 400, 400, CAUSE_OVERFLOW },
    { OVERFLOW("150000", "40960"), TOO_LONG("150,000", "40960"), 400, 400, CAUSE_OVERFLOW },
    { SAID("request (70000 tokens) exceeds the available context size (40960 tokens), try increasing it"),
      TOO_LONG("70000", "40960"), 400, 400, CAUSE_OVERFLOW },
    { "{\"error\":{\"code\":400,\"message\":\"x exceeds the available context "
      "size\",\"n_prompt_tokens\":9,\"n_ctx\":8}}",
      TOO_LONG("9", "8"), 400, 400, CAUSE_OVERFLOW },
    { SAID("the prompt is longer than the context length currently available to the model; shorten it"), NO_NUMBERS,
      400, 400, CAUSE_OVERFLOW },
    { SAID("the input length exceeds the context length"), NO_NUMBERS, 400, 400, CAUSE_OVERFLOW },
    { SAID("registry.ollama.ai/library/loop:latest does not support tools"), "qwen3:32b does not support tools", 400,
      400, CAUSE_UNSUPPORTED },
    { SAID("\\\"loop\\\" does not support thinking"), "qwen3:32b does not support thinking", 400, 400,
      CAUSE_UNSUPPORTED },
    { SAID("x does not support overloaded"), "qwen3:32b does not support what is asked of it", 400, 400,
      CAUSE_UNSUPPORTED },
    { SAID("\\\"bert\\\" does not support chat"), "qwen3:32b does not support chat", 400, 400, CAUSE_UNSUPPORTED },
    { SAID("This server does not support embeddings. Start it with `--embeddings`"), NULL, 501, 502, CAUSE_UPSTREAM },
    { SAID("model 'nope' not found"), UNKNOWN, 404, 404, CAUSE_MODEL_UNKNOWN },
    { SAID("model \\\"nope\\\" not found, try pulling it first"), UNKNOWN, 404, 404, CAUSE_MODEL_UNKNOWN },
    { SAID("ollama cloud is disabled: remote model is unavailable"), "cloud models are not served here", 403, 403,
      CAUSE_MODEL_NOT_ALLOWED },
    { SAID("invalid format: \\\"\\\\\\\"zork\\\\\\\"\\\"; expected \\\"json\\\" or a valid JSON Schema object"), NULL,
      500, 502, CAUSE_UPSTREAM },
    { SAID("failed to parse grammar"), "failed to parse grammar", 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("model failed to load, this may be due to resource limitations or an internal error, check ollama server "
           "logs for details"),
      NULL, 500, 503, CAUSE_LOAD_FAILED },
    { SAID("model requires more system memory (24.0 GiB) than is available (7.1 GiB)"), NULL, 500, 503,
      CAUSE_LOAD_FAILED },
    { SAID("llama runner process has terminated: exit status 2"), NULL, 500, 503, CAUSE_LOAD_FAILED },
    { SAID("unable to load model: /usr/share/ollama/.ollama/models/blobs/sha256-3291"), NULL, 500, 503,
      CAUSE_LOAD_FAILED },
    { SAID("error loading model: CUDA out of memory"), NULL, 500, 503, CAUSE_LOAD_FAILED },
    { SAID("timed out waiting for llama runner to start: context canceled"), NULL, 500, 503, CAUSE_LOAD_FAILED },
    { SAID("model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"), NULL,
      500, 502, CAUSE_UPSTREAM },
    { SAID("option \\\"num_predict\\\" must be of type integer"), NULL, 500, 502, CAUSE_UPSTREAM },
    { SAID("server busy, please try again.  maximum pending requests exceeded"), BUSY, 503, 502, CAUSE_UPSTREAM },
    { SAID("model is overloaded"), BUSY, 503, 502, CAUSE_UPSTREAM },
    { SAID("rate limit exceeded"), NULL, 429, 429, CAUSE_BACKEND_BUSY },
    { "", NULL, 429, 429, CAUSE_BACKEND_BUSY },
    { "", NULL, 503, 502, CAUSE_UPSTREAM },
    { "<html>503</html>", NULL, 503, 502, CAUSE_UPSTREAM },
    { SAID("request canceled"), NULL, 499, 502, CAUSE_UPSTREAM },
    { SAID("unauthorized\",\"signin_url\":\"https://example.com"), NULL, 401, 502, CAUSE_UPSTREAM },
    { "", NOT_ACCEPTED, 403, 403, CAUSE_BACKEND_SAYS },
    { "404 page not found", NOT_ACCEPTED, 404, 404, CAUSE_BACKEND_SAYS },
    { "405 method not allowed", NOT_ACCEPTED, 405, 405, CAUSE_BACKEND_SAYS },
    { "<html><body><h1>502 Bad Gateway</h1></body></html>", NULL, 502, 502, CAUSE_UPSTREAM },
    { "\r\n <html><body><h1>400 Bad Request</h1></body></html>", NULL, 400, 502, CAUSE_UPSTREAM },
    { "", NULL, 500, 502, CAUSE_UPSTREAM },
    { "{\"error\":", NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("failed to load image or audio file"), "failed to load image or audio file", 400, 400, CAUSE_BACKEND_SAYS },
    { "{}", NULL, 302, 502, CAUSE_UPSTREAM },
    { SAID("top_logprobs must be between 0 and 20"), "top_logprobs must be between 0 and 20", 400, 400,
      CAUSE_BACKEND_SAYS },
    { SAID("the options of registry.ollama.ai/library/loop:latest are odd\\ngoroutine 1 [running]"),
      "the options of qwen3:32b are odd", 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("teapots only"), "teapots only", 418, 418, CAUSE_BACKEND_SAYS },
    { SAID("json: cannot unmarshal number into Go struct field ChatRequest.messages.content of type string"),
      NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("open /usr/share/x: permission denied"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("bad C:\\\\models\\\\x"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("blobs/sha256/12 is bad"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("dial tcp 10.1.2.3 refused"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("dial gpu1:11434 refused"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("dial [::1] refused"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("see https://example.com for more"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("at most 5000 of them"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("panic: runtime error"), NOT_ACCEPTED, 400, 400, CAUSE_BACKEND_SAYS },
    { SAID("temperature 0.5 and/or top_p 1.25: no"), "temperature 0.5 and/or top_p 1.25: no", 422, 422,
      CAUSE_BACKEND_SAYS },
};

static void check_row(const struct row *row, const struct refusal *refusal)
{
    struct slice message = refusal_message(refusal);
    struct slice wanted = row->says ? slice_of(row->says) : slice_of(cause_row(row->cause)->message);

    if (refusal->cause != row->cause || refusal_status(refusal) != row->told || !slice_is(message, wanted))
        check_fail(__FILE__, __LINE__, "row %u %s: cause %d, status %u, \"%.*s\"", row->status, row->body,
                   (int)refusal->cause, refusal_status(refusal), (int)message.len, message.at);
    CHECK_ROW(cause_row(refusal->cause)->heals || !refusal_text_invites_retry(message), row->body);
    CHECK_ROW((refusal->retry_after_s > 0) == slice_has(refusal_message(refusal), SLICE("is busy right now")),
              row->body);
}

TEST(what_ollama_says_becomes_what_a_caller_may_know)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct refusal refusal;
        struct arena arena;
        arena_init(&arena);
        kind_ollama.read_error(rows[i].status, slice_of(rows[i].body), SLICE("qwen3:32b"), &arena, &refusal);
        check_row(&rows[i], &refusal);
        arena_release(&arena);
    }
}

TEST(an_overflow_makes_agents_compact_and_not_try_again)
{
    struct refusal refusal;
    struct arena arena;
    struct slice message;

    for (unsigned number = 1; number < 100000; number += 7) {
        struct text body;
        text_init(&body, 4096);
        text_printf(&body, "{\"error\":\"request (%u tokens) exceeds the available context size (%u tokens)\"}",
                    number + 13, number);
        arena_init(&arena);
        kind_ollama.read_error(400, text_slice(&body), SLICE("qwen3:32b"), &arena, &refusal);
        message = refusal_message(&refusal);
        CHECK_EQ(refusal.cause, CAUSE_OVERFLOW);
        CHECK(!refusal_text_invites_retry(message));
        CHECK(slice_starts(message, SLICE("This model's maximum context length is ")));
        CHECK(slice_has(message, SLICE("reduce the length of the messages")));
        arena_release(&arena);
        text_release(&body);
    }
}

TEST(a_name_that_looks_like_a_status_is_not_said)
{
    struct refusal refusal;
    struct arena arena;

    arena_init(&arena);
    kind_ollama.read_error(404, SLICE("{\"error\":\"model 'x' not found\"}"), SLICE("big-500b:latest"), &arena,
                           &refusal);
    CHECK_STR(refusal.message.at, refusal.message.len, "the model asked for was not found");
    kind_ollama.read_error(400, SLICE("{\"error\":\"x does not support tools\"}"), SLICE("big-500b:latest"), &arena,
                           &refusal);
    CHECK_STR(refusal.message.at, refusal.message.len, "this model does not support tools");
    arena_release(&arena);
}

TEST(an_error_in_the_middle_is_judged_by_its_words)
{
    static const struct {
        const char *error;
        enum cause cause;
        const char *says; /* NULL: the table's */
    } broken[] = {
        { "an error was encountered while running the model: unexpected EOF", CAUSE_UPSTREAM,
          "an error was encountered while running the model: unexpected EOF" },
        { "read tcp 127.0.0.1:41234: connection reset", CAUSE_UPSTREAM, NULL },
        { "model failed to load", CAUSE_LOAD_FAILED, NULL },
        { "{\"error\":{\"message\":\"request (9 tokens) exceeds the available context size (8 tokens)\",\"n_ctx\":8}}",
          CAUSE_OVERFLOW, TOO_LONG("9", "8") },
        { "{", CAUSE_UPSTREAM, NULL },
        { "", CAUSE_UPSTREAM, NULL },
        { "server busy", CAUSE_UPSTREAM, BUSY },
    };

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct refusal refusal;
        struct arena arena;
        arena_init(&arena);
        kind_ollama.read_broken(slice_of(broken[i].error), SLICE("m"), &arena, &refusal);
        CHECK_ROW(refusal.cause == broken[i].cause, broken[i].error);
        CHECK_STR(refusal_message(&refusal).at, refusal_message(&refusal).len,
                  broken[i].says ? broken[i].says : cause_row(broken[i].cause)->message);
        arena_release(&arena);
    }
}
