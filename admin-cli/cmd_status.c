/* status: how the control plane and its gateways are, in a few lines. */
#include <inttypes.h>

#include "cmd.h"

static const char *word(const json_t *object, const char *field)
{
    const char *value = json_string_value(json_object_get(object, field));

    return value ? value : "";
}

static void add_row(struct text *out, const char *title, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void add_row(struct text *out, const char *title, const char *format, ...)
{
    struct text words;
    va_list args;

    text_init(&words, 1 << 16);
    va_start(args, format);
    text_vprintf(&words, format, args);
    va_end(args);
    text_printf(out, "%-15s ", title);
    safe_add(out, text_slice(&words), false);
    text_add_char(out, '\n');
    text_release(&words);
}

static void add_age(json_int_t seconds, struct text *out)
{
    if (seconds >= 86400)
        text_printf(out, "%" JSON_INTEGER_FORMAT " d %" JSON_INTEGER_FORMAT " h", seconds / 86400, seconds / 3600 % 24);
    else if (seconds >= 3600)
        text_printf(out, "%" JSON_INTEGER_FORMAT " h %" JSON_INTEGER_FORMAT " min", seconds / 3600, seconds / 60 % 60);
    else if (seconds >= 60)
        text_printf(out, "%" JSON_INTEGER_FORMAT " min", seconds / 60);
    else
        text_printf(out, "%" JSON_INTEGER_FORMAT " s", seconds);
}

static void add_status(const struct session *session, const json_t *status, struct text *out)
{
    const json_t *leader = json_object_get(status, "leader"), *database = json_object_get(status, "database");
    const json_t *gateways = json_object_get(status, "gateways");
    struct text age;

    text_init(&age, 128);
    add_age(json_integer_value(json_object_get(status, "uptime_s")), &age);
    add_row(out, "server", "%s, qwen-control %s, up %s", session->config.server, word(status, "version"),
            text_string(&age));
    if (json_is_object(leader))
        add_row(out, "leader", "%s%s", *word(leader, "holder") ? word(leader, "holder") : "nobody",
                strcmp(word(leader, "state"), "leads") == 0 ? ", which is this one" : "");
    add_row(out, "database", "%s%s%s", json_is_true(json_object_get(database, "up")) ? "up" : "away",
            *word(database, "reason") ? ": " : "", word(database, "reason"));
    add_row(out, "configuration", "version %" JSON_INTEGER_FORMAT,
            json_integer_value(json_object_get(status, "config_version")));
    add_row(out, "gateways",
            "%" JSON_INTEGER_FORMAT " enrolled, %" JSON_INTEGER_FORMAT " live, %" JSON_INTEGER_FORMAT " behind",
            json_integer_value(json_object_get(gateways, "enrolled")),
            json_integer_value(json_object_get(gateways, "live")),
            json_integer_value(json_object_get(gateways, "behind")));
    text_release(&age);
}

enum ending status(struct session *session)
{
    static const struct column columns[] = {
        { NULL, "version", CELL_TEXT, 0, NULL },    { NULL, "config_version", CELL_NUMBER, 0, NULL },
        { NULL, "uptime_s", CELL_NUMBER, 0, NULL }, { NULL, "leader", CELL_TEXT, 0, NULL },
        { NULL, "database", CELL_TEXT, 0, NULL },   { NULL, "gateways", CELL_TEXT, 0, NULL },
    };
    struct answer answer;
    struct text out;
    enum err err;
    enum ending ending = cmd_ask(session, &(struct ask){ .method = "GET", .path = "/admin/v1/status" }, &answer);

    if (ending != END_DONE)
        return ending;
    if (session->output.format == OUTPUT_TABLE) {
        text_init(&out, 1 << 20);
        add_status(session, answer.body, &out);
        err = output_write(&session->output, text_slice(&out));
        text_release(&out);
    } else {
        err = output_object(&session->output, columns, sizeof columns / sizeof *columns, answer.body);
    }
    answer_release(&answer);
    return err == ERR_OK ? END_DONE : END_REFUSED;
}
