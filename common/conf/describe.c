/* A table of settings, for people: plain, or as a page in Markdown. */
#include "conf.h"

enum { FORM_BYTES = 512 };

/* In a Markdown table a bar would end the cell. */
static void add_cell(struct text *out, const char *words)
{
    for (; *words; words++) {
        if (*words == '|')
            text_add_char(out, '\\');
        text_add_char(out, *words);
    }
}

static void describe_row_markdown(const struct conf_row *row, bool tells_reload, struct text *out)
{
    struct text form;

    text_init(&form, FORM_BYTES);
    conf_add_form(row, &form);
    text_printf(out, "| `%s` | ", row->key);
    if (row->fallback)
        text_printf(out, "`%s` | ", row->fallback);
    else
        text_add_literal(out, " | ");
    add_cell(out, text_string(&form));
    text_add_literal(out, " | ");
    if (tells_reload)
        text_add_string(out, row->is_live ? "reload | " : "restart | ");
    add_cell(out, row->help);
    text_add_literal(out, " |\n");
    text_release(&form);
}

static void describe_row_plain(const struct conf_row *row, bool tells_reload, struct text *out)
{
    text_printf(out, "  %s", row->key);
    if (row->fallback)
        text_printf(out, " (default %s)", row->fallback);
    text_add_literal(out, "\n      ");
    text_add_string(out, row->help);
    text_add_literal(out, "\n      ");
    conf_add_form(row, out);
    text_add_string(out, tells_reload && !row->is_live ? "; a change needs a restart\n" : "\n");
}

void conf_describe(const struct conf_table *table, const char *title, bool tells_reload, bool as_markdown,
                   struct text *out)
{
    if (as_markdown && tells_reload)
        text_printf(out, "## %s\n\n| key | default | values | a change takes | meaning |\n|---|---|---|---|---|\n",
                    title);
    else if (as_markdown)
        text_printf(out, "\n## %s\n\n| key | default | values | meaning |\n|---|---|---|---|\n", title);
    else
        text_printf(out, "%s%s:\n", tells_reload ? "" : "\n", title);
    for (size_t i = 0; i < table->count; i++) {
        if (as_markdown)
            describe_row_markdown(&table->rows[i], tells_reload, out);
        else
            describe_row_plain(&table->rows[i], tells_reload, out);
    }
}
