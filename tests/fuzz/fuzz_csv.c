/* Any bytes as CSV: read to their end, and what was read is the same when it is written and read again. */
#include <stdint.h>
#include <stdlib.h>

#include "csv.h"

/* assert() would be nothing in a release build. */
static void must(bool is_so)
{
    if (!is_so)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct csv csv, again;
    struct csv_record record, second;
    unsigned line = 0;
    struct text out;

    csv_open(&csv, (struct slice){ (const char *)data, size });
    csv_record_init(&record);
    csv_record_init(&second);
    text_init(&out, size * 3 + 4096);
    while (csv_next(&csv, &record)) {
        must(record.line > line);
        line = record.line;
        if (record.why)
            continue;
        text_clear(&out);
        for (unsigned i = 0; i < record.count; i++) {
            if (i)
                text_add_char(&out, ',');
            csv_add_cell(&out, record.cells[i]);
        }
        csv_add_end(&out);
        if (out.len >= 3 && memcmp(out.at, "\xef\xbb\xbf", 3) == 0)
            continue; /* the first cell begins as a mark does */
        csv_open(&again, text_slice(&out));
        if (!csv_next(&again, &second)) {
            must(record.count == 1 && record.cells[0].len == 0); /* a line with nothing on it */
            continue;
        }
        must(!second.why);
        must(second.count == record.count);
        for (unsigned i = 0; i < record.count; i++) {
            struct slice cell = second.cells[i];

            if (cell.len == record.cells[i].len + 1 && cell.at[0] == '\'') /* it would have been a formula */
                cell = (struct slice){ cell.at + 1, cell.len - 1 };
            must(slice_is(cell, record.cells[i]));
        }
    }
    must(csv.at == csv.end);
    csv_record_release(&record);
    csv_record_release(&second);
    text_release(&out);
    return 0;
}
