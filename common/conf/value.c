/* Values: one reader and one printer a type. */
#include "conf.h"

#include <stdlib.h>

enum { WHAT_BYTES = 512, FORM_BYTES = 512 };

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit duration_units[] = {
    { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { 0 }
};
static const struct unit second_units[] = {
    { "", 1000 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 3600 * 1000 }, { 0 }
};
static const struct unit size_units[] = {
    { "", 1 }, { "KiB", 1 << 10 }, { "MiB", 1 << 20 }, { "GiB", 1 << 30 }, { 0 }
};

static bool is_one_of(const struct conf_node *node, const char *const *words)
{
    if (node->kind != CONF_SCALAR || node->is_quoted)
        return false;
    for (; *words; words++)
        if (slice_is_nocase(node->text, slice_of(*words)))
            return true;
    return false;
}

bool conf_is_nothing(const struct conf_node *node)
{
    return is_one_of(node, (const char *const[]){ "", "~", "null", NULL });
}

static bool is_like_bool(const struct conf_node *node)
{
    return is_one_of(node, (const char *const[]){ "true", "false", "yes", "no", "on", "off", NULL });
}

/* What YAML readers take for a number when it stands without quotes. */
static bool is_like_number(const struct conf_node *node)
{
    char *end;

    if (node->is_quoted || !node->text.len || !strpbrk(node->text.at, "0123456789"))
        return false;
    if (node->text.at[0] == ' ' || strspn(node->text.at, "0123456789_") == node->text.len)
        return true;
    (void)strtod(node->text.at, &end);
    return end == node->text.at + node->text.len;
}

void conf_add_what(const struct conf_reading *reading, const struct conf_node *node, struct text *out)
{
    if (node->kind == CONF_LIST)
        text_add_literal(out, "a list");
    else if (node->kind == CONF_MAP)
        text_add_literal(out, "a map");
    else if (conf_is_nothing(node))
        text_add_literal(out, "nothing");
    else if (reading->hides)
        text_add_literal(out, "a single value");
    else
        conf_add_quoted(out, node->text);
}

/* "KEY must be WANTED, not WHAT STANDS THERE" */
static enum err refuse_value(struct conf_reading *reading, const struct conf_node *node, const char *wanted)
{
    struct text what;

    text_init(&what, WHAT_BYTES);
    conf_add_what(reading, node, &what);
    (void)conf_refuse(reading->conf, node, reading->why, "must be %s, not %s", wanted, text_string(&what));
    text_release(&what);
    return ERR_BAD;
}

enum err conf_expect(struct conf_reading *reading, const struct conf_node *node, enum conf_kind kind)
{
    static const char *const wanted[] = {
        [CONF_SCALAR] = "a single value", [CONF_LIST] = "a list", [CONF_MAP] = "a map (key: value)"
    };

    return node->kind == kind ? ERR_OK : refuse_value(reading, node, wanted[kind]);
}

static bool has_controls(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.at[i] < 0x20 || text.at[i] == 0x7f)
            return true;
    return false;
}

enum err conf_string(struct conf_reading *reading, const struct conf_node *node, size_t min, size_t max,
                     struct slice *ret_text)
{
    if (node->kind != CONF_SCALAR || conf_is_nothing(node))
        return refuse_value(reading, node, "text");
    if (node->line && (is_like_bool(node) || is_like_number(node)))
        return conf_refuse(reading->conf, node, reading->why, "must be text: put it in quotes");
    if (has_controls(node->text))
        return conf_refuse(reading->conf, node, reading->why, "must be one line without control characters");
    if (node->text.len < min)
        return conf_refuse(reading->conf, node, reading->why, "must not be empty");
    if (node->text.len > max)
        return conf_refuse(reading->conf, node, reading->why, "is %zu bytes long, but at most %zu are allowed",
                           node->text.len, max);
    *ret_text = node->text;
    return ERR_OK;
}

/* [-]DIGITS without leading zeros; what does not fit becomes the nearest end of the range. */
static bool parse_integer(struct slice text, int64_t *ret_number)
{
    bool is_negative = text.len && text.at[0] == '-';
    struct slice digits = { text.at + is_negative, text.len - is_negative };
    int64_t number = 0;

    if (!digits.len || (digits.len > 1 && digits.at[0] == '0'))
        return false;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.at[i] < '0' || digits.at[i] > '9')
            return false;
        if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, digits.at[i] - '0', &number))
            number = INT64_MAX;
    }
    *ret_number = is_negative ? -number : number;
    return true;
}

static enum err refuse_range(struct conf_reading *reading, const struct conf_node *node, const struct conf_row *row)
{
    struct text form;

    text_init(&form, FORM_BYTES);
    conf_add_form(row, &form);
    (void)refuse_value(reading, node, text_string(&form));
    text_release(&form);
    return ERR_BAD;
}

enum err conf_integer(struct conf_reading *reading, const struct conf_node *node, int64_t min, int64_t max,
                      int64_t *ret_number)
{
    struct conf_row row = { .type = CONF_NUMBER, .min = min, .max = max };
    int64_t number;

    if (node->kind != CONF_SCALAR)
        return refuse_range(reading, node, &row);
    if (node->is_quoted && parse_integer(node->text, &number))
        return conf_refuse(reading->conf, node, reading->why, "must be a whole number without quotes");
    if (node->is_quoted || !parse_integer(node->text, &number) || number < min || number > max)
        return refuse_range(reading, node, &row);
    *ret_number = number;
    return ERR_OK;
}

/* DIGITS, spaces, a unit. */
static bool parse_scaled(struct slice text, const struct unit *units, int64_t *ret_number)
{
    size_t digits = 0;
    struct slice unit;
    int64_t number;

    while (digits < text.len && text.at[digits] >= '0' && text.at[digits] <= '9')
        digits++;
    unit = (struct slice){ text.at + digits, text.len - digits };
    if (!parse_integer((struct slice){ text.at, digits }, &number))
        return false;
    while (unit.len > 1 && unit.at[0] == ' ') {
        unit.at++;
        unit.len--;
    }
    for (; units->name; units++)
        if (slice_is(unit, slice_of(units->name))) {
            if (__builtin_mul_overflow(number, units->factor, ret_number))
                *ret_number = INT64_MAX;
            return true;
        }
    return false;
}

static enum err read_scaled(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                            const struct unit *units, int64_t *ret_number)
{
    int64_t number;

    if (node->kind != CONF_SCALAR || !parse_scaled(node->text, units, &number) || number < row->min ||
        number > row->max)
        return refuse_range(reading, node, row);
    *ret_number = number;
    return ERR_OK;
}

static enum err read_bool(struct conf_reading *reading, const struct conf_node *node, bool *field)
{
    bool is_true = node->kind == CONF_SCALAR && slice_is_nocase(node->text, SLICE("true"));
    bool is_false = node->kind == CONF_SCALAR && slice_is_nocase(node->text, SLICE("false"));

    if (!is_true && !is_false)
        return refuse_value(reading, node, "true or false");
    if (node->is_quoted)
        return conf_refuse(reading->conf, node, reading->why, "must be true or false without quotes");
    *field = is_true;
    return ERR_OK;
}

static enum err read_choice(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                            unsigned *field)
{
    if (node->kind == CONF_SCALAR)
        for (unsigned i = 0; row->words[i]; i++)
            if (slice_is(node->text, slice_of(row->words[i]))) {
                *field = i;
                return ERR_OK;
            }
    return refuse_range(reading, node, row);
}

static enum err read_string(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                            const char **field)
{
    struct slice text;
    enum err err = conf_string(reading, node, (size_t)row->min, (size_t)row->max, &text);

    if (err != ERR_OK)
        return err;
    *field = conf_keep(reading->arena, text);
    if (*field)
        return ERR_OK;
    (void)conf_refuse(reading->conf, node, reading->why, "cannot be kept: %s", err_text(ERR_NO_MEMORY));
    return ERR_NO_MEMORY;
}

static enum err read_typed(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                           void *field)
{
    int64_t number = 0;
    enum err err;

    switch (row->type) {
    case CONF_BOOL:
        return read_bool(reading, node, field);
    case CONF_CHOICE:
        return read_choice(reading, row, node, field);
    case CONF_STRING:
        return read_string(reading, row, node, field);
    case CONF_OWN:
        return row->read(reading, row, node, field);
    case CONF_COUNT:
    case CONF_NUMBER:
        err = conf_integer(reading, node, row->min, row->max, &number);
        break;
    case CONF_BYTES:
        err = read_scaled(reading, row, node, size_units, &number);
        break;
    case CONF_MS:
        err = read_scaled(reading, row, node, duration_units, &number);
        break;
    default:
        err = read_scaled(reading, row, node, second_units, &number);
        break;
    }
    if (err != ERR_OK)
        return err;
    if (row->type == CONF_COUNT)
        *(unsigned *)field = (unsigned)number;
    else if (row->type == CONF_NUMBER || row->type == CONF_BYTES)
        *(uint64_t *)field = (uint64_t)number;
    else
        *(int64_t *)field = number;
    return ERR_OK;
}

enum err conf_value_read(struct conf_reading *reading, const struct conf_row *row, const struct conf_node *node,
                         void *field)
{
    bool did_hide = reading->hides;
    enum err err;

    reading->hides = row->is_secret;
    err = read_typed(reading, row, node, field);
    reading->hides = did_hide;
    return err;
}

static void add_duration(int64_t ms, struct text *out)
{
    if (ms && ms % (3600 * 1000) == 0)
        text_printf(out, "%lldh", (long long)(ms / (3600 * 1000)));
    else if (ms % 1000 == 0)
        text_printf(out, "%llds", (long long)(ms / 1000));
    else
        text_printf(out, "%lldms", (long long)ms);
}

static void add_size(uint64_t bytes, struct text *out)
{
    for (unsigned i = 3; i > 0 && bytes; i--)
        if (bytes % (uint64_t)size_units[i].factor == 0) {
            text_add_u64(out, bytes / (uint64_t)size_units[i].factor);
            text_printf(out, " %s", size_units[i].name);
            return;
        }
    text_add_u64(out, bytes);
}

void conf_add_value(const struct conf_row *row, const void *field, struct text *out)
{
    switch (row->type) {
    case CONF_BOOL:
        text_add_string(out, *(const bool *)field ? "true" : "false");
        return;
    case CONF_COUNT:
        text_add_u64(out, *(const unsigned *)field);
        return;
    case CONF_NUMBER:
        text_add_u64(out, *(const uint64_t *)field);
        return;
    case CONF_BYTES:
        add_size(*(const uint64_t *)field, out);
        return;
    case CONF_MS:
        add_duration(*(const int64_t *)field, out);
        return;
    case CONF_SECONDS:
        text_add_i64(out, *(const int64_t *)field / 1000);
        return;
    case CONF_CHOICE:
        text_add_string(out, row->words[*(const unsigned *)field]);
        return;
    case CONF_STRING:
        text_add_string(out, *(const char *const *)field ? *(const char *const *)field : "");
        return;
    case CONF_OWN:
        row->print(field, out);
        return;
    }
}

static void add_words(const char *const *words, struct text *out)
{
    for (unsigned i = 0; words[i]; i++) {
        if (i)
            text_add_string(out, words[i + 1] ? ", " : " or ");
        text_add_string(out, words[i]);
    }
}

void conf_add_form(const struct conf_row *row, struct text *out)
{
    switch (row->type) {
    case CONF_BOOL:
        text_add_literal(out, "true or false");
        return;
    case CONF_COUNT:
    case CONF_NUMBER:
        text_printf(out, "a whole number from %lld to %lld", (long long)row->min, (long long)row->max);
        return;
    case CONF_BYTES:
        text_add_literal(out, "a size (bytes, or a number with KiB, MiB or GiB) from ");
        add_size((uint64_t)row->min, out);
        text_add_literal(out, " to ");
        add_size((uint64_t)row->max, out);
        return;
    case CONF_MS:
        text_add_literal(out, "a duration (a number with ms, s, m or h) from ");
        add_duration(row->min, out);
        text_add_literal(out, " to ");
        add_duration(row->max, out);
        return;
    case CONF_SECONDS:
        text_printf(out, "whole seconds from %lld to %lld", (long long)(row->min / 1000), (long long)(row->max / 1000));
        return;
    case CONF_CHOICE:
        add_words(row->words, out);
        return;
    case CONF_STRING:
        text_add_literal(out, "text");
        return;
    case CONF_OWN:
        text_add_string(out, row->form);
        return;
    }
}
