#include "inference.h"

/* Names, quotes and commas around one thing. */
enum { AROUND_BYTES = 64 };

static size_t message_bytes(const struct message *message)
{
    size_t bytes =
        AROUND_BYTES + message->thinking_wire.len + message->tool_name_wire.len + message->tool_call_id_wire.len;

    for (const struct part *part = message->parts; part; part = part->next)
        bytes += part->wire.len + 4;
    for (const struct tool_call *call = message->tool_calls; call; call = call->next)
        bytes += AROUND_BYTES + call->id_wire.len + call->name_wire.len + call->arguments_value.len;
    return bytes;
}

size_t inference_bytes(const struct inference *inference)
{
    size_t bytes = 8 * AROUND_BYTES + inference->schema_value.len;

    for (const struct message *message = inference->messages; message; message = message->next)
        bytes += message_bytes(message);
    for (const struct tool *tool = inference->tools; tool; tool = tool->next)
        bytes += 2 * AROUND_BYTES + tool->name_wire.len + tool->description_wire.len + tool->parameters_value.len;
    return bytes;
}
