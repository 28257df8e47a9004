/*
 * `messages`: the history. A message is read whole before it is judged, since its role may stand behind its content.
 */
#include "chat.h"

#include "digest.h"

/* How far back a tool's result looks for its call. */
enum { CALLS_LOOKED_AT = 256 };

struct draft {
    struct chat *chat;
    struct message *message;
    struct part **next_part; /* where the list goes on */
    struct tool_call **next_call;
    uint64_t chars;
    bool has_role, has_content, has_calls;
    struct slice name_wire;
    struct json_string refusal;
};

/* One element of a content array. */
struct part_draft {
    struct json_string type, text, refusal;
    struct json_string url;
    bool has_text, has_refusal, has_url;
};

static bool add_part(struct reading *reading, struct draft *draft, enum part_kind kind, struct slice wire)
{
    struct part *part = ARENA_NEW(reading->arena, struct part);

    if (!part)
        return reading_no_memory(reading);
    part->kind = kind;
    part->wire = wire;
    *draft->next_part = part;
    draft->next_part = &part->next;
    return true;
}

static bool add_text(struct reading *reading, struct draft *draft, const struct json_string *text)
{
    draft->chars += text->chars;
    return add_part(reading, draft, PART_TEXT, text->raw);
}

/* What stands before an image's base64. Case matters, and parameters are not taken: as Ollama does. */
static bool image_bytes(struct slice url, struct slice *ret_base64)
{
    static const char *const prefixes[] = {
        "data:image/png;base64,",  "data:image/jpeg;base64,", "data:image/jpg;base64,",
        "data:image/webp;base64,", "data:;base64,",
    };
    size_t len;

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        struct slice prefix = slice_of(prefixes[i]);
        if (!slice_starts(url, prefix))
            continue;
        *ret_base64 = (struct slice){ url.at + prefix.len, url.len - prefix.len };
        return base64_is_valid(*ret_base64, &len) && len;
    }
    return false;
}

static bool is_web_address(struct slice url)
{
    struct slice start = { url.at, url.len < 8 ? url.len : 8 };

    if (slice_is_nocase(start, SLICE("https://")))
        return true;
    start.len = start.len < 7 ? start.len : 7;
    return slice_is_nocase(start, SLICE("http://"));
}

static bool add_image(struct reading *reading, struct draft *draft, const struct json_string *url)
{
    struct slice plain, base64;

    if (!reading_plain(reading, url, &plain))
        return false;
    if (is_web_address(plain))
        return reading_field_refuse(reading, "image_url", CAUSE_UNSUPPORTED,
                                    "image URLs are not currently supported, please use base64 encoded data instead");
    if (!image_bytes(plain, &base64))
        return reading_field_refuse(reading, "image_url", CAUSE_INVALID,
                                    "invalid image input, a data URL with base64 of a PNG, JPEG or WebP is wanted");
    reading->inference->image_count++;
    return add_part(reading, draft, PART_IMAGE, base64); /* base64 needs no escapes: it is its own wire form */
}

static bool read_part_type(struct reading *reading, void *thing, const struct field *field)
{
    struct part_draft *part = thing;

    (void)field;
    return reading_string(reading, &part->type);
}

static bool read_part_text(struct reading *reading, void *thing, const struct field *field)
{
    struct part_draft *part = thing;

    (void)field;
    return part->has_text = reading_string(reading, &part->text);
}

static bool read_part_refusal(struct reading *reading, void *thing, const struct field *field)
{
    struct part_draft *part = thing;

    (void)field;
    return part->has_refusal = reading_string(reading, &part->refusal);
}

static bool read_url(struct reading *reading, void *thing, const struct field *field)
{
    struct part_draft *part = thing;

    (void)field;
    return part->has_url = reading_string(reading, &part->url);
}

static bool read_image_url(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("url", read_url), FIELDS_END };

    if (json_peek(&reading->json) == JSON_STRING)
        return read_url(reading, thing, field);
    return reading_object(reading, fields, thing);
}

static bool refuse_part(struct reading *reading, const struct json_string *type)
{
    if (json_string_is(type, "file"))
        return reading_field_refuse(reading, "type", CAUSE_UNSUPPORTED, "file inputs are not currently supported");
    if (json_string_is(type, "input_audio"))
        return reading_field_refuse(reading, "type", CAUSE_UNSUPPORTED, "audio inputs are not currently supported");
    return reading_field_refuse(reading, "type", CAUSE_INVALID,
                                "each part of `content` must be of type text or image_url");
}

static bool read_part(struct reading *reading, void *thing)
{
    static const struct field fields[] = {
        FIELD("type", read_part_type),
        FIELD("text", read_part_text),
        FIELD("image_url", read_image_url),
        FIELD("refusal", read_part_refusal),
        FIELDS_END,
    };
    struct part_draft part = { 0 };
    struct draft *draft = thing;

    if (!reading_object(reading, fields, &part))
        return false;
    if (json_string_is(&part.type, "text"))
        return part.has_text ? add_text(reading, draft, &part.text)
                             : reading_field_refuse(reading, "text", CAUSE_INVALID, "a text part must hold `text`");
    if (json_string_is(&part.type, "image_url"))
        return part.has_url ? add_image(reading, draft, &part.url)
                            : reading_field_refuse(reading, "image_url", CAUSE_INVALID,
                                                   "an image part must hold `image_url` with a `url`");
    if (json_string_is(&part.type, "refusal") && part.has_refusal)
        return add_text(reading, draft, &part.refusal);
    return refuse_part(reading, &part.type);
}

static bool read_content(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;
    struct json_string text;

    (void)field;
    draft->has_content = true;
    if (json_peek(&reading->json) == JSON_ARRAY)
        return reading_array(reading, CHAT_MAX_PARTS, read_part, draft);
    return reading_expects(reading, JSON_STRING, "a string or an array of parts") &&
           json_string(&reading->json, &text) && add_text(reading, draft, &text);
}

static bool read_role(struct reading *reading, void *thing, const struct field *field)
{
    static const struct {
        const char *name;
        enum role role;
    } roles[] = {
        { "user", ROLE_USER },     { "assistant", ROLE_ASSISTANT }, { "tool", ROLE_TOOL },
        { "system", ROLE_SYSTEM }, { "developer", ROLE_SYSTEM },    { "function", ROLE_TOOL },
    };
    struct draft *draft = thing;
    struct json_string name;

    (void)field;
    if (!reading_string(reading, &name))
        return false;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (!json_string_is(&name, roles[i].name))
            continue;
        draft->message->role = roles[i].role;
        draft->has_role = true;
        return true;
    }
    return reading_wants(reading, "system, developer, user, assistant, tool or function");
}

/* Of the four names in use, the first that says something wins. */
static bool read_reasoning(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;
    struct json_string thinking;

    (void)field;
    if (!reading_string(reading, &thinking))
        return false;
    if (!draft->message->thinking_wire.len)
        draft->message->thinking_wire = thinking.raw;
    return true;
}

static bool read_message_refusal(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;

    (void)field;
    return reading_string(reading, &draft->refusal);
}

static bool read_name(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;
    struct json_string name;

    (void)field;
    return reading_string(reading, &name) && reading_wire(reading, &name, &draft->name_wire);
}

static bool read_tool_call_id(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;
    struct json_string id;

    (void)field;
    return reading_string(reading, &id) && reading_wire(reading, &id, &draft->message->tool_call_id_wire);
}

/* --- calls ------------------------------------------------------------------------------------------------ */

static bool read_call_id(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_call *call = thing;
    struct json_string id;

    (void)field;
    return reading_string(reading, &id) && reading_wire(reading, &id, &call->id_wire);
}

static bool read_call_type(struct reading *reading, void *thing, const struct field *field)
{
    struct json_string type;

    (void)thing, (void)field;
    if (!reading_string(reading, &type))
        return false;
    if (!json_string_is(&type, "function"))
        return reading_refuse(reading, CAUSE_UNSUPPORTED, "only tool calls of type `function` are supported");
    return true;
}

static bool read_call_name(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_call *call = thing;
    struct json_string name;

    (void)field;
    return reading_string(reading, &name) && reading_wire(reading, &name, &call->name_wire);
}

/* JSON within a string; none at all counts as an empty object, since models call functions without arguments so. */
static bool read_arguments(struct reading *reading, void *thing, const struct field *field)
{
    static const char wanted[] = "a JSON object, written as a string";
    struct tool_call *call = thing;
    struct json_string arguments;

    (void)field;
    if (!reading_expects(reading, JSON_STRING, wanted) || !json_string(&reading->json, &arguments) ||
        !reading_plain(reading, &arguments, &call->arguments_value))
        return false;
    if (call->arguments_value.len && !json_is_valid_tight(call->arguments_value, JSON_OBJECT, &call->is_tight))
        return reading_wants(reading, wanted);
    return true;
}

static bool read_function(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("name", read_call_name),
        FIELD("arguments", read_arguments),
        FIELDS_END,
    };
    struct tool_call *call = thing;

    (void)field;
    if (!reading_object(reading, fields, call))
        return false;
    if (!call->name_wire.len)
        return reading_field_refuse(reading, "name", CAUSE_INVALID, "each tool call must name its function");
    if (!call->arguments_value.len)
        call->arguments_value = SLICE("{}");
    return true;
}

static bool add_call(struct reading *reading, struct draft *draft, struct tool_call *call)
{
    struct past_call *past = ARENA_NEW(reading->arena, struct past_call);

    if (!past)
        return reading_no_memory(reading);
    *past = (struct past_call){ .before = draft->chat->calls, .call = call };
    draft->chat->calls = past;
    *draft->next_call = call;
    draft->next_call = &call->next;
    return true;
}

static bool read_call(struct reading *reading, void *thing)
{
    static const struct field fields[] = {
        FIELD("id", read_call_id),
        FIELD("type", read_call_type),
        FIELD("function", read_function),
        FIELDS_END,
    };
    struct tool_call *call = ARENA_NEW(reading->arena, struct tool_call);

    if (!call)
        return reading_no_memory(reading);
    if (!reading_object(reading, fields, call))
        return false;
    if (!call->name_wire.len)
        return reading_field_refuse(reading, "function", CAUSE_INVALID, "each tool call must hold a `function`");
    return add_call(reading, thing, call);
}

static bool read_calls(struct reading *reading, void *thing, const struct field *field)
{
    struct draft *draft = thing;

    (void)field;
    draft->has_calls = true;
    return reading_array(reading, CHAT_MAX_CALLS, read_call, draft);
}

/* The form that was before tools: one call without an id. */
static bool read_function_call(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_call *call = ARENA_NEW(reading->arena, struct tool_call);
    struct draft *draft = thing;

    if (!call)
        return reading_no_memory(reading);
    draft->has_calls = true;
    return read_function(reading, call, field) && add_call(reading, draft, call);
}

static struct slice name_of_call(const struct chat *chat, struct slice id_wire)
{
    const struct past_call *past = chat->calls;

    for (unsigned i = 0; past && i < CALLS_LOOKED_AT; i++, past = past->before)
        if (slice_is(past->call->id_wire, id_wire))
            return past->call->name_wire;
    return (struct slice){ 0 };
}

/* --- the message ------------------------------------------------------------------------------------------ */

static bool judge_content(struct reading *reading, struct draft *draft)
{
    struct message *message = draft->message;

    if (draft->has_content)
        return true;
    if (draft->refusal.raw.len)
        return add_text(reading, draft, &draft->refusal);
    /* A turn of the model that was only a call, or only a thought. */
    if (message->role == ROLE_ASSISTANT)
        return true;
    return reading_field_refuse(reading, "content", CAUSE_INVALID, "each message must hold `content`");
}

static bool judge(struct reading *reading, struct draft *draft)
{
    struct message *message = draft->message;

    if (!draft->has_role)
        return reading_field_refuse(reading, "role", CAUSE_INVALID, "each message must have a `role`");
    if (!judge_content(reading, draft))
        return false;
    if (message->role != ROLE_ASSISTANT) {
        message->thinking_wire = (struct slice){ 0 };
        message->tool_calls = NULL;
    }
    if (message->role == ROLE_TOOL)
        message->tool_name_wire = draft->name_wire.len || !message->tool_call_id_wire.len
                                      ? draft->name_wire
                                      : name_of_call(draft->chat, message->tool_call_id_wire);
    else
        message->tool_call_id_wire = (struct slice){ 0 };
    if (message->role == ROLE_SYSTEM)
        reading->inference->system_chars += draft->chars;
    else
        reading->inference->prompt_chars += draft->chars;
    return true;
}

static bool read_message(struct reading *reading, void *thing)
{
    static const struct field fields[] = {
        FIELD("role", read_role),
        FIELD("content", read_content),
        FIELD("tool_calls", read_calls),
        FIELD("tool_call_id", read_tool_call_id),
        FIELD("name", read_name),
        FIELD("reasoning_content", read_reasoning),
        FIELD("reasoning", read_reasoning),
        FIELD("reasoning_text", read_reasoning),
        FIELD("thinking", read_reasoning),
        FIELD("refusal", read_message_refusal),
        FIELD("function_call", read_function_call),
        FIELDS_END,
    };
    struct message *message = ARENA_NEW(reading->arena, struct message);
    struct chat *chat = thing;
    struct draft draft;

    if (!message)
        return reading_no_memory(reading);
    draft = (struct draft){
        .chat = chat, .message = message, .next_part = &message->parts, .next_call = &message->tool_calls
    };
    if (!reading_object(reading, fields, &draft) || !judge(reading, &draft))
        return false;
    *chat->next_message = message;
    chat->next_message = &message->next;
    return true;
}

bool chat_messages(struct reading *reading, void *thing, const struct field *field)
{
    (void)field;
    return reading_array(reading, CHAT_MAX_MESSAGES, read_message, thing);
}
