/* Objects as tables, CSV and JSON. A table is kept until all rows are there, because its columns are as wide as they.
 */
#include <jansson.h>
#include <stdlib.h>

#include "csv.h"
#include "output.h"

enum { MAX_COLUMNS = 32, GAP = 2, LEAST_WIDTH = 8, MAX_CELL = 1 << 28 /* an answer is shorter */ };

struct row {
    struct row *next;
    size_t ends[MAX_COLUMNS]; /* of each cell, in `at` */
    char at[];
};

struct listing {
    struct output *output;
    const struct column *columns;
    size_t count;
    struct row *first, **last;
    uint64_t rows;
};

/* JSON ----------------------------------------------------------------------------------------------------------- */

/* Within JSON text only strings can hold what a terminal would obey, and there an escape means the same. */
void json_add_pretty(struct text *out, const json_t *value, bool is_compact)
{
    char *dumped = json_dumps(value, JSON_ENCODE_ANY | (is_compact ? JSON_COMPACT : JSON_INDENT(2)));
    struct text one;

    if (!dumped) {
        out->err = ERR_NO_MEMORY;
        return;
    }
    text_init(&one, 64);
    for (const char *at = dumped; *at;) {
        size_t bytes = (unsigned char)*at < 0x80   ? 1
                       : (unsigned char)*at < 0xe0 ? 2
                       : (unsigned char)*at < 0xf0 ? 3
                                                   : 4;

        if (*at == '\n' || (bytes == 1 && *at != 0x7f)) {
            text_add(out, at, bytes);
        } else {
            text_clear(&one);
            safe_add(&one, (struct slice){ at, bytes }, false);
            if (one.len > 2 && text_string(&one)[0] == '\\') {
                unsigned long c = strtoul(text_string(&one) + 2, NULL, 16);

                if (c > 0xffff)
                    text_printf(out, "\\u%04lx\\u%04lx", 0xd800 + ((c - 0x10000) >> 10),
                                0xdc00 + ((c - 0x10000) & 0x3ff));
                else
                    text_printf(out, "\\u%04lx", c);
            } else {
                text_add(out, at, bytes);
            }
        }
        at += bytes;
    }
    text_release(&one);
    free(dumped);
}

/* Cells ---------------------------------------------------------------------------------------------------------- */

static void add_value(const json_t *value, struct text *out)
{
    char *dumped;

    switch (json_typeof(value)) {
    case JSON_STRING:
        safe_add(out, (struct slice){ json_string_value(value), json_string_length(value) }, false);
        break;
    case JSON_ARRAY:
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i)
                text_add_char(out, ' ');
            add_value(json_array_get(value, i), out);
        }
        break;
    case JSON_NULL:
        break;
    default:
        dumped = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        if (dumped)
            safe_add(out, slice_of(dumped), false);
        free(dumped);
    }
}

/* "2026-11-23T04:00:00Z" is "2026-11-23 04:00Z" in a table. */
static void add_time(const char *time, struct text *out)
{
    if (strlen(time) < strlen("2026-11-23T04:00") || time[10] != 'T')
        safe_add(out, slice_of(time), false);
    else
        text_printf(out, "%.10s %.5sZ", time, time + 11);
}

void cell_add(const struct column *column, const json_t *object, bool is_table, struct text *out)
{
    const json_t *value = json_object_get(object, column->field);

    if (!value || json_is_null(value)) {
        if (is_table && column->otherwise)
            text_add_string(out, column->otherwise);
    } else if (column->cell == CELL_TIME && is_table && json_is_string(value)) {
        add_time(json_string_value(value), out);
    } else if (column->cell == CELL_YES && json_is_boolean(value) && is_table) {
        text_add_string(out, json_is_true(value) ? "yes" : "");
    } else {
        add_value(value, out);
    }
}

/* Table ---------------------------------------------------------------------------------------------------------- */

static enum err keep_row(struct listing *listing, const json_t *object)
{
    size_t ends[MAX_COLUMNS];
    struct text cells;
    struct row *row;

    text_init(&cells, (size_t)MAX_CELL * 4);
    for (size_t i = 0; i < listing->count; i++) {
        if (listing->columns[i].title)
            cell_add(&listing->columns[i], object, true, &cells);
        ends[i] = cells.len;
    }
    row = cells.err ? NULL : malloc(sizeof *row + cells.len + 1);
    if (row) {
        row->next = NULL;
        memcpy(row->ends, ends, sizeof ends);
        memcpy(row->at, text_string(&cells), cells.len + 1);
        *listing->last = row;
        listing->last = &row->next;
    }
    text_release(&cells);
    return row ? ERR_OK : ERR_NO_MEMORY;
}

static struct slice cell_of(const struct row *row, size_t i)
{
    size_t start = i ? row->ends[i - 1] : 0;

    return (struct slice){ row->at + start, row->ends[i] - start };
}

static unsigned sum_of(const unsigned *widths, size_t count)
{
    unsigned sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += widths[i] ? widths[i] + (sum ? GAP : 0) : 0;
    return sum;
}

/* The widest column gives way, but none becomes narrower than its title or LEAST_WIDTH. False: they cannot. */
static bool squeeze(const struct listing *listing, unsigned *widths, const unsigned *least)
{
    unsigned sum;

    while ((sum = sum_of(widths, listing->count)) > listing->output->width) {
        size_t widest = listing->count;

        for (size_t i = 0; i < listing->count; i++)
            if (widths[i] > least[i] && (widest == listing->count || widths[i] > widths[widest]))
                widest = i;
        if (widest == listing->count)
            return false;
        widths[widest]--;
    }
    return true;
}

/* What no room is left for goes by rank, and what stays gets what that gave free. */
static void fit(const struct listing *listing, unsigned *widths, bool *ret_left_out)
{
    unsigned natural[MAX_COLUMNS], least[MAX_COLUMNS];

    *ret_left_out = false;
    if (!listing->output->width)
        return;
    for (size_t i = 0; i < listing->count; i++) {
        unsigned title = listing->columns[i].title ? width_of(slice_of(listing->columns[i].title)) : 0;

        natural[i] = widths[i];
        least[i] = widths[i] < LEAST_WIDTH ? widths[i] : LEAST_WIDTH > title ? LEAST_WIDTH : title;
        if (listing->columns[i].cell == CELL_TIME || listing->columns[i].cell == CELL_NUMBER)
            least[i] = widths[i];
    }
    while (!squeeze(listing, widths, least)) {
        size_t worst = listing->count;

        for (size_t i = 0; i < listing->count; i++)
            if (natural[i] && listing->columns[i].rank &&
                (worst == listing->count || listing->columns[i].rank >= listing->columns[worst].rank))
                worst = i;
        if (worst < listing->count) {
            natural[worst] = least[worst] = 0;
            *ret_left_out = true;
        } else {
            bool has_narrowed = false;

            for (size_t i = 0; i < listing->count; i++) /* a terminal of few columns: titles are cut as well */
                if (least[i] > 3) {
                    least[i]--;
                    has_narrowed = true;
                }
            if (!has_narrowed)
                return;
        }
        memcpy(widths, natural, sizeof natural);
    }
}

static const char *colour_of(struct slice state)
{
    static const char *const good[] = { "active", "live", "leader", "up", "yes", "owner" };
    static const char *const bad[] = { "revoked", "expired", "silent", "behind", "down", "removed", "disabled" };

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (slice_is(state, slice_of(good[i])))
            return "\x1b[32m";
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (slice_is(state, slice_of(bad[i])))
            return "\x1b[31m";
    return NULL;
}

static void add_line(const struct listing *listing, const struct row *row, const unsigned *widths, struct text *out)
{
    size_t begun = out->len, last = 0;

    for (size_t i = 0; i < listing->count; i++)
        if (widths[i])
            last = i;
    for (size_t i = 0; i < listing->count; i++) {
        const struct column *column = &listing->columns[i];
        struct slice cell = row ? cell_of(row, i) : slice_of(column->title);
        const char *colour = row && column->cell == CELL_STATE && listing->output->has_colour ? colour_of(cell) : NULL;

        if (!widths[i])
            continue;
        if (out->len != begun)
            text_add(out, "  ", GAP);
        if (!row && listing->output->has_colour)
            colour = "\x1b[1m";
        if (colour)
            text_add_string(out, colour);
        width_add(out, cell, widths[i], i != last || column->cell == CELL_NUMBER, column->cell == CELL_NUMBER);
        if (colour)
            text_add_literal(out, "\x1b[0m");
    }
    while (out->len > begun && out->at[out->len - 1] == ' ')
        out->len--;
    text_add_char(out, '\n');
}

static enum err print_table(struct listing *listing)
{
    unsigned widths[MAX_COLUMNS] = { 0 };
    bool has_left_out;
    struct text out;
    enum err err;

    if (!listing->first)
        return ERR_OK;
    for (size_t i = 0; i < listing->count; i++) {
        if (!listing->columns[i].title)
            continue;
        widths[i] = width_of(slice_of(listing->columns[i].title));
        for (const struct row *row = listing->first; row; row = row->next) {
            unsigned width = width_of(cell_of(row, i));

            if (width > widths[i])
                widths[i] = width;
        }
    }
    fit(listing, widths, &has_left_out);
    text_init(&out, (size_t)1 << 30);
    add_line(listing, NULL, widths, &out);
    for (const struct row *row = listing->first; row; row = row->next)
        add_line(listing, row, widths, &out);
    err = out.err ? out.err : output_write(listing->output, text_slice(&out));
    text_release_wiped(&out);
    return err;
}

/* Any format ----------------------------------------------------------------------------------------------------- */

static void add_titles(const struct listing *listing, struct text *out)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (i)
            text_add_char(out, ',');
        csv_add_cell(out, slice_of(listing->columns[i].field));
    }
    csv_add_end(out);
}

static void add_csv(const struct listing *listing, const json_t *object, struct text *out)
{
    struct text cell;

    text_init(&cell, MAX_CELL);
    for (size_t i = 0; i < listing->count; i++) {
        const json_t *value = json_object_get(object, listing->columns[i].field);

        if (i)
            text_add_char(out, ',');
        text_clear_wiped(&cell);
        cell_add(&listing->columns[i], object, false, &cell);
        if (value && json_is_number(value))
            text_add_slice(out, text_slice(&cell)); /* -1 is no formula */
        else
            csv_add_cell(out, text_slice(&cell));
        if (cell.err)
            out->err = cell.err;
    }
    csv_add_end(out);
    text_release_wiped(&cell);
}

struct listing *listing_begin(struct output *output, const struct column *columns, size_t count)
{
    struct listing *listing = calloc(1, sizeof *listing);
    struct text out;

    if (!listing || count > MAX_COLUMNS) {
        free(listing);
        return NULL;
    }
    *listing = (struct listing){ .output = output, .columns = columns, .count = count, .last = &listing->first };
    if (output->format == OUTPUT_CSV) {
        text_init(&out, 1 << 16);
        add_titles(listing, &out);
        (void)output_write(output, text_slice(&out));
        text_release(&out);
    }
    return listing;
}

enum err listing_add(struct listing *listing, const json_t *object)
{
    struct text out;
    enum err err;

    listing->rows++;
    if (listing->output->format == OUTPUT_TABLE)
        return keep_row(listing, object);
    text_init(&out, (size_t)MAX_CELL * 4);
    if (listing->output->format == OUTPUT_CSV) {
        add_csv(listing, object, &out);
    } else {
        text_add_string(&out, listing->rows == 1 ? "[\n" : ",\n");
        json_add_pretty(&out, object, true);
    }
    err = out.err ? out.err : output_write(listing->output, text_slice(&out));
    text_release_wiped(&out);
    return err;
}

enum err listing_end(struct listing *listing)
{
    enum err err = ERR_OK;

    if (listing->output->format == OUTPUT_TABLE)
        err = print_table(listing);
    else if (listing->output->format == OUTPUT_JSON)
        err = output_write(listing->output, listing->rows ? SLICE("\n]\n") : SLICE("[]\n"));
    for (struct row *row = listing->first, *next; row; row = next) {
        next = row->next;
        free(row);
    }
    free(listing);
    return err;
}

static enum err print_fields(struct output *output, const struct column *columns, size_t count, const json_t *object)
{
    size_t widest = 0;
    struct text out, cell;
    enum err err;

    text_init(&out, (size_t)MAX_CELL * 4);
    text_init(&cell, MAX_CELL);
    for (size_t i = 0; i < count; i++)
        if (strlen(columns[i].field) > widest)
            widest = strlen(columns[i].field);
    for (size_t i = 0; i < count; i++) {
        struct column column = columns[i];
        const char *colour = NULL;

        text_clear_wiped(&cell);
        if (column.cell == CELL_TIME)
            column.cell = CELL_TEXT; /* to the second */
        cell_add(&column, object, true, &cell);
        if (!cell.len)
            continue;
        if (output->has_colour && columns[i].cell == CELL_STATE)
            colour = colour_of(text_slice(&cell));
        text_printf(&out, "%-*s  %s", (int)widest, columns[i].field, colour ? colour : "");
        text_add_slice(&out, text_slice(&cell));
        text_add_string(&out, colour ? "\x1b[0m\n" : "\n");
    }
    err = out.err ? out.err : output_write(output, text_slice(&out));
    text_release_wiped(&cell);
    text_release_wiped(&out);
    return err;
}

enum err output_object(struct output *output, const struct column *columns, size_t count, const json_t *object)
{
    struct listing *listing;
    struct text out;
    enum err err;

    if (output->format == OUTPUT_TABLE)
        return print_fields(output, columns, count, object);
    if (output->format == OUTPUT_CSV) {
        listing = listing_begin(output, columns, count);
        if (!listing)
            return ERR_NO_MEMORY;
        err = listing_add(listing, object);
        return listing_end(listing) == ERR_OK ? err : ERR_SYSTEM;
    }
    text_init(&out, (size_t)MAX_CELL * 4);
    json_add_pretty(&out, object, false);
    text_add_char(&out, '\n');
    err = out.err ? out.err : output_write(output, text_slice(&out));
    text_release_wiped(&out);
    return err;
}
