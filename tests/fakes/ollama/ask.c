/*
 * A decoder table per Go struct. Go goes on after a type error and reports the first, so the reading never stops early.
 * A struct with its own UnmarshalJSON hides its name: an error inside is reported under the struct that holds it,
 * hence `as` in struct place.
 */
#include "ask.h"

#include <stdlib.h>
#include <string.h>

/* Where the decoder stands; a chain on the stack, written out only for an error. */
struct place {
    const char *in; /* the Go struct's name in errors */
    const char *key;
    const struct place *above;
};

struct decoder {
    struct ask *ask;
    struct bytes *why;
};

typedef void decode_fn(struct decoder *d, const struct place *at, const struct go_value *value);

struct field {
    const char *key;
    decode_fn *decode;
};

/* The JSON path up to here, joined by dots. */
static void place_write(const struct place *at, struct bytes *out)
{
    if (at->above && at->above->key) {
        place_write(at->above, out);
        bytes_text(out, ".");
    }
    bytes_text(out, at->key);
}

static bool mismatch(struct decoder *d, const struct place *at, const struct go_value *value, const char *type)
{
    if (d->why->len)
        return false;
    bytes_print(d->why, "json: cannot unmarshal %s", go_kind_text(value->kind));
    if (value->kind == GO_NUMBER && strcmp(type, "int") == 0)
        bytes_print(d->why, " %.*s", (int)value->text.len, value->text.at);
    if (at->key) {
        bytes_print(d->why, " into Go struct field %s.", at->in);
        place_write(at, d->why);
    } else {
        bytes_text(d->why, " into Go value");
    }
    bytes_print(d->why, " of type %s", type);
    return false;
}

/* null leaves a Go field as it was. */
static bool is_kind(struct decoder *d, const struct place *at, const struct go_value *value, enum go_kind kind,
                    const char *type)
{
    if (value->kind == kind)
        return true;
    if (value->kind != GO_NULL)
        return mismatch(d, at, value, type);
    return false;
}

static bool key_matches(struct slice key, const char *name)
{
    return slice_is_caseless(key, name);
}

static void decode_fields(struct decoder *d, const struct place *at, const struct go_value *object,
                          const struct field *fields)
{
    for (const struct go_value *v = object->first; v; v = v->next) {
        for (const struct field *f = fields; f->key; f++) {
            if (key_matches(v->key, f->key)) {
                struct place below = { at->in, f->key, at };

                f->decode(d, &below, v);
                break;
            }
        }
    }
}

static void decode_string(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)is_kind(d, at, value, GO_STRING, "string");
}

static void decode_bool(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)is_kind(d, at, value, GO_BOOL, "bool");
}

static void decode_any(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)d, (void)at, (void)value;
}

static void decode_int(struct decoder *d, const struct place *at, const struct go_value *value)
{
    int64_t number;

    if (value->kind == GO_NUMBER ? !go_integer(value, &number) : value->kind != GO_NULL) {
        struct go_value plain = *value;

        (void)mismatch(d, at, &plain, "int");
    }
}

static void decode_strings(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_ARRAY, "[]string"))
        for (const struct go_value *v = value->first; v; v = v->next)
            decode_string(d, at, v);
}

static void decode_ints(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_ARRAY, "[]int"))
        for (const struct go_value *v = value->first; v; v = v->next)
            decode_int(d, at, v);
}

/* --- images: standard base64, as Go's decoder of []byte wants it --- */

static int64_t base64_bad_at(struct slice text)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t in_group = 0;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];

        if (c == '\r' || c == '\n')
            continue;
        if (c == '=') {
            bool two = in_group == 2;

            if (in_group < 2 || (two && (i + 1 >= text.len || text.at[i + 1] != '=')))
                return (int64_t)i;
            i += two ? 2 : 1;
            return i == text.len ? -1 : (int64_t)i;
        }
        if (!c || !strchr(alphabet, c))
            return (int64_t)i;
        in_group = (in_group + 1) % 4;
    }
    return in_group ? (int64_t)(text.len - in_group) : -1;
}

static void decode_images(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (!is_kind(d, at, value, GO_ARRAY, "[]api.ImageData"))
        return;
    for (const struct go_value *v = value->first; v; v = v->next) {
        int64_t bad_at;

        if (!is_kind(d, at, v, GO_STRING, "api.ImageData"))
            continue;
        bad_at = base64_bad_at(v->text);
        if (bad_at >= 0 && !d->why->len)
            bytes_print(d->why, "illegal base64 data at input byte %lld", (long long)bad_at);
    }
}

/* --- messages --- */

static void count_text(struct ask *ask, struct slice text)
{
    bool in_word = false;

    ask->text_bytes += text.len;
    for (size_t i = 0; i < text.len; i++) {
        bool is_space = (unsigned char)text.at[i] <= ' ';

        ask->text_words += !is_space & !in_word;
        in_word = !is_space;
    }
}

static void decode_content(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_STRING, "string"))
        count_text(d->ask, value->text);
}

/* An ordered map of Ollama's own, which reads objects with a scanner of its own. */
static void decode_arguments(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)at;
    if (value->kind == GO_OBJECT)
        count_text(d->ask, value->raw);
    else if (value->kind != GO_NULL && !d->why->len)
        bytes_text(d->why, "Value looks like object, but can't find closing '}' symbol");
}

static void decode_call_function(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = {
        { "index", decode_int }, { "name", decode_string }, { "arguments", decode_arguments }, { 0 }
    };

    if (is_kind(d, at, value, GO_OBJECT, "api.ToolCallFunction"))
        decode_fields(d, at, value, fields);
}

static void decode_calls(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = { { "id", decode_string }, { "function", decode_call_function }, { 0 } };

    if (!is_kind(d, at, value, GO_ARRAY, "[]api.ToolCall"))
        return;
    for (const struct go_value *v = value->first; v; v = v->next)
        if (is_kind(d, at, v, GO_OBJECT, "api.ToolCall"))
            decode_fields(d, at, v, fields);
}

static const struct go_value *folded(const struct go_value *object, const char *key)
{
    const struct go_value *found = NULL;

    for (const struct go_value *v = object->first; v; v = v->next)
        if (key_matches(v->key, key))
            found = v;
    return found;
}

static struct slice folded_text(const struct go_value *object, const char *key)
{
    const struct go_value *value = folded(object, key);

    return value && value->kind == GO_STRING ? value->text : (struct slice){ 0 };
}

static void decode_message(struct decoder *d, const struct place *at, const struct go_value *message)
{
    static const struct field fields[] = { { "role", decode_string },         { "content", decode_content },
                                           { "thinking", decode_content },    { "images", decode_images },
                                           { "tool_calls", decode_calls },    { "tool_name", decode_string },
                                           { "tool_call_id", decode_string }, { 0 } };
    struct slice role;

    d->ask->ends_in_tool = false;
    if (!is_kind(d, at, message, GO_OBJECT, "api.Alias"))
        return;
    decode_fields(d, at, message, fields);
    role = folded_text(message, "role");
    d->ask->ends_in_tool = slice_is_caseless(role, "tool");
    if (slice_is_caseless(role, "user"))
        d->ask->last_user = folded_text(message, "content");
}

static void decode_messages(struct decoder *d, const struct place *at, const struct go_value *value)
{
    d->ask->messages = NULL;
    if (!is_kind(d, at, value, GO_ARRAY, "[]api.Message"))
        return;
    d->ask->messages = value;
    d->ask->text_bytes = d->ask->text_words = 0;
    for (const struct go_value *v = value->first; v; v = v->next)
        decode_message(d, at, v);
    d->ask->has_messages = value->first;
}

/* --- tools --- */

static void decode_properties(struct decoder *d, const struct place *at, const struct go_value *value);

static void decode_property_type(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (value->kind != GO_STRING)
        decode_strings(d, at, value);
}

static void decode_anys(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)is_kind(d, at, value, GO_ARRAY, "[]interface {}");
}

static void decode_any_of(struct decoder *d, const struct place *at, const struct go_value *value);

static void decode_property(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = { { "anyOf", decode_any_of },     { "type", decode_property_type },
                                           { "items", decode_any },        { "description", decode_string },
                                           { "enum", decode_anys },        { "properties", decode_properties },
                                           { "required", decode_strings }, { 0 } };

    if (is_kind(d, at, value, GO_OBJECT, "api.ToolProperty"))
        decode_fields(d, at, value, fields);
}

static void decode_any_of(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_ARRAY, "[]api.ToolProperty"))
        for (const struct go_value *v = value->first; v; v = v->next)
            decode_property(d, at, v);
}

static void decode_properties(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (value->kind == GO_NULL)
        return;
    if (value->kind != GO_OBJECT) {
        if (!d->why->len)
            bytes_text(d->why, "Value looks like object, but can't find closing '}' symbol");
        return;
    }
    for (const struct go_value *v = value->first; v; v = v->next)
        decode_property(d, at, v);
}

static void decode_parameters(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = { { "type", decode_string },
                                           { "$defs", decode_any },
                                           { "items", decode_any },
                                           { "required", decode_strings },
                                           { "properties", decode_properties },
                                           { 0 } };
    struct place here = *at;

    here.in = "ToolFunctionParameters";
    if (is_kind(d, at, value, GO_OBJECT, "api.ToolFunctionParameters"))
        decode_fields(d, &here, value, fields);
}

static void decode_function(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = {
        { "name", decode_string }, { "description", decode_string }, { "parameters", decode_parameters }, { 0 }
    };
    struct place here = *at;

    here.in = "ToolFunction";
    if (is_kind(d, at, value, GO_OBJECT, "api.ToolFunction"))
        decode_fields(d, &here, value, fields);
}

static void decode_tools(struct decoder *d, const struct place *at, const struct go_value *value)
{
    static const struct field fields[] = {
        { "type", decode_string }, { "items", decode_any }, { "function", decode_function }, { 0 }
    };
    struct place here = *at;

    d->ask->tools = NULL;
    if (!is_kind(d, at, value, GO_ARRAY, "api.Tools"))
        return;
    here.in = "Tool";
    d->ask->tools = value->first;
    for (const struct go_value *v = value->first; v; v = v->next)
        if (is_kind(d, at, v, GO_OBJECT, "api.Tool"))
            decode_fields(d, &here, v, fields);
}

/* --- the requests' own fields --- */

static void decode_model(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_STRING, "string"))
        d->ask->model = value->text;
}

static void decode_name(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_STRING, "string") && !d->ask->model.len)
        d->ask->model = value->text;
}

static void decode_stream(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (value->kind == GO_NULL)
        d->ask->streams = true;
    else if (is_kind(d, at, value, GO_BOOL, "bool"))
        d->ask->streams = value->is_true;
}

static void decode_truncate(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_BOOL, "bool"))
        d->ask->truncates = value->is_true;
}

static void decode_shift(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_BOOL, "bool"))
        d->ask->shifts = value->is_true;
}

static void decode_logprobs(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_BOOL, "bool"))
        d->ask->has_logprobs = value->is_true;
}

static void decode_top_logprobs(struct decoder *d, const struct place *at, const struct go_value *value)
{
    decode_int(d, at, value);
    if (value->kind == GO_NUMBER)
        (void)go_integer(value, &d->ask->top_logprobs);
}

static void decode_options(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_OBJECT, "map[string]interface {}"))
        d->ask->options = value;
}

static void decode_format(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)at;
    d->ask->format = value->kind == GO_NULL || slice_is(value->raw, "\"\"") ? NULL : value;
}

static void decode_think(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)at;
    if (value->kind == GO_NULL)
        return;
    d->ask->has_think = true;
    d->ask->thinks = value->kind == GO_BOOL ? value->is_true : true;
    if (value->kind == GO_BOOL || d->why->len)
        return;
    if (value->kind != GO_STRING) {
        bytes_text(d->why,
                   "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)");
    } else if (!slice_is(value->text, "high") && !slice_is(value->text, "medium") && !slice_is(value->text, "low") &&
               !slice_is(value->text, "max")) {
        bytes_text(d->why, "invalid think value: ");
        go_quote(d->why, value->text);
        bytes_text(d->why, " (must be \"high\", \"medium\", \"low\", \"max\", true, or false)");
    }
}

static double unit_ns(struct slice unit)
{
    static const struct {
        const char *text;
        double ns;
    } units[] = {
        { "ns", 1 }, { "us", 1e3 }, { "µs", 1e3 }, { "ms", 1e6 }, { "s", 1e9 }, { "m", 6e10 }, { "h", 3.6e12 }
    };

    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (slice_is(unit, units[i].text))
            return units[i].ns;
    return 0;
}

static int64_t whole_ns(double ns)
{
    return ns < 0 || ns > 9e18 ? -1 : (int64_t)ns;
}

/* Go's time.ParseDuration: a sign, then numbers with units; or just 0. */
static bool read_duration(struct slice text, int64_t *ret_ns)
{
    size_t i = text.len && (text.at[0] == '-' || text.at[0] == '+') ? 1 : 0;
    double sign = text.len && text.at[0] == '-' ? -1 : 1;
    double ns = 0;

    *ret_ns = 0;
    if (slice_is((struct slice){ text.at + i, text.len - i }, "0"))
        return true;
    if (i == text.len)
        return false;
    while (i < text.len) {
        size_t digits = strspn(text.at + i, "0123456789.");
        size_t unit;

        digits = digits > text.len - i ? text.len - i : digits;
        i += digits;
        for (unit = 0; i + unit < text.len && strchr("nsuµmh", text.at[i + unit]); unit++)
            ;
        if (digits == 0 || unit == 0)
            return false;
        ns += strtod(text.at + i - digits, NULL) * unit_ns((struct slice){ text.at + i, unit });
        i += unit;
    }
    *ret_ns = whole_ns(sign * ns);
    return true;
}

static void decode_keep_alive(struct decoder *d, const struct place *at, const struct go_value *value)
{
    bool is_right = true;

    (void)at;
    if (value->kind == GO_NULL || d->why->len)
        return;
    if (value->kind == GO_NUMBER)
        d->ask->keep_alive_ns = whole_ns(strtod(value->text.at, NULL) * 1e9);
    else if (value->kind == GO_STRING)
        is_right = read_duration(value->text, &d->ask->keep_alive_ns);
    d->ask->unloads = d->ask->keep_alive_ns == 0;
    if (!is_right) {
        bytes_text(d->why, "time: invalid duration ");
        go_quote(d->why, value->text);
    } else if (value->kind != GO_STRING && value->kind != GO_NUMBER) {
        bytes_print(d->why, "Unsupported type: '%s'",
                    value->kind == GO_BOOL    ? "bool"
                    : value->kind == GO_ARRAY ? "[]interface {}"
                                              : "map[string]interface {}");
    }
}

static void decode_prompt(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (!is_kind(d, at, value, GO_STRING, "string"))
        return;
    d->ask->prompt = d->ask->last_user = value->text;
    d->ask->has_messages = value->text.len;
    count_text(d->ask, value->text);
}

static void decode_suffix(struct decoder *d, const struct place *at, const struct go_value *value)
{
    if (is_kind(d, at, value, GO_STRING, "string"))
        d->ask->suffix = value->text;
}

static void decode_input(struct decoder *d, const struct place *at, const struct go_value *value)
{
    (void)at;
    d->ask->input = value;
}

#define COMMON_FIELDS                                                                              \
    { "model", decode_model }, { "options", decode_options }, { "keep_alive", decode_keep_alive }, \
    {                                                                                              \
        "truncate", decode_truncate                                                                \
    }
#define SPEAKING_FIELDS                                                                                             \
    { "stream", decode_stream }, { "format", decode_format }, { "think", decode_think }, { "shift", decode_shift }, \
        { "logprobs", decode_logprobs }, { "top_logprobs", decode_top_logprobs },                                   \
    {                                                                                                               \
        "_debug_render_only", decode_bool                                                                           \
    }

static const struct {
    const char *in;
    const char *type;
    struct field fields[24];
} shapes[] = {
    [ASK_CHAT] = { "ChatRequest",
                   "api.ChatRequest",
                   { COMMON_FIELDS, SPEAKING_FIELDS, { "messages", decode_messages }, { "tools", decode_tools } } },
    [ASK_GENERATE] = { "GenerateRequest",
                       "api.GenerateRequest",
                       { COMMON_FIELDS,
                         SPEAKING_FIELDS,
                         { "prompt", decode_prompt },
                         { "suffix", decode_suffix },
                         { "system", decode_content },
                         { "template", decode_string },
                         { "context", decode_ints },
                         { "raw", decode_bool },
                         { "images", decode_images } } },
    [ASK_EMBED] = { "EmbedRequest",
                    "api.EmbedRequest",
                    { COMMON_FIELDS, { "input", decode_input }, { "dimensions", decode_int } } },
    [ASK_SHOW] = { "ShowRequest",
                   "api.ShowRequest",
                   { { "model", decode_model },
                     { "name", decode_name },
                     { "system", decode_string },
                     { "template", decode_string },
                     { "verbose", decode_bool },
                     { "options", decode_options } } },
};

bool ask_read(struct ask *ask, enum ask_kind kind, struct arena *arena, struct slice body, struct bytes *ret_why)
{
    struct decoder d = { ask, ret_why };
    struct place top = { .in = shapes[kind].in };
    struct go_value *value;

    *ask = (struct ask){
        .kind = kind, .streams = true, .truncates = true, .shifts = true, .keep_alive_ns = KEEP_ALIVE_NS
    };
    switch (go_parse(arena, body, &value, ret_why)) {
    case GO_EMPTY:
        bytes_text(ret_why, "missing request body");
        return false;
    case GO_ERROR:
        return false;
    case GO_OK:
        break;
    }
    if (is_kind(&d, &top, value, GO_OBJECT, shapes[kind].type))
        decode_fields(&d, &top, value, shapes[kind].fields);
    return ret_why->len == 0;
}

/* --- options --- */

static const struct {
    const char *name;
    enum { INTEGER, FLOAT, BOOLEAN, STRINGS } type;
} option_types[] = {
    { "num_keep", INTEGER },
    { "seed", INTEGER },
    { "num_predict", INTEGER },
    { "top_k", INTEGER },
    { "top_p", FLOAT },
    { "min_p", FLOAT },
    { "typical_p", FLOAT },
    { "repeat_last_n", INTEGER },
    { "temperature", FLOAT },
    { "repeat_penalty", FLOAT },
    { "presence_penalty", FLOAT },
    { "frequency_penalty", FLOAT },
    { "stop", STRINGS },
    { "num_ctx", INTEGER },
    { "num_batch", INTEGER },
    { "num_gpu", INTEGER },
    { "main_gpu", INTEGER },
    { "use_mmap", BOOLEAN },
    { "num_thread", INTEGER },
    { "draft_num_predict", INTEGER },
};

static bool option_is_right(const struct go_value *value, int type, const char *name, struct bytes *ret_why)
{
    static const enum go_kind kinds[] = { GO_NUMBER, GO_NUMBER, GO_BOOL, GO_ARRAY };
    static const char *const texts[] = { "integer", "float32", "boolean", "array" };

    if (value->kind == GO_NULL)
        return true;
    if (value->kind != kinds[type]) {
        bytes_print(ret_why, "option \"%s\" must be of type %s", name, texts[type]);
        return false;
    }
    for (const struct go_value *v = value->first; v; v = v->next) {
        if (v->kind != GO_STRING) {
            bytes_print(ret_why, "option \"%s\" must be of an array of strings", name);
            return false;
        }
    }
    return true;
}

bool ask_check_options(const struct ask *ask, struct bytes *ret_why)
{
    if (!ask->options)
        return true;
    for (size_t i = 0; i < sizeof option_types / sizeof *option_types; i++) {
        const struct go_value *value = go_member(ask->options, option_types[i].name);

        if (value && !option_is_right(value, option_types[i].type, option_types[i].name, ret_why))
            return false;
    }
    return true;
}

int64_t ask_option(const struct ask *ask, const char *name, int64_t fallback)
{
    const struct go_value *value = ask->options ? go_member(ask->options, name) : NULL;

    return value && value->kind == GO_NUMBER ? (int64_t)strtod(value->text.at, NULL) : fallback;
}
