/* Error answers in their two shapes, and the page for people. */
#include "dialect.h"

#include "json.h"

static void add_string_or_null(struct text *out, struct slice string)
{
    if (string.len)
        json_add_string(out, string);
    else
        text_add_literal(out, "null");
}

void refusal_write(const struct refusal *refusal, enum error_shape shape, struct slice request_id, struct text *out)
{
    const struct cause_row *row = cause_row(refusal->cause);

    if (shape == ERROR_SHAPE_FLAT) {
        text_add_literal(out, "{\"error\":");
        json_add_string(out, refusal_message(refusal));
        text_add_char(out, '}');
        return;
    }
    text_add_literal(out, "{\"error\":{\"message\":");
    json_add_string(out, refusal_message(refusal));
    text_add_literal(out, ",\"type\":");
    json_add_string(out, slice_of(row->type));
    text_add_literal(out, ",\"param\":");
    add_string_or_null(out, refusal->param);
    text_add_literal(out, ",\"code\":");
    json_add_string(out, slice_of(row->code));
    text_add_literal(out, ",\"request_id\":");
    add_string_or_null(out, request_id);
    text_add_literal(out, "}}");
}

static void add_html(struct text *out, struct slice utf8)
{
    for (size_t i = 0; i < utf8.len; i++) {
        switch (utf8.at[i]) {
        case '&':
            text_add_literal(out, "&amp;");
            break;
        case '<':
            text_add_literal(out, "&lt;");
            break;
        case '>':
            text_add_literal(out, "&gt;");
            break;
        case '"':
            text_add_literal(out, "&quot;");
            break;
        default:
            text_add_char(out, utf8.at[i]);
        }
    }
}

void refusal_write_page(const struct refusal *refusal, struct slice request_id, struct text *out)
{
    bool heals = cause_row(refusal->cause)->heals;

    text_add_literal(out,
                     "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                     "<meta name=\"viewport\" content=\"width=device-width\">\n<title>Not available right now</title>\n"
                     "<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;"
                     "color:#222;background:#fafafa}small{color:#777}</style>\n</head>\n<body>\n<h1>");
    text_add_string(out, heals ? "Just a moment" : "This does not work right now");
    text_add_literal(out, "</h1>\n<p>Sorry: ");
    add_html(out, refusal_message(refusal));
    text_add_literal(out, ".</p>\n");
    if (request_id.len) {
        text_add_literal(out, "<p><small>If you ask for help, please give this number: ");
        add_html(out, request_id);
        text_add_literal(out, "</small></p>\n");
    }
    text_add_literal(out, "</body>\n</html>\n");
}
