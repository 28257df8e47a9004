/* The picture: a head of three lines, then gateways, models and users, each with as many lines as there is room for. */
#include <jansson.h>
#include <stdlib.h>

#include "clock.h"
#include "output.h"
#include "top.h"

enum { HEAD_LINES = 3, MIN_WIDTH = 20, MIN_HEIGHT = 6, TABLES = 3, CELL_BYTES = 4096, MAX_CELLS = 12 };

#define BOLD  "\x1b[1m"
#define DIM   "\x1b[2m"
#define RED   "\x1b[31m"
#define PLAIN "\x1b[0m"

struct frame {
    const struct top_view *view;
    struct text *out;
    unsigned lines;
};

/* One column of a table. */
struct part {
    const char *title;
    unsigned width; /* 0: what is left, shared by all such */
    unsigned rank;  /* the highest go first where there is no room; 0: never */
    bool is_right;
    void (*add)(const json_t *row, struct text *out);
};

struct table {
    const char *noun;
    const struct part *parts;
    unsigned count;
    const json_t *rows;
    unsigned shown;
};

/* Lines ---------------------------------------------------------------------------------------------------------- */

static void add_line(struct frame *frame, const char *colour, struct slice line)
{
    bool is_coloured = frame->view->has_colour && colour;

    if (frame->lines == frame->view->height)
        return;
    if (is_coloured)
        text_add_string(frame->out, colour);
    width_add(frame->out, line, frame->view->width, false, false);
    if (is_coloured)
        text_add_literal(frame->out, PLAIN);
    text_add_char(frame->out, '\n');
    frame->lines++;
}

/* Numbers --------------------------------------------------------------------------------------------------------- */

static double number_of(const json_t *object, const char *field)
{
    const json_t *value = json_object_get(object, field);

    return json_is_number(value) ? json_number_value(value) : -1;
}

/* 999, 12.3k, 4.5M */
static void add_count(double number, struct text *out)
{
    static const char units[] = " kMGT";
    unsigned unit = 0;

    if (number < 0) {
        text_add_char(out, '-');
        return;
    }
    while (number >= 999.5 && unit + 2 < sizeof units) {
        number /= 1000;
        unit++;
    }
    text_printf(out, unit && number < 99.95 ? "%.1f" : "%.0f", number);
    if (unit)
        text_add_char(out, units[unit]);
}

/* Below ten with a decimal. */
static void add_rate(double number, struct text *out)
{
    if (number > 0 && number < 9.95)
        text_printf(out, "%.1f", number);
    else
        add_count(number, out);
}

static void add_ms(double ms, struct text *out)
{
    if (ms < 0)
        text_add_char(out, '-');
    else if (ms < 999.5)
        text_printf(out, "%.0fms", ms);
    else if (ms < 99950)
        text_printf(out, "%.1fs", ms / 1000);
    else
        text_printf(out, "%.0fs", ms / 1000);
}

static void add_string(const json_t *object, const char *field, struct text *out)
{
    const json_t *value = json_object_get(object, field);

    if (json_is_string(value))
        safe_add(out, (struct slice){ json_string_value(value), json_string_length(value) }, false);
    else
        text_add_char(out, '-');
}

/* Cells ---------------------------------------------------------------------------------------------------------- */

static void gateway_name(const json_t *row, struct text *out)
{
    add_string(row, "name", out);
}

static void gateway_state(const json_t *row, struct text *out)
{
    const char *error = json_string_value(json_object_get(row, "apply_error"));

    text_add_string(out, !json_is_true(json_object_get(row, "live")) ? "silent" : error && *error ? "error" : "live");
}

static void running(const json_t *row, struct text *out)
{
    add_count(number_of(row, "running"), out);
}

static void waiting(const json_t *row, struct text *out)
{
    add_count(number_of(row, "waiting"), out);
}

static void gateway_applied(const json_t *row, struct text *out)
{
    double applied = number_of(row, "applied_version");

    if (applied < 0)
        text_add_char(out, '-');
    else
        text_printf(out, "%.0f", applied);
}

static void gateway_heard(const json_t *row, struct text *out)
{
    add_ms(number_of(row, "heard_ms_ago"), out);
}

static void gateway_backends(const json_t *row, struct text *out)
{
    const char *error = json_string_value(json_object_get(row, "apply_error"));
    size_t i;
    json_t *each;

    if (error && *error) {
        safe_add(out, slice_of(error), false);
        return;
    }
    json_array_foreach(json_object_get(row, "backends"), i, each)
    {
        if (i)
            text_add_literal(out, "  ");
        add_string(each, "name", out);
        if (!json_is_true(json_object_get(each, "up"))) {
            text_add_literal(out, " down");
        } else {
            text_add_char(out, ' ');
            running(each, out);
            text_add_char(out, '+');
            waiting(each, out);
        }
    }
}

static void model_name(const json_t *row, struct text *out)
{
    add_string(row, "model", out);
}

static void model_requests(const json_t *row, struct text *out)
{
    add_rate(number_of(row, "requests_per_s"), out);
}

static void model_in(const json_t *row, struct text *out)
{
    add_rate(number_of(row, "prompt_tokens_per_s"), out);
}

static void model_out(const json_t *row, struct text *out)
{
    add_rate(number_of(row, "completion_tokens_per_s"), out);
}

static void first_p50(const json_t *row, struct text *out)
{
    add_ms(number_of(json_object_get(row, "first_token_ms"), "p50"), out);
}

static void first_p95(const json_t *row, struct text *out)
{
    add_ms(number_of(json_object_get(row, "first_token_ms"), "p95"), out);
}

static void first_p99(const json_t *row, struct text *out)
{
    add_ms(number_of(json_object_get(row, "first_token_ms"), "p99"), out);
}

static void whole_p50(const json_t *row, struct text *out)
{
    add_ms(number_of(json_object_get(row, "duration_ms"), "p50"), out);
}

static void whole_p99(const json_t *row, struct text *out)
{
    add_ms(number_of(json_object_get(row, "duration_ms"), "p99"), out);
}

static void user_name(const json_t *row, struct text *out)
{
    add_string(row, "user", out);
}

static void user_requests(const json_t *row, struct text *out)
{
    add_count(number_of(row, "requests"), out);
}

static void user_refused(const json_t *row, struct text *out)
{
    add_count(number_of(row, "refused"), out);
}

static void user_in(const json_t *row, struct text *out)
{
    add_count(number_of(row, "prompt_tokens"), out);
}

static void user_out(const json_t *row, struct text *out)
{
    add_count(number_of(row, "completion_tokens"), out);
}

static const struct part gateway_parts[] = {
    { "GATEWAY", 0, 0, false, gateway_name },
    { "STATE", 6, 1, false, gateway_state },
    { "RUN", 5, 0, true, running },
    { "WAIT", 5, 0, true, waiting },
    { "APPLIED", 8, 3, true, gateway_applied },
    { "HEARD", 6, 4, true, gateway_heard },
    { "BACKENDS RUN+WAIT", 0, 2, false, gateway_backends },
};
static const struct part model_parts[] = {
    { "MODEL", 0, 0, false, model_name },    { "RUN", 5, 0, true, running },   { "WAIT", 5, 0, true, waiting },
    { "REQ/S", 6, 1, true, model_requests }, { "IN/S", 6, 3, true, model_in }, { "OUT/S", 6, 1, true, model_out },
    { "FIRST", 6, 1, true, first_p50 },      { "95%", 6, 5, true, first_p95 }, { "99%", 6, 2, true, first_p99 },
    { "WHOLE", 6, 4, true, whole_p50 },      { "99%", 6, 5, true, whole_p99 },
};
static const struct part user_parts[] = {
    { "USER", 0, 0, false, user_name },      { "REQUESTS", 8, 0, true, user_requests },
    { "REFUSED", 7, 1, true, user_refused }, { "TOKENS IN", 9, 2, true, user_in },
    { "TOKENS OUT", 10, 1, true, user_out },
};

/* Tables --------------------------------------------------------------------------------------------------------- */

/* Columns of free width share what the others leave; those of the highest rank go until that is enough. */
static void fit(const struct part *parts, unsigned count, unsigned width, unsigned *ret_widths)
{
    enum { LEAST = 14, GAP = 2 };
    bool is_out[MAX_CELLS] = { false };

    for (;;) {
        unsigned used = 0, flexible = 0, worst = count;

        for (unsigned i = 0; i < count; i++) {
            if (is_out[i])
                continue;
            used += parts[i].width + (i ? GAP : 0);
            flexible += !parts[i].width;
            if (parts[i].rank && (worst == count || parts[i].rank >= parts[worst].rank))
                worst = i;
        }
        if (used + flexible * LEAST > width && worst != count) {
            is_out[worst] = true;
            continue;
        }
        for (unsigned i = 0, left = width > used ? width - used : 0; i < count; i++) {
            ret_widths[i] = is_out[i] ? 0 : parts[i].width;
            if (!is_out[i] && !parts[i].width) {
                bool is_last = flexible == 1;

                ret_widths[i] = is_last ? left : left / 3 < LEAST ? LEAST : left / 3;
                left -= ret_widths[i] < left ? ret_widths[i] : left;
                flexible--;
            }
        }
        return;
    }
}

static void add_row(struct frame *frame, const struct table *table, const unsigned *widths, const json_t *row)
{
    struct text line, cell;
    bool is_bad;

    text_init(&line, CELL_BYTES * MAX_CELLS);
    text_init(&cell, CELL_BYTES);
    for (unsigned i = 0; i < table->count; i++) {
        if (!widths[i])
            continue;
        if (i)
            text_add_literal(&line, "  ");
        text_clear(&cell);
        if (row)
            table->parts[i].add(row, &cell);
        else
            text_add_string(&cell, table->parts[i].title);
        width_add(&line, text_slice(&cell), widths[i], true, table->parts[i].is_right);
    }
    while (line.len && line.at[line.len - 1] == ' ')
        line.len--;
    is_bad = row && table->parts == gateway_parts && !json_is_true(json_object_get(row, "live"));
    add_line(frame, !row ? BOLD : is_bad ? RED : NULL, text_slice(&line));
    text_release(&line);
    text_release(&cell);
}

static void add_table(struct frame *frame, const struct table *table)
{
    unsigned widths[MAX_CELLS];
    size_t count = json_array_size(table->rows);
    char more[64];

    if (table->shown == 0)
        return;
    fit(table->parts, table->count, frame->view->width, widths);
    add_row(frame, table, widths, NULL);
    for (size_t i = 0; i < count && i + 1 < table->shown; i++) {
        if (i + 2 == table->shown && count > i + 1) {
            (void)snprintf(more, sizeof more, "… and %zu more", count - i);
            add_line(frame, DIM, slice_of(more));
            break;
        }
        add_row(frame, table, widths, json_array_get(table->rows, i));
    }
    if (!count)
        add_line(frame, DIM, SLICE("none"));
}

/* Every table has its title and a line; further lines go round by round to those that have rows for them. */
static void share(struct table *tables, unsigned lines)
{
    bool has_given = true;

    for (unsigned i = 0; i < TABLES; i++) {
        unsigned least = i + 1 < TABLES ? 3 : 2; /* and an empty line behind it */

        tables[i].shown = lines >= least ? 2 : 0;
        lines -= lines >= least ? least : lines;
    }
    while (lines && has_given) {
        has_given = false;
        for (unsigned i = 0; i < TABLES && lines; i++) {
            if (tables[i].shown && tables[i].shown < json_array_size(tables[i].rows) + 1) {
                tables[i].shown++;
                lines--;
                has_given = true;
            }
        }
    }
}

/* Head ----------------------------------------------------------------------------------------------------------- */

static double sum_of(const json_t *rows, const char *field)
{
    double sum = 0;
    size_t i;
    json_t *each;

    json_array_foreach(rows, i, each)
    {
        double number = number_of(each, field);

        sum += number > 0 ? number : 0;
    }
    return sum;
}

static void add_head(struct frame *frame)
{
    const struct top_view *view = frame->view;
    const json_t *gateways = json_object_get(view->status, "gateways"), *models = json_object_get(view->load, "models");
    const json_t *database = json_object_get(view->status, "database");
    struct text line, safe;

    text_init(&line, CELL_BYTES * 4);
    text_init(&safe, CELL_BYTES * 16);
    text_add_literal(&line, "qwadm top  ");
    clock_add_wall(&line, view->wall_ms);
    if (line.len > 5) { /* whole seconds */
        line.len -= 5;
        line.at[line.len] = 0;
        text_add_char(&line, 'Z');
    }
    text_printf(&line, "  %s%s", view->server, view->is_live ? "  (q: end)" : "");
    safe_add(&safe, text_slice(&line), false);
    add_line(frame, BOLD, text_slice(&safe));

    text_clear(&line);
    text_clear(&safe);
    if (view->why) {
        text_printf(&line, "no news for %lld s: %s", (long long)(view->age_ms / 1000), view->why);
        safe_add(&safe, text_slice(&line), false);
        add_line(frame, RED, text_slice(&safe));
    } else if (!view->status) {
        add_line(frame, NULL, SLICE("asking the server"));
    } else {
        bool is_up = !json_is_false(json_object_get(database, "up"));

        text_printf(&line, "gateways %.0f live of %.0f, %.0f behind  configuration %.0f", number_of(gateways, "live"),
                    number_of(gateways, "enrolled"), number_of(gateways, "behind"),
                    number_of(view->status, "config_version"));
        if (!is_up)
            text_add_literal(&line, "  DATABASE AWAY");
        add_line(frame, is_up ? NULL : RED, text_slice(&line));
    }

    text_clear(&line);
    text_add_literal(&line, "running ");
    add_count(sum_of(json_object_get(view->load, "gateways"), "running"), &line);
    text_add_literal(&line, "  waiting ");
    add_count(sum_of(json_object_get(view->load, "gateways"), "waiting"), &line);
    text_add_literal(&line, "  requests/s ");
    add_rate(sum_of(models, "requests_per_s"), &line);
    text_add_literal(&line, "  tokens/s in ");
    add_rate(sum_of(models, "prompt_tokens_per_s"), &line);
    text_add_literal(&line, " out ");
    add_rate(sum_of(models, "completion_tokens_per_s"), &line);
    add_line(frame, NULL, text_slice(&line));
    text_release(&line);
    text_release(&safe);
}

static int by_name(const void *one, const void *other)
{
    const char *name = json_string_value(json_object_get(*(json_t *const *)one, "name"));
    const char *other_name = json_string_value(json_object_get(*(json_t *const *)other, "name"));

    return strcmp(name ? name : "", other_name ? other_name : "");
}

/* The same rows, each where it stood the last time. NULL: there are none, or no memory. */
static json_t *sorted(const json_t *rows)
{
    size_t count = json_array_size(rows);
    json_t **each = calloc(count + 1, sizeof(json_t *));
    json_t *again = each ? json_array() : NULL;

    for (size_t i = 0; each && i < count; i++)
        each[i] = json_array_get(rows, i);
    if (each)
        qsort(each, count, sizeof(json_t *), by_name);
    for (size_t i = 0; again && i < count; i++)
        (void)json_array_append(again, each[i]);
    free(each);
    return again;
}

void top_add_frame(const struct top_view *view, struct text *out)
{
    json_t *gateways = sorted(json_object_get(view->load, "gateways"));
    struct top_view sane = *view;
    struct frame frame = { .view = &sane, .out = out };
    struct table tables[TABLES] = {
        { "gateways", gateway_parts, sizeof gateway_parts / sizeof *gateway_parts, gateways, 0 },
        { "models", model_parts, sizeof model_parts / sizeof *model_parts, json_object_get(view->load, "models"), 0 },
        { "users", user_parts, sizeof user_parts / sizeof *user_parts, json_object_get(view->load, "users"), 0 },
    };

    if (sane.width < MIN_WIDTH)
        sane.width = MIN_WIDTH;
    if (sane.height < MIN_HEIGHT)
        sane.height = MIN_HEIGHT;
    add_head(&frame);
    share(tables, sane.height - HEAD_LINES - 1);
    for (unsigned i = 0; view->load && i < TABLES; i++) {
        if (tables[i].shown)
            add_line(&frame, NULL, SLICE(""));
        add_table(&frame, &tables[i]);
    }
    json_decref(gateways);
}
