/* What was sent, held against the fields: every mistake with its place, as a JSON pointer. */
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "parts.h"

enum { NAME_SHOWN_BYTES = 64, INDEX_BYTES = 24 };

static regex_t patterns[FIELD_KINDS];
static bool is_compiled[FIELD_KINDS];

bool fields_open(void)
{
    for (unsigned i = 0; i < FIELD_KINDS; i++) {
        if (!field_forms[i].pattern || is_compiled[i])
            continue;
        if (regcomp(&patterns[i], field_forms[i].pattern, REG_EXTENDED | REG_NOSUB) != 0)
            return false;
        is_compiled[i] = true;
    }
    return true;
}

void fields_close(void)
{
    for (unsigned i = 0; i < FIELD_KINDS; i++)
        if (is_compiled[i])
            regfree(&patterns[i]);
    memset(is_compiled, 0, sizeof is_compiled);
}

/* ---- complaints ---- */

void complaints_init(struct complaints *complaints)
{
    *complaints = (struct complaints){ 0 };
    text_init(&complaints->list, COMPLAINTS_MAX * 8 * COMPLAINT_MAX_BYTES);
    text_init(&complaints->sentence, COMPLAINT_MAX_BYTES);
}

void complaints_release(struct complaints *complaints)
{
    text_release(&complaints->list);
    text_release(&complaints->sentence);
}

void complain(struct complaints *complaints, const char *pointer, const char *format, ...)
{
    char memory[COMPLAINT_MAX_BYTES];
    struct text words = text_over(memory, sizeof memory);
    json_t *entry;
    char *json;
    va_list args;

    if (complaints->count++ >= COMPLAINTS_MAX)
        return;
    va_start(args, format);
    text_vprintf(&words, format, args);
    va_end(args);
    entry = json_pack("{s:s%, s:s%}", complaints->in_query ? "parameter" : "pointer", pointer,
                      utf8_cut(slice_of(pointer), POINTER_MAX_BYTES), "detail", words.at,
                      utf8_cut(text_slice(&words), words.len));
    json = entry ? json_dumps(entry, JSON_COMPACT) : NULL;
    if (json && complaints->list.len)
        text_add_char(&complaints->list, ',');
    if (json)
        text_add_string(&complaints->list, json);
    if (complaints->count == 1)
        text_printf(&complaints->sentence, "%.*s %s", (int)utf8_cut(slice_of(pointer), POINTER_MAX_BYTES), pointer,
                    words.at);
    free(json);
    json_decref(entry);
}

/* ---- text ---- */

/* Controls, line ends of Unicode, and what turns the direction of writing: none of it shows, all of it deceives. */
static bool is_one_line(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        unsigned char d = i + 1 < text.len ? (unsigned char)text.at[i + 1] : 0;
        unsigned char e = i + 2 < text.len ? (unsigned char)text.at[i + 2] : 0;

        if (c < 0x20 || c == 0x7f || (c == 0xc2 && d < 0xa0))
            return false;
        if (c == 0xe2 && d == 0x80 && (e == 0xa8 || e == 0xa9 || (e >= 0xaa && e <= 0xae)))
            return false;
        if (c == 0xe2 && d == 0x81 && e >= 0xa6 && e <= 0xa9)
            return false;
    }
    return true;
}

/* The pattern holds already; what it cannot say is how an address of IPv6 is made. */
static bool is_url(struct slice url)
{
    const char *open = memchr(url.at, '[', url.len), *close = memchr(url.at, ']', url.len);
    struct address address;

    return !open || !close || address_parse((struct slice){ open + 1, (size_t)(close - open) - 1 }, &address);
}

static bool is_uuid(struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (is_dash ? text.at[i] != '-' : !strchr("0123456789abcdefABCDEF", text.at[i]))
            return false;
    }
    return text.len == 36;
}

static bool suits_pattern(enum field_kind kind, struct slice text)
{
    char memory[1024];

    if (!field_forms[kind].pattern)
        return true;
    if (text.len >= sizeof memory)
        return false;
    memcpy(memory, text.at, text.len);
    memory[text.len] = 0;
    return regexec(&patterns[kind], memory, 0, NULL, 0) == 0;
}

static bool suits_kind(enum field_kind kind, struct slice text, struct text *why)
{
    int64_t ms;
    struct cidr cidr;

    switch (kind) {
    case FIELD_NOTE:
    case FIELD_TEXT:
        return is_one_line(text);
    case FIELD_RANGE:
        return cidr_parse(text, &cidr, why) == ERR_OK;
    case FIELD_URL:
        return is_url(text);
    case FIELD_UUID:
        return is_uuid(text);
    case FIELD_TIME:
        return clock_parse_rfc3339(text.at, text.len) >= 0;
    case FIELD_DURATION:
        return duration_parse(text, &ms);
    default:
        return true;
    }
}

static bool is_word(const char *const *words, struct slice text)
{
    for (; *words; words++)
        if (slice_is(slice_of(*words), text))
            return true;
    return false;
}

static void say_words(const char *const *words, struct text *why)
{
    text_add_literal(why, "must be ");
    for (size_t i = 0; words[i]; i++)
        text_printf(why, "%s%s", !i ? "" : words[i + 1] ? ", " : " or ", words[i]);
}

/* Text by its kind alone: `why` is "must be …". */
static bool text_suits(enum field_kind kind, struct slice text, struct text *why)
{
    const struct field_form *form = &field_forms[kind];
    char memory[COMPLAINT_MAX_BYTES];
    struct text words = text_over(memory, sizeof memory);
    size_t chars = utf8_count(text);

    if (chars >= form->min_chars && chars <= form->max_chars && !(text.len && memchr(text.at, 0, text.len)) &&
        suits_pattern(kind, text) && suits_kind(kind, text, &words))
        return true;
    if (words.len)
        text_printf(why, "is wrong: %s", words.at);
    else
        text_printf(why, "must be %s", form->what);
    return false;
}

static bool duration_suits(const struct field *field, struct slice text, struct text *why)
{
    int64_t ms;

    if (!text_suits(FIELD_DURATION, text, why) || !duration_parse(text, &ms))
        return false;
    if (ms >= field->min && ms <= field->max)
        return true;
    text_printf(why, "must be from %llds to %llds", (long long)field->min / 1000, (long long)field->max / 1000);
    return false;
}

bool field_takes(const struct field *field, struct slice text, struct text *why)
{
    if (field->kind == FIELD_DURATION)
        return duration_suits(field, text, why);
    if (field->kind == FIELD_CHOICE || field->kind == FIELD_BOOL) {
        static const char *const claims[] = { "true", "false", NULL };
        const char *const *words = field->kind == FIELD_BOOL ? claims : field->words;
        if (is_word(words, text))
            return true;
        say_words(words, why);
        return false;
    }
    return text_suits(field->kind, text, why);
}

bool json_is_deep(struct slice text, unsigned max_depth)
{
    unsigned depth = 0;
    bool is_in_string = false;

    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        if (is_in_string && c == '\\')
            i++;
        else if (c == '"')
            is_in_string = !is_in_string;
        else if (!is_in_string && (c == '{' || c == '['))
            depth++;
        else if (!is_in_string && (c == '}' || c == ']') && depth)
            depth--;
        if (depth > max_depth)
            return true;
    }
    return false;
}

/* ---- values ---- */

struct reading {
    const struct form *form;
    struct complaints *complaints;
    char pointer[POINTER_MAX_BYTES];
};

/* What stands there, as JSON calls it. */
static const char *kind_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "text";
    case JSON_NULL:
        return "null";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "a number";
    }
}

static json_t *wrong_type(const struct reading *reading, const char *wanted, const json_t *value)
{
    complain(reading->complaints, reading->pointer, "must be %s, not %s", wanted, kind_of(value));
    return NULL;
}

static struct slice string_of(const json_t *value)
{
    return (struct slice){ json_string_value(value), json_string_length(value) };
}

/* 7.0 is a whole number, too. */
static json_t *read_count(const struct reading *reading, const struct field *field, const json_t *value)
{
    int64_t count = 0;
    bool is_whole = json_is_integer(value);

    if (is_whole) {
        count = json_integer_value(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);
        is_whole = real == floor(real) && fabs(real) < 9007199254740992.0;
        count = is_whole ? (int64_t)real : 0;
    }
    if (is_whole && count >= field->min && count <= field->max)
        return json_integer(count);
    complain(reading->complaints, reading->pointer, "must be a whole number from %lld to %lld", (long long)field->min,
             (long long)field->max);
    return NULL;
}

/* `kind`: the field's, or of what it lists. */
static json_t *read_text(const struct reading *reading, const struct field *field, enum field_kind kind,
                         const json_t *value)
{
    char memory[COMPLAINT_MAX_BYTES];
    struct text why = text_over(memory, sizeof memory);

    if (!json_is_string(value))
        return wrong_type(reading, "text", value);
    if (kind == field->kind ? field_takes(field, string_of(value), &why) : text_suits(kind, string_of(value), &why))
        return json_copy((json_t *)value);
    complain(reading->complaints, reading->pointer, "%s", memory);
    return NULL;
}

static json_t *read_list(const struct reading *reading, const struct field *field, const json_t *value)
{
    enum field_kind kind = field->kind == FIELD_MODELS ? FIELD_MODEL : FIELD_RANGE;
    struct reading inside = *reading;
    json_t *list = json_array();
    const json_t *item;
    size_t i;

    if (!json_is_array(value)) {
        json_decref(list);
        return wrong_type(reading, "a list", value);
    }
    if (json_array_size(value) < (size_t)field->min || json_array_size(value) > (size_t)field->max)
        complain(reading->complaints, reading->pointer, "must have %lld to %lld entries", (long long)field->min,
                 (long long)field->max);
    else
        json_array_foreach(value, i, item)
        {
            (void)snprintf(inside.pointer, sizeof inside.pointer, "%.*s/%zu",
                           (int)(sizeof inside.pointer - INDEX_BYTES), reading->pointer, i);
            (void)json_array_append_new(list, read_text(&inside, field, kind, item)); /* NULL: not appended */
        }
    return list;
}

/* jsonb has no place for a zero byte, in keys neither. */
static bool has_zero(const json_t *value)
{
    const char *key;
    json_t *member;
    size_t i, len;

    if (json_is_string(value))
        return json_string_length(value) && memchr(json_string_value(value), 0, json_string_length(value));
    json_array_foreach(value, i, member) if (has_zero(member)) return true;
    json_object_keylen_foreach((json_t *)value, key, len,
                               member) if ((len && memchr(key, 0, len)) || has_zero(member)) return true;
    return false;
}

static json_t *read_any(const struct reading *reading, const json_t *value)
{
    if (json_is_null(value))
        return wrong_type(reading, "anything but null", value);
    if (!has_zero(value))
        return json_deep_copy(value);
    complain(reading->complaints, reading->pointer, "must not hold the character U+0000");
    return NULL;
}

static json_t *read_object(struct reading *reading, const json_t *given);

/* Of an import: what makes a key, a thousand times. */
static json_t *read_keys(const struct reading *reading, const struct field *field, const json_t *value)
{
    static const struct form one = { .title = "KeyImport", .use = IMPORTED };
    struct form form = one;
    struct reading inside = *reading;
    json_t *list = json_array();
    const json_t *item;
    size_t i;

    form.fields = noun_key.fields;
    form.count = noun_key.field_count;
    form.excludes = reading->form->excludes;
    inside.form = &form;
    if (!json_is_array(value)) {
        json_decref(list);
        return wrong_type(reading, "a list", value);
    }
    if (json_array_size(value) < (size_t)field->min || json_array_size(value) > (size_t)field->max)
        complain(reading->complaints, reading->pointer, "must have %lld to %lld entries", (long long)field->min,
                 (long long)field->max);
    else
        json_array_foreach(value, i, item)
        {
            (void)snprintf(inside.pointer, sizeof inside.pointer, "%.*s/%zu",
                           (int)(sizeof inside.pointer - INDEX_BYTES), reading->pointer, i);
            (void)json_array_append_new(list, read_object(&inside, item));
        }
    return list;
}

static json_t *read_value(const struct reading *reading, const struct field *field, const json_t *value)
{
    if (json_is_null(value) && field->use & NULLABLE)
        return json_null();
    switch (field->kind) {
    case FIELD_ANY:
        return read_any(reading, value);
    case FIELD_COUNT:
        return json_is_number(value) ? read_count(reading, field, value) : wrong_type(reading, "a number", value);
    case FIELD_BOOL:
        return json_is_boolean(value) ? json_copy((json_t *)value) : wrong_type(reading, "true or false", value);
    case FIELD_MODELS:
    case FIELD_RANGES:
        return read_list(reading, field, value);
    case FIELD_KEYS:
        return read_keys(reading, field, value);
    default:
        return read_text(reading, field, field->kind, value);
    }
}

static const struct field *find_field(const struct form *form, struct slice name)
{
    for (size_t i = 0; i < form->count; i++)
        if (form->fields[i].use & form->use && slice_is(slice_of(form->fields[i].name), name))
            return &form->fields[i];
    return NULL;
}

/* As RFC 6901 writes a member's name. */
static void enter(struct reading *inside, const char *within, struct slice name)
{
    struct text pointer = text_over(inside->pointer, sizeof inside->pointer);
    size_t len = utf8_cut(name, NAME_SHOWN_BYTES);

    text_add(&pointer, within, strnlen(within, sizeof inside->pointer - 2 * NAME_SHOWN_BYTES - 4));
    text_add_char(&pointer, '/');
    for (size_t i = 0; i < len; i++) {
        if (name.at[i] == '~' || name.at[i] == '/')
            text_add_string(&pointer, name.at[i] == '~' ? "~0" : "~1");
        else
            text_add_char(&pointer, name.at[i] ? name.at[i] : '?');
    }
}

static void check_whole(const struct reading *reading, const json_t *given)
{
    const struct form *form = reading->form;
    const char *const *excludes = form->excludes;

    for (size_t i = 0; !form->is_patch && i < form->count; i++) {
        const struct field *field = &form->fields[i];
        struct reading inside = *reading;
        if (!(field->use & REQUIRED) || !(field->use & form->use) || json_object_get(given, field->name))
            continue;
        enter(&inside, reading->pointer, slice_of(field->name));
        complain(reading->complaints, inside.pointer, "is missing");
    }
    if (excludes && find_field(form, slice_of(excludes[0])) && json_object_get(given, excludes[0]) &&
        json_object_get(given, excludes[1])) {
        struct reading inside = *reading;
        enter(&inside, reading->pointer, slice_of(excludes[1]));
        complain(reading->complaints, inside.pointer, "cannot stand beside %s", excludes[0]);
    }
    if (form->is_patch && json_object_size(given) == 0)
        complain(reading->complaints, reading->pointer, "holds no field: nothing would change");
}

static json_t *read_object(struct reading *reading, const json_t *given)
{
    json_t *made = json_object();
    const char *name;
    json_t *value;
    size_t len;

    if (!json_is_object(given)) {
        json_decref(made);
        return wrong_type(reading, "an object", given);
    }
    json_object_keylen_foreach((json_t *)given, name, len, value)
    {
        const struct field *field = find_field(reading->form, (struct slice){ name, len });
        struct reading inside = *reading;

        enter(&inside, reading->pointer, (struct slice){ name, len });
        if (field && json_is_null(value) && field->use & NULLABLE && !reading->form->is_patch)
            continue; /* none, as if it were not there */
        if (field)
            (void)json_object_set_new(made, field->name, read_value(&inside, field, value));
        else
            complain(reading->complaints, inside.pointer, "is not known here");
    }
    check_whole(reading, given);
    return made;
}

json_t *form_read(const struct form *form, const json_t *given, struct complaints *complaints)
{
    struct reading reading = { .form = form, .complaints = complaints };
    json_t *made = read_object(&reading, given);

    if (complaints->count) {
        json_decref(made);
        return NULL;
    }
    return made;
}
