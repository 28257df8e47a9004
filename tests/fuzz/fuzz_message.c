/*
 * fuzz_message - any bytes as a frame of the link, and as a list of changes. What is taken can be packed; packed again
 * it is the same, and what it was packed into is taken as well.
 */
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void must(bool claim, const char *what, const struct text *why)
{
    if (claim)
        return;
    fprintf(stderr, "not so: %s: %s\n", what, text_string(why));
    abort();
}

static void judge_frame(struct slice frame, struct arena *arena, struct text *why)
{
    struct qw_message message;
    struct text packed, again;

    if (message_unpack(frame, arena, &message, why) != ERR_OK)
        return;
    text_init(&packed, 2 * CODEC_MAX_BYTES);
    text_init(&again, 2 * CODEC_MAX_BYTES);
    must(message_pack(&message, &packed, why) == ERR_OK, "what is taken can be packed", why);
    must(message_unpack(text_slice(&packed), arena, &message, why) == ERR_OK, "and taken again", why);
    must(message_pack(&message, &again, why) == ERR_OK, "and packed again", why);
    must(slice_is(text_slice(&packed), text_slice(&again)), "the same both times", why);
    text_release(&packed);
    text_release(&again);
}

static void judge_changes(struct slice bytes, struct arena *arena, struct text *why)
{
    const struct qw_change *changes;
    struct text packed;
    size_t count, count_again;

    if (changes_unpack(bytes, arena, &changes, &count, why) != ERR_OK)
        return;
    text_init(&packed, 4 * CODEC_MAX_BYTES);
    for (size_t i = 0; i < count; i++)
        must(change_pack(&changes[i], &packed, why) == ERR_OK, "a change that is taken can be packed", why);
    must(changes_unpack(text_slice(&packed), arena, &changes, &count_again, why) == ERR_OK, "and taken again", why);
    must(count == count_again, "as many", why);
    text_release(&packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice input = { (const char *)bytes, len };
    struct arena arena;
    struct text why;

    arena_init(&arena);
    text_init(&why, 4096);
    judge_frame(input, &arena, &why);
    text_clear(&why);
    judge_changes(input, &arena, &why);
    text_release(&why);
    arena_release(&arena);
    return 0;
}
