#include "reading.h"

#include <assert.h>

enum { SENTENCE_MAX_BYTES = 1024, SHOWN_NAME_MAX_BYTES = 64 };

void reading_begin(struct reading *reading, struct slice body, struct arena *arena, struct inference *inference,
                   struct refusal *refusal)
{
    reading->arena = arena;
    reading->inference = inference;
    reading->refusal = refusal;
    reading->depth = 0;
    *inference = (struct inference){ 0 };
    *refusal = (struct refusal){ 0 };
    json_open(&reading->json, body, JSON_MAX_DEPTH);
}

static struct step *path_push(struct reading *reading)
{
    assert(reading->depth < READING_MAX_PATH);
    reading->path[reading->depth] = (struct step){ 0 };
    return &reading->path[reading->depth++];
}

/* messages[2].role */
static void path_say(const struct reading *reading, struct text *out)
{
    for (unsigned i = 0; i < reading->depth; i++) {
        const struct step *step = &reading->path[i];
        if (!step->name.len) {
            text_printf(out, "[%zu]", step->index);
            continue;
        }
        if (out->len)
            text_add_char(out, '.');
        text_add(out, step->name.at, utf8_cut(step->name, SHOWN_NAME_MAX_BYTES));
    }
}

/* Keeps a text that is only needed once in the arena. */
static struct slice keep(struct reading *reading, struct text *text)
{
    struct slice kept = arena_copy(reading->arena, text_slice(text));

    text_release_wiped(text);
    return kept.at ? kept : (struct slice){ "", 0 };
}

static void set_param(struct reading *reading)
{
    struct text param;

    text_init(&param, SENTENCE_MAX_BYTES);
    path_say(reading, &param);
    reading->refusal->param = keep(reading, &param);
}

bool reading_refuse(struct reading *reading, enum cause cause, const char *sentence)
{
    if (reading->refusal->cause)
        return false;
    *reading->refusal = (struct refusal){ .cause = cause };
    reading->refusal->message = arena_copy(reading->arena, slice_of(sentence));
    if (!reading->refusal->message.at)
        return reading_no_memory(reading);
    set_param(reading);
    return false;
}

bool reading_field_refuse(struct reading *reading, const char *field, enum cause cause, const char *sentence)
{
    path_push(reading)->name = slice_of(field);
    return reading_refuse(reading, cause, sentence);
}

bool reading_no_memory(struct reading *reading)
{
    *reading->refusal = (struct refusal){ .cause = CAUSE_NO_MEMORY };
    return false;
}

bool reading_wants(struct reading *reading, const char *wanted)
{
    struct text sentence;
    unsigned named = reading->depth;

    while (named && !reading->path[named - 1].name.len)
        named--;
    text_init(&sentence, SENTENCE_MAX_BYTES);
    if (!named)
        text_add_literal(&sentence, "the request body");
    else
        text_printf(&sentence, "%s`%.*s`", named == reading->depth ? "" : "each of ",
                    (int)reading->path[named - 1].name.len, reading->path[named - 1].name.at);
    text_printf(&sentence, " must be %s", wanted);
    (void)reading_refuse(reading, CAUSE_INVALID, text_string(&sentence));
    text_release_wiped(&sentence);
    return false;
}

bool reading_expects(struct reading *reading, enum json_type type, const char *wanted)
{
    enum json_type found = json_peek(&reading->json);

    if (found == type)
        return true;
    /* Where no value of any type stands, the JSON is broken, and that is the complaint. */
    return found == JSON_NONE ? json_fail(&reading->json, JSON_TYPE) : reading_wants(reading, wanted);
}

/* The key that stands doubled where the reader stopped. */
static void name_doubled_key(struct reading *reading, struct step *step)
{
    struct slice rest = { reading->json.at, (size_t)(reading->json.end - reading->json.at) };
    struct json_reader again;
    struct json_string key;

    json_open(&again, rest, JSON_MAX_DEPTH);
    if (json_string(&again, &key))
        (void)reading_plain(reading, &key, &step->name);
}

static const struct field *find_escaped(const struct field *fields, const struct json_string *key)
{
    for (; fields->read; fields++)
        if (json_string_is(key, fields->name.at))
            return fields;
    return NULL;
}

/* Length and first letter first: then nearly every comparison is the one that finds. */
static const struct field *find(const struct field *fields, const struct json_string *key)
{
    const char *at = key->raw.at;
    size_t len = key->raw.len;

    if (key->has_escapes)
        return find_escaped(fields, key);
    if (!len)
        return NULL;
    for (; fields->read; fields++)
        if (fields->name.len == len && fields->name.at[0] == at[0] && memcmp(fields->name.at, at, len) == 0)
            return fields;
    return NULL;
}

static bool read_field(struct reading *reading, const struct field *field, void *thing)
{
    if (!field)
        return json_skip(&reading->json, NULL);
    if (json_peek(&reading->json) == JSON_NULL)
        return json_null(&reading->json);
    return field->read(reading, thing, field);
}

bool reading_object(struct reading *reading, const struct field *fields, void *thing)
{
    struct json_string key;
    struct json_keys keys __attribute__((uninitialized)); /* its count says what is there */
    struct step *step;

    if (!reading_expects(reading, JSON_OBJECT, "an object"))
        return false;
    if (!json_object(&reading->json, &keys))
        return false;
    step = path_push(reading);
    while (json_member(&reading->json, &keys, &key)) {
        const struct field *field = find(fields, &key);
        step->name = field ? field->name : key.raw;
        if (!read_field(reading, field, thing))
            return false; /* the path stays as it is: the complaint names it */
    }
    if (reading->json.error == JSON_DUPLICATE)
        name_doubled_key(reading, step);
    if (reading->json.error)
        return false;
    reading->depth--;
    return true;
}

bool reading_array(struct reading *reading, size_t max, bool (*read)(struct reading *reading, void *thing), void *thing)
{
    struct step *step;
    size_t count = 0;

    if (!reading_expects(reading, JSON_ARRAY, "an array"))
        return false;
    if (!json_array(&reading->json))
        return false;
    step = path_push(reading);
    while (json_element(&reading->json)) {
        step->index = count++;
        if (count > max) {
            reading->depth--;
            return reading_refuse(reading, CAUSE_INVALID, "too many elements in one array of the request");
        }
        if (!read(reading, thing))
            return false;
    }
    if (reading->json.error)
        return false;
    reading->depth--;
    return true;
}

bool reading_end(struct reading *reading, bool is_read)
{
    struct text sentence;

    if (reading->refusal->cause)
        return false;
    if (is_read && json_close(&reading->json)) {
        reading->inference->is_tight = !reading->json.has_line_breaks;
        return true;
    }
    assert(reading->json.error);
    text_init(&sentence, SENTENCE_MAX_BYTES);
    text_add_literal(&sentence, "the request body, ");
    json_error_say(&reading->json, &sentence);
    if (reading->json.error != JSON_DUPLICATE)
        reading->depth = 0;
    (void)reading_refuse(reading, CAUSE_INVALID, text_string(&sentence));
    text_release_wiped(&sentence);
    return false;
}

struct tightness tightness_begin(struct reading *reading)
{
    struct tightness before = { .has_line_breaks = reading->json.has_line_breaks };

    (void)json_peek(&reading->json);
    reading->json.has_space = false;
    reading->json.has_line_breaks = false;
    return before;
}

bool tightness_end(struct reading *reading, struct tightness before)
{
    bool is_tight = !reading->json.has_space && !reading->json.has_line_breaks;

    reading->json.has_line_breaks |= before.has_line_breaks;
    return is_tight;
}

bool reading_string(struct reading *reading, struct json_string *ret_string)
{
    if (!reading_expects(reading, JSON_STRING, "a string"))
        return false;
    return json_string(&reading->json, ret_string);
}

bool reading_bool(struct reading *reading, bool *ret_bool)
{
    if (json_peek(&reading->json) != JSON_FALSE && !reading_expects(reading, JSON_TRUE, "true or false"))
        return false;
    return json_bool(&reading->json, ret_bool);
}

bool reading_plain(struct reading *reading, const struct json_string *string, struct slice *ret_plain)
{
    /* Decoding never makes a string longer, so the text never asks for memory of its own. */
    struct text decoded = { .room = string->raw.len + 1, .max = string->raw.len };

    if (!string->has_escapes) {
        *ret_plain = string->raw;
        return true;
    }
    decoded.at = arena_take(reading->arena, decoded.room);
    if (!decoded.at)
        return reading_no_memory(reading);
    json_string_decode(string, &decoded);
    *ret_plain = text_slice(&decoded);
    return true;
}

bool reading_wire(struct reading *reading, const struct json_string *string, struct slice *ret_wire)
{
    struct slice plain;
    struct text wire;

    if (!string->has_escapes) {
        *ret_wire = string->raw;
        return true;
    }
    if (!reading_plain(reading, string, &plain))
        return false;
    text_init(&wire, SIZE_MAX / 2);
    json_add_escaped(&wire, plain);
    *ret_wire = arena_copy(reading->arena, text_slice(&wire));
    if (wire.err || !ret_wire->at) {
        text_release_wiped(&wire);
        return reading_no_memory(reading);
    }
    text_release_wiped(&wire);
    return true;
}

/* Most numbers are like 0.7: few digits, no exponent; these need no general conversion. */
static bool short_decimal(struct slice number, double *ret_number)
{
    static const double tens[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15 };
    bool is_negative = number.at[0] == '-';
    int64_t digits = 0;
    size_t behind = 0, point = 0;

    if (number.len > 15)
        return false;
    for (size_t i = is_negative; i < number.len; i++) {
        if (number.at[i] == '.') {
            point = 1;
            continue;
        }
        if (number.at[i] < '0' || number.at[i] > '9')
            return false;
        digits = digits * 10 + (number.at[i] - '0');
        behind += point;
    }
    *ret_number = (double)(is_negative ? -digits : digits) / tens[behind];
    return true;
}

bool reading_number_field(struct reading *reading, void *thing, const struct field *field)
{
    struct slice *filled = (struct slice *)(void *)((char *)reading->inference + field->place);
    struct slice number;
    double value;

    (void)thing;
    if (!reading_expects(reading, JSON_NUMBER, field->wanted))
        return false;
    if (!json_number(&reading->json, &number))
        return false;
    if (!short_decimal(number, &value) && !json_number_double(number, &value))
        return reading_wants(reading, field->wanted);
    if (value < field->min || value > field->max)
        return reading_wants(reading, field->wanted);
    *filled = number;
    return true;
}

bool reading_integer(struct reading *reading, const struct field *field, struct slice *ret_written,
                     int64_t *ret_integer)
{
    struct slice number;
    int64_t value;

    if (!reading_expects(reading, JSON_NUMBER, field->wanted))
        return false;
    if (!json_number(&reading->json, &number))
        return false;
    if (!json_number_i64(number, &value) || (double)value < field->min || (double)value > field->max)
        return reading_wants(reading, field->wanted);
    *ret_written = number;
    *ret_integer = value;
    return true;
}

bool reading_integer_field(struct reading *reading, void *thing, const struct field *field)
{
    struct slice *filled = (struct slice *)(void *)((char *)reading->inference + field->place);
    int64_t value;

    (void)thing;
    return reading_integer(reading, field, filled, &value);
}

bool reading_bool_field(struct reading *reading, void *thing, const struct field *field)
{
    (void)thing;
    return reading_bool(reading, (bool *)((char *)reading->inference + field->place));
}
