#include "transcript.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct words words_plain;
struct words words_thinking;

static const char *folder;

static bool answer_of_file(struct slice name, struct bytes *ret_answer)
{
    struct bytes path = { 0 };
    char part[4096];
    size_t got;
    FILE *file;

    if (!folder || memchr(name.at, '/', name.len))
        return false;
    bytes_print(&path, "%s/%.*s.http", folder, (int)name.len, name.at);
    file = fopen(path.at, "rb");
    bytes_release(&path);
    if (!file)
        return false;
    while ((got = fread(part, 1, sizeof part, file)) > 0)
        bytes_add(ret_answer, part, got);
    (void)fclose(file);
    return true;
}

static bool answer_compiled_in(struct slice name, struct bytes *ret_answer)
{
    for (const struct transcript_file *f = transcript_files; f->name; f++) {
        if (slice_is(name, f->name)) {
            bytes_add(ret_answer, f->at, f->len);
            return true;
        }
    }
    return false;
}

/* Takes the two lines of the request off. */
static void drop_request(struct bytes *file)
{
    for (int line = 0; line < 2; line++) {
        char *end = memchr(file->at, '\n', file->len);
        size_t len = end ? (size_t)(end + 1 - file->at) : file->len;

        memmove(file->at, file->at + len, file->len - len);
        file->len -= len;
    }
}

bool transcript_answer(struct slice name, struct bytes *ret_answer)
{
    if (!answer_of_file(name, ret_answer) && !answer_compiled_in(name, ret_answer))
        return false;
    drop_request(ret_answer);
    return true;
}

static void undo_chunks(const char *at, const char *end, struct bytes *ret_body)
{
    while (at < end) {
        char *after;
        unsigned long len = strtoul(at, &after, 16);

        if (len == 0 || (size_t)(end - after) < len + 2)
            return;
        bytes_add(ret_body, after + 2, len);
        at = after + 2 + len + 2;
    }
}

bool transcript_body(const char *name, struct bytes *ret_body)
{
    struct bytes answer = { 0 };
    const char *body;

    if (!transcript_answer(slice_of(name), &answer))
        return false;
    bytes_add(&answer, "", 1);
    answer.len--;
    body = strstr(answer.at, "\r\n\r\n");
    if (body && memmem(answer.at, (size_t)(body - answer.at), "chunked", 7))
        undo_chunks(body + 4, answer.at + answer.len, ret_body);
    else if (body)
        bytes_add(ret_body, body + 4, answer.len - (size_t)(body + 4 - answer.at));
    bytes_release(&answer);
    return body;
}

static struct slice member_copy(const json_t *message, const char *key)
{
    const char *text = json_string_value(json_object_get(message, key));

    return text ? slice_copy(slice_of(text)) : (struct slice){ 0 };
}

static void words_line(struct words *words, const json_t *line)
{
    const json_t *message = json_object_get(line, "message");
    struct piece piece = { member_copy(message, "thinking"), member_copy(message, "content"), { 0 } };

    if (json_is_true(json_object_get(line, "done"))) {
        words->eval_count = (unsigned)json_integer_value(json_object_get(line, "eval_count"));
        free((char *)piece.content.at);
        free((char *)piece.thinking.at);
        return;
    }
    words->pieces = realloc(words->pieces, (words->count + 1) * sizeof *words->pieces);
    if (!words->pieces)
        abort();
    words->pieces[words->count++] = piece;
}

static void words_read(struct words *words, const char *name)
{
    struct bytes body = { 0 };
    char *line;
    char *end;

    if (!transcript_body(name, &body)) {
        fprintf(stderr, "fake-ollama: transcript %s is missing\n", name);
        exit(1);
    }
    for (line = body.at; (end = memchr(line, '\n', body.len - (size_t)(line - body.at))); line = end + 1) {
        json_t *json = json_loadb(line, (size_t)(end - line), 0, NULL);

        words_line(words, json);
        json_decref(json);
    }
    bytes_release(&body);
}

void transcripts_open(const char *dir)
{
    folder = dir;
    words_read(&words_plain, "chat-stream-plain");
    words_read(&words_thinking, "chat-stream-thinking");
}

static void words_release(struct words *words)
{
    for (size_t i = 0; i < words->count; i++) {
        free((char *)words->pieces[i].thinking.at);
        free((char *)words->pieces[i].content.at);
    }
    free(words->pieces);
    *words = (struct words){ 0 };
}

void transcripts_close(void)
{
    words_release(&words_plain);
    words_release(&words_thinking);
}
