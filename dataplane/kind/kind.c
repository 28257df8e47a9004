#include "kind.h"

#include "ollama.h"

const struct kind kind_ollama = {
    .name = "ollama",
    .chat_path = "/api/chat",
    .write_chat = ollama_write_chat,
    .write_load = ollama_write_load,
    .read_line = ollama_read_line,
    .read_error = ollama_read_error,
    .read_broken = ollama_read_broken,
};
