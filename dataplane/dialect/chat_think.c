/*
 * The many ways in which callers say how much a model should think. OpenAI has two of them; the others came with
 * other servers and are understood as extensions.
 */
#include "chat.h"

static const struct {
    const char *word;
    enum think think;
} efforts[] = {
    { "", THINK_AS_MODEL }, { "none", THINK_NO },       { "minimal", THINK_LOW },
    { "low", THINK_LOW },   { "medium", THINK_MEDIUM }, { "high", THINK_HIGH },
    { "xhigh", THINK_MAX }, { "ultra", THINK_MAX },     { "max", THINK_MAX },
};

enum { SHOWN_EFFORT_MAX = 24 };

/* Only what is plainly a word, and none that agents look for in errors, is said back. */
static bool is_word(const struct json_string *effort)
{
    for (size_t i = 0; i < effort->raw.len; i++)
        if (!(effort->raw.at[i] >= 'a' && effort->raw.at[i] <= 'z'))
            return false;
    return effort->raw.len <= SHOWN_EFFORT_MAX && !refusal_text_invites_retry(effort->raw);
}

static bool unknown_effort(struct reading *reading, const struct json_string *effort)
{
    struct text sentence;

    text_init(&sentence, 256);
    text_add_literal(&sentence, "invalid reasoning value");
    if (is_word(effort))
        text_printf(&sentence, ": \"%.*s\"", (int)effort->raw.len, effort->raw.at);
    text_add_literal(&sentence, " (must be \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"ultra\", "
                                "\"max\", or \"none\")");
    (void)reading_refuse(reading, CAUSE_INVALID, text_string(&sentence));
    text_release_wiped(&sentence);
    return false;
}

static bool read_effort(struct reading *reading, enum think *ret_think)
{
    struct json_string effort;

    if (!reading_string(reading, &effort))
        return false;
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++) {
        if (!json_string_is(&effort, efforts[i].word))
            continue;
        *ret_think = efforts[i].think;
        return true;
    }
    return unknown_effort(reading, &effort);
}

static bool read_switch(struct reading *reading, enum think *ret_think)
{
    bool is_on;

    if (!reading_bool(reading, &is_on))
        return false;
    *ret_think = is_on ? THINK_YES : THINK_NO;
    return true;
}

bool chat_effort(struct reading *reading, void *thing, const struct field *field)
{
    struct chat *chat = thing;

    return read_effort(reading, &chat->think[field->place]);
}

bool chat_enable_thinking(struct reading *reading, void *thing, const struct field *field)
{
    struct chat *chat = thing;

    return read_switch(reading, &chat->think[field->place]);
}

bool chat_reasoning(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("effort", chat_effort, .place = THINK_EFFORT_OBJECT), FIELDS_END };

    (void)field;
    return reading_object(reading, fields, thing);
}

bool chat_think(struct reading *reading, void *thing, const struct field *field)
{
    struct chat *chat = thing;
    enum json_type type = json_peek(&reading->json);

    (void)field;
    if (type == JSON_STRING)
        return read_effort(reading, &chat->think[THINK_FLAG]);
    if (type != JSON_TRUE && !reading_expects(reading, JSON_FALSE, "true, false or a level such as low"))
        return false;
    return read_switch(reading, &chat->think[THINK_FLAG]);
}

bool chat_template_kwargs(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("enable_thinking", chat_enable_thinking, .place = THINK_TEMPLATE),
        FIELDS_END,
    };

    (void)field;
    return reading_object(reading, fields, thing);
}

static bool read_thinking_type(struct reading *reading, void *thing, const struct field *field)
{
    struct chat *chat = thing;
    struct json_string type;

    (void)field;
    if (!reading_string(reading, &type))
        return false;
    if (json_string_is(&type, "enabled"))
        chat->think[THINK_TYPE] = THINK_YES;
    else if (json_string_is(&type, "disabled"))
        chat->think[THINK_TYPE] = THINK_NO;
    else if (!json_string_is(&type, "auto") && !json_string_is(&type, "adaptive"))
        return reading_refuse(reading, CAUSE_INVALID, "`thinking.type` must be enabled, disabled or auto");
    return true;
}

bool chat_thinking(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("type", read_thinking_type), FIELDS_END };

    (void)field;
    return reading_object(reading, fields, thing);
}
