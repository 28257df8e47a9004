/*
 * docs/admin-api.md is written by hand around tables that come from the program. After a change of a row run this
 * program with QG_UPDATE=1 in its environment: it puts the new tables in.
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "parts.h"

enum { PAGE_BYTES = 1 << 20 };

static void add_roles(unsigned roles, struct text *out)
{
    text_add_string(out, roles == EVERYBODY ? "no token"
                         : roles == READERS ? "all"
                         : roles == WRITERS ? "operator, owner"
                                            : "owner");
}

static void add_body(const struct route *route, struct text *out)
{
    struct form form;

    if (!route_form(route, &form))
        return;
    for (size_t i = 0, shown = 0; i < form.count; i++)
        if (form.fields[i].use & form.use)
            text_printf(out, "%s%s`%s`%s", shown++ ? ", " : "",
                        form.fields[i].use & REQUIRED && !form.is_patch ? "**" : "", form.fields[i].name,
                        form.fields[i].use & REQUIRED && !form.is_patch ? "**" : "");
}

static void add_traits(const struct route *route, struct text *out)
{
    if (route->traits & NEEDS_VERSION)
        text_add_literal(out, " `If-Match` needed.");
    if (route->traits & TAKES_VERSION)
        text_add_literal(out, " `If-Match` taken.");
    if (route->traits & TAKES_REPLAYS)
        text_add_literal(out, " `Idempotency-Key` taken.");
    if (route->traits & TAKES_WAIT)
        text_add_literal(out, " `?wait=2s` waits for them.");
}

static void add_routes(struct text *out)
{
    text_add_literal(out, "| | path | who | body | what |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < route_count; i++) {
        const char *path = routes[i].path;
        text_printf(out, "| %s | `%s` | ", method_names[routes[i].method],
                    strncmp(path, "/admin/v1", 9) == 0 ? path + 9 : path);
        add_roles(routes[i].roles, out);
        text_add_literal(out, " | ");
        add_body(&routes[i], out);
        text_printf(out, " | %s.", routes[i].help);
        add_traits(&routes[i], out);
        text_add_literal(out, " |\n");
    }
}

static void add_values(const struct field *field, struct text *out)
{
    switch (field->kind) {
    case FIELD_COUNT:
        if (field->max > INT32_MAX)
            text_printf(out, "a whole number from %lld", (long long)field->min);
        else
            text_printf(out, "a whole number from %lld to %lld", (long long)field->min, (long long)field->max);
        break;
    case FIELD_BOOL:
        text_add_literal(out, "true or false");
        break;
    case FIELD_CHOICE:
        for (size_t i = 0; field->words[i]; i++)
            text_printf(out, "%s`%s`", i ? ", " : "", field->words[i]);
        break;
    case FIELD_MODELS:
    case FIELD_RANGES:
    case FIELD_TEXTS:
        text_printf(out, "a list of %s",
                    field->kind == FIELD_MODELS   ? "names of models"
                    : field->kind == FIELD_RANGES ? "addresses and ranges"
                                                  : "words");
        break;
    case FIELD_ANY:
        text_add_literal(out, "as the setting needs it");
        break;
    case FIELD_OBJECT:
        text_add_literal(out, "the object as it was shown");
        break;
    default:
        text_add_string(out, field_forms[field->kind].what);
    }
    if (field->use & NULLABLE)
        text_add_literal(out, ", or null");
}

static void add_noun(const struct noun *noun, struct text *out)
{
    text_printf(out, "\n### %s\n\nIn a path: %s.", noun->plural, noun->id_help);
    if (noun->filter_count)
        text_add_literal(out, " Filters of its list:");
    for (size_t i = 0; i < noun->filter_count; i++)
        text_printf(out, "%s `%s` (%s)", i ? "," : "", noun->filters[i].name, noun->filters[i].help);
    text_printf(out, "%s\n\n| field | given | values | meaning |\n|---|---|---|---|\n", noun->filter_count ? "." : "");
    for (size_t i = 0; i < noun->field_count; i++) {
        const struct field *field = &noun->fields[i];
        bool is_made = field->use & CREATE, is_changed = field->use & CHANGE;
        text_printf(out, "| `%s` | %s%s | ", field->name,
                    is_made && field->use & REQUIRED ? "**to make one**"
                    : is_made                        ? "to make one"
                    : field->use & IMPORTED          ? "in an import"
                                                     : "",
                    is_changed ? ", to change it" : "");
        add_values(field, out);
        text_printf(out, " | %s%s", field->help, field->use & SHOWN ? "" : "; not shown");
        if (field->fallback)
            text_printf(out, " (default `%s`)", field->fallback);
        text_add_literal(out, " |\n");
    }
}

static void add_problems(struct text *out)
{
    text_add_literal(out, "| status | code | what |\n|---|---|---|\n");
    for (size_t i = 0; i < problem_count; i++)
        text_printf(out, "| %u | `%s` | %s |\n", problems[i].status, problems[i].code, problems[i].title);
}

static void add_settings(struct text *out)
{
    text_add_literal(out, "\n| setting | values |\n|---|---|\n");
    for (size_t i = 0; i < setting_count; i++) {
        text_printf(out, "| `%s` | ", settings[i].name);
        setting_add_form(&settings[i], out);
        text_add_literal(out, " |\n");
    }
}

static void add_nouns(struct text *out)
{
    for (size_t i = 0; i < noun_count; i++) {
        add_noun(nouns[i], out);
        if (nouns[i] == &noun_setting)
            add_settings(out);
    }
}

static void read_page(const char *path, struct text *file)
{
    FILE *stream = fopen(path, "r");

    CHECK(stream && text_reserve(file, PAGE_BYTES / 2));
    file->len = fread(file->at, 1, PAGE_BYTES / 2, stream);
    file->at[file->len] = 0;
    (void)fclose(stream);
}

TEST(the_reference_page_holds_the_tables_of_the_program)
{
    static const char page[] = QG_SOURCE_DIR "/docs/admin-api.md";
    static const struct {
        const char *begin, *end;
        void (*add)(struct text *out);
    } tables[] = {
        { "<!-- routes: written by the program, see tests/unit/api -->\n", "<!-- end of routes -->\n", add_routes },
        { "<!-- problems: written by the program -->\n", "<!-- end of problems -->\n", add_problems },
        { "<!-- nouns: written by the program -->\n", "<!-- end of nouns -->\n", add_nouns },
    };
    bool is_update = getenv("QG_UPDATE");

    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct text file, table, updated;
        const char *from, *to;
        text_init(&file, PAGE_BYTES);
        text_init(&table, PAGE_BYTES);
        text_init(&updated, PAGE_BYTES);
        read_page(page, &file);
        tables[i].add(&table);
        from = strstr(text_string(&file), tables[i].begin);
        to = strstr(text_string(&file), tables[i].end);
        CHECK(from && to && from < to);
        from += strlen(tables[i].begin);
        if (is_update) {
            FILE *stream = fopen(page, "w");
            text_add(&updated, file.at, (size_t)(from - file.at));
            text_add_slice(&updated, text_slice(&table));
            text_add_string(&updated, to);
            CHECK(stream && fwrite(updated.at, 1, updated.len, stream) == updated.len && fclose(stream) == 0);
        } else {
            CHECK_STR(from, (size_t)(to - from), text_string(&table));
        }
        text_release(&file);
        text_release(&table);
        text_release(&updated);
    }
}
