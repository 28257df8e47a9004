/*
 * Which settings gateways take from here, and which values: the same as dataplane/snapshot has them in settings.c and
 * over.c, since a gateway that cannot take one takes nothing else of its version either. That these are the same is
 * held by tests/e2e/test_settings.py, which has a gateway apply the least and the greatest of each.
 */
#include <math.h>
#include <stdlib.h>

#include "parts.h"

#define SECOND_MS INT64_C(1000)
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define KIB       (INT64_C(1) << 10)
#define COUNT(a)  (sizeof(a) / sizeof *(a))

enum { NUMBER_MAX_DIGITS = 12 };

static const char *const retry_afters[] = { "window", "exact", NULL };
static const char *const stripped[] = { "model", "created", NULL };

const struct setting settings[] = {
    { "rate_limit.enabled", SETTING_BOOL, 0, 0, NULL },
    { "rate_limit.max_requests", SETTING_NUMBER, 1, 1000000, NULL },
    { "rate_limit.window_seconds", SETTING_SECONDS, SECOND_MS, 24 * HOUR_MS, NULL },
    { "rate_limit.retry_after", SETTING_CHOICE, 0, 0, retry_afters },
    { "whitelist.enabled", SETTING_BOOL, 0, 0, NULL },
    { "response_filter.strip", SETTING_LIST, 0, 0, stripped },
    { "slow_start", SETTING_MS, 0, HOUR_MS, NULL },
    { "max_waiting", SETTING_NUMBER, 1, 1000000, NULL },
    { "max_waiting_per_user", SETTING_NUMBER, 1, 1000000, NULL },
    { "max_waiting_batch_percent", SETTING_NUMBER, 1, 99, NULL },
    { "batch_percent", SETTING_NUMBER, 1, 50, NULL },
    { "max_body_bytes", SETTING_BYTES, KIB, KIB *KIB *KIB, NULL },
    { "max_prompt_chars", SETTING_NUMBER, 0, 1000000000, NULL },
    { "max_system_chars", SETTING_NUMBER, 0, 1000000000, NULL },
};
const size_t setting_count = COUNT(settings);

struct unit {
    const char *name;
    int64_t factor;
};
static const struct unit ms_units[] = { { "ms", 1 }, { "s", SECOND_MS }, { "m", MINUTE_MS }, { "h", HOUR_MS }, { 0 } };
static const struct unit byte_units[] = { { "KiB", KIB }, { "MiB", KIB *KIB }, { "GiB", KIB *KIB *KIB }, { 0 } };

const struct setting *setting_find(struct slice name)
{
    for (size_t i = 0; i < setting_count; i++)
        if (slice_is(slice_of(settings[i].name), name))
            return &settings[i];
    return NULL;
}

void setting_add_names(struct text *out)
{
    for (size_t i = 0; i < setting_count; i++)
        text_printf(out, "%s%s", i ? ", " : "", settings[i].name);
}

static bool is_word(const char *const *words, const json_t *value)
{
    for (; json_is_string(value) && *words; words++)
        if (strcmp(*words, json_string_value(value)) == 0)
            return true;
    return false;
}

static bool is_list(const char *const *words, const json_t *value)
{
    const json_t *item;
    size_t i;

    json_array_foreach(value, i, item) if (!is_word(words, item)) return false;
    return json_is_array(value);
}

/* 60.0 is a whole number, too. */
static bool is_whole(const json_t *value, int64_t *ret_number)
{
    double real = json_real_value(value);

    *ret_number = json_integer_value(value);
    if (!json_is_real(value))
        return json_is_integer(value);
    if (real != floor(real) || fabs(real) >= 9007199254740992.0)
        return false;
    *ret_number = (int64_t)real;
    return true;
}

/* "10s", "32 MiB": digits, perhaps a space, a unit. */
static bool is_scaled(const json_t *value, const struct unit *units, int64_t *ret_number)
{
    const char *text = json_is_string(value) ? json_string_value(value) : "", *unit;
    size_t digits = strspn(text, "0123456789");

    if (!digits || digits > NUMBER_MAX_DIGITS || (digits > 1 && text[0] == '0') ||
        strlen(text) != json_string_length(value))
        return false;
    unit = text + digits + (text[digits] == ' ');
    for (; units->name; units++)
        if (strcmp(units->name, unit) == 0)
            return !__builtin_mul_overflow(strtoll(text, NULL, 10), units->factor, ret_number);
    return false;
}

/* Of numbers, durations and sizes. *ret_plain: it was a number, and this one. */
static bool is_amount(const struct setting *setting, const json_t *value, bool *ret_plain, int64_t *ret_amount)
{
    *ret_plain = setting->kind != SETTING_MS && is_whole(value, ret_amount);
    if (*ret_plain)
        return !(setting->kind == SETTING_SECONDS && __builtin_mul_overflow(*ret_amount, SECOND_MS, ret_amount));
    switch (setting->kind) {
    case SETTING_SECONDS:
        return is_scaled(value, ms_units + 1, ret_amount);
    case SETTING_MS:
        return is_scaled(value, ms_units, ret_amount);
    case SETTING_BYTES:
        return is_scaled(value, byte_units, ret_amount);
    default:
        return false;
    }
}

json_t *setting_take(const struct setting *setting, const json_t *value)
{
    bool is_plain = false;
    int64_t amount;

    switch (setting->kind) {
    case SETTING_BOOL:
        return json_is_boolean(value) ? json_copy((json_t *)value) : NULL;
    case SETTING_CHOICE:
        return is_word(setting->words, value) ? json_copy((json_t *)value) : NULL;
    case SETTING_LIST:
        return is_list(setting->words, value) ? json_deep_copy(value) : NULL;
    default:
        if (!is_amount(setting, value, &is_plain, &amount) || amount < setting->min || amount > setting->max)
            return NULL;
        return is_plain ? json_integer(setting->kind == SETTING_SECONDS ? amount / SECOND_MS : amount)
                        : json_copy((json_t *)value);
    }
}

void setting_add_form(const struct setting *setting, struct text *out)
{
    switch (setting->kind) {
    case SETTING_BOOL:
        text_add_literal(out, "true or false");
        break;
    case SETTING_CHOICE:
        text_printf(out, "\"%s\" or \"%s\"", setting->words[0], setting->words[1]);
        break;
    case SETTING_LIST:
        text_printf(out, "a list of \"%s\" and \"%s\", of one, or of none", setting->words[0], setting->words[1]);
        break;
    case SETTING_SECONDS:
        text_printf(out, "whole seconds from %lld to %lld, or the same as text such as \"15m\"",
                    (long long)(setting->min / SECOND_MS), (long long)(setting->max / SECOND_MS));
        break;
    case SETTING_MS:
        text_printf(out, "a duration from \"%llds\" to \"%lldh\", such as \"1500ms\"",
                    (long long)(setting->min / SECOND_MS), (long long)(setting->max / HOUR_MS));
        break;
    case SETTING_BYTES:
        text_printf(out, "bytes from %lld to %lld, or the same as text such as \"32 MiB\"", (long long)setting->min,
                    (long long)setting->max);
        break;
    default:
        text_printf(out, "a whole number from %lld to %lld", (long long)setting->min, (long long)setting->max);
    }
}

void handle_setting_put(struct exchange *exchange)
{
    const struct setting *setting = setting_find(text_slice(&exchange->param));
    const json_t *given = json_object_get(exchange->body, "value");
    json_t *value = setting ? setting_take(setting, given) : NULL;
    char memory[COMPLAINT_MAX_BYTES];
    struct text words = text_over(memory, sizeof memory);
    struct complaints complaints;

    if (value && json_object_set_new(exchange->body, "value", value) == 0) {
        handle_change(exchange);
        return;
    }
    complaints_init(&complaints);
    complaints.in_query = !setting;
    if (setting)
        setting_add_form(setting, &words);
    else
        setting_add_names(&words);
    complain(&complaints, setting ? "/value" : "id",
             setting ? "must be %s" : "is not the name of a setting that gateways take: there are %s", memory);
    exchange_refuse_places(exchange, &complaints);
    complaints_release(&complaints);
}
