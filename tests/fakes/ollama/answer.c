/*
 * The order of the checks is that of Ollama's ChatHandler: the body, top_logprobs, the name, the cloud, the model,
 * thinking, then what the scheduler checks (capabilities, options), an empty request, and last what the runner
 * checks (format, the length of the prompt).
 */
#include "answer.h"
#include "invent.h"
#include "loop.h"
#include "models.h"
#include "options.h"
#include "welcome.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char json_type[] = "application/json; charset=utf-8";

static void refuse(struct play *play, int status, struct bytes *why)
{
    play_fix_error(play, status, (struct slice){ why->at, why->len });
    bytes_release(why);
}

/* --- names of models --- */

static bool is_cloud(struct slice name)
{
    return slice_ends_caseless(name, ":cloud") || slice_ends_caseless(name, "-cloud");
}

static bool name_is_clean(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        unsigned char c = (unsigned char)name.at[i];

        if (c <= ' ' || c >= 0x7f || strchr("\"'\\<>|*?&%$#@!(){}[]^`~,;=+", c))
            return false;
    }
    return name.len > 0 && name.len < 300;
}

/* False: no answer yet, the model is there. */
static bool name_is_settled(struct play *play, struct slice name, struct model **ret_model)
{
    struct bytes why = { 0 };

    if (!name_is_clean(name)) {
        play_fix_error(play, 400, SLICE("model is required"));
    } else if (slice_ends_caseless(name, ":cloud:local") || slice_ends_caseless(name, ":local:cloud")) {
        bytes_text(&why, "use either :local or :cloud, not both: ");
        go_quote(&why, name);
        refuse(play, 400, &why);
    } else if (is_cloud(name)) {
        play_fix_error(play, 403, SLICE("ollama cloud is disabled: remote model is unavailable"));
    } else if (!(*ret_model = model_find(name))) {
        bytes_print(&why, "model '%.*s' not found", (int)name.len, name.at);
        refuse(play, 404, &why);
    } else {
        return false;
    }
    return true;
}

/* --- what the scheduler checks --- */

static bool lacks(struct play *play, const struct ask *ask, const char *what)
{
    struct bytes why = { 0 };

    model_full_name(ask->model, &why);
    bytes_print(&why, " does not support %s", what);
    refuse(play, 400, &why);
    return true;
}

static bool lacks_quoted(struct play *play, const struct ask *ask, const char *what)
{
    struct bytes why = { 0 };

    go_quote(&why, ask->model);
    bytes_print(&why, " does not support %s", what);
    refuse(play, 400, &why);
    return true;
}

static bool capability_is_settled(struct play *play, const struct ask *ask, unsigned can)
{
    if (ask->thinks && !(can & CAN_THINK))
        return lacks_quoted(play, ask, "thinking");
    if (!(can & CAN_COMPLETE))
        return lacks_quoted(play, ask, ask->kind == ASK_CHAT ? "chat" : "generate");
    if (ask->tools && !(can & CAN_TOOLS))
        return lacks(play, ask, "tools");
    if (ask->suffix.len && !(can & CAN_INSERT))
        return lacks(play, ask, "insert");
    return false;
}

static bool options_are_settled(struct play *play, const struct ask *ask)
{
    struct bytes why = { 0 };

    if (ask_check_options(ask, &why))
        return false;
    refuse(play, 500, &why);
    return true;
}

/* --- nothing asked: load or unload --- */

static bool load_is_settled(struct play *play, const struct ask *ask)
{
    struct bytes json = { 0 };
    struct play line = { .is_generate = ask->kind == ASK_GENERATE };

    if (ask->has_messages)
        return false;
    bytes_json(&line.model, ask->model);
    play_write_load(&line, &json, ask->unloads ? "unload" : "load");
    play_fix(play, 200, json_type, (struct slice){ json.at, json.len });
    bytes_release(&line.model);
    bytes_release(&json);
    return true;
}

/* --- what the runner checks --- */

/* Errors of the runner come the way a stream's lines come. */
static bool runner_refuses(struct play *play, const struct ask *ask, int status, struct bytes *why)
{
    struct slice text = { why->at, why->len };

    if (ask->streams)
        play_fix_stream_error(play, status, text);
    else
        play_fix_error(play, status, text);
    bytes_release(why);
    return true;
}

static bool format_is_settled(struct play *play, const struct ask *ask)
{
    struct bytes why = { 0 };

    if (!ask->format || ask->format->kind == GO_OBJECT || slice_is(ask->format->raw, "\"json\""))
        return false;
    bytes_text(&why, "invalid format: ");
    go_quote(&why, ask->format->raw);
    bytes_text(&why, "; expected \"json\" or a valid JSON Schema object");
    return runner_refuses(play, ask, 500, &why);
}

/* 20 for the template, and a token for every word or every few bytes, whichever is more, at least 2. */
static int64_t prompt_tokens(const struct ask *ask)
{
    uint64_t tokens = (ask->text_bytes + (uint64_t)options.token_bytes - 1) / (uint64_t)options.token_bytes;

    tokens = tokens > ask->text_words ? tokens : ask->text_words;
    return 20 + (int64_t)(tokens > 2 ? tokens : 2);
}

static bool length_is_settled(struct play *play, const struct ask *ask, int64_t num_ctx)
{
    struct bytes why = { 0 };

    play->prompt_tokens = prompt_tokens(ask);
    if (play->prompt_tokens < num_ctx)
        return false;
    if (ask->truncates) {
        play->prompt_tokens = num_ctx / 2 + 2;
        return false;
    }
    bytes_print(&why,
                "{\"error\":{\"code\":400,\"message\":\"request (%lld tokens) exceeds the available context size (%lld "
                "tokens), try increasing it\",\"type\":\"exceed_context_size_error\",\"n_prompt_tokens\":%lld,"
                "\"n_ctx\":%lld}}",
                (long long)play->prompt_tokens, (long long)num_ctx, (long long)play->prompt_tokens, (long long)num_ctx);
    return runner_refuses(play, ask, 400, &why);
}

/* --- what the model says --- */

static void say_count(struct play *play, int64_t count)
{
    play->counted = count;
    play->prefix = " r";
}

static void say_words(struct play *play, const struct words *words)
{
    play->words = words;
    play->words_to = words->count;
    play->eval_whole = words->eval_count;
}

/* tokens:N, tokens:N@MS or tokens:N@MS+FIRST */
static void say_tokens(struct play *play, struct slice wish)
{
    char text[48];
    char *at;

    (void)snprintf(text, sizeof text, "%.*s", (int)wish.len, wish.at);
    say_count(play, strtoll(text, &at, 10));
    if (*at == '@')
        play->token_ms = strtoll(at + 1, &at, 10);
    if (*at == '+')
        play->first_token_ms = strtoll(at + 1, NULL, 10);
}

static bool wish_is_said(struct play *play, struct slice wish)
{
    if (slice_starts(wish, "say:")) {
        bytes_add(&play->echo, wish.at + 4, wish.len - 4);
        return true;
    }
    if (slice_starts(wish, "tokens:")) {
        say_tokens(play, (struct slice){ wish.at + 7, wish.len - 7 });
        return true;
    }
    return false;
}

static void say_call(struct play *play, const struct go_value *tool)
{
    const struct go_value *function = go_member(tool, "function");
    const struct go_value *name = function ? go_member(function, "name") : NULL;
    const struct go_value *parameters = function ? go_member(function, "parameters") : NULL;

    bytes_text(&play->call, "\"name\":");
    bytes_json(&play->call, name ? name->text : SLICE(""));
    bytes_text(&play->call, ",\"arguments\":");
    if (parameters && parameters->kind == GO_OBJECT && go_member(parameters, "properties"))
        invent_value(&play->call, parameters, false, "Paris");
    else
        bytes_text(&play->call, "{}");
    play->eval_whole = 10;
}

/* Thinks as recorded, then writes what the schema allows; only the second run is counted, as Ollama does. */
static void say_schema(struct play *play, const struct ask *ask, bool thinks)
{
    static const char any[] = "{\"answer\" : 42 }";

    if (ask->format->kind == GO_OBJECT)
        invent_value(&play->echo, ask->format, true, "text");
    else
        bytes_text(&play->echo, any);
    play->eval_whole = (unsigned)(play->echo.len + 1) / 2;
    if (!thinks)
        return;
    play->words = &words_thinking;
    play->prompt_tokens += 2;
    while (play->words_to < words_thinking.count && words_thinking.pieces[play->words_to].thinking.len)
        play->prompt_tokens += (int64_t)words_thinking.pieces[play->words_to++].thinking.len;
}

static void say_default(struct play *play, const struct ask *ask, unsigned can)
{
    struct bytes full = { 0 };
    bool thinks = (can & CAN_THINK) && (ask->has_think ? ask->thinks : true);

    model_full_name(ask->model, &full);
    if (slice_ends_caseless((struct slice){ full.at, full.len }, "/slow:latest")) {
        say_count(play, INT64_MAX);
        play->token_ms = play->token_ms > 0 ? play->token_ms : 50;
    } else if (slice_ends_caseless((struct slice){ full.at, full.len }, "/loop:latest")) {
        play->counted = 31;
        play->prefix = " loop";
        play->is_unnumbered = play->leaves_out_done = true;
    } else if (options.tokens) {
        say_count(play, options.tokens);
    } else if (ask->tools && !ask->ends_in_tool) {
        say_call(play, ask->tools);
    } else if (ask->format) {
        say_schema(play, ask, thinks);
    } else {
        say_words(play, thinks ? &words_thinking : &words_plain);
    }
    bytes_release(&full);
}

static void set_limit(struct play *play, const struct ask *ask, int64_t num_ctx)
{
    int64_t limit = ask_option(ask, "num_predict", -1);
    int64_t room = num_ctx - play->prompt_tokens;

    if (limit < 0 || limit > 10 * num_ctx)
        limit = 10 * num_ctx;
    if (!ask->shifts && room < limit)
        limit = room > 1 ? room : 1;
    play->limit = limit;
}

/* The tokenizer of the recorded model: a byte a token, and three of its own. */
static void remember_prompt(struct play *play, const struct ask *ask)
{
    if (ask->kind != ASK_GENERATE)
        return;
    bytes_text(&play->context, "257,117,115,101,114,10");
    for (size_t i = 0; i < ask->prompt.len; i++)
        bytes_print(&play->context, ",%u", (unsigned char)ask->prompt.at[i]);
    bytes_text(&play->context, ",258,10,257,97,115,115,105,115,116,97,110,116,10,259");
}

static void speak(struct play *play, const struct ask *ask, unsigned can, int64_t num_ctx)
{
    play->how = PLAY_PIECES;
    play->needs_slot = true;
    play->is_generate = ask->kind == ASK_GENERATE;
    play->streams = ask->streams;
    play->has_logprobs = ask->has_logprobs;
    play->top_logprobs = ask->top_logprobs;
    bytes_json(&play->model, ask->model);
    if (!wish_is_said(play, ask->last_user))
        say_default(play, ask, can);
    set_limit(play, ask, num_ctx);
    remember_prompt(play, ask);
}

static void use_model(struct play *play, struct model *model, const struct ask *ask, int64_t num_ctx)
{
    const struct model_wish wish = { .num_ctx = num_ctx, .shifts = ask->shifts };

    play->model_used = model;
    play->keep_alive_ns = ask->keep_alive_ns;
    play->ready_ns = model_load(model, &wish, clock_ns());
}

static void plan_speech(struct play *play, enum ask_kind kind, struct slice body, struct arena *arena)
{
    struct bytes why = { 0 };
    struct ask ask;
    struct model *model;
    unsigned can;
    int64_t num_ctx;

    if (!ask_read(&ask, kind, arena, body, &why)) {
        refuse(play, 400, &why);
        return;
    }
    if (ask.top_logprobs < 0 || ask.top_logprobs > 20) {
        play_fix_error(play, 400, SLICE("top_logprobs must be between 0 and 20"));
        return;
    }
    if (name_is_settled(play, ask.model, &model))
        return;
    can = model_capabilities(model);
    if (!ask.has_messages && ask.unloads) {
        model_unload(model);
        (void)load_is_settled(play, &ask);
        return;
    }
    if (capability_is_settled(play, &ask, can) || options_are_settled(play, &ask))
        return;
    num_ctx = ask_option(&ask, "num_ctx", options.num_ctx);
    num_ctx = num_ctx < 4 ? 4 : num_ctx;
    use_model(play, model, &ask, num_ctx);
    if (load_is_settled(play, &ask) || format_is_settled(play, &ask) || length_is_settled(play, &ask, num_ctx))
        return;
    speak(play, &ask, can, num_ctx);
}

/* Looked for once: any thread may be the first, and all find the same. */
static struct slots *bench_slots(void)
{
    static struct slots *_Atomic slots;

    if (!slots)
        slots = books_slots("qwen3:32b");
    return slots;
}

/* Skips all checks: a look at the body tells whether to stream. */
static void plan_bench(struct play *play, struct slice body)
{
    play->how = PLAY_PIECES;
    play->needs_slot = true;
    play->streams = memmem(body.at, body.len, "\"stream\":true", 13);
    play->prompt_tokens = 22;
    play->limit = -1;
    bytes_text(&play->model, "\"qwen3:32b\"");
    play->slots = bench_slots();
    if (options.tokens)
        say_count(play, options.tokens);
    else
        say_words(play, &words_plain);
}

/* --- embeddings --- */

static void write_embedding(struct bytes *json, struct slice text)
{
    /* Eight equal parts with signs from a hash: of length one, and different for different texts. */
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.at[i]) * 16777619u;
    bytes_text(json, "[");
    for (unsigned i = 0; i < 8; i++)
        bytes_print(json, "%s%s0.35355338", i ? "," : "", hash >> (3 * i) & 1 ? "-" : "");
    bytes_text(json, "]");
}

static void write_embeddings(struct bytes *json, const struct ask *ask)
{
    const struct go_value *input = ask->input;

    bytes_text(json, "{\"model\":");
    bytes_json(json, ask->model);
    bytes_text(json, ",\"embeddings\":[");
    if (input && input->kind == GO_STRING)
        write_embedding(json, input->text);
    for (const struct go_value *v = input ? input->first : NULL; v; v = v->next) {
        write_embedding(json, v->text);
        bytes_text(json, v->next ? "," : "");
    }
    bytes_text(json, "],\"total_duration\":14143917,\"load_duration\":1019500,\"prompt_eval_count\":8}");
}

static bool input_is_text(const struct go_value *input)
{
    if (!input || input->kind == GO_STRING || input->kind == GO_NULL)
        return true;
    for (const struct go_value *v = input->first; v; v = v->next)
        if (v->kind != GO_STRING)
            return false;
    return input->kind == GO_ARRAY;
}

static void plan_embed(struct play *play, struct slice body, struct arena *arena)
{
    struct bytes why = { 0 };
    struct bytes json = { 0 };
    struct ask ask;
    struct model *model = NULL;

    if (!ask_read(&ask, ASK_EMBED, arena, body, &why)) {
        refuse(play, 400, &why);
    } else if (!input_is_text(ask.input)) {
        play_fix_error(play, 400, SLICE("invalid input type"));
    } else if (!name_is_clean(ask.model)) {
        play_fix_error(play, 400, SLICE("model is required"));
    } else if (is_cloud(ask.model)) {
        play_fix_error(play, 403, SLICE("ollama cloud is disabled: remote model is unavailable"));
    } else if (!(model = model_find(ask.model))) {
        bytes_print(&why, "model \"%.*s\" not found, try pulling it first", (int)ask.model.len, ask.model.at);
        refuse(play, 404, &why);
    } else if (!(model_capabilities(model) & CAN_EMBED)) {
        play_fix_error(play, 501, SLICE("This server does not support embeddings. Start it with `--embeddings`"));
    } else {
        write_embeddings(&json, &ask);
        play_fix(play, 200, json_type, (struct slice){ json.at, json.len });
    }
    if (model)
        use_model(play, model, &ask, options.num_ctx);
    bytes_release(&json);
}

/* --- the rest --- */

static void plan_show(struct play *play, struct slice body, struct arena *arena)
{
    struct bytes why = { 0 };
    struct bytes json = { 0 };
    struct ask ask;
    struct model *model;

    if (!ask_read(&ask, ASK_SHOW, arena, body, &why)) {
        refuse(play, 400, &why);
    } else if (!name_is_settled(play, ask.model, &model) && model_show(ask.model, &json)) {
        play_fix(play, 200, json_type, (struct slice){ json.at, json.len });
        bytes_release(&json);
    }
}

static void plan_list(struct play *play, void (*write)(struct bytes *))
{
    struct bytes json = { 0 };

    write(&json);
    play_fix(play, 200, json_type, (struct slice){ json.at, json.len });
    bytes_release(&json);
}

static bool is_post(enum route route)
{
    return route < ROUTE_OTHER || route == ROUTE_SHOW;
}

static bool method_is_settled(struct play *play, enum route route, struct slice method)
{
    bool is_right;

    if (route == ROUTE_OTHER) {
        play_fix(play, 404, "text/plain", SLICE("404 page not found"));
        return true;
    }
    if (is_post(route))
        is_right = slice_is(method, "POST");
    else
        is_right = slice_is(method, "GET") || (slice_is(method, "HEAD") && route != ROUTE_PS);
    if (is_right)
        return false;
    play->allow = is_post(route) ? "POST" : route == ROUTE_PS ? "GET" : "GET, HEAD";
    play_fix(play, 405, "text/plain", SLICE("405 method not allowed"));
    return true;
}

static void plan_default(struct play *play, enum route route, struct slice method, struct slice body,
                         struct arena *arena)
{
    if (method_is_settled(play, route, method))
        return;
    switch (route) {
    case ROUTE_CHAT:
        if (options.is_bench)
            plan_bench(play, body);
        else
            plan_speech(play, ASK_CHAT, body, arena);
        break;
    case ROUTE_GENERATE:
        plan_speech(play, ASK_GENERATE, body, arena);
        break;
    case ROUTE_EMBED:
        plan_embed(play, body, arena);
        break;
    case ROUTE_SHOW:
        plan_show(play, body, arena);
        break;
    case ROUTE_ROOT:
        play_fix(play, 200, "text/plain; charset=utf-8", SLICE("Ollama is running"));
        break;
    case ROUTE_VERSION:
        play_fix(play, 200, json_type, SLICE("{\"version\":\"0.0.0\"}"));
        break;
    case ROUTE_TAGS:
        plan_list(play, models_tags);
        break;
    case ROUTE_PS:
        plan_list(play, models_ps);
        break;
    case ROUTE_LOAD:
    case ROUTE_OTHER:
    case ROUTES:
        break;
    }
}

/* --- scripts --- */

/* The recording says Connection: close, and so it is done; with `keep` the line goes and the connection stays. */
static void fix_transcript(struct play *play, const struct deed *deed)
{
    static const char closing[] = "Connection: close\r\n";
    char *line;

    play->how = PLAY_FIXED;
    play->fixed.len = 0;
    (void)transcript_answer(slice_of(deed->transcript), &play->fixed);
    play->keeps_alive = deed->keeps;
    line = memmem(play->fixed.at, play->fixed.len, closing, sizeof closing - 1);
    if (!deed->keeps || !line)
        return;
    memmove(line, line + sizeof closing - 1, play->fixed.len - (size_t)(line - play->fixed.at) - (sizeof closing - 1));
    play->fixed.len -= sizeof closing - 1;
}

/* True: the script says all there is to say. */
static bool deed_is_whole(struct play *play, const struct deed *deed)
{
    if (deed->is_silent) {
        play->how = PLAY_SILENT;
    } else if (deed->closes_first) {
        play->how = PLAY_HANGUP;
    } else if (deed->has_raw) {
        play->how = PLAY_FIXED;
        play->fixed.len = 0;
        bytes_add(&play->fixed, deed->raw.at, deed->raw.len);
        play->keeps_alive = deed->keeps;
    } else if (deed->transcript) {
        fix_transcript(play, deed);
    } else if (deed->has_lines) {
        play->how = PLAY_LINES;
        play->streams = true;
    } else if (deed->status || deed->body) {
        play_fix(play, deed->status ? deed->status : 200, deed->content_type ? deed->content_type : json_type,
                 (struct slice){ deed->body ? deed->body : "", deed->body_len });
    } else {
        return false;
    }
    return true;
}

static void deed_bends(struct play *play, const struct deed *deed)
{
    if (deed->first_token_ms >= 0)
        play->first_token_ms = deed->first_token_ms;
    if (deed->token_ms >= 0)
        play->token_ms = deed->token_ms;
    play->head_delay_ms = deed->head_delay_ms;
    if (play->how != PLAY_PIECES)
        return;
    play->leaves_out_done |= deed->leaves_out_done;
    if (deed->tokens < 0 && deed->long_line < 0)
        return;
    play->words = NULL;
    play->words_to = play->eval_whole = 0;
    play->echo.len = play->call.len = 0;
    play->counted = 0;
    play->is_unnumbered = false;
    if (deed->tokens >= 0)
        say_count(play, deed->tokens);
    if (deed->long_line >= 0) {
        bytes_need(&play->echo, (size_t)deed->long_line);
        memset(play->echo.at, 'x', (size_t)deed->long_line);
        play->echo.len = (size_t)deed->long_line;
        play->echoes_whole = true;
    }
}

static struct slice path_of(struct slice target)
{
    const char *query = memchr(target.at, '?', target.len);

    if (query)
        target.len = (size_t)(query - target.at);
    return target;
}

/* What a test wants to find in the books, whether a script answers or the model. */
static void look_at_wish(struct play *play, enum route route, struct slice body, struct arena *arena)
{
    static const char mark[] = "id=";
    struct bytes why = { 0 };
    struct model *model;
    struct ask ask;
    const char *at, *end;

    if ((route == ROUTE_CHAT || route == ROUTE_GENERATE) &&
        ask_read(&ask, route == ROUTE_CHAT ? ASK_CHAT : ASK_GENERATE, arena, body, &why)) {
        model = model_find(ask.model);
        play->slots = model ? model_slots(model) : NULL;
        play->is_load = ask.model.len && !ask.has_messages;
        at = ask.last_user.len ? memmem(ask.last_user.at, ask.last_user.len, mark, strlen(mark)) : NULL;
        if (at) {
            at += strlen(mark);
            end = ask.last_user.at + ask.last_user.len;
            for (size_t i = 0; at < end && i + 1 < sizeof play->id && !strchr(" \t\n.,;", *at); i++)
                play->id[i] = *at++;
        }
    }
    bytes_release(&why);
}

void answer_plan(struct play *play, enum route route, const struct http_request *req, const char *base,
                 struct arena *arena)
{
    struct slice method = http_slice(base, req->method);
    struct slice path = path_of(http_slice(base, req->target));

    play->is_http10 = req->is_http10;
    play->keeps_alive = req->keeps_alive;
    play->is_head_only = slice_is(method, "HEAD");
    play->limit = play->eval_tokens = -1;
    if (!options.is_bench && !is_welcome(req, base)) {
        play_fix(play, 403, NULL, SLICE(""));
        return;
    }
    if (!options.is_bench)
        look_at_wish(play, route, http_body(req, base), arena);
    play->speed = options.is_bench ? options.speed : books_settings().speed;
    play->token_ms = options.token_ms;
    play->first_token_ms = options.first_token_ms;
    play->deed = books_next_deed(path);
    if (!play->deed || !deed_is_whole(play, play->deed))
        plan_default(play, route, method, http_body(req, base), arena);
    else
        play->needs_slot = route < ROUTE_OTHER && !play->is_load;
    if (play->deed)
        deed_bends(play, play->deed);
    if (books_is_silent(route))
        play->how = PLAY_SILENT;
    if (play->how != PLAY_PIECES && !play->deed)
        play->first_token_ms = play->token_ms = 0;
}
