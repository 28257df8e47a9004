/*
 * inference - the one internal form: what a caller asks of a model, and the events of the answer. It stands between
 * a dialect (the API a caller speaks) and a backend kind (the API an engine speaks); neither sees the other.
 *
 * Texts of requests and answers are *wire* slices: the inside of a JSON string as it was written, validated and still
 * escaped (json.h), so that the way from caller to engine and back copies bytes and decodes nothing.
 * *Value* slices are whole validated JSON values as written. Slices without either word are plain UTF-8.
 * *Tight* is what can be copied as it stands: no white space between tokens, and none of U+0085, U+2028, U+2029, which
 * never go out as they are (json.h). Not tight means unknown.
 * A struct inference lives in its request's arena or points into its body; an event points into the line it was read
 * from and is gone after the call it was handed over with. One thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

enum role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };

enum part_kind { PART_TEXT, PART_IMAGE };

/* A piece of a message's content. Texts of one message are joined by an empty line ("\n\n"). */
struct part {
    struct part *next;
    enum part_kind kind;
    struct slice wire; /* text, or the image's base64 (standard alphabet, checked) */
};

/* A call of a tool: in the history, or in an answer. */
struct tool_call {
    struct tool_call *next;
    struct slice id_wire;
    struct slice name_wire;
    struct slice arguments_value; /* a JSON object */
    bool is_tight;                /* that */
    uint32_t index;
};

struct message {
    struct message *next;
    enum role role;
    struct part *parts;
    struct slice thinking_wire;
    struct tool_call *tool_calls;
    struct slice tool_call_id_wire; /* ROLE_TOOL */
    struct slice tool_name_wire;    /* ROLE_TOOL: the function whose result this is */
};

struct tool {
    struct tool *next;
    struct slice name_wire;
    struct slice description_wire;
    bool has_description;
    struct slice parameters_value; /* a JSON schema object the engines accept; empty: none */
    bool is_tight;                 /* that */
};

enum output_format { OUTPUT_TEXT, OUTPUT_JSON, OUTPUT_SCHEMA };

enum think { THINK_AS_MODEL, THINK_NO, THINK_YES, THINK_LOW, THINK_MEDIUM, THINK_HIGH, THINK_MAX };

struct stop {
    struct stop *next;
    struct slice wire;
};

struct inference {
    struct slice model; /* as the caller wrote it, decoded */
    bool is_tight;      /* every wire slice of the request is */
    bool is_stream;
    bool wants_usage; /* stream_options.include_usage */
    struct message *messages;
    struct tool *tools;
    enum output_format format;
    struct slice schema_value; /* OUTPUT_SCHEMA */
    bool schema_is_tight;
    enum think think;
    bool wants_logprobs;
    unsigned top_logprobs; /* 0 ... 20 */
    struct stop *stops;

    /* Samplers, as the numbers were written (checked); empty: not given. */
    struct slice temperature, top_p, top_k, min_p, repeat_penalty, frequency_penalty, presence_penalty, seed;
    int64_t max_tokens; /* num_predict; 0: not given */

    struct slice user;      /* the body's `user`, decoded; empty: none */
    struct slice cache_key; /* what the caller says that conversations with one beginning share; empty: nothing */

    /* For the caps and for the check whether the model can do it. */
    uint64_t prompt_chars; /* Unicode code points in user, assistant and tool texts */
    uint64_t system_chars; /* in system and developer texts */
    unsigned image_count;
};

enum finish { FINISH_NONE, FINISH_STOP, FINISH_LENGTH };

/* One step of an answer. Several fields may be set at once (openai-ollama.md 2.2). */
struct event {
    struct slice content_wire;
    struct slice thinking_wire;
    struct tool_call *tool_calls; /* whole calls */
    struct slice logprobs_value;  /* OpenAI's `content` list of logprobs; empty: none */
    bool is_done;                 /* the last one */
    enum finish finish;           /* with is_done */
    uint64_t prompt_tokens;       /* with is_done: the engine's own counts */
    uint64_t completion_tokens;
    struct slice error; /* plain text, decoded: the engine broke off; nothing else is set */
};

/* About how many bytes an engine's request will take, so that a kind can make room once. Images included. */
size_t inference_bytes(const struct inference *inference);
