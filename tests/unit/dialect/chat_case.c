#include "chat_case.h"

#include <stdlib.h>

void chat_case_run(struct chat_case *one, struct slice body)
{
    struct placement placement = { .model = SLICE("M") };

    arena_init(&one->arena);
    text_init(&one->written, 1 << 24);
    one->is_read = dialect_chat.read(body, &one->arena, &one->inference, &one->refusal);
    if (one->is_read)
        kind_ollama.write_chat(&one->inference, &placement, &one->written);
}

void chat_case_release(struct chat_case *one)
{
    text_release(&one->written);
    arena_release(&one->arena);
}
