/* The request that only loads a model. */
#include "check.h"
#include "kind.h"

static void check_load(const struct placement *placement, const char *wanted)
{
    struct text out;

    text_init(&out, 4096);
    kind_ollama.write_load(placement, &out);
    CHECK_STR(text_string(&out), out.len, wanted);
    text_release(&out);
}

TEST(a_load_asks_for_the_model_as_chats_do_and_for_nothing_else)
{
    check_load(&(struct placement){ .model = SLICE("qwen3:32b") },
               "{\"model\":\"qwen3:32b\",\"messages\":[],\"stream\":false,\"truncate\":false,\"shift\":false}");
    check_load(&(struct placement){ .model = SLICE("a\"b"), .num_ctx = 4096, .keep_alive = SLICE("\"24h\"") },
               "{\"model\":\"a\\\"b\",\"messages\":[],\"stream\":false,\"keep_alive\":\"24h\","
               "\"options\":{\"num_ctx\":4096},\"truncate\":false,\"shift\":false}");
}
