/*
 * chat - OpenAI's /v1/chat/completions, the parts this room's files share. Inside this room only.
 * struct chat is what one request's reading remembers between fields; it lives on chat_read()'s stack.
 */
#pragma once
#include "dialect.h"
#include "reading.h"

/* Far above what agents send, and low enough that no body costs more than its bytes. */
enum {
    CHAT_MAX_MESSAGES = 20000,
    CHAT_MAX_PARTS = 2000, /* of one message */
    CHAT_MAX_CALLS = 1000, /* of one message */
    CHAT_MAX_TOOLS = 1000,
    CHAT_MAX_STOPS = 64,
};

enum choice { CHOICE_AUTO, CHOICE_NONE, CHOICE_NAMED };
/* A function that tool_choice names. */
struct chosen {
    struct chosen *next;
    struct slice name_wire;
};

/* A call in the history, latest first: a tool's result finds its function's name by the call's id. */
struct past_call {
    struct past_call *before;
    const struct tool_call *call;
};

/* Where thinking can be asked for; the first that says something wins. */
enum { THINK_EFFORT_OBJECT, THINK_EFFORT, THINK_FLAG, THINK_ENABLE, THINK_TEMPLATE, THINK_TYPE, THINK_PLACES };

struct chat {
    struct message **next_message; /* where the list goes on */
    struct tool **next_tool;
    struct past_call *calls;
    enum choice choice;
    struct chosen *chosen;
    enum think think[THINK_PLACES];
    int64_t max_tokens, max_completion_tokens; /* 0: not given */
};

/* Readers of one top-level field each; `thing` is the struct chat. */
bool chat_messages(struct reading *reading, void *thing, const struct field *field);
bool chat_tools(struct reading *reading, void *thing, const struct field *field);
bool chat_tool_choice(struct reading *reading, void *thing, const struct field *field);
/* reasoning_effort, reasoning, think, enable_thinking, chat_template_kwargs, thinking. */
bool chat_effort(struct reading *reading, void *thing, const struct field *field);
bool chat_reasoning(struct reading *reading, void *thing, const struct field *field);
bool chat_think(struct reading *reading, void *thing, const struct field *field);
bool chat_enable_thinking(struct reading *reading, void *thing, const struct field *field);
bool chat_template_kwargs(struct reading *reading, void *thing, const struct field *field);
bool chat_thinking(struct reading *reading, void *thing, const struct field *field);

/* Sends only the tools that tool_choice leaves. Called when all fields are read. */
bool chat_choose_tools(struct reading *reading, struct chat *chat);

bool chat_read(struct slice body, struct arena *arena, struct inference *ret, struct refusal *ret_refusal);
void chat_stream_event(struct answer *answer, const struct event *event, struct text *out);
void chat_stream_finish(struct answer *answer, struct text *out);
void chat_stream_error(struct answer *answer, const struct refusal *refusal, struct text *out);
void chat_stream_heartbeat(struct answer *answer, struct text *out);
void chat_whole(struct answer *answer, const struct event *event, struct text *out);
