#include "play.h"
#include "loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { GO_BUFFER = 2048, ECHO_PIECE = 8 };

/* On top of the real times, so that no duration is nothing: Go would leave it out. */
enum { LOAD_NS = 1001344, PROMPT_NS = 582000, EVAL_NS = 713000 };

/* --- times --- */

/* Scratch that stays with the thread; play_thread_end() frees it. */
static _Thread_local struct bytes line_made;
static _Thread_local struct bytes body_made;

void play_thread_end(void)
{
    bytes_release(&line_made);
    bytes_release(&body_made);
}

static _Thread_local struct {
    time_t second;
    char rfc3339[24];
    char http[40];
} written;

static void write_second(time_t second)
{
    struct tm tm;

    if (written.second == second)
        return;
    written.second = second;
    (void)gmtime_r(&second, &tm);
    (void)strftime(written.rfc3339, sizeof written.rfc3339, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)strftime(written.http, sizeof written.http, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}

/* time.RFC3339Nano: no trailing zeros. */
static void write_created_at(struct bytes *b)
{
    struct timespec now;
    char digits[12];
    long ns;
    int len = 10;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    write_second(now.tv_sec);
    bytes_text(b, written.rfc3339);
    ns = now.tv_nsec;
    digits[0] = '.';
    for (int i = 9; i > 0; i--, ns /= 10)
        digits[i] = (char)('0' + ns % 10);
    while (len > 1 && digits[len - 1] == '0')
        len--;
    if (len > 1)
        bytes_add(b, digits, (size_t)len);
    bytes_text(b, "Z");
}

/* --- heads: Go writes the handler's headers first, then Date, lengths, Connection, Transfer-Encoding --- */

static void write_status(struct bytes *out, const struct play *play, int status)
{
    bytes_text(out, play->is_http10 ? "HTTP/1.0 " : "HTTP/1.1 ");
    bytes_number(out, (uint64_t)status);
    bytes_text(out, " ");
    bytes_text(out, http_status_text(status));
    bytes_text(out, "\r\n");
}

static void write_head(struct bytes *out, const struct play *play, int status, const char *content_type, int64_t length)
{
    write_status(out, play, status);
    if (play->allow) {
        bytes_text(out, "Allow: ");
        bytes_text(out, play->allow);
        bytes_text(out, "\r\n");
    }
    if (content_type) {
        bytes_text(out, "Content-Type: ");
        bytes_text(out, content_type);
        bytes_text(out, "\r\n");
    }
    write_second(time(NULL));
    bytes_text(out, "Date: ");
    bytes_text(out, written.http);
    if (length >= 0) {
        bytes_text(out, "\r\nContent-Length: ");
        bytes_number(out, (uint64_t)length);
    }
    if (!play->keeps_alive)
        bytes_text(out, "\r\nConnection: close");
    else if (play->is_http10)
        bytes_text(out, "\r\nConnection: keep-alive");
    if (length < 0 && !play->is_http10)
        bytes_text(out, "\r\nTransfer-Encoding: chunked");
    bytes_text(out, "\r\n\r\n");
}

static void write_chunk(struct bytes *out, const struct play *play, struct slice data)
{
    if (!play->is_http10) {
        bytes_hex(out, data.len);
        bytes_text(out, "\r\n");
    }
    bytes_slice(out, data);
    if (!play->is_http10)
        bytes_text(out, "\r\n");
}

static void write_last_chunk(struct bytes *out, const struct play *play)
{
    if (!play->is_http10)
        bytes_text(out, "0\r\n\r\n");
}

static void fix_chunked(struct play *play, int status, const char *content_type, struct slice body)
{
    if (play->is_http10)
        play->keeps_alive = false;
    write_head(&play->fixed, play, status, content_type, -1);
    if (play->is_head_only)
        return;
    write_chunk(&play->fixed, play, body);
    write_last_chunk(&play->fixed, play);
}

void play_fix(struct play *play, int status, const char *content_type, struct slice body)
{
    play->how = PLAY_FIXED;
    play->fixed.len = 0;
    if (body.len > GO_BUFFER) {
        fix_chunked(play, status, content_type, body);
        return;
    }
    write_head(&play->fixed, play, status, content_type, (int64_t)body.len);
    if (!play->is_head_only)
        bytes_slice(&play->fixed, body);
}

static void error_json(struct bytes *json, struct slice text)
{
    bytes_text(json, "{\"error\":");
    bytes_json(json, text);
    bytes_text(json, "}");
}

void play_fix_error(struct play *play, int status, struct slice text)
{
    struct bytes json = { 0 };

    error_json(&json, text);
    play_fix(play, status, "application/json; charset=utf-8", (struct slice){ json.at, json.len });
    bytes_release(&json);
}

void play_fix_stream_error(struct play *play, int status, struct slice text)
{
    struct bytes json = { 0 };

    error_json(&json, text);
    play->how = PLAY_FIXED;
    play->fixed.len = 0;
    fix_chunked(play, status, "application/json", (struct slice){ json.at, json.len });
    bytes_release(&json);
}

void play_reset(struct play *play)
{
    struct bytes kept[] = { play->fixed, play->model, play->echo, play->call, play->context };

    deed_unref(play->deed);
    *play = (struct play){ 0 };
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (kept[i].cap > 65536)
            bytes_release(&kept[i]);
        kept[i].len = 0;
    }
    play->fixed = kept[0];
    play->model = kept[1];
    play->echo = kept[2];
    play->call = kept[3];
    play->context = kept[4];
}

/* --- what is said --- */

static bool piece_of_echo(struct play *play, struct piece *ret)
{
    size_t left = play->echo.len - play->echo_at;
    size_t len = 0;

    if (left == 0)
        return false;
    while (!play->echoes_whole && len < left) {
        size_t more = utf8_length(play->echo.at + play->echo_at + len, left - len);

        if (len + (more ? more : 1) > ECHO_PIECE)
            break;
        len += more ? more : 1;
    }
    if (play->echoes_whole)
        len = left;
    ret->content = (struct slice){ play->echo.at + play->echo_at, len };
    play->echo_at += len;
    return true;
}

/* room holds the text of a counted piece. */
static bool piece_next(struct play *play, char room[static 32], struct piece *ret)
{
    *ret = (struct piece){ 0 };
    if (play->limit >= 0 && play->said >= play->limit)
        return false;
    if (play->words_from < play->words_to) {
        *ret = play->words->pieces[play->words_from++];
    } else if (piece_of_echo(play, ret)) {
        ;
    } else if (play->call.len) {
        ret->tool_arguments = (struct slice){ play->call.at, play->call.len };
        play->call.len = 0;
    } else if (play->counted > 0) {
        play->counted--;
        ret->content = (struct slice){ room, (size_t)(play->is_unnumbered ? snprintf(room, 32, "%s", play->prefix)
                                                                          : snprintf(room, 32, "%s%lld", play->prefix,
                                                                                     (long long)play->said)) };
    } else {
        return false;
    }
    play->said++;
    return true;
}

static bool has_more(const struct play *play)
{
    if (play->limit >= 0 && play->said >= play->limit)
        return false;
    return play->words_from < play->words_to || play->echo_at < play->echo.len || play->call.len || play->counted > 0;
}

static bool is_cut_by_limit(const struct play *play)
{
    return play->limit >= 0 && play->said >= play->limit;
}

/* --- lines --- */

static void write_call(struct bytes *b, struct slice name_and_arguments)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static _Thread_local uint64_t state;
    char id[8];

    if (!state)
        state = clock_ns() | 1;
    for (size_t i = 0; i < sizeof id; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        id[i] = letters[(state >> 33) % 36];
    }
    bytes_print(b, ",\"tool_calls\":[{\"id\":\"call_%.8s\",\"function\":{\"index\":0,", id);
    bytes_slice(b, name_and_arguments);
    bytes_text(b, "}}]");
}

static void write_logprob(struct bytes *b, struct slice token, const char *value, bool is_open)
{
    bytes_text(b, "{\"token\":");
    bytes_json(b, token);
    bytes_print(b, ",\"logprob\":%s,\"bytes\":[", value);
    for (size_t i = 0; i < token.len; i++)
        bytes_print(b, "%s%u", i ? "," : "", (unsigned char)token.at[i]);
    bytes_text(b, is_open ? "]" : "]}");
}

static void write_logprobs_entry(struct bytes *b, const struct play *play, const struct piece *piece)
{
    struct slice token = piece->thinking.len ? piece->thinking : piece->content;

    write_logprob(b, token, "0", true);
    if (play->top_logprobs > 0) {
        bytes_text(b, ",\"top_logprobs\":[");
        write_logprob(b, token, "0", false);
        for (int64_t i = 1; i < play->top_logprobs; i++) {
            char other = (char)(i - 1);
            char value[32];

            (void)snprintf(value, sizeof value, "-%lld.25", (long long)(44 + i));
            bytes_text(b, ",");
            write_logprob(b, (struct slice){ &other, 1 }, value, false);
        }
        bytes_text(b, "]");
    }
    bytes_text(b, "}");
}

static void line_start(struct bytes *b, const struct play *play, const struct piece *said)
{
    bytes_text(b, "{\"model\":");
    bytes_add(b, play->model.at, play->model.len);
    bytes_text(b, ",\"created_at\":\"");
    write_created_at(b);
    bytes_text(b, play->is_generate ? "\",\"response\":" : "\",\"message\":{\"role\":\"assistant\",\"content\":");
    bytes_json(b, said->content);
    if (said->thinking.len) {
        bytes_text(b, ",\"thinking\":");
        bytes_json(b, said->thinking);
    }
    if (said->tool_arguments.len)
        write_call(b, said->tool_arguments);
    if (!play->is_generate)
        bytes_text(b, "}");
}

void play_write_load(const struct play *play, struct bytes *out, const char *reason)
{
    line_start(out, play, &(struct piece){ 0 });
    bytes_print(out, ",\"done\":true,\"done_reason\":\"%s\"}", reason);
}

static void write_piece(struct bytes *b, const struct play *play, const struct piece *piece)
{
    line_start(b, play, piece);
    bytes_text(b, ",\"done\":false");
    if (play->has_logprobs) {
        bytes_text(b, ",\"logprobs\":[");
        write_logprobs_entry(b, play, piece);
        bytes_text(b, "]");
    }
    bytes_text(b, "}");
}

static void write_number(struct bytes *b, const char *key, uint64_t number)
{
    if (!number)
        return;
    bytes_text(b, key);
    bytes_number(b, number);
}

/* Everything after "done":true. */
static void write_end(struct bytes *b, struct play *play, uint64_t now_ns, struct slice logprobs)
{
    uint64_t first_ns = play->first_ns ? play->first_ns : now_ns;
    bool is_cut = is_cut_by_limit(play);

    bytes_text(b, ",\"done\":true,\"done_reason\":");
    bytes_text(b, is_cut ? "\"length\"" : "\"stop\"");
    if (play->context.len) {
        bytes_text(b, ",\"context\":[");
        bytes_add(b, play->context.at, play->context.len);
        bytes_text(b, "]");
    }
    if (logprobs.len) {
        bytes_text(b, ",\"logprobs\":[");
        bytes_slice(b, logprobs);
        bytes_text(b, "]");
    }
    write_number(b, ",\"total_duration\":", now_ns - play->began_ns + LOAD_NS + PROMPT_NS + EVAL_NS);
    write_number(b, ",\"load_duration\":", LOAD_NS);
    write_number(b, ",\"prompt_eval_count\":", (uint64_t)play->prompt_tokens);
    write_number(b, ",\"prompt_eval_duration\":", first_ns - play->began_ns + PROMPT_NS);
    play->eval_tokens = is_cut || !play->eval_whole ? play->said : (int64_t)play->eval_whole;
    write_number(b, ",\"eval_count\":", (uint64_t)play->eval_tokens);
    write_number(b, ",\"eval_duration\":", now_ns - first_ns + EVAL_NS);
    bytes_text(b, "}");
}

/* A generated context goes on with what was said. */
static void remember_said(struct play *play, const struct piece *piece)
{
    if (!play->is_generate || !play->context.len)
        return;
    for (size_t i = 0; i < piece->content.len; i++)
        bytes_print(&play->context, ",%u", (unsigned char)piece->content.at[i]);
}

/* --- pace --- */

static uint64_t ms(int64_t ms)
{
    return ms > 0 ? (uint64_t)ms * 1000000u : 0;
}

/* What a faster machine needs less of. */
static uint64_t pace(const struct play *play, int64_t of_ms)
{
    return play->speed ? ms(of_ms) * 100 / (uint64_t)play->speed : ms(of_ms);
}

/* How many pieces there will be: a run on a copy, whose buffers are only read. */
static int64_t count_pieces(const struct play *play)
{
    struct play copy = *play;
    struct piece piece;
    char room[32];

    while (piece_next(&copy, room, &piece))
        ;
    return copy.said;
}

static uint64_t whole_duration(const struct play *play)
{
    int64_t pieces = play->token_ms > 0 ? count_pieces(play) : 0;

    return ms(play->head_delay_ms) + pace(play, play->first_token_ms) +
           (pieces > 1 ? (uint64_t)(pieces - 1) : 0) * pace(play, play->token_ms);
}

void play_begin(struct play *play, uint64_t now_ns)
{
    bool waits_for_all = play->how == PLAY_PIECES && !play->streams;

    play->began_ns = now_ns;
    if (now_ns < play->ready_ns)
        now_ns = play->ready_ns;
    if (waits_for_all)
        play->due_ns = now_ns + whole_duration(play);
    else if (play->head_delay_ms > 0)
        play->due_ns = now_ns + ms(play->head_delay_ms);
    else
        play->due_ns = now_ns + pace(play, play->first_token_ms);
}

/* --- the steps --- */

static void stream_head(struct play *play, struct bytes *out)
{
    if (play->is_http10)
        play->keeps_alive = false;
    play->has_head = true;
    write_head(out, play, play->deed && play->deed->status ? play->deed->status : 200,
               play->deed && play->deed->content_type ? play->deed->content_type : "application/x-ndjson", -1);
}

static enum play_step ended(struct play *play, struct bytes *out)
{
    write_last_chunk(out, play);
    if (play->deed)
        bytes_add(out, play->deed->trailing.at, play->deed->trailing.len);
    return PLAY_ENDED;
}

/* The head alone, when a script delays the head and then the first token too. Otherwise they go together. */
static bool head_goes_alone(struct play *play, uint64_t now_ns, struct bytes *out)
{
    if (play->has_head || play->head_delay_ms <= 0 || play->first_token_ms <= 0)
        return false;
    stream_head(play, out);
    play->due_ns = now_ns + pace(play, play->first_token_ms);
    return true;
}

static const char default_error[] = "an error was encountered while running the model: unexpected EOF";

static const char *error_text(const struct play *play)
{
    return play->deed->error_text ? play->deed->error_text : default_error;
}

static enum play_step stream_fails(struct play *play, struct bytes *out)
{
    struct bytes json = { 0 };

    if (!play->has_head) {
        play_fix_stream_error(play, 500, slice_of(error_text(play)));
        bytes_add(out, play->fixed.at, play->fixed.len);
        return PLAY_ENDED;
    }
    error_json(&json, slice_of(error_text(play)));
    bytes_text(&json, "\n");
    write_chunk(out, play, (struct slice){ json.at, json.len });
    bytes_release(&json);
    return ended(play, out);
}

static void next_is_due(struct play *play, uint64_t now_ns)
{
    /* From the time that was planned, not the time it is: a late wake-up must not slow the rest down. */
    play->due_ns = play->token_ms > 0 ? play->due_ns + pace(play, play->token_ms) : now_ns;
}

static void stream_line(struct play *play, struct bytes *out, struct bytes *line)
{
    bytes_text(line, "\n");
    write_chunk(out, play, (struct slice){ line->at, line->len });
}

static enum play_step step_stream(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens)
{
    struct piece piece;
    char room[32];

    if (head_goes_alone(play, now_ns, out))
        return PLAY_MORE;
    if (play->deed && play->said == play->deed->error_after_tokens)
        return stream_fails(play, out);
    if (play->deed && play->said == play->deed->stall_after_tokens) {
        if (!play->has_head)
            stream_head(play, out);
        return PLAY_STALLED;
    }
    if (!play->has_head)
        stream_head(play, out);
    line_made.len = 0;
    if (piece_next(play, room, &piece)) {
        play->first_ns = play->first_ns ? play->first_ns : now_ns;
        remember_said(play, &piece);
        write_piece(&line_made, play, &piece);
        stream_line(play, out, &line_made);
        *ret_tokens = 1;
        if (has_more(play))
            next_is_due(play, now_ns);
        else
            play->due_ns = now_ns; /* the final line right behind the last piece */
        return PLAY_MORE;
    }
    if (!play->leaves_out_done) {
        line_start(&line_made, play, &(struct piece){ 0 });
        write_end(&line_made, play, now_ns, (struct slice){ 0 });
        stream_line(play, out, &line_made);
    }
    return ended(play, out);
}

static void speak_whole(struct play *play, uint64_t now_ns, struct bytes *body, unsigned *ret_tokens)
{
    struct bytes thinking = { 0 };
    struct bytes content = { 0 };
    struct bytes logprobs = { 0 };
    struct piece whole = { 0 };
    struct piece piece;
    char room[32];

    while (piece_next(play, room, &piece)) {
        bytes_slice(&thinking, piece.thinking);
        bytes_slice(&content, piece.content);
        remember_said(play, &piece);
        if (piece.tool_arguments.len)
            whole.tool_arguments = piece.tool_arguments;
        if (play->has_logprobs) {
            bytes_text(&logprobs, logprobs.len ? "," : "");
            write_logprobs_entry(&logprobs, play, &piece);
        }
    }
    whole.thinking = (struct slice){ thinking.at, thinking.len };
    whole.content = (struct slice){ content.at, content.len };
    line_start(body, play, &whole);
    if (play->leaves_out_done)
        bytes_text(body, ",\"done\":false}");
    else
        write_end(body, play, now_ns, (struct slice){ logprobs.at, logprobs.len });
    *ret_tokens = (unsigned)play->said;
    bytes_release(&thinking);
    bytes_release(&content);
    bytes_release(&logprobs);
}

static enum play_step step_whole(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens)
{
    if (play->deed && play->deed->stall_after_tokens >= 0)
        return PLAY_STALLED;
    body_made.len = 0;
    if (play->deed && play->deed->error_after_tokens >= 0) {
        play_fix_error(play, 500, slice_of(error_text(play)));
    } else {
        play->first_ns = play->began_ns + (now_ns - play->began_ns) / 2; /* half the time for the prompt */
        speak_whole(play, now_ns, &body_made, ret_tokens);
        play_fix(play, 200, "application/json; charset=utf-8", (struct slice){ body_made.at, body_made.len });
    }
    bytes_add(out, play->fixed.at, play->fixed.len);
    if (play->deed)
        bytes_add(out, play->deed->trailing.at, play->deed->trailing.len);
    return PLAY_ENDED;
}

static enum play_step step_lines(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens)
{
    struct deed *deed = play->deed;

    if (head_goes_alone(play, now_ns, out))
        return PLAY_MORE;
    if (!play->has_head)
        stream_head(play, out);
    if (play->said == deed->error_after_tokens)
        return stream_fails(play, out);
    if (play->said == deed->stall_after_tokens)
        return PLAY_STALLED;
    if ((size_t)play->said < deed->line_count) {
        struct slice line = deed->lines[play->said++];
        size_t len = line.len + (deed->lines_are_chunks ? 0 : 1); /* each is kept with a newline behind it */

        if (len)
            write_chunk(out, play, (struct slice){ line.at, len });
        *ret_tokens = 1;
        next_is_due(play, now_ns);
        if ((size_t)play->said == deed->line_count)
            play->due_ns = now_ns;
        return PLAY_MORE;
    }
    return ended(play, out);
}

static enum play_step step(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens)
{
    switch (play->how) {
    case PLAY_SILENT:
    case PLAY_HANGUP:
        return PLAY_STALLED;
    case PLAY_FIXED:
        bytes_add(out, play->fixed.at, play->fixed.len);
        if (play->deed)
            bytes_add(out, play->deed->trailing.at, play->deed->trailing.len);
        return PLAY_ENDED;
    case PLAY_LINES:
        return step_lines(play, now_ns, out, ret_tokens);
    case PLAY_PIECES:
        break;
    }
    return play->streams ? step_stream(play, now_ns, out, ret_tokens) : step_whole(play, now_ns, out, ret_tokens);
}

enum play_step play_step(struct play *play, uint64_t now_ns, struct bytes *out, unsigned *ret_tokens)
{
    size_t before = out->len;
    enum play_step what;
    char *end;

    *ret_tokens = 0;
    what = step(play, now_ns, out, ret_tokens);
    if (!play->deed || !play->deed->dies || out->len == before)
        return what;
    end = memmem(out->at + before, out->len - before, "\r\n\r\n", 4);
    if (end)
        out->len = (size_t)(end + 4 - out->at);
    return PLAY_DIES;
}

void play_cancel(struct play *play, struct bytes *out)
{
    if (play->how == PLAY_SILENT || play->how == PLAY_HANGUP)
        return;
    if (play->has_head) {
        write_last_chunk(out, play);
        return;
    }
    play->keeps_alive = false;
    if (play->how == PLAY_PIECES && play->streams)
        play_fix_stream_error(play, 500, SLICE("context canceled"));
    else
        play_fix_error(play, 500, SLICE("context canceled"));
    bytes_add(out, play->fixed.at, play->fixed.len);
}
