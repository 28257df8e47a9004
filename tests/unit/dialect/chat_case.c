#include "chat_case.h"

#include "check.h"

#include <stdlib.h>

/* What is copied as it stands must be what the careful way would have written. */
static void is_written_alike(struct chat_case *one, const struct placement *placement)
{
    struct inference careful = one->inference;
    struct text written;

    careful.is_tight = careful.schema_is_tight = false;
    for (struct tool *tool = careful.tools; tool; tool = tool->next)
        tool->is_tight = false;
    for (struct message *message = careful.messages; message; message = message->next)
        for (struct tool_call *call = message->tool_calls; call; call = call->next)
            call->is_tight = false;
    text_init(&written, 1 << 24);
    kind_ollama.write_chat(&careful, placement, &written);
    CHECK(slice_is(text_slice(&written), text_slice(&one->written)));
    text_release(&written);
}

void chat_case_run(struct chat_case *one, struct slice body)
{
    struct placement placement = { .model = SLICE("M") };

    arena_init(&one->arena);
    text_init(&one->written, 1 << 24);
    one->is_read = dialect_chat.read(body, &one->arena, &one->inference, &one->refusal);
    if (!one->is_read)
        return;
    kind_ollama.write_chat(&one->inference, &placement, &one->written);
    is_written_alike(one, &placement);
}

void chat_case_release(struct chat_case *one)
{
    text_release(&one->written);
    arena_release(&one->arena);
}
