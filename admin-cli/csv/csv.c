#include "csv.h"

void csv_open(struct csv *csv, struct slice text)
{
    static const char mark[] = "\xef\xbb\xbf";

    *csv = (struct csv){ text.at, text.at + text.len, 1 };
    if (slice_starts(text, SLICE(mark)))
        csv->at += sizeof mark - 1;
}

void csv_record_init(struct csv_record *record)
{
    *record = (struct csv_record){ 0 };
    text_init(&record->memory, (size_t)16 << 20);
}

void csv_record_release(struct csv_record *record)
{
    text_release_wiped(&record->memory);
}

/* Passes over the end of a line, if one stands here. */
static bool ends_line(struct csv *csv)
{
    if (csv->at != csv->end && *csv->at == '\r' && csv->at + 1 != csv->end && csv->at[1] == '\n')
        csv->at++;
    if (csv->at == csv->end || *csv->at != '\n')
        return false;
    csv->at++;
    csv->line++;
    return true;
}

static bool stands_at_end_of_line(const struct csv *csv)
{
    return csv->at == csv->end || *csv->at == '\n' ||
           (*csv->at == '\r' && csv->at + 1 != csv->end && csv->at[1] == '\n');
}

static void skip_line(struct csv *csv)
{
    const char *end = memchr(csv->at, '\n', (size_t)(csv->end - csv->at));

    csv->at = end ? end : csv->end;
    (void)ends_line(csv);
}

/* Behind the opening quote. What it holds is put into `memory`, which may move: the cell is told by where it begins. */
static const char *read_quoted(struct csv *csv, struct text *memory)
{
    for (;;) {
        if (csv->at == csv->end)
            return "a quote is opened and not closed";
        if (*csv->at == '"') {
            csv->at++;
            if (csv->at == csv->end || *csv->at != '"')
                break;
        }
        csv->line += *csv->at == '\n';
        text_add_char(memory, *csv->at++);
    }
    if (memory->err)
        return "it is too long";
    return stands_at_end_of_line(csv) || *csv->at == ',' ? NULL : "something follows a closing quote";
}

static const char *read_plain(struct csv *csv, struct slice *ret_cell)
{
    const char *start = csv->at;

    while (!stands_at_end_of_line(csv) && *csv->at != ',') {
        if (*csv->at == '"')
            return "a quote stands within a cell that does not begin with one";
        csv->at++;
    }
    *ret_cell = (struct slice){ start, (size_t)(csv->at - start) };
    return NULL;
}

static void read_cells(struct csv *csv, struct csv_record *record)
{
    size_t starts[CSV_MAX_CELLS];
    bool is_quoted[CSV_MAX_CELLS];

    do {
        unsigned i = record->count;

        if (i == CSV_MAX_CELLS) {
            record->why = "it has too many cells";
            break;
        }
        is_quoted[i] = csv->at != csv->end && *csv->at == '"';
        starts[i] = record->memory.len;
        if (is_quoted[i]) {
            csv->at++;
            record->why = read_quoted(csv, &record->memory);
            record->cells[i].len = record->memory.len - starts[i];
        } else {
            record->why = read_plain(csv, &record->cells[i]);
        }
        record->count++;
    } while (!record->why && csv->at != csv->end && *csv->at == ',' && csv->at++);
    for (unsigned i = 0; i < record->count && !record->why; i++)
        if (is_quoted[i])
            record->cells[i].at = text_string(&record->memory) + starts[i];
}

bool csv_next(struct csv *csv, struct csv_record *record)
{
    while (ends_line(csv))
        ;
    if (csv->at == csv->end)
        return false;
    text_clear_wiped(&record->memory);
    record->line = csv->line;
    record->count = 0;
    record->why = NULL;
    read_cells(csv, record);
    if (record->why)
        skip_line(csv);
    else
        (void)ends_line(csv);
    return true;
}

void csv_add_cell(struct text *out, struct slice cell)
{
    bool is_formula = cell.len && memchr("=+-@\t\r", cell.at[0], 6);
    bool needs_quotes = false;

    for (size_t i = 0; i < cell.len; i++)
        if (memchr("\",\r\n", cell.at[i], 4))
            needs_quotes = true;
    if (cell.len && (cell.at[0] == ' ' || cell.at[cell.len - 1] == ' '))
        needs_quotes = true;
    if (!needs_quotes) {
        if (is_formula)
            text_add_char(out, '\'');
        text_add_slice(out, cell);
        return;
    }
    text_add_char(out, '"');
    if (is_formula)
        text_add_char(out, '\'');
    for (size_t i = 0; i < cell.len; i++) {
        if (cell.at[i] == '"')
            text_add_char(out, '"');
        text_add_char(out, cell.at[i]);
    }
    text_add_char(out, '"');
}

void csv_add_end(struct text *out)
{
    text_add_literal(out, "\r\n");
}
