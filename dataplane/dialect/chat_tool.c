/* `tools` and `tool_choice`: only functions; the choice cannot be enforced, but what it rules out is not sent. */
#include "chat.h"
#include "schema.h"

/* One element of `tools`, or of the list that allowed_tools brings. */
struct tool_draft {
    bool is_function, has_type, has_function;
    struct tool tool;
};

static bool read_name(struct reading *reading, struct slice *ret_wire)
{
    struct json_string name;

    if (!reading_string(reading, &name))
        return false;
    if (!name.raw.len)
        return reading_wants(reading, "a name that is not empty");
    return reading_wire(reading, &name, ret_wire);
}

static bool read_tool_name(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_draft *draft = thing;

    (void)field;
    return read_name(reading, &draft->tool.name_wire);
}

static bool read_description(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_draft *draft = thing;
    struct json_string description;

    (void)field;
    if (!reading_string(reading, &description))
        return false;
    draft->tool.description_wire = description.raw;
    draft->tool.has_description = true;
    return true;
}

static bool read_parameters(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_draft *draft = thing;
    enum json_type type = json_peek(&reading->json);
    struct tightness before;

    (void)field;
    if (type != JSON_TRUE && type != JSON_FALSE &&
        !reading_expects(reading, JSON_OBJECT, "a JSON schema, which is an object"))
        return false;
    before = tightness_begin(reading);
    if (!schema_read(&reading->json, reading->arena, &draft->tool.parameters_value))
        return reading->json.error ? false : reading_no_memory(reading);
    draft->tool.is_tight = tightness_end(reading, before);
    return true;
}

static bool read_type(struct reading *reading, void *thing, const struct field *field)
{
    struct tool_draft *draft = thing;
    struct json_string type;

    (void)field;
    if (!reading_string(reading, &type))
        return false;
    draft->has_type = true;
    draft->is_function = json_string_is(&type, "function");
    return true;
}

static bool read_function(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("name", read_tool_name),
        FIELD("description", read_description),
        FIELD("parameters", read_parameters),
        FIELDS_END,
    };
    struct tool_draft *draft = thing;

    (void)field;
    draft->has_function = true;
    if (!reading_object(reading, fields, thing))
        return false;
    if (!draft->tool.name_wire.len)
        return reading_field_refuse(reading, "name", CAUSE_INVALID, "each function in `tools` must have a `name`");
    return true;
}

static bool read_tool(struct reading *reading, void *thing)
{
    static const struct field fields[] = {
        FIELD("type", read_type),
        FIELD("function", read_function),
        FIELDS_END,
    };
    struct tool_draft draft = { 0 };
    struct chat *chat = thing;
    struct tool *tool;

    if (!reading_object(reading, fields, &draft))
        return false;
    if (draft.has_type && !draft.is_function)
        return reading_field_refuse(reading, "type", CAUSE_UNSUPPORTED, "only tools of type `function` are supported");
    if (!draft.has_function)
        return reading_field_refuse(reading, "function", CAUSE_INVALID, "each of `tools` must hold a `function`");
    tool = ARENA_NEW(reading->arena, struct tool);
    if (!tool)
        return reading_no_memory(reading);
    *tool = draft.tool;
    *chat->next_tool = tool;
    chat->next_tool = &tool->next;
    return true;
}

bool chat_tools(struct reading *reading, void *thing, const struct field *field)
{
    (void)field;
    return reading_array(reading, CHAT_MAX_TOOLS, read_tool, thing);
}

static bool choose(struct reading *reading, struct chat *chat, struct slice name_wire)
{
    struct chosen *chosen = ARENA_NEW(reading->arena, struct chosen);

    if (!chosen)
        return reading_no_memory(reading);
    *chosen = (struct chosen){ .next = chat->chosen, .name_wire = name_wire };
    chat->chosen = chosen;
    return true;
}

static bool read_chosen_word(struct reading *reading, struct chat *chat)
{
    struct json_string word;

    if (!json_string(&reading->json, &word))
        return false;
    if (json_string_is(&word, "none"))
        chat->choice = CHOICE_NONE;
    else if (!json_string_is(&word, "auto") && !json_string_is(&word, "required"))
        return reading_wants(reading, "none, auto, required, or an object that names a function");
    return true;
}

/* {"name": "f"} */
static bool read_chosen_name(struct reading *reading, void *thing, const struct field *field)
{
    struct slice name_wire;

    (void)field;
    return read_name(reading, &name_wire) && choose(reading, thing, name_wire);
}

static bool read_chosen_function(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("name", read_chosen_name), FIELDS_END };

    (void)field;
    return reading_object(reading, fields, thing);
}

/* One of allowed_tools.tools: nested as in this API, or flat as in the Responses API. */
static bool read_allowed(struct reading *reading, void *thing)
{
    static const struct field fields[] = {
        FIELD("function", read_chosen_function),
        FIELD("name", read_chosen_name),
        FIELDS_END,
    };

    return reading_object(reading, fields, thing);
}

static bool read_allowed_list(struct reading *reading, void *thing, const struct field *field)
{
    (void)field;
    return reading_array(reading, CHAT_MAX_TOOLS, read_allowed, thing);
}

static bool read_allowed_tools(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = { FIELD("tools", read_allowed_list), FIELDS_END };
    struct chat *chat = thing;

    (void)field;
    chat->choice = CHOICE_NAMED;
    return reading_object(reading, fields, thing);
}

static bool read_choice_type(struct reading *reading, void *thing, const struct field *field)
{
    struct json_string type;

    (void)thing, (void)field;
    if (!reading_string(reading, &type))
        return false;
    if (!json_string_is(&type, "function") && !json_string_is(&type, "allowed_tools"))
        return reading_refuse(reading, CAUSE_UNSUPPORTED, "`tool_choice.type` must be function or allowed_tools");
    return true;
}

bool chat_tool_choice(struct reading *reading, void *thing, const struct field *field)
{
    static const struct field fields[] = {
        FIELD("type", read_choice_type),
        FIELD("function", read_chosen_function),
        FIELD("allowed_tools", read_allowed_tools),
        FIELDS_END,
    };
    struct chat *chat = thing;

    (void)field;
    if (json_peek(&reading->json) == JSON_STRING)
        return read_chosen_word(reading, chat);
    if (!reading_expects(reading, JSON_OBJECT, "none, auto, required, or an object that names a function") ||
        !reading_object(reading, fields, chat))
        return false;
    if (chat->chosen)
        chat->choice = CHOICE_NAMED;
    if (chat->choice != CHOICE_NAMED)
        return reading_wants(reading, "none, auto, required, or an object that names a function");
    return true;
}

static struct tool *find(struct tool *tools, struct slice name_wire)
{
    while (tools && !slice_is(tools->name_wire, name_wire))
        tools = tools->next;
    return tools;
}

static bool is_chosen(const struct chosen *chosen, struct slice name_wire)
{
    while (chosen && !slice_is(chosen->name_wire, name_wire))
        chosen = chosen->next;
    return chosen != NULL;
}

bool chat_choose_tools(struct reading *reading, struct chat *chat)
{
    struct tool **link = &reading->inference->tools;

    if (chat->choice == CHOICE_NONE)
        reading->inference->tools = NULL;
    if (chat->choice != CHOICE_NAMED)
        return true;
    for (const struct chosen *chosen = chat->chosen; chosen; chosen = chosen->next)
        if (!find(reading->inference->tools, chosen->name_wire))
            return reading_field_refuse(reading, "tool_choice", CAUSE_INVALID,
                                        "`tool_choice` names a function that is not in `tools`");
    while (*link) {
        if (is_chosen(chat->chosen, (*link)->name_wire))
            link = &(*link)->next;
        else
            *link = (*link)->next;
    }
    return true;
}
