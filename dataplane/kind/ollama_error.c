/*
 * What Ollama and the runners behind it say when they fail, to what a caller is told. First by the words, which say
 * more than the status does (overflow is a 400, a format that it does not take a 500), then by the status.
 * Their texts name files, addresses, the registry and the machine, so a text passes only when nothing of that is in it.
 */
#include "ollama.h"

#include "json.h"

enum { SAID_MAX_BYTES = 300, SENTENCE_MAX_BYTES = 2048, BUSY_RETRY_S = 5 };

/* What an error answer says, taken apart. */
struct complaint {
    unsigned status;
    bool is_page;                           /* HTML: not Ollama's */
    struct slice text;                      /* plain, never NULL; empty: the body was no error object */
    uint64_t prompt_tokens, context_tokens; /* of an overflow; 0: not said */
};

static bool has_nocase(struct slice text, struct slice part)
{
    for (size_t i = 0; i + part.len <= text.len; i++)
        if (slice_is_nocase((struct slice){ text.at + i, part.len }, part))
            return true;
    return false;
}

/* --- reading ---------------------------------------------------------------------------------------------- */

static struct slice decode(const struct json_string *string, struct arena *arena)
{
    struct text decoded = { .room = string->raw.len + 1, .max = string->raw.len };

    decoded.at = arena_take(arena, decoded.room);
    if (!decoded.at)
        return SLICE("");
    json_string_decode(string, &decoded);
    return text_slice(&decoded);
}

static void read_number(struct json_reader *json, uint64_t *ret_number)
{
    struct slice written;
    int64_t number;

    if (json_number(json, &written) && json_number_i64(written, &number) && number > 0)
        *ret_number = (uint64_t)number;
}

/* {"error": "text"}, {"error": {"message": "text", ...}}, and {"message": "text"} within. */
static void read_object(struct json_reader *json, struct arena *arena, struct complaint *complaint)
{
    struct json_string key, text;

    if (!json_object(json, NULL))
        return;
    while (json_member(json, NULL, &key)) {
        bool is_text = json_string_is(&key, "error") || json_string_is(&key, "message");
        enum json_type type = json_peek(json);
        if (is_text && type == JSON_STRING && json_string(json, &text))
            complaint->text = decode(&text, arena);
        else if (is_text && type == JSON_OBJECT)
            read_object(json, arena, complaint);
        else if (json_string_is(&key, "n_prompt_tokens") && type == JSON_NUMBER)
            read_number(json, &complaint->prompt_tokens);
        else if (json_string_is(&key, "n_ctx") && type == JSON_NUMBER)
            read_number(json, &complaint->context_tokens);
        else
            (void)json_skip(json, NULL);
    }
}

static bool read_body(struct slice body, struct arena *arena, struct complaint *complaint)
{
    struct json_reader json;

    json_open(&json, body, JSON_MAX_DEPTH);
    if (json_peek(&json) != JSON_OBJECT)
        return false;
    read_object(&json, arena, complaint);
    return json_close(&json);
}

/* The number behind `words`: "exceeds the available context size (2048 tokens)". 0: there is none. */
static uint64_t number_after(struct slice text, struct slice words)
{
    const char *at = text.len ? memmem(text.at, text.len, words.at, words.len) : NULL;
    const char *end = text.at + text.len;
    uint64_t number = 0;

    if (!at)
        return 0;
    for (at += words.len; at < end && *at >= '0' && *at <= '9' && number < UINT64_MAX / 100; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    return number;
}

/* The runner's own error body comes as a string within Ollama's. */
static void unwrap(struct complaint *complaint, struct arena *arena)
{
    struct complaint inner = { .status = complaint->status, .text = SLICE("") };

    if (slice_starts(complaint->text, SLICE("{")) && read_body(complaint->text, arena, &inner) && inner.text.len)
        *complaint = inner;
}

static struct complaint complaint_of(unsigned status, struct slice body, struct arena *arena)
{
    struct complaint complaint = { .status = status, .text = SLICE("") };

    if (read_body(body, arena, &complaint)) {
        unwrap(&complaint, arena);
        return complaint;
    }
    while (body.len && (unsigned char)body.at[0] <= ' ') {
        body.at++;
        body.len--;
    }
    return (struct complaint){ .status = status, .is_page = slice_starts(body, SLICE("<")), .text = SLICE("") };
}

/* --- telling ---------------------------------------------------------------------------------------------- */

static void tell(struct refusal *refusal, struct arena *arena, struct text *sentence)
{
    refusal->message = arena_copy(arena, text_slice(sentence));
    if (sentence->err || !refusal->message.at)
        *refusal = (struct refusal){ .cause = CAUSE_NO_MEMORY };
    text_release_wiped(sentence);
}

static void tell_overflow(const struct complaint *complaint, struct arena *arena, struct refusal *refusal)
{
    uint64_t context = complaint->context_tokens, prompt = complaint->prompt_tokens;
    struct text sentence;

    if (!context)
        context = number_after(complaint->text, SLICE("available context size ("));
    if (!prompt)
        prompt = number_after(complaint->text, SLICE("request ("));
    text_init(&sentence, SENTENCE_MAX_BYTES);
    if (context && prompt) {
        text_add_literal(&sentence, "This model's maximum context length is ");
        refusal_add_number(&sentence, context);
        text_add_literal(&sentence, " tokens. However, your messages resulted in ");
        refusal_add_number(&sentence, prompt);
        text_add_literal(&sentence, " tokens. Please reduce the length of the messages.");
    } else {
        text_add_literal(&sentence, "The prompt is too long: it exceeds the context window of this model. Please "
                                    "reduce the length of the messages.");
    }
    *refusal = (struct refusal){ .cause = CAUSE_OVERFLOW, .param = SLICE("messages") };
    tell(refusal, arena, &sentence);
}

static void add_shown(struct text *out, struct slice shown_model)
{
    if (!shown_model.len || refusal_text_invites_retry(shown_model))
        text_add_literal(out, "this model");
    else
        text_add_slice(out, shown_model);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* "... does not support tools" */
static void tell_unsupported(struct slice text, struct slice shown_model, struct arena *arena, struct refusal *refusal)
{
    struct slice words = SLICE("does not support ");
    const char *what = memmem(text.at, text.len, words.at, words.len);
    const char *end = text.at + text.len;
    struct text sentence;
    size_t len = 0;

    if (what) {
        what += words.len;
        while (what + len < end && is_letter(what[len]))
            len++;
    }
    text_init(&sentence, SENTENCE_MAX_BYTES);
    add_shown(&sentence, shown_model);
    text_add_literal(&sentence, " does not support ");
    if (len && !refusal_text_invites_retry((struct slice){ what, len }))
        text_add(&sentence, what, len);
    else
        text_add_literal(&sentence, "what is asked of it");
    *refusal = (struct refusal){ .cause = CAUSE_UNSUPPORTED };
    tell(refusal, arena, &sentence);
}

static void tell_unknown(struct slice shown_model, struct arena *arena, struct refusal *refusal)
{
    struct text sentence;

    text_init(&sentence, SENTENCE_MAX_BYTES);
    if (!shown_model.len || refusal_text_invites_retry(shown_model)) {
        text_add_literal(&sentence, "the model asked for was not found");
    } else {
        text_add_literal(&sentence, "the model `");
        text_add_slice(&sentence, shown_model);
        text_add_literal(&sentence, "` was not found");
    }
    *refusal = (struct refusal){ .cause = CAUSE_MODEL_UNKNOWN, .param = SLICE("model") };
    tell(refusal, arena, &sentence);
}

/* A word that names the model by its place in the registry. */
static bool is_registry_word(struct slice word)
{
    return has_nocase(word, SLICE("registry.")) || slice_has(word, SLICE("/library/"));
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* 127.0.0.1, host:11434, [::1] */
static bool has_address(struct slice text)
{
    for (size_t i = 0; i + 1 < text.len; i++) {
        if (text.at[i] == ':' && (text.at[i + 1] == ':' || is_digit(text.at[i + 1])))
            return true;
        if (text.at[i] == '.' && i && is_digit(text.at[i - 1]) && is_digit(text.at[i + 1])) {
            size_t k = i + 1;
            while (k < text.len && is_digit(text.at[k]))
                k++;
            if (k + 1 < text.len && text.at[k] == '.' && is_digit(text.at[k + 1]))
                return true;
        }
    }
    return false;
}

/* A slash that begins or continues a path; "and/or" is none. */
static bool has_path(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        bool is_inside = i && (is_letter(text.at[i - 1]) || is_digit(text.at[i - 1]));
        if (text.at[i] == '\\' || (text.at[i] == '/' && !is_inside))
            return true;
        if (text.at[i] == '/' && i + 1 < text.len && memchr(text.at + i + 1, '/', text.len - i - 1))
            return true;
    }
    return false;
}

/* Does a text speak of the machine it comes from, or invite what a refusal must not? */
static bool is_telling(struct slice text)
{
    static const char *const words[] = { "ollama", "llama", "gguf", "goroutine", "panic", "runtime", "localhost",
                                         "cuda",   "json:", ".go",  "http",      "stack", "registry" };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (has_nocase(text, slice_of(words[i])))
            return true;
    /* A bracket: data that was to be taken apart, and could not. */
    return slice_starts(text, SLICE("{")) || slice_starts(text, SLICE("[")) || slice_starts(text, SLICE("<")) ||
           has_path(text) || has_address(text) || refusal_text_invites_retry(text);
}

/* The first line, with the model called by the name the caller used. */
static void add_renamed(struct text *out, struct slice text, struct slice shown_model)
{
    const char *at = text.at, *end = text.at + text.len;

    while (at < end && (unsigned char)*at >= ' ') {
        struct slice word = { at, 0 };
        while (at < end && (unsigned char)*at > ' ')
            at++;
        word.len = (size_t)(at - word.at);
        if (is_registry_word(word))
            add_shown(out, shown_model);
        else
            text_add_slice(out, word);
        for (; at < end && *at == ' '; at++)
            text_add_char(out, ' ');
    }
}

/* The engine's own sentence, if a caller may read it. */
static bool clean(struct slice text, struct slice shown_model, struct text *sentence)
{
    struct slice said = { text.at, utf8_cut(text, SAID_MAX_BYTES) };
    bool is_clean;

    /* Judged without the name, whose tag (`:32b`) looks like a port. */
    add_renamed(sentence, said, (struct slice){ 0 });
    is_clean = !sentence->err && sentence->len && !is_telling(text_slice(sentence));
    text_clear(sentence);
    if (is_clean)
        add_renamed(sentence, said, shown_model);
    return is_clean;
}

static void tell_what_it_says(const struct complaint *complaint, struct slice shown_model, struct arena *arena,
                              struct refusal *refusal)
{
    struct text sentence;

    text_init(&sentence, SENTENCE_MAX_BYTES);
    if (!clean(complaint->text, shown_model, &sentence))
        text_add_literal(&sentence, "the model server does not accept this request");
    refusal->status = complaint->status;
    tell(refusal, arena, &sentence);
}

/* --- deciding --------------------------------------------------------------------------------------------- */

/* What words mean, in answers with these statuses. */
static const struct {
    const char *words;
    unsigned from, to;
    enum cause cause;
} hints[] = {
    { "exceeds the available context size", 400, 599, CAUSE_OVERFLOW },
    { "longer than the context length", 400, 599, CAUSE_OVERFLOW },
    { "exceeds the context length", 400, 599, CAUSE_OVERFLOW },
    { "exceed_context_size", 400, 599, CAUSE_OVERFLOW },
    { "does not support", 400, 499, CAUSE_UNSUPPORTED },
    { "cloud is disabled", 400, 499, CAUSE_MODEL_NOT_ALLOWED },
    { "try pulling it first", 400, 499, CAUSE_MODEL_UNKNOWN },
    { "server busy", 429, 599, CAUSE_BACKEND_BUSY },
    { "model is overloaded", 429, 599, CAUSE_BACKEND_BUSY },
    { "failed to load", 500, 599, CAUSE_LOAD_FAILED },
    { "unable to load", 500, 599, CAUSE_LOAD_FAILED },
    { "error loading model", 500, 599, CAUSE_LOAD_FAILED },
    { "requires more system memory", 500, 599, CAUSE_LOAD_FAILED },
    { "insufficient memory", 500, 599, CAUSE_LOAD_FAILED },
    { "out of memory", 500, 599, CAUSE_LOAD_FAILED },
    { "runner process has terminated", 500, 599, CAUSE_LOAD_FAILED },
    { "server process has terminated", 500, 599, CAUSE_LOAD_FAILED },
    { "waiting for llama", 500, 599, CAUSE_LOAD_FAILED },
    { "unsupported model architecture", 500, 599, CAUSE_LOAD_FAILED },
};

static enum cause cause_of_text(const struct complaint *complaint)
{
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (complaint->status >= hints[i].from && complaint->status <= hints[i].to &&
            has_nocase(complaint->text, slice_of(hints[i].words)))
            return hints[i].cause;
    return CAUSE_NONE;
}

static enum cause cause_of_status(const struct complaint *complaint)
{
    unsigned status = complaint->status;

    if (status == 429 || (status == 503 && complaint->text.len))
        return CAUSE_BACKEND_BUSY;
    if (status == 404 && has_nocase(complaint->text, SLICE("model")) && has_nocase(complaint->text, SLICE("not found")))
        return CAUSE_MODEL_UNKNOWN;
    /* Between the gateway and the engine: a caller who was told so would doubt his own key. 499 is nobody's status. */
    if (status == 401 || status == 407 || status == 499)
        return CAUSE_UPSTREAM;
    return status >= 400 && status < 500 && !complaint->is_page ? CAUSE_BACKEND_SAYS : CAUSE_UPSTREAM;
}

static void decide(const struct complaint *complaint, struct slice shown_model, struct arena *arena,
                   struct refusal *ret_refusal)
{
    enum cause cause = cause_of_text(complaint);

    if (cause == CAUSE_NONE)
        cause = cause_of_status(complaint);
    *ret_refusal = (struct refusal){ .cause = cause };
    switch (cause) {
    case CAUSE_OVERFLOW:
        tell_overflow(complaint, arena, ret_refusal);
        break;
    case CAUSE_UNSUPPORTED:
        tell_unsupported(complaint->text, shown_model, arena, ret_refusal);
        break;
    case CAUSE_MODEL_UNKNOWN:
        tell_unknown(shown_model, arena, ret_refusal);
        break;
    case CAUSE_MODEL_NOT_ALLOWED:
        ret_refusal->message = SLICE("cloud models are not served here");
        ret_refusal->param = SLICE("model");
        break;
    case CAUSE_BACKEND_SAYS:
        tell_what_it_says(complaint, shown_model, arena, ret_refusal);
        break;
    case CAUSE_BACKEND_BUSY:
        if (complaint->status != 429) { /* row 20: a 5xx of the engine's is a 502 of ours, here with advice */
            ret_refusal->cause = CAUSE_UPSTREAM;
            ret_refusal->message = slice_of(cause_row(CAUSE_BACKEND_BUSY)->message);
        }
        ret_refusal->retry_after_s = BUSY_RETRY_S;
        break;
    default:
        break;
    }
}

void ollama_read_error(unsigned status, struct slice body, struct slice shown_model, struct arena *arena,
                       struct refusal *ret_refusal)
{
    struct complaint complaint = complaint_of(status, body, arena);

    decide(&complaint, shown_model, arena, ret_refusal);
}

void ollama_read_broken(struct slice error, struct slice shown_model, struct arena *arena, struct refusal *ret_refusal)
{
    struct complaint complaint = { .status = 500, .text = error.len ? error : SLICE("") };
    struct text sentence;

    unwrap(&complaint, arena);
    decide(&complaint, shown_model, arena, ret_refusal);
    if (ret_refusal->cause != CAUSE_UPSTREAM || ret_refusal->message.len)
        return;
    /* Here the words are all there is to say: the status went out as a 200. */
    text_init(&sentence, SENTENCE_MAX_BYTES);
    if (clean(complaint.text, shown_model, &sentence))
        tell(ret_refusal, arena, &sentence);
    else
        text_release_wiped(&sentence);
}
