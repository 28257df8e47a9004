/* What a person is told about JSON that is not fine. */
#include "json.h"

const char *json_error_text(enum json_error error)
{
    switch (error) {
    case JSON_OK:
        return "no error";
    case JSON_SYNTAX:
        return "not valid JSON";
    case JSON_ENDS_EARLY:
        return "the JSON ends before it is complete";
    case JSON_UTF8:
        return "not valid UTF-8, or half of a surrogate pair";
    case JSON_DEPTH:
        return "nested too deeply";
    case JSON_DUPLICATE:
        return "a key that this object already has (upper and lower case count as the same)";
    case JSON_TRAILING:
        return "something follows the JSON value";
    case JSON_TYPE:
        return "a value of another type is wanted here";
    case JSON_TOO_MANY:
        return "more keys in one object than allowed";
    }
    return "unknown error";
}

/* Chat agents look for these in a message, by digits alone, and send the same request again when they find one. */
static bool looks_like_status(uint64_t number)
{
    for (; number >= 100; number /= 10) {
        unsigned last = (unsigned)(number % 1000);
        if (last == 429 || last == 529 || (last >= 500 && last <= 504))
            return true;
    }
    return false;
}

/* "column 17"; for what looks like a status, a lower number that does not, which is still true. */
static void say_number(struct text *out, const char *what, uint64_t number)
{
    uint64_t said = number;

    while (looks_like_status(said))
        said--;
    text_printf(out, "%s%s ", said == number ? "" : "after ", what);
    text_add_u64(out, said);
}

void json_error_say(const struct json_reader *reader, struct text *out)
{
    const char *line_start = reader->start;
    uint64_t line = 1;

    for (const char *at = reader->start; at < reader->at; at++) {
        if (*at != '\n')
            continue;
        line++;
        line_start = at + 1;
    }
    say_number(out, "line", line);
    text_add_literal(out, ", ");
    say_number(out, "column", utf8_count((struct slice){ line_start, (size_t)(reader->at - line_start) }) + 1);
    text_add_literal(out, ": ");
    text_add_string(out, json_error_text(reader->error));
}
